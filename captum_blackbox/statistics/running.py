"""What every statistic over a stream of batches can do."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from captum_blackbox.errors import ArtifactError


class Statistic(ABC):
    """Numbers gathered batch by batch, that can be put together, kept and taken up again.

    A subclass adds ``update``, which takes what it gathers, and ``compute``, which returns the
    result. One law binds them: however the data are divided into batches, and those among
    statistics that are merged, kept and loaded, ``compute`` returns the same up to rounding.
    """

    @abstractmethod
    def empty(self) -> "Statistic":
        """Return a statistic with these settings that has seen nothing."""

    @abstractmethod
    def merge(self, other: Any) -> None:  # noqa: ANN401 - one of the same class and settings
        """Take in what ``other`` has seen; an empty one changes nothing."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Return all that was gathered as tensors, which the next update may overwrite.

        Names and dtypes depend on the settings alone; shapes are fixed once a batch was seen,
        and before that tensors may have no elements.
        """

    @abstractmethod
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take up a :meth:`state` in place of what was gathered; its tensors are copied.

        Raises:
            ArtifactError: It is the state of a statistic with other settings.
        """


def check_names(state: Iterable[str], expected: Iterable[str]) -> None:
    """Refuse a state whose names are not those expected, and say which differ.

    Example:
        >>> check_names(["count", "sum"], ["count", "total"])
        Traceback (most recent call last):
        ...
        captum_blackbox.errors.ArtifactError: this state belongs to a statistic with other
        settings: it lacks 'total' and has 'sum' beside
    """
    missing, beside = sorted(set(expected) - set(state)), sorted(set(state) - set(expected))
    if missing or beside:
        differences = [
            f"{what} {', '.join(map(repr, names))}{end}"
            for what, names, end in (("lacks", missing, ""), ("has", beside, " beside"))
            if names
        ]
        raise ArtifactError(
            "this state belongs to a statistic with other settings: it " + " and ".join(differences)
        )
