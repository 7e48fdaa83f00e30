"""Numbers that judge an explanation."""

from captum_blackbox.metrics.deletion_insertion import Game, deletion, insertion
from captum_blackbox.metrics.maps import one_channel, pixel_ranks
from captum_blackbox.metrics.patch_degradation import Degradation, patch_degradation

__all__ = [
    "Degradation",
    "Game",
    "deletion",
    "insertion",
    "one_channel",
    "patch_degradation",
    "pixel_ranks",
]
