"""What a transducer hears: greedy and beam search, frame by frame, so in streams as in one call."""

from __future__ import annotations

import math
from itertools import count
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..arrays import Array, as_rows, check_number, check_size
from ..compiled import core
from ..module import Module
from ..states import State, mapped, take_rows
from .joint import TransducerJoint
from .scores import likeliest


class TimedTranscript(NamedTuple):
    """What was heard in a sequence."""

    labels: Array  # (N,)
    score: float  # a log-probability
    frames: Array  # (N,), the frame of the encoder at which each was emitted


class Limits:
    """How far a search goes."""

    def __init__(
        self, beam_size: int, n_best: int, max_symbols: int, prune: float = math.inf
    ) -> None:
        self.beam_size = check_size("beam_size", beam_size)
        self.n_best = check_size("n_best", n_best)
        self.max_symbols = check_size("max_symbols", max_symbols)
        if not check_number("prune", prune) >= 0:
            raise ValueError(f"prune must be at least 0, got {prune}")
        self.prune = float(prune)


class Searcher:
    """The parts of a transducer that a search asks."""

    def __init__(
        self, predictor: Module, joint: TransducerJoint, blank: int, limits: Limits
    ) -> None:
        self.predictor, self.joint, self.blank, self.limits = predictor, joint, blank, limits

    def log_probs(self, f: Array, g: Array) -> Array:
        """Return log P `(R, V)` of rows of f and g: `(R, H)`, or `(1, H)` for all rows."""
        log_p: Array = core(self.joint.dtype).log_softmax(self.joint.rows(f, g))
        return log_p


class Greedy:
    """The likeliest symbol at every node of the lattice of one sequence.

    Labels are few and blanks are many: as long as no label is emitted, several frames are looked at
    together, twice as many each time.
    """

    _few, _many = 4, 64

    def __init__(self, searcher: Searcher) -> None:
        self._searcher = searcher
        self._predictor = searcher.predictor.stream(1)
        self.reset()

    def reset(self) -> None:
        """Begin a new sequence."""
        self._predictor.reset()
        self._g = self._predictor.step(np.array([self._searcher.blank]))
        self._tokens: list[int] = []
        self._frames: list[int] = []
        self._frame = self._emitted = 0
        self._score = 0.0

    def take(self, f: Array) -> None:
        """Hear frames f `(n, H)`."""
        at, ahead = 0, self._few
        while at < len(f):
            log_p = self._searcher.log_probs(f[at : at + ahead], self._g)
            went = self._blanks(log_p)
            at += went
            ahead = min(2 * ahead, self._many) if went == len(log_p) else self._few

    def _blanks(self, log_p: Array) -> int:
        """Go on over the frames that have a blank, then emit a label, if one of them has."""
        blank = self._searcher.blank
        best = log_p.argmax(axis=1)
        if self._emitted == self._searcher.limits.max_symbols:
            best[0] = blank
        labels = np.flatnonzero(best != blank)
        went = int(labels[0]) if len(labels) else len(log_p)
        for value in log_p[:went, blank].tolist():  # one by one: however the frames come
            self._score += value
        self._frame += went
        if went:
            self._emitted = 0
        if went < len(log_p):
            token = int(best[went])
            self._score += float(log_p[went, token])
            self._tokens.append(token)
            self._frames.append(self._frame)
            self._emitted += 1
            self._g = self._predictor.step(np.array([token]))
        return went

    def best(self, n_best: int = 1) -> list[TimedTranscript]:
        """Return what was heard so far: a single transcript."""
        return [
            TimedTranscript(np.array(self._tokens, int), self._score, np.array(self._frames, int))
        ]


class _Hypothesis(NamedTuple):
    """Labels, what comes after them, and the probability of their alignments up to a frame."""

    labels: tuple[int, ...]
    frames: tuple[int, ...]  # of the likeliest alignment
    score: float
    likeliest: float  # the score of the likeliest alignment
    g: Array  # (1, H)
    state: State  # of the predictor

    def merged(self, other: _Hypothesis) -> _Hypothesis:
        """Return the two, which have the same labels, as one."""
        first = self if self.likeliest >= other.likeliest else other
        return first._replace(score=float(np.logaddexp(self.score, other.score)))


