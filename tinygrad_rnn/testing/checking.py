"""Checks of gradients: of functions of tensors, of hand-written pullbacks, of modules."""

from __future__ import annotations

import inspect
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DtypeError, NotDifferentiableError, ShapeError
from .compare import Comparison, nudged
from .localise import blame
from .programs import as_code
from .records import accuse
from .report import Finding, GradientMismatch, InconclusiveWarning, Report, Verdict
from .requirements import buffers, given_requirements, repeatable, tensor_requirements
from .subject import Differentiable, Given, Gradient, Modular, Subject

if TYPE_CHECKING:
    from .coverage import Coverage

__all__ = ["check_gradients", "check_module", "check_vjp"]

COVERAGE: Coverage | None = None
"""Where reports are counted; set by ``pytest --gradient-report``."""
TALLY: Counter[str] = Counter()
"""How many checks ended with each verdict; ``pytest`` prints it in its closing lines."""

_MODES = ("vjp", "jvp")
_PRINTED = 32


def check_gradients(
    f: Callable[..., Any], *args: Any, order: int = 1, modes: Sequence[str] = _MODES, seed: int = 0, raises: bool = True, explain: bool = True, name: str | None = None
) -> Report:
    """Compare the gradients of ``f`` at ``args`` with derivatives measured from its values; the tolerance is measured too.

    ``f`` takes Tensors and returns a Tensor or nested tuples of them; every floating argument (Tensor, ndarray, float, or
    nested tuples) is differentiated. The check runs in float64; for float32 arguments the float32 gradient is then
    compared with the float64 one. ``order=2`` checks the gradient of the gradient, and that the Hessian is symmetric;
    ``modes`` are the pullback (vjp) and the pushforward (jvp). The result depends on ``seed`` alone.
    ``explain=False`` does not look for the argument, index and record at fault, which takes longer than finding that there is one.

    Returns a :class:`Report`, true for a pass. Raises :class:`GradientMismatch` (an AssertionError) for a gradient that
    is wrong, unless ``raises=False``; warns of a check that is inconclusive, which is no pass.

    Differences: J. J. More and S. M. Wild, Estimating computational noise, SIAM J. Sci. Comput. 33 (2011); extrapolation:
    L. F. Richardson (1911) and E. H. Neville (1934).

    >>> import numpy as np, tinygrad_rnn as tg
    >>> W = np.array([[0.5, -1.0], [1.0, 0.25]])
    >>> report = tg.testing.check_gradients(lambda x, W: tg.tanh(x @ W), np.array([1.0, -2.0]), W, order=2)
    >>> report.verdict
    <Verdict.PASS: 'pass'>
    """
    _options("check_gradients", order, modes, seed, f=f)
    with np.errstate(all="ignore"):
        subject = Differentiable(f, args, name)
        _usable("check_gradients", subject)
        return _checked(subject, order, tuple(modes), seed, raises, f"check_gradients(f, {_code(args)}{_suffix(order, modes, _MODES, seed)})", explain)


def check_module(module: Any, *args: Any, order: int = 1, modes: Sequence[str] = ("vjp",), seed: int = 0, raises: bool = True, explain: bool = True) -> Report:
    """As :func:`check_gradients`, for a module at ``args``: its parameters and its floating arguments.

    A copy of the module is checked, in float64; the module itself stays as it is. Random numbers drawn in ``forward``
    (dropout in training) must be the same at every call: call ``module.eval()`` first.

    >>> import tinygrad_rnn as tg
    >>> from tinygrad_rnn import nn
    >>> bool(tg.testing.check_module(nn.GRUCell(2, 3, rng=0), tg.randn(4, 2, rng=1)))
    True
    """
    _options("check_module", order, modes, seed, module=module)
    if not hasattr(module, "named_parameters"):
        raise DtypeError(f"check_module: module must be a Module, got {type(module).__name__}; check_gradients takes functions")
    with np.errstate(all="ignore"):
        subject = Modular(module, args)
        _usable("check_module", subject)
        return _checked(subject, order, tuple(modes), seed, raises, f"check_module(module, {_code(args)}{_suffix(order, modes, ('vjp',), seed)})", explain)


