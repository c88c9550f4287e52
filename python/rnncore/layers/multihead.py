"""Attention of every step of a sequence to the steps of that sequence, in several heads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import init
from ..arrays import Array, as_array, as_lengths, as_shape, check_flag, check_size, float_dtype
from ..compiled import core
from ..init import Seed
from ..module import Pullback, once
from ..precision import HoldsWeights
from ..stream.stages import Stages
from ..widths import check_width

#: How the names of the parameters of the two products begin.
_IN, _OUT = "in_proj_", "out_proj."


class MultiheadAttention(HoldsWeights):
    """Self-attention in several heads (Vaswani et al. 2017, section 3.2), as torch.nn has it.

        q, k, v = x W_in^T + b_in, each cut into heads of d = embed_dim / num_heads numbers
        a_ts    = softmax over s of q_t . k_s / sqrt(d)
        y_t     = W_out [sum_s a_ts v_s of every head] + b_out

    x and y: `(T, B, embed_dim)`, `(B, T, embed_dim)` with `batch_first`, or `(T, embed_dim)`.
    lengths `(B,)` in 1..T: steps past the end weigh nothing, and y is zero there. With `causal`
    step t sees the steps s <= t alone. `vjp` keeps the a_ts, `(T, B * num_heads, T)`, and some 5 x.
    There is no dropout of the a_ts, and no stream: every step reads all that it sees again.

    Parameters, those of torch.nn.MultiheadAttention: `in_proj_weight (3 E, E)` (W_in, the rows of
    q, k and v; at first Xavier's), `out_proj.weight (E, E)`, and with `bias` `in_proj_bias (3 E,)`
    and `out_proj.bias (E,)`, at first zero.
    """

    takes_lengths = True
    _built = frozenset(("into", "out"))

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        bias: bool = True,
        *,
        causal: bool = False,
        batch_first: bool = False,
        dtype: npt.DTypeLike = "float32",
        seed: Seed = None,
    ) -> None:
        self.embed_dim = check_size("embed_dim", embed_dim)
        self.num_heads = check_size("num_heads", num_heads)
        if embed_dim % num_heads:
            raise ValueError(
                f"embed_dim must be a multiple of num_heads, got {embed_dim} and {num_heads}"
            )
        self.bias, self.causal = check_flag("bias", bias), check_flag("causal", causal)
        self.looks_ahead = not self.causal
        self.batch_first, self.dtype = check_flag("batch_first", batch_first), float_dtype(dtype)
        rng, size = np.random.default_rng(seed), self.embed_dim
        given = {
            "in_proj_weight": init.xavier_uniform(rng, (3 * size, size), dtype=self.dtype),
            "in_proj_bias": np.zeros(3 * size, self.dtype),
            "out_proj.weight": init.uniform(rng, (size, size), size**-0.5, self.dtype),
            "out_proj.bias": np.zeros(size, self.dtype),
        }
        super().__init__({n: a for n, a in given.items() if self.bias or a.ndim == 2})
        self._build()

    def _build(self) -> None:
        params, size, types = self.float_params(), self.embed_dim, self._weights_in()

        def product(name: str, rows: int) -> Any:
            arrays = params[f"{name}weight"], params.get(f"{name}bias")
            return core(self.dtype).Linear(size, rows, *arrays, owned=True, weights=types)

        self.into, self.out = product(_IN, 3 * size), product(_OUT, size)

    def _lend(self) -> None:
        self.into.lend()
        self.out.lend()

    def weight_names(self) -> Iterator[str]:
        """Yield the names of both matrices."""
        yield from (f"{_IN}weight", f"{_OUT}weight")

    def out_width(self, width: int | None) -> int | None:
        """Return how wide y is."""
        check_width(width, self.embed_dim)
        return self.embed_dim

    def stages(self, batch: int, dtype: np.dtype[Any]) -> Stages:
        """Raise `TypeError`: there is no stream."""
        why = (
            "causal attention reads all earlier frames again at every frame"
            if self.causal
            else "attention reads all later frames"
        )
        raise TypeError(f"MultiheadAttention cannot run as a stream: {why}")

    def __call__(self, x: npt.ArrayLike, *, lengths: npt.ArrayLike | None = None) -> Array:
        """Return y for x."""
        steps = self._entered(x)
        return self._left(self._attend(steps, lengths)[0], x)

    def vjp(
        self, x: npt.ArrayLike, *, lengths: npt.ArrayLike | None = None
    ) -> tuple[Array, Pullback]:
        """Return y and the pullback from dy to dx; keeps x, and reads the weights again."""
        self._check_trains()
        steps = self._entered(x)
        out, back = self._attend(steps, lengths)
        y = self._left(out, x)

        def pullback(dy: npt.ArrayLike) -> Array:
            d = self._entered(as_shape("dy", dy, self.dtype, y.shape))
            return self._left(back(d), x)

        return y, once(pullback)

    def _entered(self, x: npt.ArrayLike) -> Array:
        """Return x as `(T, B, E)`."""
        x = as_array("x", x, self.dtype)
        if x.ndim not in (2, 3) or x.shape[-1] != self.embed_dim:
            axes = "B, T" if self.batch_first else "T, B"
            wanted = f"({axes}, {self.embed_dim}) or (T, {self.embed_dim})"
            raise ValueError(f"x must have shape {wanted}, got {x.shape}")
        if x.ndim == 2:
            return x[:, None]
        return x.swapaxes(0, 1) if self.batch_first else x

    def _left(self, y: Array, x: npt.ArrayLike) -> Array:
        """Return y with the axes that x has."""
        if np.ndim(x) == 2:
            return y[:, 0]
        return y.swapaxes(0, 1) if self.batch_first else y

    def _attend(self, x: Array, lengths: Any) -> tuple[Array, Callable[[Array], Array]]:
        """Return y for x `(T, B, E)`, and the pullback."""
        time, batch, width = x.shape
        own = as_lengths(lengths, time, batch)
        at = None if own is None else np.flatnonzero(np.arange(time)[:, None] < own)
        ends = None if own is None else np.repeat(own, self.num_heads)
        heads = (time, batch * self.num_heads, width // self.num_heads)
        scale = self.dtype.type(heads[2] ** -0.5)

        rows = _picked(x, at)
        sums = np.split(self.into.forward(rows), 3, axis=1)
        q, k, v = (_spread(part, at, heads) for part in sums)
        q = q * scale
        counts = np.full(heads[1], time, np.int64) if ends is None else ends
        memory = core(self.dtype).Memory(k, v, counts, causal=self.causal)
        contexts, weights = memory.attend(q, steps=ends)
        inner = _picked(contexts.reshape(x.shape), at)

        def pullback(dy: Array) -> Array:
            dinner = self.out.backward(inner, _picked(dy, at), *self._gradients(_OUT))
            dk, dv = np.zeros_like(k), np.zeros_like(v)
            dq, _ = memory.attend_backward(
                _spread(dinner, at, heads), weights, q, ends, None, dk, dv, None
            )
            parts = [_picked(part.reshape(x.shape), at) for part in (dq * scale, dk, dv)]
            drows = self.into.backward(rows, np.hstack(parts), *self._gradients(_IN))
            return _spread(drows, at, x.shape)

        return _spread(self.out.forward(inner), at, x.shape), pullback

    def _gradients(self, name: str) -> tuple[Array, Array | None]:
        grads = self._own_grads()
        return grads[f"{name}weight"], grads.get(f"{name}bias")


def _picked(x: Array, at: Array | None) -> Array:
    """The rows of x `(T, B, E)` that count, `(N, E)`; None: all."""
    rows = x.reshape(-1, x.shape[-1])
    return rows if at is None else rows[at]


def _spread(rows: Array, at: Array | None, shape: tuple[int, ...]) -> Array:
    """Rows in their places in an array of this shape, zero where nothing counts."""
    if at is None:
        return rows.reshape(shape)
    x = np.zeros(shape, rows.dtype)
    x.reshape(-1, rows.shape[1])[at] = rows
    return x
