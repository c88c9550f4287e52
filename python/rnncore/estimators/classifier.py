"""Classes of whole sequences, and of their steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from ..alignment.crf import CRF, CRFLoss
from ..arrays import Array, check_flag, short
from ..batches import Batch
from ..compositions.ragged import length_mask
from ..losses import Objective, SoftmaxCrossEntropy
from ..module import Module
from ..recurrent.stack import Stacked
from .base import SequenceEstimator, WholeSequence
from .sequences import Sequences
from .targets import as_labels, check_has_targets
from .weights import check_weights, class_factors, evened, sequence_weights


@dataclass(kw_only=True, eq=False, repr=False)
class Labels(ClassifierMixin, SequenceEstimator):
    """What estimators of labels share: numbers for them, and their probabilities.

    class_weight: how much the labels of each class count; None: all alike; a dict by label; or
    "balanced": as much as makes all classes have the same weight. It multiplies sample_weight. The
    other parameters: `SequenceEstimator`.
    """

    class_weight: Any = None

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Any:
        """Make one pass over X and y, going on from what was learnt before.

        classes: all labels that there will be, for the first call, if its y lacks some.
        """
        return self._partial_fit(X, y, sample_weight, classes)

    def _number(self, y: Any, weights: Array | None, first: bool, classes: Any) -> Array:
        """Return each label's place in `classes_`; what has no weight may have any place."""
        labels = as_labels(y)
        y = labels if weights is None else labels[weights > 0]
        known = np.unique(y if classes is None else classes)
        if first:
            self.classes_ = known
        elif classes is not None and not np.array_equal(known, self.classes_):
            raise ValueError(f"classes were {self.classes_} at the first call, now {known}")
        unknown = np.setdiff1d(y, self.classes_)
        if len(unknown):
            raise ValueError(f"y has labels that are not among the classes: {unknown}")
        places: Array = np.searchsorted(self.classes_, labels)
        return places

    def _factors(self, targets: Array, weights: Array | None) -> Array | None:
        """Return sample weights times those of classes, for each target, of about 1."""
        counted = slice(None) if weights is None else np.flatnonzero(weights)
        own = None if weights is None else weights[counted]
        factors = class_factors(self.class_weight, self.classes_, targets[counted], own)
        if factors is None:
            return None if weights is None else evened(weights)
        product = np.zeros(len(targets))
        product[counted] = factors[targets[counted]] * (1 if own is None else own)
        return evened(product)

    def _outputs(self, targets: Any) -> int:
        return len(self.classes_)

    def _loss(self) -> Objective:
        return SoftmaxCrossEntropy()

    def _probabilities(self, X: Any) -> tuple[Sequences, Array]:
        x, logits = self._infer(X)
        p = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        return x, p


@dataclass(kw_only=True, eq=False, repr=False)
class SequenceClassifier(Labels, WholeSequence):
    """The class of a whole sequence, learnt with softmax and cross-entropy.

    y `(N,)`: labels of any kind. Parameters: `SequenceEstimator`; class_weight, None, "balanced" or
    a dict of labels, which multiplies sample_weight; and reading: what the last, linear layer sees,
    "last" (the states in which the recurrent layers end) or "mean" (the mean of their outputs).
    """

    def _targets(self, x: Sequences, y: Any, first: bool, classes: Any) -> Array:
        check_has_targets(self, y)
        check_consistent_length(x.lengths, y)
        return self._number(y, x.weights, first, classes)

    def _weighed(self, x: Sequences, targets: Any) -> Sequences:
        return x._replace(weights=self._factors(targets, x.weights))

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


