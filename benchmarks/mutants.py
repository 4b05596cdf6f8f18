"""Mutation testing of the gradient rules: how many small changes of tinygrad_rnn/ops/*.py does the test suite notice?

    python benchmarks/mutants.py                      every mutant of every file: about an hour on one core
    python benchmarks/mutants.py elementwise --sample 100

Each mutant is one changed operator, comparison, constant, sign or condition in the body of one function; it replaces the code of
the live function in a forked process, which runs the tests that reach that function, the quick ones first. Messages of errors are
no business of the rules, and are left alone. The survivors are printed with their lines; those that are known to change nothing
that can be seen are listed in ``EQUIVALENT`` with the reason. Needs a system that can fork.
"""

import argparse
import ast
import copy
import importlib
import os
import pathlib
import signal
import sys
import time
import types

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
FILES = ["convolution", "elementwise", "indexing", "linalg", "methods", "reduction", "shapes", "shaping", "special"]
SUITES = [
    "test_singular.py",
    "test_ops.py",
    "test_properties.py",
    "test_losses.py",
    "test_engine.py",
    "test_bad_input.py",
    "test_gradients.py",
    "test_docs.py",
    "test_onnx.py",
    "test_modules.py",
    "test_recurrent.py",
]
SLOW = 2.0

OTHERS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Pow: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.MatMult: ast.Mult,
}
FLIPPED = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}

EQUIVALENT: dict[str, str] = {}
"""``file: changed line -> line`` and why nobody can tell: filled from the survivors of a full run."""


def changes(node):
    """The ways to change one node."""
    if isinstance(node, ast.BinOp) and type(node.op) in OTHERS:
        yield lambda n: setattr(n, "op", OTHERS[type(n.op)]())
    if isinstance(node, ast.Compare) and type(node.ops[0]) in FLIPPED:
        yield lambda n: n.ops.__setitem__(0, FLIPPED[type(n.ops[0])]())
    if isinstance(node, ast.BoolOp):
        yield lambda n: setattr(n, "op", ast.Or() if isinstance(n.op, ast.And) else ast.And())
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Not | ast.Invert) and not isinstance(node.operand, ast.Constant):
        yield lambda n: setattr(n, "op", ast.UAdd()) if not isinstance(n.op, ast.Not) else n.__dict__.update(op=ast.Not(), operand=ast.UnaryOp(ast.Not(), n.operand))
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        yield lambda n: setattr(n, "value", n.value + 1)
    if isinstance(node, ast.Constant) and type(node.value) is bool:
        yield lambda n: setattr(n, "value", not n.value)


def functions(tree):
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node


def places(function):
    """The nodes of a function's body that may be changed: no annotation, no docstring, nothing that is raised."""
    skipped = set()
    for node in ast.walk(function):
        for part in [getattr(node, "annotation", None), getattr(node, "returns", None)] + ([node] if isinstance(node, ast.Raise) else []):
            if part is not None:
                skipped |= {id(inner) for inner in ast.walk(part)}
    for statement in function.body:
        for node in ast.walk(statement):
            if id(node) not in skipped:
                yield node


def mutants(path):
    """(function's first line, line of the change, before, after, code of the function) for every mutant of a file."""
    source = path.read_text()
    tree = ast.parse(source)
    for function in functions(tree):
        for place, node in enumerate(places(function)):
            for number, _ in enumerate(changes(node)):
                changed = copy.deepcopy(function)
                target = list(places(changed))[place]
                before = ast.unparse(target)
                list(changes(target))[number](target)
                after = ast.unparse(target)
                line = node.lineno if hasattr(node, "lineno") else function.lineno
                yield function.name, first_line(function), line, before, after, compiled(changed, tree, path)


def live(module):
    """First line -> the functions of a module that run: its own, and those behind its operations."""
    found = {}
    for value in vars(module).values():
        primitive = getattr(value, "primitive", None)
        candidates = [value, *([primitive.forward, primitive.signature, *primitive.rules.values()] if hasattr(primitive, "rules") else [])]
        for f in candidates:
            if isinstance(f, types.FunctionType) and f.__code__.co_filename == module.__file__:
                found.setdefault(f.__code__.co_firstlineno, []).append(f)
    return found


