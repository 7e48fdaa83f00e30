"""Which estimator finds the signal, and which map degrades a prediction fastest."""

import argparse
import hashlib
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from captum.attr import (
    InputXGradient,
    IntegratedGradients,
    LayerAttribution,
    LayerGradCam,
    Saliency,
)
from estimators_data import SUBJECTS, Subject
from harness import RESULTS, SCHEMA, environment, write_json
from torch import Tensor, nn
from zennit.attribution import Gradient
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.composites import EpsilonPlusFlat

from captum_blackbox.artifacts import tensor_bytes
from captum_blackbox.metrics import patch_degradation
from captum_blackbox.patterns import PatternAttribution, Patterns, fit_patterns, signal_quality
from captum_blackbox.report import paired_difference

STEPS, BATCH, IG_STEPS = 100, 4, 20
REFERENCE = "PatternAttribution"
ESTIMATORS = {
    "S_w (filter)": "filter",
    "S_a (linear)": "linear",
    "S_a+ (positive)": "positive",
    "S_a+- (two-component)": "two_component",
    "S_a+- centred in the regime": "two_component, centred",
    "S_a+ centred in the regime": "positive, centred",
}
"""Name in the figures → fitted patterns. S_x has no pattern: it is gradient times input."""

Method = Callable[[Tensor, Tensor], Tensor]


def fitted(subject: Subject) -> dict[str, Patterns]:
    """Return the patterns of every estimator, from two passes over the data."""
    batches = subject.fitting.split(20)
    plain = fit_patterns(subject.model, batches, ["filter", "linear", "positive", "two_component"])
    centred = fit_patterns(
        subject.model, batches, ["positive", "two_component"], regime_centering=True
    )
    return {**plain, **{f"{name}, centred": each for name, each in centred.items()}}


def at_random(patterns: Patterns, model: nn.Module, seed: int = 0) -> Patterns:
    """Return directions drawn at random, scaled so that wᵀa = 1."""
    generator = torch.Generator().manual_seed(seed)
    drawn = {name: torch.randn(each.shape, generator=generator) for name, each in patterns.items()}
    filters = {name: model.get_submodule(name).weight.detach() for name in patterns}
    for name, each in drawn.items():
        flat = (each * filters[name]).flatten(1).sum(1)
        flat[flat == 0] = torch.inf  # a unit without weights has no direction
        each /= flat.view(-1, *[1] * (each.dim() - 1))
    return patterns.replaced(drawn)


def methods(subject: Subject, patterns: Mapping[str, Patterns]) -> dict[str, Method]:
    """Return every method by its name in the tables, as (images, classes) → maps."""
    model = subject.model

    def by_pattern(which: Patterns, residual: str = "gradient", **settings: Any) -> Method:
        method = PatternAttribution(model, which, residual=residual, **settings)
        return lambda images, classes: method.attribute(images, target=classes)

    def grad_cam(images: Tensor, classes: Tensor) -> Tensor:
        layer = model.get_submodule(subject.last)
        maps = LayerGradCam(model, layer).attribute(images, classes, relu_attributions=True)
        return LayerAttribution.interpolate(maps, images.shape[2:], "bilinear")

    def integrated(images: Tensor, classes: Tensor) -> Tensor:
        return IntegratedGradients(model).attribute(
            images, target=classes, n_steps=IG_STEPS, internal_batch_size=BATCH
        )

    def relevance(images: Tensor, classes: Tensor) -> Tensor:
        composite = EpsilonPlusFlat(canonizers=[SequentialMergeBatchNorm()])
        with Gradient(model, composite) as attributor:
            return attributor(images.clone(), nn.functional.one_hot(classes, _classes(model)))[1]

    found: dict[str, Method] = {REFERENCE: by_pattern(patterns["positive"])}
    if patterns["positive"].shares:
        found[f"{REFERENCE}, residual=pattern"] = by_pattern(
            patterns["positive"], residual="pattern"
        )
    centred = patterns["positive, centred"]
    found[f"{REFERENCE}, regime_centering"] = by_pattern(centred)
    if centred.shares:
        found[f"{REFERENCE}, regime_centering, residual=pattern"] = by_pattern(
            centred, residual="pattern"
        )
    found["S_a+- (two-component)"] = by_pattern(patterns["two_component"])
    found["S_a (linear)"] = by_pattern(patterns["linear"])
    found["S_w (filter)"] = by_pattern(patterns["filter"])
    # Random directions explode from layer to layer; rescaled, they keep their direction.
    found["S_u (random pattern)"] = by_pattern(at_random(patterns["positive"], model), rescale=True)
    found["S_x (gradient × input)"] = lambda images, classes: InputXGradient(model).attribute(
        images, target=classes
    )
    found["gradient, absolute"] = lambda images, classes: Saliency(model).attribute(
        images, target=classes
    )
    found["Integrated Gradients"] = integrated
    found["LRP (Zennit EpsilonPlusFlat)"] = relevance
    found["last-layer Grad-CAM"] = grad_cam
    return found