@dataclass(kw_only=True, eq=False, repr=False)
class SequenceLabeller(Labels):
    """A label for each step of a sequence, learnt with softmax and cross-entropy, or with a CRF.

    y has the form of X: `(N, T)` for an array, a list of arrays `(T_n,)` for a list, `(N,)` for a
    table; so do predictions. Every step counts the same, in the loss and in `score`, unless
    class_weight (None, "balanced" or a dict of labels) or sample_weight say otherwise; that is one
    for each sequence, `(N,)`, or for each step, in the form of X. The other parameters:
    `SequenceEstimator`.

    crf: whether the labels of a sequence are told together, by a `CRF` behind the linear layer
    (Huang et al. 2015): `predict` returns the likeliest sequence of labels, `predict_proba` the
    probabilities of each step given all of X. Its loss is one of whole sequences: class_weight must
    be None, and by sample_weight all steps of a sequence must count the same, or nothing: labels of
    steps of no weight are unknown to it.
    """

    crf: bool = False

    def _with_weights(self, x: Sequences, sample_weight: Any) -> Sequences:
        if sample_weight is None:
            return x
        given = x.given.spread("sample_weight", sample_weight)
        return x._replace(step_weights=check_weights(given, len(x.steps), "step"))

    def _targets(self, x: Sequences, y: Any, first: bool, classes: Any) -> Array:
        check_has_targets(self, y)
        if check_flag("crf", self.crf) and self.class_weight is not None:
            raise ValueError(
                "class_weight must be None with crf=True, whose loss is one of whole sequences: "
                f"sample_weight says how much each counts; got {short(self.class_weight)}"
            )
        labels = x.given.flatten("y", y)
        check_consistent_length(x.steps, labels)
        places = self._number(labels, x.step_weights, first, classes)
        if self.crf and x.step_weights is not None:
            places = np.where(x.step_weights > 0, places, -1)
        return places

    def _weighed(self, x: Sequences, targets: Any) -> Sequences:
        x = x._replace(step_weights=self._factors(targets, x.step_weights))
        whole = self.crf and x.step_weights is not None
        return x._replace(weights=sequence_weights(x)) if whole else x

    def _rows(self, x: Sequences) -> Array:
        """Return the sequences that have steps, some of which count."""
        counts = x.lengths
        if x.step_weights is not None:
            sums = np.append(0.0, np.cumsum(x.step_weights > 0))
            counts = sums[x.starts + x.lengths] - sums[x.starts]
        return np.flatnonzero(counts)

    def _encoder(self, layer: Stacked) -> Module:
        return layer

    def _behind(self, outputs: int, seed: np.random.Generator) -> tuple[Module, ...]:
        if not self.crf:
            return ()
        return (CRF(outputs, batch_first=True, dtype=self.dtype, seed=seed),)

    def _loss(self) -> Objective:
        crf = self._crf()
        return super()._loss() if crf is None else CRFLoss(crf, "token_mean")

    def _crf(self) -> CRF | None:
        """Return the CRF of a network that was fitted, if it has one."""
        check_is_fitted(self, "network_")
        last = self.network_[-1]
        return last if isinstance(last, CRF) else None

    def _batch(self, x: Sequences, targets: Any, rows: Array) -> Batch:
        part = x.pick(rows)
        inputs, lengths = part.padded()
        labels, _ = part.padded(targets)
        if self.crf:
            return Batch(inputs, labels, lengths, weights=part.weights)
        if x.step_weights is not None:
            weights, _ = part.padded(x.step_weights)
            return Batch(inputs, labels, lengths, weights.astype(self.dtype))
        if lengths is None:
            return Batch(inputs, labels)
        return Batch(inputs, labels, lengths, length_mask(lengths, inputs.shape[1], True))

    def predict(self, X: Any) -> Any:
        """Return the likeliest label of each step, or sequence of them, in the form of X."""
        x, places = self._places(X)
        return x.given.restore(self.classes_[places])

    def predict_proba(self, X: Any) -> Any:
        """Return the probabilities of `classes_` at each step, in the form of X."""
        crf = self._crf()
        x, p = self._probabilities(X) if crf is None else self._infer(X, crf.marginals)
        return x.given.restore(p)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the share of steps whose label is right; sample_weight: as for `fit`."""
        x, places = self._places(X)
        found, given = self.classes_[places], x.given
        weight = None if sample_weight is None else given.spread("sample_weight", sample_weight)
        return float(accuracy_score(given.flatten("y", y), found, sample_weight=weight))

    def _places(self, X: Any) -> tuple[Sequences, Array]:
        """Return for each step the place of its label in `classes_`."""
        crf = self._crf()
        if crf is not None:
            return self._infer(X, crf.decode)
        x, logits = self._infer(X)
        return x, logits.argmax(axis=1)
