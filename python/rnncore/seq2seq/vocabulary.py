"""Tokens and their numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt

from ..arrays import Array, as_indices, check_size
from ..files import listed
from ..hinting import hinted, put_hints
from ..hints import OF, VOCABULARY, WORDBOOK


class Vocabulary:
    """The tokens that a model knows, each with its number.

    Four numbers come first: `PAD` behind the end of a sequence, `BOS` before its first token, `EOS`
    behind its last, `UNK` for a token that is not known. `tokens` are the others, in order: all
    that it takes to store a vocabulary, as JSON say, and to make it again.
    """

    PAD, BOS, EOS, UNK = range(4)
    SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")

    def __init__(self, tokens: Sequence[str]) -> None:
        self.tokens = tuple(tokens)
        for token in self.tokens:
            if not isinstance(token, str):
                kind = type(token).__name__
                raise TypeError(f"tokens must be strings, got a {kind}: {VOCABULARY}")
        self._all = (*self.SPECIALS, *self.tokens)
        self._numbers = {token: at for at, token in enumerate(self._all)}
        if len(self._numbers) < len(self._all):
            twice = sorted(token for token, n in Counter(self._all).items() if n > 1)
            raise ValueError(
                f"tokens must differ, from each other and the specials: [{listed(twice)}]"
            )

    @classmethod
    @hinted(OF)
    def of(
        cls, sequences: Iterable[Iterable[str]], least: int = 1, most: int | None = None
    ) -> Vocabulary:
        """Return the vocabulary of all tokens that occur at least `least` times.

        The commonest come first, equals in alphabetical order; of these the first `most`. `<unk>`
        has its number already, and counts for none.
        """
        counts = Counter(chain.from_iterable(sequences))
        del counts[cls.SPECIALS[cls.UNK]]
        check_size("least", least)
        if most is not None:
            check_size("most", most)
        common = sorted(counts, key=lambda token: (-counts[token], token))
        return cls([token for token in common if counts[token] >= least][:most])

    def __len__(self) -> int:
        """How many numbers there are, those of the specials among them."""
        return len(self._all)

    def __contains__(self, token: object) -> bool:
        return token in self._numbers

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.tokens == other.tokens

    def __hash__(self) -> int:
        return hash(self.tokens)

    def __repr__(self) -> str:
        return f"Vocabulary of {len(self.tokens)} tokens"

    def encode(self, tokens: Iterable[str], *, end: bool = False) -> Array:
        """Return the tokens' numbers `(N,)`, with `end` followed by `EOS`; unknown ones are `UNK`.

        A string is a sequence of characters.
        """
        try:
            numbers = [self._numbers.get(token, self.UNK) for token in tokens]
        except TypeError as error:
            raise TypeError(f"tokens must be one sequence of strings: {error}") from error
        return np.array([*numbers, self.EOS] if end else numbers, np.int64)

    def decode(self, numbers: npt.ArrayLike) -> list[str]:
        """Return the tokens with these numbers, up to an `EOS`, without `PAD` and `BOS`."""
        tokens = []
        for number in as_indices("numbers", numbers, len(self)).ravel():
            if number == self.EOS:
                break
            if number not in (self.PAD, self.BOS):
                tokens.append(self._all[number])
        return tokens


put_hints(Vocabulary, WORDBOOK)
