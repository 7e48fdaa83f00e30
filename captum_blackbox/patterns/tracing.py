"""Find out how a network is built by watching one forward pass."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from captum_blackbox._compat import format_additional_forward_args
from captum_blackbox.errors import LayerError, warn_user
from captum_blackbox.hooks import evaluating, intercepted
from captum_blackbox.patterns.linear_layers import PATTERN_LAYERS
from captum_blackbox.patterns.operations import (
    CONSTANT,
    GATES,
    KEEPING,
    KNOWN,
    LINEAR_CALLS,
    PRODUCTS,
    REFUSED,
    is_sum,
    plain_name,
)
from captum_blackbox.patterns.structure import Gate, LayerUse, Structure

_BATCH_NORMS = nn.modules.batchnorm._BatchNorm  # noqa: SLF001 - torch's only common base
_HEADS = (nn.Softmax, nn.Softmax2d, nn.LogSoftmax, nn.Sigmoid, nn.LogSigmoid)
_MOST_NAMED = 5


@dataclass
class _Call:
    """A call of a function of torch that depends on the inputs.

    Attributes:
        function: Its plain name.
        path: Name of the module that made it.
        sources: Calls that made its arguments.
        users: Calls that took its results.
        axes: Of its result.
        number: Of an addition of two tensors of one shape, among those of its module.
    """

    function: str
    path: str
    sources: tuple[int, ...] = ()
    users: list[int] = field(default_factory=list)
    axes: int = 0
    number: int | None = None


class _Recorder:
    """Every call that depends on the inputs, in order."""

    def __init__(self, model: nn.Module, inputs: Tensor) -> None:
        self.model = model
        self.calls = [_Call("input", "")]
        self.made_by = {id(inputs): 0}
        self._alive: list[object] = [inputs]  # so that no id is used twice
        self._sums: dict[str, int] = {}

    def __call__(
        self,
        path: str,
        function: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> Any:  # noqa: ANN401
        given = _tensors((args, kwargs))
        sources = tuple(self.made_by[id(each)] for each in given if id(each) in self.made_by)
        number = None
        if is_sum(function, args, kwargs):
            number = self._sums[path] = self._sums.get(path, -1) + 1
        name = plain_name(function, args, kwargs)
        if name in LINEAR_CALLS and not self._is_layer(path, args, kwargs):
            name = f"{name} without a layer"
        elif name in PRODUCTS and any(self._is_weight(each) for each in args):
            name = f"{name} by a tensor"
        elif name == "setitem" and any(each.dtype == torch.bool for each in _tensors(args[1])):
            name = "setitem by a mask"
        result = function(*args, **kwargs)
        made = list(_tensors(args[0] if name.startswith("setitem") else result))
        if sources and made and name not in CONSTANT:
            for index in set(sources):
                self.calls[index].users.append(len(self.calls))
            self.made_by.update((id(each), len(self.calls)) for each in made)
            self._alive.append(made)
            self.calls.append(_Call(name, path, sources, axes=made[0].dim(), number=number))
        return result

    def _is_layer(self, path: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
        module: Any = self.model.get_submodule(path)
        if not isinstance(module, PATTERN_LAYERS):
            return False
        given: Any = args[1] if len(args) > 1 else kwargs["weight"]
        # A transposed convolution may be told another output size with each call.
        padding = args[5] if getattr(module, "transposed", False) and len(args) > 5 else None
        as_built = padding is None or tuple(padding) == module.output_padding
        return as_built and torch.equal(module.weight, given)

    def _is_weight(self, argument: object) -> bool:
        is_many = isinstance(argument, Tensor) and argument.numel() > 1
        return is_many and id(argument) not in self.made_by


def trace(
    model: nn.Module,
    inputs: Tensor,
    additional_forward_args: object = None,
    *,
    allow_non_relu: bool = False,
) -> Structure:
    """Return the structure of ``model``, seen in one forward pass without gradients.

    Args:
        model: The network.
        inputs: A batch, of which the model's way through itself must not depend.
        additional_forward_args: Passed to the model after the inputs.
        allow_non_relu: Take activations without a rule (sigmoid, tanh, GELU …) by their gradient
            instead of refusing them.

    Raises:
        LayerError: There is no layer with a pattern, or an activation has no rule; all of them are
            named.

    Warns:
        ExplanationWarning: Something else is passed by its gradient, because it has no rule.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
        >>> trace(model, torch.rand(1, 3, 3, 3)).layers
        {'0': LayerUse(norm='1', gate='relu')}
    """
    calls, output = _recorded(model, inputs, additional_forward_args)
    modules = dict(model.named_modules())
    head = _head(calls, modules, output)
    _check(calls, modules, head, allow_non_relu=allow_non_relu)
    named = _layer_calls(calls, modules)
    if not named:
        raise LayerError(
            f"{type(model).__name__} runs no Linear and no convolution on what comes from its "
            "input, so there is nothing that has a pattern; give the module that holds the layers"
        )
    _check_modules(calls, modules, named)
    layers, folded = {}, set()
    for name, indices in named.items():
        norm = _norm_of(calls, modules, indices)
        folded.add(norm)
        ends = [calls[i].users[0] for i in indices] if norm else indices
        layers[name] = LayerUse(norm, _gate(calls, ends, output))
    norms = [call.path for call in calls if isinstance(modules[call.path], _BATCH_NORMS)]
    skipped = [call.path for call in calls if call.function == "local_response_norm"]
    return Structure(
        layers=layers,
        norms=tuple(dict.fromkeys(name for name in norms if name not in folded)),
        sums=tuple(
            f"{call.path}:{call.number}"
            for call in calls
            if call.number is not None and len(call.sources) == 2
        ),
        skipped=tuple(dict.fromkeys(skipped)),
        head=head,
    )


def _recorded(model: nn.Module, inputs: Tensor, additional: object) -> tuple[list[_Call], int]:
    """Return the calls of one forward pass, and which of them made the output."""
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise LayerError(
            f"{type(model).__name__} is scripted, and its layers cannot be watched; give the "
            "module that it was made from"
        )
    recorder = _Recorder(model, inputs)
    with torch.no_grad(), evaluating(model), intercepted(model, lambda: recorder):
        output = model(inputs, *(format_additional_forward_args(additional) or ()))
    if not isinstance(output, Tensor):
        raise LayerError(
            f"{type(model).__name__} must return one tensor of scores, got a "
            f"{type(output).__name__}; wrap it in a module that returns the scores"
        )
    if id(output) not in recorder.made_by:
        raise LayerError(
            f"the output of {type(model).__name__} does not come from its input by functions of "
            "torch that can be watched; is it scripted, or computed with NumPy?"
        )
    return recorder.calls, recorder.made_by[id(output)]


def _check(
    calls: Sequence[_Call],
    modules: Mapping[str, nn.Module],
    head: str | None,
    *,
    allow_non_relu: bool,
) -> None:
    refused, passed = [], []
    for call in calls:
        if head is not None and call.path == head:
            continue
        kind = f" ({type(modules[call.path]).__name__})" if call.path else ""
        what = f"{call.function} in {call.path or 'the model itself'!r}{kind}"
        is_product = call.function in PRODUCTS and len(call.sources) > 1
        if call.function in REFUSED:
            refused.append(what)
        elif is_product or call.function not in KNOWN:
            passed.append(what)
    if refused and not allow_non_relu:
        raise LayerError(
            "patterns are defined for networks of linear layers and ReLU, and this one has "
            f"{_listed(refused)}; explain it by another method, or pass allow_non_relu=True to "
            "take the gradient there; a softmax at the end is taken off where it is a module"
        )
    doubtful = passed + (refused if allow_non_relu else [])
    if doubtful:
        warn_user(f"no rule is known for {_listed(doubtful)}: the gradient is passed there")


def _check_modules(
    calls: Sequence[_Call], modules: Mapping[str, nn.Module], named: Mapping[str, list[int]]
) -> None:
    """Refuse layers whose ``forward`` is not what their type says, and BatchNorm by the batch."""
    for call in calls[1:]:
        module: Any = modules[call.path]
        what = f"{call.path!r} ({type(module).__name__})"
        if call.path in named and call.function not in LINEAR_CALLS:
            pads = call.function == "pad" and module.padding_mode != "zeros"
            if not pads:
                raise LayerError(
                    f"layer {what} does more than its kernel: it calls {call.function}; move that "
                    "into a module of its own"
                )
        if isinstance(module, _BATCH_NORMS) and module.running_mean is None:
            raise LayerError(
                f"layer {what} has no running statistics, so that its output for an image depends "
                "on the other images; use track_running_stats=True"
            )


def _listed(names: Iterable[str]) -> str:
    different = list(dict.fromkeys(names))
    beyond = len(different) - _MOST_NAMED
    return ", ".join(different[:_MOST_NAMED]) + (f" and {beyond} more" if beyond > 0 else "")


def _head(calls: Sequence[_Call], modules: Mapping[str, nn.Module], output: int) -> str | None:
    """Return the softmax or sigmoid module that makes the output, and runs nowhere else."""
    path = calls[output].path
    runs = [call for call in calls if call.path == path]
    return path if isinstance(modules[path], _HEADS) and len(runs) == 1 else None


def _layer_calls(calls: Sequence[_Call], modules: Mapping[str, nn.Module]) -> dict[str, list[int]]:
    named: dict[str, list[int]] = {}
    for index, call in enumerate(calls):
        if call.function in LINEAR_CALLS and isinstance(modules[call.path], PATTERN_LAYERS):
            named.setdefault(call.path, []).append(index)
    return named


def _norm_of(
    calls: Sequence[_Call], modules: Mapping[str, nn.Module], indices: Sequence[int]
) -> str | None:
    """Return the BatchNorm that takes every output of a layer, and nothing else does."""
    users = [calls[index].users for index in indices]
    names = {calls[user].path for each in users for user in each}
    if len(names) != 1 or any(len(each) != 1 for each in users):
        return None
    name = names.pop()
    taken = set(chain.from_iterable(users))
    others = [i for i, call in enumerate(calls) if call.path == name and i not in taken]
    norm: Any = modules[name]
    if any(calls[index].function == "linear" and calls[index].axes > 2 for index in indices):
        return None  # axis 1, which BatchNorm scales, are tokens
    is_norm = isinstance(norm, _BATCH_NORMS) and norm.running_mean is not None
    return name if is_norm and not others else None


def _gate(calls: Sequence[_Call], starts: Iterable[int], output: int) -> Gate | None:
    found = set(_reached(calls, starts, output))
    if found <= {"relu"}:
        return "relu"
    return "leaky" if found <= {"relu", "leaky"} else None


def _reached(calls: Sequence[_Call], starts: Iterable[int], output: int) -> Iterator[str | None]:
    """Yield what values go to, behind everything that only moves them."""
    for start in starts:
        if start == output or not calls[start].users:
            yield None
        for user in calls[start].users:
            function = calls[user].function
            if function in KEEPING:
                yield from _reached(calls, [user], output)
            else:
                yield GATES.get(function)


def _tensors(value: Any) -> Iterator[Tensor]:  # noqa: ANN401
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for each in value:
            yield from _tensors(each)
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))
