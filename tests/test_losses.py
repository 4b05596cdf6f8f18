"""Losses and dropout: against PyTorch to second order, the ONNX vectors, and the definitions in extended precision."""

import itertools
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_rnn as tg
import tinygrad_rnn.nn.functional as F

REDUCTIONS = ["none", "mean", "sum"]
few = settings(derandomize=True, deadline=None, max_examples=80, database=None)


@pytest.fixture(scope="module")
def torch():
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield torch
    torch.set_num_threads(threads)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def close(ours, theirs):
    theirs = theirs.numpy(force=True)
    assert ours.dtype == theirs.dtype == np.float64
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-12, atol=1e-12)


def agree(torch, ours, theirs, *xs):
    """The same values, gradients, and gradients of the gradients for the operands and for the cotangent."""
    rng = np.random.default_rng(len(xs))
    mine = [tg.tensor(x, requires_grad=True) for x in xs]
    twins = [torch.tensor(x, requires_grad=True) for x in xs]
    y, z = ours(*mine), theirs(*twins)
    close(y, z)
    v = rng.standard_normal(y.shape)
    mine_v, twin_v = tg.tensor(v, requires_grad=True), torch.tensor(v, requires_grad=True)
    first = tg.grad(y, mine, mine_v, create_graph=True)
    expected = torch.autograd.grad(z, twins, twin_v, create_graph=True)
    for g, plain, e in zip(first, tg.grad(y, mine, mine_v.detach(), retain_graph=True), expected, strict=True):
        close(g, e)
        close(plain, e)
    ws = [rng.standard_normal(g.shape) for g in first]
    mine, twins = [*mine, mine_v], [*twins, twin_v]
    second = tg.grad(first, mine, [tg.tensor(w) for w in ws], allow_unused=True)
    kept = [(e, torch.tensor(w)) for e, w in zip(expected, ws, strict=True) if e.requires_grad]
    wanted = torch.autograd.grad([e for e, _ in kept], twins, [w for _, w in kept], materialize_grads=True)
    assert second[-1] is not None
    for x, g, e in zip(mine, second, wanted, strict=True):
        close(tg.zeros_like(x) if g is None else g, e)


SHAPES = [(5,), (4, 5), (3, 1), (3, 5, 2), (2, 5, 3, 2)]


def classes_of(shape):
    return shape[min(1, len(shape) - 1)]


def indices(shape, seed=1):
    rest = shape[:1] * (len(shape) > 1) + shape[2:]
    return np.random.default_rng(seed).integers(0, classes_of(shape), rest)


def weights(shape):
    return np.random.default_rng(2).uniform(0.5, 2.0, classes_of(shape))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_class_indices(torch, reduction, shape):
    target = indices(shape)
    for weighted, smoothing, ignored in itertools.product((False, True), (0.0, 0.3, 1.0), (-100, int(target.flat[0]))):
        if np.all(target == ignored):
            continue
        w = weights(shape) if weighted else None
        both = dict(reduction=reduction, ignore_index=ignored)
        theirs = dict(both, weight=None if w is None else torch.tensor(w))
        agree(
            torch,
            lambda x: F.cross_entropy(x, target, w, label_smoothing=smoothing, **both),  # noqa: B023
            lambda x: torch.nn.functional.cross_entropy(x, torch.tensor(target), label_smoothing=smoothing, **theirs),  # noqa: B023
            3 * normal(*shape),
        )
        if smoothing:
            continue
        agree(
            torch,
            lambda x: F.nll_loss(x, target, w, **both),  # noqa: B023
            lambda x: torch.nn.functional.nll_loss(x, torch.tensor(target), **theirs),  # noqa: B023
            -np.exp(normal(*shape)),
        )


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_class_probabilities(torch, reduction, shape):
    target = np.exp(normal(*shape, seed=5))
    for weighted, smoothing in itertools.product((False, True), (0.0, 0.3, 1.0)):
        w = weights(shape) if weighted else None
        agree(
            torch,
            lambda x, t: F.cross_entropy(x, t, w, label_smoothing=smoothing, reduction=reduction),  # noqa: B023
            lambda x, t: torch.nn.functional.cross_entropy(x, t, None if w is None else torch.tensor(w), label_smoothing=smoothing, reduction=reduction),  # noqa: B023
            3 * normal(*shape),
            target,
        )


