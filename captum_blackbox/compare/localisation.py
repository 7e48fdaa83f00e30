"""Metrics of localisation: does the map point at what is known to be the cause?"""

from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

from torch import Tensor

from captum_blackbox.compare.context import Context
from captum_blackbox.compare.method import Method
from captum_blackbox.errors import InputError


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
        """Return the share or the hit for each map, ``(N,)`` in [0, 1]."""
        if context.masks is None:
            raise InputError(f"{self.name} needs masks")
        measures: Any = import_module("captum_blackbox.metrics")
        found: Tensor = getattr(measures, self.name)(maps, context.masks)
        return found
