"""Compare architectures of one size on a data set: which cell, which depth, which directions.

DATA is an .npz file with X (N, T, I), y and, if they differ, lengths (N,); an .npy or .csv file of
one series (T, I), to be forecast; or the word digits, for the images that come with scikit-learn.
Whole numbers or words y (N,) are classes, other numbers are regressed, y (N, T) are labels of the
steps; without y the next steps are forecast.

Each architecture is as wide as --parameters, or --seconds of training, allow. Successive halving
gives the better third of them three times the passes. The table's scores are those of --validation,
with 95 % intervals over the seeds: accuracy, or R^2. The last line printed is for machines:
result: best=gru score=0.9722 parameters=19872
"""

from __future__ import annotations

import argparse
import json
from argparse import ArgumentTypeError
from pathlib import Path
from typing import Any

from ..training.plots import require_matplotlib
from . import datasets, options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options: the data, the budget, the architectures, and how long it takes."""
    parser.add_argument("data", metavar="DATA", help="a file, or digits")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument(
        "--parameters", nargs="+", type=options.count, metavar="N", help="of a model (20000)"
    )
    budget.add_argument(
        "--seconds", nargs="+", type=options.positive, metavar="S", help="of training a model"
    )
    parser.add_argument(
        "--architectures",
        nargs="+",
        type=architecture,
        metavar="CELL[,OPTION=VALUE...]",
        help="such as gru lstm,num_layers=2 rnn,transition_depth=2,shortcut=true,nonlinearity=relu "
        "gru,input_depth=2 gru,output_depth=2 gru,bidirectional=true",
    )
    parser.add_argument("--seeds", type=options.count, default=3, help="of each (%(default)s)")
    parser.add_argument(
        "--passes", type=options.count, default=27, help="over the data, at most (%(default)s)"
    )
    parser.add_argument("--lr", type=options.positive, default=5e-3, help="(%(default)s)")
    parser.add_argument("--batch", type=options.count, default=32, help="(%(default)s)")
    parser.add_argument("--dropout", type=options.share, default=0.0, help="(%(default)s)")
    parser.add_argument(
        "--validation", type=options.share, default=0.2, help="share of the data (%(default)s)"
    )
    parser.add_argument("--jobs", type=options.count, default=1, help="processes (%(default)s)")
    parser.add_argument(
        "--seed", type=options.natural, default=0, help="of the split (%(default)s)"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="picture, .png or .svg")


def architecture(text: str) -> tuple[str, dict[str, Any]]:
    """Return the name of an architecture and its parameters, as an estimator takes them."""
    cell, *settings = text.split(",")
    found: dict[str, Any] = {"cell": cell}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name.isidentifier():
            raise ArgumentTypeError(f"must be CELL,OPTION=VALUE,..., got {text!r}")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return text, found


def run(args: argparse.Namespace) -> None:
    """Explore, print, draw."""
    from ..estimators.exploring import ARCHITECTURES, explore

    if args.plot:
        options.check_writable(args.plot)
        require_matplotlib()
    if not args.validation:
        raise ValueError("--validation must be above 0")
    data = datasets.read(args.data)
    X, y, validation = _parts(data, args.validation)
    chosen = dict(args.architectures) if args.architectures else dict(ARCHITECTURES)
    if data.task == "forecast":  # what looks ahead would see what it is to tell
        chosen = {name: given for name, given in chosen.items() if "bidirectional" not in given}
    if not chosen:
        raise ValueError("a forecast from both directions would see what it is to tell")
    print(
        f"{data.task}: {len(data.X):,} sequences, {len(chosen)} architectures, {args.seeds} seeds, "
        f"up to {args.passes} passes",
        flush=True,
    )
    found = explore(
        _estimator(data.task, args),
        X,
        y,
        chosen,
        parameters=None if args.seconds else args.parameters or [20_000],
        seconds=args.seconds,
        seeds=args.seeds,
        validation=validation,
        n_jobs=args.jobs,
        random_state=args.seed,
    )
    print(found)
    if args.plot:
        found.plot(args.plot)
        print(f"picture saved as {args.plot}")
    best = found.best
    name = best.architecture.replace(" ", "_")
    print(f"result: best={name} score={best.score:.4f} parameters={best.parameters}")


def _parts(data: datasets.Dataset, share: float) -> tuple[Any, Any, Any]:
    """Return what is to be split, and the share; of one series the end is the validation part."""
    if len(data.X) > 1:
        return data.X, data.y, share
    (series,) = data.X
    cut = round((1 - share) * len(series))
    return [series[:cut]], None, ([series[cut:]], None)


def _estimator(task: str, args: argparse.Namespace) -> Any:
    """Return the estimator of a task, with its inputs standardised."""
    from sklearn.pipeline import make_pipeline

    from .. import estimators

    common = {
        "max_iter": args.passes,
        "learning_rate": args.lr,
        "batch_size": args.batch,
        "dropout": args.dropout,
        "schedule": "cosine",
    }
    if task == "forecast":
        return estimators.Forecaster(**common)
    kinds = {
        "classify": estimators.SequenceClassifier,
        "regress": estimators.SequenceRegressor,
        "label": estimators.SequenceLabeller,
    }
    return make_pipeline(estimators.SequenceScaler(), kinds[task](**common))
