"""What came of a distillation, in numbers that can be kept."""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistillationReport:
    """How far a student repeats its black box, and what it cost.

    Attributes:
        agreement: Share of images with the same best class, 0 to 1, higher is better.
        kl: Mean divergence ``KL(box ‖ student)`` at ``T = 1`` in nats, lower is better.
        r2: Share of the variance of the box's centred logits that the student's explain, 1 is
            perfect; ``None`` where the box does not give all classes.
        evaluated_on: ``"validation"``, or ``"training"``: the images of the last epoch, at most
            512 of each process.
        evaluated_images: How many images that were.
        queries: Images that the box was asked, those of validation and, in a resumed run, those
            before the last checkpoint included; in all processes.
        epochs_run: Epochs trained; fewer than asked for if it stopped early.
        best_epoch: The epoch, from 1, whose weights the student has.
        loss_curve: Mean loss of each epoch.
        validation_agreement: Agreement on validation after each epoch; empty without validation.
        validation_kl: Divergence on validation after each epoch; empty without validation.
        seconds: Wall-clock time, in a resumed run with the time before the last checkpoint.

    Example:
        >>> report = DistillationReport(
        ...     agreement=0.96, kl=0.051, r2=None, evaluated_on="validation", evaluated_images=500,
        ...     queries=8500, epochs_run=4, best_epoch=3, seconds=12.5,
        ...     loss_curve=(2.0, 1.0, 0.5, 0.4), validation_agreement=(0.5, 0.8, 0.96, 0.95),
        ...     validation_kl=(1.2, 0.4, 0.051, 0.06))
        >>> print(report)
        agreement 96.0 %, KL 0.0510 on 500 validation images
        8500 queries, 4 epochs (weights of epoch 3), 12.5 s, loss 2 → 0.4
        >>> DistillationReport.from_dict(report.to_dict()) == report
        True
    """

    agreement: float
    kl: float
    r2: float | None
    evaluated_on: str
    evaluated_images: int
    queries: int
    epochs_run: int
    best_epoch: int
    loss_curve: tuple[float, ...]
    validation_agreement: tuple[float, ...] = ()
    validation_kl: tuple[float, ...] = ()
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as values that JSON knows."""
        fields = dataclasses.asdict(self)
        return {name: list(v) if isinstance(v, tuple) else v for name, v in fields.items()}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "DistillationReport":
        """Undo :meth:`to_dict`, also after a way through JSON."""
        values: dict[str, Any] = dict(fields)
        for name, value in values.items():
            values[name] = tuple(value) if isinstance(value, list) else value
        return cls(**values)

    def __str__(self) -> str:
        """Return two lines for a person."""
        r2 = "" if self.r2 is None else f", R² {self.r2:.3f}"
        curve = self.loss_curve
        return (
            f"agreement {100 * self.agreement:.1f} %, KL {self.kl:.4f}{r2} on "
            f"{self.evaluated_images} {self.evaluated_on} images\n"
            f"{self.queries} queries, {self.epochs_run} epochs (weights of epoch "
            f"{self.best_epoch}), {self.seconds:.1f} s, loss {curve[0]:.4g} → {curve[-1]:.4g}"
        )
