"""How the members of a forecaster are trained, and what they forecast."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array
from ..batches import Batch
from ..distributions import Distribution, Quantiles
from ..optim import AdamW
from ..schedules import warmup_cosine
from ..threads import get_num_threads, set_num_threads
from ..training import Trainer
from .networks import NETWORKS, EncoderDecoder, Forking, Seen, Sizes, decoder_inputs
from .windows import Cut, Windows

#: The largest weight of a window: a quiet series does not outweigh all others.
_HEAVIEST = 20.0
#: How many windows are forecast in one call.
_AT_ONCE = 1024

Network = Forking | EncoderDecoder


class Recipe(NamedTuple):
    """How a member is made and trained."""

    network: str
    hidden: int
    layers: int
    dropout: float
    categories: tuple[int, ...]
    updates: int
    batch: int
    lr: float
    weight_decay: float
    relative: float
    verbose: bool


def train(
    windows: Windows, head: Distribution, recipe: Recipe, seeds: Sequence[np.random.SeedSequence]
) -> list[tuple[Network, list[dict[str, Any]]]]:
    """Train a member for each seed, side by side on threads; return each with its history.

    A member is the same whatever the number of threads.
    """
    workers = min(get_num_threads(), len(seeds))
    with one_thread_each(workers > 1), ThreadPoolExecutor(workers) as pool:
        return list(pool.map(lambda seed: _member(windows, head, recipe, seed), seeds))


@contextmanager
def one_thread_each(wanted: bool) -> Iterator[None]:
    """Let calls use one thread each, where several run side by side."""
    before = get_num_threads()
    if wanted:
        set_num_threads(1)
    try:
        yield
    finally:
        set_num_threads(before)


def _member(
    windows: Windows, head: Distribution, recipe: Recipe, seed: np.random.SeedSequence
) -> tuple[Network, list[dict[str, Any]]]:
    rng = np.random.default_rng(seed)
    first = batch_of(windows, head, recipe, rng)
    sizes = Sizes(
        first.inputs.x.shape[-1],
        first.inputs.ahead.shape[-1],
        windows.plan.horizon,
        head.outputs,
        recipe.hidden,
        recipe.layers,
        recipe.dropout,
        recipe.categories,
    )
    network = NETWORKS[recipe.network](sizes, rng)
    warmup = min(50, recipe.updates // 10)
    schedule = warmup_cosine(recipe.lr, recipe.updates, warmup)
    optimiser = AdamW(network, lr=schedule, weight_decay=recipe.weight_decay)

    def batches(_: np.random.Generator) -> Iterator[Batch]:
        while True:
            yield batch_of(windows, head, recipe, rng)

    trainer = Trainer(network, head, optimiser, batches, clip_norm=1.0, seed=rng)
    every = max(1, recipe.updates // 10)
    trainer.fit(recipe.updates, validate_every=every, quiet=not recipe.verbose)
    return network, trainer.history


def batch_of(
    windows: Windows, head: Distribution, recipe: Recipe, rng: np.random.Generator
) -> Batch:
    """Draw windows over all series, and weigh their targets."""
    series, origins = windows.drawn(rng, recipe.batch)
    cut = windows.cut(series, origins)
    mask = cut.known * _weights(windows, head, series, cut, recipe.relative)
    targets = cut.targets
    if recipe.network == "encoder-decoder":
        mask, targets = mask[:, -1:], targets[:, -1:]
    told, weights = (np.ascontiguousarray(part, np.float32) for part in (targets, mask))
    return Batch(seen(windows, series, cut), told, mask=weights)


def _weights(
    windows: Windows, head: Distribution, series: Array, cut: Cut, relative: float
) -> Array | float:
    """Weigh quantiles' errors as scores do, whatever the scale of a window: (B, T, 1).

    In units of the seasonal naive error of a series, and, of logarithms, as relative errors, too.
    """
    if not isinstance(head, Quantiles):
        return 1.0
    apart = cut.spread / windows.errors[series][:, None, None]
    return np.minimum(apart + cut.spread * relative * windows.plan.log, _HEAVIEST)


def seen(windows: Windows, series: Array, cut: Cut) -> Seen:
    """Return what networks see of windows."""
    shift = np.log(cut.spread).astype(np.float32) if windows.plan.counts else None
    ahead = decoder_inputs(cut.ahead[:, -1], cut.naive[:, -1], windows.plan.season)
    return Seen(cut.inputs, ahead, windows.codes[series], shift)


def quantiles(
    windows: Windows, head: Distribution, networks: Sequence[Network], levels: Array
) -> Array:
    """Return the quantiles (N, H, Q) of the steps behind all series, means over the members."""
    found = []
    for series, origins in _parts(*windows.ends()):
        cut = windows.cut(series, origins)
        given = seen(windows, series, cut)
        told = []
        for network in networks:
            out = network(given)[:, -1].astype(np.float64)
            told.append(windows.restored(head.quantile(out, levels), cut))
        # Of each a share, so that the sum does not overflow.
        found.append(np.sum([one / len(told) for one in told], axis=0))
    return windows.bounded(np.concatenate(found))


def _parts(series: Array, origins: Array) -> Iterator[tuple[Array, Array]]:
    for at in range(0, len(series), _AT_ONCE):
        yield series[at : at + _AT_ONCE], origins[at : at + _AT_ONCE]
