"""The network that comes with the library, so that everything can be tried without a download."""

from importlib import resources

import torch
from safetensors.torch import load
from torch import nn

from captum_blackbox.concepts import SCENE_CLASSES
from captum_blackbox.shapes import Images, Logits

WEIGHTS_FILE = "weights.safetensors"

_WIDTHS = (32, 32, 48, 48, 64, 96, 96)
_HALVING = (0, 2, 5)  # positions of the blocks that halve height and width


class DemoNetwork(nn.Module):
    """A plain convolutional network that tells the object classes of scenes apart.

    Seven blocks of convolution, batch normalization and ReLU, then the mean over places and one
    linear layer. It takes images as they are, in [0, 1]; every module runs once per forward pass,
    and none works in place, so that any of them can be hooked. The last block's map has an eighth
    of the image's height and width.

    Args:
        classes: How many classes to tell apart.
        widths: Channels of the seven blocks.

    Example:
        >>> DemoNetwork()(torch.rand(2, 3, 64, 64)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self, classes: int = len(SCENE_CLASSES), widths: tuple[int, ...] = _WIDTHS
    ) -> None:
        super().__init__()
        inputs = (3, *widths[:-1])
        self.features = nn.Sequential(
            *(
                _block(before, after, stride=2 if position in _HALVING else 1)
                for position, (before, after) in enumerate(zip(inputs, widths, strict=True))
            )
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = nn.Linear(widths[-1], classes)

    def forward(self, images: Images) -> Logits:
        """Return the logits.

        Args:
            images: Shape (N, 3, H, W) in [0, 1], of any height and width.

        Returns:
            Logits, shape (N, classes).
        """
        logits: Logits = self.classifier(self.flatten(self.pool(self.features(images))))
        return logits


def _block(before: int, after: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, kernel_size=3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(),
    )


def load_demo_network(device: torch.device | str | None = None) -> DemoNetwork:
    """Load the network with the weights that come with the library.

    Args:
        device: Where to put it; the CPU if not given.

    Returns:
        The network in evaluation mode.

    Example:
        >>> from captum_blackbox.concepts import Scenes
        >>> scenes = Scenes(8, seed=1)
        >>> prediction = load_demo_network()(scenes.images).argmax(dim=1)
        >>> (prediction == scenes.labels).float().mean().item()
        1.0
    """
    weights = resources.files("captum_blackbox.demo").joinpath(WEIGHTS_FILE).read_bytes()
    network = DemoNetwork()
    network.load_state_dict(load(weights))
    return network.to(device).eval()
