"""See what the layers of a network take in and put out while it runs."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, TypeAlias

from torch import Tensor, nn

from captum_blackbox.errors import LayerError
from captum_blackbox.hooks import CallHandler, intercepted, on_output
from captum_blackbox.patterns.operations import is_sum
from captum_blackbox.patterns.structure import LayerUse

Receiver: TypeAlias = Callable[[str, Tensor, Tensor], None]


@contextmanager
def observed(model: nn.Module, layers: Mapping[str, LayerUse], receive: Receiver) -> Iterator[None]:
    """Hand the input of each layer and its output, behind its BatchNorm, to ``receive``.

    A layer that runs twice is heard twice.

    Args:
        model: The model that runs inside the block.
        layers: Name → use, from a :class:`~captum_blackbox.patterns.structure.Structure`.
        receive: Gets name, input and output, on the model's device; must not keep or change them.
    """
    waiting: dict[int, tuple[Tensor, Tensor]] = {}  # by the output that a BatchNorm will take

    def keep(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        waiting[id(output)] = output, _only(name, module, inputs)

    def pair(name: str, _: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        receive(name, waiting.pop(id(inputs[0]))[1], output)

    def both(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        receive(name, _only(name, module, inputs), output)

    with ExitStack() as handles:
        for name, use in layers.items():
            layer = model.get_submodule(name)
            if use.norm is None:
                handles.enter_context(on_output(layer, partial(both, name)))
            else:
                handles.enter_context(on_output(layer, partial(keep, name)))
                norm = model.get_submodule(use.norm)
                handles.enter_context(on_output(norm, partial(pair, name)))
        yield


@contextmanager
def observed_sums(model: nn.Module, names: Collection[str], receive: Receiver) -> Iterator[None]:
    """Hand the two summands of each addition in ``names`` to ``receive``."""
    if not names:
        yield
        return
    with intercepted(model, lambda: at_sums(names, partial(_received, receive))):
        yield


def at_sums(
    names: Collection[str], replace: Callable[[str, Callable[..., Any], Tensor, Tensor], Tensor]
) -> CallHandler:
    """Return a handler that computes the additions in ``names`` by ``replace``, for one pass."""
    numbers: dict[str, int] = {}

    def handle(
        path: str, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:  # noqa: ANN401
        if is_sum(function, args, kwargs):
            number = numbers[path] = numbers.get(path, -1) + 1
            if f"{path}:{number}" in names:
                return replace(f"{path}:{number}", function, *args)
        return function(*args, **kwargs)

    return handle


def _received(
    receive: Receiver, name: str, function: Callable[..., Any], first: Tensor, second: Tensor
) -> Tensor:
    receive(name, first, second)
    result: Tensor = function(first, second)
    return result


def _only(name: str, module: nn.Module, inputs: tuple[Any, ...]) -> Tensor:
    if len(inputs) != 1 or not isinstance(inputs[0], Tensor):
        raise LayerError(
            f"layer {name!r} ({type(module).__name__}) must be called with one positional tensor"
        )
    return inputs[0]
