"""Bad input: each gets an error of ours that a user of NumPy or PyTorch would catch too, that says what came, and nothing is lost."""

import copy
import inspect
import pickle
import re

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn.errors import AxisError, DtypeError, GradientError, NotDifferentiableError, OutOfRangeError, ShapeError, TapeError, TinygradError

F32 = np.float32


class World:
    """What a user has at hand when the mistake is made; afterwards all of it must be as before and still of use."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.w = tg.tensor(rng.standard_normal((2, 3)).astype(F32), requires_grad=True, name="w")
        self.v = tg.tensor(rng.standard_normal(3).astype(F32), requires_grad=True, name="v")
        self.s = tg.tensor(F32(0.5), requires_grad=True, name="s")
        self.square = tg.tensor(rng.standard_normal((3, 3)).astype(F32), requires_grad=True)
        self.x = tg.tensor(rng.standard_normal((2, 3)).astype(F32), name="x")
        self.i = tg.arange(6).reshape(2, 3)
        self.h = self.w * self.x
        (self.w * 2).sum().backward()
        self.leaves = [self.w, self.v, self.s, self.square, self.x, self.i]
        self.before = [(t.numpy().copy(), None if t.grad is None else t.grad.numpy().copy(), t.requires_grad) for t in self.leaves]

    def check(self):
        for t, (values, grad, requires_grad) in zip(self.leaves, self.before, strict=True):
            np.testing.assert_array_equal(t.numpy(), values)
            assert t.requires_grad == requires_grad
            assert (t.grad is None) == (grad is None) and (grad is None or (t.grad.numpy() == grad).all())
        # The record made before is still good: nothing that it kept counts as written.
        np.testing.assert_array_equal(tg.grad(self.h, self.w, np.ones((2, 3), F32)).numpy(), self.x.numpy())
        assert (self.w * 1).requires_grad and tg.tape(self.w * 1)[0].scope == ()
        assert tg.get_default_dtype() == F32


def raises(world, call, ours, builtin, *words):
    with pytest.raises(ours) as caught:
        call(world)
    error = caught.value
    assert isinstance(error, TinygradError) and isinstance(error, builtin), type(error).__mro__
    for word in words:
        assert re.search(word, str(error)), f"{word!r} is not in: {error}"
    world.check()


def released(world):
    loss = (world.w * world.w).sum()
    tg.grad(loss, world.w)
    return loss


def inplace(operator):
    def change(world):
        w = world.w
        exec(f"w {operator} 2", {"w": w})

    return change


def retained(call):
    """A mistake after a value was saved: the record of the changed value may not be used, the world's own may."""
    return lambda world: call(world, tg.tensor(world.x.numpy(), name="kept"))


def saved_then(change):
    def call(world, kept):
        loss = (world.w * kept).sum()
        change(kept)
        loss.backward()

    return retained(call)


def add_one(t):
    t += 1


def set_item(t):
    t[0, 0] = 5


def set_data(t):
    t.data = np.zeros((2, 3))


def through_view(t):
    view = t[0]
    view *= 2


def through_detach(world):
    twin = tg.tensor(world.w.numpy(), requires_grad=True)
    loss = (twin * twin).sum()
    alias = twin.detach()
    alias += 1
    loss.backward()


def saved_output_changed(world):
    w = tg.tensor(world.w.numpy(), requires_grad=True)
    h = tg.tanh(w)
    alias = h.detach()
    alias *= 2
    h.sum().backward()


def hooked(gradient):
    def call(world):
        h = world.w * 2
        h.register_hook(lambda g: gradient)
        h.sum().backward()

    return call


PRODUCTS = {
    "matmul": (lambda s: s.w @ s.w, ShapeError, ValueError, "matmul", r"x=float32 \(2, 3\)", r"y=float32 \(2, 3\)", "3.*2"),
    "matmul vector": (lambda s: s.w @ s.w[0, :2], ShapeError, ValueError, "matmul", r"\(2, 3\)", r"\(2,\)"),
    "matmul scalar": (lambda s: s.w @ s.s, ShapeError, ValueError, "matmul", r"\(2, 3\)", r"y=float32 \(\)"),
    "matmul batch": (lambda s: tg.ones((2, 1, 3)) @ tg.ones((3, 3, 1)), ShapeError, ValueError, "matmul", r"\(2, 1, 3\)", r"\(3, 3, 1\)"),
    "matmul array": (lambda s: np.ones((4, 5), F32) @ s.w, ShapeError, ValueError, "matmul", r"\(4, 5\)", r"\(2, 3\)"),
    "in-place matmul": (inplace("@="), ShapeError, ValueError, "matmul", r"\(2, 3\)"),
    "dot": (lambda s: tg.dot(s.w, s.w), ShapeError, ValueError, r"\(2, 3\)"),
    "einsum sizes": (lambda s: tg.einsum("ij,jk->ik", s.w, s.w), ShapeError, ValueError, "einsum", r"\(2, 3\)", "ij,jk->ik"),
    "einsum operands": (lambda s: tg.einsum("ij,jk->ik", s.w), ShapeError, ValueError, "einsum", "2 operands", "got 1"),
    "einsum rank": (lambda s: tg.einsum("ijk->i", s.w), ShapeError, ValueError, "einsum", "operand 0", r"\(2, 3\)", "ijk"),
    "einsum output": (lambda s: tg.einsum("ij->k", s.w), ShapeError, ValueError, "einsum", "'k'"),
    "tensordot": (lambda s: tg.tensordot(s.w, s.w, 1), ShapeError, ValueError, "tensordot", r"\(2, 3\)"),
    "add": (lambda s: s.w + tg.ones(4), ShapeError, ValueError, "add", r"x=float32 \(2, 3\)", r"y=float32 \(4,\)"),
    "add array": (lambda s: np.ones(4) + s.w, ShapeError, ValueError, "add", r"\(2, 3\)", r"float64 \(4,\)"),
    "np.multiply": (lambda s: np.multiply(s.w, np.ones(4)), ShapeError, ValueError, "multiply", r"\(2, 3\)", r"\(4,\)"),
    "compare": (lambda s: s.w > tg.ones(4), ShapeError, ValueError, "greater", r"\(2, 3\)", r"\(4,\)"),
    "where": (lambda s: tg.where(np.ones(4, bool), s.w, 0.0), ShapeError, ValueError, "where", r"\(4,\)", r"\(2, 3\)"),
    "clip": (lambda s: tg.clip(s.w, tg.zeros(4), None), ShapeError, ValueError, "clip", r"\(2, 3\)", r"\(4,\)"),
    "broadcast_to": (lambda s: tg.broadcast_to(s.w, (2, 4)), ShapeError, ValueError, "broadcast_to", r"\(2, 3\)", r"\(2, 4\)"),
    "broadcast_arrays": (lambda s: tg.broadcast_arrays(s.w, tg.ones(4)), ShapeError, ValueError, "broadcast_arrays"),
    "add None": (lambda s: s.w + None, DtypeError, TypeError, "add", "None"),
    "add text": (lambda s: s.w + "a", DtypeError, TypeError, "add", "'a'"),
    "add complex": (lambda s: s.w + 1j, DtypeError, TypeError, "add", "complex|1j"),
    "add complex array": (lambda s: s.w + np.ones(3) * 1j, DtypeError, TypeError, "add", "y", "complex128"),
    "add ragged": (lambda s: s.w + [[1.0], [1.0, 2.0]], DtypeError, TypeError, "add", "y"),
    "exp of None": (lambda s: tg.exp(None), DtypeError, TypeError, "exp", "None"),
}  # fmt: skip

