"""Which label scores stand for, and how sure it is."""

import torch
from torch import Tensor

from captum_blackbox.black_box import rows_are_probabilities
from captum_blackbox.errors import ShapeError
from captum_blackbox.shapes import Labels, PerImage


def labels_of(scores: Tensor) -> Labels:
    """Return the predicted label of each image; with one score, whether it is positive.

    Raises:
        ShapeError: There are no scores of classes, ``(N, classes)``, ``(N, 1)`` or ``(N,)``.

    Example:
        >>> labels_of(torch.tensor([[0.1, 0.9], [2.0, 1.0]])), labels_of(torch.tensor([-1.0, 3.0]))
        (tensor([1, 0]), tensor([0, 1]))
    """
    if scores.dim() > 2 or scores.dim() == 0:
        raise ShapeError(
            f"expected scores (N, classes), got an output of shape {tuple(scores.shape)}; wrap the "
            "network in a module that returns one score per class"
        )
    if number_of_classes(scores) == 1:
        return (scores.reshape(len(scores)) > 0).long()
    return scores.argmax(1)


def confidence_of(scores: Tensor, labels: Labels) -> PerImage:
    """Return the probability of a label for each image."""
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    if number_of_classes(scores) == 1:
        positive = scores.reshape(len(scores)).sigmoid()
        return torch.where(labels > 0, positive, 1 - positive)
    probabilities = scores if rows_are_probabilities(scores) else scores.softmax(1)
    return probabilities.gather(1, labels[:, None])[:, 0]


def number_of_classes(scores: Tensor) -> int:
    """Return how many scores an image has."""
    return scores.shape[1] if scores.dim() == 2 else 1
