"""Mutation testing of the gradient rules: how many small changes of tinygrad_rnn/ops/*.py does the test suite notice?

    python benchmarks/mutants.py                      every mutant of every file: about six minutes on one core
    python benchmarks/mutants.py elementwise --sample 100

Each mutant is one changed operator, comparison, constant, sign, condition, default or keyword. It replaces the code of the live
functions in a forked process, which runs the tests that reach its line, quick ones first, and stops at the first that fails. What
runs at import (defaults, the bodies of functions that make operations) is changed in a copy of the package, imported by a new
interpreter. Messages of errors are no business of the rules, and are left alone. A test counts as a killer only if it passes
alone, without the mutant. The survivors are printed with their lines; those that are known to change nothing that can be seen are
listed in ``EQUIVALENT`` with the reason, are not run, and count as equivalent. Needs a system that can fork.

                 mutants  killed  equivalent  alive
    convolution      362     317          45      0
    counting          23      21           2      0
    elementwise      404     376          28      0
    indexing         151     138          13      0
    linalg           237     212          25      0
    methods           59      55           4      0
    reduction        249     239          10      0
    shapes            15      15           0      0
    shaping          242     229          13      0
    special          117     110           7      0
    all             1859    1712         147      0
"""

import argparse
import ast
import contextlib
import gc
import importlib
import itertools
import os
import pathlib
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import types
import warnings

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
FILES = ["convolution", "counting", "elementwise", "indexing", "linalg", "methods", "reduction", "shapes", "shaping", "special"]
SUITES = [
    "test_singular.py",
    "test_ops.py",
    "test_rules.py",
    "test_properties.py",
    "test_losses.py",
    "test_engine.py",
    "test_bad_input.py",
    "test_docs.py",
    "test_onnx.py",
    "test_unroll.py",
]
IMPORTED = ["test_rules.py", "test_singular.py", "test_docs.py", "test_engine.py", "test_ops.py"]
SLOW = 4.0

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

