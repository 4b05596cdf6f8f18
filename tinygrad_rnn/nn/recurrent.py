"""Recurrent networks: three cells, and one loop over layers and directions for them and for any other cell."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..core.creation import generator
from ..core.state import no_grad
from ..core.tape import Constant
from ..core.tensor import Tensor, is_tensor, settings, wrap
from ..errors import DtypeError, ShapeError
from ..ops.elementwise import relu, sigmoid, tanh
from ..ops.shaping import _reshape, concatenate, stack, swapaxes
from ..replay import Pure, tree, unroll
from ..replay.unrolling import checked_lengths
from . import init
from .functional import dropout
from .layers import empty, fraction, positive
from .module import Changes, Module, lift, same_dtype, sizes

Step = Callable[[Any, Any], Any]


class Cell(Module):
    """One step of a recurrent network, with the weights that the three built-in cells have in common.

    ``weight_ih`` is (gates * hidden_size, input_size), ``weight_hh`` (gates * hidden_size, size of h), and the two
    biases (gates * hidden_size,), all uniform in +-1/sqrt(hidden_size). ``bind()`` gives the step as a function
    with everything computed that is the same at every step.
    """

    gates = 1

    def __init__(self, input_size: int, hidden_size: int, bias: bool, output_size: int, recurrent_init: str | None, dtype: Any, rng: Any) -> None:
        positive(type(self).__name__, input_size=input_size, hidden_size=hidden_size)
        if recurrent_init not in (None, "orthogonal", "identity", "xavier_uniform", "xavier_normal"):
            raise ShapeError(f"{type(self).__name__}: recurrent_init must be None, orthogonal, identity, xavier_uniform or xavier_normal, got {recurrent_init!r}")
        self.input_size, self.hidden_size = input_size, hidden_size
        source, bound, rows = generator(rng), 1 / math.sqrt(hidden_size), self.gates * hidden_size
        self.weight_ih = init.uniform(empty(rows, input_size, dtype=dtype), -bound, bound, rng=source)
        self.weight_hh = init.uniform(empty(rows, output_size, dtype=dtype), -bound, bound, rng=source)
        self.bias_ih = init.uniform(empty(rows, dtype=dtype), -bound, bound, rng=source) if bias else None
        self.bias_hh = init.uniform(empty(rows, dtype=dtype), -bound, bound, rng=source) if bias else None
        if recurrent_init is not None:
            for k in range(self.gates):
                block = wrap(self.weight_hh._data[k * hidden_size : (k + 1) * hidden_size])
                getattr(init, recurrent_init)(block, **({} if recurrent_init == "identity" else {"rng": source}))

    def initial_state(self, batch: tuple[int, ...]) -> Any:
        """Zeros: (*batch, hidden_size)."""
        return wrap(np.zeros((*batch, self.hidden_size), self.weight_hh.dtype))

    def bind(self) -> Step:
        raise NotImplementedError

    def forward(self, x: Any, state: Any = None) -> Any:
        """One step: x (batch, input_size) or (input_size,), and the state before; returns the state after."""
        x = lift("input", x)
        if x.ndim not in (1, 2) or x.shape[-1] != self.input_size:
            raise ShapeError(f"input has {sizes(x.shape, 'batch features')}, expected (batch, input_size={self.input_size})")
        same_dtype("input", x, self.weight_ih)
        zero = self.initial_state(x.shape[:-1])
        if state is None:
            return self.bind()(x, zero)
        state = tree.tensors("state", state)
        if tree.structure(state) != tree.structure(zero) or any(a.shape != b.shape for a, b in zip(tree.leaves(state), tree.leaves(zero), strict=True)):
            raise ShapeError(f"the state is {tree.describe(state)}, expected {tree.describe(zero)}: {sizes(x.shape, 'batch features')} hidden={self.hidden_size}")
        for part in tree.leaves(state):
            same_dtype("the state", part, self.weight_hh)
        return self.bind()(x, state)


def _stacked(states: list[Any]) -> Any:
    """The states of all layers and directions as one; where there is one, it is seen with one axis more."""
    if len(states) == 1:
        return tree.mapped(lambda part: _reshape(part, (1, *part.shape)), states[0])
    return tree.mapped(lambda *parts: stack(parts), *states)


def _row(state: Tensor, k: int) -> Tensor:
    """The state of one layer and direction; it remembers what it was detached from."""
    row = state[k]
    if state._constant is not None and state._constant.cut is not None:
        row._constant = Constant(state.name, row.shape, row.dtype, state._constant.cut)
    return row


class RNNCell(Cell):
    """h' = tanh(W_ih x + b_ih + W_hh h + b_hh), or relu of it (Elman 1990).

    >>> import tinygrad_rnn as tg
    >>> from tinygrad_rnn import nn
    >>> nn.RNNCell(3, 4, rng=0)(tg.zeros(2, 3)).shape
    (2, 4)
    """

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: str = "tanh", *, recurrent_init: str | None = None, dtype: Any = None, rng: Any = None
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ShapeError(f"RNNCell: nonlinearity must be 'tanh' or 'relu', got {nonlinearity!r}")
        super().__init__(input_size, hidden_size, bias, hidden_size, recurrent_init, dtype, rng)
        self.nonlinearity = nonlinearity

    def bind(self) -> Step:
        W, U, activation = self.weight_ih.T, self.weight_hh.T, tanh if self.nonlinearity == "tanh" else relu
        b = None if self.bias_ih is None or self.bias_hh is None else self.bias_ih + self.bias_hh

        def step(x: Tensor, h: Tensor) -> Tensor:
            p = x @ W if b is None else x @ W + b
            h = activation(p + h @ U)
            h.name = "h"
            return h

        return Pure(step, (RNNCell, activation, b is None), [W, U] if b is None else [W, U, b])


class GRUCell(Cell):
    """The gated recurrent unit (Cho et al. 2014), with the reset gate after the product, gates in the order r, z, n.

    r = sigmoid(W_r x + U_r h + b_r), z likewise, n = tanh(W_n x + b_in + r (U_n h + b_hn)), h' = (1 - z) n + z h.

    >>> import tinygrad_rnn as tg
    >>> from tinygrad_rnn import nn
    >>> nn.GRUCell(3, 4, rng=0)(tg.zeros(2, 3)).shape
    (2, 4)
    """

    gates = 3

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, *, recurrent_init: str | None = None, dtype: Any = None, rng: Any = None) -> None:
        super().__init__(input_size, hidden_size, bias, hidden_size, recurrent_init, dtype, rng)

    def bind(self) -> Step:
        W, U, H = self.weight_ih.T, self.weight_hh.T, self.hidden_size
        b, c = self.bias_ih, self.bias_hh

        def step(x: Tensor, h: Tensor) -> Tensor:
            p, q = x @ W, h @ U
            if b is not None and c is not None:
                p, q = p + b, q + c
            gates = sigmoid(p[..., : 2 * H] + q[..., : 2 * H])
            r, z = gates[..., :H], gates[..., H:]
            n = tanh(p[..., 2 * H :] + r * q[..., 2 * H :])
            h = n + z * (h - n)
            r.name, z.name, n.name, h.name = "r", "z", "n", "h"
            return h

        return Pure(step, (GRUCell, H, b is None), [W, U] if b is None or c is None else [W, U, b, c])


class LSTMCell(Cell):
    """Long short-term memory (Hochreiter and Schmidhuber 1997; forget gate: Gers et al. 2000), gates in the order i, f, g, o.

    i, f, o = sigmoid(W x + U h + b), g = tanh(...), c' = f c + i g, h' = o tanh(c'); with ``proj_size``, h' is W_hr times
    that (Sak et al. 2014). The state is (h, c). ``forget_bias`` sets the forget gate's bias (Jozefowicz et al. 2015: 1).

    >>> import tinygrad_rnn as tg
    >>> from tinygrad_rnn import nn
    >>> h, c = nn.LSTMCell(3, 4, rng=0)(tg.zeros(2, 3))
    >>> h.shape, c.shape
    ((2, 4), (2, 4))
    """

    gates = 4

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        proj_size: int = 0,
        forget_bias: float | None = None,
        recurrent_init: str | None = None,
        dtype: Any = None,
        rng: Any = None,
    ) -> None:
        if not 0 <= proj_size < hidden_size and proj_size:
            raise ShapeError(f"LSTMCell: proj_size={proj_size} must be 0 or a positive number below hidden_size={hidden_size}")
        source = generator(rng)
        super().__init__(input_size, hidden_size, bias, proj_size or hidden_size, recurrent_init, dtype, source)
        self.proj_size = proj_size
        bound = 1 / math.sqrt(hidden_size)
        self.weight_hr = init.uniform(empty(proj_size, hidden_size, dtype=dtype), -bound, bound, rng=source) if proj_size else None
        if forget_bias is not None:
            if self.bias_ih is None or self.bias_hh is None:
                raise ShapeError("LSTMCell: forget_bias needs bias=True")
            with no_grad():
                self.bias_ih[hidden_size : 2 * hidden_size] = forget_bias
                self.bias_hh[hidden_size : 2 * hidden_size] = 0.0

    def initial_state(self, batch: tuple[int, ...]) -> Any:
        """Zeros: h (*batch, proj_size or hidden_size) and c (*batch, hidden_size)."""
        kind = self.weight_hh.dtype
        return wrap(np.zeros((*batch, self.proj_size or self.hidden_size), kind)), wrap(np.zeros((*batch, self.hidden_size), kind))

    def bind(self) -> Step:
        W, U, H = self.weight_ih.T, self.weight_hh.T, self.hidden_size
        b = None if self.bias_ih is None or self.bias_hh is None else self.bias_ih + self.bias_hh
        P = None if self.weight_hr is None else self.weight_hr.T

        def step(x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            h, c = state
            p = x @ W if b is None else x @ W + b
            a = p + h @ U
            gates = sigmoid(a[..., : 2 * H])
            i, f = gates[..., :H], gates[..., H:]
            g, o = tanh(a[..., 2 * H : 3 * H]), sigmoid(a[..., 3 * H :])
            c = f * c + i * g
            h = o * tanh(c)
            if P is not None:
                h = h @ P
            i.name, f.name, g.name, o.name, c.name, h.name = "i", "f", "g", "o", "c", "h"
            return h, c

        return Pure(step, (LSTMCell, H, b is None, P is None), [t for t in (W, U, b, P) if t is not None])


class Recurrent(Module):
    """Any cell in layers and directions: the loop that RNN, GRU and LSTM are, for a cell of your own.

    ``cell`` is a function ``input_size -> cell``, called once a layer and direction, or one cell for one layer.
    A cell is a module (or a function) called as ``cell(x_t, state)``; it returns the new state, whose first tensor
    is the output, or ``(y_t, state)``. Its first state is ``cell.initial_state((batch,))`` where it has that method,
    else zeros (batch, cell.hidden_size). A cell with a method ``bind()`` is asked for its step once a call.

    ``output, state = network(x, state=None, lengths=None)``: x is (time, batch, input_size), (batch, time, input_size)
    with ``batch_first``, or (time, input_size); output is (time, batch, directions * size), states are
    (num_layers * directions, batch, size). ``lengths`` (batch,) in any order: outputs beyond a length are zero, final
    states are those at each length, and the reverse direction starts at each sequence's own end. ``dropout`` acts on
    each layer's output but the last one's, in training.

    ``mode`` is that of :func:`tinygrad_rnn.unroll`: with ``network.mode = "eager"`` every operation of every step is on the tape.

    Raises ``ShapeError`` for an input or a state that does not fit.

    >>> import tinygrad_rnn as tg
    >>> from tinygrad_rnn import nn
    >>> class Mine(nn.Module):
    ...     def __init__(self, input_size, hidden_size):
    ...         self.hidden_size = hidden_size
    ...         self.lin = nn.Linear(input_size + hidden_size, hidden_size, rng=0)
    ...     def forward(self, x, h):
    ...         return h + tg.tanh(self.lin(tg.concatenate([x, h], axis=-1)))
    >>> network = nn.Recurrent(lambda n: Mine(n, 4), 3, num_layers=2, bidirectional=True)
    >>> output, h = network(tg.zeros(5, 2, 3))
    >>> output.shape, h.shape
    ((5, 2, 8), (4, 2, 4))
    """

    mode = "auto"
    _fixed = False

    def __init__(
        self,
        cell: Any,
        input_size: int | None = None,
        num_layers: int = 1,
        *,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        rng: Any = None,
    ) -> None:
        positive(type(self).__name__, num_layers=num_layers)
        fraction(f"{type(self).__name__}: dropout", dropout)
        self.input_size, self.num_layers, self.batch_first, self.bidirectional = input_size, num_layers, batch_first, bidirectional
        self.dropout, self.rng = dropout, generator(rng)
        self._cells: list[Any] = []
        if isinstance(cell, Module):
            if num_layers > 1 or bidirectional:
                raise ShapeError(f"{type(self).__name__}: one cell makes one layer in one direction; give a function input_size -> cell for {num_layers} layers")
            self._factory: Callable[[int], Any] | None = None
            self._add(cell)
        elif callable(cell):
            self._factory = cell
            if input_size is not None:
                positive(type(self).__name__, input_size=input_size)
                self._build(input_size)
        else:
            raise DtypeError(f"{type(self).__name__}: cell must be a function input_size -> cell, or a cell, got {type(cell).__name__}")

    @property
    def directions(self) -> int:
        return 2 if self.bidirectional else 1

    def _build(self, input_size: int) -> None:
        for layer in range(self.num_layers):
            for _ in range(self.directions):
                self._add(self._factory(input_size))  # type: ignore[misc]
            if layer + 1 < self.num_layers:
                size = getattr(self._cells[-1], "proj_size", 0) or getattr(self._cells[-1], "output_size", 0) or getattr(self._cells[-1], "hidden_size", 0)
                if not size:
                    raise ShapeError(f"{type(self).__name__}: layer {layer + 1} needs its input size: give the cell an attribute hidden_size (or output_size)")
                input_size = self.directions * size
        self._factory = None

    def _add(self, cell: Any) -> None:
        layer, direction = divmod(len(self._cells), self.directions)
        name = f"l{layer}{'_reverse' if direction else ''}"
        self._cells.append(cell)
        Changes.last = object()
        if isinstance(cell, Module):
            cell._rename(name)
        self._name_parts()

    def _members(self) -> Iterator[tuple[str, Any]]:
        return ((str(cell._name), cell) for cell in self._cells if isinstance(cell, Module))

    def _tree(self, prefix: str = "") -> Iterator[tuple[str, Any]]:
        """PyTorch's layout: a cell's ``weight_ih`` is ``weight_ih_l0`` of the network."""
        for name, cell in self._members():
            yield prefix + name, cell
            for inner, part in cell._members():
                yield f"{prefix}{inner}_{name}", part
                if isinstance(part, Module):
                    yield from part._tree(f"{prefix}{inner}_{name}.")

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") and "_l" in name:
            for path, part in self._tree():
                if path == name:
                    return part
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        if "_l" in name and is_tensor(value) and value._is_parameter:
            for suffix, cell in self._members():
                inner = name.removesuffix(f"_{suffix}")
                if inner != name and hasattr(cell, inner):
                    if value.name is None:
                        value.name, value._named_by_module = name, True
                    setattr(cell, inner, value)
                    return
        super().__setattr__(name, value)

    def _shown_children(self) -> list[tuple[str, Module]]:
        return [] if self._fixed else list(self._members())[:1]

    def initial_state(self, batch: int, dtype: Any = None) -> Any:
        """The state that a call starts from when none is given: (num_layers * directions, batch, size)."""
        return _stacked([self._zero(cell, batch, dtype) for cell in self._cells])

    @staticmethod
    def _zero(cell: Any, batch: int, dtype: Any) -> Any:
        """The state that one cell starts from."""
        if hasattr(cell, "initial_state"):
            return cell.initial_state((batch,))
        if hasattr(cell, "hidden_size"):
            return wrap(np.zeros((batch, cell.hidden_size), dtype or settings.dtype))
        raise ShapeError("give the first state, or the cell a method initial_state((batch,)) or an attribute hidden_size")

    def forward(self, x: Any, state: Any = None, lengths: Any = None) -> Any:
        x = lift("input", x, "fiu" if not self._fixed else "f")
        unbatched = x.ndim == 2
        if not (unbatched or x.ndim == 3) or self.input_size not in (None, x.shape[-1]):
            raise self._misfit(x)
        if not self._cells:
            self._build(x.shape[-1])
            self.input_size = x.shape[-1]
        if self._fixed:
            same_dtype("input", x, self._cells[0].weight_ih)
        if unbatched:
            x = x[:, None]
        elif self.batch_first:
            x = swapaxes(x, 0, 1)
        steps, batch, features = x.shape
        if not steps:
            raise ShapeError(f"input has no time steps: time={steps} batch={batch} features={features}")
        if lengths is not None:
            lengths = checked_lengths("lengths", np.atleast_1d(lengths._data if is_tensor(lengths) else np.asarray(lengths)), steps, batch)
        states = self._states(state, x, unbatched)
        last: list[Any] = []
        for layer in range(self.num_layers):
            outputs = []
            for direction in range(self.directions):
                k = layer * self.directions + direction
                y, new = self._unroll(k, x, states[k], lengths, bool(direction))
                outputs.append(y)
                last.append(new)
            x = outputs[0] if len(outputs) == 1 else concatenate(outputs, axis=-1)
            if self.dropout and layer + 1 < self.num_layers:
                x = dropout(x, self.dropout, self.training, self.rng)
        final = _stacked(last)
        if unbatched:
            return x[:, 0], tree.mapped(lambda s: s[:, 0], final)
        return (swapaxes(x, 0, 1) if self.batch_first else x), final

    def _unroll(self, k: int, x: Tensor, state: Any, lengths: Any, reverse: bool) -> tuple[Any, Any]:
        cell = self._cells[k]
        try:
            return unroll(self._step(cell), x, state, lengths=lengths, reverse=reverse, mode=self.mode, name=self._name_of(k))
        except (ShapeError, DtypeError) as error:
            if isinstance(cell, Module):
                cell._locate(error)
            raise

    def _name_of(self, k: int) -> str:
        layer, direction = divmod(k, self.directions)
        return f"l{layer}{'_reverse' if direction else ''}"

    def _misfit(self, x: Tensor) -> ShapeError:
        """What is wrong with an input's shape."""
        names = "batch time features" if self.batch_first else "time batch features"
        order = names.replace(" ", ", ").replace("features", f"input_size={self.input_size}" if self.input_size else "features")
        if x.ndim not in (2, 3):
            return ShapeError(f"input has shape {x.shape}, expected ({order}) or (time, {order.split(', ')[-1]})")
        return ShapeError(f"input has {sizes(x.shape, 'time features' if x.ndim == 2 else names)}, expected features=input_size={self.input_size}")

    def _states(self, state: Any, x: Tensor, unbatched: bool) -> list[Any]:
        """The state that each cell starts from, of those given for all, or zeros."""
        batch, kind = x.shape[1], x.dtype if x.dtype.kind == "f" else None
        if state is None:
            return [self._zero(cell, batch, kind) for cell in self._cells]
        state = tree.tensors("the initial state", state)
        rows = self.num_layers * self.directions
        if unbatched:
            if any(s.ndim == 0 for s in tree.leaves(state)):
                raise ShapeError(f"the initial state is {tree.describe(state)}, expected (num_layers * directions={rows}, size)")
            state = tree.mapped(lambda s: s[:, None], state)
        zero = self._zero(self._cells[0], batch, kind) if self._fixed else None
        if zero is not None and tree.structure(state) != tree.structure(zero):
            raise ShapeError(f"the initial state is {tree.describe(state)}, expected {tree.describe(self.initial_state(batch, kind))}")
        for part, like in zip(tree.leaves(state), tree.leaves(state if zero is None else zero), strict=True):
            shape = (rows, batch, *(part.shape[2:] if zero is None else like.shape[1:]))
            if part.shape != shape:
                shown = f"(num_layers * directions={rows}, {'' if unbatched else f'batch={batch}, '}size={shape[-1]})"
                came = part.shape[:1] + part.shape[2:] if unbatched else part.shape
                bound = f"time={x.shape[0]} batch={batch} features={x.shape[2]}"
                raise ShapeError(f"the initial state has shape {came}, expected {shown} for an input with {bound}")
            if self._fixed:
                same_dtype("the initial state", part, self._cells[0].weight_hh)
        return [tree.mapped(lambda s, k=k: _row(s, k), state) for k in range(rows)]

    @staticmethod
    def _step(cell: Any) -> Step:
        """The cell's step as ``unroll`` takes it: ``(x, state) -> (y, state)``."""
        run = cell.bind() if hasattr(cell, "bind") else cell.forward if isinstance(cell, Module) else cell

        def step(x: Any, state: Any) -> Any:
            result = run(x, state)
            if tree.structure(result) == tree.structure(state):
                return next(tree.leaves(result)), result
            return result

        made: Any = Pure(step, run.key, run.tensors) if isinstance(run, Pure) else step
        made.origin = cell
        return made  # type: ignore[no-any-return]


class RNN(Recurrent):
    """Elman's network in layers and directions: h_t = tanh (or relu) of W_ih x_t + b_ih + W_hh h_(t-1) + b_hh.

    ``output, h_n = rnn(x, h_0=None, lengths=None)``; shapes, ``lengths`` and ``dropout`` as for :class:`Recurrent`.
    Weights are ``weight_ih_l0``, ``weight_hh_l0``, ``bias_ih_l0``, ``bias_hh_l0``, ``..._l0_reverse``, as in PyTorch.

    >>> import tinygrad_rnn as tg
    >>> from tinygrad_rnn import nn
    >>> output, h_n = nn.RNN(3, 4, num_layers=2, rng=0)(tg.zeros(5, 2, 3))
    >>> output.shape, h_n.shape
    ((5, 2, 4), (2, 2, 4))
    """

    _fixed = True

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        recurrent_init: str | None = None,
        dtype: Any = None,
        rng: Any = None,
    ) -> None:
        source = generator(rng)
        self.hidden_size = hidden_size

        def cell(size: int) -> RNNCell:
            return RNNCell(size, hidden_size, bias, nonlinearity, recurrent_init=recurrent_init, dtype=dtype, rng=source)

        super().__init__(cell, input_size, num_layers, batch_first=batch_first, dropout=dropout, bidirectional=bidirectional, rng=source)


