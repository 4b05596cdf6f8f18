"""Where a wrong gradient is wrong: the argument and the index, what the numbers look like, and the record whose rule it is."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from .compare import Comparison, Measured
from .derivative import AGAIN, Array
from .report import Finding

_SAMPLES = 9
_WHOLE = 64


def blame(comparison: Comparison, culprit: Measured, whole: bool = True) -> Finding | None:
    """The argument, the index and the ratio of a discrepancy, found by halving: O(log n) directions.

    None if the discrepancy is not there when it is measured again, in one argument or in all, with other steps. Not
    ``whole`` stops at the first argument.
    """
    subject, k = comparison.subject, culprit.cotangent
    direction = comparison.directions[culprit.direction]
    floor = subject.rounding(comparison.cotangents[k])
    finding = Finding("value", f"the gradient of {subject.name} is wrong", expected=culprit.expected, error=culprit.error, got=culprit.got)
    parts = [(a, comparison.only(direction, a)) for a, n in enumerate(comparison.sizes) if n]
    found = _worst(((a, comparison.measure(part, k, AGAIN, floor)) for a, part in parts if any(u.any() for u in part)), first=not whole)
    if found is None:
        return None if len(parts) == 1 or _worst(iter([(0, comparison.measure(direction, k, AGAIN, floor))])) is None else finding
    a, measured = found
    finding.argument = subject.names[a]
    finding.expected, finding.error, finding.got = measured.expected, measured.error, measured.got
    if not whole:
        return finding
    start, stop = 0, comparison.sizes[a]
    while stop - start > 1:
        middle = (start + stop) // 2
        halves = {half: comparison.measure(comparison.only(direction, a, *half), k, floor=floor) for half in ((start, middle), (middle, stop))}
        worst = _worst(iter(halves.items()))
        if worst is None:
            break
        (start, stop), measured = worst
    unit = comparison.unit(a, start)
    entry = comparison.measure(unit, k, floor=floor) if stop - start == 1 else measured
    if stop - start == 1 and not abs(entry.got - entry.expected) <= entry.tolerance:
        size = float(unit[a].flat[start])
        finding.index = tuple(map(int, np.unravel_index(start, comparison.xs[a].shape)))
        finding.expected, finding.error, finding.got = entry.expected / size, entry.error / size, entry.got / size
        finding.hint = _hint(comparison, a, k, start, floor)
    else:
        finding.expected, finding.error, finding.got = measured.expected, measured.error, measured.got
    live = np.flatnonzero(comparison.cotangents[k])
    finding.output = int(live[0]) if live.size == 1 else None
    return finding


def _worst(candidates: Iterator[tuple[Any, Measured]], first: bool = False) -> tuple[Any, Measured] | None:
    best, ratio = None, 1.0
    for name, m in candidates:
        apart = abs(m.got - m.expected)
        current = math.inf if not math.isfinite(m.got) else apart / m.tolerance if m.tolerance else math.inf if apart else 0.0
        if current > ratio:
            best, ratio = (name, m), current
            if first:
                break
    return best


def _hint(comparison: Comparison, a: int, k: int, index: int, floor: float) -> str | None:
    """What the ratio of got and expected says, at the index and at some others."""
    size = comparison.sizes[a]
    whole = size <= _WHOLE
    chosen = range(size) if whole else sorted({index, *np.linspace(0, size - 1, _SAMPLES).astype(int).tolist()})
    entries = []
    for i in chosen:
        unit = comparison.unit(a, i)
        m = comparison.measure(unit, k, floor=floor)
        entries.append((m.got / float(unit[a].flat[i]), m.expected / float(unit[a].flat[i]), m.tolerance / float(unit[a].flat[i])))
    got, expected, tolerance = np.array(entries).T
    wrong = ~(np.abs(got - expected) <= tolerance)
    if not np.isfinite(got).all():
        return "it is not finite where the function has a derivative"
    if whole and wrong.any():
        moved = _moved(got.reshape(comparison.xs[a].shape), expected.reshape(comparison.xs[a].shape), np.max(tolerance))
        if moved:
            return moved
    if wrong.sum() < len(chosen) and not wrong[[i for i in chosen].index(index)]:
        return None
    if wrong.sum() == 1 and len(chosen) > 1:
        which = "it alone is wrong" if whole else f"{len(chosen) - 1} others that were looked at are right"
        ratio = _ratio(float(got[wrong][0]), float(expected[wrong][0]), comparison)
        return which + (f"; {ratio}" if ratio else "")
    with np.errstate(all="ignore"):
        ratios = got[wrong] / expected[wrong]
    ratios = ratios[np.isfinite(ratios)]
    if ratios.size and np.ptp(ratios) <= 1e-5 * np.abs(ratios).max() + 1e-12:
        return _ratio(float(np.median(ratios)), 1.0, comparison)
    return None


def _ratio(got: float, expected: float, comparison: Comparison) -> str | None:
    if got == 0:
        return "it is 0: a path is cut, or a contribution is missing"
    if expected == 0:
        return None
    ratio = got / expected
    counts = sorted({n for x in comparison.xs for n in (*x.shape, x.size)} | {comparison.y.size})
    named = {2.0: "twice too large", 0.5: "half of what it should be", -1.0: "the sign is wrong", 0.0: "it is 0"}
    for n in counts:
        if n > 2:
            named |= {float(n): f"{n} times too large: a mean or a broadcast axis of that length", 1 / n: f"1/{n} of what it should be: a sum over an axis of that length"}
            named |= {(n - 1) / n: f"the factor is {n - 1}/{n}: n and n - 1 are exchanged", n / (n - 1): f"the factor is {n}/{n - 1}: n and n - 1 are exchanged"}
    for value, text in named.items():
        if math.isclose(ratio, value, rel_tol=1e-6, abs_tol=1e-12):
            return text
    return f"the factor is {ratio:.9g}"


def _moved(got: Array, expected: Array, tolerance: float) -> str | None:
    """Whether the right numbers stand in other places."""

    def same(x: Array, y: Array) -> bool:
        return x.shape == y.shape and bool(np.all(np.abs(x - y) <= tolerance))

    if got.ndim == 2 and same(got, expected.T):
        return "it is transposed"
    for axis in range(got.ndim):
        if same(got, np.flip(expected, axis)):
            return f"it is reversed along axis {axis}"
        for shift in (1, -1):
            if got.shape[axis] > 2 and same(got, np.roll(expected, shift, axis)):
                return f"it is shifted by one along axis {axis}"
    if got.size > 1 and same(np.sort(got, axis=None), np.sort(expected, axis=None)):
        places = np.flatnonzero(np.abs(got - expected).ravel() > tolerance)
        return f"the right values in other places: flat indices {', '.join(map(str, places[:6]))} are permuted"
    return None
