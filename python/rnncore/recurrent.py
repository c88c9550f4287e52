"""The recurrent layers and cells: torch.nn's words on NumPy arrays, over the compiled kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from . import _core
from .arrays import Array, as_array, as_shape, check_size, float_dtype
from .init import RecurrentInit, recurrent_params
from .module import Module, once

#: `h`, or `(h, c)` for an LSTM.
State: TypeAlias = Any
Pullback: TypeAlias = Callable[..., tuple[Array, State]]

_LAYERS = {np.dtype("float32"): _core.LayerF32, np.dtype("float64"): _core.LayerF64}
_KINDS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


class _Kernels(Module):
    """What layers and cells share: parameters in torch's layout, and the kernels that read them."""

    recurrent = True
    #: Gates stacked in each weight, and whether the state is `(h, c)`.
    gates: ClassVar[int]
    has_cell_state: ClassVar[bool] = False

    def __init__(
        self,
        cell: str,
        input_sizes: list[int],
        hidden_size: int,
        suffixes: list[list[str]],
        bias: bool,
        batch_first: bool,
        dtype: npt.DTypeLike,
        seed: int | np.random.Generator | None,
        init: str | RecurrentInit,
    ) -> None:
        if not isinstance(bias, (bool, np.bool_)):  # torch.nn.RNN has nonlinearity in its place
            raise TypeError(f"bias must be True or False, got {bias!r}")
        self.hidden_size, self.bias, self.batch_first = hidden_size, bool(bias), bool(batch_first)
        self.dtype = float_dtype(dtype)
        self._cell, self._input_sizes, self._suffixes = cell, input_sizes, suffixes
        rows = self.gates * hidden_size
        shapes: dict[str, tuple[int, ...]] = {}
        for size, group in zip(input_sizes, suffixes, strict=True):
            for suffix in group:
                shapes["weight_ih" + suffix] = (rows, size)
                shapes["weight_hh" + suffix] = (rows, hidden_size)
                if bias:
                    shapes["bias_ih" + suffix] = (rows,)
                    shapes["bias_hh" + suffix] = (rows,)
        rng = np.random.default_rng(seed)
        super().__init__(recurrent_params(init, rng, shapes, hidden_size, self.dtype))
        self._build()

    def _build(self) -> None:
        """Make the compiled layers; they watch the parameters, which never change identity."""
        layer = _LAYERS[self.dtype]
        self._layers = [
            layer(
                self._cell,
                size,
                self.hidden_size,
                self.batch_first,
                self._groups(group, self.params),
            )
            for size, group in zip(self._input_sizes, self._suffixes, strict=True)
        ]

    @staticmethod
    def _groups(suffixes: list[str], arrays: dict[str, Array]) -> list[list[Array | None]]:
        return [[arrays.get(kind + suffix) for kind in _KINDS] for suffix in suffixes]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_layers"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._build()

    def _state(self, name: str, state: State, shape: tuple[int, ...]) -> tuple[Any, Any]:
        """Check a state, or the gradient of one, and split it into h and c, either of them None."""
        if state is None:
            return None, None
        if not self.has_cell_state:
            return as_shape(name, state, self.dtype, shape), None
        if not isinstance(state, (tuple, list)) or len(state) != 2:
            raise TypeError(f"{name} of an LSTM must be a pair (h, c), got {type(state).__name__}")
        h, c = (
            None if part is None else as_shape(f"{name}[{i}]", part, self.dtype, shape)
            for i, part in enumerate(state)
        )
        return h, c

    def _join(self, h: Array, c: Array | None) -> State:
        return (h, c) if self.has_cell_state else h


