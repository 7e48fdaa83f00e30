"""What a run is: its settings, and the header that ties a checkpoint to them."""

import dataclasses
import hashlib
import math
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from captum_blackbox.artifacts import fingerprint
from captum_blackbox.black_box import BlackBox
from captum_blackbox.errors import InputError
from captum_blackbox.student.distillation.batches import Batches
from captum_blackbox.student.distillation.losses import Loss, TopKMode
from captum_blackbox.student.distillation.processes import Processes
from captum_blackbox.student.distillation.random_state import seed_everything

_RANGES = {
    "epochs": (1, math.inf),
    "patience": (1, math.inf),
    "seed": (0, math.inf),
    "temperature": (1e-6, 1e6),
    "max_gradient_norm": (1e-12, math.inf),
    "alpha": (0, 1),
    "label_smoothing": (0, 1),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How a run trains, as for :func:`captum_blackbox.student.distillation.distiller.distill`.

    Raises:
        InputError: A number is out of range.
    """

    epochs: int
    temperature: float
    alpha: float | None
    loss: Loss
    topk: TopKMode
    label_smoothing: float
    seed: int
    patience: int | None
    max_gradient_norm: float | None

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                wanted = f"at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
                raise InputError(f"{name} must be {wanted}, got {value}")


def run_header(
    settings: Settings,
    box: BlackBox,
    student: nn.Module,
    optimizer: Optimizer,
    batches: Batches,
    validation: Batches | None,
    processes: Processes,
) -> dict[str, Any]:
    """Return everything that must be the same for a run to go on where it stopped."""
    return {
        "kind": "distillation",
        "format": 1,
        **dataclasses.asdict(settings),
        "mixed_precision": processes.mixed_precision,
        "processes": processes.count,
        "images": batches.images,
        "steps": batches.steps,
        "validation_images": None if validation is None else validation.images,
        "output": box.output,
        "box": fingerprint(box.fn) if isinstance(box.fn, nn.Module) else None,
        "first_and_last_image": _digest(batches, settings, processes),
        "first_and_last_validation_image": _digest(validation, settings, processes),
        "optimizer": _description(optimizer),
        "student": _architecture(student),
    }


def _digest(batches: Batches | None, settings: Settings, processes: Processes) -> str | None:
    if batches is None:
        return None
    # The images may be drawn at random.
    seed_everything(processes.device, settings.seed)
    return batches.digest()


def _description(optimizer: Optimizer) -> str:
    groups = [
        ", ".join(f"{key}={value!r}" for key, value in group.items() if key != "params")
        for group in optimizer.param_groups
    ]
    return f"{type(optimizer).__name__}({'; '.join(groups)})"


def _architecture(student: nn.Module) -> str:
    shapes = [
        f"{name} {tuple(value.shape)} {value.dtype}"
        for name, value in student.state_dict().items()
        if isinstance(value, Tensor)
    ]
    digest = hashlib.sha256("\n".join(shapes).encode()).hexdigest()[:16]
    return f"{type(student).__name__} of {len(shapes)} tensors, {digest}"
