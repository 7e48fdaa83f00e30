"""Some of the patches that a layer sees, cut out one by one."""

import math

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from captum_blackbox.patterns.linear_layers import LinearLayer


def sampled_patches(
    layer: LinearLayer, inputs: Tensor, outputs: Tensor, most: int, generator: torch.Generator
) -> tuple[Float64[Tensor, "groups samples taps"], Bool[Tensor, "groups samples units"]]:
    """Return patches of each image at positions drawn at random, and which units are on there.

    Args:
        layer: How patches are cut.
        inputs: Of the layer.
        outputs: Of the layer, behind its BatchNorm; a unit is on where they are above 0.
        most: Positions (tokens, for ``Linear``) to draw from each image without repetition, the
            same for all units; all of them if there are no more.
        generator: On the CPU, so that every device draws the same.

    Example:
        >>> layer = LinearLayer.of(torch.nn.Conv2d(3, 8, 5))
        >>> images, outputs = torch.rand(2, 3, 9, 9), torch.rand(2, 8, 5, 5)
        >>> patches, on = sampled_patches(layer, images, outputs, 4, torch.Generator())
        >>> patches.shape, on.shape
        (torch.Size([1, 8, 75]), torch.Size([1, 8, 8]))
    """
    if layer.is_dense:
        patches = inputs.reshape(len(inputs), -1, inputs.shape[-1])
        outputs = outputs.reshape(len(outputs), -1, outputs.shape[-1])
    else:
        patches = layer.patches(layer.samples(inputs, outputs)[0])
        outputs = outputs.movedim(1, -1)
    positions = outputs.shape[1:-1]
    total = math.prod(positions)
    if total > most:
        chosen = torch.rand(len(outputs), total, generator=generator).topk(most).indices
    else:
        chosen = torch.arange(total).expand(len(outputs), -1)
    where = (torch.arange(len(outputs))[:, None], *torch.unravel_index(chosen, positions))
    at = tuple(index.to(outputs.device) for index in where)
    rows = patches[at].reshape(chosen.numel(), layer.groups, -1)
    on = outputs[at].reshape(chosen.numel(), layer.groups, -1) > 0
    return rows.transpose(0, 1).double(), on.transpose(0, 1)
