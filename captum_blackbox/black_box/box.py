"""Images to scores and nothing else: batched, counted, budgeted, remembered."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias, get_args

import numpy as np
import torch
from torch import Tensor, nn

from captum_blackbox.artifacts import fingerprint, tensor_bytes
from captum_blackbox.black_box.ledger import Answer, Ledger
from captum_blackbox.black_box.outputs import (
    Answers,
    OutputKind,
    TopK,
    checked_answers,
    probabilities,
)
from captum_blackbox.errors import (
    BlackBoxError,
    InputError,
    OutputError,
    QueryBudgetError,
)
from captum_blackbox.hooks import evaluating
from captum_blackbox.shapes import Scores, check_images

Preprocess: TypeAlias = Callable[[Tensor], Tensor]
Columns: TypeAlias = dict[str, Tensor]


class BlackBox:
    """A classifier of images that can be called and nothing else.

    It asks in batches, counts every image that was answered, refuses to exceed a budget before
    anything is asked, and, with a ``cache``, never asks the same image twice. It is a plain
    callable from images to probabilities, so it serves as ``forward_func`` of Captum's perturbation
    methods and metrics.

    Args:
        fn: A module or any callable that gets a detached tensor ``(n, C, H, W)``, ``n`` at most
            ``batch_size``, and returns tensors or arrays. A module runs in evaluation mode without
            gradient and is left as it was.
        output: What ``fn`` returns. Declared, not guessed, since a row of logits can look like
            probabilities: ``"logits"``, ``"probs"`` or ``"log_probs"`` ``(n, classes)``; ``"topk"``
            a pair of probabilities and class numbers ``(n, k)``; ``"labels"`` integers ``(n,)``.
        num_classes: Number of classes; required for ``"topk"`` and ``"labels"``, otherwise read
            from the first answer.
        preprocess: Applied to the images before ``fn`` sees them, in the same batches.
        batch_size: Most images in one call of ``fn``.
        query_budget: Most images that may be asked; ``None`` for no limit.
        cache: File (SQLite) that keeps answers and count, by the content of what ``fn`` sees;
            ``":memory:"`` keeps them for the life of this object. Processes may share the file:
            they share count and budget and ask one after the other. A module's weights are part of
            the file's identity; of another callable only ``output`` and ``num_classes`` are
            checked, so use one file for one model.
        device: Where ``fn`` wants its input; by default a module's own device, otherwise where the
            images are.

    Raises:
        InputError: A setting cannot be used.
        ArtifactError: The cache belongs to another model or cannot be written.

    Example:
        >>> box = BlackBox(lambda x: x.mean((2, 3)), output="logits", query_budget=10)
        >>> box(torch.zeros(2, 4, 8, 8))
        tensor([[0.2500, 0.2500, 0.2500, 0.2500],
                [0.2500, 0.2500, 0.2500, 0.2500]])
        >>> box.queries
        2
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        *,
        output: OutputKind,
        num_classes: int | None = None,
        preprocess: Preprocess | None = None,
        batch_size: int = 64,
        query_budget: int | None = None,
        cache: str | Path | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        _check_settings(fn, output, num_classes, batch_size, query_budget)
        self.fn = fn
        self.output: OutputKind = output
        self.num_classes = num_classes
        self.preprocess = preprocess
        self.batch_size = batch_size
        self.query_budget = query_budget
        self.device = None if device is None else torch.device(device)
        self._asked = 0
        self._ledger = None if cache is None else Ledger(cache, self._identity())

    @classmethod
    def from_numpy(
        cls, fn: Callable[[np.ndarray], Any], *, output: OutputKind, **settings: Any
    ) -> "BlackBox":
        """Wrap a function that gets a NumPy array ``(n, C, H, W)``; settings as for the class.

        Example:
            >>> box = BlackBox.from_numpy(lambda x: x.mean(axis=(2, 3)), output="logits")
            >>> box(torch.zeros(1, 2, 4, 4))
            tensor([[0.5000, 0.5000]])
        """
        return cls(_FromNumpy(fn), output=output, **settings)

    @classmethod
    def from_sklearn(
        cls,
        estimator: Any,  # noqa: ANN401 - scikit-learn is not a dependency
        *,
        output: OutputKind = "probs",
        **settings: Any,
    ) -> "BlackBox":
        """Wrap a fitted scikit-learn classifier that gets flattened images ``(n, C·H·W)``.

        Class ``c`` is ``estimator.classes_[c]``.

        Args:
            estimator: A fitted classifier or pipeline.
            output: ``"probs"`` asks ``predict_proba``, ``"labels"`` asks ``predict``.
            **settings: As for the class.

        Raises:
            InputError: The estimator is not fitted or has no such method.
        """
        method = {"probs": "predict_proba", "labels": "predict"}.get(output)
        if method is None:
            raise InputError(
                f"a scikit-learn estimator gives output='probs' or 'labels', got {output!r}"
            )
        if not hasattr(estimator, method):
            raise InputError(
                f"{type(estimator).__name__} has no {method}; choose output='labels' for an "
                "estimator that only predicts classes"
            )
        if not hasattr(estimator, "classes_"):
            raise InputError(f"{type(estimator).__name__} is not fitted; call its fit first")
        settings.setdefault("num_classes", len(estimator.classes_))
        return cls(_FromSklearn(estimator, method), output=output, **settings)

    @property
    def queries(self) -> int:
        """How many images were answered; with a cache file, by all runs that shared it."""
        return self._asked if self._ledger is None else self._ledger.queries

    def __call__(self, images: Tensor) -> Scores:
        """Return probabilities ``(N, num_classes)`` on the device of ``images``, float32 or wider.

        Classes that a top-k answer does not list get 0; a label becomes a one-hot row.

        Raises:
            ShapeError: ``images`` is not a non-empty floating-point tensor ``(N, C, H, W)``.
            QueryBudgetError: The budget would be exceeded; nothing was asked.
            OutputError: The answer is not what was declared.
            BlackBoxError: ``fn`` raised; answers before are in the cache.
        """
        answers = self.answers(images)
        return probabilities(answers, self.output, self.num_classes)

    def answers(self, images: Tensor) -> Answers:
        """Return the raw answers, checked: a tensor, or :class:`TopK` for ``output="topk"``."""
        check_images(images)
        batches = torch.split(images.detach(), self.batch_size)
        with torch.no_grad():
            self._check_budget(self._new_images(batches))
            parts = []
            for number, batch in enumerate(batches):
                with self._explained(number, len(images)):
                    parts.append(self._answer(self._prepared(batch)))
        columns = {
            name: torch.cat([part[name] for part in parts]).to(images.device) for name in parts[0]
        }
        return TopK(**columns) if self.output == "topk" else columns["scores"]

    def __repr__(self) -> str:
        """Name what is wrapped and what was spent."""
        name = getattr(self.fn, "__name__", type(self.fn).__name__)
        return f"BlackBox({name}, output={self.output!r}, queries={self.queries})"

    def _prepared(self, batch: Tensor) -> Tensor:
        # A copy, so that nothing the box does to its input reaches the caller's images.
        batch = batch.clone() if self.preprocess is None else self.preprocess(batch.clone())
        device = self.device
        if device is None and isinstance(self.fn, nn.Module):
            first = next(self.fn.parameters(), None)
            device = None if first is None else first.device
        return batch if device is None else batch.to(device)

    def _answer(self, batch: Tensor) -> Columns:
        if self._ledger is None:
            self._check_budget(len(batch))
            return self._ask(batch)
        keys = [_key(image) for image in batch]
        known = self._ledger.read(keys)
        if len(known) < len(set(keys)):
            with self._ledger.asking():
                # Another process may have asked in the meantime.
                known = self._ledger.read(keys)
                new = {key: i for i, key in enumerate(keys) if key not in known}
                if new:
                    self._check_budget(len(new))
                    rows = _rows(self._ask(batch[list(new.values())]))
                    answers = dict(zip(new, rows, strict=True))
                    self._ledger.write(answers)
                    known |= answers
        return {name: torch.stack([known[key][name] for key in keys]) for name in known[keys[0]]}

    def _ask(self, batch: Tensor) -> Columns:
        with evaluating(self.fn) if isinstance(self.fn, nn.Module) else contextlib.nullcontext():
            raw = self.fn(batch)
        # What was answered was paid for, also where the answer turns out to be unusable.
        if self._ledger is None:
            self._asked += len(batch)
        else:
            self._ledger.count(len(batch))
        answers = checked_answers(raw, self.output, len(batch), self.num_classes)
        if isinstance(answers, TopK):
            return answers._asdict()
        if self.num_classes is None:
            self.num_classes = answers.shape[1]
        return {"scores": answers}

    def _check_budget(self, more: int) -> None:
        if self.query_budget is not None and self.queries + more > self.query_budget:
            raise QueryBudgetError(
                f"{more} more images would exceed the budget of {self.query_budget}: "
                f"{self.queries} were asked; nothing was asked now"
            )

    def _new_images(self, batches: Sequence[Tensor]) -> int:
        if self.query_budget is None:
            return 0
        if self._ledger is None:
            return sum(map(len, batches))
        keys = {_key(image) for batch in batches for image in self._prepared(batch)}
        return len(keys) - len(self._ledger.read(list(keys)))

    @contextlib.contextmanager
    def _explained(self, number: int, total: int) -> Iterator[None]:
        try:
            yield
        except (OutputError, QueryBudgetError):
            raise
        except Exception as error:
            first = number * self.batch_size
            last = min(first + self.batch_size, total) - 1
            kept = (
                "answers are not kept without a cache"
                if self._ledger is None
                else f"answers so far are kept in {self._ledger.path!r}"
            )
            raise BlackBoxError(
                f"the black box raised {type(error).__name__} on images {first} to {last} of "
                f"{total}: {error}; {kept}"
            ) from error

    def _identity(self) -> dict[str, Any]:
        identity: dict[str, Any] = {"format": 1, "output": self.output}
        if self.num_classes is not None:
            identity["num_classes"] = self.num_classes
        if isinstance(self.fn, nn.Module):
            identity["model"] = fingerprint(self.fn)
        return identity


