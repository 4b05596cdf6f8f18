"""Layers against PyTorch's; modules: what they find, name, count, copy, load, freeze, show and refuse."""

import copy
import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn import nn

few = settings(derandomize=True, deadline=None, max_examples=25, database=None)


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def named(model):
    """The values of each parameter, copied."""
    return {name: np.array(p.numpy()) for name, p in model.state_dict().items()}


def agree(ours, theirs, x, seed=0):
    """A layer's output and gradients are those of PyTorch's layer with the same weights."""
    torch = pytest.importorskip("torch")
    assert [(name, p.shape) for name, p in ours.state_dict().items()] == [(name, tuple(p.shape)) for name, p in theirs.state_dict().items()]
    theirs.load_state_dict({name: torch.tensor(value) for name, value in named(ours).items()})
    differentiable = x.dtype.kind == "f"
    mine = tg.tensor(x, requires_grad=differentiable)
    twin = torch.tensor(x, requires_grad=differentiable)
    y, z = ours(mine), theirs(twin)
    assert y.dtype == np.float64
    assert y.shape == tuple(z.shape)
    np.testing.assert_allclose(y.numpy(), z.numpy(force=True), rtol=1e-12, atol=1e-12)
    if not y.requires_grad:
        return
    v = normal(*y.shape, seed=seed)
    y.backward(v)
    z.backward(torch.tensor(v))
    pairs = [(p, q) for p, q in zip(ours.parameters(), theirs.parameters(), strict=True)] + [(mine, twin)] * differentiable
    for a, b in pairs:
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-12, atol=1e-12 * (1 + abs(b.grad.numpy()).max(initial=0)))


seeds = st.integers(0, 2**32 - 1)
lengths = st.integers(1, 5)
pairs_or_one = lambda low, high: st.one_of(st.integers(low, high), st.tuples(st.integers(low, high), st.integers(low, high)))


