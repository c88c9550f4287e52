"""What keeps a recurrence from learning by heart: masks on state, update and weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array, check_number, warn_ignored
from .cell import Cell, exclusive


class Masks(NamedTuple):
    """What the kernels multiply by, as the compiled core takes it; None where there is nothing."""

    state: Array | None = None
    update: Array | None = None
    keep_h: Array | None = None
    keep_c: Array | None = None


def rate(name: str, value: float) -> float:
    """Return a share of at least 0 and less than 1."""
    if not 0 <= check_number(name, value) < 1:
        raise ValueError(f"{name} must be in [0, 1), got {value}")
    return float(value)


def bernoulli(
    rng: np.random.Generator, shape: tuple[int, ...], p: float, dtype: np.dtype[Any]
) -> Array:
    """Draw ones with probability `p`, else zeros."""
    return (rng.random(shape, dtype=np.float32) < p).astype(dtype)


def inverted(
    rng: np.random.Generator, shape: tuple[int, ...], p: float, dtype: np.dtype[Any]
) -> Array | None:
    """Draw zeros with probability `p`, else 1/(1 - p)."""
    if not p:
        return None
    keep = bernoulli(rng, shape, 1 - p, dtype)
    keep *= dtype.type(1 / (1 - p))
    return keep


@dataclass(frozen=True)
class Regularisers:
    """The rates, each of them 0 for none."""

    variational_dropout: float = 0.0
    recurrent_dropout: float = 0.0
    zoneout: tuple[float, float] = (0.0, 0.0)
    weight_drop: float = 0.0

    @staticmethod
    def of(
        cell: Cell,
        variational_dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        zoneout: float | tuple[float, float] = 0.0,
        weight_drop: float = 0.0,
    ) -> Regularisers:
        """Check the keywords of a layer against its cell."""
        try:
            zoneout_h, zoneout_c = zoneout if isinstance(zoneout, (tuple, list)) else (zoneout,) * 2
        except ValueError:
            raise ValueError(
                f"zoneout must be a rate or a pair of rates, got {zoneout!r}"
            ) from None
        if isinstance(zoneout, (tuple, list)) and zoneout_c and not cell.has_cell_state:
            warn_ignored("zoneout[1]", "a cell state")
        rates = Regularisers(
            rate("variational_dropout", variational_dropout),
            rate("recurrent_dropout", recurrent_dropout),
            (
                rate("zoneout", zoneout_h),
                rate("zoneout", zoneout_c) if cell.has_cell_state else 0.0,
            ),
            rate("weight_drop", weight_drop),
        )
        for name, value in (
            ("variational_dropout", variational_dropout),
            ("weight_drop", weight_drop),
        ):
            if value and not cell.facts.has_recurrent_weights:
                raise ValueError(f"{name} needs recurrent weights, which this layer does not have")
        if recurrent_dropout and cell.facts.gates == 1:
            raise ValueError(
                "recurrent_dropout needs a gated layer, which adds an update to its state"
            )
        zones = any(rates.zoneout)
        exclusive(zoneout=zones, layer_norm=cell.facts.normalises)
        exclusive(zoneout=zones, proj_size=bool(cell.proj_size))
        deep = cell.transition_depth > 1
        exclusive(zoneout=zones, transition_depth=deep)
        exclusive(recurrent_dropout=bool(recurrent_dropout), transition_depth=deep)
        return rates

    @property
    def masks(self) -> bool:
        """Whether the kernels multiply by anything."""
        return bool(self.variational_dropout or self.recurrent_dropout or any(self.zoneout))

    def draw(
        self,
        rng: np.random.Generator,
        dtype: np.dtype[Any],
        state: tuple[int, ...],
        rows: tuple[int, ...],
    ) -> Masks | None:
        """Masks for one call: `state` and `rows` are the shapes of h_0 and of all cell states."""
        zoneout_h, zoneout_c = self.zoneout
        masks = Masks(
            inverted(rng, state, self.variational_dropout, dtype),
            inverted(rng, rows, self.recurrent_dropout, dtype),
            bernoulli(rng, rows, zoneout_h, dtype) if zoneout_h else None,
            bernoulli(rng, rows, zoneout_c, dtype) if zoneout_c else None,
        )
        return masks if any(mask is not None for mask in masks) else None

    def expected(self, dtype: np.dtype[Any], width: int) -> Masks | None:
        """What zoneout does at inference: old and new state are mixed by its rates."""
        zoneout_h, zoneout_c = self.zoneout
        if not zoneout_h and not zoneout_c:
            return None
        return Masks(
            keep_h=np.full(width, zoneout_h, dtype) if zoneout_h else None,
            keep_c=np.full(width, zoneout_c, dtype) if zoneout_c else None,
        )
