"""The options that commands share, and the budgets."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer


class OutputKindName(StrEnum):
    """What the model returns."""

    LOGITS = "logits"
    PROBS = "probs"
    LOG_PROBS = "log_probs"
    TOPK = "topk"
    LABELS = "labels"


class DeviceName(StrEnum):
    """Where the networks run."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class PresetName(StrEnum):
    """Well-known ways to prepare images."""

    IMAGENET = "imagenet"
    HALF = "half"


class BudgetName(StrEnum):
    """How much is asked of the black box."""

    QUICK = "quick"
    STANDARD = "standard"
    PAPER = "paper"


class NormalizeName(StrEnum):
    """How the layers' maps are scaled before they are summed."""

    NONE = "none"
    MAX = "max"
    MINMAX = "minmax"
    L1 = "l1"
    L2 = "l2"


LOGITS = OutputKindName.LOGITS
"""What a network returns, for commands that do not ask."""

DEMO = "demo"
"""The built-in network, as a model."""


@dataclass(frozen=True)
class Budget:
    """How much is asked of the black box.

    Attributes:
        masks: That RISE draws for an image.
        steps: Of a game.
        queries: Least questions to teach a student with, where ``--queries`` is not given.
        epochs: Passes over them, where ``--epochs`` is not given.
    """

    masks: int
    steps: int
    queries: int
    epochs: int

    def __str__(self) -> str:
        """Describe it in one line, for a person."""
        return (
            f"{self.masks} masks of RISE, {self.steps} steps of the games; for a student "
            f"{self.queries} questions or as many as there are images, {self.epochs} epochs"
        )


BUDGETS = {
    BudgetName.QUICK: Budget(masks=300, steps=28, queries=2000, epochs=20),
    BudgetName.STANDARD: Budget(masks=2000, steps=56, queries=5000, epochs=30),
    BudgetName.PAPER: Budget(masks=4000, steps=28, queries=20_000, epochs=30),
}


@dataclass(frozen=True)
class ModelOptions:
    """What was said about the model and how it takes images."""

    model: str
    weights: str | None
    output_kind: OutputKindName
    num_classes: int | None
    classes: Path | None
    size: int | None
    mean: str | None
    std: str | None
    preset: PresetName | None
    device: DeviceName


@dataclass(frozen=True)
class StudentOptions:
    """What was said about the student; the budget says what is not."""

    student: str
    student_weights: str | None
    queries: int | None
    epochs: int | None


def as_typed(*groups: Any, **others: object) -> dict[str, str]:
    """Return option → value as on the command line, for every option that has a value.

    Example:
        >>> as_typed(StudentOptions("small_cnn", None, 100, None), layers=None, images=["a", "b"])
        {'--student': 'small_cnn', '--queries': '100', '--images': 'a b'}
    """
    given: Mapping[str, Any] = {
        field.name: getattr(group, field.name) for group in groups for field in fields(group)
    } | others
    return {
        f"--{name.replace('_', '-')}": " ".join(map(str, value))
        if isinstance(value, list | tuple)
        else str(value)
        for name, value in given.items()
        if value is not None and value is not False
    }


MODEL_PANEL, IMAGES_PANEL = "The model", "The images"
EXPLANATION_PANEL, RUN_PANEL = "The explanation", "The run"
_STUDENT = "The student"

