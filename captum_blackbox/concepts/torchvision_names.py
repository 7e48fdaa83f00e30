"""What the values in the masks of torchvision's data sets are called."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from torch.utils.data import Subset

from captum_blackbox.errors import InputError

VOC_NAMES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
"""Of the values 0 to 20, as the development kit of VOC calls them; 255 is a border."""


class Target(NamedTuple):
    """One of the targets that a data set yields.

    Attributes:
        category: What its labels are.
        names: Value → name.
        ignored: Values that carry no label.
        place: Among the targets.
    """

    category: str
    names: dict[int, str]
    ignored: Collection[int] = ()
    place: int = 0


def unwrapped(dataset: Any) -> tuple[Any, list[int] | None]:  # noqa: ANN401 - any data set
    """Return the data set inside subsets, and which of its items they leave."""
    indices = None
    while isinstance(dataset, Subset):
        chosen = [int(index) for index in dataset.indices]
        indices = chosen if indices is None else [chosen[index] for index in indices]
        dataset = dataset.dataset
    return dataset, indices


def known_targets(dataset: Any, category: str) -> list[Target]:  # noqa: ANN401 - any data set
    """Return the targets of one of torchvision's data sets, none of another one's.

    Raises:
        InputError: The data set yields something else than masks.
    """
    from torchvision import datasets

    if isinstance(dataset, datasets.VOCSegmentation):
        return [Target(category, dict(enumerate(VOC_NAMES)), (255,))]
    if isinstance(dataset, datasets.SBDataset):
        _expect(dataset.mode == "segmentation", "SBDataset", 'mode="segmentation"')
        return [Target(category, dict(enumerate(VOC_NAMES)), (255,))]
    if isinstance(dataset, datasets.Cityscapes):
        return [_cityscapes(dataset, category)]
    if isinstance(dataset, datasets.OxfordIIITPet):
        return _pets(dataset, category)
    return []


def listed_files(dataset: Any) -> list[str]:  # noqa: ANN401 - any data set
    """Return the files that a data set has in lists, as torchvision's keep them."""
    lists = [value for value in vars(dataset).values() if isinstance(value, list | tuple)]
    return [path for value in lists for path in _paths(value) if Path(path).is_file()]


def _paths(value: Any) -> Iterator[str]:  # noqa: ANN401 - lists of lists of anything
    if isinstance(value, str | Path):
        yield str(value)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _paths(each)


def _cityscapes(dataset: Any, category: str) -> Target:  # noqa: ANN401 - torchvision has no types
    _expect("semantic" in dataset.target_type, "Cityscapes", 'target_type="semantic"')
    names = {each.id: each.name for each in dataset.classes if not each.ignore_in_eval}
    ignored = [each.id for each in dataset.classes if each.ignore_in_eval]
    return Target(category, names, [*ignored, 255], dataset.target_type.index("semantic"))


def _pets(dataset: Any, category: str) -> list[Target]:  # noqa: ANN401 - torchvision has no types
    kinds = vars(dataset)["_target_types"]  # the only place that knows their order
    _expect("segmentation" in kinds, "OxfordIIITPet", 'target_types="segmentation"')
    every = {
        "segmentation": Target(category, {1: "pet", 2: "background", 3: "border"}),
        "category": Target("breed", dict(enumerate(dataset.classes))),
        "binary-category": Target("species", dict(enumerate(dataset.bin_classes))),
    }
    return [every[kind]._replace(place=kinds.index(kind)) for kind in dict.fromkeys(kinds)]


def _expect(condition: bool, name: str, argument: str) -> None:
    if not condition:
        raise InputError(f"{name} yields no masks of classes; make it with {argument}")
