"""Other bases of a representation: random rotations, and a fraction of the way to them."""

import math

import torch
from scipy.linalg import schur
from torch import Tensor

from captum_blackbox.errors import InputError, ShapeError

_TOLERANCE = 1e-8  # of the largest entry by which a matrix may miss being orthogonal


def random_rotation(dimension: int, seed: int) -> Tensor:
    """Draw a rotation uniformly from all of them (the Haar measure of SO(D)).

    The orthogonal factor of a Gaussian matrix, with the signs that make it unique, and one column
    turned round where it would mirror: Mezzadri, "How to generate random matrices from the
    classical compact groups", Notices of the AMS 2007.

    Args:
        dimension: How many units are rotated, at least 1.
        seed: The same seed gives the same rotation.

    Returns:
        ``(D, D)`` float64, orthogonal, of determinant 1.

    Raises:
        InputError: The dimension is below 1.

    Example:
        >>> rotation = random_rotation(5, seed=0)
        >>> round(torch.linalg.det(rotation).item(), 9)
        1.0
    """
    if dimension < 1:
        raise InputError(f"a rotation needs at least 1 dimension, got {dimension}")
    generator = torch.Generator().manual_seed(seed)
    gaussian = torch.randn(dimension, dimension, generator=generator, dtype=torch.float64)
    factor, upper = torch.linalg.qr(gaussian)
    rotation: Tensor = factor * torch.where(upper.diagonal() < 0, -1.0, 1.0)
    if torch.linalg.det(rotation) < 0:
        rotation[:, 0] *= -1
    return rotation


def fractional_rotation(rotation: Tensor, alpha: int | float) -> Tensor:
    """Return a rotation by a fraction of every angle, along the shortest way from the identity.

    A rotation turns a number of planes that are perpendicular to each other, each by an angle in
    ``(-π, π]``; here each turns by ``alpha`` times that. Eigenvalues of -1 come in pairs, which are
    planes that turn by π; which way, and which planes, is a matter of choice there. This is the
    rotation experiment of Bau, Zhou et al., "Network dissection", CVPR 2017, sec. 3.2. The
    published code loses the sign of the angles, so that its full rotation is another one; here
    ``alpha = 1`` is the rotation itself.

    Args:
        rotation: ``(D, D)``, orthogonal. Of determinant -1 (a mirroring, or an odd permutation)
            only ``alpha`` 0 and 1 exist.
        alpha: 0 for the identity, 1 for the rotation; others than ``0..1`` go on in the same way.

    Returns:
        ``(D, D)`` float64, orthogonal.

    Raises:
        ShapeError: The matrix is not square.
        InputError: It is not orthogonal, or its determinant is -1 and ``alpha`` neither 0 nor 1.

    Example:
        >>> quarter = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
        >>> fractional_rotation(quarter, 1 / 3)
        tensor([[ 0.8660, -0.5000],
                [ 0.5000,  0.8660]], dtype=torch.float64)
    """
    if rotation.dim() != 2 or rotation.shape[0] != rotation.shape[1]:
        raise ShapeError(f"expected a rotation (D, D), got shape {tuple(rotation.shape)}")
    if not math.isfinite(alpha):
        raise InputError(f"alpha is a finite number, got {alpha}")
    given = rotation
    rotation = rotation.detach().double().cpu()
    identity = torch.eye(len(rotation), dtype=torch.float64)
    tolerance = _TOLERANCE if given.dtype == torch.float64 else 1e-4
    error = (rotation.T @ rotation - identity).abs().max().item()
    if not error <= tolerance:
        raise InputError(
            f"a rotation is orthogonal, but an entry of QᵀQ misses the identity by {error:.3g}; "
            "make the matrix with random_rotation, or take Q of its QR decomposition"
        )
    if alpha == 0:
        return identity
    if alpha == 1:
        return rotation.clone()
    if torch.linalg.det(rotation) < 0:
        raise InputError(
            f"a matrix of determinant -1 mirrors, and there is no way to it by rotations: alpha "
            f"is 0 or 1, got {alpha}"
        )
    return _turned(rotation, alpha)


def _turned(rotation: Tensor, alpha: float) -> Tensor:
    """Turn each plane of the real Schur form by a part of its angle."""
    form, basis = (torch.from_numpy(each) for each in schur(rotation.numpy(), output="real"))
    turned = torch.eye(len(form), dtype=torch.float64)
    half_turns = []
    row = 0
    while row < len(form):
        is_plane = row + 1 < len(form) and bool(form[row + 1, row])
        if is_plane:
            _turn(turned, row, row + 1, alpha * math.atan2(form[row + 1, row], form[row, row]))
        elif form[row, row] < 0:
            half_turns.append(row)
        row += 1 + is_plane
    for first, second in zip(half_turns[::2], half_turns[1::2], strict=True):
        _turn(turned, first, second, alpha * math.pi)
    return basis @ turned @ basis.T


def _turn(matrix: Tensor, first: int, second: int, angle: float) -> None:
    """Set a plane of a block diagonal matrix to a rotation."""
    matrix[first, first] = matrix[second, second] = math.cos(angle)
    matrix[second, first] = math.sin(angle)
    matrix[first, second] = -math.sin(angle)
