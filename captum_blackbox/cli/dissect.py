"""``captum-blackbox dissect``: the command; what it does is loaded only when it runs."""

from pathlib import Path

from captum_blackbox.cli.dissect_options import (
    BatchSize,
    Colors,
    ConceptsFrom,
    Controls,
    DissectOptions,
    Explain,
    IouThreshold,
    Layer,
    Level,
    Names,
    OnError,
    OnErrorName,
    Presence,
    PresenceName,
    Quantile,
    Rotate,
    Upsample,
    UpsampleName,
    Workers,
)
from captum_blackbox.cli.messages import plain_messages
from captum_blackbox.cli.options import (
    LOGITS,
    Classes,
    Device,
    DeviceName,
    Limit,
    Mean,
    Model,
    ModelOptions,
    NumClasses,
    Out,
    Preset,
    Seed,
    Size,
    Std,
    Weights,
)


def dissect(
    model: Model,
    layer: Layer = None,
    concepts: ConceptsFrom = None,
    names: Names = None,
    colors: Colors = False,
    weights: Weights = None,
    num_classes: NumClasses = None,
    classes: Classes = None,
    size: Size = None,
    mean: Mean = None,
    std: Std = None,
    preset: Preset = None,
    quantile: Quantile = 0.005,
    level: Level = None,
    iou_threshold: IouThreshold = 0.04,
    upsample: Upsample = UpsampleName.RECEPTIVE_FIELD,
    presence: Presence = PresenceName.IMAGE,
    controls: Controls = True,
    rotate: Rotate = False,
    explain: Explain = None,
    limit: Limit = 12,
    batch_size: BatchSize = 32,
    workers: Workers = 0,
    on_error: OnError = OnErrorName.RAISE,
    device: Device = DeviceName.AUTO,
    seed: Seed = 0,
    out: Out = Path("captum-blackbox-dissection"),
) -> None:
    """Find what each unit of a layer stands for, and which concepts made a prediction.

    A unit detects the concept whose pixels match best where it is active, if they match well
    enough. The page shows the units with the images they like best, and how many would detect
    something by chance.

    Example: `captum-blackbox dissect --model demo`

    Example, for a network of yours: `captum-blackbox dissect --model torchvision:resnet18 --weights
    resnet18.safetensors --preset imagenet --layer layer4 --concepts folder:photos --explain a.jpg`
    """
    with plain_messages():
        from captum_blackbox.cli.dissect_run import run_dissect

        run_dissect(
            ModelOptions(
                model, weights, LOGITS, num_classes, classes, size, mean, std, preset, device
            ),
            DissectOptions(
                layer,
                concepts,
                names,
                colors,
                quantile,
                level,
                iou_threshold,
                upsample,
                presence,
                controls,
                rotate,
                explain,
                limit,
                batch_size,
                workers,
                on_error,
                seed,
            ),
            out=out,
        )
