"""What stands between a black box and callables that do not take tensors."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from captum_blackbox.errors import InputError, OutputError


class NumpyFunction:
    """A function of arrays ``(n, C, H, W)`` that can be called with a tensor.

    Example:
        >>> NumpyFunction(np.shape)(torch.zeros(1, 2, 3, 3))
        (1, 2, 3, 3)
    """

    def __init__(self, fn: Callable[[np.ndarray], Any]) -> None:
        if not callable(fn):
            raise InputError(f"a black box wraps something callable, got {type(fn).__name__}")
        self._fn = fn
        self.__name__ = getattr(fn, "__name__", type(fn).__name__)

    def __call__(self, images: Tensor) -> Any:  # noqa: ANN401 - whatever the function returns
        """Return what the function returns for ``images``."""
        # NumPy has no bfloat16.
        images = images.float() if images.dtype == torch.bfloat16 else images
        return self._fn(images.cpu().numpy())


class SklearnClassifier:
    """A fitted scikit-learn classifier that can be called with a tensor of images.

    Args:
        estimator: The classifier or pipeline; it gets rows of ``C·H·W`` numbers in float64.
        output: ``"probs"`` or ``"labels"``.

    Raises:
        InputError: The estimator is no fitted classifier or has no method for ``output``.
    """

    def __init__(self, estimator: Any, output: str) -> None:  # noqa: ANN401 - no dependency
        name = type(estimator).__name__
        method = {"probs": "predict_proba", "labels": "predict"}.get(output)
        if method is None:
            raise InputError(
                f"a scikit-learn estimator gives output='probs' or 'labels', got {output!r}"
            )
        if not hasattr(estimator, "classes_"):
            raise InputError(
                f"{name} has no classes_: fit it first; it must be a classifier of scikit-learn"
            )
        if isinstance(estimator.classes_, list):
            raise InputError(f"{name} predicts several things at once; wrap one of its estimators")
        if not hasattr(estimator, method):
            raise InputError(
                f"{name} has no {method}; choose output='labels' for an estimator that only "
                "predicts classes"
            )
        self.classes = np.asarray(estimator.classes_)
        self._ask = getattr(estimator, method)
        self._answers_labels = method == "predict"
        self.__name__ = name

    def __call__(self, images: Tensor) -> Any:  # noqa: ANN401
        """Return probabilities ``(n, classes)``, or the positions of the labels in ``classes``."""
        answer = self._ask(images.flatten(1).cpu().double().numpy())
        if not self._answers_labels:
            return answer
        # Sorted by scikit-learn's rule.
        positions = np.searchsorted(self.classes, answer).clip(max=len(self.classes) - 1)
        unknown = answer[self.classes[positions] != answer]
        if len(unknown) > 0:
            raise OutputError(
                f"{self.__name__} predicts {unknown[0]!r}, which is not among its classes_"
            )
        return positions