def degraded(subject: Subject, method: Method, classes: Tensor) -> dict[str, Any]:
    """Return the curve of each image and how far it falls."""
    curves, falls = [], []
    for start in range(0, len(classes), BATCH):
        images, targets = subject.explained[start : start + BATCH], classes[start : start + BATCH]
        found = patch_degradation(
            subject.model,
            images,
            method(images, targets).detach(),
            targets,
            patch=subject.patch,
            steps=STEPS,
            every=subject.every,
            batch_size=BATCH,
        )
        curves.append(found.curve)
        falls.append(found.aopc)
    curve, aopc = torch.cat(curves), torch.cat(falls)
    return {
        "mean_curve": [round(value, 5) for value in curve.mean(0).tolist()],
        "aopc": [round(value, 5) for value in aopc.tolist()],
    }


def random_order(images: Tensor, classes: Tensor) -> Tensor:
    """Return noise that depends on the image alone."""
    maps = []
    for image, target in zip(images, classes, strict=True):
        digest = hashlib.sha256(tensor_bytes(image)).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:6], "big") + int(target))
        maps.append(torch.rand(1, *image.shape[1:], generator=generator))
    return torch.stack(maps)


def quality(subject: Subject, patterns: Mapping[str, Patterns]) -> dict[str, Any]:
    """Return rho of every estimator and layer: quartiles over units, and the mean."""
    found = signal_quality(
        subject.model,
        {name: patterns[which] for name, which in ESTIMATORS.items()},
        fit_loader=subject.directions.split(20),
        eval_loader=subject.judging.split(20),
    )
    return {
        name: {layer: _summary(values) for layer, values in layers.items()}
        for name, layers in found.items()
    }


def _summary(values: Tensor) -> dict[str, float | int]:
    known = values[values.isfinite()].double()
    if len(known) == 0:
        return {"units": 0}
    low, middle, high = torch.quantile(known, torch.tensor([0.25, 0.5, 0.75]).double()).tolist()
    return {
        "units": len(known),
        "mean": round(float(known.mean()), 5),
        "median": round(middle, 5),
        "quartiles": [round(low, 5), round(high, 5)],
    }


def _classes(model: nn.Module) -> int:
    return [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1].weight.shape[0]


def measure(name: str, given: argparse.Namespace) -> None:
    """Measure one subject; what is in its file already is left as it is."""
    path = RESULTS / f"estimators-{name}.json"
    subject = SUBJECTS[name](given.images)
    settings = {
        "images": len(subject.explained),
        "fitting": len(subject.fitting),
        "directions": len(subject.directions),
        "judging": len(subject.judging),
        "patch": subject.patch,
        "steps": STEPS,
        "every": subject.every,
        "ig_steps": IG_STEPS,
    }
    head = {
        "schema": SCHEMA,
        "suite": f"estimators-{name}",
        "subject": subject.name,
        "settings": settings,
        "sha256": hashlib.sha256(tensor_bytes(subject.explained)).hexdigest(),
    }
    record: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    if any(record.get(key) != value for key, value in head.items()):
        record = head
    record["environment"] = environment("cpu")
    with torch.no_grad():
        classes = torch.cat([subject.model(each).argmax(1) for each in subject.explained.split(8)])
    patterns = fitted(subject)
    report = patterns["positive"].report
    record["fit"] = {
        "degenerate": sum(map(len, report.degenerate_units.values())),
        "unstable": sum(map(len, report.unstable_units.values())),
        "units": sum(each.shape[0] for each in patterns["positive"].values()),
    }
    curves = record.setdefault("degradation", {})
    for title, method in {**methods(subject, patterns), "random": random_order}.items():
        if "aopc" not in curves.get(title, {}):
            print(name, title, flush=True)
            try:
                curves[title] = degraded(subject, method, classes)
            except Exception as error:  # a method that fails is a result
                curves[title] = {"failed": f"{type(error).__name__}: {error}"}
            write_json(path, record)
    if "quality" not in record:
        print(name, "quality", flush=True)
        record["quality"] = quality(subject, patterns)
    record["differences"] = dict(_differences(curves))
    print(write_json(path, record))


def _differences(curves: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield each method's AOPC less the reference's, with a paired bootstrap interval."""
    reference = torch.tensor(curves[REFERENCE]["aopc"])
    for title, found in curves.items():
        if title != REFERENCE and "aopc" in found:
            difference = paired_difference(torch.tensor(found["aopc"]), reference)
            yield (
                title,
                {
                    "mean": round(difference.mean, 5),
                    "low": round(difference.low, 5),
                    "high": round(difference.high, 5),
                },
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subjects", nargs="+", default=list(SUBJECTS), choices=list(SUBJECTS))
    parser.add_argument("--images", type=int, help="explained images, fewer for a try")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    warnings.simplefilter("ignore")
    for name in given.subjects:
        measure(name, given)


if __name__ == "__main__":
    main()
