"""Bridges: how what an encoder ends with begins a decoder.

An encoder's final state is seen as layers from the bottom up, each `(h, c)` with the directions of
`h (B, W)` side by side; c is None where the cell has none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from ..arrays import Array, check_size
from ..compositions.bidirectional import Bidirectional, Reversed
from ..compositions.chain import Chain
from ..compositions.composition import Composition, run
from ..compositions.skips import Parallel, Residual
from ..init import Seed
from ..layers.activations import Tanh
from ..layers.linear import Linear
from ..module import Module
from ..states import State

#: Of each layer h and c `(B, W)`, or their gradients; None is zero, or not there.
Finals: TypeAlias = Sequence[tuple[Array | None, Array | None]]


class Start(NamedTuple):
    """What a decoder begins with, or its gradients; None is zero, or not there."""

    h: Array | None = None  # (num_layers, B, H)
    c: Array | None = None  # the same, for an LSTM
    context: Array | None = None  # (B, C), for every step


def finals(encoder: Module, state: State) -> tuple[Finals, Callable[[Finals], State]]:
    """Return an encoder's final state layer by layer, and the pullback of such gradients."""
    if isinstance(encoder, Chain):
        return _of_chain([layer for layer in encoder.layers if layer.recurrent], state)
    if isinstance(encoder, Bidirectional):
        return _of_two(encoder, state)
    if isinstance(encoder, Reversed):
        return finals(encoder.layer, state)
    if isinstance(encoder, Residual):
        return finals(encoder.module, state)
    if isinstance(encoder, (Composition, Parallel)):
        if state == ():  # a row convolution, behind others perhaps
            return [], lambda gradients: ()
        raise TypeError(f"a bridge cannot read the state of a {type(encoder).__name__}")
    h, c = state if isinstance(state, tuple) else (state, None)
    directions = encoder.directions or 1
    hs = _side_by_side(h, directions)
    cs = [None] * len(hs) if c is None else _side_by_side(c, directions)

    def back(gradients: Finals) -> State:
        dh = _stacked([dh for dh, _ in gradients], h, directions)
        return dh if c is None else (dh, _stacked([dc for _, dc in gradients], c, directions))

    return list(zip(hs, cs, strict=True)), back


def _of_chain(parts: list[Module], state: State) -> tuple[Finals, Callable[[Finals], State]]:
    found = [finals(part, of_part) for part, of_part in zip(parts, state, strict=True)]

    def back(gradients: Finals) -> State:
        trees, at = [], 0
        for layers, of_part in found:
            trees.append(of_part(gradients[at : at + len(layers)]))
            at += len(layers)
        return tuple(trees)

    return [layer for layers, _ in found for layer in layers], back


def _of_two(encoder: Bidirectional, state: State) -> tuple[Finals, Callable[[Finals], State]]:
    (ahead, ahead_back), (behind, behind_back) = (
        finals(part, of_part)
        for part, of_part in zip((encoder.forward, encoder.backward), state, strict=True)
    )

    def joined(a: Array | None, b: Array | None) -> Array | None:
        return None if a is None or b is None else np.concatenate([a, b], axis=-1)

    def part(d: Array | None, like: Array | None, first: bool) -> Array | None:
        if d is None or like is None:
            return None
        width = like.shape[-1]
        return d[..., :width] if first else d[..., -width:]

    def back(gradients: Finals) -> State:
        sides = [
            [
                (part(dh, h, first), part(dc, c, first))
                for (dh, dc), (h, c) in zip(gradients, side, strict=True)
            ]
            for side, first in ((ahead, True), (behind, False))
        ]
        return ahead_back(sides[0]), behind_back(sides[1])

    both = zip(ahead, behind, strict=True)
    return [(joined(a[0], b[0]), joined(a[1], b[1])) for a, b in both], back


