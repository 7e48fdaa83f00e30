"""The images that units like best, with where they are active."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from captum_blackbox.cli import results as files
from captum_blackbox.concepts import Concepts
from captum_blackbox.dissection import Dissection, NetworkDissection, Unit
from captum_blackbox.dissection.unit_maps import Preprocess
from captum_blackbox.hooks import first_parameter
from captum_blackbox.report import shown_name, unit_gallery_png

MOST_UNITS = 40
_IMAGES = 5  # of each unit
_ROWS = 10  # units in one file


def gallery_pictures(
    dissection: NetworkDissection, concepts: Concepts, prepare: Preprocess
) -> dict[int, tuple[Tensor, Tensor]]:
    """Return unit → its images ``(T, 3, H, W)`` and masks ``(T, H, W)``, of the best detectors.

    Args:
        dissection: Of one layer, with its result.
        concepts: Where the images are.
        prepare: Images in [0, 1] → what the network takes.
    """
    result, device = dissection.result, first_parameter(dissection.model).device
    pictures = {}
    detectors = result.detectors()[:MOST_UNITS]
    for unit in tqdm(detectors, desc="gallery", unit="unit", disable=not detectors):
        numbers = result.top_images[unit.unit, :_IMAGES].tolist()
        images = torch.stack([concepts.image(number) for number in numbers])
        masks = dissection.masks(prepare(images).to(device), [unit.unit], concepts.image_size)
        pictures[unit.unit] = images, masks[:, 0].cpu()
    return pictures


def write_galleries(
    folder: Path, stem: str, result: Dissection, pictures: Mapping[int, tuple[Tensor, Tensor]]
) -> dict[str, str]:
    """Write the images with titles, some units in each file; returns text → file name."""
    units = [unit for unit in result.detectors() if unit.unit in pictures]
    links = {}
    for start in range(0, len(units), _ROWS):
        rows = units[start : start + _ROWS]
        name = f"{stem}--gallery-{start // _ROWS + 1}.png"
        png = unit_gallery_png(
            torch.stack([pictures[unit.unit][0] for unit in rows]),
            torch.stack([pictures[unit.unit][1] for unit in rows]),
            [_title(unit) for unit in rows],
        )
        files.write_bytes(folder / name, png)
        links[f"Units {start + 1} to {start + len(rows)} of the gallery, as PNG"] = name
    return links


def _title(unit: Unit) -> str:
    concept = f"{shown_name(unit.label)} ({unit.category})"
    return f"unit {unit.unit} · {concept} · IoU {unit.iou:.3f}"