def test_third_derivatives(torch):
    x, target, v = normal(3, 4), np.array([0, 3, 1]), normal(3, 4, seed=9)

    def third(x, loss, v, grad):
        for _ in range(3):
            loss = (grad(loss, x, create_graph=True)[0] * v).sum()
        return grad(loss, x)[0]

    X, T = tg.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    expected = third(T, torch.nn.functional.cross_entropy(T, torch.tensor(target)), torch.tensor(v), torch.autograd.grad)
    for y in (target, np.eye(4)[target]):
        grad = lambda loss, x, **options: [tg.grad(loss, x, **options)]
        close(third(X, F.cross_entropy(X, y), tg.tensor(v), grad), expected)


def reference(x, target, axis, weight=None, ignored=-100, reduction="mean", smoothing=0.0):
    """The definition, a position at a time, in extended precision."""
    rows = np.moveaxis(x, axis, -1).astype(np.longdouble)
    classes = rows.shape[-1]
    w = np.ones(classes, np.longdouble) if weight is None else weight.astype(np.longdouble)
    losses, total = np.zeros(target.shape, np.longdouble), 0
    for place in np.ndindex(target.shape):
        if target[place] == ignored:
            continue
        row = rows[place]
        top = row.max()
        log_p = row - top - np.log(np.exp(row - top).sum())
        wanted = smoothing / classes * w
        wanted[target[place]] += (1 - smoothing) * w[target[place]]
        losses[place] = -sum(a * b for a, b in zip(wanted, log_p, strict=True) if a)
        total += w[target[place]]
    return losses if reduction == "none" else losses.sum() if reduction == "sum" else losses.sum() / total


@few
@given(st.data())
def test_cross_entropy_is_its_definition_on_every_axis(data):
    shape = tuple(data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)))
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    classes, rest = shape[axis], np.delete(shape, axis)
    target = rng.integers(0, classes, rest)
    ignored = data.draw(st.sampled_from([-100, -1, 1, 1000]))
    target = np.where(rng.random(rest) < 0.3, ignored, target) if data.draw(st.booleans()) and not 0 <= ignored < classes else target
    options = dict(reduction=data.draw(st.sampled_from(REDUCTIONS)))
    if np.all(target == ignored) and options["reduction"] == "mean":
        return
    weight = rng.uniform(0.1, 3, classes) if data.draw(st.booleans()) else None
    x = rng.standard_normal(shape) * data.draw(st.sampled_from([1, 50, 1e4]))
    smoothing = data.draw(st.sampled_from([0.0, 0.1, 1.0]))
    layout = data.draw(st.sampled_from([lambda a: a, np.asfortranarray, lambda a: a[..., ::-1].copy()[..., ::-1]]))
    kind = data.draw(st.sampled_from([np.asarray, tg.tensor, np.ndarray.tolist, lambda a: a.astype(np.int16)]))
    ours = F.cross_entropy(tg.tensor(layout(x)), kind(target), weight, ignore_index=ignored, label_smoothing=smoothing, axis=axis, **options)
    np.testing.assert_allclose(ours.numpy(), reference(x, target, axis, weight, ignored, smoothing=smoothing, **options).astype(float), rtol=1e-12, atol=1e-13)
    if not smoothing:
        log_p = tg.log_softmax(tg.tensor(x), axis)
        np.testing.assert_allclose(F.nll_loss(log_p, kind(target), weight, ignore_index=ignored, axis=axis, **options).numpy(), ours.numpy(), rtol=1e-12, atol=1e-11)


def onnx_cases():
    pytest.importorskip("onnx")
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        losses = ("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss")
        return [case for case in collect_testcases(None) if case.model.graph.node[0].op_type in losses]


