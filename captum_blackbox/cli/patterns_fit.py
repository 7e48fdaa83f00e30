"""``captum-blackbox patterns fit``, and patterns as the other commands get them."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from captum_blackbox.artifacts import fingerprint
from captum_blackbox.cli import results as files
from captum_blackbox.cli.image_batches import Batches, ImageBatches, SceneBatches, image_files
from captum_blackbox.cli.messages import say
from captum_blackbox.cli.opened_model import OpenedModel, open_model
from captum_blackbox.cli.options import ModelOptions, as_typed
from captum_blackbox.cli.patterns_options import PatternOptions, RegimeName
from captum_blackbox.cli.subjects import FITTED_SEED, need_demo
from captum_blackbox.errors import ArtifactError, InputError
from captum_blackbox.patterns import Patterns, fit_patterns

PATTERNS_FILE, FIT_FILE, CHECKPOINT_FILE = (
    "patterns.safetensors",
    "fit.json",
    "patterns-checkpoint.safetensors",
)
_SCENES = 1000


def run_fit(
    options: ModelOptions,
    patterns: PatternOptions,
    *,
    images: Sequence[Path] | None,
    out: Path,
) -> None:
    """Fit patterns, write them and what was seen, and say where they are."""
    files.check_folder(out)
    opened = open_model(options)
    batches = batches_of(images, opened)
    network = opened.network(batches.first()[:1])
    regime = patterns.regime
    settings = {"command": "patterns fit", **as_typed(options, patterns, images=images)}
    fitted = fitted_patterns(
        network, batches, {regime: PATTERNS_FILE}, patterns, settings=settings, out=out
    )[regime]
    doubtful = sum(len(units) for units in fitted.report.degenerate_units.values())
    say(
        f"{len(fitted)} layers have patterns, fitted to {fitted.report.images} images; "
        f"{doubtful} units of {units_of(fitted)} have none"
    )
    say(f"the patterns are {(out / PATTERNS_FILE).resolve()}")


def batches_of(
    images: Sequence[Path] | None, opened: OpenedModel, *, said: Mapping[str, str] | None = None
) -> Batches:
    """Return images to fit to, or scenes for the built-in network.

    Args:
        images: Files and folders.
        opened: The model.
        said: Files that the user knows are left out; they are told of others.

    Raises:
        BadParameter: There are none, and the model is another.
        InputError: There is no image among the files.
    """
    if images:
        found, skipped = image_files(images)
        batches = ImageBatches(found, opened.preparation, opened.batch_size)
        batches.told.update(said or {})
        batches.skipped.update(skipped)
        batches.tell()
        return batches
    need_demo(opened.spec, "--images")
    say("rendering scenes")
    return scene_batches(opened, _SCENES, FITTED_SEED)


def scene_batches(opened: OpenedModel, count: int, seed: int) -> SceneBatches:
    """Return scenes as the model takes them."""
    return SceneBatches(count, seed, opened.preparation, opened.batch_size)


def fitted_patterns(
    network: nn.Module,
    batches: Batches,
    regimes: Mapping[RegimeName, str],
    patterns: PatternOptions,
    *,
    settings: Mapping[str, str],
    out: Path,
) -> dict[RegimeName, Patterns]:
    """Return patterns from ``out`` if they were fitted so before; otherwise fit and write them.

    Args:
        network: The network.
        batches: To fit to.
        regimes: Regime → name of its file in ``out``.
        patterns: What else was said about them.
        settings: For the report.
        out: A folder. What is gathered is kept there, so that a run that was killed goes on.
    """
    identity = _identity(network, batches, list(regimes), patterns)
    kept = _kept(network, batches, regimes, identity, out)
    if kept is not None:
        say(f"the patterns in {str(out)!r} were fitted so before, and are used again")
        return kept
    fitted = fit_patterns(
        network,
        batches,
        [regime.value for regime in regimes],
        final=patterns.final.value,
        regime_centering=patterns.regime_centering,
        allow_non_relu=patterns.allow_non_relu,
        checkpoint=out / files.belonging_to(CHECKPOINT_FILE, identity[:8]),
    )
    batches.tell()
    found = {regime: fitted[regime.value] for regime in regimes}
    _keep_others(out, list(regimes.values()))
    for regime, each in found.items():
        each.save(out / regimes[regime])
    # Last, so that it vouches for files that are whole.
    files.write_json(
        out / FIT_FILE,
        {
            "format": 1,
            "identity": identity,
            "settings": dict(settings),
            "versions": files.versions(),
            "patterns": {regimes[regime]: pattern_summary(each) for regime, each in found.items()},
            "skipped": batches.skipped,
        },
    )
    return found


def pattern_summary(patterns: Patterns) -> dict[str, Any]:
    """Return what patterns were made of, as JSON knows it."""
    report = patterns.report
    return {
        "regime": patterns.regime,
        "final": patterns.final,
        "images": report.images,
        "batches": report.batches,
        "input_shape": list(report.input_shape),
        "layers": {
            name: {
                "units": len(pattern),
                "degenerate": report.degenerate_units.get(name, []),
                "unstable": report.unstable_units.get(name, []),
            }
            for name, pattern in patterns.items()
        },
    }


def units_of(patterns: Patterns) -> int:
    """Return how many units the layers have."""
    return sum(len(pattern) for pattern in patterns.values())


def _identity(
    network: nn.Module,
    batches: Batches,
    regimes: Sequence[RegimeName],
    patterns: PatternOptions,
) -> str:
    text = json.dumps(
        [
            fingerprint(network),
            batches.identity(),
            regimes,
            patterns.final,
            patterns.regime_centering,
            patterns.allow_non_relu,
        ]
    )
    return hashlib.sha256(text.encode()).hexdigest()


def _keep_others(out: Path, names: Sequence[str]) -> None:
    """Move away patterns that were fitted otherwise, under these names, before."""
    try:
        earlier = json.loads((out / FIT_FILE).read_text("utf-8"))["identity"][:8]
    except (OSError, ValueError, KeyError, TypeError):
        return
    for name in [FIT_FILE, *names]:
        path = out / name
        if path.is_file():
            kept = path.with_name(f"{path.stem}-{earlier}{path.suffix}")
            path.replace(kept)
            say(f"what was fitted otherwise before is kept as {str(kept)!r}")


def _kept(
    network: nn.Module,
    batches: Batches,
    regimes: Mapping[RegimeName, str],
    identity: str,
    out: Path,
) -> dict[RegimeName, Patterns] | None:
    try:
        report = json.loads((out / FIT_FILE).read_text("utf-8"))
        if report["identity"] != identity:
            return None
        batches.skipped.update(report["skipped"])
        return {regime: Patterns.load(out / name, network) for regime, name in regimes.items()}
    except (OSError, ValueError, KeyError, TypeError, ArtifactError, InputError):
        return None  # not there, or not whole: fitted again
