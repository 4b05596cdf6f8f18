"""Gradient checks with measured tolerances, laws of recurrence, and Hypothesis strategies."""

from .checking import check_gradients, check_module, check_vjp
from .report import Finding, GradientMismatch, InconclusiveWarning, Report, Verdict

__all__ = ["Finding", "GradientMismatch", "InconclusiveWarning", "Report", "Verdict", "check_gradients", "check_module", "check_vjp"]
