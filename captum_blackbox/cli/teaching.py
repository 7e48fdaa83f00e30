"""A student for a black box: made, taught and saved."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from captum_blackbox.cli import results as files
from captum_blackbox.cli.models import load_weights, make_network
from captum_blackbox.cli.options import Budget, NormalizeName, StudentOptions
from captum_blackbox.cli.question import Question
from captum_blackbox.errors import InputError
from captum_blackbox.student import DistilledLayerSumGradCAM, TransferSet, student_network

SELF = "self"
MIN_FIDELITY = 0.7
_HELD_OUT = 5  # every fifth image judges the student
_ENOUGH = 10  # images to hold some out


def make_student(
    spec: str, weights: str | None, *, num_classes: int, channels: int, seed: int
) -> nn.Module:
    """Return the student that ``spec`` names, with ``weights`` or drawn from ``seed``.

    Raises:
        InputError: There is no such student, it is no module, or its weights do not fit.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        if ":" in spec:
            student = make_network(spec, num_classes=num_classes, option="--student")
        else:
            student = student_network(spec, num_classes, channels)
    if not isinstance(student, nn.Module):
        raise InputError(f"a student is an nn.Module; {spec} gives a {type(student).__name__}")
    if weights is not None:
        load_weights(student, weights, spec=spec, option="--student-weights")
    return student


def taught_explainer(
    question: Question,
    options: StudentOptions,
    inputs: Tensor,
    out: Path,
    *,
    budget: Budget,
    seed: int,
    layers: Sequence[str] | None = None,
    normalize: NormalizeName = NormalizeName.NONE,
) -> DistilledLayerSumGradCAM:
    """Return an explainer whose student was taught on ``inputs``, and save it in ``out``.

    The training goes on where it stopped. Where there are enough images, every fifth is held out
    and judges the student.
    """
    judging = torch.arange(len(inputs)) % _HELD_OUT == _HELD_OUT - 1
    judging &= torch.tensor(len(inputs) >= _ENOUGH)
    learning = inputs[~judging]
    student = make_student(
        options.student,
        options.student_weights,
        num_classes=question.count_classes(inputs),
        channels=inputs.shape[1],
        seed=seed,
    )
    explainer = DistilledLayerSumGradCAM(
        question.box, student.to(question.device), layers, normalize=normalize.value
    )
    explainer.distill(
        TransferSet(learning, options.queries or max(budget.queries, len(learning)), seed=seed),
        epochs=options.epochs or budget.epochs,
        validation=inputs[judging] if bool(judging.any()) else None,
        checkpoint=question.checkpoint,
        seed=seed,
        device=question.device,
        min_fidelity=MIN_FIDELITY,
    )
    explainer.save(out / files.STUDENT_FILE)
    return explainer
