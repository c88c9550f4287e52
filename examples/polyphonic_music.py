"""Next-frame prediction of four-part chorales: five recurrent models over several seeds.

    pip install 'rnncore[examples]'
    python examples/polyphonic_music.py --data JSB_Chorales.mat

Every frame is 88 keys, held or not; predicted is frame t + 1 from the frames up to t, one sigmoid
per key. The loss is summed over the keys; its total over all frames that are predicted, divided by
their number, is what is printed, in nats per frame. The file is that of Bai et al. 2018 (229 / 76 /
77 chorales; Boulanger-Lewandowski et al. 2012). Parameters are those of the best validation.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import rnncore
from rnncore import Chain, Dropout, Linear, ReLU, init
from rnncore.batches import Batch
from rnncore.schedules import warmup_cosine
from rnncore.training import Trainer, evaluate

KEYS = 88
Rng = np.random.Generator
Sequences = Sequence[np.ndarray]  # each (T, 88), ones and zeros


def load(path: str) -> dict[str, Sequences]:
    """Read the three parts of the data."""
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise SystemExit(
            "reading MATLAB files needs SciPy: pip install 'rnncore[examples]'"
        ) from error
    if not Path(path).is_file():
        raise SystemExit(f"no such file: {path}")
    cells = loadmat(path)
    parts = {part: cells[f"{part}data"].reshape(-1) for part in ("train", "valid", "test")}
    return {part: [song.astype(np.float32) for song in songs] for part, songs in parts.items()}


def batch_of(songs: Sequences) -> Batch:
    """Pad to one batch: inputs are all frames but the last, targets all but the first."""
    lengths = np.array([len(song) - 1 for song in songs])
    x, wanted = np.zeros((2, lengths.max(), len(songs), KEYS), np.float32)
    for b, song in enumerate(songs):
        x[: lengths[b], b], wanted[: lengths[b], b] = song[:-1], song[1:]
    return Batch(x, wanted, lengths, rnncore.length_mask(lengths, lengths.max()))


@dataclass(frozen=True)
class Recipe:
    """A model and how it is trained; all chosen on the validation part."""

    build: Callable[[Rng], Chain]
    lr: float
    epochs: int
    weight_decay: float
    batch: int = 8
    clip_norm: float = 0.05


def start(scale: float) -> init.RecurrentInit:
    """Zero biases, orthogonal recurrence, wide input weights: only about 4 of the 88 keys are held.

    The shortcut of a deep transition, which is a recurrence as well, starts at half of that.
    """

    def scheme(
        rng: Rng, name: str, shape: tuple[int, ...], hidden_size: int, dtype: Any
    ) -> np.ndarray:
        if name.startswith("bias"):
            return np.zeros(shape, dtype)
        if name == "weight_ih_l0":
            return init.normal(rng, shape, scale, dtype)
        gain, gates = 0.5 if name.startswith("weight_ih") else 1.0, shape[0] // hidden_size
        return init.orthogonal(rng, shape, blocks=gates, gain=gain, dtype=dtype)

    return scheme


def shallow(
    kind: Callable[..., rnncore.Module], hidden: int, *, scale: float = 0.7, **options: Any
) -> Callable[[Rng], Chain]:
    """A recurrent layer, dropout and a linear layer."""

    def build(rng: Rng) -> Chain:
        layer = kind(KEYS, hidden, seed=rng, init=start(scale), **options)
        return Chain(layer, Dropout(0.5, seed=rng), Linear(hidden, KEYS, seed=rng))

    return build


def deep_output(
    hidden: int, dropouts: tuple[float, float, float], *, scale: float, **options: Any
) -> Callable[[Rng], Chain]:
    """A recurrent layer and a feed-forward net with one hidden layer, dropout before each layer."""

    def build(rng: Rng) -> Chain:
        layer = rnncore.RNN(KEYS, hidden, seed=rng, init=start(scale), **options)
        first, second, third = (Dropout(p, seed=rng) for p in dropouts)
        into, out = Linear(hidden, hidden, seed=rng), Linear(hidden, KEYS, seed=rng)
        return Chain(first, layer, second, into, ReLU(), third, out)

    return build


RELU = {"nonlinearity": "relu", "scale": 0.3}
DTS = RELU | {"transition_depth": 2, "shortcut": True}

RECIPES = {
    "rnn": Recipe(shallow(rnncore.RNN, 256, **RELU, variational_dropout=0.4), 5e-3, 60, 0.01),
    "lstm": Recipe(shallow(rnncore.LSTM, 256, variational_dropout=0.5), 1e-2, 50, 0.01),
    "gru": Recipe(shallow(rnncore.GRU, 256, variational_dropout=0.7), 1e-2, 60, 0.1),
    "dts": Recipe(shallow(rnncore.RNN, 256, **DTS, variational_dropout=0.5), 4e-3, 70, 0.01),
    "dots_dropout": Recipe(
        deep_output(256, (0.03, 0.3, 0.6), **DTS, variational_dropout=0.6), 4e-3, 60, 0.1
    ),
}


@dataclass(frozen=True)
class Run:
    """What one model with one seed came to."""

    test: float
    valid: float
    parameters: int
    seconds: float
    history: list[dict[str, Any]]


def run(name: str, seed: int, data: dict[str, Sequences], quick: bool) -> Run:
    recipe = replace(RECIPES[name], epochs=1) if quick else RECIPES[name]
    songs = {part: songs[:8] if quick else songs for part, songs in data.items()}
    model = recipe.build(np.random.default_rng(seed))
    loss = rnncore.BinaryCrossEntropy()
    valid, test = (batch_of(songs[part]) for part in ("valid", "test"))

    def epoch(rng: Rng) -> Iterator[Batch]:
        order = rng.permutation(len(songs["train"]))
        for at in range(0, len(order), recipe.batch):
            yield batch_of([songs["train"][i] for i in order[at : at + recipe.batch]])

    updates = -(-len(songs["train"]) // recipe.batch)
    total = recipe.epochs * updates
    schedule = warmup_cosine(recipe.lr, total, warmup=min(100, total - 1), final=0.05 * recipe.lr)
    optimiser = rnncore.AdamW(model, lr=schedule, weight_decay=recipe.weight_decay)
    trainer = Trainer(
        model,
        loss,
        optimiser,
        epoch,
        validate=lambda: evaluate(model, loss, [valid]) * KEYS,
        clip_norm=recipe.clip_norm,
        seed=seed,
    )
    started = time.perf_counter()
    with contextlib.redirect_stderr(io.StringIO()):  # the table says enough
        trainer.fit(total, validate_every=2 * updates, patience=15, show_progress=False)
    trainer.restore_best()
    return Run(
        evaluate(model, loss, [test]) * KEYS,
        trainer.progress.best_loss,
        sum(param.size for param in model.params.values()),
        time.perf_counter() - started,
        trainer.history,
    )


def run_all(jobs: list[tuple[str, int]], data: dict[str, Sequences], quick: bool) -> Iterable[Run]:
    """Run every (model, seed), each on one processor."""
    arguments = [*zip(*jobs, strict=True), [data] * len(jobs), [quick] * len(jobs)]
    if quick:
        return map(run, *arguments)
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, spawn, rnncore.set_num_threads, (1,))
    return pool.map(run, *arguments)


def plot(runs: dict[str, list[Run]], path: str) -> None:
    """Draw the validation loss of every model, one line per seed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="epoch", ylabel="validation loss (nats per frame)")
    for at, (name, of_seeds) in enumerate(runs.items()):
        for seed, result in enumerate(of_seeds):
            epochs = [entry["epoch"] + 1 for entry in result.history]
            losses = [entry["validation_loss"] for entry in result.history]
            label = name if seed == 0 else None
            axes.plot(epochs, losses, color=f"C{at}", linewidth=0.8, label=label)
    axes.set_ylim(top=min(axes.get_ylim()[1], 10.5))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, metavar="FILE", help="JSB_Chorales.mat")
    parser.add_argument("--seeds", type=int, default=5, help="how many (default: 5)")
    parser.add_argument("--quick", action="store_true", help="one epoch of 8 songs, one seed")
    parser.add_argument("--plot", metavar="FILE", help="draw the validation losses")
    args = parser.parse_args()

    data, seeds = load(args.data), 1 if args.quick else args.seeds
    jobs = list(product(RECIPES, range(seeds)))
    runs: dict[str, list[Run]] = {name: [] for name in RECIPES}
    print(f"{'model':14}{'test':>7}{'spread':>8}{'valid':>8}{'parameters':>12}{'seconds':>9}")
    for (name, _), result in zip(jobs, run_all(jobs, data, args.quick), strict=True):
        done = runs[name]
        done.append(result)
        if len(done) == seeds:
            test, valid, seconds = (
                np.array([getattr(one, key) for one in done])
                for key in ("test", "valid", "seconds")
            )
            print(
                f"{name:14}{test.mean():7.2f}{test.std():8.3f}{valid.mean():8.2f}"
                f"{result.parameters:12,}{seconds.mean():9.1f}",
                flush=True,
            )
    if args.plot:
        plot(runs, args.plot)
    means = {name: np.mean([one.test for one in done]) for name, done in runs.items()}
    print("result:", *(f"{name}={mean:.2f}" for name, mean in means.items()))


if __name__ == "__main__":
    main()
