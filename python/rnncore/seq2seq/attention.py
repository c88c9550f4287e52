"""Attention: which steps of a source a decoder attends to.

scores    e_s = query . key_s, or v . tanh(query + key_s)       for the steps s of a source
weights   a = softmax(e) over the source's own steps
context   c = sum_s a_s value_s
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from .. import init
from ..arrays import Array, as_array, as_lengths, as_shape, check_choice, check_size, float_dtype
from ..compiled import Memory as CompiledMemory
from ..compiled import core
from ..compositions.composition import run
from ..compositions.ragged import length_mask, run_rows
from ..init import Seed
from ..layers.activations import activation
from ..layers.linear import Linear
from ..module import Module, once
from ..nonlinearities import SIGMOID, TANH

SCORES = ("dot", "general", "concat")


class Memory(NamedTuple):
    """What is attended to: B sources of up to S steps."""

    keys: Array  # (S, B, A)
    values: Array  # (S, B, M)
    lengths: Array  # (B,)
    kernels: CompiledMemory

    def gradients(self) -> MemoryGradients:
        """Zeros, to add to."""
        return MemoryGradients(np.zeros_like(self.keys), np.zeros_like(self.values))


class MemoryGradients(NamedTuple):
    """Gradients of a memory's arrays."""

    keys: Array
    values: Array


