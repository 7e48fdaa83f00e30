"""The deletion game against the forward passes that it needs."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torchvision
from harness import Contestant, arguments, race, result, save
from torch import Tensor, nn

from captum_blackbox import BlackBox, metrics
from captum_blackbox.demo import load_demo_network

STEPS = 28
GOAL = 1.10


def forwards(model: nn.Module, batches: list[Tensor]) -> Callable[[], object]:
    """Return the floor: the model on batches that lie ready."""

    def call() -> None:
        with torch.no_grad():
            for batch in batches:
                model(batch)

    return call


def one_by_one(model: nn.Module, images: Tensor, maps: Tensor, step: int) -> Callable[[], object]:
    """Return the loop that RISE describes: image by image, step by step, in place.

    Written from the description of the game: each step copies the next pixels over and asks the
    model about that one image.
    """
    pixels = images.shape[2] * images.shape[3]

    def call() -> list[list[float]]:
        curves = []
        with torch.no_grad():
            for image, saliency in zip(images, maps, strict=True):
                order = np.argsort(-saliency.cpu().numpy().reshape(-1))
                state, finish = image.clone(), torch.zeros_like(image)
                target = int(model(image[None]).argmax())
                curve = []
                for first in range(0, pixels + step, step):
                    curve.append(float(model(state[None]).softmax(1)[0, target]))
                    chosen = order[first : first + step].copy()
                    state.reshape(len(state), -1)[:, chosen] = finish.reshape(len(state), -1)[
                        :, chosen
                    ]
                curves.append(curve)
        return curves

    return call


def quantus(
    model: nn.Module, images: Tensor, maps: Tensor, targets: Tensor, features: int
) -> Callable[[], object]:
    """Return Quantus' PixelFlipping, which takes single values, not pixels, away."""
    from quantus import PixelFlipping

    metric = PixelFlipping(
        features_in_step=features, normalise=False, perturb_baseline=0.0, disable_warnings=True
    )
    arrays: dict[str, Any] = {
        "x_batch": images.cpu().numpy(),
        "y_batch": targets.cpu().numpy(),
        "a_batch": maps.cpu().numpy(),
    }
    return lambda: metric(
        model=model, **arrays, softmax=True, channel_first=True, device=str(images.device)
    )


def race_on(name: str, model: nn.Module, images: Tensor, rounds: int, device: str) -> dict:
    """Race on one network; the time is that of one forward of one image."""
    model = model.eval().requires_grad_(False).to(device)
    images = images.to(device)
    count, channels, height, width = images.shape
    pixels = height * width
    step = math.ceil(pixels / STEPS)
    maps = torch.rand(count, 1, height, width, device=device)
    with torch.no_grad():
        targets = model(images).argmax(1)
    box = BlackBox(model, output="logits")
    asked = count * (math.ceil(pixels / step) + 1)
    ready = torch.rand(asked, channels, height, width, device=device).split(box.batch_size)
    others = [
        Contestant(
            f"captum_blackbox metrics.{game.__name__}",
            lambda game=game: game(box, images, maps, targets, step=step),
            units=asked,
            goal=GOAL,
            ours=True,
        )
        for game in (metrics.deletion, metrics.insertion)
    ]
    # The batch size is the user's: a processor likes few large images at a time.
    small_box = BlackBox(model, output="logits", batch_size=4)
    others.append(
        Contestant(
            "captum_blackbox metrics.deletion, batches of 4",
            lambda: metrics.deletion(small_box, images, maps, targets, step=step),
            units=asked,
            ours=True,
        )
    )
    # One more question per image: the class is not given.
    loop = one_by_one(model, images, maps, step)
    others.append(Contestant("RISE's loop, one image at a time", loop, units=asked + count))
    unavailable = {}
    try:
        # Values per step that divide the pixels, as it demands: 24 steps, as many questions.
        peer = quantus(model, images, maps, targets, pixels * channels // 24)
        others.append(Contestant("Quantus PixelFlipping", peer, units=24 * count))
    except ImportError as error:
        unavailable["Quantus PixelFlipping"] = str(error)
    return race(
        "deletion / insertion curve, per question",
        Contestant("the forwards alone", forwards(model, list(ready)), units=asked),
        others,
        rounds=rounds,
        device=device,
        setting={"network": name, "images": count, "batch": box.batch_size, "size": height},
        unavailable=unavailable,
    )


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--large", type=int, default=2, help="images of 224 pixels")
    parser.add_argument("--small", type=int, default=16, help="images of 64 pixels")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    warnings.simplefilter("ignore")
    squeezenet = torchvision.models.squeezenet1_0(weights=None)
    subjects = [
        ("squeezenet1_0", squeezenet, torch.randn(given.large, 3, 224, 224)),
        ("demo", load_demo_network(), torch.rand(given.small, 3, 64, 64)),
    ]
    rows = [race_on(*subject, given.rounds, given.device) for subject in subjects]
    print(save("deletion", given.device, result("deletion", given.device, rows, given.rounds)))


if __name__ == "__main__":
    main()
