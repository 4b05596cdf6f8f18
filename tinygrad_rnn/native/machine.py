"""The processor as LLVM sees it: the width of its vectors, and functions compiled for it, kept on the disk for the next process."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from ..atomic import atomic_write

KEPT = 256
"""Compiled functions kept on the disk; the oldest go first."""


class Machine:
    """The host: ``vector`` is the bytes of a vector register, ``rows`` and ``vectors`` the tile of a matrix product that its registers hold."""

    def __init__(self) -> None:
        import llvmlite.binding as llvm

        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        self.llvm = llvm
        features = llvm.get_host_cpu_features()
        wide, half = features.get("avx512f", False), features.get("avx2", False)
        many = wide or llvm.get_default_triple().startswith(("aarch64", "arm64"))
        self.vector = 64 if wide else 32 if half else 16
        self.rows, self.vectors = 6, 4 if many else 2
        cpu, flags = llvm.get_host_cpu_name(), features.flatten()
        target = llvm.Target.from_default_triple()
        self.target = target.create_target_machine(cpu=cpu, features=flags, opt=3, reloc="default", codemodel="jitdefault", jit=True)
        self.name = "\n".join(map(str, (llvm.llvm_version_info, llvm.get_default_triple(), cpu, flags)))

    def function(self, source: str) -> tuple[int, Any]:
        """The address of the function ``run`` in LLVM's language, and what must live as long as it is called."""
        name = hashlib.sha256(f"{self.name}\n{source}".encode()).hexdigest()
        code = _read(name)
        if code is None:
            code = self._compiled(source)
            _write(name, code)
        module = self.llvm.parse_assembly("")
        engine = self.llvm.create_mcjit_compiler(module, self._machine_of_engine())
        engine.add_object_file(self.llvm.ObjectFileRef.from_data(code))
        engine.finalize_object()
        return engine.get_function_address("run"), engine

    def callable(self, source: str, *parameters: Any, result: Any = None) -> Callable[..., Any]:
        """The function ``run``, with the types of its parameters and of its result, to be called without the interpreter's lock."""
        address, owner = self.function(source)
        call = ctypes.CFUNCTYPE(result, *parameters)(address)
        call.owner = owner  # type: ignore[attr-defined]
        return call

    def _machine_of_engine(self) -> Any:
        return self.llvm.Target.from_default_triple().create_target_machine(jit=True, codemodel="jitdefault")

    def _compiled(self, source: str) -> bytes:
        module = self.llvm.parse_assembly(source)
        module.verify()
        options = self.llvm.create_pipeline_tuning_options(speed_level=2)
        options.loop_vectorization = options.slp_vectorization = options.loop_unrolling = False
        builder = self.llvm.create_pass_builder(self.target, options)
        builder.getModulePassManager().run(module, builder)
        return bytes(self.target.emit_object(module))

    def finds(self, symbol: str) -> bool:
        """Whether the C library has a function that compiled code may call."""
        try:
            address = ctypes.cast(getattr(_library(), symbol), ctypes.c_void_p).value
        except (AttributeError, OSError):
            return False
        self.llvm.add_symbol(symbol, address)
        return True


@functools.cache
def _library() -> Any:
    return ctypes.CDLL("ucrtbase" if sys.platform == "win32" else None)


@functools.cache
def machine() -> Machine | None:
    """The host, or None where there is no LLVM to ask."""
    try:
        return Machine()
    except Exception:  # not installed, or not made for this processor: NumPy runs everywhere
        return None


def folder() -> str:
    """Where compiled functions are kept: ``tinygrad_rnn`` in the user's folder for caches."""
    home = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(home, "tinygrad_rnn")


def _quietly(function: Callable[..., Any]) -> Callable[..., Any]:
    """A cache that cannot be read or written is none."""

    @functools.wraps(function)
    def run(*given: Any) -> Any:
        with contextlib.suppress(Exception):
            return function(*given)
        return None

    return run


@_quietly
def _read(name: str) -> bytes | None:
    with open(os.path.join(folder(), name), "rb") as stream:
        digest, code = stream.read(32), stream.read()
    return code if hashlib.sha256(code).digest() == digest else None


@_quietly
def _write(name: str, code: bytes) -> None:
    os.makedirs(folder(), mode=0o700, exist_ok=True)
    atomic_write(os.path.join(folder(), name), hashlib.sha256(code).digest() + code)
    files = sorted(os.scandir(folder()), key=lambda entry: entry.stat().st_mtime)
    for entry in files[:-KEPT]:
        os.remove(entry.path)


_OWN = threading.local()

LARGE = 1 << 24
"""Bytes of scratch memory that a thread does not keep."""


def aligned(size: int) -> np.ndarray:
    """Bytes that begin at a multiple of 64."""
    whole = np.empty(size + 64, np.uint8)
    start = -whole.__array_interface__["data"][0] % 64
    return whole[start : start + size]


def scratch(size: int) -> int:
    """The address of bytes of this thread's own, at a multiple of 64; the next call may give the same, or free them."""
    memory = getattr(_OWN, "memory", None)
    if memory is None or len(memory) < size or len(memory) > max(size, LARGE):
        memory = _OWN.memory = aligned(size)
    return int(memory.__array_interface__["data"][0])
