"""``captum-blackbox compare``: methods by metrics, printed and written."""

from collections.abc import Sequence
from pathlib import Path

import torch
import typer
from torch import Tensor, nn

from captum_blackbox.audit.kept import Kept, digest_of
from captum_blackbox.cli import results as files
from captum_blackbox.cli.audit_options import CompareOptions, names_in
from captum_blackbox.cli.images import Preparation, files_in, load_images
from captum_blackbox.cli.messages import say
from captum_blackbox.cli.opened_model import OpenedModel, open_model
from captum_blackbox.cli.options import DEMO, ModelOptions
from captum_blackbox.cli.question import identity_of, question_of
from captum_blackbox.cli.run import Subject
from captum_blackbox.cli.subjects import subject_of
from captum_blackbox.compare import Comparison, compare
from captum_blackbox.compare.method_kinds import planned
from captum_blackbox.compare.metric_names import named_metrics
from captum_blackbox.concepts.image_loading import UNREADABLE
from captum_blackbox.errors import InputError

TABLE_FILE, RANKS_FILE = "comparison.md", "ranks.png"
CSV_FILE, JSON_FILE = "comparison.csv", "comparison.json"


def run_compare(
    options: ModelOptions,
    wanted: CompareOptions,
    *,
    images: Sequence[Path] | None,
    limit: int,
    out: Path,
) -> None:
    """Compare, print the tables, write everything, and say where it is."""
    methods = names_in(wanted.methods, "--methods")
    metrics = names_in(wanted.metrics, "--metrics")
    if wanted.reference is not None and wanted.reference not in methods:
        raise typer.BadParameter(
            f"--reference is one of --methods, {', '.join(methods)}; got {wanted.reference!r}"
        )
    files.check_folder(out)
    opened = open_model(options)
    # What is unknown, or cannot be, is refused before anything is read.
    planned(methods, has_data=bool(wanted.fit_images))
    knows_truth = wanted.masks is not None or (opened.spec == DEMO and not images)
    _check_metrics(metrics, knows_truth=knows_truth)
    subject, _, _ = subject_of(opened, images, limit)
    data = None
    if wanted.fit_images:
        loaded = load_images(wanted.fit_images, opened.preparation)
        loaded.report_skipped()
        data = loaded.inputs
    masks = (
        subject.objects
        if wanted.masks is None
        else read_masks(wanted.masks, subject.names, opened.preparation)
    )
    function = opened.function
    kept = Kept.of(
        out,
        {
            "model": identity_of(options),
            "images": digest_of(subject.inputs),
            "masks": None if masks is None else digest_of(masks),
            "data": None if data is None else digest_of(data),
            "wanted": str((wanted.methods, wanted.metrics, wanted.seed)),
        },
    )
    found = compare(
        function if isinstance(function, nn.Module) else question_of(opened, options, out).box,
        subject.inputs,
        methods,
        metrics,
        masks=masks,
        names=subject.names,
        seed=wanted.seed,
        resume=kept.path("comparison"),
        data=data,
        output=options.output_kind.value,
        batch_size=wanted.batch_size,
    )
    _write(out, found, opened, subject, wanted.reference)
    say(f"the tables and pictures are in {out.resolve()}")


def _check_metrics(metrics: Sequence[str], *, knows_truth: bool) -> None:
    try:
        named_metrics(metrics, has_masks=knows_truth)
    except InputError as error:
        raise InputError(
            str(error).replace("masks=…, (N, H, W), not 0 inside", "--masks")
        ) from None


def read_masks(folder: Path, names: Sequence[str], preparation: Preparation) -> Tensor:
    """Read a mask for each image, ``(N, H, W)`` of 0 and 1, as the model sees the images.

    Args:
        folder: With a picture for each image, of the same name up to its ending.
        names: Of the images, below their folder.
        preparation: How the model takes images.

    Raises:
        InputError: A mask is missing, or is no image.
    """
    known = {Path(name).with_suffix("").as_posix(): path for path, name in files_in([folder])}
    masks = []
    for name in names:
        stem = Path(name).with_suffix("").as_posix()
        if stem not in known:
            raise InputError(
                f"--masks {str(folder)!r} has no mask for the image {name!r}; it would be called "
                f"{stem}.png"
            )
        try:
            picture = preparation.picture(known[stem])
        except UNREADABLE as error:
            raise InputError(f"the mask {str(known[stem])!r} cannot be read: {error}") from error
        masks.append((picture.mean(0) > 0.5).float())  # white is inside
    return torch.stack(masks)


def _write(
    out: Path, found: Comparison, opened: OpenedModel, subject: Subject, reference: str | None
) -> None:
    text = found.to_markdown(reference)
    typer.echo(text, nl=False)
    listed = "".join(f"{row}. {name}\n" for row, name in enumerate(subject.names))
    files.write_text(
        out / TABLE_FILE,
        f"# Methods compared on {opened.short_name}\n\n{text}\nImages:\n\n{listed}",
    )
    found.to_csv(out / CSV_FILE)
    found.to_json(out / JSON_FILE)
    for metric in found.metrics:
        try:
            png = found.metric_png(metric)
        except InputError:
            continue  # it has no number at all, which the table says
        files.write_bytes(out / f"{metric.replace(':', '-')}.png", png)
    try:
        files.write_bytes(out / RANKS_FILE, found.ranks_png())
    except InputError:
        say("no method has a rank, so there is no picture of ranks")
