"""The five kinds of answer a black box can give: checked, then read as probabilities."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from captum_blackbox.errors import OutputError
from captum_blackbox.shapes import Scores

OutputKind: TypeAlias = Literal["logits", "probs", "log_probs", "topk", "labels"]
OUTPUT_KINDS: tuple[OutputKind, ...] = get_args(OutputKind)

ROW_SUM_TOLERANCE = 1e-3


class TopK(NamedTuple):
    """The ``k`` classes that a service lists for each image.

    Attributes:
        values: Their probabilities, ``(N, k)``.
        indices: Their numbers, ``(N, k)`` int64.
    """

    values: Tensor
    indices: Tensor


Answers: TypeAlias = Tensor | TopK


def checked_answers(
    raw: Any,  # noqa: ANN401 - whatever the user's function returns
    output: OutputKind,
    images: int,
    num_classes: int | None,
) -> Answers:
    """Turn what a black box returned into tensors of the declared kind, or say what is wrong.

    Args:
        raw: Tensors, arrays or lists; a pair of them for ``"topk"``.
        output: What the black box was declared to return.
        images: How many images it was asked about.
        num_classes: How many classes it knows, if that is known.

    Raises:
        OutputError: The answer is not of that kind; the message says in what.

    Example:
        >>> checked_answers(torch.tensor([[0.25, 0.75]]), "probs", images=1, num_classes=2)
        tensor([[0.2500, 0.7500]])
    """
    answers = _TENSORS[output](raw)
    parts = answers if isinstance(answers, TopK) else (answers,)
    for part in parts:
        if len(part) != images:
            raise OutputError(
                f"the black box answered {len(part)} rows to {images} images; it must answer one "
                "row per image"
            )
    _CHECKS[output](answers, num_classes)
    return answers


def probabilities(answers: Answers, output: OutputKind, num_classes: int | None) -> Scores:
    """Read checked answers as probabilities ``(N, num_classes)``, at least in float32.

    Classes that a top-k answer does not list get 0; a label becomes a one-hot row.

    Example:
        >>> probabilities(torch.tensor([1]), "labels", num_classes=3)
        tensor([[0., 1., 0.]])
    """
    if isinstance(answers, TopK):
        values = _at_least_float32(answers.values)
        num_classes = num_classes or int(answers.indices.max()) + 1
        listed = values.new_zeros(len(values), num_classes)
        return listed.scatter_(1, answers.indices, values)
    if output == "labels":
        return F.one_hot(answers, num_classes or -1).float()
    scores = _at_least_float32(answers)
    if output == "probs":
        return scores / scores.sum(1, keepdim=True)
    return scores.softmax(1)


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _as_tensor(raw: Any) -> Tensor:  # noqa: ANN401
    try:
        # A list of numbers is double precision, as it is for NumPy.
        tensor = torch.as_tensor(raw if isinstance(raw, Tensor) else np.asarray(raw))
    except (TypeError, ValueError, RuntimeError) as error:
        raise OutputError(
            f"the black box returned a {type(raw).__name__} that is no tensor: {error}"
        ) from error
    return tensor.detach()


def _scores(raw: Any) -> Tensor:  # noqa: ANN401
    scores = _as_tensor(raw)
    return scores if scores.is_floating_point() else scores.to(torch.get_default_dtype())


def _labels(raw: Any) -> Tensor:  # noqa: ANN401
    labels = _as_tensor(raw)
    if labels.dim() != 1 or labels.is_floating_point() or labels.dtype == torch.bool:
        raise OutputError(
            "output='labels' means one integer per image, shape (N,); the black box returned "
            f"{labels.dtype} of shape {tuple(labels.shape)}"
        )
    return labels.long()


def _topk(raw: Any) -> TopK:  # noqa: ANN401
    if not isinstance(raw, tuple | list) or len(raw) != 2:
        raise OutputError(
            "output='topk' means a pair (values, indices); the black box returned a "
            f"{type(raw).__name__}"
        )
    values, indices = _scores(raw[0]), _as_tensor(raw[1])
    if values.dim() != 2 or values.shape != indices.shape or indices.is_floating_point():
        raise OutputError(
            "output='topk' means values (N, k) and integer indices (N, k); the black box returned "
            f"{tuple(values.shape)} and {indices.dtype} of shape {tuple(indices.shape)}"
        )
    return TopK(values, indices.long())


def _check_matrix(scores: Tensor, output: str, num_classes: int | None) -> None:
    if scores.dim() != 2:
        raise OutputError(
            f"output={output!r} means shape (N, classes); the black box returned "
            f"{tuple(scores.shape)}"
        )
    if num_classes is not None and scores.shape[1] != num_classes:
        raise OutputError(
            f"expected {num_classes} classes; the black box answered {scores.shape[1]}"
        )
    if bool(scores.isnan().any()):
        rows = scores.isnan().any(1).nonzero().flatten().tolist()
        raise OutputError(f"the black box answered NaN for image {_some(rows)} of the batch")


def _check_logits(answers: Answers, num_classes: int | None) -> None:
    scores = _matrix(answers, "logits", num_classes)
    if bool(scores.isinf().any()):
        raise OutputError("the black box answered an infinite logit")
    sums = scores.double().sum(1)
    if scores.shape[1] > 1 and bool((scores >= 0).all()) and bool(((sums - 1).abs() < 1e-4).all()):
        raise OutputError(
            "output='logits' was declared, but every row is non-negative and sums to 1: these are "
            "probabilities; declare output='probs'"
        )


def _check_probs(answers: Answers, num_classes: int | None) -> None:
    scores = _matrix(answers, "probs", num_classes)
    if bool((scores < 0).any()):
        raise OutputError(
            f"output='probs' was declared, but the black box answered {float(scores.min()):.4g}; "
            "probabilities are not negative (logits? declare output='logits')"
        )
    sums = scores.double().sum(1)
    _check_sum(sums, "probs", "sums to")


def _check_log_probs(answers: Answers, num_classes: int | None) -> None:
    scores = _matrix(answers, "log_probs", num_classes)
    _check_sum(scores.double().exp().sum(1), "log_probs", "has probabilities that sum to")


def _check_sum(sums: Tensor, output: str, what: str) -> None:
    off = (sums - 1).abs()
    if bool((off > ROW_SUM_TOLERANCE).any()):
        worst = int(off.argmax())
        raise OutputError(
            f"output={output!r} was declared, but row {worst} {what} {float(sums[worst]):.4g}, "
            f"not to 1 ± {ROW_SUM_TOLERANCE:g}"
        )


def _check_topk(answers: Answers, num_classes: int | None) -> None:
    values, indices = answers
    if bool(values.isnan().any()):
        raise OutputError("the black box answered NaN among its top-k probabilities")
    if bool((values < 0).any()) or bool((values.double().sum(1) > 1 + ROW_SUM_TOLERANCE).any()):
        raise OutputError(
            "output='topk' means probabilities: not negative, and at most 1 in sum; the black box "
            f"answered values from {float(values.min()):.4g} to {float(values.max()):.4g}, with a "
            f"row sum of {float(values.double().sum(1).max()):.4g}"
        )
    _check_classes(indices, num_classes)
    ordered = indices.sort(1).values
    if bool((ordered[:, 1:] == ordered[:, :-1]).any()):
        raise OutputError("the black box listed the same class twice for one image")


def _check_labels(answers: Answers, num_classes: int | None) -> None:
    if isinstance(answers, Tensor):
        _check_classes(answers, num_classes)


def _check_classes(indices: Tensor, num_classes: int | None) -> None:
    wrong = indices[(indices < 0) | (indices >= (num_classes or 0))]
    if len(wrong) > 0:
        raise OutputError(
            f"the black box answered class {int(wrong[0])}; with num_classes={num_classes} the "
            f"classes are 0 … {(num_classes or 0) - 1}"
        )


def _matrix(answers: Answers, output: str, num_classes: int | None) -> Tensor:
    scores = answers[0] if isinstance(answers, TopK) else answers
    _check_matrix(scores, output, num_classes)
    return scores


def _some(rows: list[int]) -> str:
    return ", ".join(map(str, rows[:5])) + (", …" if len(rows) > 5 else "")


_TENSORS: dict[OutputKind, Callable[[Any], Answers]] = {
    "logits": _scores,
    "probs": _scores,
    "log_probs": _scores,
    "topk": _topk,
    "labels": _labels,
}
_CHECKS: dict[OutputKind, Callable[[Answers, int | None], None]] = {
    "logits": _check_logits,
    "probs": _check_probs,
    "log_probs": _check_log_probs,
    "topk": _check_topk,
    "labels": _check_labels,
}
