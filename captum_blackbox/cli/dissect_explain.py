"""Which concepts made the predictions of images."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from captum_blackbox.cli.run import Subject
from captum_blackbox.dissection import NO_CONCEPT, LocalExplanation, NetworkDissection
from captum_blackbox.hooks import evaluating
from captum_blackbox.report import ContributionRow, contribution_rows

_MAPS = 2  # of single concepts


@dataclass(frozen=True)
class Reason:
    """Why an image has the score that it has for one class.

    Attributes:
        class_name: The class.
        is_predicted: Whether it is the one with the highest score.
        probability: Of the class, by softmax.
        explanation: Contributions, of this image alone.
        maps: Concept → where it contributed ``(1, H, W)``; all concepts together come first, under
            the empty name.
    """

    class_name: str
    is_predicted: bool
    probability: float
    explanation: LocalExplanation
    maps: dict[str, Tensor]

    def rows(self) -> list[ContributionRow]:
        """Return what the score is the sum of."""
        return contribution_rows(self.explanation, 0)

    def to_json(self) -> dict[str, Any]:
        """Return the numbers of all concepts."""
        explanation = self.explanation
        return {
            "class": self.class_name,
            "is_predicted": self.is_predicted,
            "probability": self.probability,
            "logit": float(explanation.scores),
            "bias": float(explanation.bias),
            "residual": float(explanation.residual),
            "is_exact": bool(explanation.is_exact),
            "concepts": [
                {"concept": name, "contribution": contribution, "units": list(units)}
                for name, contribution, units in explanation.ranked(0)
            ],
        }


@dataclass(frozen=True)
class Explained:
    """One image.

    Attributes:
        name: Of the file or the scene.
        picture: ``(C, H, W)`` in [0, 1].
        truth: Name of the true class, if known.
        reasons: For the predicted class, then for the true one where that is another.
    """

    name: str
    picture: Tensor
    truth: str | None
    reasons: tuple[Reason, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the numbers."""
        reasons = [reason.to_json() for reason in self.reasons]
        return {"name": self.name, "true": self.truth, "reasons": reasons}


def explained_images(
    dissection: NetworkDissection, subject: Subject, device: torch.device
) -> list[Explained]:
    """Explain the predicted class of each image, and the true one where it is another."""
    images = []
    for index in tqdm(range(len(subject.names)), desc="explaining", unit="image"):
        inputs = subject.inputs[index : index + 1].to(device)
        with torch.no_grad(), evaluating(dissection.model):
            probabilities = dissection.model(inputs)[0].softmax(0)
        predicted = int(probabilities.argmax())
        truth = None if subject.truth is None else int(subject.truth[index])
        targets = [predicted] if truth is None else dict.fromkeys([predicted, truth])
        images.append(
            Explained(
                name=subject.names[index],
                picture=subject.pictures[index],
                truth=None if truth is None else subject.class_name(truth),
                reasons=tuple(
                    Reason(
                        subject.class_name(target),
                        target == predicted,
                        float(probabilities[target]),
                        *_explanation(dissection, inputs, target),
                    )
                    for target in targets
                ),
            )
        )
    return images


def _explanation(
    dissection: NetworkDissection, inputs: Tensor, target: int
) -> tuple[LocalExplanation, dict[str, Tensor]]:
    explanation = dissection.explain(inputs, target)
    if set(explanation.concepts) == {NO_CONCEPT}:
        return explanation, {}
    wanted = {"": None} | {
        share.concept: share.concept for share in explanation.supporting(0, _MAPS)
    }
    maps = {
        name: dissection.attribute(inputs, target, concept=concept)[0]
        for name, concept in wanted.items()
    }
    return explanation, maps