MAKING = {
    "integers": (lambda s: tg.tensor([1, 2], requires_grad=True), DtypeError, TypeError, "requires_grad", "int64", "astype"),
    "bools": (lambda s: tg.tensor([True], requires_grad=True), DtypeError, TypeError, "requires_grad", "bool"),
    "later": (lambda s: s.i.requires_grad_(), DtypeError, TypeError, "requires_grad", "int64"),
    "attribute": (lambda s: setattr(s.i, "requires_grad", True), DtypeError, TypeError, "requires_grad", "int64"),
    "creation": (lambda s: tg.zeros(2, dtype=int, requires_grad=True), DtypeError, TypeError, "requires_grad", "int64"),
    "text": (lambda s: tg.tensor("abc", requires_grad=True), DtypeError, TypeError, "tensor", "<U3", "floats"),
    "list of text": (lambda s: tg.tensor(["a", "b"]), DtypeError, TypeError, "tensor", "<U1"),
    "text as float": (lambda s: tg.tensor(["a", "b"], dtype=F32), TinygradError, ValueError, "tensor", "'a'"),
    "complex": (lambda s: tg.tensor([1j], requires_grad=True), DtypeError, TypeError, "tensor", "complex128"),
    "complex dtype": (lambda s: tg.tensor([1.0], dtype=complex), DtypeError, TypeError, "tensor", "complex128"),
    "ragged": (lambda s: tg.tensor([[1.0], [1.0, 2.0]], requires_grad=True), ShapeError, ValueError, "tensor", "shape"),
    "None": (lambda s: tg.tensor(None), DtypeError, TypeError, "tensor", "object"),
    "dates": (lambda s: tg.tensor(np.array(["2020"], "M8[D]")), DtypeError, TypeError, "tensor", "datetime64"),
    "no dtype": (lambda s: tg.tensor([1.0], dtype="nonsense"), DtypeError, TypeError, "tensor", "nonsense"),
    "list of tracked": (lambda s: tg.tensor([s.v, s.v]), GradientError, RuntimeError, "tensor", "stack"),
    "astype": (lambda s: s.w.astype(complex), DtypeError, TypeError, "astype", "complex128"),
    "negative length": (lambda s: tg.zeros(2, -1), ShapeError, ValueError, "zeros", r"\(2, -1\)"),
    "float length": (lambda s: tg.ones(1.5), DtypeError, TypeError, "ones", "1.5"),
    "default dtype": (lambda s: tg.set_default_dtype(np.int64), DtypeError, TypeError, "set_default_dtype", "int64"),
    "default dtype that is none": (lambda s: tg.set_default_dtype("nonsense"), DtypeError, TypeError, "set_default_dtype", "nonsense"),
    "complex zeros": (lambda s: tg.zeros(2, dtype=complex), DtypeError, TypeError, "zeros", "complex128"),
    "random text": (lambda s: tg.randn(2, dtype="U3"), DtypeError, TypeError, "randn", "<U3"),
    "no dtype of ones": (lambda s: tg.ones(2, dtype="nonsense"), DtypeError, TypeError, "ones", "nonsense"),
    "eye": (lambda s: tg.eye(-1), ShapeError, ValueError, "eye", "negative"),
    "linspace": (lambda s: tg.linspace(0, 1, -1), ShapeError, ValueError, "linspace", "-1"),
    "arange": (lambda s: tg.arange(0, 1, 0), ShapeError, ValueError, "arange", "step"),
    "rng": (lambda s: tg.randn(2, rng="seed"), DtypeError, TypeError, "rng", "str"),
    "scope": (lambda s: tg.scope(3), DtypeError, TypeError, "scope", "int"),
}  # fmt: skip