class Beam:
    """The likeliest label sequences, whatever their alignments: time-synchronous decoding."""

    def __init__(self, searcher: Searcher) -> None:
        self._searcher = searcher
        self.reset()

    def reset(self) -> None:
        """Begin a new sequence."""
        empty = _Hypothesis((), (), 0.0, 0.0, np.zeros(0), None)
        blank = np.array([self._searcher.blank])
        self._beam = self._read([empty], blank)
        self._frame = 0

    def take(self, f: Array) -> None:
        """Hear frames f `(n, H)`."""
        for frame in f:
            self._beam = self._heard(frame[None])
            self._frame += 1

    def best(self, n_best: int = 1) -> list[TimedTranscript]:
        """Return the likeliest transcripts of what was heard so far."""
        return [
            TimedTranscript(np.array(one.labels, int), one.score, np.array(one.frames, int))
            for one in self._beam[:n_best]
        ]

    def _heard(self, frame: Array) -> list[_Hypothesis]:
        """Return the beam behind a frame `(1, H)`."""
        limits, blank = self._searcher.limits, self._searcher.blank
        behind: dict[tuple[int, ...], _Hypothesis] = {}
        here = self._beam
        for emitted in count():
            g = np.concatenate([one.g for one in here])
            log_p = self._searcher.log_probs(frame, g).astype(np.float64)
            for one, value in zip(here, log_p[:, blank].tolist(), strict=True):
                gone = one._replace(score=one.score + value, likeliest=one.likeliest + value)
                known = behind.get(one.labels)
                behind[one.labels] = gone if known is None else known.merged(gone)
            if emitted == limits.max_symbols:
                break
            here = self._extended(here, log_p, self._least(behind))
            if not here:
                break
        return sorted(behind.values(), key=lambda one: -one.score)[: limits.beam_size]

    def _least(self, behind: dict[tuple[int, ...], _Hypothesis]) -> float:
        """Return the score below which a hypothesis has no hope to be in the beam."""
        limits = self._searcher.limits
        scores = sorted((one.score for one in behind.values()), reverse=True)
        worst = scores[limits.beam_size - 1] if len(scores) >= limits.beam_size else -math.inf
        return max(worst, scores[0] - limits.prune)

    def _extended(self, here: list[_Hypothesis], log_p: Array, least: float) -> list[_Hypothesis]:
        """Return the likeliest hypotheses that have a label more."""
        width, blank = self._searcher.limits.beam_size, self._searcher.blank
        scores = log_p + np.array([one.score for one in here])[:, None]
        scores[:, blank] = -math.inf
        scores[scores < least] = -math.inf
        rows, labels = likeliest(scores, width)
        longer = []
        for row, label in zip(rows.tolist(), labels.tolist(), strict=True):
            one, value = here[row], float(log_p[row, label])
            longer.append(
                one._replace(
                    labels=(*one.labels, label),
                    frames=(*one.frames, self._frame),
                    score=one.score + value,
                    likeliest=one.likeliest + value,
                )
            )
        return self._read(longer, labels) if longer else []

    def _read(self, beam: list[_Hypothesis], labels: Array) -> list[_Hypothesis]:
        """Let the predictor read the last label of each hypothesis."""
        predictor = self._searcher.predictor
        if predictor.recurrent:
            states = [one.state for one in beam]
            joined = None if states[0] is None else _beside(states)
            output, after = predictor(labels[None], joined)
            rows = [take_rows(after, np.array([row])) for row in range(len(beam))]
        else:  # what it remembers of earlier labels is in no state: it reads them all
            output = self._reread(beam)
            rows = [None] * len(beam)
        return [
            one._replace(g=output[-1, row : row + 1], state=rows[row])
            for row, one in enumerate(beam)
        ]

    def _reread(self, beam: list[_Hypothesis]) -> Array:
        longest = max(len(one.labels) for one in beam) + 1
        read = np.full((longest, len(beam)), self._searcher.blank)
        ends = [len(one.labels) for one in beam]
        for row, one in enumerate(beam):
            read[1 : ends[row] + 1, row] = one.labels
        output: Array = self._searcher.predictor(read)
        return output[ends, np.arange(len(beam))][None]


def _beside(states: list[State]) -> State:
    """Return the states of single rows as one of all."""
    return mapped(lambda *parts: np.concatenate(parts, axis=-2), *states)


class TransducerStream:
    """Sequences that arrive in chunks of frames, in `batch` rows; made by `Transducer.stream`.

    The transcripts at the end are those of one call over whole sequences, to the bit, however time
    is cut. It keeps the weights of encoder and predictor as they were when it was made.
    """

    def __init__(
        self, searcher: Searcher, encoder: Module, kind: type[Greedy] | type[Beam], batch: int
    ) -> None:
        self._encoder = encoder.stream(batch)
        self.batch = batch
        self._decoders: list[Any] = [kind(searcher) for _ in range(batch)]

    def run(self, chunk: npt.ArrayLike) -> list[TimedTranscript]:
        """Take frames `(n, B, I)`; return what has been heard so far in each row.

        A single row may come without its axis. Greedy transcripts only grow, while a beam may find
        another one to be the likeliest.
        """
        return self._heard(self._encoder.run(chunk))

    def finish(self) -> list[TimedTranscript]:
        """Return what has been heard, with the frames that waited for later ones."""
        return self._heard(self._encoder.finish())

    def best(self, n_best: int) -> list[list[TimedTranscript]]:
        """Return the n best transcripts so far of each row: of a greedy search there is one."""
        n_best = check_size("n_best", n_best)
        return [decoder.best(n_best) for decoder in self._decoders]

    def reset(self, rows: npt.ArrayLike | None = None) -> None:
        """Let all rows, or these, begin new sequences."""
        which = range(self.batch) if rows is None else as_rows("rows", rows, self.batch)
        self._encoder.reset(rows)
        for row in which:
            self._decoders[row].reset()

    def _heard(self, f: Array) -> list[TimedTranscript]:
        f = f if f.ndim == 3 else f[:, None]
        for row, decoder in enumerate(self._decoders):
            decoder.take(np.ascontiguousarray(f[:, row]))
        return [decoder.best()[0] for decoder in self._decoders]
