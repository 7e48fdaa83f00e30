"""Change which training points explain a prediction, while the prediction stays."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias, get_args

import torch
from captum.log import log_usage
from captum.robust import Perturbation
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm import tqdm

from captum_blackbox._compat import class_targets, format_like_inputs, one_tensor
from captum_blackbox.errors import InputError, check_choice, warn_user
from captum_blackbox.fragility.ball import Amount, Ball
from captum_blackbox.fragility.chance import DRAWS, generators, random_signs
from captum_blackbox.fragility.influence_result import InfluenceAttackResult
from captum_blackbox.fragility.prediction import labels_of, number_of_classes
from captum_blackbox.fragility.surrogate import Beta, beta_at, softened
from captum_blackbox.hooks import evaluating
from captum_blackbox.influence import InfluenceFunction, Solver
from captum_blackbox.influence.curvature import HessianKind
from captum_blackbox.influence.influence_function import check_finite
from captum_blackbox.influence.parameters import LossFunction
from captum_blackbox.influence.solvers import SolverName
from captum_blackbox.shapes import Images, Labels, PerImage, Target, check_images

InfluenceMode: TypeAlias = Literal["influence", "random"]
"""Against the gradient of the influence, or random signs of the same size, to compare with."""

_REACH = 2.5  # radii that an iterative attack can walk


class InfluenceAttack(Perturbation):
    r"""Find the image that looks the same, keeps its label, and is explained by other exemplars.

    Influence functions explain a prediction by the training points that helped most. The attack
    takes the three most helpful ones of the clean image and makes them less so:

    .. math:: x' = \mathrm{clip}\Big(x - \epsilon \, \mathrm{sign} \,
        \nabla_x \sum_{i \in \mathrm{top}\,3} I(i, x)\Big), \qquad
        I(i, x) = \nabla_\theta L(x)^\top (H + \lambda I)^{-1} \nabla_\theta L(z_i) / n

    Weights, Hessian and training gradients are constants, so a step costs one mixed second
    derivative, through the layers below ``layers`` too. Networks of ReLUs need no surrogate: unlike
    the gradient of an output, that of an influence is not constant in pieces.

    Args:
        model: The network, images → logits; it stays as it is.
        train_dataset: Pairs (image, class) whose position is their number.
        layers: Whose parameters count, by name or module; ``None`` is all. One last linear layer is
            the published setting.
        loss_fn: Of the influence; cross-entropy by default.
        hessian: ``"gauss_newton"`` or ``"exact"``; the same for a last linear layer.
        hessian_reg: What is added to the diagonal of the Hessian, :math:`\lambda`.
        solver: ``"exact"``, ``"cg"``, ``"lissa"``, or one with settings of its own.
        batch_size: Training points in memory at a time.
        lower_bound: Least value of an input: one number, one for each channel, or a tensor.
        upper_bound: Largest value.
        beta: Take the direction from the network with ``softplus(beta)`` in place of ReLU; by
            default from the network as it is. Influences are always judged by the latter.

    Raises:
        InputError: A setting is out of range or ``train_dataset`` has no order.
        LayerError: A layer is not part of the model, or the layers have no parameters.

    References:
        Ghorbani, Abid, Zou, "Interpretation of Neural Networks Is Fragile", AAAI 2019, sec. 4.3.
        Published code steps three times in the space of features and pulls the sign of that back to
        the pixels; here the gradient is that of the influence itself.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.Tanh(), nn.Linear(6, 2))
        >>> data = [(torch.rand(1, 4, 4), number % 2) for number in range(20)]
        >>> attack = InfluenceAttack(model, data, layers=["3"])
        >>> result = attack.run(torch.rand(1, 1, 4, 4), radius=0.05)
        >>> result.clean.shape, result.label_kept.tolist(), result.success.tolist()
        (torch.Size([1, 20]), [True], [True])
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
        lower_bound: Amount = 0.0,
        upper_bound: Amount = 1.0,
        beta: Beta = None,
    ) -> None:
        beta_at(beta, 0)
        self.model = model
        self.influence = InfluenceFunction(
            model,
            train_dataset,
            layers=layers,
            loss_fn=loss_fn,
            hessian=hessian,
            hessian_reg=hessian_reg,
            solver=solver,
            batch_size=batch_size,
        )
        self.lower_bound, self.upper_bound = lower_bound, upper_bound
        self.beta = beta

    @log_usage(part_of_slo=False)
    def perturb(self, inputs: Tensor | tuple[Tensor, ...], radius: Amount, **settings: Any) -> Any:  # noqa: ANN401
        """Return the attacked images alone, as ``captum.robust`` expects; see :meth:`run`."""
        _, is_tuple = one_tensor(inputs, self.get_name())
        return format_like_inputs(self.run(inputs, radius, **settings).inputs, is_tuple)

    def run(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        radius: Amount,
        *,
        step_size: Amount | None = None,
        step_num: int = 1,
        target: Target = None,
        top: int = 3,
        mode: InfluenceMode = "influence",
        mask: Tensor | None = None,
        seed: int = 0,
        show_progress: bool = False,
    ) -> InfluenceAttackResult:
        """Attack some images; they do not influence each other.

        What is returned is the iterate with the lowest summed influence among those that keep the
        clean prediction, or the clean image where none is lower.

        Args:
            inputs: ``(N, C, H, W)``.
            radius: Largest change of a number, in the units of the images: one number, one for each
                channel ``(C,)``, or a tensor.
            step_size: Of a step, at most the radius. By default a single step is as large as the
                radius, as published, and several together reach 2.5 times as far.
            step_num: Steps; 1 is the published attack.
            target: The class in the loss at the images; ``None`` is the prediction, as published.
                The label that is kept is the clean prediction in any case.
            top: How many of the most helpful training points are to become less so.
            mode: ``"random"`` draws signs instead, at the full radius, and returns the first draw
                that keeps the label; there are up to 16.
            mask: Where the images may change: 0 is not, broadcast to the images.
            seed: Of the random signs; an image draws the same alone and in a batch.
            show_progress: Show bars that count training points and steps.

        Returns:
            Images, influences before and after, trajectory and success.

        Raises:
            ShapeError: These are no images, or an argument does not fit them.
            InputError: A setting is out of range, or an image is not finite or outside the bounds.
            TargetError: ``target`` does not name classes.

        Warns:
            ExplanationWarning: The influence does not depend on some image.
        """
        images, _ = one_tensor(inputs, self.get_name())
        check_images(images)
        check_choice("mode", mode, get_args(InfluenceMode))
        count = len(self.influence.points)
        if step_num < 0 or not 1 <= top <= count:
            raise InputError(
                f"step_num is 0 or more and top between 1 and the {count} training points, got "
                f"step_num {step_num} and top {top}"
            )
        with torch.inference_mode(False), torch.enable_grad(), evaluating(self.model):
            images = images.detach().clone()
            check_finite(images)
            ball = Ball(images, radius, lower=self.lower_bound, upper=self.upper_bound, mask=mask)
            step = _step(ball, step_size, step_num)
            label, wanted = self._labels(images, target)
            clean = self.influence.influence(images, wanted, show_progress=show_progress)
            reduced = clean.argsort(dim=1, descending=True, stable=True)[:, :top]
            walk = _Walk(ball, label, self.influence.of_points(reduced, wanted), self._predict)
            if mode == "random":
                walk.draw(generators(images, seed))
            else:
                for number in tqdm(range(step_num), "attack", disable=not show_progress):
                    walk.descend(self._gradient(walk, number), step)
            attacked = self.influence.influence(walk.best, wanted, show_progress=show_progress)
            settings = {
                "method": self.get_name(),
                "mode": mode,
                "layers": list(self.influence.function.names),
                "hessian": self.influence.curvature.kind,
                "hessian_reg": self.influence.hessian_reg,
                "training_points": count,
                "radius": torch.as_tensor(radius, dtype=torch.float64).tolist(),
                "step_num": step_num if mode == "influence" else 1,
                "top": top,
                "seed": seed,
            }
            return walk.result(clean, attacked, wanted, reduced, settings)

    @classmethod
    def get_name(cls) -> str:
        """Return the name of the method."""
        return "InfluenceAttack"

    def _predict(self, images: Images) -> Tensor:
        with torch.no_grad():
            scores: Tensor = self.model(images)
        return scores

    def _labels(self, images: Images, target: Target) -> tuple[Labels, Labels]:
        """Return the clean prediction, and the class in the loss."""
        scores = self._predict(images)
        label = labels_of(scores)
        if target is None:
            return label, label
        classes = number_of_classes(scores)
        return label, class_targets(target, len(images), classes, images.device)

    def _gradient(self, walk: "_Walk", number: int) -> Images:
        leaf = walk.now.clone().requires_grad_()
        with softened(self.model, beta_at(self.beta, number)):
            (gradient,) = torch.autograd.grad(walk.summed(leaf).sum(), leaf, materialize_grads=True)
        gradient = gradient.nan_to_num(0.0, 0.0, 0.0)
        still = (gradient.flatten(1).abs().amax(1) == 0).nonzero().flatten().tolist()
        if still and number == 0:
            warn_user(
                f"the influence of training points does not depend on image {still[0]} "
                f"({len(still)} of {len(gradient)}), so the attack does not move it; perhaps its "
                "prediction is so sure that the loss is 0"
            )
        return gradient


