"""PatternNet and PatternAttribution as attribution methods of Captum."""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, Literal, TypeAlias, get_args

import torch
from captum.attr import GradientAttribution
from captum.log import log_usage
from torch import Tensor, nn

from captum_blackbox._compat import (
    format_additional_forward_args,
    format_like_inputs,
    one_tensor,
    select_targets,
)
from captum_blackbox.errors import InputError, ShapeError, check_choice
from captum_blackbox.hooks import evaluating, first_parameter, on_output, unwrapped
from captum_blackbox.patterns.composites import (
    PatternAttributionComposite,
    PatternComposite,
    PatternNetComposite,
    Residual,
    state_of,
)
from captum_blackbox.patterns.patterns import Patterns
from captum_blackbox.shapes import Target, check_maps

OutputSeed: TypeAlias = Literal["logit", "one", "probability"]
"""What is sent back from the explained output."""


class _PatternMethod(GradientAttribution):
    """What both methods share: one forward and one backward pass under a composite."""

    composite_type: type[PatternComposite]

    def __init__(
        self,
        model: nn.Module,
        patterns: Patterns,
        *,
        residual: Residual = "pattern",
        rescale: bool = False,
    ) -> None:
        if not isinstance(model, nn.Module) or not isinstance(patterns, Patterns):
            raise InputError(
                f"{self.get_name()} needs an nn.Module and its Patterns, got "
                f"{type(model).__name__} and {type(patterns).__name__}; fit them with "
                "Patterns.fit(model, loader)"
            )
        GradientAttribution.__init__(self, model)
        self.model = unwrapped(model)
        self.patterns = patterns
        self._checked = self._check_patterns(None)
        self._composite = self.composite_type(patterns, residual=residual, rescale=rescale)

    def _check_patterns(self, checked: object) -> object:
        """Check that the patterns still belong to the model, if its weights have changed."""
        state = state_of(self.model)
        if state != checked:
            self.patterns.check(self.model)
        return state

    @property
    def multiplies_by_inputs(self) -> bool:
        """False: the patterns say what of the input counts, it is not multiplied in."""
        return False

    @classmethod
    def get_name(cls) -> str:
        """Return the name of the method."""
        return cls.__name__

    def attribute_future(self) -> None:
        """Refuse: there is no asynchronous version."""
        raise NotImplementedError(f"attribute_future is not implemented for {self.get_name()}")

    def _signals(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: Target,
        additional_forward_args: object,
        output_seed: OutputSeed,
        grad_kwargs: Mapping[str, Any] | None,
    ) -> tuple[Any, Tensor]:
        """Return what arrives at the input, and what was sent, ``(N,)``."""
        check_choice("output_seed", output_seed, get_args(OutputSeed))
        tensor, is_tuple = one_tensor(inputs, self.get_name())
        self._check(tensor)
        self._checked = self._check_patterns(self._checked)
        options = dict(grad_kwargs or {})
        additional = format_additional_forward_args(additional_forward_args) or ()
        keeps_graph = bool(options.get("create_graph", False))
        with torch.inference_mode(mode=False), torch.enable_grad():
            is_on_graph = keeps_graph and tensor.requires_grad
            own = tensor if is_on_graph else tensor.detach().clone().requires_grad_()
            with ExitStack() as undo:
                undo.enter_context(evaluating(self.model))
                if self.patterns.structure.head is not None:
                    head = self.model.get_submodule(self.patterns.structure.head)
                    undo.enter_context(on_output(head, lambda _, given, __: given[0]))
                undo.enter_context(self._composite.context(self.model))
                scores = self.model(own, *additional)
                if target is None and scores.dim() > 1 and scores[0].numel() > 1:
                    target = scores.detach().argmax(1)
                explained = select_targets(scores, target)
                seed = self._seed(scores, explained, target, output_seed)
                sent = seed if keeps_graph else seed.detach()
                (signal,) = torch.autograd.grad(explained, own, sent, **options)
        check_maps(signal, "no unit that the target depends on is active")
        result = signal if keeps_graph else signal.detach()
        return format_like_inputs(result, is_tuple), sent

    def _seed(
        self, scores: Tensor, explained: Tensor, target: Target, output_seed: OutputSeed
    ) -> Tensor:
        if output_seed == "logit":
            return explained
        if output_seed == "one":
            return torch.ones_like(explained)
        head = self.patterns.structure.head
        if head is not None and isinstance(
            self.model.get_submodule(head), nn.Sigmoid | nn.LogSigmoid
        ):
            return explained.sigmoid()
        if scores.dim() < 2 or scores.shape[1] == 1:
            raise InputError(
                f"output_seed='probability' needs scores of several classes, or a sigmoid module "
                f"at the end, got scores {tuple(scores.shape)}; use 'logit' or 'one'"
            )
        return select_targets(scores.softmax(1), target)

    def _check(self, inputs: Tensor) -> None:
        if not inputs.is_floating_point():
            raise ShapeError(
                f"expected floating-point inputs, got {inputs.dtype}; for images: "
                "images.float() / 255"
            )
        fitted = self.patterns.report.input_shape
        if inputs.numel() == 0 or (fitted and inputs.dim() != len(fitted) + 1):
            expected = f" like (N, {', '.join(map(str, fitted))})" if fitted else ""
            raise ShapeError(
                f"expected at least one input{expected}, as the patterns were fitted to, got "
                f"shape {tuple(inputs.shape)}"
            )
        weight = first_parameter(self.model)
        if inputs.device != weight.device or inputs.dtype != weight.dtype:
            raise InputError(
                f"the model has {weight.dtype} weights on {weight.device}, and the inputs are "
                f"{inputs.dtype} on {inputs.device}; move them there with inputs.to(...)"
            )


