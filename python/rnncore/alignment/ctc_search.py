"""Labels from the logits of CTC: the likeliest path, and prefix beam search.

Graves et al. 2006, section 3.2; Hannun et al. 2014, "First-Pass Large Vocabulary Continuous Speech
Recognition using Bi-Directional Recurrent DNNs", algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from ..arrays import Array, check_count, check_flag, check_number, check_size, short
from .arguments import check_blank, read_frames
from .scores import likeliest, log_softmax

#: From the labels so far to log-probabilities of the next, (C,); the blank's is that of the end.
LanguageModel: TypeAlias = Callable[[tuple[int, ...]], npt.ArrayLike]

#: Frames between two looks at what all hypotheses have in common.
_FRAMES = 64


class Transcript(NamedTuple):
    """Labels found in a sequence."""

    labels: Array  # (S,) integers
    score: float  # what they were chosen by: log-probability, and what a language model adds
    log_prob: float  # of the path, or of the sum over the paths that were followed


def ctc_best_path(
    logits: npt.ArrayLike,
    lengths: npt.ArrayLike | None = None,
    *,
    blank: int = 0,
    batch_first: bool = False,
) -> list[Transcript]:
    """Return the labels of the likeliest path of each sequence.

    logits `(T, B, C)`, `(B, T, C)` if `batch_first`, or `(T, C)`. Each frame shows its likeliest
    class; equal neighbours are merged, blanks dropped. `log_prob` is the path's, of one of the ways
    to place these labels. Other labels may be likelier, over all their paths: `CTCBeamSearch`.
    """
    found = []
    for x in _sequences(logits, lengths, blank, batch_first):
        log_p = log_softmax(x)
        path = log_p.argmax(axis=1)
        score = float(log_p[np.arange(len(path)), path].sum())
        found.append(Transcript(merged(path, blank), score, score))
    return found


def merged(path: Array, blank: int) -> Array:
    """Return the labels of a path: equal neighbours merged, blanks dropped."""
    first = np.ones(len(path), bool)
    first[1:] = path[1:] != path[:-1]
    labels: Array = path[first & (path != blank)]
    return labels


class CTCBeamSearch:
    """Prefix beam search: the labels that are likeliest over all their paths, as far as these go.

    search(logits, lengths)     for each sequence its `n_best` transcripts, the best first
    search.stream()             the same for one sequence, from chunks of frames

    At each frame the `beam_size` best prefixes go on. They are compared by

        score = log p(labels | x) + lm_weight log p(labels) + label_bonus |labels|

    language_model: a function of the labels so far, a tuple, that returns the log-probabilities
    `(C,)` of the next one; in the blank's place is that of the end. If it has an attribute
    `context`, it is given so many of the last labels. `CharacterNGram` is one. It is asked for each
    prefix that enters the beam. With equal scores the lowest label goes on.

    Scores are float64. Whole sequences and streams give the same bits, for any chunks.
    """

    def __init__(
        self,
        beam_size: int = 16,
        *,
        blank: int = 0,
        n_best: int = 1,
        language_model: LanguageModel | None = None,
        lm_weight: float = 1.0,
        label_bonus: float = 0.0,
        batch_first: bool = False,
    ) -> None:
        self.beam_size, self.blank = (
            check_size("beam_size", beam_size),
            check_count("blank", blank, 0),
        )
        self.n_best = check_count("n_best", n_best)
        if language_model is not None and not callable(language_model):
            kind = type(language_model).__name__
            raise TypeError(f"language_model must be a function of labels, got {kind}")
        self.language_model = language_model
        self.lm_weight = check_number("lm_weight", lm_weight)
        self.label_bonus = check_number("label_bonus", label_bonus)
        self.batch_first = check_flag("batch_first", batch_first)

    def __call__(
        self, logits: npt.ArrayLike, lengths: npt.ArrayLike | None = None
    ) -> list[list[Transcript]]:
        """Return the `n_best` transcripts of each sequence of logits `(T, B, C)` or `(T, C)`."""
        found = []
        for x in _sequences(logits, lengths, self.blank, self.batch_first):
            stream = self.stream()
            stream.feed(x)
            found.append(stream.finish())
        return found

    def stream(self) -> CTCStream:
        """Return a search of one sequence that is fed frames as they come."""
        return CTCStream(self)


class _Prefix:
    """The last label of a prefix, and the prefix before it."""

    __slots__ = ("before", "label", "longer")

    def __init__(self, before: _Prefix | None, label: int) -> None:
        self.before, self.label = before, label
        self.longer: dict[int, _Prefix] = {}

    def with_label(self, label: int) -> _Prefix:
        if label not in self.longer:
            self.longer[label] = _Prefix(self, label)
        return self.longer[label]

    def labels(self, most: int | None = None) -> list[int]:
        """Its labels since the root, or the last of them."""
        found: list[int] = []
        at = self
        while at.before is not None and (most is None or len(found) < most):
            found.append(at.label)
            at = at.before
        return found[::-1]


class CTCStream:
    """A prefix beam search that goes on with each chunk of frames."""

    def __init__(self, search: CTCBeamSearch) -> None:
        self._search = search
        self._settled: list[int] = []  # labels that all prefixes share
        self._root = _Prefix(None, -1)
        self._prefixes = [self._root]
        # log p of the prefix by paths that end in a blank, and in its last label
        self._ends = np.array([[0.0], [-np.inf]])
        self._counts = np.zeros(1, np.int64)
        self._lm = np.zeros(1)  # log p of the prefix by the language model
        self._next_lm: Array | None = None  # (prefixes, C) of the label after it
        self._frames = 0

    def feed(self, logits: npt.ArrayLike) -> None:
        """Go on with frames of logits `(T, C)`, as many as there are."""
        x = read_frames(logits, None, False)
        if x.batched:
            raise ValueError(f"logits must have shape (T, C), got {x.logits.shape}")
        classes = x.logits.shape[-1]
        check_blank(self._search.blank, classes)
        if self._next_lm is not None and self._next_lm.shape[1] != classes:
            raise ValueError(f"logits must have {self._next_lm.shape[1]} classes, got {classes}")
        if self._next_lm is None:
            self._next_lm = np.stack([self._ask(self._root, classes)])
        with np.errstate(invalid="ignore"):  # NaN is looked for where prefixes are chosen
            for log_p in log_softmax(x.logits[:, 0]):
                self._step(log_p)

    @property
    def best(self) -> list[Transcript]:
        """The `n_best` transcripts of the frames so far, as if more were to come."""
        return self._transcripts(np.zeros(len(self._prefixes)))

    def finish(self) -> list[Transcript]:
        """Return the `n_best` transcripts, the end of the text included."""
        if self._next_lm is None:
            return self.best
        return self._transcripts(self._next_lm[:, self._search.blank])

    def _transcripts(self, end: Array) -> list[Transcript]:
        log_probs = np.logaddexp(*self._ends)
        scores = self._scores(log_probs, self._lm + end, self._counts)
        order = np.argsort(-scores, kind="stable")[: self._search.n_best]
        return [
            Transcript(
                np.array(self._labels(self._prefixes[i]), np.int64),
                float(scores[i]),
                float(log_probs[i]),
            )
            for i in order
        ]

    def _scores(self, log_probs: Array, lm: Array, counts: Array) -> Array:
        search = self._search
        scores: Array = log_probs
        if search.language_model is not None and search.lm_weight:
            scores = scores + search.lm_weight * lm
        if search.label_bonus:
            scores = scores + search.label_bonus * counts
        return scores

    def _step(self, log_p: Array) -> None:
        """Take a frame: log-probabilities (C,)."""
        assert self._next_lm is not None
        blank = self._search.blank
        last = np.array([prefix.label for prefix in self._prefixes])
        total, rows = np.logaddexp(*self._ends), np.arange(len(last))
        to_blank = total + log_p[blank]
        same = np.where(last >= 0, self._ends[1] + log_p[last], -np.inf)
        # A label that follows itself is a new one only behind a blank.
        longer = total[:, None] + log_p
        longer[rows, last] = np.where(last >= 0, self._ends[0] + log_p[last], longer[rows, last])
        longer[:, blank] = -np.inf
        at = {id(prefix): row for row, prefix in enumerate(self._prefixes)}
        for row, prefix in enumerate(self._prefixes):  # what gets longer may be one of them
            shorter = at.get(id(prefix.before))
            if shorter is not None:
                same[row] = np.logaddexp(same[row], longer[shorter, prefix.label])
                longer[shorter, prefix.label] = -np.inf
        ends = np.stack([to_blank, same])
        counts = self._counts[:, None] + np.array([0, 1])
        scores = np.concatenate(
            [
                self._scores(np.logaddexp(*ends), self._lm, counts[:, 0])[:, None],
                self._scores(longer, self._lm[:, None] + self._next_lm, counts[:, 1:]),
            ],
            axis=1,
        )
        rows, places = likeliest(scores, self._search.beam_size)
        if not len(rows):
            raise ValueError(
                f"logits: no class is possible at frame {self._frames} (NaN, or -inf for all)"
            )
        self._take(rows, places - 1, ends, longer)
        self._frames += 1
        if self._frames % _FRAMES == 0:
            self._settle()

    def _take(self, rows: Array, labels: Array, ends: Array, longer: Array) -> None:
        """Go on with these prefixes, each longer by a label, or as it is (-1)."""
        assert self._next_lm is not None
        stays = labels < 0
        self._ends = np.where(
            stays, ends[:, rows], np.stack([np.full(len(rows), -np.inf), longer[rows, labels]])
        )
        self._counts = self._counts[rows] + ~stays
        self._lm = self._lm[rows] + np.where(stays, 0, self._next_lm[rows, labels])
        self._prefixes = [
            self._prefixes[row] if label < 0 else self._prefixes[row].with_label(int(label))
            for row, label in zip(rows, labels, strict=True)
        ]
        self._next_lm = self._next_lm[rows]
        if self._search.language_model is not None:
            for row in np.flatnonzero(~stays):
                self._next_lm[row] = self._ask(self._prefixes[row], self._next_lm.shape[1])

    def _labels(self, prefix: _Prefix, most: int | None = None) -> list[int]:
        """Return the labels of a prefix, or the last of them."""
        own = prefix.labels(most)
        missing = len(self._settled) if most is None else most - len(own)
        return (self._settled[-missing:] if missing else []) + own

    def _ask(self, prefix: _Prefix, classes: int) -> Array:
        """Return the language model's log-probabilities of what follows."""
        model: Any = self._search.language_model
        if model is None:
            return np.zeros(classes)
        labels = self._labels(prefix, getattr(model, "context", None))
        found = np.asarray(model(tuple(labels)), np.float64)
        if found.shape != (classes,):
            raise ValueError(
                f"language_model must return an array of shape ({classes},), got {found.shape}"
            )
        if np.isnan(found).any():
            raise ValueError(f"language_model returned NaN behind the labels {short(labels)}")
        return found

    def _settle(self) -> None:
        """Let go of prefixes that nothing follows, and of what all have in common."""
        kept: dict[int, _Prefix] = {}
        for prefix in self._prefixes:
            at: _Prefix | None = prefix
            while at is not None and id(at) not in kept:
                kept[id(at)] = at
                at = at.before
        for node in kept.values():
            node.longer = {k: p for k, p in node.longer.items() if id(p) in kept}
        living = {id(prefix) for prefix in self._prefixes}
        while id(self._root) not in living and len(self._root.longer) == 1:
            (self._root,) = self._root.longer.values()
            self._settled.append(self._root.label)
        self._root.before = None


def _sequences(
    logits: npt.ArrayLike, lengths: npt.ArrayLike | None, blank: int, batch_first: bool
) -> list[Array]:
    """Return the frames (T_b, C) of each sequence that count."""
    frames = read_frames(logits, lengths, batch_first)
    check_blank(check_count("blank", blank, 0), frames.logits.shape[-1])
    by_row = frames.logits if batch_first else frames.logits.transpose(1, 0, 2)
    return [x[:length] for x, length in zip(by_row, frames.lengths, strict=True)]
