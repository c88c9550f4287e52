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
    """What the head sees, the weights `(T, B, S)`, and the way back.

    The way back goes from dy to the gradients of all that the rnn read, and of its first state; it
    adds to the memory's.
    """

    y: Array
    weights: Array | None
    pullback: Callable[[Array, MemoryGradients | None], tuple[Array, State]]


def at_once(rnn: Layers, attention: Attention | None, inputs: Inputs, record: bool) -> Outputs:
    """All steps of the recurrence in one call, then all that they look at in another."""
    _, state, memory, steps, _ = inputs
    (y, _), rnn_back = run(rnn, record, inputs.joined(rnn.input_size), state, lengths=steps)
    if attention is None:
        return Outputs(y, None, lambda dy, _: rnn_back(dy))
    contexts, weights, look_back = attention.look(y, memory, steps, record=record)
    out, merge_back = attention.merge(contexts, y, record)

    def pullback(dout: Array, d: Any) -> tuple[Array, State]:
        dcontext, dh = merge_back(dout)
        dx, dstate = rnn_back(dh + look_back(dcontext, d))
        return dx, dstate

    return Outputs(out, weights, pullback)


def in_turn(
    rnn: Layers, attention: Attention, feeds: bool, inputs: Inputs, record: bool
) -> Outputs:
    """Steps one after the other in one compiled loop: what one reads depends on the one before.

    feeds: the attentional vector is joined to the next input; else the context, before the step.
    """
    x, state, memory, steps, _ = inputs
    h0, c0 = state if isinstance(state, tuple) else (state, None)
    make = _core.DecodingF32 if rnn.dtype == np.float32 else _core.DecodingF64
    query, combine = attention.query, attention.combine
    loop = make(
        rnn._layers,
        None if query is None else query._kernels,
        combine._kernels if feeds else None,
    )
    drop = rnn.dropout if record else 0.0
    between = (*x.shape[:2], rnn.output_size)
    masks = [inverted(rnn.rng, between, drop, rnn.dtype) for _ in range(1, rnn.num_layers)]
    y, contexts, weights, out, tape = loop.forward(
        memory.kernels, inputs.joined(rnn.input_size), h0, c0, steps, masks, record
    )
    merge_back = None
    if out is None:
        out, merge_back = attention.merge(contexts, y, record)

    def pullback(dout: Array, d: Any) -> tuple[Array, State]:
        dcontext, dy = (None, dout) if merge_back is None else merge_back(dout)
        dx, dh, dc, dquery, dsums = loop.backward(
            tape, dy, dcontext, rnn._gradients(), d.keys, d.values, attention.grads.get("v")
        )
        if dsums is not None:
            _add_gradients(combine, contexts, dsums)
        if query is not None:
            asked = y if feeds else np.concatenate([h0[-1:], y])[:-1]
            _add_gradients(query, asked, dquery)
        return dx, dh if dc is None else (dh, dc)

    return Outputs(out, weights, pullback)


def _add_gradients(linear: Linear, x: Array, dy: Array) -> None:
    """Add those of the weights of `y = linear(x)`."""
    rows = x.reshape(-1, linear.in_features), dy.reshape(-1, linear.out_features)
    linear._kernels.backward(*rows, *linear._pair("grads"), want_dx=False)


def by_steps(
    rnn: Layers, attention: Attention, feeds: bool, inputs: Inputs, record: bool
) -> Outputs:
    """The same with a call for each step, for windows whose centre the last state predicts."""
    x, state, memory, steps, _ = inputs
    joined, fed_size = inputs.joined(rnn.input_size), attention.fed_size(feeds)
    first, before = state, not feeds
    ys: list[Array] = []
    looks, backs = [], []
    for t in range(len(x)):
        alive = None if steps is None else (t < steps).astype(np.int64)
        now = joined[t : t + 1]
        if before:
            contexts, weights, look_back = attention.look(
                top(state)[None], memory, alive, record=record
            )
            now[..., -fed_size:] = contexts[..., :fed_size]
        elif t:
            now[..., -fed_size:] = ys[-1]
        (h, state), rnn_back = run(rnn, record, now, state)
        if feeds:
            contexts, weights, look_back = attention.look(h, memory, alive, record=record)
        y, merge_back = attention.merge(contexts, h, record)
        ys.append(y)
        looks.append(weights)
        backs.append((look_back, rnn_back, merge_back))

    def pullback(dout: Array, d: Any) -> tuple[Array, State]:
        dstate, dx = mapped(np.zeros_like, first), np.zeros_like(joined)
        for t in reversed(range(len(x))):
            look_back, rnn_back, merge_back = backs[t]
            dy = dout[t : t + 1]
            if feeds and t + 1 < len(x):
                dy = dy + dx[t + 1 : t + 2, :, -fed_size:]
            dcontext, dh = merge_back(dy)
            if feeds:
                dh = dh + look_back(dcontext, d)
            dx[t : t + 1], dstate = rnn_back(dh, dstate)
            if before:
                top(dstate)[...] += look_back(dcontext + dx[t : t + 1, :, -fed_size:], d)[0]
        return dx, dstate

    return Outputs(np.concatenate(ys), np.concatenate(looks), pullback)


def top(state: State) -> Any:
    """The hidden state of the last layer, `(R, H)`."""
    return (state[0] if isinstance(state, tuple) else state)[-1]
