"""Run one method after another over the images, and judge its maps."""

import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from tqdm.auto import tqdm

from captum_blackbox._compat import captum_notices_ignored
from captum_blackbox.compare.chance import independently, salted
from captum_blackbox.compare.context import Context, NotApplicableError, content_seeds
from captum_blackbox.compare.cost import Spent, measured
from captum_blackbox.compare.method import Method
from captum_blackbox.compare.method_kinds import Plan
from captum_blackbox.compare.metric import Metric
from captum_blackbox.compare.progress import Progress
from captum_blackbox.compare.result import Failure
from captum_blackbox.compare.setup import Setup
from captum_blackbox.errors import BatchMessage, InputError, QueryBudgetError
from captum_blackbox.student.distillation.random_state import number_from, seed_everything

_NO_MASK = (
    "its mask is empty, so that nothing says where a map should point; give the image a mask that "
    "is not 0 where the truth lies, or leave it out"
)


class Run:
    """All methods, all metrics, all images.

    Args:
        context: The images and the model, in evaluation mode.
        setup: What methods are made from.
        metrics: What judges them.
        batches: Images that are explained together; those without a class are in none.
        progress: Where the numbers go.
        bar: That counts images.
    """

    def __init__(
        self,
        context: Context,
        setup: Setup,
        metrics: Sequence[Metric],
        batches: Sequence[list[int]],
        progress: Progress,
        bar: "tqdm[None]",
    ) -> None:
        self._context = context
        self._setup = setup
        self._metrics = metrics
        self._batches = batches
        self._progress = progress
        self._bar = bar
        self._device = context.images.device
        self._seeds = content_seeds(context.images, context.seed)

    def judge(self, row: int, plan: Plan) -> None:
        """Run the method with number ``row`` on all images that are not done."""
        batches = [self._progress.left(row, batch) for batch in self._batches]
        left = [batch for batch in batches if batch]
        self._bar.set_postfix_str(plan.name, refresh=False)
        self._bar.update(sum(map(len, self._batches)) - sum(map(len, left)))
        if not left:
            return
        with self._noting(plan.name):
            job = self._made(row, plan)
        for batch in left:
            if job is not None:
                with self._noting(plan.name):
                    job.run(batch)
            self._progress.finish(row, batch)
            self._bar.update(len(batch))

    def _made(self, row: int, plan: Plan) -> "_Job | None":
        seed_everything(self._device, number_from(self._context.seed))
        start = time.perf_counter()
        try:
            method = plan.made(self._setup)
        except QueryBudgetError:
            raise
        except Exception as error:  # the table says so, and the rest goes on
            applicable = not isinstance(error, NotApplicableError)
            self._progress.fail(Failure(plan.name, None, None, _reason(error), applicable))
            return None
        self._progress.set_making(row, time.perf_counter() - start)
        return _Job(row, method, self._context, self._metrics, self._progress, self._seeds)

    @contextmanager
    def _noting(self, method: str) -> Iterator[None]:
        """Turn warnings into notes."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with captum_notices_ignored():
                yield
        for each in caught:
            self._progress.note(method, _text(each.message, "some image"))


class _Job:
    """One method."""

    def __init__(
        self,
        row: int,
        method: Method,
        context: Context,
        metrics: Sequence[Metric],
        progress: Progress,
        seeds: Sequence[int],
    ) -> None:
        self._row = row
        self._method = method
        self._context = context
        self._metrics = metrics
        self._progress = progress
        self._device = context.images.device
        self._seeds = seeds
        self._draws = False  # the method does
        # A metric must not draw the numbers again that the method has drawn.
        self._metric_seeds = [salted(seeds, metric.name) for metric in metrics]
        self._metric_draws = [bool(getattr(metric, "draws", False)) for metric in metrics]

    def run(self, rows: list[int]) -> None:
        """Explain some images, and judge the maps of those that could be, where no number is."""
        maps = self._explained(rows)
        for column, metric in enumerate(self._metrics):
            missing = {
                image: each
                for image, each in maps.items()
                if not self._progress.has_value(self._row, column, image)
            }
            if missing:
                self._judge(column, metric, missing)

    def _explained(self, rows: list[int]) -> dict[int, Tensor]:
        """Return image → map, ``(1, channels, H, W)``."""

        def explain(some: list[int]) -> tuple[Tensor, Spent]:
            part = self._context.rows(some)
            return measured(
                lambda: self._method(part.images, part.targets), self._method, self._device
            )

        try:
            outcome = independently(
                explain, rows, self._seeds, self._device, one_by_one=self._draws
            )
        except NotApplicableError as error:
            self._fail_all(None, error)
            return {}
        self._draws = outcome.one_by_one
        maps: dict[int, Tensor] = {}
        for some, (found, spent) in outcome.kept:
            self._progress.add_spent(self._row, len(some), spent)
            maps.update(zip(some, found.split(1), strict=True))
        for image, raised in outcome.errors.items():
            self._fail(None, image, raised)
        return self._finite(maps)

    def _finite(self, maps: dict[int, Tensor]) -> dict[int, Tensor]:
        kept = {}
        for image, each in maps.items():
            if not bool(each.isfinite().all()):
                bad = int((~each.isfinite()).sum())
                error = InputError(f"{bad} of {each.numel()} map values are NaN or infinite")
                self._fail(None, image, error)
                continue
            if not bool(each.any()):
                self._progress.note(
                    self._method.name,
                    "some maps are 0 everywhere; what metrics make of them is the order of pixels",
                )
            kept[image] = each
        return kept

    def _judge(self, column: int, metric: Metric, maps: dict[int, Tensor]) -> None:
        def judge(some: list[int]) -> Tensor:
            part = self._context.rows(some)
            found = metric(part, self._method, torch.cat([maps[image] for image in some]))
            return _numbers(found, metric.name, len(some))

        try:
            outcome = independently(
                judge,
                list(maps),
                self._metric_seeds[column],
                self._device,
                one_by_one=self._metric_draws[column],
            )
        except NotApplicableError as error:
            self._fail_all(metric.name, error)
            return
        self._metric_draws[column] = outcome.one_by_one
        for some, values in outcome.kept:
            self._progress.set_values(self._row, column, some, values)
            for image in torch.as_tensor(some)[~values.cpu().isfinite()].tolist():
                unknown = InputError("the metric gave no finite number")
                self._fail_metric(metric, image, unknown)
        for image, raised in outcome.errors.items():
            self._fail_metric(metric, image, raised)

    def _fail(self, metric: str | None, image: int, error: Exception) -> None:
        self._progress.fail(Failure(self._method.name, metric, image, _reason(error)))

    def _fail_metric(self, metric: Metric, image: int, error: Exception) -> None:
        masks = self._context.masks
        if metric.needs_masks and masks is not None and not bool(masks[image].any()):
            name = self._method.name
            self._progress.fail(Failure(name, metric.name, image, _NO_MASK, is_applicable=False))
            return
        self._fail(metric.name, image, error)

    def _fail_all(self, metric: str | None, error: Exception) -> None:
        self._progress.fail(
            Failure(self._method.name, metric, None, _reason(error), is_applicable=False)
        )


def _numbers(found: object, metric: str, images: int) -> Tensor:
    """Return what a metric gave, if it is a number for each image."""
    if not isinstance(found, Tensor) or tuple(found.shape) != (images,):
        got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise InputError(f"{metric!r} has to give a number for each of {images} images, got {got}")
    return found.detach()


def _reason(error: Exception) -> str:
    """Return one line that says what was raised."""
    text = " ".join(_text(error, "the image").split())
    ours = type(error).__module__.startswith("captum_blackbox")
    return text if ours and text else f"{type(error).__name__}: {text}"


def _text(said: Exception | str, image: str) -> str:
    """Return what was said, without the number that an image has in its batch."""
    text = said if isinstance(said, str) else next(iter(said.args), "")
    return text.naming(image) if isinstance(text, BatchMessage) else str(said)
