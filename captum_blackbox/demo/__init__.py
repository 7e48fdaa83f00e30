"""Small networks, trained on scenes, that come with the library."""

from captum_blackbox.demo.network import DemoNetwork, load_demo_network
from captum_blackbox.demo.shortcut import (
    Reliance,
    load_control_network,
    load_shortcut_network,
    measure_reliance,
)

__all__ = [
    "DemoNetwork",
    "Reliance",
    "load_control_network",
    "load_demo_network",
    "load_shortcut_network",
    "measure_reliance",
]
