"""Watch a model run, then leave no trace on it: the only place that registers hooks."""

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, TypeAlias

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from captum_blackbox.errors import LayerError

Layers = Sequence[nn.Module | str] | nn.Module | str | None
"""Layers as modules or names; ``None`` stands for every ``Conv2d``."""

_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)

OutputHook: TypeAlias = Callable[[nn.Module, tuple[Any, ...], Any], Any]
"""Module, positional inputs and output → another output, or ``None`` to leave it."""

InputHook: TypeAlias = Callable[[nn.Module, tuple[Any, ...]], Any]
"""Module and positional inputs → other inputs, or ``None`` to leave them."""

CallHandler: TypeAlias = Callable[[str, Callable[..., Any], Sequence[Any], Mapping[str, Any]], Any]
"""Name of the running module, a function of torch and its arguments → what the function returns."""


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put ``model`` in evaluation mode and restore the flag of each module afterwards.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Dropout()).train()
        >>> _ = model[0].eval()
        >>> with evaluating(model):
        ...     print(any(module.training for module in model.modules()))
        False
        >>> [module.training for module in model.modules()]
        [True, False, True]
    """
    flags = {module: module.training for module in model.modules()}
    try:
        model.eval()
        yield
    finally:
        for module, training in flags.items():
            module.training = training


@contextmanager
def out_of_place(model: nn.Module) -> Iterator[None]:
    """Make the in-place activations of ``torch.nn`` write to new memory while the block runs.

    Without it, the ReLU behind a convolution overwrites the output that a hook kept.
    """
    changed: list[Any] = [
        module
        for module in model.modules()
        if type(module).__module__.startswith("torch.nn.")
        and getattr(module, "inplace", False) is True
    ]
    try:
        for module in changed:
            module.inplace = False
        yield
    finally:
        for module in changed:
            module.inplace = True


class Activations(dict[str, Tensor]):
    """Layer name → output, in the order in which the layers ran."""

    def __init__(self) -> None:
        super().__init__()
        self._versions: dict[str, int] = {}

    def keep(self, name: str, output: Tensor) -> None:
        """Take in the output of one layer."""
        self[name] = output
        self._versions[name] = output._version  # noqa: SLF001 - autograd counts writes here

    def overwritten(self) -> list[str]:
        """Return the layers whose output something wrote to after it was kept."""
        now = {name: output._version for name, output in self.items()}  # noqa: SLF001
        return [name for name, version in now.items() if version != self._versions[name]]


@contextmanager
def captured(layers: Mapping[str, nn.Module], *, copy: bool = False) -> Iterator[Activations]:
    """Collect what ``layers`` put out while the block runs, in the order in which they ran.

    The hooks are removed when the block ends, also when it raises.

    Args:
        layers: Name → module.
        copy: Hand a copy to the rest of the network, so that nothing can overwrite what is kept.

    Yields:
        Layer name → its output, still on the graph.

    Raises:
        LayerError: A layer ran twice, or its output is not a tensor.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
        >>> with captured({"0": model[0]}) as seen:
        ...     _ = model(torch.zeros(1, 2))
        >>> seen["0"].shape
        torch.Size([1, 3])
    """
    seen = Activations()
    with ExitStack() as handles:
        for name, module in layers.items():
            hook = partial(_keep, seen, name, copy)
            handles.enter_context(module.register_forward_hook(hook))
        yield seen


def _keep(
    seen: Activations,
    name: str,
    copy: bool,
    module: nn.Module,
    _inputs: object,
    output: object,
) -> Tensor | None:
    if not isinstance(output, Tensor):
        raise LayerError(
            f"layer {name!r} ({type(module).__name__}) puts out a {type(output).__name__}, not a "
            "tensor; choose a layer inside it"
        )
    if name in seen:
        raise LayerError(
            f"layer {name!r} ({type(module).__name__}) runs more than once in one forward pass, so "
            "it has no single activation; leave it out of `layers`"
        )
    seen.keep(name, output)
    return output.clone() if copy else None


def on_output(module: nn.Module, hook: OutputHook) -> RemovableHandle:
    """Pass each output of ``module`` to ``hook``, which may replace it; the caller removes it.

    Example:
        >>> import torch
        >>> module = nn.Identity()
        >>> handle = on_output(module, lambda module, inputs, output: 2 * output)
        >>> module(torch.ones(1))
        tensor([2.])
        >>> handle.remove()
    """
    return module.register_forward_hook(hook)


class Passes:
    """How many images went through some modules.

    Attributes:
        forward: Images of completed forward passes.
        backward: Images whose output a gradient was sent back from.
    """

    def __init__(self) -> None:
        self.forward = 0
        self.backward = 0


@contextmanager
def passes_counted(models: Sequence[nn.Module]) -> Iterator[Passes]:
    """Count the images that pass through modules while the block runs, and nothing else.

    A module that runs inside another of ``models`` is not counted a second time; an output that is
    no tensor is not counted at all.

    Example:
        >>> import torch
        >>> model = nn.Linear(2, 3)
        >>> images = torch.zeros(5, 2, requires_grad=True)
        >>> with passes_counted([model]) as passes:
        ...     _ = torch.autograd.grad(model(images)[:, 0].sum(), images)
        >>> passes.forward, passes.backward
        (5, 5)
    """
    passes, running = Passes(), []

    def enter(module: nn.Module, _inputs: object) -> None:
        running.append(module)

    def leave(_module: nn.Module, _inputs: object, output: object) -> None:
        running.pop()
        if running or not isinstance(output, Tensor) or output.dim() == 0:
            return
        passes.forward += len(output)
        if output.requires_grad:
            output.register_hook(sent_back)

    def sent_back(gradient: Tensor) -> None:
        passes.backward += len(gradient)

    with ExitStack() as handles:
        for model in dict.fromkeys(models):
            handles.enter_context(model.register_forward_pre_hook(enter))
            # always_call: also when the module raises.
            handles.enter_context(model.register_forward_hook(leave, always_call=True))
        yield passes


def on_input(module: nn.Module, hook: InputHook) -> RemovableHandle:
    """Pass what ``module`` gets to ``hook``, which may replace it; the caller removes it."""
    return module.register_forward_pre_hook(hook)


def on_gradient(tensor: Tensor, hook: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
    """Pass the gradient that arrives at ``tensor`` to ``hook``; the caller removes it.

    Example:
        >>> import torch
        >>> x = torch.ones(1, requires_grad=True)
        >>> handle = on_gradient(x, lambda gradient: 2 * gradient)
        >>> torch.autograd.grad(3 * x, x)
        (tensor([6.]),)
        >>> handle.remove()
    """
    handle: RemovableHandle = tensor.register_hook(hook)
    return handle


def intercept_calls(model: nn.Module, new_handler: Callable[[], CallHandler]) -> list[Any]:
    """Pass every function of torch that ``model`` calls to a handler; the caller removes it.

    The handler hears in which module a call was made, and calls the function itself. This is how
    operations are seen that no module stands for, such as the addition in a residual block.

    Args:
        model: The model; calls count while its own ``forward`` runs.
        new_handler: Makes a handler at the start of each forward pass.

    Example:
        >>> import torch
        >>> def new_handler():
        ...     def handle(path, function, args, kwargs):
        ...         print(repr(path), function.__name__)
        ...         return function(*args, **kwargs)
        ...     return handle
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
        >>> handles = intercept_calls(model, new_handler)
        >>> _ = model(torch.zeros(1, 2))
        '0' linear
        '1' relu
        >>> for handle in handles:
        ...     handle.remove()
    """
    calls = _Interceptions(new_handler)
    # always_call: also when the module raises.
    handles: list[Any] = [calls, model.register_forward_pre_hook(calls.start)]
    for name, module in model.named_modules():
        if module is not model:
            handles.append(module.register_forward_pre_hook(partial(calls.enter, name)))
            handles.append(module.register_forward_hook(calls.leave, always_call=True))
    handles.append(model.register_forward_hook(calls.end, always_call=True))
    return handles


@contextmanager
def intercepted(model: nn.Module, new_handler: Callable[[], CallHandler]) -> Iterator[None]:
    """Pass every function of torch that ``model`` calls in the block to a handler."""
    handles = intercept_calls(model, new_handler)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Interceptions:
    """The forward passes that run now, usually one."""

    def __init__(self, new_handler: Callable[[], CallHandler]) -> None:
        self._new_handler = new_handler
        self._running: list[_Interceptor] = []

    def start(self, _module: nn.Module, _inputs: object) -> None:
        self._running.append(_Interceptor(self._new_handler()))
        self._running[-1].__enter__()

    def end(self, _module: nn.Module, _inputs: object, _output: object) -> None:
        self._running.pop().__exit__(None, None, None)

    def remove(self) -> None:
        """End what an interrupt has left running: it reaches no hook."""
        while self._running:
            self._running.pop().__exit__(None, None, None)

    def enter(self, name: str, _module: nn.Module, _inputs: object) -> None:
        if self._running:
            self._running[-1].paths.append(name)

    def leave(self, _module: nn.Module, _inputs: object, _output: object) -> None:
        if self._running:
            self._running[-1].paths.pop()


class _Interceptor(TorchFunctionMode):
    def __init__(self, handle: CallHandler) -> None:
        super().__init__()
        self.handle = handle
        self.paths = [""]

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        return self.handle(self.paths[-1], func, args, kwargs or {})


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the module inside ``torch.compile`` and the wrappers for several devices.

    A compiled model ignores hooks that come later; ``DataParallel`` runs copies of the layers;
    ``DistributedDataParallel`` gives them other names.
    """
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, _WRAPPERS):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def first_parameter(model: nn.Module) -> Tensor:
    """Return the first parameter, whose device and dtype stand for those of the model.

    Raises:
        LayerError: It has none.
    """
    for parameter in model.parameters():
        return parameter
    raise LayerError(f"{type(model).__name__} has no parameters, and so no layer to explain")


