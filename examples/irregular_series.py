"""Series whose values are missing and whose times are not regular: which cells make use of that.

    python examples/irregular_series.py

Simulated, so that the truth is known: three channels are waves of one frequency, of four, with
phases, amplitudes and noise of their own. They are seen at 60 times whose gaps are exponential,
each channel at 40 % of them. Wanted is the frequency, which nobody can tell without the gaps.
`gru` has zeros for what is missing and does not know times; `gru_gaps` has the gap and the mask
as features. `cfc` (Hasani et al. 2022) has the mask as features and the gap in its equations, and
so has `fading`, a GRU written here whose units fade at rates of their own. `gru_d` (Che et al.
2018) lets values and state decay with the time since they were seen. All have about as many
parameters and the same training; the accuracies are those of 2,000 series never trained on.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import rnncore
from rnncore.cells import Gate, define, exp, sigmoid, softplus, tanh
from rnncore.cells.shelf import cfc
from rnncore.cells.symbols import Symbol
from rnncore.schedules import warmup_cosine
from tqdm import tqdm

CHANNELS, STEPS, SEEN = 3, 60, 0.4
FREQUENCIES = np.array([0.5, 0.7, 1.0, 1.4])  # per second; gaps are 0.2 s in the mean


@define(gates=["r", "z", Gate("n", apart=True)], units={"rate": (-3, 3)}, inputs=("delta",))
def fading(
    r: Symbol,
    z: Symbol,
    n_input: Symbol,
    n_recurrent: Symbol,
    h: Symbol,
    rate: Symbol,
    delta: Symbol,
) -> Symbol:
    """A GRU whose old state has faded by exp(-softplus(rate) delta)."""
    faded = h * exp(-softplus(rate) * delta)
    n = tanh(n_input + sigmoid(r) * n_recurrent)
    return n + sigmoid(z) * (faded - n)


class Series(NamedTuple):
    """A batch: values, NaN where not seen, `(T, B, 3)`; gaps `(T, B)`; classes `(B,)`."""

    values: np.ndarray
    gaps: np.ndarray
    wanted: np.ndarray


def draw(rng: np.random.Generator, count: int) -> Series:
    gaps = rng.exponential(0.2, (STEPS, count)).astype(np.float32)
    wanted = rng.integers(0, len(FREQUENCIES), count)
    times, size = np.cumsum(gaps, axis=0)[..., None], (count, CHANNELS)
    turns = FREQUENCIES[wanted][:, None] * times + rng.random(size)
    values = rng.uniform(0.5, 1.5, size) * np.sin(2 * np.pi * turns)
    values += 0.2 * rng.standard_normal(values.shape)
    values[rng.random(values.shape) > SEEN] = np.nan
    return Series(values.astype(np.float32), gaps, wanted)


def masked(series: Series) -> np.ndarray:
    """Values, zero where not seen, and which of them were seen."""
    seen = ~np.isnan(series.values)
    return np.concatenate([np.nan_to_num(series.values), seen.astype(np.float32)], axis=-1)


@dataclass(frozen=True)
class Model:
    """How a layer is made, and what it is called with."""

    make: Callable[[int, np.random.Generator], Any]
    arguments: Callable[[Any, Series], tuple[np.ndarray, dict[str, Any]]]


MODELS = {
    "gru": Model(
        lambda hidden, rng: rnncore.GRU(CHANNELS, hidden, seed=rng),
        lambda layer, series: (np.nan_to_num(series.values), {}),
    ),
    "gru_gaps": Model(
        lambda hidden, rng: rnncore.GRU(2 * CHANNELS + 1, hidden, seed=rng),
        lambda layer, series: (
            np.concatenate([masked(series), series.gaps[..., None]], axis=-1),
            {},
        ),
    ),
    "cfc": Model(
        lambda hidden, rng: cfc(2 * CHANNELS, hidden, seed=rng),
        lambda layer, series: (layer.join(masked(series), delta=series.gaps), {}),
    ),
    "fading": Model(
        lambda hidden, rng: fading(2 * CHANNELS, hidden, seed=rng),
        lambda layer, series: (layer.join(masked(series), delta=series.gaps), {}),
    ),
    "gru_d": Model(
        lambda hidden, rng: rnncore.GRUD(CHANNELS, hidden, seed=rng),
        lambda layer, series: (series.values, {"deltas": series.gaps}),
    ),
}


def train(model: Model, hidden: int, updates: int, seed: int) -> tuple[float, int]:
    """Return the accuracy on series never trained on, and the number of parameters."""
    rng = np.random.default_rng(seed)
    layer, head = model.make(hidden, rng), rnncore.Linear(hidden, len(FREQUENCIES), seed=rng)
    loss = rnncore.SoftmaxCrossEntropy()
    rates = warmup_cosine(5e-3, updates, warmup=updates // 20)
    optimisers = [rnncore.Adam(part, lr=rates) for part in (layer, head)]
    for _ in tqdm(range(updates), leave=False, disable=None):
        series = draw(rng, 64)
        x, options = model.arguments(layer, series)
        (y, _), back = layer.vjp(x, **options)
        logits, head_back = head.vjp(y[-1])
        _, loss_back = loss.vjp(logits, series.wanted)
        dy = np.zeros_like(y)
        dy[-1] = head_back(loss_back())
        back(dy)
        for part, optimiser in zip((layer, head), optimisers, strict=True):
            rnncore.clip_grad_norm(part, 1.0)
            optimiser.step()
            part.zero_grad()
    test = draw(np.random.default_rng(1000 + seed), 2000)
    x, options = model.arguments(layer, test)
    right = head(layer(x, **options)[0][-1]).argmax(axis=-1) == test.wanted
    return float(right.mean()), sum(p.size for part in (layer, head) for p in part.params.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="how many (default: 3)")
    parser.add_argument("--updates", type=int, default=1500)
    parser.add_argument("--quick", action="store_true", help="a few updates, one seed")
    args = parser.parse_args()
    seeds, updates = (1, 20) if args.quick else (args.seeds, args.updates)
    means = {}
    print(f"{'model':10}{'accuracy':>9}{'spread':>8}{'parameters':>12}{'seconds':>9}")
    for name, model in MODELS.items():
        started = time.perf_counter()
        found = [train(model, 48, updates, seed) for seed in range(seeds)]
        accuracies, seconds = [a for a, _ in found], (time.perf_counter() - started) / seeds
        means[name] = np.mean(accuracies)
        print(
            f"{name:10}{means[name]:9.3f}{np.ptp(accuracies):8.3f}{found[0][1]:12,}{seconds:9.1f}",
            flush=True,
        )
    print("result:", *(f"{name}={mean:.3f}" for name, mean in means.items()))


if __name__ == "__main__":
    main()