def _by_layer(part: Array, directions: int) -> Array:
    """A view of `(L * D, B, H)` as `(L, B, D, H)`."""
    return part.reshape(len(part) // directions, directions, *part.shape[1:]).swapaxes(1, 2)


def _side_by_side(part: Array, directions: int) -> list[Array]:
    """`(L * D, B, H)` to `(B, D * H)` of each layer."""
    layers = _by_layer(part, directions)
    return list(layers.reshape(*layers.shape[:2], directions * part.shape[-1]))


def _stacked(layers: Sequence[Array | None], like: Array, directions: int) -> Array:
    """Undo `_side_by_side`, None being zero."""
    d = np.zeros_like(like)
    for layer, part in zip(_by_layer(d, directions), layers, strict=True):
        if part is not None:
            layer[...] = part.reshape(layer.shape)
    return d


class Bridge(Module):
    """From an encoder's final state to what a decoder begins with; a subclass says how."""

    #: Whether it says how a cell state begins, which the decoder must then have.
    cell_state: bool = False

    def __call__(self, layers: Finals) -> Start:
        """Return the decoder's start."""
        return self._run(_checked(layers), False)[0]

    def vjp(self, layers: Finals) -> tuple[Start, Callable[[Start], Finals]]:
        """As a call, and the pullback from the start's gradients to those of the layers."""
        return self._run(_checked(layers), True)

    def _run(self, layers: Finals, record: bool) -> tuple[Start, Callable[[Start], Finals]]:
        raise NotImplementedError


class FinalBridge(Bridge):
    """The decoder's layers begin as the encoder's ended (Sutskever et al. 2014).

    Both have the same number of layers; the decoder's are as wide as the encoder's directions
    together. A cell state begins as the encoder's, or as zero where the encoder has none.
    """

    def _run(self, layers: Finals, record: bool) -> tuple[Start, Callable[[Start], Finals]]:
        hs, cs = zip(*layers, strict=True)
        has_c = cs[0] is not None

        def back(d: Start) -> Finals:
            dh = [None] * len(layers) if d.h is None else d.h
            dc = [None] * len(layers) if d.c is None or not has_c else d.c
            return list(zip(dh, dc, strict=True))

        return Start(np.stack(hs), np.stack(cs) if has_c else None), back


class LinearBridge(Bridge):
    """Learnt maps to each layer of the decoder: tanh(W final + b) (Bahdanau et al. 2015, A.2.2).

    encoder_size: how wide the encoder's final h is; each decoder layer, from the top down, sees
    the encoder's layer beside it, or at the lowest. backward=True: only the last `encoder_size`
    numbers of it, the backward direction. cell_state: whether that of the decoder has maps of its
    own, from the encoder's cell state where there is one; else it begins with zeros.
    """

    def __init__(
        self,
        encoder_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        cell_state: bool = True,
        backward: bool = False,
        dtype: npt.DTypeLike = "float32",
        seed: Seed = None,
    ) -> None:
        super().__init__()
        self.encoder_size = check_size("encoder_size", encoder_size)
        self.hidden_size = check_size("hidden_size", hidden_size)
        self.num_layers = check_size("num_layers", num_layers)
        self.cell_state, self.backward = bool(cell_state), bool(backward)
        rng = np.random.default_rng(seed)
        self.h = _maps(num_layers, encoder_size, hidden_size, dtype, rng)
        self.c = _maps(num_layers, encoder_size, hidden_size, dtype, rng) if cell_state else None

    def _run(self, layers: Finals, record: bool) -> tuple[Start, Callable[[Start], Finals]]:
        beside = [max(0, len(layers) - self.num_layers + n) for n in range(self.num_layers)]
        h, h_back = self._mapped(self.h, [layers[n][0] for n in beside], record)
        if self.c is None:
            return Start(h), lambda d: _summed(layers, beside, h_back(d.h), None)
        own = layers[0][1] is not None
        c, c_back = self._mapped(self.c, [layers[n][1 if own else 0] for n in beside], record)

        def back(d: Start) -> Finals:
            dh, dc = h_back(d.h), c_back(d.c)
            if own:
                return _summed(layers, beside, dh, dc)
            return _summed(layers, beside, [a + b for a, b in zip(dh, dc, strict=True)], None)

        return Start(h, c), back

    def _mapped(
        self, maps: Sequence[Chain], inputs: Sequence[Any], record: bool
    ) -> tuple[Array, Any]:
        begins = [x.shape[-1] - self.encoder_size if self.backward else 0 for x in inputs]
        pairs = [
            run(layer, record, x[..., at:])
            for layer, x, at in zip(maps, inputs, begins, strict=True)
        ]

        def back(d: Array) -> list[Array]:
            found = []
            for (_, pullback), x, at, part in zip(pairs, inputs, begins, d, strict=True):
                dx = np.zeros_like(x)
                dx[..., at:] = pullback(part)
                found.append(dx)
            return found

        return np.stack([y for y, _ in pairs]), back


class ContextBridge(Bridge):
    """A learnt context for every step, and a first state made of it (Cho et al. 2014, A.1).

    context = tanh(V final + b) of the encoder's highest layer; each decoder layer begins with
    h = tanh(V' context + b'), and c, where there is one, as zero. The decoder has the same
    context_size.
    """

    def __init__(
        self,
        encoder_size: int,
        context_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        dtype: npt.DTypeLike = "float32",
        seed: Seed = None,
    ) -> None:
        super().__init__()
        self.context_size = check_size("context_size", context_size)
        self.num_layers = check_size("num_layers", num_layers)
        rng = np.random.default_rng(seed)
        self.context = _map(encoder_size, context_size, dtype, rng)
        self.h = _maps(num_layers, context_size, hidden_size, dtype, rng)

    def _run(self, layers: Finals, record: bool) -> tuple[Start, Callable[[Start], Finals]]:
        context, context_back = run(self.context, record, layers[-1][0])
        pairs = [run(layer, record, context) for layer in self.h]

        def back(d: Start) -> Finals:
            dcontext: Any = d.context
            for (_, pullback), part in zip(pairs, cast(Array, d.h), strict=True):
                dcontext = dcontext + pullback(part)
            below: list[tuple[Array | None, Array | None]] = [(None, None)] * (len(layers) - 1)
            return [*below, (context_back(dcontext), None)]

        return Start(np.stack([y for y, _ in pairs]), None, context), back


def _checked(layers: Finals) -> Finals:
    """Return final states, or raise `ValueError` where one is none."""
    if not layers:
        raise ValueError("layers must hold the final state of at least one layer")
    for at, state in enumerate(layers):
        pair: Any = state if isinstance(state, tuple) and len(state) == 2 else (None, None)
        if np.ndim(pair[0]) != 2 or (pair[1] is not None and np.ndim(pair[1]) != 2):
            raise ValueError(f"layers[{at}] must be (h, c): h (B, H), and c as h, or None")
    return layers


def _map(inputs: int, outputs: int, dtype: npt.DTypeLike, rng: np.random.Generator) -> Chain:
    return Chain(Linear(inputs, outputs, dtype=dtype, seed=rng), Tanh())


def _maps(
    count: int, inputs: int, outputs: int, dtype: npt.DTypeLike, rng: np.random.Generator
) -> list[Chain]:
    """Maps side by side."""
    return [_map(inputs, outputs, dtype, rng) for _ in range(count)]


def _summed(
    layers: Finals, beside: list[int], dh: Sequence[Array], dc: Sequence[Array] | None
) -> Finals:
    """Gradients of the encoder's layers from those of what each decoder layer saw."""

    def of(n: int, parts: Sequence[Array] | None) -> Any:
        mine = [part for at, part in zip(beside, parts or (), strict=False) if at == n]
        return sum(mine[1:], mine[0]) if mine else None

    return [(of(n, dh), of(n, dc)) for n in range(len(layers))]
