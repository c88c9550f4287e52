"""ListOps (Nangia and Bowman 2018): a Tree-LSTM on trees given or parsed, a sequence LSTM.

    python examples/listops.py --test ../shared/data/listops/test_d20s.tsv
    python examples/listops.py --test ... --models FOLDER    # keep what was trained

`listops_sequence.py` asks what holds the sequence model back.

Nested operations on digits, "( ( ( [MAX 2 ) 9 ) ] )", are to be computed: MIN, MAX, MED and SM, the
sum modulo 10. The test file is the published one; the training set is generated anew by the rules
that it agrees with, and holds no expression of the test file. A parser learns the brackets from
some of it, by max margin; then the same Tree-LSTM computes the test file on trees that it finds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rnncore
from rnncore import (
    Chain,
    Embedding,
    Forest,
    LayerNorm,
    Linear,
    Parser,
    ReLU,
    SoftmaxCrossEntropy,
    TreeLSTM,
)
from rnncore.schedules import warmup_cosine
from rnncore.trees import brackets
from rnncore.trees.order import Order
from tqdm import tqdm

OPERATIONS: dict[str, Callable[[list[int]], int]] = {
    "[MIN": min,
    "[MAX": max,
    "[MED": lambda values: int(statistics.median(values)),
    "[SM": lambda values: sum(values) % 10,
}
TOKENS = [*map(str, range(10)), *OPERATIONS, "]"]
NUMBER = {token: at for at, token in enumerate(TOKENS)}
#: What `Classifier.by_operation` returns.
COLUMNS = ["all", *(f"{name[1:]} outermost" for name in OPERATIONS), "no SM"]
MOST_DEPTH, MOST_ARGUMENTS, SHARE = 20, 5, 0.25
NAMES = ["tree_lstm", "lstm", "parser"]
Seed = np.random.Generator | int | None


Rows = Sequence[tuple[str, int]]


class Example(NamedTuple):
    """An expression: the tokens at its leaves in reading order, its tree, and its value."""

    tokens: np.ndarray
    tree: Forest
    order: Order
    value: int


def draw(rng: np.random.Generator, depth: int = 1) -> tuple[str, int]:
    """Draw an expression in binary brackets, and its value."""
    if depth >= MOST_DEPTH or rng.random() >= SHARE:
        digit = int(rng.integers(10))
        return str(digit), digit
    operation = str(rng.choice(list(OPERATIONS)))
    text, values = operation, []
    for _ in range(int(rng.integers(2, MOST_ARGUMENTS + 1))):
        argument, value = draw(rng, depth + 1)
        text = f"( {text} {argument} )"
        values.append(value)
    return f"( {text} ] )", OPERATIONS[operation](values)


def generate(count: int, seed: int, without: set[str]) -> list[tuple[str, int]]:
    """Draw distinct expressions that are operations, none of them in `without`."""
    rng, seen, found = np.random.default_rng(seed), set(without), []
    with tqdm(total=count, desc="drawing expressions", mininterval=1) as bar:
        while len(found) < count:
            text, value = draw(rng)
            if text.startswith("(") and text not in seen:
                seen.add(text)
                found.append((text, value))
                bar.update()
    return found


def prepare(expressions: Sequence[tuple[str, int]]) -> list[Example]:
    """Read the brackets of each expression."""
    examples = []
    for text, value in tqdm(expressions, desc="reading trees", mininterval=1):
        forest = brackets.read([text])
        labels = forest.labels or []
        tokens = np.array([NUMBER[labels[row]] for row in forest.leaves])
        tree = Forest(forest.parent, forest.begin)
        examples.append(Example(tokens, tree, forest.bottom_up(2), value))
    return examples


class Classifier(rnncore.Module):
    """Expressions to the logits (B, 10) of ten digits; in training, cross-entropy."""

    def loss(self, batch: Sequence[Example]) -> tuple[float, Callable[[], None]]:
        """Return the loss and the pullback."""
        logits, pullback = self.vjp(batch)
        targets = np.array([example.value for example in batch])
        value, back = SoftmaxCrossEntropy().vjp(logits, targets)
        return value, lambda: pullback(back())

    def accuracy(self, examples: Sequence[Any], size: int = 250) -> float:
        """The share of expressions whose value is found, in percent."""
        right = sum(
            int((self(batch).argmax(axis=1) == [example.value for example in batch]).sum())
            for batch in batches(examples, size)
        )
        return 100 * right / len(examples)

    def by_operation(self, examples: Sequence[Any]) -> list[float]:
        """The same of all, of each outermost operation (the first token), and without any SM."""
        parts = [[e for e in examples if e.tokens[0] == NUMBER[name]] for name in OPERATIONS]
        parts.append([e for e in examples if NUMBER["[SM"] not in e.tokens])
        return [self.accuracy(part) if part else np.nan for part in [examples, *parts]]


class TreeModel(Classifier):
    """Tokens at the leaves, a binary Tree-LSTM, the root's state to one of ten digits."""

    def __init__(self, hidden: int, seed: Seed = None) -> None:
        super().__init__()
        rng = np.random.default_rng(seed)
        self.embedding = Embedding(len(TOKENS), hidden, seed=rng)
        self.tree = TreeLSTM(hidden, hidden, inputs="leaves", seed=rng)
        self.out = Linear(hidden, 10, seed=rng)
        self.tree.params["bias_ih"][hidden : 2 * hidden] = 1  # remember at first

    @staticmethod
    def inputs(batch: Sequence[Example]) -> tuple[np.ndarray, Order, np.ndarray]:
        """Return the tokens of all leaves, the order of all nodes, and the roots' rows."""
        order = Order.join([example.order for example in batch])
        return np.concatenate([example.tokens for example in batch]), order, order.begin[1:] - 1

    def __call__(self, batch: Sequence[Example]) -> np.ndarray:
        """Return the logits."""
        tokens, order, roots = self.inputs(batch)
        h, _ = self.tree(self.embedding(tokens), order)
        return self.out(h[roots])

    def vjp(self, batch: Sequence[Example]) -> tuple[np.ndarray, Callable[[np.ndarray], None]]:
        """Return the logits and the pullback."""
        tokens, order, roots = self.inputs(batch)
        x, x_back = self.embedding.vjp(tokens)
        (h, _), h_back = self.tree.vjp(x, order)
        y, y_back = self.out.vjp(h[roots])

        def pullback(dy: np.ndarray) -> None:
            dh = np.zeros_like(h)
            dh[roots] = y_back(dy)
            x_back(h_back(dh))

        return y, pullback


