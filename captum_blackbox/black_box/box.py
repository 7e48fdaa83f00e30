"""Images to scores and nothing else: batched, counted, budgeted, remembered."""

import contextlib
import itertools
from collections.abc import Callable, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, TypeAlias, get_args

import numpy as np
import torch
from torch import Tensor, nn

from captum_blackbox.artifacts import check_header, fingerprint
from captum_blackbox.black_box.adapters import NumpyFunction, SklearnClassifier
from captum_blackbox.black_box.encoding import Columns, content_keys, decoded, encoded, joined
from captum_blackbox.black_box.ledger import Ledger
from captum_blackbox.black_box.outputs import (
    Answers,
    OutputKind,
    TopK,
    checked_answers,
    probabilities,
)
from captum_blackbox.errors import (
    ArtifactError,
    BlackBoxError,
    CaptumBlackboxError,
    InputError,
    QueryBudgetError,
    check_choice,
)
from captum_blackbox.hooks import evaluating
from captum_blackbox.shapes import Scores, check_images

Preprocess: TypeAlias = Callable[[Tensor], Tensor]

_AS_IT_IS: contextlib.nullcontext[None] = contextlib.nullcontext()


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
        self.num_classes = None if num_classes is None else int(num_classes)
        self.preprocess = preprocess
        self.batch_size = int(batch_size)
        self.query_budget = query_budget
        self.device = None if device is None else torch.device(device)
        self._asked = 0
        self._ledger = None if cache is None else self._open(cache)
        self._versions = _versions(fn)

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
        return cls(NumpyFunction(fn), output=output, **settings)

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
            InputError: The estimator is no fitted classifier or has no such method.
        """
        classifier = SklearnClassifier(estimator, output)
        settings.setdefault("num_classes", len(classifier.classes))
        return cls(classifier, output=output, **settings)

    @property
    def queries(self) -> int:
        """How many images were answered; with a cache file, by all runs that shared it."""
        return self._asked if self._ledger is None else self._ledger.queries

    @property
    def asked(self) -> int:
        """How many images this object asked itself; without a cache file the same as queries."""
        return self._asked

    def __call__(self, images: Tensor) -> Scores:
        """Return probabilities ``(N, num_classes)`` on the device of ``images``, float32 or wider.

        Classes that a top-k answer does not list get 0; a label becomes a one-hot row.

        Raises:
            ShapeError: ``images`` is not a non-empty floating-point tensor ``(N, C, H, W)``.
            QueryBudgetError: The budget would be exceeded; nothing was asked (or no further
                batch, where other processes spend the same budget at the same time).
            OutputError: The answer is not what was declared.
            BlackBoxError: ``fn`` raised; answers before are in the cache.
        """
        answers = self.answers(images)
        return probabilities(answers, self.output, self.num_classes)

    def answers(self, images: Tensor) -> Answers:
        """Return the raw answers, checked: a tensor, or :class:`TopK` for ``output="topk"``."""
        check_images(images)
        batches = torch.split(images.detach(), self.batch_size)
        parts = []
        with torch.no_grad():
            self._check_budget_of(batches)
            for number, batch in enumerate(batches):
                first = number * self.batch_size
                place = f"images {first} to {first + len(batch) - 1} of {len(images)}"
                parts.append(tuple(each.to(images.device) for each in self._answer(batch, place)))
        columns = joined(parts)
        if self.num_classes is None:
            self.num_classes = columns[0].shape[1]
        return TopK(*columns) if self.output == "topk" else columns[0]

    def check_budget(self, images: int) -> None:
        """Refuse a job of so many images before its first, if the budget does not cover it all.

        A box with a cache refuses nothing here: it may know some of the answers.

        Raises:
            QueryBudgetError: The budget would be exceeded; nothing was asked.

        Example:
            >>> box = BlackBox(lambda x: x.mean((2, 3)), output="logits", query_budget=10)
            >>> box.check_budget(10)
            >>> box.check_budget(11)
            Traceback (most recent call last):
            ...
            captum_blackbox.errors.QueryBudgetError: 11 more images would exceed the budget of 10:
            0 were asked; these were not
        """
        if self._ledger is None:
            self._check_budget(images, self.queries)

    def __repr__(self) -> str:
        """Name what is wrapped and what was spent."""
        name = getattr(self.fn, "__name__", type(self.fn).__name__)
        return f"BlackBox({name}, output={self.output!r}, queries={self.queries})"

    def _answer(self, batch: Tensor, place: str) -> Columns:
        prepared = self._prepared(batch)
        if self._ledger is not None:
            self._check_weights()
            return self._recall(self._ledger, prepared, place)
        # A function that writes to its input must not reach the caller's images.
        return self._ask(prepared.clone() if prepared is batch else prepared, place)

    def _check_weights(self) -> None:
        if _versions(self.fn) != self._versions:
            raise ArtifactError(
                "the weights of the black box changed after its cache was opened, and the answers "
                "in it are those of the old ones; make a new BlackBox with another cache"
            )

    def _recall(self, ledger: Ledger, batch: Tensor, place: str) -> Columns:
        keys = content_keys(batch)
        known = ledger.read(keys)
        if not all(key in known for key in keys):
            with ledger.asking():
                # Another process may have asked in the meantime.
                known = ledger.read(keys)
                new = {key: i for i, key in enumerate(keys) if key not in known}
                if new:
                    self._check_budget(len(new), self.queries)
                    answers = self._ask(batch[list(new.values())], place)
                    rows = dict(zip(new, encoded(answers), strict=True))
                    ledger.write(rows)
                    known |= rows
        return decoded([known[key] for key in keys])

    def _ask(self, batch: Tensor, place: str) -> Columns:
        in_evaluation = evaluating(self.fn) if isinstance(self.fn, nn.Module) else _AS_IT_IS
        try:
            with in_evaluation:
                raw = self.fn(batch)
        except CaptumBlackboxError:
            raise  # it explains itself
        except Exception as error:
            kept = (
                "answers are not kept without a cache"
                if self._ledger is None
                else f"answers so far are kept in {self._ledger.path!r}"
            )
            raise BlackBoxError(
                f"the black box raised {type(error).__name__} on {place}: {error}; {kept}"
            ) from error
        # What was answered was paid for, also where the answer turns out to be unusable.
        classes = self.num_classes
        self._asked += len(batch)
        if self._ledger is not None:
            self._ledger.count(len(batch))
            classes = classes or self._ledger.entry("num_classes")
        answers = checked_answers(raw, self.output, len(batch), classes)
        columns = tuple(answers) if isinstance(answers, TopK) else (answers,)
        if classes is None:
            self.num_classes = columns[0].shape[1]
            if self._ledger is not None:
                self._ledger.entry("num_classes", self.num_classes)
        return columns

    def _prepared(self, batch: Tensor) -> Tensor:
        count = len(batch)
        if self.preprocess is not None:
            batch = self.preprocess(batch.clone())
            if not isinstance(batch, Tensor) or batch.dim() == 0 or len(batch) != count:
                got = tuple(batch.shape) if isinstance(batch, Tensor) else type(batch).__name__
                raise InputError(
                    f"preprocess must return a tensor with one row for each of {count} images, "
                    f"got {got}"
                )
        device = self.device
        if device is None and isinstance(self.fn, nn.Module):
            weights = itertools.chain(self.fn.parameters(), self.fn.buffers())
            device = next((each.device for each in weights), None)
        return batch if device is None else batch.to(device)

    def _check_budget_of(self, batches: Sequence[Tensor]) -> None:
        if self.query_budget is None:
            return
        spent, more = self.queries, sum(map(len, batches))
        if self._ledger is not None and spent + more > self.query_budget:
            # Only near the end of the budget does it matter how many of them are new.
            keys = {key for batch in batches for key in content_keys(self._prepared(batch))}
            with self._ledger.asking():  # while nobody is between counting and writing
                spent, more = self.queries, len(keys) - len(self._ledger.read(list(keys)))
        self._check_budget(more, spent)

    def _check_budget(self, more: int, spent: int) -> None:
        if self.query_budget is not None and more > 0 and spent + more > self.query_budget:
            raise QueryBudgetError(
                f"{more} more images would exceed the budget of {self.query_budget}: "
                f"{spent} were asked; these were not"
            )

    def _open(self, cache: str | Path) -> Ledger:
        model = fingerprint(self.fn) if isinstance(self.fn, nn.Module) else None
        ledger = Ledger(cache, {"format": 1, "output": self.output, "model": model})
        known = ledger.entry("num_classes")
        if known is None and self.num_classes is not None:
            with ledger.asking():
                known = ledger.entry("num_classes", self.num_classes)
        if self.num_classes is not None:
            check_header(ledger.path, {"num_classes": known}, {"num_classes": self.num_classes})
        self.num_classes = known
        return ledger


def as_black_box(box_or_model: BlackBox | Callable[..., Any], output: OutputKind) -> BlackBox:
    """Return a black box as it is, and anything else wrapped as one that returns ``output``.

    Example:
        >>> as_black_box(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), "logits").output
        'logits'
    """
    if isinstance(box_or_model, BlackBox):
        return box_or_model
    return BlackBox(box_or_model, output=output)


def _versions(fn: Callable[..., Any]) -> tuple[int, ...]:
    if not isinstance(fn, nn.Module):
        return ()
    return tuple(each._version for each in (*fn.parameters(), *fn.buffers()))  # noqa: SLF001


def _check_settings(
    fn: Callable[..., Any],
    output: OutputKind,
    num_classes: int | None,
    batch_size: int,
    query_budget: int | None,
) -> None:
    if not callable(fn):
        raise InputError(f"a black box wraps something callable, got {type(fn).__name__}")
    check_choice("output", output, get_args(OutputKind))
    if num_classes is None and output in {"topk", "labels"}:
        raise InputError(
            f"output={output!r} does not tell how many classes there are; give num_classes"
        )
    numbers: dict[str, tuple[Any, int]] = {
        "num_classes": (num_classes, 1),
        "batch_size": (batch_size, 1),
        "query_budget": (query_budget, 0),
    }
    for name, (value, least) in numbers.items():
        if value is not None and (not isinstance(value, Integral) or int(value) < least):
            raise InputError(f"{name} must be an integer and at least {least}, got {value!r}")
