"""Optimisers, clipping and schedules, against PyTorch, the ONNX backend vectors and closed forms."""

import copy
import json
import math
import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn import optim

steadily = settings(derandomize=True, deadline=None, max_examples=60)

CASES = [
    ("SGD", dict(lr=0.1)),
    ("SGD", dict(lr=0.1, weight_decay=0.05)),
    ("SGD", dict(lr=0.1, momentum=0.9)),
    ("SGD", dict(lr=0.1, momentum=0.9, dampening=0.3, weight_decay=0.05)),
    ("SGD", dict(lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.05)),
    ("RMSprop", dict()),
    ("RMSprop", dict(lr=0.02, alpha=0.9, eps=1e-6, weight_decay=0.05)),
    ("RMSprop", dict(momentum=0.8)),
    ("RMSprop", dict(centered=True)),
    ("RMSprop", dict(centered=True, momentum=0.8, weight_decay=0.05, alpha=0.5)),
    ("Adagrad", dict()),
    ("Adagrad", dict(lr=0.3, lr_decay=0.1, weight_decay=0.05, initial_accumulator_value=0.5, eps=1e-6)),
    ("Adam", dict()),
    ("Adam", dict(lr=0.1, betas=(0.5, 0.9), eps=1e-3, weight_decay=0.05)),
    ("Adam", dict(lr=0.1, amsgrad=True)),
    ("Adam", dict(lr=0.1, betas=(0.0, 0.0))),
    ("AdamW", dict()),
    ("AdamW", dict(lr=0.1, weight_decay=0.3, amsgrad=True)),
]  # fmt: skip
SHAPES = [(), (5,), (3, 4), (0, 3), (2, 1, 3), (40, 7)]
IDS = [f"{name}-{'-'.join(options) or 'defaults'}" for name, options in CASES]


