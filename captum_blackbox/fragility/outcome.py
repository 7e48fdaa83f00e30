"""From a walk to a result: who is attacked, when to stop, and what came of it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from captum_blackbox.errors import InputError, warn_user
from captum_blackbox.fragility.ball import Ball
from captum_blackbox.fragility.clean import Clean
from captum_blackbox.fragility.criteria import SuccessTest
from captum_blackbox.fragility.objectives import Task
from captum_blackbox.fragility.prediction import confidence_of, labels_of
from captum_blackbox.fragility.result import (
    NO_SIGNAL,
    WRONG_LABEL,
    AttackResult,
    Measures,
    measured,
)
from captum_blackbox.fragility.walk import Stop, Walked, quiet
from captum_blackbox.shapes import Images


class Judged(NamedTuple):
    """Explanations of images by the network that is judged, and its scores."""

    maps: Tensor
    scores: Tensor


def attackable(clean: Clean, ball: Ball, strict: bool) -> Tensor:
    """Return which images are attacked: those that have their label, if anything may change.

    Raises:
        InputError: ``strict``, and an image has another label.
    """
    wrong = (~clean.has_label).nonzero().flatten().tolist()
    if wrong and strict:
        predicted = labels_of(clean.scores)
        raise InputError(
            f"image {wrong[0]} ({len(wrong)} of {len(clean.label)}) is predicted as "
            f"{int(predicted[wrong[0]])}, not as its label {int(clean.label[wrong[0]])}: there is "
            "no prediction to keep; leave it out, or leave out label"
        )
    return clean.has_label & ball.can_move


def stopping(test: SuccessTest | None, clean: Clean, task: Task, ball: Ball) -> Stop | None:
    """Return what tells a walk which images have succeeded."""
    if test is None:
        return None

    def stop(images: Images, maps: Tensor, scores: Tensor, rows: Tensor) -> Tensor:
        part = clean.rows(rows)
        before, after = _measures(
            part, images, Judged(maps, scores), task.rows(rows), ball.rows(rows)
        )
        return test(before, after)

    return stop


def outcome(
    clean: Clean,
    walked: Walked,
    found: Judged,
    task: Task,
    ball: Ball,
    success: SuccessTest | None,
    settings: Mapping[str, Any],
) -> AttackResult:
    """Measure what a walk achieved.

    Warns:
        ExplanationWarning: Some explanations did not change at first order.
    """
    before, after = _measures(clean, walked.images, found, task, ball)
    kept = labels_of(found.scores) == clean.label
    passed = walked.gained if success is None else (walked.step > 0) & success(before, after)
    reasons = [
        WRONG_LABEL if not has_label else reason
        for has_label, reason in zip(clean.has_label.tolist(), walked.reasons, strict=True)
    ]
    still = [row for row, reason in enumerate(reasons) if reason == NO_SIGNAL]
    if still:
        warn_user(
            f"the explanation of image {still[0]} does not change at first order "
            f"({len(still)} of {len(reasons)} do not): a network of ReLUs needs a surrogate (beta) "
            "and its ReLUs must run in Python, not in a compiled graph; that of a linear one "
            "cannot be attacked"
        )
    return AttackResult(
        inputs=walked.images,
        clean=before,
        attacked=after,
        success=kept & passed,
        label_kept=kept,
        label=clean.label,
        target=clean.target,
        best_step=walked.step,
        steps=torch.tensor(walked.steps),
        trajectory=walked.trajectory,
        eligible=walked.eligible,
        clean_maps=clean.maps,
        attacked_maps=found.maps,
        reasons=tuple(reasons),
        settings=settings,
    )


def _measures(
    clean: Clean, images: Images, found: Judged, task: Task, ball: Ball
) -> tuple[Measures, Measures]:
    both = []
    for maps, scores, at in (
        (clean.maps, clean.scores, clean.images),
        (found.maps, found.scores, images),
    ):
        with quiet():
            both.append(
                measured(
                    clean.maps,
                    maps,
                    k=task.k,
                    confidence=confidence_of(scores, clean.label),
                    region=task.region,
                    distances=ball.distances(at),
                )
            )
    return both[0], both[1]
