"""Pictures of tapes."""

from .plain import dot

__all__ = ["dot"]
