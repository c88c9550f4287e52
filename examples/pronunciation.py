"""Spelling to sound: all of CMUdict, an LSTM that reads letters, one that writes phonemes.

    python examples/pronunciation.py --data ../shared/data/cmudict/cmudict.dict --model g2p.model
    python examples/pronunciation.py --model g2p.model pronunciation recurrence

The data is cmusphinx/cmudict, every entry of it, in the letters a-z, apostrophe, hyphen and full
stop; comments are cut off. As in published work the stress marks are dropped, which leaves 39
phonemes, and pronunciations that then are the same are one. The split is by word, so that the
alternatives of a word are on one side: of zlib.crc32(word) modulo 50, 0 to 4 are the test part
(10 %), 5 the validation part (2 %); on the rest is trained, every alternative being an example.

A word is wrong if the phonemes differ from all its pronunciations (word error rate). Phoneme errors
are insertions, deletions and substitutions to the nearest one, of whose length they are a share.
"""

from __future__ import annotations

import argparse
import re
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rnncore
from rnncore import Chain, Decoder, Dropout, Embedding, Linear, Seq2Seq, Vocabulary, search
from rnncore.arrays import load_arrays
from rnncore.batches import Batch, bucketed, padded
from rnncore.schedules import warmup_cosine
from rnncore.training import Trainer
from rnncore.training import plots as curves

#: Words, each with its pronunciations.
Words = dict[str, list[tuple[str, ...]]]
RULES = {"bos": Vocabulary.BOS, "eos": Vocabulary.EOS, "max_length": 40}
PICTURED = "pronunciation"


def read(path: Path) -> Words:
    """Read the dictionary, without stress."""
    words: Words = {}
    for line in path.read_text(encoding="utf-8-sig").splitlines():
        entry, *phonemes = line.split("#")[0].split()
        known = words.setdefault(re.sub(r"\(\d+\)$", "", entry), [])
        said = tuple(phoneme.rstrip("012") for phoneme in phonemes)
        if said not in known:
            known.append(said)
    return words


def split(words: Words) -> dict[str, Words]:
    """Cut the dictionary into its three parts."""
    parts: dict[str, Words] = {"train": {}, "valid": {}, "test": {}}
    for word, said in words.items():
        place = zlib.crc32(word.encode()) % 50
        parts["test" if place < 5 else "valid" if place == 5 else "train"][word] = said
    return parts


def build(letters: int, phonemes: int, args: argparse.Namespace) -> Seq2Seq:
    """A bidirectional encoder, one layer that decodes, attention without input feeding."""
    rng, width = np.random.default_rng(args.seed), 2 * args.hidden

    def dropout() -> Dropout:
        return Dropout(args.dropout, seed=rng)

    reads = rnncore.LSTM(
        args.embedding,
        args.hidden,
        args.layers,
        dropout=args.dropout if args.layers > 1 else 0.0,
        bidirectional=True,
        seed=rng,
    )
    writes = rnncore.LSTM(args.embedding, width, seed=rng)
    for lstm in (reads, writes):
        rnncore.init.set_forget_bias(lstm)
    return Seq2Seq(
        Chain(Embedding(letters, args.embedding, seed=rng), dropout(), reads, dropout()),
        Decoder(
            Chain(Embedding(phonemes, args.embedding, seed=rng), dropout()),
            writes,
            rnncore.LuongAttention(width, width, "dot", seed=rng),
            Chain(dropout(), Linear(width, phonemes, seed=rng)),
        ),
        rnncore.LinearBridge(width, width, seed=rng),
    )


class Reader(rnncore.Module):
    """The model as a trainer calls it: with everything that it reads as one argument."""

    def __init__(self, model: Seq2Seq) -> None:
        super().__init__()
        self.model = model

    def vjp(self, inputs: tuple[np.ndarray, ...]) -> Any:
        """Return the logits and the pullback."""
        source, target, source_lengths, target_lengths = inputs
        return self.model.vjp(
            source, target, source_lengths=source_lengths, target_lengths=target_lengths
        )


