"""The derivative of a function along a line, measured from values alone, with an error that is measured too.

Central differences at steps that fall by a constant factor are extrapolated (Neville's scheme). Every entry of the
table is a candidate; its error is what its neighbours differ by, plus the noise of the values over the smallest step
that it used. A candidate stands only if every difference at a smaller step agrees with it as far as that one's own
noise and truncation allow: it may not average over an oscillation, a kink or a jump that lies nearer to the point.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.polynomial import Polynomial

Array = np.ndarray

EPS = float(np.finfo(np.float64).eps)
FIRST = tuple(0.25 * 4.0**-k for k in (0, 1, 2, 3, 4, 7, 10, 13))
"""Steps for a function that is smooth at the scale of its argument, and three small ones that look for finer structure."""
DEEP = tuple(0.25 * 4.0**-k for k in range(5, 19) if k not in (7, 10, 13))
"""Steps for the others, added to the first ones."""
OTHER = tuple(0.17 * 2.7**-k for k in range(24))
"""Steps of a second opinion, which shares none with the first."""
AGAIN = tuple(0.11 * 3.1**-k for k in range(20))
"""Steps for what was found to be wrong, to see it again."""

_COLUMNS = 7
_SMALL, _LAST, _WINDOW, _RISEN = 1e-4, 3, 5, 3


@dataclass
class Estimate:
    """Derivatives with what they may be off by, one a column; ``left`` and ``right`` are one-sided. All (columns,)."""

    value: Array
    error: Array
    left: Array
    left_error: Array
    right: Array
    right_error: Array
    noise: Array

    @property
    def kink(self) -> Array:
        """Where the one-sided derivatives are known, and do not approach each other."""
        gap = np.abs(self.right - self.left)
        return np.asarray(gap > 4 * (self.left_error + self.right_error) + 1e-5 * (np.abs(self.right) + np.abs(self.left)))


def sample(values: Callable[[float], Array], steps: Sequence[float]) -> tuple[Array, Array]:
    """``values(h)`` and ``values(-h)`` for each step, stacked: two arrays (steps, columns)."""
    return np.stack([values(h) for h in steps]), np.stack([values(-h) for h in steps])


def estimate(steps: Array, ahead: Array, behind: Array, floor: Array) -> Estimate:
    """Derivatives at 0 of functions with value 0 there, from their values at +-steps: arrays (steps, columns).

    ``steps`` fall. Values that are not finite are left out. ``floor`` (columns,) is the least noise that a value has.
    """
    with np.errstate(all="ignore"):
        h = steps[:, None]
        # Values that are large beside the one at the point have the rounding of their own size.
        noise = np.maximum(floor, _noise(steps, ahead, behind)) + EPS * np.nan_to_num(np.abs(ahead) + np.abs(behind), posinf=0, neginf=0)
        value, error = _extrapolated(steps, _known(steps, (ahead - behind) / (2 * h), ahead, behind), noise, 2)
        one_sided = np.hstack([_known(steps, ahead / h, ahead, ahead), _known(steps, -behind / h, behind, behind)])
        sides, side_errors = _extrapolated(steps, one_sided, np.hstack([noise, noise]), 1)
        (right, left), (right_error, left_error) = np.split(sides, 2), np.split(side_errors, 2)
    return Estimate(value, error, left, left_error, right, right_error, noise[-1])


def _known(steps: Array, differences: Array, ahead: Array, behind: Array) -> Array:
    """NaN where a step is of no use: it left the domain, or was absorbed, so that nothing changed where larger steps change something.

    What is absorbed fell in proportion to the step before; where the larger steps met jumps, which do not, nothing changes nearer to the point.
    """
    change = np.abs(ahead) + np.abs(behind)
    change[~np.isfinite(change)] = 0
    before = np.vstack([np.zeros((1, change.shape[1])), change[:-1]])
    ratio = np.append(1.0, steps[1:] / steps[:-1])[:, None]
    falls = np.cumsum((change > 0) & (before > 0) & (change < np.minimum(0.75, 2 * ratio) * before), axis=0) > 1
    return np.where(((change == 0) & falls) | ~np.isfinite(differences), np.nan, differences)


def _noise(steps: Array, ahead: Array, behind: Array) -> Array:
    """The noise of the values that each step sees, (steps, columns): what second differences show that do not fall.

    As long as a function is smooth, or has a kink, they fall with the step. Noise is there at all smaller steps, so
    three of five in a row must refuse to fall, or one of the last; what ends above smaller steps was structure. But what
    disappears at once, faster than a smooth function lets it, was noise that an inner value hides which does not change
    any more at such small steps (as cos x near 0): it counts for all.
    """
    second = np.abs(ahead + behind)
    second[~np.isfinite(second)] = 0
    falling = np.full_like(second, np.inf)
    falling[1:] = 2 * second[:-1] * (steps[1:] / steps[:-1])[:, None]
    risen = np.where(second > falling, second, 0)
    used = np.cumsum((second > 0)[::-1], axis=0)[::-1] <= _LAST
    noise = np.where(used, risen, 0)
    for k in range(int(np.sum(steps > _SMALL)), len(steps) - _WINDOW + 1):
        noise[k] = np.maximum(noise[k], np.partition(risen[k : k + _WINDOW], _WINDOW - _RISEN, axis=0)[_WINDOW - _RISEN])
    noise = np.maximum.accumulate(noise[::-1], axis=0)[::-1]
    gone = second[1:] < second[:-1] * ((steps[1:] / steps[:-1]) ** 2 / 64)[:, None]
    hidden = np.where((risen[:-1] > 0) & gone & (steps[:-1, None] <= _SMALL), second[:-1], 0)
    return np.asarray(np.maximum(noise, hidden.max(axis=0, initial=0)))


def _extrapolated(steps: Array, plain: Array, noise: Array, power: int) -> tuple[Array, Array]:
    """The best candidate of each column's table, and its error; infinite where there is none."""
    count, columns = plain.shape
    local = noise / steps[:, None]
    shrink = (steps[:-1] / steps[1:]) ** power - 1
    previous = np.vstack([np.full((1, columns), np.nan), plain[:-1]])
    # A plain difference is off by its truncation, known from the one before, and by its noise.
    own = np.abs(plain - previous)
    own[1:] /= shrink[:, None]
    allowed = 4 * np.nan_to_num(own) + 4 * local
    best, least = np.full(columns, np.nan), np.full(columns, np.inf)
    later = np.tri(count, k=-1, dtype=bool).T[:, :, None]
    known = np.isfinite(plain)[None] & later
    ratio = (steps[None, :] / steps[:, None])[:, :, None]
    row = plain
    for j in range(min(_COLUMNS, count)):
        if j:
            factor = (steps[:-j] / steps[j:]) ** power - 1
            change = np.full_like(row, np.nan)
            change[j:] = (row[j:] - row[j - 1 : -1]) / factor[:, None]
            older = np.vstack([np.full((1, columns), np.nan), row[:-1]])
            row = row + change
            error = np.maximum(np.abs(change), np.abs(row - older))
        else:
            error = np.abs(plain - previous)
        error = error + local
        # What each candidate (first axis) is charged for the differences at smaller steps (second axis) that disagree with it.
        apart = np.abs(plain[None] - row[:, None])
        # A little more than the noise was measured to be is noise; much more is structure.
        noisy = apart <= (allowed + 64 * local)[None]
        charge = np.where(noisy, apart * ratio, apart)
        total = error + np.where(known & np.isfinite(apart) & ~(apart <= allowed[None]), charge, 0).max(axis=1)
        total[~np.isfinite(error)] = np.inf
        chosen = np.argmin(total, axis=0)[None]
        smallest = np.take_along_axis(total, chosen, 0)[0]
        better = smallest < least
        best[better], least[better] = np.take_along_axis(row, chosen, 0)[0][better], smallest[better]
    return best, least


