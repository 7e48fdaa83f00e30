"""How visible a change of an image is, beside how large it is."""

import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from captum_blackbox.errors import InputError
from captum_blackbox.fragility.ball import Amount, spread
from captum_blackbox.shapes import Images, PerImage

_WINDOW = 7  # pixels, as scikit-image and the paper's uniform window
_SMALLEST = 3


def to_pixels(images: Images, lower: Amount, upper: Amount) -> Images:
    """Return images as pixels in [0, 1], in float64.

    Args:
        images: ``(N, C, H, W)``, as a network takes them.
        lower: What is black: one number, one for each channel, or a tensor.
        upper: What is white.

    Raises:
        InputError: The bounds are not finite, so that nothing is black or white.

    Example:
        >>> to_pixels(torch.tensor([[[[-1.0, 1.0]]]]), -1.0, 1.0)
        tensor([[[[0., 1.]]]], dtype=torch.float64)
    """
    black, white = _bounds(images, lower, upper)
    pixels: Tensor = (images.double() - black) / (white - black)
    return pixels


def from_pixels(pixels: Images, lower: Amount, upper: Amount) -> Images:
    """Return pixels in [0, 1] as the network with these bounds takes them; undoes `to_pixels`."""
    black, white = _bounds(pixels, lower, upper)
    images: Tensor = black + pixels.double() * (white - black)
    return images


def structural_similarities(clean: Images, changed: Images) -> PerImage:
    """Return how alike two images look: SSIM, 1 for the same image; below 0.95 many see a change.

    The window is uniform, 7 pixels wide or as wide as a smaller image; NaN for images of fewer than
    3 pixels a side.

    Args:
        clean: Pixels in [0, 1], ``(N, C, H, W)``.
        changed: Likewise.

    References:
        Wang et al., "Image quality assessment: from error visibility to structural similarity",
        IEEE Transactions on Image Processing 13, 2004 (with a uniform window).

    Example:
        >>> images = torch.rand(2, 3, 8, 8)
        >>> structural_similarities(images, images)
        tensor([1., 1.], dtype=torch.float64)
    """
    side = min(clean.shape[2:])
    if side < _SMALLEST:
        return torch.full((len(clean),), torch.nan, dtype=torch.float64)
    window = min(_WINDOW, side if side % 2 else side - 1)
    pairs = zip(clean.double().cpu().numpy(), changed.double().cpu().numpy(), strict=True)
    found = [
        structural_similarity(a, b, win_size=window, data_range=1.0, channel_axis=0)
        for a, b in pairs
    ]
    return torch.tensor(found, dtype=torch.float64)


def _bounds(images: Images, lower: Amount, upper: Amount) -> tuple[Tensor, Tensor]:
    black, white = (spread(each, images, "bound") for each in (lower, upper))
    if not bool((white - black).isfinite().all()) or not bool((white > black).all()):
        raise InputError(
            "the bounds of an attack say what is black and what is white, and are finite; make it "
            "with lower_bound and upper_bound, or by InterpretationAttack.normalized"
        )
    return black, white