class _Layers(_Kernels):
    """Stacked layers, each in one direction or two."""

    def __init__(
        self,
        cell: str,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        dtype: npt.DTypeLike,
        seed: int | np.random.Generator | None,
        init: str | RecurrentInit,
    ) -> None:
        self.input_size = check_size("input_size", input_size)
        self.num_layers = check_size("num_layers", num_layers)
        hidden_size = check_size("hidden_size", hidden_size)
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {dropout}")
        self.dropout, self.bidirectional = float(dropout), bool(bidirectional)
        self.directions = 2 if bidirectional else 1
        rng = np.random.default_rng(seed)
        inner = self.directions * hidden_size
        super().__init__(
            cell,
            [input_size] + [inner] * (num_layers - 1),
            hidden_size,
            [[f"_l{n}", f"_l{n}_reverse"][: self.directions] for n in range(num_layers)],
            bias,
            batch_first,
            dtype,
            rng,
            init,
        )
        self.rng = rng  # of dropout between the layers

    def __repr__(self) -> str:
        options = "".join(
            f", {name}={value!r}"
            for name, value, default in (
                ("num_layers", self.num_layers, 1),
                ("bias", self.bias, True),
                ("batch_first", self.batch_first, False),
                ("dropout", self.dropout, 0.0),
                ("bidirectional", self.bidirectional, False),
                ("dtype", self.dtype.name, "float32"),
            )
            if value != default
        )
        return f"{type(self).__name__}({self.input_size}, {self.hidden_size}{options})"

    def __call__(
        self, x: npt.ArrayLike, state: State = None, *, lengths: npt.ArrayLike | None = None
    ) -> tuple[Array, State]:
        """Run over whole sequences; nothing is recorded.

        x: `(T, B, input_size)`, `(B, T, input_size)` with `batch_first`, or `(T, input_size)` for
        one sequence. state: the initial state, `(num_layers * D, B, H)` (without B for one
        sequence), zero if None; D is the number of directions. lengths: `(B,)` whole numbers in
        1..T; padding is not computed, outputs there are zero.

        Returns y `(T, B, D * H)`, in x's order of axes, and the state after each sequence's own
        last step.
        """
        y, state, _ = self._infer(x, state, lengths, False)
        return y, state

    def _infer(
        self, x: npt.ArrayLike, state: State, lengths: npt.ArrayLike | None, cell_states: bool
    ) -> tuple[Array, State, Array | None]:
        x, batched = self._input(x)
        lengths = self._lengths(lengths, x)
        h0, c0 = self._initial("state", state, x, batched)
        finals = []
        for n, layer in enumerate(self._layers):
            last = n == self.num_layers - 1
            x, h, c, cells, _ = layer.forward(
                x,
                self._of_layer(h0, n),
                self._of_layer(c0, n),
                lengths,
                False,
                cell_states and last,
            )
            finals.append((h, c))
        return (*self._outputs(x, finals, batched), cells)

    def vjp(
        self, x: npt.ArrayLike, state: State = None, *, lengths: npt.ArrayLike | None = None
    ) -> tuple[tuple[Array, State], Pullback]:
        """As a call, with dropout, and with the way back: `((y, state), pullback)`.

        `pullback(dy, dstate=None) -> (dx, dstate)` takes gradients of the outputs (None: zero) and
        of the final states, returns those of x and of the initial state, and adds those of the
        parameters to `grads`. y is shared with the pullback and read-only; x must stay unchanged
        until the pullback has run.
        """
        x, batched = self._input(x)
        lengths = self._lengths(lengths, x)
        shape = self._state_shape(x, batched)
        h0, c0 = self._initial("state", state, x, batched)
        finals, tapes, masks = [], [], []
        for n, layer in enumerate(self._layers):
            if n:
                masks.append(self._mask(x))
                x = x if masks[-1] is None else x * masks[-1]
            x, h, c, _, tape = layer.forward(
                x, self._of_layer(h0, n), self._of_layer(c0, n), lengths, True, False
            )
            finals.append((h, c))
            tapes.append(tape)
        x.flags.writeable = False
        y, final = self._outputs(x, finals, batched)

        def pullback(dy: npt.ArrayLike | None = None, dstate: State = None) -> tuple[Array, State]:
            d = (
                None
                if dy is None
                else self._batched(as_shape("dy", dy, self.dtype, y.shape), batched)
            )
            dh, dc = self._add_batch(self._state("dstate", dstate, shape), batched)
            initial = []
            for n in reversed(range(self.num_layers)):
                groups = self._groups(self._suffixes[n], self.grads)
                d, dh0, dc0 = self._layers[n].backward(
                    tapes.pop(), d, self._of_layer(dh, n), self._of_layer(dc, n), groups, True
                )
                if n and masks[n - 1] is not None:
                    d *= masks[n - 1]
                initial.append((dh0, dc0))
            return self._outputs(d, initial[::-1], batched)

        return (y, final), once(pullback)

    def _input(self, x: npt.ArrayLike) -> tuple[Array, bool]:
        x = as_array("x", x, self.dtype)
        if x.ndim not in (2, 3) or x.shape[-1] != self.input_size:
            axes, width = "B, T" if self.batch_first else "T, B", self.input_size
            raise ValueError(f"x must have shape ({axes}, {width}) or (T, {width}), got {x.shape}")
        return self._batched(x, x.ndim == 3), x.ndim == 3

    def _batched(self, x: Array, batched: bool) -> Array:
        return x if batched else np.expand_dims(x, 0 if self.batch_first else 1)

    def _lengths(self, lengths: npt.ArrayLike | None, x: Array) -> Array | None:
        if lengths is None:
            return None
        steps, batch = x.shape[:2][:: -1 if self.batch_first else 1]
        given = np.asarray(lengths)
        if given.dtype.kind not in "iu":
            raise TypeError(f"lengths must be whole numbers, got {given.dtype}")
        if given.shape != (batch,):
            raise ValueError(f"lengths must have shape ({batch},), got {given.shape}")
        if batch and not 1 <= given.min() <= given.max() <= steps:
            raise ValueError(
                f"lengths must be in 1..{steps}, the steps of x; got {given.min()}..{given.max()}"
            )
        return given.astype(np.int64)

    def _state_shape(self, x: Array, batched: bool) -> tuple[int, ...]:
        layers = self.num_layers * self.directions
        batch = (x.shape[0 if self.batch_first else 1],) if batched else ()
        return (layers, *batch, self.hidden_size)

    def _initial(self, name: str, state: State, x: Array, batched: bool) -> tuple[Any, Any]:
        if state is None:
            return None, None
        return self._add_batch(self._state(name, state, self._state_shape(x, batched)), batched)

    def _add_batch(self, parts: tuple[Any, Any], batched: bool) -> tuple[Any, Any]:
        if batched:
            return parts
        h, c = (None if part is None else part[:, None] for part in parts)
        return h, c

    def _of_layer(self, part: Array | None, n: int) -> Array | None:
        if part is None or self.num_layers == 1:
            return part
        return part[n * self.directions : (n + 1) * self.directions]

    def _outputs(
        self, y: Any, parts: list[tuple[Array, Array | None]], batched: bool
    ) -> tuple[Array, State]:
        """Join the layers' states, and drop the batch axis that the caller's arrays do not have."""
        state = parts[0]
        if len(parts) > 1:
            h, c = zip(*parts, strict=True)
            state = np.concatenate(h), np.concatenate(c) if self.has_cell_state else None
        if not batched:
            y = y[0] if self.batch_first else y[:, 0]
            state = state[0][:, 0], None if state[1] is None else state[1][:, 0]
        return y, self._join(*state)

    def _mask(self, x: Array) -> Array | None:
        """Inverted dropout on the way from layer to layer."""
        if not self.dropout:
            return None
        keep = self.rng.random(x.shape, dtype=np.float32) >= self.dropout
        return np.multiply(keep, 1 / (1 - self.dropout), dtype=self.dtype)


