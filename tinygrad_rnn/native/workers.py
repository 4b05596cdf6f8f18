"""Threads that share the rows of a call. They look out for work for a moment before they sleep: to be woken takes longer than a small part of it."""

from __future__ import annotations

import ctypes
import functools
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from .machine import Machine, aligned, machine

Rows = Callable[[int, int], None]

TURNS = 1500
"""How often a thread looks for work before it sleeps: some milliseconds, in which it gives way to others."""


def threads() -> int:
    """How many threads share a call: ``OMP_NUM_THREADS``, else the processors that this process may use."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal() and int(asked):
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share(function: Rows, rows: int, least: int) -> None:
    """Call a function with ranges of rows, one in each thread, of ``least`` rows or more."""
    shards = max(min(threads(), rows // max(least, 1)), 1)
    if shards == 1 or not _FREE.acquire(blocking=False):
        function(0, rows)
        return
    try:
        bounds = [rows * k // shards for k in range(shards + 1)]
        given = [worker for k in range(1, shards) if (worker := _given(k, function, bounds[k], bounds[k + 1])) is not None]
        try:
            function(0, bounds[1])
        finally:
            errors = [error for worker in given if (error := worker.finish()) is not None]
        for error in errors:
            raise error
    finally:
        _FREE.release()


def _given(number: int, function: Rows, first: int, last: int) -> Worker | None:
    """The worker that has the rows; None if there is no thread to be had, and they are done."""
    try:
        while len(_WORKERS) < number:
            _WORKERS.append(Worker())
    except RuntimeError:  # as when the interpreter ends
        function(first, last)
        return None
    _WORKERS[number - 1].give(function, first, last)
    return _WORKERS[number - 1]


class Worker:
    """A thread with two counts, which machine code watches: of what it was given, and of what it has done."""

    def __init__(self) -> None:
        counts = aligned(128).view("int64")
        self._given, self._done = counts[:1], counts[8:9]
        counts[:] = 0
        self._addresses = [int(count.__array_interface__["data"][0]) for count in (self._given, self._done)]
        self._work: tuple[Rows, int, int] | None = None
        self._error: BaseException | None = None
        self._lock, self._asleep, self._bell = threading.Lock(), False, threading.Semaphore(0)
        threading.Thread(target=self._run, name="tinygrad_rnn", daemon=True).start()

    def give(self, function: Rows, first: int, last: int) -> None:
        with self._lock:
            self._work = function, first, last
            self._given += 1
            asleep, self._asleep = self._asleep, False
        if asleep:
            self._bell.release()

    def finish(self) -> BaseException | None:
        """Wait for what was given last, or do it if the thread has not begun; gives what went wrong."""
        work = self._taken()
        if work is not None:
            return _tried(work)
        interrupt = None
        while True:
            try:
                self._wait()
                break
            except KeyboardInterrupt as error:  # the thread still writes to memory that the caller would give back
                interrupt = error
        found, self._error = self._error, None
        return interrupt or found

    def _wait(self) -> None:
        given = int(self._given[0])
        while (done := int(self._done[0])) != given:
            if _watched()(self._addresses[1], done, TURNS) == done:
                time.sleep(1e-4)

    def _taken(self) -> tuple[Rows, int, int] | None:
        with self._lock:
            work, self._work = self._work, None
        return work

    def _run(self) -> None:
        seen = 0
        while True:
            if _watched()(self._addresses[0], seen, TURNS) == seen:
                with self._lock:
                    asleep = self._asleep = bool(self._given[0] == seen)
                if asleep:
                    self._bell.acquire()
            seen = int(self._given[0])
            work = self._taken()
            if work is not None:
                self._error = _tried(work)
            del work
            self._done[0] = seen


def _tried(work: tuple[Rows, int, int]) -> BaseException | None:
    function, first, last = work
    try:
        function(first, last)
    except BaseException as error:  # for the thread that shares
        return error
    return None


_WORKERS: list[Worker] = []
_FREE = threading.Lock()


@functools.cache
def _watched() -> Any:
    """``watched(address, value, turns)``: the number there as soon as it is another one, or after so many looks."""
    host = machine()
    assert host is not None
    return host.callable(_source(host), *[ctypes.c_int64] * 3, result=ctypes.c_int64)


def _source(host: Machine) -> str:
    pause = "@llvm.x86.sse2.pause" if "x86_64" in host.name else ""
    gives_way = host.finds("sched_yield")
    return "\n".join(
        [
            f"declare void {pause}()" if pause else "",
            "declare i32 @sched_yield()" if gives_way else "",
            "define i64 @run(ptr %place, i64 %value, i64 %turns) {",
            "start:",
            "  br label %turn",
            "turn:",
            "  %t = phi i64 [ 0, %start ], [ %t1, %rest ]",
            "  br label %look",
            "look:",
            "  %k = phi i64 [ 0, %turn ], [ %k1, %wait ]",
            "  %now = load atomic i64, ptr %place acquire, align 8",
            "  %other = icmp ne i64 %now, %value",
            "  br i1 %other, label %end, label %wait",
            "wait:",
            f"  call void {pause}()" if pause else "",
            "  %k1 = add i64 %k, 1",
            "  %again = icmp ult i64 %k1, 64",
            "  br i1 %again, label %look, label %rest",
            "rest:",
            "  %way = call i32 @sched_yield()" if gives_way else "",
            "  %t1 = add i64 %t, 1",
            "  %more = icmp ult i64 %t1, %turns",
            "  br i1 %more, label %turn, label %end",
            "end:",
            "  ret i64 %now",
            "}",
        ]
    )


def _forked() -> None:
    """A child has none of its parent's threads."""
    global _FREE
    _WORKERS.clear()
    _FREE = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
