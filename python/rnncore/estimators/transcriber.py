"""Labels of sequences, fewer than their steps and not aligned with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from sklearn.utils.validation import check_consistent_length

from ..alignment.arguments import Labels
from ..alignment.ctc import CTCLoss, check_frames
from ..alignment.ctc_search import CTCBeamSearch, ctc_best_path
from ..alignment.edits import edit_distance
from ..alignment.scores import log_softmax
from ..arrays import Array, short
from ..batches import Batch
from ..losses import Objective
from ..module import Module
from ..recurrent.stack import Stacked
from .base import SequenceEstimator
from .sequences import Ragged, Sequences
from .targets import check_has_targets
from .weights import check_weights


@dataclass(kw_only=True, eq=False, repr=False)
class SequenceTranscriber(SequenceEstimator):
    """Labels of a sequence in their order, learnt without knowing where they are (CTC).

    y: for each sequence its labels, a string of characters or a list or array of labels of one
    kind; it may have none. They must be fewer than the steps: a label that follows itself needs a
    step between (`rnncore.CTCLoss`). Predictions are strings if all of y are, else arrays.

    beam_size: None takes the likeliest path, a number the best of so many prefixes
    (`rnncore.CTCBeamSearch`). The other parameters: `SequenceEstimator`. After a fit `classes_`
    holds the labels; class 0 of the network is the blank, class k + 1 is `classes_[k]`.
    """

    beam_size: int | None = None

    def predict(self, X: Any) -> Any:
        """Return the labels of each sequence, a list."""
        rows = self._log_probs(X)
        if self.beam_size is None:
            found = [ctc_best_path(row)[0] for row in rows]
        else:
            search = CTCBeamSearch(self.beam_size)
            found = [search(row)[0][0] for row in rows]
        labels = [self.classes_[transcript.labels - 1] for transcript in found]
        return Ragged("".join(row) for row in labels) if self._texts else Ragged(labels)

    def predict_log_proba(self, X: Any) -> Any:
        """Return log-probabilities `(T_n, K + 1)` of each sequence, a list: the blank, `classes_`.

        `rnncore.CTCBeamSearch` takes them, with a language model if there is one.
        """
        return Ragged(self._log_probs(X))

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return 1 less the label error rate: edit distances over the number of labels in y.

        sample_weight `(N,)`: how much both count, of each sequence.
        """
        check_has_targets(self, y)
        found, expected = self.predict(X), [list(row) for row in y]
        check_consistent_length(found, expected)
        given = check_weights(sample_weight, len(found))
        weights = np.ones(len(found)) if given is None else given
        total = float(weights @ [len(row) for row in expected])
        if not total:
            raise ValueError("y must have at least one label")
        return 1 - float(weights @ list(map(edit_distance, found, expected))) / total

    def _log_probs(self, X: Any) -> list[Array]:
        x, logits = self._infer(X)
        return np.split(log_softmax(logits), np.cumsum(x.lengths)[:-1])

    # What there is to learn.

    def _targets(self, x: Sequences, y: Any, first: bool, classes: Any) -> Labels:
        check_has_targets(self, y)
        check_consistent_length(x.lengths, y)
        rows = [_labels(at, row) for at, row in enumerate(y)]
        try:
            flat = np.array(list(chain.from_iterable(rows)))
            known = np.unique(flat)
        except (TypeError, ValueError) as error:
            raise ValueError(f"y must be labels of one kind: {error}") from error
        if first:
            self.classes_ = known
            self._texts = all(isinstance(row, str) for row in y)
        unknown = np.setdiff1d(known, self.classes_)
        if len(unknown):
            raise ValueError(f"y has labels that are not among the classes: {unknown}")
        places = np.searchsorted(self.classes_, flat) + 1
        labels = Labels(places.astype(np.int64), np.array([len(row) for row in rows]))
        check_frames(x.lengths, labels)
        return labels

    def _outputs(self, targets: Any) -> int:
        return len(self.classes_) + 1

    def _loss(self) -> Objective:
        return CTCLoss(batch_first=True)

    def _encoder(self, layer: Stacked) -> Module:
        return layer

    def _rows(self, x: Sequences) -> Array:
        """Return the sequences that have steps, and count."""
        counts = x.lengths if x.weights is None else x.lengths * (x.weights > 0)
        return np.flatnonzero(counts)

    def _batch(self, x: Sequences, targets: Labels, rows: Array) -> Batch:
        part = x.pick(rows)
        inputs, lengths = part.padded()
        labels, counts = targets.padded(rows)
        return Batch(inputs, labels, lengths, target_lengths=counts, weights=part.weights)


def _labels(at: int, row: Any) -> list[Any]:
    """Return the labels of a sequence; `ValueError` if it is none."""
    if isinstance(row, (str, Sequence)) or (isinstance(row, np.ndarray) and row.ndim == 1):
        return list(row)
    raise ValueError(
        f"y must have a string, list or array of labels for each sequence, got {short(row)} "
        f"for sequence {at}"
    )
