"""``captum-blackbox audit``: the command; what it does is loaded only when it runs."""

from pathlib import Path

from captum_blackbox.cli.audit_options import (
    AuditBudgetOption,
    AuditConcepts,
    AuditFitImages,
    AuditLayer,
    AuditLimit,
    AuditMethods,
    AuditOptions,
    AuditStudent,
)
from captum_blackbox.cli.messages import plain_messages
from captum_blackbox.cli.options import (
    BudgetName,
    Classes,
    Device,
    DeviceName,
    Epochs,
    ImagesOrScenes,
    Mean,
    Model,
    ModelOptions,
    NumClasses,
    Out,
    OutputKind,
    OutputKindName,
    Preset,
    Queries,
    Seed,
    Size,
    Std,
    Weights,
)


def audit(
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
    limit: AuditLimit = 10,
    methods: AuditMethods = None,
    fit_images: AuditFitImages = None,
    concepts: AuditConcepts = None,
    layer: AuditLayer = None,
    student: AuditStudent = None,
    queries: Queries = None,
    epochs: Epochs = None,
    budget: AuditBudgetOption = BudgetName.QUICK,
    device: Device = DeviceName.AUTO,
    seed: Seed = 0,
    out: Out = Path("captum-blackbox-audit"),
) -> None:
    """Find out how far each explanation of a model can be trusted, on your images.

    Several methods explain the model. The page says which maps are faithful to it, which break
    under an invisible change, which axioms each method meets, which concepts carried the
    predictions if you name some, and what to believe in the end, method by method.

    Example: `captum-blackbox audit --model demo`

    Example, for a network of yours: `captum-blackbox audit --model torchvision:resnet18 --weights
    resnet18.safetensors --preset imagenet --images photos`

    Example, for anything that can be called: `captum-blackbox audit --model service.py:ask
    --output-kind probs --images photos --size 64 --mean 0,0,0 --std 1,1,1 --fit-images more`
    """
    with plain_messages():
        from captum_blackbox.cli.audit_run import run_audit_command

        run_audit_command(
            ModelOptions(
                model, weights, output_kind, num_classes, classes, size, mean, std, preset, device
            ),
            AuditOptions(
                methods, fit_images, concepts, layer, student, queries, epochs, budget, seed
            ),
            images=images,
            limit=limit,
            out=out,
        )
