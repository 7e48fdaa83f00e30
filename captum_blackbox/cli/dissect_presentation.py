"""The pages of ``dissect``, and the files beside them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from captum_blackbox.cli import results as files
from captum_blackbox.cli.dissect_comparisons import (
    chance_iou,
    count_rows,
    doubts,
    headline,
    write_comparisons,
    write_layers,
)
from captum_blackbox.cli.dissect_explain import Explained, Reason
from captum_blackbox.cli.dissect_gallery import gallery_pictures, write_galleries
from captum_blackbox.cli.dissect_kept import layer_stem
from captum_blackbox.cli.dissect_runs import Dissected
from captum_blackbox.dissection import Dissection
from captum_blackbox.report import (
    CategoryRow,
    ClassReason,
    DissectedImage,
    DissectionPage,
    UnitRow,
    category_colors,
    detector_bars_png,
    lit_png,
    overlay_png,
    picture_png,
    render_dissection,
    shown_name,
)

PAGE_FILE, EXPLANATIONS_FILE = "index.html", "explanations.json"
_EXPLANATION_LINKS = {
    "What all concepts add to the predictions, as JSON": EXPLANATIONS_FILE,
    "The maps, as PNG": f"{files.MAPS_FOLDER}/",
}
_ALL_CONCEPTS = "all concepts"


def write_pages(
    folder: Path,
    found: Dissected,
    explained: Sequence[Explained],
    *,
    title: str,
    skipped: Mapping[str, str],
    settings: Mapping[str, str],
) -> Path:
    """Write numbers, pictures and a page for each layer; returns the path of the last one's.

    Args:
        folder: Where.
        found: What was found.
        explained: Predictions that the last layer explains.
        title: Of the pages.
        skipped: File that was not explained → why.
        settings: What was run.
    """
    layers = list(found.results)
    pages = {layer: f"{layer_stem(layer)}.html" for layer in layers[:-1]}
    pages[layers[-1]] = PAGE_FILE
    compared = write_layers(folder, found)
    images = [_image(folder, i, each) for i, each in enumerate(explained)]
    if explained:
        content = {"format": 1, "images": [each.to_json() for each in explained]}
        files.write_json(folder / EXPLANATIONS_FILE, content)
    for layer in layers:
        page = _page(
            folder,
            layer,
            found,
            title=title,
            layers=compared,
            pages=pages,
            images=images if layer == layers[-1] else [],
            skipped=skipped,
            settings=settings,
        )
        files.write_text(folder / pages[layer], render_dissection(page))
    return folder / PAGE_FILE


def _page(
    folder: Path,
    layer: str,
    found: Dissected,
    *,
    title: str,
    layers: Mapping[str, bytes],
    pages: Mapping[str, str],
    images: Sequence[DissectedImage],
    skipped: Mapping[str, str],
    settings: Mapping[str, str],
) -> DissectionPage:
    result, stem = found.results[layer], layer_stem(layer)
    controls = count_rows(found.controls[layer])
    result.to_csv(folder / f"{stem}.csv")
    result.to_json(folder / f"{stem}.json")
    bars = detector_bars_png(result)
    files.write_bytes(folder / f"{stem}--bars.png", bars)
    pictures = gallery_pictures(found.dissections[layer], found.concepts, found.prepare)
    galleries = write_galleries(folder, stem, result, pictures)
    compared, links = write_comparisons(folder, layer, found)
    broken = {name: reason for name, _, reason in (each.partition(": ") for each in result.skipped)}
    return DissectionPage(
        title=title,
        lead=headline(layer, result, controls),
        layer=layer,
        images_seen=result.settings["images"],
        iou_threshold=result.settings["iou_threshold"],
        quantile=1 - found.dissections[layer].settings.threshold_level,
        asked=len(result.labels),
        count=controls[0],
        categories=_categories(result),
        bars=bars,
        controls=controls if len(controls) > 1 else [],
        layers=count_rows(found.results) if len(found.results) > 1 else [],
        pages=pages,
        figures={**layers, **compared},
        units=_units(result, pictures),
        images=images,
        chance_iou=chance_iou(found.controls[layer]),
        notes=[*found.notes, *doubts(result, controls)],
        skipped={**broken, **skipped},
        settings={**settings, **files.versions()},
        links={
            "All units, as CSV": f"{stem}.csv",
            "All units with thresholds and images, as JSON": f"{stem}.json",
            "The dissection, for Dissection.load": f"{stem}.safetensors",
            "The bars, as PNG": f"{stem}--bars.png",
            **galleries,
            **links,
            **(_EXPLANATION_LINKS if images else {}),
        },
    )


def _categories(result: Dissection) -> list[CategoryRow]:
    count = result.count()
    return [
        CategoryRow(
            category,
            color,
            sum(label.category == category for label in result.labels),
            {
                shown_name(label): len(units)
                for label, units in count.concepts.get(category, {}).items()
            },
        )
        for category, color in category_colors(result.categories).items()
    ]


def _units(result: Dissection, pictures: Mapping[int, tuple[Tensor, Tensor]]) -> list[UnitRow]:
    least = result.settings["iou_threshold"]
    return [
        UnitRow(
            unit.unit,
            shown_name(unit.label),
            unit.category,
            unit.iou,
            unit.iou > least,
            [lit_png(*each) for each in zip(*pictures.get(unit.unit, ((), ())), strict=True)],
        )
        for unit in sorted(result.units(), key=lambda unit: -unit.iou)
    ]


def _image(folder: Path, index: int, explained: Explained) -> DissectedImage:
    stem = f"{files.MAPS_FOLDER}/{files.file_stem(index, explained.name)}"
    return DissectedImage(
        explained.name,
        picture_png(explained.picture),
        explained.truth,
        [_reason(folder, stem, explained.picture, reason) for reason in explained.reasons],
    )


def _reason(folder: Path, stem: str, picture: Tensor, reason: Reason) -> ClassReason:
    explanation = reason.explanation
    kind = "predicted" if reason.is_predicted else "true"
    maps = {}
    for place, (concept, heat) in enumerate(reason.maps.items()):
        png = overlay_png(picture, heat)
        files.write_bytes(folder / f"{stem}--{kind}-{place}.png", png)
        name = shown_name(concept) or _ALL_CONCEPTS
        maps[concept if name in maps else name] = png  # a street may be an object and a scene
    return ClassReason(
        reason.class_name,
        reason.is_predicted,
        reason.probability,
        float(explanation.scores),
        bool(explanation.is_exact),
        reason.rows(),
        maps,
    )
