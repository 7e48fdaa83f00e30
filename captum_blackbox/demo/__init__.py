"""A small network, trained on scenes, that comes with the library."""

from captum_blackbox.demo.network import DemoNetwork, load_demo_network

__all__ = ["DemoNetwork", "load_demo_network"]
