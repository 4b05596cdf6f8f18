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
# # Pictures of unrolled networks
#
# `tg.graph(loss)` draws what was computed. Time runs to the right, one column a step; the states run on level rails; a weight stands once, in the legend, and every use of it carries its colour.
# With `gradients=True` the lines show the gradient on its way back.

# %%
import numpy as np

import tinygrad_rnn as tg
from tinygrad_rnn import nn

rng = np.random.default_rng(1)


def numbers(*shape):
    return tg.tensor(rng.standard_normal(shape).astype(np.float32), name="x")


output, (h, c) = nn.LSTM(6, 8, rng=0)(numbers(3, 2, 6))
tg.graph((h * h).mean(), gradients=True)

# %% [markdown]
# The LSTM ran as one replayed record; the picture opens it. The dotted line at the first step is exactly zero: `c0` is zero, so the forget gate has nothing to forget. The thin ones were never asked for.
#
# ## Fifty steps
#
# Steps that do the same, operand by operand, fold into one box. `fold=None` draws them all, `fold=3` leaves three at each end.

# %%
output, (h, c) = nn.LSTM(6, 8, rng=0)(numbers(50, 2, 6))
picture = tg.graph((h * h).mean(), gradients=True)
picture

# %% [markdown]
# The picture is data. What each step adds to the gradient of a weight:

# %%
weight = picture.parameters[1]
print(weight.name, weight.shape, f"{weight.uses} uses, gradient norm {weight.norm:.2g}")
print([f"{weight.shares[t]:.0e}" for t in (1, 10, 20, 30, 40, 50)])


# %% [markdown]
# ## Where the gradient dies, and where it explodes
#
# Two linear recurrences, of which one shrinks what flows back by 0.6 at each step, and one stretches it by 1.7.


# %%
def recurrence(scale):
    source = np.random.default_rng(0)
    W = tg.tensor(np.linalg.qr(source.standard_normal((8, 8)))[0] * scale, requires_grad=True, name="W")
    U = tg.tensor(source.standard_normal((6, 8)) * 0.01, requires_grad=True, name="U")

    def step(x, h):
        h = x @ U + h @ W
        return h, h

    _, h = tg.unroll(step, tg.tensor(source.standard_normal((30, 2, 6))), tg.zeros(2, 8, dtype=np.float64))
    return h.sum()


tg.graph(recurrence(0.6), gradients=True, fold=2)

# %%
tg.graph(recurrence(1.7), gradients=True, fold=2)

# %% [markdown]
# ## Layers, directions, attention
#
# Layers stand upon each other; a backward direction runs from right to left on its own row; what runs on all steps at once is a bar.

# %%
output, state = nn.GRU(6, 8, bidirectional=True, rng=0)(numbers(3, 2, 6))
tg.graph((output * output).mean(), gradients=True)

# %%
model = nn.EncoderDecoder(20, 30, 8, attention="dot", cell="rnn", rng=0)
source, target = np.full((3, 2), 5), np.full((4, 2), 7)
logits = model(source, target)
tg.graph(nn.functional.cross_entropy(logits, target[1:], axis=-1), gradients=True)

# %% [markdown]
# ## Three depths, and the textbook's left-hand picture

# %%
output, state = nn.LSTM(6, 8, num_layers=2, rng=0)(numbers(6, 2, 6))
tg.graph((output * output).mean(), depth="cell", gradients=True)

# %%
output, (h, c) = nn.LSTM(6, 8, rng=0)(numbers(6, 2, 6))
tg.graph((h * h).mean(), rolled=True)

# %% [markdown]
# ## A network without time
#
# A module draws itself; the lines carry the sizes.

# %%
network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, rng=0), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(784, 10, rng=0))
network.graph(numbers(2, 1, 28, 28))

# %% [markdown]
# `picture.save("lstm.svg")` writes the picture; the names may end in `.svg`, `.dot`, `.html`, `.png` and `.pdf`. More of them are in `notebooks/gallery`.