BACKWARD = {
    "non-scalar": (lambda s: (s.w * 2).backward(), GradientError, RuntimeError, "backward", r"\(2, 3\)", "cotangent", "sum"),
    "non-scalar grad": (lambda s: tg.grad(s.w * 2, s.w), GradientError, RuntimeError, "grad", r"\(2, 3\)"),
    "no graph": (lambda s: s.x.sum().backward(), TapeError, RuntimeError, "backward", "no graph"),
    "detached": (lambda s: (s.w.detach() * 2).sum().backward(), TapeError, RuntimeError, "backward", "no graph"),
    "detached grad": (lambda s: tg.grad((s.w.detach() * 2).sum(), s.w), TapeError, RuntimeError, "grad", "output 0", "no graph"),
    "under no_grad": (lambda s: tg.no_grad()(lambda: s.w * 2)().sum().backward(), TapeError, RuntimeError, "no graph", "no_grad"),
    "of a sign": (lambda s: tg.sign(s.w).sum().backward(), TapeError, RuntimeError, "no graph", "without a gradient"),
    "of integers": (lambda s: s.w.astype(int).sum().backward(), TapeError, RuntimeError, "no graph"),
    "released": (lambda s: released(s).backward(), TapeError, RuntimeError, "backward", "sum", "released", "retain_graph=True"),
    "released grad": (lambda s: tg.grad(released(s), s.w), TapeError, RuntimeError, "released", "retain_graph=True"),
    "cotangent shape": (lambda s: (s.w * 2).backward(np.ones(3, F32)), GradientError, RuntimeError, "backward", r"\(3,\)", r"\(2, 3\)"),
    "cotangent that broadcasts": (lambda s: (s.w * 2).backward(np.ones((2, 1), F32)), GradientError, RuntimeError, r"\(2, 1\)", r"\(2, 3\)"),
    "cotangent scalar": (lambda s: (s.w * 2).backward(1.0), GradientError, RuntimeError, r"\(\)", r"\(2, 3\)"),
    "cotangent of a scalar": (lambda s: (s.w * 2).sum().backward(np.ones(1, F32)), GradientError, RuntimeError, r"\(1,\)", r"\(\)"),
    "cotangent dtype": (lambda s: (s.w * 2).backward(np.ones((2, 3))), DtypeError, TypeError, "backward", "float64", "float32", "astype"),
    "cotangent integers": (lambda s: (s.w * 2).backward(np.ones((2, 3), int)), DtypeError, TypeError, "backward", "int64", "float32"),
    "cotangent ragged": (lambda s: (s.w * 2).backward([[1.0], [1.0, 2.0]]), ShapeError, ValueError, "backward", "cotangent"),
    "cotangent list of text": (lambda s: (s.v * 2).backward(["a", "b", "c"]), TinygradError, ValueError, "backward", "cotangent", "'a'"),
    "cotangent complex": (lambda s: (s.w * 2).backward(np.ones((2, 3)) * 1j), DtypeError, TypeError, "backward", "complex128"),
    "cotangent tensor": (lambda s: (s.w * 2).backward(tg.ones((2, 3), dtype=np.float64)), DtypeError, TypeError, "float64", "float32"),
    "cotangent create_graph": (lambda s: tg.grad(s.w * 2, s.w, np.ones((2, 3)), create_graph=True), DtypeError, TypeError, "float64", "float32"),
    "cotangents": (lambda s: tg.grad([s.w.sum()], s.w, [1.0, 2.0]), GradientError, RuntimeError, "grad", "1 outputs", "2 cotangents"),
    "unused": (lambda s: tg.grad(s.w.sum(), [s.w, s.v]), GradientError, RuntimeError, "grad", "input 1", "'v'", "allow_unused=True"),
    "input without grad": (lambda s: tg.grad(s.w.sum(), s.x), GradientError, RuntimeError, "grad", "input 0", "'x'", "require grad"),
    "input array": (lambda s: tg.grad(s.w.sum(), np.ones(3)), DtypeError, TypeError, "grad", "input 0", "ndarray"),
    "output number": (lambda s: tg.grad(3.0, s.w), DtypeError, TypeError, "grad", "output 0", "float"),
    "vjp shape": (lambda s: tg.vjp(tg.tanh, s.w)[1](np.ones(3, F32)), GradientError, RuntimeError, "vjp", r"\(3,\)", r"\(2, 3\)"),
    "vjp dtype": (lambda s: tg.vjp(tg.tanh, s.w)[1](np.ones((2, 3))), DtypeError, TypeError, "vjp", "float64", "float32"),
    "vjp integers": (lambda s: tg.vjp(tg.tanh, s.i), DtypeError, TypeError, "vjp", "input 0", "int64"),
    "vjp result": (lambda s: tg.vjp(lambda x: "text", s.w), DtypeError, TypeError, "vjp", "str"),
    "jvp shape": (lambda s: tg.jvp(tg.tanh, (s.w,), (np.ones(3, F32),)), GradientError, RuntimeError, "jvp", "tangent 0", r"\(3,\)", r"\(2, 3\)"),
    "jvp dtype": (lambda s: tg.jvp(tg.tanh, (s.w,), (np.ones((2, 3)),)), DtypeError, TypeError, "jvp", "tangent 0", "float64", "float32"),
    "jvp count": (lambda s: tg.jvp(tg.tanh, (s.w,), ()), GradientError, RuntimeError, "jvp", "1 inputs", "0 tangents"),
    "hvp": (lambda s: tg.hvp(tg.tanh, s.w, s.w), ShapeError, ValueError, "hvp", r"\(2, 3\)"),
    "hessian": (lambda s: tg.hessian(tg.tanh, s.w), ShapeError, ValueError, "hessian", r"\(2, 3\)"),
    "checkpoint": (lambda s: tg.checkpoint(lambda x: 3, s.w), DtypeError, TypeError, "checkpoint", "int"),
    "hook shape": (hooked(np.ones(3, F32)), GradientError, RuntimeError, "hook", "multiply", r"\(3,\)", r"\(2, 3\)"),
    "hook of no gradient": (lambda s: s.x.register_hook(print), GradientError, RuntimeError, "register_hook"),
    "retain_grad of no gradient": (lambda s: s.x.retain_grad(), GradientError, RuntimeError, "retain_grad"),
    "grad shape": (lambda s: setattr(s.w, "grad", np.ones(3, F32)), ShapeError, ValueError, "grad", r"\(3,\)", r"\(2, 3\)"),
    "grad dtype": (lambda s: setattr(s.w, "grad", np.ones((2, 3))), DtypeError, TypeError, "grad", "float64", "float32"),
    "tape": (lambda s: tg.tape(s.x), TapeError, RuntimeError, "tape", "no graph"),
    "tape of a number": (lambda s: tg.tape(3), DtypeError, TypeError, "tape", "int"),
    "requires_grad off": (lambda s: s.h.requires_grad_(False), GradientError, RuntimeError, "requires_grad", "multiply", "detach"),
    "deepcopy": (lambda s: copy.deepcopy(s.h), TapeError, RuntimeError, "copy", "multiply", "detach"),
    "deepcopy in a list": (lambda s: copy.deepcopy([s.w, s.h]), TapeError, RuntimeError, "copy", "detach"),
    "copy": (lambda s: copy.copy(s.h), TapeError, RuntimeError, "^copy", "multiply", "detach"),
    "pickle": (lambda s: pickle.dumps(s.h), TapeError, RuntimeError, "pickle", "detach"),
}  # fmt: skip

