"""Fragility curves: how far explanations move as the radius of an attack grows."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from captum_blackbox._compat import one_tensor
from captum_blackbox.errors import InputError, TargetError
from captum_blackbox.fragility.attack import InterpretationAttack
from captum_blackbox.fragility.curves_record import Record
from captum_blackbox.fragility.curves_result import FragilityCurves
from captum_blackbox.fragility.curves_running import Run, fill
from captum_blackbox.fragility.curves_settings import identity
from captum_blackbox.fragility.description import describe, digest_of
from captum_blackbox.fragility.objectives import Objective, objective_of
from captum_blackbox.shapes import Target, check_images

RADII = (1 / 255, 2 / 255, 4 / 255, 8 / 255)


def fragility_curves(
    attacks: Mapping[str, InterpretationAttack],
    inputs: Tensor | tuple[Tensor, ...],
    *,
    target: Target = None,
    label: Target = None,
    modes: Sequence[str | Objective] = ("topk", "mass_center", "random"),
    radii: Sequence[float] = RADII,
    k: int | None = None,
    step_num: int = 100,
    step_size: float | None = None,
    check_every: int = 1,
    region: Tensor | None = None,
    batch_size: int = 8,
    transfer_to: Mapping[str, InterpretationAttack] | None = None,
    resume: str | Path | None = None,
    seed: int = 0,
    show_progress: bool = False,
) -> FragilityCurves:
    """Attack several explanations by several objectives at several radii, on the same images.

    Which images count: those whose clean prediction is their label. Where an attack fails, the
    image counts with its clean value, so that a method does not look robust by failing on the
    fragile ones. A random change that alters the label is drawn again, up to 16 times.

    A defence is measured in the same call, as one more attack: on ``NoiseTunnel`` around the
    explanation (SmoothGrad), or one with ``defence_beta`` (the network judged with softplus).
    Give such an attack ``beta=defence_beta``: else it does not attack what is judged, and the
    defence looks better than it is.

    What fails is reported in the result and does not end the run, unless nothing succeeds. An
    image's numbers do not depend on the other images.

    Args:
        attacks: Name → attack. All take the images as they are given.
        inputs: Images ``(N, C, H, W)``, or a tuple of one such tensor.
        target: The class explained: one number, or one for each image; by default the prediction.
        label: The right label; images predicted otherwise do not count. By default the prediction.
        modes: Objectives: names of :meth:`InterpretationAttack.run`, or objects.
        radii: Largest changes of a number, in the units of the attacks; 0 or more.
        k: How many pixels are most important; by default a 50th of them.
        step_num: Steps of each attack.
        step_size: Of a step, at most the radius; by default a 16th of it.
        check_every: Judge every so many steps; larger is faster and may miss the best.
        region: For ``"targeted"``: a mask or map ``(H, W)``, or one for each image.
        batch_size: Images attacked together. What fails is tried again image by image.
        transfer_to: Name → attack on the explanation of another network, which judges the images
            that were made here; nothing is attacked there. Bounds say how the images of one network
            become those of the other, see :func:`~captum_blackbox.fragility.transfer.transferred`.
        resume: A file that keeps the numbers as they come. If it exists, only what is missing in it
            is done, and the result is that of a run without interruption. Images, networks,
            settings, layers, patterns and the code of functions and objectives are compared. Not
            seen is what a function of yours looks up elsewhere, nor what is inside an object
            without Python attributes, of which only the type is compared; another version of
            Python counts as other code.
        seed: Of everything random.
        show_progress: Show a bar that counts attacks on an image.

    Returns:
        Numbers by method, objective, radius and image, their means with intervals, tables.

    Raises:
        ShapeError: ``inputs`` are no images.
        InputError: A setting cannot be used, or an attack has bounds that are not finite.
        TargetError: ``target`` or ``label`` do not name a class for each image.
        ArtifactError: ``resume`` belongs to another run; what differs is named.

    References:
        Ghorbani, Abid, Zou, "Interpretation of Neural Networks Is Fragile", AAAI 2019, fig. 3.

    Example:
        >>> from captum.attr import InputXGradient, Saliency
        >>> _ = torch.manual_seed(0)
        >>> nn = torch.nn
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 3))
        >>> attacks = {
        ...     "gradient": InterpretationAttack(Saliency(model)),
        ...     "input x gradient": InterpretationAttack(InputXGradient(model))}
        >>> curves = fragility_curves(
        ...     attacks, torch.rand(4, 3, 8, 8), radii=(2 / 255, 8 / 255), step_num=20)
        >>> at = {"radius": 8 / 255}
        >>> systematic = curves.mean("gradient", "intersection", mode="topk", **at)
        >>> systematic.mean < curves.mean("gradient", "intersection", mode="random", **at).mean
        True
    """
    images, _ = one_tensor(inputs, "fragility_curves")
    check_images(images)
    objectives = _checked(attacks, modes, radii, step_num, batch_size, region)
    options = {"k": k, "step_num": step_num, "step_size": step_size, "check_every": check_every}
    judges = dict(transfer_to or {})
    run = Run(
        list(attacks.values()),
        list(judges.values()),
        objectives,
        [float(radius) for radius in radii],
        images,
        _by_image(target, len(images), "target"),
        _by_image(label, len(images), "label"),
        region,
        {**options, "seed": seed},
    )
    names = [objective.name for objective in objectives]
    network = next(iter(attacks.values())).victim.network
    settings = {
        "images": digest_of(images),
        "attacks": {name: identity(attack) for name, attack in attacks.items()},
        "transfer_to": {name: identity(attack) for name, attack in judges.items()},
        "modes": names,
        "objectives": {each.name: describe(each, network) for each in objectives},
        "radii": run.radii,
        "target": None if run.target is None else run.target.tolist(),
        "label": None if run.label is None else run.label.tolist(),
        "region": None if region is None else digest_of(region),
        **options,
        "seed": seed,
    }
    record = Record(tuple(attacks), tuple(names), tuple(judges), len(images), settings, resume)
    fill(record, run, batch_size, show_progress)
    return record.result()


def _checked(
    attacks: Mapping[str, InterpretationAttack],
    modes: Sequence[str | Objective],
    radii: Sequence[float],
    step_num: int,
    batch_size: int,
    region: Tensor | None,
) -> list[Objective]:
    """Refuse what would end every attack, and return the objectives."""
    if not attacks or not modes or not radii:
        raise InputError(
            f"curves need an attack, a mode and a radius; there are {len(attacks)}, {len(modes)} "
            f"and {len(radii)}"
        )
    if isinstance(modes, str):
        raise InputError(f"modes is a sequence of objectives, got the string {modes!r}")
    wrong = [name for name, each in attacks.items() if not isinstance(each, InterpretationAttack)]
    if wrong:
        raise InputError(
            f"{wrong[0]!r} is no InterpretationAttack but a {type(attacks[wrong[0]]).__name__}; "
            "pass InterpretationAttack(attribution)"
        )
    bad = [radius for radius in radii if not (math.isfinite(radius) and radius >= 0)]
    if bad or len(set(radii)) < len(radii):
        raise InputError(
            f"radii are different finite numbers of 0 or more, such as 8 / 255; got {list(radii)}"
        )
    if step_num < 1 or batch_size < 1:
        raise InputError(f"step_num and batch_size are 1 or more, got {step_num} and {batch_size}")
    objectives = [objective_of(mode, region) for mode in modes]
    names = [objective.name for objective in objectives]
    if len(set(names)) < len(names):
        raise InputError(f"each mode is given once, and each objective has its own name: {names}")
    return objectives


def _by_image(target: Target, count: int, name: str) -> Tensor | None:
    """Return one class for each image; the network will say whether it has such classes.

    Raises:
        TargetError: There are not as many as images.
    """
    if target is None:
        return None
    classes = torch.as_tensor(target).detach().cpu().flatten()
    if len(classes) not in {1, count}:
        raise TargetError(f"{name} is one class or {count}, one for each image; got {len(classes)}")
    return classes.expand(count).clone()
