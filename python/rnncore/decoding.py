"""How a decoder goes over all its steps: at once, or inside one compiled loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from . import _core
from .arrays import Array
from .attention import Attention, MemoryGradients, run
from .kernels import State
from .layers import Linear
from .regularisers import inverted
from .sequences import mapped
from .stack import Layers


class Inputs(NamedTuple):
    """What a decoder reads in T steps of B rows."""

    x: Array  # (T, B, E)
    state: State
    memory: Any  # a Memory, or None without attention
    steps: Array | None  # (B,): how many of them each row takes
    mask: Array | None  # (T, B): the same
    context: Array | None  # (B, C): what every step sees

    def joined(self, width: int) -> Array:
        """X and the context side by side, and zeros up to this width."""
        size = self.x.shape[-1]
        if size == width:
            return self.x
        wide = np.zeros((*self.x.shape[:2], width), self.x.dtype)
        wide[..., :size] = self.x
        if self.context is not None:
            wide[..., size : size + self.context.shape[-1]] = self.context
        return wide


class Outputs(NamedTuple):
    """What comes of it, and the way back.

    The way back goes from dy to the gradients of all that the rnn read, and of its first state; it
    adds to the memory's.
    """

    y: Array  # (T, B, ...)
    merged: bool  # whether y is what the head sees, or contexts with h beside them
    weights: Array | None  # (T, B, S)
    pullback: Callable[[Array, Any], tuple[Array, State]]


def at_once(rnn: Layers, attention: Attention | None, inputs: Inputs, record: bool) -> Outputs:
    """All steps of the recurrence in one call, then all that they look at in another."""
    joined, steps = inputs.joined(rnn.input_size), inputs.steps
    (y, _), rnn_back = run(rnn, record, joined, inputs.state, lengths=steps)
    if attention is None:
        return Outputs(y, True, None, lambda dy, _: rnn_back(dy))
    contexts, weights, look_back = attention.look(y, inputs.memory, steps, record=record)
    size = attention.memory_size
    contexts[..., size:] = y

    def pullback(dcontexts: Array, d: MemoryGradients) -> tuple[Array, State]:
        dy = look_back(dcontexts[..., :size], d)
        dy += dcontexts[..., size:]
        dx, dstate = rnn_back(dy)
        return dx, dstate

    return Outputs(contexts, False, weights, pullback)


def in_turn(
    rnn: Layers, attention: Attention, feeds: bool, inputs: Inputs, record: bool
) -> Outputs:
    """Steps one after the other in one compiled loop: what one reads depends on the one before.

    feeds: the attentional vector is joined to the next input; else the context, before the step.
    """
    state, size = inputs.state, attention.memory_size
    h0, c0 = state if isinstance(state, tuple) else (state, None)
    make = _core.DecodingF32 if rnn.dtype == np.float32 else _core.DecodingF64
    query, combine = attention.query, attention.combine
    loop = make(
        rnn._layers,
        None if query is None else query._kernels,
        combine._kernels if feeds else None,
    )
    between = (*inputs.x.shape[:2], rnn.output_size)
    drop = rnn.dropout if record else 0.0
    masks = [inverted(rnn.rng, between, drop, rnn.dtype) for _ in range(1, rnn.num_layers)]
    joined = inputs.joined(rnn.input_size)
    y, contexts, weights, out, tape = loop.forward(
        inputs.memory.kernels, joined, h0, c0, inputs.steps, masks, record
    )
    if out is None:
        contexts[..., size:] = y

    def pullback(dout: Array, d: MemoryGradients) -> tuple[Array, State]:
        dcontext, dy = (None, dout) if feeds else (dout[..., :size], dout[..., size:])
        dx, dh, dc, dquery, dsums = loop.backward(
            tape, dy, dcontext, rnn._gradients(), d.keys, d.values, attention.grads.get("v")
        )
        if dsums is not None:
            _add_gradients(combine, contexts, dsums, inputs.mask)
        if query is not None:
            asked = y if feeds else np.concatenate([h0[-1:], y])[:-1]
            _add_gradients(query, asked, dquery, inputs.mask)
        return dx, dh if dc is None else (dh, dc)

    return Outputs(contexts if out is None else out, feeds, weights, pullback)


def _add_gradients(linear: Linear, x: Array, dy: Array, mask: Array | None) -> None:
    """Add those of the weights of `y = linear(x)`, from the rows of the mask."""
    picked = np.full(x.shape[:2], True) if mask is None else mask
    linear._kernels.backward(x[picked], dy[picked], *linear._pair("grads"), want_dx=False)


def by_steps(
    rnn: Layers, attention: Attention, feeds: bool, inputs: Inputs, record: bool
) -> Outputs:
    """The same with a call for each step, for windows whose centre the last state predicts."""
    first = state = inputs.state
    memory, size, before = inputs.memory, attention.memory_size, not feeds
    joined, fed_size = inputs.joined(rnn.input_size), attention.fed_size(feeds)
    ys: list[Array] = []
    looks, backs = [], []
    for t in range(len(joined)):
        alive = None if inputs.steps is None else (t < inputs.steps).astype(np.int64)
        now = joined[t : t + 1]
        if before:
            contexts, weights, look_back = attention.look(
                top(state)[None], memory, alive, record=record
            )
            now[..., -fed_size:] = contexts[..., :size]
        elif t:
            now[..., -fed_size:] = ys[-1]
        (h, state), rnn_back = run(rnn, record, now, state)
        if feeds:
            contexts, weights, look_back = attention.look(h, memory, alive, record=record)
        contexts[..., size:] = h
        y, merge_back = attention.merge(contexts, record)
        ys.append(y)
        looks.append(weights)
        backs.append((look_back, rnn_back, merge_back))

    def pullback(dout: Array, d: MemoryGradients) -> tuple[Array, State]:
        dstate, dx = mapped(np.zeros_like, first), np.zeros_like(joined)
        for t in reversed(range(len(joined))):
            look_back, rnn_back, merge_back = backs[t]
            dy = dout[t : t + 1]
            if feeds and t + 1 < len(joined):
                dy = dy + dx[t + 1 : t + 2, :, -fed_size:]
            dcontexts = merge_back(dy)
            dcontext, dh = dcontexts[..., :size], dcontexts[..., size:]
            if feeds:
                dh = dh + look_back(dcontext, d)
            dx[t : t + 1], dstate = rnn_back(dh, dstate)
            if before:
                top(dstate)[...] += look_back(dcontext + dx[t : t + 1, :, -fed_size:], d)[0]
        return dx, dstate

    return Outputs(np.concatenate(ys), True, np.concatenate(looks), pullback)


def top(state: State) -> Any:
    """The hidden state of the last layer, `(R, H)`."""
    return (state[0] if isinstance(state, tuple) else state)[-1]