IN_PLACE = {
    **{f"leaf {o}": (inplace(o), GradientError, RuntimeError, "in-place", "'w'", r"\(2, 3\)", "no_grad") for o in "+= -= *= /= **= //= %=".split()},
    "leaf item": (lambda s: s.w.__setitem__(0, 1.0), GradientError, RuntimeError, "item assignment", "'w'", "no_grad"),
    "leaf assign_": (lambda s: s.w.assign_(0.0), GradientError, RuntimeError, "assign_", "'w'", "no_grad"),
    "leaf out=": (lambda s: np.add(s.x, 1, out=s.w), GradientError, RuntimeError, "add", "no_grad"),
    "computed item": (lambda s: s.h.__setitem__(0, 1.0), GradientError, RuntimeError, "multiply", "where"),
    "computed assign_": (lambda s: s.h.assign_(0.0), GradientError, RuntimeError, "multiply"),
    "computed data": (lambda s: setattr(s.h, "data", np.zeros((2, 3))), GradientError, RuntimeError, "multiply"),
    "tracked value": (lambda s: s.x.__setitem__((0, 0), s.s), GradientError, RuntimeError, "item assignment", "where"),
    "saved +=": (saved_then(add_one), TapeError, RuntimeError, "multiply", "operand y", r"\(2, 3\)", "in place", "copy"),
    "saved item": (saved_then(set_item), TapeError, RuntimeError, "multiply", "operand y", "in place"),
    "saved data": (saved_then(set_data), TapeError, RuntimeError, "multiply", "operand y", "in place"),
    "saved assign_": (saved_then(lambda t: t.assign_(0.0)), TapeError, RuntimeError, "multiply", "operand y", "in place"),
    "saved out=": (saved_then(lambda t: np.exp(t, out=t)), TapeError, RuntimeError, "multiply", "operand y", "in place"),
    "saved view": (saved_then(through_view), TapeError, RuntimeError, "multiply", "in place"),
    "saved detach": (through_detach, TapeError, RuntimeError, "multiply", "in place"),
    "saved output": (saved_output_changed, TapeError, RuntimeError, "tanh", "its output", "in place"),
    "shape": (lambda s: s.x.__iadd__(np.ones((4, 2, 3))), ShapeError, ValueError, "in-place add", r"\(4, 2, 3\)", r"\(2, 3\)"),
    "no broadcast": (lambda s: s.x.__iadd__(np.ones(4)), ShapeError, ValueError, "in-place add", r"\(4,\)", r"\(2, 3\)"),
    "dtype": (lambda s: s.i.__imul__(0.5), DtypeError, TypeError, "in-place multiply", "float64", "int64"),
    "assign_ shape": (lambda s: s.x.assign_(np.ones(4)), ShapeError, ValueError, "assign_", r"\(4,\)", r"\(2, 3\)"),
    "assign_ dtype": (lambda s: s.i.assign_(np.ones((2, 3))), DtypeError, TypeError, "assign_", "float64", "int64"),
    "assign_ complex": (lambda s: s.x.assign_(np.ones((2, 3)) * 1j), DtypeError, TypeError, "assign_", "complex128", "float32"),
    "complex": (lambda s: s.x.__iadd__(1j), DtypeError, TypeError, "in-place add", "complex", "float32"),
    "assign_ text": (lambda s: s.x.assign_("text"), TinygradError, (ValueError, TypeError), "assign_", "str|<U4"),
    "assign_ ragged": (lambda s: s.x.assign_([[1.0], [1.0, 2.0]]), ShapeError, ValueError, "assign_"),
    "text in place": (lambda s: s.x.__iadd__("a"), DtypeError, TypeError, "in-place add", "<U1"),
    "out= shape": (lambda s: np.add(s.x, np.ones(4), out=s.x), ShapeError, ValueError, r"np\.add", r"\(4,\)", r"\(2, 3\)"),
    "out= complex": (lambda s: np.add(s.x, 1j, out=s.x), DtypeError, TypeError, r"np\.add", "complex"),
    "out= matmul": (lambda s: np.matmul(s.x, s.x, out=s.x), ShapeError, ValueError, r"np\.matmul", r"\(2, 3\)"),
    "data shape": (lambda s: setattr(s.w, "data", np.ones(4)), ShapeError, ValueError, "assign_|data", r"\(4,\)", r"\(2, 3\)"),
    "item shape": (lambda s: s.x.__setitem__(0, np.ones(4)), ShapeError, ValueError, "item assignment", r"\(4,\)", r"\(3,\)"),
    "item range": (lambda s: s.x.__setitem__(2, 0.0), OutOfRangeError, IndexError, "item assignment", "2"),
    "item float": (lambda s: s.x.__setitem__(0.5, 0.0), OutOfRangeError, IndexError, "item assignment", "float"),
    "item text": (lambda s: s.x.__setitem__(0, "a"), TinygradError, (ValueError, TypeError), "item assignment", "'a'|str"),
    "item list with text": (lambda s: s.x.__setitem__(0, [1.0, "a", 2.0]), DtypeError, TypeError, "item assignment", "'a'"),
    "item None": (lambda s: s.x.__setitem__(0, None), DtypeError, TypeError, "item assignment", "None"),
    "item complex": (lambda s: s.x.__setitem__(0, np.ones(3) * 1j), DtypeError, TypeError, "item assignment", "complex128"),
    "item mask": (lambda s: s.x.__setitem__(np.ones((2, 3), bool), np.ones(5)), ShapeError, ValueError, "item assignment", r"\(5,\)", r"\(6,\)"),
    "item rows": (lambda s: s.x.__setitem__([0, 2], 1.0), OutOfRangeError, IndexError, "item assignment", "2"),
    "item slice": (lambda s: s.x.__setitem__(slice(0.5, None), 1.0), DtypeError, TypeError, "item assignment", "0.5"),
}  # fmt: skip

