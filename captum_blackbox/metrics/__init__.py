"""Numbers that judge an explanation."""

from captum_blackbox.metrics import axioms
from captum_blackbox.metrics.deletion_insertion import Game, deletion, insertion
from captum_blackbox.metrics.localisation import pointing_game, relevance_mass, relevance_rank
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
    "axioms",
    "center_of_mass",
    "center_shift",
    "cosine_similarity",
    "deletion",
    "insertion",
    "one_channel",
    "patch_degradation",
    "pixel_ranks",
    "pointing_game",
    "rank_correlation",
    "region_mass",
    "relevance_mass",
    "relevance_rank",
    "topk_intersection",
]
