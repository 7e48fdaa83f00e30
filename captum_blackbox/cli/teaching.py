"""A student for a black box: made, taught and saved."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from captum_blackbox.cli import results as files
from captum_blackbox.cli.models import load_weights, make_network
from captum_blackbox.cli.options import NormalizeName, StudentOptions
from captum_blackbox.cli.question import Question
from captum_blackbox.errors import InputError
from captum_blackbox.student import DistilledLayerSumGradCAM, TransferSet, student_network

SELF = "self"
MIN_FIDELITY = 0.7
_QUERIES = 2000
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
        load_weights(student, weights, spec=spec)
    return student


def taught_explainer(
    question: Question,
    options: StudentOptions,
    inputs: Tensor,
    out: Path,
    *,
    seed: int,
    layers: Sequence[str] | None = None,
    normalize: NormalizeName = NormalizeName.NONE,
) -> DistilledLayerSumGradCAM:
    """Return an explainer whose student was taught on ``inputs``, ``(N, C, H, W)``.

    Every fifth image is held out and judges the student, where there are enough.
    """
    judging = torch.arange(len(inputs)) % _HELD_OUT == _HELD_OUT - 1
    judging &= torch.tensor(len(inputs) >= _ENOUGH)
    learning = inputs[~judging]
    student = make_student(
        options.student,
        options.weights,
        num_classes=question.box(inputs[:1]).shape[1],
        channels=inputs.shape[1],
        seed=seed,
    )
    explainer = DistilledLayerSumGradCAM(
        question.box, student.to(question.device), layers, normalize=normalize.value
    )
    teach(
        explainer,
        learning,
        inputs[judging] if bool(judging.any()) else None,
        out,
        queries=options.queries or max(_QUERIES, len(learning)),
        epochs=options.epochs,
        seed=seed,
        device=question.device,
    )
    return explainer


def teach(
    explainer: DistilledLayerSumGradCAM,
    images: Tensor,
    validation: Tensor | None,
    folder: Path,
    *,
    queries: int,
    epochs: int,
    seed: int,
    device: torch.device,
) -> None:
    """Teach the student of ``explainer``, or go on where it stopped, and save it in ``folder``.

    Args:
        explainer: Its student is on ``device``.
        images: To make questions of.
        validation: To judge by.
        folder: Where the checkpoint lies.
        queries: How many questions; the first are the images themselves.
        epochs: Passes over them.
        seed: Of questions and training.
        device: Where to train.
    """
    explainer.distill(
        TransferSet(images, queries, seed=seed),
        epochs=epochs,
        validation=validation,
        checkpoint=folder / files.CHECKPOINT_FILE,
        seed=seed,
        device=device,
        min_fidelity=MIN_FIDELITY,
    )
    explainer.save(folder / files.STUDENT_FILE)
