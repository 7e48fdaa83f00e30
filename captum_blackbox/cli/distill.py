"""``captum-blackbox distill``: only the student."""

from collections.abc import Sequence
from pathlib import Path

from captum_blackbox.cli import results as files
from captum_blackbox.cli.images import load_images
from captum_blackbox.cli.messages import say
from captum_blackbox.cli.options import ModelOptions, StudentOptions
from captum_blackbox.cli.question import open_question
from captum_blackbox.cli.teaching import taught_explainer

DISTILLATION_FILE = "distillation.json"


def run_distill(
    options: ModelOptions,
    student: StudentOptions,
    *,
    images: Sequence[Path],
    seed: int,
    out: Path,
) -> None:
    """Teach a student, write it and how good it is, and say both."""
    question = open_question(options, out)
    loaded = load_images(images, question.preparation)
    explainer = taught_explainer(question, student, loaded.inputs, out, seed=seed)
    report = explainer.report
    files.write_json(
        out / DISTILLATION_FILE,
        {
            "format": 1,
            "settings": {
                "command": "distill",
                "model": options.model,
                "weights": options.weights,
                "student": student.student,
                "epochs": student.epochs,
                "seed": seed,
            },
            "versions": files.versions(),
            "queries": question.box.queries,
            "student": None if report is None else report.to_dict(),
            "skipped": loaded.skipped,
        },
    )
    for name, reason in loaded.skipped.items():
        say(f"skipped {name}: {reason}")
    say(str(report))
    say(f"the student is {(out / files.STUDENT_FILE).resolve()}")