def as_black_box(box_or_model: BlackBox | Callable[..., Any], output: OutputKind) -> BlackBox:
    """Return a black box as it is, and anything else wrapped as one that returns ``output``.

    Example:
        >>> as_black_box(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), "logits").output
        'logits'
    """
    if isinstance(box_or_model, BlackBox):
        return box_or_model
    return BlackBox(box_or_model, output=output)


class _FromNumpy:
    def __init__(self, fn: Callable[[np.ndarray], Any]) -> None:
        self._fn = fn
        self.__name__ = getattr(fn, "__name__", type(fn).__name__)

    def __call__(self, images: Tensor) -> Any:  # noqa: ANN401
        # NumPy has no bfloat16.
        images = images.float() if images.dtype == torch.bfloat16 else images
        return self._fn(images.cpu().numpy())


class _FromSklearn:
    def __init__(self, estimator: Any, method: str) -> None:  # noqa: ANN401
        self._estimator = estimator
        self._method = method
        self.__name__ = type(estimator).__name__

    def __call__(self, images: Tensor) -> Any:  # noqa: ANN401
        flat = images.flatten(1).double().cpu().numpy()
        answer = getattr(self._estimator, self._method)(flat)
        if self._method == "predict":
            return np.searchsorted(self._estimator.classes_, answer)
        return answer


def _rows(columns: Columns) -> list[Answer]:
    rows = zip(*(column.cpu() for column in columns.values()), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _key(image: Tensor) -> bytes:
    digest = hashlib.sha256(f"{tuple(image.shape)} {image.dtype}".encode())
    digest.update(tensor_bytes(image))
    return digest.digest()


def _check_settings(
    fn: Callable[..., Any],
    output: OutputKind,
    num_classes: int | None,
    batch_size: int,
    query_budget: int | None,
) -> None:
    if not callable(fn):
        raise InputError(f"a black box wraps something callable, got {type(fn).__name__}")
    if output not in get_args(OutputKind):
        raise InputError(f"output is one of {', '.join(get_args(OutputKind))}, got {output!r}")
    if num_classes is None and output in {"topk", "labels"}:
        raise InputError(
            f"output={output!r} does not tell how many classes there are; give num_classes"
        )
    for name, value in (("num_classes", num_classes), ("batch_size", batch_size)):
        if value is not None and value < 1:
            raise InputError(f"{name} must be at least 1, got {value}")
    if query_budget is not None and query_budget < 0:
        raise InputError(f"query_budget must not be negative, got {query_budget}")
