"""Teach a student to answer as a black box does."""

from captum_blackbox.student.distillation.distiller import distill
from captum_blackbox.student.distillation.evaluation import evaluate
from captum_blackbox.student.distillation.report import DistillationReport
from captum_blackbox.student.distillation.transfer_set import TransferSet

__all__ = ["DistillationReport", "TransferSet", "distill", "evaluate"]
