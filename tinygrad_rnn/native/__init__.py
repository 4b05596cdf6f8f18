"""Machine code, where LLVM is installed (the extra ``fast``): large matrix products, and what the loops of an unroll are compiled with.

What compiles, and LLVM with it, is imported where it is used: most programs are too small for it. Which way a product runs is a
matter of its size alone, never of timing, so that bits repeat.
"""

from __future__ import annotations

import functools
import importlib.util
import os

import numpy as np

SETTING = "TINYGRAD_RNN_COMPILE"
"""The environment variable that says ``never``, or of loops ``always``, in place of by size."""

PRODUCT = 1 << 20
"""Multiplications from which on a product is not left to NumPy. OpenBLAS would share it among threads, which then look for work for a tenth of a second."""

LARGE = PRODUCT >> 10
"""Elements of the left matrix below which nobody asks whether a product is large: to ask takes time too."""


def available() -> bool:
    """Whether there may be machine code."""
    return os.environ.get(SETTING, "") != "never" and _installed()


@functools.cache
def _installed() -> bool:
    return importlib.util.find_spec("llvmlite") is not None


def dot(a: np.ndarray, b: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """``a @ b`` of two matrices, in ``out``, whose rows have their elements next to each other, where it is given."""
    if a.shape[0] * a.shape[1] * b.shape[1] >= PRODUCT and available() and _worth_it():
        from .gemm import product

        found = product(a, b, out)
        if found is not None:
            return found
    return np.asarray(a.dot(b, out)) if out is None or out.flags.c_contiguous else np.matmul(a, b, out=out)


@functools.cache
def _worth_it() -> bool:
    """Whether NumPy's products are those of OpenBLAS: the makers of processors know theirs better."""
    blas = np.show_config(mode="dicts")
    return _installed() and "openblas" in str(blas.get("Build Dependencies", {}).get("blas", {}).get("name", "")).lower()
