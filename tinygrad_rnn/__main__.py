"""``python -m tinygrad_rnn``: train a recurrent language model on a text, write with it, look at it."""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import sys
import time
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

import tinygrad_rnn as tg

from . import data, files, nn, optim, train
from .atomic import atomic_write
from .errors import TinygradError

MODEL, CHECKPOINT, RUN = "model.safetensors", "checkpoint.safetensors", "run.json"
STEPS = 1800


class _Parser(argparse.ArgumentParser):
    """Every bad argument is one line and exit status 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (--help tells more)\n")


def _positive(kind: Any) -> Any:
    def convert(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not (value > 0 and math.isfinite(value)):
            raise argparse.ArgumentTypeError(f"expected a positive {'whole number' if kind is int else 'number'}, got {text!r}")
        return value

    return convert


def _seed(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 0, got {text!r}")
    return int(text)


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to below 1, got {text!r}")
    return value


def _temperature(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not (value >= 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"expected a number of at least 0, got {text!r}")
    return value


def parser() -> argparse.ArgumentParser:
    top = _Parser(prog="python -m tinygrad_rnn", description="Recurrent networks on NumPy: train a language model on a text, write with it, look at it.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    numbers = argparse.ArgumentDefaultsHelpFormatter

    one = commands.add_parser(
        "train", formatter_class=numbers, help="learn a text, character by character",
        description="Learn to predict each next character of a text. The last tenth of the text is held out and measured at the end, beside "
        "character n-gram models of the same text; the tenth before it says when to stop. In the folder --out this leaves the model, its "
        "history (CSV, and a plot where matplotlib is installed) and the network unrolled over three steps (DOT, and SVG where Graphviz is installed).",
    )  # fmt: skip
    one.add_argument("file", nargs="?", metavar="FILE", help="a UTF-8 text; without it Python's own reference texts, 465,126 characters")
    one.add_argument("--out", default="model", metavar="DIR", help="the folder to write to")
    one.add_argument("--cell", choices=tuple(nn.sequence.CELLS), default="lstm", help="the kind of recurrent cell")
    one.add_argument("--hidden", type=_positive(int), default=192, metavar="N", help="units a layer: more can learn more, and take longer")
    one.add_argument("--layers", type=_positive(int), default=1, metavar="N", help="recurrent layers on top of each other")
    one.add_argument("--embedding", type=_positive(int), default=64, metavar="N", help="numbers that stand for a character")
    one.add_argument("--dropout", type=_fraction, default=0.1, metavar="P", help="share of the values that are dropped in training, against learning by heart")
    one.add_argument("--window", type=_positive(int), default=64, metavar="N", help="steps through which gradients flow back; the state goes on beyond")
    one.add_argument("--batch", type=_positive(int), default=32, metavar="N", help="places of the text that are read side by side")
    one.add_argument("--lr", type=_positive(float), default=4e-3, metavar="X", help="the learning rate of Adam at its highest")
    one.add_argument("--clip", type=_positive(float), default=1.0, metavar="X", help="the largest norm that gradients may have")
    one.add_argument("--steps", type=_positive(int), default=argparse.SUPPRESS, metavar="N", help=f"updates of the weights (default: {STEPS}, or as many as --minutes allow)")
    one.add_argument("--minutes", type=_positive(float), default=argparse.SUPPRESS, metavar="X", help="time for training at most")
    one.add_argument("--encoding", default="utf-8", metavar="NAME", help="of the text")
    one.add_argument("--seed", type=_seed, default=0, metavar="N", help="of the weights and of the order of the data: the same seed, the same model")
    one.add_argument("--resume", action="store_true", help="go on where the run in --out was stopped")
    one.set_defaults(run=run_train)

    two = commands.add_parser("generate", formatter_class=numbers, help="write a text with a trained model", description="Write a text, character by character.")
    two.add_argument("model", metavar="MODEL", help="a folder that `train` made, or a model file in it")
    two.add_argument("--prompt", default=None, metavar="TEXT", help="how the text begins; a line break without it")
    two.add_argument("--length", type=_positive(int), default=600, metavar="N", help="characters to write")
    two.add_argument("--temperature", type=_temperature, default=0.8, metavar="X", help="0 always takes the likeliest character, 1 draws as the model believes, more is wilder")
    two.add_argument("--top-k", type=_positive(int), default=None, metavar="N", help="draw among the N likeliest characters alone")
    two.add_argument("--seed", type=_seed, default=None, metavar="N", help="the same seed, the same text")
    two.set_defaults(run=run_generate)

    three = commands.add_parser("graph", formatter_class=numbers, help="draw a model, unrolled", description="Draw the network unrolled over a few steps.")
    three.add_argument("model", metavar="MODEL", help="a folder that `train` made, or a model file in it")
    three.add_argument("--steps", type=_positive(int), default=3, metavar="N", help="time steps to draw")
    three.add_argument("--out", default="graph.svg", metavar="FILE", help=".svg, .html and .dot need nothing; .png and .pdf need cairosvg or Graphviz")
    three.set_defaults(run=run_graph)

    four = commands.add_parser("info", help="what a model file holds", description="What a model file holds: the network, its parameters, how it was trained.")
    four.add_argument("model", metavar="MODEL", help="a folder that `train` made, or a model file")
    four.set_defaults(run=run_info)
    return top


def language_loss(model: Any, batch: Any, state: Any) -> tuple[tg.Tensor, Any]:
    """Mean cross-entropy of the next symbols, and the state to carry on."""
    logits, state = model(batch.inputs, state)
    return nn.functional.cross_entropy(logits, batch.targets, axis=-1), state


def started(options: argparse.Namespace, text: str, vocabulary: data.Vocabulary) -> None:
    """Note in the folder how the run was started; one that is resumed must be the same."""
    if os.path.exists(options.out) and not os.path.isdir(options.out):
        raise ValueError(f"--out {options.out} is a file, expected a folder")
    os.makedirs(options.out, exist_ok=True)
    settings = {name: value for name, value in vars(options).items() if name not in ("run", "command", "out", "resume", "minutes", "file", "encoding")}
    settings["text"] = hashlib.sha256(text.encode()).hexdigest()
    path = os.path.join(options.out, RUN)
    if options.resume and os.path.exists(os.path.join(options.out, CHECKPOINT)) and os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            before = json.load(file)["settings"]
        other = [f"{name} was {before.get(name)!r}, now {settings.get(name)!r}" for name in sorted({*before, *settings}) if before.get(name) != settings.get(name)]
        if other:
            raise ValueError(f"--resume: the run in {options.out} was started otherwise ({'; '.join(other)}); resume it as it was, or take another --out")
    elif options.resume:
        print(f"there is nothing to resume in {options.out}: the run begins")
    atomic_write(path, json.dumps({"settings": settings, "vocabulary": vocabulary.to_json()}).encode())


class Annealing:
    """The learning rate's way down by the clock, where there is no number of steps to go by."""

    def __init__(self, seconds: float, lr: float) -> None:
        self.seconds, self.lr, self.begin = seconds, lr, time.monotonic()

    def __call__(self, progress: train.Progress) -> None:
        done = min(1.0, (time.monotonic() - self.begin) / self.seconds)
        warm = min(1.0, progress.row["step"] / 50)
        for group in progress.optimizer.param_groups:
            group["lr"] = self.lr * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))


