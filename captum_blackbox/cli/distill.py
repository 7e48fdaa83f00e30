"""``captum-blackbox distill``: only the student."""

from collections.abc import Sequence
from pathlib import Path

from captum_blackbox.cli import results as files
from captum_blackbox.cli.images import load_images
from captum_blackbox.cli.messages import say
from captum_blackbox.cli.options import BUDGETS, BudgetName, ModelOptions, StudentOptions, as_typed
from captum_blackbox.cli.question import open_question
from captum_blackbox.cli.teaching import taught_explainer

DISTILLATION_FILE = "distillation.json"


def run_distill(
    options: ModelOptions,
    student: StudentOptions,
    *,
    images: Sequence[Path],
    budget: BudgetName,
    seed: int,
    out: Path,
) -> None:
    """Teach a student, write it and how good it is, and say both."""
    question = open_question(options, out)
    loaded = load_images(images, question.preparation)
    loaded.report_skipped()
    explainer = taught_explainer(
        question, student, loaded.inputs, out, budget=BUDGETS[budget], seed=seed
    )
    report = explainer.report
    files.write_json(
        out / DISTILLATION_FILE,
        {
            "format": 1,
            "settings": {
                "command": "distill",
                **as_typed(options, student, images=images, budget=budget, seed=seed),
                "preparation": str(question.preparation),
                "budget": str(BUDGETS[budget]),
            },
            "versions": files.versions(),
            "queries": question.box.queries,
            "student": None if report is None else report.to_dict(),
            "skipped": loaded.skipped,
        },
    )
    say(str(report))
    say(f"the student is {(out / files.STUDENT_FILE).resolve()}")
