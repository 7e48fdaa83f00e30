"""Numbers that judge an explanation."""

from captum_blackbox.metrics.deletion_insertion import Game, deletion, insertion
from captum_blackbox.metrics.maps import one_channel, pixel_ranks
from captum_blackbox.metrics.patch_degradation import Degradation, patch_degradation
from captum_blackbox.metrics.similarity import (
    center_of_mass,
    center_shift,
    cosine_similarity,
    rank_correlation,
    region_mass,
    topk_intersection,
)

__all__ = [
    "Degradation",
    "Game",
    "center_of_mass",
    "center_shift",
    "cosine_similarity",
    "deletion",
    "insertion",
    "one_channel",
    "patch_degradation",
    "pixel_ranks",
    "rank_correlation",
    "region_mass",
    "topk_intersection",
]
