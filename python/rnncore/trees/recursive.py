"""Recursive layers: the engine of the recurrent ones, on trees and other graphs without cycles."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..arrays import Array, as_array, as_shape, check_size, float_dtype
from ..compiled import Parameters, core
from ..init import uniform
from ..layers.activations import sigmoid
from ..layers.linear import Linear
from ..module import Module, once
from ..nonlinearities import Activation
from ..precision import HoldsWeights
from ..recurrent.cell import Cell, compiled_activations, norm_of, one_activation
from ..recurrent.regularisers import Masks, Regularisers
from .forest import Forest
from .order import Order

#: `h`, or `(h, c)`, of all nodes.
States: TypeAlias = Any


class Recursive(HoldsWeights):
    """A layer whose nodes continue several others: `states = layer(x, forest)`.

    x `(N, input_size)`: a row for each node, or with inputs="leaves" `(leaves, input_size)` in the
    order of `forest.leaves`; other nodes then see none. forest: a `Forest`, walked from the leaves
    to the roots, or an `Order`. Returns h `(N, hidden_size)`, for a Tree-LSTM `(h, c)`, of all
    nodes in the forest's order.

    In training `variational_dropout` is the share of what goes from a node's predecessors into its
    recurrent products that is zeroed, the same hidden units in all of a tree (Gal and Ghahramani
    2016), `recurrent_dropout` that of the update g or n (Semeniuta et al. 2016).
    """

    def __init__(
        self,
        cell: Cell,
        input_size: int,
        hidden_size: int,
        *,
        inputs: str = "all",
        bias: bool = True,
        dtype: npt.DTypeLike = "float32",
        seed: int | np.random.Generator | None = None,
        leaf_module: bool = False,
        variational_dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
    ) -> None:
        if leaf_module and not cell.has_cell_state:
            raise ValueError("leaf_module is for Tree-LSTMs: this layer has no cell states")
        if inputs not in ("all", "leaves"):
            raise ValueError(f"inputs must be 'all' or 'leaves', got {inputs!r}")
        self.input_size = check_size("input_size", input_size)
        self.hidden_size = check_size("hidden_size", hidden_size)
        self.inputs, self.cell, self.dtype = inputs, cell, float_dtype(dtype)
        self.has_cell_state = cell.has_cell_state
        self._regularisers = Regularisers.of(
            cell, variational_dropout=variational_dropout, recurrent_dropout=recurrent_dropout
        )
        self.rng = np.random.default_rng(seed)
        bound = hidden_size**-0.5
        shapes = self._shapes(bias, leaf_module and inputs == "leaves")
        params = {n: uniform(self.rng, s, bound, self.dtype) for n, s in shapes.items()}
        if cell.units:
            params[cell.units] = cell.first_units(self.rng, hidden_size).astype(self.dtype)
        super().__init__(params)
        self.leaf = (
            LeafModule(input_size, hidden_size, self.dtype, self.rng) if leaf_module else None
        )
        self._build()

    def _shapes(self, bias: bool, leaves_only: bool) -> dict[str, tuple[int, ...]]:
        cell, facts, hidden = self.cell, self.cell.facts, self.hidden_size
        rows, recurrent = facts.gates * hidden, facts.recurrent_gates * hidden
        together = cell.arity * hidden
        shapes: dict[str, tuple[int, ...]] = {"weight_ih": (rows, self.input_size)}
        if leaves_only:  # what leaves become, and no other node sees, has weights of its own
            del shapes["weight_ih"]
        if facts.multiplies_pairs:
            shapes["weight_hh"] = (recurrent, together + together**2)
        else:
            several = (cell.arity,) if cell.arity > 1 else ()
            shapes["weight_hh"] = (*several, recurrent, hidden)
        if bias and not facts.normalises:
            shapes["bias_ih"] = (rows,)
        return shapes

    def _build(self) -> None:
        """Make the compiled layer; it watches the parameters, which never change identity."""
        width = self.input_size if "weight_ih" in self._params else 0
        settings = self.cell.settings(width, self.hidden_size, False, self._weights_in())
        self.kernels = core(self.dtype).Layer(settings, self._groups(self.float_params()))

    def _lend(self) -> None:
        self.kernels.lend()

    def _groups(self, arrays: Any) -> Any:
        names = next(self.cell.kinds())
        return Parameters([[[(name, arrays.get(name)) for name in names]]])

    def weight_names(self) -> Iterator[str]:
        """Yield the names of the matrices of products: not those of the units' own numbers."""
        return (name for name in super().weight_names() if name != self.cell.units)

    @property
    def columns(self) -> int:
        """How wide x is."""
        return self.input_size

    @property
    def state_names(self) -> tuple[str, ...]:
        """What the states of a node are called."""
        return ("h", "c") if self.has_cell_state else ("h",)

    def _joined(self, h: Array, c: Array | None) -> States:
        """h, or all states, as views."""
        if c is None or len(self.state_names) == 2:
            return h if c is None else (h, c)
        return (h, *np.split(c, len(self.state_names) - 1, axis=1))

    def _split(self, dstates: Sequence[npt.ArrayLike | None], shape: tuple[int, ...]) -> Any:
        """The gradients of h, and of the other states side by side, either None for zero."""
        names = self.state_names
        if len(dstates) > len(names) and any(d is not None for d in dstates[len(names) :]):
            if len(names) == 1:
                raise TypeError("dc: this layer has no cell states")
            raise TypeError(
                f"the pullback takes the gradients of {', '.join(names)} alone, got {len(dstates)}"
            )
        dh, *others = (
            None if d is None else as_shape(f"d{name}", d, self.dtype, shape)
            for name, d in zip(names, dstates, strict=False)
        )
        if all(d is None for d in others):
            return dh, None
        zero = np.zeros(shape, self.dtype)
        others += [None] * (len(names) - 1 - len(others))
        return dh, np.concatenate([zero if d is None else d for d in others], axis=1)

    def __call__(self, x: npt.ArrayLike, forest: Forest | Order) -> States:
        """Return the states of all nodes; nothing is recorded."""
        order = self._order(forest)
        x = self._input(x, order)
        given = None
        if self.leaf is not None:
            given = self._with_leaves(self.leaf(self._of_leaves(x, order)), order)
        h, c, _ = self.kernels.forward_forest(*self._arguments(x, order), given, None, False)
        return self._joined(h, c)

    def vjp(self, x: npt.ArrayLike, forest: Forest | Order) -> tuple[States, Callable[..., Array]]:
        """Return the states and the pullback from their gradients (None: zero) to that of x.

        For a Tree-LSTM `pullback(dh, dc=None)`, with further states one more for each.
        """
        self._check_trains()
        order = self._order(forest)
        x = self._input(x, order)
        given = leaf_back = None
        if self.leaf is not None:
            states, leaf_back = self.leaf.vjp(self._of_leaves(x, order))
            given = self._with_leaves(states, order)
        masks = self._masks(order)
        h, c, tape = self.kernels.forward_forest(*self._arguments(x, order), given, masks, True)

        def pullback(
            dh: npt.ArrayLike | None,
            dc: npt.ArrayLike | None = None,
            *dothers: npt.ArrayLike | None,
        ) -> Array:
            d_h, d_c = self._split((dh, dc, *dothers), h.shape)
            gradients = self.kernels.targets(self._groups(self.grads))
            dx, d_h, d_c = self.kernels.backward_forest(tape, d_h, d_c, gradients)
            if leaf_back is not None and d_c is not None:
                d_leaves: Array = leaf_back(d_h[order.starts], d_c[order.starts])
                if self.inputs == "leaves":
                    return d_leaves
                dx[order.starts] = d_leaves
            return dx[order.leaves] if self._spreads(order) else dx

        for state in (h, c):
            if state is not None:
                state.flags.writeable = False
        return self._joined(h, c), once(pullback)

    def _order(self, forest: Forest | Order) -> Order:
        if not isinstance(forest, (Forest, Order)):
            raise TypeError(f"forest must be a Forest or an Order, got {type(forest).__name__}")
        arity = None if self.cell.facts.any_arity else self.cell.arity
        order = forest.bottom_up(arity) if isinstance(forest, Forest) else forest
        if arity is None and order.arity == 1:
            order = order.unplaced
        if order.arity != arity:
            raise ValueError(f"forest must be an order of arity {arity}, got {order.arity}")
        if self.leaf is not None and self._spreads(order):
            raise ValueError("forest must be an order from the leaves up for a leaf_module")
        return order

    def _spreads(self, order: Order) -> bool:
        """Whether nodes with an input stand among others that have none, not before them."""
        return self.inputs == "leaves" and order.leaves is not None

    def _input(self, x: npt.ArrayLike, order: Order) -> Array:
        rows = len(order.wave) if self.inputs == "all" else len(order.input_rows)
        x, shape = as_array("x", x, self.dtype), (rows, self.columns)
        if x.shape != shape:
            kind = "node" if self.inputs == "all" else "leaf"
            raise ValueError(f"x must have shape {shape}, a row for each {kind}, got {x.shape}")
        return x

    def _of_leaves(self, x: Array, order: Order) -> Array:
        return x if self.inputs == "leaves" else x[order.starts]

    def _arguments(self, x: Array, order: Order) -> tuple[Array, Any]:
        """What the compiled layer is told of a call's nodes."""
        if "weight_ih" not in self._params:
            x = x[:, :0]
        leaves = self.inputs == "leaves"
        if self._spreads(order):
            given, x = x, np.zeros((len(order.wave), x.shape[1]), x.dtype)
            x[order.leaves], leaves = given, False
        return x, (order.begin, order.wave, order.prev, order.first, leaves)

    def _with_leaves(self, states: tuple[Array, Array], order: Order) -> tuple[Array, Array]:
        """Room for the states of all nodes, with those of the leaves in it."""
        h, c = (np.empty((len(order.wave), self.hidden_size), self.dtype) for _ in states)
        h[order.starts], c[order.starts] = states
        return h, c

    def _masks(self, order: Order) -> Masks | None:
        """Masks for one call, that of the state the same for all nodes of a tree."""
        trees, rows = len(order.begin) - 1, len(order.wave)
        shapes = ((1, n, self.hidden_size) for n in (trees, rows))
        masks = self._regularisers.draw(self.rng, self.dtype, *shapes)
        if masks is None or masks.state is None:
            return masks
        return masks._replace(state=np.repeat(masks.state, np.diff(order.begin), axis=1))


