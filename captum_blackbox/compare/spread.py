"""How far apart the values of an image are: the unit of the noise that metrics add."""

from torch import Tensor


def value_range(images: Tensor) -> Tensor:
    """Return the largest minus the smallest value of each image, ``(N, 1, 1, 1)``.

    A share of it means the same for images in [0, 1], in [0, 255] and for normalised ones.

    Example:
        >>> import torch
        >>> images = torch.tensor([[[[0.0, 0.5, 1.0]]], [[[-2.0, 2.0, 0.0]]]])
        >>> value_range(images).flatten()
        tensor([1., 4.])
    """
    flat = images.flatten(1)
    return (flat.amax(1) - flat.amin(1)).view(-1, 1, 1, 1)