READING = {
    "index": (lambda s: s.v[3], OutOfRangeError, IndexError, "getitem", r"float32 \(3,\)", "3"),
    "negative index": (lambda s: s.v[-4], OutOfRangeError, IndexError, "getitem", "-4"),
    "index array": (lambda s: s.v[np.array([0, 3])], OutOfRangeError, IndexError, "getitem", "3"),
    "index list": (lambda s: s.w[:, [0, 3]], OutOfRangeError, IndexError, "getitem", "3"),
    "too many indices": (lambda s: s.v[0, 0], OutOfRangeError, IndexError, "getitem", "too many"),
    "index of a number": (lambda s: s.s[0], OutOfRangeError, IndexError, "getitem", r"\(\)"),
    "float index": (lambda s: s.v[1.0], OutOfRangeError, IndexError, "getitem", "integers", "float"),
    "float index array": (lambda s: s.v[np.array([0.5])], OutOfRangeError, IndexError, "getitem", "integers", "float64"),
    "float slice": (lambda s: s.v[0.5:], DtypeError, TypeError, "getitem", "0.5", "integers"),
    "step 0": (lambda s: s.v[::0], ShapeError, ValueError, "getitem", "step"),
    "text index": (lambda s: s.v["a"], OutOfRangeError, IndexError, "getitem", "str"),
    "tracked index": (lambda s: s.v[s.s], NotDifferentiableError, TypeError, "getitem", "detach"),
    "mask": (lambda s: s.v[np.array([True, False])], OutOfRangeError, IndexError, "getitem", r"\(2,\)", r"\(3,\)"),
    "index arrays": (lambda s: s.square[np.array([0, 1]), np.array([0, 1, 2])], OutOfRangeError, IndexError, "getitem", r"\(2,\)", r"\(3,\)"),
    "take": (lambda s: tg.take(s.v, [0, 3]), OutOfRangeError, IndexError, "take", "3"),
    "take float": (lambda s: tg.take(s.v, [0.5]), DtypeError, TypeError, "take", "indices", "float64"),
    "take axis": (lambda s: tg.take(s.v, [0], axis=1), AxisError, IndexError, "take", "axis 1", "1 dim"),
    "take_along_axis": (lambda s: tg.take_along_axis(s.w, np.array([[3]]), axis=1), OutOfRangeError, IndexError, "take_along_axis", "3"),
    "take_along_axis rank": (lambda s: tg.take_along_axis(s.w, np.array([0]), axis=1), ShapeError, ValueError, "take_along_axis", "1 dim", "2"),
    "embedding": (lambda s: tg.embedding([0, 2], s.w), OutOfRangeError, IndexError, "embedding", "index 2", "2 symbols"),
    "embedding negative": (lambda s: tg.embedding([-1], s.w), OutOfRangeError, IndexError, "embedding", "-1", "2 symbols"),
    "embedding float": (lambda s: tg.embedding([0.5], s.w), DtypeError, TypeError, "embedding", "indices", "float64"),
    "embedding rank": (lambda s: tg.embedding([0], s.v), ShapeError, ValueError, "embedding", "weight", r"\(3,\)"),
    "one_hot": (lambda s: tg.one_hot([3], 3), OutOfRangeError, IndexError, "one_hot", "3"),
    "scatter": (lambda s: tg.scatter(s.v, np.array([0, 1, 9]), (3,)), OutOfRangeError, IndexError, "scatter", "9", r"\(3,\)"),
    "item": (lambda s: s.w.item(), ShapeError, ValueError, "item", r"\(2, 3\)"),
    "item of none": (lambda s: tg.ones(0).item(), ShapeError, ValueError, "item", r"\(0,\)"),
    "bool": (lambda s: bool(s.w > 0), ShapeError, ValueError, "bool", r"\(2, 3\)", "any", "all"),
    "bool of none": (lambda s: bool(tg.ones(0)), ShapeError, ValueError, "bool", r"\(0,\)"),
    "if": (lambda s: 1 if s.w else 0, ShapeError, ValueError, "bool", r"\(2, 3\)"),
    "chained comparison": (lambda s: 0 < s.w < 1, ShapeError, ValueError, "bool", r"\(2, 3\)"),
    "float": (lambda s: float(s.w), ShapeError, ValueError, "float", r"\(2, 3\)"),
    "int": (lambda s: int(s.w), ShapeError, ValueError, "int", r"\(2, 3\)"),
    "range": (lambda s: range(s.s), DtypeError, TypeError, "index", "float32"),
    "len": (lambda s: len(s.s), DtypeError, TypeError, "len", "0-d"),
    "iteration": (lambda s: list(s.s), DtypeError, TypeError, "iteration", "0-d"),
    "np.asarray": (lambda s: np.asarray(s.w), TapeError, RuntimeError, "np.asarray", "requires grad", "numpy", "detach"),
    "np.array": (lambda s: np.array(s.h), TapeError, RuntimeError, "np.asarray", "detach"),
    "np.array of a list": (lambda s: np.array([s.v, s.v]), TapeError, RuntimeError, "np.asarray", "detach"),
    "ndarray item": (lambda s: np.zeros((2, 3)).__setitem__(slice(None), s.w), TapeError, RuntimeError, "np.asarray", "detach"),
    "dlpack": (lambda s: np.from_dlpack(s.w), TapeError, RuntimeError, "dlpack", "detach"),
}  # fmt: skip


def along(axis, x=None):
    """A reduction, or any operation along an axis, of the world's (2, 3) tensor or of another one."""
    return lambda name: lambda s: getattr(tg, name)(s.w if x is None else x, axis=axis)


def for_each(names, suffix, call, ours, builtin, *words):
    return {f"{n}{suffix}": (call(n), ours, builtin, rf"^{n}\b", *words) for n in names.split()}