class TestLayersAgainstPyTorch:
    @few
    @given(seeds, lengths, lengths, st.lists(st.integers(0, 3), max_size=3), st.booleans())
    def test_linear(self, seed, n, m, front, bias):
        torch = pytest.importorskip("torch")
        agree(nn.Linear(n, m, bias, dtype=np.float64, rng=seed), torch.nn.Linear(n, m, bias, dtype=torch.float64), normal(*front, n, seed=seed))

    @few
    @given(st.data(), seeds, pairs_or_one(1, 3), pairs_or_one(1, 3), pairs_or_one(0, 2), pairs_or_one(1, 2), st.integers(1, 3), st.booleans(), st.booleans())
    def test_conv2d(self, data, seed, kernel, stride, padding, dilation, groups, bias, batched):
        torch = pytest.importorskip("torch")
        channels, out = groups * data.draw(st.integers(1, 2)), groups * data.draw(st.integers(1, 2))
        x = normal(*([2] if batched else []), channels, 6, 5, seed=seed)
        options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "bias": bias}
        agree(nn.Conv2d(channels, out, kernel, dtype=np.float64, rng=seed, **options), torch.nn.Conv2d(channels, out, kernel, dtype=torch.float64, **options), x)

    @few
    @given(st.data(), seeds, lengths, lengths, st.lists(st.integers(0, 4), max_size=3))
    def test_embedding(self, data, seed, n, m, shape):
        torch = pytest.importorskip("torch")
        padding = data.draw(st.one_of(st.none(), st.integers(-n, n - 1)))
        layer = nn.Embedding(n, m, padding, dtype=np.float64, rng=seed)
        if padding is not None:
            assert not layer.weight.numpy()[padding].any()
        agree(layer, torch.nn.Embedding(n, m, padding, dtype=torch.float64), np.random.default_rng(seed).integers(0, n, shape))

    @few
    @given(seeds, st.lists(lengths, min_size=1, max_size=3), st.lists(lengths, max_size=2), st.booleans(), st.booleans(), st.sampled_from([1e-5, 0.1]))
    def test_layer_norm(self, seed, shape, front, affine, bias, eps):
        torch = pytest.importorskip("torch")
        over = shape[0] if len(shape) == 1 else shape
        ours = nn.LayerNorm(over, eps, affine, bias, dtype=np.float64)
        for p in ours.parameters():
            nn.init.normal(p, rng=seed)
        agree(ours, torch.nn.LayerNorm(over, eps, affine, bias, dtype=torch.float64), normal(*front, *shape, seed=seed))

    @few
    @given(st.data(), seeds, pairs_or_one(1, 3), st.one_of(st.none(), pairs_or_one(1, 3)), st.booleans(), st.booleans())
    def test_pools(self, data, seed, kernel, stride, count, batched):
        torch = pytest.importorskip("torch")
        half = [k // 2 for k in (kernel if isinstance(kernel, tuple) else (kernel, kernel))]
        padding = (data.draw(st.integers(0, half[0])), data.draw(st.integers(0, half[1])))
        dilation = data.draw(pairs_or_one(1, 2))
        x = normal(*([2] if batched else []), 3, 6, 5, seed=seed)
        agree(nn.AvgPool2d(kernel, stride, padding, count_include_pad=count), torch.nn.AvgPool2d(kernel, stride, padding, count_include_pad=count), x)
        agree(nn.MaxPool2d(kernel, stride, padding, dilation), torch.nn.MaxPool2d(kernel, stride, padding, dilation), x)

    @few
    @given(st.data(), seeds, st.lists(lengths, min_size=2, max_size=4))
    def test_flatten_and_softmax(self, data, seed, shape):
        torch = pytest.importorskip("torch")
        x = normal(*shape, seed=seed)
        start = data.draw(st.integers(-len(shape), len(shape) - 1))
        end = data.draw(st.integers(start % len(shape), len(shape) - 1).flatmap(lambda d: st.sampled_from([d, d - len(shape)])))
        agree(nn.Flatten(start, end), torch.nn.Flatten(start, end), x)
        agree(nn.Softmax(start), torch.nn.Softmax(start), x)
        assert nn.Flatten()(np.zeros(shape, int)).shape == (shape[0], math.prod(shape[1:]))

    @pytest.mark.parametrize("name", ["ReLU", "Tanh", "Sigmoid"])
    def test_activations(self, torch, name):
        agree(getattr(nn, name)(), getattr(torch.nn, name)(), np.array([[-800.0, -2.0, 0.0, 0.5], [800.0, 1e-9, -1e-9, 3.0]]))

    def test_an_embedding_of_given_vectors(self, torch):
        vectors = normal(4, 3)
        ours, theirs = nn.Embedding.from_pretrained(vectors, padding_idx=1), torch.nn.Embedding.from_pretrained(torch.tensor(vectors), padding_idx=1)
        ids = np.array([[0, 1], [3, 3]])
        np.testing.assert_array_equal(ours(ids).numpy(), theirs(torch.tensor(ids)).numpy())
        assert ours.weight.dtype == np.float64
        assert not ours.weight.requires_grad
        thawed = nn.Embedding.from_pretrained(vectors, freeze=False)
        assert thawed.weight.requires_grad
        with tg.no_grad():
            thawed.weight += 1
        np.testing.assert_array_equal(vectors, normal(4, 3))

    def test_dropout_keeps_a_share_and_the_mean(self):
        x = np.ones(200_000, np.float32)
        layer = nn.Dropout(0.3, rng=0)
        t = tg.tensor(x, requires_grad=True)
        y = layer(t)
        assert set(np.unique(y.numpy())) == {0, np.float32(1 / 0.7)}
        assert abs(np.mean(y.numpy() == 0) - 0.3) < 5 * math.sqrt(0.21 / len(x))
        y.sum().backward()
        np.testing.assert_array_equal(t.grad.numpy(), y.numpy())
        np.testing.assert_array_equal(nn.Dropout(0.3, rng=0)(x).numpy(), y.numpy())
        assert not np.array_equal(layer(x).numpy(), y.numpy())
        np.testing.assert_array_equal(layer.eval()(x).numpy(), x)
        assert not nn.Dropout(1.0)(x).numpy().any()

    def test_float32_stays_float32(self):
        model = nn.Sequential(
            nn.Conv2d(1, 2, 2, rng=0), nn.ReLU(), nn.MaxPool2d(2), nn.AvgPool2d(1), nn.Flatten(), nn.LayerNorm(2), nn.Linear(2, 3, rng=0), nn.Dropout(0.1, rng=0), nn.Softmax()
        )
        y = model(np.ones((2, 1, 3, 3), np.float32))
        y[:, 0].sum().backward()
        assert {y.dtype, *(p.dtype for p in model.parameters()), *(p.grad.dtype for p in model.parameters())} == {np.dtype(np.float32)}

    def test_an_empty_batch_is_legal(self):
        model = nn.Sequential(nn.Conv2d(1, 2, 2, rng=0), nn.MaxPool2d(2), nn.AvgPool2d(1), nn.Flatten(), nn.LayerNorm(2), nn.Linear(2, 3, rng=0), nn.Softmax())
        y = model(np.ones((0, 1, 3, 3), np.float32))
        assert y.shape == (0, 3)
        y.sum().backward()
        assert not any(p.grad.numpy().any() for p in model.parameters())


class TestInitialValues:
    """Samples of a parameter and of PyTorch's come from one distribution (two-sample Kolmogorov-Smirnov)."""

    @pytest.mark.parametrize(
        ("kind", "arguments", "fan"),
        [
            ("Linear", (64, 4096), 64),
            ("Conv2d", (6, 4096, (3, 2), 1, 0, 1, 2), 18),
            ("Embedding", (3000, 20), None),
            ("LayerNorm", ((40, 2),), None),
            ("LSTM", (20, 200), 200),
        ],
    )
    def test_defaults_are_those_of_pytorch(self, torch, kind, arguments, fan):
        ours = getattr(nn, kind)(*arguments, **({} if kind == "LayerNorm" else {"rng": 0}))
        with torch.random.fork_rng():
            torch.manual_seed(0)
            theirs = getattr(torch.nn, kind)(*arguments)
        for (name, p), (other, q) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
            assert name == other
            a, b = np.sort(p.numpy().ravel()), np.sort(q.numpy(force=True).ravel())
            if kind == "LayerNorm":
                np.testing.assert_array_equal(a, b)
                continue
            both = np.concatenate([a, b])
            distance = abs(np.searchsorted(a, both, side="right") - np.searchsorted(b, both, side="right")).max() / a.size
            assert distance < 1.95 * math.sqrt(2 / a.size)
            if fan is not None:
                bound = np.float32(1 / math.sqrt(fan))
                assert bound * (1 - 20 / a.size) < abs(a).max() <= bound
                assert abs(a.std() * math.sqrt(3) / bound - 1) < 3 / math.sqrt(a.size)
            else:
                assert abs(a.mean()) < 4 / math.sqrt(a.size)
                assert abs(a.std() - 1) < 4 / math.sqrt(2 * a.size)

    def test_equal_seeds_are_equal_to_the_bit(self):
        for make in (
            lambda rng: nn.Linear(3, 4, rng=rng),
            lambda rng: nn.Conv2d(2, 3, 2, rng=rng),
            lambda rng: nn.Embedding(5, 2, rng=rng),
            lambda rng: nn.LanguageModel(5, 3, rng=rng),
        ):
            one, two, third = named(make(7)), named(make(np.random.default_rng(7))), named(make(8))
            assert all(np.array_equal(one[name], two[name]) for name in one)
            assert not any(np.array_equal(one[name], third[name]) for name in one)
        source = np.random.default_rng(7)
        assert not np.array_equal(nn.Linear(3, 4, rng=source).weight.numpy(), nn.Linear(3, 4, rng=source).weight.numpy())

    RANDOM = {
        "uniform": lambda t, rng: nn.init.uniform(t, -2.0, 1.0, rng=rng),
        "normal": lambda t, rng: nn.init.normal(t, 3.0, 0.5, rng=rng),
        "xavier_uniform": lambda t, rng: nn.init.xavier_uniform(t, 2.0, rng=rng),
        "xavier_normal": lambda t, rng: nn.init.xavier_normal(t, 2.0, rng=rng),
        "kaiming_uniform": lambda t, rng: nn.init.kaiming_uniform(t, math.sqrt(5), rng=rng),
        "orthogonal": lambda t, rng: nn.init.orthogonal(t, 2.0, rng=rng),
    }

    @pytest.mark.parametrize("name", RANDOM)
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_functions_fill_in_place_and_repeat(self, name, dtype):
        fill = self.RANDOM[name]
        p = nn.Parameter(np.zeros((6, 4), dtype))
        memory = p.numpy()
        assert fill(p, 3) is p
        np.testing.assert_array_equal(memory, fill(tg.zeros(6, 4, dtype=dtype), np.random.default_rng(3)).numpy())
        assert p.dtype == dtype
        assert p.requires_grad
        assert p.is_leaf
        assert not np.array_equal(memory, fill(tg.zeros(6, 4, dtype=dtype), 4).numpy())

    @pytest.mark.parametrize(
        ("name", "defaults"),
        [("uniform", (0.0, 1.0)), ("normal", (0.0, 1.0)), ("xavier_uniform", (1.0,)), ("xavier_normal", (1.0,)), ("kaiming_uniform", (0.0,)), ("orthogonal", (1.0,))],
    )
    def test_defaults_of_the_functions(self, name, defaults):
        fill = getattr(nn.init, name)
        np.testing.assert_array_equal(fill(tg.zeros(4, 5), rng=2).numpy(), fill(tg.zeros(4, 5), *defaults, rng=2).numpy())

    @pytest.mark.parametrize(
        ("name", "low", "high", "mean", "std"),
        # A weight (300, 20, 3, 2): fan in 120, fan out 1800.
        [
            ("uniform", -2, 1, -0.5, 3 / math.sqrt(12)),
            ("normal", None, None, 3, 0.5),
            ("xavier_uniform", -2 * math.sqrt(6 / 1920), 2 * math.sqrt(6 / 1920), 0, 2 * math.sqrt(2 / 1920)),
            ("xavier_normal", None, None, 0, 2 * math.sqrt(2 / 1920)),
            ("kaiming_uniform", -1 / math.sqrt(120), 1 / math.sqrt(120), 0, 1 / math.sqrt(360)),
        ],
    )
    def test_bounds_and_variances(self, name, low, high, mean, std):
        values = self.RANDOM[name](tg.zeros(300, 20, 3, 2, dtype=np.float64), 1).numpy()
        assert nn.init.fans(tg.zeros(300, 20, 3, 2)) == (120, 1800)
        assert abs(values.mean() - mean) < 4 * std / math.sqrt(values.size)
        assert abs(values.std() / std - 1) < 4 / math.sqrt(values.size)
        if low is not None:
            assert low <= values.min() < low + 1e-3 * (high - low)
            assert high - 1e-3 * (high - low) < values.max() <= high
        else:
            assert abs(((values - mean) ** 4).mean() / std**4 - 3) < 4 * math.sqrt(96 / values.size)

    def test_pytorch_has_the_same_spread(self, torch):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            w = torch.zeros(60, 40, 3, 2, dtype=torch.float64)
            for name, theirs in (("xavier_uniform", torch.nn.init.xavier_uniform_(w.clone(), 2.0)), ("kaiming_uniform", torch.nn.init.kaiming_uniform_(w.clone(), a=math.sqrt(5)))):
                ours = self.RANDOM[name](tg.zeros(60, 40, 3, 2, dtype=np.float64), 0).numpy()
                assert abs(abs(ours).max() / abs(theirs.numpy()).max() - 1) < 2e-3
            theirs = torch.nn.init.xavier_normal_(w.clone(), 2.0)
            assert abs(self.RANDOM["xavier_normal"](tg.zeros(60, 40, 3, 2, dtype=np.float64), 0).numpy().std() / theirs.numpy().std() - 1) < 0.03

    @pytest.mark.parametrize("shape", [(4, 4), (3, 7), (7, 3), (5, 2, 2, 1), (1, 1), (1, 6), (6, 1)])
    @pytest.mark.parametrize("gain", [1.0, 2.5])
    def test_orthogonal(self, shape, gain):
        values = nn.init.orthogonal(tg.zeros(*shape, dtype=np.float64), gain, rng=5).numpy()
        Q = values.reshape(shape[0], -1) / gain
        if shape == (6, 1):
            np.testing.assert_allclose(abs(Q), 1, atol=1e-14)
            return
        small = Q @ Q.T if Q.shape[0] <= Q.shape[1] else Q.T @ Q
        np.testing.assert_allclose(small, np.eye(len(small)), atol=1e-14)

    def test_orthogonal_blocks_of_a_stack_differ_and_favour_no_direction(self):
        values = nn.init.orthogonal(tg.zeros(12, 3, dtype=np.float64), rng=0).numpy()
        blocks = np.split(values, 4)
        for block in blocks:
            np.testing.assert_allclose(block @ block.T, np.eye(3), atol=1e-14)
        assert not np.allclose(blocks[0], blocks[1])
        # Without the sign correction QR leaves a triangle's diagonal of one sign: the mean of an element is far from 0.
        means = np.mean([nn.init.orthogonal(tg.zeros(3, 3), rng=seed).numpy() for seed in range(600)], axis=0)
        assert abs(means).max() < 4 / math.sqrt(3 * 600)

    def test_constant_and_identity(self):
        np.testing.assert_array_equal(nn.init.constant(nn.Parameter([1.0, 2.0]), 4.0).numpy(), [4, 4])
        np.testing.assert_array_equal(nn.init.identity(tg.ones(2, 3), 0.5).numpy(), [[0.5, 0, 0], [0, 0.5, 0]])


class Block(nn.Module):
    def __init__(self, n, m, rng=0):
        self.scale = nn.Parameter(np.full(n, 2.0, np.float32))
        self.lin = nn.Linear(n, m, rng=rng)

    def forward(self, x):
        return self.lin(x * self.scale)


class Everywhere(nn.Module):
    """Parameters and modules in every kind of attribute."""

    def __init__(self):
        self.listed = [Block(2, 2, 1), nn.Linear(2, 2, rng=2)]
        self.pair = (nn.Parameter([1.0]), nn.Parameter([2.0]))
        self.table = {"left": nn.Linear(2, 2, rng=3), "right": [nn.Linear(2, 2, rng=4)]}
        self.modules_ = nn.ModuleList([nn.Linear(2, 2, rng=5), nn.Sequential(nn.Linear(2, 2, rng=6), nn.Tanh())])
        self.chain = nn.Sequential(nn.Linear(2, 2, rng=7), nn.Sequential(Block(2, 2, 8)))
        self.rnn = nn.LSTM(2, 2, bidirectional=True, rng=9)
        self.size = 3
        self.names = ["a", "b"]
        self.nothing = None

    def forward(self, x):
        for module in (*self.listed, self.table["left"], *self.table["right"], *self.modules_, self.chain):
            x = module(x)
        return self.rnn(x * self.pair[0] + self.pair[1])[0]


EVERYWHERE = """listed.0.scale listed.0.lin.weight listed.0.lin.bias listed.1.weight listed.1.bias pair.0 pair.1 table.left.weight table.left.bias
table.right.0.weight table.right.0.bias modules_.0.weight modules_.0.bias modules_.1.0.weight modules_.1.0.bias chain.0.weight chain.0.bias
chain.1.0.scale chain.1.0.lin.weight chain.1.0.lin.bias rnn.weight_ih_l0 rnn.weight_hh_l0 rnn.bias_ih_l0 rnn.bias_hh_l0
rnn.weight_ih_l0_reverse rnn.weight_hh_l0_reverse rnn.bias_ih_l0_reverse rnn.bias_hh_l0_reverse""".split()

X = np.ones((3, 1, 2), np.float32)


def scopes(model, *arguments):
    """The scopes of the records of one call, each once, in order; steps left out."""
    out = model(*arguments)
    return list(dict.fromkeys("/".join(name for name, _ in record.scope) for record in tg.tape((out[0] if isinstance(out, tuple) else out).sum())))


def check_names(model):
    """Listings show a parameter by its path in the model."""
    assert {path: p.name for path, p in model.named_parameters()} == {path: path for path, _ in model.named_parameters()}


class TestFinding:
    def test_parameters_are_found_named_and_ordered(self):
        model = Everywhere()
        assert [name for name, _ in model.named_parameters()] == EVERYWHERE
        assert [p.name for p in model.parameters()] == EVERYWHERE
        assert list(model.state_dict()) == EVERYWHERE
        assert all(isinstance(p, nn.Parameter) and isinstance(p, tg.Tensor) for p in model.parameters())
        assert not isinstance(tg.zeros(2), nn.Parameter)
        assert model.num_parameters() == sum(p.size for p in model.parameters()) == 8 * 6 + 2 * 2 + 2 + 2 * 48

    def test_modules_and_children(self):
        model = Everywhere()
        assert [name for name, _ in model.named_children()] == ["listed.0", "listed.1", "table.left", "table.right.0", "modules_", "chain", "rnn"]
        names = [name for name, _ in model.named_modules()]
        assert names[:4] == ["", "listed.0", "listed.0.lin", "listed.1"]
        assert {"modules_.1.1", "chain.1.0.lin", "rnn.l0", "rnn.l0_reverse"} < set(names)
        assert model.modules()[0] is model
        assert len(model.modules()) == len(names) == 19
        assert [type(m).__name__ for m in nn.Sequential(nn.ReLU(), nn.Tanh()).children()] == ["ReLU", "Tanh"]

    def test_records_carry_the_path(self):
        assert scopes(Everywhere(), X)[:9] == [
            "Everywhere/listed.0", "Everywhere/listed.0/lin", "Everywhere/listed.1", "Everywhere/table.left", "Everywhere/table.right.0",
            "Everywhere/modules_.0", "Everywhere/modules_.1/0", "Everywhere/modules_.1/1", "Everywhere/chain/0",
        ]  # fmt: skip

    def test_all_of_them_get_a_gradient_and_forget_it(self):
        model = Everywhere()
        model(X).sum().backward()
        assert all(p.grad is not None and p.grad.shape == p.shape for p in model.parameters())
        model.zero_grad()
        assert all(p.grad is None for p in model.parameters())

    def test_a_list_that_begins_with_nothing(self):
        class Model(nn.Module):
            def __init__(self):
                self.parts = [None, nn.Linear(2, 2)]
                self.mixed = ("relu", nn.Parameter([1.0]))

        assert [name for name, _ in Model().named_parameters()] == ["parts.1.weight", "parts.1.bias", "mixed.1"]

    def test_a_list_that_grows_after_it_was_set(self):
        class Model(nn.Module):
            def __init__(self):
                self.blocks = []
                for k in range(2):
                    self.blocks.append(nn.Linear(2, 2, rng=k))

            def forward(self, x):
                for block in self.blocks:
                    x = block(x)
                return x

        model = Model()
        assert [name for name, _ in model.named_parameters()] == ["blocks.0.weight", "blocks.0.bias", "blocks.1.weight", "blocks.1.bias"]
        assert scopes(model, X) == ["Model/blocks.0", "Model/blocks.1", ""]
        check_names(model)
        assert [row[-1] for row in model.summary(X).rows] == [60, 30, 30]

    def test_a_module_list_that_grows_after_it_was_set(self):
        class Model(nn.Module):
            def __init__(self):
                self.blocks = nn.ModuleList()
                for k in range(2):
                    self.blocks.append(nn.Linear(2, 2, rng=k))

            def forward(self, x):
                for block in self.blocks:
                    x = block(x)
                return x

        model = Model()
        assert scopes(model, X) == ["Model/blocks.0", "Model/blocks.1", ""]
        assert [row[-1] for row in model.summary(X).rows] == [60, 60, 30, 30]
        check_names(model)

    def test_a_name_that_begins_with_an_underscore(self):
        class Model(nn.Module):
            def __init__(self):
                self._inner = nn.Linear(2, 2, rng=0)
                self._scale = nn.Parameter([2.0])

            def forward(self, x):
                return self._inner(x) * self._scale

        model = Model()
        assert [name for name, _ in model.named_parameters()] == ["_inner.weight", "_inner.bias", "_scale"]
        assert scopes(model, X) == ["Model/_inner", "Model", ""]
        check_names(model)

    def test_a_new_parameter_or_module_later(self):
        model = nn.Sequential(Block(2, 3))
        block = model[0]
        old = block.lin
        block.shift = nn.Parameter([1.0, 2.0])
        block.lin = nn.Linear(2, 4, rng=3)
        block.lin.bias = nn.Parameter(np.ones(4, np.float32))
        assert [name for name, _ in model.named_parameters()] == ["0.scale", "0.lin.weight", "0.lin.bias", "0.shift"]
        assert model(X).shape == (3, 1, 4)
        assert scopes(model, X) == ["Sequential/0", "Sequential/0/lin", ""]
        assert not any(p is q for p in old.parameters() for q in model.parameters())
        del block.shift
        block.lin.bias = None
        assert [name for name, _ in model.named_parameters()] == ["0.scale", "0.lin.weight"]
        assert model(X).shape == (3, 1, 4)

    def test_a_new_weight_of_a_recurrent_network(self):
        model = nn.GRU(2, 3, 2, rng=0)
        new = nn.Parameter(np.ones((9, 3), np.float32))
        model.weight_hh_l1 = new
        assert model.weight_hh_l1 is new
        assert dict(model.named_parameters())["weight_hh_l1"] is new
        assert len(model.parameters()) == 8
        model(X)[0].sum().backward()
        assert new.grad is not None
        with pytest.raises(AttributeError, match="GRU has no attribute 'weight_hh_l2'"):
            _ = model.weight_hh_l2

    def test_slices_and_lists(self):
        model = nn.Sequential(nn.Linear(2, 3, rng=0), nn.Tanh(), nn.Linear(3, 2, rng=1))
        np.testing.assert_array_equal(model[1:](model[:1](X)).numpy(), model(X).numpy())
        assert isinstance(model[:2], nn.Sequential)
        assert model[-1] is list(model)[2]
        assert len(model) == 3
        listed = nn.ModuleList(model)
        assert isinstance(listed[1:], nn.ModuleList)
        assert listed.append(nn.ReLU()) is listed
        assert len(listed) == 4

    def test_a_slice_leaves_the_names_of_the_whole(self):
        model = nn.Sequential(nn.Linear(2, 3, rng=0), nn.Linear(3, 2, rng=1))
        before = scopes(model, X)
        assert before == ["Sequential/0", "Sequential/1", ""]
        assert model[1:](np.ones((1, 3), np.float32)).shape == (1, 2)
        assert scopes(model, X) == before
        check_names(model)

    def test_a_module_used_twice_is_one(self):
        class Twice(nn.Module):
            def __init__(self):
                self.a = nn.Linear(2, 2, rng=0)
                self.b = self.a

            def forward(self, x):
                return self.b(self.a(x))

        model = Twice()
        assert [name for name, _ in model.named_parameters()] == ["a.weight", "a.bias"]
        assert [name for name, _ in model.named_modules()] == ["", "a"]
        assert list(model.state_dict()) == ["a.weight", "a.bias", "b.weight", "b.bias"]
        assert model.num_parameters() == 6
        assert [row[3:] for row in model.summary(X).rows] == [(6, False, 60), (6, False, 60)]

    def test_parameter_copies_and_names(self):
        data = np.array([1.0, 2.0])
        p = nn.Parameter(data, name="gain")
        data[0] = 9
        assert p.tolist() == [1, 2]
        assert p.dtype == np.float64
        model = Block(2, 2)
        model.gain = p
        model.other = nn.Parameter(data, requires_grad=False)
        outer = nn.Sequential(model)
        assert dict(outer.named_parameters())["0.gain"].name == "gain"
        assert outer.num_parameters() == 12
        assert outer.num_parameters(trainable=True) == 10


class TestModes:
    def test_training_reaches_everything(self):
        model = Everywhere()
        cells = [m for m in model.modules() if isinstance(m, nn.LSTMCell)]
        assert len(cells) == 2
        assert all(m.training for m in model.modules())
        assert model.eval() is model
        assert not any(m.training for m in [*model.modules(), *cells])
        assert model.train() is model
        assert all(m.training for m in model.modules())
        model.chain.eval()
        assert [m.training for m in (model, model.chain, model.chain[1][0].lin)] == [True, False, False]

    def test_frozen_layers_get_no_gradient(self):
        model = nn.Sequential(nn.Linear(2, 3, rng=0), nn.Tanh(), nn.Linear(3, 2, rng=1))
        assert model[0].requires_grad_(False) is model[0]
        y = model(X)
        (y * y).sum().backward()
        assert [p.grad is None for p in model.parameters()] == [True, True, False, False]
        assert model.num_parameters(trainable=True) == 8
        free = copy.deepcopy(model).requires_grad_()
        free.zero_grad()
        z = free(X)
        (z * z).sum().backward()
        assert all(p.grad is not None for p in free.parameters())
        for a, b in zip(model[2].parameters(), free[2].parameters(), strict=True):
            np.testing.assert_array_equal(a.grad.numpy(), b.grad.numpy())
        with pytest.raises(tg.errors.TapeError):
            model.requires_grad_(False)(X).sum().backward()

    def test_a_frozen_first_layer_of_a_recurrent_network(self):
        model = nn.LSTM(2, 3, 2, rng=0)
        for name, p in model.named_parameters():
            if name.endswith("l0"):
                p.requires_grad_(False)
        model(X)[0].sum().backward()
        assert [name for name, p in model.named_parameters() if p.grad is not None] == ["weight_ih_l1", "weight_hh_l1", "bias_ih_l1", "bias_hh_l1"]

    def test_hooks_on_parameters(self):
        model = nn.Sequential(nn.Linear(2, 2, rng=0), nn.LSTM(2, 2, rng=1))
        seen = []
        model(X)[0].sum().backward()
        plain = {name: p.grad.numpy().copy() for name, p in model.named_parameters()}
        model.zero_grad()
        remove = model[0].weight.register_hook(lambda g: seen.append(g.numpy().copy()) or g * 2)
        model[1].weight_hh_l0.register_hook(lambda g: g * 0)
        model(X)[0].sum().backward()
        np.testing.assert_array_equal(seen[0], plain["0.weight"])
        for name, p in model.named_parameters():
            factor = {"0.weight": 2, "1.weight_hh_l0": 0}.get(name, 1)
            np.testing.assert_array_equal(p.grad.numpy(), factor * plain[name])
        remove()
        model.zero_grad()
        model(X)[0].sum().backward()
        np.testing.assert_array_equal(model[0].weight.grad.numpy(), plain["0.weight"])
        assert len(seen) == 1

    @pytest.mark.parametrize(
        "change",
        [lambda m: m.load_state_dict(m.state_dict()), lambda m: m.to(np.float64).to(np.float32), lambda m: m.requires_grad_(False).requires_grad_()],
        ids=["load", "to", "freeze and thaw"],
    )
    def test_hooks_outlive_changes_of_their_parameter(self, change):
        model = nn.Linear(2, 2, rng=0)
        calls = []
        model.weight.register_hook(lambda g: calls.append(g))
        change(model)
        model(X).sum().backward()
        assert len(calls) == 1

    def test_to_a_dtype(self):
        model = Everywhere()
        model.table["left"].requires_grad_(False)
        parameters, before = model.parameters(), named(model)
        model(X).sum().backward()
        assert model.to(np.float64) is model
        assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
        assert {p.dtype for p in parameters} == {np.dtype(np.float64)}
        assert all(p.grad is None for p in parameters)
        assert [p.name for p in parameters if not p.requires_grad] == ["table.left.weight", "table.left.bias"]
        for name, value in named(model).items():
            np.testing.assert_array_equal(value, before[name])
        model(X.astype(np.float64)).sum().backward()
        assert model.chain[0].weight.grad.dtype == np.float64
        assert nn.Linear(2, 2).to("float32").weight.dtype == np.float32
        tied = nn.LanguageModel(4, 3, tie_weights=True, rng=0).to(np.float64)
        assert tied.head.weight is tied.embedding.weight
        assert tied(np.zeros((2, 1), int))[0].dtype == np.float64


def nested(torch):
    """The same model twice, in the package and in PyTorch."""

    def build(space, options, base):
        class Net(base):
            def __init__(self):
                super().__init__()
                self.embedding = space.Embedding(5, 4, **options)
                self.rnn = space.LSTM(4, 6, 2, bidirectional=True, proj_size=3, **options)
                self.gru = space.GRU(6, 3, bias=False, **options)
                self.cell = space.GRUCell(3, 3, **options)
                self.parts = space.ModuleList([space.Linear(3, 3, bias=False, **options), space.LayerNorm(3, **options)])
                self.head = space.Sequential(space.Linear(3, 4, **options), space.Tanh(), space.Sequential(space.Linear(4, 2, **options), space.Softmax(-1)))
                self.conv = space.Conv2d(2, 4, (3, 1), groups=2, **options)

            def forward(self, ids):
                x = self.gru(self.rnn(self.embedding(ids))[0])[0]
                x = self.cell(x[-1], x[0])
                for part in self.parts:
                    x = part(x)
                return self.head(x)

        return Net()

    return build(nn, {"dtype": np.float64}, nn.Module), build(torch.nn, {"dtype": torch.float64}, torch.nn.Module)


class TestStateDict:
    def test_layout_is_that_of_pytorch_and_loads_both_ways(self, torch):
        ours, theirs = nested(torch)
        state = theirs.state_dict()
        assert [(name, value.shape) for name, value in ours.state_dict().items()] == [(name, tuple(value.shape)) for name, value in state.items()]
        assert [name for name, _ in ours.named_parameters()] == [name for name, _ in theirs.named_parameters()]
        ids = np.array([[0, 1], [4, 2], [3, 3]])
        assert ours.load_state_dict({name: value.numpy() for name, value in state.items()}) == ([], [])
        np.testing.assert_allclose(ours(ids).numpy(), theirs(torch.tensor(ids)).numpy(force=True), rtol=1e-13)
        other, twin = nested(torch)
        twin.load_state_dict({name: torch.tensor(value.numpy()) for name, value in other.state_dict().items()})
        np.testing.assert_allclose(other(ids).numpy(), twin(torch.tensor(ids)).numpy(force=True), rtol=1e-13)
        assert not np.allclose(ours(ids).numpy(), other(ids).numpy())
        third = nested(torch)[0]
        third.load_state_dict(state)
        np.testing.assert_array_equal(third(ids).numpy(), ours(ids).numpy())

    def test_values_are_copied_in_and_shared_out(self):
        model = nn.Linear(2, 2, rng=0)
        weight, memory = model.weight, model.weight.numpy()
        given = np.full((2, 2), 3.0, np.float32)
        model.load_state_dict({"weight": tg.tensor(given), "bias": [1.0, 2.0]})
        given[:] = 7
        assert model.weight is weight
        assert memory.tolist() == [[3, 3], [3, 3]]
        assert model.bias.tolist() == [1, 2]
        state = model.state_dict()
        assert not state["weight"].requires_grad
        with tg.no_grad():
            model.weight += 1
        assert state["weight"].tolist() == [[4, 4], [4, 4]]

    def test_exchanging_the_weights_of_two_layers(self):
        model = nn.Sequential(nn.Linear(2, 2, rng=0), nn.Linear(2, 2, rng=1))
        first, second = (p.numpy().copy() for p in (model[0].weight, model[1].weight))
        state = model.state_dict()
        model.load_state_dict(state | {"0.weight": state["1.weight"], "1.weight": state["0.weight"]})
        np.testing.assert_array_equal(model[0].weight.numpy(), second)
        np.testing.assert_array_equal(model[1].weight.numpy(), first)

    def test_everything_wrong_is_in_one_error_and_nothing_changes(self):
        model = nn.Sequential(nn.Linear(2, 3, rng=0), nn.LSTM(3, 2, rng=1))
        before = named(model)
        state = {name: np.full_like(value, 5) for name, value in before.items()}
        del state["0.bias"], state["1.bias_hh_l0"]
        state |= {"0.weight": np.zeros((3, 4)), "1.weight_hh_l0": np.zeros(8), "head.weight": np.zeros(1), "2": 1.0}
        with pytest.raises(tg.errors.ShapeError) as caught:
            model.load_state_dict(state)
        assert str(caught.value).splitlines()[0] == "load_state_dict into Sequential, nothing changed:"
        assert {line.strip() for line in str(caught.value).splitlines()[1:]} == {
            "0.weight has shape (3, 4), expected (3, 2)",
            "1.weight_hh_l0 has shape (8,), expected (8, 2)",
            "0.bias is missing",
            "1.bias_hh_l0 is missing",
            "head.weight is unexpected",
            "2 is unexpected",
        }
        for name, value in named(model).items():
            np.testing.assert_array_equal(value, before[name])

    def test_not_strict(self):
        model = nn.Linear(2, 2, rng=0)
        before = named(model)
        assert model.load_state_dict({"bias": np.zeros(2), "extra": np.zeros(3)}, strict=False) == (["weight"], ["extra"])
        assert model.bias.tolist() == [0, 0]
        np.testing.assert_array_equal(model.weight.numpy(), before["weight"])
        with pytest.raises(ValueError, match=r"bias has shape \(3,\), expected \(2,\)") as caught:
            model.load_state_dict({"weight": np.zeros((2, 2)), "bias": np.zeros(3)}, strict=False)
        assert "missing" not in str(caught.value)
        np.testing.assert_array_equal(model.weight.numpy(), before["weight"])

    @pytest.mark.parametrize("value", [np.zeros(2, complex), np.array(["a", "b"]), np.array([None, 1])], ids=lambda v: v.dtype.kind)
    def test_a_dtype_that_cannot_be_a_weight(self, value):
        model = nn.Linear(2, 2, rng=0)
        before = model.weight.numpy().copy()
        with pytest.raises(ValueError, match=rf"bias has dtype {value.dtype}, expected float32"):
            model.load_state_dict({"weight": np.zeros((2, 2)), "bias": value})
        np.testing.assert_array_equal(model.weight.numpy(), before)

    @pytest.mark.parametrize("source", [np.float64, np.float16, np.int64, np.bool_])
    @pytest.mark.parametrize("target", [np.float32, np.float64])
    def test_dtypes_are_converted_to_the_models(self, source, target):
        model = nn.Linear(3, 1, bias=False, dtype=target)
        model.load_state_dict({"weight": np.array([[0, 1, 1]], source)})
        assert model.weight.dtype == target
        assert model.weight.tolist() == [[0, 1, 1]]

    def test_odd_memory_layouts(self):
        model = nn.Linear(3, 4, bias=False)
        w = normal(6, 8).astype(np.float32)
        for value in (w[:3, :4].T, w[::2, ::2].T, np.asfortranarray(w[:4, :3]), w[3::-1, 2::-1]):
            model.load_state_dict({"weight": value})
            np.testing.assert_array_equal(model.weight.numpy(), value)

    def test_a_fitted_tape_refuses_to_be_swept_after_a_load(self):
        model = nn.Linear(2, 2, rng=0)
        x = tg.tensor(X, requires_grad=True)
        loss = model(x).sum()
        model.load_state_dict({"weight": np.zeros((2, 2)), "bias": np.zeros(2)})
        with pytest.raises(tg.errors.TapeError):
            loss.backward()


class Tied(nn.Module):
    def __init__(self):
        self.embedding = nn.Embedding(3, 2, rng=0)
        self.body = nn.Linear(2, 2, rng=1)
        self.head = nn.Linear(2, 3, rng=2)
        self.head.weight = self.embedding.weight

    def forward(self, ids):
        return self.head(self.body(self.embedding(ids)))


class TestTies:
    def test_counted_once_and_listed_under_each_path(self):
        model = Tied()
        assert [name for name, _ in model.named_parameters()] == ["embedding.weight", "body.weight", "body.bias", "head.bias"]
        assert list(model.state_dict()) == ["embedding.weight", "body.weight", "body.bias", "head.weight", "head.bias"]
        assert model.num_parameters() == 6 + 6 + 3
        assert [p.name for p in model.parameters()] == ["embedding.weight", "body.weight", "body.bias", "head.bias"]

    def test_the_gradient_is_the_sum_of_both_uses(self):
        model, apart = Tied(), Tied()
        apart.head.weight = nn.Parameter(apart.embedding.weight.detach())
        ids = np.array([0, 2, 2])
        for m in (model, apart):
            y = m(ids)
            (y * y).sum().backward()
        np.testing.assert_allclose(model.embedding.weight.grad.numpy(), (apart.embedding.weight.grad + apart.head.weight.grad).numpy(), rtol=1e-6)

    def test_loading_keeps_the_tie(self):
        model = Tied()
        model.load_state_dict({name: np.full(value.shape, 2.0) for name, value in model.state_dict().items()})
        assert model.head.weight is model.embedding.weight
        assert model.head.weight.tolist() == [[2, 2]] * 3
        values = np.full((3, 2), np.nan)
        model.load_state_dict(named(model) | {"embedding.weight": values, "head.weight": values.copy()})
        assert np.isnan(model.head.weight.numpy()).all()
        assert model.load_state_dict({"head.weight": np.ones((3, 2))}, strict=False)[0] == ["embedding.weight", "body.weight", "body.bias", "head.bias"]
        assert model.embedding.weight.tolist() == [[1, 1]] * 3

    def test_values_that_contradict_each_other_are_refused(self):
        model = Tied()
        before = named(model)
        for strict in (True, False):
            with pytest.raises(ValueError, match=r"head\.weight is tied to embedding\.weight, but their values differ"):
                model.load_state_dict(named(model) | {"head.weight": np.zeros((3, 2)), "body.bias": np.ones(2)}, strict=strict)
            for name, value in named(model).items():
                np.testing.assert_array_equal(value, before[name])


def options_of(model):
    return [(name, p.dtype, p.requires_grad, isinstance(p, nn.Parameter), p.name) for name, p in model.named_parameters()]


def build_cell(n):
    return nn.GRUCell(n, 2, rng=0)


MODELS = {
    "everywhere": (Everywhere, X),
    "tied": (lambda: nn.LanguageModel(5, 4, tie_weights=True, dropout=0.5, rng=3), np.array([[1, 2], [3, 4]])),
    "layers": (lambda: nn.Sequential(nn.Conv2d(1, 2, 2, rng=0), nn.Flatten(), nn.Dropout(0.5, rng=1), nn.Linear(12, 2, rng=2)), np.ones((2, 1, 3, 4), np.float32)),
    "cells": (lambda: nn.Recurrent(build_cell, 2, 2, bidirectional=True), X),
    "pair": (lambda: nn.EncoderDecoder(4, 5, 2, attention="additive", bidirectional=True, rng=0), np.array([[1, 2], [3, 0]])),
}


def first(out):
    while isinstance(out, tuple):
        out = out[0]
    return out


def call(kind, model, x):
    return first(model(x, x) if kind == "pair" else model(x))


class TestCopies:
    @pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
    @pytest.mark.parametrize("kind", MODELS)
    def test_a_copy_is_whole_and_independent(self, kind, copied):
        make, x = MODELS[kind]
        model = make()
        model.parameters()[0].requires_grad_(False)
        (model.chain if kind == "everywhere" else model).eval()
        call(kind, model, x).sum().backward()
        twin = copied(model)
        assert repr(twin) == repr(model)
        assert options_of(twin) == options_of(model)
        assert list(twin.state_dict()) == list(model.state_dict())
        assert [m.training for m in twin.modules()] == [m.training for m in model.modules()]
        assert not {id(p) for p in twin.parameters()} & {id(p) for p in model.parameters()}
        assert not {id(m) for m in twin.modules()} & {id(m) for m in model.modules()}
        for a, b in zip(twin.parameters(), model.parameters(), strict=True):
            np.testing.assert_array_equal(a.numpy(), b.numpy())
            assert (a.grad is None) == (b.grad is None)
            if a.grad is not None:
                np.testing.assert_array_equal(a.grad.numpy(), b.grad.numpy())
        assert scopes_of(kind, twin, x) == scopes_of(kind, model, x)
        # In training mode too: a generator's state is copied with the model.
        model.train()
        twin.train()
        before = call(kind, model, x).numpy().copy()
        np.testing.assert_array_equal(call(kind, twin, x).numpy(), before)
        model.eval(), twin.eval()
        before = call(kind, model, x).numpy().copy()
        with tg.no_grad():
            for p in twin.parameters():
                p += 1
        np.testing.assert_array_equal(call(kind, model, x).numpy(), before)
        assert not np.array_equal(call(kind, twin, x).numpy(), before)

    @pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
    def test_ties_stay(self, copied):
        twin = copied(Tied())
        assert twin.head.weight is twin.embedding.weight
        assert twin.num_parameters() == 15
        listed = copied(nn.Sequential(*[nn.Tanh()] * 2))
        assert listed[0] is listed[1]

    def test_the_copy_of_a_network_of_cells_from_a_lambda(self):
        model = nn.Recurrent(lambda n: nn.GRUCell(n, 2, rng=0), 2, 2)
        np.testing.assert_array_equal(copy.deepcopy(model)(X)[0].numpy(), model(X)[0].numpy())


def scopes_of(kind, model, x):
    return scopes(model, x, x) if kind == "pair" else scopes(model, x)


class Reader(nn.Module):
    def __init__(self, words, hidden=3, *, dtype=None, rng=None):
        self.embedding = nn.Embedding(words, 4, padding_idx=0, dtype=dtype, rng=rng)
        self.encoder = nn.LSTM(4, hidden, num_layers=2, bidirectional=True, dtype=dtype, rng=rng)
        self.heads = [nn.Linear(2 * hidden, 2, dtype=dtype, rng=rng), nn.Sequential(nn.Tanh(), nn.Linear(2 * hidden, 1, bias=False, rng=rng))]
        self.shift = nn.Parameter([0.0])

    def forward(self, ids):
        output, _ = self.encoder(self.embedding(ids))
        return self.heads[0](output) + self.heads[1](output) + self.shift


class TestShowing:
    def test_repr_of_a_nested_model(self):
        class Net(nn.Module):
            def __init__(self, size, *, depth=1):
                self.conv = nn.Conv2d(1, 4, 3, padding=1, rng=0)
                self.body = nn.Sequential(nn.Linear(4, size, bias=False, dtype=np.float64), nn.Sequential(nn.ReLU(), nn.Dropout(0.5)))
                self.rnn = nn.LSTM(size, 2, 2, bidirectional=True, rng=np.random.default_rng(0))
                self.pools = [nn.MaxPool2d(2), nn.AvgPool2d((2, 1), stride=1)]
                self.gain = nn.Parameter([1.0])

        assert (
            repr(Net(8, depth=3))
            == """Net(8, depth=3)
  (conv): Conv2d(1, 4, 3, padding=1)
  (body): Sequential()
    (0): Linear(4, 8, bias=False, dtype=float64)
    (1): Sequential()
      (0): ReLU()
      (1): Dropout(0.5)
  (rnn): LSTM(8, 2, 2, bidirectional=True)
  (pools.0): MaxPool2d(2)
  (pools.1): AvgPool2d((2, 1), stride=1)"""
        )
        assert repr(nn.Linear(2, 3, rng=0)) == "Linear(2, 3)"
        assert repr(nn.Sequential()) == "Sequential()"

    def test_repr_leaves_out_what_was_left_to_default(self):
        assert (
            repr(nn.LanguageModel(20, 8, cell="gru", rng=0))
            == """LanguageModel(20, 8, cell='gru')
  (embedding): Embedding(20, 8)
  (rnn): GRU(8, 8, 1)
  (head): Linear(8, 20)"""
        )

    def test_html_lists_parameters(self):
        model = nn.Sequential(nn.Linear(200, 10, rng=0))
        model[0].bias.requires_grad_(False)
        model.extra = {"<b>": nn.Parameter([1.0])}
        text = nn.Sequential(model)[0]._repr_html_()
        assert "<td><code>0.weight</code></td><td>(10, 200)</td><td>2,000</td><td>float32</td>" in text
        assert "<td><code>0.bias</code></td><td>(10,)</td><td>10</td><td>float32, frozen</td>" in text
        outer = Block(2, 2)
        outer.table = {"<b>": nn.Linear(2, 2)}
        assert "table.&lt;b&gt;.weight" in outer._repr_html_()
        assert "<b>" not in outer._repr_html_()

    def test_summary_of_a_linear_layer(self):
        # 2 * 5 * 4 * 3 for the product and 5 * 3 for the bias.
        (row,) = nn.Linear(4, 3, rng=0).summary(np.zeros((5, 4), np.float32)).rows
        assert row == ("", "Linear", "(5, 3)", 15, False, 2 * 5 * 4 * 3 + 5 * 3)
        (row,) = nn.Linear(4, 3, bias=False, rng=0).summary(np.zeros((2, 5, 4), np.float32)).rows
        assert row[3:] == (12, False, 2 * 10 * 4 * 3)

    @pytest.mark.parametrize("groups", [1, 2])
    def test_summary_of_a_convolution(self, groups):
        (row,) = nn.Conv2d(4, 6, (3, 2), groups=groups, rng=0).summary(np.zeros((2, 4, 8, 8), np.float32)).rows
        outputs = 2 * 6 * 6 * 7
        assert row == ("", "Conv2d", "(2, 6, 6, 7)", 6 * 4 // groups * 6 + 6, False, 2 * outputs * (4 // groups) * 3 * 2 + outputs)

    def test_summary_of_an_lstm(self):
        T, B, F, H = 5, 3, 4, 6
        summary = nn.LSTM(F, H, rng=0).summary(np.zeros((T, B, F), np.float32))
        # A step: two products into four gates; two sums of them; five functions, three products and one sum of what they give.
        step = 2 * 4 * H * (F + H) + 2 * 4 * H + (5 + 3 + 1) * H
        assert summary.rows[0] == ("", "LSTM", f"(({T}, {B}, {H}), ((1, {B}, {H}), (1, {B}, {H})))", 4 * H * (F + H + 2), False, T * B * step + 4 * H)
        assert summary.rows[1][0:2] == ("l0", "LSTMCell")
        assert summary.rows[1][3] == summary.rows[0][3]
        double = nn.LSTM(F, H, 2, bidirectional=True, rng=0).summary(np.zeros((T, B, F), np.float32)).rows
        second = 2 * 4 * H * (2 * H + H) + 2 * 4 * H + 9 * H
        assert double[0][-1] == 2 * (T * B * (step + second) + 2 * 4 * H)

    def test_summary_of_attention(self):
        # Two sums of products over all pairs of steps, and a softmax between.
        T, S, B, K = 3, 5, 2, 4
        (row,) = nn.Attention(K, K).summary(np.ones((T, B, K), np.float32), np.ones((S, B, K), np.float32)).rows
        assert row == ("", "Attention", f"(({T}, {B}, {K}), ({T}, {B}, {S}))", 0, False, 2 * 2 * T * S * B * K + T * S * B)

    def test_summary_as_text(self):
        model = nn.Sequential(nn.Linear(4, 3, rng=0), nn.ReLU(), nn.Sequential(nn.Linear(3, 1000, rng=0)))
        assert (
            str(model.summary(np.zeros((5, 4), np.float32)))
            == repr(model.summary(np.zeros((5, 4), np.float32)))
            == """\
module  kind        output     parameters  operations
        Sequential  (5, 1000)       4,015      35,150
0       Linear      (5, 3)             15         135
1       ReLU        (5, 3)              0          15
2       Sequential  (5, 1000)       4,000      35,000
2.0     Linear      (5, 1000)       4,000      35,000"""
        )

    def test_summary_marks_what_is_shared_and_counts_it_once(self):
        model = Tied()
        rows = {row[0]: row[3:5] for row in model.summary(np.zeros(4, int)).rows}
        assert rows == {"": (15, False), "embedding": (6, True), "body": (6, False), "head": (3, True)}
        assert sum(count for path, (count, _) in rows.items() if path) == model.num_parameters()
        text = str(model.summary(np.zeros(4, int)))
        assert [line.split()[0] for line in text.splitlines() if "shared" in line] == ["embedding", "head"]

    def test_summary_as_html(self):
        model = Tied()
        model.table = {"<i>": nn.Linear(1000, 2)}
        text = model.summary(np.zeros(4, int))._repr_html_()
        assert text.startswith("<table><tr><th>module</th><th>kind</th><th>output</th><th>parameters</th><th>operations</th></tr>")
        assert "<tr><td>embedding</td><td>Embedding</td><td>(4, 2)</td><td>6 shared</td><td>0</td></tr>" in text
        assert "<tr><td>table.&lt;i&gt;</td><td>Linear</td><td></td><td>2,002</td><td>0</td></tr>" in text
        assert text.count("<tr>") == text.count("</tr>") == 6

    def test_summary_of_a_network_of_ones_own_cells(self):
        class Cell(nn.Module):
            def __init__(self, n, hidden_size):
                self.hidden_size = hidden_size
                self.lin = nn.Linear(n + hidden_size, hidden_size, rng=0)

            def forward(self, x, h):
                return tg.tanh(self.lin(tg.concatenate([x, h], axis=-1)))

        rows = nn.Recurrent(lambda n: Cell(n, 4), 3, 2).summary(np.zeros((5, 2, 3), np.float32)).rows
        first, second = 5 * 2 * (2 * 4 * 7 + 4 + 4), 5 * 2 * (2 * 4 * 8 + 4 + 4)
        assert (rows[0][3], rows[0][-1]) == (32 + 36, first + second)
        counts = {row[0]: row[-1] for row in rows}
        assert (counts["l0"], counts["l1"]) == (first, second)

    def test_summary_changes_nothing(self):
        model = Everywhere()
        model.chain.eval()
        model.chain[0].forward = (lambda run: lambda x: seen.append((y := run(x)).requires_grad) or y)(model.chain[0].forward)
        before, modes, seen = named(model), [m.training for m in model.modules()], []
        model.summary(X)
        assert seen == [False]
        with pytest.raises(ValueError, match=r"Everywhere\.listed\.0"):
            model.summary(np.ones((3, 1, 7), np.float32))
        assert [m.training for m in model.modules()] == modes
        assert all(p.grad is None and p.requires_grad for p in model.parameters())
        for name, value in named(model).items():
            np.testing.assert_array_equal(value, before[name])

    def test_summary_takes_keywords(self):
        rows = nn.GRU(2, 3, rng=0).summary(np.ones((4, 2, 2), np.float32), lengths=[4, 2]).rows
        assert rows[0][2] == "((4, 2, 3), (1, 2, 3))"


def nothing():
    return np.zeros((2, 2), np.float32)


class Net(nn.Module):
    def __init__(self):
        self.blocks = [nn.Sequential(nn.Linear(2, 3, rng=0), Block(4, 2))]
        self.encoder = nn.LSTM(2, 3, rng=0)
        self.cell = nn.GRUCell(2, 3, rng=0)
        self.custom = nn.Recurrent(lambda n: Wrong(), 2)
        self.table = nn.Embedding(3, 2)

    def forward(self, x, part):
        return part(self)(x)


class Wrong(nn.Module):
    hidden_size = 2

    def __init__(self):
        self.lin = nn.Linear(3, 2, rng=0)

    def forward(self, x, h):
        return self.lin(x) + h


BAD = [
    # What is built or called, the error, words of its message.
    (lambda: nn.Linear(0, 2), ValueError, "Linear: in_features must be a positive integer, got 0"),
    (lambda: nn.Linear(2, -1), ValueError, "Linear: out_features must be a positive integer, got -1"),
    (lambda: nn.Linear(2.5, 2), ValueError, "Linear: in_features must be a positive integer, got 2.5"),
    (lambda: nn.Linear(True, 2), ValueError, "Linear: in_features"),
    (lambda: nn.Linear(2, 2, rng="x"), TypeError, "rng: expected a numpy Generator or a seed, got str"),
    (lambda: nn.Linear(2, 3)(np.zeros((4, 3), np.float32)), ValueError, "Linear: input has shape (4, 3), expected (..., in_features=2)"),
    (lambda: nn.Linear(2, 3)(np.float32(1)), ValueError, "Linear: input has shape (), expected (..., in_features=2)"),
    (lambda: nn.Linear(2, 3)(np.zeros(2)), TypeError, "Linear: input is float64, the weights are float32; convert it with .astype('float32'), or the module with .to('float64')"),
    (lambda: nn.Linear(2, 3)(np.zeros(2, int)), TypeError, "Linear: input has dtype int64, expected floats"),
    (lambda: nn.Linear(2, 3)(["a", "b"]), TypeError, "Linear: "),
    (lambda: nn.Embedding(0, 2), ValueError, "Embedding: num_embeddings must be a positive integer, got 0"),
    (lambda: nn.Embedding(3, 2, padding_idx=3), ValueError, "Embedding: padding_idx=3 is not one of 3 rows"),
    (lambda: nn.Embedding(3, 2)(np.array([3])), IndexError, "Embedding: embedding: index 3 is out of range for 3 symbols (0 to 2)"),
    (lambda: nn.Embedding(3, 2)(np.array([-1])), IndexError, "index -1 is out of range"),
    (lambda: nn.Embedding(3, 2)(np.array([1.0])), TypeError, "indices must be integers, got dtype float64"),
    (lambda: nn.Embedding.from_pretrained(np.zeros(3)), ValueError, "Embedding.from_pretrained: expected (num_embeddings, embedding_dim), got shape (3,)"),
    (lambda: nn.Conv2d(0, 2, 3), ValueError, "Conv2d: in_channels must be a positive integer, got 0"),
    (lambda: nn.Conv2d(3, 2, 3, groups=2), ValueError, "Conv2d: in_channels=3 and out_channels=2 must be multiples of groups=2"),
    (lambda: nn.Conv2d(1, 2, 0), ValueError, "Conv2d: kernel_height must be a positive integer, got 0"),
    (lambda: nn.Conv2d(1, 2, 2.5), (TypeError, ValueError), "Conv2d: "),
    (lambda: nn.Conv2d(1, 2, (2, 3, 4)), ValueError, "Conv2d: "),
    (lambda: nn.Conv2d(1, 2, 3)(np.zeros((1, 1, 2, 5), np.float32)), ValueError, "Conv2d: conv2d: a kernel of 3 with dilation 1 does not fit an image of 2 with padding 0"),
    (lambda: nn.Conv2d(2, 2, 3)(np.zeros((3, 1, 5, 6), np.float32)), ValueError, "Conv2d: input has batch=3 channels=1 height=5 width=6, expected (batch, in_channels=2, height, width)"),
    (lambda: nn.Conv2d(2, 2, 3)(np.zeros((5, 5), np.float32)), ValueError, "Conv2d: input has shape (5, 5)"),
    (lambda: nn.Conv2d(1, 2, 3)(np.zeros((1, 1, 5, 5))), TypeError, "Conv2d: input is float64, the weights are float32"),
    (lambda: nn.Conv2d(1, 2, 3, stride=0)(np.zeros((1, 1, 5, 5), np.float32)), ValueError, "stride must be an integer or a pair of at least 1, got 0"),
    (lambda: nn.MaxPool2d(2, padding=2)(np.zeros((1, 1, 5, 5))), ValueError, "MaxPool2d: max_pool2d: padding (2, 2) is more than half the kernel (2, 2)"),
    (lambda: nn.AvgPool2d(3, padding=2)(np.zeros((1, 1, 5, 5))), ValueError, "AvgPool2d: avg_pool2d: padding (2, 2) is more than half the kernel (3, 3)"),
    (lambda: nn.AvgPool2d(6)(np.zeros((1, 1, 5, 5))), ValueError, "AvgPool2d: avg_pool2d: a kernel of 6"),
    (lambda: nn.MaxPool2d(2)(np.zeros((5, 5))), ValueError, "expected x (batch, channels, height, width), got shape (5, 5)"),
    (lambda: nn.LayerNorm((2, 0)), ValueError, "LayerNorm: normalized_shape[1] must be a positive integer, got 0"),
    (lambda: nn.LayerNorm((2, 3))(np.zeros((2, 2), np.float32)), ValueError, "LayerNorm: input has shape (2, 2), expected the last axes to be (2, 3)"),
    (lambda: nn.LayerNorm(2)(nothing().astype(float)), TypeError, "LayerNorm: input is float64, the weights are float32"),
    (lambda: nn.Dropout(1.5), ValueError, "Dropout: p must be between 0 and 1, got 1.5"),
    (lambda: nn.Dropout(math.nan), ValueError, "Dropout: p must be between 0 and 1, got nan"),
    (lambda: nn.Flatten(2)(nothing()), ValueError, "Flatten: dimensions 2 to -1 of an input of shape (2, 2)"),
    (lambda: nn.Softmax(2)(nothing()), ValueError, "Softmax: softmax"),
    (lambda: nn.ReLU()(nothing().astype(int)), TypeError, "ReLU: input has dtype int64, expected floats"),
    (lambda: nn.ModuleList([nn.ReLU(), 3]), TypeError, "ModuleList: expected modules, got int"),
    (lambda: nn.Sequential(nn.ReLU(), np.tanh), TypeError, "Sequential: expected modules, got ufunc"),
    (lambda: nn.Parameter([1, 2]), TypeError, "only floating-point tensors have gradients, got dtype int64"),
    (lambda: nn.Linear(2, 2).to(int), TypeError, "to: expected a floating dtype, got int64"),
    (lambda: Net()(np.zeros((4, 3), np.float32), lambda m: m.blocks[0]), ValueError, "Net.blocks.0.0: input has shape (4, 3), expected (..., in_features=2)"),
    (lambda: Net()(nothing(), lambda m: m.blocks[0]), ValueError, "Net.blocks.0.1: "),
    (lambda: Net()(np.zeros((4, 3, 5), np.float32), lambda m: m.encoder), ValueError, "Net.encoder: input has time=4 batch=3 features=5, expected features=input_size=2"),
    (lambda: Net()(np.zeros((3, 5), np.float32), lambda m: m.cell), ValueError, "Net.cell: input has batch=3 features=5, expected (batch, input_size=2)"),
    (lambda: Net()(np.zeros((4, 3, 2), np.float32), lambda m: m.custom), ValueError, "Net.custom.l0.lin: input has shape (3, 2), expected (..., in_features=3)"),
    (lambda: Net()(np.array([[5]]), lambda m: m.table), IndexError, "Net.table: embedding: index 5"),
    (lambda: nn.init.fans(tg.zeros(3)), ValueError, "fans: a weight has two dimensions or more, got shape (3,)"),
    (lambda: nn.init.xavier_uniform(tg.zeros(3)), ValueError, "two dimensions or more, got shape (3,)"),
    (lambda: nn.init.orthogonal(tg.zeros(3)), ValueError, "orthogonal: a weight has two dimensions or more, got shape (3,)"),
    (lambda: nn.init.identity(tg.zeros(3)), ValueError, "identity: expected a matrix, got shape (3,)"),
    (lambda: nn.init.uniform(tg.zeros(3), rng="x"), TypeError, "rng: expected a numpy Generator or a seed, got str"),
]  # fmt: skip


@pytest.mark.parametrize(("act", "kind", "words"), BAD, ids=[words[:50] for _, _, words in BAD])
def test_bad_input(act, kind, words):
    with pytest.raises(kind) as caught:
        act()
    assert isinstance(caught.value, tg.errors.TinygradError)
    assert words in str(caught.value)


def test_a_module_without_forward_says_so():
    with pytest.raises(NotImplementedError, match="ModuleList has no forward method"):
        nn.ModuleList([nn.ReLU()])(X)


def test_an_error_changes_no_mode_and_leaves_no_scope():
    model = Net()
    with pytest.raises(ValueError, match=r"Net\.encoder"):
        model(np.zeros((4, 3, 5), np.float32), lambda m: m.encoder)
    y = model.blocks[0][0](np.zeros((1, 2), np.float32))
    assert tg.tape(y.sum())[-1].scope == ()
