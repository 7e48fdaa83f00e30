"""The second derivative of the training loss with respect to the parameters."""

from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from captum_blackbox.errors import check_choice
from captum_blackbox.influence.parameters import ParameterFunction
from captum_blackbox.influence.training_set import Points, TrainingSet

HessianKind: TypeAlias = Literal["gauss_newton", "exact"]
"""Which second derivative; on a last linear layer they are the same."""

Vectors: TypeAlias = Float[Tensor, "vectors parameters"]

_AT_ONCE = 64  # columns of an exact Hessian


class Curvature:
    """The Hessian ``H = (1/n) Σ ∇²L(zᵢ, θ)`` of the mean training loss, undamped.

    ``"gauss_newton"`` is ``(1/n) Σ Jᵢᵀ ∇²ℓᵢ Jᵢ``, with the Jacobian ``Jᵢ`` of the outputs and the
    second derivative ``∇²ℓᵢ`` of the loss with respect to them. For a loss that is convex in the
    outputs, such as cross-entropy, it has no negative eigenvalue. Where the outputs are linear in
    the parameters, as in the last layer of a network, it is the Hessian itself; elsewhere it leaves
    out the curvature of the outputs.

    Args:
        function: The network as a function of its parameters.
        points: The training points.
        kind: Which second derivative.

    Raises:
        InputError: There is no such kind.

    References:
        Schraudolph, "Fast curvature matrix-vector products for second-order gradient descent",
        Neural Computation 14, 2002. Pearlmutter, "Fast exact multiplication by the Hessian",
        Neural Computation 6, 1994.

    Example:
        >>> from torch import nn
        >>> square = ParameterFunction(nn.Linear(1, 1, bias=False), None, lambda y, t: (y**2)[:, 0])
        >>> points = TrainingSet([(torch.tensor([3.0]), 0)], batch_size=1, like=square.values)
        >>> Curvature(square, points).times(torch.ones(1, 1))  # 2 x²
        tensor([[18.]], dtype=torch.float64)
    """

    def __init__(
        self, function: ParameterFunction, points: TrainingSet, kind: HessianKind = "gauss_newton"
    ) -> None:
        check_choice("hessian", kind, get_args(HessianKind))
        self.function = function
        self.points = points
        self.kind = kind

    def times(self, vectors: Vectors) -> Vectors:
        """Return ``H v`` for each vector, ``(k, p)`` in double precision, by double backward."""
        total = torch.zeros_like(vectors, dtype=torch.float64)
        for points in self.points.batches():
            total += self.times_on(points, vectors) * len(points.inputs)
        return total / len(self.points)

    def times_on(self, points: Points, vectors: Vectors) -> Vectors:
        """Return ``H v`` for each vector, where ``H`` is the mean over some points only."""
        with self.function.ready():
            given = vectors.detach().to(self.function.values)
            product = self._gauss_newton if self.kind == "gauss_newton" else self._hessian
            return product(points, given).double() / len(points.inputs)

    def matrix(self, show_progress: bool = False) -> Float[Tensor, "parameters parameters"]:
        """Return ``H`` itself, ``(p, p)`` in double precision."""
        values = self.function.values
        total = torch.zeros(len(values), len(values), dtype=torch.float64, device=values.device)
        for points in self.points.batches(show_progress, "Hessian"):
            if self.kind == "gauss_newton":
                total += self._gauss_newton_matrix(points)
            else:
                columns = torch.eye(len(values), device=values.device)
                parts = [self.times_on(points, some) for some in columns.split(_AT_ONCE)]
                total += torch.cat(parts) * len(points.inputs)
        total /= len(self.points)
        return (total + total.mT) / 2

    def _hessian(self, points: Points, vectors: Tensor) -> Tensor:
        values = self.function.leaf()
        loss = self.function.losses(
            self.function.outputs(values, points.inputs), points.targets
        ).sum()
        (gradient,) = torch.autograd.grad(loss, values, create_graph=True)
        return _derivative(gradient, values, vectors)

    def _gauss_newton(self, points: Points, vectors: Tensor) -> Tensor:
        values = self.function.leaf()
        outputs = self.function.outputs(values, points.inputs)
        # The product with Jᵀ is linear in what it multiplies; its derivative multiplies by J.
        dummy = torch.zeros_like(outputs, requires_grad=True)
        (transposed,) = torch.autograd.grad(outputs, values, dummy, create_graph=True)
        forward = _derivative(transposed, dummy, vectors)
        weighted = self._times_loss_curvature(outputs.detach(), points.targets, forward)
        return _derivative(outputs, values, weighted)

    def _times_loss_curvature(self, outputs: Tensor, targets: Tensor, vectors: Tensor) -> Tensor:
        """Return the second derivative of the losses by the outputs, times ``(k, B, …)``."""
        leaf = outputs.clone().requires_grad_()
        losses = self.function.losses(leaf, targets)
        (slope,) = torch.autograd.grad(losses.sum(), leaf, create_graph=True)
        return _derivative(slope, leaf, vectors)

    def _gauss_newton_matrix(self, points: Points) -> Tensor:
        with self.function.ready():
            jacobians = self.function.jacobians(points.inputs).detach()
            outputs = self.function.outputs(self.function.values, points.inputs).detach()
            # Losses of different points do not meet: one product gives a column of every point.
            width = jacobians.shape[1]
            each = torch.eye(width, device=outputs.device, dtype=outputs.dtype)
            columns = each[:, None].expand(-1, len(outputs), -1).reshape(width, *outputs.shape)
            curved = self._times_loss_curvature(outputs, points.targets, columns)
        curved = curved.flatten(2).permute(1, 0, 2).double()  # points, outputs, outputs
        wide = jacobians.double()
        return wide.flatten(0, 1).mT @ (curved @ wide).flatten(0, 1)


def _derivative(of: Tensor, by: Tensor, weights: Tensor) -> Tensor:
    """Return the derivative of ``of`` by ``by``, from the left times each of ``weights``."""
    if of.requires_grad:
        (result,) = torch.autograd.grad(
            of, by, weights, retain_graph=True, allow_unused=True, is_grads_batched=True
        )
        if result is not None:
            return result.detach()
    return by.new_zeros(len(weights), *by.shape)
