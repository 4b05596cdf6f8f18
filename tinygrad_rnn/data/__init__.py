"""Data for recurrent networks: symbols to integers, windows and batches that can be resumed, corpora, and problems with a known floor.

>>> import tinygrad_rnn.data as data
>>> text = data.reference_text()
>>> vocabulary = data.Vocabulary.from_text(text)
>>> train, valid, test = data.split(vocabulary.encode(text))
>>> for inputs, targets, start in data.windows(train, window=64, batch_size=32, rng=0):
...     break
>>> inputs.shape, targets.shape, start
((64, 32), (64, 32), True)

Arrays have time first: (time, batch, features) and (time, batch). Symbols are int64, other numbers of the default dtype.
"""

from .batches import batches, collate, pad
from .corpora import labelled_csv, pairs
from .epochs import Epochs
from .music import chorales, piano_roll
from .ngrams import WittenBell
from .tasks import adding_problem, copy_memory, temporal_order
from .text import read_text, reference_text, split, tokenize
from .vocabulary import Vocabulary
from .windows import Window, windows

__all__ = [
    "Epochs",
    "Vocabulary",
    "Window",
    "WittenBell",
    "adding_problem",
    "batches",
    "chorales",
    "collate",
    "copy_memory",
    "labelled_csv",
    "pad",
    "pairs",
    "piano_roll",
    "read_text",
    "reference_text",
    "split",
    "temporal_order",
    "tokenize",
    "windows",
]
