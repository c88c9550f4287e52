"""Decoders: a recurrent net that writes a sequence, attending to another one or not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..arrays import Array, as_array, as_integers, as_lengths, as_rows, as_shape, check_size
from ..compositions.composition import agreed, check_one_way, run
from ..compositions.ragged import length_mask, pick, spread
from ..module import Module, once
from ..recurrent.base import Pair
from ..recurrent.regularisers import Regularisers
from ..recurrent.stack import Stacked
from ..states import State, take_rows
from .attention import Attention
from .teacher_forcing import Inputs, Outputs, at_once, in_turn, top


@dataclass(frozen=True)
class DecoderState:
    """Where R rows of a decoder stand, between two steps.

    `memory` is shared by all rows; row r attends to source `source[r]`.
    """

    rnn: State  # h, or (h, c), each (num_layers, R, H)
    feed: Array | None  # (R, F): the last attentional vector, with input feeding
    context: Array | None  # (R, C): what is joined to every step's input
    memory: Any  # a Memory, or None without attention
    source: Array  # (R,)
    attention: Array | None = None  # (R, S): weights of the last step

    def __len__(self) -> int:
        return len(self.source)

    def take(self, rows: npt.ArrayLike) -> DecoderState:
        """Return the state of these rows: re-ordered, dropped or repeated."""
        at = as_rows("rows", rows, len(self))

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
        rnn: Stacked,
        attention: Attention | None,
        head: Module,
        *,
        input_feeding: bool = False,
        context_size: int = 0,
    ) -> None:
        super().__init__()
        if not isinstance(rnn, Stacked):
            raise TypeError(f"rnn must be recurrent layers, got {type(rnn).__name__}")
        for name, part in (("embedding", embedding), ("head", head)):
            if not isinstance(part, Module) and (name == "head" or part is not None):
                raise TypeError(f"{name} must be a Module, got {type(part).__name__}")
        check_one_way("rnn", rnn)
        if rnn.state_count > 2 or rnn.columns != rnn.input_size:
            raise ValueError(
                f"rnn must have the state h or (h, c), and no inputs beside x, got {rnn!r:.80}"
            )
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
        self.joined_size = 0 if attention is None else attention.joined_size(self.input_feeding)
        if self.joined_size and rnn.regularisers != Regularisers():
            raise ValueError("an rnn whose input depends on the step before takes no regularisers")
        self.input_size = rnn.input_size - self.context_size - self.joined_size
        if self.input_size < 1:
            raise ValueError(
                f"rnn has input_size {rnn.input_size}, which leaves no room for an input beside "
                f"the {self.context_size + self.joined_size} that are joined to it"
            )

    def start(
        self,
        encoded: Array,
        state: State = None,
        lengths: npt.ArrayLike | None = None,
        context: Array | None = None,
    ) -> DecoderState:
        """Return the state before the first step, a row for each source.

        encoded `(S, B, M)`; state: the rnn's initial state, its first one if None; lengths: of the
        sources;
        context: `(B, context_size)`.
        """
        rows = encoded.shape[1]
        memory = None
        if self.attention is not None:
            memory, _ = self.attention.remember(encoded, lengths)
        feed = np.zeros((rows, self.joined_size), self.dtype) if self.input_feeding else None
        first = self.rnn.start_arrays(self._state_given(state, rows), rows)
        context = self._context(context, rows)
        return DecoderState(first, feed, context, memory, np.arange(rows))

    def step(self, tokens: npt.ArrayLike, state: DecoderState) -> tuple[Array, DecoderState]:
        """Read tokens `(R,)` or features `(R, I)`; return logits `(R, V)` and the next state."""
        x, _ = self._embed(self._frame(tokens, len(state))[None], False)
        attention, memory, rows = self.attention, state.memory, state.source
        joined = Inputs(x, state.rnn, memory, None, None, state.context).joined(self.rnn.input_size)
        contexts, weights, feed = None, None, state.feed
        if attention is not None and attention.before:
            contexts, weights, _ = attention.look(top(state.rnn)[None], memory, source=rows)
            feed = contexts[0, :, : attention.memory_size]
        if feed is not None:
            joined[0, :, -self.joined_size :] = feed
        y, rnn = self.rnn(joined, state.rnn)
        if attention is not None:
            if contexts is None:
                contexts, weights, _ = attention.look(y, memory, source=rows)
            contexts[..., attention.memory_size :] = y
            y, _ = attention.merge(contexts)
        feed = y[0] if self.input_feeding else None
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
        """As a call, with the pullback.

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
        steps = as_lengths(target_lengths, x.shape[0], x.shape[1], "target_lengths")
        mask = None if steps is None else length_mask(steps, len(x))
        if mask is not None and self.embedding is None:
            x = np.where(mask[..., None], x, self.dtype.type(0))
        memory, remember_back = None, None
        if self.attention is not None:
            memory, remember_back = self.attention.remember(encoded, source_lengths, record)
            if len(memory.lengths) != x.shape[1]:
                raise ValueError(f"encoded must have {x.shape[1]} rows, got {len(memory.lengths)}")
        given, context = self._state_given(state, x.shape[1]), self._context(context, x.shape[1])
        first = self.rnn.start_arrays(given, x.shape[1])
        found = self._run(Inputs(x, first, memory, steps, mask, context), record)
        logits, head_back = self._logits(found, mask, record)

        def pullback(dlogits: npt.ArrayLike) -> tuple[Any, ...]:
            dlogits = as_shape("dlogits", dlogits, self.dtype, logits.shape)
            gradients = None if memory is None else memory.gradients()
            dx, dstate = found.pullback(head_back(dlogits), gradients)
            self.rnn.add_first(given, dstate)
            dencoded = None if remember_back is None else remember_back(gradients)
            at = self.input_size
            dcontext = dx[..., at : at + self.context_size].sum(axis=0)
            dtarget = embed_back(np.ascontiguousarray(dx[..., :at]))
            return dtarget, dencoded, dstate, dcontext if self.context_size else None

        return logits, found.weights, pullback

    def _run(self, inputs: Inputs, record: bool) -> Outputs:
        attention, feeds = self.attention, self.input_feeding
        if attention is None or not self.joined_size:
            return at_once(self.rnn, attention, inputs, record)
        return in_turn(self.rnn, attention, feeds, inputs, record)

    def _logits(self, found: Outputs, mask: Array | None, record: bool) -> tuple[Array, Any]:
        """The head's outputs of the steps that count, and the pullback from dlogits to dy."""
        rows, merge_back = found.y if mask is None else pick(found.y, mask), None
        if self.attention is not None and not found.merged:
            rows, merge_back = self.attention.merge(rows, record)
        logits, head_back = run(self.head, record, rows)

        def pullback(dlogits: Array) -> Array:
            d: Array = head_back(dlogits if mask is None else pick(dlogits, mask))
            d = d if merge_back is None else merge_back(d)
            return d if mask is None else spread(d, mask)

        return logits if mask is None else spread(logits, mask), pullback

    def _embed(self, target: npt.ArrayLike, record: bool) -> tuple[Array, Any]:
        """The inputs of all steps, `(T, B, input_size)`, and the pullback to dtarget."""
        if self.embedding is not None:
            tokens = as_integers("target", target)
            if tokens.ndim != 2:
                raise ValueError(f"target must have shape (T, B), got {tokens.shape}")
            x, back = run(self.embedding, record, tokens)
            if x.shape[-1] != self.input_size:
                raise ValueError(
                    f"embedding must give {self.input_size} features, what the rnn takes beside "
                    f"all that is joined to them; got {x.shape[-1]}"
                )
            return x, back
        x = as_array("target", target, self.dtype)
        if x.ndim != 3 or x.shape[-1] != self.input_size:
            raise ValueError(f"target must have shape (T, B, {self.input_size}), got {x.shape}")
        return x, lambda dx: dx

    def _frame(self, tokens: npt.ArrayLike, rows: int) -> Array:
        """What a step reads, checked."""
        if self.embedding is not None:
            given = as_integers("tokens", tokens)
            return as_shape("tokens", given, given.dtype, (rows,))
        return as_shape("tokens", tokens, self.dtype, (rows, self.input_size))

    def _context(self, context: Array | None, rows: int) -> Array | None:
        if (context is None) != (self.context_size == 0):
            raise ValueError(f"context must be given if context_size is: it is {self.context_size}")
        shape = (rows, self.context_size)
        return None if context is None else as_shape("context", context, self.dtype, shape)

    def _state_given(self, state: State, rows: int) -> Pair:
        """What is given of the rnn's state."""
        shape = (self.rnn.num_layers, rows, self.rnn.output_size)
        return self.rnn.checked_state("state", state, shape)
