"""The result of a dissection: what was counted, and what follows from it."""

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from captum_blackbox.artifacts import (
    check_header,
    load_artifact,
    replaced_on_success,
    save_artifact,
)
from captum_blackbox.concepts.concepts import Label
from captum_blackbox.dissection.scoring import (
    best_categories,
    best_labels,
    intersection_over_union,
)
from captum_blackbox.dissection.unit_files import unit_as_json, write_units
from captum_blackbox.dissection.units import (
    Convention,
    DetectorCount,
    Score,
    Unit,
    count_detectors,
)
from captum_blackbox.errors import ArtifactError, InputError, ShapeError
from captum_blackbox.statistics import TopImages

_KIND = "dissection"
_COUNTED = ("intersection", "activation", "truth")
_OF_THE_DATA = ("images", "data", "data_size", "inputs")  # the first image differs too
_NEEDED = ("iou_threshold", "images", "data")
_TENSORS = ("thresholds", *_COUNTED, "top_images", "top_activations")


@dataclass(frozen=True, eq=False, repr=False)
class Dissection:
    """What each of the ``U`` units of a layer stands for, among ``L`` labels of ``K`` categories.

    Attributes:
        layer: Its name.
        categories: Their names; of two that a unit matches equally well, the later one wins.
        labels: Name and category of each label.
        thresholds: ``(U,)``; a unit is active where its activation is above its threshold.
        intersection: ``(U, L)`` int64: pixels that have the label and where the unit is active.
        activation: ``(U, K)`` int64: pixels where it is, on images that carry the category.
        truth: ``(L,)`` int64: pixels that have the label.
        top_images: ``(U, T)`` int64: the images on which each unit is most active, by number.
        top_activations: ``(U, T)``: its highest activation there, in descending order.
        settings: What the result depends on: JSON. There must be ``iou_threshold``, above which a
            unit detects a concept, ``images``, how many were seen, and ``data``, a hash of them;
            ``data_size`` counts the skipped ones too.
        skipped: Images that could not be read.

    Raises:
        ShapeError: A tensor does not fit the others, or counts are no int64.
        InputError: ``settings`` are no JSON or lack one of these, or a label's category is not
            among the categories.

    References:
        Bau, Zhou, Khosla, Oliva, Torralba, "Network Dissection: quantifying interpretability of
        deep visual representations", CVPR 2017, sec. 2.3, eq. 1; Zhou, Bau, Oliva, Torralba,
        "Interpreting deep visual representations via Network Dissection", TPAMI 2018.

    Example:
        >>> result = Dissection(
        ...     layer="conv5",
        ...     categories=("object", "color"),
        ...     labels=(Label("road", "object"), Label("red", "color")),
        ...     thresholds=torch.tensor([1.5]),
        ...     intersection=torch.tensor([[20, 1]]),
        ...     activation=torch.tensor([[40, 60]]),
        ...     truth=torch.tensor([30, 10]),
        ...     top_images=torch.tensor([[3, 0]]),
        ...     top_activations=torch.tensor([[2.5, 2.0]]),
        ...     settings={"iou_threshold": 0.04, "images": 4, "data": "d1"},
        ... )
        >>> result
        Dissection(layer='conv5', units=1, labels=2, images=4, detectors=1, unique_detectors=1,
        iou_threshold=0.04)
        >>> [(unit.label, unit.iou) for unit in result.units()]
        [('road', 0.4)]
    """

    layer: str
    categories: tuple[str, ...]
    labels: tuple[Label, ...]
    thresholds: Tensor
    intersection: Tensor
    activation: Tensor
    truth: Tensor
    top_images: Tensor
    top_activations: Tensor
    settings: Mapping[str, Any]
    skipped: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check that all parts fit, and keep them on the CPU and as JSON keeps them."""
        for name in _TENSORS:
            object.__setattr__(self, name, getattr(self, name).detach().cpu())
        _check_shapes(self)
        unknown = sorted({label.category for label in self.labels} - set(self.categories))
        if unknown:
            raise InputError(
                f"every label needs one of the categories {list(self.categories)}, got {unknown}"
            )
        try:
            settings = json.loads(json.dumps(dict(self.settings), allow_nan=False))
        except (TypeError, ValueError) as error:
            raise InputError(f"settings must be JSON to be kept: {error}") from error
        missing = [name for name in _NEEDED if name not in settings]
        if missing:
            raise InputError(f"settings lack {missing}, got {sorted(settings)}")
        object.__setattr__(self, "settings", settings)

    def __repr__(self) -> str:
        """Say in one line what was found."""
        count = self.count()
        return (
            f"Dissection(layer={self.layer!r}, units={count.units}, labels={len(self.labels)}, "
            f"images={self.settings['images']}, detectors={count.units_with_any}, "
            f"unique_detectors={count.total_unique}, iou_threshold={count.iou_threshold})"
        )

    @cached_property
    def iou(self) -> Tensor:
        """Intersection over union of each unit with each label, ``(U, L)`` float64.

        In [0, 1]; higher is better, and 0 for a unit that is never active.
        """
        return intersection_over_union(
            self.intersection, self.activation, self.truth, self._label_categories
        )

    def units(self) -> list[Unit]:
        """Return each unit with its concept, in the order of the units."""
        return list(self._units)

    def count(
        self, convention: Convention = "per_category", iou_threshold: float | None = None
    ) -> DetectorCount:
        """Count detectors; see :func:`~captum_blackbox.dissection.units.count_detectors`.

        Args:
            convention: In which categories a unit may detect a concept.
            iou_threshold: What an IoU must exceed; by default that of the settings.

        Raises:
            InputError: There is no such convention, or the threshold is no IoU below 1.
        """
        return count_detectors(self._units, self._threshold(iou_threshold), convention)

    def unique_detectors(self, convention: Convention = "per_category") -> int:
        """Return how many concepts some unit detects; higher is more interpretable.

        Raises:
            InputError: There is no such convention.
        """
        return self.count(convention).total_unique

    def detectors(self, iou_threshold: float | None = None) -> list[Unit]:
        """Return the units that detect the concept they match best, the highest IoU first."""
        least = self._threshold(iou_threshold)
        return sorted((each for each in self._units if each.iou > least), key=lambda u: -u.iou)

    def units_of(self, concept: str) -> list[int]:
        """Return the numbers of the units that detect a concept and match none better.

        Raises:
            InputError: There is no label of that name; the nearest are named.
        """
        names = {label.name for label in self.labels}
        if concept not in names:
            near = difflib.get_close_matches(concept, sorted(names))
            raise InputError(
                f"there is no concept {concept!r} among the {len(names)}"
                + (f"; did you mean {', '.join(map(repr, near))}?" if near else "")
            )
        return sorted(unit.unit for unit in self.detectors() if unit.label == concept)

    def merge(self, other: "Dissection") -> "Dissection":
        """Return the dissection of this one's images and ``other``'s together.

        Counts add up exactly, so that parts of the data may be dissected apart, by the same
        thresholds. ``other``'s images are numbered after this one's, as in
        :class:`torch.utils.data.ConcatDataset`.

        Raises:
            ArtifactError: Layer, labels, thresholds or settings differ, or both saw the same data.
        """
        _check_mergeable(self, other)
        ours, theirs = self.settings, other.settings
        size = _data_size(self)
        best = _top(self)
        best.merge(_top(other, size))
        numbers, values = best.compute()
        return replace(
            self,
            **{name: getattr(self, name) + getattr(other, name) for name in _COUNTED},
            top_images=numbers,
            top_activations=values,
            settings={
                **ours,
                "images": ours["images"] + theirs["images"],
                "data_size": size + _data_size(other),
                "data": f"{ours['data']}+{theirs['data']}",
            },
            skipped=self.skipped + other.skipped,
        )

    def to_csv(self, path: str | Path) -> None:
        """Write a row for each unit, in the columns that the authors published.

        :func:`~captum_blackbox.dissection.unit_files.write_units` describes them.

        Raises:
            ArtifactError: The file cannot be written.
        """
        write_units(path, self._units, self.categories)

    def to_json(self, path: str | Path) -> None:
        """Write settings, counts and all units, numbered from 0; what is not finite is null.

        Raises:
            ArtifactError: The file cannot be written.
        """
        units = [
            unit_as_json(unit, threshold=threshold, top_images=images, top_activations=heights)
            for unit, threshold, images, heights in zip(
                self._units,
                self.thresholds.tolist(),
                self.top_images.tolist(),
                self.top_activations.tolist(),
                strict=True,
            )
        ]
        table = {
            "layer": self.layer,
            "settings": self.settings,
            "skipped": self.skipped,
            "unique_detectors": self.count().unique,
            "units": units,
        }
        text = json.dumps(table, indent=1, allow_nan=False)
        with replaced_on_success(path) as temporary:
            temporary.write_text(text + "\n", "utf-8")

    def save(self, path: str | Path) -> None:
        """Keep everything in one file, for :meth:`load`.

        Raises:
            ArtifactError: The file cannot be written.
        """
        header = {
            "kind": _KIND,
            "layer": self.layer,
            "categories": self.categories,
            "labels": self.labels,
            "settings": self.settings,
            "skipped": self.skipped,
        }
        save_artifact(path, {name: getattr(self, name) for name in _TENSORS}, header)

    @classmethod
    def load(cls, path: str | Path) -> "Dissection":
        """Read what :meth:`save` kept.

        Raises:
            ArtifactError: There is no such file, or it holds no dissection.
        """
        tensors, header = load_artifact(path)
        check_header(path, header, {"kind": _KIND})
        try:
            return cls(
                layer=header["layer"],
                categories=tuple(header["categories"]),
                labels=tuple(Label(*label) for label in header["labels"]),
                settings=header["settings"],
                skipped=tuple(header["skipped"]),
                **{name: tensors[name] for name in _TENSORS},
            )
        except (KeyError, TypeError, InputError) as error:
            raise ArtifactError(f"{str(path)!r} holds no whole dissection: {error}") from error

    @cached_property
    def _units(self) -> list[Unit]:
        labels, scores = best_labels(self.iou, self._label_categories, len(self.categories))
        best = best_categories(scores).tolist()
        columns = labels.clamp(min=0)
        counts = torch.stack(
            [self.truth[columns], self.activation, self.intersection.gather(1, columns)], dim=2
        )
        counts[..., [0, 2]] *= (labels >= 0).unsqueeze(2)  # a category without a label
        names = [label.name for label in self.labels]
        return [
            Unit(
                number,
                self.categories[best[number]],
                {
                    category: Score(names[label] if label >= 0 else "", *pixels)
                    for category, label, pixels in zip(self.categories, *row, strict=True)
                },
            )
            for number, row in enumerate(zip(labels.tolist(), counts.tolist(), strict=True))
        ]

    @cached_property
    def _label_categories(self) -> Tensor:
        place = {category: position for position, category in enumerate(self.categories)}
        return torch.tensor([place[label.category] for label in self.labels])

    def _threshold(self, iou_threshold: float | None) -> float:
        return float(self.settings["iou_threshold"] if iou_threshold is None else iou_threshold)


def _check_shapes(result: Dissection) -> None:
    units, labels, categories = len(result.thresholds), len(result.labels), len(result.categories)
    top = result.top_images.shape[-1]
    expected = {
        "thresholds": (units,),
        "intersection": (units, labels),
        "activation": (units, categories),
        "truth": (labels,),
        "top_images": (units, top),
        "top_activations": (units, top),
    }
    for name, shape in expected.items():
        tensor: Tensor = getattr(result, name)
        counted = name in {*_COUNTED, "top_images"}
        if tuple(tensor.shape) != shape or (counted and tensor.dtype != torch.int64):
            raise ShapeError(
                f"expected {name} of {units} units, {labels} labels and {categories} categories as "
                f"{shape}{' int64' if counted else ''}, got {tuple(tensor.shape)} {tensor.dtype}"
            )


def _data_size(result: Dissection) -> int:
    return int(result.settings.get("data_size", result.settings["images"]))


def _top(result: Dissection, shift: int = 0) -> TopImages:
    """Return the images that each unit likes best, their numbers shifted."""
    top = TopImages(int(result.settings.get("top_images", result.top_images.shape[1])))
    top.load_state({"numbers": result.top_images + shift, "values": result.top_activations})
    return top


def _check_mergeable(one: Dissection, other: Dissection) -> None:
    def rest(result: Dissection) -> dict[str, Any]:
        return {key: each for key, each in result.settings.items() if key not in _OF_THE_DATA}

    differing = [
        name
        for name, same in (
            ("layer", one.layer == other.layer),
            ("labels", (one.categories, one.labels) == (other.categories, other.labels)),
            ("thresholds", torch.equal(one.thresholds, other.thresholds)),
            ("settings", rest(one) == rest(other)),
        )
        if not same
    ]
    if differing:
        raise ArtifactError(
            f"these dissections cannot be merged, they differ in {' and '.join(differing)}; "
            "dissect both parts with the same thresholds and settings"
        )
    both = {*one.settings["data"].split("+")} & {*other.settings["data"].split("+")}
    if both:
        raise ArtifactError(
            f"these dissections cannot be merged, both have counted the data {sorted(both)}"
        )
