"""``unroll``: a step function applied along the time axis."""

from .unrolling import unroll

__all__ = ["unroll"]