SHORTCUT = "a shortcut: the general way gives the same"
QUICKER = "which of two ways is quicker"
UNTAKEN = "beyond the bound another piece is taken; the bound keeps powers from overflowing"
BORDER = "both approximations hold at the border"
EQUIVALENT = {
    "elementwise.steady: type(g) is np.ndarray -> type(g) is not np.ndarray": SHORTCUT,
    "elementwise.steady: where(idle, 1.0, x) -> where(idle, 2.0, x)": "any number that is not singular does, as it is multiplied by 0",
    "elementwise.power_x: y > 1 -> y >= 1": "1 is taken before",
    "elementwise.power_x: y > 1 -> y > 2": SHORTCUT,
    "elementwise.power_x: x < 0 -> x <= 0": "at 0 and y above 1 the slope is 0 with or without a cotangent",
    "elementwise.power_x: where(idle, 1.0, x) -> where(idle, 2.0, x)": "it is multiplied by 0",
    "elementwise.power_y: y > 0 -> y >= 0": "0 ** 0 is named in the same line",
    "elementwise.power_y: where(idle, 0.0, g) -> where(idle, 1.0, g)": "the other factors are 0 there",
    "elementwise.power_y: where(idle, 0.0, out) -> where(idle, 1.0, out)": "the other factors are 0 there",
    "elementwise.power_y: where(idle, 1.0, x) -> where(idle, 2.0, x)": "it is multiplied by 0",
    "elementwise.power_y: where(idle, 1.0, x).astype(out.dtype, copy=False) -> where(idle, 1.0, x).astype(out.dtype)": "it saves a copy",
    "elementwise.power_y: where(idle, 1.0, x).astype(out.dtype, copy=False) -> where(idle, 1.0, x).astype(out.dtype, copy=True)": "it saves a copy",
    "elementwise.hypot_x: where(zero, 1.0, out) -> where(zero, 2.0, out)": "it divides 0",
    "elementwise.hypot_y: where(zero, 1.0, out) -> where(zero, 2.0, out)": "it divides 0",
    "elementwise.maximum_x: x > y -> x >= y": "equal operands are taken before",
    "elementwise.maximum_y: y > x -> y >= x": "equal operands are taken before",
    "elementwise.minimum_x: x < y -> x <= y": "equal operands are taken before",
    "elementwise.minimum_y: y < x -> y <= x": "equal operands are taken before",
    "elementwise.leaky_relu: np.asarray(x) > 0 -> np.asarray(x) >= 0": "both branches are 0 at 0",
    "elementwise.elu: x > 0 -> x >= 0": "both branches are 0 at 0",
    "elementwise.elu: np.minimum(x, 0) -> np.minimum(x, 1)": "the branch is not taken above 0; the bound keeps exp from overflowing",
    "elementwise.elu_x: x > 0 -> x >= 0 [2]": "the exponential is 1 at 0 either way",
    "elementwise.elu_x: x > 0 -> x > 1 [2]": "the branch is not taken above 0",
    "elementwise.elu_x: where(x > 0, 0.0, x) -> where(x > 0, 1.0, x)": "the branch is not taken above 0; the bound keeps exp from overflowing",
    "indexing.add_at: total.ndim > 1 -> total.ndim >= 1": QUICKER,
    "indexing.add_at: total.ndim > 1 -> total.ndim > 2": QUICKER,
    "indexing.add_at: index.size > 1 -> index.size >= 1": QUICKER,
    "indexing.add_at: index.size > 1 -> index.size > 2": QUICKER,
    "indexing._add_rows: np.argsort(rows, kind='stable') -> np.argsort(rows)": "the order of equal rows, and so of a sum's terms",
    "indexing.getitem: type(part) is not slice and type(part) is not int and (part is not None) and (part is not Ellipsis) -> type(part) is not slice or type(part) is not int or part is not None or (part is not Ellipsis)": SHORTCUT,
    "indexing.getitem: kind is not int and kind is not slice -> kind is not int or kind is not slice": SHORTCUT,
    "linalg.matmul_y: type(g) is np.ndarray -> type(g) is not np.ndarray": SHORTCUT,
    "linalg.matmul: type(x) is np.ndarray -> type(x) is not np.ndarray": SHORTCUT,
    "linalg.matmul: type(y) is np.ndarray -> type(y) is not np.ndarray": SHORTCUT,
    "linalg.matmul: x.size < LARGE -> x.size <= LARGE": "which of two ways to multiply is quicker",
    "convolution._products: len(a) > 1 -> len(a) >= 1": "which of two ways to multiply is quicker",
    "linalg.matmul: x.ndim == 2 -> x.ndim != 2": SHORTCUT,
    "linalg.matmul: x.ndim == 2 -> x.ndim == 3": SHORTCUT,
    "linalg.matmul: x.ndim > 2 and x.shape[-1] == y.shape[0] -> x.ndim > 2 or x.shape[-1] == y.shape[0]": SHORTCUT,
    "linalg.matmul: x.ndim > 2 -> x.ndim >= 2": SHORTCUT,
    "linalg.matmul: x.ndim > 2 -> x.ndim > 3": SHORTCUT,
    "linalg.matmul: x.shape[-1] == y.shape[0] -> x.shape[-1] != y.shape[0]": SHORTCUT,
    "linalg.matmul: y.shape[0] -> y.shape[1]": SHORTCUT,
    "linalg.matmul_x: len(x_shape) == 2 == y.ndim -> len(x_shape) != 2 == y.ndim": SHORTCUT,
    "linalg.dot: second <= 2 -> second < 2": SHORTCUT,
    "linalg._einsum: np.einsum(subscripts, *operands, optimize=max((a.size for a in operands)) > 256) -> np.einsum(subscripts, *operands)": QUICKER,
    "linalg._einsum: max((a.size for a in operands)) > 256 -> max((a.size for a in operands)) >= 256": QUICKER,
    "linalg._einsum: max((a.size for a in operands)) > 256 -> max((a.size for a in operands)) > 257": QUICKER,
    "shaping.module: _reshape.primitive.seen_through = True -> _reshape.primitive.seen_through = False": "it saves copies",
    "shaping.module: _transpose.primitive.seen_through = True -> _transpose.primitive.seen_through = False": "it saves copies",
    "reduction.std_a: where(zero, 1.0, out) -> where(zero, 2.0, out)": "it divides 0",
    "reduction._norm2_x: where(zero, 1.0, out) -> where(zero, 2.0, out)": "it divides 0",
    "linalg.matmul: x.shape[-1] -> x.shape[-2]": SHORTCUT,
    "linalg._einsum_operands: np.indices(once, sparse=True) -> np.indices(once)": QUICKER,
    "linalg._einsum_operands: np.indices(once, sparse=True) -> np.indices(once, sparse=False)": QUICKER,
    "convolution._correlate: max(1, _IN_CACHE * groups // max(1, o)) -> max(2, _IN_CACHE * groups // max(1, o))": QUICKER,
    "convolution._correlate: _IN_CACHE * groups // max(1, o) -> _IN_CACHE * groups * max(1, o)": QUICKER,
    "convolution._correlate: max(1, o) -> max(2, o)": QUICKER,
    "convolution._window_spread: size <= step -> size < step": "it is added to zeros",
    "elementwise.steady: bad is False or (type(g) is np.ndarray and type(bad) is np.ndarray and (not bad.any())) -> bad is False and (type(g) is np.ndarray and type(bad) is np.ndarray and (not bad.any()))": SHORTCUT,
    "elementwise.steady: bad is False -> bad is True": SHORTCUT,
    "elementwise.steady: type(bad) is np.ndarray -> type(bad) is not np.ndarray": SHORTCUT,
    "reduction.norm: ord == 1 -> ord == 2": SHORTCUT,
    "reduction._matrix_norm: ord > 0 -> ord >= 0": "0 is refused before",
    "reduction._norm_p: p > 0 -> p >= 0": "0 is taken before",
    "reduction._norm_p: where(zero, 1.0, size) -> where(zero, 2.0, size)": "it is not taken",
    "reduction._norm_p: where(empty, 1.0, total) -> where(empty, 2.0, total)": "it is not taken",
    "convolution.module: _ENOUGH = 16 -> _ENOUGH = 17": QUICKER,
    "convolution._framed: max(padding) <= 0 -> max(padding) < 0": SHORTCUT,
    "convolution._framed: max(0, ph) -> max(1, ph) [2]": "where it is not positive the slice ends with the array",
    "convolution._framed: max(0, pw) -> max(1, pw) [2]": "where it is not positive the slice ends with the array",
    "convolution._columns: c // groups * kw >= _ENOUGH -> c // groups * kw > _ENOUGH": QUICKER,
    "convolution._columns: c // groups * kw -> c // groups / kw": QUICKER,
    "convolution._columns: c // groups -> c * groups": QUICKER,
    "reduction.logsumexp: np.where(np.isfinite(largest), largest, 0.0) -> np.where(np.isfinite(largest), largest, 1.0)": "any finite number that is taken away and added again does",
    "reduction.logsumexp_a: where(out == -np.inf, 0.0, out) -> where(out == -np.inf, 1.0, out)": "less any finite number, -inf is -inf",
    "methods._reduced: kwargs.keys() & {'where', 'initial', 'out'} -> kwargs.keys() | {'where', 'initial', 'out'}": "NumPy's function comes back to the operation",
    "indexing.getitem: len(index) <= a.ndim -> len(index) < a.ndim": SHORTCUT,
    "special._of_magnitude: np.minimum(a, 0.84375) -> np.minimum(a, 1.84375)": UNTAKEN,
    "special._of_magnitude: np.clip(a, 0.84375, 1.25) -> np.clip(a, 0.84375, 2.25)": UNTAKEN,
    "special._of_magnitude: np.clip(a, 1.25, 28.0) -> np.clip(a, 1.25, 29.0)": "from 27.3 on the complement is 0 in float64",
    "special._of_magnitude: tail < 1 / 0.35 -> tail <= 1 / 0.35": BORDER,
    "special._of_magnitude: a < 0.84375 -> a <= 0.84375": BORDER,
    "special._of_magnitude: a < 1.25 -> a <= 1.25": BORDER,
    "special.erfc: value < 0 -> value <= 0": "at 0 the complement is 1, and so is 2 less it",
}
"""``file.function: before -> after`` and why nobody can tell."""


