"""``captum-blackbox patterns``: its commands; what they do is loaded only when they run."""

from pathlib import Path

import typer

from captum_blackbox.cli.messages import plain_messages
from captum_blackbox.cli.options import (
    LOGITS,
    Classes,
    Device,
    DeviceName,
    ImagesOrScenes,
    Limit,
    Mean,
    Model,
    ModelOptions,
    NumClasses,
    Out,
    OutputKindName,
    Preset,
    Seed,
    Size,
    Std,
    Weights,
)
from captum_blackbox.cli.patterns_options import (
    AllowNonRelu,
    EvalImages,
    Every,
    Final,
    FinalName,
    FitImages,
    JudgedCentering,
    OutputSeed,
    OutputSeedName,
    PatternOptions,
    PatternsFile,
    Regime,
    RegimeCentering,
    RegimeName,
    Residual,
    ResidualName,
    Scores,
    ScoresName,
)

patterns_app = typer.Typer(
    name="patterns",
    help="Show signals and attributions by patterns that are fitted to images.",
    epilog="Start with: captum-blackbox patterns attribute --model demo",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


@patterns_app.command()
def fit(
    model: Model,
    images: ImagesOrScenes = None,
    weights: Weights = None,
    num_classes: NumClasses = None,
    classes: Classes = None,
    size: Size = None,
    mean: Mean = None,
    std: Std = None,
    preset: Preset = None,
    regime: Regime = RegimeName.POSITIVE,
    final: Final = FinalName.POSITIVE,
    regime_centering: RegimeCentering = None,
    allow_non_relu: AllowNonRelu = False,
    device: Device = DeviceName.AUTO,
    seed: Seed = 0,  # noqa: ARG001 - as every command; nothing here is random
    out: Out = Path("captum-blackbox-patterns"),
) -> None:
    """Fit a pattern to every linear layer of a network, in one pass over images without labels.

    Writes `patterns.safetensors`, for `patterns attribute --patterns`, and `fit.json`, with the
    units that have no pattern.

    Example: `captum-blackbox patterns fit --model net.py:make --images photos --preset imagenet`
    """
    with plain_messages():
        from captum_blackbox.cli.patterns_fit import run_fit

        run_fit(
            ModelOptions(
                model, weights, LOGITS, num_classes, classes, size, mean, std, preset, device
            ),
            PatternOptions.of(model, regime, final, regime_centering, allow_non_relu),
            images=images,
            out=out,
        )


@patterns_app.command()
def attribute(
    model: Model,
    images: ImagesOrScenes = None,
    weights: Weights = None,
    output_kind: Scores = ScoresName.LOGITS,
    num_classes: NumClasses = None,
    classes: Classes = None,
    size: Size = None,
    mean: Mean = None,
    std: Std = None,
    preset: Preset = None,
    limit: Limit = 12,
    patterns: PatternsFile = None,
    fit_images: FitImages = None,
    regime: Regime = RegimeName.POSITIVE,
    final: Final = FinalName.POSITIVE,
    regime_centering: RegimeCentering = None,
    allow_non_relu: AllowNonRelu = False,
    residual: Residual = ResidualName.PATTERN,
    output_seed: OutputSeed = OutputSeedName.LOGIT,
    every: Every = None,
    device: Device = DeviceName.AUTO,
    seed: Seed = 0,
    out: Out = Path("captum-blackbox-signals"),
) -> None:
    """Explain a network's answers by PatternNet and PatternAttribution, beside their peers.

    Shows what of each image made the answer, and where evidence for it comes from; next to
    gradient, DeConvNet, Guided Backprop, gradient × input and LRP, as far as they fit the network.
    Patch degradation judges the attributions.

    Example: `captum-blackbox patterns attribute --model demo`

    Example, for a network of yours: `captum-blackbox patterns attribute --model torchvision:vgg16
    --weights vgg16.safetensors --preset imagenet --fit-images photos --images a.jpg --images b.jpg`
    """
    with plain_messages():
        from captum_blackbox.cli.patterns_attribute import run_attribute

        kind = OutputKindName(output_kind.value)
        run_attribute(
            ModelOptions(
                model, weights, kind, num_classes, classes, size, mean, std, preset, device
            ),
            PatternOptions.of(model, regime, final, regime_centering, allow_non_relu),
            images=images,
            limit=limit,
            patterns_file=patterns,
            fit_images=fit_images,
            residual=residual,
            output_seed=output_seed,
            every=every,
            seed=seed,
            out=out,
        )


@patterns_app.command()
def quality(
    model: Model,
    images: ImagesOrScenes = None,
    weights: Weights = None,
    num_classes: NumClasses = None,
    classes: Classes = None,
    size: Size = None,
    mean: Mean = None,
    std: Std = None,
    preset: Preset = None,
    fit_images: FitImages = None,
    eval_images: EvalImages = None,
    final: Final = FinalName.POSITIVE,
    regime_centering: JudgedCentering = False,
    allow_non_relu: AllowNonRelu = False,
    device: Device = DeviceName.AUTO,
    seed: Seed = 0,
    out: Out = Path("captum-blackbox-signal-quality"),
) -> None:
    """Measure how well estimators find the signal in each layer, on images held out.

    Compares the weight itself, the linear and the two-component pattern, and a random direction.
    Patterns come from one half of --fit-images, what judges them from the other half; --images are
    split 40 : 40 : 20.

    Example: `captum-blackbox patterns quality --model demo`
    """
    with plain_messages():
        from captum_blackbox.cli.patterns_quality import run_quality

        run_quality(
            ModelOptions(
                model, weights, LOGITS, num_classes, classes, size, mean, std, preset, device
            ),
            PatternOptions.of(
                model, RegimeName.TWO_COMPONENT, final, regime_centering, allow_non_relu
            ),
            images=images,
            fit_images=fit_images,
            eval_images=eval_images,
            seed=seed,
            out=out,
        )
