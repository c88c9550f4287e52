"""What a step of a search costs beyond its kernels: one source, greedy and beams.

python benchmarks/search_steps.py
python benchmarks/search_steps.py --hidden 128 --rounds 21

The model is that of examples/pronunciation.py: an embedding of 64, an LSTM of twice --hidden units,
attention to eight letters, 43 phonemes. All hypotheses are equally long; a step is what a longer
search takes more than a shorter one. "Kernels" are the same products without a search: embedding
and LSTM, then all behind the attention, each again and again in the compiled core, and attention,
less what a call without queries takes. "By Python" is the search as it is where Python takes the
steps. One thread, in turns; the medians of the rounds count.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("RNNCORE_NUM_THREADS", "1")

import sys
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

import pronunciation
from rnncore import Chain, Seq2Seq, Tanh, Vocabulary, search
from rnncore.commands.measure.report import table
from rnncore.commands.measure.timing import time_call

LETTERS, PHONEMES, LENGTH = 33, 43, 8
SHORT, LONG, REPEATS = 10, 60, 100
WIDTHS = {"greedy": 1, "beam of 4": 4, "beam of 5": 5}


class ByPython:
    """A model whose steps the compiled core knows nothing of."""

    def __init__(self, model: Seq2Seq) -> None:
        self.start, self.decoder, self.step = model.start, self, model.decoder.step


class Kernels:
    """The products of a step for some hypotheses."""

    def __init__(self, model: Seq2Seq, source: np.ndarray, rows: int) -> None:
        decoder, attention = model.decoder, model.decoder.attention
        self.state = model.start(source).take(np.zeros(rows, int))
        self.below = Chain(decoder.embedding, decoder.rnn).stream(rows)
        self.above = Chain(attention.combine, Tanh(), decoder.head).stream(rows)
        self.tokens = np.full(rows, Vocabulary.BOS)
        rng, dtype = np.random.default_rng(0), decoder.dtype
        self.h = rng.uniform(-1, 1, (1, rows, attention.query_size)).astype(dtype)
        width = attention.memory_size + attention.query_size
        self.contexts = rng.uniform(-1, 1, (rows, width)).astype(dtype)

    def time(self, seconds: float) -> float:
        """Seconds that they take."""
        attend, source, size = self.state.memory.kernels.attend, self.state.source, self.h.shape[-1]
        below = time_call(lambda: self.below.repeat(self.tokens, REPEATS), seconds)
        above = time_call(lambda: self.above.repeat(self.contexts, REPEATS), seconds)
        call = time_call(lambda: attend(self.h[:0], source, None, None, size), seconds)
        attention = time_call(lambda: attend(self.h[:1], source, None, None, size), seconds)
        return (below + above) / REPEATS + attention - call


def step(model: Any, source: np.ndarray, width: int, seconds: float) -> float:
    """Seconds that a step of a search takes."""

    def find(length: int) -> Any:
        limits = {"min_length": length, "max_length": length}
        ends = {"bos": Vocabulary.BOS, "eos": Vocabulary.EOS, **limits}
        if width == 1:
            return search.greedy(model, source, **ends)
        return search.beam(model, source, width=width, **ends)

    short, long = (time_call(partial(find, length), seconds) for length in (SHORT, LONG))
    return (long - short) / (LONG - SHORT)


def measure(hidden: int, args: argparse.Namespace) -> list[list[str]]:
    """Rows of the table for one size."""
    given = argparse.Namespace(hidden=hidden, layers=2, embedding=64, dropout=0.0, seed=0)
    model = pronunciation.build(LETTERS, PHONEMES, given)
    source = np.random.default_rng(0).integers(4, LETTERS, (LENGTH, 1))
    rows = []
    for name, width in WIDTHS.items():
        kernels, times = Kernels(model, source, width), []
        for _ in range(args.rounds):
            searched = (step(m, source, width, args.seconds) for m in (model, ByPython(model)))
            times.append((*searched, kernels.time(args.seconds)))
        whole, python, products = (1e6 * median(part) for part in zip(*times, strict=True))
        over = [1e6 * median(t[i] - t[2] for t in times) for i in (0, 1)]
        numbers = (products, whole, over[0], python, over[1])
        rows.append([f"{2 * hidden} units, {name}", *(f"{number:.1f}" for number in numbers)])
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--hidden", nargs="+", type=int, default=[32, 64, 128, 256], metavar="H")
    parser.add_argument("--rounds", type=int, default=9, help="the median of so many counts")
    parser.add_argument("--seconds", type=float, default=0.02, help="of a turn (%(default)s)")
    args = parser.parse_args()
    sizes = tqdm(args.hidden, unit="size", leave=False, disable=None)
    rows = [row for hidden in sizes for row in measure(hidden, args)]
    head = ["us a step", "kernels", "search", "beyond", "by Python", "beyond"]
    print(table(head, rows))


if __name__ == "__main__":
    main()