def check_vjp(f: Callable[..., Any], vjp: Callable[[tuple[Any, ...], Any], Any], *args: Any, seed: int = 0, raises: bool = True, explain: bool = True) -> Report:
    """Check a gradient that was written by hand, for any framework or none: plain ndarrays in and out.

    ``f(*args)`` gives an ndarray (or a tuple of them); ``vjp(args, g)`` gives one gradient an argument for the cotangent
    ``g`` of the output, None for zero. Beside the numbers it checks shape and dtype, that neither arguments nor cotangent
    are changed, that no gradient shares writable memory with them or with another, that the same call gives the same
    answer, and that the answer is linear in the cotangent.

    Returns and raises as :func:`check_gradients` does.

    >>> import numpy as np, tinygrad_rnn as tg
    >>> def vjp(args, g):
    ...     x, y = args
    ...     return g * y, g * x
    >>> tg.testing.check_vjp(np.multiply, vjp, np.array([1.0, 2.0]), np.array([3.0, -1.0])).verdict
    <Verdict.PASS: 'pass'>
    """
    _options("check_vjp", 1, ("vjp",), seed, f=f, vjp=vjp)
    try:
        inspect.signature(vjp).bind((), None)
    except TypeError as error:
        raise DtypeError(f"check_vjp: vjp is called as vjp(args, g), with the tuple of arguments and the cotangent, and cannot be: {error}") from None
    except ValueError:
        pass
    with np.errstate(all="ignore"):
        subject = Given(f, vjp, args)
        _usable("check_vjp", subject)
        return _checked(subject, 1, ("vjp",), seed, raises, f"check_vjp(f, vjp, {_code(args)}{_suffix(1, ('vjp',), ('vjp',), seed)})", explain)


def _options(what: str, order: int, modes: Sequence[str], seed: Any, **functions: Any) -> None:
    for name, function in functions.items():
        if not callable(function):
            raise DtypeError(f"{what}: {name} must be callable, got {type(function).__name__}")
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise ShapeError(f"{what}: seed must be an int of 0 or more, got {seed!r}")
    if order not in (1, 2):
        raise ShapeError(f"{what}: order must be 1 or 2, got {order!r}")
    if isinstance(modes, str) or not modes or not set(modes) <= set(_MODES):
        raise ShapeError(f"{what}: modes must be a selection of {_MODES}, got {modes!r}")


def _usable(what: str, subject: Differentiable | Given) -> None:
    """Something goes in that can be differentiated, and something comes out."""
    if not subject.xs:
        kinds = ", ".join(f"{name} is {_kind(arg)}" for name, arg in zip(subject.arguments.given, subject.arguments.args, strict=True))
        raise DtypeError(f"{what}: {subject.name} has no floating argument to differentiate{': ' if kinds else ''}{kinds}; np.asarray(x, float) makes one")
    if subject.size == 0 and not subject.found:
        raise DtypeError(f"{what}: {subject.name} returned {subject.returned}, expected a floating array or tuples of them")


def _kind(value: Any) -> str:
    return f"of dtype {value.dtype}" if hasattr(value, "dtype") else f"of type {type(value).__name__}"


def _code(args: Sequence[Any]) -> str:
    return ", ".join(as_code(arg, _PRINTED) for arg in args)


def _suffix(order: int, modes: Sequence[str], usual: Sequence[str], seed: int) -> str:
    return (f", order={order}" if order != 1 else "") + (f", modes={tuple(modes)}" if tuple(modes) != tuple(usual) else "") + f", seed={seed}"


def _checked(subject: Subject, order: int, modes: tuple[str, ...], seed: int, raises: bool, reproduce: str, explain: bool = True) -> Report:
    dtype = "float32" if getattr(subject, "arguments", None) is not None and subject.arguments.single else "float64"  # type: ignore[attr-defined]
    report = Report(subject.name, order=order, modes=modes, seed=seed, dtype=dtype, arguments=tuple(subject.names), reproduce=reproduce)
    run = _Run(subject, report, np.random.default_rng(seed), explain)
    run.first_order(modes)
    if order == 2 and report.verdict is not Verdict.FAIL and isinstance(subject, Differentiable):
        run.second_order()
    run.finish()
    TALLY[report.verdict] += 1
    if COVERAGE is not None:
        COVERAGE.add(report, subject)
    if report.verdict is Verdict.FAIL and raises:
        raise GradientMismatch(report)
    if report.verdict is Verdict.INCONCLUSIVE:
        warnings.warn(InconclusiveWarning(str(report)), stacklevel=3)
    return report