def run_train(options: argparse.Namespace) -> None:
    text = data.reference_text() if options.file is None else data.read_text(options.file, encoding=options.encoding)
    vocabulary = data.Vocabulary.from_text(text)
    ids = vocabulary.encode(text)
    learn, check, held_out = data.split(ids)
    needed = 2 * (options.window * options.batch + 1)
    if len(learn) < needed:
        raise ValueError(f"the text is too short: {len(text):,} characters, of which {len(learn):,} to learn from; --window {options.window} --batch {options.batch} needs {needed:,}")
    started(options, text, vocabulary)
    source = np.random.default_rng(options.seed)
    model = nn.LanguageModel(len(vocabulary), options.hidden, embedding_dim=options.embedding, cell=options.cell, num_layers=options.layers, dropout=options.dropout, rng=source)
    batches = data.windows(learn, options.window, options.batch, rng=source)
    streams = max(1, min(32, (len(check) - 1) // 256))

    def measured(part: np.ndarray) -> float:
        return train.evaluate(model, data.windows(part, min(256, (len(part) - 1) // streams), streams, shuffle=False), language_loss)

    what = "Python's reference texts" if options.file is None else options.file
    print(f"{what}: {len(text):,} characters, {len(vocabulary)} different ones")
    print(f"{options.cell.upper()}, {options.hidden} units, {model.num_parameters():,} parameters; writing to {options.out}", flush=True)
    optimizer = optim.Adam(model.parameters(), options.lr)
    minutes = getattr(options, "minutes", None)
    steps = getattr(options, "steps", STEPS if minutes is None else None)
    schedule: Any = None
    callbacks: list[Any] = []
    if steps is None:
        callbacks.append(Annealing(60 * minutes, options.lr))  # type: ignore[operator]
    else:
        schedule = optim.LinearWarmupLR(optimizer, min(50, max(1, steps // 4)), after=optim.CosineAnnealingLR(optimizer, steps, eta_min=options.lr / 50))
    with np.errstate(all="ignore"):
        history = train.fit(
            model, batches, language_loss, optimizer, steps=steps, seconds=None if minutes is None else 60 * minutes, clip=options.clip,
            validate=lambda _: measured(check), validate_every=len(batches) if steps is None else max(1, min(len(batches), steps // 4)), patience=3, schedule=schedule,
            callbacks=callbacks, checkpoint=os.path.join(options.out, CHECKPOINT), checkpoint_every=100, resume=options.resume,
        )  # fmt: skip
    bits = measured(held_out) / math.log(2)
    facts = {"vocabulary": vocabulary.to_json(), "text": what, "bits": bits, "steps": len(history), "seed": options.seed}
    nn.save_model(os.path.join(options.out, MODEL), model, facts)
    print(f"\n{history}\n\nbits a character on the last tenth of the text, which nothing was learnt from:")
    print(f"  {options.cell.upper():24s} {bits:.3f}")
    known = np.concatenate([learn, check])
    for order in (4, 6):
        print(f"  {f'{order}-gram (Witten-Bell)':24s} {data.WittenBell(order, len(vocabulary)).fit(known).bits(held_out):.3f}")
    history.save(os.path.join(options.out, "history.csv"))
    left = [MODEL, "history.csv"]
    try:
        import matplotlib

        matplotlib.use("Agg")
        history.plot().savefig(os.path.join(options.out, "history.png"), dpi=120)
        left.append("history.png")
    except ImportError:
        pass
    left += draw(model, 3, os.path.join(options.out, "graph.svg"), wanted=False)
    print("\na sample:\n")
    write(model, vocabulary, None, 400, 0.7, None, np.random.default_rng(options.seed))
    print(f"\nin {options.out}: {', '.join(left)}")


def draw(model: Any, steps: int, path: str, wanted: bool) -> list[str]:
    """Write a picture of the network over a few steps, and its DOT text beside it; no picture where nothing draws that format and none was asked for."""
    logits, _ = model.eval()(np.zeros((steps, 1), int))
    picture = tg.graph(logits, name=type(model).__name__, fold=None)
    stem, suffix = os.path.splitext(path)
    picture.save(stem + ".dot")
    names = [os.path.basename(stem) + ".dot"]
    if suffix != ".dot":
        try:
            picture.save(path)
            names.append(os.path.basename(path))
        except RuntimeError as error:
            if wanted:
                raise ValueError(f"cannot draw {path}: {error}; {stem}.dot has the graph as text") from error
    return names


def read_model(path: str) -> tuple[Any, data.Vocabulary | None, dict[str, Any]]:
    if os.path.isdir(path):
        path = os.path.join(path, MODEL)
    model = nn.load_model(path)
    facts = dict(files.load(path).metadata)
    beside = os.path.join(os.path.dirname(path), RUN)
    if "vocabulary" not in facts and os.path.exists(beside):
        with open(beside, encoding="utf-8") as file:
            facts["vocabulary"] = json.load(file)["vocabulary"]
    return model, data.Vocabulary.from_json(facts["vocabulary"]) if "vocabulary" in facts else None, facts


def language_model(path: str) -> tuple[Any, data.Vocabulary]:
    model, vocabulary, _ = read_model(path)
    if not isinstance(model, nn.LanguageModel) or vocabulary is None:
        raise ValueError(f"{path} holds a {type(model).__name__}{'' if vocabulary else ' without a vocabulary'}, expected a language model that `train` made")
    return model, vocabulary


def write(model: Any, vocabulary: data.Vocabulary, prompt: str | None, length: int, temperature: float, top_k: int | None, rng: Any) -> None:
    """Print a text as it is drawn."""
    begin = prompt if prompt is not None else "\n" if "\n" in vocabulary else vocabulary.symbols[0]
    print(prompt or "", end="")
    stream = model.stream(vocabulary.encode(begin), temperature, top_k, rng)
    for _ in range(length):
        print(vocabulary.decode([next(stream)]), end="", flush=True)
    print()


def run_generate(options: argparse.Namespace) -> None:
    model, vocabulary = language_model(options.model)
    write(model, vocabulary, options.prompt, options.length, options.temperature, options.top_k, options.seed)


def run_graph(options: argparse.Namespace) -> None:
    if os.path.splitext(options.out)[1] not in (".dot", ".svg", ".png", ".pdf", ".html"):
        raise ValueError(f"--out {options.out}: expected a name that ends in .dot, .svg, .png, .pdf or .html")
    model, _ = language_model(options.model)
    print("wrote", ", ".join(draw(model, options.steps, options.out, wanted=True)))


def run_info(options: argparse.Namespace) -> None:
    model, vocabulary, facts = read_model(options.model)
    print(model)
    example = [np.zeros((1, 1), int)] if isinstance(model, nn.LanguageModel) else []
    print(f"\n{model.summary(*example) if example else f'{model.num_parameters():,} parameters'}\n")
    if vocabulary is not None:
        print(f"vocabulary: {len(vocabulary)} symbols")
    for name, value in facts.items():
        if name not in ("model", "vocabulary") and isinstance(value, str | int | float):
            print(f"{name}: {value}")


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser().parse_args(arguments)
    try:
        options.run(options)
    except BrokenPipeError:
        # Who read the output has seen enough of it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(130)
    except (TinygradError, ValueError, OSError, MemoryError) as error:
        text = " ".join(str(error).split()) or "there is not enough memory"
        sys.exit(_fail(f"python -m tinygrad_rnn {options.command}: error: {text}"))


def _fail(message: str) -> int:
    print(message, file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
