"""Parts of speech from words and characters, on any CoNLL-U files; no vectors from elsewhere.

    python examples/tagger.py --train en_ewt-ud-train.conllu.gz --dev en_ewt-ud-dev.conllu.gz \
        --test en_ewt-ud-test.conllu.gz

LSTMs read the characters of a whole sentence, one from each end; of a word they give their states
at its last and at its first character (Bohnet et al. 2018). With these go embeddings of the word
and of its prefixes and suffixes. Bidirectional LSTMs read the words, and CRFs have the last say:
one on the universal parts of speech (UPOS), one on the treebank's own tags (XPOS). Morphological
features are predicted as well, for what this teaches the layers below.

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
from rnncore import Chain, Dropout, Embedding, Graph, Linear, Merge, Vocabulary
from rnncore.batches import Batch, bucketed, padded
from rnncore.layers.embedding import add_rows
from rnncore.losses import Objective
from rnncore.module import once
from rnncore.schedules import warmup_cosine
from rnncore.training import Trainer

Rng = np.random.Generator
#: What is predicted, and the column of the file that it stands in.
TAGS = {"upos": 3, "xpos": 4, "feats": 5}
MISSING = "_"
#: What is looked up of a word: itself, and its beginnings and ends.
WORDS: dict[str, Callable[[str], str]] = {"form": str, "lower": str.lower}
AFFIXES: dict[str, Callable[[str], str]] = {
    **{f"prefix{n}": lambda form, n=n: f"^{form.lower()}$"[:n] for n in range(2, 6)},
    **{f"suffix{n}": lambda form, n=n: f"^{form.lower()}$"[-n:] for n in range(2, 6)},
}
VIEWS = {**WORDS, **AFFIXES}
#: How sentences may be written: as they are, carelessly, loudly, as a title.
CASES: tuple[Callable[[str], str], ...] = (
    str,
    str.lower,
    str.upper,
    lambda form: form[:1].upper() + form[1:],
)


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
    tags: np.ndarray  # (n, len(TAGS)), -1 where there is none, or one not seen in training


class Lexicon:
    """What the training file holds of words, characters and tags, each with its number."""

    def __init__(self, sentences: Sequence[Sentence]) -> None:
        lines = [sentence.forms for sentence in sentences]
        self.counts = Counter(form.lower() for line in lines for form in line)
        self.views = {
            name: Vocabulary.of((map(view, line) for line in lines), least=2)
            for name, view in VIEWS.items()
        }
        self.characters = Vocabulary.of(map(" ".join, lines), least=2)
        seen = zip(*(tags for sentence in sentences for tags in sentence.tags), strict=True)
        self.tags = [sorted({*column} - {MISSING}) for column in seen]
        self._numbers = [{tag: at for at, tag in enumerate(tags)} for tags in self.tags]
        self._words: dict[str, tuple[np.ndarray, int]] = {}

    def encode(self, sentence: Sentence, case: Callable[[str], str] = str) -> Encoded:
        """Put a sentence in numbers, its words written as `case` writes them."""
        forms = [case(form) for form in sentence.forms]
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
    """Return the model: views of words and characters to scores of all kinds of tags."""

    def dropout() -> Dropout:
        return Dropout(args.dropout, seed=rng)

    def characters() -> rnncore.LSTM:
        return rnncore.LSTM(args.character, args.characters, seed=rng)

    def head(tags: list[str], crf: bool) -> Chain:
        scores = Linear(2 * args.hidden, max(1, len(tags)), seed=rng)
        return Chain(scores, rnncore.CRF(max(1, len(tags)), seed=rng)) if crf else Chain(scores)

    widths = {name: args.word if name in WORDS else args.affix for name in VIEWS}
    tables = [
        (f"{name}_table", embedding(len(lexicon.views[name]), width, 0.2, rng), name)
        for name, width in widths.items()
    ]
    width = args.word + args.affix + 2 * args.characters
    between = args.dropout if args.layers > 1 else 0.0
    lstm = rnncore.LSTM(
        width, args.hidden, args.layers, dropout=between, bidirectional=True, seed=rng
    )
    words = Chain(dropout(), lstm, dropout())
    table = embedding(len(lexicon.characters), args.character, 0.5, rng)
    letters = Chain(table, Dropout(0.1, seed=rng))
    graph = Graph(
        [*VIEWS, "characters", "first", "last"],
        [
            *tables,
            ("word", Merge("sum"), *(f"{name}_table" for name in WORDS)),
            ("affixes", Merge("sum"), *(f"{name}_table" for name in AFFIXES)),
            ("letters", letters, "characters"),
            ("ahead", characters(), "letters"),
            ("behind", rnncore.Reversed(characters()), "letters"),
            ("end", Steps(), "ahead", "last"),
            ("start", Steps(), "behind", "first"),
            ("seen", Merge("concat"), "word", "affixes", "end", "start"),
            ("read", words, "seen"),
            *(
                (name, head(tags, args.crf and name != "feats"), "read")
                for name, tags in zip(TAGS, lexicon.tags, strict=True)
            ),
        ],
        list(TAGS),
    )
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


class Tagger(rnncore.Module):
    """The model as a trainer calls it, and words to tags."""

    def __init__(self, graph: Graph, lexicon: Lexicon) -> None:
        super().__init__()
        self.graph, self.lexicon = graph, lexicon

    def __call__(self, inputs: Inputs, lengths: np.ndarray) -> Any:
        """Return the scores of each kind of tags, `(N, B, K)`."""
        return self.graph(*self._split(inputs), lengths=self._lengths(inputs, lengths))[0]

    def vjp(self, inputs: Inputs, lengths: np.ndarray) -> Any:
        """Return the scores, and the pullback from their gradients."""
        of_words = self._lengths(inputs, lengths)
        (scores, _), back = self.graph.vjp(*self._split(inputs), lengths=of_words)
        return scores, once(lambda dscores: back(dscores)[0])

    def tag(self, sentences: Sequence[Sentence]) -> Iterator[tuple[Sentence, list[list[str]]]]:
        """Yield sentences, and of each its words' tags, kind by kind."""
        for rows in bucketed([len(sentence.forms) for sentence in sentences], 64):
            batch = batch_of([self.lexicon.encode(sentences[i]) for i in rows])
            scores = self(batch.inputs, batch.lengths)
            heads = [self.graph.parts[name] for name in TAGS]
            best = [
                head[-1].decode(of_head, batch.lengths)
                if isinstance(head[-1], rnncore.CRF)
                else of_head.argmax(axis=-1)
                for head, of_head in zip(heads, scores, strict=True)
            ]
            for b, i in enumerate(rows):
                steps = range(len(sentences[i].forms))
                yield (
                    sentences[i],
                    [
                        [tags[numbers[t, b]] if tags else MISSING for t in steps]
                        for tags, numbers in zip(self.lexicon.tags, best, strict=True)
                    ],
                )

    def accuracy(self, sentences: Sequence[Sentence]) -> list[float]:
        """Return how many of the given tags of each kind are predicted, in percent."""
        right, given = np.zeros((2, len(TAGS)))
        for sentence, predicted in self.tag(sentences):
            for at, tags in enumerate(zip(*sentence.tags, strict=True)):
                pairs = [
                    pair for pair in zip(tags, predicted[at], strict=True) if pair[0] != MISSING
                ]
                given[at] += len(pairs)
                right[at] += sum(wanted == found for wanted, found in pairs)
        return [100 * r / n if n else float("nan") for r, n in zip(right, given, strict=True)]

    @staticmethod
    def _split(inputs: Inputs) -> Iterator[np.ndarray]:
        return (
            *np.moveaxis(inputs.views, 2, 0),
            inputs.characters,
            *np.moveaxis(inputs.ends, 2, 0),
        )

    @staticmethod
    def _lengths(inputs: Inputs, lengths: np.ndarray) -> dict[str, np.ndarray]:
        return {"form": lengths, "characters": inputs.character_lengths}


