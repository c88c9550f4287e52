"""A language model of characters for searches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ..arrays import Array, check_count, short


class CharacterNGram:
    """The probability of the next character from the last ones, counted in texts.

    Interpolated as Witten and Bell 1991, "The Zero-Frequency Problem": with c(h, w) how often w
    came behind the characters h, and n(h) how many different ones did,

        p(w | h) = (c(h, w) + n(h) p(w | h without its first)) / (c(h) + n(h))

    down to no characters, where the last p is the same for all. alphabet: the symbols of the
    classes other than the blank, in their order, such as a string or a list; `order`: how many
    characters a count is of, at least 1. The end of a text counts as a character.

    A model is called with the labels so far, integers, and returns the log-probabilities `(C,)` of
    the next; in the blank's place is that of the end. So it serves as `CTCBeamSearch`'s
    `language_model`.
    """

    def __init__(self, alphabet: Sequence[Any], order: int = 5, *, blank: int = 0) -> None:
        symbols = list(alphabet)
        if not symbols or len(set(symbols)) < len(symbols):
            raise ValueError(f"alphabet must hold different symbols, got {short(alphabet)}")
        self.order, self.blank = check_count("order", order), check_count("blank", blank, 0)
        if blank > len(symbols):
            raise ValueError(f"blank must be in 0..{len(symbols)}, got {blank}")
        self.classes = [*symbols[:blank], None, *symbols[blank:]]
        self._numbers = {symbol: k for k, symbol in enumerate(self.classes) if k != blank}
        self._counts: dict[tuple[int, ...], Counter[int]] = {}

    @property
    def context(self) -> int:
        """How many characters before it the next one depends on."""
        return self.order - 1

    def fit(self, texts: Iterable[Sequence[Any]]) -> CharacterNGram:
        """Count texts, in addition to those before; return the model."""
        if isinstance(texts, str):
            raise TypeError("texts must be a list of texts, got a str: give [text]")
        numbered = [self.encode(text) for text in texts]
        for labels in numbered:
            whole = (*labels, self.blank)
            for at, label in enumerate(whole):
                for size in range(min(self.context, at) + 1):
                    self._counts.setdefault(whole[at - size : at], Counter())[label] += 1
        return self

    def encode(self, text: Sequence[Any]) -> list[int]:
        """Return the classes of symbols; `ValueError` for one that is not in the alphabet."""
        unknown = [symbol for symbol in text if symbol not in self._numbers]
        if unknown:
            raise ValueError(f"text has symbols that are not in the alphabet: {short(unknown)}")
        return [self._numbers[symbol] for symbol in text]

    def decode(self, labels: Iterable[int]) -> list[Any]:
        """Return the symbols of labels; of characters, `"".join` makes a text."""
        return [self.classes[label] for label in labels]

    def __call__(self, labels: Sequence[int]) -> Array:
        """Return the log-probabilities `(C,)` of what follows these labels."""
        p: Array = np.full(len(self.classes), 1 / len(self.classes))
        last = tuple(labels)[len(labels) - min(self.context, len(labels)) :]
        for size in range(len(last) + 1):
            counts = self._counts.get(last[len(last) - size :])
            if counts is None:  # nor has a longer one been seen
                break
            p *= len(counts)
            for label, count in counts.items():
                p[label] += count
            p /= counts.total() + len(counts)
        return np.log(p)

    def log_prob(self, text: Sequence[Any]) -> float:
        """Return the log-probability of a text, its end included."""
        labels = [*self.encode(text), self.blank]
        return float(sum(self(labels[:at])[label] for at, label in enumerate(labels)))