@dataclass
class Jump:
    """A place where a function is not continuous: what its value changes by there, and its slope."""

    size: float
    bend: float


_POINTS, _ORDER, _STANDS_OUT, _PLACES, _BISECTIONS = 257, 8, 16.0, 4, 44
_BINOMIAL = np.array([(-1) ** k * math.comb(_ORDER, k) for k in range(_ORDER + 1)], float)


def jumps(values: Callable[[float], float]) -> list[Jump]:
    """Small jumps of a function between -1 and 1, where they are few enough to stand apart.

    High differences, of which a smooth function has next to none, show where to look; there the values are bisected by
    which of the polynomials through the points on either side they belong to. A kink has no jump left at the end.
    """
    t = np.linspace(-1, 1, _POINTS)
    y = np.array([values(float(place)) for place in t])
    with np.errstate(all="ignore"):
        high = np.abs(np.convolve(y, _BINOMIAL, "valid"))
    high[~np.isfinite(high)] = 0
    near = np.lib.stride_tricks.sliding_window_view(np.pad(high, 2 * _ORDER), 4 * _ORDER + 1)
    around = np.median(np.hstack([near[:, :_ORDER], near[:, -_ORDER:]]), axis=1)
    top = float(np.max(np.abs(y), initial=0, where=np.isfinite(y) & (np.abs(t) <= 0.5)))
    stands = high / (around + 1024 * EPS * top + np.finfo(float).tiny)
    found = []
    for _ in range(_PLACES):
        k = int(np.argmax(stands))
        if not stands[k] > _STANDS_OUT:
            break
        stands[max(k - _ORDER, 0) : k + _ORDER + 1] = 0
        jump = _jump(values, t, y, k + _ORDER // 2 - 1, k + _ORDER // 2 + 1)
        if jump is not None and jump.size <= top / 8:
            found.append(jump)
    return found


def _jump(values: Callable[[float], float], t: Array, y: Array, left: int, right: int) -> Jump | None:
    """The jump between two points of a grid, None if there is none."""
    sides = slice(left - _ORDER + 1, left + 1), slice(right, right + _ORDER)
    if sides[0].start < 0 or right + _ORDER > len(t) or not all(np.isfinite(y[side]).all() for side in sides):
        return None
    before, after = (Polynomial.fit(t[side], y[side], _ORDER - 1) for side in sides)
    low, high = float(t[left]), float(t[right])
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        value = values(middle)
        if abs(value - before(middle)) < abs(value - after(middle)):
            low = middle
        else:
            high = middle
    ends = []
    for place, step in ((low, t[0] - t[1]), (high, t[1] - t[0])):
        at = place + step / 2 * np.arange(_ORDER)
        near = np.array([values(float(p)) for p in at])
        still = [values(place + step * 2.0**-k) for k in (30, 31, 32)]
        if not np.isfinite([*near, *still]).all():
            return None
        ends.append((near[0], Polynomial.fit(at, near, _ORDER - 1).deriv()(place), np.ptp(still)))
    size, bend = (abs(float(ends[1][n] - ends[0][n])) for n in (0, 1))
    return Jump(size, bend) if size > 8 * max(float(end[2]) for end in ends) else None
