"""Whether what was computed in two ways is the same but for rounding."""

from __future__ import annotations

import numpy as np


def magnitude(a: np.ndarray) -> float:
    """The largest finite magnitude."""
    return float(np.max(np.abs(a), initial=0, where=np.isfinite(a))) if a.dtype.kind == "f" else 0.0


def close(a: np.ndarray, b: np.ndarray, floor: float = 0.0) -> bool:
    """Whether two arrays are of one dtype and shape and equal but for rounding, of numbers as large as ``floor`` at least."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.dtype.kind != "f" or not a.size:
        return bool(np.array_equal(a, b))
    with np.errstate(all="ignore"):
        scale = max(magnitude(b), floor)
        return bool(np.allclose(a, b, rtol=0, atol=float(np.finfo(a.dtype).eps) * 1e4 * (scale + 1e-30), equal_nan=True))
