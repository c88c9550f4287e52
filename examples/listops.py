"""ListOps (Nangia and Bowman 2018): a Tree-LSTM on the given trees, a sequence LSTM beside it.

    python examples/listops.py --test ../shared/data/listops/test_d20s.tsv

Nested operations on digits, "( ( ( [MAX 2 ) 9 ) ] )", are to be computed: MIN, MAX, MED and SM, the
sum modulo 10. The test file is the published one; the training set is generated anew by the rules
that it agrees with, and holds no expression of the test file.
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
from rnncore import Embedding, Linear, SoftmaxCrossEntropy, TreeLSTM, brackets
from rnncore.forest import Order
from rnncore.schedules import warmup_cosine
from tqdm import tqdm

OPERATIONS: dict[str, Callable[[list[int]], int]] = {
    "[MIN": min,
    "[MAX": max,
    "[MED": lambda values: int(statistics.median(values)),
    "[SM": lambda values: sum(values) % 10,
}
TOKENS = [*map(str, range(10)), *OPERATIONS, "]"]
NUMBER = {token: at for at, token in enumerate(TOKENS)}
MOST_DEPTH, MOST_ARGUMENTS, SHARE = 20, 5, 0.25


class Example(NamedTuple):
    """An expression: the tokens at its leaves in reading order, its tree, and its value."""

    tokens: np.ndarray
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
        examples.append(Example(tokens, forest.bottom_up(2), value))
    return examples


class TreeModel(rnncore.Module):
    """Tokens at the leaves, a binary Tree-LSTM, the root's state to one of ten digits."""

    def __init__(self, hidden: int, rng: np.random.Generator) -> None:
        super().__init__()
        self.embedding = Embedding(len(TOKENS), hidden, seed=rng)
        self.tree = TreeLSTM(hidden, hidden, inputs="leaves", seed=rng)
        self.out = Linear(hidden, 10, seed=rng)
        self.tree.params["bias_ih"][hidden : 2 * hidden] = 1  # remember at first

    def vjp(self, batch: Sequence[Example]) -> tuple[np.ndarray, Callable[[np.ndarray], None]]:
        """Return the logits (B, 10) and the pullback."""
        order = Order.join([example.order for example in batch])
        roots = order.begin[1:] - 1
        x, x_back = self.embedding.vjp(np.concatenate([example.tokens for example in batch]))
        (h, _), h_back = self.tree.vjp(x, order)
        y, y_back = self.out.vjp(h[roots])

        def pullback(dy: np.ndarray) -> None:
            dh = np.zeros_like(h)
            dh[roots] = y_back(dy)
            x_back(h_back(dh))

        return y, pullback


class SequenceModel(rnncore.Module):
    """The same tokens read from left to right by an LSTM."""

    def __init__(self, hidden: int, rng: np.random.Generator) -> None:
        super().__init__()
        self.embedding = Embedding(len(TOKENS), hidden, seed=rng)
        self.lstm = rnncore.LSTM(hidden, hidden, seed=rng)
        self.out = Linear(hidden, 10, seed=rng)
        rnncore.init.set_forget_bias(self.lstm)

    def vjp(self, batch: Sequence[Example]) -> tuple[np.ndarray, Callable[[np.ndarray], None]]:
        """Return the logits (B, 10) and the pullback."""
        lengths = np.array([len(example.tokens) for example in batch])
        tokens = np.zeros((lengths.max(), len(batch)), int)
        for b, example in enumerate(batch):
            tokens[: lengths[b], b] = example.tokens
        x, x_back = self.embedding.vjp(tokens)
        (_, (h, _)), h_back = self.lstm.vjp(x, lengths=lengths)
        y, y_back = self.out.vjp(h[0])

        def pullback(dy: np.ndarray) -> None:
            dh = y_back(dy)[None]
            x_back(h_back(None, (dh, None))[0])

        return y, pullback


def batches(
    examples: Sequence[Example], size: int, rng: np.random.Generator | None = None
) -> Iterator[list[Example]]:
    """Cut into batches of examples about as long as each other, in any order."""
    lengths = np.array([len(example.tokens) for example in examples], float)
    order = np.argsort(lengths * (rng.uniform(0.8, 1.2, len(examples)) if rng else 1))
    starts = np.arange(0, len(order), size)
    for start in rng.permutation(starts) if rng else starts:
        yield [examples[i] for i in order[start : start + size]]


def accuracy(model: Any, examples: Sequence[Example], size: int = 250) -> float:
    """The share of expressions whose value is found, in percent."""
    right = sum(
        int((model.vjp(batch)[0].argmax(axis=1) == [example.value for example in batch]).sum())
        for batch in batches(examples, size)
    )
    return 100 * right / len(examples)


def train(model: Any, examples: Sequence[Example], args: argparse.Namespace) -> float:
    """Train for so many epochs; return the seconds it took."""
    rng, loss, started = (
        np.random.default_rng(args.seed),
        SoftmaxCrossEntropy(),
        time.perf_counter(),
    )
    total = args.epochs * -(-len(examples) // args.batch)
    optimiser = rnncore.Adam(model, lr=warmup_cosine(args.lr, total, total // 20))
    with tqdm(total=total, desc=type(model).__name__, mininterval=5) as bar:
        for epoch in range(args.epochs):
            running = 0.0
            for step, batch in enumerate(batches(examples, args.batch, rng)):
                logits, pullback = model.vjp(batch)
                value, back = loss.vjp(logits, np.array([example.value for example in batch]))
                model.zero_grad()
                pullback(back())
                rnncore.clip_grad_norm(model, 1.0)
                optimiser.step()
                running += (float(value) - running) / (step + 1)
                bar.update()
            bar.set_postfix_str(f"epoch {epoch + 1}: loss {running:.4f}")
    return time.perf_counter() - started


def main() -> None:
    """Train both models and print what they reach on the test file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--test", type=Path, required=True, help="test_d20s.tsv")
    parser.add_argument("--train-size", type=int, default=90_000)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--only", choices=["tree_lstm", "lstm"], nargs="+", default=["tree_lstm", "lstm"]
    )
    parser.add_argument("--quick", action="store_true", help="a few seconds, for tests")
    args = parser.parse_args()
    if not args.test.is_file():
        raise SystemExit(f"no such file: {args.test}")
    rows = [line.split("\t") for line in args.test.read_text().splitlines() if line]
    tests = [(text, int(value)) for value, text in rows]
    if args.quick:
        tests, args.train_size, args.hidden, args.epochs = tests[:50], 200, 16, 1
    known = {text for _, text in rows}
    examples, held_out = prepare(generate(args.train_size, args.seed, known)), prepare(tests)
    makers: dict[str, Callable[[int, np.random.Generator], Any]] = {
        "tree_lstm": TreeModel,
        "lstm": SequenceModel,
    }
    found = {}
    print("| model | parameters | test accuracy | seconds |")
    print("| --- | ---: | ---: | ---: |")
    for name in args.only:
        model = makers[name](args.hidden, np.random.default_rng(args.seed))
        seconds = train(model, examples, args)
        found[name] = accuracy(model, held_out)
        size = sum(p.size for p in model.params.values())
        print(f"| {name} | {size:,} | {found[name]:.2f} % | {seconds:.0f} |", flush=True)
    print("result:", *(f"{name}={value:.2f}" for name, value in found.items()))


if __name__ == "__main__":
    main()
