"""Three ways to apply the inverse of the damped Hessian, ``(H + hessian_reg · I)⁻¹``."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from captum_blackbox.errors import InputError, check_choice, warn_user
from captum_blackbox.influence.curvature import Curvature, Vectors

Inverse: TypeAlias = Callable[[Tensor], Tensor]
"""Vectors ``(k, p)`` → ``(H + hessian_reg · I)⁻¹ v`` for each, in double precision."""

SolverName: TypeAlias = Literal["exact", "cg", "lissa"]

_POWER_STEPS = 30
_MARGIN = 1.1  # power iteration comes from below
_INDEFINITE = (
    "the damped Hessian is not positive definite{detail}, so there is no minimum to move; raise "
    "hessian_reg (now {reg:g}), use hessian='gauss_newton', or train the network further"
)


@runtime_checkable
class Solver(Protocol):
    """A way to solve; a user can write another."""

    def prepare(self, curvature: Curvature, reg: float, show_progress: bool = False) -> Inverse:
        """Do once what serves all vectors."""


@dataclass(frozen=True)
class ExactSolver:
    """The whole Hessian and its Cholesky factor, in double precision.

    Attributes:
        most_parameters: Above this the matrix is refused: 5000 take 0.2 GB, and twice that while it
            is factored.
    """

    most_parameters: int = 5000

    def prepare(self, curvature: Curvature, reg: float, show_progress: bool = False) -> Inverse:
        """Build and factor the matrix.

        Raises:
            InputError: There are too many parameters, or the matrix is not positive definite; its
                smallest eigenvalue is named.
        """
        count = curvature.function.count
        if count > self.most_parameters:
            raise InputError(
                f"solver='exact' builds a matrix of {count} × {count} numbers, more than "
                f"{self.most_parameters} on a side; name fewer `layers`, such as the last, or use "
                "solver='cg'"
            )
        matrix = curvature.matrix(show_progress)
        matrix.diagonal().add_(reg)
        _check_finite(matrix)
        factor, failed = torch.linalg.cholesky_ex(matrix)
        if bool(failed):
            smallest = float(torch.linalg.eigvalsh(matrix)[0]) - reg
            detail = f" (smallest eigenvalue {smallest:.3g} before damping)"
            raise InputError(_INDEFINITE.format(detail=detail, reg=reg))
        return lambda vectors: torch.cholesky_solve(vectors.to(factor).mT, factor).mT


@dataclass(frozen=True)
class ConjugateGradient:
    """Conjugate gradients, all vectors side by side; a pass over the training points per step.

    Attributes:
        tolerance: Stop when the residual is this much smaller than the vector.
        max_iterations: Stop then at the latest, and warn.
    """

    tolerance: float = 1e-8
    max_iterations: int = 1000

    def prepare(self, curvature: Curvature, reg: float, show_progress: bool = False) -> Inverse:
        """Nothing is to be done before there is a vector."""
        del show_progress
        return lambda vectors: self._solve(curvature, reg, vectors.double())

    def _solve(self, curvature: Curvature, reg: float, vectors: Vectors) -> Vectors:
        solution, residual, direction = torch.zeros_like(vectors), vectors.clone(), vectors.clone()
        size = (residual**2).sum(1)
        enough = self.tolerance**2 * size
        for _ in range(self.max_iterations):
            open_ = size > enough
            if not bool(open_.any()):
                return solution
            product = curvature.times(direction) + reg * direction
            bend = (direction * product).sum(1)
            _check_finite(bend)
            if bool((bend[open_] <= 0).any()):
                raise InputError(_INDEFINITE.format(detail="", reg=reg))
            step = torch.where(open_, size / bend, 0.0)[:, None]
            solution = solution + step * direction
            residual = residual - step * product
            before, size = size, torch.where(open_, (residual**2).sum(1), size)
            grown = torch.where(open_, size / before, 0.0)[:, None]
            direction = torch.where(open_[:, None], residual + grown * direction, direction)
        _warn_unless_small((size / vectors.square().sum(1)).sqrt(), self.tolerance, "cg")
        return solution


@dataclass(frozen=True)
class LiSSA:
    """The Neumann series ``u ← v + (I − (H + hessian_reg · I) / scale) u``; the answer u / scale.

    Published code damps *inside* the series, ``u ← v + (1 − damping) u − H u / scale``, which
    solves for ``H + damping · scale · I``. Here the damping of the series is ``hessian_reg /
    scale``, so that all solvers solve the same system. About ``scale / hessian_reg`` steps make the
    error three times smaller, each a Hessian product.

    Attributes:
        scale: Above half of the largest eigenvalue; by default a little above the whole one.
        depth: Steps at most; it warns where they were too few.
        tolerance: Stop when the error is estimated to be this much smaller than the answer.
        sample_size: How many training points, drawn anew, a step is made from. ``None``: all, so
            nothing is random and the answer is that of the other solvers. With fewer the answer is
            noisy, and all ``depth`` steps are made.
        samples: How many random answers are averaged.
        seed: Of the draws.

    References:
        Agarwal, Bullins, Hazan, "Second-order stochastic optimization for machine learning in
        linear time", JMLR 18, 2017; Koh, Liang, "Understanding black-box predictions via influence
        functions", ICML 2017, sec. 3.
    """

    scale: float | None = None
    depth: int = 10_000
    tolerance: float = 1e-6
    sample_size: int | None = None
    samples: int = 1
    seed: int = 0

    def prepare(self, curvature: Curvature, reg: float, show_progress: bool = False) -> Inverse:
        """Find a scale, or check the one given.

        Raises:
            InputError: The series would not converge with this scale.
        """
        del show_progress
        largest = largest_eigenvalue(curvature, each_batch=self.sample_size is not None) + reg
        _check_finite(torch.tensor(largest))
        scale = _MARGIN * largest if self.scale is None else self.scale
        if scale <= 0 or largest >= 2 * scale:
            raise InputError(
                f"LiSSA converges with a scale above half of the largest eigenvalue, {largest:.4g} "
                f"damped, got scale {scale:g}; leave it out or take {largest:.4g}"
            )
        return lambda vectors: self._solve(curvature, reg, scale, vectors.double())

    def _solve(self, curvature: Curvature, reg: float, scale: float, vectors: Vectors) -> Vectors:
        if self.sample_size is None:
            return self._series(curvature.times, reg, scale, vectors)
        answers = []
        for sample in range(self.samples):
            generator = torch.Generator().manual_seed(self.seed + sample)
            times = _SampledProduct(curvature, self.sample_size, generator)
            answers.append(self._series(times, reg, scale, vectors))
        return torch.stack(answers).mean(0)

    def _series(
        self, times: Callable[[Tensor], Tensor], reg: float, scale: float, vectors: Vectors
    ) -> Vectors:
        # What is left out after a change d is at most d · scale / reg.
        left_out = scale / reg if reg > 0 else float("inf")
        answer = vectors.clone()
        error = torch.full_like(vectors[:, 0], float("inf"))
        for _ in range(self.depth):
            changed = vectors + (1 - reg / scale) * answer - times(answer) / scale
            error = (changed - answer).norm(dim=1) * left_out / _positive(changed.norm(dim=1))
            answer = changed
            if not bool(answer.isfinite().all()):
                raise InputError(
                    f"the LiSSA series grows without end with scale {scale:g}; give a larger one, "
                    "or use hessian='gauss_newton', which has no negative eigenvalue"
                )
            if self.sample_size is None and bool((error <= self.tolerance).all()):
                return answer / scale
        if self.sample_size is None:
            _warn_unless_small(error, self.tolerance, "lissa")
        return answer / scale


class _SampledProduct:
    """Products with the Hessian of a few training points, others each time."""

    def __init__(self, curvature: Curvature, size: int, generator: torch.Generator) -> None:
        self._curvature, self._generator = curvature, generator
        self._size = min(size, len(curvature.points))

    def __call__(self, vectors: Tensor) -> Tensor:
        order = torch.randperm(len(self._curvature.points), generator=self._generator)
        points = self._curvature.points.some(order[: self._size].tolist())
        return self._curvature.times_on(points, vectors)


def largest_eigenvalue(curvature: Curvature, *, each_batch: bool = False) -> float:
    """Return the largest absolute eigenvalue of ``H`` by power iteration, which comes from below.

    Args:
        curvature: The Hessian.
        each_batch: The largest of the Hessians of single batches instead of that of all points.
    """
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(1, curvature.function.count, generator=generator, dtype=torch.float64)
    start = start.to(curvature.function.values.device)
    if not each_batch:
        return _power_iteration(curvature.times, start)
    return max(
        _power_iteration(partial(curvature.times_on, points), start)
        for points in curvature.points.batches()
    )


def _power_iteration(times: Callable[[Tensor], Tensor], vector: Tensor) -> float:
    size = torch.zeros(())
    for _ in range(_POWER_STEPS):
        vector = times(vector / _positive(vector.norm()))
        size = vector.norm()
    return float(size)


def _positive(sizes: Tensor) -> Tensor:
    return torch.where(sizes > 0, sizes, 1.0)


def _check_finite(values: Tensor) -> None:
    if not bool(values.isfinite().all()):
        raise InputError("the Hessian is not finite; look for NaN in the weights and inputs")


def _warn_unless_small(errors: Tensor, tolerance: float, name: str) -> None:
    worst = float(errors.nan_to_num(0).max())
    if worst > tolerance:
        warn_user(
            f"solver {name!r} stopped with a relative error of about {worst:.2g}, above its "
            f"tolerance {tolerance:g}; allow more steps, raise hessian_reg, or use solver='exact'"
        )


_SOLVERS: dict[str, Callable[[], Solver]] = {
    "exact": ExactSolver,
    "cg": ConjugateGradient,
    "lissa": LiSSA,
}


def solver_of(solver: SolverName | Solver) -> Solver:
    """Return a solver by its name; one with settings of its own is returned as it is.

    Raises:
        InputError: There is no solver of this name.

    Example:
        >>> solver_of("cg"), solver_of(LiSSA(scale=10.0, depth=100)).depth
        (ConjugateGradient(tolerance=1e-08, max_iterations=1000), 100)
    """
    if isinstance(solver, Solver):
        return solver
    check_choice("solver", solver, list(_SOLVERS))
    return _SOLVERS[solver]()
