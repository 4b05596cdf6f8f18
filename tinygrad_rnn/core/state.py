"""What holds for the running thread: recording or not, the scope, the observers, and the order of events.

A module reload (IPython's ``%autoreload``) keeps the objects made here: a counter that began again
would put new records before old ones.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import sys
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from types import FrameType
from typing import Any, TypeVar, cast

import numpy as np

F = TypeVar("F", bound=Callable[..., Any])
Observer = Callable[[Any, tuple[Any, ...], Any], None]
ScopePath = tuple[tuple[str, int | None], ...]

_PACKAGE = __name__.partition(".")[0]


class State:
    """What an operation asks when it runs. Immutable: a ``with`` block installs another one."""

    __slots__ = ("_quiet", "draws", "frame", "observers", "outer", "recording", "scope", "special")

    def __init__(
        self,
        recording: bool = True,
        scope: ScopePath = (),
        observers: tuple[Observer, ...] = (),
        frame: FrameType | None = None,
        outer: State | None = None,
        draws: Any = None,
    ) -> None:
        self.recording = recording
        self.scope = scope
        self.observers = observers
        self.frame = frame
        self.outer = outer
        self.draws = draws
        self.special = bool(observers) or frame is not None
        self._quiet: State | None = None

    @property
    def quiet(self) -> State:
        """The state without its observers."""
        if self._quiet is None:
            self._quiet = self.replace(observers=())
        return self._quiet

    def replace(self, **changes: Any) -> State:
        made = State(self.recording, self.scope, self.observers, self.frame, self.outer, self.draws)
        for name, value in changes.items():
            setattr(made, name, value)
        made.special = bool(made.observers) or made.frame is not None
        return made


_STATE: ContextVar[State] = globals().get("_STATE") or ContextVar("tinygrad_rnn", default=State())
_EVENTS: itertools.count[int] = globals().get("_EVENTS") or itertools.count(1)

current = _STATE.get
next_index = _EVENTS.__next__


def plain(state: State) -> State:
    """The state as it is for the code that runs now, without the frame of a suspended generator.

    A ``with`` block in a generator's body stays open while the generator is suspended: its state counts
    only for code that runs below the generator's frame.
    """
    while state.frame is not None:
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame is not state.frame:
            frame = frame.f_back
        if frame is not None:
            return state.replace(frame=None)
        state = cast(State, state.outer)
    return state


def _is_iterator(frame: FrameType) -> bool:
    """Whether a generator runs in this frame for its values, not as the body of a context manager or a fixture."""
    caller = frame.f_back
    module = "" if caller is None else str(caller.f_globals.get("__name__", ""))
    return bool(frame.f_code.co_flags & inspect.CO_GENERATOR) and module.partition(".")[0] not in ("contextlib", "_pytest", "pluggy")


class installed:
    """Install a state for a ``with`` block."""

    __slots__ = ("state", "token")

    def __init__(self, state: State) -> None:
        self.state = state

    def __enter__(self) -> None:
        self.token = _STATE.set(self.state)

    def __exit__(self, *_: object) -> None:
        _STATE.reset(self.token)


class Mode:
    """A context manager that derives a state; also a decorator of functions and of generator functions."""

    def __init__(self) -> None:
        self._outer: list[State] = []

    def derive(self, state: State) -> State:
        raise NotImplementedError

    def __enter__(self) -> None:
        state = current()
        self._outer.append(state)
        inner = self.derive(plain(state))
        frame = sys._getframe(1)
        if _is_iterator(frame):
            inner = inner.replace(frame=frame, outer=state)
        _STATE.set(inner)

    def __exit__(self, *_: object) -> None:
        outer = self._outer.pop()
        frame = current().frame
        if frame is None or frame is sys._getframe(1):
            _STATE.set(outer)

    def __call__(self, function: F) -> F:
        if inspect.isgeneratorfunction(function):

            @functools.wraps(function)
            def resumed(*args: Any, **kwargs: Any) -> Any:
                generator = function(*args, **kwargs)
                step, sent = generator.send, None
                while True:
                    with installed(self.derive(plain(current()))):
                        try:
                            value = step(sent)
                        except StopIteration as stop:
                            return stop.value
                    try:
                        sent = yield value
                        step = generator.send
                    except GeneratorExit:
                        generator.close()
                        raise
                    except BaseException as error:
                        step, sent = generator.throw, error

            return cast(F, resumed)

        @functools.wraps(function)
        def called(*args: Any, **kwargs: Any) -> Any:
            with installed(self.derive(plain(current()))):
                return function(*args, **kwargs)

        return cast(F, called)


class no_grad(Mode):
    """Record nothing: operations in this block give tensors that need no gradient. Also a decorator.

    >>> import tinygrad_rnn as tg
    >>> w = tg.ones(3, requires_grad=True)
    >>> with tg.no_grad():
    ...     w -= 0.1 * w
    >>> w.requires_grad, (w * 2).requires_grad
    (True, True)
    """

    def derive(self, state: State) -> State:
        return state.replace(recording=False)


class enable_grad(Mode):
    """Record again inside a :class:`no_grad` block. Also a decorator.

    >>> import tinygrad_rnn as tg
    >>> w = tg.ones(3, requires_grad=True)
    >>> with tg.no_grad(), tg.enable_grad():
    ...     print((w * 2).requires_grad)
    True
    """

    def derive(self, state: State) -> State:
        return state.replace(recording=True)


class scope(Mode):
    """Mark the records made in this block with a name and, optionally, a time step counted from 0.

    Scopes nest into a path; ``print(tape)`` and pictures show it, and pictures align columns on the step.

    >>> import tinygrad_rnn as tg
    >>> w = tg.ones(3, requires_grad=True, name="w")
    >>> with tg.scope("encoder", step=2):
    ...     y = w * w
    >>> tg.tape(y)[0].scope
    (('encoder', 2),)
    """

    def __init__(self, name: str, *, step: int | None = None) -> None:
        super().__init__()
        if not isinstance(name, str):
            from ..errors import DtypeError

            raise DtypeError(f"scope: name must be a string, got {type(name).__name__}")
        self.name = name
        self.step = step

    def derive(self, state: State) -> State:
        return state.replace(scope=(*state.scope, (self.name, self.step)))


def scope_text(path: ScopePath) -> str:
    return "/".join(name if step is None else f"{name}[{step}]" for name, step in path)


def user_line() -> str:
    """Where, outside this package and NumPy, the running call comes from: ``file:line``."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.partition(".")[0] not in (_PACKAGE, "numpy", "contextlib") and "__primitive__" not in frame.f_globals:
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back
    return "unknown line"


class _Writes:
    """When buffers were last written in place, on the same clock as the records."""

    def __init__(self) -> None:
        self.last = 0
        self._when: dict[int, tuple[weakref.ref[Any], int]] = {}

    @staticmethod
    def _owner(array: np.ndarray) -> np.ndarray:
        while isinstance(array.base, np.ndarray):
            array = array.base
        return array

    def note(self, array: np.ndarray) -> None:
        owner = self._owner(array)
        key, when = id(owner), next_index()
        self._when[key] = (weakref.ref(owner, lambda _: self._when.pop(key, None)), when)
        self.last = when

    def after(self, array: np.ndarray, index: int) -> bool:
        owner = self._owner(array)
        entry = self._when.get(id(owner))
        return entry is not None and entry[0]() is owner and entry[1] > index


writes: _Writes = globals().get("writes") or _Writes()