def parameters(shapes=SHAPES, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    return [tg.tensor(rng.standard_normal(shape).astype(dtype), requires_grad=True) for shape in shapes]


def set_gradients(params, seed, left_out=()):
    rng = np.random.default_rng(seed)
    for k, p in enumerate(params):
        g = rng.standard_normal(p.shape).astype(p.dtype)
        p.grad = None if k in left_out else np.asarray(g)


def values(params):
    return [p.numpy().copy() for p in params]


def same_bits(xs, ys):
    return all(x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes() for x, y in zip(xs, ys, strict=True))


def arrays_of(state):
    return {(key, name): value for key, entry in state["state"].items() for name, value in entry.items() if isinstance(value, np.ndarray)}


def run(optimizer, params, steps, first=0):
    for k in range(first, first + steps):
        set_gradients(params, k, left_out=(k % 5,))
        optimizer.step()


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_torch(name, options, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(optim, "BLOCK", 64 * 8)
    ours = parameters()
    theirs = [torch.tensor(p.numpy().copy(), requires_grad=True) for p in ours]
    mine, other = getattr(optim, name)(ours, **options), getattr(torch.optim, name)(theirs, foreach=False, **options)
    for step in range(50):
        # Each parameter goes without a gradient at times: its own count of steps is what corrects the bias.
        set_gradients(ours, step, left_out=(step % 7,))
        for p, q in zip(ours, theirs, strict=True):
            q.grad = None if p.grad is None else torch.tensor(p.grad.numpy().copy())
        if step == 30:
            mine.param_groups[0]["lr"] = other.param_groups[0]["lr"] = 0.05
        mine.step(), other.step()
    for p, q in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(p.numpy(), q.detach().numpy(), rtol=1e-12, atol=1e-13)
    state = mine.state_dict()["state"]
    for k, q in enumerate(theirs):
        for key, expected in other.state[q].items():
            if key != "step" and expected is not None:
                np.testing.assert_allclose(state[str(k)][key], expected.numpy(), rtol=1e-12, atol=1e-14)
            elif key == "step" and "step" in state[str(k)]:
                assert state[str(k)]["step"] == int(expected)


@pytest.mark.parametrize(("name", "options"), [("SGD", dict(lr=0.1)), *[(n, {}) for n in ("RMSprop", "Adagrad", "Adam", "AdamW")]])
def test_defaults_are_those_of_torch(name, options):
    torch = pytest.importorskip("torch")
    expected = getattr(torch.optim, name)([torch.ones(1, requires_grad=True)], **options).defaults
    ours = getattr(optim, name)([tg.ones(1, requires_grad=True)], **options).defaults
    assert ours == {key: expected[key] for key in ours}


def onnx_cases():
    pytest.importorskip("onnx")
    from onnx import AttributeProto, numpy_helper

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # A module's cases are listed when it is imported: these three take no time, all of them take six seconds.
        from onnx.backend.test.case.node import _NodeTestCases, adagrad, adam, momentum  # noqa: F401
    for case in _NodeTestCases:
        node = case.model.graph.node[0]
        if node.op_type not in ("Momentum", "Adagrad", "Adam"):
            continue
        attributes = {a.name: a.s.decode() if a.type == AttributeProto.STRING else a.f for a in node.attribute}
        arrays = [[numpy_helper.to_array(x) if not isinstance(x, np.ndarray) else x for x in part] for part in case.data_sets[0]]
        yield case.name, node.op_type, attributes, *arrays


def test_onnx_vectors():
    """Momentum, Nesterov, Adagrad and Adam of ai.onnx.preview.training, float32 in and out."""
    ran = []
    for name, kind, a, (r, t, *inputs), expected in onnx_cases():
        slots = {"Momentum": ["momentum_buffer"], "Adagrad": ["sum"], "Adam": ["exp_avg", "exp_avg_sq"]}[kind]
        count = len(inputs) // (2 + len(slots))
        xs, gs, *states = [inputs[k * count : (k + 1) * count] for k in range(2 + len(slots))]
        params = [tg.tensor(x, requires_grad=True) for x in xs]
        common = dict(lr=r.item(), weight_decay=a["norm_coefficient"])
        step = t.item()
        if kind == "Momentum":
            optimizer = optim.SGD(params, momentum=a["alpha"], dampening=0.0 if a["mode"] == "nesterov" else 1 - a["beta"], nesterov=a["mode"] == "nesterov", **common)
        elif kind == "Adagrad":
            optimizer = optim.Adagrad(params, lr_decay=a["decay_factor"], eps=a["epsilon"], **common)
        else:
            # The vectors are of step 0, where the standard corrects no bias: the correction of a late step is 1.
            assert step == 0
            step = 10**6
            optimizer = optim.Adam(params, betas=(a["alpha"], a["beta"]), eps=a["epsilon"], **common)
        state = optimizer.state_dict()
        state["state"] = {str(k): {"step": step, **{slot: s[k] for slot, s in zip(slots, states, strict=True)}} for k in range(count)}
        optimizer.load_state_dict(state)
        for p, g in zip(params, gs, strict=True):
            p.grad = g
        optimizer.step()
        after = optimizer.state_dict()["state"]
        results = [*values(params), *[after[str(k)][slot] for slot in slots for k in range(count)]]
        for result, value in zip(results, expected, strict=True):
            assert result.dtype == np.float32
            np.testing.assert_allclose(result, value, rtol=1e-6)
        ran.append(name)
    assert len(ran) == 7


def test_adam_by_hand():
    """Two steps of Kingma and Ba's algorithm 1 in exact fractions, with eps = 0."""
    w = tg.tensor(np.array([1.0]), requires_grad=True)
    optimizer = optim.Adam([w], lr=0.5, betas=(0.5, 0.75), eps=0.0)
    w.grad = np.array([4.0])
    optimizer.step()
    assert w.item() == 0.5
    w.grad = np.array([-4.0])
    optimizer.step()
    # m = 0.5 * 2 - 2 = -1 over 1 - 0.25; v = 16 (1 - 0.75**2), corrected to 16.
    assert w.item() == pytest.approx(0.5 + 0.5 * (1 / 0.75) / 4, rel=1e-15)


@given(st.data())
@steadily
def test_results_do_not_depend_on_blocks(data):
    shapes = data.draw(st.lists(st.lists(st.integers(0, 9), max_size=3).map(tuple), min_size=1, max_size=8))
    name, options = data.draw(st.sampled_from(CASES))
    dtype = data.draw(st.sampled_from([np.float32, np.float64]))
    layout = data.draw(st.lists(st.sampled_from(["C", "F", "strided"]), min_size=len(shapes), max_size=len(shapes)))
    results = []
    whole, cut = optim.BLOCK, data.draw(st.integers(1, 300))
    for block in (whole, cut):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(optim, "BLOCK", block)
            patch.setattr(optim, "STRIP", 3)
            params = parameters(shapes, dtype)
            optimizer = getattr(optim, name)(params, **options)
            for step in range(4):
                set_gradients(params, step, left_out=(step,))
                for p, kind in zip(params, layout, strict=True):
                    if p.grad is not None and kind != "C" and block == cut:
                        p.grad = np.array(p.grad.numpy(), order="F") if kind == "F" else np.stack([p.grad.numpy()] * 2, -1)[..., 0]
                optimizer.step()
            results.append([*values(params), *arrays_of(optimizer.state_dict()).values()])
    assert same_bits(*results)


def test_layouts_of_parameters_and_gradients():
    """Transposed and strided parameters change in place, as contiguous ones do."""
    base = np.random.default_rng(0).standard_normal((80, 100))
    for view in (lambda x: x.T, lambda x: x[::2, ::-3], lambda x: x[None, :, 0]):
        memory = tg.tensor(base)
        p = tg.core.tensor.wrap(view(memory._data)).requires_grad_()
        q = tg.tensor(view(base), requires_grad=True)
        assert not p._data.flags.owndata
        others = np.isin(memory._data, view(memory._data), invert=True)
        one, two = optim.Adam([p], lr=0.1), optim.Adam([q], lr=0.1)
        for step in range(3):
            set_gradients([p], step)
            q.grad = np.asfortranarray(p.grad.numpy())
            one.step(), two.step()
        assert same_bits(values([p]), values([q]))
        assert np.shares_memory(p._data, memory._data)
        np.testing.assert_array_equal(memory.numpy()[others], base[others])
        assert np.all(view(memory.numpy()) != view(base))


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_in_place(name, options):
    params = parameters(dtype=np.float32)
    optimizer = getattr(optim, name)(params, **options)
    buffers = [p._data for p in params]
    run(optimizer, params, 1)
    state = [array for stores in optimizer._stores for store in stores for array in store.arrays.values()]
    run(optimizer, params, 3, first=1)
    assert all(p._data is buffer for p, buffer in zip(params, buffers, strict=True))
    assert all(a is b for a, b in zip(state, [array for stores in optimizer._stores for store in stores for array in store.arrays.values()], strict=True))
    assert all(p.dtype == np.float32 and p.requires_grad and p.is_leaf for p in params)
    assert all(array.dtype == np.float32 for array in arrays_of(optimizer.state_dict()).values())


def test_no_temporary_of_full_size():
    p = tg.zeros((2000, 1000), requires_grad=True)
    optimizer = optim.Adam([p], weight_decay=0.1)
    p.grad = np.ones((2000, 1000), np.float32)
    tracemalloc.start()
    try:
        optim.clip_grad_norm_([p], 1.0), optimizer.step()
        assert tracemalloc.get_traced_memory()[1] < 2.2 * p.nbytes
        tracemalloc.stop(), tracemalloc.start()
        optim.clip_grad_norm_([p], 0.5), optimizer.step()
        assert tracemalloc.get_traced_memory()[1] < p.nbytes / 100
    finally:
        tracemalloc.stop()


def test_state_of_frozen_parameters_takes_no_memory():
    p, frozen = tg.zeros(10, requires_grad=True), tg.zeros(2_000_000)
    optimizer = optim.Adam([p, frozen])
    run(optimizer, [p], 3, first=1)
    assert optimizer.state_dict()["state"]["1"] == {"step": 0}


def test_tapes_that_kept_the_old_values_refuse():
    w = tg.ones((3, 3), requires_grad=True, name="w")
    b = tg.ones(3, requires_grad=True)
    loss = ((w @ w + b) ** 2).sum()
    loss.backward(retain_graph=True)
    optim.SGD([w, b], lr=0.1).step()
    with pytest.raises(tg.errors.TapeError, match=r"changed|written"):
        loss.backward()


def test_frozen_parameters_are_skipped_until_they_are_not():
    torch = pytest.importorskip("torch")
    ours = parameters([(3,), (2, 2), (4,)])
    theirs = [torch.tensor(p.numpy().copy(), requires_grad=True) for p in ours]
    mine, other = optim.Adam(ours, lr=0.1), torch.optim.Adam(theirs, lr=0.1)
    for step in range(10):
        set_gradients(ours, step)
        for p, q in zip(ours, theirs, strict=True):
            q.grad = torch.tensor(p.grad.numpy().copy())
        for p in (ours[0], theirs[0]):
            p.requires_grad_(step >= 5)
            if step < 5:
                p.grad = None
        if step == 2:
            # A gradient that is left over from before the freezing is not used.
            ours[0].grad = np.ones(3)
        before = ours[0].numpy().copy()
        mine.step(), other.step()
        assert (step >= 5) != bool(np.array_equal(before, ours[0].numpy()))
    for p, q in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(p.numpy(), q.detach().numpy(), rtol=1e-12)


def test_groups():
    w, b, v = parameters([(3, 2), (2,), (4,)])
    optimizer = optim.SGD([{"params": [w], "lr": 0.5}, {"params": b, "weight_decay": 0.5, "name": "biases"}], lr=0.25)
    optimizer.add_param_group({"params": [v], "momentum": 0.5})
    assert [g["lr"] for g in optimizer.param_groups] == [0.5, 0.25, 0.25]
    assert optimizer.param_groups[1]["name"] == "biases" and optimizer.param_groups[2]["momentum"] == 0.5
    before = values([w, b, v])
    for p in (w, b, v):
        p.grad = np.ones(p.shape)
    optimizer.step(), optimizer.step()
    np.testing.assert_allclose(w.numpy(), before[0] - 1.0)
    np.testing.assert_allclose(b.numpy(), (before[1] * 0.875 - 0.25) * 0.875 - 0.25)
    np.testing.assert_allclose(v.numpy(), before[2] - 0.25 * (1 + 1.5))
    assert optimizer.state_dict()["param_groups"][2]["params"] == [2]
    optimizer.zero_grad()
    assert w.grad is b.grad is v.grad is None
    assert "SGD" in repr(optimizer) and "lr=0.5" in repr(optimizer)


def test_dtypes_in_one_group():
    a, b = parameters([(3,)], np.float32)[0], parameters([(3,)], np.float64)[0]
    optimizer = optim.Adam([a, b], lr=0.5, eps=0.0)
    before = values([a, b])
    set_gradients([a, b], 3)
    signs = [np.sign(p.grad.numpy()) for p in (a, b)]
    optimizer.step()
    for p, old, sign in zip((a, b), before, signs, strict=True):
        assert p.dtype == old.dtype
        np.testing.assert_allclose(p.numpy(), old - 0.5 * sign, rtol=8 * float(np.finfo(p.dtype).eps))
    entries = optimizer.state_dict()["state"]
    assert [entries[k]["exp_avg"].dtype for k in "01"] == [np.float32, np.float64]


def test_closure():
    w = tg.tensor([2.0], requires_grad=True)
    optimizer = optim.SGD([w], lr=0.25)

    def closure():
        optimizer.zero_grad()
        loss = (w * w).sum()
        loss.backward()
        return loss

    with tg.no_grad():
        assert optimizer.step(closure).item() == 4.0
    assert w.item() == 1.0


def test_decay_groups():
    w, b, s = parameters([(3, 2), (2,), ()])

    class Module:
        def named_parameters(self):
            yield from {"w": w, "b": b, "s": s}.items()

    for source in (Module(), Module().named_parameters()):
        first, second = optim.decay_groups(source, 0.5)
        assert [p is w for p in first["params"]] == [True] and first["weight_decay"] == 0.5
        assert [p is b or p is s for p in second["params"]] == [True, True] and second["weight_decay"] == 0
    assert len(optim.decay_groups([("w", w)], 0.5)) == 1
    with pytest.raises(TypeError, match=r"decay_groups: item 0 .* \(name, tensor\)"):
        optim.decay_groups([w], 0.5)
    with pytest.raises(ValueError, match="weight_decay"):
        optim.decay_groups([("w", w)], -1)


def through_files(state):
    """The state as JSON for the scalars and a flat dict of arrays: what a safetensors file with metadata keeps."""
    arrays = {}

    def split(value, path):
        if isinstance(value, np.ndarray):
            arrays[path] = value.copy()
            return {"array": path}
        if isinstance(value, dict):
            return {key: split(v, f"{path}.{key}") for key, v in value.items()}
        return [split(v, f"{path}.{k}") for k, v in enumerate(value)] if isinstance(value, list) else value

    def join(value):
        if isinstance(value, dict):
            return tg.tensor(arrays[value["array"]]) if "array" in value else {key: join(v) for key, v in value.items()}
        return [join(v) for v in value] if isinstance(value, list) else value

    return join(json.loads(json.dumps(split(state, ""), allow_nan=False)))


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_a_resumed_optimiser_continues_bit_for_bit(name, options):
    params = parameters(dtype=np.float32)
    make = getattr(optim, name)
    optimizer = make([{"params": params[:3]}, {"params": params[3:], "lr": 0.05}], **options)
    run(optimizer, params, 6)
    saved = through_files(optimizer.state_dict())
    weights = values(params)
    run(optimizer, params, 6, first=6)

    others = [tg.tensor(w, requires_grad=True) for w in weights]
    resumed = make([{"params": others[:3]}, {"params": others[3:]}], lr=7.0)
    # What was there before is replaced, and none of it stays.
    run(resumed, others, 2, first=50)
    for p, w in zip(others, weights, strict=True):
        p.data = w
    resumed.load_state_dict(saved)
    run(resumed, others, 6, first=6)
    assert same_bits(values(params), values(others))
    one, two = optimizer.state_dict(), resumed.state_dict()
    assert one["param_groups"] == two["param_groups"]
    assert arrays_of(one).keys() == arrays_of(two).keys() and same_bits(arrays_of(one).values(), arrays_of(two).values())


def test_state_dict_is_a_copy():
    params = parameters()
    optimizer = optim.Adam(params)
    run(optimizer, params, 3)
    state = optimizer.state_dict()
    kept = copy.deepcopy(state)
    run(optimizer, params, 3)
    assert same_bits(arrays_of(state).values(), arrays_of(kept).values()) and state["param_groups"] == kept["param_groups"]


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_back_to_the_start(name, options):
    params, others = parameters(), parameters()
    fresh, used = getattr(optim, name)(params, **options), getattr(optim, name)(others, **options)
    run(used, others, 3, first=20)
    used.load_state_dict(fresh.state_dict())
    assert used.state_dict() == fresh.state_dict()
    for p, q in zip(others, params, strict=True):
        p.data = q.numpy()
    run(fresh, params, 3), run(used, others, 3)
    assert same_bits(values(params), values(others))


def test_a_state_of_pytorch_loads():
    torch = pytest.importorskip("torch")
    ours = parameters([(3, 2), (4,)])
    theirs = [torch.tensor(p.numpy().copy(), requires_grad=True) for p in ours]
    other, mine = torch.optim.Adam(theirs, lr=0.1), optim.Adam(ours)
    for step in range(8):
        set_gradients(ours, step)
        for p, q in zip(ours, theirs, strict=True):
            q.grad = torch.tensor(p.grad.numpy().copy())
        if step == 4:
            mine.load_state_dict(other.state_dict())
            for p, q in zip(ours, theirs, strict=True):
                p.data = q.detach().numpy()
        if step >= 4:
            mine.step()
        other.step()
    for p, q in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(p.numpy(), q.detach().numpy(), rtol=1e-12)


def unchanged(optimizer, params, act, error, *texts):
    """The action raises one error that has all the texts, and changes nothing."""
    before = copy.deepcopy(optimizer.state_dict()), values(params)
    with pytest.raises(error) as caught:
        act()
    for text in texts:
        assert text in str(caught.value), f"{text!r} is not in {caught.value}"
    after = optimizer.state_dict()
    assert after["param_groups"] == before[0]["param_groups"]
    assert same_bits(arrays_of(after).values(), arrays_of(before[0]).values()) and same_bits(values(params), before[1])
    assert [entry["step"] for entry in after["state"].values()] == [entry["step"] for entry in before[0]["state"].values()]


def test_a_state_that_does_not_fit():
    params = parameters([(3, 2), (4,), (2,)])
    params[1].name = "bias"
    optimizer = optim.Adam(params)
    run(optimizer, params, 4)
    good = optimizer.state_dict()
    run(optimizer, params, 2)

    def refused(change, *texts):
        bad = copy.deepcopy(good)
        bad = change(bad) or bad
        unchanged(optimizer, params, lambda: optimizer.load_state_dict(bad), tg.errors.ShapeError, "Adam.load_state_dict", *texts)

    def several(bad):
        bad["state"]["0"]["exp_avg"] = np.zeros((2, 3))
        bad["state"]["0"]["exp_avg_sq"] = np.zeros((3, 2), np.float32)
        del bad["state"]["1"]["exp_avg"]
        bad["state"]["1"]["momentum_buffer"] = np.zeros(4)
        bad["state"]["9"] = bad["state"].pop("2")

    refused(
        several, "'exp_avg' is float64 of shape (2, 3), expected float64 of shape (3, 2)", "'exp_avg_sq' is float32 of shape (3, 2)",
        "('bias' of shape (4,)): 'exp_avg' is missing", "'momentum_buffer' is not of Adam", "state['2'] (parameter 2 of shape (2,)) is missing", "state['9'] is of no parameter",
    )  # fmt: skip

    def settings_of_the_group(bad):
        group = bad["param_groups"][0]
        del group["betas"]
        group["lr"], group["eps"], group["amsgrad"] = -1.0, "small", 3

    refused(settings_of_the_group, "betas is missing", "lr: got -1.0", "eps: got 'small'", "amsgrad: got 3")
    refused(lambda bad: bad["state"]["0"].update(step=-3), "step: got -3")
    refused(lambda bad: bad["state"]["0"].update(step=2.5), "step: got 2.5")
    refused(lambda bad: bad["state"]["0"].pop("step") and None, "step is missing")
    refused(lambda bad: bad["state"]["0"].update(exp_avg=[[0.0, 1.0]]), "'exp_avg' is object of shape (1, 2)")
    refused(lambda bad: bad["param_groups"][0]["params"].append(3), "param_groups[0] has not the 3 parameters expected")
    refused(lambda bad: bad["param_groups"].append({}), "there are 2 parameter groups, expected 1")
    refused(lambda bad: {"state": {}}, "expected a dict with a dict 'state'")
    refused(lambda bad: [3], "expected a dict with a dict 'state'")
    optimizer.load_state_dict(good)
    assert same_bits(arrays_of(optimizer.state_dict()).values(), arrays_of(good).values())


def test_bad_parameters():
    w, b = tg.ones((2, 3), requires_grad=True, name="w"), tg.ones(3, requires_grad=True)
    for params, error, texts in [
        ([], ValueError, ["empty"]),
        (iter([]), ValueError, ["empty"]),
        ([{"params": []}], ValueError, ["empty"]),
        (w, TypeError, ["list"]),
        ({"params": [w]}, TypeError, ["list"]),
        ({w, b}, TypeError, ["ordered", "set"]),
        (5, TypeError, ["int", "model.parameters()"]),
        ([w, 3], TypeError, ["params[1]", "int"]),
        ([("w", w)], TypeError, ["named_parameters"]),
        ([w._data], TypeError, ["ndarray"]),
        ([w, b, w], ValueError, ["'w' of shape (2, 3)", "twice"]),
        ([{"params": [w, b]}, {"params": [b]}], ValueError, ["parameter 0 of shape (3,)", "twice"]),
        ([w, w * 2], ValueError, ["parameter 1 of shape (2, 3)", ".detach().requires_grad_()"]),
        ([tg.arange(3)], TypeError, ["int64", "floating"]),
        ([{"params": [w]}, b], TypeError, ["params[1]", "groups"]),
        ([{"lr": 0.1}], TypeError, ["'params'"]),
        ([{"params": [w], "weight_decy": 0.1}], ValueError, ["weight_decy", "weight_decay"]),
        ([{"params": [w], "lr": -0.1}], ValueError, ["lr", "-0.1"]),
    ]:
        with pytest.raises(error) as caught:
            optim.SGD(params, lr=0.1)
        assert all(text in str(caught.value) for text in ["SGD", *texts]), caught.value
    optimizer = optim.SGD([w], lr=0.1)
    unchanged(optimizer, [w], lambda: optimizer.add_param_group({"params": [b, w]}), ValueError, "twice")
    optimizer.param_groups[0]["params"].append(b)
    with pytest.raises(ValueError, match="add_param_group"):
        optimizer.step()


BAD = [
    ("SGD", "lr", [-0.1, math.nan, math.inf]),
    ("SGD", "momentum", [-0.1, 1.5, math.nan]),
    ("SGD", "dampening", [-0.1, 1.5]),
    ("SGD", "weight_decay", [-0.1]),
    ("SGD", "nesterov", [True]),
    ("RMSprop", "alpha", [-0.1, 1.0]),
    ("RMSprop", "eps", [-1e-8]),
    ("Adagrad", "lr_decay", [-0.1]),
    ("Adagrad", "initial_accumulator_value", [-0.1]),
    ("Adam", "betas", [(0.9, 1.0), (-0.1, 0.9), (0.9,)]),
    ("Adam", "eps", [-1.0, math.nan]),
    ("AdamW", "weight_decay", [-0.1]),
]
BAD_TYPES = [("SGD", "lr", ["0.1", None, True, [0.1, 0.2]]), ("SGD", "nesterov", [1, "yes"]), ("Adam", "betas", [0.9, (0.9, "x")]), ("RMSprop", "centered", [None])]


@pytest.mark.parametrize(("name", "setting", "wrong"), [*BAD, *BAD_TYPES])
def test_settings_out_of_range(name, setting, wrong):
    error = TypeError if (name, setting, wrong) in BAD_TYPES else ValueError
    for value in wrong:
        with pytest.raises(error, match=rf"{name}: {setting}"):
            getattr(optim, name)([tg.ones(1, requires_grad=True)], **{setting: value})
        params = parameters()
        optimizer = getattr(optim, name)(params)
        run(optimizer, params, 2)
        set_gradients(params, 0)
        kept = optimizer.param_groups[0][setting]

        def act(optimizer=optimizer, value=value, kept=kept):
            optimizer.param_groups[0][setting] = value
            try:
                optimizer.step()
            finally:
                optimizer.param_groups[0][setting] = kept

        unchanged(optimizer, params, act, error, setting)


def test_settings_may_be_numpy_scalars_and_tensors():
    w = tg.ones(3, requires_grad=True)
    optimizer = optim.Adam([w], lr=np.float64(0.5), betas=[np.float32(0.5), 0.75])
    optimizer.param_groups[0]["lr"] = tg.tensor(0.25)
    w.grad = np.ones(3, np.float32)
    optimizer.step()
    assert w.dtype == np.float32 and json.loads(json.dumps(optimizer.state_dict()["param_groups"]))[0]["lr"] == 0.25


def test_no_warnings_from_a_step():
    """What overflows in float32 has the value that arithmetic gives it, and no warning comes half-way through a step."""
    w = tg.ones(2, requires_grad=True)
    with np.errstate(all="raise"):
        for name in ("SGD", "RMSprop", "Adagrad", "Adam"):
            optimizer = getattr(optim, name)([w])
            w.grad = np.array([1e30, 1e-30], np.float32)
            optimizer.step()


def test_centered_rmsprop_of_constant_gradients_stays_finite():
    w = tg.ones(200, requires_grad=True)
    optimizer = optim.RMSprop([w], centered=True, alpha=0.5)
    w.grad = np.random.default_rng(0).standard_normal(200).astype(np.float32)
    for _ in range(200):
        optimizer.step()
    assert np.isfinite(w.numpy()).all()


def exact_norm(arrays, p=2.0):
    """In extended precision, whose range has room for every power."""
    every = np.concatenate([abs(a.ravel().astype(np.longdouble)) for a in arrays])
    return float(every.max(initial=0) if p == math.inf else (every**p).sum() ** (1 / np.longdouble(p)))


scales = st.sampled_from([1e-43, 1e-30, 1e-12, 1.0, 1e12, 1e30, 1e38])


@given(st.data())
@steadily
def test_clip_grad_norm(data):
    """min(1, max_norm / norm) times the gradient, whatever its scale, layout and dtype."""
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    params, p = [], data.draw(st.sampled_from([2.0, 2.0, 2.0, 1.0, 3.5, math.inf]))
    for shape in data.draw(st.lists(st.sampled_from([(), (7,), (3, 5), (0,), (90, 100)]), min_size=1, max_size=4)):
        dtype = data.draw(st.sampled_from([np.float32, np.float32, np.float64, np.float16]))
        g = np.array(rng.uniform(-1, 1, shape) * (data.draw(scales) if dtype != np.float16 else 100.0), dtype)
        if data.draw(st.booleans()):
            g[rng.uniform(size=g.shape) < 0.5] = 0
        if dtype == np.float64:
            g *= data.draw(st.sampled_from([1.0, 1e-200, 1e150]))
        params.append(tg.zeros(shape, dtype=dtype, requires_grad=True))
        params[-1].grad = np.array(g, order=data.draw(st.sampled_from("CF")))
    params.append(tg.zeros(3, requires_grad=True))
    before = [q.grad.numpy().copy() for q in params[:-1]]
    expected = exact_norm(before, p)
    max_norm = data.draw(st.sampled_from([0.0, 1e-20, 0.3, 5.0, 1e29, 1e300]))
    norm = optim.clip_grad_norm_(params, max_norm, norm_type=p)
    assert type(norm) is float and norm == pytest.approx(expected, rel=3e-7, abs=0)
    for q, old in zip(params, before, strict=False):
        g = q.grad.numpy()
        assert g.dtype == old.dtype
        if norm <= max_norm:
            np.testing.assert_array_equal(g, old)
        else:
            info = np.finfo(old.dtype)
            wanted = old.astype(np.float64) * (max_norm / expected)
            np.testing.assert_allclose(g.astype(np.float64), wanted, rtol=max(4 * float(info.eps), 1e-6 if p == 2 else 1e-12), atol=3 * float(info.smallest_subnormal))
    assert params[-1].grad is None


def test_clip_is_the_rule_without_an_addend():
    w = tg.zeros(2, dtype=np.float64, requires_grad=True)
    w.grad = np.array([3e-9, 4e-9])
    assert optim.clip_grad_norm_(w, 1e-9) == pytest.approx(5e-9, rel=1e-15)
    np.testing.assert_allclose(w.grad.numpy(), [0.6e-9, 0.8e-9], rtol=1e-15)
    assert optim.clip_grad_norm_([w], 1.0) == pytest.approx(1e-9)
    np.testing.assert_allclose(w.grad.numpy(), [0.6e-9, 0.8e-9], rtol=1e-15)
    v = tg.zeros(1, dtype=np.float64, requires_grad=True)
    for norm_type, norm in ((1.0, 12.0), (2.0, math.sqrt(50)), (math.inf, 5.0)):
        w.grad, v.grad = np.array([3.0, -4.0]), np.array([-5.0])
        assert optim.clip_grad_norm_([w, v], 1.0, norm_type) == pytest.approx(norm, rel=1e-15)
        np.testing.assert_allclose([*w.grad.numpy(), *v.grad.numpy()], np.array([3.0, -4.0, -5.0]) / norm, rtol=1e-14)
    assert optim.clip_grad_norm_([tg.zeros(2, requires_grad=True)], 1.0) == 0.0 and optim.clip_grad_norm_([], 1.0) == 0.0


def test_clip_goes_in_place_and_each_gradient_is_scaled_once():
    a, b, c, d, e = (tg.zeros(2, dtype=np.float64, requires_grad=True) for _ in range(5))
    memory = np.array([3.0, 4.0])
    a.grad = memory
    b.grad = a.grad
    c.grad = memory[::-1]
    d.grad = np.broadcast_to(np.float64(1.0), (2,))
    f = tg.zeros(2, dtype=np.float64, requires_grad=True)
    f.grad = np.ones(2)
    f.grad._data.flags.writeable = False
    (e * e).sum().backward()
    e.grad = tg.tensor([1.0, 2.0], dtype=np.float64)
    own = e.grad._data
    norm = optim.clip_grad_norm_([a, b, c, d, e, f], 1.0)
    assert norm == pytest.approx(math.sqrt(3 * 25 + 2 + 5 + 2))
    for p, g in ((a, [3, 4]), (b, [3, 4]), (c, [4, 3]), (d, [1, 1]), (e, [1, 2]), (f, [1, 1])):
        np.testing.assert_allclose(p.grad.numpy(), np.array(g) / norm, rtol=1e-14)
    assert e.grad._data is own


def test_clip_of_a_recorded_gradient_leaves_its_tape_alone():
    x = tg.tensor([2.0, 3.0], requires_grad=True)
    (x**3).sum().backward(create_graph=True)
    recorded = x.grad
    optim.clip_grad_norm_([x], 1.0)
    np.testing.assert_allclose(recorded.numpy(), [12.0, 27.0])
    np.testing.assert_allclose(np.linalg.norm(x.grad.numpy()), 1.0, rtol=1e-6)
    assert tg.grad(recorded.sum(), x).tolist() == [12.0, 18.0]


def test_clip_names_the_gradient_at_fault():
    a, b, c = (tg.zeros((2, 3), requires_grad=True) for _ in range(3))
    b.name = "recurrent.weight"
    for bad in (math.nan, math.inf, -math.inf):
        for position, text in ((1, "'recurrent.weight' of shape (2, 3) has 1 of 6 values"), (2, "parameter 2 of shape (2, 3) has 1 of 6 values")):
            for norm_type in (2.0, 1.0, math.inf):
                for p in (a, b, c):
                    p.grad = np.ones((2, 3), np.float32)
                g = np.ones((2, 3), np.float32)
                g[1, 2] = bad
                (a, b, c)[position].grad = g
                with pytest.raises(tg.errors.GradientError, match="nothing was changed") as caught:
                    optim.clip_grad_norm_([a, b, c], 0.5, norm_type)
                assert text in str(caught.value)
                assert [float(np.nansum(p.grad.numpy() == 1)) for p in (a, b, c)] == [5 if k == position else 6 for k in range(3)]
    assert math.isinf(optim.clip_grad_norm_([a, b, c], 0.5, error_if_nonfinite=False))
    w = tg.zeros(2, dtype=np.float64, requires_grad=True)
    w.grad = np.array([1.7e308, 1.7e308])
    with pytest.raises(tg.errors.GradientError, match="beyond the largest float"):
        optim.clip_grad_norm_([w], 1.0)


def test_bad_clipping():
    w = tg.zeros(2, requires_grad=True)
    w.grad = np.ones(2, np.float32)
    for bad in (-1.0, math.nan):
        with pytest.raises(ValueError, match="max_norm"):
            optim.clip_grad_norm_([w], bad)
        with pytest.raises(ValueError, match="clip_value"):
            optim.clip_grad_value_([w], bad)
    for bad in (0, -1.0, math.nan):
        with pytest.raises(ValueError, match="norm_type"):
            optim.clip_grad_norm_([w], 1.0, bad)
    with pytest.raises(TypeError, match="max_norm"):
        optim.clip_grad_norm_([w], "1")
    with pytest.raises(TypeError, match="clip_grad_norm_: params"):
        optim.clip_grad_norm_([w, 3], 1.0)
    assert w.grad.tolist() == [1.0, 1.0]


def test_clip_grad_value():
    torch = pytest.importorskip("torch")
    values = np.array([-3.0, -0.5, 0.0, 2.0, math.nan, math.inf], np.float32)
    ours, theirs = tg.zeros(6, requires_grad=True), torch.zeros(6, requires_grad=True)
    ours.grad, theirs.grad = values.copy(), torch.tensor(values)
    optim.clip_grad_value_([ours, tg.zeros(1, requires_grad=True)], 1.5)
    torch.nn.utils.clip_grad_value_([theirs], 1.5)
    np.testing.assert_array_equal(ours.grad.numpy(), theirs.grad.numpy())


def one_group(lr=0.5, groups=1):
    return optim.SGD([{"params": [tg.ones(1, requires_grad=True)], "lr": lr * (k + 1)} for k in range(groups)], lr=lr)


def their_group(torch, lr=0.5, groups=1):
    return torch.optim.SGD([{"params": [torch.ones(1, requires_grad=True)], "lr": lr * (k + 1)} for k in range(groups)], lr=lr)


@pytest.mark.parametrize(
    ("name", "options", "steps"),
    [
        ("StepLR", dict(step_size=3), 12),
        ("StepLR", dict(step_size=1, gamma=0.9), 30),
        ("CosineAnnealingLR", dict(T_max=10), 35),
        ("CosineAnnealingLR", dict(T_max=7, eta_min=0.1), 7),
    ],
)
def test_schedules_of_torch(name, options, steps):
    torch = pytest.importorskip("torch")
    mine, other = one_group(groups=2), their_group(torch, groups=2)
    ours, theirs = getattr(optim, name)(mine, **options), getattr(torch.optim.lr_scheduler, name)(other, **options)
    for _ in range(steps):
        assert ours.get_last_lr() == [g["lr"] for g in mine.param_groups]
        np.testing.assert_allclose(ours.get_last_lr(), theirs.get_last_lr(), rtol=1e-12, atol=1e-15)
        other.step(), ours.step(), theirs.step()


def test_cosine_and_steps_in_closed_form():
    optimizer = one_group(lr=1.0)
    schedule = optim.CosineAnnealingLR(optimizer, T_max=4)
    rates = []
    for _ in range(5):
        rates += schedule.get_last_lr()
        schedule.step()
    np.testing.assert_allclose(rates, [1, 0.5 + math.sqrt(0.125), 0.5, 0.5 - math.sqrt(0.125), 0], atol=1e-16)


@given(
    st.lists(st.sampled_from([-2.0, -1.0, -1.00005, 0.0, 0.5, 1.0, 1.00005, 2.0, math.nan]), max_size=30),
    st.fixed_dictionaries(
        dict(
            mode=st.sampled_from(["min", "max"]), threshold_mode=st.sampled_from(["rel", "abs"]), patience=st.integers(0, 3), cooldown=st.integers(0, 2),
            factor=st.sampled_from([0.1, 0.5]), threshold=st.sampled_from([0.0, 1e-4, 0.4]), min_lr=st.sampled_from([0.0, 0.1, [0.2, 0.01]]), eps=st.sampled_from([1e-8, 0.05]),
        )
    ),
)  # fmt: skip
@steadily
def test_plateau_of_torch(metrics, options):
    torch = pytest.importorskip("torch")
    mine, other = one_group(groups=2), their_group(torch, groups=2)
    ours, theirs = optim.ReduceLROnPlateau(mine, **options), torch.optim.lr_scheduler.ReduceLROnPlateau(other, **options)
    for k, metric in enumerate(metrics):
        ours.step(tg.tensor(metric, dtype=np.float64) if k % 2 else metric)
        theirs.step(metric)
        assert ours.get_last_lr() == theirs.get_last_lr() == [g["lr"] for g in mine.param_groups]
        assert (ours.num_bad_epochs, ours.cooldown_counter) == (theirs.num_bad_epochs, theirs.cooldown_counter)


def test_plateau_keeps_what_is_set_by_hand():
    optimizer = one_group(lr=1.0)
    schedule = optim.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
    schedule.step(1.0)
    optimizer.param_groups[0]["lr"] = 0.8
    schedule.step(1.0)
    assert schedule.get_last_lr() == [0.4]


def test_plateau_does_not_take_an_infinity_for_the_best():
    schedule = optim.ReduceLROnPlateau(one_group(lr=1.0), patience=1, factor=0.5)
    for metric in (-math.inf, 3.0, 2.0, math.inf, 1.0):
        schedule.step(metric)
    assert schedule.best == 1.0 and schedule.get_last_lr() == [1.0]


def rates_of(optimizer, schedule, steps, *metrics):
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        schedule.step(*metrics)
    return rates


def test_warmup():
    optimizer = one_group(lr=1.0)
    assert rates_of(optimizer, optim.LinearWarmupLR(optimizer, 4), 7) == [0.25, 0.5, 0.75, 1, 1, 1, 1]
    optimizer = one_group(lr=1.0)
    assert rates_of(optimizer, optim.LinearWarmupLR(optimizer, 2, optim.StepLR(optimizer, 2, gamma=0.5)), 7) == [0.5, 1, 1, 1, 0.5, 0.5, 0.25]
    optimizer = one_group(lr=1.0)
    assert rates_of(optimizer, optim.LinearWarmupLR(optimizer, 0, optim.StepLR(optimizer, 1, gamma=0.5)), 3) == [1, 0.5, 0.25]
    optimizer = one_group(lr=1.0)
    warmup = optim.LinearWarmupLR(optimizer, 2, optim.ReduceLROnPlateau(optimizer, factor=0.5, patience=1))
    assert rates_of(optimizer, warmup, 7, 3.0) == [0.5, 1, 1, 1, 1, 0.5, 0.5]
    assert warmup.get_last_lr() == [0.25]


SCHEDULES = {
    "StepLR": lambda o: optim.StepLR(o, 3, gamma=0.7),
    "CosineAnnealingLR": lambda o: optim.CosineAnnealingLR(o, 9, eta_min=0.05),
    "ReduceLROnPlateau": lambda o: optim.ReduceLROnPlateau(o, patience=1, cooldown=1, factor=0.3),
    "LinearWarmupLR": lambda o: optim.LinearWarmupLR(o, 4),
    "LinearWarmupLR and CosineAnnealingLR": lambda o: optim.LinearWarmupLR(o, 4, optim.CosineAnnealingLR(o, 9)),
    "LinearWarmupLR and ReduceLROnPlateau": lambda o: optim.LinearWarmupLR(o, 2, optim.ReduceLROnPlateau(o, patience=1)),
}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("first", [0, 2, 3, 4, 9])
def test_a_resumed_schedule_continues(name, first):
    metrics = [3.0, 2.0, 2.5, 2.5, 2.5, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]
    optimizer = one_group()
    schedule = SCHEDULES[name](optimizer)
    for m in metrics[:first]:
        schedule.step(m)
    saved = through_files({"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()})
    other = one_group(lr=0.1)
    resumed = SCHEDULES[name](other)
    resumed.step(0.1)
    other.load_state_dict(saved["optimizer"])
    resumed.load_state_dict(saved["schedule"])
    for m in metrics[first:]:
        assert resumed.get_last_lr() == schedule.get_last_lr() and other.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]
        schedule.step(m), resumed.step(m)
    assert resumed.state_dict() == schedule.state_dict()


def test_a_schedule_state_that_does_not_fit():
    optimizer = one_group(groups=2)
    schedule = optim.LinearWarmupLR(optimizer, 4, optim.ReduceLROnPlateau(optimizer))
    schedule.step()
    good = schedule.state_dict()

    def refused(change, *texts):
        bad = copy.deepcopy(good)
        change(bad)
        with pytest.raises(tg.errors.ShapeError, match=r"LinearWarmupLR\.load_state_dict") as caught:
            schedule.load_state_dict(bad)
        assert all(text in str(caught.value) for text in texts), caught.value
        assert schedule.state_dict() == good

    refused(
        lambda bad: bad.update(warmup_steps=-1, last_epoch="x", other=1, base_lrs=[0.1]),
        "warmup_steps: got -1",
        "last_epoch: got 'x'",
        "'other' is not of",
        "base_lrs: got 1 numbers, expected 2",
    )
    refused(lambda bad: (bad.pop("last_epoch"), bad["after"].pop("best"), bad["after"].update(mode="down")), "last_epoch is missing", "best is missing", "mode: got 'down'")
    refused(lambda bad: bad.update(after=None), "after: got none, expected ReduceLROnPlateau")
    alone = optim.LinearWarmupLR(optimizer, 4)
    with pytest.raises(ValueError, match="after: got a schedule, expected none"):
        alone.load_state_dict(good)
    with pytest.raises(TypeError, match="expected a dict"):
        alone.load_state_dict([1])


def test_bad_schedules():
    optimizer = one_group(groups=2)
    for make, error, text in [
        (lambda: optim.StepLR(3, 1), TypeError, "StepLR: optimizer is of type int"),
        (lambda: optim.ReduceLROnPlateau("x"), TypeError, "ReduceLROnPlateau: optimizer is of type str"),
        (lambda: optim.StepLR(optimizer, 0), ValueError, "StepLR: step_size: got 0"),
        (lambda: optim.StepLR(optimizer, 2.5), ValueError, "StepLR: step_size: got 2.5"),
        (lambda: optim.StepLR(optimizer, 1, gamma=-1), ValueError, "StepLR: gamma: got -1"),
        (lambda: optim.CosineAnnealingLR(optimizer, 0), ValueError, "CosineAnnealingLR: T_max: got 0"),
        (lambda: optim.CosineAnnealingLR(optimizer, 5, eta_min=-1), ValueError, "eta_min: got -1"),
        (lambda: optim.ReduceLROnPlateau(optimizer, "down"), ValueError, "mode: got 'down', expected one of 'min', 'max'"),
        (lambda: optim.ReduceLROnPlateau(optimizer, factor=1.0), ValueError, "factor: got 1.0"),
        (lambda: optim.ReduceLROnPlateau(optimizer, patience=-1), ValueError, "patience: got -1"),
        (lambda: optim.ReduceLROnPlateau(optimizer, min_lr=[0.1]), ValueError, "min_lrs: got 1 numbers, expected 2"),
        (lambda: optim.ReduceLROnPlateau(optimizer).step(), TypeError, "ReduceLROnPlateau.step: got no metric"),
        (lambda: optim.LinearWarmupLR(optimizer, -1), ValueError, "warmup_steps: got -1"),
        (lambda: optim.LinearWarmupLR(optimizer, 2, 5), ValueError, "after is int"),
        (lambda: optim.LinearWarmupLR(optimizer, 2, optim.StepLR(one_group(), 1)), ValueError, "same optimiser"),
    ]:
        with pytest.raises(error) as caught:
            make()
        assert text in str(caught.value), caught.value
    schedule = optim.StepLR(optimizer, 1)
    optimizer.add_param_group({"params": [tg.ones(1, requires_grad=True)]})
    with pytest.raises(ValueError, match="3 groups, the schedule was made for 2"):
        schedule.step()
    assert schedule.last_epoch == 0


def test_small_parameters_share_blocks(monkeypatch):
    monkeypatch.setattr(optim, "BLOCK", 4 * 1000)
    sizes = []

    class Recorded(optim.SGD):
        def _update(self, options, constants, p, *rest):
            sizes.append(p.size)
            super()._update(options, constants, p, *rest)

    params = parameters([(30, 100), *[(16,)] * 100, (999,)], np.float32)
    optimizer = Recorded(params)
    set_gradients(params, 0)
    before = values(params)
    optimizer.step()
    assert sizes == [1000, 1000, 1000, 999, 992, 608]
    for p, old in zip(params, before, strict=True):
        np.testing.assert_allclose(p.numpy(), old - np.float32(1e-3) * p.grad.numpy(), rtol=1e-6)
