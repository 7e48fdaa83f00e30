"""Random numbers of an image's own: the same alone and in a batch, on a CPU and on a GPU."""

import hashlib
import operator
from collections.abc import Sequence

import torch
from torch import Tensor

from captum_blackbox.artifacts import tensor_bytes
from captum_blackbox.shapes import Images

DRAWS = 16
"""How often a random change of an image is drawn, until one keeps the label."""


def generators(images: Images, seed: int) -> list[torch.Generator]:
    """Return a generator for each image, seeded by ``seed`` and by what the image shows.

    Example:
        >>> images = torch.rand(2, 3, 4, 4)
        >>> alone = torch.rand(1, generator=generators(images[1:], seed=0)[0])
        >>> alone == torch.rand(1, generator=generators(images, seed=0)[1])
        tensor([True])
    """
    number_of_seed = operator.index(seed)
    found = []
    for image in images:
        digest = hashlib.sha256(number_of_seed.to_bytes(16, "little", signed=True))
        digest.update(tensor_bytes(image))
        number = int.from_bytes(digest.digest()[:7], "little")
        found.append(torch.Generator().manual_seed(number))
    return found


def random_signs(own: Sequence[torch.Generator], like: Images) -> Tensor:
    """Return +1 or -1 for every number of some images."""
    shape = tuple(like.shape[1:])
    rows = [torch.randint(0, 2, shape, generator=each) for each in own]
    return (torch.stack(rows) * 2 - 1).to(like)


def random_normals(own: Sequence[torch.Generator], like: Images) -> Tensor:
    """Return normally distributed numbers for every number of some images."""
    shape = tuple(like.shape[1:])
    return torch.stack([torch.randn(shape, generator=each) for each in own]).to(like)


def unit_vectors(own: Sequence[torch.Generator]) -> Tensor:
    """Return a random direction in the plane for each image, ``(N, 2)``, of length 1."""
    vectors = torch.stack([torch.randn(2, generator=each, dtype=torch.float64) for each in own])
    unit: Tensor = vectors / vectors.norm(dim=1, keepdim=True)
    return unit
