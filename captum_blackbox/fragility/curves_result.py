"""What fragility curves are made of: numbers by method, objective, radius and image."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from captum_blackbox.artifacts import check_header, load_artifact, save_artifact
from captum_blackbox.errors import ArtifactError, InputError
from captum_blackbox.fragility.transfer import TRANSFERRED
from captum_blackbox.statistics.bootstrap import Estimate, estimate

MEASURES = (
    "intersection",
    "rank_correlation",
    "center_shift",
    "cosine",
    "confidence",
    "clean_confidence",
    "region_mass",
    "linf",
    "l2",
    "ssim",
    "success",
    "label_kept",
)
"""What is measured of each attacked image."""

KIND: Mapping[str, Any] = {"kind": "fragility curves", "format": 1}
_CLOSE = 1e-9
_Known = TypeVar("_Known")


@dataclass(frozen=True)
class CurveFailure:
    """An attack that gave no number.

    Attributes:
        method: Which method.
        mode: Which objective.
        radius: Which radius.
        images: Which images, from 0.
        reason: What was raised.
    """

    method: str
    mode: str
    radius: float
    images: tuple[int, ...]
    reason: str


@dataclass(frozen=True, eq=False)
class FragilityCurves:
    """How far explanations move, by method, objective and radius, on the same images.

    An image enters a mean if its clean prediction is its label. An image that the attack could not
    move enters as it is: intersection 1, rank correlation 1, shift 0. So a mean is over all such
    images, whichever the attack succeeded on, and none of them has changed its label.

    Attributes:
        methods: Names, as they were given.
        modes: Names of the objectives.
        radii: In the order in which they were given.
        values: A number for each ``(method, mode, radius, measure, image)``, float64, measures as
            in :data:`MEASURES`; NaN where there is none.
        judges: Names of the explanations of other networks that judged the attacked images.
        transfer: ``(method, judge, mode, radius, measure, image)``, measures as in
            :data:`~captum_blackbox.fragility.transfer.TRANSFERRED`.
        failures: Why numbers are missing.
        settings: What was run.
    """

    methods: tuple[str, ...]
    modes: tuple[str, ...]
    radii: tuple[float, ...]
    values: Tensor
    judges: tuple[str, ...] = ()
    transfer: Tensor = field(default_factory=lambda: torch.zeros(0))
    failures: tuple[CurveFailure, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def images(self) -> int:
        """How many images there are."""
        return self.values.shape[-1]

    def scores(
        self, method: str, measure: str, *, mode: str, radius: float, judge: str | None = None
    ) -> Tensor:
        """Return a number per image, ``(images,)``, NaN where there is none.

        Args:
            method: Whose explanation was attacked.
            measure: One of :data:`MEASURES`; with a judge one of
                :data:`~captum_blackbox.fragility.transfer.TRANSFERRED`.
            mode: The objective.
            radius: Of the attack.
            judge: The explanation of another network that is measured instead.

        Raises:
            InputError: There is no such method, measure, mode, radius or judge.
        """
        at = _place("method", method, self.methods)
        cell = _place("mode", mode, self.modes), self._radius(radius)
        if judge is None:
            return self.values[at, cell[0], cell[1], _place("measure", measure, MEASURES)]
        row = _place("judge", judge, self.judges)
        return self.transfer[at, row, cell[0], cell[1], _place("measure", measure, TRANSFERRED)]

    def mean(
        self, method: str, measure: str, *, mode: str, radius: float, judge: str | None = None
    ) -> Estimate:
        """Return the mean over the images with its 95 % bootstrap interval; see :meth:`scores`."""
        return estimate(self.scores(method, measure, mode=mode, radius=radius, judge=judge))

    def to_markdown(self) -> str:
        """Return tables of means with intervals, of what is visible, of transfer and failures."""
        from captum_blackbox.fragility.curves_tables import markdown

        return markdown(self)

    def to_csv(self, path: str | Path) -> None:
        """Write a row for each method, judge, mode, radius, measure and image."""
        from captum_blackbox.fragility.curves_tables import write_csv

        write_csv(self, path)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as what JSON can hold; a missing number is ``None``."""
        from captum_blackbox.fragility.curves_tables import as_dict

        return as_dict(self)

    def to_json(self, path: str | Path) -> None:
        """Write :meth:`to_dict` to a file."""
        from captum_blackbox.fragility.curves_tables import write_json

        write_json(self, path)

    @classmethod
    def from_json(cls, path: str | Path) -> "FragilityCurves":
        """Read what :meth:`to_json` wrote.

        Raises:
            ArtifactError: There is no such file, or it is something else.
        """
        from captum_blackbox.fragility.curves_tables import read_json

        return read_json(path)

    def save(self, path: str | Path) -> None:
        """Write everything to a safetensors file.

        Raises:
            ArtifactError: The file cannot be written.
        """
        write_curves(path, self, None)

    @classmethod
    def load(cls, path: str | Path) -> "FragilityCurves":
        """Read what :meth:`save` wrote, or a file that ``resume`` names and that is complete.

        Raises:
            ArtifactError: There is no such file, it is something else, or it is unfinished.
        """
        curves, done = read_curves(path)
        if not bool(done.all()):
            raise ArtifactError(
                f"{str(path)!r} is unfinished: {int(done.sum())} of {done.numel()} attacks are "
                "done; go on with fragility_curves(…, resume=this file)"
            )
        return curves

    def _radius(self, radius: float) -> int:
        for row, known in enumerate(self.radii):
            if abs(known - radius) <= _CLOSE * max(1.0, abs(known)):
                return row
        named = ", ".join(map(radius_name, self.radii))
        raise InputError(f"there is no radius {radius!r} in these curves; they are {named}")


