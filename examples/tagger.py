"""Parts of speech from words and characters, on any CoNLL-U files; no vectors from elsewhere.

    python examples/tagger.py --train en_ewt-ud-train.conllu.gz --dev en_ewt-ud-dev.conllu.gz \
        --test en_ewt-ud-test.conllu.gz

LSTMs read the characters of a whole sentence, one from each end; of a word they give their states
at its last and at its first character (Bohnet et al. 2018). With these go embeddings of the word
and of its prefixes and suffixes. Bidirectional LSTMs read the words, and CRFs have the last say:
one on the universal parts of speech (UPOS), one on the treebank's own tags (XPOS). Morphological
features and dependency relations are predicted as well, for what this teaches the layers below.

Tokens of several words ("1-2") and empty nodes ("1.1") are left out. "_" is no tag: it is neither
learnt nor counted. The development file chooses nothing: what is tested is the last update's.
"""

from __future__ import annotations

import argparse
import gzip
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rnncore
from rnncore import (
    CRF,
    LSTM,
    Chain,
    CRFLoss,
    Dropout,
    Embedding,
    Graph,
    Linear,
    Merge,
    Vocabulary,
)
from rnncore.batches import Batch, bucketed, padded
from rnncore.layers.embedding import add_rows
from rnncore.losses import Objective
from rnncore.module import once
from rnncore.schedules import warmup_cosine
from rnncore.training import Trainer

Rng = np.random.Generator
#: What is predicted, and the column of the file that it stands in.
TAGS = {"upos": 3, "xpos": 4, "feats": 5, "deprel": 7}
CRFS = ("upos", "xpos")
MISSING = "_"
#: What is looked up of a word: itself, and what it begins and ends with, 1 to 4 characters.
WORDS: dict[str, Callable[[str], str]] = {"form": str, "lower": str.lower}
AFFIXES: dict[str, Callable[[str], str]] = {
    **{f"prefix{n}": lambda form, n=n: f"^{form.lower()}$"[:n] for n in range(2, 6)},
    **{f"suffix{n}": lambda form, n=n: f"^{form.lower()}$"[-n:] for n in range(2, 6)},
}
VIEWS = {**WORDS, **AFFIXES}


class Sentence(NamedTuple):
    """Words, and the tags of each in the order of `TAGS`."""

    forms: Sequence[str]
    tags: Sequence[tuple[str, ...]]


def read(path: Path) -> list[Sentence]:
    """Read the sentences of a CoNLL-U file."""
    found, words = [], []
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
        for number, line in enumerate([*file, "\n"], 1):
            columns = line.rstrip("\r\n").split("\t")
            if not line.strip():
                if words:
                    found.append(Sentence(*zip(*words, strict=True)))
                words = []
            elif not line.startswith("#"):
                if len(columns) != 10:
                    raise SystemExit(f"{path}:{number}: a word has 10 columns, got {len(columns)}")
                if columns[0].isdigit():
                    words.append((columns[1], tuple(columns[at] for at in TAGS.values())))
    if not found:
        raise SystemExit(f"{path}: there are no words")
    return found


class Encoded(NamedTuple):
    """A sentence of n words in numbers."""

    views: np.ndarray  # (n, len(VIEWS))
    counts: np.ndarray  # (n,), how often the word was seen in training
    characters: np.ndarray  # (m,), with spaces between the words and around them
    ends: np.ndarray  # (n, 2), where the word's first and last character stand
    tags: np.ndarray  # (n, len(TAGS)), -1 where there is none or a new one


class Lexicon:
    """What the training file holds of words, characters and tags, each with its number."""

    def __init__(self, sentences: Sequence[Sentence]) -> None:
        lines = [sentence.forms for sentence in sentences]
        self.counts = Counter(form.lower() for line in lines for form in line)
        self.views = {
            name: Vocabulary.of((map(view, line) for line in lines), 2 if name in WORDS else 3)
            for name, view in VIEWS.items()
        }
        self.characters = Vocabulary.of(map(" ".join, lines), least=2)
        seen = zip(*(tags for sentence in sentences for tags in sentence.tags), strict=True)
        self.tags = [sorted({*column} - {MISSING}) or [MISSING] for column in seen]
        self._numbers = [{tag: at for at, tag in enumerate(tags)} for tags in self.tags]
        self._words: dict[str, tuple[np.ndarray, int]] = {}

    def encode(self, sentence: Sentence) -> Encoded:
        """Put a sentence in numbers."""
        forms = sentence.forms
        views, counts = zip(*map(self._word, forms), strict=True)
        lengths = np.array([len(form) for form in forms])
        first = 1 + np.cumsum(lengths + 1) - (lengths + 1)
        tags = [
            [numbers.get(tag, -1) for numbers, tag in zip(self._numbers, tags, strict=True)]
            for tags in sentence.tags
        ]
        return Encoded(
            np.array(views),
            np.array(counts),
            self.characters.encode(f" {' '.join(forms)} "),
            np.stack([first, first + lengths - 1], axis=1),
            np.array(tags),
        )

    def _word(self, form: str) -> tuple[np.ndarray, int]:
        if form not in self._words:
            seen = [self.views[name].encode([view(form)])[0] for name, view in VIEWS.items()]
            self._words[form] = np.array(seen), self.counts[form.lower()]
        return self._words[form]


