"""The sum of the Grad-CAMs of all layers."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, TypeAlias, get_args

import torch
from captum.attr import GradientAttribution, LayerAttribution
from captum.log import log_usage
from torch import Tensor, nn

from captum_blackbox._compat import format_like_inputs, one_tensor
from captum_blackbox.errors import InputError, check_choice
from captum_blackbox.hooks import Layers, find_layers, unwrapped
from captum_blackbox.shapes import Maps, Target, check_images, check_maps
from captum_blackbox.student.layer_maps import (
    LayerMaps,
    Normalize,
    ReshapeTransform,
    layer_grad_cams,
    normalized,
    upsample,
)

LayerWeights: TypeAlias = Mapping[str, float | Tensor] | str
"""Layer name → λ, one number or one per image ``(N,)``, a layer that is not named gets 0; or
``"last_and_sum"``: the last layer's map and the sum count the same, each scaled to a total of 1."""


class LayerSumGradCAM(LayerAttribution, GradientAttribution):
    r"""Explain a network by the sum of the Grad-CAMs of all its layers.

    For every layer :math:`l` with output :math:`A^l` and the explained score :math:`z_c`

    .. math:: S = \sum_l \lambda_l\, N\Big(U\big(\mathrm{ReLU}\big(\textstyle\sum_k w^l_k
        A^l_k\big)\big)\Big), \qquad w^l_k = \mathrm{mean}_{ij}\, \partial z_c / \partial A^l_{kij}

    with bilinear enlargement :math:`U` to the image's size and normalisation :math:`N`, in that
    order. All layers cost one forward and one backward pass.

    Deep layers answer *where*, early ones *which edges*. Without normalisation, the literal sum,
    a layer with large activations or few positions weighs more. When not to use it: for a network
    whose layers have no positions, and where the score of single pixels matters (use a gradient).

    Args:
        model: The network; its output are scores, best logits, ``(N, classes)``.
        layers: Modules or names; ``None`` for every ``Conv2d`` that runs.
        device_ids: For Captum's signature. A ``DataParallel`` model runs on its first device.
        normalize: ``"none"`` (default), ``"max"``, ``"minmax"``, ``"l1"`` or ``"l2"``, per layer
            and image after the enlargement.
        reshape_transform: Turns the output of layers without positions into maps; see
            :func:`~captum_blackbox.student.token_map`.

    Raises:
        LayerError: A layer does not exist; the nearest names are offered.
        InputError: ``normalize`` is unknown, or ``model`` is no module.

    References:
        Jeong et al. 2021 (the sum over the layers of a distilled network; only the abstract is
        public); Selvaraju et al., "Grad-CAM", ICCV 2017, eq. 1 and 2 (each layer's map).

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3), nn.Flatten())
        >>> maps = LayerSumGradCAM(model).attribute(torch.rand(2, 3, 8, 8), target=0)
        >>> maps.shape, bool((maps >= 0).all())
        (torch.Size([2, 1, 8, 8]), True)
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Layers = None,
        device_ids: list[int] | None = None,
        *,
        normalize: Normalize = "none",
        reshape_transform: ReshapeTransform | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise InputError(
                f"LayerSumGradCAM needs the layers of an nn.Module, got {type(model).__name__}; "
                "for a model that can only be called use DistilledLayerSumGradCAM"
            )
        check_choice("normalize", normalize, get_args(Normalize))
        self.model = unwrapped(model)
        self.layers = find_layers(self.model, layers)
        self.normalize: Normalize = normalize
        self.reshape_transform = reshape_transform
        self._every_conv = layers is None
        LayerAttribution.__init__(self, model, list(self.layers.values()), device_ids)
        GradientAttribution.__init__(self, model)

    @log_usage(part_of_slo=True)
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: Target = None,
        additional_forward_args: object = None,
        *,
        layer_weights: LayerWeights | None = None,
        expand_to_input: bool = False,
        grad_kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - a tensor for a tensor, a tuple for a tuple
        """Return one map per image.

        Args:
            inputs: Images ``(N, C, H, W)``, or a tuple of one such tensor.
            target: The class to explain, in any of Captum's forms.
            additional_forward_args: Passed to the model after the images.
            layer_weights: Layer name → λ; by default 1 for each. Or ``"last_and_sum"``: the last
                layer's map plus the sum, each scaled to a total of 1 per image (chosen among many
                variants by trying; see benchmarks/results).
            expand_to_input: Spread each map evenly over the channels, for metrics that want the
                shape of the input.
            grad_kwargs: For ``torch.autograd.grad``; ``{"create_graph": True}`` makes the maps
                differentiable.

        Returns:
            Importance per pixel, not negative, larger is more important; ``(N, 1, H, W)``, or
            ``(N, C, H, W)`` with ``expand_to_input``; on the device and in the dtype of ``inputs``.

        Raises:
            ShapeError: ``inputs`` is not one tensor of images.
            TargetError: The target does not name a class.
            LayerError: A layer runs twice or has no positions.

        Warns:
            ExplanationWarning: A layer has no influence on the target.
        """
        images, is_tuple = one_tensor(inputs, self.get_name())
        maps = self.raw_maps(images, target, additional_forward_args, grad_kwargs=grad_kwargs)
        total = summed(maps, image_size(images), self.normalize, layer_weights)
        return format_like_inputs(finished(total, images, expand_to_input, grad_kwargs), is_tuple)

    def attribute_per_layer(
        self, inputs: Tensor, target: Target = None, additional_forward_args: object = None
    ) -> "OrderedDict[str, Tensor]":
        """Return layer name → its enlarged, normalised map ``(N, 1, H, W)``, in running order.

        Their sum is :meth:`attribute`.
        """
        images, _ = one_tensor(inputs, self.get_name())
        maps = self.raw_maps(images, target, additional_forward_args)
        return enlarged(maps, images, self.normalize)

    def raw_maps(
        self,
        images: Tensor,
        target: Target = None,
        additional_forward_args: object = None,
        *,
        grad_kwargs: Mapping[str, Any] | None = None,
    ) -> LayerMaps:
        """Return layer name → Grad-CAM at the layer's own size ``(N, 1, h, w)``."""
        check_images(images)
        return layer_grad_cams(
            self.model,
            self.layers,
            images,
            target,
            additional_forward_args=additional_forward_args,
            reshape_transform=self.reshape_transform,
            grad_kwargs=grad_kwargs,
            allow_unused=self._every_conv,
        )

    @classmethod
    def get_name(cls) -> str:
        """Return the name of the method."""
        return "LayerSumGradCAM"

    def attribute_future(self) -> None:
        """Refuse: there is no asynchronous version."""
        raise NotImplementedError(f"attribute_future is not implemented for {self.get_name()}")


