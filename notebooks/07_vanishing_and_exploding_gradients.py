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
# # Vanishing and exploding gradients
#
# What a network can learn about the start of a sequence comes back to it through every step in between. Each step multiplies the gradient by its Jacobian; a hundred factors below one leave nothing, a hundred above one leave no digit.
# This notebook measures it, explains it by one number, and shows what clipping does about it.

# %%
import os

import matplotlib.pyplot as plt
import numpy as np

import tinygrad_rnn as tg
from tinygrad_rnn import data, nn, optim, train

# The full setting: FULL=1 in the environment, or FULL = True here.
FULL = "FULL" in os.environ

# %% [markdown]
# ## One number decides: the spectral radius
#
# A linear recurrence $h_t = h_{t-1} W$ is the pure case: going back $k$ steps multiplies the gradient by $W^k$. `gradient_flow` measures the norm of $\partial L/\partial h_t$ at every step; nothing has to be marked.

# %%
rng = np.random.default_rng(0)
orthogonal = np.linalg.qr(rng.standard_normal((16, 16)))[0]
figure, axes = plt.subplots(figsize=(6, 3))
for radius in (0.7, 1.0, 1.3):
    W = tg.tensor(orthogonal * radius, requires_grad=True, name="W")
    _, h = tg.unroll(lambda x, h, W=W: (None, h @ W), 50, tg.ones(1, 16, dtype=np.float64))
    flow = tg.diagnostics.gradient_flow(h.sum())
    flow.plot(axes, label=f"radius {radius}")
    print(flow, "\n")
    assert np.isclose(flow.rates[0], radius) and np.isclose(float(tg.diagnostics.spectral_radius(W)), radius)
    assert flow.verdicts == ["vanishing" if radius < 1 else "exploding" if radius > 1 else "steady"]
plt.show()

# %% [markdown]
# ## RNN, GRU and LSTM on one axis
#
# A hundred steps, a loss at the last one. The input is the same at every step, so that each network settles in a fixed point; from there on every step multiplies by the same Jacobian, and the gradient must change by *its* spectral radius,
# gates, tanh and all. `spectral_radius(cell, x, state)` takes it at that point.

# %%
T, UNITS = 100, 32
networks = {
    "RNN": nn.RNN(4, UNITS, dtype=np.float64, rng=0),
    "RNN, orthogonal": nn.RNN(4, UNITS, recurrent_init="orthogonal", dtype=np.float64, rng=0),
    "GRU": nn.GRU(4, UNITS, dtype=np.float64, rng=0),
    "LSTM": nn.LSTM(4, UNITS, dtype=np.float64, rng=0),
    "LSTM, forget bias 4": nn.LSTM(4, UNITS, forget_bias=4.0, dtype=np.float64, rng=0),
}
x = 0.1 * rng.standard_normal((1, 4))
figure, axes = plt.subplots(figsize=(7, 4))
print(f"{'':20} {'a step back':>12} {'radius of its Jacobian':>24} {'radius of W_hh':>16}")
flows = {}
for name, network in networks.items():
    _, state = network(np.repeat(x[None], T, axis=0))
    last = state[0] if isinstance(state, tuple) else state
    flows[name] = flow = tg.diagnostics.gradient_flow((last * rng.standard_normal(last.shape)).sum())
    norms = flow["l0 h"]
    (cell,) = network.children()
    _, settled = network(np.repeat(x[None], 2000, axis=0))
    settled = tuple(s[0] for s in settled) if isinstance(settled, tuple) else settled[0]
    radius = float(tg.diagnostics.spectral_radius(cell, x, settled))
    rate = (norms[20] / norms[80]) ** (1 / 60)
    print(f"{name:20} {rate:12.3f} {radius:24.3f} {float(tg.diagnostics.spectral_radius(network)):16.3f}")
    assert abs(rate - radius) < 0.03
    axes.plot(range(1, T + 1), norms, label=name)
axes.set_yscale("log")
axes.set_xlabel("step t")
axes.set_ylabel("norm of dL/dh_t")
axes.legend(fontsize=8)
plt.show()

# %% [markdown]
# The plain RNN's gradient is gone after forty steps, and so are those of GRU and LSTM with the usual small weights: a gate that is half open halves the gradient at every step. What an LSTM has and an RNN has not is the choice:
# with its forget gates open the Jacobian's radius is one, whatever `W_hh` is.
#
# `train.fit` looks at this at steps 1, 10, 100 and so on, and says it in the history:

# %%


class Adder(nn.Module):
    def __init__(self):
        self.rnn, self.head = nn.RNN(2, 16, rng=0), nn.Linear(16, 1, rng=1)

    def forward(self, x):
        return self.head(self.rnn(x)[0][-1])


def mean_squared(model, batch):
    return nn.functional.mse_loss(model(batch[0]), batch[1])


