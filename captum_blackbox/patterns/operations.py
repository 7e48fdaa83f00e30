"""What the functions of torch mean to a method that knows linear layers and ReLU."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from captum_blackbox.patterns.structure import Gate


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


LINEAR_CALLS = _names(
    "linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d"
)
"""What the layers with patterns call."""

GATES: Mapping[str, Gate] = {
    "relu": "relu",
    "relu6": "relu",
    "leaky_relu": "leaky",
    "prelu": "leaky",
    "rrelu": "leaky",
}
"""Activations whose gradient is the rule."""

REFUSED = _names(
    """
    celu clamp clamp_max clamp_min clip cos elu erf exp expm1 gelu glu gumbel_softmax hardshrink
    gru hardsigmoid hardswish hardtanh log log1p log_softmax logsigmoid lstm mish
    multi_head_attention_forward pow reciprocal rnn_tanh rsqrt rtruediv
    scaled_dot_product_attention selu sigmoid silu sin softmax softmin softplus softshrink softsign
    sqrt square tanh tanhshrink threshold
    """
)
"""Activations without a rule."""

KEEPING = _names(
    """
    adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d alpha_dropout cat channel_shuffle
    chunk clone concat concatenate constant_pad_nd contiguous double dropout dropout1d
    dropout2d dropout3d expand expand_as feature_dropout flatten flip float get getitem half
    max_pool1d max_pool2d max_pool3d moveaxis movedim narrow pad permute pixel_shuffle
    pixel_unshuffle repeat reshape roll rot90 select setitem split squeeze stack swapaxes t
    tensor_split to transpose type type_as unbind unflatten unsafe_chunk unsqueeze view view_as
    """
)
"""They move values or choose among them, and mix none of different units."""

PRODUCTS = _names("div idiv imul itruediv mul multiply rmul true_divide truediv")
"""Linear in one activation; of two it is a product, and by a tensor a layer of its own."""

LINEAR = _names(
    """
    adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d add amax avg_pool1d avg_pool2d
    avg_pool3d batch_norm cumsum fold gather iadd index_select input interpolate isub
    local_response_norm masked_fill max mean nansum neg negative radd rsub sub subtract sum unfold
    upsample
    """
)
"""Everything else through which the gradient is the rule."""

CONSTANT = _names("argmax eq ge gt le len lt ne new_ones new_zeros ones_like zeros_like")
"""They give numbers that no gradient passes."""

KNOWN = LINEAR_CALLS | KEEPING | PRODUCTS | LINEAR | CONSTANT | frozenset(GATES)
"""All that has a rule."""


def plain_name(
    function: Callable[..., Any], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
) -> str:
    """Return the name of a function of torch without underscores.

    Example:
        >>> import torch
        >>> plain_name(torch.relu_), plain_name(Tensor.__iadd__)
        ('relu', 'iadd')
        >>> plain_name(torch.clamp, [torch.ones(1)], {"min": 0})
        'relu6'
    """
    name = getattr(function, "__name__", type(function).__name__).strip("_")
    lowest_is = {"hardtanh": "min_val", "clamp": "min", "clip": "min", "clamp_min": "min"}
    if name in lowest_is:
        lowest = args[1] if len(args) > 1 else (kwargs or {}).get(lowest_is[name])
        is_gate = isinstance(lowest, int | float) and lowest == 0
        return "relu6" if is_gate else name
    return name


def is_sum(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Return whether a call adds two tensors of one shape, such as two branches of a block.

    How many samples they have does not count, so that the answer is the same for every batch.

    Example:
        >>> import torch
        >>> is_sum(torch.add, [torch.ones(1, 2), torch.ones(1, 2)], {})
        True
        >>> is_sum(torch.add, [torch.ones(1, 2), 3.0], {})
        False
    """
    return (
        plain_name(function) in {"add", "iadd", "radd"}
        and len(args) == 2
        and not kwargs
        and all(isinstance(each, Tensor) and each.is_floating_point() for each in args)
        and args[0].dim() == args[1].dim() > 1
        and args[0].shape[1:] == args[1].shape[1:]
    )