class Steps(rnncore.Module):
    """Steps of sequences by their numbers: x `(T, B, ...)`, at `(N, B)` to y `(N, B, ...)`."""

    keeps_steps = False

    def __call__(self, x: np.ndarray, at: np.ndarray) -> np.ndarray:
        """Return y[n, b] = x[at[n, b], b]."""
        picked: np.ndarray = x[at, np.arange(x.shape[1])]
        return picked

    def vjp(self, x: np.ndarray, at: np.ndarray) -> Any:
        """Return y, and the pullback from dy to those of x and of the numbers, None."""

        def pullback(dy: np.ndarray) -> tuple[np.ndarray, None]:
            dx = np.zeros_like(x)
            rows = (at * x.shape[1] + np.arange(x.shape[1])).reshape(-1)
            width = x.shape[-1]
            add_rows(dx.reshape(-1, width), rows, np.ascontiguousarray(dy).reshape(-1, width))
            return dx, None

        return self(x, at), once(pullback)


def embedding(count: int, width: int, scale: float, rng: Rng) -> Embedding:
    """Return a table whose rows are small at first, as several of them are summed."""
    table = Embedding(count, width, seed=rng)
    table.params["weight"] *= np.float32(scale)
    return table


def build(lexicon: Lexicon, args: argparse.Namespace, rng: Rng) -> Graph:
    """Return the model: views of words, and characters, to scores of all kinds of tags."""

    def dropout() -> Dropout:
        return Dropout(args.dropout, seed=rng)

    def characters() -> LSTM:
        return LSTM(args.character, args.characters, seed=rng)

    def head(tags: list[str], crf: bool) -> Chain:
        scores = Linear(2 * args.hidden, len(tags), seed=rng)
        return Chain(scores, CRF(len(tags), seed=rng)) if crf else Chain(scores)

    widths = {name: args.word if name in WORDS else args.affix for name in VIEWS}
    tables = [
        (f"{name}_table", embedding(len(lexicon.views[name]), width, 0.2, rng), name)
        for name, width in widths.items()
    ]
    width = args.word + args.affix + 2 * args.characters
    words = LSTM(width, args.hidden, 2, dropout=args.dropout, bidirectional=True, seed=rng)
    table = embedding(len(lexicon.characters), args.character, 0.5, rng)
    letters = Chain(table, Dropout(0.1, seed=rng))
    nodes = [
        *tables,
        ("word", Merge("sum"), *(f"{name}_table" for name in WORDS)),
        ("affixes", Merge("sum"), *(f"{name}_table" for name in AFFIXES)),
        ("letters", letters, "characters"),
        ("ahead", characters(), "letters"),
        ("behind", rnncore.Reversed(characters()), "letters"),
        ("end", Steps(), "ahead", "last"),
        ("start", Steps(), "behind", "first"),
        ("seen", Merge("concat"), "word", "affixes", "end", "start"),
        ("read", Chain(dropout(), words, dropout()), "seen"),
        *(
            (name, head(tags, args.crf and name in CRFS), "read")
            for name, tags in zip(TAGS, lexicon.tags, strict=True)
        ),
    ]
    graph = Graph([*VIEWS, "characters", "first", "last"], nodes, [*TAGS])
    rnncore.init.set_forget_bias(graph)
    return graph


class Inputs(NamedTuple):
    """What the model reads of B sentences: N words at most, M characters at most."""

    views: np.ndarray  # (N, B, len(VIEWS))
    characters: np.ndarray  # (M, B)
    ends: np.ndarray  # (N, B, 2)
    character_lengths: np.ndarray  # (B,)


