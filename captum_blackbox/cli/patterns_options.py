"""The options of ``captum-blackbox patterns``."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from captum_blackbox.cli.options import DEMO, EXPLANATION_PANEL, IMAGES_PANEL, MODEL_PANEL


class RegimeName(StrEnum):
    """Which samples a pattern is estimated from."""

    POSITIVE = "positive"
    NEGATIVE = "negative"
    TWO_COMPONENT = "two_component"
    LINEAR = "linear"
    FILTER = "filter"


class FinalName(StrEnum):
    """The regime of layers whose own output no ReLU takes."""

    POSITIVE = "positive"
    LINEAR = "linear"


class ResidualName(StrEnum):
    """What the two branches of an addition get."""

    GRADIENT = "gradient"
    PATTERN = "pattern"


class OutputSeedName(StrEnum):
    """What is sent back from the explained output."""

    LOGIT = "logit"
    ONE = "one"
    PROBABILITY = "probability"


class ScoresName(StrEnum):
    """What a network returns."""

    LOGITS = "logits"
    PROBS = "probs"
    LOG_PROBS = "log_probs"


@dataclass(frozen=True)
class PatternOptions:
    """What was said about the patterns."""

    regime: RegimeName
    final: FinalName
    regime_centering: bool
    allow_non_relu: bool

    @classmethod
    def of(
        cls,
        model: str,
        regime: RegimeName,
        final: FinalName,
        regime_centering: bool | None,
        allow_non_relu: bool,
    ) -> "PatternOptions":
        """Return what was said, with the defaults that depend on the model."""
        is_centred = model == DEMO if regime_centering is None else regime_centering
        return cls(regime, final, is_centred, allow_non_relu)


_PATTERNS = "The patterns"

FitImages: TypeAlias = Annotated[
    list[Path] | None,
    typer.Option(
        exists=True,
        help="Images to fit to, without labels: thousands like those explained, at best; a few "
        "hundred are a start. By default those of --images.",
        rich_help_panel=IMAGES_PANEL,
    ),
]
EvalImages: TypeAlias = Annotated[
    list[Path] | None,
    typer.Option(
        exists=True,
        help="Images to judge on; together with --fit-images, in place of --images.",
        rich_help_panel=IMAGES_PANEL,
    ),
]
PatternsFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        exists=True,
        dir_okay=False,
        help="A file from `patterns fit`; without it patterns are fitted first.",
        rich_help_panel=_PATTERNS,
    ),
]
Regime: TypeAlias = Annotated[
    RegimeName,
    typer.Option(
        help="Samples that a pattern is estimated from: `positive`, at which a unit is active, as "
        "in the paper; `negative`, the others; `two_component`, both, each where it applies; "
        "`linear`, all; `filter`, none: the weight itself.",
        rich_help_panel=_PATTERNS,
    ),
]
Final: TypeAlias = Annotated[
    FinalName,
    typer.Option(
        help="The same for layers whose own output no ReLU takes, such as the last.",
        rich_help_panel=_PATTERNS,
    ),
]
RegimeCentering: TypeAlias = Annotated[
    bool | None,
    typer.Option(
        "--regime-centering/--no-regime-centering",
        help="Centre within the regime, which the paper does not. Try it where many units are "
        "unstable, as large biases make them. Default: only for `--model demo`, which needs it.",
        rich_help_panel=_PATTERNS,
    ),
]
JudgedCentering: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--regime-centering",
        help="Centre the two-component pattern within each regime, which the paper does not.",
        rich_help_panel=_PATTERNS,
    ),
]
AllowNonRelu: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--allow-non-relu",
        help="Pass the gradient at activations without a rule (GELU, sigmoid …) instead of "
        "refusing the network.",
        rich_help_panel=_PATTERNS,
    ),
]
Scores: TypeAlias = Annotated[
    ScoresName,
    typer.Option("--output-kind", help="What the network returns.", rich_help_panel=MODEL_PANEL),
]
Residual: TypeAlias = Annotated[
    ResidualName,
    typer.Option(
        help="What the branches of an addition get: `gradient`, both all that arrives; `pattern`, "
        "each its learned share.",
        rich_help_panel=EXPLANATION_PANEL,
    ),
]
OutputSeed: TypeAlias = Annotated[
    OutputSeedName,
    typer.Option(
        help="What is sent back from the explained class: its `logit`, `one`, or its "
        "`probability`.",
        rich_help_panel=EXPLANATION_PANEL,
    ),
]
Every: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Patches replaced between two points of the degradation curve. Default: 1, as in the "
        "paper, for images up to 96 pixels; 5, which asks a fifth, for larger ones.",
        rich_help_panel=EXPLANATION_PANEL,
    ),
]
