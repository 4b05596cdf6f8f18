"""The first record on a tape whose own rule is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.state import installed
from ..core.tensor import is_tensor
from ..errors import TinygradError
from .compare import Comparison
from .localise import blame
from .observed import Observed, Step
from .report import Finding, Report
from .subject import Differentiable, Gradient

_MOST = 400
"""Records that are looked at: a rule that is wrong is mostly wrong where it is used first."""


def accuse(report: Report, subject: Differentiable, order: int) -> None:
    """Put the guilty record, the outputs of its tape, and what is wrong with its rule into a report that failed."""
    inner = subject.inner if isinstance(subject, Gradient) else subject
    try:
        observed = inner.observed(inner.xs)
    except TinygradError:
        return
    report.outputs = observed.outputs
    for step in observed.records()[:_MOST]:
        finding = wrong_rule(step, order)
        if finding is not None:
            report.record = step.record
            report.findings.append(finding)
            return
    record = observed.hooked()
    if record is not None:
        report.record = record
        report.findings.append(Finding("hook", f"every rule on the tape is right by itself; a hook changes the gradient of {record.where()}"))
    elif observed.cuts:
        report.findings.append(Finding("cut", f"every rule on the tape is right by itself; {observed.cuts[0]} in the function, and what flows through there has no gradient"))


def wrong_rule(step: Step, order: int = 1) -> Finding | None:
    """What is wrong with the rule of one operation at the values that it met, None if nothing is."""
    subject = _alone(step)
    if subject is None:
        return None
    rng = np.random.default_rng(0)
    try:
        comparison = Comparison(Gradient(subject, rng.standard_normal(subject.size)) if order == 2 else subject, rng)
        comparison.run()
    except TinygradError:
        return None
    wrong = next((m for m in comparison.measured if m.outcome == "differs"), None)
    found = blame(comparison, wrong) if wrong is not None else next((f for f in comparison.findings if f.kind == "value"), None)
    if found is not None:
        found.kind = "rule"
        found.text = f"the rule of {step.name} is wrong by itself"
    return found


def _alone(step: Step) -> Differentiable | None:
    """The operation as a function of the operands that need a gradient, the others fixed."""
    op = step.op
    names = list(op.parameters) if hasattr(op, "parameters") else [f"argument {k}" for k in range(len(step.values))]
    chosen = [k for k, value in enumerate(step.values) if _traced(value)]
    if not chosen:
        return None
    fixed = [value.detach() if is_tensor(value) else value for value in step.values]

    def run(*operands: Any) -> Any:
        values = list(fixed)
        for k, operand in zip(chosen, operands, strict=True):
            values[k] = operand
        if not hasattr(op, "parameters"):
            return op(*values)
        named = dict(zip(names, values, strict=True))
        return op.function(*[named[p] for p in op.positional], **{p: named[p] for p in op.keyword})

    with installed(Observed.quiet()):
        return Differentiable(run, [step.values[k] for k in chosen], step.name, [names[k] for k in chosen])


def _traced(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_traced, value))
    return is_tensor(value) and value._node is not None and value.dtype.kind == "f"
