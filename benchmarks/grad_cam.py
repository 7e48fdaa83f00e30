"""All-layer Grad-CAM of every convolution against one forward and backward pass."""

import warnings
from collections.abc import Callable

import torch
import torchvision
from captum.attr import LayerAttribution, LayerGradCam
from harness import Contestant, arguments, race, result, save
from torch import Tensor, nn

from captum_blackbox import LayerSumGradCAM

GOALS = {"resnet18": 1.0, "squeezenet1_0": 1.15, "vgg11": 1.15}


def forward_and_backward(model: nn.Module, images: Tensor) -> Callable[[], object]:
    """Return the floor: the scores, and their gradient with respect to the images."""

    def call() -> object:
        inputs = images.clone().requires_grad_()
        return torch.autograd.grad(model(inputs)[:, 0].sum(), inputs)

    return call


def captum_loop(model: nn.Module, images: Tensor, layers: list[nn.Module]) -> Callable[[], object]:
    """Return Captum's Grad-CAM for one layer after the other, enlarged and added up."""

    def call() -> object:
        total = torch.zeros_like(images[:, :1])
        for layer in layers:
            maps = LayerGradCam(model, layer).attribute(images, 0, relu_attributions=True)
            total += LayerAttribution.interpolate(maps, images.shape[2:], "bilinear")
        return total

    return call


def pytorch_grad_cam(
    model: nn.Module, images: Tensor, layers: list[nn.Module]
) -> Callable[[], object]:
    """Return pytorch-grad-cam with a list of layers; each layer is scaled, then averaged."""
    import cv2
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    cv2.setNumThreads(1)
    targets = [ClassifierOutputTarget(0)] * len(images)

    def call() -> object:
        # Its hooks must be gone before another contestant runs.
        with GradCAM(model=model, target_layers=layers) as cam:
            return cam(input_tensor=images, targets=targets)

    return call


def race_on(name: str, batch: int, rounds: int, device: str) -> dict:
    """Race on one network and one batch size.

    The network is torchvision's, in-place ReLUs included. Its parameters need no gradient: without
    that pytorch-grad-cam, which calls ``backward``, would compute theirs as well.
    """
    torch.manual_seed(0)
    model = getattr(torchvision.models, name)(weights=None).eval().requires_grad_(False).to(device)
    images = torch.randn(batch, 3, 224, 224, device=device)
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    ours = LayerSumGradCAM(model)
    others = [
        Contestant(
            "captum_blackbox LayerSumGradCAM",
            lambda: ours.attribute(images, target=0),
            goal=GOALS[name],
            ours=True,
        ),
        Contestant(
            "Captum LayerGradCam, layer by layer", captum_loop(model, images, layers), rounds=3
        ),
    ]
    unavailable = {}
    try:
        # Its hooks keep gradients only where something needs one: the images.
        peer = pytorch_grad_cam(model, images.clone().requires_grad_(), layers)
        others.append(Contestant("pytorch-grad-cam, list of layers", peer))
    except ImportError as error:
        unavailable["pytorch-grad-cam, list of layers"] = str(error)
    return race(
        "all-layer Grad-CAM, every conv",
        Contestant("forward + backward to the input", forward_and_backward(model, images)),
        others,
        rounds=rounds,
        device=device,
        setting={"network": name, "layers": len(layers), "batch": batch, "size": 224},
        unavailable=unavailable,
    )


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--networks", nargs="+", default=list(GOALS))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 4])
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    warnings.simplefilter("ignore")
    rows = [
        race_on(name, batch, given.rounds, given.device)
        for name in given.networks
        for batch in given.batches
    ]
    print(save("grad_cam", given.device, result("grad_cam", given.device, rows, given.rounds)))


if __name__ == "__main__":
    main()
