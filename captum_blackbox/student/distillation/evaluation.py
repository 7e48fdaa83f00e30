"""How faithfully a student repeats what a black box says."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from captum_blackbox.black_box import Answers, BlackBox, OutputKind
from captum_blackbox.errors import InputError, OutputError, ShapeError
from captum_blackbox.hooks import evaluating
from captum_blackbox.student.distillation.batches import Batches, Data
from captum_blackbox.student.distillation.losses import (
    TopKMode,
    best_class,
    centred,
    distillation_loss,
    teacher_logits,
)


class Fidelity(NamedTuple):
    """What a student has in common with its black box.

    Attributes:
        agreement: Share of images with the same best class, 0 to 1, higher is better.
        kl: Mean divergence ``KL(box ‖ student)`` at ``T = 1`` in nats, lower is better; for a box
            that answers labels, the cross-entropy with them.
        r2: Share of the variance of the box's centred logits that the student's explain; 1 is
            perfect, 0 is as good as a constant; ``None`` where the box does not give all classes.
        images: How many images were compared.
    """

    agreement: float
    kl: float
    r2: float | None
    images: int


def evaluate(
    box: BlackBox,
    student: nn.Module,
    data: Data,
    *,
    student_preprocess: Callable[[Tensor], Tensor] | None = None,
    batch_size: int = 64,
    topk: TopKMode = "uniform",
) -> Fidelity:
    """Compare a student with its black box on images; each image is one query.

    Args:
        box: The black box.
        student: Gives logits ``(N, classes)``; it runs in evaluation mode and is left as it was.
        data: Images as for :func:`~captum_blackbox.student.distill`; labels are ignored.
        student_preprocess: Applied to the images before the student sees them.
        batch_size: Images in one question, where ``data`` is no loader.
        topk: How a top-k answer stands for all classes.

    Raises:
        ShapeError: The images have the wrong shape.
        InputError: There is no image, or the student has another number of classes.

    Example:
        >>> student = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        >>> box = BlackBox(student, output="logits")
        >>> evaluate(box, student, torch.rand(5, 1, 2, 2)).agreement
        1.0
    """
    device = next((each.device for each in student.parameters()), torch.device("cpu"))
    sums: FidelitySums | None = None
    with evaluating(student), torch.no_grad():
        for batch in Batches(data, batch_size, shuffle=False).epoch(0):
            images = batch.images.to(device)
            answers = box.answers(images)
            logits = student_logits(student, images, student_preprocess, box.num_classes)
            sums = sums or FidelitySums(box.output, logits.shape[1], topk)
            sums.add(logits, answers)
    if sums is None:
        raise InputError("there is nothing to compare; give at least one image")
    return sums.result()


def student_logits(
    student: nn.Module,
    images: Tensor,
    preprocess: Callable[[Tensor], Tensor] | None,
    num_classes: int | None,
) -> Tensor:
    """Run a student on the images that the box saw and check what it puts out.

    Raises:
        OutputError: It does not put out one logit per class of the box.
    """
    logits = student(images if preprocess is None else preprocess(images))
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(images):
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise OutputError(
            f"the student must put out logits ({len(images)}, classes) for {len(images)} images, "
            f"got {got}"
        )
    if num_classes is not None and logits.shape[1] != num_classes:
        raise OutputError(
            f"the student puts out {logits.shape[1]} classes, the black box answers {num_classes}; "
            f"give the student a last layer of {num_classes} outputs"
        )
    return logits


def check_student(
    student: nn.Module,
    images: Tensor,
    preprocess: Callable[[Tensor], Tensor] | None,
    num_classes: int | None,
) -> int:
    """Try a student on one image before anything is asked; return its number of classes.

    Raises:
        ShapeError: It cannot take such an image.
        OutputError: It does not put out one logit per class of the box.
    """
    with evaluating(student), torch.no_grad():
        try:
            return student_logits(student, images[:1], preprocess, num_classes).shape[1]
        except OutputError:
            raise
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise ShapeError(
                f"the student cannot take images of shape {tuple(images.shape)} and "
                f"{images.dtype}: {error}"
            ) from error


class FidelitySums:
    """Sums over images from which :class:`Fidelity` follows, so that processes can add theirs.

    Args:
        output: Of the box.
        num_classes: Number of classes.
        topk: How a top-k answer stands for all classes.

    Attributes:
        sums: Images, agreements, divergence, squared residuals and squared logits of the box (both
            centred over classes), then the sum of those logits per class; ``(5 + classes,)``
            float64 on the CPU.
    """

    def __init__(self, output: OutputKind, num_classes: int, topk: TopKMode) -> None:
        self._output, self._topk = output, topk
        self.sums = torch.zeros(5 + num_classes, dtype=torch.float64)

    def add(self, logits: Tensor, answers: Answers) -> None:
        """Take in one batch."""
        count = len(logits)
        divergence = distillation_loss(
            logits, answers, self._output, temperature=1.0, topk=self._topk
        )
        same = (logits.argmax(1) == best_class(answers)).sum()
        self.sums[:3] += torch.stack([torch.tensor(count), same.cpu(), divergence.cpu() * count])
        if self._has_all_classes:
            box = centred(teacher_logits(answers, self._output, logits.shape[1]).cpu().double())
            residual = centred(logits.cpu().double()) - box
            self.sums[3] += residual.square().sum()
            self.sums[4] += box.square().sum()
            self.sums[5:] += box.sum(0)

    def result(self) -> Fidelity:
        """Return the figures of everything that was taken in."""
        count, same, divergence, residual, squares = self.sums[:5].tolist()
        # Between images, for each class: what a constant cannot explain.
        variance = squares - float(self.sums[5:].square().sum()) / count
        r2 = 1 - residual / variance if self._has_all_classes and variance > 0 else None
        return Fidelity(same / count, divergence / count, r2, int(count))

    @property
    def _has_all_classes(self) -> bool:
        return self._output in ("logits", "probs", "log_probs")