class Heads(Objective):
    """The losses of all kinds of tags, per word: UPOS's whole, of the others a share."""

    takes = ("lengths",)

    def __init__(self, graph: Graph, share: float) -> None:
        super().__init__()
        self.weights = [1.0, *[share] * (len(TAGS) - 1)]
        last = [graph.parts[name][-1] for name in TAGS]
        self.losses = [
            rnncore.CRFLoss(part, "token_mean") if isinstance(part, rnncore.CRF) else None
            for part in last
        ]

    def vjp(self, scores: Any, tags: np.ndarray, lengths: np.ndarray) -> Any:  # type: ignore[override]
        """Return the loss and the pullback to the scores' gradients."""
        inside = rnncore.length_mask(lengths, len(tags))
        total, backs = 0.0, []
        for at, (x, crf_loss) in enumerate(zip(scores, self.losses, strict=True)):
            own = tags[..., at]
            if crf_loss is not None:
                loss, back = crf_loss.vjp(x, own, lengths)
            else:
                loss, back = SOFTMAX.vjp(x, np.maximum(own, 0), inside & (own >= 0))
            total += self.weights[at] * loss
            backs.append(back)
        return total, once(
            lambda dloss=1.0: tuple(b(w * dloss) for b, w in zip(backs, self.weights, strict=True))
        )

    def counted(self, tags: np.ndarray, lengths: np.ndarray) -> float:  # type: ignore[override]
        """Return how many words there are."""
        return float(np.sum(lengths))