def enlarged(maps: LayerMaps, images: Tensor, normalize: Normalize) -> "OrderedDict[str, Tensor]":
    """Return the layer maps at the size and in the dtype of the images, detached."""
    size = image_size(images)
    return OrderedDict(
        (name, normalized(upsample(each, size), normalize).detach().to(images))
        for name, each in maps.items()
    )


def summed(
    maps: LayerMaps,
    size: tuple[int, int],
    normalize: Normalize,
    layer_weights: LayerWeights | None = None,
) -> Maps:
    """Return the weighted sum of layer maps at ``size``."""
    if isinstance(layer_weights, str):
        check_choice("layer_weights", layer_weights, ["last_and_sum"])
        parts = ([list(maps.values())[-1]], list(maps.values()))
        last, everything = (
            summed({str(i): each for i, each in enumerate(some)}, size, normalize) for some in parts
        )
        return normalized(last, "l1") + normalized(everything, "l1")
    if layer_weights is not None:
        unknown = [name for name in layer_weights if name not in maps]
        if unknown:
            raise InputError(
                f"layer_weights names {unknown}, which are not among the layers {list(maps)}"
            )
    weights = {
        name: _checked_weight(name, weight, len(maps[name]))
        for name, weight in (layer_weights or {}).items()
    }
    # Enlarging is linear: maps of one size that need no normalisation are added up before it.
    added: dict[tuple[int, ...], Tensor] = {}
    for name, each in maps.items():
        part = each if normalize == "none" else normalized(upsample(each, size), normalize)
        if layer_weights is not None:
            part = part * weights.get(name, torch.zeros(1)).to(part).reshape(-1, 1, 1, 1)
        key = tuple(part.shape[2:])
        added[key] = added[key] + part if key in added else part
    return torch.stack([upsample(part, size) for part in added.values()]).sum(0)


def image_size(images: Tensor) -> tuple[int, int]:
    """Return height and width."""
    return images.shape[2], images.shape[3]


def finished(
    total: Maps, images: Tensor, expand_to_input: bool, grad_kwargs: Mapping[str, Any] | None
) -> Tensor:
    """Return maps on the device and in the dtype of the images, detached unless asked not to be.

    Raises:
        InputError: A map has values that are no numbers, or too large for the dtype.

    Warns:
        ExplanationWarning: A map is 0 everywhere.
    """
    result = total.to(images)
    check_maps(result, "no layer speaks for the target")
    if not (grad_kwargs or {}).get("create_graph", False):
        result = result.detach()
    if expand_to_input:
        result = (result / images.shape[1]).expand_as(images)
    return result


def _checked_weight(name: str, weight: float | Tensor, images: int) -> Tensor:
    tensor = torch.as_tensor(weight)
    if tensor.numel() not in {1, images} or not bool(tensor.isfinite().all()):
        raise InputError(
            f"the weight of layer {name!r} is one finite number, or one for each of {images} "
            f"images; got {tuple(tensor.shape)} with values {tensor.flatten()[:3].tolist()}"
        )
    return tensor
