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
# # Memory and unrolling
#
# A recurrent network reads one input after another and keeps a state. The state is all that it knows of what it has read; the same weights are used at every step. Written by hand, it is five lines.

# %%
import matplotlib.pyplot as plt
import numpy as np

import tinygrad_rnn as tg
from tinygrad_rnn import nn, optim

T, BATCH, INPUTS, UNITS = 5, 2, 3, 4
rng = np.random.default_rng(0)
x = tg.tensor(rng.standard_normal((T, BATCH, INPUTS)), name="x")
W_xh = tg.tensor(rng.standard_normal((INPUTS, UNITS)) * 0.5, requires_grad=True, name="W_xh")
W_hh = tg.tensor(rng.standard_normal((UNITS, UNITS)) * 0.5, requires_grad=True, name="W_hh")
b = tg.zeros(UNITS, dtype=np.float64, requires_grad=True, name="b")


def run(x, weights, h):
    for t in range(len(x)):
        with tg.scope("rnn", step=t):
            h = tg.tanh(x[t] @ W_xh + h @ weights[t] + b)
            h.name = "h"
    return h


h0 = tg.zeros(BATCH, UNITS, dtype=np.float64, name="h0")
loss = (run(x, [W_hh] * T, h0) ** 2).sum()

# %% [markdown]
# ## Rolled and unrolled
#
# The textbook's two pictures, both drawn from what was computed: one step with a loop, and all of its steps side by side.

# %%
tg.graph(loss, rolled=True, name="rolled")

# %%
picture = tg.graph(loss, gradients=True, name="unrolled")
picture

# %% [markdown]
# The lines show what flows back: `loss.backward()` goes through the unrolled picture from right to left. `W_hh` stands once, in the legend, with what each step adds to its gradient.
#
# ## A shared weight's gradient is the sum over its uses
#
# Untie the weight: five copies, each used once. Nothing changes in what is computed, and each copy gets the share of its own step.

# %%
(tied,) = tg.grad((run(x, [W_hh] * T, h0) ** 2).sum(), [W_hh])
copies = [tg.tensor(W_hh.data, requires_grad=True, name=f"W{t + 1}") for t in range(T)]
shares = tg.grad((run(x, copies, h0) ** 2).sum(), copies)
total = sum(share.numpy() for share in shares)
print("largest difference:", abs(total - tied.numpy()).max())
assert np.allclose(total, tied.numpy(), rtol=1e-12)

weight = next(p for p in picture.parameters if p.name == "W_hh")
norms = [np.linalg.norm(share.numpy()) for share in shares]
assert np.allclose([weight.shares.get(t + 1, 0.0) for t in range(T)], norms), "the picture's bars are these shares"

# %% [markdown]
# By hand, without any autograd: $\delta_T = \partial L/\partial a_T$ with $a_t = x_t W_{xh} + h_{t-1} W_{hh} + b$, then $\delta_{t-1} = (\delta_t W_{hh}^\top)(1 - h_{t-1}^2)$, and step $t$ adds $h_{t-1}^\top \delta_t$.

# %%
states = [h0.numpy()]
for t in range(T):
    states.append(np.tanh(x.data[t] @ W_xh.data + states[-1] @ W_hh.data + b.data))
delta = 2 * states[T] * (1 - states[T] ** 2)
for t in range(T, 0, -1):
    assert np.allclose(states[t - 1].T @ delta, shares[t - 1].numpy())
    delta = delta @ W_hh.data.T * (1 - states[t - 1] ** 2)

# %% [markdown]
# Truncated backpropagation through time cuts the state off some steps before the end: `detach()` at the cut. What is left are the shares of the last steps. (The first step's share is zero in any case: it multiplies $h_0 = 0$.)

# %%
middle = run(x[:2], [W_hh] * 2, h0)
(truncated,) = tg.grad((run(x[2:], [W_hh] * 3, middle.detach()) ** 2).sum(), [W_hh])
assert np.allclose(truncated.numpy(), sum(share.numpy() for share in shares[2:]))

figure, axes = plt.subplots(figsize=(6, 2.6))
axes.bar(range(1, T + 1), norms, color=["#999999"] * 2 + ["#0072B2"] * 3)
axes.set_xlabel("step t")
axes.set_ylabel("norm of its share")
axes.set_title("what each step adds to the gradient of W_hh; grey: lost by a cut after step 2", fontsize=9)
plt.show()