SOFTMAX = rnncore.SoftmaxCrossEntropy()


def train(
    lexicon: Lexicon, parts: dict[str, list[Sentence]], seed: int, args: argparse.Namespace
) -> tuple[Tagger, float]:
    """Return a tagger, and how many seconds it took to train it."""
    tagger = Tagger(build(lexicon, args, np.random.default_rng(seed)), lexicon)
    encoded = [lexicon.encode(sentence) for sentence in parts["train"]]
    sizes = [len(sentence.views) for sentence in encoded]

    def epoch(rng: Rng) -> Iterator[Batch]:
        for rows in bucketed(sizes, args.batch, rng):
            chosen = [encoded[i] for i in rows]
            for at in np.flatnonzero(rng.random(len(rows)) < args.recase):
                chosen[at] = lexicon.encode(
                    parts["train"][rows[at]], CASES[rng.integers(1, len(CASES))]
                )
            yield batch_of(chosen, rng, args.forget)

    updates = -(-len(encoded) // args.batch)
    total = args.epochs * updates
    rate = warmup_cosine(args.lr, total, min(100, total - 1))
    trainer = Trainer(
        tagger,
        Heads(tagger.graph, args.share),
        rnncore.Adam(tagger, lr=rate, betas=(0.9, 0.99)),
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
    parser.add_argument("--seeds", type=int, default=3, help="how many (default: 3)")
    parser.add_argument("--seed", type=int, default=0, help="the first of them")
    parser.add_argument("--no-crf", dest="crf", action="store_false", help="softmax instead")
    parser.add_argument("--word", type=int, default=100, help="width of the words' embeddings")
    parser.add_argument("--affix", type=int, default=64, help="width of the affixes' embeddings")
    parser.add_argument("--character", type=int, default=32, help="that of the characters'")
    parser.add_argument("--characters", type=int, default=96, help="units that read characters")
    parser.add_argument("--hidden", type=int, default=192, help="units that read words, each way")
    parser.add_argument("--layers", type=int, default=2, help="of those")
    parser.add_argument("--dropout", type=float, default=0.33)
    parser.add_argument("--forget", type=float, default=0.25, help="words, the rarer the more")
    parser.add_argument("--recase", type=float, default=0.0, help="share of sentences")
    parser.add_argument("--share", type=float, default=0.5, help="of XPOS and features in the loss")
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--batch", type=int, default=32, help="sentences (default: 32)")
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--quick", action="store_true", help="a few seconds, for tests")
    args = parser.parse_args()
    for part in ("train", "dev", "test"):
        if not getattr(args, part).is_file():
            parser.error(f"no such file: {getattr(args, part)}")
    if args.quick:
        args.word, args.affix, args.character, args.characters, args.hidden = 16, 8, 8, 8, 16
        args.layers, args.epochs, args.batch, args.seeds = 1, 20, 2, 1
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
    for seed in range(args.seed, args.seed + args.seeds):
        tagger, seconds = train(lexicon, parts, seed, args)
        dev = tagger.accuracy(parts["dev"])
        started = time.perf_counter()
        test = tagger.accuracy(parts["test"])
        speed = words["test"] / (time.perf_counter() - started)
        results.append((*dev[:2], *test[:2], seconds, speed))
        print(f"| {seed} |", " | ".join(f"{value:.2f}" for value in results[-1]), "|", flush=True)
    _, _, upos, xpos, seconds, speed = np.mean(results, axis=0)
    print(
        f"result: upos={upos:.2f} xpos={xpos:.2f} seconds={seconds:.0f} "
        f"tokens_per_second={speed:.0f}"
    )


if __name__ == "__main__":
    main()
