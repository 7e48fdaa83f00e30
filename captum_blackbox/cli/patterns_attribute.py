"""``captum-blackbox patterns attribute``: the network's answers, explained and judged."""

from collections.abc import Sequence
from pathlib import Path

import typer
from torch import Tensor, nn

from captum_blackbox.black_box import BlackBox
from captum_blackbox.cli import results as files
from captum_blackbox.cli.messages import say
from captum_blackbox.cli.opened_model import open_model
from captum_blackbox.cli.options import ModelOptions, as_typed
from captum_blackbox.cli.patterns_fit import (
    PATTERNS_FILE,
    batches_of,
    fitted_patterns,
    units_of,
)
from captum_blackbox.cli.patterns_maps import RANDOM, make_maps
from captum_blackbox.cli.patterns_options import OutputSeedName, PatternOptions, ResidualName
from captum_blackbox.cli.patterns_presentation import Degraded, write_patterns
from captum_blackbox.cli.question import question_of
from captum_blackbox.cli.subjects import subject_of
from captum_blackbox.errors import InputError
from captum_blackbox.metrics import patch_degradation
from captum_blackbox.patterns import Patterns
from captum_blackbox.report.comparison import FEW_IMAGES

_PATCH, _LEAST_ROWS = 9, 7  # the paper's patches; smaller ones where there were too few
_STEPS = 100
_SMALL = 96  # pixels, up to which every patch makes a point of the curve
_EVERY = 5
_RANDOM_ORDERS = 3
_FEW_FITTED = 200
_MANY_UNSTABLE = 0.05
_HEADS = {nn.Softmax: "probs", nn.Softmax2d: "probs", nn.LogSoftmax: "log_probs"}


def run_attribute(
    options: ModelOptions,
    pattern_options: PatternOptions,
    *,
    images: Sequence[Path] | None,
    limit: int,
    patterns_file: Path | None,
    fit_images: Sequence[Path] | None,
    residual: ResidualName,
    output_seed: OutputSeedName,
    every: int | None,
    seed: int,
    out: Path,
) -> None:
    """Explain images, write everything, and say where the page is."""
    files.check_folder(out)
    opened = open_model(options)
    subject, skipped, left = subject_of(opened, images, limit)
    network = opened.network(subject.inputs[:1])
    if patterns_file is not None and fit_images:
        raise typer.BadParameter("--patterns are fitted already: leave out --fit-images")
    settings = {
        "command": "patterns attribute",
        **as_typed(
            options,
            pattern_options,
            images=images,
            limit=limit,
            patterns=patterns_file,
            fit_images=fit_images,
            residual=residual,
            output_seed=output_seed,
            every=every,
            seed=seed,
        ),
    }
    if patterns_file is not None:
        patterns = Patterns.load(patterns_file, network)
        for option in ("--regime-centering", "--allow-non-relu"):
            settings.pop(option, None)  # said when they were fitted
        settings |= {"--regime": patterns.regime, "--final": patterns.final}
    else:
        batches = batches_of(fit_images or images, opened, said=skipped)
        batches.first()
        patterns = fitted_patterns(
            network,
            batches,
            {pattern_options.regime: PATTERNS_FILE},
            pattern_options,
            settings=settings,
            out=out,
        )[pattern_options.regime]
        skipped = batches.skipped | skipped
    _check_head(network, patterns, options)
    # Not before: answers that are kept are of one kind for good.
    box = question_of(opened, options, out).box
    maps = make_maps(
        network,
        patterns,
        subject.inputs,
        box(subject.inputs),
        residual=residual,
        output_seed=output_seed,
    )
    degraded = _degraded(box, subject.inputs, maps.attributions, maps.predicted, every, seed)
    page = write_patterns(
        out,
        subject,
        maps,
        degraded,
        patterns,
        title=f"The signal that {opened.short_name} responds to",
        notes=_notes(patterns, len(subject.names)),
        skipped=skipped,
        settings={
            **settings,
            "images": f"{len(subject.names)} explained, {left} left out",
            "preparation": str(opened.preparation),
            "device": str(opened.device),
        },
    )
    say(f"the page is {page.resolve()}")


def _check_head(network: nn.Module, patterns: Patterns, options: ModelOptions) -> None:
    head = patterns.structure.head
    if head is None:
        return
    module = network.get_submodule(head)
    wanted = next((kind for each, kind in _HEADS.items() if isinstance(module, each)), None)
    if wanted is not None and wanted != options.output_kind:
        raise InputError(
            f"the network ends in a {type(module).__name__}, so that it returns {wanted}, not "
            f"{options.output_kind}; give --output-kind {wanted}"
        )


def _degraded(
    box: BlackBox,
    inputs: Tensor,
    attributions: dict[str, Tensor],
    predicted: Tensor,
    every: int | None,
    seed: int,
) -> Degraded:
    """Degrade every image by every attribution, and in random order."""
    size = min(inputs.shape[-2:])
    patch = max(1, min(_PATCH, size // _LEAST_ROWS))
    points = every or (1 if size <= _SMALL else _EVERY)
    curves: dict[str, Tensor] = {}
    baseline = None
    for name, maps in attributions.items():
        say(f"degrading by {name}" + ("" if curves else " and at random"))
        found = patch_degradation(
            box,
            inputs,
            maps,
            predicted,
            patch=patch,
            steps=_STEPS,
            every=points,
            random_orders=0 if curves else _RANDOM_ORDERS,
            seed=seed,
            show_progress=True,
        )
        curves[name] = found.curve.double()
        baseline = found.baseline if found.baseline is not None else baseline
    if baseline is not None:
        curves[RANDOM] = baseline.double()
    return Degraded(curves, patch, points)


def _notes(patterns: Patterns, judged: int) -> tuple[str, ...]:
    notes = []
    fitted = patterns.report.images
    if 0 < fitted < _FEW_FITTED:
        notes.append(
            f"The patterns were fitted to {fitted} {'image' if fitted == 1 else 'images'} only; "
            "thousands are better, a few hundred a start."
        )
    unstable = sum(len(units) for units in patterns.report.unstable_units.values())
    units = units_of(patterns)
    if unstable > _MANY_UNSTABLE * units:
        notes.append(
            f"{unstable} of {units} units have a pattern that is huge or turned around, as large "
            "biases make it; try --regime-centering."
        )
    if judged < FEW_IMAGES:
        were = "1 image was" if judged == 1 else f"{judged} images were"
        notes.append(
            f"Only {were} judged: the differences between methods below are weak evidence."
        )
    return tuple(notes)
