"""Decoders: a recurrent net that writes a sequence, looking at another one or not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from .arrays import Array, as_array, as_integers, as_lengths, as_shape, check_size
from .attention import Attention, run
from .kernels import State
from .losses import length_mask
from .module import Module, once
from .sequences import agreed, check_one_way, mapped, take_rows
from .stack import Layers


@dataclass(frozen=True)
class DecoderState:
    """Where R rows of a decoder stand, between two steps.

    `memory` is shared by all rows; row r looks at source `source[r]`.
    """

    rnn: State  # h, or (h, c), each (num_layers, R, H)
    feed: Array | None  # (R, F): what is joined to the next step's input
    context: Array | None  # (R, C): what is joined to every step's input
    memory: Any  # a Memory, or None without attention
    source: Array  # (R,)
    attention: Array | None = None  # (R, S): weights of the last step

    def __len__(self) -> int:
        return len(self.source)

    def take(self, rows: npt.ArrayLike) -> DecoderState:
        """Return the state of these rows: re-ordered, dropped or repeated."""
        at = np.asarray(rows)
        at = np.flatnonzero(at) if at.dtype == np.bool_ else at

        def of(array: Array | None) -> Array | None:
            return None if array is None else array[at]

        return replace(
            self,
            rnn=take_rows(self.rnn, at),
            feed=of(self.feed),
            context=of(self.context),
            source=self.source[at],
            attention=of(self.attention),
        )


class Decoder(Module):
    """Embedding, recurrent layers, attention and output, step by step or all steps at once.

        x_t = [embedding(token_t); context; h~_(t-1) or attended context]
        h_t = rnn(x_t, h_(t-1))
        h~_t = tanh(W_c [attended context; h_t])
        logits_t = head(h~_t), without attention head(h_t)

    embedding: from tokens `(T, B)` to `(T, B, E)`, any module without a state, or None where inputs
    are features. rnn: recurrent layers in one direction, time-major. head: e.g. a `Linear`, or a
    `TiedLinear`. input_feeding: h~ is joined to the next step's input (Luong et al. 2015, section
    3.3). context_size: of a context that every step sees (see `ContextBridge`). The rnn's input is
    as wide as all that is joined.
    """

    def __init__(
        self,
        embedding: Module | None,
        rnn: Layers,
        attention: Attention | None,
        head: Module,
        *,
        input_feeding: bool = False,
        context_size: int = 0,
    ) -> None:
        super().__init__()
        if not isinstance(rnn, Layers):
            raise TypeError(f"rnn must be recurrent layers, got {type(rnn).__name__}")
        check_one_way("rnn", rnn)
        if rnn.batch_first:
            raise ValueError("rnn must be time-major: batch_first=False")
        if attention is not None and attention.query_size != rnn.output_size:
            raise ValueError(
                f"attention must have query_size {rnn.output_size}, the rnn's output, "
                f"got {attention.query_size}"
            )
        if input_feeding and (attention is None or attention.before):
            raise ValueError("input_feeding needs attention after the step")
        self.embedding, self.rnn, self.attention, self.head = embedding, rnn, attention, head
        agreed("dtype", dict(self.children()))
        self.dtype, self.input_feeding = rnn.dtype, bool(input_feeding)
        self.context_size = check_size("context_size", context_size) if context_size else 0
        self.fed_size = 0
        if attention is not None and (attention.before or input_feeding):
            self.fed_size = attention.memory_size if attention.before else attention.output_size
        self.input_size = rnn.input_size - self.context_size - self.fed_size
        if self.input_size < 1:
            raise ValueError(
                f"rnn has input_size {rnn.input_size}, which leaves no room for an input beside "
                f"the {self.context_size + self.fed_size} that are joined to it"
            )

    def start(
        self,
        encoded: Array,
        state: State = None,
        lengths: npt.ArrayLike | None = None,
        context: Array | None = None,
    ) -> DecoderState:
        """Return the state before the first step, a row for each source.

        encoded `(S, B, M)`; state: the rnn's initial state, zero if None; lengths: of the sources;
        context: `(B, context_size)`.
        """
        rows = encoded.shape[1]
        memory = None
        if self.attention is not None:
            memory, _ = self.attention.remember(encoded, _lengths(lengths, encoded))
        feed = np.zeros((rows, self.fed_size), self.dtype) if self.fed_size else None
        source = np.arange(rows)
        return DecoderState(self._initial(state, rows), feed, context, memory, source)

    def step(self, tokens: npt.ArrayLike, state: DecoderState) -> tuple[Array, DecoderState]:
        """Read tokens `(R,)` or features `(R, I)`; return logits `(R, V)` and the next state."""
        x = self._embed(np.asarray(tokens)[None], False)[0]
        query, attention, memory = _top(state.rnn), self.attention, state.memory
        context = weights = None
        if attention is not None and attention.before:
            context, weights, _ = attention.look(query[None], memory, source=state.source)
        fed = context[0, :, : self.fed_size] if context is not None else state.feed
        y, rnn = self.rnn(
            self._joined(x, state.context, None if fed is None else fed[None]), state.rnn
        )
        if attention is not None:
            if context is None:
                context, weights, _ = attention.look(y, memory, source=state.source)
            y, _ = attention.merge(context, y)
        feed = y[0] if self.input_feeding else state.feed
        shown = None if weights is None else weights[0]
        return self.head(y[0]), replace(state, rnn=rnn, feed=feed, attention=shown)

    def __call__(
        self,
        target: npt.ArrayLike,
        encoded: Array,
        state: State = None,
        source_lengths: npt.ArrayLike | None = None,
        target_lengths: npt.ArrayLike | None = None,
        context: Array | None = None,
    ) -> tuple[Array, Array | None]:
        """Read target `(T, B)` or `(T, B, I)`; return logits `(T, B, V)` and weights `(T, B, S)`.

        The weights are None without attention. Both are zero past each target's length.
        """
        return self._forward(
            False, target, encoded, state, source_lengths, target_lengths, context
        )[:2]

    def vjp(
        self,
        target: npt.ArrayLike,
        encoded: Array,
        state: State = None,
        source_lengths: npt.ArrayLike | None = None,
        target_lengths: npt.ArrayLike | None = None,
        context: Array | None = None,
    ) -> tuple[tuple[Array, Array | None], Callable[[Array], tuple[Any, ...]]]:
        """As a call, with the way back.

        `pullback(dlogits) -> (dtarget, dencoded, dstate, dcontext)`; dtarget is None for tokens,
        dencoded without attention, dcontext without a context.
        """
        logits, weights, pullback = self._forward(
            True, target, encoded, state, source_lengths, target_lengths, context
        )
        return (logits, weights), once(pullback)

    def _forward(
        self,
        record: bool,
        target: npt.ArrayLike,
        encoded: Array,
        state: State,
        source_lengths: npt.ArrayLike | None,
        target_lengths: npt.ArrayLike | None,
        context: Array | None,
    ) -> tuple[Array, Array | None, Any]:
        x, embed_back = self._embed(target, record)
        steps = as_lengths(target_lengths, *x.shape[:2])
        state = self._initial(state, x.shape[1])
        memory, remember_back = None, None
        if self.attention is not None:
            lengths = _lengths(source_lengths, encoded)
            memory, remember_back = self.attention.remember(encoded, lengths, record)
        walk = self._by_steps if self.fed_size else self._at_once
        y, weights, back = walk(x, state, memory, steps, context, record)
        logits, head_back = self._outputs(y, steps, record)

        def pullback(dlogits: npt.ArrayLike) -> tuple[Any, ...]:
            dlogits = as_shape("dlogits", dlogits, self.dtype, logits.shape)
            gradients = None if memory is None else memory.gradients()
            dx, dstate, dcontext = back(head_back(dlogits), gradients)
            dencoded = None
            if remember_back is not None:
                dencoded = remember_back(gradients)
            return embed_back(dx), dencoded, dstate, dcontext

        return logits, weights, pullback

    def _at_once(
        self,
        x: Array,
        state: State,
        memory: Any,
        steps: Array | None,
        context: Array | None,
        record: bool,
    ) -> tuple[Array, Array | None, Any]:
        """All steps of the recurrence in one call, then all attention."""
        (y, _), rnn_back = run(
            self.rnn, record, self._joined(x, context, None), state, lengths=steps
        )
        attention, weights = self.attention, None
        if attention is not None:
            seen, weights, look_back = attention.look(y, memory, steps, record=record)
            y, merge_back = attention.merge(seen, y, record)

        def pullback(dy: Array, gradients: Any) -> tuple[Any, ...]:
            if attention is not None:
                dseen, dy = merge_back(dy)
                dy = dy + look_back(dseen, gradients)
            dx, dstate = rnn_back(dy)
            dx, dcontext, _ = self._split(dx)
            return dx, dstate, None if dcontext is None else dcontext.sum(axis=0)

        return y, weights, pullback

    def _by_steps(
        self,
        x: Array,
        state: State,
        memory: Any,
        steps: Array | None,
        context: Array | None,
        record: bool,
    ) -> tuple[Array, Array | None, Any]:
        """Step by step, where a step's input depends on what the last one saw."""
        attention = self.attention
        assert attention is not None
        first = state
        fed = np.zeros((1, x.shape[1], self.fed_size), self.dtype)
        ys, looks, backs = [], [], []
        for t in range(len(x)):
            alive = None if steps is None else (t < steps).astype(np.int64)
            if attention.before:
                asked = _top(state)[None]
                seen, weights, look_back = attention.look(asked, memory, alive, None, record)
                fed = seen[..., : self.fed_size]
            (y, state), rnn_back = run(
                self.rnn, record, self._joined(x[t : t + 1], context, fed), state
            )
            if not attention.before:
                seen, weights, look_back = attention.look(y, memory, alive, None, record)
            y, merge_back = attention.merge(seen, y, record)
            fed = fed if attention.before else y
            ys.append(y)
            looks.append(weights)
            backs.append((look_back, rnn_back, merge_back))

        def pullback(dy: Array, gradients: Any) -> tuple[Any, ...]:
            dstate = mapped(np.zeros_like, first)
            dxs = np.zeros((*x.shape[:2], self.rnn.input_size), self.dtype)
            dfed = np.zeros((1, x.shape[1], self.fed_size), self.dtype)
            for t in reversed(range(len(x))):
                look_back, rnn_back, merge_back = backs[t]
                dout = dy[t : t + 1] if attention.before else dy[t : t + 1] + dfed
                dseen, dh = merge_back(dout)
                if not attention.before:
                    dh = dh + look_back(dseen, gradients)
                dxs[t : t + 1], dstate = rnn_back(dh, dstate)
                dfed = dxs[t : t + 1, :, self.input_size + self.context_size :]
                if attention.before:
                    _top(dstate)[...] += look_back(dseen + dfed, gradients)[0]
            dx, dcontext, _ = self._split(dxs)
            return dx, dstate, None if dcontext is None else dcontext.sum(axis=0)

        if not ys:
            empty = np.zeros((0, x.shape[1], attention.output_size), self.dtype)
            return empty, np.zeros((0, x.shape[1], len(memory.keys)), self.dtype), pullback
        return np.concatenate(ys), np.concatenate(looks), pullback

    def _outputs(self, y: Array, steps: Array | None, record: bool) -> tuple[Array, Any]:
        """The head's outputs of the steps that count, and the way back from dlogits to dy."""
        if steps is None:
            return run(self.head, record, y)
        mask = length_mask(steps, len(y))
        rows, back = run(self.head, record, y[mask])
        logits = np.zeros((*mask.shape, *rows.shape[1:]), rows.dtype)
        logits[mask] = rows

        def pullback(dlogits: Array) -> Array:
            dy = np.zeros_like(y)
            dy[mask] = back(dlogits[mask])
            return dy

        return logits, pullback

    def _embed(self, target: npt.ArrayLike, record: bool) -> tuple[Array, Any]:
        """The inputs of all steps, `(T, B, input_size)`, and the way back to dtarget."""
        if self.embedding is not None:
            tokens = as_integers("target", target)
            if tokens.ndim != 2:
                raise ValueError(f"target must have shape (T, B), got {tokens.shape}")
            return run(self.embedding, record, tokens)
        x = as_array("target", target, self.dtype)
        if x.ndim != 3 or x.shape[-1] != self.input_size:
            raise ValueError(f"target must have shape (T, B, {self.input_size}), got {x.shape}")
        return x, lambda dx: dx

    def _joined(self, x: Array, context: Array | None, fed: Array | None) -> Array:
        """Everything that the steps of x `(T, R, E)` read, side by side."""
        if (context is None) != (self.context_size == 0):
            raise ValueError(f"context must be given if context_size is: it is {self.context_size}")
        parts = [x]
        if context is not None:
            shape = (x.shape[1], self.context_size)
            context = as_shape("context", context, self.dtype, shape)
            parts.append(np.broadcast_to(context, (len(x), *shape)))
        if fed is not None:
            parts.append(fed)
        return np.concatenate(parts, axis=-1) if len(parts) > 1 else x

    def _split(self, dx: Array) -> tuple[Array, Array | None, Array]:
        """Undo `_joined`."""
        a, b = self.input_size, self.input_size + self.context_size
        dcontext = dx[..., a:b] if self.context_size else None
        return np.ascontiguousarray(dx[..., :a]), dcontext, dx[..., b:]

    def _initial(self, state: State, rows: int) -> State:
        """The rnn's state, with zeros where none is given."""
        rnn = self.rnn
        h, c = (None, None) if state is None else rnn._state("state", state, self._shape(rows))
        h = np.zeros(self._shape(rows), self.dtype) if h is None else h
        if not rnn.has_cell_state:
            return h
        wide = (rnn.num_layers, rows, rnn.hidden_size)
        return h, np.zeros(wide, self.dtype) if c is None else c

    def _shape(self, rows: int) -> tuple[int, ...]:
        return (self.rnn.num_layers, rows, self.rnn.output_size)


def _top(state: Any) -> Any:
    """The hidden state of the last layer, `(R, H)`."""
    return (state[0] if isinstance(state, tuple) else state)[-1]


def _lengths(lengths: npt.ArrayLike | None, encoded: Array) -> Array:
    steps, batch = encoded.shape[:2]
    checked = as_lengths(lengths, steps, batch)
    return np.full(batch, steps, np.int64) if checked is None else checked