def radius_name(radius: float) -> str:
    """Return a radius as people write it.

    Example:
        >>> radius_name(8 / 255), radius_name(0.5 / 255), radius_name(0.1)
        ('8/255', '0.5/255', '0.1')
    """
    parts = radius * 255
    fine = 2 if parts < 5 else 1  # halves of small ones
    is_of_255 = 0 < parts <= 32 and abs(parts * fine - round(parts * fine)) < 1e-6
    return f"{parts:.6g}/255" if is_of_255 else f"{radius:g}"


def write_curves(path: str | Path, curves: FragilityCurves, done: Tensor | None) -> None:
    """Write curves, and which attacks are done, ``(methods, modes, radii, images)``, if not all."""
    tensors = {"values": curves.values, "transfer": curves.transfer}
    if done is not None:
        tensors["done"] = done
    save_artifact(path, tensors, {**KIND, **header_of(curves)})


def header_of(curves: FragilityCurves) -> dict[str, Any]:
    """Return everything but the numbers, as JSON knows it."""
    header = {name: list(getattr(curves, name)) for name in ("methods", "modes", "radii", "judges")}
    return {
        **header,
        "failures": [asdict(failure) for failure in curves.failures],
        "settings": dict(curves.settings),
    }


def read_curves(path: str | Path) -> tuple[FragilityCurves, Tensor]:
    """Read curves and which attacks are done.

    Raises:
        ArtifactError: There is no such file, or it is something else.
    """
    tensors, header = load_artifact(path)
    check_header(path, header, KIND)
    curves = curves_of(header, tensors["values"], tensors["transfer"])
    shape = (*curves.values.shape[:3], curves.images)
    return curves, tensors.get("done", torch.ones(shape, dtype=torch.bool))


def curves_of(header: Mapping[str, Any], values: Tensor, transfer: Tensor) -> FragilityCurves:
    """Return curves from what was written."""
    names = [field.name for field in fields(CurveFailure)]
    failures = [
        CurveFailure(**{name: _tupled(each[name]) for name in names}) for each in header["failures"]
    ]
    return FragilityCurves(
        tuple(header["methods"]),
        tuple(header["modes"]),
        tuple(header["radii"]),
        values,
        tuple(header["judges"]),
        transfer,
        tuple(failures),
        header["settings"],
    )


def _tupled(value: Any) -> Any:  # noqa: ANN401 - any JSON
    return tuple(value) if isinstance(value, list) else value


def _place(kind: str, name: _Known, known: Sequence[_Known]) -> int:
    if name not in known:
        raise InputError(
            f"there is no {kind} {name!r} in these curves; they are {', '.join(map(repr, known))}"
            if known
            else f"there is no {kind} in these curves"
        )
    return list(known).index(name)
