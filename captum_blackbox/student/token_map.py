"""Maps for networks whose layers put out tokens instead of maps."""

import math
from collections.abc import Callable

from torch import Tensor

from captum_blackbox.errors import ShapeError


def token_map(
    grid: tuple[int, int] | None = None, *, prefix_tokens: int = 1
) -> Callable[[Tensor], Tensor]:
    """Return a ``reshape_transform`` for tokens: ``(N, T, K)`` becomes ``(N, K, height, width)``.

    Args:
        grid: Height and width in patches; by default a square.
        prefix_tokens: Tokens before the patches, such as the class token: 1 for a vision
            transformer, 0 for networks without one.

    Raises:
        ShapeError: The tokens do not fill the grid.

    Example:
        >>> import torch
        >>> token_map()(torch.zeros(2, 1 + 14 * 14, 384)).shape
        torch.Size([2, 384, 14, 14])
    """

    def transform(tokens: Tensor) -> Tensor:
        if tokens.dim() != 3:
            raise ShapeError(f"expected tokens (N, T, K), got shape {tuple(tokens.shape)}")
        patches = tokens[:, prefix_tokens:]
        side = math.isqrt(patches.shape[1])
        height, width = grid or (side, side)
        if height * width != patches.shape[1]:
            raise ShapeError(
                f"{patches.shape[1]} patches after {prefix_tokens} prefix tokens do not fill a "
                f"grid of {height} × {width}; give `grid` and `prefix_tokens`"
            )
        return patches.transpose(1, 2).reshape(len(patches), -1, height, width)

    return transform


def channels_last_map(tensor: Tensor) -> Tensor:
    """Turn ``(N, height, width, K)``, as Swin transformers put out, into ``(N, K, height, width)``.

    Example:
        >>> import torch
        >>> channels_last_map(torch.zeros(2, 7, 7, 96)).shape
        torch.Size([2, 96, 7, 7])
    """
    if tensor.dim() != 4:
        raise ShapeError(f"expected (N, height, width, K), got shape {tuple(tensor.shape)}")
    return tensor.permute(0, 3, 1, 2)
