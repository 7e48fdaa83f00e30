"""Which training points made a prediction: influence functions."""

from captum_blackbox.influence.curvature import Curvature
from captum_blackbox.influence.influence_function import InfluenceFunction, MostInfluential
from captum_blackbox.influence.solvers import ConjugateGradient, ExactSolver, LiSSA, Solver

__all__ = [
    "ConjugateGradient",
    "Curvature",
    "ExactSolver",
    "InfluenceFunction",
    "LiSSA",
    "MostInfluential",
    "Solver",
]
