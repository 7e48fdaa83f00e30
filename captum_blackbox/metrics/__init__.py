"""Numbers that judge an explanation."""

from captum_blackbox.metrics.deletion_insertion import Game, deletion, insertion
from captum_blackbox.metrics.maps import one_channel, pixel_ranks

__all__ = ["Game", "deletion", "insertion", "one_channel", "pixel_ranks"]
