# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Your own cell
#
# A cell is a step: what comes in, the state before, the state after. Write it in NumPy's words; the gradient, the picture, the speed and the checks are those of the built-in cells, which are written the same way.

# %%
import os
import time

import matplotlib.pyplot as plt
import numpy as np

import tinygrad_rnn as tg
from tinygrad_rnn import data, nn, optim, train

# The full setting: FULL=1 in the environment, or FULL = True here.
FULL = "FULL" in os.environ

# %% [markdown]
# ## Invented five minutes ago: a slate and a hand
#
# The slate `s` holds what is remembered. The hand `p` says how much of each of its cells is wiped and written anew; it does not jump, but moves a learnt part of the way at each step.


# %%
class Slate(nn.Module):
    def __init__(self, input_size, hidden_size, dtype=None, rng=None):
        self.hidden_size = hidden_size
        self.read = nn.Linear(input_size + hidden_size, 2 * hidden_size, dtype=dtype, rng=rng)
        self.inertia = nn.Parameter(tg.full(hidden_size, -2.0, dtype=dtype or np.float32))

    def initial_state(self, batch):
        zero = tg.zeros(*batch, self.hidden_size, dtype=self.inertia.dtype)
        return zero, zero - 2.0

    def forward(self, x, state):
        s, p = state
        a = self.read(tg.concatenate([x, s], axis=-1))
        lazy = tg.sigmoid(self.inertia)
        p = lazy * p + (1 - lazy) * (a[..., : self.hidden_size] - 2.0)
        w = tg.sigmoid(p)
        s = s + w * (tg.tanh(a[..., self.hidden_size :]) - s)
        w.name, s.name, p.name = "w", "s", "p"
        return s, p


# %% [markdown]
# ## Is its gradient right? One line
#
# `check_module` compares the gradient of every parameter and every input with differences whose error is measured. The second line is a property test, as it would stand in a test file: new points are drawn at each run.

# %%
print(tg.testing.check_module(Slate(2, 3, rng=0), tg.randn(4, 2, rng=1), (tg.randn(4, 3, rng=2), tg.randn(4, 3, rng=3))))

cell = Slate(2, 3, dtype=np.float64, rng=0)
test_slate = tg.testing.gradient_property(lambda x, s, p: cell(x, (s, p))[0], args=[(4, 2), (4, 3), (4, 3)], order=2, max_examples=10)
test_slate()

# %% [markdown]
# A wrong gradient would not pass. Here is one that forgets a factor, in a rule written by hand:


# %%
@tg.primitive
def half_tanh(x):
    return np.tanh(x / 2)


@half_tanh.rule
def half_tanh_x(g, out):
    return g * (1 - out * out)


try:
    tg.testing.check_gradients(half_tanh, np.array([0.3, -1.0]))
    raise SystemExit("a wrong gradient was not found")
except tg.testing.GradientMismatch as error:
    print(error)

# %% [markdown]
# ## What does it look like?
#
# `nn.Recurrent` runs any cell in layers and directions. Both states have their rails; the slate's straight line is what carries the gradient.

# %%
network = nn.Recurrent(lambda n: Slate(n, 4, rng=0), 3)
first = tuple(tg.zeros(1, 2, 4, requires_grad=True, name=name) for name in ("s0", "p0"))
output, (s, p) = network(tg.randn(4, 2, 3, rng=1), first)
tg.graph((s * s).sum(), gradients=True, name="slate")

# %% [markdown]
# ## How will it run?
#
# One step is recorded, its backward program derived, and both are replayed for all steps. `explain` says what is computed once, what in the loop, what is put off until after it, and where each value lives.

# %%
slate = Slate(3, 4, rng=0)


def step(x_t, state):
    s, p = slate(x_t, state)
    return s, (s, p)


plan = tg.unroll.explain(step, tg.zeros(50, 2, 3), slate.initial_state((2,)))
print(plan)
assert plan.mode == "replay"

# %% [markdown]
# The time of a training step, forward and backward, replayed and as single operations; and a GRU of the same size beside it.


