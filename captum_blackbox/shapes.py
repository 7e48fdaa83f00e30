"""Names for the tensors that flow through the library.

``N`` images of ``C`` channels and ``H × W`` pixels. Importance is a number per pixel; larger means
more important.
"""

from typing import TYPE_CHECKING, Any, TypeAlias

from jaxtyping import Float, Int
from torch import Tensor

from captum_blackbox.errors import BatchMessage, InputError, ShapeError, warn_user

Images: TypeAlias = Float[Tensor, "batch channels height width"]
Maps: TypeAlias = Float[Tensor, "batch 1 height width"]
Saliency: TypeAlias = Float[Tensor, "batch height width"]
Scores: TypeAlias = Float[Tensor, "batch classes"]
Logits: TypeAlias = Float[Tensor, "batch classes"]
Labels: TypeAlias = Int[Tensor, " batch"]
PerImage: TypeAlias = Float[Tensor, " batch"]

if TYPE_CHECKING:
    Target: TypeAlias = int | Tensor | list[int] | tuple[int, ...] | list[tuple[int, ...]] | None
else:
    # While tests run, shapes are checked on every call; a wrong target gets our own error.
    Target = Any


def check_images(images: object) -> None:
    """Refuse what is not a non-empty floating-point tensor ``(N, C, H, W)``.

    Raises:
        ShapeError: The message says what it is instead.
    """
    if not isinstance(images, Tensor):
        raise ShapeError(f"expected a tensor of images (N, C, H, W), got {type(images).__name__}")
    if images.dim() != 4:
        raise ShapeError(f"expected images (N, C, H, W), got shape {tuple(images.shape)}")
    if not images.is_floating_point():
        raise ShapeError(
            f"expected floating-point images, got {images.dtype}; convert with images.float() / 255"
        )
    if images.numel() == 0:
        raise ShapeError(f"expected at least one image, got shape {tuple(images.shape)}")


def check_maps(maps: Tensor, reason: str) -> None:
    """Refuse maps ``(N, …)`` that are not finite, and warn of those that are 0 everywhere.

    Args:
        maps: Importance, of which there is a map for each image.
        reason: Why a map may be 0.

    Raises:
        InputError: A map has values that are no numbers, or too large for the dtype.

    Warns:
        ExplanationWarning: A map is 0 everywhere.
    """
    largest = maps.detach().abs().flatten(1).amax(1)
    broken = (~largest.isfinite()).nonzero().flatten().tolist()
    if broken:
        raise InputError(
            BatchMessage.about(
                f"the map of {{image}} is not finite in {largest.dtype}; look for NaN in the image "
                "and the weights, or explain it in float32",
                broken,
                len(largest),
            )
        )
    empty = (largest == 0).nonzero().flatten().tolist()
    if empty:
        pattern = f"the map of {{image}} is 0 everywhere{{count}}: {reason}"
        warn_user(BatchMessage.about(pattern, empty, len(largest)))
