"""What an attribution method gives, as maps at the size of its images."""

import torch
from torch import Tensor
from torch.nn import functional as F

from captum_blackbox.errors import ShapeError
from captum_blackbox.shapes import Images


def full_size_maps(given: object, images: Images) -> Tensor:
    """Return an attribution of any form as maps ``(N, channels, H, W)``, detached.

    Maps of a layer are enlarged bilinearly, as Grad-CAM does.

    Args:
        given: ``(N, H, W)`` or ``(N, channels, h, w)``, or a tuple or list of one such tensor.
        images: What was explained, ``(N, C, H, W)``.

    Raises:
        ShapeError: It is something else, or has not one map for each image.

    Example:
        >>> full_size_maps(torch.ones(2, 1, 1), torch.zeros(2, 3, 4, 4)).shape
        torch.Size([2, 1, 4, 4])
    """
    if isinstance(given, tuple | list) and len(given) == 1:
        given = given[0]
    if not isinstance(given, Tensor):
        raise ShapeError(f"expected a tensor of maps, got {type(given).__name__}")
    maps = given.detach()
    if maps.dim() == 3:
        maps = maps[:, None]
    if maps.dim() != 4 or len(maps) != len(images) or maps.numel() == 0 or maps.is_complex():
        raise ShapeError(
            f"expected one map for each of {len(images)} images, (N, H, W) or (N, channels, H, W), "
            f"got {given.dtype} of shape {tuple(given.shape)}"
        )
    if not maps.is_floating_point():
        maps = maps.float()
    size = (images.shape[2], images.shape[3])
    if maps.shape[2:] != size:
        wide = maps.to(torch.promote_types(maps.dtype, torch.float32))
        maps = F.interpolate(wide, size=size, mode="bilinear", align_corners=False)
    return maps.to(images.device)
