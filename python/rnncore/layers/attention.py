"""Attention of one sequence to another, or to itself, without projections; the batch comes first.

scores    e_qs = query_q . key_s, or v . tanh(query_q + key_s)       for the steps s of the values
weights   a_q = softmax(e_q) over the values' own steps
outputs   y_q = sum_s a_qs value_s
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ..arrays import Array, as_array, as_lengths, as_shape, check_flag, check_size, float_dtype
from ..module import Module, Pullback, once
from .activations import softmax

#: Scores `(B, Q, S)` of queries and keys, and the pullback to the gradients of both.
Scores = tuple[Array, Callable[[Array], tuple[Array, Array]]]


class _Attends(Module):
    """`y = attention(query, value, key=value)`: `(B, Q, D)`, `(B, S, V)`, `(B, S, D)`.

    y is `(B, Q, V)`. lengths `(B,)` in 1..S are those of the values. The pullback returns a tuple
    of gradients, one for each array given.
    """

    batch_first = True
    takes_lengths = True

    def _scores(self, query: Array, key: Array) -> Scores:
        raise NotImplementedError

    def __call__(
        self,
        query: npt.ArrayLike,
        value: npt.ArrayLike,
        key: npt.ArrayLike | None = None,
        *,
        lengths: npt.ArrayLike | None = None,
    ) -> Array:
        """Return y."""
        return self.vjp(query, value, key, lengths=lengths)[0]

    def vjp(
        self,
        query: npt.ArrayLike,
        value: npt.ArrayLike,
        key: npt.ArrayLike | None = None,
        *,
        lengths: npt.ArrayLike | None = None,
    ) -> tuple[Array, Pullback]:
        """Return y and the pullback from dy to a tuple of gradients; keeps the arrays."""
        q, v, k = self._read(query, value, key)
        own = as_lengths(lengths, k.shape[1], len(k))
        if own is not None:  # padding may hold anything, of which nothing times zero may be left
            padding = np.arange(k.shape[1]) >= own[:, None]
            v, k = (np.where(padding[..., None], x.dtype.type(0), x) for x in (v, k))
        scores, unscore = self._scores(q, k)
        if own is not None:
            np.copyto(scores, -np.inf, where=padding[:, None])
        a = softmax(self.dtype).forward(scores)
        y: Array = a @ v

        def pullback(dy: npt.ArrayLike) -> tuple[Array, ...]:
            d = np.ascontiguousarray(as_shape("dy", dy, self.dtype, y.shape))
            da, dv = d @ v.swapaxes(1, 2), a.swapaxes(1, 2) @ d
            dq, dk = unscore(a * (da - np.einsum("bqs,bqs->bq", da, a)[..., None]))
            return (dq, dv + dk) if key is None else (dq, dv, dk)

        return y, once(pullback)

    def _read(self, query: Any, value: Any, key: Any) -> tuple[Array, Array, Array]:
        q, v = (self._array(n, x) for n, x in (("query", query), ("value", value)))
        k = v if key is None else self._array("key", key)
        for name, x in (("query", q), ("value", v), ("key", k)):
            if x.ndim != 3:
                raise ValueError(f"{name} must have shape (B, steps, features), got {x.shape}")
        if not len(q) == len(v) == len(k) or v.shape[1] != k.shape[1] or q.shape[2] != k.shape[2]:
            raise ValueError(
                "query, value and key must be (B, Q, D), (B, S, V) and (B, S, D), "
                f"got {q.shape}, {v.shape} and {k.shape}"
            )
        return q, v, k

    def _array(self, name: str, x: npt.ArrayLike) -> Array:
        """Return an array in one piece: the bits of products must not depend on how it lies."""
        return np.ascontiguousarray(as_array(name, x, self.dtype))


class DotAttention(_Attends):
    """Attention with the scores query . key (Luong et al. 2015, eq. 8, "dot").

    With `scale` they are multiplied by a parameter, `scale (1,)`, at first one.
    """

    def __init__(self, scale: bool = False, *, dtype: npt.DTypeLike = "float32") -> None:
        self.scale, self.dtype = check_flag("scale", scale), float_dtype(dtype)
        super().__init__({"scale": np.ones(1, self.dtype)} if scale else {})

    def _scores(self, query: Array, key: Array) -> Scores:
        plain = query @ key.swapaxes(1, 2)
        factor = self._params["scale"][0] if self.scale else self.dtype.type(1)

        def unscore(d: Array) -> tuple[Array, Array]:
            if self.scale:
                self.grads["scale"] += np.vdot(d, plain)
            d = d * factor
            return d @ key, d.swapaxes(1, 2) @ query

        return plain * factor, unscore


class AdditiveAttention(_Attends):
    """Attention with the scores v . tanh(query + key) (Bahdanau et al. 2015, appendix A.1.2).

    size: D, of queries and keys, which are projected before, if at all. Parameter: `scale (D,)`,
    the v, at first ones.
    """

    def __init__(self, size: int, *, dtype: npt.DTypeLike = "float32") -> None:
        self.size, self.dtype = check_size("size", size), float_dtype(dtype)
        super().__init__({"scale": np.ones(size, self.dtype)})

    def _scores(self, query: Array, key: Array) -> Scores:
        v = self._params["scale"]
        if query.shape[2] != self.size:
            raise ValueError(f"query must have {self.size} features, got shape {query.shape}")
        hidden = np.tanh(query[:, :, None] + key[:, None])  # (B, Q, S, D)

        def unscore(d: Array) -> tuple[Array, Array]:
            self.grads["scale"] += np.einsum("bqs,bqsd->d", d, hidden)
            inner = d[..., None] * v * (1 - hidden**2)
            return inner.sum(axis=2), inner.sum(axis=1)

        return hidden @ v, unscore