class RNN(_Layers):
    """Vanilla recurrent layers (Elman 1990), parameters as `torch.nn.RNN`.

        h_t = phi(W_ih x_t + b_ih + W_hh h_(t-1) + b_hh)

    nonlinearity: phi, "tanh", "relu" or "identity". Parameters of layer k: `weight_ih_lk (H, I)`,
    `weight_hh_lk (H, H)`, `bias_ih_lk`, `bias_hh_lk (H,)`, with `_reverse` appended for the
    backward direction. dropout: between layers, in `vjp` only. init: see `rnncore.init.RECURRENT`.

    What `vjp` remembers of a step of a row, beside x and y: H numbers or 4 H bytes in float32, H
    rounded up to a vector.
    """

    gates = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        nonlinearity: str = "tanh",
        dtype: npt.DTypeLike = "float32",
        seed: int | np.random.Generator | None = None,
        init: str | RecurrentInit = "torch",
    ) -> None:
        self.nonlinearity = check_nonlinearity(nonlinearity)
        super().__init__(
            f"rnn_{nonlinearity}", input_size, hidden_size, num_layers, bias, batch_first, dropout,
            bidirectional, dtype, seed, init,
        )  # fmt: skip


class LSTM(_Layers):
    """Long short-term memory (Hochreiter and Schmidhuber 1997), parameters as `torch.nn.LSTM`.

        i, f, o = sigmoid(W_ih x_t + b_ih + W_hh h_(t-1) + b_hh)     g = tanh(the same sum)
        c_t = f * c_(t-1) + i * g
        h_t = o * tanh(c_t)

    The state is `(h, c)`. Parameters of layer k: `weight_ih_lk (4 H, I)`, `weight_hh_lk (4 H, H)`,
    `bias_ih_lk`, `bias_hh_lk (4 H,)`, gates in the order i, f, g, o, with `_reverse` appended for
    the backward direction. dropout: between layers, in `vjp` only. init: see
    `rnncore.init.RECURRENT`.

    What `vjp` remembers of a step of a row, beside x and y: the gates and the cell state, 5 H
    numbers or 20 H bytes in float32 (in the gates H is rounded up to a vector).
    """

    gates = 4
    has_cell_state = True

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        dtype: npt.DTypeLike = "float32",
        seed: int | np.random.Generator | None = None,
        init: str | RecurrentInit = "torch",
        _activations: str = "",
    ) -> None:
        super().__init__(
            "lstm" + _variant(_activations), input_size, hidden_size, num_layers, bias, batch_first,
            dropout, bidirectional, dtype, seed, init,
        )  # fmt: skip

    def cell_states(
        self, x: npt.ArrayLike, state: State = None, *, lengths: npt.ArrayLike | None = None
    ) -> tuple[Array, State, Array]:
        """As a call, and the last layer's cell state at every step: `(y, state, c)`.

        c has the shape of y, `(T, B, D * H)`; each direction's cell states stand where its outputs
        stand in y.
        """
        y, state, cells = self._infer(x, state, lengths, True)
        assert cells is not None
        if cells.ndim != y.ndim:
            cells = cells[0] if self.batch_first else cells[:, 0]
        return y, state, cells


