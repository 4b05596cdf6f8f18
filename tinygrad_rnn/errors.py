"""Errors that name the operation, the argument, what came and what was expected.

Each is also a subclass of the built-in exception that NumPy or PyTorch users would catch:

>>> import tinygrad_rnn as tg
>>> try:
...     tg.ones((2, 3)) @ tg.ones((4, 5))
... except ValueError as error:
...     print(type(error).__name__)
ShapeError
"""

from numpy.exceptions import AxisError as _NumpyAxisError

__all__ = ["AxisError", "DtypeError", "FileError", "GradientError", "MissingFileError", "NotDifferentiableError", "OutOfRangeError", "ShapeError", "TapeError", "TinygradError"]


class TinygradError(Exception):
    """What every error of this package is."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class ShapeError(TinygradError, ValueError):
    """Shapes that do not fit together, or a value that an operation cannot take."""


class AxisError(ShapeError, _NumpyAxisError):
    """An axis that the array does not have, or that is named twice."""

    def __init__(self, message: str) -> None:
        Exception.__init__(self, message)

    __str__ = TinygradError.__str__


class OutOfRangeError(ShapeError, IndexError):
    """An index beyond the end of an axis, or of a kind that cannot index."""


class DtypeError(TinygradError, TypeError):
    """A dtype or a type that an operation cannot take."""


class GradientError(TinygradError, RuntimeError):
    """A gradient that cannot be computed as asked, or a rule that went wrong."""


class TapeError(TinygradError, RuntimeError):
    """A tape that is not there any more, was never there, or was changed under way."""


class NotDifferentiableError(TinygradError, TypeError):
    """An operation, or an argument of one, that has no gradient rule."""


class FileError(TinygradError, ValueError):
    """A file that is not what it should be: cut short, damaged, of another kind or of a newer version."""


class MissingFileError(FileError, FileNotFoundError):
    """A file or a folder that is not there."""