def test_onnx_vectors():
    onnx, ran = pytest.importorskip("onnx"), set()
    for case in onnx_cases():
        node, (inputs, outputs) = case.model.graph.node[0], case.data_sets[0]
        options = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        reduction = options.pop("reduction", b"mean").decode()
        loss = F.nll_loss if node.op_type == "NegativeLogLikelihoodLoss" else F.cross_entropy
        ours = loss(*inputs, reduction=reduction, **options)
        assert ours.dtype == outputs[0].dtype == np.float32, case.name
        np.testing.assert_allclose(ours.numpy(), outputs[0], rtol=2e-6, err_msg=case.name)
        ran.add(case.name)
    assert len(ran) >= 52


def test_time_batch_classes():
    x, target = tg.tensor(normal(6, 2, 4), requires_grad=True), np.random.default_rng(0).integers(0, 4, (6, 2))
    loss, flat = F.cross_entropy(x, target, axis=-1), F.cross_entropy(x.reshape(12, 4), target.reshape(12))
    assert loss.item() == pytest.approx(flat.item(), rel=1e-14)
    np.testing.assert_allclose(tg.grad(loss, x).numpy(), tg.grad(flat, x).numpy(), rtol=1e-13)
    assert F.cross_entropy(x, target, axis=-1, reduction="none").shape == (6, 2)


@pytest.mark.parametrize("size", [1e3, 1e6, 1e30])
def test_huge_scores(size):
    x = tg.tensor(np.array([[size, 0, 0], [size, 0, 0], [-size, -size, 0]], np.float32), requires_grad=True)
    for target in ([0, 1, 2], np.eye(3, dtype=np.float32)):
        loss = F.cross_entropy(x, target, reduction="none")
        np.testing.assert_array_equal(loss.numpy(), np.array([0, size, 0], np.float32))
        g = tg.grad(loss, x, tg.ones(3))
        np.testing.assert_array_equal(g.numpy(), [[0, 0, 0], [1, -1, 0], [0, 0, 0]])


def test_masked_scores_of_minus_infinity():
    x = tg.tensor([[0.0, -np.inf, 0.0], [-np.inf, -np.inf, -np.inf]], requires_grad=True)
    with np.errstate(invalid="ignore"):
        loss = F.cross_entropy(x, [2, -100])
        assert loss.item() == pytest.approx(np.log(2))
        np.testing.assert_array_equal(tg.grad(loss, x).numpy(), [[0.5, 0, -0.5], [0, 0, 0]])
    probabilities = np.array([[0.5, 0, 0.5]], np.float32)
    assert F.cross_entropy(x[:1], probabilities).item() == pytest.approx(np.log(2))
    log_p = tg.tensor([[-0.5, -np.inf], [-np.inf, -0.5]], requires_grad=True)
    loss = F.nll_loss(log_p, [0, -100])
    assert loss.item() == 0.5
    np.testing.assert_array_equal(tg.grad(loss, log_p).numpy(), [[-1, 0], [0, 0]])


def test_an_ignored_position_has_no_gradient_and_no_value():
    x = tg.tensor(normal(4, 3), requires_grad=True)
    for loss, options in (F.cross_entropy, {}), (F.cross_entropy, {"label_smoothing": 0.2}), (F.nll_loss, {}):
        y = loss(x, [1, 7, 2, 7], ignore_index=7, reduction="none", **options)
        assert (y.numpy()[[1, 3]] == 0).all()
        g = tg.grad(y, x, tg.ones(4, dtype=np.float64)).numpy()
        assert (g[[1, 3]] == 0).all() and (g[[0, 2]] != 0).any(axis=1).all()
        assert loss(x, [7] * 4, ignore_index=7, reduction="sum", **options).item() == 0
        assert loss(x, np.full(4, 200, np.uint8), ignore_index=200, reduction="sum", **options).item() == 0


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_cross_entropy_is_one_record_that_keeps_little(reduction):
    x = tg.tensor(normal(8, 16).astype(np.float32), requires_grad=True)
    loss = F.cross_entropy(x, np.zeros(8, int), np.ones(16, np.float32), reduction=reduction)
    assert len(tg.tape(loss)) == 1
    assert tg.tape(loss).nbytes <= x.nbytes + 8 * (8 + 4)


