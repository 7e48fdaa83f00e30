"""What something is, in words and hashes that are the same in every process."""

import functools
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from types import CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
from captum.attr import Attribution
from torch import Tensor, nn

from captum_blackbox.artifacts import fingerprint, tensor_bytes
from captum_blackbox.black_box import BlackBox
from captum_blackbox.hooks import unwrapped

# Their code is known by its name; other code by what it does.
_LIBRARIES = frozenset(
    {"abc", "builtins", "captum", "captum_blackbox", "torch", "typing", "zennit"}
)
# They put a function around each, which does the same and checks types.
_CHECKERS = frozenset({"beartype", "jaxtyping", "typeguard"})
# What a run leaves behind in an attribution or a composite, which says nothing of what it is.
_LEFT_BEHIND = frozenset({
    "_checked", "_is_output_shape_valid", "_passed", "_rules", "_state", "_warned_of_disagreement",
    "backward_handles", "backward_hooks", "forward_handles", "handles", "hook_refs", "report",
    "stored_tensors", "tensor_handles",
})  # fmt: skip
_DEEPEST = 12
# Of a class; other attributes of it are its methods.
_VALUES = (str, bool, int, float, Tensor, tuple, list, dict, set, frozenset)


def describe(value: Any, network: nn.Module) -> Any:  # noqa: ANN401 - settings are anything
    """Return what tells a setting of an attack from another one, as JSON knows it.

    A module of the network is its name there, another one its fingerprint; tensors and arrays are
    hashes of their values; a function is its name, a hash of its code and what it encloses, without
    what checkers of types put around it; a class is its name, a hash of its code and its
    attributes; other objects are their type and, in the same way, their attributes. What has no
    attributes that could be seen is just its type.

    Args:
        value: The setting.
        network: The module that is explained.

    Example:
        >>> model = nn.Sequential(nn.ReLU(), nn.Linear(2, 2))
        >>> describe({"layer": model[1], "whole": model, "n": (1, None)}, model)
        {'layer': 'layer 1', 'whole': 'the network', 'n': [1, None]}
    """
    names = {id(module): f"layer {name}" for name, module in network.named_modules()}
    names[id(network)] = "the network"
    return _Description(names).of(value)


def digest_of(tensor: Tensor) -> str:
    """Return a hash of the values, shape and dtype of a tensor."""
    digest = hashlib.sha256(f"{tuple(tensor.shape)} {tensor.dtype}\n".encode())
    digest.update(tensor_bytes(tensor))
    return digest.hexdigest()[:32]


class _Description:
    """Describes values that may hold each other."""

    def __init__(self, names: Mapping[int, str]) -> None:
        self._names = names
        self._open: list[int] = []

    def of(self, value: Any) -> Any:  # noqa: ANN401
        """Return the description of a value."""
        if value is None or isinstance(value, str | bool | int):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else str(value)
        if id(value) in self._open or len(self._open) > _DEEPEST:
            return _name(type(value))
        self._open.append(id(value))
        try:
            return next(describer(self, value) for kind, describer in _KINDS if kind(value))
        finally:
            self._open.pop()

    def module(self, value: nn.Module) -> Any:  # noqa: ANN401
        """Return its name in the network, or what it is."""
        inner = unwrapped(value)
        known = self._names.get(id(value)) or self._names.get(id(inner))
        return known or {"type": self.named(type(inner)), "fingerprint": fingerprint(inner)}

    def mapping(self, value: Mapping[Any, Any]) -> Any:  # noqa: ANN401
        """Return its entries; a hash of all of them where they are tensors."""
        if value and all(isinstance(each, Tensor) for each in value.values()):
            parts = "".join(f"{key} {digest_of(each)}\n" for key, each in value.items())
            return hashlib.sha256(parts.encode()).hexdigest()[:32]
        return {str(key): self.of(each) for key, each in value.items()}

    def several(self, value: Any) -> Any:  # noqa: ANN401
        """Return the elements, of a set in an order that is always the same."""
        found = [self.of(each) for each in value]
        return found if isinstance(value, tuple | list) else sorted(found, key=str)

    def function(self, value: FunctionType) -> Any:  # noqa: ANN401
        """Return its name and code, with what it encloses and its defaults, if any."""
        value = _as_written(value)
        name = f"{value.__module__}.{value.__qualname__}"
        if not _is_of_library(value):
            name = f"{name} {_code_hash([value.__code__])}"
        kept = self.kept_by(value)
        return {"function": name, **kept} if kept else name

    def kept_by(self, value: FunctionType) -> dict[str, Any]:
        """Return what a function encloses and its defaults, without what there is none of."""
        kept = {
            "encloses": [self.of(each) for each in _enclosed(value)],
            "defaults": self.of(value.__defaults__),
            "keyword defaults": self.of(value.__kwdefaults__),
        }
        return {key: each for key, each in kept.items() if each}

    def method(self, value: MethodType) -> Any:  # noqa: ANN401
        """Return the function and whose it is."""
        return {"function": self.of(value.__func__), "of": self.of(value.__self__)}

    def partial(self, value: "functools.partial[Any]") -> Any:  # noqa: ANN401
        """Return the function and its arguments."""
        keywords = self.of(value.keywords)
        return {"function": self.of(value.func), "args": self.of(value.args), "keywords": keywords}

    def box(self, value: BlackBox) -> Any:  # noqa: ANN401
        """Return what answers, and how; not how often it was asked."""
        answers = {name: getattr(value, name) for name in ("fn", "output", "preprocess")}
        return {"type": _name(type(value)), **self.mapping(answers)}

    def instance(self, value: Any) -> Any:  # noqa: ANN401
        """Return the type and the attributes, those of one's own classes too."""
        kind = type(value)
        is_tool = _is_of_library(kind) or isinstance(value, Attribution)
        left = _LEFT_BEHIND if is_tool else frozenset()
        known = {key: each for key, each in vars(value).items() if key not in left}
        return {
            "type": self.named(kind),
            **{key: self.of(each) for key, each in {**_shared(kind), **known}.items()},
        }

    def kind(self, value: type) -> Any:  # noqa: ANN401
        """Return the name of a class, with its code, and its attributes, if any."""
        shared = {key: self.of(each) for key, each in _shared(value).items()}
        return {"type": self.named(value), **shared} if shared else self.named(value)

    def named(self, value: Any) -> str:  # noqa: ANN401
        """Return the name of a class, with its code, or of a function not written in Python."""
        own = _own(value) if isinstance(value, type) else []
        functions = [function for each in own for function in _functions(each)]
        kept = [self.kept_by(each) for each in functions]
        codes: list[Any] = [each.__code__ for each in functions]
        codes += [json.dumps(kept, sort_keys=True)] if any(kept) else []
        return f"{_name(value)} {_code_hash(codes)}" if codes else _name(value)

    def unknown(self, value: Any) -> str:  # noqa: ANN401
        """Return the type."""
        return _name(type(value))