REDUCTIONS = "sum mean prod max min ptp var std logsumexp norm median"
NOTHING = tg.ones((0, 3), requires_grad=True)
AXES = {
    **for_each(f"{REDUCTIONS} cumsum cumprod softmax log_softmax sort flip diff", " axis", along(2), AxisError, ValueError, "axis", "2"),
    **for_each("sum mean var norm cumsum sort flip", " axis as IndexError", along(-3), AxisError, IndexError, "axis", "-3"),
    **for_each(f"{REDUCTIONS} softmax flip", " repeated", along((0, -2)), AxisError, ValueError, "axis", "duplicate|repeated"),
    **for_each("sum mean var norm median", " float axis", along(1.0), DtypeError, TypeError, "integer"),
    **for_each("mean max min ptp var std logsumexp median", " of nothing", along(0, NOTHING), ShapeError, ValueError, r"\(0, 3\)"),
    **for_each("mean max min var std", " of all of nothing", along(None, NOTHING), ShapeError, ValueError, r"\(0, 3\)"),
    "np.max of nothing": (lambda s: np.max(tg.ones(0)), ShapeError, ValueError, "max", r"\(0,\)"),
    "argmax of nothing": (lambda s: tg.ones(0).argmax(), ShapeError, ValueError, "argmax", r"\(0,\)"),
    "argmax axis": (lambda s: s.w.argmax(axis=2), AxisError, IndexError, "argmax", "axis 2"),
    "np.argmax axis": (lambda s: np.argmax(s.w, axis=2), AxisError, IndexError, "argmax", "axis 2"),
    "any": (lambda s: (s.w > 0).any(axis=2), AxisError, IndexError, "any", "axis 2"),
    "several axes": (lambda s: tg.take(s.w, [0], axis=(0, 1)), DtypeError, TypeError, "take", "axis", r"\(0, 1\)"),
    "sort along several axes": (lambda s: tg.sort(s.w, axis=(0, 1)), DtypeError, TypeError, "sort", "axis", r"\(0, 1\)"),
    "diff of a number": (lambda s: tg.diff(s.s), AxisError, ValueError, "diff", "axis -1"),
    "diff order": (lambda s: tg.diff(s.v, -1), ShapeError, ValueError, "diff", "-1"),
    "log_softmax of nothing": (lambda s: tg.log_softmax(NOTHING, axis=2), AxisError, IndexError, "log_softmax", "axis 2"),
    "std of too few": (lambda s: tg.std(tg.ones(1), ddof=1), ShapeError, ValueError, "std", "1 elements", "ddof=1"),
    "transpose": (lambda s: s.w.transpose(0, 0), AxisError, ValueError, "transpose", r"\(0, 0\)"),
    "transpose too few": (lambda s: s.w.transpose((0,)), AxisError, ValueError, "transpose", r"\(0,\)", "2 dim"),
    "swapaxes": (lambda s: tg.swapaxes(s.w, 0, 2), AxisError, IndexError, "swapaxes", "axis 2", "2 dim"),
    "moveaxis": (lambda s: tg.moveaxis(s.w, (0, 1), (0,)), ShapeError, ValueError, "moveaxis", "2", "1"),
    "expand_dims": (lambda s: tg.expand_dims(s.w, 5), AxisError, IndexError, "expand_dims", "axis 5"),
    "squeeze": (lambda s: tg.squeeze(s.w, 0), ShapeError, ValueError, "squeeze", "axis 0", r"\(2, 3\)"),
    "mT": (lambda s: s.v.mT, ShapeError, ValueError, "mT", r"\(3,\)"),
    "roll": (lambda s: tg.roll(s.w, 1, axis=2), AxisError, IndexError, "roll", "axis 2"),
    "trace": (lambda s: tg.trace(s.v), ShapeError, ValueError, "diagonal|trace", "two dim", "1"),
    "tril": (lambda s: tg.tril(s.s), ShapeError, ValueError, "tril", r"\(\)|two dim"),
    "triu": (lambda s: tg.triu(s.s), ShapeError, ValueError, "triu", r"\(\)|two dim"),
    "reshape": (lambda s: s.w.reshape(4), ShapeError, ValueError, "reshape", r"\(2, 3\)", r"\(4,\)"),
    "reshape two -1": (lambda s: s.w.reshape(-1, -1), ShapeError, ValueError, "reshape", r"\(-1, -1\)"),
    "reshape with -1": (lambda s: s.w.reshape(4, -1), ShapeError, ValueError, "reshape", r"\(2, 3\)", r"\(4, -1\)"),
    "reshape float": (lambda s: s.w.reshape(2.0, 3), DtypeError, TypeError, "reshape", "integers", "2.0"),
    "concatenate nothing": (lambda s: tg.concatenate([]), ShapeError, ValueError, "concatenate", "empty"),
    "np.concatenate shapes": (lambda s: np.concatenate([s.w, s.square], axis=1), ShapeError, ValueError, "concatenate", r"\(2, 3\)", r"\(3, 3\)"),
    "concatenate ranks": (lambda s: tg.concatenate([s.w, s.v]), ShapeError, ValueError, "concatenate", r"\(2, 3\)", r"\(3,\)"),
    "concatenate numbers": (lambda s: tg.concatenate([s.s, s.s]), ShapeError, ValueError, "concatenate", r"\(\)"),
    "concatenate axis": (lambda s: tg.concatenate([s.v, s.v], axis=1), AxisError, IndexError, "concatenate", "axis 1"),
    "concatenate float axis": (lambda s: tg.concatenate([s.v, s.v], axis=0.5), DtypeError, TypeError, "concatenate", "axis"),
    "concatenate no sequence": (lambda s: tg.concatenate(3), DtypeError, TypeError, "concatenate", "int"),
    "stack no sequence": (lambda s: tg.stack(3), DtypeError, TypeError, "stack", "int"),
    "stack float axis": (lambda s: tg.stack([s.v, s.v], axis=0.5), DtypeError, TypeError, "stack", "axis"),
    "stack nothing": (lambda s: tg.stack([]), ShapeError, ValueError, "stack", "empty"),
    "stack shapes": (lambda s: tg.stack([s.w, s.square]), ShapeError, ValueError, "stack", r"\(2, 3\)", r"\(3, 3\)"),
    "split": (lambda s: tg.split(s.v, 2), ShapeError, ValueError, "split", "length 3", "2"),
    "repeat": (lambda s: tg.repeat(s.v, [1, 2]), ShapeError, ValueError, "repeat", r"\[1, 2\]", "length 3"),
    "pad": (lambda s: tg.pad(s.v, -1), ShapeError, ValueError, "pad", "negative"),
    "conv2d kernel": (lambda s: tg.conv2d(tg.ones((1, 1, 2, 2)), tg.ones((1, 1, 3, 3))), ShapeError, ValueError, "conv2d", "kernel of 3"),
    "conv2d empty kernel": (lambda s: tg.conv2d(tg.ones((1, 1, 2, 2)), tg.ones((1, 1, 0, 2))), ShapeError, ValueError, "conv2d", "kernel of 0"),
}  # fmt: skip


def of_numpy(module, name):
    return lambda s: getattr(module, name)(s.square)


