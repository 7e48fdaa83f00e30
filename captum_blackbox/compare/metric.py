"""What a metric is: a small object that judges maps, image by image."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from torch import Tensor

from captum_blackbox.compare.context import Context
from captum_blackbox.compare.method import Method


@runtime_checkable
class Metric(Protocol):
    """A number per image that says how good its map is.

    Its ``repr`` should name its settings: an interrupted comparison is resumed only by equal ones.

    Attributes:
        name: In tables.
        higher_is_better: The direction.
        needs_masks: Whether the truth has to be known.

    A metric may also have ``draws``. If it is true, the metric is called image by image from the
    start; otherwise a batch is judged twice once, to see that it draws.
    """

    @property
    def name(self) -> str:
        """In tables."""
        ...

    @property
    def higher_is_better(self) -> bool:
        """The direction."""
        ...

    @property
    def needs_masks(self) -> bool:
        """Whether the truth has to be known."""
        ...

    def __call__(self, context: Context, method: Method, maps: Tensor, /) -> Tensor:
        """Return a number for each image of ``context``, ``(N,)``.

        What is drawn from a global generator of torch or NumPy is seeded for each image and for the
        name of the metric, alike for all methods.

        Args:
            context: The images, their classes, the model, and masks if there are any.
            method: What made the maps; ``method(images, targets)`` makes more of them.
            maps: ``(N, channels, H, W)``, finite.

        Raises:
            NotApplicableError: The metric makes no sense for this model.
        """
        ...


@dataclass(frozen=True)
class FunctionMetric:
    """A metric of your own.

    Args:
        name: In tables.
        function: From context, method and maps to a number per image, as of :class:`Metric`.
        higher_is_better: The direction.
        needs_masks: Whether ``context.masks`` has to be there.

    Example:
        >>> area = FunctionMetric(
        ...     "area", lambda context, method, maps: (maps > 0).double().mean((1, 2, 3)),
        ...     higher_is_better=False)
        >>> area.name
        'area'
    """

    name: str
    function: Callable[[Context, Method, Tensor], Tensor] = field(repr=False)
    higher_is_better: bool
    needs_masks: bool = False

    def __call__(self, context: Context, method: Method, maps: Tensor, /) -> Tensor:
        """Return what the function gives."""
        return self.function(context, method, maps)
