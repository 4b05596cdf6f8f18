"""Property tests of gradients in one line. Needs Hypothesis."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from ..core.tensor import is_tensor, tensor
from ..errors import ShapeError
from .checking import check_gradients
from .programs import as_code
from .report import GradientMismatch, InconclusiveWarning, Report, Verdict
from .strategies import REGIMES, group, unnoted
from .subject import argument_names

__all__ = ["given_tensors", "gradient_property"]

Law = Callable[..., Any]

# The phase that explains runs under a tracer, and says which lines of the checker ran.
_PHASES = [phase for phase in Phase if phase is not Phase.explain]


class _Shown:
    """A drawn argument that prints as code."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        return as_code(self.value)


@st.composite
def _part(draw: st.DrawFn, whole: st.SearchStrategy[tuple[Any, ...]], k: int) -> _Shown:
    return _Shown(draw(whole)[k])


def _run(body: Callable[[tuple[Any, ...]], None], name: str, parameters: Sequence[str], drawn: st.SearchStrategy[tuple[Any, ...]], max_examples: int) -> Callable[[], None]:
    """Hypothesis over the arguments of one function, each printed under its own name."""
    whole = st.shared(drawn, key=object())

    def examples(**shown: _Shown) -> None:
        body(tuple(shown[p].value for p in parameters))

    examples.__name__ = examples.__qualname__ = name
    chosen = settings(max_examples=max_examples, deadline=None, suppress_health_check=list(HealthCheck), phases=_PHASES)
    return chosen(given(**{p: _part(whole, k) for k, p in enumerate(parameters)})(examples))


