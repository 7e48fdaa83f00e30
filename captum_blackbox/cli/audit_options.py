"""The options of ``captum-blackbox audit`` and ``compare``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from captum_blackbox.cli.options import IMAGES_PANEL, RUN_PANEL, BudgetName


@dataclass(frozen=True)
class AuditOptions:
    """What was said about the audit."""

    methods: str | None
    fit_images: list[Path] | None
    concepts: str | None
    layer: str | None
    student: str | None
    queries: int | None
    epochs: int | None
    budget: BudgetName
    seed: int


@dataclass(frozen=True)
class CompareOptions:
    """What was said about the comparison."""

    methods: str
    metrics: str
    masks: Path | None
    fit_images: list[Path] | None
    reference: str | None
    batch_size: int
    seed: int


def names_in(text: str, option: str) -> list[str]:
    """Return names with commas.

    Raises:
        BadParameter: There is none, or one is empty.

    Example:
        >>> names_in("ig, rise", "--methods")
        ['ig', 'rise']
    """
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise typer.BadParameter(f"{option} are names with commas, got {text!r}")
    return names


_AUDIT, _COMPARISON = "The audit", "The comparison"

AuditMethods: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--methods",
        help="Methods to judge, with commas: `gradient`, `input-x-gradient`, `ig`, `deeplift`, "
        "`smoothgrad`, `guided-backprop`, `deconvnet`, `grad-cam`, `guided-grad-cam`, `layer-sum`, "
        "`pattern-attribution`, `distilled`, `occlusion`, `rise`. Random maps are always there. "
        "Default: for a network gradient, ig, grad-cam, layer-sum, rise, and with --fit-images "
        "pattern-attribution; for anything else distilled and rise.",
        rich_help_panel=_AUDIT,
    ),
]
AuditFitImages: TypeAlias = Annotated[
    list[Path] | None,
    typer.Option(
        "--fit-images",
        exists=True,
        help="Images to fit patterns and a student to, without labels: thousands like those of "
        "--images, at best. By default those explained.",
        rich_help_panel=_AUDIT,
    ),
]
AuditConcepts: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--concepts",
        help="Say which concepts carried each prediction: `scenes:300`, `broden:FOLDER`, "
        "`folder:FOLDER`, `voc:ROOT:2012:val`, `pet:ROOT`; see `dissect`. `--model demo` takes "
        "its scenes.",
        rich_help_panel=_AUDIT,
    ),
]
AuditLayer: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--layer",
        help="The layer whose units stand for concepts. Default: the last with maps.",
        rich_help_panel=_AUDIT,
    ),
]
AuditStudent: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--student",
        help="For a model that can only be called: the network that imitates it, `small_cnn`, "
        "`resnet18`, `squeezenet1_1` or `mobilenet_v3_small`. Default: by the size of the images.",
        rich_help_panel=_AUDIT,
    ),
]
AuditLimit: TypeAlias = Annotated[
    int, typer.Option("--limit", min=1, help="Most images to judge.", rich_help_panel=IMAGES_PANEL)
]
AuditBudgetOption: TypeAlias = Annotated[
    BudgetName,
    typer.Option(
        "--budget",
        help="`quick`: 300 masks of RISE, 28 steps of the games, 10 of integrated gradients, "
        "attacks of 20 steps at 8/255 on the first 5 images; `standard`: 2000, 56, 32, 100 steps "
        "at three radii on all; `paper`: 4000, 28, 100, 300 steps at four.",
        rich_help_panel=RUN_PANEL,
    ),
]
ComparedMethods: TypeAlias = Annotated[
    str,
    typer.Option(
        "--methods",
        help="With commas: `random`, `saliency`, `input_x_gradient`, `integrated_gradients`, "
        "`smoothgrad`, `deeplift`, `guided_backprop`, `deconvnet`, `lrp`, `grad_cam`, "
        "`guided_grad_cam`, `layer_sum`, `occlusion`, `rise`; and, with --fit-images, "
        "`pattern_attribution`, `pattern_attribution_centred` (for networks with BatchNorm) and "
        "`distilled_layer_sum`.",
        rich_help_panel=_COMPARISON,
    ),
]
ComparedMetrics: TypeAlias = Annotated[
    str,
    typer.Option(
        "--metrics",
        help="With commas: `deletion`, `insertion`, `degradation`, `infidelity`, "
        "`sensitivity_max`, `quantus:NAME`; with --masks `pointing_game`, `relevance_mass`, "
        "`relevance_rank`.",
        rich_help_panel=_COMPARISON,
    ),
]
Masks: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        exists=True,
        file_okay=False,
        help="A folder with a picture for each image, of the same name up to its ending: white "
        "where the truth lies; resized and cropped like the images.",
        rich_help_panel=_COMPARISON,
    ),
]
ComparedFitImages: TypeAlias = Annotated[
    list[Path] | None,
    typer.Option(
        "--fit-images",
        exists=True,
        help="Images that patterns and the student of `distilled_layer_sum` are fitted to, without "
        "labels: thousands like those of --images, at best.",
        rich_help_panel=_COMPARISON,
    ),
]
Reference: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="The method that others are compared with. Default: `random`, or else the first.",
        rich_help_panel=_COMPARISON,
    ),
]
BatchSize: TypeAlias = Annotated[
    int, typer.Option(min=1, help="Images explained together.", rich_help_panel=RUN_PANEL)
]
