"""Gradient checks with measured tolerances, laws of recurrence, and Hypothesis strategies.

Only ``strategies``, ``gradient_property`` and ``given_tensors`` need Hypothesis, and load it when they are first used.

>>> import numpy as np, tinygrad_rnn as tg
>>> report = tg.testing.check_gradients(tg.sinh, np.array([0.5, -1.0]))
>>> report.verdict, bool(report)
(<Verdict.PASS: 'pass'>, True)
>>> def wrong(args, g):
...     return (g * np.cosh(args[0]) * 1.000001,)
>>> try:
...     tg.testing.check_vjp(np.sinh, wrong, np.array([0.5, -1.0]))
... except tg.testing.GradientMismatch as error:
...     print(error.report.findings[0].hint)
the factor is 1.000001
"""

import importlib as _importlib
from typing import TYPE_CHECKING

from . import laws
from .checking import check_gradients, check_module, check_vjp
from .report import Finding, GradientMismatch, InconclusiveWarning, Report, Verdict

if TYPE_CHECKING:
    from . import strategies
    from .decorators import given_tensors, gradient_property

_LAZY = {"strategies": "strategies", "gradient_property": "decorators", "given_tensors": "decorators"}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = _importlib.import_module(f"{__name__}.{_LAZY[name]}")
    return module if name == "strategies" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])


__all__ = [
    "Finding",
    "GradientMismatch",
    "InconclusiveWarning",
    "Report",
    "Verdict",
    "check_gradients",
    "check_module",
    "check_vjp",
    "given_tensors",
    "gradient_property",
    "laws",
    "strategies",
]