class _Run:
    """One check: what has been found so far."""

    def __init__(self, subject: Subject, report: Report, rng: np.random.Generator, explain: bool = True) -> None:
        self.subject, self.report, self.rng, self.explain = subject, report, rng, explain
        self.subjects = [subject]

    def add(self, finding: Finding) -> None:
        self.report.findings.append(finding)
        grade = Verdict.INCONCLUSIVE if finding.kind == "inconclusive" else Verdict.FAIL
        if self.report.verdict is not Verdict.FAIL:
            self.report.verdict = grade

    def first_order(self, modes: tuple[str, ...]) -> None:
        requirements = given_requirements if isinstance(self.subject, Given) else tensor_requirements
        before = [x.copy() for x in self.subject.xs]
        if isinstance(self.subject, Given):
            for finding in buffers(self.subject):
                self.add(finding)
                # What has the wrong shape, or overwrites what it is given, cannot be compared.
                return
        comparison = Comparison(self.subject, self.rng)
        for finding in requirements(self.subject, comparison, self.rng):
            self.add(finding)
            # A function that is not the same twice has no derivative to compare with.
            if finding.kind == "determinism":
                return
        self._numbers(comparison)
        if "jvp" in modes and self.report.verdict is not Verdict.FAIL and isinstance(self.subject, Differentiable):
            self._pushforward(comparison)
        if self.report.verdict is not Verdict.FAIL:
            # After many other calls, of other points and cotangents.
            for finding in repeatable(self.subject, comparison):
                self.add(finding)
        for name, x, y in zip(self.subject.names, self.subject.xs, before, strict=True):
            if not np.array_equal(x, y, equal_nan=True):
                self.add(Finding("mutation", f"argument {name} was changed", argument=name))

    def second_order(self) -> None:
        assert isinstance(self.subject, Differentiable)
        v = self.rng.standard_normal(self.subject.size)
        y, _ = self.subject.linearise(self.subject.xs)
        v[~np.isfinite(y)] = 0
        gradient = Gradient(self.subject, v)
        self.subjects.append(gradient)
        try:
            comparison = Comparison(gradient, self.rng)
        except NotDifferentiableError as error:
            self.add(Finding("order", f"{self.subject.name} has no second derivative: {error}"))
            return
        self._numbers(comparison)
        if self.report.verdict is not Verdict.FAIL:
            self._symmetry(gradient, comparison)

    def _numbers(self, comparison: Comparison) -> None:
        comparison.run()
        report = self.report
        for finding in comparison.findings:
            self.add(finding)
        wrong = next((m for m in comparison.measured if m.outcome == "differs"), None)
        if wrong is not None:
            self.add(
                blame(comparison, wrong, self.explain)
                or Finding("inconclusive", f"the derivative of {comparison.subject.name} could not be measured", expected=wrong.expected, error=wrong.error, got=wrong.got)
            )
        report.kinks += comparison.kinks
        report.tightness = max(report.tightness, float(comparison.tightness))
        if comparison.kinks and report.verdict is Verdict.PASS:
            report.verdict = Verdict.KINK

    def _pushforward(self, comparison: Comparison) -> None:
        """<v, Jv> from forward mode against the same measured derivatives that the pullback was compared with."""
        try:
            pushed = self.subject.pushforward(comparison.directions[0])
        except NotDifferentiableError:
            self.report.modes = tuple(m for m in self.report.modes if m != "jvp")
            return
        if pushed is None:
            return
        for m in comparison.measured:
            if m.direction == 0 and m.outcome == "agrees":
                v = comparison.cotangents[m.cotangent]
                parts = (v * pushed)[v != 0]
                got = float(parts.sum())
                slack = 64 * self.subject.eps * (float(np.abs(parts).sum()) + m.scale)
                if not abs(got - m.expected) <= m.tolerance + slack and not abs(got - m.got) <= slack:
                    self.add(Finding("jvp", f"the pushforward of {self.subject.name} is wrong, its pullback is right", expected=m.expected, error=m.error, got=got))
                    return

    def _symmetry(self, gradient: Gradient, comparison: Comparison) -> None:
        """<u, H w> = <w, H u> for the Hessian of <v, f>."""
        u, w = (np.concatenate([p.ravel() for p in comparison._random_direction()]) for _ in range(2))
        if not u.size:
            return
        gaps = []
        for pullback in (comparison.pullback, *(gradient.linearise(xs)[1] for xs in nudged(comparison.xs, self.subject.eps, self.rng))):
            products = [a * np.concatenate([h.ravel() for h in pullback(b)]) for a, b in ((u, w), (w, u))]
            gaps.append((float(products[0].sum() - products[1].sum()), float(np.abs(products).sum())))
        noise = max(abs(gap - gaps[0][0]) for gap, _ in gaps[1:])
        # As well as its products are known from values: there w was a cotangent, of size 1.
        known = max((m.error for m in comparison.measured if m.direction == 0 and m.outcome == "agrees"), default=0.0) * max(1.0, float(np.abs(w).max()), float(np.abs(u).max()))
        if not abs(gaps[0][0]) <= 64 * (noise + known) + 1024 * self.subject.eps * gaps[0][1] + 1e-300:
            self.add(
                Finding(
                    "symmetry", f"the Hessian of {self.subject.name} is not symmetric: <u, H w> and <w, H u> differ by {gaps[0][0]:.3g}, of terms that add up to {gaps[0][1]:.3g}"
                )
            )

    def finish(self) -> None:
        report = self.report
        last = self.subjects[-1]
        if self.explain and report.verdict is Verdict.FAIL and isinstance(last, Differentiable):
            accuse(report, last, 2 if isinstance(last, Gradient) else 1)
        report.evaluations = sum(s.evaluations for s in self.subjects)
        report.pullbacks = sum(s.pullbacks for s in self.subjects)
