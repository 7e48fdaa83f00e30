"""Move an explanation as far as it goes while the prediction stays."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import torch
from captum.attr import Attribution
from captum.log import log_usage
from captum.robust import Perturbation
from torch import Tensor, nn

from captum_blackbox._compat import (
    format_additional_forward_args,
    format_like_inputs,
    one_tensor,
)
from captum_blackbox.errors import InputError, check_choice
from captum_blackbox.fragility.ball import Amount, Ball, Norm
from captum_blackbox.fragility.chance import generators
from captum_blackbox.fragility.clean import explain_clean, judged, task_of
from captum_blackbox.fragility.criteria import Criterion, SuccessTest, criterion_of
from captum_blackbox.fragility.objectives import Objective, objective_of
from captum_blackbox.fragility.outcome import Judged, attackable, outcome, stopping
from captum_blackbox.fragility.result import AttackResult
from captum_blackbox.fragility.surrogate import (
    DEFAULT_BETA,
    Beta,
    GrowingBeta,
    Sharpness,
    beta_at,
)
from captum_blackbox.fragility.victims import victim_of
from captum_blackbox.fragility.walk import OnFlip, Plan, Walk
from captum_blackbox.shapes import Target, check_images


class InterpretationAttack(Attribution, Perturbation):
    r"""Find the image that looks the same, keeps its label, and is explained differently.

    From the clean image the attack takes signed steps up the gradient of an objective of the
    explanation, stays within a ball and within the bounds of an image, and keeps the best iterate
    whose label is the clean prediction:

    .. math:: \max_{x'} D\big(I(x), I(x')\big) \quad \text{where} \quad
        \|x' - x\| \le \epsilon, \; \arg\max f(x') = \arg\max f(x)

    The gradient of an explanation is a second derivative, and that of a network of ReLUs is 0. So
    the direction comes from a surrogate, the same weights with softplus in place of ReLU; label and
    explanation are always judged by the network as it is. The numbers that come out say how
    *fragile* an explanation is: an upper bound on how far it can be trusted, not how good it is.

    It is an attribution, whose map is the explanation of the attacked image, and a perturbation
    that ``captum.robust.AttackComparator`` and ``MinParamPerturbation`` take. In a ``NoiseTunnel``
    it needs wider bounds, for noise leaves the usual ones; to attack a smoothed explanation put the
    tunnel inside.

    When not to use it: for explanations that are not differentiable (masking, LIME, SHAP), which
    are refused; as evidence that an explanation is right, if the attack fails.

    Args:
        attribution: The explanation that is attacked: an attribution of Captum or of this library
            that a gradient makes, an attributor of Zennit with ``create_graph=True``, or a
            function of (model, inputs, target) that returns maps on the graph. A distilled student
            is attacked in place of its black box, which judges the label.
        model: The network, where it cannot be read off the attribution.
        lower_bound: Least value of an input: one number, one for each channel, or a tensor.
        upper_bound: Largest value.
        beta: Sharpness of the surrogate's softplus: by default relative to the size of each
            layer's pre-activations, :class:`~captum_blackbox.fragility.RelativeBeta`; a number,
            larger is nearer to the network and smaller bends more; a
            :class:`~captum_blackbox.fragility.GrowingBeta`; ``None`` for no surrogate. The right
            number depends on the size of a network's pre-activations: on SqueezeNet, where they are
            large, 30 is far weaker than the default.
        attribute_kwargs: Passed to ``attribution.attribute``: ``n_steps``, ``baselines`` …
        defence_beta: Judge the explanations of the network softened by this beta, a defence;
            labels stay those of the network as it is.

    Raises:
        VictimError: The explanation has no derivative that could be trusted; it says why.
        InputError: No network is known, or a setting cannot be used.

    References:
        Ghorbani, Abid, Zou, "Interpretation of Neural Networks Is Fragile", AAAI 2019, alg. 1 (in
        batches; a label that flips does not end the walk); softplus with a beta: Dombrowski et
        al., "Explanations can be manipulated and geometry is to blame", NeurIPS 2019.

    Example:
        >>> from captum.attr import Saliency
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 3))
        >>> attack = InterpretationAttack(Saliency(model))
        >>> images = torch.rand(2, 3, 8, 8)
        >>> result = attack.run(images, radius=8 / 255, step_num=20)
        >>> bool((result.attacked.intersection < 1).all()), result.label_kept.tolist()
        (True, [True, True])
    """

    def __init__(
        self,
        attribution: Any,  # noqa: ANN401 - of Captum, of Zennit, or a function
        *,
        model: nn.Module | None = None,
        lower_bound: Amount = 0.0,
        upper_bound: Amount = 1.0,
        beta: Beta = DEFAULT_BETA,
        attribute_kwargs: Mapping[str, Any] | None = None,
        defence_beta: Sharpness | None = None,
    ) -> None:
        _check_one_baseline(attribute_kwargs)
        self.victim = victim_of(attribution, model=model, attribute_kwargs=attribute_kwargs)
        self.attribution = attribution
        self.lower_bound, self.upper_bound = lower_bound, upper_bound
        self.scale: Amount = 1.0
        beta_at(beta, 0)
        if isinstance(defence_beta, GrowingBeta):
            raise InputError("a defence has one beta; give a number or a RelativeBeta")
        beta_at(defence_beta, 0)
        self.beta, self.defence_beta = beta, defence_beta
        Attribution.__init__(self, self.victim.network)

    @classmethod
    def normalized(
        cls,
        attribution: Any,  # noqa: ANN401
        *,
        mean: Sequence[float] | Tensor,
        std: Sequence[float] | Tensor,
        **settings: Any,
    ) -> "InterpretationAttack":
        """Attack images that the network takes normalised by mean and std.

        Inputs stay normalised; ``radius``, ``step_size`` and distances are in units of pixels in
        [0, 1], and so are the bounds.

        Args:
            attribution: The explanation that is attacked.
            mean: Of each channel, in pixels of [0, 1].
            std: Of each channel.
            **settings: The rest of :class:`InterpretationAttack`.

        Raises:
            InputError: A std is not positive.
        """
        center, spread = (torch.as_tensor(each, dtype=torch.float64).cpu() for each in (mean, std))
        if not bool((spread > 0).all()):
            raise InputError(f"std is positive for every channel, got {spread.tolist()}")
        lower, upper = (
            torch.as_tensor(settings.pop(name, usual), dtype=torch.float64).cpu()
            for name, usual in (("lower_bound", 0.0), ("upper_bound", 1.0))
        )
        attack = cls(
            attribution,
            lower_bound=(lower - center) / spread,
            upper_bound=(upper - center) / spread,
            **settings,
        )
        attack.scale = spread
        return attack

    def perturb(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        radius: Amount,
        step_size: Amount | None = None,
        step_num: int = 300,
        target: Target = None,
        additional_forward_args: object = None,
        *,
        label: Target = None,
        mode: str | Objective = "topk",
        k: int | None = None,
        region: Tensor | None = None,
        mask: Tensor | None = None,
        norm: Norm = "Linf",
        seed: int = 0,
        strict: bool = False,
        **options: Any,
    ) -> Any:  # noqa: ANN401 - a tensor for a tensor, a tuple for a tuple
        """Return the attacked images; arguments are those of :meth:`run`."""
        _, is_tuple = one_tensor(inputs, self.get_name())
        settings: dict[str, Any] = {
            "label": label,
            "mode": mode,
            "k": k,
            "region": region,
            "mask": mask,
        }
        settings |= {"norm": norm, "seed": seed, "strict": strict}
        result = self.run(
            inputs,
            radius,
            step_size,
            step_num,
            target,
            additional_forward_args,
            **settings,
            **options,
        )
        return format_like_inputs(result.inputs, is_tuple)

    @log_usage(part_of_slo=False)
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: Target = None,
        additional_forward_args: object = None,
        *,
        radius: Amount = 8 / 255,
        step_size: Amount | None = None,
        step_num: int = 300,
        **options: Any,
    ) -> Any:  # noqa: ANN401
        """Return the explanation of the attacked images; arguments are those of :meth:`run`.

        Returns:
            Maps ``(N, C, H, W)`` or ``(N, 1, H, W)``, as the attacked method makes them.
        """
        _, is_tuple = one_tensor(inputs, self.get_name())
        result = self.run(
            inputs, radius, step_size, step_num, target, additional_forward_args, **options
        )
        return format_like_inputs(result.attacked_maps, is_tuple)

    def run(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        radius: Amount,
        step_size: Amount | None = None,
        step_num: int = 300,
        target: Target = None,
        additional_forward_args: object = None,
        *,
        label: Target = None,
        mode: str | Objective = "topk",
        k: int | None = None,
        region: Tensor | None = None,
        mask: Tensor | None = None,
        norm: Norm = "Linf",
        criterion: str | Criterion | None = None,
        success: SuccessTest | None = None,
        stop_on_success: bool = False,
        check_every: int = 1,
        on_flip: OnFlip = "continue",
        seed: int = 0,
        strict: bool = False,
        show_progress: bool = False,
    ) -> AttackResult:
        """Attack the explanations of some images, and measure how far they moved.

        A step costs a forward, a backward and a double backward pass of the surrogate; a check one
        explanation by the network. The whole batch is on one graph; give fewer images if memory is
        short.

        Args:
            inputs: Images ``(N, C, H, W)``, or a tuple of one such tensor.
            radius: Largest change of a number (``"Linf"``) or of an image (``"L2"``); 0 changes
                nothing. One number or, for ``"Linf"``, one for each channel.
            step_size: Of a step, at most the radius; by default a 16th of it, as published.
            step_num: Steps. More are never worse (with ``check_every=1``). Fewer than 16 of the
                default size do not reach the edge of the ball.
            target: The class explained; by default the prediction.
            additional_forward_args: Passed to the network after the images.
            label: The label that is kept; by default the clean prediction. An image that is
                predicted otherwise comes back as it was.
            mode: ``"topk"``, ``"mass_center"``, ``"targeted"`` (needs a ``region``), ``"random"``
                (one draw, again if it changes the label), ``"random_walk"``; or an
                :class:`~captum_blackbox.fragility.Objective`.
            k: How many pixels are most important; by default a 50th of them.
            region: A mask ``(H, W)`` or ``(N, H, W)``, or a map to aim at.
            mask: Where images may change; 0 is not.
            norm: ``"Linf"`` or ``"L2"``.
            criterion: What the best iterate is chosen by: ``"intersection"``, ``"correlation"``,
                ``"center_shift"``, ``"region_mass"``, or a function; by default the mode's own.
            success: From measures of clean and attacked images to success; by default whether the
                criterion got better. See ``topk_below``, ``center_moved``.
            stop_on_success: Stop an image once ``success`` is passed, which saves time.
            check_every: Judge every so many steps; larger is faster and may miss the best.
            on_flip: When the label changes, ``"continue"`` or ``"revert"``: step back, halve the
                step.
            seed: Of everything random; an image draws the same alone and in a batch.
            strict: Raise where an image cannot be attacked.
            show_progress: Show a bar that counts steps.

        Returns:
            Images, measures, trajectory and success.

        Raises:
            ShapeError: These are no images, or an argument does not fit them.
            InputError: A setting cannot be used; an image is outside the bounds; an explanation is
                not finite; with ``strict`` an image that cannot be attacked.
            TargetError: ``target`` or ``label`` do not name a class.

        Warns:
            ExplanationWarning: Some explanations do not change at first order: a network of ReLUs
                without a surrogate, or a linear one.
        """
        images, _ = one_tensor(inputs, self.get_name())
        check_images(images)
        _check_counts(step_num, check_every)
        check_choice("on_flip", on_flip, get_args(OnFlip))
        if stop_on_success and success is None:
            raise InputError("stop_on_success needs a test, for instance success=topk_below(0.5)")
        objective = objective_of(mode, region)
        chosen = objective.criterion if criterion is None else criterion
        extra = format_additional_forward_args(additional_forward_args) or ()
        with torch.inference_mode(False), self.victim.ready():
            # What can be refused is refused before anybody is asked.
            images = images.detach().clone()
            ball = Ball(
                images,
                radius,
                norm,
                lower=self.lower_bound,
                upper=self.upper_bound,
                scale=self.scale,
                mask=mask,
            )
            plan = Plan(
                objective,
                criterion_of(chosen),
                self.beta,
                step_num,
                ball.step_size(step_size),
                check_every,
                on_flip,
                self.defence_beta,
                strict,
                show_progress,
            )
            own = generators(images, seed)
            clean = explain_clean(self.victim, images, target, label, extra, self.defence_beta)
            task = task_of(
                self.victim,
                clean,
                objective,
                beta=beta_at(self.beta, 0),
                k=k,
                region=region,
                own=own,
            )
            stop = stopping(success, clean, task, ball) if stop_on_success else None
            attacked = attackable(clean, ball, strict)
            walked = Walk(self.victim, clean, attacked, ball, task, plan, own, stop).run()
            maps, scores = judged(
                self.victim, walked.images, clean.target, extra, self.defence_beta
            )
        settings = {"method": self.victim.name, "norm": norm, "radius": _plain(radius)}
        settings |= {"mode": objective.name, "step_num": step_num, "k": task.k, "seed": seed}
        settings |= {"step_size": _plain(step_size), "check_every": check_every}
        settings |= {"on_flip": on_flip, "criterion": _named(chosen)}
        settings |= {"has_mask": mask is not None, "has_region": region is not None}
        settings |= {"lower_bound": _plain(self.lower_bound), "scale": _plain(self.scale)}
        settings |= {"upper_bound": _plain(self.upper_bound), "beta": str(self.beta)}
        settings |= {"defence_beta": None if self.defence_beta is None else str(self.defence_beta)}
        return outcome(clean, walked, Judged(maps, scores), task, ball, success, settings)

    def has_convergence_delta(self) -> bool:
        """Return False: the map of an attacked image has no delta of its own."""
        return False

    @classmethod
    def get_name(cls) -> str:
        """Return the name of the method."""
        return "InterpretationAttack"

    def attribute_future(self) -> None:
        """Refuse: there is no asynchronous version."""
        raise NotImplementedError(f"attribute_future is not implemented for {self.get_name()}")


def _check_one_baseline(attribute_kwargs: Mapping[str, Any] | None) -> None:
    baselines = (attribute_kwargs or {}).get("baselines")
    only = baselines[0] if isinstance(baselines, tuple) and len(baselines) == 1 else baselines
    if isinstance(only, Tensor) and only.dim() > 0 and len(only) > 1:
        raise InputError(
            f"an attack takes one baseline for all images, of shape (1, …), got {len(only)}; "
            "images that are done leave the batch, and would lose theirs"
        )


def _check_counts(step_num: int, check_every: int) -> None:
    if step_num < 0 or check_every < 1:
        raise InputError(
            f"step_num is 0 or more and check_every 1 or more, got {step_num} and {check_every}"
        )


def _plain(amount: Amount | None) -> Any:  # noqa: ANN401 - what JSON knows
    if amount is None:
        return None
    values: Any = torch.as_tensor(amount, dtype=torch.float64).tolist()
    return values if isinstance(values, list) or math.isfinite(values) else str(values)


def _named(criterion: str | Criterion) -> str:
    return criterion if isinstance(criterion, str) else getattr(criterion, "__name__", "function")
