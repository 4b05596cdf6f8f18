"""Special functions of ndarrays that NumPy does not have."""

from __future__ import annotations

from typing import Any

import numpy as np

# Coefficients of FreeBSD's msun/src/s_erf.c: erf(x) = x + x * P(x*x) / Q(x*x) near 0, then rational in |x| - 1 and in 1 / x**2.
_PP = (1.28379167095512558561e-01, -3.25042107247001499370e-01, -2.84817495755985104766e-02, -5.77027029648944159157e-03, -2.37630166566501626084e-05)
_QQ = (1.0, 3.97917223959155352819e-01, 6.50222499887672944485e-02, 5.08130628187576562776e-03, 1.32494738004321644526e-04, -3.96022827877536812320e-06)
_ERX = 8.45062911510467529297e-01
_PA = (-2.36211856075265944077e-03, 4.14856118683748331666e-01, -3.72207876035701323847e-01, 3.18346619901161753674e-01, -1.10894694282396677476e-01, 3.54783043256182359371e-02, -2.16637559486879084300e-03)
_QA = (1.0, 1.06420880400844228286e-01, 5.40397917702171048937e-01, 7.18286544141962662868e-02, 1.26171219808761642112e-01, 1.36370839120290507362e-02, 1.19844998467991074170e-02)
_RA = (-9.86494403484714822705e-03, -6.93858572707181764372e-01, -1.05586262253232909814e01, -6.23753324503260060396e01, -1.62396669462573470355e02, -1.84605092906711035994e02, -8.12874355063065934246e01, -9.81432934416914548592e00)
_SA = (1.0, 1.96512716674392571292e01, 1.37657754143519042600e02, 4.34565877475229228821e02, 6.45387271733267880336e02, 4.29008140027567833386e02, 1.08635005541779435134e02, 6.57024977031928170135e00, -6.04244152148580987438e-02)
_RB = (-9.86494292470009928597e-03, -7.99283237680523006574e-01, -1.77579549177547519889e01, -1.60636384855821916062e02, -6.37566443368389627722e02, -1.02509513161107724954e03, -4.83519191608651397019e02)
_SB = (1.0, 3.03380607434824582924e01, 3.25792512996573918826e02, 1.53672958608443695994e03, 3.19985821950859553908e03, 2.55305040643316442583e03, 4.74528541206955367215e02, -2.24409524465858183362e01)


def _poly(coefficients: tuple[float, ...], x: Any) -> Any:
    total = np.full_like(x, coefficients[-1])
    for c in coefficients[-2::-1]:
        total = total * x + c
    return total


def _of_magnitude(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The error function of a >= 0 and its complement, each to rounding."""
    near = np.minimum(a, 0.84375)
    square = near * near
    more = near * _poly(_PP, square) / _poly(_QQ, square)
    s = np.clip(a, 0.84375, 1.25) - 1
    ratio = _poly(_PA, s) / _poly(_QA, s)
    tail = np.clip(a, 1.25, 28.0)
    inverse = 1 / (tail * tail)
    exponent = np.where(tail < 1 / 0.35, _poly(_RA, inverse) / _poly(_SA, inverse), _poly(_RB, inverse) / _poly(_SB, inverse))
    # The square of few digits is exact; that of all would be rounded before it is an exponent.
    rounded = tail.astype(np.float32).astype(np.float64)
    small = np.exp(-rounded * rounded - 0.5625) * np.exp((rounded - tail) * (rounded + tail) + exponent) / tail
    pieces = [a < 0.84375, a < 1.25]
    return np.select(pieces, [near + more, _ERX + ratio], 1 - small), np.select(pieces, [0.5 - (near - 0.5 + more), 1 - _ERX - ratio], small)


def erf(x: np.ndarray) -> np.ndarray:
    """The error function of x, computed in float64 and returned in x's dtype if that is floating."""
    value = np.asarray(x, np.float64)
    signed: np.ndarray = np.copysign(_of_magnitude(np.abs(value))[0], value)
    return signed.astype(x.dtype if x.dtype.kind == "f" else np.float64)


def erfc(x: np.ndarray) -> np.ndarray:
    """1 - erf(x) with all its digits, computed in float64 and returned in x's dtype if that is floating."""
    value = np.asarray(x, np.float64)
    complement = _of_magnitude(np.abs(value))[1]
    return np.where(value < 0, 2 - complement, complement).astype(x.dtype if x.dtype.kind == "f" else np.float64)
