"""From what makes an explainer to a map."""

import inspect
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from captum_blackbox._compat import select_targets
from captum_blackbox.errors import InputError, ShapeError
from captum_blackbox.metrics.maps import Channels, one_channel

AttributionFactory: TypeAlias = Callable[..., Any]
"""Model → an explainer with Captum's ``attribute(inputs, target=…)``, or such a function.

If it has a parameter ``data``, that gets a tensor of images like those explained, for methods that
are fitted.
"""


class NotApplicableError(Exception):
    """An axiom says nothing about this explanation; the message is the reason."""


def explain(
    factory: AttributionFactory,
    model: nn.Module,
    inputs: Tensor,
    target: Tensor,
    *,
    data: Tensor | None = None,
    seed: int = 0,
) -> Tensor:
    """Return the map ``(N, …)`` that an explainer made by ``factory`` gives.

    Random numbers of torch and NumPy start at ``seed`` and are put back. Warnings are not shown:
    tiny networks provoke many.

    Args:
        factory: Model → explainer.
        model: What to explain.
        inputs: Images ``(N, C, H, W)``.
        target: Class of each, ``(N,)``.
        data: For factories with a parameter ``data``; by default ``inputs``.
        seed: For explainers that draw.

    Raises:
        InputError: The map has values that are not finite.
        ShapeError: There is no tensor with a map for each image.

    Example:
        >>> from captum.attr import Saliency
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
        >>> maps = explain(Saliency, model, torch.ones(1, 1, 2, 2), torch.tensor([1]))
        >>> torch.equal(maps.flatten(), model[1].weight[1].abs())
        True
    """
    options = {"data": inputs if data is None else data} if _wants_data(factory) else {}
    with _reproducible(seed), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        explainer = factory(model, **options)
        attribute: Any = getattr(explainer, "attribute", explainer)
        maps = attribute(inputs.detach().clone(), target=target)
    if isinstance(maps, tuple) and len(maps) == 1:
        maps = maps[0]
    if not isinstance(maps, Tensor) or maps.dim() == 0 or len(maps) != len(inputs):
        got = tuple(maps.shape) if isinstance(maps, Tensor) else type(maps).__name__
        raise ShapeError(f"expected a map for each of {len(inputs)} images, got {got}")
    if not bool(maps.isfinite().all()):
        raise InputError("a map has values that are NaN or infinite")
    return maps.detach().double()


def by_pixel(maps: Tensor, inputs: Tensor, channels: Channels = "max_abs") -> Tensor:
    """Return one number per pixel of the images, ``(N, H, W)``.

    Raises:
        NotApplicableError: The map is not as large as the images.
    """
    if maps.dim() not in {3, 4} or maps.shape[-2:] != inputs.shape[-2:]:
        raise NotApplicableError(
            f"it speaks of single pixels; the map {tuple(maps.shape[1:])} has other places than "
            f"the image {tuple(inputs.shape[1:])}"
        )
    return one_channel(maps, channels)


def scores(model: nn.Module, inputs: Tensor, target: Tensor) -> Tensor:
    """Return the explained score of each image, ``(N,)``."""
    with torch.no_grad():
        return select_targets(model(inputs), target).double()


def relative_difference(a: Tensor, b: Tensor) -> Tensor:
    """Return for each image the largest difference, as a share of the largest importance, ``(N,)``.

    Example:
        >>> relative_difference(torch.tensor([[2.0, -4.0]]), torch.tensor([[2.0, -3.0]]))
        tensor([0.2500])
    """
    if a.shape != b.shape:
        raise NotApplicableError(
            f"the maps to compare have shapes {tuple(a.shape)} and {tuple(b.shape)}"
        )
    difference = (a - b).abs().flatten(1).amax(1)
    largest = torch.maximum(a.abs().flatten(1).amax(1), b.abs().flatten(1).amax(1))
    return difference / torch.where(largest > 0, largest, 1.0)


def _wants_data(factory: AttributionFactory) -> bool:
    try:
        return "data" in inspect.signature(factory).parameters
    except (TypeError, ValueError):  # some callables have no signature
        return False


@contextmanager
def _reproducible(seed: int) -> Any:  # noqa: ANN401 - a context manager
    numpy_state = np.random.get_state()  # noqa: NPY002 - Captum draws from it
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(numpy_state)  # noqa: NPY002
