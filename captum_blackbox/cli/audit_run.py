"""``captum-blackbox audit``: the model and its images, judged and written."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from captum_blackbox.audit import BUDGETS, AuditImages, run_audit
from captum_blackbox.audit.choosing import chosen_methods
from captum_blackbox.cli import results as files
from captum_blackbox.cli.audit_options import AuditOptions, names_in
from captum_blackbox.cli.dissect_concepts import concepts_named
from captum_blackbox.cli.dissect_layers import last_layer_with_maps
from captum_blackbox.cli.images import load_images
from captum_blackbox.cli.messages import say
from captum_blackbox.cli.opened_model import OpenedModel, open_model
from captum_blackbox.cli.options import DEMO, ModelOptions, as_typed
from captum_blackbox.cli.question import identity_of, question_of
from captum_blackbox.cli.run import Subject
from captum_blackbox.cli.subjects import FITTED_SEED, subject_of
from captum_blackbox.concepts import Concepts, Scenes
from captum_blackbox.dissection import NetworkDissection
from captum_blackbox.errors import InputError

_DEMO_CONCEPTS = "scenes:200"
_DEMO_FITTED = 300
_SMALL = 96  # pixels, up to which eight images are held at a time


def run_audit_command(
    options: ModelOptions,
    audit: AuditOptions,
    *,
    images: Sequence[Path] | None,
    limit: int,
    out: Path,
) -> None:
    """Judge explanations, write everything, and say where the page is."""
    methods = None if audit.methods is None else names_in(audit.methods, "--methods")
    if methods is not None:
        chosen_methods(methods)  # before anything is read
    files.check_folder(out)
    opened = open_model(options)
    subject, skipped, left = subject_of(opened, images, limit)
    data, more = _data(opened, images, audit.fit_images)
    dissection, concepts = _concepts(opened, audit, subject)
    budget = BUDGETS[audit.budget.value]
    spends: dict[str, Any] = {"queries": audit.queries, "epochs": audit.epochs}
    budget = replace(budget, **{key: each for key, each in spends.items() if each is not None})
    function = opened.function
    say(f"judging {len(subject.names)} images")
    found = run_audit(
        function if isinstance(function, nn.Module) else question_of(opened, options, out).box,
        _images(opened, subject),
        out,
        methods=methods,
        budget=budget,
        data=data,
        dissection=dissection,
        concepts=concepts,
        student=audit.student,
        output=options.output_kind.value,
        identity=identity_of(options),
        batch_size=8 if opened.preparation.size <= _SMALL else 4,
        seed=audit.seed,
    )
    opened.check_classes(found.place.num_classes)
    page = found.write(
        out,
        title=f"How far can explanations of {opened.short_name} be trusted?",
        skipped={**skipped, **more},
        settings={
            "command": "audit",
            **as_typed(options, audit, images=images, limit=limit),
            "images": f"{len(subject.names)} judged, {left} left out",
            "preparation": str(opened.preparation),
            "device": str(opened.device),
        },
    )
    say(f"the page is {page.resolve()}")


def _images(opened: OpenedModel, subject: Subject) -> AuditImages:
    preparation = opened.preparation
    return AuditImages(
        subject.inputs,
        preparation.mean,
        preparation.std,
        subject.names,
        subject.class_names,
        subject.truth,
        subject.objects,
    )


def _data(
    opened: OpenedModel, images: Sequence[Path] | None, fit_images: Sequence[Path] | None
) -> tuple[Tensor | None, dict[str, str]]:
    """Return images to fit to, if there are any but those explained, and what was skipped."""
    if fit_images:
        loaded = load_images(fit_images, opened.preparation)
        loaded.report_skipped()
        return loaded.inputs, loaded.skipped
    if opened.spec == DEMO and not images:
        scenes = Scenes(_DEMO_FITTED, seed=FITTED_SEED, size=opened.preparation.size)
        return opened.preparation.normalised(scenes.images), {}
    return None, {}


def _concepts(
    opened: OpenedModel, audit: AuditOptions, subject: Subject
) -> tuple[NetworkDissection | None, Concepts | None]:
    spec = audit.concepts or (_DEMO_CONCEPTS if opened.spec == DEMO else None)
    if spec is None:
        if audit.layer is not None:
            raise InputError("--layer says whose units stand for concepts; give --concepts, too")
        return None, None
    size = opened.preparation.size
    concepts = concepts_named(spec, size=size, names=None, colors=False)
    prepare = opened.preparation.from_colour
    network = opened.network(prepare(torch.full((1, 3, size, size), 0.5)), what="units")
    layer = audit.layer or last_layer_with_maps(network, subject.inputs[:1])
    return NetworkDissection(network, layer, preprocess=prepare), concepts
