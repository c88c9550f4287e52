"""Sample paths of an autoregressive network: each step reads what was drawn for the one before."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import Array
from ..distributions import Distribution
from .learning import seen
from .networks import Forking, Seen
from .windows import Windows


def sample_paths(
    windows: Windows,
    head: Distribution,
    network: Forking,
    horizon: int,
    paths: int,
    rng: np.random.Generator,
) -> Array:
    """Draw `paths` ways in which each series may go on, (N, paths, horizon).

    Salinas et al. 2020, "DeepAR": all paths of all series are one batch, and the network's state
    goes on from step to step.
    """
    series, origins = windows.ends()
    cut = windows.cut(series, origins)
    given = seen(windows, series, cut)
    out, state = network.step(given, None)
    count = len(series)
    rows = np.repeat(np.arange(count), paths)
    out, state, codes = out[rows, -1], _repeated(state, paths), given.codes[rows]
    level, spread = cut.level[rows, -1], cut.spread[rows, -1]
    past = windows.last(series)[rows]
    drawn = np.empty((count * paths, horizon))
    for step in range(horizon):
        value = head.sample(out.astype(np.float64), seed=rng)
        value = value if windows.plan.counts else value * spread + level
        drawn[:, step] = value[:, 0]
        if step + 1 < horizon:
            past = np.concatenate([past[:, 1:], value], axis=1)
            at = windows.lengths[rows] + step + 1
            inputs, level, spread = windows.inputs_at(past, series[rows], at)
            shift = np.log(spread)[:, None].astype(np.float32) if windows.plan.counts else None
            x = inputs[:, None]
            out, state = network.step(Seen(x, x[..., :0], codes, shift), state)
            out = out[:, 0]
    found = windows.unscaled(drawn, np.zeros(1), np.ones(1))
    return windows.bounded(found.reshape(count, paths, horizon))


def _repeated(state: Any, times: int) -> Any:
    """Return states (L, B * times, H), each row several times."""
    if state is None:
        return None
    if isinstance(state, (tuple, list)):
        return type(state)(_repeated(part, times) for part in state)
    return np.repeat(state, times, axis=-2)
