"""Character language models: vocabulary, text as parallel streams, the model, sampling."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from .arrays import Array, as_indices, as_integers, check_count, check_kind, check_size
from .batches import Batch, chunked
from .compositions.chain import Chain
from .configuration import Configured
from .layers.dropout import Dropout
from .layers.embedding import Embedding
from .layers.linear import Linear
from .losses import SoftmaxCrossEntropy
from .module import Module, load
from .recurrent.registry import LAYERS
from .stream.base import Stream
from .training.trainer import evaluate

#: The cells that character models are offered with.
CELLS = ("lstm", "gru", "rnn")


class Vocabulary(Configured):
    """The characters that a model knows, each with its number: the place in `characters`."""

    def __init__(self, characters: str) -> None:
        codes = _code_points("characters", characters)
        if not len(codes) or np.any(codes[1:] <= codes[:-1]):
            raise ValueError("a vocabulary is a string of different characters, in order")
        self.characters = characters
        self._codes = codes

    @classmethod
    def of(cls, text: str) -> Vocabulary:
        """Return the vocabulary of all characters in `text`."""
        return cls("".join(sorted(set(check_kind("text", text, str)))))

    def __len__(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> Array:
        """Return the characters' numbers, shape (N,); raises `ValueError` naming unknown ones."""
        codes = _code_points("text", text)
        ids = np.minimum(np.searchsorted(self._codes, codes), len(self) - 1)
        if np.any(self._codes[ids] != codes):
            unknown = "".join(sorted(set(text) - set(self.characters)))
            raise ValueError(f"the model does not know these characters: {unknown!r:.80}")
        return ids.astype(np.int32)  # texts are long: half the memory

    def decode(self, ids: Array) -> str:
        """Return the characters with these numbers `(N,)` as a string."""
        numbers = _in_a_row("ids", as_indices("ids", ids, len(self)))
        return "".join(self.characters[i] for i in numbers.tolist())


def _code_points(name: str, text: str) -> Array:
    encoded = check_kind(name, text, str).encode("utf-32-le", "surrogatepass")
    return np.frombuffer(encoded, dtype="<u4")


def _in_a_row(name: str, ids: Array) -> Array:
    if ids.ndim != 1:
        raise ValueError(f"{name} must have shape (N,), got {ids.shape}")
    return ids


def split(text: str, share: float = 0.9) -> tuple[str, str]:
    """Return the first `share` of a text for training and the rest for validation."""
    if not 0 <= share <= 1:
        raise ValueError(f"share must be in 0..1, got {share}")
    cut = int(len(text) * share)
    return text[:cut], text[cut:]


def streams(ids: Array, batch: int, length: int, overlap: int = 0) -> list[Batch]:
    """Cut a text of numbered characters into parallel streams, in chunks of at most `length`.

    A batch holds inputs and targets of shape (T, B), the targets being the inputs' next characters.
    Every character but the first is a target that counts exactly once. The streams lie one after
    another in the text and carry their states from chunk to chunk. Each also reads the last
    `overlap` targets of the stream before it, masked, so that it does not start cold.

    Raises `ValueError` if the text is too short to give each stream a target.
    """
    ids = _in_a_row("ids", as_integers("ids", ids))
    targets = len(ids) - 1
    if operator.index(overlap) < 0:
        raise ValueError(f"overlap must be at least 0, got {overlap}")
    if targets < check_size("batch", batch) + overlap:
        raise ValueError(
            f"the text is too short: {len(ids)} characters, but {batch} streams"
            f"{f' that overlap by {overlap}' if overlap else ''} need {batch + overlap + 1}"
        )
    starts = np.arange(batch + 1) * (targets - overlap) // batch
    first, end = starts[:-1], starts[1:] + overlap  # (B,)
    step = np.arange(np.max(end - first))[:, np.newaxis]  # (T, 1)
    place = first + step
    counts = (place < end) & ((step >= overlap) | (first == 0))
    place = np.minimum(place, targets - 1)
    return list(chunked(ids[place], ids[place + 1], length, counts))


