"""Next-frame prediction of polyphonic music: five recurrent models, recipes found, several seeds.

    pip install 'rnncore[examples]'
    python examples/polyphonic_music.py --data JSB_Chorales.mat
    python examples/polyphonic_music.py --make long.mat --frames 2000    # pieces to check it by

Every frame is 88 keys, held or not; predicted is frame t + 1 from the frames up to t, one sigmoid
per key. The loss is summed over the keys; its total over all frames that are predicted, divided by
their number, is what is printed, in nats per frame. The file is that of Bai et al. 2018 (229 / 76 /
77 chorales; Boulanger-Lewandowski et al. 2012), or any of its format: the cells `traindata`,
`validdata` and `testdata` of pieces (frames, keys).

For each model the explorer chooses learning rate, width, dropout and start on the validation part,
from the recipe that served for the chorales and others that are drawn, by successive halving. The
best is then trained with several seeds. A run that diverges is a row that says so.
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
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import rnncore
from rnncore import Chain, Dropout, Linear, ReLU, init
from rnncore.batches import Batch
from rnncore.estimators import explore
from rnncore.schedules import warmup_cosine
from rnncore.training import Diverged, Trainer, evaluate
from scipy.io import loadmat, savemat
from scipy.stats import loguniform
from sklearn.base import BaseEstimator
from sklearn.model_selection import ParameterSampler

Rng = np.random.Generator
Pieces = Sequence[np.ndarray]  # each (T, keys), ones and zeros
PARTS = ("train", "valid", "test")
#: Pieces at a time where nothing is learnt.
AT_ONCE = 32


def load(path: str) -> dict[str, Pieces]:
    """Read the three parts of the data; pieces of one frame have none to be predicted."""
    if not Path(path).is_file():
        raise SystemExit(f"no such file: {path}")
    cells = loadmat(path)
    if missing := [f"{part}data" for part in PARTS if f"{part}data" not in cells]:
        raise SystemExit(f"{path} holds no {', '.join(missing)}")
    parts = {part: cells[f"{part}data"].reshape(-1) for part in PARTS}
    return {
        part: [piece.astype(np.float32) for piece in pieces if len(piece) > 1]
        for part, pieces in parts.items()
    }


def make(path: str, frames: int, counts: Sequence[int] = (24, 8, 8), seed: int = 0) -> None:
    """Write a file of the same format: four voices that walk up and down a scale of its own key."""
    rng = np.random.default_rng(seed)
    steps = np.array([0, 2, 4, 5, 7, 9, 11])
    cells = {}
    for part, count in zip(PARTS, counts, strict=True):
        pieces = np.empty(count, object)
        for at in range(count):
            pieces[at] = piece = np.zeros((frames, 88), np.uint8)
            scale = np.concatenate([steps + 12 * octave for octave in range(6)]) + rng.integers(12)
            for lowest in (4, 9, 15, 20):
                place, frame = lowest + int(rng.integers(6)), 0
                while frame < frames:
                    length = int(rng.choice([2, 4, 8], p=[0.3, 0.5, 0.2]))
                    piece[frame : frame + length, scale[place]] = 1
                    place = int(np.clip(place + rng.integers(-2, 3), lowest, lowest + 9))
                    frame += length
        cells[f"{part}data"] = pieces
    savemat(path, cells)
    print(f"{path}: {' / '.join(map(str, counts))} pieces of {frames} frames")


def batch_of(pieces: Pieces) -> Batch:
    """Pad to one batch: inputs are all frames but the last, targets all but the first."""
    lengths = np.array([len(piece) - 1 for piece in pieces])
    shape = (lengths.max(), len(pieces), pieces[0].shape[1])
    x, wanted = np.zeros((2, *shape), np.float32)
    for b, piece in enumerate(pieces):
        x[: lengths[b], b], wanted[: lengths[b], b] = piece[:-1], piece[1:]
    return Batch(x, wanted, lengths, rnncore.length_mask(lengths, lengths.max()))


def cut(pieces: Pieces, window: int) -> Pieces:
    """Cut pieces of more than `window` frames to learn from; a last part has two frames at least.

    Without that long pieces make few updates, and gradients over thousands of steps.
    """
    starts = [(piece, at) for piece in pieces for at in range(0, max(len(piece) - 1, 1), window)]
    return [piece[at : at + window + 1] for piece, at in starts]


def nats(model: Chain, pieces: Pieces) -> float:
    """Return the loss per frame that is predicted, in nats."""
    parts = (pieces[at : at + AT_ONCE] for at in range(0, len(pieces), AT_ONCE))
    return evaluate(model, rnncore.BinaryCrossEntropy(), map(batch_of, parts)) * pieces[0].shape[1]


def start(scale: float, gain: float) -> init.RecurrentInit:
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
        half, gates = 0.5 if name.startswith("weight_ih") else 1.0, shape[0] // hidden_size
        return init.orthogonal(rng, shape, blocks=gates, gain=half * gain, dtype=dtype)

    return scheme


RELU = {"nonlinearity": "relu"}
DTS = {**RELU, "transition_depth": 2, "shortcut": True}
#: The recurrent layer of each model, its options, and whether a net is between it and the output.
MODELS: dict[str, tuple[Callable[..., Any], dict[str, Any], bool]] = {
    "rnn": (rnncore.RNN, RELU, False),
    "lstm": (rnncore.LSTM, {}, False),
    "gru": (rnncore.GRU, {}, False),
    "dts": (rnncore.RNN, DTS, False),
    "dots_dropout": (rnncore.RNN, DTS, True),
}


@dataclass(kw_only=True, eq=False, repr=False)
class NextFrame(BaseEstimator):
    """A model and its recipe, as an estimator of pieces.

    Dropout before each layer of the output, `variational_dropout` on the recurrence. scale: the
    deviation of input weights at first; gain: that of the recurrence, 1 being orthogonal. window:
    frames predicted of a piece at a time in training; longer pieces are cut.
    """

    model: str = "rnn"
    hidden_size: int = 256
    learning_rate: float = 5e-3
    weight_decay: float = 0.01
    dropout: float = 0.5
    variational_dropout: float = 0.5
    scale: float = 0.7
    gain: float = 1.0
    max_iter: int = 54
    batch_size: int = 8
    window: int = 200
    clip_norm: float = 0.05
    random_state: int | None = None

    def initialise(self, X: Pieces, y: None = None) -> NextFrame:
        """Make the network."""
        kind, options, deep = MODELS[self.model]
        keys, hidden, rng = (
            X[0].shape[1],
            self.hidden_size,
            np.random.default_rng(self.random_state),
        )
        begin, drop = start(self.scale, self.gain), self.variational_dropout
        layers = [kind(keys, hidden, seed=rng, init=begin, variational_dropout=drop, **options)]
        if deep:
            layers = [Dropout(0.03, seed=rng), *layers, Dropout(0.3, seed=rng)]
            layers += [Linear(hidden, hidden, seed=rng), ReLU()]
        layers += [Dropout(self.dropout, seed=rng), Linear(hidden, keys, seed=rng)]
        self.network_ = Chain(*layers)
        return self

    def fit(self, X: Pieces, y: None = None, validation: Pieces | None = None) -> NextFrame:
        """Learn; with a validation part, keep the parameters that were best on it."""
        self.initialise(X)
        parts = cut(X, self.window)

        def epoch(rng: Rng) -> Iterator[Batch]:
            order = rng.permutation(len(parts))
            for at in range(0, len(order), self.batch_size):
                yield batch_of([parts[i] for i in order[at : at + self.batch_size]])

        updates = -(-len(parts) // self.batch_size)
        total, rate = self.max_iter * updates, self.learning_rate
        schedule = warmup_cosine(rate, total, min(100, total // 4), 0.05 * rate)
        trainer = Trainer(
            self.network_,
            rnncore.BinaryCrossEntropy(),
            rnncore.AdamW(self.network_, schedule, weight_decay=self.weight_decay),
            epoch,
            validate=None if validation is None else lambda: nats(self.network_, validation),
            clip_norm=self.clip_norm,
            seed=self.random_state,
        )
        patience = None if validation is None else 15
        with contextlib.redirect_stderr(io.StringIO()):  # the tables say enough
            trainer.fit(total, validate_every=2 * updates, patience=patience, show_progress=False)
        trainer.restore_best()
        self.history_ = trainer.history
        return self

    def score(self, X: Pieces, y: None = None) -> float:
        """Return the log-likelihood per frame, in nats."""
        return -nats(self.network_, X)


#: What served for the chorales, after some seventy trials, and its passes.
RECIPES: dict[str, tuple[dict[str, float], int]] = {
    "rnn": ({"learning_rate": 5e-3, "variational_dropout": 0.4, "scale": 0.3}, 60),
    "lstm": ({"learning_rate": 1e-2, "variational_dropout": 0.5, "scale": 0.7}, 50),
    "gru": ({"learning_rate": 1e-2, "variational_dropout": 0.7, "weight_decay": 0.1}, 60),
    "dts": ({"learning_rate": 4e-3, "variational_dropout": 0.5, "scale": 0.3}, 70),
    "dots_dropout": (
        {
            **{"learning_rate": 4e-3, "variational_dropout": 0.6, "scale": 0.3},
            **{"weight_decay": 0.1, "dropout": 0.6},
        },
        60,
    ),
}
#: What others are drawn from.
SPACE = {
    "learning_rate": loguniform(3e-4, 2e-2),
    "hidden_size": [128, 192, 256, 320],
    "dropout": [0.2, 0.35, 0.5],
    "variational_dropout": [0.0, 0.2, 0.4, 0.6],
    "scale": [0.05, 0.2, 0.7],
    "gain": [0.3, 0.6, 1.0],
}


def choose(name: str, data: dict[str, Pieces], args: argparse.Namespace) -> NextFrame:
    """Explore recipes of a model on the validation part, print the table, return the best.

    Where one is to be tried, that is the one for the chorales, as it is.
    """
    known, passes = RECIPES[name]
    if args.trials == 1:
        return NextFrame(model=name, max_iter=args.passes or passes, window=args.window, **known)
    passes = args.passes or 54
    drawn = ParameterSampler(SPACE, args.trials - 1, random_state=args.seed)
    found = explore(
        NextFrame(model=name, max_iter=passes, window=args.window),
        data["train"],
        None,
        {name: {"model": name}},
        options=[known, *drawn],
        seeds=1,
        validation=(data["valid"], None),
        n_jobs=None if args.quick else args.jobs,
    )
    print(found.table(every=True), flush=True)
    best = found.best  # whose passes are fewer where all that went further diverged
    return NextFrame(max_iter=best.passes, window=args.window).set_params(**best.settings)


@dataclass(frozen=True)
class Run:
    """What one model with one seed came to."""

    test: float
    valid: float
    parameters: int
    seconds: float
    history: list[dict[str, Any]] = field(default_factory=list)
    error: str = ""


def run(recipe: NextFrame, seed: int, data: dict[str, Pieces]) -> Run:
    started, model = time.perf_counter(), recipe.set_params(random_state=seed)
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            model.fit(data["train"], validation=data["valid"])
    except Diverged as error:
        return Run(np.nan, np.nan, 0, time.perf_counter() - started, error=str(error))
    network = model.network_
    test, valid = (nats(network, data[part]) for part in ("test", "valid"))
    size = sum(param.size for param in network.params.values())
    if not np.isfinite([test, valid]).all():
        return Run(test, valid, size, time.perf_counter() - started, error=f"test loss {test}")
    return Run(test, valid, size, time.perf_counter() - started, model.history_)


def run_all(
    jobs: list[tuple[NextFrame, int]], data: dict[str, Pieces], workers: int
) -> Iterable[Run]:
    """Run every (recipe, seed), each on one processor."""
    arguments = [*zip(*jobs, strict=True), [data] * len(jobs)]
    if workers == 1:
        return map(run, *arguments)
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, spawn, rnncore.set_num_threads, (1,))
    return pool.map(run, *arguments)


def report(name: str, runs: list[Run]) -> None:
    """Print a model's row, and one for each run that diverged."""
    done = [one for one in runs if not one.error]
    if done:
        test, valid, seconds = (
            np.array([getattr(one, key) for one in done]) for key in ("test", "valid", "seconds")
        )
        print(
            f"{name:14}{test.mean():7.2f}{test.std():8.3f}{valid.mean():8.2f}"
            f"{done[0].parameters:12,}{seconds.mean():9.1f}",
            flush=True,
        )
    for seed, one in enumerate(runs):
        if one.error:
            print(f"{name:14}seed {seed} diverged: {one.error}", flush=True)


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
    last = [
        one.history[-1]["validation_loss"] for done in runs.values() for one in done if one.history
    ]
    axes.set_ylim(top=min(axes.get_ylim()[1], 1.3 * max(last, default=10.0)))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)