class _Tally:
    """What became of the examples of one property: a property that never could tell has not passed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.examples = self.inconclusive = 0
        self.failing: tuple[Any, ...] = ()

    def add(self, report: Report) -> None:
        self.examples += 1
        self.inconclusive += report.verdict is Verdict.INCONCLUSIVE

    def close(self) -> None:
        if self.examples and self.inconclusive == self.examples:
            raise AssertionError(f"{self.name}: all {self.examples} examples were inconclusive")


def gradient_property(
    f: Callable[..., Any],
    args: Any = None,
    *,
    order: int = 1,
    modes: Sequence[str] = ("vjp", "jvp"),
    laws: Sequence[Law] = (),
    max_examples: int = 25,
) -> Any:
    """A property test: the gradients of ``f`` are right at every drawn point, to an order, and every law holds there.

    ``args`` says what each argument is drawn from: a strategy, a shape, a regime (a string), or a fixed array; an int asks
    for that many arrays that broadcast; None for as many as ``f`` has parameters. Each of ``laws`` is called with the
    arguments. Assign the result to a name that pytest collects, or decorate a test with it, which then gets each report.

    >>> import tinygrad_rnn as tg
    >>> test_sinh = tg.testing.gradient_property(tg.sinh, order=2, max_examples=5)
    >>> test_sinh()
    >>> @tg.testing.gradient_property(tg.multiply, args=[(2, 3), (3,)], max_examples=5)
    ... def test_multiply(report):
    ...     assert report.tightness < 1e-6
    >>> test_multiply()
    """
    if args is None:
        args = sum(p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in inspect.signature(f).parameters.values())
        if not args:
            raise ShapeError(f"gradient_property: {getattr(f, '__name__', 'the function')} has no parameters without a default; say with args= what to draw")
    if isinstance(args, str) or not isinstance(args, int | tuple | list):
        raise ShapeError(f"gradient_property: args is a list with one entry an argument, or a number of arguments, got {args!r}")
    count = args if isinstance(args, int) else len(args)
    drawn = group(args, "distinct") if isinstance(args, int) else st.tuples(*[_strategy(spec) for spec in args])
    name = getattr(f, "__name__", type(f).__name__)

    def run(test: Callable[[Report], Any] | None) -> None:
        tally = _Tally(name)

        def body(values: tuple[Any, ...]) -> None:
            report = _quietly(f, values, order, modes, tally)
            for law in laws:
                law(*values)
            if test is not None:
                test(report)

        _explained(_run(body, name, argument_names(f, count), drawn, max_examples), f, tally, order, modes)

    def prop(test: Any = None) -> Any:
        if test is None:
            return run(None)

        # Without the parameter: pytest would look for a fixture of its name.
        def decorated() -> None:
            run(test)

        functools.update_wrapper(decorated, test, ("__module__", "__name__", "__qualname__", "__doc__"))
        del decorated.__wrapped__  # type: ignore[attr-defined]
        return decorated

    prop.__name__ = prop.__qualname__ = f"test_{name}"
    return prop


def given_tensors(*specs: Any, order: int = 1, modes: Sequence[str] = ("vjp", "jvp"), dtype: Any = np.float64, max_examples: int = 25) -> Any:
    """``hypothesis.given`` for tensors: shapes, regimes or strategies for the arguments; what the test returns is checked.

    A test that returns tensors gets the gradients of itself checked at the drawn point; one that returns nothing asserts
    what it likes.

    >>> import tinygrad_rnn as tg
    >>> @tg.testing.given_tensors((2, 3), (3, 2), max_examples=5)
    ... def test_dense(x, W):
    ...     return tg.tanh(x @ W)
    >>> test_dense()
    """

    def decorate(test: Callable[..., Any]) -> Any:
        drawn = st.tuples(*[_strategy(spec) for spec in specs])

        def decorated() -> None:
            tally = _Tally(test.__name__)

            def body(values: tuple[Any, ...]) -> None:
                values = tuple(v.astype(dtype) if isinstance(v, np.ndarray) and v.dtype.kind == "f" else v for v in values)
                made = [tensor(v, requires_grad=v.dtype.kind == "f") if isinstance(v, np.ndarray) else v for v in values]
                returned = test(*made)
                if returned is not None:
                    _quietly(test, tuple(made), order, modes, tally)

            _explained(_run(body, test.__name__, argument_names(test, len(specs)), drawn, max_examples), test, tally, order, modes)

        functools.update_wrapper(decorated, test, ("__module__", "__name__", "__qualname__", "__doc__"))
        del decorated.__wrapped__  # type: ignore[attr-defined]
        return decorated

    return decorate


def _strategy(spec: Any) -> st.SearchStrategy[Any]:
    if isinstance(spec, st.SearchStrategy):
        return spec
    if isinstance(spec, str):
        if spec not in REGIMES:
            raise ShapeError(f"an argument is a strategy, a shape, an array or one of the regimes {', '.join(REGIMES)}, got {spec!r}")
        return unnoted(None, (spec,))
    if isinstance(spec, tuple | list | int) and not isinstance(spec, bool):
        return unnoted(tuple(spec) if not isinstance(spec, int) else (spec,), ("distinct",))
    return st.just(spec._data if is_tensor(spec) else spec)


def _quietly(f: Callable[..., Any], values: tuple[Any, ...], order: int, modes: Sequence[str], tally: _Tally) -> Report:
    """The report of one example; what is inconclusive is counted, and no warning. What is wrong is looked for when all is shrunk."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InconclusiveWarning)
        try:
            report = check_gradients(f, *values, order=order, modes=modes, explain=False)
        except GradientMismatch:
            tally.failing = values
            raise
    tally.add(report)
    if report.verdict is Verdict.INCONCLUSIVE:
        note(str(report))
    return report


def _explained(examples: Callable[[], None], f: Callable[..., Any], tally: _Tally, order: int, modes: Sequence[str]) -> None:
    try:
        examples()
    except GradientMismatch as error:
        report = check_gradients(f, *tally.failing, order=order, modes=modes, raises=False)
        raise (GradientMismatch(report) if report.verdict is Verdict.FAIL else error) from error
    tally.close()