@dataclass(frozen=True)
class CharConfig(Configured):
    """The sizes and options of a character model."""

    cell: str = "lstm"
    hidden: int = 512
    layers: int = 1
    embedding: int = 64
    dropout: float = 0.0
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.cell not in CELLS:
            raise ValueError(f"cell must be one of {', '.join(CELLS)}, got {self.cell!r}")


class CharModel(Module):
    """Embedding -> LSTM, GRU or RNN -> Dropout -> Linear, over the characters of a vocabulary.

    `model(ids, state) -> (logits, state)` with ids (T, B) and logits (T, B, V). Dropout acts
    between the recurrent layers and on what the last of them gives.
    """

    recurrent = True

    def __init__(
        self, vocabulary: Vocabulary, config: CharConfig | None = None, *, seed: int | None = None
    ) -> None:
        super().__init__()
        config = CharConfig() if config is None else config
        self.vocabulary = check_kind("vocabulary", vocabulary, Vocabulary)
        self.config = check_kind("config", config, CharConfig)
        seeds = [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(4)]
        cell = LAYERS[config.cell]
        self.chain = Chain(
            Embedding(len(vocabulary), config.embedding, dtype=config.dtype, seed=seeds[0]),
            cell(
                config.embedding,
                config.hidden,
                config.layers,
                dropout=config.dropout if config.layers > 1 else 0.0,
                dtype=config.dtype,
                seed=seeds[1],
            ),
            Dropout(config.dropout, seed=seeds[2]),
            Linear(config.hidden, len(vocabulary), dtype=config.dtype, seed=seeds[3]),
        )

    def __call__(self, ids: Array, state: Any = None) -> Any:
        """Return the logits of the next character at every step, and the state."""
        return self.chain(ids, state)

    def vjp(self, ids: Array, state: Any = None) -> Any:
        """Return `((logits, state), pullback)`."""
        return self.chain.vjp(ids, state)

    def stream(self, batch: int = 1) -> Stream:
        """Return a stream of characters' numbers to logits."""
        return self.chain.stream(batch)

    def evaluate(self, text: str) -> float:
        """Return the mean loss of a text in nats per character, read in one go from a zero state.

        Every character but the first counts: the first is only read.
        """
        return evaluate(self, SoftmaxCrossEntropy(), streams(self.vocabulary.encode(text), 1, 1024))

    def generate(
        self, prompt: str, temperature: float = 1.0, seed: int | None = None
    ) -> Iterator[str]:
        """Yield characters that continue `prompt`, without end, each drawn given all before it.

        The logits are divided by `temperature`; at 0 the likeliest character is taken. Raises
        `ValueError` for an empty prompt or one with unknown characters.
        """
        if not prompt:
            raise ValueError("the prompt is empty: give at least one character to continue")
        if not temperature >= 0:
            raise ValueError(f"temperature must be at least 0, got {temperature}")
        ids = self.vocabulary.encode(prompt)
        return self._continue(ids[:, np.newaxis], temperature, np.random.default_rng(seed))

    def _continue(self, ids: Array, temperature: float, rng: np.random.Generator) -> Iterator[str]:
        stream = self.stream()
        logits = stream.run(ids)[-1]
        while True:
            chosen = draw(logits[0], temperature, rng)
            yield self.vocabulary.characters[chosen]
            logits = stream.step(np.array([chosen]))

    def sample(
        self, prompt: str, length: int, temperature: float = 1.0, seed: int | None = None
    ) -> str:
        """Return `length` characters that continue `prompt`; see `generate`."""
        length = check_count("length", length, 0)
        return "".join(islice(self.generate(prompt, temperature, seed), length))

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> CharModel:
        """`rnncore.load` of a file that must hold a character model."""
        model = load(path)
        if not isinstance(model, cls):
            raise ValueError(f"{os.fspath(path)} is no character model: {type(model).__name__}")
        return model


def draw(logits: Array, temperature: float, rng: np.random.Generator) -> int:
    """Draw one number from softmax(logits / temperature), or take the likeliest at 0."""
    if temperature == 0:
        return int(np.argmax(logits))
    scaled = (logits.astype(np.float64) - np.max(logits)) / temperature
    sums = np.cumsum(np.exp(scaled))
    return int(np.searchsorted(sums[:-1], rng.random() * sums[-1], side="right"))
