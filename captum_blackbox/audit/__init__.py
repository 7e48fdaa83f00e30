"""How far can each explanation of a model be trusted? One call, one page."""

from captum_blackbox.audit.auditing import Audit, run_audit
from captum_blackbox.audit.budget import BUDGETS, AuditBudget
from captum_blackbox.audit.images import AuditImages
from captum_blackbox.audit.methods import METHODS
from captum_blackbox.audit.verdicts import Evidence, Grade, Verdict, verdict

__all__ = [
    "BUDGETS",
    "METHODS",
    "Audit",
    "AuditBudget",
    "AuditImages",
    "Evidence",
    "Grade",
    "Verdict",
    "run_audit",
    "verdict",
]