class _Walk:
    """From clean images to the best iterate that keeps the label."""

    def __init__(
        self,
        ball: Ball,
        label: Labels,
        summed: Callable[[Tensor], Tensor],
        predict: Callable[[Tensor], Tensor],
    ) -> None:
        self.summed = summed
        self.now = self.best = ball.images
        self._ball, self._label, self._predict = ball, label, predict
        self._value = summed(ball.images).detach()
        self._step = torch.zeros_like(label)
        self._values, self._kept = [self._value], [torch.ones_like(label, dtype=torch.bool)]

    def descend(self, gradient: Images, size: Tensor) -> None:
        """Step against the gradient, and keep what is better."""
        values, kept = self._move(-gradient, size)
        self._keep(kept & (values < self._value), values)

    def draw(self, own: Sequence[torch.Generator]) -> None:
        """Put random signs on each image until it has its label; keep the first that do."""
        open_ = torch.ones_like(self._label, dtype=torch.bool)
        for _ in range(DRAWS):
            self.now = self._ball.images
            values, kept = self._move(random_signs(own, self.now), self._ball.radius)
            self._values[-1] = values.masked_fill(~open_, torch.nan)
            self._kept[-1] = kept = kept & open_
            self._keep(kept, values)
            open_ = open_ & ~kept
            if not bool(open_.any()):
                return

    def result(
        self,
        clean: Tensor,
        attacked: Tensor,
        target: Labels,
        reduced: Tensor,
        settings: dict[str, Any],
    ) -> InfluenceAttackResult:
        """Return where the walk ended."""
        kept = labels_of(self._predict(self.best)) == self._label
        return InfluenceAttackResult(
            self.best,
            self._ball.images,
            clean,
            attacked,
            kept & (self._value < self._values[0]),
            kept,
            self._label,
            target,
            reduced,
            self._step,
            torch.stack(self._values, 1),
            torch.stack(self._kept, 1),
            settings,
        )

    def _move(self, direction: Images, size: Tensor) -> tuple[PerImage, Tensor]:
        self.now = self._ball.stepped(self.now, direction, size)
        values = self.summed(self.now).detach()
        kept = labels_of(self._predict(self.now)) == self._label
        self._values.append(values)
        self._kept.append(kept)
        return values, kept

    def _keep(self, better: Tensor, values: PerImage) -> None:
        number = len(self._values) - 1
        self.best = torch.where(better.view(-1, 1, 1, 1), self.now, self.best)
        self._value = torch.where(better, values, self._value)
        self._step = torch.where(better, number, self._step)


def _step(ball: Ball, step_size: Amount | None, step_num: int) -> Tensor:
    if step_size is not None:
        return ball.step_size(step_size)
    return torch.minimum(ball.radius, ball.radius * _REACH / max(1, step_num))
