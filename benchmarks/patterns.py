"""PatternAttribution against a gradient, and fitting patterns against a forward pass."""

import ctypes
import gc
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision
from captum.attr import GuidedBackprop
from harness import Contestant, arguments, race, result, save
from torch import Tensor, nn
from zennit.attribution import Gradient
from zennit.composites import EpsilonPlusFlat, NameMapComposite
from zennit.core import BasicHook

from captum_blackbox.patterns import PatternAttribution, Patterns, fit_patterns
from captum_blackbox.patterns.batch_norm import folded

ATTRIBUTE_GOAL, POSITIVE_GOAL, ALL_GOAL = 1.10, 2.4, 4.0
BATCHES = 12  # of a fit; what is done once for all of them is spread over so many
NETWORKS = ("squeezenet1_0", "resnet18", "vgg11")


def network(name: str, device: str) -> nn.Module:
    """Return a network with random weights, out of place, so that Zennit and Captum take it."""
    torch.manual_seed(0)
    model = getattr(torchvision.models, name)(weights=None).eval().requires_grad_(False)
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return model.to(device)


def forward_and_backward(model: nn.Module, images: Tensor) -> Callable[[], object]:
    """Return the floor: the scores, and their gradient with respect to the images."""

    def call() -> object:
        inputs = images.clone().requires_grad_()
        return torch.autograd.grad(model(inputs)[:, 0].sum(), inputs)

    return call


def by_zennit(model: nn.Module, composite: object, images: Tensor) -> Callable[[], object]:
    """Return an attribution of class 0 by Zennit."""
    seed = torch.zeros(len(images), 1000, device=images.device)
    seed[:, 0] = 1

    def call() -> object:
        with Gradient(model, composite) as attributor:
            return attributor(images.clone(), seed)

    return call


def same_rule_on_basic_hook(model: nn.Module, patterns: Patterns) -> NameMapComposite:
    """Return PatternAttribution as a user of Zennit would write it, for networks without BN."""
    hooks = []
    for name, pattern in patterns.items():
        product = pattern * folded(model.get_submodule(name))[0].to(pattern)
        hooks.append(
            (
                [name],
                BasicHook(
                    param_modifiers=[
                        lambda weight, key, product=product: product if key == "weight" else weight
                    ],
                    gradient_mapper=lambda gradient, _: [gradient],
                    reducer=lambda _, gradients: gradients[0],
                ),
            )
        )
    return NameMapComposite(hooks)


def attribution_race(name: str, batch: int, rounds: int, device: str) -> dict:
    """Race PatternAttribution on one network."""
    model = network(name, device)
    images = torch.randn(batch, 3, 224, 224, device=device)
    patterns = Patterns.fit(model, images, regime="filter", show_progress=False)
    ours = PatternAttribution(model, patterns)
    others = [
        Contestant(
            "captum_blackbox PatternAttribution",
            lambda: ours.attribute(images, target=0),
            goal=ATTRIBUTE_GOAL,
            ours=True,
        ),
        Contestant("Zennit EpsilonPlusFlat", by_zennit(model, EpsilonPlusFlat(), images), rounds=3),
    ]
    if not any(use.norm for use in patterns.structure.layers.values()):
        peer = by_zennit(model, same_rule_on_basic_hook(model, patterns), images)
        others.append(Contestant("the same rule on Zennit's BasicHook", peer, rounds=3))
    guided = GuidedBackprop(model)
    unavailable = {}
    try:
        guided.attribute(images[:1], target=0)
        others.append(
            Contestant("Captum GuidedBackprop", lambda: guided.attribute(images, target=0))
        )
    except (AssertionError, RuntimeError) as error:
        unavailable["Captum GuidedBackprop"] = str(error)
    return race(
        "PatternAttribution.attribute",
        Contestant("forward + backward to the input", forward_and_backward(model, images)),
        others,
        rounds=rounds,
        device=device,
        setting={"network": name, "batch": batch, "size": 224},
        unavailable=unavailable,
    )


