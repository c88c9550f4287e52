"""What holds the sequence model of ListOps back: changes of its recipe, variations of the model.

    python examples/listops_sequence.py --test test_d20s.tsv --recipes       # each change alone
    python examples/listops_sequence.py --test test_d20s.tsv --variations    # by the explorer

Both choose on a part of the training set that is held out; only the variation that is found goes
on to compute the test file. See `listops.py`, whose data and training these are.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import listops
import numpy as np
import rnncore
from listops import NUMBER, TOKENS, Recipe, SequenceModel
from rnncore.batches import Batch
from rnncore.estimators import SequenceClassifier, explore
from rnncore.schedules import warmup_cosine
from rnncore.training import Trainer

#: Of the recipe of the sequence model, each alone.
CHANGES: dict[str, dict[str, Any]] = {
    "none": {},
    "learning rate 1e-3": {"lr": 1e-3},
    "learning rate 4e-3": {"lr": 4e-3},
    "batches of 32": {"batch": 32},
    "batches of mixed lengths": {"mixed": True},
    "gradients clipped at 5": {"clip": 5.0},
    "orthogonal recurrence": {"make": partial(SequenceModel, init="orthogonal")},
    "forget bias of 0": {"make": partial(SequenceModel, forget=0.0)},
    "hidden layer of 128 behind": {"make": partial(SequenceModel, readout=128)},
    "dropout of 0.2 on the recurrence": {"make": partial(SequenceModel, dropout=0.2)},
    "weight decay of 0.1": {"weight_decay": 0.1},
    "short expressions first": {"short_first": ((10, 4), (25, 1))},
}


class Expression(NamedTuple):
    """What is read, and what is to be found."""

    tokens: np.ndarray
    value: int


def expressions(rows: Sequence[tuple[str, int]]) -> list[Expression]:
    """Return the tokens of each expression, without brackets, and its value."""
    return [
        Expression(np.array([NUMBER[token] for token in text.split() if token not in "()"]), value)
        for text, value in rows
    ]


def compare_recipes(args: argparse.Namespace, examples: list[Expression]) -> None:
    """Train by each changed recipe, print what it reaches on what is held out."""
    count = len(examples) - len(examples) // 18
    learnt, held = examples[:count], examples[count:]
    learnt = [one for one in learnt if len(one.tokens) <= args.longest]
    plain = Recipe(SequenceModel, args.hidden, len(learnt), args.epochs, args.batch, args.lr)
    columns = ["training part", *listops.COLUMNS]
    print(f"| change | {' | '.join(columns)} |\n| --- |{' ---: |' * len(columns)}")
    found = {}
    for name in args.only or CHANGES:
        model = listops.train(name, plain._replace(**CHANGES[name]), learnt, args.seed)
        cells = [model.accuracy(learnt[: len(held)]), *model.by_operation(held)]
        found[name] = cells[1]
        print(f"| {name} |", " | ".join(f"{cell:.1f} %" for cell in cells), "|", flush=True)
    best = max(found, key=lambda name: found[name])
    print(f"result: best={best.replace(' ', '_')} held_out={found[best]:.2f}")


def remembering(*sizes: int, **options: Any) -> rnncore.LSTM:
    """An LSTM that remembers at first, as that of `SequenceModel`."""
    layer = rnncore.LSTM(*sizes, **options)
    rnncore.init.set_forget_bias(layer)
    return layer


#: Of the sequence model: depth in four places, another cell, both directions, another reading.
VARIATIONS: dict[str, dict[str, Any]] = {
    "lstm": {},
    "lstm, output of 2": {"output_depth": 2},
    "lstm, input of 2": {"input_depth": 2},
    "lstm, 2 layers": {"num_layers": 2},
    "rnn, transition of 2": {"cell": "rnn", "transition_depth": 2, "shortcut": True},
    "lstm, both directions": {"bidirectional": True},
    "lstm, mean of steps": {"reading": "mean"},
    "gru": {"cell": "gru"},
}


@dataclass(kw_only=True, eq=False, repr=False)
class Reader(SequenceClassifier):
    """Learns in the order of `listops.py`: in batches of expressions of about one length."""

    def fit(self, X: Sequence[np.ndarray], y: np.ndarray, sample_weight: None = None) -> Reader:
        """Learn from one-hot tokens (T, 15) and values."""
        self.initialise(X, y)
        places = np.searchsorted(self.classes_, y)
        examples = [Expression(*pair) for pair in zip(X, places, strict=True)]
        total = self.max_iter * -(-len(examples) // self.batch_size)

        def drawn(rng: np.random.Generator) -> Iterator[Batch]:
            return map(batch_of, listops.batches(examples, self.batch_size, rng))

        schedule = warmup_cosine(self.learning_rate, total, total // 20)
        optimiser = rnncore.AdamW(self.network_, schedule, weight_decay=self.weight_decay)
        loss = rnncore.SoftmaxCrossEntropy()
        options = {"clip_norm": self.clip_norm, "seed": self.random_state}
        trainer = Trainer(self.network_, loss, optimiser, drawn, **options)
        trainer.fit(total, show_progress=False, quiet=True)
        return self


def batch_of(examples: list[Expression]) -> Batch:
    """Pad one-hot tokens to one batch (B, T, 15)."""
    lengths = np.array([len(example.tokens) for example in examples])
    x = np.zeros((len(examples), lengths.max(), len(TOKENS)), np.float32)
    for row, example in zip(x, examples, strict=True):
        row[: len(example.tokens)] = example.tokens
    return Batch(x, np.array([example.value for example in examples]), lengths)


def explore_variations(
    args: argparse.Namespace, examples: list[Expression], tests: list[Expression]
) -> None:
    """Compare variations of the sequence model at its size; train the best, print its accuracy."""
    one_hot = np.eye(len(TOKENS), dtype=np.float32)

    def sequences(part: list[Expression]) -> tuple[list[np.ndarray], np.ndarray]:
        return [one_hot[one.tokens] for one in part], np.array([one.value for one in part])

    X, y = sequences([one for one in examples if len(one.tokens) <= args.longest])
    recipe = {"batch_size": args.batch, "learning_rate": args.lr}
    model = Reader(cell=remembering, max_iter=args.epochs, **recipe)
    size = sum(param.size for param in SequenceModel(args.hidden).params.values())
    variations = {name: VARIATIONS[name] for name in args.only or VARIATIONS}
    seeds = {"seeds": args.seeds, "validation": 1 / 18}
    found = explore(model, X, y, variations, parameters=size, **seeds)
    print(found, flush=True)
    best = found.best
    model.set_params(**{**best.settings, "random_state": args.seed}).fit(X, y)
    name, reached = best.architecture.replace(" ", "_"), model.score(*sequences(tests))
    print(f"result: best={name} valid={100 * best.score:.2f} test={100 * reached:.2f}")


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--test", type=Path, required=True, help="test_d20s.tsv")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--recipes", action="store_true", help="changes of the recipe")
    what.add_argument("--variations", action="store_true", help="variations of the model")
    parser.add_argument("--only", nargs="+", choices=[*CHANGES, *VARIATIONS], metavar="NAME")
    parser.add_argument("--longest", type=int, default=1000, help="expression learnt from, tokens")
    parser.add_argument("--train-size", type=int, default=90_000)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seeds", type=int, default=1, help="of each variation")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a few seconds, for tests")
    args = parser.parse_args()
    if not args.test.is_file():
        raise SystemExit(f"no such file: {args.test}")
    if args.quick:
        args.train_size, args.hidden, args.epochs = 400, 16, 1
    return args


def main() -> None:
    """Compare recipes, or variations."""
    args = arguments()
    rows = listops.read_rows(args.test)
    drawn = listops.generate(args.train_size, args.seed, {text for text, _ in rows})
    if args.recipes:
        compare_recipes(args, expressions(drawn))
    else:
        explore_variations(args, expressions(drawn), expressions(rows[:50] if args.quick else rows))


if __name__ == "__main__":
    main()
