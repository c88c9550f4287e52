"""Recursive layers: the engine of the recurrent ones, on trees and other graphs without cycles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from . import _core
from .arrays import Array, as_array, as_shape, check_size, float_dtype
from .cells import SIGMOID, TANH, Activation, Cell, chosen
from .forest import Forest
from .init import uniform
from .module import Module, once
from .order import Order

#: `h`, or `(h, c)`, of all nodes.
States: TypeAlias = Any


class Recursive(Module):
    """A layer whose nodes continue several others: `states = layer(x, forest)`.

    x `(N, input_size)`: a row for each node, or with inputs="leaves" `(leaves, input_size)` in the
    order of `forest.leaves`, of an `Order` its `input_rows`; other nodes then see zeros. forest: a
    `Forest`, walked from the leaves to the roots, or an `Order`, such as `forest.top_down()`.
    Returns h `(N, hidden_size)`, for a Tree-LSTM `(h, c)`, of all nodes in the forest's order.
    """

    def __init__(
        self,
        cell: Cell,
        input_size: int,
        hidden_size: int,
        *,
        inputs: str,
        bias: bool,
        dtype: npt.DTypeLike,
        seed: int | np.random.Generator | None,
    ) -> None:
        if inputs not in ("all", "leaves"):
            raise ValueError(f"inputs must be 'all' or 'leaves', got {inputs!r}")
        self.input_size = check_size("input_size", input_size)
        self.hidden_size = check_size("hidden_size", hidden_size)
        self.inputs, self.cell, self.dtype = inputs, cell, float_dtype(dtype)
        rows, recurrent = cell.gates * hidden_size, (cell.gates + cell.extra_gates) * hidden_size
        several = (cell.arity,) if cell.arity > 1 else ()
        shapes: dict[str, tuple[int, ...]] = {"weight_ih": (rows, input_size)}
        shapes["weight_hh"] = (*several, recurrent, hidden_size)
        if bias:
            shapes["bias_ih"] = (rows,)
        rng, bound = np.random.default_rng(seed), hidden_size**-0.5
        super().__init__({n: uniform(rng, s, bound, self.dtype) for n, s in shapes.items()})
        self._build()

    def _build(self) -> None:
        """Make the compiled layer; it watches the parameters, which never change identity."""
        make = _core.LayerF32 if self.dtype == np.float32 else _core.LayerF64
        settings = self.cell.settings(self.input_size, self.hidden_size, False)
        self._kernels = make(settings, self._groups(self.params))

    @staticmethod
    def _groups(arrays: Any) -> Any:
        names = ("weight_ih", "weight_hh", "bias_ih")
        return _core.Parameters([[[*map(arrays.get, names), None, None, None]]])

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_kernels"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._build()

    def __call__(self, x: npt.ArrayLike, forest: Forest | Order) -> States:
        """Return the states of all nodes; nothing is recorded."""
        rows, order = self._rows(x, forest)
        h, c, _ = self._kernels.forward_forest(rows, order.begin, order.wave, order.prev, False)
        return (h, c) if self.cell.has_cell_state else h

    def vjp(self, x: npt.ArrayLike, forest: Forest | Order) -> tuple[States, Callable[..., Array]]:
        """Return the states and the pullback from their gradients (None: zero) to that of x.

        For a Tree-LSTM `pullback(dh, dc=None)`.
        """
        rows, order = self._rows(x, forest)
        h, c, tape = self._kernels.forward_forest(rows, order.begin, order.wave, order.prev, True)

        def pullback(dh: npt.ArrayLike | None, dc: npt.ArrayLike | None = None) -> Array:
            if dc is not None and c is None:
                raise TypeError("dc: this layer has no cell states")
            d_h, d_c = (
                None if given is None else as_shape(name, given, self.dtype, h.shape)
                for name, given in (("dh", dh), ("dc", dc))
            )
            dx = self._kernels.backward_forest(tape, d_h, d_c, self._groups(self.grads))
            return dx[self._leaves(forest)] if self.inputs == "leaves" else dx

        for state in (h, c):
            if state is not None:
                state.flags.writeable = False
        return ((h, c) if self.cell.has_cell_state else h), once(pullback)

    def _rows(self, x: npt.ArrayLike, forest: Forest | Order) -> tuple[Array, Order]:
        """Return a row of inputs for every node, and the order in which they follow each other."""
        if not isinstance(forest, (Forest, Order)):
            raise TypeError(f"forest must be a Forest or an Order, got {type(forest).__name__}")
        order = forest.bottom_up(self.cell.arity) if isinstance(forest, Forest) else forest
        if len(order.prev) != self.cell.arity:
            raise ValueError(
                f"forest must be an order of arity {self.cell.arity}, got {len(order.prev)}"
            )
        nodes = len(order.wave)
        leaves = self._leaves(forest) if self.inputs == "leaves" else None
        shape = (nodes if leaves is None else len(leaves), self.input_size)
        x = as_array("x", x, self.dtype)
        if x.shape != shape:
            kind = "node" if leaves is None else "leaf"
            raise ValueError(f"x must have shape {shape}, a row for each {kind}, got {x.shape}")
        if leaves is None:
            return x, order
        rows = np.zeros((nodes, self.input_size), self.dtype)
        rows[leaves] = x
        return rows, order

    @staticmethod
    def _leaves(forest: Forest | Order) -> Array:
        return forest.leaves if isinstance(forest, Forest) else forest.input_rows


class RecursiveNet(Recursive):
    """p = phi(W x + b + sum_k U_k c_k), where c_k are the children (Socher et al. 2011).

    Parameters: `weight_ih (H, I)`, `weight_hh (arity, H, H)`, for an arity of one `(H, H)`, and
    `bias_ih (H,)`; all uniform in +-1/sqrt(H) at first. Children that there are not count as zero.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        arity: int = 2,
        nonlinearity: Activation = "tanh",
        *,
        inputs: str = "all",
        bias: bool = True,
        dtype: npt.DTypeLike = "float32",
        seed: int | np.random.Generator | None = None,
    ) -> None:
        phi = chosen("nonlinearity", nonlinearity)
        cell = Cell(
            "rnn_tanh",
            "h",
            (SIGMOID, phi, phi),
            (SIGMOID, TANH, TANH),
            arity=_check_arity(arity, 8),
        )
        super().__init__(
            cell, input_size, hidden_size, inputs=inputs, bias=bias, dtype=dtype, seed=seed
        )


