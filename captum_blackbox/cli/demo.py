"""``captum-blackbox demo``: everything, on what comes with the library."""

from pathlib import Path

import torch

from captum_blackbox.black_box import BlackBox
from captum_blackbox.cli import results as files
from captum_blackbox.cli.messages import say
from captum_blackbox.cli.models import device_named
from captum_blackbox.cli.options import BUDGETS, BudgetName, DeviceName, as_typed
from captum_blackbox.cli.presentation import write_everything
from captum_blackbox.cli.run import METHODS, Plan, explain_images
from captum_blackbox.cli.subjects import EXPLAINED_SEED, scene_subject
from captum_blackbox.concepts import SCENE_CLASSES, Scenes
from captum_blackbox.demo import load_demo_network
from captum_blackbox.student import DistilledLayerSumGradCAM
from captum_blackbox.student.networks import SmallCNN

# Of scenes that the built-in network was not trained on, and no two alike.
_ASKED_SEED, _JUDGING_SEED = EXPLAINED_SEED + 1, EXPLAINED_SEED + 2
_EXPLAINED_SCENES, _ASKED_SCENES, _JUDGING_SCENES = 32, 2000, 300
# A narrow student and few epochs: two cores need no more than a minute.
_WIDTH, _EPOCHS, _BATCH, _LEARNING_RATE = 12, 7, 32, 3e-3


def run_demo(out: Path, budget: BudgetName, device_name: DeviceName, seed: int) -> None:
    """Distil, explain and judge the built-in network, write everything, and say where."""
    files.check_folder(out)
    device = device_named(device_name)
    say("rendering scenes")
    subject = scene_subject(_EXPLAINED_SCENES)
    asked = Scenes(_ASKED_SCENES, seed=_ASKED_SEED).images
    judging = Scenes(_JUDGING_SCENES, seed=_JUDGING_SEED).images
    box = BlackBox(
        load_demo_network(device),
        output="logits",
        num_classes=len(SCENE_CLASSES),
        cache=out / files.ANSWERS_FILE,
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        student = SmallCNN(len(SCENE_CLASSES), width=_WIDTH)
    explainer = DistilledLayerSumGradCAM(box, student.to(device))
    explainer.distill(
        asked,
        epochs=_EPOCHS,
        batch_size=_BATCH,
        optimizer=lambda weights: torch.optim.Adam(weights, _LEARNING_RATE),
        validation=judging,
        checkpoint=out / files.CHECKPOINT_FILE,
        seed=seed,
        device=device,
    )
    explainer.save(out / files.STUDENT_FILE)
    plan = Plan(tuple(METHODS), BUDGETS[budget], len(SCENE_CLASSES), True, seed)
    explained = explain_images(explainer, subject, plan, device)
    page = write_everything(
        out,
        explainer,
        explained,
        subject,
        title="What the built-in network looks at",
        lead="A network that names the object in a scene was only asked, never opened. A student "
        "learned to answer as it does; the sum of the student's Grad-CAMs over all layers explains "
        "each answer. Two games, played with the network itself, judge the maps.",
        shown=plan.shown,
        skipped={},
        settings={
            "command": "demo",
            "model": "the built-in network, as a black box that answers logits",
            "student": f"a convolutional network, {_WIDTH} channels wide",
            "questions": f"{_ASKED_SCENES} scenes without labels",
            "epochs": str(_EPOCHS),
            "budget": f"{plan.budget.masks} masks of RISE, {plan.budget.steps} steps of the games",
            **as_typed(budget=budget, device=device, seed=seed),
        },
    )
    say(f"the page is {page.resolve()}")
