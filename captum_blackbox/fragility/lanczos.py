"""The leading eigenpairs of many symmetric matrices at once, which can only be multiplied with."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from captum_blackbox.errors import InputError

Products: TypeAlias = Callable[[Tensor], Tensor]
"""A vector for each matrix ``(N, D)`` → the products ``(N, D)``."""

_ROUNDING = 20  # a residual of so many machine epsilons is as good as 0


class Eigenpairs(NamedTuple):
    """The ``k`` eigenvalues of largest absolute value of each matrix, the largest first.

    Attributes:
        values: Signed, in float64.
        vectors: Of length 1 and orthogonal to each other.
        residuals: ``‖A v - λ v‖``, measured by one more product; an eigenvalue lies no further from
            ``λ`` than that.
        steps: Products that were needed to find the pair.
        converged: Whether the residual was small enough before the products ran out.
    """

    values: Float[Tensor, "batch k"]
    vectors: Float[Tensor, "batch k size"]
    residuals: Float[Tensor, "batch k"]
    steps: Int64[Tensor, "batch k"]
    converged: Bool[Tensor, "batch k"]


def top_eigenpairs(
    products: Products, starts: Float[Tensor, "batch k size"], *, iterations: int, tolerance: float
) -> Eigenpairs:
    """Find eigenpairs by Lanczos' method, one after the other.

    A run multiplies until the largest Ritz pair has converged, and no pair at the other end of the
    spectrum can still overtake it. The next run stays orthogonal to what was found, from a start of
    its own: so a repeated eigenvalue is found as often as it occurs, which a single run cannot do.
    Every new vector is made orthogonal to all before it, twice. Matrices do not influence each
    other: one that has converged keeps its pair while others go on.

    Args:
        products: Multiplies each matrix with its own vector.
        starts: A random vector for each pair; the dtype is that of the computation.
        iterations: Most products for a pair.
        tolerance: Largest residual, as a fraction of the largest eigenvalue found. The error of the
            eigenvalue is of the order of its square. Below some machine epsilons it counts as them.

    Raises:
        InputError: A product is not finite.

    References:
        Lanczos, 1950; Parlett, "The Symmetric Eigenvalue Problem", ch. 13.

    Example:
        >>> diagonal = torch.tensor([[3.0, -5.0, 1.0, -5.0]])
        >>> starts = torch.randn(1, 3, 4, generator=torch.Generator().manual_seed(0))
        >>> found = top_eigenpairs(lambda v: diagonal * v, starts, iterations=4, tolerance=1e-4)
        >>> found.values.round(decimals=4).tolist()
        [[-5.0, -5.0, 3.0]]
    """
    found = starts[:, :0]
    scale = torch.zeros(len(starts), dtype=torch.float64)
    columns: list[tuple[Tensor, ...]] = []
    for start in starts.unbind(1):
        vector, steps, converged = _largest(products, start, found, scale, iterations, tolerance)
        product = products(vector)
        value = _dot(vector, product)
        residual = (product - value.to(vector)[:, None] * vector).norm(dim=1).double().cpu()
        columns.append((value, residual, steps, converged))
        found = torch.cat([found, vector[:, None]], 1)
        scale = torch.maximum(scale, value.abs())
    values, residuals, steps, converged = (
        torch.stack(each, 1) for each in zip(*columns, strict=True)
    )
    order = values.abs().argsort(dim=1, descending=True, stable=True)
    rows = torch.arange(len(starts))[:, None]
    vectors = found[rows.to(found.device), order.to(found.device)]
    return Eigenpairs(
        values[rows, order], vectors, residuals[rows, order], steps[rows, order],
        converged[rows, order],
    )  # fmt: skip


def _largest(
    products: Products,
    start: Tensor,
    found: Tensor,
    scale: Tensor,
    iterations: int,
    tolerance: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the leading eigenvector across ``found``, the products it took, and if it is one."""
    batch, size = start.shape
    most = min(iterations, size - found.shape[1])
    tolerance = max(tolerance, _ROUNDING * torch.finfo(start.dtype).eps)
    basis = start.new_empty(batch, most, size)
    projected = torch.zeros(batch, most, most, dtype=torch.float64)
    shape = torch.zeros(batch, most, dtype=torch.float64)
    steps = torch.zeros(batch, dtype=torch.int64)
    finished = torch.zeros(batch, dtype=torch.bool)
    vector = _unit(_across(start, found))
    for step in range(most):
        basis[:, step] = vector
        product = products(vector)
        projected[:, step, step] = _dot(vector, product)
        rest = _across(_across(product, found), basis[:, : step + 1])
        length = rest.norm(dim=1).double().cpu()
        _check_finite(projected[:, step, step] + length, start.dtype)
        ritz, done = _leading(projected[:, : step + 1, : step + 1], length, scale, tolerance)
        running = ~finished
        shape[running, : step + 1] = ritz[running]
        steps[running] = step + 1
        finished |= done
        if bool(finished.all()) or step + 1 == most:
            break
        projected[:, step, step + 1] = projected[:, step + 1, step] = length
        vector = _unit(rest)
    used = int(steps.max())
    combined = torch.einsum("nm,nmd->nd", shape[:, :used].to(start), basis[:, :used])
    return _unit(_across(combined, found)), steps, finished


def _leading(
    projected: Float[Tensor, "batch m m"],
    length: Float[Tensor, " batch"],
    scale: Float[Tensor, " batch"],
    tolerance: float,
) -> tuple[Float[Tensor, "batch m"], Bool[Tensor, " batch"]]:
    """Return the leading eigenvector in the basis so far, and whether it will remain.

    The residual of a Ritz pair is the length of the next vector times its last coefficient.
    """
    values, shapes = torch.linalg.eigh(projected)
    residuals = length[:, None] * shapes[:, -1].abs()
    top = values.abs().argmax(1, keepdim=True)
    value, residual = values.gather(1, top), residuals.gather(1, top)
    limit = tolerance * torch.maximum(scale[:, None], value.abs())
    rivals = (values.abs() + residuals).where(values * value < 0, torch.zeros(()).double())
    done = (residual <= limit) & (rivals.amax(1, keepdim=True) <= value.abs() + limit)
    return shapes.gather(2, top[:, None].expand(-1, shapes.shape[1], 1))[..., 0], done[:, 0]


def _across(vectors: Tensor, basis: Float[Tensor, "batch m size"]) -> Tensor:
    """Take from each vector what lies along its basis; once more for what rounding left."""
    for _ in range(2):
        along = torch.bmm(basis, vectors[:, :, None])
        vectors = vectors - torch.bmm(along.mT, basis)[:, 0]
    return vectors


def _unit(vectors: Tensor) -> Tensor:
    """Scale to length 1; 0 stays 0."""
    length = vectors.norm(dim=1, keepdim=True)
    scaled: Tensor = vectors / length.where(length > 0, torch.ones_like(length))
    return scaled


def _dot(a: Tensor, b: Tensor) -> Tensor:
    product: Tensor = (a * b).sum(1, dtype=torch.float64)
    return product.cpu()


def _check_finite(values: Tensor, dtype: torch.dtype) -> None:
    broken = (~values.isfinite()).nonzero().flatten().tolist()
    if broken:
        raise InputError(
            f"the second derivatives of image {broken[0]} are not finite in {dtype}; look for NaN "
            "in the image and the weights, and for roots and logarithms at 0"
        )
