"""``unroll``: a step function applied along the time axis."""

from .unrolling import Pure, unroll

__all__ = ["Pure", "unroll"]
