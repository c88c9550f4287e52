"""Words found in letters without spaces, by an unfolding recursive autoencoder.

Lines of a text lose their spaces. The autoencoder (Socher et al. 2011) merges neighbouring letters,
then what has been merged, always where all letters below can be restored best; nobody tells it
where words begin. The letters are fixed random vectors, so it can go by nothing but what often
stands together. What is counted are the words of two letters and more that are a node of the tree
found. Beside it: the same before training; random merges, the smallest first, which gives trees as
flat as its own; trees that branch to the right.

    python examples/autoencoder.py --text ../shared/data/tinyshakespeare/input.txt --plot trees.png

Without --text a small grammar writes the lines. With --questions it is semi-supervised: a softmax
at all nodes learns which lines ended with "?" and which with "."; those that ended otherwise
have no label.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rnncore
from rnncore import Forest, RecursiveAutoencoder
from rnncore.schedules import warmup_cosine
from rnncore.training.console import progress_bar
from rnncore.training.plots import require_matplotlib
from rnncore.trees.merges import Nodes, greedy

ALPHABET = "abcdefghijklmnopqrstuvwxyz'"
SHORTEST, LONGEST = 6, 40
STATEMENT, QUESTION, UNKNOWN = 0, 1, -1


class Line(NamedTuple):
    """Letters without spaces, where the words of two and more of them stand, and its label."""

    letters: str
    words: list[tuple[int, int]]
    label: int


class Trees(NamedTuple):
    """Trees on some lines, with the error of each node."""

    forest: Forest
    errors: np.ndarray


def read(text: str) -> list[Line]:
    """Take a text apart into lines, leaving out the names of speakers."""
    lines = []
    for row in text.lower().splitlines():
        words = re.findall(r"[a-z']+", row)
        ends = np.cumsum([0, *map(len, words)]).tolist()
        if row.endswith(":") or not SHORTEST <= ends[-1] <= LONGEST:
            continue
        spans = [(a, b) for a, b in pairwise(ends) if b - a > 1]
        label = {"?": QUESTION, ".": STATEMENT}.get(row.strip()[-1], UNKNOWN)
        lines.append(Line("".join(words), spans, label))
    return lines


def grammar(rng: np.random.Generator, count: int) -> str:
    """Write lines by a small grammar."""
    nouns = ["king", "daughter", "crown", "sword", "garden", "night", "letter", "friend"]
    verbs, some = ["brings", "wants", "finds", "loves", "leaves"], ["the", "my", "thy", "a"]
    rows = []
    for _ in range(count):
        one, two = (f"{rng.choice(some)} {rng.choice(nouns)}" for _ in range(2))
        if rng.random() < 0.5:
            rows.append(f"{rng.choice(['who', 'what'])} {rng.choice(verbs)} {one}?")
        else:
            rows.append(f"{one} {rng.choice(verbs)} {two}{rng.choice(['.', ','])}")
    return "\n".join(rows)


class Letters:
    """A fixed random vector of length one for each letter."""

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        table = rng.standard_normal((len(ALPHABET), size)).astype(np.float32)
        self.table = table / np.linalg.norm(table, axis=1, keepdims=True)

    def of(self, lines: list[Line]) -> tuple[np.ndarray, np.ndarray]:
        """The vectors of all letters, line after line, and the lines' lengths."""
        numbers = [ALPHABET.index(letter) for line in lines for letter in line.letters]
        return self.table[numbers], np.array([len(line.letters) for line in lines])


def find(model: RecursiveAutoencoder, letters: Letters, lines: list[Line]) -> Trees:
    """Return the trees that the model finds."""
    x, lengths = letters.of(lines)
    _, forest = model.encode(x, lengths)
    return Trees(forest, model.errors(x, forest))


def merged(lines: list[Line], cost: Callable[[Nodes, np.ndarray], np.ndarray]) -> Forest:
    """Merge the neighbours of the smallest cost, whatever the letters are."""
    lengths = np.array([len(line.letters) for line in lines])
    nothing = np.zeros((lengths.sum(), 0))
    return greedy(
        nothing, lengths, lambda nodes, pairs: (nothing[: len(pairs)], cost(nodes, pairs))
    )


def words_found(forest: Forest, lines: list[Line]) -> float:
    """The share of words that are a node, in percent."""
    found = total = 0
    for number, line in enumerate(lines):
        spans = {(int(a), int(b)) for a, b in forest.spans[forest.tree(number)]}
        found += sum(word in spans for word in line.words)
        total += len(line.words)
    return 100 * found / total


def frequent(forest: Forest, lines: list[Line], count: int = 12) -> list[str]:
    """The letters that most often are a node of their own, three of them or more."""
    nodes: Counter[str] = Counter()
    for number, line in enumerate(lines):
        for first, last in forest.spans[forest.tree(number)]:
            if last - first > 2:
                nodes[line.letters[first:last]] += 1
    return [letters for letters, _ in nodes.most_common(count)]


