"""``captum-blackbox compare``: the command; what it does is loaded only when it runs."""

from pathlib import Path

from captum_blackbox.cli.audit_options import (
    AuditLimit,
    BatchSize,
    ComparedFitImages,
    ComparedMethods,
    ComparedMetrics,
    CompareOptions,
    Masks,
    Reference,
)
from captum_blackbox.cli.messages import plain_messages
from captum_blackbox.cli.options import (
    Classes,
    Device,
    DeviceName,
    ImagesOrScenes,
    Mean,
    Model,
    ModelOptions,
    NumClasses,
    Out,
    OutputKind,
    OutputKindName,
    Preset,
    Seed,
    Size,
    Std,
    Weights,
)


def compare(
    model: Model,
    images: ImagesOrScenes = None,
    weights: Weights = None,
    output_kind: OutputKind = OutputKindName.LOGITS,
    num_classes: NumClasses = None,
    classes: Classes = None,
    size: Size = None,
    mean: Mean = None,
    std: Std = None,
    preset: Preset = None,
    limit: AuditLimit = 50,
    methods: ComparedMethods = "random,saliency,integrated_gradients,grad_cam,layer_sum,rise",
    metrics: ComparedMetrics = "deletion,insertion",
    masks: Masks = None,
    fit_images: ComparedFitImages = None,
    reference: Reference = None,
    batch_size: BatchSize = 8,
    device: Device = DeviceName.AUTO,
    seed: Seed = 0,
    out: Out = Path("captum-blackbox-comparison"),
) -> None:
    """Judge methods by metrics on a model and images: a table for a paper.

    Prints means with intervals, differences, ranks and costs as Markdown, and writes them as
    Markdown, CSV, JSON and PNG. What fails is in the table, and a second run tries it again; a run
    that was killed goes on.

    Example: `captum-blackbox compare --model demo --metrics deletion,pointing_game`
    """
    with plain_messages():
        from captum_blackbox.cli.compare_run import run_compare

        run_compare(
            ModelOptions(
                model, weights, output_kind, num_classes, classes, size, mean, std, preset, device
            ),
            CompareOptions(methods, metrics, masks, fit_images, reference, batch_size, seed),
            images=images,
            limit=limit,
            out=out,
        )
