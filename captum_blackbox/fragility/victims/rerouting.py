"""Gradients whose backward pass is changed at some modules, which keep their true derivative."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, TypeAlias

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from captum_blackbox.errors import LayerError
from captum_blackbox.hooks import on_gradient, on_input, on_output

Signal: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""The gradient at the input of a module, and what arrives at its output → what goes on instead."""

SignalRule: TypeAlias = Callable[[nn.Module, Tensor, Tensor], Signal]
"""Module, its input and output → the signal of this call."""


@contextmanager
def rerouted(rules: Mapping[nn.Module, SignalRule]) -> Iterator[None]:
    """Change what some modules send back while the block runs, forward and backward pass.

    Rules are asked in the forward pass. What they make of its tensors hangs on the graph, and when
    the block has ended nothing is changed any more: a gradient that was made in the block with
    ``create_graph=True`` is differentiated by its true derivative after it.

    As in Captum, the gradient of the *tensor* that a module gets is changed, so also the part that
    comes from others who got it; and what arrives at an output is what its readers send, before
    the rule of a reader has changed it.

    Args:
        rules: Module → rule; a module has one tensor as input and one as output.

    Raises:
        LayerError: A module gets something else.

    Example:
        >>> import torch
        >>> x = torch.tensor([1.0, -1.0], requires_grad=True)
        >>> module = nn.ReLU()
        >>> with rerouted({module: lambda *_: lambda going, arriving: arriving}):
        ...     torch.autograd.grad(module(x).sum(), x)
        (tensor([1., 1.]),)
    """
    routes = _Routes(rules)
    with ExitStack() as handles:
        handles.callback(routes.remove)
        for module in rules:
            handles.enter_context(on_input(module, routes.enter))
            handles.enter_context(on_output(module, routes.leave))
        yield


class _Routes:
    """The hooks on tensors that change what modules send back."""

    def __init__(self, rules: Mapping[nn.Module, SignalRule]) -> None:
        self._rules = rules
        self._given: list[Tensor] = []
        self._handles: list[RemovableHandle] = []

    def enter(self, module: nn.Module, inputs: tuple[Any, ...]) -> Tensor:
        if len(inputs) != 1 or not isinstance(inputs[0], Tensor):
            raise LayerError(
                f"{module} must be called with one positional tensor to have a rule, got "
                f"{len(inputs)} positional arguments"
            )
        self._given.append(inputs[0])
        return inputs[0].clone()  # that the module may overwrite

    def leave(self, module: nn.Module, _inputs: object, output: Tensor) -> None:
        given = self._given.pop()
        if not output.requires_grad:
            return
        signal = self._rules[module](module, given, output)
        arriving: list[Tensor] = []
        self._handles.append(on_gradient(output, arriving.append))
        self._handles.append(
            on_gradient(given, lambda going: signal(going, arriving[-1]) if arriving else None)
        )

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()
