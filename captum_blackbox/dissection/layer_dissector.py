"""Dissect the layers of a network: what each of their units stands for."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from captum.log import log_usage
from torch import Tensor, nn

from captum_blackbox.artifacts import check_header, fingerprint
from captum_blackbox.concepts.concepts import Concepts
from captum_blackbox.dissection.active_cells import ActiveCells
from captum_blackbox.dissection.dissecting import dissect_layers
from captum_blackbox.dissection.layer_run import rounded_down
from captum_blackbox.dissection.lit_pixels import lit_pixels
from captum_blackbox.dissection.options import Execution, Rotation, Settings
from captum_blackbox.dissection.reading import OnError
from captum_blackbox.dissection.replacing import check_units, checked_units
from captum_blackbox.dissection.result import Dissection
from captum_blackbox.dissection.rotation import fractional_rotation, random_rotation
from captum_blackbox.dissection.unit_maps import Preprocess, ReshapeTransform, UnitMaps
from captum_blackbox.dissection.upsampling import Axis
from captum_blackbox.errors import InputError
from captum_blackbox.hooks import Layers, find_layers, unwrapped
from captum_blackbox.shapes import check_images

Dissector = TypeVar("Dissector", bound="LayerDissector")


class LayerDissector:
    """What :class:`NetworkDissection` does without explaining a prediction.

    Args:
        model: The network.
        layer: One layer or several.
        settings: What decides the outcome.
        preprocess: See :class:`NetworkDissection`.
        reshape_transform: See :class:`NetworkDissection`.

    Attributes:
        model: The network, without wrappers.
        layers: Layer name → module.
        settings: What decides the outcome.
        results: Layer name → result, once there is one.
    """

    def __init__(
        self,
        model: nn.Module,
        layer: Layers,
        settings: Settings,
        preprocess: Preprocess | None = None,
        reshape_transform: ReshapeTransform | None = None,
    ) -> None:
        self.model = unwrapped(model)
        self.layers = find_layers(self.model, layer)
        self.settings = settings
        self.results: dict[str, Dissection] = {}
        self._gives_several = isinstance(layer, Sequence) and not isinstance(layer, str)
        self._preprocess, self._reshape_transform = preprocess, reshape_transform
        self._rotation: Rotation | None = None
        self._rotation_identity: Mapping[str, float] | None = None

    @log_usage(part_of_slo=True)
    def dissect(
        self,
        concepts: Concepts,
        *,
        batch_size: int = 32,
        num_workers: int = 0,
        on_error: OnError = "raise",
        memory_limit: int = 2 << 30,
        checkpoint: str | Path | None = None,
        checkpoint_every: int = 100,
        show_progress: bool = True,
    ) -> Any:  # noqa: ANN401 - a Dissection, or a dict of them for a list of layers
        """Find the concepts of all units, with one pass of the network over the images.

        Started by ``torchrun`` or ``accelerate launch``, each process reads its share of the
        batches, and all end with the same result; all of them have to call it. Memory beside the
        network's: ``memory_limit`` for the largest activations of the units (8 bytes × quantile ×
        cells of all maps) and as much for the cells that can still be above the threshold (up to 48
        bytes each); images whose cells do not fit are run through the network twice.

        Args:
            concepts: Images and what they show.
            batch_size: Images at a time.
            num_workers: Processes that read images and masks; 0 for none beside this one.
            on_error: What a broken file does: ``"raise"`` ends the run, ``"skip"`` leaves the image
                out, with a warning and in ``result.skipped``. An image whose masks are broken still
                counts for the thresholds.
            memory_limit: In bytes. If the exact thresholds of a layer need more, a sketch takes
                their place, with a warning.
            checkpoint: A folder to keep an unfinished run in; a run that was killed goes on from
                there. It is emptied when the result is there.
            checkpoint_every: Batches between two writings of it.
            show_progress: Show bars that count batches.

        Returns:
            The :class:`Dissection`; layer name → :class:`Dissection` if the layer was a list.

        Raises:
            LayerError: A layer puts out no maps, or its receptive fields are not known.
            DataError: An image or a mask is missing or broken; it is named.
            InputError: An activation is not finite; layer and unit are named.
            ArtifactError: The checkpoint belongs to another run; what differs is named.
        """
        if not isinstance(concepts, Concepts):
            raise InputError(
                f"expected Concepts, such as MaskConcepts(images, masks, names), got a "
                f"{type(concepts).__name__}"
            )
        execution = Execution(
            batch_size,
            num_workers,
            on_error,
            memory_limit,
            None if checkpoint is None else Path(checkpoint),
            checkpoint_every,
            show_progress,
        )
        self.results = dissect_layers(
            self._unit_maps(), concepts, self.settings, execution, self._identity()
        )
        return self.results if self._gives_several else self.result

    @property
    def result(self) -> Dissection:
        """The result of the only layer.

        Raises:
            InputError: There is none yet, or there are several layers.
        """
        layer = self.layer
        if layer not in self.results:
            raise InputError(
                f"layer {layer!r} is not dissected yet; call dissect(concepts), or use(result) "
                "with one that was saved"
            )
        return self.results[layer]

    def use(self: Dissector, result: Dissection) -> Dissector:
        """Take up a result that was kept, and return this object.

        How it was made, such as ``upsample``, comes with it; ``iou_threshold`` stays.

        Raises:
            ArtifactError: It is the result of another network, layer or rotation.
        """
        expected = {"layer": self.layer, **self._identity()}
        found = {**result.settings, "layers": [result.layer]}
        check_header("the result", found, {**expected, "layers": [self.layer]})
        made = Settings.from_json(result.settings)
        self.settings = replace(made, iou_threshold=self.settings.iou_threshold)
        self.results[result.layer] = result
        return self

    def rotate(self: Dissector, alpha: float = 1.0, seed: int = 0) -> Dissector:
        """Return a dissection of the same layers in a basis turned by a random rotation.

        The units are mixed by :math:`Q^{α}`, with :math:`Q` a random rotation: all that the network
        can tell apart is still told apart, but by directions that are no single units. If units
        stood for concepts only because everything can be read from a layer, as many concepts would
        be found.

        Args:
            alpha: How far to turn: 0 not at all, 1 to a random basis.
            seed: Of the rotation.

        References:
            Bau et al. 2017, sec. 3.2. The published code turns some planes the wrong way round, so
            that its end is no random rotation; ours takes the sign of each angle into account.
        """
        if not 0 <= alpha <= 1:
            raise InputError(f"alpha is between 0 and 1, got {alpha}")
        rotated = self.changed()
        rotated._rotation = partial(_turned, alpha=alpha, seed=seed)  # noqa: SLF001
        rotated._rotation_identity = {"alpha": float(alpha), "seed": seed}  # noqa: SLF001
        return rotated

    def changed(
        self: Dissector,
        model: nn.Module | None = None,
        **settings: Any,
    ) -> Dissector:
        """Return a dissection of the same layers with another network or other settings."""
        changed = copy.copy(self)
        changed.settings = replace(self.settings, **settings)
        changed.results = {}
        if model is not None:
            changed.model = unwrapped(model)
            changed.layers = find_layers(changed.model, list(self.layers))
        return changed

    def masks(self, inputs: Tensor, units: Sequence[int], size: tuple[int, int]) -> Tensor:
        """Return where units are active in images, ``(N, len(units), *size)`` bool.

        Args:
            inputs: Of the model, ``(N, C, H, W)``.
            units: Their numbers.
            size: Height and width of the masks.

        Raises:
            InputError: The layer is not dissected yet, or has no such unit.
        """
        check_images(inputs)
        chosen = checked_units(units)
        maps = self._unit_maps().of_inputs(inputs.clone())[self.layer]
        check_units(chosen, maps.shape[1], self.layer)
        maps = maps[:, chosen]
        axes = self._axes(inputs, maps, size)
        limits = rounded_down(self.result.thresholds[chosen], maps)
        masks = torch.zeros(len(inputs), len(chosen), size[0] * size[1], dtype=torch.bool)
        for lit in lit_pixels(ActiveCells.above(limits, maps), limits, *axes):
            masks[lit.images.cpu(), lit.units.cpu(), lit.pixels.cpu()] = True
        return masks.view(len(inputs), len(chosen), *size)

    @property
    def layer(self) -> str:
        """Name of the only layer."""
        if len(self.layers) > 1:
            raise InputError(
                f"this needs one layer, and there are {', '.join(map(repr, self.layers))}; make a "
                "NetworkDissection of the one you mean"
            )
        return next(iter(self.layers))

    @property
    def module(self) -> nn.Module:
        """The only layer."""
        return self.layers[self.layer]

    def _unit_maps(self) -> UnitMaps:
        return UnitMaps(
            self.model,
            self.layers,
            preprocess=self._preprocess,
            reshape_transform=self._reshape_transform,
            rotation=self._rotation,
        )

    def _as_units(self, output: Tensor) -> Tensor:
        unit_maps = self._unit_maps()
        return unit_maps.rotated(unit_maps.maps(self.layer, {self.layer: output}))

    def _axes(self, inputs: Tensor, maps: Tensor, pixels: tuple[int, int]) -> tuple[Axis, Axis]:
        return self._unit_maps().axes(self.layer, inputs, maps, pixels, self.settings.upsample)

    def _identity(self) -> dict[str, Any]:
        """Return what the units depend on."""
        return {
            "model": fingerprint(self.model),
            "layers": list(self.layers),
            "rotation": self._rotation_identity,
        }


@lru_cache(maxsize=8)  # the matrix of 2048 units takes half a minute and 32 MiB
def _turned(units: int, alpha: float, seed: int) -> Tensor:
    return fractional_rotation(random_rotation(units, seed), alpha)
