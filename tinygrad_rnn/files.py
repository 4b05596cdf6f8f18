"""Tensors in safetensors files, written whole or not at all, and checked when they are read.

A file is an ordinary safetensors file that other programs read. Its metadata have one entry, ``tinygrad_rnn``: a JSON
object with ``format`` (``"tinygrad_rnn 1.0"``: a reader refuses a higher major version), ``checksum`` (``"sha256:"`` and
the digest of the format, the user's metadata, and each tensor's name, dtype, shape and bytes) and ``metadata``. Nothing
is pickled, so that reading a file runs no code.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from .atomic import FilePath, atomic_write
from .core.tensor import Tensor, is_tensor, wrap
from .errors import DtypeError, FileError, MissingFileError, ShapeError

_KEY = "tinygrad_rnn"
_FORMAT = "tinygrad_rnn 1.0"
_OPENING = '{"format": "tinygrad_rnn '
_DTYPES = {
    "BOOL": "?", "I8": "i1", "U8": "u1", "I16": "<i2", "U16": "<u2", "I32": "<i4", "U32": "<u4", "I64": "<i8", "U64": "<u8",
    "F16": "<f2", "F32": "<f4", "F64": "<f8",
}  # fmt: skip
_NAMES = {np.dtype(code): name for name, code in _DTYPES.items()}
_OTHER_KINDS = {
    b"\x89PNG": "a PNG picture", b"PK\x03\x04": "a zip archive, as torch.save writes", b"\x80": "a pickle", b"\x93NUMPY": "an array of numpy.save",
    b"GGUF": "a GGUF model", b"\x89HDF": "an HDF5 file", b"\xff\xd8\xff": "a JPEG picture", b"\x1f\x8b": "a gzip archive",
}  # fmt: skip


class Tensors(dict[str, Tensor]):
    """The tensors of a file by name, and the ``metadata`` that were saved with them."""

    def __init__(self, tensors: Iterable[tuple[str, Tensor]] = (), metadata: dict[str, Any] | None = None) -> None:
        super().__init__(tensors)
        self.metadata: dict[str, Any] = {} if metadata is None else metadata


def save(path: FilePath, tensors: Mapping[str, Any], metadata: Mapping[str, Any] | None = None) -> None:
    """Save Tensors or ndarrays of bools, integers and floats by name in a safetensors file, whole or not at all.

    Arrays of any shape, strides and byte order. ``metadata`` is a dict of JSON values (None, bool, int, float, str, list
    and dict with str keys; NaN and infinities as Python's ``json`` writes them; a tuple comes back as a list). The same
    tensors and metadata give the same bytes. Needs the package ``safetensors``.

    Raises ``DtypeError`` for what such a file cannot hold, ``MissingFileError`` without the folder, and the errors of
    writing; the previous file is then as it was.

    >>> import os, tempfile
    >>> import tinygrad_rnn as tg
    >>> from tinygrad_rnn.files import load, save
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(os.path.join(folder, "model.safetensors"), {"bias": tg.ones(2)}, {"hidden": 2})
    ...     file = load(os.path.join(folder, "model.safetensors"))
    >>> file, file.metadata
    ({'bias': tensor([1., 1.], float32)}, {'hidden': 2})
    """
    from safetensors.numpy import save as serialized

    if not isinstance(tensors, Mapping):
        raise DtypeError(f"save: tensors must be a dict from names to tensors, got {type(tensors).__name__}")
    if not isinstance(metadata, Mapping | None):
        raise DtypeError(f"save: metadata must be a dict, got {type(metadata).__name__}")
    arrays = {_name(name): _storable(name, value) for name, value in tensors.items()}
    kept = _json("metadata", metadata or {})
    digest = _checksum(_FORMAT, kept, [(name, _NAMES[a.dtype], a.shape, a.reshape(-1).view(np.uint8)) for name, a in arrays.items()])
    record = json.dumps({"format": _FORMAT, "checksum": digest, "metadata": kept})
    # One entry, as safetensors writes several in an order that changes from run to run.
    atomic_write(path, serialized(arrays, {_KEY: record}))


def _name(name: Any) -> str:
    if not isinstance(name, str):
        raise DtypeError(f"save: a tensor is called {name!r}, expected a string")
    if name == "__metadata__" or any("\ud800" <= c <= "\udfff" for c in name):
        raise ShapeError(f"save: a tensor cannot be called {name!r}: the format reserves __metadata__ and takes Unicode text only")
    return name


def _storable(name: str, value: Any) -> np.ndarray:
    """The array in little-endian C order: safetensors writes the memory of any other as if it were that."""
    if not is_tensor(value) and not isinstance(value, np.ndarray | np.generic):
        raise DtypeError(f"save: {name!r} is {type(value).__name__}, expected a tensor or an array")
    array: np.ndarray = value.numpy() if is_tensor(value) else np.asarray(value)
    dtype = array.dtype.newbyteorder("<")
    if dtype not in _NAMES:
        raise DtypeError(f"save: {name!r} has dtype {array.dtype}, expected bools, integers or floats of at most 64 bits")
    return np.array(array, dtype, order="C", copy=None)


def _json(where: str, value: Any) -> Any:
    """The value in lists and dicts, if it is one of JSON."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, list | tuple):
        return [_json(f"{where}[{k}]", v) for k, v in enumerate(value)]
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise DtypeError(f"save: {where} has the key {key!r}, expected a string")
        return {key: _json(f"{where}[{key!r}]", v) for key, v in value.items()}
    raise DtypeError(f"save: {where} is {type(value).__name__}, expected None, bool, int, float, str, list or dict")


def _checksum(version: str, metadata: Any, tensors: Iterable[tuple[str, str, Iterable[int], Any]]) -> str:
    digest = hashlib.sha256(json.dumps([version, metadata]).encode())
    for name, dtype, shape, data in sorted(tensors, key=lambda entry: entry[0]):
        digest.update(json.dumps([name, dtype, list(shape)]).encode())
        digest.update(data)
    return f"sha256:{digest.hexdigest()}"


def load(path: FilePath) -> Tensors:
    """The tensors of a safetensors file, a dict sorted by name, and in its ``metadata`` what was saved with them.

    Reads the files of other programs too: their metadata are a dict of strings, and bfloat16 becomes float32. Where the
    file has the checksum of :func:`save`, it is verified. Needs the package ``safetensors``.

    Raises ``FileError``, a ``ValueError``, for a file that is cut short, damaged, of another kind or of a newer version;
    ``MissingFileError`` where there is none; ``DtypeError`` for dtypes that NumPy does not have. See :func:`save`.
    """
    where = os.fspath(path)
    if os.path.isdir(path):
        raise FileError(f"{where}: is a folder, expected a safetensors file")
    try:
        with open(path, "rb") as stream:
            content = stream.read()
    except FileNotFoundError:
        raise MissingFileError(f"{where}: there is no such file") from None
    stored, entries = _parsed(where, content)
    metadata: dict[str, Any] = stored
    # The value is known by its opening where its key is damaged.
    if _KEY in stored or any(value.startswith(_OPENING) for value in stored.values()):
        metadata = _verified(where, stored.get(_KEY, ""), entries)
    return Tensors([(name, wrap(_array(where, name, dtype, shape, data))) for name, dtype, shape, data in sorted(entries)], metadata)


def _parsed(where: str, content: bytes) -> tuple[dict[str, str], list[tuple[str, str, list[int], bytes]]]:
    """The metadata, and name, dtype, shape and bytes of every tensor."""
    from safetensors import SafetensorError, deserialize

    if not content:
        raise FileError(f"{where}: is empty, expected a safetensors file")
    if content[8:9] != b"{":
        kind = next((kind for opening, kind in _OTHER_KINDS.items() if content.startswith(opening)), f"another kind of file, which begins with {content[:8]!r}")
        raise FileError(f"{where}: is {kind}, expected a safetensors file")
    header = int.from_bytes(content[:8], "little")
    if 8 + header > len(content):
        raise FileError(f"{where}: is cut short, damaged or no safetensors file: its header should have {header} bytes, and only {len(content) - 8} follow")
    try:
        entries = [(name, info["dtype"], info["shape"], info["data"]) for name, info in deserialize(content)]  # type: ignore[no-untyped-call]
        return json.loads(content[8 : 8 + header]).get("__metadata__", {}), entries
    except (SafetensorError, ValueError) as error:
        raise FileError(f"{where}: is cut short, damaged or no safetensors file ({error}); its {len(content)} bytes are not what its header says") from error


def _verified(where: str, text: str, entries: list[tuple[str, str, list[int], bytes]]) -> dict[str, Any]:
    """The user's metadata from a record that :func:`save` wrote, if the file holds what was saved."""
    try:
        record = json.loads(text)
        version, digest, metadata = record["format"], record["checksum"], record["metadata"]
        newer = _major(version) > _major(_FORMAT)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise FileError(f"{where}: is damaged: its metadata entry {_KEY!r} cannot be read") from error
    if newer:
        raise FileError(f"{where}: has format {version!r}, of a newer version of this package, and this one reads {_FORMAT!r}; upgrade tinygrad_rnn to load it")
    if digest != _checksum(version, metadata, entries):
        raise FileError(f"{where}: is damaged, or another program changed it: its tensors and metadata do not give the checksum that was saved with them")
    return metadata  # type: ignore[no-any-return]


def _major(version: str) -> int:
    return int(version.removeprefix(_KEY).partition(".")[0])


def _array(where: str, name: str, dtype: str, shape: list[int], data: bytes) -> np.ndarray:
    if dtype == "BF16":
        # A bfloat16 is the upper half of a float32.
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32).reshape(shape)
    if dtype not in _DTYPES:
        raise DtypeError(f"{where}: tensor {name!r} has dtype {dtype}, expected one of {', '.join(_DTYPES)} or BF16")
    code = np.dtype(_DTYPES[dtype])
    # Read as bytes, a bool is true for any but 0.
    return np.frombuffer(data, "u1" if code == np.bool_ else code).astype(np.dtype(code.type)).reshape(shape)


__all__ = ["FileError", "MissingFileError", "Tensors", "load", "save"]
