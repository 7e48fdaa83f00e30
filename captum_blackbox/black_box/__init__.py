"""A model that can only be called: images in, answers out, every question counted."""

from captum_blackbox.black_box.box import BlackBox, as_black_box
from captum_blackbox.black_box.outputs import (
    Answers,
    OutputKind,
    TopK,
    rows_are_probabilities,
)

__all__ = ["Answers", "BlackBox", "OutputKind", "TopK", "as_black_box", "rows_are_probabilities"]
