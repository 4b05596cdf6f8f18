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
# # The engine: a tape and one sweep over it
#
# A `Tensor` is an array plus its place on a tape. Everything below is a reader of that tape: the listing, the gradient, the second derivative, the memory.

# %%
import numpy as np

import tinygrad_rnn as tg

# %% [markdown]
# ## One network, three time steps, one shared weight
#
# The same `W` is used at every step. `scope` marks which step a record belongs to.

# %%
W = tg.randn(3, 3, rng=0, requires_grad=True, name="W")
h0 = tg.tensor([[1.0, 0.0, -1.0]], name="h0")


def run(h, weights):
    for t, weight in enumerate(weights):
        with tg.scope("step", step=t):
            h = tg.tanh(h @ weight)
    return h


loss = (run(h0, [W] * 3) ** 2).sum()
print(tg.tape(loss))

# %% [markdown]
# Each record keeps only what its rule names: `tanh` its output, `matmul` the operands. `loss.backward()` sweeps the records from the last to the first.

# %%
loss.backward()
W.grad

# %% [markdown]
# ## The gradient of a shared weight is the sum over its uses
#
# Untie the weight: three copies, each used once. Their gradients add up to the one above, and each says how much its step contributes.

# %%
copies = [tg.tensor(W.data, requires_grad=True, name=f"W{t}") for t in range(3)]
(run(h0, copies) ** 2).sum().backward()
total = sum(copy.grad for copy in copies)
print("largest difference:", float(abs(total - W.grad).max()))
print("norm of each step's share:", [round(float(tg.norm(copy.grad)), 4) for copy in copies])
assert np.allclose(total.numpy(), W.grad.numpy(), rtol=1e-5, atol=1e-6)

# %% [markdown]
# ## Is it right? Ask the function itself
#
# A directional derivative from differences, in float64, against the gradient from the sweep.

# %%
W64 = tg.tensor(W.data.astype(np.float64), requires_grad=True)
h64 = tg.tensor(h0.data.astype(np.float64))
direction = np.random.default_rng(1).standard_normal(W64.shape)


def f(weight):
    return (run(h64, [weight] * 3) ** 2).sum()


step = 1e-5
differences = (f(tg.tensor(W64.data + step * direction)) - f(tg.tensor(W64.data - step * direction))) / (2 * step)
swept = (tg.grad(f(W64), W64) * direction).sum()
print(float(differences), float(swept))
assert abs(float(differences - swept)) < 1e-8

# %% [markdown]
# ## Gradients of gradients
#
# The rules are made of the same operations, so that a sweep can itself be recorded. `hvp` is a Hessian times a vector, `hessian` all of it; no second set of rules exists.

# %%
product = tg.hvp(f, W64, tg.tensor(direction))
whole = tg.hessian(f, W64)
print(whole.shape)
assert np.allclose(np.tensordot(whole.data, direction, 2), product.data)
assert np.allclose(whole.data, whole.data.transpose(2, 3, 0, 1)), "a Hessian is symmetric"

# %% [markdown]
# ## Vanishing, seen on the tape
#
# `retain_grad` keeps the gradient that arrives at a computed tensor. Small weights shrink it at every step, large ones blow it up.

# %%
for scale in (0.5, 1.0, 3.0):
    weight = tg.tensor(np.linalg.qr(np.random.default_rng(2).standard_normal((8, 8)))[0] * scale, requires_grad=True)
    h, states = tg.tensor(np.full((1, 8), 0.01)), []
    for _ in range(12):
        h = h @ weight
        h.retain_grad() if h.requires_grad else None
        states.append(h)
    h.sum().backward()
    norms = [float(tg.norm(state.grad)) for state in states]
    print(f"weights of norm {scale}: the gradient at the last step {norms[-1]:.3g}, eleven steps earlier {norms[0]:.3g}")

# %% [markdown]
# ## Memory: what the tape keeps, and `checkpoint`

# %%
U = tg.randn(64, 64, rng=3) * 0.1
U.requires_grad_()


def many(h, count):
    for _ in range(count):
        h = tg.tanh(h @ U)
    return h


start = tg.zeros((16, 64)) + 0.1
plain = many(start, 100).sum()
cheap = start
for _ in range(10):
    cheap = tg.checkpoint(many, cheap, 10)
cheap = cheap.sum()
print(f"plain: {tg.tape(plain).nbytes:,} bytes kept; ten segments: {tg.tape(cheap).nbytes:,}")
(a,) = tg.grad(plain, [U])
(b,) = tg.grad(cheap, [U])
assert np.allclose(a.data, b.data, rtol=1e-4, atol=1e-6)

# %% [markdown]
# ## An operation of your own
#
# A function of ndarrays and a rule an argument. What a rule's parameters name is kept for it, nothing else.


# %%
@tg.primitive
def softsign(x):
    return x / (1 + np.abs(x))


@softsign.rule
def softsign_x(g, x):
    return g / (1 + abs(x)) ** 2


x = tg.tensor([-2.0, 0.5, 3.0], requires_grad=True, name="x")
y = softsign(x)
print(tg.tape(y))
print(tg.grad(y.sum(), x), tg.hvp(lambda v: softsign(v).sum(), x, tg.ones(3)))

# %% [markdown]
# The function that you call was written for you, from the signature and the rule:

# %%
print(softsign.primitive.source)

# %% [markdown]
# ## Where did the NaN come from?

# %%
with np.errstate(all="ignore"), tg.detect_anomaly(), tg.scope("cell", step=4):
    try:
        tg.sqrt(tg.tensor([1.0, -1.0], requires_grad=True, name="variance"))
    except tg.errors.GradientError as error:
        print(str(error).split(", recorded at")[0])