class Speller:
    """A model and its vocabularies: words to phonemes, and what of that is wrong."""

    def __init__(self, model: Seq2Seq, letters: Vocabulary, phonemes: Vocabulary) -> None:
        self.model, self.letters, self.phonemes = model, letters, phonemes

    @classmethod
    def from_file(cls, path: Path) -> Speller:
        """Read what `save` wrote."""
        _, about = load_arrays(path)
        vocabularies = (Vocabulary(about[name]) for name in ("letters", "phonemes"))
        return cls(rnncore.load(path), *vocabularies)

    def save(self, path: Path) -> None:
        """Write the model, what it takes to make it, and the vocabularies to one file."""
        about = {"letters": self.letters.tokens, "phonemes": self.phonemes.tokens}
        self.model.save(path, about)

    def batches(self, words: Words, size: int, rng: np.random.Generator) -> Iterator[Batch]:
        """An epoch: every pronunciation once."""
        pairs = [
            (self.letters.encode(word), self.phonemes.encode(said, end=True))
            for word, known in words.items()
            for said in known
        ]
        for rows in bucketed([len(x) + len(y) for x, y in pairs], size, rng):
            source, source_lengths = padded([pairs[i][0] for i in rows])
            target, lengths = padded([pairs[i][1] for i in rows])
            before = rnncore.shifted(target, Vocabulary.BOS)
            mask = rnncore.length_mask(lengths, len(target))
            yield Batch((source, before, source_lengths, lengths), target, mask=mask)

    def pronounce(self, words: Sequence[str], width: int = 1) -> list[search.Hypothesis]:
        """Return the best pronunciation of each word: a beam's, or with width 1 the greedy one."""
        found: list[Any] = [None] * len(words)
        for rows in bucketed([len(word) for word in words], 256):
            source, lengths = padded([self.letters.encode(words[i]) for i in rows])
            if width == 1:
                said = search.greedy(self.model, source, lengths, **RULES)
            else:
                nbest = search.beam(
                    self.model, source, lengths, width=width, length_penalty=0.6, **RULES
                )
                said = [best for best, *_ in nbest]
            for i, hypothesis in zip(rows, said, strict=True):
                found[i] = hypothesis
        return found

    def errors(self, words: Words, width: int = 1) -> tuple[float, float]:
        """Return word and phoneme error rate in percent."""
        wrong = edits = length = 0
        for said, known in zip(self.pronounce([*words], width), words.values(), strict=True):
            phonemes = self.phonemes.decode(said.tokens)
            few, size = min((rnncore.edit_distance(phonemes, one), len(one)) for one in known)
            wrong, edits, length = wrong + (few > 0), edits + few, length + size
        return 100 * wrong / len(words), 100 * edits / length


