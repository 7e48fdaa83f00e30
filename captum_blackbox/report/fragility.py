"""Fragility curves as a picture: how far explanations move as the radius of an attack grows."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from captum_blackbox.fragility.curves_result import FragilityCurves
from captum_blackbox.report.figure import figure_png, new_axes

def fragility_png(curves, *, published=None):
    figure, _ = new_axes(3, 3)
    return figure_png(figure)
