"""A picture, dark where a unit is not active."""

from torch import Tensor

from captum_blackbox.errors import ShapeError
from captum_blackbox.report.overlay import picture_png

_LEAST_LIGHT = 0.2


def lit_png(picture: Tensor, mask: Tensor, *, edge: int = 112) -> bytes:
    """Return a picture as PNG, dark outside a mask.

    Args:
        picture: ``(C, H, W)`` in [0, 1].
        mask: ``(H, W)`` bool.
        edge: As for :func:`~captum_blackbox.report.picture_png`.

    Raises:
        ShapeError: The shapes do not fit each other, or a value is not finite.

    Example:
        >>> import torch
        >>> lit_png(torch.rand(3, 8, 8), torch.ones(8, 8, dtype=torch.bool))[1:4]
        b'PNG'
    """
    if mask.shape != picture.shape[1:]:
        raise ShapeError(
            f"expected a mask {tuple(picture.shape[1:])} for a picture {tuple(picture.shape)}, "
            f"got {tuple(mask.shape)}"
        )
    return picture_png(lit(picture, mask), edge=edge)


def lit(pictures: Tensor, masks: Tensor) -> Tensor:
    """Return pictures ``(..., C, H, W)``, clipped to [0, 1], dark outside masks ``(..., H, W)``.

    Example:
        >>> import torch
        >>> lit(torch.ones(1, 1, 2), torch.tensor([[True, False]]))
        tensor([[[1.0000, 0.2000]]])
    """
    light = _LEAST_LIGHT + (1 - _LEAST_LIGHT) * masks.to(pictures)
    return pictures.clamp(0, 1) * light.unsqueeze(-3)
