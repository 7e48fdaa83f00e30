"""The five kinds of answer a black box can give: checked, then read as probabilities.

Each check asks the device one question, "is all of it right?", so that a batch on a GPU costs one
wait; the reason is looked for only where the answer is no.
"""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from captum_blackbox.errors import OutputError
from captum_blackbox.shapes import Scores

OutputKind: TypeAlias = Literal["logits", "probs", "log_probs", "topk", "labels"]
"""What a black box answers."""

ROW_SUM_TOLERANCE = 1e-3
"""How far from 1 probabilities may sum; more where their dtype cannot do better."""

_ALIKE_TOLERANCE = 1e-4  # logits whose rows sum to 1 this closely are taken for probabilities


class TopK(NamedTuple):
    """The ``k`` classes that a service lists for each image.

    Attributes:
        values: Their probabilities, ``(N, k)``.
        indices: Their numbers, ``(N, k)`` int64.
    """

    values: Tensor
    indices: Tensor


Answers: TypeAlias = Tensor | TopK
"""A row of numbers, or a list of classes, for each image."""


def checked_answers(
    raw: Any,  # noqa: ANN401 - whatever the user's function returns
    output: OutputKind,
    images: int,
    num_classes: int | None,
) -> Answers:
    """Turn what a black box returned into tensors of the declared kind, or say what is wrong.

    The tensors are copies: the black box may use its memory again.

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
    if output == "topk":
        answers = _topk(raw)
        _check_rows(answers.indices, images)
        _check_topk(answers, num_classes)
        return answers
    if output == "labels":
        labels = _labels(raw)
        _check_rows(labels, images)
        _check_range(labels, num_classes)
        return labels
    scores = _scores(raw, output)
    _check_rows(scores, images)
    if num_classes is not None and scores.shape[1] != num_classes:
        raise OutputError(
            f"expected {num_classes} classes; the black box answered {scores.shape[1]}"
        )
    _CHECKS[output](scores)
    return scores


def probabilities(answers: Answers, output: OutputKind, num_classes: int | None) -> Scores:
    """Read checked answers as probabilities ``(N, num_classes)``, at least in float32.

    Classes that a top-k answer does not list get 0; a label becomes a one-hot row.

    Args:
        answers: What :func:`checked_answers` returned.
        output: What the black box was declared to return.
        num_classes: How many classes it knows; needed for ``"topk"`` and ``"labels"``.

    Example:
        >>> probabilities(torch.tensor([1]), "labels", num_classes=3)
        tensor([[0., 1., 0.]])
    """
    if isinstance(answers, TopK):
        values = _at_least_float32(answers.values)
        listed = values.new_zeros(len(values), num_classes or 0)
        return listed.scatter_(1, answers.indices, values)
    if output == "labels":
        return F.one_hot(answers, num_classes or 0).float()
    scores = _at_least_float32(answers)
    if output == "probs":
        return scores / scores.sum(1, keepdim=True)
    return scores.softmax(1)


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _as_tensor(raw: Any) -> Tensor:  # noqa: ANN401
    if isinstance(raw, Tensor):
        return raw.detach().clone()
    try:
        # A list of numbers is double precision, as it is for NumPy.
        return torch.as_tensor(np.array(raw))
    except (TypeError, ValueError, RuntimeError) as error:
        raise OutputError(
            f"the black box returned a {type(raw).__name__} that is no tensor: {error}"
        ) from error


def _scores(raw: Any, output: str) -> Tensor:  # noqa: ANN401
    scores = _as_tensor(raw)
    if scores.dim() != 2 or scores.shape[1] == 0 or scores.is_complex():
        raise OutputError(
            f"output={output!r} means real numbers of shape (N, classes); the black box returned "
            f"{_described(scores)}"
        )
    return _as_floats(scores)


def _labels(raw: Any) -> Tensor:  # noqa: ANN401
    labels = _as_tensor(raw)
    if labels.dim() != 1 or not _is_integral(labels):
        raise OutputError(
            "output='labels' means one integer per image, shape (N,); the black box returned "
            f"{_described(labels)}"
        )
    return labels.long()


def _topk(raw: Any) -> TopK:  # noqa: ANN401
    if not isinstance(raw, tuple | list) or len(raw) != 2:
        raise OutputError(
            "output='topk' means a pair (values, indices); the black box returned a "
            f"{type(raw).__name__}"
        )
    values, indices = map(_as_tensor, raw)
    is_matrix = values.dim() == 2 and values.shape[1] > 0 and not values.is_complex()
    if not is_matrix or values.shape != indices.shape or not _is_integral(indices):
        raise OutputError(
            "output='topk' means values (N, k) and integer indices (N, k); the black box returned "
            f"{_described(values)} and {_described(indices)}"
        )
    return TopK(_as_floats(values), indices.long())


def _as_floats(scores: Tensor) -> Tensor:
    return scores if scores.is_floating_point() else scores.to(torch.get_default_dtype())


def _is_integral(tensor: Tensor) -> bool:
    kind = tensor.dtype
    return not (kind.is_floating_point or kind.is_complex or kind == torch.bool)


def _described(tensor: Tensor) -> str:
    return f"{tensor.dtype} of shape {tuple(tensor.shape)}"


def _check_rows(answers: Tensor, images: int) -> None:
    if len(answers) != images:
        raise OutputError(
            f"the black box answered {len(answers)} rows to {images} images; it must answer one "
            "row per image"
        )


def _check_logits(scores: Tensor) -> None:
    sums, lowest = _sums(scores), scores.amin(1)
    tolerance = max(_ALIKE_TOLERANCE, _precision(scores))
    alike = ((lowest >= 0) & ((sums - 1).abs() < tolerance)).all()
    # The sums alone: a look at every score would cost more than the softmax to come.
    finite, all_alike = torch.stack([sums.isfinite().all(), alike]).tolist()
    if not finite:
        _refuse_nan(scores)
        if not bool(scores.isfinite().all()):
            raise OutputError("the black box answered an infinite logit")
    if all_alike and scores.shape[1] > 1:
        raise OutputError(
            "output='logits' was declared, but every row is non-negative and sums to 1: these are "
            "probabilities; declare output='probs'"
        )


def _check_probs(scores: Tensor) -> None:
    sums, lowest = _sums(scores), scores.amin(1)
    tolerance = max(ROW_SUM_TOLERANCE, _precision(scores))
    if bool(((lowest >= 0) & _near_one(sums, tolerance)).all()):
        return
    _refuse_nan(scores)
    if bool((lowest < 0).any()):
        raise OutputError(
            f"output='probs' was declared, but the black box answered {float(lowest.min()):.4g}; "
            "probabilities are not negative (logits? declare output='logits')"
        )
    _refuse_sums(sums, "probs", "sums to", tolerance)


def _check_log_probs(scores: Tensor) -> None:
    sums = _sums(_at_least_float32(scores).exp())
    # Rounding log p by a factor changes the sum by that times the entropy, at most log(classes).
    rounding = _precision(scores) * (1 + math.log(scores.shape[1]))
    tolerance = max(ROW_SUM_TOLERANCE, rounding)
    if not bool(_near_one(sums, tolerance).all()):
        _refuse_nan(scores)
        _refuse_sums(sums, "log_probs", "has probabilities that sum to", tolerance)


def _check_topk(answers: TopK, num_classes: int | None) -> None:
    values, indices = answers
    sums, classes = _sums(values), num_classes or 0
    tolerance = max(ROW_SUM_TOLERANCE, _precision(values))
    ordered = indices.sort(1).values
    distinct = (ordered[:, 1:] != ordered[:, :-1]).all(1)
    probable = (values.amin(1) >= 0) & (sums <= 1 + tolerance)
    in_range = (ordered[:, 0] >= 0) & (ordered[:, -1] < classes)
    if bool((probable & distinct & in_range).all()):
        return
    if bool(values.isnan().any()):
        raise OutputError("the black box answered NaN among its top-k probabilities")
    if not bool(probable.all()):
        raise OutputError(
            "output='topk' means probabilities: not negative, and at most 1 in sum; the black box "
            f"answered values from {float(values.min()):.4g} to {float(values.max()):.4g}, with a "
            f"row sum of {float(sums.max()):.4g}"
        )
    _check_range(indices, num_classes)
    raise OutputError("the black box listed the same class twice for one image")


def _check_range(indices: Tensor, num_classes: int | None) -> None:
    classes = num_classes or 0
    wrong = indices[(indices < 0) | (indices >= classes)]
    if len(wrong) > 0:
        raise OutputError(
            f"the black box answered class {int(wrong[0])}; with num_classes={num_classes} the "
            f"classes are 0 … {classes - 1}"
        )


def rows_are_probabilities(scores: Tensor) -> bool:
    """Say whether every row ``(classes,)``, of two classes or more, could be probabilities.

    Example:
        >>> rows_are_probabilities(torch.tensor([[0.25, 0.75]]))
        True
    """
    if scores.shape[1] == 1:
        return False
    near = _near_one(_sums(scores), max(1e-4, _precision(scores)))
    return bool(((scores.amin(1) >= 0) & near).all())


def _sums(scores: Tensor) -> Tensor:
    # Not in float64, which some devices do not have.
    return scores.sum(1, dtype=torch.promote_types(scores.dtype, torch.float32))


def _precision(scores: Tensor) -> float:
    return float(torch.finfo(scores.dtype).eps)


def _near_one(sums: Tensor, tolerance: float) -> Tensor:
    return (sums - 1).abs() <= tolerance


def _refuse_nan(scores: Tensor) -> None:
    rows = scores.isnan().any(1).nonzero().flatten().tolist()
    if rows:
        some = ", ".join(map(str, rows[:5])) + (", …" if len(rows) > 5 else "")
        raise OutputError(f"the black box answered NaN for image {some} of the batch")


def _refuse_sums(sums: Tensor, output: str, what: str, tolerance: float) -> None:
    worst = int((sums - 1).abs().argmax())
    raise OutputError(
        f"output={output!r} was declared, but row {worst} {what} {float(sums[worst]):.4g}, not to "
        f"1 ± {tolerance:g}"
    )


_CHECKS: dict[str, Callable[[Tensor], None]] = {
    "logits": _check_logits,
    "probs": _check_probs,
    "log_probs": _check_log_probs,
}
