"""Images whose concepts are known: read from disk, from data sets, or rendered."""

from captum_blackbox.concepts.broden import BrodenConcepts
from captum_blackbox.concepts.broden_writing import write_broden
from captum_blackbox.concepts.colors import BASIC_COLORS, ColorConcepts
from captum_blackbox.concepts.concept_subset import SubsetConcepts
from captum_blackbox.concepts.concepts import Annotation, Concepts, Label
from captum_blackbox.concepts.masks import MaskConcepts
from captum_blackbox.concepts.panoptic import PanopticConcepts
from captum_blackbox.concepts.scene_concepts import SceneConcepts
from captum_blackbox.concepts.scene_painting import SCENE_COLORS
from captum_blackbox.concepts.scenes import (
    SCENE_CLASSES,
    SCENE_CONCEPTS,
    Scene,
    Scenes,
    render_scene,
)
from captum_blackbox.concepts.shuffled import ShuffledConcepts
from captum_blackbox.concepts.torchvision_data import TorchvisionConcepts
from captum_blackbox.concepts.watermarked import WatermarkedScene, WatermarkedScenes

__all__ = [
    "BASIC_COLORS",
    "SCENE_CLASSES",
    "SCENE_COLORS",
    "SCENE_CONCEPTS",
    "Annotation",
    "BrodenConcepts",
    "ColorConcepts",
    "Concepts",
    "Label",
    "MaskConcepts",
    "PanopticConcepts",
    "Scene",
    "SceneConcepts",
    "Scenes",
    "ShuffledConcepts",
    "SubsetConcepts",
    "TorchvisionConcepts",
    "WatermarkedScene",
    "WatermarkedScenes",
    "render_scene",
    "write_broden",
]