_KINDS: tuple[tuple[Callable[[Any], bool], Callable[[_Description, Any], Any]], ...] = (
    (lambda value: isinstance(value, nn.Module), _Description.module),
    (lambda value: isinstance(value, Tensor), lambda _, value: digest_of(value)),
    (
        lambda value: isinstance(value, np.ndarray) and value.dtype != object,
        lambda _, value: hashlib.sha256(
            f"{value.shape} {value.dtype}\n".encode() + value.tobytes()
        ).hexdigest()[:32],
    ),
    (lambda value: type(value).__module__ in {"torch", "numpy"}, lambda _, value: str(value)),
    (lambda value: isinstance(value, tuple | list | set | frozenset), _Description.several),
    (lambda value: isinstance(value, dict), _Description.mapping),
    (lambda value: isinstance(value, functools.partial), _Description.partial),
    (lambda value: isinstance(value, FunctionType), _Description.function),
    (lambda value: isinstance(value, MethodType), _Description.method),
    (lambda value: isinstance(value, BlackBox), _Description.box),
    (lambda value: isinstance(value, type), _Description.kind),
    (lambda value: hasattr(value, "__qualname__"), _Description.named),
    (lambda value: hasattr(value, "__dict__"), _Description.instance),
    (lambda value: isinstance(value, Mapping), _Description.mapping),
    (lambda _: True, _Description.unknown),
)
"""Whether a value is of a kind → what describes it; the first that fits counts."""


def _name(named: Any) -> str:  # noqa: ANN401
    return f"{named.__module__}.{named.__qualname__}"


def _is_of_library(named: Any) -> bool:  # noqa: ANN401
    return str(named.__module__).split(".")[0] in _LIBRARIES


def _as_written(function: FunctionType) -> FunctionType:
    """Return a function without what checkers of types have put around it."""
    inner = getattr(function, "__wrapped__", None)
    while isinstance(inner, FunctionType) and _is_checker(function):
        function, inner = inner, getattr(inner, "__wrapped__", None)
    return function


def _is_checker(function: FunctionType) -> bool:
    home = str(function.__globals__.get("__name__"))  # __module__ is that of what it wraps
    is_generated = function.__code__.co_filename.startswith("<@beartype(")
    return is_generated or home.split(".")[0] in _CHECKERS


def _own(kind: type) -> list[type]:
    """Return a class and its bases, without those of libraries."""
    return [each for each in kind.__mro__ if not _is_of_library(each)]


def _enclosed(function: FunctionType) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not filled yet
            yield None


def _shared(kind: type) -> dict[str, Any]:
    """Return what one's own classes keep for all of their objects."""
    return {
        name: each
        for base in reversed(_own(kind))
        for name, each in vars(base).items()
        if isinstance(each, _VALUES) and not (name[0] == name[-1] == "_")  # those are Python's
    }


def _functions(kind: type) -> list[FunctionType]:
    """Return the methods of a class."""
    found = []
    for _, each in sorted(vars(kind).items(), key=lambda item: item[0]):
        inner = each.fget if isinstance(each, property) else getattr(each, "__func__", each)
        if isinstance(inner, FunctionType):
            found.append(_as_written(inner))
    return found


def _code_hash(codes: list[Any]) -> str:
    digest = hashlib.sha256()
    for code in codes:
        _feed(digest.update, code)
    return digest.hexdigest()[:16]


def _feed(update: Callable[[bytes], None], constant: Any) -> None:  # noqa: ANN401
    """Hash what a function does: without its place in a file, or an address in memory."""
    if isinstance(constant, CodeType):
        update(constant.co_code)
        update(repr(constant.co_names).encode())
        for each in constant.co_consts:
            _feed(update, each)
    elif isinstance(constant, frozenset):
        update(repr(sorted(map(repr, constant))).encode())
    else:
        update(f"{constant!r};".encode())
