"""METHOD 1: a black box, a student that imitates it, and the sum of the student's Grad-CAMs."""

from captum_blackbox.student.distillation import DistillationReport, TransferSet, distill, evaluate
from captum_blackbox.student.explainer import DistilledLayerSumGradCAM
from captum_blackbox.student.grad_cam import LayerSumGradCAM
from captum_blackbox.student.networks import student_network
from captum_blackbox.student.rise import RISE
from captum_blackbox.student.token_map import channels_last_map, token_map

__all__ = [
    "RISE",
    "DistillationReport",
    "DistilledLayerSumGradCAM",
    "LayerSumGradCAM",
    "TransferSet",
    "channels_last_map",
    "distill",
    "evaluate",
    "student_network",
    "token_map",
]