class LeafModule(Module):
    """States of leaves without gates but one (Tai et al. 2015, their implementation's leaf module).

        c = W_c x + b_c    o = sigmoid(W_o x + b_o)    h = o * tanh(c)

    Parameters: those of `linear`, rows c, o: `weight (2 H, I)`, `bias (2 H,)`.
    """

    def __init__(
        self, input_size: int, hidden_size: int, dtype: npt.DTypeLike, rng: np.random.Generator
    ) -> None:
        super().__init__()
        self.linear = Linear(input_size, 2 * hidden_size, dtype=dtype, seed=rng)

    def __call__(self, x: Array) -> tuple[Array, Array]:
        """x (leaves, I) -> h, c (leaves, H)."""
        c, o, m = self._parts(self.linear(x))
        return o * m, c

    def vjp(self, x: Array) -> tuple[tuple[Array, Array], Callable[..., Array]]:
        """Return (h, c) and the pullback from (dh, dc) to dx."""
        sums, linear_back = self.linear.vjp(x)
        c, o, m = self._parts(sums)

        def pullback(dh: Array, dc: Array) -> Array:
            d_c = dc + dh * o * (1 - m * m)
            dx: Array = linear_back(np.concatenate([d_c, dh * m * o * (1 - o)], axis=1))
            return dx

        return (o * m, c), pullback

    @staticmethod
    def _parts(sums: Array) -> tuple[Array, Array, Array]:
        """Return c, o and tanh(c)."""
        c, a = np.split(sums, 2, axis=1)
        return c, sigmoid(a), np.tanh(c)


