"""The program and its commands; what they do is loaded only when they run."""

from pathlib import Path

import typer

from captum_blackbox.cli.attack import attack
from captum_blackbox.cli.audit import audit
from captum_blackbox.cli.compare import compare
from captum_blackbox.cli.dissect import dissect
from captum_blackbox.cli.messages import plain_messages
from captum_blackbox.cli.options import (
    BudgetName,
    BudgetOption,
    Classes,
    Device,
    DeviceName,
    Epochs,
    Images,
    Layers,
    Limit,
    Mean,
    Methods,
    Model,
    ModelOptions,
    Normalize,
    NormalizeName,
    NumClasses,
    Out,
    OutputKind,
    OutputKindName,
    Preset,
    Queries,
    Seed,
    Size,
    Std,
    Student,
    StudentOptions,
    StudentOrSelf,
    StudentWeights,
    Transfer,
    Weights,
)
from captum_blackbox.cli.patterns import patterns_app

app = typer.Typer(
    name="captum-blackbox",
    help="Explain any image model, also one that can only be called.",
    epilog="Start with: captum-blackbox audit --model demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.command()(audit)
app.command()(compare)
app.command()(dissect)
app.command()(attack)
app.add_typer(patterns_app)


def main() -> None:
    """Run the program; exit code 0 if it is done, 1 if it failed, 2 if it was called wrongly."""
    app()


@app.command()
def demo(
    out: Out = Path("captum-blackbox-demo"),
    budget: BudgetOption = BudgetName.QUICK,
    device: Device = DeviceName.AUTO,
    seed: Seed = 0,
) -> None:
    """Explain the built-in network and judge the explanation: offline, in a minute or two.

    A small network names the object in rendered scenes. It is treated as a black box: a student is
    trained on its answers alone, each scene is explained by the sum of the student's Grad-CAMs over
    all layers, and the deletion and insertion games compare that with last-layer Grad-CAM, RISE and
    random. The true cause of each answer is known here.

    Example: `captum-blackbox demo --out demo`
    """
    with plain_messages():
        from captum_blackbox.cli.demo import run_demo

        run_demo(out, budget, device, seed)


@app.command()
def explain(
    model: Model,
    images: Images,
    weights: Weights = None,
    output_kind: OutputKind = OutputKindName.LOGITS,
    num_classes: NumClasses = None,
    classes: Classes = None,
    size: Size = None,
    mean: Mean = None,
    std: Std = None,
    preset: Preset = None,
    limit: Limit = 12,
    student: StudentOrSelf = "small_cnn",
    student_weights: StudentWeights = None,
    transfer: Transfer = None,
    queries: Queries = None,
    epochs: Epochs = None,
    layers: Layers = None,
    normalize: Normalize = NormalizeName.NONE,
    methods: Methods = "layer-sum,grad-cam,rise,random",
    budget: BudgetOption = BudgetName.QUICK,
    device: Device = DeviceName.AUTO,
    seed: Seed = 0,
    out: Out = Path("captum-blackbox-explanation"),
) -> None:
    """Explain a model's answers on images, and judge the explanations.

    The model is only asked: a student learns to answer as it does and is explained in its place,
    and the page says how well the two agree. With `--student self` the model explains itself.

    Example, for a network of yours: `captum-blackbox explain --model torchvision:resnet18 --weights
    resnet18.safetensors --preset imagenet --images photos --student self`

    Example, for anything that can be called: `captum-blackbox explain --model service.py:ask
    --output-kind probs --images photos --size 64 --mean 0.5,0.5,0.5 --std 0.5,0.5,0.5`
    """
    with plain_messages():
        from captum_blackbox.cli.explain import run_explain

        run_explain(
            ModelOptions(
                model, weights, output_kind, num_classes, classes, size, mean, std, preset, device
            ),
            StudentOptions(student, student_weights, queries, epochs),
            images=images,
            limit=limit,
            transfer=transfer,
            layers=layers,
            normalize=normalize,
            methods=methods,
            budget=budget,
            seed=seed,
            out=out,
        )


@app.command()
def distill(
    model: Model,
    images: Images,
    weights: Weights = None,
    output_kind: OutputKind = OutputKindName.LOGITS,
    num_classes: NumClasses = None,
    classes: Classes = None,
    size: Size = None,
    mean: Mean = None,
    std: Std = None,
    preset: Preset = None,
    student: Student = "small_cnn",
    student_weights: StudentWeights = None,
    queries: Queries = None,
    epochs: Epochs = None,
    budget: BudgetOption = BudgetName.QUICK,
    device: Device = DeviceName.AUTO,
    seed: Seed = 0,
    out: Out = Path("captum-blackbox-explanation"),
) -> None:
    """Train a student on a model's answers, and say how well it imitates the model.

    Every fifth image is held out to judge the student. `explain` with the same options and the same
    folder goes on from here.

    Example: `captum-blackbox distill --model net.py:make --images photos --preset imagenet`
    """
    with plain_messages():
        from captum_blackbox.cli.distill import run_distill

        run_distill(
            ModelOptions(
                model, weights, output_kind, num_classes, classes, size, mean, std, preset, device
            ),
            StudentOptions(student, student_weights, queries, epochs),
            images=images,
            budget=budget,
            seed=seed,
            out=out,
        )