def arguments() -> argparse.Namespace:
    processors = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    workers = processors if isinstance(processors, int) else len(processors or "1")
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", metavar="FILE", help="JSB_Chorales.mat, or one like it")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--trials", type=int, default=9, help="recipes tried a model (%(default)s)")
    parser.add_argument("--passes", type=int, help="over the pieces (54; with one trial its own)")
    parser.add_argument(
        "--window", type=int, default=200, help="frames of a piece at a time (%(default)s)"
    )
    parser.add_argument("--seeds", type=int, default=5, help="of the best recipe (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (%(default)s)")
    parser.add_argument("--jobs", type=int, default=workers, help="processes (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="one pass over 8 pieces, two recipes")
    parser.add_argument("--plot", metavar="FILE", help="draw the validation losses")
    parser.add_argument("--make", metavar="FILE", help="write pieces that check it, and end")
    parser.add_argument("--frames", type=int, default=2000, help="of those pieces (%(default)s)")
    args = parser.parse_args()
    if not (args.data or args.make):
        parser.error("--data or --make is needed")
    if args.quick:
        args.trials, args.passes, args.seeds, args.jobs = 2, 1, 1, 1
    return args


def main() -> None:
    args = arguments()
    if args.make:
        make(args.make, args.frames)
        return
    os.environ["RNNCORE_NUM_THREADS"] = "1"  # of the processes that explore
    data = load(args.data)
    if args.quick:
        data = {part: pieces[:8] for part, pieces in data.items()}
    print(f"{args.trials} recipes a model; scores: log-likelihood in nats per validation frame\n")
    recipes = {name: choose(name, data, args) for name in args.models}
    jobs = [(recipes[name], seed) for name, seed in product(recipes, range(args.seeds))]
    runs: dict[str, list[Run]] = {name: [] for name in recipes}
    print(f"\n{'model':14}{'test':>7}{'spread':>8}{'valid':>8}{'parameters':>12}{'seconds':>9}")
    for (recipe, _), result in zip(jobs, run_all(jobs, data, args.jobs), strict=True):
        runs[recipe.model].append(result)
        if len(runs[recipe.model]) == args.seeds:
            report(recipe.model, runs[recipe.model])
    if args.plot:
        plot(runs, args.plot)
    means = {name: np.mean([one.test for one in done]) for name, done in runs.items()}
    print("result:", *(f"{name}={mean:.2f}" for name, mean in means.items()))


if __name__ == "__main__":
    main()