class RecursiveNet(Recursive):
    """p = phi(W x + b + sum_k U_k c_k), where c_k are the children (Socher et al. 2011).

    Parameters: `weight_ih (H, I)`, `weight_hh (arity, H, H)`, for an arity of one `(H, H)`, and
    `bias_ih (H,)`; all uniform in +-1/sqrt(H) at first. Children that there are not count as zero.
    Options: those of `Recursive`. arity: 1 to 8.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        arity: int = 2,
        nonlinearity: Activation = "tanh",
        **options: Any,
    ) -> None:
        self.arity = _check_arity(arity, 8)
        super().__init__(
            _plain("rnn_tanh", arity, nonlinearity), input_size, hidden_size, **options
        )


class RecursiveTensorNet(Recursive):
    """The recursive neural tensor network (Socher et al. 2013, section 4.3).

        p = phi(W x + b + U a + a^T V a),  a = [c_1; ...; c_arity]

    Parameters: `weight_ih (H, I)`, `bias_ih (H,)` and `weight_hh (H, A + A^2)` with A = arity * H:
    in each row that of U and then the slice (A, A) of V, row by row, V in +-1/A at first. Without
    `variational_dropout`; work and memory grow with H^3. Options: those of `Recursive`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        arity: int = 2,
        nonlinearity: Activation = "tanh",
        **options: Any,
    ) -> None:
        if options.get("variational_dropout"):
            raise ValueError("variational_dropout is not for tensor networks")
        self.arity = _check_arity(arity, 8)
        super().__init__(_plain("tensor", arity, nonlinearity), input_size, hidden_size, **options)
        together = arity * hidden_size
        self.params["weight_hh"][:, together:] *= hidden_size**0.5 / together


