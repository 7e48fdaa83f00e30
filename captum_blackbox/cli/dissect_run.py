"""``captum-blackbox dissect``: the layers, what comes about by chance, and predictions."""

import functools
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from captum_blackbox.cli import results as files
from captum_blackbox.cli.dissect_concepts import SCENES, concepts_named, without_masks
from captum_blackbox.cli.dissect_explain import Explained, explained_images
from captum_blackbox.cli.dissect_kept import KeptDissections
from captum_blackbox.cli.dissect_layers import last_layer_with_maps
from captum_blackbox.cli.dissect_options import DissectOptions
from captum_blackbox.cli.dissect_presentation import write_pages
from captum_blackbox.cli.dissect_runs import dissected
from captum_blackbox.cli.messages import say
from captum_blackbox.cli.opened_model import OpenedModel, open_model
from captum_blackbox.cli.options import DEMO, ModelOptions, as_typed
from captum_blackbox.cli.subjects import need_demo, subject_of
from captum_blackbox.dissection import NetworkDissection
from captum_blackbox.dissection.unit_maps import Preprocess


def run_dissect(options: ModelOptions, dissect: DissectOptions, *, out: Path) -> None:
    """Dissect layers, explain images, write everything, and say where the page is."""
    files.check_folder(out)
    opened = open_model(options)
    if dissect.concepts is None:
        need_demo(opened.spec, "--concepts")
    size = opened.preparation.size
    explains = bool(dissect.explain) or opened.spec == DEMO
    concepts = concepts_named(
        dissect.concepts or SCENES,
        size=size,
        names=dissect.names,
        colors=dissect.colors,
    )
    prepare = opened.preparation.from_colour
    grey = torch.full((1, 3, size, size), 0.5)
    network = opened.network(prepare(grey), what="units", gives_scores=explains)
    layers = dissect.layer or [_last_layer(network, prepare(grey))]
    kept = KeptDissections(
        out, str(opened.preparation), dissect.batch_size, dissect.workers, dissect.on_error
    )
    of_network = functools.partial(_dissection, dissect, prepare)
    layers = list(of_network(network, layers).layers)  # refuses unknown ones before any work
    found = dissected(dissect, network, layers, concepts, of_network, prepare, kept)
    explained, skipped = _explained(opened, dissect, found.dissections[layers[-1]], explains)
    page = write_pages(
        out,
        found,
        explained,
        title=f"What the units of {opened.short_name} detect",
        skipped=skipped,
        settings={
            "command": "dissect",
            **as_typed(options, dissect),
            "--concepts": dissect.concepts or SCENES,
            "--layer": " ".join(layers),
            "images": f"{len(concepts)}, resized to {size} × {size} pixels",
            "preparation": str(opened.preparation),
            "device": str(opened.device),
        },
    )
    say(f"the page is {page.resolve()}")


def _last_layer(network: nn.Module, inputs: Tensor) -> str:
    layer = last_layer_with_maps(network, inputs)
    say(f"dissecting {layer!r}, the last layer that puts out maps; --layer takes another one")
    return layer


def _dissection(
    dissect: DissectOptions,
    prepare: Preprocess,
    network: nn.Module,
    layers: str | Sequence[str],
) -> NetworkDissection:
    return NetworkDissection(
        network,
        layers,
        quantile=dissect.quantile,
        level=dissect.level,
        iou_threshold=dissect.iou_threshold,
        upsample=dissect.upsample.value,
        presence=dissect.presence.value,
        preprocess=prepare,
    )


def _explained(
    opened: OpenedModel, dissect: DissectOptions, dissection: NetworkDissection, explains: bool
) -> tuple[list[Explained], dict[str, str]]:
    """Return what explains the images, and which files were skipped."""
    if not explains:
        return [], {}
    places = dissect.explain and without_masks(dissect.explain, dissect.concepts or SCENES)
    subject, skipped, _ = subject_of(opened, places, dissect.limit)
    say("explaining predictions")
    return explained_images(dissection, subject, opened.device), skipped
