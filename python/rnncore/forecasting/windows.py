"""Series as a network sees them: windows around origins, each scaled by its own level and spread.

An origin t stands between the values before it, which are known, and the `horizon` values from t
on. A network sees for each origin the last `lags` values, and is told the next `horizon`; it reads
the origins of a window, `stride` steps apart, one after another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..arrays import Array

#: Scaled values and targets are cut to this: what is farther away says no more.
_FAR = 1e4
#: How many times its range a series goes beyond it in a forecast, at the most.
_BEYOND = 5.0
#: How much of a series' seasonal error is added to the spread of a window, so that quiet windows
#: of a lively series are not blown up.
_OF_ERROR = 0.1


class Plan(NamedTuple):
    """How windows are cut and scaled."""

    horizon: int
    season: int
    lags: int
    stride: int
    steps: int  # origins in a window
    log: bool
    counts: bool  # scaled by the mean alone, targets as they are
    masked: bool  # whether the network is told which values are missing
    residual: bool  # whether targets are differences to the seasonal naive forecast
    room: int  # how many steps behind the end covariates may be known


class Covariates(NamedTuple):
    """What is known beside the values, of each series: arrays of float64 without NaN."""

    past: Sequence[Array]  # (T_n, P)
    ahead: Sequence[Array]  # (T_n + horizon, F), at the steps themselves
    calendar: Sequence[Array]  # (T_n + horizon, C)
    codes: Array  # (N, S), integers


class Cut(NamedTuple):
    """Windows: B rows of T origins."""

    inputs: Array  # (B, T, F), float32
    targets: Array  # (B, T, H), scaled; 0 where there is none
    known: Array  # (B, T, H), whether there is a target
    level: Array  # (B, T, 1)
    spread: Array  # (B, T, 1)
    naive: Array  # (B, T, H), scaled: the seasonal naive forecast
    ahead: Array  # (B, T, H, F): what is known of the steps to be told


class Windows:
    """Series laid behind one another, with room before and after each; windows are gathered."""

    def __init__(self, values: Sequence[Array], plan: Plan, beside: Covariates) -> None:
        self.plan, self.codes = plan, beside.codes
        self.lengths = np.array([len(one) for one in values], np.int64)
        self._room = (plan.lags, plan.room)
        pieces = [np.log(one) if plan.log else np.asarray(one, np.float64) for one in values]
        self._flat = self._laid([one[:, None] for one in pieces], np.nan)[:, 0]
        self._past = self._laid(beside.past, 0.0)
        self._ahead = self._laid(beside.ahead, 0.0)
        self._calendar = self._laid(beside.calendar, 0.0)
        size = self.lengths + sum(self._room)
        self._starts = np.cumsum(size) - size + plan.lags
        self.errors, self.levels = self._scales(pieces)
        self._bounds = np.array([self._bounds_of(one) for one in values]).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self.lengths)

    def _laid(self, pieces: Sequence[Array], empty: float) -> Array:
        """Return arrays (T_n, K), or longer ones, as one, with room around each."""
        before, after = self._room
        width = pieces[0].shape[1]
        found = []
        for piece, length in zip(pieces, self.lengths, strict=True):
            whole = np.full((before + int(length) + after, width), empty)
            kept = piece[: int(length) + after]
            whole[before : before + len(kept)] = kept
            found.append(whole)
        return np.concatenate(found)

    def _scales(self, pieces: Sequence[Array]) -> tuple[Array, Array]:
        """Return of each series its mean seasonal naive error, and its level, never zero error."""
        errors, levels = np.empty(len(pieces)), np.empty(len(pieces))
        for at, piece in enumerate(pieces):
            there = piece[~np.isnan(piece)]
            levels[at] = there.mean() if len(there) else 0.0
            for apart in (self.plan.season, 1):
                steps = np.abs(piece[apart:] - piece[:-apart])
                errors[at] = np.nanmean(steps) if np.any(steps > 0) else 0.0
                if errors[at]:
                    break
            # A constant series: what is forecast of it is of its own size.
            errors[at] = errors[at] or 1e-3 * abs(levels[at]) or 1.0
        return errors, levels

    def _bounds_of(self, values: Array) -> tuple[float, float]:
        """Return between what forecasts of a series are believed."""
        there, most = values[~np.isnan(values)], float(np.finfo(np.float64).max)
        low, high = (float(f(there)) if len(there) else 0.0 for f in (np.min, np.max))
        if not len(there) or (self.plan.counts and low == high):  # counts may begin to be counted
            return -most, most
        ends = (1 + _BEYOND) * low - _BEYOND * high, (1 + _BEYOND) * high - _BEYOND * low
        return max(-most, ends[0]), min(most, ends[1])

    def bounded(self, found: Array) -> Array:
        """Return forecasts (N, ...), each cut to five times the range of its series beyond it.

        What is farther away comes of networks that saw too little, and of exponents. Of a series
        that is constant that is the constant.
        """
        low, high = self._bounds.T.reshape(2, -1, *(1,) * (found.ndim - 1))
        kept: Array = np.clip(found, low, high)
        return kept

    def cut(self, series: Array, origins: Array) -> Cut:
        """Return windows at origins (B, T) of series (B,)."""
        plan = self.plan
        place = self._starts[series][:, None] + np.maximum(origins, 0)
        values = self._flat[place[..., None] + np.arange(-plan.lags, plan.horizon)]
        outside = origins[..., None] <= 0  # windows that begin before the series
        past = np.where(outside, np.nan, values[..., : plan.lags])
        level, spread = self.scale(past, series[:, None])
        future = values[..., plan.lags :]
        known = ~(np.isnan(future) | outside)
        naive = self._naive((past - level) / spread)
        targets = future if plan.counts else (future - level) / spread - naive * plan.residual
        return Cut(
            self._inputs(past, level, spread, series, place),
            np.where(known, targets if plan.counts else np.clip(targets, -_FAR, _FAR), 0.0),
            known,
            level,
            spread,
            naive,
            self._ahead[place[..., None] + np.arange(plan.horizon)],
        )

    def scale(self, past: Array, series: Array) -> tuple[Array, Array]:
        """Return level and spread (..., 1) of the values before origins (..., lags)."""
        plan = self.plan
        there = ~np.isnan(past)
        count = there.sum(-1, keepdims=True)
        values = np.where(there, past, 0.0)
        # Divided before they are summed, so that no sum overflows.
        mean = (values / np.maximum(count, 1)).sum(-1, keepdims=True)
        mean = np.where(count > 0, mean, self.levels[series][..., None])
        error = self.errors[series][..., None]
        if plan.counts:
            return np.zeros_like(mean), np.abs(mean) + _OF_ERROR * error
        away = np.where(there, np.abs(past - mean), 0.0) / np.maximum(count, 1)
        return mean, away.sum(-1, keepdims=True) + _OF_ERROR * error

    def inputs_at(self, past: Array, series: Array, origins: Array) -> tuple[Array, ...]:
        """Return inputs (B, F), level and spread (B, 1) at origins (B,), of values given (B, lags).

        The same numbers as `cut` gives where the values are those of the series.
        """
        level, spread = self.scale(past, series)
        place = self._starts[series] + origins
        past, levels, spreads = (part[:, None] for part in (past, level, spread))
        inputs = self._inputs(past, levels, spreads, series, place[:, None])
        return inputs[:, 0], level, spread

    def _inputs(
        self, past: Array, level: Array, spread: Array, series: Array, place: Array
    ) -> Array:
        plan = self.plan
        missing = np.isnan(past)
        scaled = np.where(missing, 0.0, np.clip((past - level) / spread, -_FAR, _FAR))
        error = self.errors[series].reshape(-1, *(1,) * (past.ndim - 1))
        season = scaled[..., -min(plan.season, plan.lags) :].mean(-1, keepdims=True)
        parts = [scaled, np.clip(np.log(spread / error), -4, 4), season]
        if plan.masked:
            parts.append(missing)
        if self._past.shape[1]:
            recent = self._past[place[..., None] + np.arange(-plan.lags, 0)]
            parts.append(recent.reshape(*place.shape, -1))
        if self._ahead.shape[1]:
            ahead = self._ahead[place[..., None] + np.arange(plan.horizon)]
            parts.append(ahead.reshape(*place.shape, -1))
        if self._calendar.shape[1]:
            parts.append(self._calendar[place])
        return np.concatenate(parts, axis=-1).astype(np.float32)

    def _naive(self, scaled: Array) -> Array:
        """Return the seasonal naive forecast (..., H) of scaled values (..., lags)."""
        ahead = np.arange(self.plan.horizon)
        season = min(self.plan.season, self.plan.lags)
        found = scaled[..., self.plan.lags - season + ahead % season]
        return np.where(np.isnan(found), 0.0, np.clip(found, -_FAR, _FAR))

    def restored(self, scaled: Array, cut: Cut) -> Array:
        """Return values of scaled ones at the last origins, (B, H) or (B, H, Q)."""
        axes = (slice(None), -1, slice(None), *(None,) * (scaled.ndim - 2))
        level, spread, naive = (part[axes] for part in (cut.level, cut.spread, cut.naive))
        return self.unscaled(scaled + naive * self.plan.residual, level, spread)

    def unscaled(self, scaled: Array, level: Array, spread: Array) -> Array:
        """Return finite values of scaled ones."""
        most = np.finfo(np.float64).max
        with np.errstate(over="ignore"):
            found = scaled if self.plan.counts else scaled * spread + level
            found = np.exp(found) if self.plan.log else found
        kept: Array = np.clip(found, -most, most)
        return kept

    def drawn(self, rng: np.random.Generator, size: int) -> tuple[Array, Array]:
        """Draw windows over all series: their numbers (B,), and origins (B, T).

        The last origins lie anywhere where half of the horizon is known at least.
        """
        plan = self.plan
        series = rng.choice(self._long_enough(), size)
        length = self.lengths[series]
        highest = np.maximum(length - max(1, plan.horizon // 2), 1)
        lowest = np.minimum(plan.lags + plan.stride * (plan.steps - 1), highest)
        # Short series have windows that begin before them.
        lowest = np.where(lowest > 0.5 * highest, np.minimum(lowest, (highest + 1) // 2), lowest)
        last = lowest + (rng.random(size) * (highest - lowest + 1)).astype(np.int64)
        return series, self.origins(last)

    def _long_enough(self) -> Array:
        found = np.flatnonzero(self.lengths > 1)
        return found if len(found) else np.arange(len(self))

    def last(self, series: Array) -> Array:
        """Return the values (B, lags) before the ends of series, as the network's plan has them."""
        place = self._starts[series] + self.lengths[series]
        values: Array = self._flat[place[:, None] + np.arange(-self.plan.lags, 0)]
        return values

    def origins(self, last: Array) -> Array:
        """Return the origins (B, T) of windows with these last ones (B,)."""
        return last[:, None] - self.plan.stride * np.arange(self.plan.steps - 1, -1, -1)

    def ends(self) -> tuple[Array, Array]:
        """Return the windows that end where the series do: numbers (N,), and origins (N, T)."""
        return np.arange(len(self)), self.origins(self.lengths)