class TreeLSTM(Recursive):
    """The N-ary Tree-LSTM (Tai et al. 2015, eq. 9 to 14), a forget gate for each child k.

        i, o = sigmoid(W x + b + sum_l U_l h_l)     g = tanh(the same sum)
        f_k = sigmoid(W_f x + b_f + sum_l U_fkl h_l)
        c = i * g + sum_k f_k * c_k
        h = o * tanh(c)

    Parameters: `weight_ih (4 H, I)` and `bias_ih (4 H,)`, rows i, f, g, o; `weight_hh (arity, (3 +
    arity) H, H)`, a matrix for each child l with rows i, f_1, ..., f_arity, g, o; for an arity of
    one, where it is the LSTM, `(4 H, H)`. Children that there are not count as zero. arity: 1 to 5.
    With leaf_module=True the states of leaves are those of a `LeafModule`, and with inputs="leaves"
    there is no `weight_ih`. Options: those of `Recursive`.

    layer_norm=True: W x and sum_l U_l h_l are normalised, each over all its rows, and so is c
    before tanh (Ba et al. 2016, eq. 20 to 22); "gate": each gate by itself. In place of `bias_ih`
    there is `norm (13 + arity, H)`: the gains of W x for i, f, g, o, those of the sum for its rows,
    the biases of i, f, g, o; gain and bias of c.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        arity: int = 2,
        *,
        layer_norm: bool | str = False,
        **options: Any,
    ) -> None:
        self.arity = _check_arity(arity, 5)
        super().__init__(_tree_lstm(arity, layer_norm), input_size, hidden_size, **options)


class ChildSumTreeLSTM(Recursive):
    """The child-sum Tree-LSTM (Tai et al. 2015, eq. 2 to 8), for any number of unordered children.

        i, o = sigmoid(W x + b + U sum_k h_k)     g = tanh(the same sum)
        f_k = sigmoid(W_f x + b_f + U_f h_k)
        c = i * g + sum_k f_k * c_k
        h = o * tanh(c)

    Parameters: `weight_ih (4 H, I)`, `weight_hh (4 H, H)`, `bias_ih (4 H,)`, rows i, f, g, o. With
    leaf_module=True as `TreeLSTM`. Options: those of `Recursive`.

    layer_norm as of `TreeLSTM`: W x, the rows of i, g and o of U sum_k h_k, and each child's U_f
    h_k are normalised, "gate": each gate by itself, and so is c. `norm (14, H)` has the gains of
    W x and those of U h, each for i, f, g, o, the biases of i, f, g, o; gain and bias of c.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        layer_norm: bool | str = False,
        **options: Any,
    ) -> None:
        super().__init__(_tree_lstm(None, layer_norm), input_size, hidden_size, **options)


class TreeGRU(Recursive):
    """The child-sum Tree-GRU (Zhou et al. 2016, eq. 9 to 13), for any number of unordered children.

        z = sigmoid(W_z x + b_z + U_z s)     s = sum_k h_k
        r_k = sigmoid(W_r x + b_r + U_r h_k)
        n = tanh(W_n x + b_n + U_n sum_k r_k * h_k)
        h = (1 - z) * n + z * s

    Parameters: `weight_ih (3 H, I)`, `weight_hh (3 H, H)`, `bias_ih (3 H,)`, rows r, z, n. Options:
    those of `Recursive`, without `leaf_module`.
    """

    def __init__(self, input_size: int, hidden_size: int, **options: Any) -> None:
        kernel = "child_sum_gru"
        cell = Cell(kernel, "rzn", compiled_activations(kernel), arity=1)
        super().__init__(cell, input_size, hidden_size, **options)


def _plain(kernel: str, arity: int, nonlinearity: Activation) -> Cell:
    """A cell of one gate, the nonlinearity."""
    return Cell(kernel, "h", one_activation(nonlinearity), arity=arity)


def _tree_lstm(arity: int | None, layer_norm: bool | str) -> Cell:
    """The N-ary Tree-LSTM, with one child the LSTM; None: the child-sum one."""
    places = arity or 1
    kernel = f"tree_lstm_{places}" if places > 1 else "lstm" if arity else "child_sum_lstm"
    kernel += norm_of(layer_norm)
    return Cell(kernel, "ifgo", compiled_activations(kernel), arity=places)


def _check_arity(arity: int, most: int) -> int:
    if check_size("arity", arity) > most:
        raise ValueError(f"arity must be at most {most}, got {arity}")
    return arity