def train(speller: Speller, parts: dict[str, Words], args: argparse.Namespace) -> Trainer:
    """Train; the parameters are those of the lowest word error rate on the validation part."""
    count = sum(map(len, parts["train"].values()))
    updates = -(-count // args.batch)
    total = args.epochs * updates
    reader = Reader(speller.model)
    trainer = Trainer(
        reader,
        rnncore.SoftmaxCrossEntropy(label_smoothing=args.label_smoothing),
        rnncore.Adam(reader, lr=warmup_cosine(args.lr, total, min(800, total // 10))),
        lambda rng: speller.batches(parts["train"], args.batch, rng),
        validate=lambda: speller.errors(parts["valid"])[0],
        clip_norm=1.0,
        seed=args.seed,
    )
    trainer.fit(total, validate_every=updates)
    trainer.restore_best()
    return trainer


def plot_training(history: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw the loss, and the word error rate on the validation part."""
    from matplotlib.figure import Figure

    epochs = np.arange(1, len(history) + 1)
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="epoch", ylabel="training loss (nats per phoneme, smoothed)")
    axes.plot(epochs, [entry["train_loss"] for entry in history], "C0.-", label="training loss")
    other = axes.twinx()
    other.set_ylabel("word error rate, validation, greedy (%)")
    other.plot(epochs, [entry["validation_loss"] for entry in history], "C1.-", label="error rate")
    axes.grid(alpha=0.3)
    figure.legend(loc="upper right", bbox_to_anchor=(0.88, 0.95))
    figure.savefig(path, dpi=150)


def show(speller: Speller, words: Sequence[str]) -> None:
    """Print how words are pronounced, and how likely that is."""
    for word in words:
        if strange := sorted(set(word) - set(speller.letters.tokens)):
            raise SystemExit(f"{word}: the model does not know {' '.join(strange)}")
    for word, said in zip(words, speller.pronounce(words, width=5), strict=True):
        phonemes = " ".join(speller.phonemes.decode(said.tokens))
        print(f"{word:20} {phonemes:40} {np.exp(said.log_prob):.2f}")


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("words", nargs="*", help="pronounce these with the model in --model")
    parser.add_argument("--data", type=Path, help="cmudict.dict: train on it")
    parser.add_argument("--model", type=Path, metavar="FILE", help="where the model is kept")
    parser.add_argument("--hidden", type=int, default=256, help="units of each encoder direction")
    parser.add_argument("--layers", type=int, default=2, help="of the encoder")
    parser.add_argument("--embedding", type=int, default=64)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--label-smoothing", type=float, default=0.1)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=2.5e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the training")
    parser.add_argument("--plot-attention", type=Path, metavar="FILE", help="draw one word's")
    parser.add_argument("--quick", action="store_true", help="a few seconds, for tests")
    args = parser.parse_args()
    if args.words and not args.model:
        parser.error("to pronounce words a model is needed: --model FILE")
    if not args.words and not args.data:
        parser.error("give words to pronounce, or --data to train on")
    if args.data and not args.data.is_file():
        parser.error(f"no such file: {args.data}")
    if args.quick:
        args.hidden, args.embedding, args.layers, args.epochs, args.batch = 16, 8, 1, 2, 32
    return args


def main() -> None:
    """Train, test and save; or pronounce words."""
    args = options()
    if args.words:
        show(Speller.from_file(args.model), args.words)
        return
    words = read(args.data)
    if args.quick:
        words = dict(list(words.items())[::200])
    parts = split(words)
    letters, phonemes = Vocabulary.of(words), Vocabulary.of(p for ps in words.values() for p in ps)
    speller = Speller(build(len(letters), len(phonemes), args), letters, phonemes)
    started = time.perf_counter()
    trainer = train(speller, parts, args)
    seconds = time.perf_counter() - started
    if args.model:
        speller.save(args.model)
    if args.plot:
        plot_training(trainer.history, args.plot)
    if args.plot_attention:
        (said,) = speller.pronounce([PICTURED])
        assert said.attention is not None
        labels = [*phonemes.decode(said.tokens), "end"]
        curves.plot_attention(said.attention, list(PICTURED), labels, args.plot_attention)
    print("parameters:", f"{sum(p.size for p in speller.model.params.values()):,};", end=" ")
    print("words:", *(f"{name} {len(part):,}" for name, part in parts.items()))
    print("| search | word errors | phoneme errors |\n| --- | ---: | ---: |")
    rates = {}
    for width in (1, 5):
        rates[width] = speller.errors(parts["test"], width)
        name = "greedy" if width == 1 else f"beam of {width}"
        print(f"| {name} | {rates[width][0]:.2f} % | {rates[width][1]:.2f} % |")
    show(speller, ["recurrence", "cmudict", "eigen", "schmidhuber"] if not args.quick else ["a"])
    wer, per = rates[5]
    print(
        f"result: wer={wer:.2f} per={per:.2f} wer_greedy={rates[1][0]:.2f} "
        f"train_seconds={seconds:.0f}"
    )


if __name__ == "__main__":
    main()
