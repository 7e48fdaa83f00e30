"""The score and the gradient map in the plane of the gradient and the fragile direction."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm.auto import tqdm

from captum_blackbox._compat import one_tensor
from captum_blackbox.errors import InputError, ShapeError
from captum_blackbox.fragility.curvature_result import Curvature
from captum_blackbox.fragility.hessian_products import InputHessian
from captum_blackbox.fragility.second_order import second_order
from captum_blackbox.fragility.surrogate import softened
from captum_blackbox.hooks import unwrapped
from captum_blackbox.metrics import cosine_similarity
from captum_blackbox.shapes import PerImage, check_images

_PARALLEL = 1e-3  # sine of the angle below which two directions span no plane


class CurvaturePlane(NamedTuple):
    """What happens on a grid of points ``x + a · gradient + b · fragile``, the image in the middle.

    Both axes have length 1. The second is the part of the leading eigenvector across the gradient.

    Attributes:
        steps: The values of ``a`` and ``b``, ``(points,)``, in units of the inputs.
        scores: Of the class, ``(N, points, points)``; rows go along the fragile direction, columns
            along the gradient.
        slopes: The gradient map's parts along the gradient at the image and along the fragile
            direction, ``(N, points, points, 2)``.
        similarity: Cosine between the gradient map and that at the image.
        angles: Between leading eigenvector and gradient in degrees, ``(N,)``.
    """

    steps: Float[Tensor, " points"]
    scores: Float[Tensor, "batch points points"]
    slopes: Float[Tensor, "batch points points 2"]
    similarity: Float[Tensor, "batch points points"]
    angles: PerImage


def curvature_plane(
    model: nn.Module,
    inputs: Tensor | tuple[Tensor, ...],
    curvature: Curvature,
    additional_forward_args: object = None,
    *,
    radius: float,
    points: int = 13,
    show_progress: bool = False,
) -> CurvaturePlane:
    """Look at the score around each image, along its gradient and along its fragile direction.

    The eigenvectors belong to a point; this shows what becomes of them at a distance that matters.
    It costs ``points²`` forward and backward passes of the network with softened ReLUs.

    Args:
        model: That of :func:`~captum_blackbox.fragility.curvature.explanation_curvature`.
        inputs: Its images.
        curvature: Its result.
        additional_forward_args: As there.
        radius: How far to go from the image each way, a Euclidean length in units of the inputs. A
            change of ``r`` in every number has the length ``r √(C H W)``.
        points: Of the grid along each axis; odd, so that the image is one of them.
        show_progress: Show a bar that counts points.

    Raises:
        InputError: An option cannot be used, or the two directions of an image span no plane.
        ShapeError: ``inputs`` are not the images of the result.

    Example:
        >>> from captum_blackbox.fragility.curvature import explanation_curvature
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> images = torch.rand(2, 3, 4, 4)
        >>> curvature = explanation_curvature(network, images, beta=5.0)
        >>> curvature_plane(network, images, curvature, radius=0.5, points=5).scores.shape
        torch.Size([2, 5, 5])
    """
    images, _ = one_tensor(inputs, "curvature_plane")
    check_images(images)
    if images.shape != curvature.gradients.shape:
        raise ShapeError(
            f"the curvature is that of images {tuple(curvature.gradients.shape)}, got "
            f"{tuple(images.shape)}"
        )
    if points < 3 or points % 2 == 0:
        raise InputError(f"points must be odd and at least 3, got {points}")
    if not 0 < radius < math.inf:
        raise InputError(f"radius must be positive and finite, got {radius}")
    first, second = _axes(curvature)
    half = points // 2
    steps = radius * torch.arange(-half, half + 1, dtype=torch.float64) / half
    scores, maps_along, similarity = [], [], []
    with (
        second_order(model, images, additional_forward_args) as (forward, images, extra),
        softened(unwrapped(model), curvature.beta),
        tqdm(total=points**2, desc="plane", unit="point", disable=not show_progress) as bar,
    ):
        for row in range(points):
            for column in range(points):
                moved = steps[column].item() * first + steps[row].item() * second
                there = InputHessian(forward, images + moved.to(images), curvature.target, extra)
                scores.append(there.scores.double())
                maps_along.append([_dot(there.gradients, each) for each in (first, second)])
                similarity.append(cosine_similarity(there.gradients, curvature.gradients))
                bar.update()
    grid = (points, points)
    return CurvaturePlane(
        steps,
        torch.stack(scores, 1).unflatten(1, grid),
        torch.stack([torch.stack(each, 1) for each in maps_along], 1).unflatten(1, grid),
        torch.stack(similarity, 1).unflatten(1, grid),
        curvature.angles[:, 0],
    )


def _axes(curvature: Curvature) -> tuple[Tensor, Tensor]:
    """Return two orthogonal directions of length 1 for each image."""
    gradient = curvature.gradients.flatten(1).double()
    fragile = curvature.eigenvectors[:, 0].flatten(1).double()
    first = gradient / gradient.norm(dim=1, keepdim=True)
    across = fragile - (fragile * first).sum(1, keepdim=True) * first
    length = across.norm(dim=1, keepdim=True)
    missing = (~(length[:, 0] > _PARALLEL)).nonzero().flatten().tolist()
    if missing:
        raise InputError(
            f"gradient and fragile direction of image {missing[0]} span no plane: one is 0, or "
            f"they are parallel (angle {float(curvature.angles[missing[0], 0]):.2g} degrees)"
        )
    shape = curvature.gradients.shape
    return first.view(shape), (across / length).view(shape)


def _dot(a: Tensor, b: Tensor) -> PerImage:
    return (a.double() * b).flatten(1).sum(1)