# %%
def seconds(network, mode, x, repeat):
    network.mode = mode
    best = np.inf
    for _ in range(repeat):
        began = time.perf_counter()
        output, _ = network(x)
        (output**2).mean().backward()
        best = min(best, time.perf_counter() - began)
    return best


x = np.random.default_rng(0).standard_normal((100, 32, 3)).astype(np.float32)
networks = {"Slate": nn.Recurrent(lambda n: Slate(n, 32, rng=0), 3), "GRU": nn.GRU(3, 32, rng=0)}
times = {(name, mode): seconds(network, mode, x, 10) for name, network in networks.items() for mode in ("eager", "replay")}
for name in networks:
    eager, replayed = times[name, "eager"], times[name, "replay"]
    print(f"{name:6} 100 steps: {1000 * eager:5.1f} ms eager, {1000 * replayed:5.1f} ms replayed, {eager / replayed:.1f} times faster")
assert times["Slate", "replay"] < times["Slate", "eager"]
outputs = []
for mode in ("eager", "replay"):
    networks["Slate"].mode = mode
    outputs.append(networks["Slate"](x)[0].numpy())
assert np.allclose(*outputs, atol=1e-6), "the same numbers either way"


# %% [markdown]
# ## Does it learn?
#
# The adding problem: two of T numbers are marked, their sum is asked for at the end. Always answering 1 has an error of 1/6.


# %%
class Adder(nn.Module):
    def __init__(self, cell, seed):
        self.rnn, self.head = nn.Recurrent(cell, 2), nn.Linear(32, 1, rng=seed)

    def forward(self, x):
        return self.head(self.rnn(x)[0][-1])


def mean_squared(model, batch):
    return nn.functional.mse_loss(model(batch[0]), batch[1])


T, STEPS = (200, 3000) if FULL else (50, 800)
cells = {"Slate": lambda n: Slate(n, 32, rng=0), "RNN": lambda n: nn.RNNCell(n, 32, rng=0)}
histories, models = {}, {}
for name, cell in cells.items():
    model = models[name] = Adder(cell, seed=1)
    source = np.random.default_rng(2)
    batches = [data.adding_problem(T, 32, source) for _ in range(STEPS)]
    histories[name] = train.fit(model, batches, mean_squared, optim.Adam(model.parameters(), lr=0.01), epochs=1, clip=1.0, progress=False)
test, sums = data.adding_problem(T, 500, rng=999)
errors = {}
for name, model in models.items():
    with tg.no_grad():
        errors[name] = float(((model(test) - sums) ** 2).mean())
    print(f"{name:6} T = {T}: mean squared error {errors[name]:.4f} on new sequences after {STEPS} steps", *histories[name].warnings, sep="\n       ")
assert errors["Slate"] < 0.01 < 0.1 < errors["RNN"]

# %% [markdown]
# What has it learnt? `activation_map` knows the names that the cell gave. The hand `w` presses where a number is marked; the slate `s` keeps what was written.

# %%
output, _ = models["Slate"].rnn(test)
maps = tg.diagnostics.activation_map(output, ["w", "s"])
figure = maps.plot(sequence=0)
for t in np.flatnonzero(test[:, 0, 1]) + 1:
    for panel in figure.axes[:2]:
        panel.axvline(t, color="#D55E00", linewidth=1, linestyle=":")
plt.show()
w, marked = maps["l0 w"], test[:, :, 1] > 0
print(f"pressure of the hand: {w[marked].max(axis=1).mean():.2f} at a marked step, {w[~marked].max(axis=1).mean():.2f} elsewhere (the unit that presses most)")

# %%
axes = tg.diagnostics.gradient_flow(mean_squared(models["Slate"], (test, sums))).plot(label="Slate")
tg.diagnostics.gradient_flow(mean_squared(models["RNN"], (test, sums))).plot(axes, label="RNN")
plt.show()

# %% [markdown]
# ## The full setting
#
# `FULL=1 MPLBACKEND=Agg python notebooks/10_your_own_cell.py` at commit 3c65485, T = 200, 3,000 steps, seeds as above (three minutes of one core): mean squared error 0.0001 for the slate, 0.1877 for the RNN, whose gradient is exactly 0 in float32 at the first step.
# Always answering 1 has 0.1667.
