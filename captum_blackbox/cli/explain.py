"""``captum-blackbox explain``: the user's model and images."""

from collections.abc import Sequence
from pathlib import Path

import typer
from torch import nn

from captum_blackbox.cli.images import LoadedImages, load_images
from captum_blackbox.cli.messages import say
from captum_blackbox.cli.options import (
    BUDGETS,
    BudgetName,
    ModelOptions,
    NormalizeName,
    StudentOptions,
    as_typed,
)
from captum_blackbox.cli.presentation import write_everything
from captum_blackbox.cli.question import Question, open_question
from captum_blackbox.cli.run import METHODS, Plan, Subject, explain_images
from captum_blackbox.cli.teaching import SELF, taught_explainer
from captum_blackbox.errors import InputError
from captum_blackbox.report.comparison import FEW_IMAGES
from captum_blackbox.student import DistilledLayerSumGradCAM

_LEADS = {
    True: "The model was opened: the sum of its own Grad-CAMs over all layers explains each "
    "answer. Two games, played with the model itself, judge the maps.",
    False: "The model was only asked, never opened. A student learned to answer as it does; the "
    "sum of the student's Grad-CAMs over all layers explains each answer. Two games, played with "
    "the model itself, judge the maps.",
}


def run_explain(
    options: ModelOptions,
    student: StudentOptions,
    *,
    images: Sequence[Path],
    limit: int,
    transfer: Sequence[Path] | None,
    layers: str | None,
    normalize: NormalizeName,
    methods: str,
    budget: BudgetName,
    seed: int,
    out: Path,
) -> None:
    """Explain images, write everything, and say where the page is."""
    plan = Plan(
        methods=_chosen(methods),
        budget=BUDGETS[budget],
        shown=limit,
        judge_layers=budget is not BudgetName.QUICK,
        seed=seed,
    )
    question = open_question(options, out)
    explains_itself = student.student == SELF
    # The images that teach are read whole; where they are those explained, too, only once.
    together = not explains_itself and not transfer
    everything = load_images(images, question.preparation, limit=None if together else limit)
    everything.report_skipped()
    skipped, loaded = dict(everything.skipped), everything.first(limit)
    if loaded.left:
        say(f"explaining the first {len(loaded.names)} images, {loaded.left} are left (--limit)")
    names = None if layers is None else [name.strip() for name in layers.split(",")]
    if explains_itself:
        network = _network(question, options.model)
        question.count_classes(loaded.inputs)
        explainer = DistilledLayerSumGradCAM(
            question.box, network, names, normalize=normalize.value
        )
    else:
        learning = everything
        if transfer:
            learning = load_images(transfer, question.preparation)
            learning.report_skipped()
            skipped |= learning.skipped
        explainer = taught_explainer(
            question,
            student,
            learning.inputs,
            out,
            budget=plan.budget,
            seed=seed,
            layers=names,
            normalize=normalize,
        )
    pictures = question.preparation.pictures(loaded.inputs)
    subject = Subject(loaded.inputs, pictures, loaded.names, question.class_names)
    explained = explain_images(explainer, subject, plan, question.device)
    page = write_everything(
        out,
        explainer,
        explained,
        subject,
        title=f"What {question.opened.short_name} looks at",
        lead=_LEADS[explains_itself],
        shown=limit,
        skipped=skipped,
        notes=_notes(loaded),
        settings={
            "command": "explain",
            **as_typed(
                options,
                student,
                images=images,
                limit=limit,
                transfer=transfer or None,
                layers=layers,
                normalize=normalize,
                methods=methods,
                budget=budget,
                seed=seed,
            ),
            "images": f"{len(loaded.names)} explained, {loaded.left} left out",
            "preparation": str(question.preparation),
            "budget": str(plan.budget),
            "device": str(question.device),
        },
    )
    say(f"the page is {page.resolve()}")


def _chosen(methods: str) -> list[str]:
    chosen = [name.strip() for name in methods.split(",")]
    if not set(chosen) <= set(METHODS) or len(set(chosen)) < len(chosen):
        raise typer.BadParameter(
            f"--methods are some of {', '.join(METHODS)}, each once; got {methods!r}"
        )
    return chosen


def _network(question: Question, model: str) -> nn.Module:
    if not isinstance(question.box.fn, nn.Module):
        raise InputError(
            f"--student self opens the model, but {model} is a {type(question.box.fn).__name__} "
            "that can only be called; choose a student"
        )
    return question.box.fn


def _notes(loaded: LoadedImages) -> tuple[str, ...]:
    count = len(loaded.names)
    if count >= FEW_IMAGES:
        return ()
    judged = "1 image was" if count == 1 else f"{count} images were"
    return (f"Only {judged} judged: the differences between methods below are weak evidence.",)
