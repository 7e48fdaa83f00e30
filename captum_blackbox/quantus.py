"""Explainers as Quantus calls them, made anew for every model that it comes with.

Quantus hands over the model, also copies of it with random weights. An explanation of those has to
be made from *them*, what was fitted to the original included.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from captum_blackbox._compat import captum_notices_ignored, class_targets
from captum_blackbox.artifacts import fingerprint
from captum_blackbox.errors import ArtifactError, InputError, check_choice
from captum_blackbox.metrics.full_size import full_size_maps

Reduce: TypeAlias = Literal["mean", "sum"] | None
"""How the channels of a map become one; ``None`` leaves them."""

Refit: TypeAlias = Callable[[nn.Module], Mapping[str, Any]]
"""Model → the arguments that are fitted to it."""

# What is fitted to a model and cannot tell to which.
_UNMARKED = ("student",)


def explain_func(
    method: Callable[..., Any],
    *,
    reduce: Reduce = "mean",
    refit: Refit | None = None,
    fitted_to: nn.Module | None = None,
    **ctor: Any,
) -> Callable[..., np.ndarray]:
    """Return a function that explains as Quantus asks for it.

    It is called with ``model``, ``inputs`` and ``targets``; makes ``method(model, **ctor)``; calls
    its ``attribute(inputs, target=targets)``; and returns maps ``(N, 1, H, W)``, or ``(N, C, H,
    W)`` with ``reduce=None``, at the size of the images. Further keyword arguments, from
    ``explain_func_kwargs``, are passed to ``attribute``; ``device`` and ``method``, which Quantus
    adds by itself, are not.

    Args:
        method: A class such as ``LayerSumGradCAM``, or any function from a model to an object with
            ``attribute``.
        reduce: ``"mean"`` or ``"sum"`` of the channels, which Quantus' metrics of localisation
            want; ``None`` keeps them.
        refit: From a model to the arguments that have to be fitted to it, such as ``{"patterns":
            Patterns.fit(model, images)}``. It is called once for all models of equal weights.
        fitted_to: The model that fitted arguments in ``ctor`` belong to, where they cannot tell it
            themselves: a ``student``.
        **ctor: Arguments for ``method`` beside the model.

    Raises:
        InputError: ``reduce`` is unknown, or a student comes without ``refit`` and ``fitted_to``.
        ArtifactError: (When called.) What was fitted belongs to another model, and there is no
            ``refit``: a test with random weights would test nothing.

    Example:
        >>> from captum.attr import Saliency
        >>> explain = explain_func(Saliency)
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
        >>> explain(model=model, inputs=np.ones((5, 3, 2, 2)), targets=np.zeros(5, int)).shape
        (5, 1, 2, 2)
    """
    if reduce is not None:
        check_choice("reduce", reduce, ["mean", "sum"])
    unmarked = [name for name in _UNMARKED if name in ctor]
    if unmarked and refit is None and fitted_to is None:
        raise InputError(
            f"{unmarked[0]!r} was fitted to one model, and Quantus may come with another; give "
            f"refit=lambda model: {{{unmarked[0]!r}: …}}, or fitted_to=the model it belongs to"
        )
    return _Explainer(method, reduce, refit, fitted_to, ctor)


class _Explainer:
    def __init__(
        self,
        method: Callable[..., Any],
        reduce: Reduce,
        refit: Refit | None,
        fitted_to: nn.Module | None,
        ctor: Mapping[str, Any],
    ) -> None:
        self._method = method
        self._reduce = reduce
        self._refit = refit
        self._belongs = None if fitted_to is None else fingerprint(fitted_to)
        self._ctor = ctor
        self._fitted: dict[str, Mapping[str, Any]] = {}

    def __call__(
        self,
        model: nn.Module,
        inputs: np.ndarray | Tensor,
        targets: np.ndarray | Tensor,
        *,
        device: object = None,  # noqa: ARG002 - the model's own device counts
        method: object = None,  # noqa: ARG002 - the name that quantus.evaluate knows
        **attribute: Any,
    ) -> np.ndarray:
        """Return maps of ``inputs``."""
        place = next(model.parameters(), torch.zeros(()))
        images = torch.as_tensor(inputs).to(place)
        classes = class_targets(torch.as_tensor(targets).long(), len(images), 2**31, place.device)
        explainer = self._made(model)
        _check_model(explainer, model)
        with torch.enable_grad(), captum_notices_ignored():
            given = explainer.attribute(images, target=classes, **attribute)
        maps = full_size_maps(given, images)
        if self._reduce == "mean":
            maps = maps.mean(1, keepdim=True)
        elif self._reduce == "sum":
            maps = maps.sum(1, keepdim=True)
        return maps.to(torch.promote_types(maps.dtype, torch.float32)).cpu().numpy()

    def _made(self, model: nn.Module) -> Any:  # noqa: ANN401 - any attribution
        if self._refit is not None:
            key = fingerprint(model)
            if key not in self._fitted:
                self._fitted[key] = self._refit(model)
            return self._method(model, **{**self._ctor, **self._fitted[key]})
        hint = "give refit=…, which fits them to the model it is called with"
        if self._belongs is not None and fingerprint(model) != self._belongs:
            raise ArtifactError(
                f"the arguments {sorted(self._ctor)} were fitted to another model than the one "
                f"that Quantus asks about, such as a copy with random weights; {hint}"
            )
        try:
            return self._method(model, **self._ctor)
        except ArtifactError as error:
            raise ArtifactError(f"{error}; for Quantus {hint}") from error


def _check_model(explainer: Any, model: nn.Module) -> None:  # noqa: ANN401
    """Refuse an explainer of another network than ``model`` or what it is a part of."""
    explained = getattr(explainer, "forward_func", None)
    if not isinstance(explained, nn.Module):
        return
    if not any(each is model for each in explained.modules()) and not any(
        each is explained for each in model.modules()
    ):
        raise InputError(
            f"the {type(explainer).__name__} explains another model than the one that Quantus asks "
            "about, such as a copy with random weights; make it from the model that comes"
        )
