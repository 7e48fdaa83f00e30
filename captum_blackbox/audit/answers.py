"""What the model says about each image, before anything is explained."""

from dataclasses import dataclass

import torch
from torch import Tensor

from captum_blackbox.black_box import BlackBox
from captum_blackbox.errors import BlackBoxError, InputError, QueryBudgetError

_ENOUGH_CLASSES = 2


@dataclass(frozen=True)
class Answers:
    """What the model answered.

    Attributes:
        rows: Images with an answer, by number.
        predicted: The class of each of these, ``(rows,)``, on the CPU.
        probability: Of it.
        lost: Image without an answer → what was raised.
    """

    rows: tuple[int, ...]
    predicted: Tensor
    probability: Tensor
    lost: dict[int, str]

    @property
    def rounded(self) -> list[list[float]]:
        """Classes and probabilities, to four digits, which rounding on one machine leaves alone."""
        return [
            [float(label), round(float(probability), 4)]
            for label, probability in zip(self.predicted, self.probability, strict=True)
        ]


def asked(box: BlackBox, inputs: Tensor, batch_size: int) -> Answers:
    """Ask about every image; where a batch fails, one by one.

    Raises:
        BlackBoxError: There is an answer to no image.
        InputError: The model knows one class only.
        QueryBudgetError: The budget of the black box is used up.
    """
    lost: dict[int, str] = {}
    known: dict[int, Tensor] = {}
    for rows in torch.arange(len(inputs)).split(batch_size):
        _ask(box, inputs, rows.tolist(), known, lost)
    if not known:
        raise BlackBoxError(f"the model answers for no image: {next(iter(lost.values()))}")
    scores = torch.stack([known[row] for row in sorted(known)])
    if scores.shape[1] < _ENOUGH_CLASSES:
        raise InputError(
            "the model tells one class only, so its probability is always 1 and no map can change "
            "it; give a model with two outputs or more"
        )
    best = scores.max(1)
    return Answers(tuple(sorted(known)), best.indices, best.values, lost)


def _ask(
    box: BlackBox, inputs: Tensor, rows: list[int], known: dict[int, Tensor], lost: dict[int, str]
) -> None:
    try:
        known.update(zip(rows, box(inputs[rows]).cpu(), strict=True))
    except QueryBudgetError:
        raise
    except Exception as error:  # whatever a model raises is reported
        if len(rows) == 1:
            lost[rows[0]] = " ".join(str(error).split()) or type(error).__name__
            return
        for row in rows:
            _ask(box, inputs, [row], known, lost)