UNSUPPORTED = {
    **{f"np.{n}": (of_numpy(np, n), NotDifferentiableError, TypeError, rf"np\.{n}\b", "gradient rule", "detach") for n in "unique nansum gradient cov sinc spacing i0".split()},
    **{f"np.linalg.{n}": (of_numpy(np.linalg, n), NotDifferentiableError, TypeError, rf"np\.linalg\.{n}\b", "detach") for n in "svd inv det eigh qr slogdet".split()},
    "np.fft.fft": (lambda s: np.fft.fft(s.v), NotDifferentiableError, TypeError, r"np\.fft\.fft\b", "detach"),
    "np.convolve": (lambda s: np.convolve(s.v, s.v), NotDifferentiableError, TypeError, r"np\.convolve"),
    "np.interp": (lambda s: np.interp(0.5, np.arange(3), s.v), NotDifferentiableError, TypeError, r"np\.interp"),
    "np.percentile": (lambda s: np.percentile(s.v, 50), NotDifferentiableError, TypeError, r"np\.percentile"),
    "np.block": (lambda s: np.block([s.v, s.v]), NotDifferentiableError, TypeError, r"np\.block"),
    "of a list": (lambda s: np.linalg.multi_dot([s.square, s.square]), NotDifferentiableError, TypeError, r"np\.linalg\.multi_dot"),
    "computed": (lambda s: np.fft.fft(s.h), NotDifferentiableError, TypeError, r"np\.fft\.fft"),
    "ufunc.at": (lambda s: np.add.at(s.v, [0], 1.0), NotDifferentiableError, TypeError, r"np\.add\.at"),
    "ufunc.reduceat": (lambda s: np.add.reduceat(s.v, [0, 1]), NotDifferentiableError, TypeError, r"np\.add\.reduceat"),
    "ufunc where=": (lambda s: np.exp(s.v, where=np.array([True, False, True])), NotDifferentiableError, TypeError, r"np\.exp"),
    "out=": (lambda s: np.sum(s.v, out=np.zeros((), F32)), NotDifferentiableError, TypeError, r"np\.sum", "out="),
    "ufunc out=": (lambda s: np.exp(s.v, out=np.zeros(3, F32)), NotDifferentiableError, TypeError, r"np\.exp", "out="),
    "np.put": (lambda s: np.put(s.w, [0], 1.0), NotDifferentiableError, TypeError, r"np\.put"),
    "np.copyto": (lambda s: np.copyto(s.w, 1.0), NotDifferentiableError, TypeError, r"np\.copyto"),
    "matrix norm": (lambda s: tg.norm(s.w, 2), NotDifferentiableError, TypeError, "norm", "singular values"),
}  # fmt: skip


GROUPS = {"product": PRODUCTS, "making": MAKING, "backward": BACKWARD, "in place": IN_PLACE, "reading": READING, "axis": AXES, "numpy": UNSUPPORTED}


@pytest.mark.parametrize("call, ours, builtin, words", [pytest.param(c, o, b, w, id=f"{group}-{name}") for group, cases in GROUPS.items() for name, (c, o, b, *w) in cases.items()])
def test_bad_input(call, ours, builtin, words):
    raises(World(), call, ours, builtin, *words)


def test_an_ndarray_is_not_changed_by_a_refused_tensor():
    w, total = tg.ones(3, requires_grad=True), np.zeros(3)
    with pytest.raises(NotDifferentiableError, match=r"np\.add: out=.*a = a \+ b"):
        total += w
    np.testing.assert_array_equal(total, np.zeros(3))


def test_a_write_that_fails_half_way_counts_as_a_write():
    w, x = tg.ones(3, requires_grad=True), tg.tensor([1.0, 1e30, 1.0])
    loss = (w * x).sum()
    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        x *= np.full(3, 1e30, F32)
    assert x.numpy()[0] != 1
    with pytest.raises(TapeError, match="in place"):
        loss.backward()
    assert w.grad is None


def test_a_cotangent_in_python_numbers_takes_the_output_dtype():
    v = tg.ones(2, requires_grad=True)
    (v * 3).backward([1.0, 2])
    np.testing.assert_array_equal(v.grad.numpy(), [3, 6])
    assert v.grad.dtype == F32


def test_values_cannot_be_written_behind_the_tape():
    w = tg.ones(3, requires_grad=True)
    loss = (w * w).sum()
    for view in (w.numpy(), w.data, np.asarray(w.detach())):
        with pytest.raises(ValueError, match="read-only"):
            view[0] = 5.0
    loss.backward()
    np.testing.assert_array_equal(w.grad.numpy(), [2, 2, 2])


def operation(forward, *rules):
    op = tg.primitive(forward)
    tg.defvjp(op, *rules)
    return op


def scaled(x, factor):
    return x * factor


def custom(forward, backward):
    f = tg.custom_vjp(lambda x: x)
    f.defvjp(forward, backward)
    return lambda s: f(s.w).sum().backward()


def run(forward, rule):
    return lambda s: operation(forward, rule)(s.w).sum().backward()


def doubled(x):
    return x * 2


def first_row(x):
    return x[0]


def kept(x):
    return x, x