def test_the_target_may_change_after_the_call():
    x, target = tg.tensor(normal(2, 3), requires_grad=True), np.array([0, 1])
    loss, soft = F.cross_entropy(x, target), np.eye(3)[target]
    expected = tg.grad(loss, x, retain_graph=True).numpy()
    smooth = F.cross_entropy(x, soft)
    target[:], soft[:] = 2, 7
    np.testing.assert_array_equal(tg.grad(loss, x).numpy(), expected)
    np.testing.assert_allclose(tg.grad(smooth, x).numpy(), expected, rtol=1e-12)


ELEMENTWISE = [
    ("mse_loss", {}), ("l1_loss", {}), ("huber_loss", {}), ("huber_loss", {"delta": 0.3}), ("huber_loss", {"delta": 5}), ("binary_cross_entropy_with_logits", {}),
]  # fmt: skip


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(("name", "options"), ELEMENTWISE, ids=str)
def test_elementwise_losses(torch, name, options, reduction):
    for shape in (), (7,), (3, 4), (2, 3, 2):
        target = np.random.default_rng(3).uniform(0.1, 0.9, shape)
        both = dict(options, reduction=reduction)
        agree(torch, lambda x, y: getattr(F, name)(x, y, **both), lambda x, y: getattr(torch.nn.functional, name)(x, y, **both), 2 * normal(*shape), target)  # noqa: B023


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weight", [None, (3, 4), (3, 1), (4,), ()], ids=str)
@pytest.mark.parametrize("pos_weight", [None, (4,), (1,), (3, 4)], ids=str)
def test_binary_weights(torch, weight, pos_weight, reduction):
    x, y = 2 * normal(3, 4), np.random.default_rng(3).uniform(0, 1, (3, 4))
    given = [np.exp(normal(*s, seed=7)) for s in (weight, pos_weight) if s is not None]

    def options(scales):
        scales = list(scales)
        return {"weight": scales.pop(0) if weight is not None else None, "pos_weight": scales.pop(0) if pos_weight is not None else None}

    def theirs(x, y, *scales):
        # PyTorch's own has no gradient for the two weights.
        o, softplus = options(scales), torch.nn.functional.softplus
        one = torch.ones((), dtype=torch.float64)
        loss = (one if o["weight"] is None else o["weight"]) * ((one if o["pos_weight"] is None else o["pos_weight"]) * y * softplus(-x) + (1 - y) * softplus(x))
        return loss if reduction == "none" else getattr(loss, reduction)()

    agree(torch, lambda x, y, *scales: F.binary_cross_entropy_with_logits(x, y, reduction=reduction, **options(scales)), theirs, x, y, *given)
    given_to_torch = options(map(torch.tensor, given))
    agree(
        torch,
        lambda x, y: F.binary_cross_entropy_with_logits(x, y, reduction=reduction, **options(given)),
        lambda x, y: torch.nn.functional.binary_cross_entropy_with_logits(x, y, reduction=reduction, **given_to_torch),
        x, y,
    )  # fmt: skip


@few
@given(st.floats(-700, 700), st.sampled_from([0, 1]))
def test_binary_cross_entropy_keeps_its_relative_precision(x, y):
    ours = F.binary_cross_entropy_with_logits(tg.tensor(np.array(x)), y).item()
    assert ours == pytest.approx(float(np.log1p(np.exp(np.longdouble(-x if y else x)))), rel=1e-14)


def test_binary_cross_entropy_of_huge_scores():
    x = tg.tensor([1e30, -1e30, 1e30, -1e30], requires_grad=True)
    loss = F.binary_cross_entropy_with_logits(x, [True, False, False, True], reduction="none")
    np.testing.assert_array_equal(loss.numpy(), np.array([0, 0, 1e30, 1e30], np.float32))
    np.testing.assert_array_equal(tg.grad(loss, x, tg.ones(4)).numpy(), [0, 0, 1, -1])


def test_conventions_at_corners():
    x = tg.tensor([0.0, 1.0, -1.0, 2.0], requires_grad=True)
    np.testing.assert_array_equal(tg.grad(F.l1_loss(x, [0, 0, 0, 0], reduction="sum"), x).numpy(), [0, 1, -1, 1])
    np.testing.assert_array_equal(F.huber_loss(x, [0, 0, 0, 0], reduction="none").numpy(), [0, 0.5, 0.5, 1.5])
    np.testing.assert_array_equal(tg.grad(F.huber_loss(x, [0, 0, 0, 0], reduction="sum"), x).numpy(), [0, 1, -1, 1])