model = Adder()
history = train.fit(model, [data.adding_problem(100, 16, rng=0)], mean_squared, optim.SGD(model.parameters(), lr=0.01), steps=1, progress=False)
for text in history.warnings:
    print(text)
assert "vanishes" in history.warnings[0]

# %% [markdown]
# ## The wall
#
# One unit, fifty steps: $x_t = w\,\sigma(x_{t-1}) + b$, and the error is $(\sigma(x_{50}) - 0.7)^2$ (Pascanu, Mikolov and Bengio 2013, figure 6). Where the unit begins to have two resting points instead of one, the error has a wall.
# The whole surface is one tensor computation: a grid of weights as a batch.


# %%
def error(w, b, steps=50):
    x = w * 0 + 0.5
    for t in range(steps):
        with tg.scope("unit", step=t):
            x = w * tg.sigmoid(x) + b
    return (tg.sigmoid(x) - 0.7) ** 2


ws, bs = np.meshgrid(np.linspace(3.5, 6, 160), np.linspace(-3, -1.6, 160))
w, b = tg.tensor(ws, requires_grad=True), tg.tensor(bs, requires_grad=True)
surface = error(w, b)
slopes = np.hypot(*(g.numpy() for g in tg.grad(surface.sum(), [w, b])))
print(f"slope: {np.median(slopes):.3f} in the middle, {slopes.max():.0f} at the wall")
assert slopes.max() > 1000 * np.median(slopes)


# %%
def descend(w, b, clip, steps=60, lr=0.3):
    point = [tg.tensor([w], requires_grad=True, dtype=np.float64), tg.tensor([b], requires_grad=True, dtype=np.float64)]
    optimizer, path = optim.SGD(point, lr=lr), []
    for _ in range(steps):
        loss = error(*point).sum()
        loss.backward()
        norm = optim.clip_grad_norm_(point, clip)
        path.append((point[0].item(), point[1].item(), loss.item(), norm))
        optimizer.step()
        optimizer.zero_grad()
    return np.array(path)


free, clipped = descend(5.0, -2.2, np.inf), descend(5.0, -2.2, 0.1)
figure = plt.figure(figsize=(9.5, 4), layout="constrained")
axes = figure.add_subplot(1, 2, 1, projection="3d")
axes.plot_surface(ws, bs, surface.numpy(), cmap="viridis", rcount=160, ccount=160, linewidth=0, antialiased=False)
axes.view_init(30, -110)
axes.set_xlabel("w")
axes.set_ylabel("b")
axes.set_zlabel("error")
axes.set_yticks([-3.0, -2.5, -2.0])
axes.set_box_aspect(None, zoom=0.95)
axes = figure.add_subplot(1, 2, 2)
image = axes.imshow(np.log10(slopes), origin="lower", extent=(3.5, 6, -3, -1.6), aspect="auto", cmap="magma")
figure.colorbar(image, label="log10 of the gradient's norm")
axes.plot(*free[:, :2].T, "o--", color="#56B4E9", markersize=4, label="without clipping")
axes.plot(*clipped[:, :2].T, ".-", color="white", markersize=3, linewidth=0.8, label="clipped at 0.1")
axes.set_xlim(3.5, 6)
axes.set_ylim(-3, -1.6)
axes.set_xlabel("w")
axes.set_ylabel("b")
axes.legend(fontsize=8)
plt.show()
moved = np.abs(np.diff(free[:, :2], axis=0)).max()
print(f"without clipping: a gradient of norm {free[:, 3].max():.0f} moves the weights by {moved:.1f}, and the error ends at {free[-1, 2]:.3f}")
print(
    f"with clipping: gradients up to {clipped[:, 3].max():.0f} came, no step was longer than {np.abs(np.diff(clipped[:, :2], axis=0)).max():.2f}, and the last ten errors are at most {clipped[-10:, 2].max():.3f}"
)
assert moved > 5 and free[-1, 2] > 0.08
assert np.abs(np.diff(clipped[:, :2], axis=0)).max() <= 0.03 + 1e-9 and clipped[-10:, 2].max() < 0.03

# %% [markdown]
# ## Pass or fail: temporal order
#
# Two symbols out of {A, B} hide among distractors, one early and one in the middle; at the end the network says in which order they came (Pascanu 2013, section 4.1). A guess is right in one case of four. The same RNN of 50 tanh units, the same seeds, plain SGD with a
# learning rate of 0.2, recurrent weights of spectral radius 0.95; clipping at norm 1 is the only difference. Solved means right on at least 99 % of 500 new sequences, twice in a row.


# %%
class Order(nn.Module):
    def __init__(self, seed):
        self.rnn, self.head = nn.RNN(6, 50, rng=seed), nn.Linear(50, 4, rng=seed)
        with tg.no_grad():
            self.rnn.weight_hh_l0 *= 0.95 / float(tg.diagnostics.spectral_radius(self.rnn.weight_hh_l0))

    def forward(self, ids):
        return self.head(self.rnn(np.eye(6, dtype=np.float32)[ids])[0][-1])


