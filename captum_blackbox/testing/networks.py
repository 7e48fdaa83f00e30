"""Small random networks whose parts can be taken apart, and images for them."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from captum_blackbox.errors import check_choice

Kind: TypeAlias = Literal["conv", "dense"]
"""What a small network is made of."""

CHANNELS, SIDE, CLASSES = 3, 7, 4
"""Of the images and networks of the axioms, unless something else is asked for."""

_BIAS, _SURE = 0.4, 2.0  # spread of biases; of the scores: sure of a class, as if trained


class SmallNetwork(nn.Module):
    """Convolutions, flattened, then linear layers; every part in a list.

    Each ReLU is a module of its own and runs once, so that methods with hooks can explain it.
    Flattening is no module: Captum's LRP knows none.

    Args:
        features: Layers on images.
        head: Layers on vectors.

    Example:
        >>> network = SmallNetwork([nn.Conv2d(3, 2, 3), nn.ReLU()], [nn.Linear(8, 5)])
        >>> network(torch.zeros(1, 3, 4, 4)).shape
        torch.Size([1, 5])
    """

    def __init__(self, features: Iterable[nn.Module], head: Iterable[nn.Module]) -> None:
        super().__init__()
        on_images = list(features)  # an empty Sequential is a module without a rule for LRP
        self.features = nn.Sequential(*on_images) if on_images else None
        self.head = nn.Sequential(*head)

    def forward(self, images: Tensor) -> Tensor:
        """Return one score per class, ``(N, classes)``."""
        seen = images if self.features is None else self.features(images)
        scores: Tensor = self.head(seen.flatten(1))
        return scores

    def parts(self) -> list[nn.Module]:
        """Return the layers in the order in which they run."""
        return [*(self.features or ()), *self.head]


def small_network(
    seed: int = 0,
    *,
    kind: Kind = "conv",
    units: int = 6,
    relu: bool = True,
    batch_norm: bool = False,
    max_pool: bool = False,
    bias: bool = True,
    padding: int = 0,
    classes: int = CLASSES,
    side: int = SIDE,
    dtype: torch.dtype = torch.float64,
) -> SmallNetwork:
    """Return a random network on images ``(N, 3, side, side)``, in evaluation mode.

    Two convolutions and a linear layer, or two linear layers. It is in double precision by default,
    so that an axiom that holds does so far within any tolerance.

    Args:
        seed: Of the weights; the global random state is left alone.
        kind: ``"conv"`` or ``"dense"``.
        units: Width of each hidden layer.
        relu: Whether there are ReLUs; without them the network is linear.
        batch_norm: Normalise before each ReLU, with random statistics. Only ``"conv"``.
        max_pool: Take the largest of 2×2 neighbours behind the first convolution. Only ``"conv"``.
        bias: Whether layers have biases.
        padding: Zeros around the input of each convolution.
        classes: Number of scores.
        side: Height and width of the images, at least 6.
        dtype: Of the weights.

    Raises:
        InputError: ``kind`` is unknown.

    Example:
        >>> [type(part).__name__ for part in small_network(kind="dense").parts()]
        ['Linear', 'ReLU', 'Linear']
    """
    check_choice("kind", kind, get_args(Kind))
    with seeded(seed):
        if kind == "dense":
            features: list[nn.Module] = []
            hidden: list[nn.Module] = [nn.Linear(CHANNELS * side**2, units, bias=bias)]
            hidden += [nn.ReLU()] if relu else []
            wide = units
        else:
            hidden = []
            features = _convolution(CHANNELS, units, bias, padding, batch_norm, relu)
            features += [nn.MaxPool2d(2, stride=1)] if max_pool else []
            features += _convolution(units, units, bias, padding, batch_norm, relu)
            first = side - 2 + 2 * padding
            wide = units * ((first - 1 if max_pool else first) - 2 + 2 * padding) ** 2
        network = SmallNetwork(features, [*hidden, nn.Linear(wide, classes, bias=bias)])
        _draw(network)
    return network.to(dtype).eval()


def some_images(
    count: int = 4,
    seed: int = 0,
    *,
    side: int = SIDE,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """Return random images ``(count, 3, side, side)``, normally distributed.

    Example:
        >>> some_images(2).shape
        torch.Size([2, 3, 7, 7])
    """
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, CHANNELS, side, side, generator=generator, dtype=dtype)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from ``seed`` in the block, and put torch's random state on the CPU back behind it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _convolution(
    channels: int, units: int, bias: bool, padding: int, batch_norm: bool, relu: bool
) -> list[nn.Module]:
    layers: list[nn.Module] = [nn.Conv2d(channels, units, 3, padding=padding, bias=bias)]
    if batch_norm:
        layers.append(nn.BatchNorm2d(units))
    return [*layers, nn.ReLU()] if relu else layers


def _draw(network: SmallNetwork) -> None:
    """Draw weights that keep the size of what they are given, and statistics of batch norm."""
    with torch.no_grad():
        for part in network.parts():
            if isinstance(part, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(part.weight)
                if part.bias is not None:
                    part.bias.normal_(std=_BIAS)
            elif isinstance(part, nn.BatchNorm2d):
                nn.init.uniform_(part.weight, 0.5, 1.5)
                nn.init.normal_(part.bias, std=_BIAS)
                part.running_mean.normal_(std=_BIAS)  # type: ignore[union-attr]
                part.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
        for weights in network.parts()[-1].parameters():
            weights.mul_(_SURE)
