"""Metrics of localisation: does the map point at what is known to be the cause?"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from captum_blackbox.compare.context import Context
from captum_blackbox.compare.method import Method
from captum_blackbox.errors import InputError
from captum_blackbox.metrics.localisation import pointing_game, relevance_mass, relevance_rank

_MEASURES: Mapping[str, Callable[..., Tensor]] = {
    "pointing_game": pointing_game,
    "relevance_mass": relevance_mass,
    "relevance_rank": relevance_rank,
}


@dataclass(frozen=True)
class Localisation:
    """One of ``captum_blackbox.metrics``' measures against a mask; higher is better.

    Args:
        name: Which of them.
    """

    name: Literal["pointing_game", "relevance_mass", "relevance_rank"]
    higher_is_better: bool = True
    needs_masks: bool = True

    def __call__(self, context: Context, _method: Method, maps: Tensor, /) -> Tensor:
        """Return the share or the hit for each map, ``(N,)`` in [0, 1]; NaN for an empty mask."""
        if context.masks is None:
            raise InputError(f"{self.name} needs masks")
        known = context.masks.flatten(1).any(1)
        found = torch.full((len(maps),), torch.nan, dtype=torch.float64, device=maps.device)
        if bool(known.any()):
            found[known] = _MEASURES[self.name](maps[known], context.masks[known])
        return found