def error_per_letter(trees: Trees) -> float:
    """How far a restored letter is from the true one, squared; 1 is what knowing nothing gives."""
    below = np.diff(trees.forest.spans)[trees.forest.child_count > 0]
    return float(trees.errors.sum() / below.sum())


def draw(lines: list[Line], args: argparse.Namespace, rng: np.random.Generator) -> list[Line]:
    """Draw a batch; with questions a third of each label."""
    if not args.questions:
        return [lines[i] for i in rng.integers(0, len(lines), args.batch)]
    labels = np.array([line.label for line in lines])
    rows = [np.flatnonzero(labels == label) for label in (STATEMENT, QUESTION, UNKNOWN)]
    return [lines[i] for own in rows if own.size for i in rng.choice(own, -(-args.batch // 3))]


def train(
    model: RecursiveAutoencoder, letters: Letters, lines: list[Line], args: argparse.Namespace
) -> None:
    """Find trees, restore the letters below their nodes, and mend the weights."""
    rng = np.random.default_rng(args.seed + 1)
    optimiser = rnncore.Adam(model, warmup_cosine(args.lr, args.updates))
    with progress_bar(args.updates, 0, show=True) as bar:
        for _ in range(args.updates):
            batch = draw(lines, args, rng)
            x, lengths = letters.of(batch)
            targets = [line.label for line in batch] if args.questions else None
            model.zero_grad()
            loss, pullback = model.vjp(x, lengths, targets=targets)
            pullback()
            rnncore.clip_grad_norm(model, 1.0)
            optimiser.step()
            bar.set_postfix_str(f"loss {loss:.2f}", refresh=False)
            bar.update()


def question_accuracy(model: RecursiveAutoencoder, letters: Letters, lines: list[Line]) -> float:
    """The mean of the shares of questions and of statements that are known, in percent."""
    states, forest = model.encode(*letters.of(lines))
    said = model.classifier(states[forest.roots]).argmax(axis=1)
    labels = np.array([line.label for line in lines])
    return 100 * float(np.mean([np.mean(said[labels == k] == k) for k in (STATEMENT, QUESTION)]))


def plot(trees: Trees, lines: list[Line], path: str) -> None:
    """Draw the first three trees, the words that they found written at their nodes."""
    shown = trees.forest.select(range(min(3, len(lines))))
    labels = [""] * shown.nodes
    for number, line in enumerate(lines[: len(shown)]):
        for row in range(shown.nodes)[shown.tree(number)]:
            first, last = shown.spans[row]
            if last - first == 1 or (first, last) in line.words:
                labels[row] = line.letters[first:last]
    below = np.diff(shown.spans)[:, 0]
    values = np.where(below > 1, trees.errors[: shown.nodes] / below, np.nan)
    Forest(shown.parent, shown.begin, labels).plot(
        path, values, value_name="error per restored letter", leaves_per_line=LONGEST
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--text", type=Path, help="a text file; without it a grammar writes lines")
    parser.add_argument("--questions", action="store_true", help="semi-supervised: ? against .")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--updates", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--lr", type=float, default=5e-3)
    parser.add_argument("--alpha", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", metavar="FILE", help="draw trees (needs matplotlib)")
    parser.add_argument("--quick", action="store_true", help="a few updates, to see that it runs")
    args = parser.parse_args()
    if args.plot:
        require_matplotlib()
    if args.text and not args.text.is_file():
        raise SystemExit(f"no such file: {args.text}")
    rng = np.random.default_rng(args.seed)
    lines = read(args.text.read_text(encoding="utf-8-sig") if args.text else grammar(rng, 5000))
    lines = [lines[i] for i in rng.permutation(len(lines))]
    tests, lines = lines[:1000], lines[1000:]
    if args.quick:
        tests, args.updates, args.batch, args.size = tests[:50], 5, 6, 16

    letters = Letters(args.size, rng)
    model = RecursiveAutoencoder(
        args.size,
        2 if args.questions else 0,
        normalise=False,
        unfolding=True,
        alpha=args.alpha,
        seed=args.seed,
    )

    def smallest_first(nodes: Nodes, pairs: np.ndarray) -> np.ndarray:
        return nodes.leaves[pairs].sum(axis=1) + rng.random(len(pairs))

    before = find(model, letters, tests)
    train(model, letters, lines, args)
    after = find(model, letters, tests)
    found = {
        "error_before": error_per_letter(before),
        "error_after": error_per_letter(after),
        "words_right_branching": words_found(merged(tests, lambda _, pairs: -pairs[:, 0]), tests),
        "words_random": words_found(merged(tests, smallest_first), tests),
        "words_before": words_found(before.forest, tests),
        "words_after": words_found(after.forest, tests),
    }
    if args.questions:
        found["questions"] = question_accuracy(model, letters, tests)
    if args.plot:
        plot(after, tests, args.plot)
    print("most frequent nodes:", *frequent(after.forest, tests))
    print("result:", *(f"{name}={value:.3g}" for name, value in found.items()))


if __name__ == "__main__":
    main()
