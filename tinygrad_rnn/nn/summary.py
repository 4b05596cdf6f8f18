"""What a model does on an example: its modules, their output shapes, parameters and floating-point operations."""

from __future__ import annotations

import html
from typing import Any

from ..core.state import ScopePath, current, installed, plain
from ..core.tape import _table
from ..ops.counting import operations
from .module import Module, ModuleList, evaluating


class Summary:
    """The table that :meth:`Module.summary` makes; prints as text, and as HTML in a notebook. ``rows`` has its figures."""

    head = ("module", "kind", "output", "parameters", "operations")

    def __init__(self, rows: list[tuple[str, str, str, int, bool, int]]) -> None:
        self.rows = rows

    def _cells(self) -> list[list[str]]:
        return [[path, kind, output, f"{count:,}{' shared' if shared else ''}", f"{flops:,}"] for path, kind, output, count, shared, flops in self.rows]

    def __str__(self) -> str:
        return _table(list(self.head), self._cells(), "<<<>>")

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in self.head)
        body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in self._cells())
        return f"<table><tr>{head}</tr>{body}</table>"


class _Observer:
    """Counts operations by scope, and notes what each module gave."""

    def __init__(self) -> None:
        self.flops: dict[ScopePath, int] = {}
        self.outputs: dict[int, str] = {}

    def __call__(self, op: Any, values: tuple[Any, ...], out: Any) -> None:
        path = tuple((name, None) for name, _ in current().scope)
        count = operations(op, values, out)
        for k in range(len(path) + 1):
            self.flops[path[:k]] = self.flops.get(path[:k], 0) + count

    def called(self, module: Module, scope: ScopePath, out: Any) -> None:
        self.outputs[id(module)] = shapes_of(out)


def shapes_of(out: Any) -> str:
    if isinstance(out, list | tuple):
        return "(" + ", ".join(map(shapes_of, out)) + ")"
    return str(out.shape) if hasattr(out, "shape") else type(out).__name__


def summarize(model: Module, example: tuple[Any, ...], options: dict[str, Any]) -> Summary:
    observer = _Observer()
    with evaluating(model), installed(plain(current()).replace(recording=False, scope=(), observers=(observer,))):
        model(*example, **options)
    holders: dict[int, list[int]] = {}
    for module in model.modules():
        for _, part in module._members():
            if not isinstance(part, Module):
                holders.setdefault(id(part), []).append(id(module))
    rows: list[tuple[str, str, str, int, bool, int]] = []
    scopes: dict[int, ScopePath] = {}
    _find_scopes(model, ((model._name or type(model).__name__, None),), scopes)
    for path, module in model.named_modules():
        below = set(map(id, module.modules()))
        own = [(p, holders[id(p)]) for p in module.parameters()]
        count = sum(p.size for p, holding in own if holding[0] in below)
        shared = any(len(holding) > 1 and not below.issuperset(holding) for _, holding in own)
        rows.append((path, type(module).__name__, observer.outputs.get(id(module), ""), count, shared, observer.flops.get(scopes[id(module)], 0)))
    return Summary(rows)


def _find_scopes(module: Module, scope: ScopePath, found: dict[int, ScopePath]) -> None:
    """The scope in which each module runs; a list of modules is never called itself."""
    if id(module) not in found:
        found[id(module)] = scope
        for name, part in module.named_children():
            _find_scopes(part, scope if type(part) is ModuleList else (*scope, (part._name or name, None)), found)