def _defaults(text):
    """The defaults in the text of a function's parameters, by name."""
    found = ast.parse(f"def f{text}: 0").body[0].args
    plain = [*found.posonlyargs, *found.args]
    pairs = [*zip(plain[len(plain) - len(found.defaults) :], found.defaults, strict=True), *zip(found.kwonlyargs, found.kw_defaults, strict=True)]
    return {parameter.arg: ast.dump(default) for parameter, default in pairs if default is not None}


def equivalent(mutant):
    if isinstance(mutant.shown, ast.arguments) and isinstance(mutant.top, ast.FunctionDef):
        before, after = _defaults(mutant.before), _defaults(mutant.after)
        read = {node.id for statement in mutant.top.body for node in ast.walk(statement) if isinstance(node, ast.Name)}
        if not any(name in read for name in before if before[name] != after.get(name)) and not any("primitive" in ast.unparse(d) for d in mutant.top.decorator_list):
            return "a parameter that NumPy's function has, and that is not read"
    if isinstance(mutant.shown, ast.arguments) and mutant.function.startswith("_") and any("primitive" in ast.unparse(d) for d in mutant.top.decorator_list):
        return "the public function passes every argument, and leaves no default to use"
    return EQUIVALENT.get(str(mutant))


def changes(node):
    """The ways to change one node."""
    if isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in OTHERS:
        yield lambda n: setattr(n, "op", OTHERS[type(n.op)]())
    if isinstance(node, ast.Compare) and type(node.ops[0]) in FLIPPED:
        yield lambda n: n.ops.__setitem__(0, FLIPPED[type(n.ops[0])]())
    if isinstance(node, ast.BoolOp):
        yield lambda n: setattr(n, "op", ast.Or() if isinstance(n.op, ast.And) else ast.And())
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Invert) and not isinstance(node.operand, ast.Constant):
        yield lambda n: setattr(n, "op", ast.UAdd())
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield lambda n: setattr(n, "operand", ast.UnaryOp(ast.Not(), n.operand))
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        yield lambda n: setattr(n, "value", n.value + 1)
    if isinstance(node, ast.Constant) and type(node.value) is bool:
        yield lambda n: setattr(n, "value", not n.value)
    if isinstance(node, ast.If | ast.IfExp | ast.While) and isinstance(node.test, ast.Name | ast.Call | ast.Attribute | ast.Subscript):
        yield lambda n: setattr(n, "test", ast.UnaryOp(ast.Not(), n.test))
    if isinstance(node, ast.Call):
        for k, keyword in enumerate(node.keywords):
            if keyword.arg not in (None, "strict"):
                yield lambda n, k=k: n.keywords.pop(k)