Model: TypeAlias = Annotated[
    str,
    typer.Option(
        help="`torchvision:resnet18`, `timm:NAME` (extra `timm`), `demo` for the built-in network, "
        "or `file.py:factory`, a function without arguments that returns the network, or any "
        "callable on a batch of images. Answers kept in --out belong to this file as it is; "
        "choose another --out if something changes that it only imports or calls.",
        rich_help_panel=MODEL_PANEL,
    ),
]
Weights: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="A `.safetensors`, `.pt` or `.pth` file (`.pt` without running code), or the name of "
        "torchvision weights that were downloaded before. Nothing is downloaded here.",
        rich_help_panel=MODEL_PANEL,
    ),
]
OutputKind: TypeAlias = Annotated[
    OutputKindName,
    typer.Option(help="What the model returns; it is not guessed.", rich_help_panel=MODEL_PANEL),
]
NumClasses: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Number of classes; needed for `topk` and `labels`, otherwise read off the answers.",
        rich_help_panel=MODEL_PANEL,
    ),
]
Classes: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        exists=True,
        dir_okay=False,
        help="Names of the classes: a text file with one a line, or a JSON list.",
        rich_help_panel=MODEL_PANEL,
    ),
]
Images: TypeAlias = Annotated[
    list[Path],
    typer.Option(
        exists=True,
        help="A folder or a file; repeat the option for more. Files that are no images are "
        "skipped and listed.",
        rich_help_panel=IMAGES_PANEL,
    ),
]
ImagesOrScenes: TypeAlias = Annotated[
    list[Path] | None,
    typer.Option(
        exists=True,
        help="A folder or a file; repeat the option for more. Files that are no images are "
        "skipped and listed. `--model demo` renders scenes where there are none.",
        rich_help_panel=IMAGES_PANEL,
    ),
]
Size: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=8,
        help="Height and width that the model takes. The shorter side of an image is resized to "
        "it, then the centre is cropped; with `--preset imagenet` the shorter side becomes 256/224 "
        "of it first, and torchvision weights given by name bring their own margin.",
        rich_help_panel=IMAGES_PANEL,
    ),
]
Mean: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="Mean per channel, subtracted from pixels in [0, 1]: `0.5,0.5,0.5`; one number for a "
        "grey image.",
        rich_help_panel=IMAGES_PANEL,
    ),
]
Std: TypeAlias = Annotated[
    str | None,
    typer.Option(help="What they are divided by then.", rich_help_panel=IMAGES_PANEL),
]
Preset: TypeAlias = Annotated[
    PresetName | None,
    typer.Option(
        help="`imagenet`: torchvision's mean and std; `half`: 0.5 and 0.5; both with 224 pixels "
        "unless --size says otherwise. Torchvision weights given by name bring their own. --size, "
        "--mean and --std win over both.",
        rich_help_panel=IMAGES_PANEL,
    ),
]
Student: TypeAlias = Annotated[
    str,
    typer.Option(
        help="The network that imitates the model: `small_cnn`, `resnet18`, `squeezenet1_1`, "
        "`mobilenet_v3_small`, `torchvision:NAME` or `file.py:factory`.",
        rich_help_panel=_STUDENT,
    ),
]
StudentOrSelf: TypeAlias = Annotated[
    str,
    typer.Option(
        help="The network that imitates the model: `small_cnn`, `resnet18`, `squeezenet1_1`, "
        "`mobilenet_v3_small`, `torchvision:NAME` or `file.py:factory`; or `self` where the model "
        "is a network that may be opened, and nothing is distilled.",
        rich_help_panel=_STUDENT,
    ),
]
StudentWeights: TypeAlias = Annotated[
    str | None,
    typer.Option(help="Where the student starts from, as for --weights.", rich_help_panel=_STUDENT),
]
Queries: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="How many images to ask for training; more than there are means changed copies. "
        "Default: by --budget 2000, 5000 or 20000, or the number of images if larger.",
        rich_help_panel=_STUDENT,
    ),
]
Epochs: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Passes over them. Default: by --budget 20, 30 or 30.",
        rich_help_panel=_STUDENT,
    ),
]
Transfer: TypeAlias = Annotated[
    list[Path] | None,
    typer.Option(
        exists=True,
        help="Images to teach the student with; by default those of --images.",
        rich_help_panel=_STUDENT,
    ),
]
Limit: TypeAlias = Annotated[
    int, typer.Option(min=1, help="Most images to explain.", rich_help_panel=IMAGES_PANEL)
]
Layers: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="Layers of the student by name, with commas; by default every convolution.",
        rich_help_panel=EXPLANATION_PANEL,
    ),
]
Normalize: TypeAlias = Annotated[
    NormalizeName,
    typer.Option(
        help="How each layer's map is scaled before the sum.", rich_help_panel=EXPLANATION_PANEL
    ),
]
Methods: TypeAlias = Annotated[
    str,
    typer.Option(
        help="What to compare, with commas: `layer-sum`, `grad-cam` (of the last convolution, "
        "whatever --layers says), `rise`, `random`.",
        rich_help_panel=EXPLANATION_PANEL,
    ),
]
Device: TypeAlias = Annotated[
    DeviceName,
    typer.Option(help="`auto` takes CUDA where there is one.", rich_help_panel=RUN_PANEL),
]
Seed: TypeAlias = Annotated[
    int, typer.Option(min=0, help="Of everything that is random.", rich_help_panel=RUN_PANEL)
]
BudgetOption: TypeAlias = Annotated[
    BudgetName,
    typer.Option(
        help="Masks of RISE and steps of the games: `quick` 300 and 28, `standard` 2000 and 56, "
        "`paper` 4000 and 28; and the defaults of --queries and --epochs.",
        rich_help_panel=RUN_PANEL,
    ),
]
Out: TypeAlias = Annotated[
    Path,
    typer.Option(
        file_okay=False,
        help="Folder for the results; a second run with the same folder goes on where it stopped.",
        rich_help_panel=RUN_PANEL,
    ),
]
