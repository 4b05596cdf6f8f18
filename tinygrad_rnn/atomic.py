"""Files are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Callable
from typing import BinaryIO

from .errors import FileError, MissingFileError

FilePath = str | os.PathLike[str]


def atomic_write(path: FilePath, data: bytes | Callable[[BinaryIO], object]) -> None:
    """Write a file whole or not at all: bytes, or what a function writes to the stream that it gets.

    The data go to a temporary file in the same folder, to the disk, and then take the place of the previous file in one
    step. An error or Ctrl-C on the way removes the temporary file and leaves the previous one; a process that is killed
    leaves both. A symbolic link stays one, and the file keeps its permissions.

    Raises ``MissingFileError`` without the folder, ``FileError`` for a path that is a folder or a device, ``OSError`` for
    a disk that is full.

    >>> import os, tempfile
    >>> from tinygrad_rnn.atomic import atomic_write
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     atomic_write(os.path.join(folder, "loss.csv"), b"step,loss")
    ...     os.listdir(folder)
    ['loss.csv']
    """
    target = os.path.realpath(os.fspath(path))
    folder, name = os.path.split(target)
    if not os.path.isdir(folder):
        raise MissingFileError(f"{os.fspath(path)}: cannot be written, as there is no folder {folder}")
    mode = os.stat(target).st_mode if os.path.exists(target) else None
    if mode is not None and not stat.S_ISREG(mode):
        raise FileError(f"{os.fspath(path)}: cannot be written, as it is {'a folder' if stat.S_ISDIR(mode) else 'a device'}, expected a file or none")
    temporary = os.path.join(folder, f".{name[:32]}.{secrets.token_hex(6)}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        with open(descriptor, "wb") as stream:
            if mode is not None:
                os.chmod(temporary, stat.S_IMODE(mode))
            if callable(data):
                data(stream)
            else:
                stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError) and error.errno is not None and error.filename in (None, temporary):
            error.filename, error.filename2 = os.fspath(path), None
        raise
    _sync_folder(folder)


def _sync_folder(folder: str) -> None:
    """Have the new name on the disk too, on systems where a folder can be opened for that."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
