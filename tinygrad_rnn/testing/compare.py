"""The comparison of a pullback with measured derivatives, along directions and for cotangents that leave nothing hidden."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from .derivative import DEEP, EPS, FIRST, OTHER, Array, Estimate, Jump, estimate, jumps, sample
from .report import Finding
from .subject import Pullback, Subject

CONCLUSIVE = 1e-3
"""A check that would let pass a relative error above this has not seen enough."""
NEGLIGIBLE = 1e-7
"""A derivative known to this part of what the function changes over its arguments' scale is as good as known."""
SAFETY = 8.0
FEW_INPUTS, FEW_OUTPUTS = 8, 4
SECOND_LOOKS = 12
_SPLIT, _ROWS, _BENT = 32, 512, 1e-3
_COARSE, _NEAR = 1e-6, 0.01
_SMALL_PART, _LARGE_BEND, _EXPLAINED, _LINES = 0.05, 0.3, 64, 1

Direction = list[Array]


@dataclass
class Measured:
    """A pullback against measured derivatives, for one direction and one cotangent."""

    direction: int
    cotangent: int
    got: float
    expected: float
    error: float
    scale: float
    """The size of the parts of which ``got`` is the sum."""
    natural: float = 0.0
    """The size of the values, and of what they change by."""
    outcome: str = "agrees"

    @property
    def tolerance(self) -> float:
        return SAFETY * self.error


