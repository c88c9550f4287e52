"""How a decoder goes over all its steps: at once, or inside one compiled loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array
from ..compiled import core
from ..compositions.composition import run
from ..compositions.ragged import pick
from ..layers.linear import Linear
from ..recurrent.regularisers import inverted
from ..recurrent.stack import Stacked
from ..states import State
from .attention import Attention, MemoryGradients


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
    """What comes of it, and the pullback.

    The pullback goes from dy to the gradients of all that the rnn read, and of its first state; it
    adds to the memory's.
    """

    y: Array  # (T, B, ...)
    merged: bool  # whether y is what the head sees, or contexts with h beside them
    weights: Array | None  # (T, B, S)
    pullback: Callable[[Array, Any], tuple[Array, State]]


def at_once(rnn: Stacked, attention: Attention | None, inputs: Inputs, record: bool) -> Outputs:
    """All steps of the recurrence in one call, then all attention in another."""
    joined, steps = inputs.joined(rnn.input_size), inputs.steps
    (y, _), rnn_back = run(rnn, record, joined, inputs.state, lengths=steps)
    if attention is None:
        return Outputs(y, True, None, lambda dy, _: rnn_back(dy))
    contexts, weights, attend_back = attention.look(y, inputs.memory, steps, record=record)
    size = attention.memory_size
    contexts[..., size:] = y

    def pullback(dcontexts: Array, d: MemoryGradients) -> tuple[Array, State]:
        dy = attend_back(dcontexts[..., :size], d)
        dy += dcontexts[..., size:]
        dx, dstate = rnn_back(dy)
        return dx, dstate

    return Outputs(contexts, False, weights, pullback)


def in_turn(
    rnn: Stacked, attention: Attention, feeds: bool, inputs: Inputs, record: bool
) -> Outputs:
    """Steps one after the other in one compiled loop: what one reads depends on the one before.

    feeds: the attentional vector is joined to the next input; else the context, before the step.
    """
    state, size = inputs.state, attention.memory_size
    h0, c0 = state if isinstance(state, tuple) else (state, None)
    query, combine = attention.query, attention.combine
    position, centre = attention.position, attention.centre
    loop = core(rnn.dtype).Decoding(
        rnn.kernels,
        None if query is None else query.kernels,
        None if position is None or centre is None else (position.kernels, centre.kernels),
        combine.kernels if feeds else None,
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
        found = loop.backward(
            tape, dy, dcontext, rnn.gradients(), d.keys, d.values, attention.grads.get("v")
        )
        asked = y if feeds else np.concatenate([h0[-1:], y])[:-1]
        if feeds:
            _add_gradients(combine, contexts, found["sums"], inputs.mask)
        if query is not None:
            _add_gradients(query, asked, found["query"], inputs.mask)
        if position is not None and centre is not None:
            _add_gradients(position, asked, found["position"], inputs.mask)
            _add_gradients(centre, found["inner"], found["point"], inputs.mask)
        return found["x"], (found["h"], found["c"]) if "c" in found else found["h"]

    return Outputs(contexts if out is None else out, feeds, weights, pullback)


def _add_gradients(linear: Linear, x: Array, dy: Array, mask: Array | None) -> None:
    """Add those of the weights of `y = linear(x)`, from the rows of the mask."""
    if mask is None:
        mask = np.full(x.shape[:2], True)
    linear.kernels.backward(pick(x, mask), pick(dy, mask), *linear.gradients(), want_dx=False)


def top(state: State) -> Any:
    """The hidden state of the last layer, `(R, H)`."""
    return (state[0] if isinstance(state, tuple) else state)[-1]
