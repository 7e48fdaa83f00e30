"""What a pixel becomes when it is taken away."""

from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from captum_blackbox.errors import InputError, ShapeError
from captum_blackbox.shapes import Images

Substrate: TypeAlias = Literal["zeros", "blur"] | Tensor
"""``"zeros"``, ``"blur"``, or a tensor that is broadcast to the images."""

_BLUR_SIZE = 11
_BLUR_SIGMA = 5.0


def substrate_images(images: Images, substrate: Substrate) -> Images:
    """Return what ``images`` become when every pixel is taken away, in their dtype and device.

    Args:
        images: ``(N, C, H, W)``.
        substrate: ``"zeros"``, the mean colour where images are normalised by their mean;
            ``"blur"``, see :func:`blurred`; or a tensor that is broadcast to the images, such as
            a colour ``(C, 1, 1)``.

    Raises:
        InputError: An unknown name.
        ShapeError: A tensor that cannot be broadcast to the images.

    Example:
        >>> substrate_images(torch.ones(1, 2, 1, 2), torch.tensor([3.0, 4.0]).view(2, 1, 1))
        tensor([[[[3., 3.]],
                 [[4., 4.]]]])
    """
    if isinstance(substrate, Tensor):
        try:
            return substrate.detach().to(images).expand_as(images)
        except RuntimeError as error:
            raise ShapeError(
                f"a substrate of shape {tuple(substrate.shape)} cannot be broadcast to images of "
                f"shape {tuple(images.shape)}"
            ) from error
    if substrate == "zeros":
        return torch.zeros_like(images)
    if substrate == "blur":
        return blurred(images)
    raise InputError(f"substrate is 'zeros', 'blur' or a tensor, got {substrate!r}")


def blurred(images: Images) -> Images:
    """Blur each channel as the published code of RISE does, borders towards zero.

    The kernel has 11 x 11 weights: a Gaussian of sigma 5 whose tails are reflected into the window
    (that is how the published code builds it, which makes it flatter than a cut-off Gaussian).
    Outside the image there are zeros.

    Example:
        >>> blurred(torch.ones(1, 1, 1, 1))
        tensor([[[[0.0088]]]])
    """
    kernel = blur_kernel()
    margin = _BLUR_SIZE // 2
    # Sums of shifted images stay exact where a convolution may run in TF32 or under autocast.
    result = images.to(torch.promote_types(images.dtype, torch.float32))
    for axis, padding in ((3, (margin, margin)), (2, (0, 0, margin, margin))):
        padded = F.pad(result, padding)
        size = images.shape[axis]
        result = torch.zeros_like(result)
        for shift, weight in enumerate(kernel.tolist()):
            result.add_(padded.narrow(axis, shift, size), alpha=weight)
    return result.to(images.dtype)


def blur_kernel() -> np.ndarray:
    """Return the 11 weights of the blur along one axis; their sum is 1.

    Example:
        >>> blur_kernel().round(3)[:6]
        array([0.088, 0.089, 0.09 , 0.092, 0.093, 0.094])
    """
    from scipy.ndimage import gaussian_filter1d  # half of the time that importing this would take

    impulse = np.zeros(_BLUR_SIZE)
    impulse[_BLUR_SIZE // 2] = 1.0
    return np.asarray(gaussian_filter1d(impulse, _BLUR_SIGMA))
