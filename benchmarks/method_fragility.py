"""How much of each method's map an invisible change leaves: the built-in network, rendered scenes.

Every method that has a derivative is attacked by the same walk; of the others it is known only what
random signs leave. Some minutes on two cores.
"""

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from captum.attr import (
    DeepLift,
    GuidedBackprop,
    InputXGradient,
    IntegratedGradients,
    LayerGradCam,
    NoiseTunnel,
    Saliency,
)
from harness import RESULTS, SCHEMA, environment, write_json
from torch import Tensor

from captum_blackbox import (
    RISE,
    BlackBox,
    DistilledLayerSumGradCAM,
    InterpretationAttack,
    LayerSumGradCAM,
    NetworkDissection,
    PatternAttribution,
    PatternNet,
    Patterns,
    SceneConcepts,
)
from captum_blackbox.concepts import Scenes
from captum_blackbox.demo import DemoNetwork, load_demo_network
from captum_blackbox.demo.shortcut import SMALL_WIDTHS
from captum_blackbox.fragility.curves import fragility_curves
from captum_blackbox.metrics import topk_intersection
from captum_blackbox.statistics.bootstrap import estimate

RADII = (2, 4, 8)  # of 255
STEPS, IG_STEPS, SAMPLES, NOISE, MASKS = 20, 10, 4, 0.05, 1000
# Collections of scenes: no two seeds share one, and none is that of the network's training.
EXPLAINED, FITTED, ASKED, CONCEPTS = 84_001, 84_002, 84_003, 84_004
FITTING, QUESTIONS, EPOCHS, DISSECTED = 300, 2000, 5, 300
LAST = "features.6.2"
MODES = ("topk", "mass_center", "random")

Maps = Callable[[Tensor, Tensor], Tensor]


def attacks(seed: int) -> dict[str, InterpretationAttack]:
    """Return the attack on each method that has a derivative."""
    network = load_demo_network()
    attack = InterpretationAttack
    patterns, centred = (
        Patterns.fit(
            network, Scenes(FITTING, seed=FITTED).images, regime_centering=each, show_progress=False
        )
        for each in (False, True)
    )
    smooth = {"nt_samples": SAMPLES, "stdevs": NOISE}
    return {
        "LayerSumGradCAM": attack(LayerSumGradCAM(network)),
        "DistilledLayerSumGradCAM": attack(_distilled(seed)),
        "PatternNet, regime_centering": attack(PatternNet(network, centred)),
        "PatternAttribution, regime_centering": attack(PatternAttribution(network, centred)),
        "PatternAttribution": attack(PatternAttribution(network, patterns)),
        "Saliency": attack(Saliency(network)),
        "InputXGradient": attack(InputXGradient(network)),
        "IntegratedGradients": attack(
            IntegratedGradients(network), attribute_kwargs={"n_steps": IG_STEPS}
        ),
        "DeepLift": attack(DeepLift(network)),
        "SmoothGrad": attack(NoiseTunnel(Saliency(network)), attribute_kwargs=smooth),
        "GuidedBackprop": attack(GuidedBackprop(network)),
        "LayerGradCam, last layer": attack(
            LayerGradCam(network, network.get_submodule(LAST)),
            attribute_kwargs={"relu_attributions": True},
        ),
    }


def _distilled(seed: int) -> DistilledLayerSumGradCAM:
    box = BlackBox(load_demo_network(), output="logits")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student = DemoNetwork(widths=SMALL_WIDTHS)
    explainer = DistilledLayerSumGradCAM(box, student)
    report = explainer.distill(
        Scenes(QUESTIONS, seed=ASKED).images, epochs=EPOCHS, seed=seed, show_progress=False
    )
    print(f"the student agrees on {report.agreement:.3f}", flush=True)
    return explainer


def unattackable(seed: int) -> dict[str, Maps]:
    """Return the methods of ours that have no derivative to follow."""
    network = load_demo_network()
    dissection = NetworkDissection(network, LAST)
    dissection.dissect(SceneConcepts(DISSECTED, seed=CONCEPTS), show_progress=False)
    box = BlackBox(network, output="logits")
    return {
        "NetworkDissection": dissection.attribute,
        "RISE": RISE(box, masks=MASKS, seed=seed).attribute,
    }


def attacked(given: argparse.Namespace, images: Tensor) -> dict[str, Any]:
    """Return method → mode → radius → the share of the top pixels left on each image."""
    found: dict[str, Any] = {}
    for name, attack in attacks(given.seed).items():
        curves = fragility_curves(
            {name: attack},
            images,
            modes=MODES,
            radii=[radius / 255 for radius in RADII],
            step_num=STEPS,
            check_every=2,
            batch_size=given.images,
            seed=given.seed,
        )
        found[name] = {
            mode: {
                str(radius): _summary(
                    curves.scores(name, "intersection", mode=mode, radius=radius / 255)
                )
                for radius in RADII
            }
            for mode in MODES
        }
        print(name, {mode: each["8"]["mean"] for mode, each in found[name].items()}, flush=True)
    return found


def shaken(given: argparse.Namespace, images: Tensor, classes: Tensor) -> dict[str, Any]:
    """Return the same for methods that cannot be attacked, of random signs alone."""
    generator = torch.Generator().manual_seed(given.seed)
    signs = torch.randint(0, 2, images.shape, generator=generator) * 2.0 - 1
    found: dict[str, Any] = {}
    network = load_demo_network()
    for name, maps in unattackable(given.seed).items():
        clean = maps(images, classes)
        found[name] = {"random": {}}
        for radius in RADII:
            moved = (images + radius / 255 * signs).clamp(0, 1)
            left = topk_intersection(clean, maps(moved, classes)).double()
            with torch.no_grad():
                left[network(moved).argmax(1) != classes] = 1.0  # no such change counts
            found[name]["random"][str(radius)] = _summary(left)
        print(name, found[name]["random"]["8"], flush=True)
    return found


def _summary(values: Tensor) -> dict[str, float]:
    each = estimate(values)
    numbers = {"mean": each.mean, "low": each.low, "high": each.high}
    return {name: round(n, 4) for name, n in numbers.items()} | {"images": each.images}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / "method_fragility.json")
    given = parser.parse_args()
    scenes = Scenes(2 * given.images, seed=EXPLAINED)
    with torch.no_grad():
        right = load_demo_network()(scenes.images).argmax(1) == scenes.labels
    images, classes = (each[right][: given.images] for each in (scenes.images, scenes.labels))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = {**attacked(given, images), **shaken(given, images, classes)}
    record = {
        "schema": SCHEMA,
        "suite": "method_fragility",
        "environment": environment("cpu"),
        "settings": {
            "images": len(images),
            "seed": given.seed,
            "steps": STEPS,
            "ig_steps": IG_STEPS,
            "smoothgrad": {"samples": SAMPLES, "noise": NOISE},
            "masks": MASKS,
            "top pixels": "a 50th of all",
            "questions": QUESTIONS,
            "epochs": EPOCHS,
        },
        "rows": rows,
    }
    print(write_json(given.out, record))


if __name__ == "__main__":
    main()
