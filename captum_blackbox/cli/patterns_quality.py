"""``captum-blackbox patterns quality``: how well estimators find the signal, layer by layer."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import torch
import typer

from captum_blackbox.cli import results as files
from captum_blackbox.cli.image_batches import Batches, ImageBatches, image_files
from captum_blackbox.cli.messages import say
from captum_blackbox.cli.opened_model import OpenedModel, open_model
from captum_blackbox.cli.options import ModelOptions, as_typed
from captum_blackbox.cli.patterns_fit import (
    fitted_patterns,
    scene_batches,
)
from captum_blackbox.cli.patterns_options import PatternOptions, RegimeName
from captum_blackbox.cli.subjects import FITTED_SEED, need_demo
from captum_blackbox.errors import InputError
from captum_blackbox.patterns import SignalQuality, signal_quality
from captum_blackbox.report import quality_png

CSV_FILE, JSON_FILE, FIGURE_FILE = "quality.csv", "quality.json", "quality.png"
_REGIMES = (RegimeName.FILTER, RegimeName.LINEAR, RegimeName.TWO_COMPONENT)
_SCENES = (800, 800, 400)
_SHARES = (2, 2, 1)  # of --images, for patterns, for what judges them, and to judge on


def run_quality(
    options: ModelOptions,
    patterns: PatternOptions,
    *,
    images: Sequence[Path] | None,
    fit_images: Sequence[Path] | None,
    eval_images: Sequence[Path] | None,
    seed: int,
    out: Path,
) -> None:
    """Fit patterns, judge them on images held out, write the numbers and print their means."""
    if (fit_images is None) != (eval_images is None) or (images and fit_images):
        raise typer.BadParameter("give --images, or both --fit-images and --eval-images")
    files.check_folder(out)
    opened = open_model(options)
    fitting, judging, evaluating = _three_parts(opened, images, fit_images, eval_images, seed)
    network = opened.network(fitting.first()[:1])
    settings = {
        "command": "patterns quality",
        **as_typed(
            options,
            patterns,
            images=images,
            fit_images=fit_images,
            eval_images=eval_images,
            seed=seed,
        ),
    }
    named = {regime: f"patterns-{regime}.safetensors" for regime in _REGIMES}
    fitted = fitted_patterns(network, fitting, named, patterns, settings=settings, out=out)
    quality = signal_quality(
        network,
        {regime.value: each for regime, each in fitted.items()},
        fit_loader=judging,
        eval_loader=evaluating,
        seed=seed,
    )
    judging.tell()
    evaluating.tell()
    quality.to_csv(out / CSV_FILE)
    quality.to_json(out / JSON_FILE)
    numbers = json.loads((out / JSON_FILE).read_text("utf-8"))
    skipped = fitting.skipped | judging.skipped | evaluating.skipped
    files.write_json(
        out / JSON_FILE,
        {
            "format": 1,
            "settings": settings,
            "versions": files.versions(),
            **numbers,
            "skipped": skipped,
        },
    )
    files.write_bytes(out / FIGURE_FILE, quality_png(quality))
    _print_means(quality)
    say(f"the figure is {(out / FIGURE_FILE).resolve()}")


def _three_parts(
    opened: OpenedModel,
    images: Sequence[Path] | None,
    fit_images: Sequence[Path] | None,
    eval_images: Sequence[Path] | None,
    seed: int,
) -> tuple[Batches, Batches, Batches]:
    """Return what to fit patterns to, what to find v on, and what to judge on."""
    if not images and not fit_images:
        need_demo(opened.spec, "--images, or --fit-images and --eval-images")
        say("rendering scenes")
        first, second, third = (
            scene_batches(opened, count, FITTED_SEED + i) for i, count in enumerate(_SCENES)
        )
        return first, second, third
    if fit_images and eval_images:
        found, skipped = image_files(fit_images)
        held_out, more = image_files(eval_images)
        halves = _split(found, (1, 1), seed, "--fit-images")
        parts = [*halves, held_out]
        skipped |= more
    else:
        found, skipped = image_files(images or ())
        parts = _split(found, _SHARES, seed, "--images")
    one, two, three = (ImageBatches(each, opened.preparation, opened.batch_size) for each in parts)
    one.skipped.update(skipped)
    one.tell()
    return one, two, three


def _split(paths: list[Path], shares: Sequence[int], seed: int, option: str) -> list[list[Path]]:
    """Share files out at random: a folder often holds one class after the other."""
    total = sum(shares)
    if len(paths) < total:
        raise InputError(
            f"{option} has {len(paths)} {'image' if len(paths) == 1 else 'images'}, and at least "
            f"{total} are needed to hold some out; a few hundred are a start"
        )
    order = torch.randperm(len(paths), generator=torch.Generator().manual_seed(seed)).tolist()
    ends = [round(len(paths) * sum(shares[: i + 1]) / total) for i in range(len(shares))]
    starts = [0, *ends[:-1]]
    return [
        [paths[i] for i in sorted(order[start:end])]
        for start, end in zip(starts, ends, strict=True)
    ]


def _print_means(quality: SignalQuality) -> None:
    """Print a row for each estimator: the mean over layers of the mean over units."""
    rows = quality.table()
    typer.echo(f"{'estimator':<16}{'mean rho':>10}{'layers':>8}")
    for estimator in quality:
        means = [
            row.mean for row in rows if row.estimator == estimator and not math.isnan(row.mean)
        ]
        mean = f"{sum(means) / len(means):.3f}" if means else "-"
        typer.echo(f"{estimator:<16}{mean:>10}{len(means):>8}")
