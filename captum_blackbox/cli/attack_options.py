"""The options of ``captum-blackbox attack``, its budgets, and how they are read."""

import difflib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from pathlib import Path
from typing import Annotated, NamedTuple, TypeAlias

import typer

from captum_blackbox.cli.options import IMAGES_PANEL, RUN_PANEL, BudgetName

METHODS = {
    "gradient": "Gradient",
    "input-x-gradient": "Gradient × input",
    "ig": "Integrated gradients",
    "deeplift": "DeepLIFT",
    "smoothgrad": "SmoothGrad",
    "guided-backprop": "Guided Backprop",
    "deconvnet": "DeConvNet",
    "grad-cam": "Grad-CAM",
    "guided-grad-cam": "Guided Grad-CAM",
    "layer-sum": "Layer sum",
}
"""Name on the command line → name for the reader."""

RANDOM, TARGETED = "random", "targeted"
MODES = {
    "topk": "most important pixels",
    "mass-center": "centre of mass",
    TARGETED: "into the region",
    RANDOM: "random signs",
}
"""Name on the command line → what the attack aims at, for the reader."""

DEFAULT_METHODS = "gradient,ig,deeplift,grad-cam,layer-sum"
DEFAULT_MODES = "topk,mass-center,random"


class NormName(StrEnum):
    """How the size of a change is measured."""

    LINF = "Linf"
    L2 = "L2"


class Radius(NamedTuple):
    """A size of a change, as it was written and as a number."""

    text: str
    value: float


@dataclass(frozen=True)
class AttackBudget:
    """How much an attack spends.

    Attributes:
        steps: Of an attack.
        radii: Sizes of the change.
        passes: Steps of integrated gradients, and noisy copies of SmoothGrad.
    """

    steps: int
    radii: str
    passes: int


ATTACK_BUDGETS = {
    BudgetName.QUICK: AttackBudget(20, "8/255", 10),
    BudgetName.STANDARD: AttackBudget(100, "2/255,4/255,8/255", 32),
    BudgetName.PAPER: AttackBudget(300, "1/255,2/255,4/255,8/255", 100),
}


@dataclass(frozen=True)
class AttackOptions:
    """What was said about the attack, read.

    Attributes:
        methods: Keys of ``METHODS``.
        modes: Keys of ``MODES``.
        radii: From small to large.
        norm: In which they are measured.
        k: How many pixels are most important; ``None`` for a 50th of them.
        steps: Of an attack.
        passes: Steps of integrated gradients, and noisy copies of SmoothGrad.
        beta: Sharpness of the surrogate; ``None`` for the default of the attack.
        region: A mask to bring importance into.
        seed: Of everything random.
    """

    methods: tuple[str, ...]
    modes: tuple[str, ...]
    radii: tuple[Radius, ...]
    norm: NormName
    k: int | None
    steps: int
    passes: int
    beta: float | None
    region: Path | None
    seed: int

    @classmethod
    def of(
        cls,
        methods: str,
        modes: str,
        radii: str | None,
        *,
        norm: NormName,
        k: int | None,
        steps: int | None,
        beta: float | None,
        region: Path | None,
        budget: BudgetName,
        seed: int,
    ) -> "AttackOptions":
        """Return what was said, with what the budget says of the rest.

        Raises:
            BadParameter: Something cannot be understood, or does not fit together.
        """
        chosen = _some_of(MODES, modes, "--modes")
        if (TARGETED in chosen) != (region is not None):
            raise typer.BadParameter(
                "the mode targeted needs --region, a mask of where importance is to go"
                if region is None
                else "--region is for the mode targeted; add it to --modes"
            )
        if norm is NormName.L2 and radii is None:
            raise typer.BadParameter(
                "--norm L2 needs --radii: lengths of the whole change, for instance 1 for an image "
                "of 224 × 224 pixels; the radii of the budgets are largest changes of one pixel"
            )
        means = ATTACK_BUDGETS[budget]
        sizes = parse_radii(means.radii if radii is None else radii)
        if norm is NormName.LINF:
            _check_in_range(sizes[-1])
        return cls(
            _some_of(METHODS, methods, "--methods"),
            chosen,
            sizes,
            norm,
            k,
            means.steps if steps is None else steps,
            means.passes,
            beta,
            region,
            seed,
        )


def mode_of(mode: str) -> str:
    """Return the library's name of a mode.

    Example:
        >>> mode_of("mass-center")
        'mass_center'
    """
    return mode.replace("-", "_")