def _named(node, name):
    """Whether a node is a call of a function or method of this name."""
    return isinstance(node, ast.Call) and name == getattr(node.func, "attr", getattr(node.func, "id", None))


def places(top):
    """(node, its innermost statement, what is shown of it) of a statement of a file: no annotation, nothing that is raised."""

    def inside(node, statement, shown, shape=False):
        if isinstance(node, ast.Raise):
            return
        if shape and ast.unparse(node) == "-1":
            # Of a shape, NumPy takes any negative number for the length to be found.
            return
        shape = _named(node, "reshape") or (shape and isinstance(node, ast.Tuple | ast.BinOp | ast.Starred))
        yield node, statement, shown if isinstance(node, ast.Constant | ast.UnaryOp) else node
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns", "decorator_list"):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    around = shown if isinstance(node, ast.Tuple | ast.UnaryOp | ast.List | ast.Constant | ast.keyword | ast.Slice) and not isinstance(shown, ast.stmt) else node
                    yield from inside(child, child if isinstance(child, ast.stmt) else statement, around, shape and field != "func")

    if isinstance(top, ast.FunctionDef | ast.For) or (isinstance(top, ast.Assign) and not isinstance(top.value, ast.BinOp)):
        yield from inside(top, top, top)


class Mutant:
    """One change of a statement of a file."""

    def __init__(self, name, body, at, changed, place, number):
        self.name, self.body, self.at, self.top = name, body, at, changed
        node, statement, shown = next(itertools.islice(places(changed), place, None))
        self.function = getattr(changed, "name", "module")
        self.line = getattr(node, "lineno", statement.lineno)
        last = statement.body[0].lineno - 1 if getattr(statement, "body", None) else statement.end_lineno
        self.lines = set(range(statement.lineno, max(last, statement.lineno) + 1))
        self.occurrence = 1
        self.targets = {n.id for t in getattr(changed, "targets", ()) for n in ast.walk(t) if isinstance(n, ast.Name)}
        self.shown, self.before = shown, _text(shown)
        list(changes(node))[number](node)
        self.after = _text(shown)
        ast.fix_missing_locations(changed)

    @property
    def tree(self):
        return ast.Module([*self.body[: self.at], self.top, *self.body[self.at + 1 :]], [])

    def source(self):
        return ast.unparse(self.tree)

    def codes(self, path, originals):
        """(key of the code that is replaced, code) for each code object in a file's that differs."""
        changed = list(nested(compile(self.tree, str(path), "exec", dont_inherit=True)))
        if len(changed) != len(originals):
            # The compiler folds away what a constant leaves unreached: the function is replaced as a whole.
            whole = {code.co_qualname: code for code in changed}
            return [(key(old), whole[self.function]) for old in originals if old.co_qualname == self.function]
        pairs = [(old, new) for old, new in zip(originals, changed, strict=True) if old != new]
        return [(key(old), new) for old, new in pairs[1:]]

    def __str__(self):
        again = f" [{self.occurrence}]" if self.occurrence > 1 else ""
        return f"{self.name}.{self.function}: {self.before} -> {self.after}{again}"


