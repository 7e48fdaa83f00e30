"""The walk of an attack: step along a direction, judge by the original network, keep the best."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor
from tqdm.auto import tqdm

from captum_blackbox.errors import ExplanationWarning, InputError
from captum_blackbox.fragility.ball import Ball
from captum_blackbox.fragility.chance import DRAWS, random_normals, random_signs
from captum_blackbox.fragility.clean import Clean, judged
from captum_blackbox.fragility.criteria import Criterion
from captum_blackbox.fragility.objectives import Objective, Random, RandomWalk, Task, normalised
from captum_blackbox.fragility.prediction import labels_of
from captum_blackbox.fragility.result import NO_GAIN, NO_SIGNAL
from captum_blackbox.fragility.surrogate import Beta, GrowingBeta, Sharpness, beta_at, softened
from captum_blackbox.fragility.victims import Victim
from captum_blackbox.shapes import Images

OnFlip: TypeAlias = Literal["continue", "revert"]
"""What happens when the label changes: walk on, or step back and halve the step."""

Stop: TypeAlias = Callable[[Images, Tensor, Tensor, Tensor], Tensor]
"""Images, their maps, their scores and their rows → which of them need no more steps."""


@dataclass(frozen=True)
class Plan:
    """How an attack walks.

    Attributes:
        objective: What is maximised.
        criterion: By which the best iterate is chosen.
        beta: Of the surrogate.
        steps: Most steps.
        step: Size of a step, broadcast to the images.
        check_every: The original network judges every so many steps, and the last one.
        on_flip: What happens when the label changes.
        defence_beta: Judge explanations of the network softened by this.
        strict: Raise where there is no signal.
        show_progress: Show a bar that counts steps.
    """

    objective: Objective
    criterion: Criterion
    beta: Beta
    steps: int
    step: Tensor
    check_every: int
    on_flip: OnFlip
    defence_beta: Sharpness | None
    strict: bool
    show_progress: bool


class Walked(NamedTuple):
    """Where an attack ended.

    Attributes:
        images: The best iterate of each image, or the clean one.
        step: When it was met; 0 for the clean one.
        gained: Whether its criterion is better than that of the clean one.
        steps: At which the original network judged.
        trajectory: The criterion there, ``(N, S)``; NaN where an image was not walked any more.
        eligible: Whether the label was kept there, ``(N, S)``.
        reasons: Why an image was not moved.
    """

    images: Images
    step: Tensor
    gained: Tensor
    steps: list[int]
    trajectory: Tensor
    eligible: Tensor
    reasons: list[str]


class Walk:
    """One attack on a batch; images do not influence each other.

    An iterate with another label is walked on from, but never returned. What is returned is the
    iterate with the best criterion, so that more steps are never worse. A random draw is returned
    as it is drawn, and drawn again, some times, if it changes the label.
    """

    def __init__(
        self,
        victim: Victim,
        clean: Clean,
        attacked: Tensor,
        ball: Ball,
        task: Task,
        plan: Plan,
        chance: Sequence[torch.Generator],
        stop: Stop | None = None,
    ) -> None:
        self.victim, self.clean, self.ball, self.task, self.plan = victim, clean, ball, task, plan
        self._chance, self._stop, self._attacked = chance, stop, attacked
        count, images = len(clean.images), clean.images
        self._now, self._best, self._last = images.clone(), images.clone(), images.clone()
        self._value = plan.criterion(task.clean, task).double()
        self._step, self._active = torch.zeros_like(clean.label), attacked.clone()
        self._size = plan.step.expand(count, *plan.step.shape[1:]).clone()
        self._reasons = [""] * count
        self._checked, self._values, self._kept = [0], [self._value.clone()], [clean.has_label]

    def run(self) -> Walked:
        """Walk from the clean images.

        Raises:
            InputError: There is no direction to walk in, and the plan is strict.
        """
        steps = min(DRAWS, self.plan.steps) if self._is_one_draw else self.plan.steps
        bar = tqdm(
            total=steps,
            desc=self.plan.objective.name,
            leave=None,
            disable=not self.plan.show_progress,
        )
        with bar, quiet():
            for number in range(1, steps + 1):
                if not bool(self._active.any()):
                    break
                self._move(number)
                if self._is_one_draw or number % self.plan.check_every == 0 or number == steps:
                    self._judge(number)
                bar.update()
        self._say_what_gained_nothing(self._attacked)
        return Walked(
            self._best,
            self._step,
            self._value > self._values[0],
            self._checked,
            torch.stack(self._values, 1),
            torch.stack(self._kept, 1),
            self._reasons,
        )

    @property
    def _is_one_draw(self) -> bool:
        objective = self.plan.objective
        return isinstance(objective, Random) and not isinstance(objective, RandomWalk)

    def _move(self, number: int) -> None:
        rows = self._active.nonzero().flatten()
        direction = self._direction(number, rows)
        ball = self.ball.rows(rows)
        if self._is_one_draw:
            self._now[rows] = ball.stepped(ball.images, direction, ball.radius)
            return
        if number == 1 and not isinstance(self.plan.objective, Random):
            self._drop_still(rows, direction)
        self._now[rows] = ball.stepped(self._now[rows], direction, self._size[rows])

    def _direction(self, number: int, rows: Tensor) -> Tensor:
        objective, now = self.plan.objective, self._now[rows]
        if isinstance(objective, Random):
            own = [self._chance[row] for row in rows.tolist()]
            if self.ball.norm == "Linf":
                return random_signs(own, now)
            return random_normals(own, now) * self.ball.scale  # alike in all directions, in pixels
        task, part = self.task.rows(rows), self.clean.rows(rows)
        beta = beta_at(self.plan.beta, number - 1)
        with softened(self.victim.network, beta):
            if objective.needs_softened and isinstance(self.plan.beta, GrowingBeta):
                # The clean centre of this surrogate, not of the first.
                soft = self.victim.explain(part.images, part.target, part.extra).maps
                task = task._replace(softened=normalised(soft))
            direction = self.victim.direction(
                now, part.target, lambda maps: objective.loss(normalised(maps), task), part.extra
            )
        # Where a map has no derivative nothing is known, and nothing is done.
        known: Tensor = direction.nan_to_num(0.0, 0.0, 0.0)
        return known

    def _drop_still(self, rows: Tensor, direction: Tensor) -> None:
        still = rows[direction.flatten(1).abs().amax(1) == 0].tolist()
        for row in still:
            self._reasons[row] = NO_SIGNAL
            self._active[row] = False
        if still and self.plan.strict:
            raise InputError(
                f"image {still[0]} ({len(still)} of {len(rows)}) cannot be attacked: {NO_SIGNAL}. "
                "A network of ReLUs needs beta (see `beta`), and its ReLUs must run in Python, "
                "not in a compiled graph"
            )

    def _judge(self, number: int) -> None:
        rows = self._active.nonzero().flatten()
        values = torch.full_like(self._value, torch.nan)
        kept = torch.zeros_like(self._active)
        if len(rows):
            now, part = self._now[rows], self.clean.rows(rows)
            maps, scores = judged(self.victim, now, part.target, part.extra, self.plan.defence_beta)
            finite = maps.flatten(1).isfinite().all(1)
            maps = torch.where(finite.view(-1, 1, 1, 1), maps, 0.0)
            found = self.plan.criterion(normalised(maps), self.task.rows(rows)).to(values)
            finite &= scores.reshape(len(scores), -1).isfinite().all(1)
            same = (labels_of(scores) == part.label) & finite
            values[rows], kept[rows] = found, same
            better = same & (found > self._value[rows])
            if self._is_one_draw:
                better = same
                self._active[rows[same]] = False
            elif self._stop is not None:
                done = self._stop(now, maps, scores, rows) & same
                self._active[rows[done]] = False
                better = better | done
            self._keep(number, rows[better], found[better])
            if self.plan.on_flip == "revert":
                self._last[rows[same]] = now[same]
                self._step_back(rows[~same])
        self._checked.append(number)
        self._values.append(values)
        self._kept.append(kept)

    def _keep(self, number: int, rows: Tensor, values: Tensor) -> None:
        self._best[rows] = self._now[rows]
        self._step[rows] = number
        self._value[rows] = values

    def _step_back(self, flipped: Tensor) -> None:
        self._now[flipped] = self._last[flipped]
        self._size[flipped] = self._size[flipped] / 2

    def _say_what_gained_nothing(self, attacked: Tensor) -> None:
        for row in (attacked & (self._step == 0)).nonzero().flatten().tolist():
            self._reasons[row] = self._reasons[row] or NO_GAIN


@contextmanager
def quiet() -> Iterator[None]:
    """Keep doubts about single maps to oneself: an attack walks through thousands."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExplanationWarning)
        yield