class TreeLSTM(Recursive):
    """The N-ary Tree-LSTM (Tai et al. 2015, eq. 9 to 14), a forget gate for each child k.

        i, o = sigmoid(W x + b + sum_l U_l h_l)     g = tanh(the same sum)
        f_k = sigmoid(W_f x + b_f + sum_l U_fkl h_l)
        c = i * g + sum_k f_k * c_k
        h = o * tanh(c)

    Parameters: `weight_ih (4 H, I)` and `bias_ih (4 H,)`, rows i, f, g, o; `weight_hh (arity, (3 +
    arity) H, H)`, a matrix for each child l with rows i, f_1, ..., f_arity, g, o; for an arity of
    one, where it is the LSTM, `(4 H, H)`. Children that there are not count as zero. arity: 1 to 5.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        arity: int = 2,
        *,
        inputs: str = "all",
        bias: bool = True,
        dtype: npt.DTypeLike = "float32",
        seed: int | np.random.Generator | None = None,
    ) -> None:
        arity = _check_arity(arity, 5)
        cell = Cell(
            f"tree_lstm_{arity}", "ifgo", has_cell_state=True, arity=arity, extra_gates=arity - 1
        )
        super().__init__(
            cell, input_size, hidden_size, inputs=inputs, bias=bias, dtype=dtype, seed=seed
        )


def _check_arity(arity: int, most: int) -> int:
    if check_size("arity", arity) > most:
        raise ValueError(f"arity must be at most {most}, got {arity}")
    return arity
