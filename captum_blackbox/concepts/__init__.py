"""Pictures in which the concepts, and so the true causes of predictions, are known."""

from captum_blackbox.concepts.scene_painting import SCENE_COLORS
from captum_blackbox.concepts.scenes import (
    SCENE_CLASSES,
    SCENE_CONCEPTS,
    Scene,
    Scenes,
    render_scene,
)

__all__ = [
    "SCENE_CLASSES",
    "SCENE_COLORS",
    "SCENE_CONCEPTS",
    "Scene",
    "Scenes",
    "render_scene",
]