class Comparison:
    """Everything measured about one subject: values along directions, and pullbacks of cotangents."""

    def __init__(self, subject: Subject, rng: np.random.Generator) -> None:
        self.subject, self.rng = subject, rng
        self.xs = subject.xs
        self.sizes = [x.size for x in self.xs]
        self.y, self.pullback = subject.linearise(self.xs)
        self.finite = np.isfinite(self.y)
        self.scales = [_scale(x) for x in self.xs]
        self.cotangents = self._cotangents()
        self.gradients = [self.pullback(v) for v in self.cotangents]
        self.directions = self._directions()
        self.findings: list[Finding] = []
        self.measured: list[Measured] = []
        self.kinks = 0
        self.tightness = 0.0
        self.others: dict[int, tuple[Array, Array]] = {}
        """What the outputs change by at the other steps, by the direction."""
        self.shaken: list[Pullback] | None = None
        self.jumps: list[Jump] = []
        self.meeting = False

    def _cotangents(self) -> Array:
        """Signed normal ones, one that weighs every output by what it changes, and each output by itself where they are few."""
        n = self.y.size
        rows = [self.rng.standard_normal(n) for _ in range(1 if n == 1 else 2)]
        if n > 1:
            moved = np.abs(self._moved(self._random_direction(1e-3)))
            moved[~np.isfinite(moved)] = 0
            top = moved.max(initial=0)
            if top > 0 and moved[moved > 0].min() < 1e-3 * top:
                rows.append(self.rng.standard_normal(n) * np.where(moved > 0, moved[moved > 0].min() / np.where(moved > 0, moved, 1), 1))
        if 1 < n <= FEW_OUTPUTS:
            rows += list(np.eye(n))
        v = np.array(rows).reshape(len(rows), n)
        v[:, ~self.finite] = 0
        if self.subject.eps > EPS:
            v = v.astype(np.float32).astype(np.float64)
        return v

    def _random_direction(self, factor: float = 1.0) -> Direction:
        return [factor * s * self.rng.standard_normal(x.shape) for s, x in zip(self.scales, self.xs, strict=True)]

    def _directions(self) -> list[Direction]:
        """At the scale of each argument, of each element, with the large parts of the gradient held down, and each element where they are few."""
        found = [self._random_direction()]
        total = sum(self.sizes)
        if total > 1:
            own = [_own_scale(x, s) for x, s in zip(self.xs, self.scales, strict=True)]
            found.append([s * self.rng.standard_normal(x.shape) for s, x in zip(own, self.xs, strict=True)])
            found.append(self._equalised())
        if 1 < total <= FEW_INPUTS:
            found += [self.unit(a, k) for a, n in enumerate(self.sizes) for k in range(n)]
        return found

    def _equalised(self) -> Direction:
        parts = [np.abs(g) * s for g, s in zip(self.gradients[0], self.scales, strict=True)]
        sizes = np.concatenate([p.ravel() for p in parts])
        sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
        low = float(np.quantile(sizes, 0.1)) if sizes.size else 1.0
        return [u * np.where(p > low, low / np.where(p > low, p, 1), 1) for u, p in zip(self._random_direction(), parts, strict=True)]

    def unit(self, argument: int, index: int) -> Direction:
        """The direction of one element, at its own scale."""
        u = [np.zeros(x.shape) for x in self.xs]
        u[argument].flat[index] = _own_scale(self.xs[argument], self.scales[argument]).flat[index]
        return u

    def only(self, direction: Direction, argument: int, start: int = 0, stop: int | None = None) -> Direction:
        """A part of a direction: of one argument, from one flat index to another."""
        u = [np.zeros(x.shape) for x in self.xs]
        u[argument].flat[start:stop] = direction[argument].flat[start:stop]
        return u

    def _moved(self, direction: Direction) -> Array:
        with np.errstate(all="ignore"):
            return np.asarray(self.subject.near([x + u for x, u in zip(self.xs, direction, strict=True)]) - self.y)

    def along(self, direction: Direction, rows: Array, steps: Sequence[float]) -> tuple[Array, Array]:
        """What the outputs, weighed by the rows, change along a direction: two arrays (steps, rows)."""
        rows = rows[:, self.finite]

        def values(t: float) -> Array:
            moved = (self.subject.near([x + t * u for x, u in zip(self.xs, direction, strict=True)]) - self.y)[self.finite]
            if np.isfinite(moved).all():
                return np.asarray(rows @ moved)
            return np.array([np.sum(v[v != 0] * moved[v != 0]) for v in rows])

        with np.errstate(all="ignore"):
            return sample(values, steps)

    def floor(self, k: int) -> float:
        """The least noise of a value: the rounding of its outputs, and of the arguments that it is computed at."""
        gradient = self.gradients[k]
        eps = self.subject.eps
        with np.errstate(all="ignore"):
            outputs = float(np.sum(np.abs(self.cotangents[k] * np.where(self.finite, self.y, 0))))
            inputs = sum(float(np.sum(np.abs(g * x))) for g, x in zip(gradient, self.xs, strict=True))
        return eps * (outputs + (inputs if np.isfinite(inputs) else 0.0)) / 2

    def got(self, direction: Direction, gradient: list[Array]) -> tuple[float, float]:
        """The derivative along a direction that a gradient claims, and the size of the parts it is the sum of."""
        with np.errstate(all="ignore"):
            parts = np.concatenate([(g * u).ravel() for g, u in zip(gradient, direction, strict=True)] or [np.zeros(0)])
            parts = parts[parts != 0]
            top = np.abs(parts).max(initial=0)
            scale = top * float(np.sqrt(np.sum((parts / top) ** 2))) if 0 < top < np.inf else float(top)
            return float(parts.sum()), scale

    def measure(self, direction: Direction, k: int, steps: Sequence[float] = tuple(sorted({*FIRST, *DEEP}, reverse=True)), floor: float = 0.0) -> Measured:
        """One direction and one cotangent, at leisure."""
        ahead, behind = self.along(direction, self.cotangents[k : k + 1], steps)
        found = estimate(np.array(steps), ahead, behind, np.array([max(floor, self.floor(k))]))
        value, scale = self.got(direction, self.gradients[k])
        scale = scale if np.isfinite(scale) else 0.0
        return Measured(-1, k, value, float(found.value[0]), float(found.error[0]) + 4 * self.subject.eps * scale, scale)

    def run(self) -> None:
        """Compare along all directions; look again, deeper, where that did not suffice; then ask for second opinions."""
        if not self.y.size or not sum(self.sizes):
            return
        if not self.finite.any():
            self.findings.append(Finding("inconclusive", f"no value of {self.subject.name} is finite here"))
            return
        if self._not_finite():
            return
        # What is wrong mostly shows in the first direction already.
        self._pass([0])
        if not self.failed:
            self._pass(list(range(1, len(self.directions))))
        if self.kinks and not self.failed and sum(self.sizes) > 1:
            # Between one-sided derivatives in each element a wrong answer may still leave their hull.
            start = len(self.directions)
            self.directions += [[np.abs(u) for u in self._random_direction()], *(self._random_direction() for _ in range(2))]
            # Where every element claims as much as it can, too large a claim leaves the hull however many kinks there are.
            self.directions += [[np.sign(g) * np.abs(u) for g, u in zip(gradient, self._random_direction(), strict=True)] for gradient in self.gradients[:2]]
            self._pass(list(range(start, len(self.directions))))
        if not self.failed:
            self._cover()

    def _not_finite(self) -> bool:
        """A gradient that is not finite is wrong where the function has one."""
        for k, gradient in enumerate(self.gradients):
            for a, g in enumerate(gradient):
                bad = np.flatnonzero(~np.isfinite(g))
                if not bad.size:
                    continue
                name, index = self.subject.names[a], tuple(map(int, np.unravel_index(int(bad[0]), g.shape)))
                if not np.isfinite(self.xs[a].flat[bad[0]]):
                    self.findings.append(Finding("inconclusive", f"argument {name} is not finite at {list(index)}", name, index))
                    return True
                unit = self.unit(a, int(bad[0]))
                size = float(unit[a].flat[bad[0]])
                m = self.measure(unit, k)
                if m.error <= CONCLUSIVE * abs(m.expected) or m.error <= NEGLIGIBLE * self._natural(k):
                    text = f"the gradient of {self.subject.name} is not finite where the function has a derivative"
                    self.findings.append(Finding("value", text, name, index, None, m.expected / size, m.error / size, float(g[index])))
                else:
                    self.findings.append(Finding("inconclusive", f"the gradient of {self.subject.name} for {name} is not finite at {list(index)}", name, index))
                return True
        return False

    @property
    def failed(self) -> bool:
        return any(m.outcome == "differs" for m in self.measured)

    def _pass(self, chosen: list[int]) -> None:
        if not chosen:
            return
        tables = [self.along(self.directions[i], self.cotangents, FIRST) for i in chosen]
        again = []
        for i, table, found in zip(chosen, tables, self._estimates(FIRST, tables), strict=True):
            columns = self._columns(i, found, table)
            if all(c.outcome == "agrees" for c in columns):
                self.measured += columns
                self.kinks += int(found.kink.any())
            else:
                again.append((i, table))
        # What fails in one direction fails in many: a few are enough to say so.
        for i, (ahead, behind) in again[:SECOND_LOOKS]:
            more = self.along(self.directions[i], self.cotangents, DEEP)
            steps = np.array([*FIRST, *DEEP])
            order = np.argsort(-steps)
            order = order[np.append(True, np.diff(steps[order]) != 0)]
            table = np.vstack([ahead, more[0]])[order], np.vstack([behind, more[1]])[order]
            (found,) = self._estimates(steps[order], [table])
            columns = self._columns(i, found, table)
            for c in columns:
                if c.outcome == "differs":
                    self._second_opinion(c, found, steps[order], table)
                self.measured.append(c)
                if c.outcome == "differs":
                    return
            self.kinks += int(any(c.outcome == "kink" for c in columns) or bool(found.kink.any()))

    def _estimates(self, steps: Sequence[float] | Array, tables: list[tuple[Array, Array]]) -> list[Estimate]:
        """The estimates of several directions, made in one go."""
        floors = np.array([self.floor(k) for k in range(len(self.cotangents))])
        ahead, behind = (np.hstack([table[side] for table in tables]) for side in (0, 1))
        whole = estimate(np.array(steps), ahead, behind, np.tile(floors, len(tables)))
        m = len(floors)
        return [Estimate(*(value[k * m : (k + 1) * m] for value in vars(whole).values())) for k in range(len(tables))]

    def _columns(self, i: int, found: Estimate, table: tuple[Array, Array]) -> list[Measured]:
        columns = []
        for k, (v, gradient) in enumerate(zip(self.cotangents, self.gradients, strict=True)):
            got, scale = self.got(self.directions[i], gradient)
            column = Measured(i, k, got, float(found.value[k]), float(found.error[k]) + 4 * self.subject.eps * scale, scale)
            with np.errstate(all="ignore"):
                agrees = abs(got - column.expected) <= column.tolerance
            natural = max(float(np.sum(np.abs(v * np.where(self.finite, self.y, 0)))), *(float(np.max(np.abs(t[:, k]), initial=0, where=np.isfinite(t[:, k]))) for t in table))
            column.natural = natural
            known = column.tolerance <= max(CONCLUSIVE * scale, NEGLIGIBLE * natural)
            column.outcome = "agrees" if agrees and known else "unknown" if agrees or not np.isfinite(column.error) else "differs"
            columns.append(column)
        return columns

    def _second_opinion(self, c: Measured, found: Estimate, steps: Array, table: tuple[Array, Array]) -> None:
        """Before anyone is accused: other steps, kinks, the noise of the answer itself, and what rounding inside can do."""
        k, direction = c.cotangent, self.directions[c.direction]
        if c.direction not in self.others:
            self.others[c.direction] = self.along(direction, self.cotangents, OTHER)
        own, other_table = ((ahead[:, k : k + 1], behind[:, k : k + 1]) for ahead, behind in (table, self.others[c.direction]))
        floor = max(self.floor(k), self.subject.rounding(self.cotangents[k]))
        first = estimate(steps, *own, np.array([floor]))
        second = estimate(np.array(OTHER), *other_table, np.array([floor]))
        exact = self.subject.analytic(direction, self.cotangents[k])
        noise = self._answer_noise(direction, k)
        still = not any(side[at <= _NEAR].any() for at, pair in ((steps, own), (np.array(OTHER), other_table)) for side in pair)
        if still and self.subject.hides_changes(direction, self.cotangents[k], c.got):
            c.outcome = "unknown"
            return
        with np.errstate(all="ignore"):
            if exact is not None and np.isfinite(exact[0]):
                c.expected, c.error = exact[0], exact[1] + noise + 4 * self.subject.eps * c.scale
                apart = abs(c.got - c.expected)
                measured = min((float(e.error[0]), float(e.value[0])) for e in (first, second))
                if apart <= c.tolerance:
                    c.outcome = "agrees" if c.tolerance <= max(CONCLUSIVE * c.scale, 1e-12 * abs(c.expected)) else "unknown"
                elif not abs(measured[1] - c.expected) <= SAFETY * (measured[0] + c.error) + 1e-6 * abs(c.expected):
                    c.outcome = "unknown"
                return
            if first.kink[0] and second.kink[0]:
                low, high, error = self._between(direction, self.cotangents[k], np.array(FIRST))
                slack = SAFETY * (error + 4 * self.subject.eps * c.scale + noise * (noise < 1e-6 * c.scale))
                if low - slack <= c.got <= high + slack:
                    c.outcome, c.scale = "kink", max(c.scale, abs(low), abs(high))
                elif self.subject.rules_hold():
                    # Each of the kinks that meet inside chose for itself, and their sum need not lie between.
                    c.outcome, self.meeting = "unknown", True
                else:
                    c.expected, c.error = (low + high) / 2, (high - low) / 2
                return
            for e in (first, second):
                error = float(e.error[0]) + noise + 4 * self.subject.eps * c.scale
                if abs(c.got - e.value[0]) <= SAFETY * error:
                    c.expected, c.error = float(e.value[0]), error
                    c.outcome = "agrees" if SAFETY * error <= CONCLUSIVE * c.scale else "unknown"
                    return
            apart = not abs(first.value[0] - second.value[0]) <= SAFETY * (first.error[0] + second.error[0])
            staircase = all(_supports(c, *pair) for pair in ((steps, own), (np.array(OTHER), other_table)))
            if apart or first.kink[0] != second.kink[0] or self._unresolved(c, own) or staircase or self._stopped_early(c):
                c.outcome = "unknown"

    def _stopped_early(self, c: Measured) -> bool:
        """Whether small jumps explain a small discrepancy, as where an iteration stops at a tolerance.

        There the number of its steps changes from place to place, and with it the value, and the slope by as much as it is off.
        """
        apart = abs(c.got - c.expected)
        if not apart <= _SMALL_PART * c.scale or not self.subject.branches():
            return False
        v = self.cotangents[c.cotangent : c.cotangent + 1]
        for direction in (None, self.directions[c.direction], *(self._random_direction() for _ in range(_LINES))):
            if direction is not None:

                def value(t: float, direction: Direction = direction) -> float:
                    return float(self.along(direction, v, (t,))[0][0, 0])

                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    self.jumps += [jump for jump in jumps(value) if jump.bend <= _LARGE_BEND * c.scale]
            if any(apart / _EXPLAINED <= min(jump.size, jump.bend) <= apart * _EXPLAINED for jump in self.jumps):
                return True
        return False

    def _unresolved(self, c: Measured, table: tuple[Array, Array]) -> bool:
        """Whether the smallest step changes the values about as much as any, and more than rounding does: an oscillation is finer than every step."""
        moved = np.nan_to_num(np.abs(np.hstack(table)), posinf=0)
        size = float(np.sum(np.abs(self.cotangents[c.cotangent] * np.where(self.finite, self.y, 0))))
        return bool(moved[-1].max() > moved.max() / 64 and moved[-1].max() > max(_COARSE, 1024 * self.subject.eps) * size)

    def _between(self, direction: Direction, v: Array, steps: Array) -> tuple[float, float, float]:
        """The bounds of what a pullback may give at a kink, and their error.

        Each output has its own kinks, and so has each part of a direction in whose one-sided derivatives the whole's add up:
        conventions (as relu'(0) = 0) choose for each by itself.
        """
        ahead, behind = (np.nan_to_num(self._moved([sign * float(steps[-1]) * u for u in direction])) for sign in (1, -1))
        bent = np.abs(ahead + behind) > _BENT * (np.abs(ahead) + np.abs(behind))
        chosen = np.flatnonzero(bent & (v != 0))[:_ROWS]
        rows = np.zeros((len(chosen) + 1, v.size))
        rows[np.arange(len(chosen)), chosen] = v[chosen]
        rows[-1] = v - rows.sum(axis=0)
        low, high, error = self._hull(direction, rows, steps)
        return float(low.sum()), float(high.sum()), float(error.sum())

    def _hull(self, direction: Direction, rows: Array, steps: Array) -> tuple[Array, Array, Array]:
        whole = self._sides(direction, rows, steps)
        error = whole.left_error + whole.right_error
        low, high = np.minimum(whole.left, whole.right), np.maximum(whole.left, whole.right)
        places = [(a, i) for a, u in enumerate(direction) for i in np.flatnonzero(u)]
        if not whole.kink.any() or not 1 < len(places) <= _SPLIT:
            return low, high, error
        halves = []
        for chosen in (places[: len(places) // 2], places[len(places) // 2 :]):
            part = [np.zeros(u.shape) for u in direction]
            for a, i in chosen:
                part[a].flat[i] = direction[a].flat[i]
            halves.append(part)
        sides = [self._sides(part, rows, steps) for part in halves]
        slack = SAFETY * (error + sum(s.left_error + s.right_error for s in sides)) + 1e-9 * (np.abs(whole.left) + np.abs(whole.right))
        adds = np.abs(sides[0].left + sides[1].left - whole.left) + np.abs(sides[0].right + sides[1].right - whole.right) <= slack
        if not adds.any():
            return low, high, error
        parts = [self._hull(part, rows, steps) for part in halves]
        return tuple(np.where(adds, parts[0][n] + parts[1][n], own) for n, own in enumerate((low, high, error)))

    def _sides(self, direction: Direction, rows: Array, steps: Array) -> Estimate:
        return estimate(steps, *self.along(direction, rows, tuple(steps)), np.abs(rows @ np.where(self.finite, self.y, 0)) * self.subject.eps)

    def _answer_noise(self, direction: Direction, k: int) -> float:
        """How much rounding alone changes the answer: at points whose elements differ from the given ones in the last bits."""
        if self.shaken is None:
            self.shaken = []
            for xs in nudged(self.xs, self.subject.eps, np.random.default_rng(0)):
                with contextlib.suppress(ArithmeticError, ValueError):
                    self.shaken.append(self.subject.linearise(xs)[1])
        found = []
        for pullback in self.shaken:
            with contextlib.suppress(ArithmeticError, ValueError):
                found.append(self.got(direction, pullback(self.cotangents[k]))[0])
        value = self.got(direction, self.gradients[k])[0]
        apart = [abs(f - value) for f in found if np.isfinite(f)]
        return max(apart, default=0.0)

    def _cover(self) -> None:
        """Every argument must be known for every cotangent; one that others hide is looked at alone."""
        for retry in (True, False):
            hidden = self._hidden()
            if not hidden or not retry:
                break
            start = len(self.directions)
            for a in hidden[:SECOND_LOOKS]:
                self.directions.append(self.only(self._random_direction(), a))
                if self.sizes[a] > 1:
                    self.directions.append(self.only([_own_scale(x, s) * self.rng.standard_normal(x.shape) for x, s in zip(self.xs, self.scales, strict=True)], a))
            self._pass(list(range(start, len(self.directions))))
            if self.failed:
                return
        for a in hidden:
            self.findings.append(Finding("inconclusive", f"the gradient for {self.subject.names[a]} could not be told from noise", argument=self.subject.names[a], hint=self._reason()))

    def _reason(self) -> str | None:
        if self.meeting:
            return "several kinks meet here, and every rule on the tape is right by itself: move the arguments off the kinks"
        if not self.jumps:
            return None
        size = max(jump.size for jump in self.jumps)
        return f"the values jump by about {size:.1g}, and the slope with them: does an iteration stop at a tolerance? Make it smaller, to be told right from wrong"

    def _hidden(self) -> list[int]:
        """The arguments for which, for some cotangent, no direction was conclusive, or none of those that have some element in them."""
        hidden = []
        for a, n in enumerate(self.sizes):
            seen = np.zeros(n, bool)
            for k, v in enumerate(self.cotangents if n else ()):
                known, tightest = False, np.inf
                for m in self.measured:
                    if m.cotangent != k or m.outcome not in ("agrees", "kink"):
                        continue
                    u = self.directions[m.direction]
                    if not u[a].any():
                        continue
                    part = self.got([u[a]], [self.gradients[k][a]])[1]
                    if part and m.tolerance <= CONCLUSIVE * part:
                        tightest = min(tightest, m.tolerance / part)
                    elif not m.tolerance <= NEGLIGIBLE * self._natural(k):
                        continue
                    known = True
                    if v[self.finite].all():
                        seen |= u[a].ravel() != 0
                if not known:
                    hidden.append(a)
                    break
                if np.isfinite(tightest):
                    self.tightness = max(self.tightness, tightest)
            if not seen.all() and a not in hidden:
                hidden.append(a)
        return hidden

    def _natural(self, k: int) -> float:
        natural = float(np.sum(np.abs(self.cotangents[k] * np.where(self.finite, self.y, 0))))
        return max(natural, max((max(m.scale, m.natural) for m in self.measured if m.cotangent == k and m.outcome in ("agrees", "kink")), default=0.0))


def nudged(xs: list[Array], eps: float, rng: np.random.Generator) -> Iterator[list[Array]]:
    """Nearby points at which equal elements are still equal, and zeros zero."""
    yield [x * (1 + eps) for x in xs]
    values, places = np.unique(np.concatenate([x.ravel() for x in xs]), return_inverse=True)
    for _ in range(4):
        moved = (values * (1 + eps * rng.integers(-2, 3, values.shape)))[places]
        yield [part.reshape(x.shape) for part, x in zip(np.split(moved, np.cumsum([x.size for x in xs])[:-1]), xs, strict=True)]


def _supports(c: Measured, steps: Array, table: tuple[Array, Array]) -> bool:
    """Whether plain differences at a few steps in a row say what the pullback says, and not what was measured.

    They do where a function has one slope at large steps and another at small ones: where rounding makes it a staircase.
    """
    ahead, behind = table[0][:, 0], table[1][:, 0]
    apart = abs(c.got - c.expected)
    with np.errstate(all="ignore"):
        near = (np.abs((ahead - behind) / (2 * steps) - c.got) <= apart / 8) & (np.abs(ahead + behind) / steps <= apart) & (ahead != behind)
    return bool((near[2:] & near[1:-1] & near[:-2]).any())


def _scale(x: Array) -> float:
    """The root of the mean square of an argument, 1 for zeros."""
    top = float(np.max(np.abs(x), initial=0, where=np.isfinite(x)))
    return top * float(np.sqrt(np.mean((x / top) ** 2))) if 0 < top < np.inf and np.isfinite(x).all() else 1.0


def _own_scale(x: Array, scale: float) -> Array:
    """The size of each element, that of all where one is zero."""
    return np.where(x == 0, scale, np.abs(x))


__all__ = ["Comparison", "Direction", "Measured", "Pullback", "nudged"]
