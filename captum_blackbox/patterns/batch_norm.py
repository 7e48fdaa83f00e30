"""BatchNorm in evaluation, as the linear map that it is."""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from captum_blackbox.errors import LayerError
from captum_blackbox.patterns.linear_layers import LinearLayer
from captum_blackbox.patterns.structure import LayerUse

PerChannel = Float[Tensor, " channels"]


def affine(norm: nn.Module) -> tuple[PerChannel, PerChannel]:
    """Return scale and shift of a BatchNorm that uses its running statistics, in float64.

    Raises:
        LayerError: It has no running statistics: its output depends on the batch.

    Example:
        >>> scale, shift = affine(nn.BatchNorm1d(2, eps=0.0))
        >>> scale, shift
        (tensor([1., 1.], dtype=torch.float64), tensor([0., 0.], dtype=torch.float64))
    """
    batch_norm: Any = norm
    if batch_norm.running_mean is None:
        raise LayerError(
            f"{norm} has no running statistics, so that its output for an image depends on the "
            "other images; use track_running_stats=True"
        )
    mean = batch_norm.running_mean.detach().double()
    scale = (batch_norm.running_var.detach().double() + batch_norm.eps).rsqrt()
    if batch_norm.weight is not None:
        scale = scale * batch_norm.weight.detach().double()
    shift = -mean * scale
    if batch_norm.bias is not None:
        shift = shift + batch_norm.bias.detach().double()
    return scale, shift


def norm_of(modules: Mapping[str, nn.Module], use: LayerUse) -> nn.Module | None:
    """Return the BatchNorm that belongs to a layer; ``None`` also where it was folded in since.

    Args:
        modules: Of the network, by name.
        use: How the network uses the layer.
    """
    norm = modules.get(use.norm) if use.norm is not None else None
    return norm if isinstance(norm, nn.modules.batchnorm._BatchNorm) else None  # noqa: SLF001


def folded(module: nn.Module, norm: nn.Module | None = None) -> tuple[Tensor, Tensor]:
    """Return weight and bias ``(units,)`` of a layer with the BatchNorm behind it folded in.

    The module itself is not changed.

    Args:
        module: A ``Linear``, a convolution or a transposed convolution.
        norm: The BatchNorm that its output goes to.

    Returns:
        The weight in the layer's own shape and the bias, in float64, detached.

    Example:
        >>> import torch
        >>> layer, norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4).eval()
        >>> norm.running_var.fill_(3.0), norm.running_mean.fill_(1.0)[0]
        (tensor([3., 3., 3., 3.]), tensor(1.))
        >>> weight, bias = folded(layer, norm)
        >>> x = torch.rand(2, 3, 5, 5)
        >>> by_hand = nn.functional.conv2d(x.double(), weight, bias)
        >>> torch.testing.assert_close(by_hand.float(), norm(layer(x)))
    """
    layer: Any = module
    geometry = LinearLayer.of(module)
    weight = layer.weight.detach().double()
    bias = weight.new_zeros(geometry.units)
    if layer.bias is not None:
        bias = layer.bias.detach().double()
    if norm is None:
        return weight, bias
    scale, shift = affine(norm)
    rows = geometry.rows(weight) * scale[:, None]
    return geometry.weight_of(rows), bias * scale + shift