def batch_of(sentences: Sequence[Encoded], rng: Rng | None = None, forget: float = 0.0) -> Batch:
    """Put sentences side by side.

    With `rng`, a word seen n times in training is forgotten with probability forget / (forget + n),
    so that what stands for unknown words is learnt.
    """
    views, lengths = padded([sentence.views for sentence in sentences])
    if rng is not None and forget:
        counts, _ = padded([sentence.counts for sentence in sentences])
        forgotten = rng.random(counts.shape) < forget / (forget + counts)
        views[forgotten, : len(WORDS)] = Vocabulary.UNK
    characters, character_lengths = padded([sentence.characters for sentence in sentences])
    ends, _ = padded([sentence.ends for sentence in sentences])
    tags, _ = padded([sentence.tags for sentence in sentences], -1)
    return Batch(Inputs(views, characters, ends, character_lengths), tags, lengths)


def reads(batch: Batch) -> tuple[tuple[np.ndarray, ...], dict[str, np.ndarray]]:
    """Return what a graph is called with, and the lengths of it."""
    views, characters, ends, character_lengths = batch.inputs
    inputs = (*np.moveaxis(views, 2, 0), characters, *np.moveaxis(ends, 2, 0))
    return inputs, {"form": batch.lengths, "characters": character_lengths}


class Learner(rnncore.Module):
    """The model as a trainer calls it."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph

    def vjp(self, inputs: Inputs, lengths: np.ndarray) -> Any:
        """Return the scores, and the pullback from their gradients."""
        given, of_inputs = reads(Batch(inputs, None, lengths))
        (scores, _), back = self.graph.vjp(*given, lengths=of_inputs)
        return scores, once(lambda dscores: back(dscores)[0])


class Tagger:
    """Words to tags by a model."""

    def __init__(self, model: Graph, lexicon: Lexicon) -> None:
        self.model, self.lexicon = model, lexicon

    def tag(self, sentences: Sequence[Sentence]) -> Iterator[tuple[Sentence, list[list[str]]]]:
        """Yield sentences, and of each its words' tags, kind by kind."""
        heads = [self.model.parts[name][-1] for name in TAGS]
        for rows in bucketed([len(sentence.forms) for sentence in sentences], 64):
            batch = batch_of([self.lexicon.encode(sentences[i]) for i in rows])
            inputs, lengths = reads(batch)
            scores, _ = self.model(*inputs, lengths=lengths)
            best = [
                head.decode(x, batch.lengths) if isinstance(head, CRF) else x.argmax(axis=-1)
                for head, x in zip(heads, scores, strict=True)
            ]
            for b, i in enumerate(rows):
                known = zip(self.lexicon.tags, best, strict=True)
                count = len(sentences[i].forms)
                yield sentences[i], [[tags[n] for n in found[:count, b]] for tags, found in known]

    def accuracy(self, sentences: Sequence[Sentence]) -> list[float]:
        """Return how many of the given tags of each kind are found, in percent; NaN of none."""
        right, given = np.zeros((2, len(TAGS)))
        for sentence, found in self.tag(sentences):
            for kind, wanted in enumerate(zip(*sentence.tags, strict=True)):
                counts = [tag != MISSING for tag in wanted]
                same = map(str.__eq__, wanted, found[kind])
                given[kind] += sum(counts)
                right[kind] += sum(map(int.__and__, counts, same))
        return [100 * r / n if n else float("nan") for r, n in zip(right, given, strict=True)]


SOFTMAX = rnncore.SoftmaxCrossEntropy()


class Heads(Objective):
    """The losses of all kinds of tags, per word: UPOS's whole, of the others a share."""

    takes = ("lengths",)

    def __init__(self, graph: Graph, share: float) -> None:
        super().__init__()
        self.shares = [1.0, *[share] * (len(TAGS) - 1)]
        last = [graph.parts[name][-1] for name in TAGS]
        self.losses = [CRFLoss(p, "token_mean") if isinstance(p, CRF) else SOFTMAX for p in last]

    def vjp(self, scores: Any, tags: np.ndarray, lengths: np.ndarray) -> Any:  # type: ignore[override]
        """Return the loss and the pullback to the scores' gradients."""
        losses, pullbacks = [], []
        for x, own, loss in zip(scores, np.moveaxis(tags, 2, 0), self.losses, strict=True):
            given = (np.maximum(own, 0), own >= 0) if loss is SOFTMAX else (own, lengths)
            value, back = loss.vjp(x, *given)
            losses.append(value)
            pullbacks.append(back)

        def pullback(dloss: float = 1.0) -> tuple[np.ndarray, ...]:
            pairs = zip(pullbacks, self.shares, strict=True)
            return tuple(back(dloss * share) for back, share in pairs)

        return float(np.dot(self.shares, losses)), once(pullback)

    def counted(self, tags: np.ndarray, lengths: np.ndarray) -> float:  # type: ignore[override]
        """Return how many words there are."""
        return float(np.sum(lengths))