SINGLE = [
    ("class indices", lambda x, **o: F.cross_entropy(x, [2, 0], **o)),
    ("smoothed", lambda x, **o: F.cross_entropy(x, [2, 0], [1, 2, 3], label_smoothing=0.1, **o)),
    ("probabilities", lambda x, **o: F.cross_entropy(x, [[0.5, 0.5, 0], [0, 0, 1]], [1.0, 2.0, 3.0], label_smoothing=0.1, **o)),
    ("nll", lambda x, **o: F.nll_loss(x, [2, 0], [1, 2, 3], **o)),
    *((name, lambda x, name=name, **o: getattr(F, name)(x, np.ones((2, 3), int), **o)) for name in ("mse_loss", "l1_loss", "huber_loss")),
    ("binary", lambda x, **o: F.binary_cross_entropy_with_logits(x, np.ones((2, 3), bool), [1, 2, 3], pos_weight=np.float64(2), **o)),
    ("dropout", lambda x, reduction: F.dropout(x, 0.3, rng=0)),
]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(("name", "loss"), SINGLE, ids=[name for name, _ in SINGLE])
def test_dtype_is_kept(name, loss, reduction, dtype):
    x = tg.tensor(normal(2, 3).astype(dtype), requires_grad=True)
    y = loss(x, reduction=reduction)
    g = tg.grad(y.sum(), x, create_graph=True)
    assert y.dtype == g.dtype == dtype
    second = tg.grad((g * g).sum(), x, allow_unused=True)
    assert second is None or second.dtype == dtype


def test_arrays_and_lists_may_be_given():
    assert F.mse_loss([1.0, 3.0], [1.0, 1.0]).item() == 2
    assert F.cross_entropy(np.zeros((1, 2)), np.array([0])).item() == pytest.approx(np.log(2))
    assert F.cross_entropy(tg.zeros((0, 3)), [], reduction="sum").item() == 0
    assert F.cross_entropy(tg.zeros((0, 3)), [], reduction="none").shape == (0,)
    assert F.mse_loss(tg.zeros((0, 3)), tg.zeros((0, 3)), reduction="sum").item() == 0


