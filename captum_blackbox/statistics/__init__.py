"""One pass over data: update, merge, state, compute."""

from captum_blackbox.statistics.above import places_above
from captum_blackbox.statistics.across_processes import (
    failing_together,
    merge_across_processes,
    this_process,
)
from captum_blackbox.statistics.count import Count
from captum_blackbox.statistics.covariance import Centre, RegimeCovariance
from captum_blackbox.statistics.one_pass import OnePass
from captum_blackbox.statistics.patch_source import PatchSource
from captum_blackbox.statistics.quantile_sketch import QuantileSketch
from captum_blackbox.statistics.regime_sums import Moments
from captum_blackbox.statistics.running import Statistic
from captum_blackbox.statistics.summands import SummandShares
from captum_blackbox.statistics.top_fraction import Interpolation, TopFraction
from captum_blackbox.statistics.top_images import TopImages

__all__ = [
    "Centre",
    "Count",
    "Interpolation",
    "Moments",
    "OnePass",
    "PatchSource",
    "QuantileSketch",
    "RegimeCovariance",
    "Statistic",
    "SummandShares",
    "TopFraction",
    "TopImages",
    "failing_together",
    "merge_across_processes",
    "places_above",
    "this_process",
]