def train(
    lexicon: Lexicon, parts: dict[str, list[Sentence]], seed: int, args: argparse.Namespace
) -> tuple[Tagger, float]:
    """Return a tagger, and how many seconds it took to train it."""
    model = build(lexicon, args, np.random.default_rng(seed))
    tagger, learner = Tagger(model, lexicon), Learner(model)
    encoded = [lexicon.encode(sentence) for sentence in parts["train"]]
    sizes = [len(sentence.views) for sentence in encoded]

    def epoch(rng: Rng) -> Iterator[Batch]:
        for rows in bucketed(sizes, args.batch, rng):
            yield batch_of([encoded[i] for i in rows], rng, args.forget)

    updates = -(-len(encoded) // args.batch)
    total = args.epochs * updates
    rate = warmup_cosine(args.lr, total, min(100, total - 1))
    trainer = Trainer(
        learner,
        Heads(model, args.share),
        rnncore.Adam(learner, lr=rate, betas=(0.9, 0.99)),
        epoch,
        validate=lambda: 100 - tagger.accuracy(parts["dev"])[0],
        clip_norm=5.0,
        seed=seed,
    )
    started = time.perf_counter()
    trainer.fit(total, validate_every=updates)
    return tagger, time.perf_counter() - started


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    for part in ("train", "dev", "test"):
        parser.add_argument(f"--{part}", type=Path, required=True, metavar="FILE", help="CoNLL-U")
    parser.add_argument("--seeds", type=int, default=3, help="how many models are trained")
    parser.add_argument("--seed", type=int, default=0, help="that of the first")
    parser.add_argument("--no-crf", dest="crf", action="store_false", help="softmax instead")
    parser.add_argument("--word", type=int, default=100, help="width of the words' embeddings")
    parser.add_argument("--affix", type=int, default=64, help="width of the affixes' embeddings")
    parser.add_argument("--character", type=int, default=32, help="that of the characters'")
    parser.add_argument("--characters", type=int, default=96, help="units that read characters")
    parser.add_argument("--hidden", type=int, default=192, help="units that read words, each way")
    parser.add_argument("--dropout", type=float, default=0.33)
    parser.add_argument("--forget", type=float, default=0.25, help="words, the rarer the more")
    parser.add_argument(
        "--share", type=float, default=0.5, help="of the loss of tags other than UPOS"
    )
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch", type=int, default=32, help="sentences (default: 32)")
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--quick", action="store_true", help="a few seconds, for tests")
    args = parser.parse_args()
    for part in ("train", "dev", "test"):
        if not getattr(args, part).is_file():
            parser.error(f"no such file: {getattr(args, part)}")
    if args.quick:
        args.word, args.affix, args.character, args.characters, args.hidden = 16, 8, 8, 8, 16
        args.epochs, args.batch, args.seeds = 20, 2, 1
    return args


def main() -> None:
    """Train and test, seed by seed."""
    args = options()
    parts = {part: read(getattr(args, part)) for part in ("train", "dev", "test")}
    if args.quick:
        parts = {part: sentences[:20] for part, sentences in parts.items()}
    words = {part: sum(len(s.forms) for s in sentences) for part, sentences in parts.items()}
    print("words:", *(f"{part} {count:,}" for part, count in words.items()))
    lexicon, results = Lexicon(parts["train"]), []
    print("| seed | dev UPOS | dev XPOS | test UPOS | test XPOS | seconds | tokens per second |")
    print("|" + " ---: |" * 7)
    for seed in range(args.seed, args.seed + args.seeds):
        tagger, seconds = train(lexicon, parts, seed, args)
        dev = tagger.accuracy(parts["dev"])[:2]
        started = time.perf_counter()
        test = tagger.accuracy(parts["test"])[:2]
        speed = words["test"] / (time.perf_counter() - started)
        results.append((*dev, *test, seconds, speed))
        cells = [f"{share:.2f} %" for share in (*dev, *test)]
        print(f"| {seed} | {' | '.join(cells)} | {seconds:.0f} | {speed:,.0f} |", flush=True)
    _, _, upos, xpos, seconds, speed = np.mean(results, axis=0)
    print(
        f"result: upos={upos:.2f} xpos={xpos:.2f} seconds={seconds:.0f} "
        f"tokens_per_second={speed:.0f}"
    )


if __name__ == "__main__":
    main()
