"""``captum-blackbox attack``: the command; what it does is loaded only when it runs."""

from pathlib import Path

from captum_blackbox.cli.attack_options import (
    DEFAULT_METHODS,
    DEFAULT_MODES,
    AttackBudgetOption,
    AttackedMethods,
    AttackLimit,
    AttackOptions,
    BetaOption,
    Modes,
    MostImportant,
    Norm,
    NormName,
    Radii,
    Region,
    Steps,
)
from captum_blackbox.cli.messages import plain_messages
from captum_blackbox.cli.options import (
    LOGITS,
    BudgetName,
    Classes,
    Device,
    DeviceName,
    ImagesOrScenes,
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


def attack(
    model: Model,
    images: ImagesOrScenes = None,
    weights: Weights = None,
    num_classes: NumClasses = None,
    classes: Classes = None,
    size: Size = None,
    mean: Mean = None,
    std: Std = None,
    preset: Preset = None,
    limit: AttackLimit = 10,
    methods: AttackedMethods = DEFAULT_METHODS,
    modes: Modes = DEFAULT_MODES,
    radii: Radii = None,
    norm: Norm = NormName.LINF,
    k: MostImportant = None,
    steps: Steps = None,
    beta: BetaOption = None,
    region: Region = None,
    budget: AttackBudgetOption = BudgetName.QUICK,
    device: Device = DeviceName.AUTO,
    seed: Seed = 0,
    out: Out = Path("captum-blackbox-attack"),
) -> None:
    """Find out how easily explanations are moved by changes of an image that keep its prediction.

    Each explanation is attacked on each image: a small change is sought that leaves the prediction
    alone and moves the explanation as far as it goes. The page says which explanations break, at
    which size of the change, and how visible it is.

    Example: `captum-blackbox attack --model demo`

    Example, for a network of yours: `captum-blackbox attack --model torchvision:resnet18 --weights
    resnet18.safetensors --preset imagenet --images photos --radii 1/255,8/255`
    """
    with plain_messages():
        from captum_blackbox.cli.attack_run import run_attack

        run_attack(
            ModelOptions(
                model, weights, LOGITS, num_classes, classes, size, mean, std, preset, device
            ),
            AttackOptions.of(
                methods,
                modes,
                radii,
                norm=norm,
                k=k,
                steps=steps,
                beta=beta,
                region=region,
                budget=budget,
                seed=seed,
            ),
            images=images,
            limit=limit,
            out=out,
        )
