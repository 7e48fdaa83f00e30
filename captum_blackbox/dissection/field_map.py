"""Which pixels of the image each cell of a layer sees, and where its centre lies."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from captum_blackbox._compat import format_additional_forward_args
from captum_blackbox.dissection import field_rules
from captum_blackbox.dissection.field_rules import Field, Map
from captum_blackbox.errors import LayerError
from captum_blackbox.hooks import captured, evaluating, find_layers, intercepted

_Traced: TypeAlias = Map | str
"""The fields of a tensor's cells, or why they are not known."""


def field_map(
    model: nn.Module,
    layer: str,
    image: Tensor,
    additional_forward_args: object = None,
) -> tuple[Field, Field]:
    """Return the receptive field of a layer's cells, seen in one forward pass of one image.

    Convolutions and pooling change the field by kernel, stride, padding and dilation; strided
    slices and paddings move it; everything else that keeps rows and columns passes it on. Of
    several inputs, such as the branches of a block, the largest field counts on each axis. What
    is the same for the whole image, such as the gates of squeeze-and-excitation, has no place and
    does not count. The fields are those of Bau, Zhou et al., "Network dissection", CVPR 2017.

    Args:
        model: The network; it is left as it was.
        layer: Name of a layer that puts out maps ``(1, units, h, w)``.
        image: A batch of one image ``(1, C, H, W)``.
        additional_forward_args: Passed to the model after the image.

    Returns:
        The field along the rows and along the columns.

    Raises:
        LayerError: The layer has no maps, or there is no rule for what lies before it: resizing,
            transposed convolution, attention, pooling to a fixed size that is none of windows.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 5, 2, 1), nn.ReLU(), nn.MaxPool2d(2))
        >>> field_map(model, "2", torch.zeros(1, 3, 21, 21))[0]
        Field(offset=-1, size=7, step=4)
    """
    module = find_layers(model, layer)[layer]
    additional = format_additional_forward_args(additional_forward_args) or ()
    with (
        torch.inference_mode(mode=False),  # which turns gradients on
        torch.no_grad(),
        evaluating(model),
        captured({layer: module}) as seen,
    ):
        image = image.clone()  # which the network may overwrite
        recorder = _Recorder(image)
        with intercepted(model, lambda: recorder):
            model(image, *additional)
    if layer not in seen:
        raise LayerError(
            f"layer {layer!r} ({type(module).__name__}) does not run; choose another one"
        )
    traced = recorder.found(seen[layer])
    if isinstance(traced, Map) and (seen[layer].dim(), traced.axes) != (4, (-2, -1)):
        traced = f"its output {tuple(seen[layer].shape)} is not (images, units, rows, columns)"
    if isinstance(traced, str):
        raise LayerError(
            f"the receptive field of layer {layer!r} ({type(module).__name__}) is not known: "
            f'{traced}; choose a layer before that, or upsample="resize"'
        )
    return traced.fields


def anchors(field: Field, cells: int, image_size: int, mask_size: int) -> Tensor:
    """Return where the centres of cells lie along an axis of the label grid.

    In pixels of the image cell ``i`` lies at ``size // 2 + offset + i * step``. On a grid that is
    smaller by a whole number ``r`` which divides the step, the centre of the first cell and the
    step are divided by ``r`` and rounded down, as in the published code: 227 → 113 and 224 → 112
    are ``r = 2``. On any other grid the true centre, half-way between first and last pixel of the
    field, is scaled with the centres of pixels at half-pixels: ``(c + 1/2) mask / image - 1/2``.

    Args:
        field: Of the cells.
        cells: How many there are.
        image_size: Pixels of the image along this axis.
        mask_size: Pixels of the label grid along it.

    Returns:
        ``(cells,)`` float64 in pixels of the grid, ascending; some may lie outside.

    Example:
        >>> anchors(Field(offset=-64, size=163, step=16), 13, 227, 113)[[0, 1, -1]]
        tensor([  8.,  16., 104.], dtype=torch.float64)
    """
    number = torch.arange(cells, dtype=torch.float64)
    r = image_size // mask_size
    if r and image_size // r == mask_size and field.step % r == 0:
        return (field.size // 2 + field.offset) // r + number * (field.step // r)
    centres = field.offset + (field.size - 1) / 2 + number * field.step
    return (centres + 0.5) * (mask_size / image_size) - 0.5


class _Recorder:
    """The fields of every tensor that comes from the image."""

    def __init__(self, image: Tensor) -> None:
        start = Field(0, 1, 1)
        # The tensors are kept, so that no id is used twice.
        self._known: dict[int, tuple[Tensor, _Traced]] = {
            id(image): (image, Map((-2, -1), (start, start)))
        }

    def found(self, output: Tensor) -> _Traced:
        nothing = "it does not come from the image by functions of torch that can be watched"
        return self._known.get(id(output), (output, nothing))[1]

    def __call__(
        self,
        path: str,
        function: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> Any:  # noqa: ANN401
        given = [self._known[id(each)] for each in _tensors((args, kwargs)) if self._has(each)]
        shapes = [tensor.shape for tensor, _ in given]  # before the function may change them
        result = function(*args, **kwargs)
        name = field_rules.plain_name(function)
        for made in _tensors(result) if given else ():
            place = f"{name} in {path!r}" if path else f"{name} in the model itself"
            sources = [(each, shape) for (_, each), shape in zip(given, shapes, strict=True)]
            self._known[id(made)] = made, _traced(name, place, sources, made, (args, kwargs))
        return result

    def _has(self, tensor: Tensor) -> bool:
        return id(tensor) in self._known


def _traced(
    name: str,
    place: str,
    sources: Sequence[tuple[_Traced, torch.Size]],
    made: Tensor,
    call: tuple[Sequence[Any], Mapping[str, Any]],
) -> _Traced:
    """Return the fields of one result of a call, or why it has none."""
    placed = [each for each in sources if _has_place(each[1], made)]
    unknown = [each for each, _ in placed if isinstance(each, str)]
    if unknown:
        return unknown[0]
    known = [(each, shape) for each, shape in placed if isinstance(each, Map)]
    rule = field_rules.RULES.get(name, field_rules.passed_on)
    found = [rule(each, shape, made.shape, *call) for each, shape in known]
    maps = [each for each in found if each is not None]
    if not maps or len(maps) != len(found):
        return f"{place} has no rule"
    if len({(each.axes, each.fields[0].step, each.fields[1].step) for each in maps}) > 1:
        return f"{place} puts together cells of different steps"
    rows, columns = (
        max((each.fields[axis] for each in maps), key=lambda field: field.size) for axis in (0, 1)
    )
    return Map(maps[0].axes, (rows, columns))


def _has_place(shape: torch.Size, made: Tensor) -> bool:
    """Return whether an input has rows or columns, instead of being spread over all of them."""
    is_spread = len(shape) < 2 or shape[-2:] == (1, 1)
    return not (is_spread and made.dim() >= 2 and made.shape[-2:] != (1, 1))


def _tensors(value: Any) -> list[Tensor]:  # noqa: ANN401
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, tuple | list):
        return [tensor for each in value for tensor in _tensors(each)]
    return []