class PatternNet(_PatternMethod):
    r"""Show the signal: what of the input made the explained output what it is.

    The output's score is sent back through the network as the gradient is, but a unit passes it to
    its inputs by its pattern :math:`a` instead of its weight :math:`w`:

    .. math:: s^{l-1} = A^{l\,T} \big(s^l \odot 1[z^l > 0]\big)

    ReLU gates and max pooling routes as in the forward pass, so the cost is that of a gradient.
    For one linear unit the result is :math:`a\, w^T x`, the estimate of the signal in the input.
    It lives in the input space: look at it as a picture, in colour.

    It has a backward pass of its own, so that replacing ``gradient_func``, as can be done with
    Captum's methods, changes nothing.

    When not to use it: for networks whose activations are not ReLU (GELU, SiLU, attention), as a
    measure of importance (use :class:`PatternAttribution`), and with patterns fitted to data unlike
    those explained.

    Args:
        model: The network; its output are scores ``(N, classes)``. A softmax module at the end is
            taken off, so that the logit is explained.
        patterns: From :meth:`Patterns.fit`, for this network.
        residual: What the two branches of an addition get: ``"pattern"``, each its learned share
            of what arrives; ``"gradient"``, both all of it. The first keeps the sum, and where
            patterns are centred in their regime its maps degrade a prediction faster on both
            residual networks of the benchmarks; otherwise they are level.
        rescale: Divide what a layer sends on by its largest absolute value, as innvestigate does;
            for half precision and very deep networks. The map keeps its direction.

    Raises:
        InputError: ``model`` or ``patterns`` is of another kind.
        ArtifactError: The patterns were fitted to another model; the layer is named.

    References:
        Kindermans et al., "Learning how to explain neural networks: PatternNet and
        PatternAttribution", ICLR 2018, sec. 5. Beyond it: BatchNorm, residual additions, and
        layers of any geometry.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
        >>> patterns = Patterns.fit(model, torch.randn(40, 3, 4, 4), show_progress=False)
        >>> PatternNet(model, patterns).attribute(torch.randn(2, 3, 4, 4), target=1).shape
        torch.Size([2, 3, 4, 4])
    """

    composite_type = PatternNetComposite

    @log_usage(part_of_slo=True)
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: Target = None,
        additional_forward_args: object = None,
        *,
        output_seed: OutputSeed = "logit",
        grad_kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - a tensor for a tensor, a tuple for a tuple
        """Return the signal in each input.

        Args:
            inputs: ``(N, …)``, of any number of axes, or a tuple of one such tensor.
            target: The class to explain, in any of Captum's forms; ``None`` for the prediction.
            additional_forward_args: Passed to the model after the inputs.
            output_seed: What is sent back: the explained ``"logit"`` itself (default), ``"one"``,
                or the ``"probability"`` of the class. The map is linear in it, so a negative logit
                turns the signs.
            grad_kwargs: For ``torch.autograd.grad``; ``{"create_graph": True}`` makes the map
                differentiable, by its true derivative.

        Returns:
            Of the shape, dtype and device of ``inputs``; with signs, in units of the input.

        Raises:
            ShapeError: ``inputs`` is not one tensor of the kind that the patterns were fitted to.
            InputError: Device or dtype differ from the model's, or the map is not finite.
            TargetError: The target does not name a class.

        Warns:
            ExplanationWarning: A map is 0 everywhere.
        """
        return self._signals(inputs, target, additional_forward_args, output_seed, grad_kwargs)[0]


