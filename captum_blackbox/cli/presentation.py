"""The page of a run, and the pictures beside it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from captum_blackbox.cli import results as files
from captum_blackbox.cli.run import METHODS, REFERENCE, Explained, Subject, floor_of
from captum_blackbox.cli.teaching import MIN_FIDELITY
from captum_blackbox.report import (
    Difference,
    ExplainedImage,
    ExplanationPage,
    LayerResult,
    MethodResult,
    MethodSummary,
    StudentSummary,
    game_png,
    heat_png,
    layers_png,
    loss_png,
    overlay_png,
    picture_png,
    render,
)
from captum_blackbox.student import DistilledLayerSumGradCAM

_EVALUATED = {"validation": "on images held out from its training", "training": "in training"}


def write_everything(
    folder: Path,
    explainer: DistilledLayerSumGradCAM,
    explained: Explained,
    subject: Subject,
    *,
    title: str,
    lead: str,
    shown: int,
    skipped: Mapping[str, str],
    settings: Mapping[str, str],
    notes: tuple[str, ...] = (),
) -> Path:
    """Write the numbers, the curves, the pictures and the page; returns the page's path.

    Args:
        folder: Where.
        explainer: What the student is worth and what was asked.
        explained: Maps and curves.
        subject: The images.
        title: Of the page.
        lead: What was done, in plain words.
        shown: How many images the page shows.
        skipped: File → why it was left out.
        settings: What was run.
        notes: Warnings beyond the student's.
    """
    summary = files.summarise(
        explained,
        subject,
        report=explainer.report,
        queries=explainer.box.queries,
        skipped=skipped,
        settings=settings,
    )
    files.write_json(folder / files.RESULTS_FILE, summary)
    files.write_curves(folder / files.CURVES_FILE, explained, subject)
    figures = {
        "deletion": game_png(explained.deletion, "deletion"),
        "insertion": game_png(explained.insertion, "insertion"),
    } | _layer_figures(summary)
    for name, png in figures.items():
        files.write_bytes(folder / f"{name}.png", png)
    page = ExplanationPage(
        title=title,
        lead=lead,
        reference=REFERENCE if REFERENCE in explained.maps else None,
        images_judged=len(subject.names),
        queries=summary["queries"],
        object_area=summary["object_area"],
        methods=[_method(name, found) for name, found in summary["methods"].items()],
        deletion=figures["deletion"],
        insertion=figures["insertion"],
        images=[
            _image(folder, i, summary["images"][i], explained, subject)
            for i in range(min(shown, len(subject.names)))
        ],
        layers={_LAYER_FIGURES[name]: figures[name] for name in _LAYER_FIGURES if name in figures},
        student=_student(summary),
        notes=notes,
        skipped=summary["skipped"],
        settings={**summary["settings"], **summary["versions"]},
        links=_links(summary),
    )
    path = folder / files.PAGE_FILE
    files.write_text(path, render(page))
    return path


_LAYER_FIGURES = {
    "layer-shares": "Each layer's share of the summed map, mean over the images.",
    "layer-deletion": "Deletion AUC of each layer's map alone; a lower value means a more "
    "important layer.",
}


def _layer_figures(summary: Mapping[str, Any]) -> dict[str, bytes]:
    layers = summary["layers"]
    shares = {name: layer["share"] for name, layer in layers.items()}
    figures = {"layer-shares": layers_png(shares, "share of the sum")}
    alone = {name: layer["deletion"] for name, layer in layers.items()}
    if None not in alone.values():
        figures["layer-deletion"] = layers_png(alone, "deletion AUC alone")
    return figures


def _image(
    folder: Path, index: int, found: Mapping[str, Any], explained: Explained, subject: Subject
) -> ExplainedImage:
    picture, row = subject.pictures[index], slice(index, index + 1)
    stem = files.file_stem(index, found["name"])
    methods = []
    for name, numbers in found["methods"].items():
        overlay = overlay_png(picture, explained.maps[name][index], floor=floor_of(name))
        slug = next(key for key, shown in METHODS.items() if shown == name)
        files.write_bytes(folder / files.MAPS_FOLDER / f"{stem}--{slug}.png", overlay)
        methods.append(MethodResult(name, overlay, **numbers))
    return ExplainedImage(
        name=found["name"],
        picture=picture_png(picture),
        predicted=found["predicted"],
        probability=found["probability"],
        student_predicted=found["student_predicted"],
        truth=found["true"],
        methods=methods,
        deletion=game_png({k: v[row] for k, v in explained.deletion.items()}, "deletion"),
        insertion=game_png({k: v[row] for k, v in explained.insertion.items()}, "insertion"),
        layers=[
            LayerResult(name, heat_png(heat[index]), found["layers"][name])
            for name, heat in explained.layer_maps.items()
        ],
    )


def _method(name: str, found: Mapping[str, Any]) -> MethodSummary:
    return MethodSummary(
        name=name,
        deletion=found["deletion"],
        insertion=found["insertion"],
        deletion_difference=_difference(found["deletion_difference"]),
        insertion_difference=_difference(found["insertion_difference"]),
        object_share=found["object_share"],
    )


def _difference(found: Mapping[str, float] | None) -> Difference | None:
    return None if found is None else Difference(**found)


def _student(summary: Mapping[str, Any]) -> StudentSummary | None:
    report = summary["student"]
    if report is None:
        return None
    return StudentSummary(
        agreement=report["agreement"],
        kl=report["kl"],
        r2=report["r2"],
        evaluated_on=_EVALUATED[report["evaluated_on"]],
        min_fidelity=MIN_FIDELITY,
        loss=loss_png(report["loss_curve"]),
    )


def _links(summary: Mapping[str, Any]) -> dict[str, str]:
    links = {
        "All numbers of this page, as JSON": files.RESULTS_FILE,
        "Every point of every curve, as CSV": files.CURVES_FILE,
        "The maps, as PNG": f"{files.MAPS_FOLDER}/",
    }
    if summary["student"] is not None:
        links["The trained student, as safetensors"] = files.STUDENT_FILE
    return links
