"""Classes of whole sequences, and of their steps."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, validate_data

from ..arrays import Array
from ..batches import Batch
from ..losses import SoftmaxCrossEntropy, length_mask
from ..module import Module
from ..stack import Layers
from .base import SequenceEstimator, WholeSequence
from .sequences import Sequences


class Labels(ClassifierMixin, SequenceEstimator):
    """What estimators of labels share: numbers for them, and their probabilities."""

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> Any:
        """Make one pass over X and y, going on from what was learnt before.

        classes: all labels that there will be, for the first call, if its y lacks some.
        """
        return self._partial_fit(X, y, classes)

    def _number(self, y: Any, first: bool, classes: Any) -> Array:
        """Return each label's place in `classes_`."""
        y = validate_data(self, y=y)
        check_classification_targets(y)
        known = np.unique(y if classes is None else classes)
        if first:
            self.classes_ = known
        elif classes is not None and not np.array_equal(known, self.classes_):
            raise ValueError(f"classes were {self.classes_} at the first call, now {known}")
        unknown = np.setdiff1d(y, self.classes_)
        if len(unknown):
            raise ValueError(f"y has labels that are not among the classes: {unknown}")
        places: Array = np.searchsorted(self.classes_, y)
        return places

    def _outputs(self, targets: Any) -> int:
        return len(self.classes_)

    def _loss(self) -> SoftmaxCrossEntropy:
        return SoftmaxCrossEntropy()

    def _probabilities(self, X: Any) -> tuple[Sequences, Array]:
        x, logits = self._infer(X)
        p = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        return x, p


class SequenceClassifier(Labels, WholeSequence):
    """The class of a whole sequence, learnt with softmax and cross-entropy.

    y `(N,)`: labels of any kind. Parameters: `SequenceEstimator`, and reading: what the last,
    linear layer sees, "last" (the states in which the recurrent layers end) or "mean" (the mean of
    their outputs).
    """

    def _targets(self, x: Sequences, y: Any, first: bool, classes: Any) -> Array:
        if y is not None:
            check_consistent_length(x.lengths, y)
        return self._number(y, first, classes)

    def _strata(self, targets: Any) -> Array:
        return np.asarray(targets)

    def predict(self, X: Any) -> Array:
        """Return the likeliest class of each sequence, `(N,)`."""
        _, logits = self._infer(X)
        labels: Array = self.classes_[logits.argmax(axis=1)]
        return labels

    def predict_proba(self, X: Any) -> Array:
        """Return the probabilities of `classes_`, `(N, K)`."""
        return self._probabilities(X)[1]

    def predict_log_proba(self, X: Any) -> Array:
        """Return the logarithms of `predict_proba`."""
        return np.log(self.predict_proba(X))


class SequenceLabeller(Labels):
    """A label for each step of a sequence, learnt with softmax and cross-entropy.

    y has the form of X: `(N, T)` for an array, a list of arrays `(T_n,)` for a list, `(N,)` for a
    table; so do predictions. Every step counts the same, in the loss and in `score`. Parameters:
    `SequenceEstimator`.
    """

    def _targets(self, x: Sequences, y: Any, first: bool, classes: Any) -> Array:
        labels = None if y is None else x.flatten("y", y)
        if labels is not None:
            check_consistent_length(x.steps, labels)
        return self._number(labels, first, classes)

    def _encoder(self, layer: Layers) -> Module:
        return layer

    def _batch(self, x: Sequences, targets: Any, rows: Array) -> Batch:
        part = x.pick(rows)
        inputs, lengths = part.padded()
        labels, _ = part.padded(targets)
        if lengths is None:
            return Batch(inputs, labels)
        return Batch(inputs, labels, lengths, length_mask(lengths, inputs.shape[1], True))

    def predict(self, X: Any) -> Any:
        """Return the likeliest label of each step, in the form of X."""
        x, logits = self._infer(X)
        return x.restore(self.classes_[logits.argmax(axis=1)])

    def predict_proba(self, X: Any) -> Any:
        """Return the probabilities of `classes_` at each step, in the form of X."""
        x, p = self._probabilities(X)
        return x.restore(p)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the share of steps whose label is right; sample_weight: one for each step."""
        x, logits = self._infer(X)
        found = self.classes_[logits.argmax(axis=1)]
        weight = None if sample_weight is None else x.flatten("sample_weight", sample_weight)
        return float(accuracy_score(x.flatten("y", y), found, sample_weight=weight))
