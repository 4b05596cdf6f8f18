"""What a run of checks has covered: a row an operation and a module."""

from __future__ import annotations

import importlib
import os
import pkgutil
import textwrap
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from ..core.primitive import Primitive
from ..core.tensor import is_tensor
from ..errors import TinygradError
from .report import Report, Verdict
from .subject import Differentiable, Gradient, Modular, Subject

HEAD = ("operation", "checks", "order", "modes", "dtypes", "regimes", "errors seen above", "kinks", "inconclusive", "failed")


@dataclass
class Row:
    """What is known about one operation or module."""

    checks: int = 0
    order: int = 0
    modes: set[str] = field(default_factory=set)
    dtypes: set[str] = field(default_factory=set)
    regimes: set[str] = field(default_factory=set)
    tightness: list[float] = field(default_factory=list)
    kinks: int = 0
    inconclusive: int = 0
    failed: int = 0

    def add(self, report: Report, regimes: set[str]) -> None:
        self.checks += 1
        self.inconclusive += report.verdict is Verdict.INCONCLUSIVE
        self.failed += report.verdict is Verdict.FAIL
        self.kinks += report.verdict is Verdict.KINK
        self.regimes |= regimes
        if report:
            self.order = max(self.order, report.order)
            self.modes |= set(report.modes)
            self.dtypes.add(report.dtype)
            self.tightness.append(report.tightness)

    def cells(self) -> list[str]:
        seen = f"{np.median(self.tightness):.0e}, at worst {max(self.tightness):.0e}" if self.tightness else ""
        words = [" ".join(sorted(part)) for part in (self.modes, self.dtypes, self.regimes)]
        return [str(self.checks), str(self.order or ""), *words, seen, *(str(n or "") for n in (self.kinks, self.inconclusive, self.failed))]


class Coverage:
    """The rows of all checks that it was told of."""

    def __init__(self) -> None:
        self.operations: dict[str, Row] = {}
        self.modules: dict[str, Row] = {}
        self.functions: dict[str, Row] = {}
        self.checks: Counter[str] = Counter()
        self.unsure: list[str] = []

    def add(self, report: Report, subject: Subject) -> None:
        """Count a report for every operation on the tape of its subject, and for the module that was checked."""
        self.checks[report.verdict] += 1
        if report.verdict is Verdict.INCONCLUSIVE:
            test = os.environ.get("PYTEST_CURRENT_TEST", "").removesuffix(" (call)")
            self.unsure.append(f"{test + ': ' if test else ''}{report.name}: {report.findings[0].text if report.findings else ''}")
        if not isinstance(subject, Differentiable):
            self.functions.setdefault(report.name, Row()).add(report, {regime(x) for x in subject.xs})
            return
        try:
            steps = subject.observed(subject.xs).records()
            if report.order == 2 and report:
                # What only the gradient itself is made of, as the operations of a convolution's rule.
                gradient = Gradient(subject, np.ones(subject.size))
                steps += gradient.observed(gradient.xs).records()
        except TinygradError:
            steps = []
        met: dict[str, set[str]] = {}
        for step in steps:
            values = [part for value in step.values for part in (value if isinstance(value, list | tuple) else [value])]
            met.setdefault(step.name, set()).update(regime(v._data) for v in values if is_tensor(v) and v.dtype.kind == "f")
        for name, regimes in met.items():
            self.operations.setdefault(name, Row()).add(report, regimes)
        report.operations = tuple(met)
        report.regimes = tuple(sorted(set().union(*met.values()))) if met else ()
        if isinstance(subject, Modular):
            for name in {type(m).__name__ for m in subject.module.modules()}:
                self.modules.setdefault(name, Row()).add(report, {regime(x) for x in subject.xs})

    def table(self) -> str:
        """The coverage as text; operations and modules of this package that no check met are named."""
        sections = (
            ("operation", self.operations, differentiable_operations()),
            ("module", self.modules, module_names()),
            ("hand-written pullback", self.functions, set[str]()),
        )
        parts = [_text(title, sorted(rows.items())) for title, rows, _ in sections if rows]
        for title, rows, ours in sections:
            if ours - set(rows):
                names = textwrap.fill(", ".join(sorted(ours - set(rows))), 120, initial_indent="  ", subsequent_indent="  ")
                parts.append(f"{title}s not checked\n{names}")
        known = len({*self.operations, *differentiable_operations()}) + len({*self.modules, *module_names()})
        met = len(self.operations) + len(self.modules)
        if self.unsure:
            parts.append("\n".join(["inconclusive", *(f"  {line}" if n == 1 else f"  {line} ({n} times)" for line, n in Counter(self.unsure).items())]))
        totals = f"{met} of {known} operations and modules checked, in {self.checks.total()} checks: {self.checks[Verdict.INCONCLUSIVE]} inconclusive, {self.checks[Verdict.FAIL]} failed"
        return "\n\n".join([*parts, totals])


def regime(x: np.ndarray) -> str:
    """In a word, where the values of an array lie."""
    if not x.size:
        return "empty"
    with np.errstate(all="ignore"):
        size = np.abs(x)
        top = float(size.max())
    if not np.isfinite(top):
        return "not-finite"
    if top == 0:
        return "zero"
    if top < 1e-6:
        return "tiny"
    if top >= 1e6:
        return "huge"
    if not size.all():
        return "with-zeros"
    if top >= 8:
        return "large"
    return "ties" if x.size > 1 and np.unique(x).size < x.size else "smooth"


def differentiable_operations() -> set[str]:
    """The names of this package's operations that have a gradient rule."""
    found: set[str] = set()
    ops = importlib.import_module("tinygrad_rnn.ops")
    for info in pkgutil.iter_modules(ops.__path__, "tinygrad_rnn.ops."):
        for value in vars(importlib.import_module(info.name)).values():
            primitive = getattr(value, "primitive", None)
            if isinstance(primitive, Primitive) and any(rule is not None for rule in primitive.rules.values()):
                found.add(primitive.name)
    return found


def module_names() -> set[str]:
    """The names of this package's modules."""
    nn = importlib.import_module("tinygrad_rnn.nn")
    return {name for name, value in vars(nn).items() if isinstance(value, type) and issubclass(value, nn.Module) and value is not nn.Module}


def _text(title: str, rows: list[tuple[str, Row]]) -> str:
    lines = [[title, *HEAD[1:]], *([name, *row.cells()] for name, row in rows)]
    used = [k for k in range(len(HEAD)) if k == 0 or any(line[k] for line in lines[1:])]
    widths = [max(len(line[k]) for line in lines) for k in used]
    return "\n".join("  ".join(line[k].ljust(w) for k, w in zip(used, widths, strict=True)).rstrip() for line in lines)
