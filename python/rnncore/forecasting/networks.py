"""The networks of a forecaster, which trainers call with everything that they see of a window."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array
from ..compositions.chain import Chain
from ..compositions.skips import Parallel
from ..layers.dropout import Dropout
from ..layers.embedding import Embedding
from ..layers.linear import Linear
from ..module import Module, once
from ..recurrent.lstm import LSTM


class Sizes(NamedTuple):
    """How large a network is."""

    features: int  # of each origin
    ahead: int  # of each step to be told, for a decoder
    horizon: int
    outputs: int  # of each step to be told
    hidden: int
    layers: int
    dropout: float
    categories: tuple[int, ...]  # how many values each category has
    dtype: str = "float32"


class Seen(NamedTuple):
    """What a network sees of windows."""

    x: Array  # (B, T, F)
    ahead: Array  # (B, H, G), of the steps behind the last origin
    codes: Array  # (B, S), integers
    shift: Array | None = None  # (B, T, 1), added to the first number of each step: log levels

    def added(self, y: Array, outputs: int) -> Array:
        """Return outputs (B, T, H * outputs) with the shift."""
        if self.shift is not None:
            y[..., ::outputs] += self.shift[:, -y.shape[1] :]
        return y


class _WithCategories(Module):
    """Base of networks that see a row of a table for each category of a series."""

    def __init__(self, sizes: Sizes, rng: np.random.Generator) -> None:
        super().__init__()
        self.outputs = sizes.outputs
        self.tables = [
            Embedding(n, embedded(n), dtype=sizes.dtype, seed=rng) for n in sizes.categories
        ]
        self.features = sizes.features + sum(embedded(n) for n in sizes.categories)

    def _joined(self, seen: Seen) -> tuple[Array, Callable[[Array], None]]:
        """Return x with the rows of all categories, and the pullback to the tables."""
        steps, width, backs = seen.x.shape[1], seen.x.shape[2], []
        parts = [seen.x]
        for table, codes in zip(self.tables, seen.codes.T, strict=True):
            row, back = table.vjp(codes)
            backs.append((back, row.shape[1]))
            parts.append(np.repeat(row[:, None], steps, axis=1))

        def pullback(dx: Array) -> None:
            at = width
            for back, size in backs:
                back(np.ascontiguousarray(dx[..., at : at + size].sum(axis=1)))
                at += size

        return np.concatenate(parts, axis=-1) if backs else seen.x, pullback


def embedded(categories: int) -> int:
    """How wide the rows of a table of so many categories are."""
    return min(16, (categories + 1) // 2 + 1)


class Forking(_WithCategories):
    """A recurrent network that tells all steps of the horizon at every origin, and a linear one.

    Wen et al. 2017, "A Multi-Horizon Quantile Recurrent Forecaster": forking sequences. Beside it
    stands a linear map of the same inputs, added, which is to copy what repeats itself. With a
    horizon of one step and origins one step apart it is DeepAR's network.
    """

    def __init__(self, sizes: Sizes, rng: np.random.Generator) -> None:
        super().__init__(sizes, rng)
        outputs = sizes.horizon * sizes.outputs
        dropout = sizes.dropout if sizes.layers > 1 else 0.0
        options: dict[str, Any] = {"dtype": sizes.dtype, "seed": rng}
        layer = LSTM(
            self.features,
            sizes.hidden,
            sizes.layers,
            batch_first=True,
            dropout=dropout,
            **options,
        )
        head = Linear(sizes.hidden, outputs, **options)
        recurrent = Chain(layer, Dropout(sizes.dropout, seed=rng), head)
        self.body = Parallel(recurrent, Linear(self.features, outputs, **options), merge="sum")

    def __call__(self, seen: Seen) -> Array:
        """Return (B, T, H * outputs)."""
        return self.step(Seen(*seen), None)[0]

    def step(self, seen: Seen, state: Any) -> tuple[Array, Any]:
        """Return outputs (B, T, H * outputs) and the state, from that of the steps before."""
        y, state = self.body(self._joined(seen)[0], state)
        return seen.added(y, self.outputs), state

    def vjp(self, seen: Seen) -> tuple[Array, Callable[[Array], None]]:
        """Return what a call returns, and the pullback, which returns nothing."""
        seen = Seen(*seen)
        x, join_back = self._joined(seen)
        (y, _), back = self.body.vjp(x)
        return seen.added(y, self.outputs), once(lambda dy: join_back(back(dy)[0]))


class EncoderDecoder(_WithCategories):
    """An encoder reads the origins; a decoder goes on from its state over the steps to be told.

    At each step it sees what is known ahead, and which step it is. Only the last origin is told,
    (B, 1, H * outputs).
    """

    def __init__(self, sizes: Sizes, rng: np.random.Generator) -> None:
        super().__init__(sizes, rng)
        options: dict[str, Any] = {"dtype": sizes.dtype, "seed": rng}
        deep = (sizes.hidden, sizes.layers)
        self.encoder = LSTM(self.features, *deep, batch_first=True, **options)
        self.decoder = LSTM(sizes.ahead, *deep, batch_first=True, **options)
        self.dropout = Dropout(sizes.dropout, seed=rng)
        self.head = Linear(sizes.hidden, sizes.outputs, **options)
        self.skip = Linear(self.features, sizes.horizon * sizes.outputs, **options)

    def __call__(self, seen: Seen) -> Array:
        """Return (B, 1, H * outputs)."""
        seen = Seen(*seen)
        x, _ = self._joined(seen)
        _, state = self.encoder(x)
        y, _ = self.decoder(seen.ahead, state)
        told = self.head(y).reshape(len(x), 1, -1)
        return seen.added(told + self.skip(np.ascontiguousarray(x[:, -1:])), self.outputs)

    def vjp(self, seen: Seen) -> tuple[Array, Callable[[Array], None]]:
        """Return what a call returns, and the pullback, which returns nothing."""
        seen = Seen(*seen)
        x, join_back = self._joined(seen)
        (_, state), encoder_back = self.encoder.vjp(x)
        (y, _), decoder_back = self.decoder.vjp(seen.ahead, state)
        y, dropout_back = self.dropout.vjp(y)
        told, head_back = self.head.vjp(y)
        skipped, skip_back = self.skip.vjp(np.ascontiguousarray(x[:, -1:]))

        def pullback(dy: Array) -> None:
            dx_last = skip_back(dy)
            dy = dropout_back(head_back(np.ascontiguousarray(dy.reshape(told.shape))))
            _, dstate = decoder_back(dy)
            dx, _ = encoder_back(None, dstate)
            dx[:, -1:] += dx_last
            join_back(dx)

        y = told.reshape(len(x), 1, -1) + skipped
        return seen.added(y, self.outputs), once(pullback)


#: The networks by the name of what they do.
NETWORKS: dict[str, type[Forking] | type[EncoderDecoder]] = {
    "direct": Forking,
    "encoder-decoder": EncoderDecoder,
    "autoregressive": Forking,
}


def decoder_inputs(ahead: Array, naive: Array, season: int) -> Array:
    """Return what a decoder sees (B, H, G).

    What is known ahead (B, H, F), the seasonal naive forecast (B, H), and which step it is.
    """
    batch, horizon = naive.shape
    steps = np.arange(horizon)
    phase = 2 * np.pi * steps / max(season, 1)
    clock = np.stack([steps / horizon, np.sin(phase), np.cos(phase)], -1)
    parts: Sequence[Array] = (ahead, naive[..., None], np.broadcast_to(clock, (batch, horizon, 3)))
    return np.concatenate(parts, -1).astype(np.float32)
