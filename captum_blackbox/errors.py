"""Every exception and warning this library raises on purpose."""

import sys
import warnings
from collections.abc import Sequence


class CaptumBlackboxError(Exception):
    """Base of all errors raised here, so one ``except`` catches them."""


class InputError(CaptumBlackboxError, ValueError):
    """An argument has a value that cannot be used."""


class ShapeError(InputError):
    """A tensor has the wrong shape, dtype or range."""


class TargetError(CaptumBlackboxError, ValueError, IndexError, AssertionError):
    """A target does not name a class of the output.

    It doubles as the three builtins that Captum raises for the same mistake, so code and tests
    written for Captum catch it.
    """


class LayerError(CaptumBlackboxError, ValueError):
    """A layer does not exist, runs more than once, or has an output that cannot be mapped."""


class OutputError(CaptumBlackboxError, ValueError):
    """A black box answered something else than it was declared to answer."""


class BlackBoxError(CaptumBlackboxError, RuntimeError):
    """A black box raised while it was asked; the original error is the cause."""


class QueryBudgetError(CaptumBlackboxError, RuntimeError):
    """A query was refused because it would exceed the budget; nothing was asked."""


class TrainingError(CaptumBlackboxError, ArithmeticError):
    """Training went astray: the loss is no number."""


class VictimError(CaptumBlackboxError, TypeError):
    """An explanation cannot be attacked: it has no derivative that could be trusted."""


class ArtifactError(CaptumBlackboxError, ValueError):
    """A file does not belong to the model, data or settings it is used with."""


class DataError(CaptumBlackboxError, ValueError):
    """A file of a data set is missing or broken, or says what cannot be; it is named."""


class MissingExtraError(CaptumBlackboxError, ImportError):
    """A package is needed that comes with an extra of this library."""


class ExplanationWarning(UserWarning):
    """An explanation was computed, but there is a reason to doubt it."""


class BatchMessage(str):
    """A message that numbers images by their place in a batch.

    Whoever gathers the messages of several batches names the images otherwise: there, a number
    would be taken for that of another image.
    """

    __slots__ = ("_pattern",)
    _pattern: str

    @classmethod
    def about(cls, pattern: str, rows: Sequence[int], images: int) -> "BatchMessage":
        """Return a message about some images of a batch.

        Args:
            pattern: With ``{image}`` where the first of them stands, and at most one ``{count}``
                where it is said how many there are.
            rows: Their places in the batch, at least one.
            images: How many images the batch has.

        Example:
            >>> said = BatchMessage.about("the map of {image} is flat{count}", [1, 3], 8)
            >>> print(said)
            the map of image 1 is flat (2 of 8 are)
            >>> print(said.naming("cat.png"))
            the map of cat.png is flat
        """
        message = cls(_filled(pattern, f"image {rows[0]}", f" ({len(rows)} of {images} are)"))
        message._pattern = pattern
        return message

    def naming(self, image: str) -> str:
        """Return the message about one image, called as given, and without a count."""
        return _filled(self._pattern, image, "")


def _filled(pattern: str, image: str, count: str) -> str:
    return pattern.replace("{count}", count).replace("{image}", image)


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Refuse a setting that is not among its choices, and name them.

    Example:
        >>> check_choice("ties", "best", ["index", "random"])
        Traceback (most recent call last):
        ...
        captum_blackbox.errors.InputError: ties is one of 'index', 'random', got 'best'
    """
    if value not in choices:
        raise InputError(f"{name} is one of {', '.join(map(repr, choices))}, got {value!r}")


def warn_user(message: str) -> None:
    """Warn of a doubtful explanation, at the line of the first caller outside this and Captum."""
    depth, frame = 2, sys._getframe(1)  # noqa: SLF001 - the documented way to a caller
    while frame.f_back is not None and _is_ours(frame.f_globals.get("__name__", "")):
        depth, frame = depth + 1, frame.f_back
    warnings.warn(message, ExplanationWarning, stacklevel=depth)


def _is_ours(module: str) -> bool:
    return module.split(".")[0] in {"captum", "captum_blackbox", "jaxtyping"}
