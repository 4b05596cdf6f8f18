"""Modules, layers and recurrent networks, with PyTorch's names, arguments and ``state_dict`` layout."""

from . import functional, init
from .layers import AvgPool2d, Conv2d, Dropout, Embedding, Flatten, Identity, LayerNorm, Linear, MaxPool2d, ReLU, Sigmoid, Softmax, Tanh
from .losses import BCEWithLogitsLoss, CrossEntropyLoss, HuberLoss, L1Loss, MSELoss, NLLLoss
from .module import Module, ModuleList, Parameter, Sequential
from .recurrent import GRU, LSTM, RNN, GRUCell, LSTMCell, Recurrent, RNNCell
from .saving import build, config, load_model, save_model
from .sequence import Attention, EncoderDecoder, LanguageModel, SequenceClassifier, SequenceTagger

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Attention",
    "AvgPool2d",
    "BCEWithLogitsLoss",
    "Conv2d",
    "CrossEntropyLoss",
    "Dropout",
    "Embedding",
    "EncoderDecoder",
    "Flatten",
    "GRUCell",
    "HuberLoss",
    "Identity",
    "L1Loss",
    "LSTMCell",
    "LanguageModel",
    "LayerNorm",
    "Linear",
    "MSELoss",
    "MaxPool2d",
    "Module",
    "ModuleList",
    "NLLLoss",
    "Parameter",
    "RNNCell",
    "ReLU",
    "Recurrent",
    "SequenceClassifier",
    "SequenceTagger",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "Tanh",
    "build",
    "config",
    "functional",
    "init",
    "load_model",
    "save_model",
]