class PatternAttribution(_PatternMethod):
    r"""Say how much each input contributed to the explained output, by way of its signal.

    Like :class:`PatternNet`, but a unit passes what arrives by :math:`a \odot w`, the pattern times
    the weight: a deep Taylor decomposition whose root point, the distractor, is learned,

    .. math:: r^{l-1} = (A^l \odot W^l)^T \big(r^l \odot 1[z^l > 0]\big)

    The sum of a map equals the logit where nothing is lost on the way: in a linear network without
    zero padding (relevance that goes to padding is lost), additions of two branches included. A
    ReLU that is off loses what arrives, and biases take no part. :meth:`compute_convergence_delta`
    is what is missing.

    Arguments, errors and when not to use it: see :class:`PatternNet`.

    References:
        Kindermans et al., ICLR 2018, sec. 5.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2, bias=False))
        >>> patterns = Patterns.fit(model, torch.randn(99, 3, 2, 2), show_progress=False)
        >>> method = PatternAttribution(model, patterns)
        >>> images = torch.randn(5, 3, 2, 2)
        >>> maps, delta = method.attribute(images, target=0, return_convergence_delta=True)
        >>> torch.testing.assert_close(maps.sum((1, 2, 3)), model(images)[:, 0])
        >>> bool((delta.abs() < 1e-5).all())
        True
    """

    composite_type = PatternAttributionComposite

    @log_usage(part_of_slo=True)
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: Target = None,
        additional_forward_args: object = None,
        return_convergence_delta: bool = False,
        *,
        output_seed: OutputSeed = "logit",
        grad_kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Return the contribution of each number in each input.

        Args:
            inputs: See :meth:`PatternNet.attribute`, as for the others.
            target: The class to explain; ``None`` for the prediction.
            additional_forward_args: Passed to the model after the inputs.
            return_convergence_delta: Also return what was sent less what arrived, ``(N,)``.
            output_seed: ``"logit"``, ``"one"`` or ``"probability"``.
            grad_kwargs: For ``torch.autograd.grad``.

        Returns:
            Of the shape, dtype and device of ``inputs``; positive speaks for the class if its logit
            is positive. Sum the channels for a map. With ``return_convergence_delta`` a pair.

        Raises:
            ShapeError: ``inputs`` is not one tensor of the kind that the patterns were fitted to.
            InputError: Device or dtype differ from the model's, or the map is not finite.
            TargetError: The target does not name a class.

        Warns:
            ExplanationWarning: A map is 0 everywhere.
        """
        maps, sent = self._signals(
            inputs, target, additional_forward_args, output_seed, grad_kwargs
        )
        if not return_convergence_delta:
            return maps
        if not self.has_convergence_delta():
            raise InputError("with rescale=True a map has no convergence delta; leave one of them")
        return maps, self.compute_convergence_delta(maps, sent)

    def has_convergence_delta(self) -> bool:
        """Return whether a map can add up to what was sent: not if it is rescaled."""
        return not self._composite.rescale

    def compute_convergence_delta(
        self, attributions: Tensor | tuple[Tensor, ...], output: Tensor
    ) -> Tensor:
        """Return for each input what was sent back less the sum of what arrived, ``(N,)``.

        Args:
            attributions: From :meth:`attribute`.
            output: What was sent: the logits, for ``output_seed="logit"``, ``(N,)``.
        """
        maps, _ = one_tensor(attributions, self.get_name())
        return output - maps.flatten(1).sum(1)
