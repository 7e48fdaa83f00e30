"""What each function of torch does to the receptive field of cells."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias


@dataclass(frozen=True)
class Field:
    """The pixels that cells see along one axis: cell ``i`` sees ``size`` of them.

    They start at pixel ``offset + i * step``; an offset below 0 lies in the padding.

    Example:
        >>> Field(0, 1, 1).then(3, 2, padding=1).then(3, dilation=2)
        Field(offset=-1, size=11, step=2)
    """

    offset: int
    size: int
    step: int

    def then(self, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> "Field":
        """Return the field behind a window that slides over these cells."""
        return self.compose(Field(-padding, dilation * (kernel - 1) + 1, stride))

    def compose(self, behind: "Field") -> "Field":
        """Return the pixels that cells see which see these cells by ``behind``."""
        return Field(
            offset=behind.offset * self.step + self.offset,
            size=(behind.size - 1) * self.step + self.size,
            step=behind.step * self.step,
        )


@dataclass(frozen=True)
class Map:
    """Fields of the cells of a tensor.

    Attributes:
        axes: Which hold rows and columns, counted from the end.
        fields: Along the rows and along the columns.
    """

    axes: tuple[int, int]
    fields: tuple[Field, Field]

    def behind(self, rows: Field, columns: Field) -> "Map":
        """Return the map of cells that see these cells by two fields."""
        return Map(self.axes, (self.fields[0].compose(rows), self.fields[1].compose(columns)))


Rule: TypeAlias = Callable[
    [Map, Sequence[int], Sequence[int], Sequence[Any], Mapping[str, Any]], Map | None
]
"""Map and shape of an input, shape of the result, arguments → map of the result, if known."""

_HERE = Field(0, 1, 1)


def plain_name(function: Callable[..., Any]) -> str:
    """Return the name of a function of torch without underscores.

    Example:
        >>> import torch
        >>> plain_name(torch.relu_), plain_name(torch.Tensor.__getitem__)
        ('relu', 'getitem')
    """
    name = getattr(function, "__name__", type(function).__name__)
    if name == "__get__":  # of an attribute such as `Tensor.mT`
        name = getattr(getattr(function, "__self__", None), "__name__", name)
    return str(name).strip("_")


def passed_on(
    source: Map,
    shape: Sequence[int],
    result: Sequence[int],
    _args: Sequence[Any],
    _kwargs: Mapping[str, Any],
) -> Map | None:
    """Pass the map on where rows and columns stay where they are."""
    is_kept = len(shape) == len(result) and all(shape[axis] == result[axis] for axis in source.axes)
    return source if is_kept else None


def _window(*names: str) -> Rule:
    """Return the rule of a sliding window with arguments of these names."""

    def rule(
        source: Map,
        _shape: Sequence[int],
        _result: Sequence[int],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> Map | None:
        if source.axes != (-2, -1):
            return None
        given = dict(zip(names, args, strict=False)) | dict(kwargs)
        kernel = given["weight"].shape[-2:] if "weight" in given else _pair(given["kernel_size"])
        # Without a stride, windows of pooling lie side by side; a convolution has stride 1.
        stride = _pair(given.get("stride") or (1 if "weight" in given else kernel))
        dilation = _pair(given.get("dilation", 1))
        padding = _padding(given.get("padding", 0), kernel, dilation)
        rows, columns = (
            _HERE.then(*each) for each in zip(kernel, stride, padding, dilation, strict=True)
        )
        return source.behind(rows, columns)

    return rule


def _padding(given: Any, kernel: Sequence[int], dilation: Sequence[int]) -> Sequence[int]:  # noqa: ANN401
    if given == "same":  # of an odd number, the larger half comes behind
        return [d * (k - 1) // 2 for k, d in zip(kernel, dilation, strict=True)]
    return (0, 0) if given == "valid" else _pair(given)


def _adaptive(
    source: Map,
    shape: Sequence[int],
    result: Sequence[int],
    _args: Sequence[Any],
    _kwargs: Mapping[str, Any],
) -> Map | None:
    """Pooling to a fixed size, where that makes windows side by side; a single one is no map."""
    windows = []
    for axis in source.axes:
        kernel, rest = divmod(shape[axis], result[axis])
        if rest or (result[axis] == 1 and kernel > 1):
            return None
        windows.append(_HERE.then(kernel, kernel))
    return source.behind(*windows) if source.axes == (-2, -1) else None


def _sliced(
    source: Map,
    shape: Sequence[int],
    result: Sequence[int],
    args: Sequence[Any],
    _kwargs: Mapping[str, Any],
) -> Map | None:
    """Slices along any axis, which may leave out cells."""
    index = args[1] if isinstance(args[1], tuple) else (args[1],)
    if len(shape) != len(result) or not all(each is ... or type(each) is slice for each in index):
        return None
    if ... in index:
        dots = index.index(...)
        missing = len(shape) - len(index) + 1
        index = index[:dots] + (slice(None),) * missing + index[dots + 1 :]
    index += (slice(None),) * (len(shape) - len(index))
    taken = [index[axis].indices(shape[axis]) for axis in source.axes]
    return source.behind(*(Field(start, 1, step) for start, _, step in taken))


def _padded(
    source: Map,
    shape: Sequence[int],
    _result: Sequence[int],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> Map:
    amounts = args[1] if len(args) > 1 else kwargs["pad"]
    before = [0] * len(shape)
    for number, amount in enumerate(amounts[::2]):  # the last axis comes first
        before[-1 - number] = amount
    return source.behind(*(Field(-before[axis], 1, 1) for axis in source.axes))


def _permuted(
    source: Map,
    shape: Sequence[int],
    _result: Sequence[int],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> Map:
    given = args[1:] or (kwargs["dims"],)
    order = given[0] if isinstance(given[0], Sequence) else given
    return _moved(source, [axis % len(shape) for axis in order])


def _transposed(
    source: Map,
    shape: Sequence[int],
    _result: Sequence[int],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> Map:
    first, second = (axis % len(shape) for axis in (*args[1:], *kwargs.values()))
    order = list(range(len(shape)))
    order[first], order[second] = order[second], order[first]
    return _moved(source, order)


def _moved(source: Map, order: Sequence[int]) -> Map:
    rows, columns = (order.index(axis + len(order)) - len(order) for axis in source.axes)
    return Map((rows, columns), source.fields)


def _viewed(
    source: Map,
    shape: Sequence[int],
    result: Sequence[int],
    _args: Sequence[Any],
    _kwargs: Mapping[str, Any],
) -> Map | None:
    """Other axes before rows and columns, which stay the last two."""
    is_kept = source.axes == (-2, -1) and list(shape[-2:]) == list(result[-2:])
    return source if is_kept else None


def _linear(
    source: Map,
    shape: Sequence[int],
    result: Sequence[int],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> Map | None:
    """A linear layer of every cell, whose units are the last axis."""
    return None if -1 in source.axes else passed_on(source, shape, result, args, kwargs)


def _unknown(*_call: object) -> None:
    """Cells that see others of this layer by no sliding window."""


def _pair(value: Any) -> Sequence[int]:  # noqa: ANN401
    given = tuple(value) if isinstance(value, Sequence) else (value,)
    return given * 2 if len(given) == 1 else given


_POOL = _window("input", "kernel_size", "stride", "padding", "dilation")
_NO_WINDOW = """
    H T adjoint bmm conv_transpose2d convolution cumprod cumsum deform_conv2d einsum fft_fft
    fft_fft2 fft_fftn fft_ifft fft_ifft2 fft_ifftn flip fliplr flipud fold gather grid_sample
    index_select inner interpolate mH mT matmul mm moveaxis movedim multi_head_attention_forward
    pixel_shuffle pixel_unshuffle rmatmul roll rot90 scaled_dot_product_attention sort t
    take_along_dim tensordot unfold upsample upsample_bilinear upsample_nearest
"""

RULES: Mapping[str, Rule] = {
    "conv2d": _window("input", "weight", "bias", "stride", "padding", "dilation"),
    "max_pool2d": _POOL,
    "max_pool2d_with_indices": _POOL,
    "avg_pool2d": _window("input", "kernel_size", "stride", "padding"),
    "lp_pool2d": _window("input", "norm_type", "kernel_size", "stride"),
    "adaptive_avg_pool2d": _adaptive,
    "adaptive_max_pool2d": _adaptive,
    "adaptive_max_pool2d_with_indices": _adaptive,
    "getitem": _sliced,
    "pad": _padded,
    "permute": _permuted,
    **dict.fromkeys(["transpose", "swapaxes", "swapdims"], _transposed),
    **dict.fromkeys(["view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze"], _viewed),
    "linear": _linear,
    **dict.fromkeys(_NO_WINDOW.split(), _unknown),
}
"""The rule of a function that does not pass the map on."""
