"""The score that a black box gives to one class of each image."""

from typing import Literal, TypeAlias, cast, get_args

import torch
from jaxtyping import Int64
from torch import Tensor

from captum_blackbox._compat import class_targets
from captum_blackbox.black_box import BlackBox
from captum_blackbox.errors import InputError, check_choice
from captum_blackbox.shapes import Images, PerImage, Scores, Target

Score: TypeAlias = Literal["probability", "logit"]
"""What is read off the answer for a class."""

_MANY_CLASSES = 2**31


class ClassScores:
    """Ask a black box about variants of some images, each for the class of its image.

    Args:
        box: The black box.
        images: The images ``(N, C, H, W)`` that the variants are made of.
        target: A class for all or one for each, in any of Captum's forms; ``None`` asks the box
            for its prediction on ``images``, which costs ``N`` queries.
        score: ``"probability"``; or ``"logit"``, if that is what the box answers.
        variants: How many it will be asked about in all, so that a budget that does not cover them
            is refused now.

    Raises:
        InputError: ``score`` is unknown, or not among what the box answers.
        QueryBudgetError: The box has no cache, and its budget does not cover all of it.
        TargetError: ``target`` does not name one class per image.

    Example:
        >>> box = BlackBox(lambda x: x.flatten(1), output="logits")
        >>> scores = ClassScores(box, torch.zeros(2, 1, 1, 3), [0, 2], "logit")
        >>> scores(torch.tensor([[[[5.0, 6.0, 7.0]]]]), rows=torch.tensor([1]))
        tensor([7.])
    """

    def __init__(
        self,
        box: BlackBox,
        images: Images,
        target: Target,
        score: Score = "probability",
        *,
        variants: int = 0,
    ) -> None:
        check_choice("score", score, get_args(Score))
        if score == "logit" and box.output != "logits":
            raise InputError(
                "score='logit' needs a black box that answers logits, and this one answers "
                f"{box.output}; use score='probability'"
            )
        self._box = box
        self._read_logits = score == "logit"
        self._in_range = target is None or box.num_classes is not None
        if target is not None:
            classes = box.num_classes or _MANY_CLASSES
            self.targets = class_targets(target, len(images), classes, images.device)
        box.check_budget(variants + (len(images) if target is None else 0))
        if target is None:
            self.targets = self._ask(images).argmax(1)

    def __call__(self, variants: Images, rows: Int64[Tensor, " variants"]) -> PerImage:
        """Return the score of each variant, in float32 or wider; ``rows`` names its image.

        Raises:
            TargetError: The first answer shows that the box has fewer classes than ``targets``.
        """
        scores = self._ask(variants)
        if not self._in_range:
            class_targets(self.targets, len(self.targets), scores.shape[1])
            self._in_range = True
        return scores.gather(1, self.targets[rows, None])[:, 0]

    def _ask(self, images: Images) -> Scores:
        if not self._read_logits:
            return self._box(images)
        logits = cast(Tensor, self._box.answers(images))
        return logits.to(torch.promote_types(logits.dtype, torch.float32))
