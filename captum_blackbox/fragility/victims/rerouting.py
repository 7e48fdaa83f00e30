"""Gradients whose backward pass is changed at some modules, and their true derivative."""

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from captum_blackbox.errors import VictimError
from captum_blackbox.fragility.victims.gradients import input_gradient
from captum_blackbox.hooks import OutputHook, on_output, out_of_place
from captum_blackbox.shapes import Labels

Signal: TypeAlias = Callable[[Tensor], Tensor]
"""What arrives at the output of a module → what goes on from its input."""


class Call(NamedTuple):
    """What a module got and gave in one forward pass, hanging on the images."""

    module: nn.Module
    given: Tensor
    made: Tensor

    def vjp(self, arriving: Tensor) -> Tensor:
        """Return what the gradient would send on; differentiable where a graph is being made."""
        (going,) = torch.autograd.grad(
            self.made,
            self.given,
            arriving,
            create_graph=torch.is_grad_enabled(),
            retain_graph=True,
        )
        return going

    def slope(self, create_graph: bool) -> Tensor:
        """Return the derivative, of a module that acts on each number by itself."""
        (slope,) = torch.autograd.grad(
            self.made,
            self.given,
            torch.ones_like(self.made),
            create_graph=create_graph,
            retain_graph=True,
        )
        return slope


Rule: TypeAlias = Callable[[Call, bool], Signal]
"""A call, and whether its signal will be differentiated → what replaces its backward pass."""


def rerouted_gradient(
    network: nn.Module,
    forward: Callable[..., Tensor],
    rules: Mapping[nn.Module, Rule],
    images: Tensor,
    target: Labels,
    extra: tuple[Any, ...],
    *,
    create_graph: bool,
) -> tuple[Tensor, Tensor]:
    """Return the gradient of the explained scores by changed rules, and the scores.

    A rule depends on the images by what its module got and gave. One graph cannot hold both that
    dependence, which needs the true derivatives, and the changed backward pass. So with
    ``create_graph`` the network runs twice: a first time as it is; a second time on a copy of the
    images, where each ruled module puts out what it did the first time, on the graph of the first
    run, and sends to its input what the rule says. The gradient in the copy is the map, and the
    copy is left out when the map is differentiated.

    Args:
        network: Whose modules have rules.
        forward: Images → scores, by way of ``network``.
        rules: Module → rule.
        images: ``(N, …)``, requiring gradients.
        target: ``(N,)``.
        extra: Passed to the network after the images.
        create_graph: Whether the result will be differentiated.

    Raises:
        VictimError: Something overwrites what a ruled module got.
    """
    with out_of_place(network):
        if not create_graph:
            with _hooked(rules, lambda call: _replaced(call, rules, create_graph=False)):
                scores = forward(images, *extra)
            return input_gradient(scores, target, images, create_graph=False), scores
        calls, scores, copy = _recorded(forward, rules, images, extra)
        own = images.detach().clone().requires_grad_()

        def again(call: Call) -> Tensor:
            return _replaced(
                call, rules, create_graph=True, first=calls[call.module].popleft(), copy=copy
            )

        with _hooked(rules, again):
            changed = forward(_Entered.apply(own, images), *extra)
        return input_gradient(changed, target, own, create_graph=True), scores


def _recorded(
    forward: Callable[..., Tensor],
    rules: Mapping[nn.Module, Rule],
    images: Tensor,
    extra: tuple[Any, ...],
) -> tuple[dict[nn.Module, deque[Call]], Tensor, bool]:
    """Run the network as it is; copy what modules put out only if something overwrites it."""
    for copy in (False, True):
        calls: dict[nn.Module, deque[Call]] = defaultdict(deque)
        versions: list[tuple[Call, int, int]] = []

        def record(call: Call) -> Tensor | None:
            calls[call.module].append(call)  # noqa: B023 - called within the iteration
            versions.append((call, *_versions(call)))  # noqa: B023
            return call.made.clone() if copy else None  # noqa: B023

        with _hooked(rules, record):
            scores = forward(images, *extra)
        changed = [call for call, *kept in versions if kept != [*_versions(call)]]
        if not changed:
            return calls, scores, copy
    raise VictimError(
        f"the network overwrites what {changed[0].module} got, so that its rule has nothing to go "
        "by; make the operation after it write to new memory"
    )


def _versions(call: Call) -> tuple[int, int]:
    return call.given._version, call.made._version  # noqa: SLF001 - autograd counts writes here


def _replaced(
    call: Call,
    rules: Mapping[nn.Module, Rule],
    *,
    create_graph: bool,
    first: Call | None = None,
    copy: bool = False,
) -> Tensor:
    """Return the output of a module with the backward pass of its rule."""
    source = first or call
    signal = rules[call.module](source, create_graph)
    made = source.made if create_graph else source.made.detach()
    replaced: Tensor = _Rerouted.apply(call.given, made.clone() if copy else made, signal)
    return replaced


@contextmanager
def _hooked(
    rules: Mapping[nn.Module, Rule], of_call: Callable[[Call], Tensor | None]
) -> Iterator[None]:
    def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Tensor | None:  # noqa: ANN401
        if not (torch.is_grad_enabled() and inputs[0].requires_grad):
            return None
        return of_call(Call(module, inputs[0], output))

    as_hook: OutputHook = hook
    with ExitStack() as handles:
        for module in rules:
            handles.enter_context(on_output(module, as_hook))
        yield


class _Entered(torch.autograd.Function):
    """The images on two graphs: of a copy, and of themselves."""

    @staticmethod
    def forward(_ctx: Any, _copy: Tensor, images: Tensor) -> Tensor:  # noqa: ANN401
        return images.detach().clone()

    @staticmethod
    def backward(_ctx: Any, arriving: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        return arriving, arriving


class _Rerouted(torch.autograd.Function):
    """The output of a module, with a signal for its input and the gradient for its first run."""

    @staticmethod
    def forward(ctx: Any, _given: Tensor, made: Tensor, signal: Signal) -> Tensor:  # noqa: ANN401
        ctx.signal = signal
        return made.detach()

    @staticmethod
    def backward(ctx: Any, arriving: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        going = ctx.signal(arriving) if ctx.needs_input_grad[0] else None
        return going, (arriving if ctx.needs_input_grad[1] else None), None
