"""One run of training: epochs over the data, judged on validation, kept on disk."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from tqdm import tqdm

from captum_blackbox.black_box import Answers, BlackBox, TopK
from captum_blackbox.errors import InputError, TrainingError
from captum_blackbox.hooks import evaluating
from captum_blackbox.student.distillation.batches import Batch, Batches
from captum_blackbox.student.distillation.checkpoint import load_checkpoint, save_checkpoint
from captum_blackbox.student.distillation.evaluation import (
    Fidelity,
    FidelitySums,
    check_student,
    student_logits,
)
from captum_blackbox.student.distillation.losses import distillation_loss
from captum_blackbox.student.distillation.processes import Processes
from captum_blackbox.student.distillation.random_state import seed_everything
from captum_blackbox.student.distillation.report import DistillationReport
from captum_blackbox.student.distillation.settings import Settings, run_header

OptimizerFactory: TypeAlias = Callable[[Iterable[nn.Parameter]], Optimizer]
Weights: TypeAlias = dict[str, Tensor]

KEPT_IMAGES = 512
"""Images of the last epoch that each process keeps to judge a student without validation."""

# Streams of random numbers beside those of the batches.
_STEP, _VALIDATION = 2, 3


@dataclasses.dataclass
class Progress:
    """Where a run is; all of it is in the checkpoint."""

    epoch: int = 0
    loss_curve: tuple[float, ...] = ()
    agreement: tuple[float, ...] = ()
    kl: tuple[float, ...] = ()
    best: tuple[Any, ...] | None = None
    best_epoch: int = 0
    queries: int = 0
    seconds: float = 0.0
    report: dict[str, Any] | None = None


class Training:
    """A student, its optimizer, its data, and how far they are.

    Args:
        box: Who is asked.
        student: On the device of ``processes``, in training mode.
        batches: What to train on.
        validation: What to judge on.
        settings: How.
        optimizer: Factory; ``None`` for Adam.
        student_preprocess: Applied before the student sees the images.
        processes: Who trains.
        show_progress: Whether to draw a progress bar.
    """

    def __init__(
        self,
        box: BlackBox,
        student: nn.Module,
        batches: Batches,
        validation: Batches | None,
        settings: Settings,
        *,
        optimizer: OptimizerFactory | None,
        student_preprocess: Callable[[Tensor], Tensor] | None,
        processes: Processes,
        show_progress: bool,
    ) -> None:
        self.box, self.student, self.settings, self.processes = box, student, settings, processes
        self.progress = Progress()
        self._batches, self._validation = batches, validation
        self._preprocess = student_preprocess
        self._show_progress = show_progress and processes.number == 0
        self._parameters = [each for each in student.parameters() if each.requires_grad]
        if not self._parameters:
            raise InputError("the student has no weight that requires a gradient: nothing to train")
        self._optimizer = (optimizer or Adam)(self._parameters)
        if not isinstance(self._optimizer, Optimizer):
            raise InputError(
                "optimizer is a function from parameters to a torch Optimizer, it returned a "
                f"{type(self._optimizer).__name__}"
            )
        self._num_classes: int | None = None
        self._validation_answers: list[Answers] = []
        self._kept: list[tuple[Tensor, Answers]] = []
        self._best: Weights | None = None
        # Before the optimizer is touched, so that a changed learning rate is noticed.
        self._header = run_header(
            settings, box, student, self._optimizer, batches, validation, processes
        )
        self._accelerated = processes.accelerator.prepare_optimizer(
            self._optimizer, device_placement=False
        )

    def run(self, checkpoint: str | Path | None) -> DistillationReport:
        """Train to the end, from ``checkpoint`` if it is there, and say what came of it."""
        if checkpoint is not None:
            self._resume(checkpoint)
        if self.progress.report is not None:
            return DistillationReport.from_dict(self.progress.report)
        self.processes.equalise([*self.student.parameters(), *self.student.buffers()])
        before, asked = self.box.asked, self.progress.queries
        since, spent = time.monotonic(), self.progress.seconds
        self.processes.wait()
        if checkpoint is not None and self.progress.epoch == 0:
            self._save(checkpoint)  # finds out whether it can be written before anything is asked
        self._ask_validation()
        with self._bar() as bar:
            progress = self.progress
            while progress.report is None:
                self._epoch(bar)
                progress.queries = asked + self.processes.asked_since(self.box, before)
                progress.seconds = spent + time.monotonic() - since
                if progress.epoch == self.settings.epochs or self._is_out_of_patience():
                    progress.report = self._report().to_dict()
                if checkpoint is not None:
                    self._save(checkpoint)
        return DistillationReport.from_dict(progress.report)

    def _epoch(self, bar: Any) -> None:  # noqa: ANN401 - tqdm has no types
        progress, epoch = self.progress, self.progress.epoch
        self.student.train()
        loss, images = 0.0, 0
        self._seed(_STEP, epoch, 0)
        for step, batch in enumerate(self._batches.epoch(epoch), start=1):
            loss += batch.total * self._step(batch, epoch, step)
            images += batch.total
            bar.update()
            bar.set_postfix({"loss": loss / images, **self._last_agreement()}, refresh=False)
        self.processes.equalise(self.student.buffers())
        progress.epoch += 1
        progress.loss_curve += (loss / images,)
        if self._validation is not None:
            self._judge()

    def _step(self, batch: Batch, epoch: int, step: int) -> float:
        images = batch.images.to(self.processes.device)
        labels = None if batch.labels is None else batch.labels.to(images.device)
        answers = self._ask(images)
        if self._validation is None and epoch + 1 == self.settings.epochs:
            self._keep(images, answers)
        # After the box has answered: neither one that draws random numbers nor one whose answers
        # are in a cache moves the student's dropout.
        self._seed(_STEP, epoch, step)
        share = len(images) / batch.total
        loss = share * self._loss(self._logits(images), answers, labels)
        accelerator = self.processes.accelerator
        accelerator.backward(loss)
        total = self.processes.sum_gradients(self._parameters, loss.detach()).item()
        if not math.isfinite(total):
            raise TrainingError(
                f"the loss became {total} in epoch {epoch + 1}, step {step}; lower the learning "
                "rate, set max_gradient_norm, or look for NaN in the images"
            )
        if self.settings.max_gradient_norm is not None:
            accelerator.clip_grad_norm_(self._parameters, self.settings.max_gradient_norm)
        self._accelerated.step()
        self._accelerated.zero_grad()
        return total

    def _logits(self, images: Tensor) -> Tensor:
        with self.processes.accelerator.autocast():
            return student_logits(self.student, images, self._preprocess, self._num_classes)

    def _loss(self, logits: Tensor, answers: Answers, labels: Tensor | None) -> Tensor:
        settings, alpha = self.settings, self.settings.alpha
        if alpha == 1:
            labels = None  # they have no weight
        if labels is not None and not 0 <= int(labels.min()) <= int(labels.max()) < logits.shape[1]:
            raise InputError(
                f"labels run from {int(labels.min())} to {int(labels.max())}, the box has classes "
                f"0 … {logits.shape[1] - 1}; give alpha=1.0 to ignore them"
            )
        return distillation_loss(
            logits,
            answers,
            self.box.output,
            labels=labels,
            temperature=settings.temperature,
            alpha=(1.0 if labels is None else 0.9) if alpha is None else alpha,
            loss=settings.loss,
            topk=settings.topk,
            label_smoothing=settings.label_smoothing,
        )

    def _ask(self, images: Tensor) -> Answers:
        if self._num_classes is None:
            known = self.box.num_classes
            self._num_classes = check_student(self.student, images, self._preprocess, known)
        answers = self.box.answers(images)
        if self.box.num_classes not in (None, self._num_classes):
            # The box did not say how many classes it has before it was asked.
            check_student(self.student, images, self._preprocess, self.box.num_classes)
        return answers

    def _ask_validation(self) -> None:
        for batch in self._validation_batches():
            answers = self._ask(batch.images.to(self.processes.device))
            self._validation_answers.append(_moved(answers, torch.device("cpu")))

    def _validation_batches(self) -> Iterator[Batch]:
        # The same seed each time, so that data that is drawn at random is the same data.
        self._seed(_VALIDATION, 0, 0)
        return iter(()) if self._validation is None else self._validation.epoch(0)

    def _keep(self, images: Tensor, answers: Answers) -> None:
        room = KEPT_IMAGES - sum(len(kept) for kept, _ in self._kept)
        if room > 0:
            cpu = torch.device("cpu")
            self._kept.append((images[:room].to(cpu), _moved(answers, cpu, room)))

    def _fidelity(self, pairs: Iterable[tuple[Tensor, Answers]]) -> Fidelity:
        device = self.processes.device
        sums = FidelitySums(self.box.output, self._num_classes or 0, self.settings.topk)
        with evaluating(self.student), torch.no_grad():
            for images, answers in pairs:
                logits = self._logits(images.to(device))
                sums.add(logits, _moved(answers, device))
        sums.sums = self.processes.sum(sums.sums)
        return sums.result()

    def _judge(self) -> None:
        images = (batch.images for batch in self._validation_batches())
        fidelity = self._fidelity(zip(images, self._validation_answers, strict=True))
        progress = self.progress
        progress.agreement += (fidelity.agreement,)
        progress.kl += (fidelity.kl,)
        if progress.best is None or fidelity.kl < progress.best[1]:
            progress.best, progress.best_epoch = tuple(fidelity), progress.epoch
            self._best = {
                name: value.detach().cpu().clone()
                for name, value in self.student.state_dict().items()
            }

    def _is_out_of_patience(self) -> bool:
        patience = self.settings.patience
        return patience is not None and self.progress.epoch - self.progress.best_epoch >= patience

    def _report(self) -> DistillationReport:
        progress = self.progress
        if progress.best is not None and self._best is not None:
            fidelity = Fidelity(*progress.best)
            self.student.load_state_dict(self._best)
        else:
            fidelity = self._fidelity(self._kept)
            progress.best_epoch = progress.epoch
        return DistillationReport(
            agreement=fidelity.agreement,
            kl=fidelity.kl,
            r2=fidelity.r2,
            evaluated_on="training" if self._validation is None else "validation",
            evaluated_images=fidelity.images,
            queries=progress.queries,
            epochs_run=progress.epoch,
            best_epoch=progress.best_epoch,
            loss_curve=progress.loss_curve,
            validation_agreement=progress.agreement,
            validation_kl=progress.kl,
            seconds=progress.seconds,
        )

    def _save(self, checkpoint: str | Path) -> None:
        if self.processes.number == 0:
            scaler = self.processes.accelerator.scaler
            state = {
                "student": self.student.state_dict(),
                "optimizer": self._optimizer.state_dict(),
                "scaler": None if scaler is None else scaler.state_dict(),
                "best": self._best,
                "progress": dataclasses.asdict(self.progress),
            }
            save_checkpoint(checkpoint, state, self._header)
        self.processes.wait()

    def _resume(self, checkpoint: str | Path) -> None:
        state = load_checkpoint(checkpoint, self._header)
        if state is not None:
            self.student.load_state_dict(state["student"])
            self._optimizer.load_state_dict(state["optimizer"])
            if state["scaler"] is not None:
                self.processes.accelerator.scaler.load_state_dict(state["scaler"])
            self._best = state["best"]
            self.progress = Progress(**state["progress"])
        self.processes.wait()

    def _seed(self, stream: int, epoch: int, step: int) -> None:
        seed, process = self.settings.seed, self.processes.number
        seed_everything(self.processes.device, seed, stream, epoch, process, step)

    def _last_agreement(self) -> dict[str, float]:
        return dict(zip(["agreement"], self.progress.agreement[-1:], strict=False))

    @contextmanager
    def _bar(self) -> Iterator[Any]:
        steps = self._batches.steps
        with tqdm(
            desc="distill",
            total=None if steps is None else steps * self.settings.epochs,
            initial=0 if steps is None else steps * self.progress.epoch,
            unit="step",
            disable=not self._show_progress,
        ) as bar:
            yield bar


def _moved(answers: Answers, device: torch.device, first: int | None = None) -> Answers:
    if isinstance(answers, TopK):
        return TopK(answers.values[:first].to(device), answers.indices[:first].to(device))
    return answers[:first].to(device)