CUSTOM = {
    "too many rules": (lambda s: operation(scaled, lambda g: g, None, None), TypeError, "scaled", "x, factor", "got 3"),
    "too few rules": (lambda s: operation(scaled, lambda g: g), TypeError, "scaled", "2 rules", "got 1"),
    "rule parameter": (lambda s: operation(doubled, lambda g, y: g), TypeError, "doubled", "'y'", r"\(x\)"),
    "rule name": (lambda s: tg.primitive(doubled).rule(lambda g: g), TypeError, "doubled", "x"),
    "no function": (lambda s: operation(doubled, 3), TypeError, "rule", "3"),
    "reserved name": (lambda s: tg.primitive(lambda out: out), TypeError, "'out'"),
    "varying parameters": (lambda s: tg.primitive(lambda *xs: xs), TypeError, r"\*args"),
    "no primitive": (lambda s: tg.defvjp(np.exp, None), TypeError, "defvjp", "exp"),
    "no rule": (lambda s: tg.primitive(scaled)(s.w, 2.0), NotDifferentiableError, "scaled", "argument x", "defvjp"),
    "rule shape": (run(doubled, lambda g: g[:1]), GradientError, "backward of doubled", "x", r"\(1, 3\)", r"\(2, 3\)"),
    "rule shape as the output's": (run(first_row, lambda g: g), GradientError, "first_row", "x", r"\(3,\)", r"\(2, 3\)"),
    "rule bools": (run(doubled, lambda g: g > 0), DtypeError, "doubled", "x", "bool", "float32"),
    "rule integers": (run(doubled, lambda g: g.astype(int)), DtypeError, "doubled", "x", "int64", "float32"),
    "rule complex": (run(doubled, lambda g: g * 1j), DtypeError, "doubled", "x", "complex", "float32"),
    "rule type": (run(doubled, lambda g: "text"), GradientError, "doubled", "x", "str", r"\(2, 3\)"),
    "rule number": (run(doubled, lambda g: 2.0), GradientError, "doubled", "x", "float", r"\(2, 3\)"),
    "rule error": (run(doubled, lambda g: g / np.ones(7, F32)), GradientError, "doubled", "ValueError", r"\(7,\)"),
    "output complex": (lambda s: operation(lambda x: x + 1j, lambda g: g)(s.w), DtypeError, "lambda", "complex"),
    "output text": (lambda s: operation(lambda x: np.array("a"), lambda g: g)(s.w), DtypeError, "lambda", "<U1"),
    "output ragged": (lambda s: operation(lambda x: [1, [2, 3]], lambda g: g)(s.w), (ShapeError, DtypeError), "lambda"),
    "output dtype": (lambda s: tg.sum(s.w, dtype=complex), DtypeError, "sum", "complex128"),
    "custom_vjp complex": (custom(lambda x: (x * 1j, x), lambda r, g: (g,)), DtypeError, "custom_vjp", "complex"),
    "custom_vjp ragged": (custom(lambda x: ([1, [2, 3]], x), lambda r, g: (g,)), ShapeError, "custom_vjp", "output"),
    "custom_vjp text without a gradient": (lambda s: tg.custom_vjp(lambda x: "a", kept, kept)(s.x), DtypeError, "custom_vjp", "<U1"),
    "custom_vjp without rules": (lambda s: tg.custom_vjp(doubled)(s.w), TypeError, "doubled", "defvjp"),
    "custom_vjp forward": (custom(lambda x: x, lambda r, g: (g,)), GradientError, "forward", "residuals", "ndarray"),
    "custom_vjp count": (custom(kept, lambda r, g: (g, g)), GradientError, "2 gradients", "expected 1"),
    "custom_vjp shape": (custom(kept, lambda r, g: (g[0],)), GradientError, "argument 0", r"\(3,\)", r"\(2, 3\)"),
    "custom_vjp dtype": (custom(kept, lambda r, g: (g > 0,)), DtypeError, "argument 0", "bool", "float32"),
    "custom_vjp type": (custom(kept, lambda r, g: ("text",)), GradientError, "argument 0", "str"),
}  # fmt: skip


@pytest.mark.parametrize("call, kind, words", [pytest.param(c, k, w, id=name) for name, (c, k, *w) in CUSTOM.items()])
def test_operations_that_do_not_fit_their_rules(call, kind, words):
    world = World()
    with pytest.raises(kind) as caught:
        call(world)
    # A declaration that cannot be is a TypeError, as a call that does not fit its signature; what goes wrong at run time is ours too.
    assert isinstance(caught.value, RuntimeError | TypeError | ValueError)
    assert kind is TypeError or isinstance(caught.value, TinygradError)
    for word in words:
        assert re.search(word, str(caught.value)), f"{word!r} is not in: {caught.value}"
    world.check()


def log_of_zero(w):
    return tg.log(w * 0)


def overflow(w):
    return tg.exp(w * 0 + 1000.0)


def zero_over_zero(w):
    return (w * 0) / (w * 0)


def own(w):
    return operation(lambda x: x * np.nan, lambda g: g)(w)


@pytest.mark.parametrize("where", ["recorded", "no_grad"])
@pytest.mark.parametrize("function, name", [(log_of_zero, "log"), (overflow, "exp"), (zero_over_zero, "divide"), (own, "lambda")])
def test_anomalies_of_the_forward_pass(function, name, where):
    world = World()
    line = f"{__file__}:{function.__code__.co_firstlineno + 1}"
    with np.errstate(all="ignore"), tg.detect_anomaly(), tg.scope("cell", step=3), pytest.raises(GradientError, match=rf"forward of <?{name}>? in scope cell\[3\]") as caught:
        tg.no_grad()(function)(world.w) if where == "no_grad" else function(world.w)
    assert isinstance(caught.value, RuntimeError) and line in str(caught.value) and "6 of 6" in str(caught.value)
    world.check()


def root(w):
    return tg.sqrt(w * 0)


def own_rule(w):
    return operation(lambda x: x * 1, lambda g: g * np.inf)(w)


@pytest.mark.parametrize("function, name", [(root, "sqrt"), (own_rule, "lambda")])
@pytest.mark.parametrize("create_graph", [False, True])
def test_anomalies_of_the_backward_pass(function, name, create_graph):
    world = World()
    with np.errstate(all="ignore"), tg.detect_anomaly():
        with tg.scope("cell", step=3):
            y = function(world.w)
        with pytest.raises(GradientError, match=rf"backward of <?{name}>? in scope cell\[3\]") as caught:
            y.sum().backward(create_graph=create_graph)
    assert f"{__file__}:{function.__code__.co_firstlineno + 1}" in str(caught.value) and "6 of 6" in str(caught.value)
    world.check()


def test_anomalies_that_came_in_are_not_blamed():
    x = tg.tensor([np.nan, np.inf, 1.0], requires_grad=True)
    with np.errstate(all="ignore"), tg.detect_anomaly():
        y = (x * 2).sum()
        y.backward(tg.tensor(np.nan))
    assert np.isnan(y.item()) and np.isnan(x.grad.numpy()).all()


def test_an_error_in_the_middle_of_a_block_closes_it():
    for mode in (tg.no_grad(), tg.detect_anomaly(), tg.scope("a")):
        world = World()
        with pytest.raises(ShapeError), mode:
            world.w + tg.ones(4)
        world.check()


def test_errors_of_a_rule_keep_their_cause():
    with pytest.raises(GradientError) as caught:
        run(doubled, lambda g: {}["missing"])(World())
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_chain_of_a_million_records():
    w = tg.tensor([1.0], requires_grad=True)
    y = w
    for _ in range(1_000_000):
        y = y + 1.0
    with pytest.raises(TapeError, match="copying it would need its whole graph"):
        copy.deepcopy(y)
    y.backward()
    assert y.item() == 1_000_001 and w.grad.item() == 1
    # The last reference to the chain goes here, without a recursion as deep as the chain.
    del y


def test_every_error_is_also_a_builtin():
    for name in tg.errors.__all__:
        kind = getattr(tg.errors, name)
        assert kind is TinygradError or (issubclass(kind, TinygradError) and issubclass(kind, ValueError | TypeError | RuntimeError)), name
        assert inspect.getdoc(kind)
        error = kind("what came")
        assert str(error) == "what came" and type(pickle.loads(pickle.dumps(error))) is kind