class SequenceModel(Classifier):
    """The same tokens read from left to right by an LSTM.

    init: of the recurrent weights; forget: the forget gate's bias at first; readout: units of a
    hidden layer behind the last state, with layer normalisation; dropout: of the state between the
    steps, the same at all of them.
    """

    def __init__(
        self,
        hidden: int,
        seed: Seed = None,
        *,
        init: str = "torch",
        forget: float = 1.0,
        readout: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        rng = np.random.default_rng(seed)
        self.embedding = Embedding(len(TOKENS), hidden, seed=rng)
        options = {"init": init, "variational_dropout": dropout}
        self.lstm = rnncore.LSTM(hidden, hidden, seed=rng, **options)
        between = [LayerNorm(hidden), Linear(hidden, readout, seed=rng), ReLU()] if readout else []
        out = Linear(readout or hidden, 10, seed=rng)
        self.out = Chain(*between, out) if between else out
        rnncore.init.set_forget_bias(self.lstm, forget)

    @staticmethod
    def inputs(batch: Sequence[Example]) -> tuple[np.ndarray, np.ndarray]:
        """Return the tokens (T, B), padded with zeros, and their numbers."""
        lengths = np.array([len(example.tokens) for example in batch])
        tokens = np.zeros((lengths.max(), len(batch)), int)
        for b, example in enumerate(batch):
            tokens[: lengths[b], b] = example.tokens
        return tokens, lengths

    def __call__(self, batch: Sequence[Example]) -> np.ndarray:
        """Return the logits."""
        tokens, lengths = self.inputs(batch)
        _, (h, _) = self.lstm(self.embedding(tokens), lengths=lengths)
        return self.out(h[0])

    def vjp(self, batch: Sequence[Example]) -> tuple[np.ndarray, Callable[[np.ndarray], None]]:
        """Return the logits and the pullback."""
        tokens, lengths = self.inputs(batch)
        x, x_back = self.embedding.vjp(tokens)
        (_, (h, _)), h_back = self.lstm.vjp(x, lengths=lengths)
        y, y_back = self.out.vjp(h[0])

        def pullback(dy: np.ndarray) -> None:
            dh = y_back(dy)[None]
            x_back(h_back(None, (dh, None))[0])

        return y, pullback


class ParserModel(rnncore.Module):
    """A parser of tokens; in training, the margin by which a wrong tree is ahead."""

    def __init__(self, hidden: int, seed: Seed = None) -> None:
        super().__init__()
        rng = np.random.default_rng(seed)
        self.embedding = Embedding(len(TOKENS), hidden, seed=rng)
        self.parser = Parser(hidden, hidden, seed=rng)

    def loss(self, batch: Sequence[Example]) -> tuple[float, Callable[[], None]]:
        """Return the loss and the pullback."""
        x, x_back = self.embedding.vjp(np.concatenate([example.tokens for example in batch]))
        lengths = [len(example.tokens) for example in batch]
        correct = Forest.join([example.tree for example in batch])
        value, pullback = self.parser.margin(x, lengths, correct, partial=True)
        return value, lambda: x_back(pullback())

    def parsed(self, examples: Sequence[Example], size: int = 250) -> tuple[float, list[Example]]:
        """Return F1 against the given trees in percent, and the examples with the trees found."""
        found = []
        for batch in batches(examples, size):
            x = self.embedding(np.concatenate([example.tokens for example in batch]))
            forest = self.parser.parse(x, [len(example.tokens) for example in batch]).forest
            for number, example in enumerate(batch):
                tree = forest.select([number])
                found.append((example, example._replace(tree=tree, order=tree.bottom_up(2))))
        forests = (Forest.join([pair[side].tree for pair in found]) for side in (1, 0))
        return 100 * rnncore.bracketing(*forests).f1, [parsed for _, parsed in found]


def batches(
    examples: Sequence[Any],
    size: int,
    rng: np.random.Generator | None = None,
    mixed: bool = False,
) -> Iterator[list[Any]]:
    """Cut into batches of examples about as long as each other, or mixed ones, in any order."""
    lengths = np.array([len(example.tokens) for example in examples], float)
    order = np.argsort(lengths * (rng.uniform(0.8, 1.2, len(examples)) if rng else 1))
    if mixed and rng:
        order = rng.permutation(len(examples))
    starts = np.arange(0, len(order), size)
    for start in rng.permutation(starts) if rng else starts:
        yield [examples[i] for i in order[start : start + size]]


CLASSES = {"tree_lstm": TreeModel, "lstm": SequenceModel, "parser": ParserModel}


class Recipe(NamedTuple):
    """How a model is made and trained.

    short_first: passes over expressions of at most so many tokens, before those over all of them;
    how many, as multiples of `epochs`. mixed: batches of expressions of any length.
    """

    make: Callable[[int, np.random.Generator], Any]
    hidden: int
    examples: int
    epochs: int
    batch: int
    lr: float
    short_first: tuple[tuple[int, float], ...] = ()
    clip: float = 1.0
    weight_decay: float = 0.0
    mixed: bool = False


def lessons(lengths: np.ndarray, recipe: Recipe) -> list[np.ndarray]:
    """Return which examples each pass reads."""
    found = [
        [np.flatnonzero(lengths <= longest)] * round(times * recipe.epochs)
        for longest, times in recipe.short_first
    ]
    short = [rows for part in found for rows in part if len(rows)]
    return short + [np.arange(len(lengths))] * recipe.epochs


def train(name: str, recipe: Recipe, examples: Sequence[Any], seed: int) -> Any:
    """Make a model and train it."""
    model = recipe.make(recipe.hidden, np.random.default_rng(seed))
    rng, examples = np.random.default_rng(seed), examples[: recipe.examples]
    passes = lessons(np.array([len(example.tokens) for example in examples]), recipe)
    total = sum(-(-len(rows) // recipe.batch) for rows in passes)
    schedule = warmup_cosine(recipe.lr, total, total // 20)
    optimiser = rnncore.AdamW(model, schedule, weight_decay=recipe.weight_decay)
    with tqdm(total=total, desc=name, mininterval=5) as bar:
        for epoch, rows in enumerate(passes):
            running, part = 0.0, [examples[i] for i in rows]
            for step, batch in enumerate(batches(part, recipe.batch, rng, recipe.mixed)):
                value, pullback = model.loss(batch)
                model.zero_grad()
                pullback()
                rnncore.clip_grad_norm(model, recipe.clip)
                optimiser.step()
                running += (float(value) - running) / (step + 1)
                bar.update()
            bar.set_postfix_str(f"epoch {epoch + 1}: loss {running:.4f}")
    return model


def read_rows(path: Path) -> list[tuple[str, int]]:
    """Read the expressions of a test file, and their values."""
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    rows = (line.split("\t") for line in lines if line)
    return [(text, int(value)) for value, text in rows]


def load_models(folder: Path) -> dict[str, Any]:
    """Return the models that `--models` has written to a folder, as many as there are."""
    files = {name: folder / f"{name}.model" for name in NAMES}
    return {
        name: rnncore.load(file, classes=[CLASSES[name]])
        for name, file in files.items()
        if file.is_file()
    }


def evaluate(name: str, models: dict[str, Any], tests: Sequence[Example]) -> dict[str, float]:
    """Return what the model that was trained last reaches on the test file, in percent."""
    if name != "parser":
        return {name: models[name].accuracy(tests)}
    f1, parsed = models["parser"].parsed(tests)
    if "tree_lstm" not in models:
        return {"parser_f1": f1}
    return {"parser_f1": f1, "parsed_tree_lstm": models["tree_lstm"].accuracy(parsed)}


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--test", type=Path, required=True, help="test_d20s.tsv")
    parser.add_argument("--train-size", type=int, default=90_000)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--parser-size", type=int, default=3_000, help="of the expressions")
    parser.add_argument("--parser-hidden", type=int, default=32)
    parser.add_argument("--parser-epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=NAMES, nargs="+", default=NAMES)
    parser.add_argument("--models", type=Path, metavar="FOLDER", help="save the models there")
    parser.add_argument("--quick", action="store_true", help="a few seconds, for tests")
    args = parser.parse_args()
    if not args.test.is_file():
        raise SystemExit(f"no such file: {args.test}")
    if args.quick:
        args.train_size, args.hidden, args.epochs, args.parser_epochs = 200, 16, 1, 1
    return args


def main() -> None:
    """Train the models and print what they reach on the test file."""
    args = arguments()
    rows = read_rows(args.test)
    drawn = generate(args.train_size, args.seed, {text for text, _ in rows})
    rows = rows[:50] if args.quick else rows
    tests, examples = prepare(rows), prepare(drawn)
    whole = args.hidden, len(examples), args.epochs, args.batch, args.lr
    small = args.parser_hidden, args.parser_size, args.parser_epochs, 32, 5e-3
    recipes = {
        name: Recipe(made, *(small if name == "parser" else whole))
        for name, made in CLASSES.items()
    }
    models: dict[str, Any] = {}
    found: dict[str, float] = {}
    print("| model | parameters | seed | training, seconds | on the test file |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name in sorted(args.only, key=NAMES.index):
        started = time.perf_counter()
        models[name] = train(name, recipes[name], examples, args.seed)
        seconds = time.perf_counter() - started
        if args.models:
            args.models.mkdir(parents=True, exist_ok=True)
            models[name].save(args.models / f"{name}.model")
        reached = evaluate(name, models, tests)
        found |= reached
        values = ", ".join(f"{what} {value:.2f} %" for what, value in reached.items())
        size = sum(param.size for param in models[name].params.values())
        print(f"| {name} | {size:,} | {args.seed} | {seconds:.0f} | {values} |", flush=True)
    print(f"\n| model | of | {' | '.join(COLUMNS)} |\n| --- | --- |{' ---: |' * len(COLUMNS)}")
    for name in (name for name in models if name != "parser"):
        for part, of in ((examples[: len(tests)], "the training set"), (tests, "the test file")):
            cells = (f"{share:.1f} %" for share in models[name].by_operation(part))
            print(f"| {name} | {of} |", " | ".join(cells), "|", flush=True)
    print("result:", *(f"{name}={value:.2f}" for name, value in found.items()))


if __name__ == "__main__":
    main()