class GRU(_Layers):
    """Gated recurrent units, parameters as `torch.nn.GRU`.

        r, z = sigmoid(W_ih x_t + b_ih + W_hh h_(t-1) + b_hh)
        n = tanh(W_in x_t + b_in + r * (W_hn h_(t-1) + b_hn))       reset_after (torch, cuDNN)
        n = tanh(W_in x_t + b_in + W_hn (r * h_(t-1)) + b_hn)       otherwise (Cho et al. 2014)
        h_t = (1 - z) * n + z * h_(t-1)

    Parameters of layer k: `weight_ih_lk (3 H, I)`, `weight_hh_lk (3 H, H)`, `bias_ih_lk`,
    `bias_hh_lk (3 H,)`, gates in the order r, z, n, with `_reverse` appended for the backward
    direction. dropout: between layers, in `vjp` only. init: see `rnncore.init.RECURRENT`.

    What `vjp` remembers of a step of a row, beside x and y: 4 H numbers or 16 H bytes in float32
    (in the gates H is rounded up to a vector).
    """

    gates = 3

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        reset_after: bool = True,
        dtype: npt.DTypeLike = "float32",
        seed: int | np.random.Generator | None = None,
        init: str | RecurrentInit = "torch",
        _activations: str = "",
    ) -> None:
        self.reset_after = bool(reset_after)
        super().__init__(
            _gru(reset_after) + _variant(_activations), input_size, hidden_size, num_layers, bias,
            batch_first, dropout, bidirectional, dtype, seed, init,
        )  # fmt: skip