def _text(node):
    if isinstance(node, ast.If | ast.While):
        return f"if {ast.unparse(node.test)}"
    if isinstance(node, ast.arguments):
        return f"({ast.unparse(node)})"
    return ast.unparse(node)


def nested(code):
    """A code object and all inside it."""
    yield code
    for part in code.co_consts:
        if isinstance(part, types.CodeType):
            yield from nested(part)


def key(code):
    return code.co_qualname, code.co_firstlineno, tuple(code.co_positions())


def path_of(name):
    return ROOT / "tinygrad_rnn" / "ops" / f"{name}.py"


def mutants(name):
    """All changes of a file; of those that read the same in one function the second says so."""
    seen = {}
    for mutant in _mutants(name):
        text = str(mutant)
        seen[text] = seen.get(text, 0) + 1
        mutant.occurrence = seen[text]
        yield mutant


def _mutants(name):
    body = ast.parse(path_of(name).read_text()).body
    for at, top in enumerate(body):
        stored = pickle.dumps(top)
        for place, (node, _, _) in enumerate(places(top)):
            for number, _ in enumerate(changes(node)):
                yield Mutant(name, body, at, pickle.loads(stored), place, number)


class Mapper:
    """A pytest plugin that notes which tests reach which lines of the files, and how long they take."""

    def __init__(self, names):
        self.files = {str(path_of(name)): name for name in names}
        self.reached, self.tests = {}, {}

    def trace(self, frame, event, arg):
        name = self.files.get(frame.f_code.co_filename)
        if name is None:
            return None
        seen = self.seen

        def local(frame, event, arg):
            seen.add((name, frame.f_lineno))
            return local

        return local

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_call(self, item):
        self.seen = set()
        began = time.perf_counter()
        sys.settrace(self.trace)
        outcome = yield
        sys.settrace(None)
        spent = time.perf_counter() - began
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        needs = set(item._fixtureinfo.argnames) - set(parameters)
        if outcome.excinfo is None and not needs and spent < SLOW:
            strict = not list(item.iter_markers("filterwarnings"))
            self.tests[item.nodeid] = (spent, item.obj, parameters, strict)
            for place in self.seen:
                self.reached.setdefault(place, set()).add(item.nodeid)

    def reaching(self, name, lines):
        return set().union(*(self.reached.get((name, line), set()) for line in lines))