def fitting_race(name: str, batch: int, rounds: int, device: str) -> dict:
    """Race the fitting of all regimes on one network's convolutions and dense layers."""
    model = network(name, device)
    images = [torch.randn(batch, 3, 224, 224, device=device) for _ in range(BATCHES)]

    def forward() -> object:
        with torch.no_grad():
            return [model(batch) for batch in images]

    def fit(regimes: list, **settings: object) -> Callable[[], object]:
        return lambda: fit_patterns(model, images, regimes, show_progress=False, **settings)

    def im2col() -> object:
        return [_im2col_statistics(model, batch) for batch in images]

    others = [
        Contestant("captum_blackbox positive", fit(["positive"]), goal=POSITIVE_GOAL, ours=True),
        Contestant(
            "captum_blackbox positive, centre='sampled'",
            fit(["positive"], centre="sampled"),
            goal=POSITIVE_GOAL,
            ours=True,
        ),
        Contestant("captum_blackbox linear", fit(["linear"]), ours=True),
        Contestant(
            "captum_blackbox all regimes",
            fit(["linear", "two_component"]),
            goal=ALL_GOAL,
            ours=True,
        ),
        Contestant("positive by im2col, convolutions only", im2col, rounds=3),
    ]
    return race(
        "fitting patterns",
        Contestant("one forward pass over the data", forward),
        others,
        rounds=rounds,
        device=device,
        setting={"network": name, "batch": batch, "size": 224, "batches": BATCHES},
    )


def _im2col_statistics(model: nn.Module, images: Tensor) -> None:
    """Gather the positive regime as the published ports do: patches by unfold, then products."""

    def gather(module: nn.Conv2d, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        patches = torch.nn.functional.unfold(
            inputs[0], module.kernel_size, module.dilation, module.padding, module.stride
        )
        for patch, values in zip(patches, output.flatten(2), strict=True):
            mask = (values > 0).to(values)
            patch @ (mask * values).T
            patch @ mask.T

    handles = [
        module.register_forward_hook(gather)
        for module in model.modules()
        if isinstance(module, nn.Conv2d) and module.groups == 1
    ]
    with torch.no_grad():
        model(images)
    for handle in handles:
        handle.remove()


def memory_row(name: str, batch: int) -> dict:
    """Return peak memory beyond what was held before, in MB, of a forward pass and of fitting."""
    model = network(name, "cpu")
    images = torch.randn(batch, 3, 224, 224)

    def forward() -> object:
        with torch.no_grad():
            return model(images)

    def im2col() -> None:
        _im2col_statistics(model, images)

    convolutions = [
        layer for layer, module in model.named_modules() if isinstance(module, nn.Conv2d)
    ]
    weights = sum(model.get_submodule(layer).weight.numel() for layer in convolutions) / 2**20

    def fit(regimes: list) -> Callable[[], object]:
        return lambda: fit_patterns(
            model, images, regimes, layers=convolutions, show_progress=False
        )

    positive, everything = peak(fit(["positive"])), peak(fit(["linear", "two_component"]))
    # Sums in float64, two or three for each weight, and the patterns themselves in float32.
    held_positive, held_everything = (8 * 2 + 4) * weights, (8 * 3 + 4 * 3) * weights
    row = {
        "work": "extra peak memory of fitting, all convolutions",
        "setting": {"network": name, "batch": batch, "size": 224},
        "unit": "MB",
        "forward": round(peak(forward)),
        "positive": round(positive - held_positive),
        "positive, accumulators and patterns": round(held_positive),
        "all regimes": round(everything - held_everything),
        "all regimes, accumulators and patterns": round(held_everything),
        "im2col without accumulators": round(peak(im2col)),
        "goal": 350,
    }
    print(row, flush=True)
    return row


def peak(call: Callable[[], object]) -> float:
    """Return how far the resident memory rises while ``call`` runs, in MB."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    before, highest, running = _resident(), 0, True

    def watch() -> None:
        nonlocal highest
        while running:
            highest = max(highest, _resident())
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    call()
    running = False
    watcher.join()
    return (highest - before) / 2**20


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--fitting-networks", nargs="+", default=["squeezenet1_0", "resnet18"])
    parser.add_argument("--batch", type=int, default=4)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    warnings.simplefilter("ignore")
    rows = [
        attribution_race(each, given.batch, given.rounds, given.device) for each in given.networks
    ]
    rows += [
        fitting_race(each, given.batch, given.rounds, given.device)
        for each in given.fitting_networks
    ]
    content = result("patterns", given.device, rows, given.rounds)
    if given.device == "cpu":
        content["memory"] = [memory_row("vgg16", 4)]
    print(save("patterns", given.device, content))


if __name__ == "__main__":
    main()
