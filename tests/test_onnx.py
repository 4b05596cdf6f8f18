"""The ONNX backend node tests, as published vectors for the operations that we have."""

import warnings

import numpy as np
import pytest

import tinygrad_rnn as tg

onnx = pytest.importorskip("onnx")

UNARY = "Abs Acos Acosh Asin Asinh Atan Atanh Ceil Cos Cosh Erf Exp Floor Log Neg Reciprocal Relu Sigmoid Sign Sin Sinh Softplus Sqrt Tan Tanh"
THEIRS = {"Abs": "absolute", "Acos": "arccos", "Acosh": "arccosh", "Asin": "arcsin", "Asinh": "arcsinh", "Atan": "arctan", "Atanh": "arctanh", "Neg": "negative"}
BINARY = {"Add": "add", "Sub": "subtract", "Mul": "multiply", "Div": "divide", "Pow": "power", "MatMul": "matmul", "Equal": "equal", "Greater": "greater", "Less": "less"}
REDUCE = {
    "ReduceSum": tg.sum, "ReduceMean": tg.mean, "ReduceMax": tg.max, "ReduceMin": tg.min, "ReduceProd": tg.prod, "ReduceLogSumExp": tg.logsumexp,
    "ReduceL2": lambda x, axis, keepdims: tg.sqrt(tg.sum(x * x, axis, keepdims=keepdims)),
    "ReduceL1": lambda x, axis, keepdims: tg.sum(abs(x), axis, keepdims=keepdims),
    "ReduceSumSquare": lambda x, axis, keepdims: tg.sum(x * x, axis, keepdims=keepdims),
}  # fmt: skip


def reduce(operation):
    def run(attributes, x, axes=None):
        named = attributes.get("axes", None if axes is None else axes.numpy().tolist())
        if not named and attributes.get("noop_with_empty_axes"):
            pytest.skip("reduces nothing")
        return operation(x, axis=tuple(named) if named else None, keepdims=bool(attributes.get("keepdims", 1)))

    return run


def gemm(a, x, y, c=None):
    out = a.get("alpha", 1.0) * ((x.T if a.get("transA") else x) @ (y.T if a.get("transB") else y))
    return out if c is None else out + a.get("beta", 1.0) * c


def conv(a, x, w, b=None):
    pads = a.get("pads", [0, 0, 0, 0])
    if x.ndim != 4 or a.get("auto_pad", "NOTSET") not in ("NOTSET", b"NOTSET"):
        pytest.skip("padding that the operation does not have")
    x = tg.pad(x, ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
    return tg.conv2d(x, w, b, a.get("strides", (1, 1)), 0, a.get("dilations", (1, 1)), a.get("group", 1))


RUN = {
    **{n: (lambda a, x, f=getattr(tg, THEIRS.get(n, n.lower())): f(x)) for n in UNARY.split()},
    **{n: (lambda a, x, y, f=getattr(tg, f): f(x, y)) for n, f in BINARY.items()},
    **{n: reduce(f) for n, f in REDUCE.items()},
    "Softmax": lambda a, x: tg.softmax(x, a.get("axis", -1)),
    "LogSoftmax": lambda a, x: tg.log_softmax(x, a.get("axis", -1)),
    "LeakyRelu": lambda a, x: tg.leaky_relu(x, a.get("alpha", 0.01)),
    "Elu": lambda a, x: tg.elu(x, a.get("alpha", 1.0)),
    "Gelu": lambda a, x: tg.gelu(x, a.get("approximate", b"none").decode()),
    "Gemm": gemm,
    "Conv": conv,
    "Einsum": lambda a, *xs: tg.einsum(a["equation"].decode(), *xs),
    "Concat": lambda a, *xs: tg.concatenate(xs, a["axis"]),
    "Gather": lambda a, x, i: tg.take(x, i, a.get("axis", 0)),
    "Where": lambda a, c, x, y: tg.where(c, x, y),
    "Transpose": lambda a, x: tg.transpose(x, *([a["perm"]] if "perm" in a else [])),
    "Tile": lambda a, x, n: tg.tile(x, n.numpy().tolist()),
    "Expand": lambda a, x, n: x * tg.ones(tuple(n.numpy().tolist())),
    "GlobalAveragePool": lambda a, x: tg.mean(x, (2, 3), keepdims=True),
}  # fmt: skip


def attribute(a):
    value = onnx.helper.get_attribute_value(a)
    return list(value) if not isinstance(value, bytes | int | float) else value


def cases():
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        collected = collect_testcases()
    for case in collected:
        nodes = case.model.graph.node
        if len(nodes) == 1 and nodes[0].op_type in RUN and nodes[0].domain == "" and case.data_sets:
            inputs, outputs = case.data_sets[0]
            if len(inputs) == len(nodes[0].input) and all(isinstance(x, np.ndarray) for x in inputs):
                yield case.name, nodes[0], inputs, np.asarray(outputs[0])


def test_backend_node_cases():
    ran, skipped = 0, []
    for name, node, xs, expected in cases():
        # Half precision, integers and strings are outside of what gradients are for.
        if expected.dtype not in (np.float32, np.float64, bool) or any(x.dtype.kind not in "biuf" for x in xs):
            skipped.append(name)
            continue
        try:
            with np.errstate(all="ignore"):
                out = RUN[node.op_type]({a.name: attribute(a) for a in node.attribute}, *map(tg.tensor, xs))
        except pytest.skip.Exception:
            skipped.append(name)
            continue
        except tg.errors.ShapeError as error:
            # The standard reduces nothing to NaN or an infinity, which here is an error.
            if "nothing to reduce" not in str(error):
                raise AssertionError(f"{name}: {error}") from error
            skipped.append(name)
            continue
        np.testing.assert_allclose(out.numpy(), expected, rtol=1e-4, atol=1e-5, err_msg=name)
        ran += 1
    print(f"{ran} ONNX cases ran, {len(skipped)} skipped: {', '.join(skipped)}")
    assert ran >= 250