def attempt(T, seed, clip, steps):
    """The step at which it was solved or None, the last accuracy, the norms of all gradients, and the network."""
    model, source = Order(seed), np.random.default_rng(seed + 100)
    optimizer, norms, passed = optim.SGD(model.parameters(), lr=0.2), [], 0
    test, answers = data.temporal_order(T, 500, rng=999)
    for step in range(1, steps + 1):
        ids, order = data.temporal_order(T, 20, source)
        nn.functional.cross_entropy(model(ids), order).backward()
        norms.append(optim.clip_grad_norm_(model.parameters(), clip))
        optimizer.step()
        optimizer.zero_grad()
        if step % 100 == 0:
            with tg.no_grad():
                accuracy = float((model(test).numpy().argmax(-1) == answers).mean())
            passed = passed + 1 if accuracy >= 0.99 else 0
            if passed == 2:
                return step, accuracy, norms, model
    return None, accuracy, norms, model


lengths, seeds, steps = ([20, 30, 50], range(10), 5000) if FULL else ([20], range(3), 1000)
results = {(T, seed, clip): attempt(T, seed, clip, steps) for T in lengths for clip in (1.0, np.inf) for seed in seeds}
for T in lengths:
    for clip, name in ((1.0, "clipped at 1"), (np.inf, "not clipped")):
        runs = [results[T, seed, clip] for seed in seeds]
        solved = [step for step, *_ in runs if step]
        print(f"T = {T}, {name:12}: solved {len(solved)} of {len(runs)}; steps {solved}; accuracies of the others {[round(a, 2) for step, a, *_ in runs if not step]}")
assert all(results[20, seed, 1.0][0] for seed in seeds), "with clipping every seed solves it"
assert not any(results[20, seed, np.inf][0] for seed in seeds), "without clipping none does"

# %%
figure, axes = plt.subplots(figsize=(7, 3))
for clip, name, colour in ((1.0, "clipped at 1 (before clipping)", "#0072B2"), (np.inf, "not clipped", "#D55E00")):
    axes.plot(results[20, 0, clip][2], color=colour, linewidth=0.7, label=name)
axes.set_yscale("log")
axes.set_xlabel("training step (T = 20, seed 0)")
axes.set_ylabel("norm of the gradient")
axes.legend(fontsize=8)
plt.show()

# %% [markdown]
# What became of the two networks? The units of one lie between their bounds; most of the time those of the other are at them, where tanh has next to no slope: what came early has no way back.

# %%
test, answers = data.temporal_order(20, 500, rng=999)
saturated = {}
for clip, name in ((1.0, "clipped"), (np.inf, "not clipped")):
    states = tg.diagnostics.activation_map(results[20, 0, clip][3](test))
    print(f"{name}:\n{states}\n")
    saturated[clip] = float((abs(states["l0 h"]) > 0.95).mean())
assert saturated[np.inf] > 2 * saturated[1.0]

# %% [markdown]
# `weight_report` looks at the weights and at one more update of them. An update of a thousandth of a weight's size refines it; one of a quarter throws it about. No unit counts as saturated, which would be beyond 0.99 nine times in ten.

# %%
for clip, name in ((1.0, "clipped"), (np.inf, "not clipped")):
    model = results[20, 0, clip][3]
    before = {key: weight.numpy().copy() for key, weight in model.named_parameters()}
    nn.functional.cross_entropy(model(test), answers).backward()
    optimizer = optim.SGD(model.parameters(), lr=0.2)
    optim.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    print(f"{name}:\n{tg.diagnostics.weight_report(model, model(test), before=before)}\n")
    optimizer.zero_grad()

# %% [markdown]
# ## The full setting
#
# `FULL=1 MPLBACKEND=Agg python notebooks/07_vanishing_and_exploding_gradients.py` at commit c8d1229, seeds 0 to 9, at most 5,000 steps each (five minutes of one core):
#
# | T | clipped at 1: solved | after how many steps (median) | not clipped: solved | accuracy of those that failed |
# |---|---|---|---|---|
# | 20 | 10 of 10 | 300 to 900 (450) | 0 of 10 | 0.23 to 0.26 |
# | 30 | 10 of 10 | 700 to 2,400 (1,000) | 0 of 10 | 0.24 to 0.27 |
# | 50 | 0 of 10 | | 0 of 10 | 0.19 to 0.27 |
#
# Clipping takes care of what explodes, and of nothing else. Before training, this is what is left of the gradient at the step of the first symbol:

# %%
for T in (20, 30, 50):
    ids, order = data.temporal_order(T, 500, rng=999)
    norms = tg.diagnostics.gradient_flow(nn.functional.cross_entropy(Order(0)(ids), order))["l0 h"]
    print(f"T = {T}: 1/{norms[-1] / norms[T // 10]:.0f} of that at the last step")
assert norms[T // 10] < norms[-1] / 100
