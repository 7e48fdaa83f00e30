"""How much the loss at a test point would change without a training point."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.utils.data import Dataset

from captum_blackbox.errors import InputError, ShapeError, check_choice
from captum_blackbox.influence.curvature import Curvature, HessianKind
from captum_blackbox.influence.parameters import LossFunction, ParameterFunction
from captum_blackbox.influence.solvers import Inverse, Solver, SolverName, solver_of
from captum_blackbox.influence.training_set import TrainingSet

Sign: TypeAlias = Literal["helpful", "upweight"]
"""``"helpful"``: above 0 where a training point lowers the test loss; ``"upweight"``: its minus."""

Influences: TypeAlias = Float[Tensor, "tests training"]
Numbers: TypeAlias = Int64[Tensor, "tests some"]


class MostInfluential(NamedTuple):
    """The training points with the largest, or the smallest, influence; as Captum names them.

    Attributes:
        indices: Their numbers, ``(N, k)``, the most influential first.
        scores: Their influence, ``(N, k)``.
    """

    indices: Numbers
    scores: Influences


class InfluenceFunction:
    """The influence of every training point on the loss at test points.

    ``I(i, t) = gₜᵀ (H + hessian_reg · I)⁻¹ gᵢ / n``, with the gradients ``gᵢ`` and ``gₜ`` of the
    loss at training point ``i`` and test point ``t`` with respect to the parameters of ``layers``,
    and the Hessian ``H`` of the mean loss of the ``n`` training points. It estimates by how much
    the loss at ``t`` would *rise* if ``i`` had not been in the training set: above 0 is helpful.

    The weights are taken as they are when this object is made. The estimate supposes that they
    minimise the mean training loss plus ``hessian_reg / 2`` times their squared length; where
    training penalised weights, that is the value to give.

    Args:
        model: Inputs ``(B, …)`` → outputs ``(B, …)``, which stays as it is. It runs in evaluation
            mode.
        train_dataset: Pairs (input, target) whose position is their number.
        layers: Modules, or names as in ``model.named_modules()``, whose parameters count; ``None``
            is all. One last linear layer is the published setting.
        loss_fn: Outputs and targets → a loss per point ``(B,)``; cross-entropy by default. Without
            what penalises weights.
        hessian: ``"gauss_newton"`` or ``"exact"``; the same for a last linear layer.
        hessian_reg: What is added to the diagonal of the Hessian, 0 or more.
        solver: ``"exact"`` (Cholesky, up to 5000 parameters), ``"cg"``, ``"lissa"``, or one of
            :class:`~captum_blackbox.influence.ExactSolver`,
            :class:`~captum_blackbox.influence.ConjugateGradient`,
            :class:`~captum_blackbox.influence.LiSSA` with settings. They solve the same system.
        batch_size: How many training points are in memory at a time; a gradient per parameter each.
        sign: ``"helpful"``, or ``"upweight"``: minus that, the published ``I_up,loss`` over ``n``.

    Raises:
        InputError: A setting is out of range or ``train_dataset`` has no order.
        LayerError: A layer is not part of the model, or the layers have no parameters.

    References:
        Koh, Liang, "Understanding black-box predictions via influence functions", ICML 2017, eq. 2.
        Captum's ``NaiveInfluenceFunction`` gives ``gₜᵀ (H + …)⁻¹ gᵢ`` with the Hessian of the *sum*
        of losses: the same sign as ours, and the same numbers where its ``hessian_reg`` is ``n``
        times ours.

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> _ = model.weight.data.fill_(0.5)
        >>> data = [(torch.ones(1), torch.ones(1)), (torch.ones(1), torch.zeros(1))]
        >>> def half_square(outputs, targets):
        ...     return (outputs - targets).square().sum(1) / 2
        >>> function = InfluenceFunction(model, data, loss_fn=half_square, hessian_reg=0.0)
        >>> function.influence(torch.ones(1, 1), torch.ones(1, 1))  # the first agrees
        tensor([[ 0.1250, -0.1250]], dtype=torch.float64)
    """

    def __init__(
        self,
        model: nn.Module,
        train_dataset: Dataset[Any] | Sequence[Any],
        *,
        layers: Sequence[nn.Module | str] | nn.Module | str | None = None,
        loss_fn: LossFunction | None = None,
        hessian: HessianKind = "gauss_newton",
        hessian_reg: float = 0.01,
        solver: SolverName | Solver = "exact",
        batch_size: int = 64,
        sign: Sign = "helpful",
    ) -> None:
        check_choice("sign", sign, get_args(Sign))
        if not hessian_reg >= 0:
            raise InputError(f"hessian_reg must be 0 or more, got {hessian_reg}")
        self.function = ParameterFunction(model, layers, loss_fn)
        self.points = TrainingSet(train_dataset, batch_size, self.function.values)
        self.curvature = Curvature(self.function, self.points, hessian)
        self.hessian_reg = hessian_reg
        self._solver = solver_of(solver)
        self._factor = (1.0 if sign == "helpful" else -1.0) / len(self.points)

    @cached_property
    def inverse(self) -> Inverse:
        """Applies ``(H + hessian_reg · I)⁻¹`` to vectors ``(k, p)``; prepared at the first use."""
        first = self.points.some([0])
        with self.function.ready():
            self.function.check(*first)
        return self._solver.prepare(self.curvature, self.hessian_reg)

    def influence(
        self, inputs: Tensor, targets: object = None, *, show_progress: bool = False
    ) -> Influences:
        """Return the influence of every training point on the loss at each input.

        Args:
            inputs: ``(N, …)``.
            targets: What the loss compares the outputs with, one per input; ``None`` is the
                predicted class.
            show_progress: Show a bar that counts training points.

        Returns:
            ``(N, n)`` in double precision, on the model's device; in units of the loss.

        Raises:
            ShapeError: Inputs are no floating-point tensor.
            TargetError: A class number is out of range.
            InputError: An input is not finite, or the damped Hessian is not positive definite or
                too large for the solver.
        """
        with self.function.ready():
            points, wanted = self._test_points(inputs, targets)
            at_test = self._factor * self.inverse(self.function.gradients(points, wanted).detach())
            parts = [
                at_test @ self.function.gradients(*batch).detach().double().mT
                for batch in self.points.batches(show_progress, "influence")
            ]
        return torch.cat(parts, 1)

    def most_influential(
        self,
        inputs: Tensor,
        targets: object = None,
        k: int = 5,
        *,
        proponents: bool = True,
        show_progress: bool = False,
    ) -> MostInfluential:
        """Return the training points with the largest influence on each input.

        Args:
            inputs: As for :meth:`influence`.
            targets: As for :meth:`influence`.
            k: How many; of equal ones the one with the smaller number comes first.
            proponents: ``False`` returns those with the smallest influence.
            show_progress: As for :meth:`influence`.

        Raises:
            InputError: ``k`` is not between 1 and the number of training points; otherwise as for
                :meth:`influence`.
        """
        if not 1 <= k <= len(self.points):
            raise InputError(f"k is between 1 and {len(self.points)} training points, got {k}")
        influence = self.influence(inputs, targets, show_progress=show_progress)
        order = influence.argsort(dim=1, descending=proponents, stable=True)[:, :k]
        return MostInfluential(order, influence.gather(1, order))

    def of_points(self, numbers: Numbers, targets: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the summed influence of a few training points as a function of the test inputs.

        ``(H + …)⁻¹ Σ gᵢ`` is worked out once; the function then takes one gradient of the loss, and
        what it returns can be differentiated with respect to the inputs, through the layers below
        ``layers`` too.

        Args:
            numbers: Of the training points whose influence is summed, ``(N, k)``.
            targets: What the loss compares the outputs with, one per input.

        Returns:
            Inputs ``(N, …)`` → influence ``(N,)``, in float32 or wider.

        Example:
            >>> model = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 2))
            >>> data = [(torch.rand(2), label) for label in (0, 1, 1)]
            >>> function = InfluenceFunction(model, data, layers=["2"])
            >>> summed = function.of_points(torch.tensor([[0, 2]]), torch.tensor([1]))
            >>> inputs = torch.rand(1, 2, requires_grad=True)
            >>> torch.autograd.grad(summed(inputs).sum(), inputs)[0].shape
            torch.Size([1, 2])
        """
        wanted = self.points.placed_targets(targets)
        with self.function.ready():
            sums = torch.stack([
                self.function.gradients(*self.points.some(row)).detach().double().sum(0)
                for row in numbers.tolist()
            ])  # fmt: skip
            response = (self._factor * self.inverse(sums)).to(self.function.values)

        def summed(inputs: Tensor) -> Tensor:
            with self.function.ready():
                gradients = self.function.gradients(inputs.to(response), wanted)
                return (gradients * response).sum(1)

        return summed

    def _test_points(self, inputs: Tensor, targets: object) -> tuple[Tensor, Tensor]:
        if not isinstance(inputs, Tensor) or not inputs.is_floating_point() or len(inputs) == 0:
            got = f"{inputs.dtype} {tuple(inputs.shape)}" if isinstance(inputs, Tensor) else None
            raise ShapeError(
                "expected at least one input as a floating-point tensor (N, …), got "
                f"{got or type(inputs).__name__}"
            )
        check_finite(inputs)
        points = inputs.detach().clone().to(self.function.values)
        if targets is None:
            with torch.no_grad():
                targets = self.function.outputs(self.function.values, points).argmax(1)
        wanted = self.points.placed_targets(targets)
        self.function.check(points, wanted)
        return points, wanted


def check_finite(inputs: Tensor) -> None:
    """Refuse inputs ``(N, …)`` with NaN or infinity.

    Raises:
        InputError: There are some; the first is named.
    """
    bad = (~inputs.isfinite()).reshape(len(inputs), -1).any(1).nonzero().flatten().tolist()
    if bad:
        raise InputError(
            f"image {bad[0]} is not finite ({len(bad)} of {len(inputs)}): it holds NaN or "
            "infinity; leave it out or mend it"
        )