class _Cell(_Kernels):
    """One step of one layer: `state = cell(x, state)`."""

    def __init__(
        self,
        cell: str,
        input_size: int,
        hidden_size: int,
        bias: bool,
        dtype: npt.DTypeLike,
        seed: int | np.random.Generator | None,
        init: str | RecurrentInit,
    ) -> None:
        self.input_size = check_size("input_size", input_size)
        hidden_size = check_size("hidden_size", hidden_size)
        super().__init__(cell, [input_size], hidden_size, [[""]], bias, False, dtype, seed, init)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.input_size}, {self.hidden_size})"

    def __call__(self, x: npt.ArrayLike, state: State = None) -> State:
        """Return the state after x.

        x: `(B, input_size)` or `(input_size,)`; state: `(B, H)` or `(H,)`, zero if None.
        """
        x, shape = self._input(x)
        h0, c0 = self._rows(self._state("state", state, shape))
        _, h, c, _, _ = self._layers[0].forward(x, h0, c0, None, False, False)
        return self._result(h, c, shape)

    def vjp(
        self, x: npt.ArrayLike, state: State = None
    ) -> tuple[State, Callable[..., tuple[Array, State]]]:
        """Return `(state, pullback)`; `pullback(dstate) -> (dx, dstate)` adds to `grads`."""
        x, shape = self._input(x)
        h0, c0 = self._rows(self._state("state", state, shape))
        _, h, c, _, tape = self._layers[0].forward(x, h0, c0, None, True, False)

        def pullback(dstate: State) -> tuple[Array, State]:
            dh, dc = self._rows(self._state("dstate", dstate, shape))
            groups = self._groups([""], self.grads)
            dx, dh0, dc0 = self._layers[0].backward(tape, None, dh, dc, groups, True)
            return dx.reshape(*shape[:-1], self.input_size), self._result(dh0, dc0, shape)

        return self._result(h, c, shape), once(pullback)

    def _input(self, x: npt.ArrayLike) -> tuple[Array, tuple[int, ...]]:
        """Return x as one step `(1, B, I)`, and the shape of its states."""
        x = as_array("x", x, self.dtype)
        if x.ndim not in (1, 2) or x.shape[-1] != self.input_size:
            raise ValueError(
                f"x must have shape (B, {self.input_size}) or ({self.input_size},), got {x.shape}"
            )
        shape = (*x.shape[:-1], self.hidden_size)
        return x.reshape(1, -1 if x.size else x.shape[0], self.input_size), shape

    def _rows(self, parts: tuple[Any, Any]) -> tuple[Any, Any]:
        h, c = (
            None if part is None else part.reshape(1, *(part.shape if part.ndim == 2 else (1, -1)))
            for part in parts
        )
        return h, c

    def _result(self, h: Array, c: Array | None, shape: tuple[int, ...]) -> State:
        return self._join(h.reshape(shape), None if c is None else c.reshape(shape))


class RNNCell(_Cell):
    """One step of `RNN`, as `torch.nn.RNNCell`; parameters without a suffix."""

    gates = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        *,
        dtype: npt.DTypeLike = "float32",
        seed: int | np.random.Generator | None = None,
        init: str | RecurrentInit = "torch",
    ) -> None:
        self.nonlinearity = check_nonlinearity(nonlinearity)
        super().__init__(f"rnn_{nonlinearity}", input_size, hidden_size, bias, dtype, seed, init)


class LSTMCell(_Cell):
    """One step of `LSTM`, as `torch.nn.LSTMCell`; parameters without a suffix."""

    gates = 4
    has_cell_state = True

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        dtype: npt.DTypeLike = "float32",
        seed: int | np.random.Generator | None = None,
        init: str | RecurrentInit = "torch",
    ) -> None:
        super().__init__("lstm", input_size, hidden_size, bias, dtype, seed, init)


class GRUCell(_Cell):
    """One step of `GRU`, as `torch.nn.GRUCell`; parameters without a suffix."""

    gates = 3

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        reset_after: bool = True,
        dtype: npt.DTypeLike = "float32",
        seed: int | np.random.Generator | None = None,
        init: str | RecurrentInit = "torch",
    ) -> None:
        self.reset_after = bool(reset_after)
        super().__init__(_gru(reset_after), input_size, hidden_size, bias, dtype, seed, init)


def check_nonlinearity(name: str) -> str:
    """Return the name of a vanilla cell's activation, or raise `ValueError`."""
    if name not in ("tanh", "relu", "identity"):
        raise ValueError(f"nonlinearity must be tanh, relu or identity, got {name!r}")
    return name


def _gru(reset_after: bool) -> str:
    return "gru" if reset_after else "gru_reset_before"


def _variant(activations: str) -> str:
    return f"_{activations}" if activations else ""