class Runner:
    """Runs tests against mutants."""

    def __init__(self, mapper, budget, folder):
        self.mapper, self.budget, self.folder = mapper, budget, folder
        self.alone, self.killers = {}, {}
        self.copied = None

    def ordered(self, mutant, tests):
        """Quick tests first, and before them those that killed other mutants of the function."""
        known = self.killers.get((mutant.name, mutant.function), [])
        chosen, total = [t for t in reversed(known) if t in tests], 0.0
        for test in sorted(tests - set(chosen), key=lambda t: self.mapper.tests[t][0]):
            total += self.mapper.tests[test][0]
            if total > self.budget:
                break
            chosen.append(test)
        return chosen

    def forked(self, apply, tests):
        """The first of the tests that fails after ``apply()``, in a process of its own; None if all pass."""
        read, write = os.pipe()
        child = os.fork()
        if child:
            os.close(write)
            with os.fdopen(read, "rb") as reports:
                started = len(reports.read())
            _, status = os.waitpid(child, 0)
            return None if status == 0 else tests[started - 1]
        os.close(read)
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), 1)
            os.dup2(nothing.fileno(), 2)
        try:
            apply()
            for test in tests:
                os.write(write, b".")
                spent, run, parameters, strict = self.mapper.tests[test]
                # A mutant that runs for ever is noticed too.
                signal.alarm(10 + int(20 * spent))
                with warnings.catch_warnings():
                    warnings.simplefilter("error" if strict else "ignore")
                    run(**parameters)
        except BaseException:
            os._exit(1)
        os._exit(0)

    def killer(self, mutant, apply, tests):
        """The test that notices the mutant and does not fail without it."""
        chosen = self.ordered(mutant, tests)
        while chosen:
            failed = self.forked(apply, chosen)
            if failed is None:
                return None
            if failed not in self.alone:
                self.alone[failed] = self.forked(lambda: None, [failed]) is None
            if self.alone[failed]:
                known = self.killers.setdefault((mutant.name, mutant.function), [])
                if failed not in known:
                    known.append(failed)
                return failed
            chosen = [t for t in chosen if self.alone.get(t, True)]
        return None

    def imported(self, mutant, tests):
        """The same in a new interpreter that imports a changed copy of the package."""
        if self.copied is None:
            self.copied = pathlib.Path(self.folder)
            shutil.copytree(ROOT / "tinygrad_rnn", self.copied / "tinygrad_rnn", ignore=shutil.ignore_patterns("__pycache__"))
            for extra in ("pyproject.toml", "README.md"):
                shutil.copy(ROOT / extra, self.copied)
            (self.copied / "tests").symlink_to(ROOT / "tests")
        target = self.copied / "tinygrad_rnn" / "ops" / f"{mutant.name}.py"
        original = target.read_text()
        target.write_text(mutant.source())
        chosen = [*self.ordered(mutant, tests)[:25], *(f"tests/{s}" for s in IMPORTED if (ROOT / "tests" / s).exists())]
        environment = {**os.environ, "PYTHONPATH": str(self.copied), "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            run = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--rootdir", str(self.copied), "-k", "not million and not long_chain", *chosen]
            with contextlib.suppress(subprocess.TimeoutExpired):
                return subprocess.run(run, cwd=self.copied, env=environment, capture_output=True, timeout=200).returncode
            return 1
        finally:
            target.write_text(original)


def apply_codes(live, codes):
    def apply():
        for place, code in codes:
            for f in live.get(place, ()):
                f.__code__ = code

    return apply


def apply_function(module, functions, definition):
    """The functions with the code and the defaults of a changed definition."""

    def apply():
        namespace = dict(vars(module))
        exec(compile(ast.Module([definition], []), module.__file__, "exec"), namespace)
        for f in functions:
            f.__defaults__, f.__kwdefaults__ = namespace[definition.name].__defaults__, namespace[definition.name].__kwdefaults__

    return apply


def apply_assignment(module, statement):
    return lambda: exec(compile(ast.Module([statement], []), "<mutant>", "exec"), vars(module))


