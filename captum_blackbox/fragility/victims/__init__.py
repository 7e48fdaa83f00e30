"""Explanations as functions of the images that can be differentiated."""

from captum_blackbox.fragility.victims.derivative import derivative_error
from captum_blackbox.fragility.victims.recognising import victim_of
from captum_blackbox.fragility.victims.victim import Explained, Victim

__all__ = ["Explained", "Victim", "derivative_error", "victim_of"]
