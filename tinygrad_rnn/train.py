"""Training: a loop with a progress line, validation, early stopping, and checkpoints that resume bit for bit."""

from __future__ import annotations

import csv
import html
import inspect
import io
import itertools
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import files
from .atomic import atomic_write
from .core.state import no_grad
from .core.tape import _table
from .core.tensor import Tensor, is_tensor, settings, wrap
from .errors import DtypeError, FileError, GradientError, MissingFileError, ShapeError, TinygradError
from .nn.module import Module, evaluating
from .nn.saving import ASIDE, config
from .optim import Optimizer, ReduceLROnPlateau, clip_grad_norm_
from .replay import tree

COLUMNS = ("step", "epoch", "loss", "bits", "grad_norm", "lr", "validation", "symbols", "seconds")


class History:
    """What a training run measured: one row a step, as a sequence of dicts.

    Columns: ``step``, ``epoch``, ``loss`` (nats), ``bits`` (loss / ln 2), ``grad_norm`` (before clipping), ``lr``,
    ``validation`` (the mean loss, where it was measured, else None), ``symbols`` (targets in the batch), ``seconds``.
    ``stopped`` says why the run ended, ``warnings`` what went wrong with its gradients and what to do. ``print`` shows a table, ``plot`` draws it, ``save`` writes CSV.

    >>> from tinygrad_rnn import train
    >>> history = train.History([{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}])
    >>> history.column("loss")
    (array([1, 2]), array([2., 1.]))
    """

    def __init__(self, rows: Iterable[dict[str, Any]] = ()) -> None:
        self.rows: list[dict[str, Any]] = list(rows)
        self.stopped = ""
        self.warnings: list[str] = []

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index]

    def column(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """The steps at which a column was measured, and its values."""
        found = [(row["step"], row[name]) for row in self.rows if row.get(name) is not None]
        return np.array([step for step, _ in found], int), np.array([value for _, value in found], float)

    @property
    def best(self) -> float:
        """The lowest validation loss, infinity before the first."""
        return float(min(self.column("validation")[1], default=math.inf))

    def __str__(self) -> str:
        """A table of about twenty rows, each the mean of the steps since the row before."""
        if not self.rows:
            return "no steps"
        edges = np.unique(np.linspace(0, len(self.rows), min(len(self.rows), 20) + 1).astype(int))
        rows = []
        for begin, end in itertools.pairwise(edges):
            part = self.rows[begin:end]
            cells = [str(part[-1].get("step", "")), str(part[-1].get("epoch", ""))]
            for name, form in (("loss", ".4f"), ("bits", ".3f"), ("grad_norm", ".3g"), ("lr", ".3g")):
                values = [row[name] for row in part if row.get(name) is not None]
                cells.append(format(sum(values) / len(values), form) if values else "")
            measured = [row["validation"] for row in part if row.get("validation") is not None]
            cells.append(f"{measured[-1]:.4f}" if measured else "")
            spent = sum(row.get("seconds") or 0.0 for row in part)
            cells.append(f"{sum(row.get('symbols') or 0 for row in part) / spent:,.0f}" if spent else "")
            rows.append(cells)
        table = _table(["step", "epoch", "loss", "bits", "|g|", "lr", "validation", "symbols/s"], rows, ">>>>>>>>")
        return "\n".join([table, *filter(None, [self.stopped]), *self.warnings])

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"

    def __repr__(self) -> str:
        return f"History({len(self.rows)} steps{', ' + self.stopped if self.stopped else ''})"

    def plot(self, axes: Any = None) -> Any:
        """Loss and validation loss over steps, in bits, and the gradient's norm below; returns the matplotlib figure."""
        if axes is None:
            import matplotlib.pyplot as plt

            _, axes = plt.subplots(2, 1, sharex=True, figsize=(7, 5), height_ratios=(2, 1))
        upper, lower = axes
        steps, values = self.column("bits")
        upper.plot(steps, values, color="#0072B2", linewidth=0.8, label="training")
        steps, values = self.column("validation")
        if len(steps):
            upper.plot(steps, values / math.log(2), color="#D55E00", marker="o", markersize=3, label="validation")
        upper.set_ylabel("loss (bits)")
        upper.legend()
        steps, values = self.column("grad_norm")
        lower.plot(steps, values, color="#009E73", linewidth=0.8)
        if len(values) and min(values) > 0:
            lower.set_yscale("log")
        lower.set_ylabel("gradient norm")
        lower.set_xlabel("step")
        return upper.figure

    def save(self, path: Any) -> None:
        """Write the rows as CSV, whole or not at all."""
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        atomic_write(path, text.getvalue().encode())


@dataclass
class Progress:
    """What a callback of :func:`fit` gets after each step; ``row`` is the step's row of the history."""

    model: Any
    optimizer: Optimizer
    history: History
    row: dict[str, Any]


def count_symbols(batch: Any) -> int:
    """How many targets a batch has: the size of its second part, or of the batch itself."""
    parts = batch if isinstance(batch, tuple | list) else (batch,)
    target = parts[1] if len(parts) > 1 else parts[0]
    return int(target.size) if hasattr(target, "size") else len(target) if hasattr(target, "__len__") else 1


class _Loss:
    """The user's loss, with or without a state that is carried from batch to batch."""

    def __init__(self, loss: Callable[..., Any]) -> None:
        if not callable(loss):
            raise DtypeError(f"fit: loss must be a function (model, batch) or (model, batch, state), got {type(loss).__name__}")
        if isinstance(loss, Module):
            raise DtypeError(f"fit: loss is called as loss(model, batch), which {type(loss).__name__} does not take; write a function that calls the model and the loss")
        self.loss = loss
        try:
            required = [p for p in inspect.signature(loss).parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        except (TypeError, ValueError):
            required = []
        # A third parameter with a default is the user's own: `lambda model, batch, k=k: ...`.
        self.carries = len(required) > 2 and (required[2].default is inspect.Parameter.empty or required[2].name == "state")
        self.state: Any = None

    def __call__(self, model: Any, batch: Any) -> Tensor:
        if self.carries:
            if getattr(batch, "start", False):
                self.state = None
            result = self.loss(model, batch, self.state)
            if not isinstance(result, tuple) or len(result) != 2:
                raise DtypeError(f"fit: a loss with a state must return (loss, state), got {type(result).__name__}")
            value, state = result
            self.state = tree.mapped(lambda s: s.detach(), state)
        else:
            value = self.loss(model, batch)
        if not is_tensor(value) or value.size != 1:
            raise ShapeError(f"fit: the loss must be a tensor of one value, got {tree.describe(value)}")
        return value  # type: ignore[no-any-return]


def evaluate(model: Any, batches: Iterable[Any], loss: Callable[..., Any], *, count: Callable[[Any], int] = count_symbols) -> float:
    """The mean loss over batches, each weighted with its number of targets; nothing is recorded, dropout is off.

    ``loss`` is as for :func:`fit`; a state is carried from batch to batch.

    >>> import tinygrad_rnn as tg
    >>> from tinygrad_rnn import nn, train
    >>> train.evaluate(nn.ReLU(), [tg.ones(2), tg.ones(4)], lambda model, batch: model(batch).sum())
    3.3333333333333335
    """
    measure, total, weight = _Loss(loss), 0.0, 0
    with no_grad(), evaluating(model):
        for batch in batches:
            n = count(batch)
            total += n * measure(model, batch).item()
            weight += n
    if not weight:
        raise ShapeError("evaluate: there was no batch")
    return total / weight


def fit(
    model: Any,
    batches: Iterable[Any],
    loss: Callable[..., Any],
    optimizer: Optimizer,
    *,
    epochs: int | None = None,
    steps: int | None = None,
    seconds: float | None = None,
    clip: float | None = None,
    validate: Any = None,
    validate_every: int | None = None,
    patience: int | None = None,
    schedule: Any = None,
    accumulate: int = 1,
    callbacks: Sequence[Callable[[Progress], Any]] = (),
    checkpoint: Any = None,
    checkpoint_every: int | None = None,
    resume: bool = False,
    progress: bool = True,
    count: Callable[[Any], int] = count_symbols,
) -> History:
    """Train a model until ``epochs`` or optimiser ``steps`` are done, or ``seconds`` have passed; returns the history.

    ``batches`` is iterated once an epoch. ``loss(model, batch)`` gives a tensor of one value. For truncated
    backpropagation through time let it be ``loss(model, batch, state)``, which returns ``(loss, state)``: the state comes
    back with the next batch, detached, and is None at first and where ``batch.start`` is true.

    ``clip`` bounds the norm of all gradients together. ``accumulate`` batches make one step. ``schedule`` (of ``optim``) steps
    with the optimiser, or with each validation if it takes one. ``validate`` is batches, or a function ``model -> float``; it
    runs after each epoch, or every ``validate_every`` steps. When training ends the weights of the best validation are put
    back; with ``patience`` it ends after so many validations without a better one. ``callbacks`` get a :class:`Progress` after
    each step, and end the run by returning True. Ctrl-C ends it after the step under way; a second one at once.

    ``checkpoint`` is a path, written whole or not at all every ``checkpoint_every`` steps (else with each validation or epoch)
    and at the end. With ``resume=True`` and the file there, training goes on from it, and ends with the same weights, bit
    for bit, as a run that was never stopped: optimiser, schedule, carried state, random generators of the model's modules and
    the position in the data are in it. The position is the batches' own ``state_dict`` where they have one (as
    ``tinygrad_rnn.data`` gives), else the batches that were seen are skipped, which must then come in the same order.

    The history's ``warnings`` say in plain words when gradients vanish or explode, and what to do: the flow through time is measured at steps 1, 10, 100 and so on
    (see :func:`tinygrad_rnn.diagnostics.gradient_flow`), the norm of all gradients at each.

    Raises ``GradientError`` for a loss that is not finite, before it reaches the weights.

    >>> import numpy as np
    >>> import tinygrad_rnn as tg
    >>> from tinygrad_rnn import nn, optim, train
    >>> model = nn.Linear(1, 1, rng=0)
    >>> x = np.linspace(-1, 1, 8, dtype=np.float32)[:, None]
    >>> history = train.fit(
    ...     model, [(x, 3 * x)], lambda model, batch: nn.functional.mse_loss(model(batch[0]), batch[1]),
    ...     optim.Adam(model.parameters(), lr=0.1), epochs=200, progress=False)
    >>> len(history), abs(model.weight.item() - 3) < 0.01
    (200, True)
    """
    whole: dict[str, Any] = {"epochs": epochs, "steps": steps, "validate_every": validate_every, "patience": patience, "accumulate": accumulate, "checkpoint_every": checkpoint_every}
    for name, given in whole.items():
        if given is not None and not (isinstance(given, int | np.integer) and given >= 1):
            raise ValueError(f"fit: {name} must be a positive integer, got {given!r}")
    if epochs is None and steps is None and seconds is None:
        raise ValueError("fit: say how long to train: epochs, steps or seconds")
    if clip is not None and not clip > 0:
        raise ValueError(f"fit: clip must be a positive number, got {clip!r}")
    if patience is not None and validate is None:
        raise ValueError("fit: patience needs validate")
    if schedule is not None and _on_validation(schedule) and validate is None:
        raise ValueError("fit: ReduceLROnPlateau needs validate, for it steps with measurements")
    if checkpoint is not None and not os.path.isdir(os.path.dirname(os.path.abspath(checkpoint))):
        raise MissingFileError(f"fit: there is no folder for the checkpoint {os.fspath(checkpoint)}; make it first")
    from .diagnostics.watching import Watch

    run = _Run(model, batches, _Loss(loss), optimizer, schedule, checkpoint)
    if resume and checkpoint is not None and os.path.exists(checkpoint):
        run.load()
    if patience is not None and run.stale >= patience:
        run.stopped = f"no better validation in {patience}, best {run.history.best:.4f}"
    if any([steps is not None and run.step >= steps, epochs is not None and run.epoch >= epochs, seconds is not None and run.seconds >= seconds]):
        run.stopped = "the checkpoint is of a run that was done"
    watch = Watch(run.history, clip)
    bar = _bar(progress, run, epochs, steps, batches)
    began, spent, resumed = time.perf_counter(), run.seconds, run.step
    with _Interrupt() as interrupt:
        try:
            while not run.stopped:
                pending, symbols, losses = 0, 0, 0.0
                mark = time.perf_counter()
                for batch in run.rest_of_epoch(accumulate):
                    value = run.loss(model, batch)
                    number = value.item()
                    if not math.isfinite(number):
                        raise GradientError(f"fit: the loss is {number} at step {run.step + 1} (epoch {run.epoch}); lower the learning rate, clip, or look for it under tg.detect_anomaly()" + "".join(f"\n{text}" for text in run.history.warnings))
                    if not pending:
                        watch.flow(value, run.step + 1)
                    (value if run.group == 1 else value / run.group).backward()
                    pending, symbols, losses = pending + 1, symbols + count(batch), losses + number
                    if pending < run.group:
                        continue
                    if not any(p.grad is not None for group in optimizer.param_groups for p in group["params"]):
                        raise GradientError("fit: no parameter of the optimiser got a gradient; is it the optimiser of this model?")
                    norm = clip_grad_norm_(optimizer_parameters(optimizer), math.inf if clip is None else clip)
                    optimizer.step()
                    optimizer.zero_grad()
                    watch.norm(norm, run.step + 1)
                    if schedule is not None and not _on_validation(schedule):
                        schedule.step()
                    run.step += 1
                    now = time.perf_counter()
                    run.seconds = spent + now - began
                    row = {"step": run.step, "epoch": run.epoch, "loss": losses / pending, "bits": losses / pending / math.log(2), "grad_norm": norm,
                           "lr": optimizer.param_groups[0]["lr"], "validation": None, "symbols": symbols, "seconds": now - mark}  # fmt: skip
                    run.history.rows.append(row)
                    pending, symbols, losses, mark = 0, 0, 0.0, now
                    if validate is not None and validate_every and run.step % validate_every == 0:
                        run.validated(validate, count, schedule, patience)
                        mark = time.perf_counter()
                    answers = [callback(Progress(model, optimizer, run.history, row)) for callback in callbacks]
                    run.stop_if(any(answer is True for answer in answers), "a callback ended it")
                    run.stop_if(steps is not None and run.step >= steps, f"{steps} steps done")
                    run.stop_if(seconds is not None and run.seconds >= seconds, f"{seconds} seconds passed")
                    run.stop_if(interrupt.came, "interrupted")
                    if checkpoint is not None and checkpoint_every and run.step % checkpoint_every == 0:
                        run.save()
                    bar(row)
                    if run.stopped:
                        break
                else:
                    run.end_of_epoch()
                    if validate is not None and not validate_every:
                        run.validated(validate, count, schedule, patience)
                    run.stop_if(epochs is not None and run.epoch >= epochs, f"{epochs} epochs done")
                    run.stop_if(interrupt.came, "interrupted")
                    if checkpoint is not None and not checkpoint_every:
                        run.save()
            if checkpoint is not None and run.step > resumed:
                run.save()
            # What came after the last validation may be better yet. The checkpoint knows nothing of it: a run that goes on has no such end.
            if validate is not None and run.best is not None and run.measured_at < run.step:
                run.validated(validate, count, None, None)
        except KeyboardInterrupt:
            # In the middle of a step: the checkpoint stays what it was at the end of one.
            optimizer.zero_grad()
            run.stopped = "interrupted in the middle of a step"
        finally:
            bar(None)
    run.restore_best()
    run.history.stopped = run.stopped
    return run.history


def optimizer_parameters(optimizer: Optimizer) -> list[Tensor]:
    """Every parameter of an optimiser that has a gradient."""
    return [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]


def _on_validation(schedule: Any) -> bool:
    """Whether a schedule steps with measurements and not with the optimiser."""
    return isinstance(schedule, ReduceLROnPlateau)


class _Run:
    """Everything that a training run is at a step: what a checkpoint holds."""

    def __init__(self, model: Any, batches: Iterable[Any], loss: _Loss, optimizer: Optimizer, schedule: Any, path: Any) -> None:
        self.model, self.batches, self.loss, self.optimizer, self.schedule, self.path = model, batches, loss, optimizer, schedule, path
        self.history = History()
        self.step = self.epoch = self.index = self.skip = self.stale = 0
        self.seconds = 0.0
        self.stopped = ""
        self.best: dict[str, np.ndarray] | None = None
        self.group = 1
        self.measured_at = 0
        """The step of the last validation."""

    def stop_if(self, condition: bool, reason: str) -> None:
        if condition and not self.stopped:
            self.stopped = reason

    def rest_of_epoch(self, accumulate: int) -> Iterator[Any]:
        """The epoch's batches that were not seen yet, in groups that make one step; ``group`` is how many the present one has."""
        iterator = iter(self.batches)
        for _ in range(self.skip):
            next(iterator, None)
        self.index, self.skip = self.skip, 0
        while group := list(itertools.islice(iterator, accumulate)):
            self.group = len(group)
            self.index += len(group)
            yield from group
        if not self.index and not self.step:
            raise ShapeError("fit: there was no batch")

    def end_of_epoch(self) -> None:
        self.epoch += 1
        self.index = 0
        self.stop_if(iter(self.batches) is self.batches, "the batches came to an end")

    def validated(self, validate: Any, count: Any, schedule: Any, patience: int | None) -> None:
        if callable(validate):
            with no_grad(), evaluating(self.model):
                measured = float(validate(self.model))
        else:
            measured = evaluate(self.model, validate, self.loss.loss, count=count)
        self.measured_at = self.step
        better = measured < self.history.best
        self.history.rows[-1]["validation"] = measured
        if better:
            self.stale, self.best = 0, {name: value.numpy().copy() for name, value in _weights(self.model).items()}
        else:
            self.stale += 1
        if schedule is not None and _on_validation(schedule):
            schedule.step(measured)
        self.stop_if(patience is not None and self.stale >= patience, f"no better validation in {patience}, best {self.history.best:.4f}")

    def restore_best(self) -> None:
        if self.best is not None and isinstance(self.model, Module):
            self.model.load_state_dict(self.best)

    def generators(self) -> list[np.random.Generator]:
        """The random generators of the model's modules, each once, and the one of tensors without ``rng=``."""
        modules = self.model.modules() if isinstance(self.model, Module) else []
        found = [generator for m in modules if isinstance(generator := getattr(m, "rng", None), np.random.Generator)]
        return [*{id(generator): generator for generator in found}.values(), settings.rng]

    def save(self) -> None:
        weights = {name: tensor.numpy() for name, tensor in _weights(self.model).items()}
        arrays: dict[str, np.ndarray] = {}
        state = {
            "step": self.step, "epoch": self.epoch, "index": self.index, "stale": self.stale, "measured_at": self.measured_at, "seconds": self.seconds,
            "history": self.history.rows, "warnings": self.history.warnings, "optimizer": self.optimizer.state_dict(),
            "schedule": None if self.schedule is None else self.schedule.state_dict(),
            "data": self.batches.state_dict() if hasattr(self.batches, "state_dict") else None,
            "carried": {"structure": tree.structure(self.loss.state), "leaves": [leaf.numpy() for leaf in tree.leaves(self.loss.state)]},
            "generators": [generator.bit_generator.state for generator in self.generators()],
            "best": self.best,
        }  # fmt: skip
        plain = _without_arrays(state, ASIDE, arrays)
        try:
            made = config(self.model) if isinstance(self.model, Module) else None
        except TinygradError:
            made = None
        files.save(self.path, {**weights, **arrays}, {"model": made, "checkpoint": plain})

    def load(self) -> None:
        """Take over a checkpoint; nothing is changed unless all of it fits."""
        tensors = files.load(self.path)
        plain = tensors.metadata.get("checkpoint")
        if not isinstance(plain, dict):
            raise FileError(f"{os.fspath(self.path)}: holds no checkpoint of a training run; it may be a model, read it with nn.load_model")
        state = _with_arrays(plain, {name: tensor.numpy() for name, tensor in tensors.items()})
        generators = self.generators()
        if len(state["generators"]) != len(generators):
            raise ShapeError(f"fit: the checkpoint {os.fspath(self.path)} is of another model: it has {len(state['generators'])} random generators, expected {len(generators)}")
        before = {name: value.numpy().copy() for name, value in _weights(self.model).items()}
        kept = self.optimizer.state_dict()
        scheduled = None if self.schedule is None else self.schedule.state_dict()
        if (state["schedule"] is None) != (self.schedule is None):
            raise ShapeError(f"fit: the checkpoint {os.fspath(self.path)} is of a run {'without' if self.schedule is not None else 'with'} a schedule; resume it likewise")
        try:
            self.model.load_state_dict({name: value for name, value in tensors.items() if not name.startswith(ASIDE)})
            self.optimizer.load_state_dict(state["optimizer"])
            if self.schedule is not None:
                self.schedule.load_state_dict(state["schedule"])
            if state["data"] is not None and hasattr(self.batches, "load_state_dict"):
                self.batches.load_state_dict(state["data"])
        except Exception as error:
            self.model.load_state_dict(before)
            self.optimizer.load_state_dict(kept)
            if self.schedule is not None:
                self.schedule.load_state_dict(scheduled)
            if isinstance(error, TinygradError):
                raise ShapeError(f"fit: the checkpoint {os.fspath(self.path)} does not fit: {error}") from error
            raise
        self.step, self.epoch, self.stale, self.seconds, self.measured_at = (state[name] for name in ("step", "epoch", "stale", "seconds", "measured_at"))
        self.skip = 0 if state["data"] is not None else state["index"]
        self.history.rows, self.history.warnings = state["history"], state.get("warnings", [])
        leaves = iter([wrap(np.array(leaf)) for leaf in state["carried"]["leaves"]])
        self.loss.state = tree.like(state["carried"]["structure"], leaves)
        self.best = None if state["best"] is None else {name: np.array(value) for name, value in state["best"].items()}
        for generator, drawn in zip(generators, state["generators"], strict=True):
            generator.bit_generator.state = drawn


def _weights(model: Any) -> dict[str, Tensor]:
    if not hasattr(model, "state_dict"):
        raise DtypeError(f"fit: checkpoints and validation need a model with a state_dict, got {type(model).__name__}")
    return model.state_dict()  # type: ignore[no-any-return]


def _without_arrays(value: Any, path: str, arrays: dict[str, np.ndarray]) -> Any:
    """JSON values, with every array put aside under the path that leads to it."""
    if is_tensor(value):
        value = value.numpy()
    if isinstance(value, np.ndarray):
        arrays[path] = value
        return {"array": path}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {str(key): _without_arrays(item, f"{path}{'' if path == ASIDE else '/'}{key}", arrays) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_arrays(item, f"{path}/{k}", arrays) for k, item in enumerate(value)]
    return value


def _with_arrays(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    if isinstance(value, dict):
        if set(value) == {"array"}:
            return arrays[value["array"]]
        return {key: _with_arrays(item, arrays) for key, item in value.items()}
    return [_with_arrays(item, arrays) for item in value] if isinstance(value, list) else value


class _Interrupt:
    """Turns the first Ctrl-C into a mark, so that a step under way is finished; the second one interrupts."""

    def __init__(self) -> None:
        self.came = False
        self._previous: Any = None

    def __enter__(self) -> _Interrupt:
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._previous = signal.signal(signal.SIGINT, self._mark)
        return self

    def _mark(self, *_: Any) -> None:
        if self.came:
            raise KeyboardInterrupt
        self.came = True

    def __exit__(self, *_: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)


def _bar(progress: bool, run: _Run, epochs: int | None, steps: int | None, batches: Any) -> Callable[[dict[str, Any] | None], None]:
    """A function that shows a row: a bar where tqdm is installed, else a line every few seconds; None ends it."""
    if not progress:
        return lambda row: None
    total = steps
    if total is None and epochs is not None and hasattr(batches, "__len__"):
        total = epochs * len(batches)
    recent: list[dict[str, Any]] = []

    def text() -> str:
        loss = sum(row["loss"] for row in recent) / len(recent)
        spent = sum(row["seconds"] for row in recent)
        measured = run.history.column("validation")[1] if run.history.rows else np.array([])
        parts = [f"loss {loss:.3f}", f"{loss / math.log(2):.3f} bits", f"|g| {recent[-1]['grad_norm']:.3g}", f"{sum(row['symbols'] for row in recent) / spent:,.0f} symbols/s" if spent else ""]
        return "  ".join([*filter(None, parts), *([f"validation {measured[-1]:.3f}"] if len(measured) else [])])

    try:
        from tqdm.auto import tqdm
    except ImportError:
        tqdm = None
    bar = None if tqdm is None else tqdm(total=total, initial=run.step, unit="step", dynamic_ncols=True)
    shown = time.monotonic()

    def show(row: dict[str, Any] | None) -> None:
        nonlocal shown
        if row is None:
            if bar is not None:
                if recent:
                    bar.set_postfix_str(text(), refresh=True)
                bar.close()
            elif recent:
                print(f"step {run.step}  {text()}", file=sys.stderr)
            return
        recent.append(row)
        del recent[:-20]
        now = time.monotonic()
        if bar is not None:
            bar.update()
            if now - shown > 0.2:
                shown = now
                bar.set_postfix_str(text(), refresh=False)
        elif now - shown > 5:
            shown = now
            print(f"step {run.step}{'' if total is None else f' of {total}'}  {text()}", file=sys.stderr)

    return show
