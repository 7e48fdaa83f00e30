"""Train a student on what a black box answers."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from captum_blackbox.black_box import BlackBox
from captum_blackbox.errors import InputError, warn_user
from captum_blackbox.hooks import evaluating
from captum_blackbox.student.distillation.batches import Batches, Data
from captum_blackbox.student.distillation.losses import Loss, TopKMode, check_loss
from captum_blackbox.student.distillation.processes import Processes
from captum_blackbox.student.distillation.random_state import random_state_kept
from captum_blackbox.student.distillation.report import DistillationReport
from captum_blackbox.student.distillation.settings import Settings
from captum_blackbox.student.distillation.training import OptimizerFactory, Training


def distill(
    box: BlackBox,
    student: nn.Module,
    data: Data,
    *,
    student_preprocess: Callable[[Tensor], Tensor] | None = None,
    epochs: int = 20,
    batch_size: int = 64,
    temperature: float = 4.0,
    alpha: float | None = None,
    loss: Loss = "kl",
    topk: TopKMode = "uniform",
    label_smoothing: float = 0.0,
    optimizer: OptimizerFactory | None = None,
    validation: Data | None = None,
    checkpoint: str | Path | None = None,
    seed: int = 0,
    patience: int | None = None,
    min_fidelity: float = 0.7,
    max_gradient_norm: float | None = None,
    mixed_precision: str | None = None,
    device: torch.device | str | None = None,
    show_progress: bool = True,
) -> DistillationReport:
    """Train ``student``, in place, to answer as ``box`` does (Hinton et al. 2015).

    The box is asked about the very tensor that the student sees, so random augmentation is
    consistent between the two ("a good teacher is patient and consistent", Beyer et al. 2022).
    Each image of each epoch is one query, unless the box has a cache that knows it. Afterwards the
    student has its training flags, its device and its ``.grad`` back; only its weights and buffers
    are new.

    With a ``checkpoint`` the run is kept after every epoch, and goes on from there when it is
    started again: on the CPU, with as many threads and processes as before, a run that was killed
    ends with the same bits as one that was not. That holds for tensors, map-style data sets and
    ordinary loaders of them, which are read in an order of our own, whatever random augmentation
    they draw from the global generators of torch, NumPy and ``random``: these are seeded here, and
    get their state back. A loader with a sampler of its own resumes exactly only if the sampler
    draws from those generators too.

    Started with ``torchrun``, the processes share out each batch, sum their gradients and end with
    equal weights, those of a single process with a batch as many times as large (BatchNorm apart:
    each process normalises over its own share, and the running averages are those of the first).

    Args:
        box: The black box.
        student: Gives logits ``(N, classes)``. Weights that require no gradient stay as they are.
        data: Images ``(C, H, W)``, or pairs (image, label): a map-style data set, a tensor, or a
            loader, whose batch size, collation and workers are used.
        student_preprocess: Applied to the images before the student sees them; the box has its own.
        epochs: Times to go through the data.
        batch_size: Images in one step of each process, where ``data`` is no loader.
        temperature: ``T`` of the loss, positive.
        alpha: Weight of the box's answers against hard labels, from 0 to 1; by default 0.9 if the
            data has labels and 1 otherwise. Without labels the hard labels are the box's own.
        loss: ``"kl"`` or ``"mse"``, see ``losses.distillation_loss``.
        topk: How a top-k answer stands for all classes: ``"uniform"``, ``"bucket"`` or
            ``"renormalize"``.
        label_smoothing: Of hard labels, from 0 to 1.
        optimizer: Function from parameters to an optimizer; by default Adam at 1e-3.
        validation: Images to judge on, as for ``data``, asked once; the student ends with the
            weights of the epoch that has the lowest divergence there.
        checkpoint: File (safetensors) that keeps the run.
        seed: Of order, dropout and augmentation; not negative.
        patience: Stop after so many epochs without a lower divergence on validation.
        min_fidelity: Agreement below which there is a warning.
        max_gradient_norm: Clip the gradient to this L2 norm.
        mixed_precision: ``"no"``, ``"bf16"`` or ``"fp16"``; one choice per process.
        device: Where to train; by default the one that Accelerate finds.
        show_progress: Whether to draw a progress bar, on the first process.

    Returns:
        Agreement on ``validation``; without it, on up to 512 images of the last epoch, whose
        answers are at hand.

    Raises:
        InputError: A setting cannot be used, or the data is empty.
        TrainingError: The loss became NaN or infinite.
        ShapeError: The images do not fit the student.
        OutputError: Student and box differ in the number of classes, or the box's answer is unfit.
        ArtifactError: The checkpoint belongs to another run or cannot be written.
        BlackBoxError: The box raised; as for the next, the last checkpoint stands.
        QueryBudgetError: The budget of the box is spent.

    Example:
        >>> box = BlackBox(lambda x: 9 * x.mean((2, 3)), output="logits")
        >>> student = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3))
        >>> images = torch.rand(64, 3, 4, 4, generator=torch.Generator().manual_seed(0))
        >>> report = distill(box, student, images, epochs=4, show_progress=False, min_fidelity=0.0)
        >>> report.queries, report.epochs_run, report.evaluated_on
        (256, 4, 'training')
    """
    if not isinstance(box, BlackBox):
        raise InputError(
            f"expected a BlackBox, got {type(box).__name__}; wrap it as BlackBox(fn, output=…)"
        )
    check_loss(box.output, loss, topk)
    settings = Settings(
        epochs=epochs,
        temperature=temperature,
        alpha=alpha,
        loss=loss,
        topk=topk,
        label_smoothing=label_smoothing,
        seed=seed,
        patience=patience,
        max_gradient_norm=max_gradient_norm,
    )
    if patience is not None and validation is None:
        raise InputError("patience needs validation images: there is nothing to judge an epoch by")
    processes = Processes(mixed_precision, device)

    def read(source: Data, shuffle: bool) -> Batches:
        shares = (processes.number, processes.count)
        return Batches(
            source, batch_size, shuffle=shuffle, seed=seed, process=shares[0], processes=shares[1]
        )

    with _restored(student, processes.device), random_state_kept(processes.device):
        report = Training(
            box,
            student,
            read(data, True),
            None if validation is None else read(validation, False),
            settings,
            optimizer=optimizer,
            student_preprocess=student_preprocess,
            processes=processes,
            show_progress=show_progress,
        ).run(checkpoint)
    if report.agreement < min_fidelity:
        warn_user(
            f"the student agrees with the black box on {100 * report.agreement:.1f} % of the "
            f"{report.evaluated_on} images, less than {100 * min_fidelity:.1f} %: an explanation "
            "of it explains the box badly. Train longer, on more images (TransferSet makes more "
            "of a few), or take a larger student"
        )
    return report


@contextlib.contextmanager
def _restored(student: nn.Module, device: torch.device) -> Iterator[None]:
    gradients = {each: each.grad for each in student.parameters()}
    home = next((each.device for each in gradients), device)
    for parameter in gradients:
        parameter.grad = None
    with evaluating(student), torch.enable_grad():
        student.to(device)
        try:
            yield
        finally:
            for parameter in gradients:
                parameter.grad = None
            student.to(home)
            for parameter, gradient in gradients.items():
                parameter.grad = gradient
