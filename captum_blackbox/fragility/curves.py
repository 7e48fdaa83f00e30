"""Fragility curves: how far explanations move as the radius of an attack grows."""

import hashlib
import itertools
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from captum_blackbox._compat import one_tensor
from captum_blackbox.artifacts import check_header, fingerprint, tensor_bytes
from captum_blackbox.errors import InputError, TargetError
from captum_blackbox.fragility.attack import InterpretationAttack
from captum_blackbox.fragility.curves_result import (
    MEASURES,
    CurveFailure,
    FragilityCurves,
    read_curves,
    write_curves,
)
from captum_blackbox.fragility.objectives import Objective, objective_of
from captum_blackbox.fragility.result import WRONG_LABEL, AttackResult
from captum_blackbox.fragility.transfer import TRANSFERRED, between_networks, transferred
from captum_blackbox.fragility.victims import Victim
from captum_blackbox.fragility.visibility import structural_similarities, to_pixels
from captum_blackbox.shapes import Images, Target, check_images

RADII = (1 / 255, 2 / 255, 4 / 255, 8 / 255)
_LEAST_WORK = 20  # times as long as writing the file


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
    fragile ones. A single random draw that changes the label fails like any other attack.

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
            is done, and the result is that of a run without interruption.
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
    run = _Run(
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
    settings = {
        "images": _digest(images),
        "attacks": {name: _identity(attack) for name, attack in attacks.items()},
        "transfer_to": {name: _identity(attack) for name, attack in judges.items()},
        "modes": names,
        "radii": run.radii,
        "target": None if run.target is None else run.target.tolist(),
        "label": None if run.label is None else run.label.tolist(),
        "region": None if region is None else _digest(region),
        **options,
        "seed": seed,
    }
    record = _Record(tuple(attacks), tuple(names), tuple(judges), len(images), settings, resume)
    _fill(record, run, batch_size, show_progress)
    return record.result()


@dataclass(frozen=True)
class _Run:
    """What is attacked, and how."""

    attacks: list[InterpretationAttack]
    judges: list[InterpretationAttack]
    objectives: list[Objective]
    radii: list[float]
    images: Images
    target: Tensor | None
    label: Tensor | None
    region: Tensor | None
    options: Mapping[str, Any]

    def attack(self, cell: tuple[int, int, int], rows: Tensor) -> tuple[Tensor, Tensor]:
        """Attack some images: numbers ``(measures, rows)`` and ``(judges, measures, rows)``."""
        method, mode, radius = cell
        attack, images = self.attacks[method], self.images[rows.to(self.images.device)]
        target = None if self.target is None else self.target[rows]
        label = None if self.label is None else self.label[rows]
        region = self.region
        if region is not None and region.dim() == 3:
            region = region[rows.to(region.device)]
        result = attack.run(
            images,
            self.radii[radius],
            target=target,
            label=label,
            mode=self.objectives[mode],
            region=region,
            **self.options,
        )
        wrong = torch.tensor([reason == WRONG_LABEL for reason in result.reasons])
        values = _measured(attack, images, result)
        values[:, wrong] = torch.nan
        moved = [
            transferred(
                judge,
                between_networks(images, attack, judge),
                between_networks(result.inputs, attack, judge),
                target=target,
                label=label,
                k=self.options["k"],
            )
            for judge in self.judges
        ]
        transfer = torch.stack(moved) if moved else torch.zeros(0, len(TRANSFERRED), len(rows))
        transfer[:, :, wrong] = torch.nan
        return values, transfer


class _Record:
    """The numbers so far; with a file, those of an earlier run as well."""

    def __init__(
        self,
        methods: tuple[str, ...],
        modes: tuple[str, ...],
        judges: tuple[str, ...],
        images: int,
        settings: Mapping[str, Any],
        path: str | Path | None,
    ) -> None:
        radii = tuple(settings["radii"])
        cells = (len(modes), len(radii))
        none = {"fill_value": torch.nan, "dtype": torch.float64}
        values = torch.full((len(methods), *cells, len(MEASURES), images), **none)
        transfer = torch.full(
            (len(methods), len(judges), *cells, len(TRANSFERRED), images), **none
        )
        self._known = FragilityCurves(
            methods, modes, radii, values, judges, transfer, settings=settings
        )
        self.done = torch.zeros(len(methods), *cells, images, dtype=torch.bool)
        self.failures: list[CurveFailure] = []
        self.first_error: Exception | None = None
        self._path, self._saved, self._saving_seconds = path, time.monotonic(), 0.0
        if path is not None and Path(path).exists():
            found, self.done = read_curves(path)
            check_header(path, found.settings, settings)
            self._known = found

    def keep(
        self, cell: tuple[int, int, int], rows: Tensor, values: Tensor, transfer: Tensor
    ) -> None:
        """Keep the numbers of some images, and write the file if that takes little of the time."""
        method, mode, radius = cell
        self._known.values[method, mode, radius][:, rows] = values
        self._known.transfer[method, :, mode, radius][..., rows] = transfer.double()
        self.done[method, mode, radius, rows] = True
        if time.monotonic() - self._saved >= _LEAST_WORK * self._saving_seconds:
            self.save()

    def fail(self, cell: tuple[int, int, int], rows: Tensor, error: Exception) -> None:
        """Keep why there is no number; a resumed run tries again."""
        method, mode, radius = cell
        known, reason = self._known, f"{type(error).__name__}: {error}"
        self.first_error = self.first_error or error
        names = known.methods[method], known.modes[mode], known.radii[radius]
        for row, other in enumerate(self.failures):
            if (other.method, other.mode, other.radius, other.reason) == (*names, reason):
                images = (*other.images, *rows.tolist())
                self.failures[row] = CurveFailure(*names, images, reason)
                return
        self.failures.append(CurveFailure(*names, tuple(rows.tolist()), reason))

    def save(self) -> None:
        """Write what is done, if there is a file."""
        if self._path is None:
            return
        start = time.monotonic()
        write_curves(self._path, self.result(), self.done)
        self._saved = time.monotonic()
        self._saving_seconds = self._saved - start

    def result(self) -> FragilityCurves:
        """Return what is known.

        Raises:
            Exception: Nothing is; what was raised first.
        """
        known = self._known
        return FragilityCurves(
            known.methods,
            known.modes,
            known.radii,
            known.values,
            known.judges,
            known.transfer,
            tuple(self.failures),
            known.settings,
        )


def _fill(record: _Record, run: _Run, batch_size: int, show_progress: bool) -> None:
    """Attack whatever is not done; an error of one attack is kept, unless it is all there is."""
    cells = itertools.product(
        range(len(run.attacks)), range(len(run.objectives)), range(len(run.radii))
    )
    bar = tqdm(total=record.done.numel(), desc="fragility", disable=not show_progress)
    with bar:
        try:
            for cell in cells:
                left = (~record.done[cell]).nonzero().flatten()
                bar.update(record.done.shape[-1] - len(left))
                for rows in left.split(batch_size):
                    _attack_once(record, run, cell, rows)
                    bar.update(len(rows))
        finally:
            if bool(record.done.any()):
                record.save()
    if record.first_error is not None and not bool(record.done.any()):
        raise record.first_error


def _attack_once(record: _Record, run: _Run, cell: tuple[int, int, int], rows: Tensor) -> None:
    try:
        record.keep(cell, rows, *run.attack(cell, rows))
    except Exception as error:  # noqa: BLE001 - whatever an attack raises is reported
        if len(rows) == 1:
            record.fail(cell, rows, error)
            return
        for row in rows.split(1):
            _attack_once(record, run, cell, row)


def _measured(attack: InterpretationAttack, images: Images, result: AttackResult) -> Tensor:
    """Return the numbers of an attack, ``(measures, N)`` in the order of ``MEASURES``."""
    after = result.attacked
    pixels = [
        to_pixels(each, attack.lower_bound, attack.upper_bound) for each in (images, result.inputs)
    ]
    found: dict[str, Tensor | None] = {
        **after._asdict(),
        "clean_confidence": result.clean.confidence,
        "ssim": structural_similarities(*pixels),
        "success": result.success,
        "label_kept": result.label_kept,
    }
    none = torch.full((len(images),), torch.nan, dtype=torch.float64)
    rows = [none if found[name] is None else found[name] for name in MEASURES]
    return torch.stack([torch.as_tensor(row).double().cpu() for row in rows])


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
        raise InputError(
            f"step_num and batch_size are 1 or more, got {step_num} and {batch_size}"
        )
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


def _identity(attack: InterpretationAttack) -> dict[str, Any]:
    """Return what tells an attack from another one."""
    amounts = {
        name: torch.as_tensor(getattr(attack, name)).flatten().tolist()
        for name in ("lower_bound", "upper_bound", "scale")
    }
    return {
        "explanation": _victim(attack.victim),
        "network": fingerprint(attack.victim.network),
        "beta": str(attack.beta),
        "defence_beta": attack.defence_beta,
        **amounts,
    }


def _victim(victim: Victim) -> dict[str, Any]:
    """Return the name of a victim and its settings, as far as they are plain."""
    found: dict[str, Any] = {"kind": type(victim).__name__}
    for name, value in vars(victim).items():
        if isinstance(value, Victim):
            found[name] = _victim(value)
        elif isinstance(value, Tensor):
            found[name] = _digest(value)
        elif isinstance(value, str | bool | int | float | None):
            found[name] = value
    return found


def _digest(tensor: Tensor) -> str:
    """Return a hash of the values, shape and dtype of a tensor."""
    digest = hashlib.sha256(f"{tuple(tensor.shape)} {tensor.dtype}\n".encode())
    digest.update(tensor_bytes(tensor))
    return digest.hexdigest()[:32]