X, W32 = tg.zeros((2, 3)), np.ones(3, np.float32)
E = tg.errors
BAD = [
    (lambda: F.cross_entropy(X, [0, 1, 2]), E.ShapeError, ["cross_entropy", "target", "(3,)", "(2,)", "(2, 3)"]),
    (lambda: F.cross_entropy(X, [[0], [1]]), E.ShapeError, ["(2, 1)", "(2,)"]),
    (lambda: F.cross_entropy(tg.zeros((2, 3, 4)), np.zeros((2, 3), int)), E.ShapeError, ["(2, 3)", "(2, 4)", "3 classes on axis 1"]),
    (lambda: F.cross_entropy(X, [0.0, 1.0]), E.DtypeError, ["target", "float", "integers"]),
    (lambda: F.cross_entropy(X, [True, False]), E.DtypeError, ["target", "bool"]),
    (lambda: F.cross_entropy(X, np.ones((2, 3), int)), E.DtypeError, ["probabilities", "int64", "(2,)"]),
    (lambda: F.cross_entropy(tg.zeros((2, 3, 4)), np.ones((2, 3, 4), int)), E.DtypeError, ["indices of shape (2, 4)"]),
    (lambda: F.cross_entropy(X, np.ones((2, 3))), E.DtypeError, ["target", "float64", "float32", ".astype("]),
    (lambda: F.cross_entropy(X, [0, 3]), E.OutOfRangeError, ["target[1] is 3", "3 classes (0 to 2)"]),
    (lambda: F.cross_entropy(X, [-1, 3]), E.OutOfRangeError, ["target[0] is -1"]),
    (lambda: F.cross_entropy(X, [-100, -1]), E.OutOfRangeError, ["target[1] is -1", "ignore_index=-100"]),
    (lambda: F.cross_entropy(X, [5, -100], ignore_index=5), E.OutOfRangeError, ["target[1] is -100"]),
    (lambda: F.nll_loss(tg.zeros((2, 3, 4)), np.arange(8).reshape(2, 4) // 2), E.OutOfRangeError, ["nll_loss", "target[1, 2] is 3"]),
    (lambda: F.cross_entropy(tg.zeros(3), 3), E.OutOfRangeError, ["target is 3"]),
    (lambda: F.cross_entropy(X, [-100, -100]), E.ShapeError, ["every target is ignored", "sum"]),
    (lambda: F.nll_loss(X, [1, 1], ignore_index=1), E.ShapeError, ["nll_loss", "every target is ignored"]),
    (lambda: F.cross_entropy(X, [1, 1], [1, 0, 1]), E.ShapeError, ["weights of the targets add up to 0"]),
    (lambda: F.cross_entropy(tg.zeros((0, 3)), []), E.ShapeError, ["batch is empty"]),
    (lambda: F.cross_entropy(tg.zeros((0, 3)), tg.zeros((0, 3))), E.ShapeError, ["batch is empty"]),
    (lambda: F.cross_entropy(tg.zeros((2, 0)), [0, 0]), E.ShapeError, ["no classes on axis 1"]),
    (lambda: F.cross_entropy(tg.zeros(()), 0), E.ShapeError, ["0-d"]),
    (lambda: F.cross_entropy(tg.arange(3), 0), E.DtypeError, ["input", "int64"]),
    (lambda: F.cross_entropy(X, [0, 1], W32[:2]), E.ShapeError, ["weight", "(2,)", "(3,)", "axis 1"]),
    (lambda: F.cross_entropy(X, [0, 1], np.ones(3)), E.DtypeError, ["weight", "float64", "float32"]),
    (lambda: F.cross_entropy(X, [0, 1], tg.ones(3, requires_grad=True)), E.NotDifferentiableError, ["weight", "detach"]),
    (lambda: F.cross_entropy(X, [0, 1], reduction="avg"), ValueError, ["reduction", "'avg'"]),
    (lambda: F.nll_loss(X, [0, 1], reduction=None), ValueError, ["nll_loss", "reduction", "None"]),
    (lambda: F.mse_loss(X, X, reduction=""), ValueError, ["mse_loss", "reduction"]),
    (lambda: F.cross_entropy(X, [0, 1], label_smoothing=1.5), ValueError, ["label_smoothing", "1.5"]),
    (lambda: F.cross_entropy(X, [0, 1], label_smoothing=-0.1), ValueError, ["label_smoothing"]),
    (lambda: F.cross_entropy(X, [0, 1], ignore_index=0.5), E.DtypeError, ["ignore_index", "0.5"]),
    (lambda: F.cross_entropy(X, X, ignore_index=0), ValueError, ["ignore_index=0", "probabilities"]),
    (lambda: F.cross_entropy(X, [0, 1], axis=2), E.AxisError, ["cross_entropy", "axis 2"]),
    (lambda: F.cross_entropy(X, [0, 1], axis=(0, 1)), E.DtypeError, ["axis"]),
    (lambda: F.mse_loss(X, tg.zeros((3, 3))), E.ShapeError, ["mse_loss", "(3, 3)", "(2, 3)"]),
    (lambda: F.l1_loss(X, 0.0), E.ShapeError, ["l1_loss", "()"]),
    (lambda: F.huber_loss(X, np.zeros((2, 3))), E.DtypeError, ["huber_loss", "target", "float64", "float32"]),
    (lambda: F.huber_loss(X, X, delta=0), ValueError, ["delta", "0"]),
    (lambda: F.huber_loss(X, X, delta=float("nan")), ValueError, ["delta"]),
    (lambda: F.mse_loss(tg.zeros(0), tg.zeros(0)), E.ShapeError, ["mse_loss", "(0,)", "average"]),
    (lambda: F.mse_loss(tg.arange(2), [0, 0]), E.DtypeError, ["input", "int64"]),
    (lambda: F.binary_cross_entropy_with_logits(X, X, np.ones(2, np.float32)), E.ShapeError, ["weight", "(2,)", "(2, 3)"]),
    (lambda: F.binary_cross_entropy_with_logits(X, X, np.ones((4, 3), np.float32)), E.ShapeError, ["weight", "(4, 3)", "does not broadcast to input (2, 3)"]),
    (lambda: F.binary_cross_entropy_with_logits(X, X, pos_weight=np.ones((1, 2, 3), np.float32)), E.ShapeError, ["pos_weight", "(1, 2, 3)"]),
    (lambda: F.binary_cross_entropy_with_logits(X, X, pos_weight=np.ones(3)), E.DtypeError, ["pos_weight", "float64"]),
    (lambda: F.dropout(X, 1.5), ValueError, ["dropout", "1.5"]),
    (lambda: F.dropout(X, -0.1, training=False), ValueError, ["dropout", "-0.1"]),
    (lambda: F.dropout(X, float("nan")), ValueError, ["dropout", "nan"]),
    (lambda: F.dropout(tg.arange(3)), E.DtypeError, ["dropout", "int64"]),
    (lambda: F.dropout(X, rng="seed"), E.DtypeError, ["rng"]),
]  # fmt: skip


@pytest.mark.parametrize("k", range(len(BAD)))
def test_bad_input(k):
    call, kind, parts = BAD[k]
    with pytest.raises(kind) as caught:
        call()
    for part in parts:
        assert part in str(caught.value)


def test_dropout_scales_what_it_keeps():
    x = tg.tensor(normal(300, 200).astype(np.float32), requires_grad=True)
    for p in 0.1, 0.5, 0.9:
        y = F.dropout(x, p, rng=0)
        dropped = y.numpy() == 0
        np.testing.assert_allclose(y.numpy()[~dropped], x.numpy()[~dropped] / (1 - p), rtol=1e-6)
        # Five standard deviations of a binomial share, in all and in each row.
        assert abs(dropped.mean() - p) < 5 * np.sqrt(p * (1 - p) / x.size)
        assert (abs(dropped.mean(axis=1) - p) < 5 * np.sqrt(p * (1 - p) / 200)).all()
        v = tg.tensor(normal(300, 200, seed=1).astype(np.float32), requires_grad=True)
        (g,) = tg.grad(y, [x], v, create_graph=True)
        np.testing.assert_allclose(g.numpy(), np.where(dropped, 0, v.numpy() / (1 - p)), rtol=1e-6)
        np.testing.assert_allclose(tg.grad(g.sum(), v).numpy(), np.where(dropped, 0, 1 / (1 - p)), rtol=1e-6)


def test_dropout_that_does_nothing_is_its_input():
    x = tg.ones(3)
    assert F.dropout(x, 0) is x and F.dropout(x, 0.5, False) is x and F.dropout(x, 1.0, training=False) is x
    assert F.dropout(x).dtype == np.float32


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_dropout_of_everything_is_zeros(dtype):
    for values in ([-1, np.inf, np.nan, 2], -3.0):
        x = tg.tensor(np.array(values, dtype), requires_grad=True)
        y = F.dropout(x, 1)
        assert y.dtype == dtype and y.shape == x.shape
        assert not np.signbit(y.numpy()).any() and (y.numpy() == 0).all()
        assert (tg.grad(y.sum(), x).numpy() == 0).all()


def test_dropout_is_seeded_and_keeps_one_byte_an_element():
    x, rng = tg.ones((50, 4), requires_grad=True), np.random.default_rng(3)
    first, second = F.dropout(x, rng=rng), F.dropout(x, rng=rng)
    assert (first != second).any()
    np.testing.assert_array_equal(F.dropout(x, rng=3).numpy(), first.numpy())
    assert len(tg.tape(first)) == 1 and tg.tape(first).nbytes == x.size
    turned = tg.tensor(np.ones((4, 50), np.float32)).T
    np.testing.assert_array_equal(F.dropout(turned, rng=3).numpy(), first.numpy())


def test_dropout_is_the_same_again_under_checkpoint():
    x, rng = tg.ones(200, requires_grad=True), np.random.default_rng(0)
    y = tg.checkpoint(lambda x: F.dropout(tg.tanh(x), 0.5, rng=rng) * x, x)
    dropped = y.numpy() == 0
    assert 0 < dropped.sum() < 200
    assert ((tg.grad(y.sum(), x).numpy() == 0) == dropped).all()
