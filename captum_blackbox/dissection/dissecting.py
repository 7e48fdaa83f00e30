"""A dissection from beginning to end: one pass of the network over the images."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from captum_blackbox.artifacts import tensor_bytes, versions
from captum_blackbox.concepts.concepts import Concepts
from captum_blackbox.dissection.broken import Broken
from captum_blackbox.dissection.checkpoint import Checkpoint
from captum_blackbox.dissection.layer_run import LayerRun
from captum_blackbox.dissection.options import Execution, Settings
from captum_blackbox.dissection.reading import ImageBatch, OnError, image_batches, label_batches
from captum_blackbox.dissection.result import Dissection
from captum_blackbox.dissection.tally import BatchLabels
from captum_blackbox.dissection.unit_maps import UnitMaps
from captum_blackbox.errors import DataError, InputError
from captum_blackbox.statistics import (
    failing_together,
    merge_across_processes,
    this_process,
)


def dissect_layers(
    unit_maps: UnitMaps,
    concepts: Concepts,
    settings: Settings,
    execution: Execution,
    identity: Mapping[str, Any],
) -> dict[str, Dissection]:
    """Return layer name → result.

    The network runs once over the images. Of its maps, only cells are kept that can still be above
    the final threshold, which a running lower bound tells; images whose cells are not kept (the
    first ones, while the bound is low, and what does not fit the memory) run again.

    Args:
        unit_maps: The network and its layers.
        concepts: What is asked.
        settings: What decides the outcome.
        execution: How it is carried out.
        identity: What else the outcome depends on, as JSON: of the result and the checkpoint.
    """
    inputs = unit_maps.inputs(_first_image(concepts, execution.on_error))
    example = unit_maps.of_inputs(inputs)
    layers = [
        LayerRun(
            name,
            maps,
            unit_maps.axes(name, inputs, maps, concepts.mask_size, settings.upsample),
            concepts,
            settings,
            execution.most_bytes // len(example),
        )
        for name, maps in example.items()
    ]
    identity = {
        **identity,
        **settings.to_json(),
        "versions": versions(),
        "data": concepts.digest(),
        "data_size": len(concepts),
        "image_size": concepts.image_size,
        "mask_size": concepts.mask_size,
        "inputs": _digest(inputs),
    }
    return _Run(unit_maps, concepts, layers, execution, identity).results()


def _first_image(concepts: Concepts, on_error: OnError) -> Tensor:
    """Return the first image that can be read, ``(1, 3, H, W)``."""
    for found in image_batches(concepts, [[n] for n in range(len(concepts))], on_error, 0):
        if len(found.images):
            return found.images
    raise InputError(f"none of the {len(concepts)} images can be read")


def _all_again(found: ImageBatch) -> Tensor:
    """Return images that could be read before; without one, labels would meet other images.

    Raises:
        DataError: One can no longer be read.
    """
    if found.broken:
        number, reason = next(iter(found.broken.items()))
        raise DataError(f"image {number} could be read before, and now it cannot: {reason}")
    return found.images


def _digest(inputs: Tensor) -> str:
    """Return a hash of what the network is given for one image: it knows the preparation."""
    digest = hashlib.sha256(f"{tuple(inputs.shape)} {inputs.dtype}".encode())
    digest.update(tensor_bytes(inputs))
    return digest.hexdigest()[:16]


class _Run:
    """Thresholds from the maps of all images, then masks against labels."""

    def __init__(
        self,
        unit_maps: UnitMaps,
        concepts: Concepts,
        layers: Sequence[LayerRun],
        execution: Execution,
        identity: Mapping[str, Any],
    ) -> None:
        self._unit_maps, self._concepts = unit_maps, concepts
        self._layers = layers
        self._execution, self._identity = execution, identity
        self._process = this_process()
        self._broken_images, self._broken_labels = Broken(len(concepts)), Broken(len(concepts))
        numbers = torch.arange(len(concepts)).split(execution.batch_size)
        self._batches = [batch.tolist() for batch in numbers[self._process[0] :: self._process[1]]]
        self._checkpoint = self._new_checkpoint()

    def _new_checkpoint(self) -> Checkpoint | None:
        if self._execution.checkpoint is None:
            return None
        header = {
            **self._identity,
            "kind": "dissection in the making",
            "batch_size": self._execution.batch_size,
            "on_error": self._execution.on_error,
        }
        return Checkpoint(
            self._execution.checkpoint, header, self._execution.checkpoint_every, self._process
        )

    def results(self) -> dict[str, Dissection]:
        """Carry the run out, or on where it stopped, and return layer name → result."""
        with failing_together():
            self._watch()
        self._merge_activations()
        for layer in self._layers:
            layer.set_thresholds()
        with failing_together():
            self._count()
        merge_across_processes({layer.name: layer.tally for layer in self._layers})
        merge_across_processes({"broken": self._broken_labels})
        if self._checkpoint is not None:
            self._checkpoint.remove()
        return {layer.name: self._result(layer) for layer in self._layers}

    def _watch(self) -> None:
        done = 0
        if self._checkpoint is not None:
            done = self._checkpoint.resume_activations(self._layers, self._broken_images)
        batches = self._images(range(done, len(self._batches)))
        for number, found in enumerate(self._shown(batches, "activations", done), done):
            self._broken_images.update(found.broken)
            if len(found.numbers):
                maps = self._unit_maps(found.images)
                for layer in self._layers:
                    layer.watch(number, maps[layer.name], found.numbers)
            self._keep_activations(number + 1)

    def _keep_activations(self, done: int) -> None:
        if self._checkpoint is not None:
            is_end = done == len(self._batches)
            self._checkpoint.save_activations(
                self._layers, self._broken_images, done, is_end=is_end
            )

    def _merge_activations(self) -> None:
        merge_across_processes({layer.name: layer.top for layer in self._layers})
        merge_across_processes({layer.name: layer.best for layer in self._layers})
        if self._process[1] > 1:
            for layer in self._layers:  # on one kind of device in all of them: to the same last bit
                layer.top.load_state({k: each.cpu() for k, each in layer.top.state().items()})
        merge_across_processes({"broken": self._broken_images})

    def _count(self) -> None:
        done = 0
        if self._checkpoint is not None:
            done = self._checkpoint.resume_counts(self._layers, self._broken_labels)
        todo = [number for number in range(done, len(self._batches)) if self._readable(number)]
        again = dict.fromkeys(
            n for n in todo if not all(layer.is_kept(n) for layer in self._layers)
        )
        images = self._images(again)
        labels = label_batches(
            self._concepts,
            [self._readable(number) for number in todo],
            self._execution.on_error,
            self._execution.workers,
        )
        for number, found in zip(todo, self._shown(labels, "concepts", done), strict=True):
            self._broken_labels.update(found.broken)
            maps: Mapping[str, Tensor] = {}
            if number in again:
                maps = self._unit_maps(_all_again(next(images)))
            self._count_batch(number, found.pixels, found.whole, maps)
            if self._checkpoint is not None:
                self._checkpoint.save_counts(self._layers, self._broken_labels, number + 1)

    def _count_batch(
        self, number: int, pixels: Tensor, whole: Tensor, maps: Mapping[str, Tensor]
    ) -> None:
        device = self._layers[0].tally.truth.device
        labels = BatchLabels.of(pixels.to(device), whole.to(device))
        for layer in self._layers:
            layer.count(number, labels, maps.get(layer.name))

    def _readable(self, batch: int) -> list[int]:
        flags = self._broken_images.flags
        return [number for number in self._batches[batch] if not flags[number]]

    def _images(self, batches: Iterable[int]) -> Iterator[ImageBatch]:
        # In the second pass what was broken in the first is not read again.
        return image_batches(
            self._concepts,
            [self._readable(number) for number in batches],
            self._execution.on_error,
            self._execution.workers,
        )

    def _shown(self, batches: Iterator[Any], what: str, done: int) -> Iterable[Any]:
        show = self._execution.show_progress and self._process[0] == 0
        shown: Iterable[Any] = tqdm(
            batches,
            total=len(self._batches),
            initial=done,
            desc=what,
            unit="batch",
            disable=not show,
        )
        return shown

    def _result(self, layer: LayerRun) -> Dissection:
        numbers, values = layer.best.compute()
        return Dissection(
            layer=layer.name,
            categories=self._concepts.categories,
            labels=self._concepts.labels,
            thresholds=layer.thresholds,
            intersection=layer.tally.intersection,
            activation=layer.tally.activation,
            truth=layer.tally.truth,
            top_images=numbers,
            top_activations=values,
            settings={
                **self._identity,
                "layer": layer.name,
                "map_size": layer.shape[1:],
                "threshold_method": layer.threshold_method,
                "images": len(self._concepts) - len(self._broken_images.numbers()),
            },
            skipped=self._broken_images.messages() + self._broken_labels.messages(),
        )