class Mapper:
    """A pytest plugin that notes which tests reach which functions, and how long they take; the functions tell it themselves."""

    def __init__(self, running):
        self.reached, self.tests, self.seen = {}, {}, set()
        self.before = [(f, f.__code__) for lines in running.values() for fs in lines.values() for f in fs]
        for name, lines in running.items():
            for first, code in telling(name):
                for f in lines.get(first, ()):
                    f.__globals__["told_"] = self.seen.add
                    f.__code__ = code

    def restore(self):
        for f, code in self.before:
            f.__code__ = code

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_call(self, item):
        self.seen.clear()
        began = time.perf_counter()
        outcome = yield
        spent = time.perf_counter() - began
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        needs = set(item._fixtureinfo.argnames) - set(parameters)
        if outcome.excinfo is None and not needs and spent < SLOW:
            self.tests[item.nodeid] = (spent, item.obj, parameters)
            for key in self.seen:
                self.reached.setdefault(key, set()).add(item.nodeid)


def telling(name):
    """(first line, code) of a file's functions with a first statement that tells that they ran."""
    path = ROOT / "tinygrad_rnn" / "ops" / f"{name}.py"
    tree = ast.parse(path.read_text())
    for function in functions(tree):
        first = first_line(function)
        changed = copy.deepcopy(function)
        changed.body.insert(0, ast.parse(f"told_(({name!r}, {first}))").body[0])
        yield first, compiled(changed, tree, path)


def first_line(function):
    return min([function.lineno, *[d.lineno for d in function.decorator_list]])


def compiled(function, tree, path):
    """The code of a changed function of a file."""
    ast.fix_missing_locations(function)
    module = ast.Module([*[n for n in tree.body if isinstance(n, ast.ImportFrom) and n.module == "__future__"], function], [])
    return next(c for c in compile(module, str(path), "exec").co_consts if isinstance(c, types.CodeType) and c.co_name == function.name)


def survives(functions_, code, tests):
    """Whether the mutant passes all tests, found out in a process of its own."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        return status == 0
    # A mutant that runs for ever is noticed too.
    signal.alarm(20 + int(10 * sum(spent for spent, _, _ in tests)))
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 1)
        os.dup2(nothing.fileno(), 2)
    try:
        for f in functions_:
            f.__code__ = code
        np.seterr(all="ignore")
        for _, test, parameters in tests:
            test(**parameters)
    except BaseException:
        os._exit(1)
    os._exit(0)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("files", nargs="*", default=FILES, metavar="file", help=f"of {', '.join(FILES)}")
    parser.add_argument("--sample", type=int, help="only so many mutants, drawn at random")
    parser.add_argument("--suites", nargs="+", default=SUITES, metavar="test_file.py", help="the files of tests that are run")
    parser.add_argument("--budget", type=float, default=20.0, help="seconds of tests for one mutant at most, the quick ones first")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    modules = {name: importlib.import_module(f"tinygrad_rnn.ops.{name}") for name in options.files}
    running = {name: live(module) for name, module in modules.items()}
    mapper = Mapper(running)
    print(f"finding out which tests reach which functions of {', '.join(modules)}", flush=True)
    pytest.main(["-q", "--no-header", "-p", "no:cacheprovider", *(str(ROOT / "tests" / s) for s in options.suites), "-k", "not million and not long_chain"], plugins=[mapper])
    mapper.restore()
    found = [(name, *m) for name in modules for m in mutants(ROOT / "tinygrad_rnn" / "ops" / f"{name}.py")]
    if options.sample is not None and options.sample < len(found):
        chosen = np.random.default_rng(options.seed).choice(len(found), options.sample, replace=False)
        found = [found[k] for k in sorted(chosen)]
    alive, unseen, known = [], 0, 0
    began = time.time()
    for k, (name, function, first, line, before, after, code) in enumerate(found):
        tests = sorted((mapper.tests[t] for t in mapper.reached.get((name, first), ())), key=lambda t: t[0])
        total = np.cumsum([spent for spent, _, _ in tests])
        tests = [test for test, so_far in zip(tests, total, strict=True) if so_far < options.budget]
        if not tests or first not in running[name]:
            unseen += 1
            alive.append((name, function, line, before, after, "no test reaches it, or it runs at import"))
        elif survives(running[name][first], code, tests):
            reason = EQUIVALENT.get(f"{name}: {before} -> {after}")
            known += reason is not None
            alive.append((name, function, line, before, after, reason or ""))
            print(f"  alive: {name}.py:{line} in {function}: {before}  ->  {after}  {reason or ''}", flush=True)
        if k % 100 == 99:
            print(f"{k + 1} of {len(found)}, {len(alive)} alive, {time.time() - began:.0f} s", flush=True)
    killed = len(found) - len(alive)
    print(
        f"\n{killed} of {len(found)} mutants killed ({100 * killed / max(len(found), 1):.1f} %); {len(alive)} alive, of which {known} are equivalent and {unseen} are reached by no test"
    )
    print(f"of those that are not equivalent: {100 * killed / max(len(found) - known, 1):.1f} % killed")


if __name__ == "__main__":
    main()