def parse_radii(text: str) -> tuple[Radius, ...]:
    """Read radii with commas, as fractions or decimals, and sort them.

    Raises:
        BadParameter: One of them is no positive number, or stands twice.

    Example:
        >>> parse_radii("8/255, 0.01")
        (Radius(text='0.01', value=0.01), Radius(text='8/255', value=0.03137254901960784))
    """
    radii = [Radius(each.strip(), _positive(each.strip())) for each in text.split(",")]
    if len({radius.value for radius in radii}) < len(radii):
        raise typer.BadParameter(f"--radii are each once, got {text!r}")
    return tuple(sorted(radii, key=lambda radius: radius.value))


def _positive(text: str) -> float:
    try:
        value = float(Fraction(text)) if "/" in text else float(text)
    except (ValueError, ZeroDivisionError, OverflowError):
        value = 0.0
    if not 0 < value < math.inf:
        raise typer.BadParameter(
            f"--radii are positive numbers with commas, such as 1/255,8/255 or 0.03; got {text!r}"
        )
    return value


def _check_in_range(largest: Radius) -> None:
    """Refuse a change of a pixel that is larger than its range."""
    if largest.value > 1:
        hint = f"; did you mean {largest.text}/255?" if largest.text.isdecimal() else ""
        hint = hint if largest.value <= 255 else ""
        raise typer.BadParameter(
            f"--radii are changes of pixels in [0, 1], so at most 1; got {largest.text!r}{hint}"
        )


def _some_of(known: Iterable[str], text: str, option: str) -> tuple[str, ...]:
    chosen = [name.strip() for name in text.split(",")]
    names = list(known)
    for name in chosen:
        if name not in names:
            near = difflib.get_close_matches(name.lower().replace("_", "-"), names, n=3, cutoff=0.5)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise typer.BadParameter(f"{option} are some of {', '.join(names)}; got {name!r}{hint}")
    if len(set(chosen)) < len(chosen):
        raise typer.BadParameter(f"{option} are each once, got {text!r}")
    return _as_known(chosen, names)


def _as_known(chosen: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """Return names in the order of the tables, so that how they were typed changes nothing."""
    return tuple(name for name in names if name in chosen)


_ATTACK = "The attack"

AttackedMethods: TypeAlias = Annotated[
    str,
    typer.Option(
        "--methods",
        help=f"The explanations to attack, with commas: {', '.join(f'`{m}`' for m in METHODS)}. "
        "`ig` and `smoothgrad` take as many times longer as they have passes, by --budget 10, 32 "
        "or 100.",
        rich_help_panel=_ATTACK,
    ),
]
Modes: TypeAlias = Annotated[
    str,
    typer.Option(
        help="What to aim at, with commas: `topk`, take importance away from the most important "
        "pixels; `mass-center`, move its centre; `targeted`, bring it into --region; `random`, "
        "nothing: signs by chance, to compare with.",
        rich_help_panel=_ATTACK,
    ),
]
Radii: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="Largest change of a pixel in [0, 1] (with --norm L2, length of the whole change), "
        "with commas; fractions are fine: `1/255,8/255`. Default: by --budget.",
        rich_help_panel=_ATTACK,
    ),
]
Norm: TypeAlias = Annotated[
    NormName, typer.Option(help="What the radius measures.", rich_help_panel=_ATTACK)
]
MostImportant: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--k",
        min=1,
        help="How many pixels count as most important. Default: a 50th of them, 1000 of 224 × 224.",
        rich_help_panel=_ATTACK,
    ),
]
Steps: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Steps of an attack. Default: by --budget 20, 100 or 300.",
        rich_help_panel=_ATTACK,
    ),
]
BetaOption: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--beta",
        min=0.01,
        help="Sharpness of the softplus that stands in for ReLU where the attack looks for a "
        "direction. By default what the size of each layer's pre-activations asks for. Label and "
        "explanation are judged by the network as it is.",
        rich_help_panel=_ATTACK,
    ),
]
Region: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        exists=True,
        dir_okay=False,
        help="For `targeted`: a picture, white where importance is to go; resized and cropped like "
        "the images.",
        rich_help_panel=_ATTACK,
    ),
]
AttackLimit: TypeAlias = Annotated[
    int, typer.Option("--limit", min=1, help="Most images to attack.", rich_help_panel=IMAGES_PANEL)
]
AttackBudgetOption: TypeAlias = Annotated[
    BudgetName,
    typer.Option(
        "--budget",
        help="`quick`: 20 steps, a radius of 8/255, 10 steps of integrated gradients; `standard`: "
        "100, 2/255 to 8/255, 32; `paper`: 300, 1/255 to 8/255, 100.",
        rich_help_panel=RUN_PANEL,
    ),
]
