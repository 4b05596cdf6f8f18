"""What a check found: verdict, findings, and how to see them again."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Finding", "GradientMismatch", "InconclusiveWarning", "Report", "Verdict"]


class Verdict(enum.StrEnum):
    """The outcome of a check; ``KINK`` is a pass at a point where one-sided derivatives differ and the answer lies between them."""

    PASS = "pass"
    KINK = "kink-pass"
    INCONCLUSIVE = "inconclusive"
    FAIL = "fail"


@dataclass
class Finding:
    """One thing that is wrong, or could not be decided."""

    kind: str
    text: str
    argument: str | None = None
    index: tuple[int, ...] | None = None
    output: int | None = None
    expected: float | None = None
    error: float | None = None
    got: float | None = None
    hint: str | None = None

    def __str__(self) -> str:
        lines = [self.text]
        if self.expected is not None and self.got is not None:
            where = f"{self.argument or 'along a direction through all arguments'}{'' if self.index is None else list(self.index)}"
            scale = abs(self.expected)
            relative = f", relative error {abs(self.got - self.expected) / scale:.2g}" if scale else ""
            lines.append(f"  {where}: expected {self.expected:.10g} +- {self.error:.1g}, got {self.got:.10g}{relative}")
        if self.hint:
            lines.append(f"  hint: {self.hint}")
        return "\n".join(lines)


@dataclass
class Report:
    """The result of a check. True if it passed; an inconclusive check is not true.

    ``tightness`` is the relative error that would still have been seen; ``evaluations`` and ``pullbacks`` count the
    calls; ``record`` is the place on the tape whose own rule is wrong, where one was found.
    """

    name: str
    verdict: Verdict = Verdict.PASS
    order: int = 1
    modes: tuple[str, ...] = ("vjp",)
    seed: int = 0
    tightness: float = 0.0
    evaluations: int = 0
    pullbacks: int = 0
    kinks: int = 0
    dtype: str = "float64"
    arguments: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()
    regimes: tuple[str, ...] = ()
    findings: list[Finding] = field(default_factory=list)
    record: Any = None
    reproduce: str = ""
    outputs: Any = field(default=None, repr=False)

    def __bool__(self) -> bool:
        return self.verdict in (Verdict.PASS, Verdict.KINK)

    def __str__(self) -> str:
        lines = [f"{self.name}: {self.verdict}, order {self.order}, {self.dtype}, {self.evaluations} evaluations and {self.pullbacks} pullbacks"]
        if self.findings:
            lines += [str(finding) for finding in self.findings]
        if self:
            seen = f", errors above {self.tightness:.1g} would have been seen" if self.tightness else ""
            lines[0] += seen + (f", {self.kinks} kink{'s' * (self.kinks > 1)}" if self.kinks else "")
        if self.record is not None:
            lines.append(f"  on the tape: {self.record.where()}, shape {self.record.shape}")
        if self.reproduce and not self:
            lines.append(f"  reproduce: {self.reproduce}")
        return "\n".join(lines)

    def graph(self, **options: Any) -> Any:
        """The graph of the computation with the guilty record marked, drawn by :func:`tinygrad_rnn.graph`."""
        from .drawn import marked

        return marked(self, **options)


class GradientMismatch(AssertionError):
    """A gradient that is wrong; ``report`` says where and how."""

    def __init__(self, report: Report) -> None:
        super().__init__(str(report))
        self.report = report


class InconclusiveWarning(UserWarning):
    """A check that could not tell right from wrong."""