class GRU(Recurrent):
    """Gated recurrent units in layers and directions; see :class:`GRUCell`.

    ``output, h_n = gru(x, h_0=None, lengths=None)``; shapes, ``lengths`` and ``dropout`` as for :class:`Recurrent`.

    >>> import tinygrad_rnn as tg
    >>> from tinygrad_rnn import nn
    >>> output, h_n = nn.GRU(3, 4, bidirectional=True, rng=0)(tg.zeros(5, 2, 3))
    >>> output.shape, h_n.shape
    ((5, 2, 8), (2, 2, 4))
    """

    _fixed = True

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        recurrent_init: str | None = None,
        dtype: Any = None,
        rng: Any = None,
    ) -> None:
        source = generator(rng)
        self.hidden_size = hidden_size

        def cell(size: int) -> GRUCell:
            return GRUCell(size, hidden_size, bias, recurrent_init=recurrent_init, dtype=dtype, rng=source)

        super().__init__(cell, input_size, num_layers, batch_first=batch_first, dropout=dropout, bidirectional=bidirectional, rng=source)


class LSTM(Recurrent):
    """Long short-term memory in layers and directions; see :class:`LSTMCell`.

    ``output, (h_n, c_n) = lstm(x, (h_0, c_0)=None, lengths=None)``; shapes, ``lengths`` and ``dropout`` as for
    :class:`Recurrent`. With ``proj_size`` the outputs and h have that size, c keeps ``hidden_size``.

    >>> import tinygrad_rnn as tg
    >>> from tinygrad_rnn import nn
    >>> output, (h_n, c_n) = nn.LSTM(3, 4, forget_bias=1.0, recurrent_init="orthogonal", rng=0)(tg.zeros(5, 2, 3))
    >>> output.shape, h_n.shape, c_n.shape
    ((5, 2, 4), (1, 2, 4), (1, 2, 4))
    """

    _fixed = True

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        forget_bias: float | None = None,
        recurrent_init: str | None = None,
        dtype: Any = None,
        rng: Any = None,
    ) -> None:
        source = generator(rng)
        self.hidden_size, self.proj_size = hidden_size, proj_size

        def cell(size: int) -> LSTMCell:
            return LSTMCell(size, hidden_size, bias, proj_size=proj_size, forget_bias=forget_bias, recurrent_init=recurrent_init, dtype=dtype, rng=source)

        super().__init__(cell, input_size, num_layers, batch_first=batch_first, dropout=dropout, bidirectional=bidirectional, rng=source)