def find_layers(model: nn.Module, layers: Layers) -> dict[str, nn.Module]:
    """Return name → module for layers given as modules, as names, or as ``None``.

    Args:
        model: The model that the layers belong to.
        layers: Modules or names as in ``model.named_modules()``; ``None`` for every ``Conv2d``.

    Raises:
        LayerError: A layer is not part of the model (the nearest names are offered), is named
            twice, or there is none.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
        >>> list(find_layers(model, None)), list(find_layers(model, "1"))
        (['0'], ['1'])
    """
    names = {module: name for name, module in model.named_modules()}
    if layers is None:
        found: dict[str, nn.Module] = {
            name: module for module, name in names.items() if isinstance(module, nn.Conv2d)
        }
        if not found:
            raise LayerError(
                f"{type(model).__name__} has no Conv2d layer; name the layers to explain"
            )
        return found
    wanted = [layers] if isinstance(layers, nn.Module | str) else list(layers)
    if not wanted:
        raise LayerError("`layers` is empty; name at least one, or None for every Conv2d")
    found = {}
    for layer in wanted:
        module = _by_name(model, layer) if isinstance(layer, str) else layer
        if module not in names:
            raise LayerError(f"{type(module).__name__} is not a layer of {type(model).__name__}")
        if names[module] in found:
            raise LayerError(f"layer {names[module]!r} is named twice in `layers`")
        found[names[module]] = module
    return found


def _by_name(model: nn.Module, name: str) -> nn.Module:
    modules: dict[str, nn.Module] = dict(model.named_modules(remove_duplicate=False))
    if name not in modules:
        known = [known for known in modules if known]
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.3) or known[:5]
        raise LayerError(
            f"{type(model).__name__} has no layer {name!r}; the nearest names are "
            + ", ".join(map(repr, near))
        )
    return modules[name]
