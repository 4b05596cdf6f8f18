"""The plan of an unroll as a listing: the rolled network, phase by phase."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..core.tape import _table
from ..ops.counting import operations
from .plan import DEFERRED, HOISTED, LOOP, ONCE, Loop
from .program import Constant, Instruction, Outer, Program, Value
from .replaying import Plan


class Explanation:
    """What :func:`explain` found; prints as a listing.

    ``mode`` is ``"replay"`` or ``"eager"``, ``reason`` says why a step runs eagerly, ``rows`` has the listing's lines as
    (phase, number, operation, operands, shape, where its values live, floating-point operations of all steps),
    ``nbytes`` the memory that values kept for the backward pass take.
    """

    def __init__(self, mode: str, reason: str = "", rows: list[tuple[str, ...]] | None = None, nbytes: int = 0, flops: int = 0) -> None:
        self.mode, self.reason, self.rows, self.nbytes, self.flops = mode, reason, rows or [], nbytes, flops

    def __str__(self) -> str:
        if self.mode == "eager":
            return f"eager: {self.reason}"
        head = f"replay: {self.flops:,} floating-point operations, {self.nbytes:,} bytes kept for the backward pass"
        parts = [head]
        for phase in dict.fromkeys(row[0] for row in self.rows):
            parts += ["", phase, _table(["#", "op", "operands", "shape", "lives in", "operations"], [list(row[1:]) for row in self.rows if row[0] == phase], "><<<<>")]
        return "\n".join(parts)

    __repr__ = __str__


def explained(plan: Plan, steps: int, names: list[str], outer: list[str]) -> Explanation:
    """The listing of a plan; ``names`` are those of the inputs and states, ``outer`` those of the weights."""
    rows: list[tuple[str, ...]] = []
    total = 0

    def add(phase: str, program: Program, instruction: Instruction, label: Any, lives: str, times: int) -> None:
        nonlocal total
        values = [_arrays(program, argument) for argument in instruction.arguments]
        # Parts of a whole that is put together are written where they belong: nothing is added.
        count = 0 if lives.startswith("assembled") else operations(instruction.op, tuple(values), program.arrays[instruction.result]) * times
        total += count
        operands = ", ".join(text for argument in instruction.arguments if (text := label(argument)))
        rows.append((phase, label(Value(instruction.result)), instruction.op.name, operands, str(program.shape(instruction.result)), lives, f"{count:,}"))

    def labels(count: int, prefix: str, forward: int, totals: Mapping[int, int]) -> Any:
        def label(argument: Any) -> str:
            if isinstance(argument, Value):
                if argument.index in totals:
                    return f"{label(Value(totals[argument.index]))} added up"
                if argument.index < len(names):
                    return names[argument.index]
                return f"%{argument.index}" if argument.index < forward else f"{prefix}{argument.index - count}"
            if isinstance(argument, Outer):
                return outer[argument.index] if argument.index < len(outer) else "constant"
            if type(argument) is tuple:
                return ", ".join(map(label, argument))
            return "" if argument.value is None else _short(argument.value)

        return label

    forward = labels(0, "%", len(plan.laid.arrays), {})
    when = {ONCE: ("forward, once", 1), HOISTED: (f"forward, hoisted: all {steps} steps at once", steps), LOOP: (f"forward, replayed {steps} times{_compiled(plan.loop, steps)}", steps)}
    for wanted in (ONCE, HOISTED, LOOP):
        for instruction in plan.instructions:
            if plan.phase[instruction.result] == wanted:
                lives = _lives(plan.loop, instruction.result, forward) if wanted == LOOP else "an array" if wanted == ONCE else "all steps"
                add(when[wanted][0], plan.laid, instruction, forward, lives, when[wanted][1])
    nbytes = 0
    if plan.backward is not None:
        back = plan.backward
        label = labels(back.count, "d", back.count, {total: index for index, total in back.totals.items()})
        after = {ONCE: ("backward, once", 1), LOOP: (f"backward, replayed {steps} times{_compiled(back.loop, steps)}", steps), DEFERRED: (f"backward, deferred: all {steps} steps at once", steps)}
        for wanted in (ONCE, LOOP, DEFERRED):
            for instruction in back.instructions:
                if back.phase[instruction.result] == wanted:
                    lives = (
                        _lives(back.loop, instruction.result, label)
                        if wanted == LOOP
                        else "summed"
                        if instruction.result in back.finals
                        else "an array"
                        if wanted == ONCE
                        else "all steps"
                    )
                    if instruction.result in back.parts:
                        lives = lives.replace("buffer", "assembled in buffer")
                    add(after[wanted][0], back.program, instruction, label, lives, after[wanted][1])
        stored = {plan.loop.root(index) for index in back.saved}
        nbytes = sum(steps * int(np.prod(plan.laid.shape(k))) * plan.laid.dtype(k).itemsize for k in stored if k >= plan.x)
    return Explanation("replay", "", rows, nbytes, total)


def _arrays(program: Program, argument: Any) -> Any:
    if isinstance(argument, Constant):
        return argument.value
    if isinstance(argument, Value | Outer):
        return program.at(argument)
    return [_arrays(program, part) for part in argument]


def _compiled(loop: Loop, steps: int) -> str:
    """Whether so many steps of a loop run as machine code, or why not."""
    reason = loop.compiled.why_not(steps)
    return f" in NumPy: {reason}" if reason else ", compiled"


def _lives(loop: Loop, index: int, label: Any) -> str:
    if index in loop.aliases:
        return f"{'part' if index in loop.written else 'view'} of {label(Value(loop.aliases[index][0]))}"
    if index in loop.stacked:
        return "all steps"
    return f"buffer {loop.scratch[index]}" if index in loop.scratch else "the state's place"


def _short(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_short, value)) + "]"
    if isinstance(value, slice):
        return f"{'' if value.start is None else value.start}:{'' if value.stop is None else value.stop}" + (f":{value.step}" if value.step is not None else "")
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}"
    return "..." if value is Ellipsis else repr(value)
