"""The feature maps of layers: one for each unit and image."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch
from torch import Tensor, nn

from captum_blackbox.dissection.field_map import anchors, field_map
from captum_blackbox.dissection.options import Rotation, Upsample
from captum_blackbox.dissection.upsampling import Axis, anchored_axis, resized_axis, zero_grid_axis
from captum_blackbox.errors import LayerError
from captum_blackbox.hooks import captured, evaluating, out_of_place

Preprocess: TypeAlias = Callable[[Tensor], Tensor]
"""Images ``(N, 3, H, W)`` in [0, 1] → what the model takes."""

ReshapeTransform: TypeAlias = Callable[[Tensor], Tensor]
"""Output of a layer → maps ``(N, units, h, w)``, for layers that put out tokens."""


class UnitMaps:
    """Run a network on images and return the maps of some layers' units.

    The network runs in evaluation mode without gradients and is left as it was.

    Args:
        model: The network.
        layers: Name → module.
        preprocess: See :data:`Preprocess`.
        reshape_transform: See :data:`ReshapeTransform`.
        rotation: Number of units → the orthogonal matrix that mixes them, if one does.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        >>> UnitMaps(model, {"1": model[1]})(torch.rand(2, 3, 6, 6))["1"].shape
        torch.Size([2, 8, 4, 4])
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Mapping[str, nn.Module],
        *,
        preprocess: Preprocess | None = None,
        reshape_transform: ReshapeTransform | None = None,
        rotation: Rotation | None = None,
    ) -> None:
        self._model, self._layers = model, dict(layers)
        self._preprocess = preprocess
        self._reshape_transform = reshape_transform
        self._rotation = rotation

    def inputs(self, images: Tensor) -> Tensor:
        """Return what the model is given for images ``(N, 3, H, W)`` in [0, 1]."""
        place = next(self._model.parameters(), images)
        images = images.to(place.device)
        if self._preprocess is not None:
            images = self._preprocess(images)
        return images.to(place.dtype) if place.is_floating_point() else images

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Return layer name → maps ``(N, units, h, w)`` for images in [0, 1]."""
        return self.of_inputs(self.inputs(images))

    def of_inputs(self, inputs: Tensor) -> dict[str, Tensor]:
        """Return layer name → maps ``(N, units, h, w)``, float32 at least, for model inputs.

        Raises:
            LayerError: A layer did not run, or its output is no such maps.
        """
        with (
            torch.inference_mode(mode=False),  # which turns gradients on
            torch.no_grad(),
            evaluating(self._model),
            out_of_place(self._model),
            captured(self._layers, copy=True) as seen,
        ):
            self._model(inputs)
        return {name: self.rotated(self.maps(name, seen)) for name in self._layers}

    def axes(
        self, name: str, inputs: Tensor, maps: Tensor, pixels: tuple[int, int], upsample: Upsample
    ) -> tuple[Axis, Axis]:
        """Return how rows and columns of a layer's maps become those of ``pixels``.

        Args:
            name: Of the layer.
            inputs: Of the network, ``(N, C, H, W)``; the pixels cover the same image.
            maps: Of the layer, ``(N, units, h, w)``.
            pixels: Height and width to reach.
            upsample: See :data:`Upsample`.

        Raises:
            LayerError: The receptive fields are needed and not known.
        """
        cells = maps.shape[2], maps.shape[3]
        if upsample == "resize":
            rows, columns = map(resized_axis, cells, pixels)
            return rows, columns
        if self._reshape_transform is not None:
            raise LayerError(
                "with reshape_transform the receptive fields are not known; use upsample='resize'"
            )
        make = anchored_axis if upsample == "receptive_field" else zero_grid_axis
        fields = field_map(self._model, name, inputs[:1])
        rows, columns = (
            make(anchors(field, *sizes), sizes[2])
            for field, *sizes in zip(fields, cells, inputs.shape[2:], pixels, strict=True)
        )
        return rows, columns

    def maps(self, name: str, seen: Mapping[str, Tensor]) -> Tensor:
        """Return what a layer put out as maps.

        Raises:
            LayerError: It did not run, or put out something else.
        """
        if name not in seen:
            raise LayerError(f"layer {name!r} did not run in the model's forward pass")
        output = seen[name]
        if self._reshape_transform is not None:
            output = self._reshape_transform(output)
        if output.dim() != 4 or output.numel() == 0:
            raise LayerError(
                f"layer {name!r} gives {tuple(output.shape)}, expected maps (N, units, h, w); "
                "choose a layer before the pooling, or pass reshape_transform for tokens"
            )
        return output.float() if output.dtype.itemsize < 4 else output

    def rotated(self, maps: Tensor) -> Tensor:
        """Return maps whose units are mixed by the rotation, if there is one."""
        if self._rotation is None:
            return maps
        units = maps.shape[1]
        matrix = self._rotation(units).to(maps)
        return torch.einsum("uv,nvhw->nuhw", matrix, maps)