class Attention(Module):
    """Weights over the steps of a source, and their context; what decoders have in common.

    score: "dot" (the sizes must agree), "general" (keys W_a value) or "concat" (v . tanh(W_q query
    + b + W_k value), `size` wide). window=D: local attention with a predicted centre (Luong et al.
    2015, eq. 9 and 10): only steps within D of p = length * sigmoid(v_p . tanh(W_p query)), their
    weights times exp(-(s - p)^2 / (2 (D/2)^2)).

    `merge` makes of context and hidden state the attentional vector tanh(W_c [context; h]) (eq. 5),
    `output_size` wide.
    """

    #: Whether the decoder attends before its step, with the state it had, or after it.
    before: ClassVar[bool] = False

    def __init__(
        self,
        query_size: int,
        memory_size: int,
        score: str = "general",
        *,
        size: int | None = None,
        window: int | None = None,
        output_size: int | None = None,
        dtype: npt.DTypeLike = "float32",
        seed: Seed = None,
    ) -> None:
        self.query_size = check_size("query_size", query_size)
        self.memory_size = check_size("memory_size", memory_size)
        check_choice("score", score, SCORES)
        if score == "dot" and query_size != memory_size:
            raise ValueError(
                f"score='dot' needs query_size = memory_size, got {query_size} and {memory_size}"
            )
        self.score, self.dtype = score, float_dtype(dtype)
        self.window = None if window is None else check_size("window", window)
        self.size = check_size("size", query_size if size is None else size)
        self.output_size = check_size(
            "output_size", query_size if output_size is None else output_size
        )
        rng = np.random.default_rng(seed)

        def linear(inputs: int, outputs: int, bias: bool = False) -> Linear:
            return Linear(inputs, outputs, bias, dtype=self.dtype, seed=rng)

        additive = score == "concat"
        v = {"v": init.uniform(rng, (self.size,), self.size**-0.5, self.dtype)} if additive else {}
        super().__init__(v)
        self.query = linear(query_size, self.size, bias=True) if additive else None
        keys = {"dot": None, "general": query_size, "concat": self.size}[score]
        self.key = linear(memory_size, keys) if keys else None
        self.position = linear(query_size, self.size) if window else None
        self.centre = linear(self.size, 1) if window else None
        self.combine = linear(memory_size + query_size, self.output_size)

    def __call__(
        self, query: npt.ArrayLike, values: npt.ArrayLike, *, lengths: npt.ArrayLike | None = None
    ) -> tuple[Array, Array]:
        """Return contexts `(T, B, M)` and weights `(T, B, S)`.

        query: `(T, B, query_size)`; values: `(S, B, memory_size)`, the sources, in their first
        `lengths (B,)` steps.
        """
        return self._attend(False, query, values, lengths)[:2]

    def vjp(
        self, query: npt.ArrayLike, values: npt.ArrayLike, *, lengths: npt.ArrayLike | None = None
    ) -> tuple[tuple[Array, Array], Callable[[npt.ArrayLike], tuple[Array, Array]]]:
        """As a call, and the pullback from the contexts: `pullback(dy) -> (dquery, dvalues)`."""
        contexts, weights, pullback = self._attend(True, query, values, lengths)
        return (contexts, weights), once(pullback)

    def _attend(
        self,
        record: bool,
        query: npt.ArrayLike,
        values: npt.ArrayLike,
        lengths: npt.ArrayLike | None,
    ) -> tuple[Array, Array, Callable[[npt.ArrayLike], tuple[Array, Array]]]:
        values = as_array("values", values, self.dtype)
        queries, batch = as_array("query", query, self.dtype), values.shape[1:2]
        if queries.ndim != 3 or queries.shape[1:] != (*batch, self.query_size):
            axes = f"(T, {batch[0] if batch else 'B'}, {self.query_size})"
            raise ValueError(f"query must have shape {axes}, got {queries.shape}")
        memory, remember_back = self.remember(values, lengths, record)
        contexts, weights, attend_back = self.look(queries, memory, record=record)
        y = np.ascontiguousarray(contexts[..., : self.memory_size])

        def pullback(dy: npt.ArrayLike) -> tuple[Array, Array]:
            d = memory.gradients()
            dquery = attend_back(as_shape("dy", dy, self.dtype, y.shape), d)
            return dquery, remember_back(d)

        return y, weights, pullback

    def remember(
        self, values: npt.ArrayLike, lengths: npt.ArrayLike | None = None, record: bool = False
    ) -> tuple[Memory, Any]:
        """Make a memory of values `(S, B, M)`; the pullback: from its gradients to dvalues."""
        values = np.ascontiguousarray(as_array("values", values, self.dtype))
        if values.ndim != 3 or values.shape[-1] != self.memory_size:
            axes = f"(S, B, {self.memory_size})"
            raise ValueError(f"what is looked at must have shape {axes}, got {values.shape}")
        steps, batch = values.shape[:2]
        own = as_lengths(lengths, steps, batch)
        own = np.full(batch, steps, np.int64) if own is None else own
        keys, back = values, None
        if self.key is not None:
            mask = length_mask(own, steps)
            keys, back = run_rows(self.key, record, values, mask)
        kernels = core(self.dtype).Memory(keys, values, own, self.params.get("v"), self.window or 0)

        def pullback(d: MemoryGradients) -> Array:
            return d.values + (d.keys if back is None else back(d.keys))

        return Memory(keys, values, own, kernels), pullback

    def look(
        self,
        query: Array,
        memory: Memory,
        steps: Array | None = None,
        source: Array | None = None,
        record: bool = False,
    ) -> tuple[Array, Array, Callable[[Array, MemoryGradients], Array]]:
        """Attend to `memory` with queries `(T, R, Q)`: contexts, weights `(T, R, S)`, pullback.

        Row r asks of source `source[r]` (r itself if None), in its first `steps[r]` steps. The
        contexts `(T, R, M + Q)` have room for an h beside them, see `merge`. The pullback goes
        from dcontext `(T, R, M)` to dquery and adds to the memory's gradients.
        """
        query = as_array("query", query, self.dtype)
        mask = None if steps is None else length_mask(steps, len(query))
        asked, query_back = query, None
        if self.query is not None:
            asked, query_back = run_rows(self.query, record, query, mask)
        centre, centre_back = self._centre(query, memory, source, mask, record)
        contexts, weights = memory.kernels.attend(asked, source, steps, centre, self.query_size)

        def pullback(dcontext: Array, d: MemoryGradients) -> Array:
            dasked, dcentre = memory.kernels.attend_backward(
                dcontext, weights, asked, steps, centre, d.keys, d.values, self.grads.get("v")
            )
            dquery = dasked if query_back is None else query_back(dasked)
            return dquery if centre_back is None else dquery + centre_back(dcentre)

        return contexts, weights, pullback

    def merge(self, contexts: Array, record: bool = False) -> tuple[Array, Any]:
        """Return tanh(W_c [context; h]) of contexts `(..., M + Q)` with h beside them."""
        sums, back = run(self.combine, record, contexts)
        tanh = activation(TANH, self.dtype)
        y = tanh.forward(sums)
        return y, lambda dy: back(tanh.backward(y, dy))

    def joined_size(self, feeds: bool) -> int:
        """How much wider a step's input is for it: by a context, or by h~ if that is fed back."""
        return self.memory_size if self.before else self.output_size if feeds else 0

    def _centre(
        self,
        query: Array,
        memory: Memory,
        source: Array | None,
        mask: Array | None,
        record: bool,
    ) -> Any:
        """The predicted centres `(T, R)` of local attention, and the pullback to dquery."""
        if self.position is None or self.centre is None:
            return None, None
        sums, position_back = run_rows(self.position, record, query, mask)
        tanh = activation(TANH, self.dtype)
        inner = tanh.forward(sums)
        sums, centre_back = run_rows(self.centre, record, inner, mask)
        share = activation(SIGMOID, self.dtype).forward(sums[..., 0])
        lengths = (memory.lengths if source is None else memory.lengths[source]).astype(self.dtype)

        def pullback(d: Array) -> Array:
            dsums = (d * lengths * share * (1 - share))[..., None]
            dquery: Array = position_back(tanh.backward(inner, centre_back(dsums)))
            return dquery

        return share * lengths, pullback


class LuongAttention(Attention):
    """Attention after the decoder's step (Luong et al. 2015): the new hidden state asks.

    Parameters, as far as the score has them: `key.weight`, `query.weight`, `query.bias`, `v`;
    `position.weight` (W_p), `centre.weight` (v_p) with a window; `combine.weight`.
    """


class BahdanauAttention(Attention):
    """Additive attention before the decoder's step (Bahdanau et al. 2015, section 3.1).

    The hidden state h_(t-1) asks; the context is joined to the step's input. score="concat" is the
    paper's. The decoder's output sees tanh(W_c [context; h_t]).
    """

    before = True

    def __init__(
        self, query_size: int, memory_size: int, score: str = "concat", **options: Any
    ) -> None:
        super().__init__(query_size, memory_size, score, **options)
