"""The options of ``captum-blackbox dissect``."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from captum_blackbox.cli.options import EXPLANATION_PANEL, RUN_PANEL


class UpsampleName(StrEnum):
    """How a feature map is laid over the image."""

    RECEPTIVE_FIELD = "receptive_field"
    RESIZE = "resize"
    GRID_ZEROS = "grid_zeros"


class PresenceName(StrEnum):
    """Which images count against a unit."""

    IMAGE = "image"
    MASK = "mask"


class OnErrorName(StrEnum):
    """What a broken file does."""

    RAISE = "raise"
    SKIP = "skip"


@dataclass(frozen=True)
class DissectOptions:
    """What was said about the dissection."""

    layer: list[str] | None
    concepts: str | None
    names: Path | None
    colors: bool
    quantile: float
    level: float | None
    iou_threshold: float
    upsample: UpsampleName
    presence: PresenceName
    controls: bool
    rotate: bool
    explain: list[Path] | None
    limit: int
    batch_size: int
    workers: int
    on_error: OnErrorName
    seed: int


_CONCEPTS = "The concepts"
_UNITS = "The units"
_CHANCE = "What comes about by chance"

Layer: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        help="Name of a layer that puts out maps; repeat the option for more, in one pass. "
        "Default: the last one.",
        rich_help_panel=_UNITS,
    ),
]
ConceptsFrom: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--concepts",
        help="`broden:FOLDER`, in the layout of Broden; `folder:FOLDER`, images with a mask of the "
        "same name, `000.png` beside `000.jpg`; `voc:ROOT[:2012:val]` and `pet:ROOT`, downloaded "
        "before; `scenes[:300]`, rendered, the default for `--model demo`. Images are resized to "
        "the square that the model takes, not cropped.",
        rich_help_panel=_CONCEPTS,
    ),
]
Names: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        exists=True,
        dir_okay=False,
        help='What the values in the masks of `folder:` mean: JSON such as `{"1": "person"}`, or '
        "the names of 1, 2, … one a line. Default: `classes.json` in the folder.",
        rich_help_panel=_CONCEPTS,
    ),
]
Colors: TypeAlias = Annotated[
    bool,
    typer.Option("--colors", help="Ask for 11 colours, too.", rich_help_panel=_CONCEPTS),
]
Quantile: TypeAlias = Annotated[
    float,
    typer.Option(
        help="Share of a unit's activations at which it counts as active.", rich_help_panel=_UNITS
    ),
]
Level: TypeAlias = Annotated[
    float | None,
    typer.Option(
        help="Quantile level in place of 1 − --quantile; the published runs used 994 / 999.",
        rich_help_panel=_UNITS,
    ),
]
IouThreshold: TypeAlias = Annotated[
    float,
    typer.Option(help="IoU above which a unit detects its concept.", rich_help_panel=_UNITS),
]
Upsample: TypeAlias = Annotated[
    UpsampleName,
    typer.Option(
        help="How a map is laid over the image: each cell at the centre of its `receptive_field`, "
        "as published; `resize`, stretched, as in NetDissect-Lite; `grid_zeros`, fading to 0 at "
        "the edge.",
        rich_help_panel=_UNITS,
    ),
]
Presence: TypeAlias = Annotated[
    PresenceName,
    typer.Option(
        help="What counts against a unit: images that show the category anywhere, as published, or "
        "only where the `mask` of the unit shows it, as in NetDissect-Lite.",
        rich_help_panel=_UNITS,
    ),
]
Controls: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--controls/--no-controls",
        help="Dissect also with the labels of other images, and a network of random weights.",
        rich_help_panel=_CHANCE,
    ),
]
Rotate: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--rotate",
        help="Dissect also in five bases on the way to a random one.",
        rich_help_panel=_CHANCE,
    ),
]
Explain: TypeAlias = Annotated[
    list[Path] | None,
    typer.Option(
        exists=True,
        help="Images whose prediction is explained by the concepts of the last --layer: a folder "
        "or a file; repeat the option for more. `--model demo` renders scenes.",
        rich_help_panel=EXPLANATION_PANEL,
    ),
]
BatchSize: TypeAlias = Annotated[
    int, typer.Option(min=1, help="Images at a time.", rich_help_panel=RUN_PANEL)
]
Workers: TypeAlias = Annotated[
    int,
    typer.Option(min=0, help="Processes that read images and masks.", rich_help_panel=RUN_PANEL),
]
OnError: TypeAlias = Annotated[
    OnErrorName,
    typer.Option(
        help="What an image or a mask that is broken does: end the run, or be left out.",
        rich_help_panel=RUN_PANEL,
    ),
]
