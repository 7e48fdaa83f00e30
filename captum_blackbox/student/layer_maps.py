"""Grad-CAM of many layers in one forward and one backward pass."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from captum_blackbox._compat import format_additional_forward_args, select_targets
from captum_blackbox.black_box import rows_are_probabilities
from captum_blackbox.errors import LayerError, warn_user
from captum_blackbox.hooks import Activations, captured, evaluating, out_of_place
from captum_blackbox.shapes import Images, Maps, Target

Normalize: TypeAlias = Literal["none", "max", "minmax", "l1", "l2"]
ReshapeTransform: TypeAlias = Callable[[Tensor], Tensor]
LayerMaps: TypeAlias = Mapping[str, Tensor]
"""Layer name → maps ``(N, 1, h, w)``, each layer with its own ``h`` and ``w``."""


def grad_cam(activation: Images, gradient: Images) -> Maps:
    r"""Return Grad-CAM of one layer, ``ReLU(Σ_k w_k A_k)`` with ``w_k`` the mean of the gradient.

    Args:
        activation: The layer's output ``A``, ``(N, K, h, w)``.
        gradient: The gradient of the explained score with respect to it, of the same shape.

    Returns:
        Maps of the layer's size, not negative, at least in float32.

    References:
        Selvaraju et al., "Grad-CAM", ICCV 2017, eq. 1 and 2. Their 1/Z is a mean, as in Captum.

    Example:
        >>> activation = torch.tensor([[[[1.0, 2.0]], [[3.0, -1.0]]]])
        >>> gradient = torch.tensor([[[[1.0, 1.0]], [[0.5, 0.5]]]])
        >>> grad_cam(activation, gradient)
        tensor([[[[2.5000, 1.5000]]]])
    """
    wide = torch.promote_types(activation.dtype, torch.float32)
    weights = gradient.to(wide).mean((2, 3))
    # Under autocast the sum would be rounded to 8 bits.
    with torch.autocast(activation.device.type, enabled=False):
        weighted = torch.einsum("nkhw,nk->nhw", activation.to(wide), weights)
    return weighted.relu().unsqueeze(1)


def upsample(maps: Maps, size: tuple[int, int]) -> Float[Tensor, "batch 1 larger wider"]:
    """Enlarge maps bilinearly to ``size`` (height, width), with half-pixel centres."""
    if maps.shape[2:] == size:
        return maps
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def normalized(maps: Maps, normalize: Normalize) -> Maps:
    """Scale each map by itself; a map that cannot be scaled becomes 0 everywhere.

    Args:
        maps: Not negative.
        normalize: ``"none"`` as it is; ``"max"`` by its maximum; ``"minmax"`` to fill ``[0, 1]``;
            ``"l1"`` by its sum; ``"l2"`` by its Euclidean norm.

    Example:
        >>> normalized(torch.tensor([[[[1.0, 3.0]]]]), "minmax")
        tensor([[[[0., 1.]]]])
    """
    if normalize == "none":
        return maps
    if normalize == "minmax":
        maps = maps - maps.amin((2, 3), keepdim=True)
    if normalize == "l1":
        scale = maps.sum((2, 3), keepdim=True)
    elif normalize == "l2":
        scale = maps.square().sum((2, 3), keepdim=True).sqrt()
    else:
        scale = maps.amax((2, 3), keepdim=True)
    return torch.where(scale > 0, maps / scale.where(scale > 0, torch.ones_like(scale)), 0.0)


def layer_grad_cams(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    images: Tensor,
    target: Target,
    *,
    additional_forward_args: object = None,
    reshape_transform: ReshapeTransform | None = None,
    grad_kwargs: Mapping[str, Any] | None = None,
    allow_unused: bool = False,
) -> LayerMaps:
    """Return Grad-CAM of every layer at the layer's own size, in the order in which they ran.

    One forward pass keeps the activations, one call of ``autograd.grad`` gives all gradients; it
    stops at the earliest layer.

    Args:
        model: Runs in evaluation mode and is left as it was.
        layers: Name → module.
        images: ``(N, C, H, W)``.
        target: The class to explain, in any of Captum's forms.
        additional_forward_args: Passed to ``model`` after the images.
        reshape_transform: Turns an activation that is no map, for instance tokens ``(N, T, K)``,
            into one ``(N, K, h, w)``.
        grad_kwargs: For ``torch.autograd.grad``; with ``{"create_graph": True}`` the maps can be
            differentiated with respect to ``images``.
        allow_unused: Leave out a layer that does not run at all, without a warning.

    Raises:
        TargetError: The target does not fit the output.
        LayerError: A layer ran twice or its output is no map.

    Warns:
        ExplanationWarning: A layer has no influence on the target; its map is 0.
    """
    extra = format_additional_forward_args(additional_forward_args) or ()
    with torch.inference_mode(False), torch.enable_grad():
        output, seen = _forward(model, layers, images, extra)
        _warn_of_probabilities(output)
        score = select_targets(output, target).sum()
        gradients = _gradients(score, seen, grad_kwargs or {})
        maps: dict[str, Tensor] = {}
        for name, activation in seen.items():
            gradient = gradients.get(name)
            shape = _as_map(activation, name, reshape_transform)
            if gradient is None:
                maps[name] = torch.zeros_like(shape[:, :1], dtype=torch.float32)
            else:
                maps[name] = grad_cam(shape, _as_map(gradient, name, reshape_transform))
    for name in layers:
        if name not in maps and not allow_unused:
            maps[name] = images.new_zeros((len(images), 1, 1, 1), dtype=torch.float32)
    idle = [name for name in maps if name not in gradients]
    if idle:
        warn_user(
            f"no path leads from {_listed(idle)} to the target; the map of such a layer is 0 "
            "everywhere"
        )
    return maps


def _forward(
    model: nn.Module, layers: Mapping[str, nn.Module], images: Tensor, extra: tuple[Any, ...]
) -> tuple[Tensor, Activations]:
    # The input carries the gradient, so that the weights need not, and a copy of it shields the
    # caller's images from a model that writes to its input.
    images = images if images.requires_grad else images.detach().clone().requires_grad_()
    with evaluating(model), out_of_place(model):
        with captured(layers) as seen:
            output = model(images.clone(), *extra)
        if seen.overwritten():
            # A functional in-place activation wrote to what was kept: run again on copies.
            with captured(layers, copy=True) as seen:
                output = model(images.clone(), *extra)
    if not isinstance(output, Tensor):
        raise LayerError(
            f"{type(model).__name__} puts out a {type(output).__name__}, not a tensor of scores; "
            "wrap it in a module that returns the scores"
        )
    return output, seen


def _gradients(
    score: Tensor, seen: Activations, grad_kwargs: Mapping[str, Any]
) -> dict[str, Tensor]:
    names = [name for name, activation in seen.items() if activation.requires_grad]
    if not names or not score.requires_grad:
        return {}
    gradients = torch.autograd.grad(
        score, [seen[name] for name in names], allow_unused=True, **grad_kwargs
    )
    return {n: g for n, g in zip(names, gradients, strict=True) if g is not None}


def _as_map(tensor: Tensor, name: str, reshape_transform: ReshapeTransform | None) -> Tensor:
    result = tensor if reshape_transform is None else reshape_transform(tensor)
    if result.dim() == 4:
        return result
    if reshape_transform is not None:
        raise LayerError(
            f"reshape_transform must return (N, K, h, w); it made {tuple(result.shape)} of "
            f"{tuple(tensor.shape)} at layer {name!r}"
        )
    raise LayerError(
        f"layer {name!r} puts out shape {tuple(tensor.shape)}, not a map (N, K, h, w); give a "
        "reshape_transform (see token_map) or choose other layers"
    )


def _warn_of_probabilities(output: Tensor) -> None:
    if output.dim() == 2 and rows_are_probabilities(output.detach()):
        warn_user(
            "all rows of the model's output are probabilities; Grad-CAM explains the logit: leave "
            "the softmax out of the model"
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))