# %% [markdown]
# ## What does the state remember?
#
# Change the first input alone, and watch the two states come together again: that is forgetting. Scaled to a larger spectral radius, the same weights remember for longer.

# %%
steps = 40
source = np.random.default_rng(1)
inputs = source.standard_normal((steps, 1, INPUTS)) * 0.1
other = inputs.copy()
other[0] += 1.0
figure, axes = plt.subplots(figsize=(6, 2.8))
kept = []
for radius in (0.5, 0.9, 0.99):
    scaled = tg.tensor(W_hh.data * (radius / float(tg.diagnostics.spectral_radius(W_hh))))

    def step(x_t, h, W=scaled):
        h = tg.tanh(x_t @ W_xh + h @ W + b)
        return h, h

    (a, _), (c, _) = (tg.unroll(step, tg.tensor(given), tg.zeros(1, UNITS, dtype=np.float64)) for given in (inputs, other))
    distance = np.linalg.norm((a - c).numpy(), axis=(1, 2))
    kept.append(distance[-1] / distance[0])
    axes.plot(range(1, steps + 1), distance, label=f"spectral radius {radius}")
axes.set_yscale("log")
axes.set_xlabel("step t")
axes.set_ylabel("distance of the states")
axes.legend()
plt.show()
assert kept[0] < kept[1] < kept[2]
print("left of the difference after 40 steps:", [f"{k:.0e}" for k in kept])

# %% [markdown]
# ## `unroll`: the same loop, recorded once
#
# `tg.unroll` takes the step alone. It records one, derives its backward program, and replays both: one record on the tape, the same gradient. Pictures open it again.


# %%
def by_hand(x_t, h):
    h = tg.tanh(x_t @ W_xh + h @ W_hh + b)
    h.name = "h"
    return h, h


_, h = tg.unroll(by_hand, x, h0)
unrolled = (h**2).sum()
print(tg.tape(unrolled))
(g,) = tg.grad(unrolled, [W_hh], retain_graph=True)
assert np.allclose(g.numpy(), tied.numpy())
assert len(tg.graph(unrolled).clusters) == len(picture.clusters)


# %% [markdown]
# ## A memory that is learnt
#
# Ten random bits; say at the end what the first one was. Only the state can know.


# %%
def echo(batch, source):
    bits = source.integers(0, 2, size=(10, batch))
    return (2.0 * bits[..., None] - 1).astype(np.float32), bits[0]


class Echo(nn.Module):
    def __init__(self):
        self.rnn, self.head = nn.RNN(1, 16, rng=0), nn.Linear(16, 2, rng=1)

    def forward(self, x):
        outputs, _ = self.rnn(x)
        return self.head(outputs[-1])


model, source = Echo(), np.random.default_rng(2)
optimizer = optim.Adam(model.parameters(), lr=0.01)
for _ in range(400):
    signals, first = echo(32, source)
    loss = nn.functional.cross_entropy(model(signals), first)
    loss.backward()
    optim.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
signals, first = echo(1000, np.random.default_rng(3))
accuracy = float((model(signals).numpy().argmax(-1) == first).mean())
print(f"right on {accuracy:.1%} of 1,000 new sequences")
assert accuracy > 0.99

# %% [markdown]
# Which units hold the bit? Two sequences that differ in their first bit alone, the states of both over time:

# %%
pair = np.repeat(signals[:, :1], 2, axis=1)
pair[0, 1] *= -1
outputs, _ = model.rnn(pair)
activations = tg.diagnostics.activation_map(outputs)["l0 h"]
difference = abs(activations[-1, 0] - activations[-1, 1])
figure, axes = plt.subplots(1, 2, figsize=(7, 2.6), sharey=True, layout="constrained")
for k, panel in enumerate(axes):
    panel.imshow(activations[:, k].T, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto", extent=(0.5, 10.5, 16.5, 0.5))
    panel.set_title(f"first bit {int(pair[0, k, 0] > 0)}", fontsize=9)
    panel.set_xlabel("step t")
axes[0].set_ylabel("unit")
plt.show()
print("units that still tell the two apart at the end:", int((difference > 1).sum()), "of 16")
assert (difference > 1).any()