def verdict(mutant, module, live, originals, mapper, runner):
    """(whether the mutant is noticed, what is to be said where it is not)."""
    codes = mutant.codes(path_of(mutant.name), originals)
    top = mutant.top
    if codes and any(place in live for place, _ in codes):
        tests = mapper.reaching(mutant.name, mutant.lines)
        if tests:
            return runner.killer(mutant, apply_codes(live, codes), tests) is not None, ""
    if not codes and isinstance(top, ast.Assign):
        others = [n for k, other in enumerate(mutant.body) if k != mutant.at for n in ast.walk(other)]
        tests = mapper.reaching(mutant.name, {n.lineno for n in others if isinstance(n, ast.Name) and n.id in mutant.targets})
        return runner.killer(mutant, apply_assignment(module, top), tests) is not None, "" if tests else "no test reaches it"
    tests = mapper.reaching(mutant.name, range(top.body[0].lineno, top.end_lineno + 1)) if isinstance(top, ast.FunctionDef) and not codes else set()
    if tests and not top.decorator_list:
        functions = [f for fs in live.values() for f in fs if f.__code__.co_qualname == top.name and f.__module__ == module.__name__]
        return runner.killer(mutant, apply_function(module, functions, top), tests) is not None, ""
    return runner.imported(mutant, tests) not in (0, 5), "at import, or no test reaches it"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("files", nargs="*", default=FILES, metavar="file", help=f"of {', '.join(FILES)}")
    parser.add_argument("--sample", type=int, help="only so many mutants, drawn at random")
    parser.add_argument("--suites", nargs="+", default=SUITES, metavar="test_file.py", help="the files of tests that are run")
    parser.add_argument("--budget", type=float, default=20.0, help="seconds of tests for one mutant at most, the quick ones first")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    modules = {name: importlib.import_module(f"tinygrad_rnn.ops.{name}") for name in options.files}
    mapper = Mapper(modules)
    print(f"finding out which tests reach which lines of {', '.join(modules)}", flush=True)
    suites = [str(ROOT / "tests" / s) for s in options.suites if (ROOT / "tests" / s).exists()]
    began = time.time()
    pytest.main(["-q", "--no-header", "-W", "ignore::pytest.PytestAssertRewriteWarning", "-p", "no:cacheprovider", "-k", "not million and not long_chain", *suites], plugins=[mapper])
    print(f"{len(mapper.tests)} tests, {time.time() - began:.0f} s", flush=True)
    live = {}
    for f in gc.get_objects():
        if isinstance(f, types.FunctionType) and f.__code__.co_filename in mapper.files:
            live.setdefault(key(f.__code__), []).append(f)
    originals = {name: list(nested(compile(ast.parse(path_of(name).read_text()), str(path_of(name)), "exec", dont_inherit=True))) for name in modules}
    found = [m for name in modules for m in mutants(name)]
    for stale in sorted(entry for entry in set(EQUIVALENT) - set(map(str, found)) if entry.split(".")[0] in modules):
        print(f"  no such mutant: {stale}", flush=True)
    if options.sample is not None and options.sample < len(found):
        chosen = np.random.default_rng(options.seed).choice(len(found), options.sample, replace=False)
        found = [found[k] for k in sorted(chosen)]
    counts = {name: [0, 0, 0] for name in modules}
    began = time.time()
    with tempfile.TemporaryDirectory() as folder:
        runner = Runner(mapper, options.budget, folder)
        # A collection in a child would copy every page that it shares.
        gc.freeze()
        for k, mutant in enumerate(found):
            reason = equivalent(mutant)
            noticed, why = (False, reason) if reason else verdict(mutant, modules[mutant.name], live, originals[mutant.name], mapper, runner)
            if not noticed and mutant.before.replace("strict=True", "strict=False") == mutant.after:
                reason = why = "the lengths always agree: where a caller's may not, a test notices"
            for place, true in enumerate((True, noticed, reason is not None)):
                counts[mutant.name][place] += true
            if not noticed:
                print(f"  {'equivalent' if reason else 'alive'}: {mutant.name}.py:{mutant.line} {mutant}  [{why or '?'}]", flush=True)
            if k % 100 == 99:
                print(f"{k + 1} of {len(found)}, {time.time() - began:.0f} s", flush=True)
    print(f"\n{'':14}{'mutants':>9}{'killed':>9}{'equivalent':>12}{'alive':>7}{'killed of the others':>22}")
    for name, (total, killed, known) in [*counts.items(), ("all", np.sum(list(counts.values()), axis=0))]:
        print(f"{name:14}{total:>9}{killed:>9}{known:>12}{total - killed - known:>7}{100 * killed / max(total - known, 1):>20.1f} %")


if __name__ == "__main__":
    main()
