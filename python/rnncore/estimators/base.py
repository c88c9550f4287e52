"""What the estimators share: their parameters, and fitting by the library's own trainer."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from ..arrays import Array, check_choice, check_size
from ..batches import Batch
from ..compositions.chain import Chain
from ..compositions.deep import feed_forward
from ..compositions.ragged import length_mask
from ..compositions.readout import Readout
from ..hinting import Hinting, put_hints
from ..hints import ESTIMATOR, FITTED
from ..layers.dropout import Dropout
from ..layers.linear import Linear
from ..losses import Objective
from ..module import Module
from ..optim import AdamW
from ..recurrent.registry import LayerMaker, layer_maker
from ..recurrent.regularisers import rate
from ..recurrent.stack import Stacked
from ..schedules import warmup_cosine
from ..training.plots import plot_history
from ..training.trainer import Trainer, evaluate
from .sequences import Sequences, read
from .weights import ByWeight, check_weights, evened, mean_weight, weight_field

#: What may have several feed-forward layers.
DEPTHS = ("input", "output")
#: Sequences at a time where nothing is learnt.
AT_ONCE = 256


@dataclass(kw_only=True, eq=False, repr=False)
class SequenceEstimator(Hinting, BaseEstimator):
    """Base of the estimators. Its parameters are those of all:

    - cell: a name of `rnncore.recurrent.registry.LAYERS`, as "lstm", a cell of one's own
      (`rnncore.cells`), whose inputs are the last columns of X, or whatever makes a recurrent layer
      as those classes do, `cell(input_size, hidden_size, num_layers, batch_first=True, ...)`;
      hidden_size, num_layers, bidirectional; dropout, between the layers and before the last,
      linear one; cell_options, a dict of further keywords of the layer (`rnncore.recurrent`)
    - input_depth, transition_depth, output_depth: how many layers there are from the input to the
      hidden state, from one hidden state to the next, and from it to what the last, linear layer
      sees, as in `DeepRNN` (Pascanu et al. 2014); those before and behind are tanh layers of
      hidden_size units
    - max_iter passes over the data, in batches of batch_size sequences, by AdamW with learning_rate
      and weight_decay, gradients clipped to clip_norm (None: not at all); schedule: "constant", or
      "cosine", which lets the learning rate fall to a twentieth in a fit's passes, after 100
      updates, or a tenth of all, in which it rises. `partial_fit` makes passes of one constant rate
    - early_stopping: a share of the sequences, validation_fraction, is set aside; training ends
      after n_iter_no_change passes without a lower loss on them, and the best parameters are kept
    - dtype, "float32" or "float64", to which X is converted
    - random_state, as in scikit-learn; verbose: a progress bar and a line for every pass

    After a fit: `network_`, a module; `n_iter_`, passes made; `history_`, a dict per pass with
    epoch, step, train_loss, validation_loss, seconds; `n_features_in_`, and `feature_names_in_` if
    X has names of columns. Which forms of X there are: `rnncore.estimators`.
    """

    cell: str | LayerMaker | Callable[..., Any] = "lstm"
    hidden_size: int = 32
    num_layers: int = 1
    bidirectional: bool = False
    input_depth: int = 1
    transition_depth: int = 1
    output_depth: int = 1
    dropout: float = 0.0
    cell_options: dict[str, Any] | None = None
    max_iter: int = 50
    batch_size: int = 32
    learning_rate: float = 5e-3
    schedule: str = "constant"
    weight_decay: float = 0.0
    clip_norm: float | None = 1.0
    early_stopping: bool = False
    validation_fraction: float = 0.1
    n_iter_no_change: int = 10
    dtype: str = "float32"
    random_state: Any = None
    verbose: bool = False

    _hints: ClassVar[Mapping[str, str]] = ESTIMATOR
    #: What a loss is counted in, for the picture.
    _unit: ClassVar[str] = "nats"

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Learn from sequences X and targets y, forgetting what was learnt before.

        sample_weight `(N,)`: how much each sequence counts, at least 0; 0 is as if it were absent.
        """
        self.__dict__.pop(
            "network_", None
        )  # a fit that fails leaves nothing that would mix with it
        x, targets = self._load(X, y, sample_weight, first=True)
        self._make_network(self._outputs(targets))
        return self._train(x, targets, self.max_iter, self.early_stopping, self.schedule)

    def initialise(self, X: Any, y: Any = None) -> Any:
        """Make the network that `fit` would begin with, `network_`, and return the estimator."""
        _, targets = self._load(X, y, first=True)
        self._make_network(self._outputs(targets))
        return self

    def _partial_fit(self, X: Any, y: Any, sample_weight: Any, classes: Any = None) -> Any:
        first = not hasattr(self, "network_")
        x, targets = self._load(X, y, sample_weight, first=first, classes=classes)
        if first:
            self._make_network(self._outputs(targets))
        return self._train(x, targets, 1, early_stopping=False)

    def plot_history(self, path: str | os.PathLike[str] | None = None, *, ax: Any = None) -> Any:
        """Draw the losses in `history_`; return the figure. Needs matplotlib: `rnncore[plot]`.

        path: a file to be saved, whose ending chooses the format; ax: matplotlib axes to draw into.
        """
        check_is_fitted(self, "network_")
        return plot_history(self.history_, path, self._unit, ax=ax)

    # What each kind of estimator says of itself.

    def _targets(self, x: Sequences, y: Any, first: bool, classes: Any) -> Any:
        """Check y and return it as the loss takes it, over sequences or over all steps.

        With `first`, learn what there is to learn about targets; classes: labels told beforehand.
        """
        raise NotImplementedError

    def _outputs(self, targets: Any) -> int:
        """How many outputs the network has."""
        raise NotImplementedError

    def _loss(self) -> Objective:
        raise NotImplementedError

    def _encoder(self, layer: Stacked) -> Module:
        """Return what the linear layer sees of the recurrent layers."""
        return Readout(layer)

    def _behind(self, outputs: int, seed: np.random.Generator) -> tuple[Module, ...]:
        """Return what comes behind the linear layer."""
        return ()

    def _batch(self, x: Sequences, targets: Any, rows: Array) -> Batch:
        part = x.pick(rows)
        inputs, lengths = part.padded()
        weights = None if part.weights is None else part.weights.astype(self.dtype)
        return Batch(inputs, targets[rows], lengths, weights)

    def _split(self, count: int, stratify: Array | None) -> tuple[Array, Array]:
        """Return rows to learn from, and rows to validate on."""
        train, validation = train_test_split(
            np.arange(count),
            test_size=self.validation_fraction,
            random_state=int(self._rng.integers(2**31)),
            stratify=stratify,
        )
        return train, validation

    def _strata(self, targets: Any) -> Array | None:
        """Return the class of each row, if parts of the data are to have their shares of each."""
        return None

    # What all do alike.

    def _load(
        self, X: Any, y: Any, sample_weight: Any = None, *, first: bool, classes: Any = None
    ) -> tuple[Sequences, Any]:
        x = self._sequences(X, first, sample_weight)
        targets = self._targets(x, y, first, classes)
        return self._weighed(x, targets), targets

    def _sequences(self, X: Any, first: bool, sample_weight: Any = None) -> Sequences:
        return self._with_weights(read(self, X, reset=first, dtype=self.dtype), sample_weight)

    def _with_weights(self, x: Sequences, sample_weight: Any) -> Sequences:
        return x._replace(weights=check_weights(sample_weight, len(x.lengths)))

    def _weighed(self, x: Sequences, targets: Any) -> Sequences:
        """Return x with weights of about 1, those of classes in them."""
        return x if x.weights is None else x._replace(weights=evened(x.weights))

    def _rows(self, x: Sequences) -> Array:
        """Return the sequences that there is something to learn from, or to tell of."""
        return np.arange(len(x.lengths)) if x.weights is None else np.flatnonzero(x.weights)

    def _make_network(self, outputs: int) -> None:
        seed = np.random.SeedSequence(check_random_state(self.random_state).randint(2**31))
        self._rng, *parts = (np.random.default_rng(part) for part in seed.spawn(6))
        depths = [check_size(f"{name}_depth", getattr(self, f"{name}_depth")) for name in DEPTHS]
        widths = [self.hidden_size] * (depths[0] - 1)
        before = self._feed_forward([self.n_features_in_, *widths], parts[4])
        features = self._own_features()
        recurrence = self._recurrence(widths[-1] if widths else features, parts[0])
        widths = [recurrence.directions * recurrence.output_size]
        widths += [self.hidden_size] * (depths[1] - 1)
        self.network_ = Chain(
            *before,
            self._encoder(recurrence),
            *self._feed_forward(widths, parts[4]),
            Dropout(self.dropout, seed=parts[1]),
            Linear(widths[-1], outputs, dtype=self.dtype, seed=parts[2]),
            *self._behind(outputs, parts[3]),
        )
        self._optimiser = AdamW(self.network_, self.learning_rate, weight_decay=self.weight_decay)
        self.n_iter_ = 0
        self.history_: list[dict[str, Any]] = []

    def _own_features(self) -> int:
        """Return how many columns of X are features: a cell may read the last as they are."""
        columns: int = self.n_features_in_
        if not isinstance(self.cell, LayerMaker):
            return columns
        features = self.cell.features(columns, self.hidden_size)
        if features < columns and self.input_depth > 1:
            raise ValueError(
                "input_depth must be 1: the cell reads the last columns of X as they are"
            )
        return features

    def _recurrence(self, input_size: int, seed: np.random.Generator) -> Stacked:
        """Return the recurrent layers."""
        make = self.cell if callable(self.cell) else layer_maker("cell", self.cell)
        options = dict(self.cell_options or {})
        if self.transition_depth != 1:  # not every cell has them
            options["transition_depth"] = self.transition_depth
        dropout = rate("dropout", self.dropout)
        layer: Stacked = make(
            input_size,
            self.hidden_size,
            self.num_layers,
            batch_first=True,
            dropout=dropout if self.num_layers > 1 else 0.0,
            bidirectional=self.bidirectional,
            dtype=self.dtype,
            seed=seed,
            **options,
        )
        return layer

    def _feed_forward(self, widths: list[int], seed: np.random.Generator) -> tuple[Module, ...]:
        """Return layers from each width to the next, one module if there are any."""
        if len(widths) < 2:
            return ()
        return (feed_forward(widths, "tanh", 0.0, self.dtype, seed),)

    def _train(
        self,
        x: Sequences,
        targets: Any,
        passes: int,
        early_stopping: bool,
        schedule: str = "constant",
    ) -> Any:
        size, model = check_size("batch_size", self.batch_size), self._learner()
        loss: Objective = self._loss()
        rows = held_out = self._rows(x)
        if early_stopping:
            if not 0 < self.validation_fraction < 1:
                raise ValueError(
                    f"validation_fraction must be between 0 and 1, got {self.validation_fraction}"
                )
            strata = self._strata(targets)
            parts = self._split(len(rows), None if strata is None else strata[rows])
            rows, held_out = (rows[part] for part in parts)
        if x.weights is not None or x.step_weights is not None:
            batches = (self._batch(x, targets, part) for part in _parts(rows, AT_ONCE))
            field = weight_field(loss)
            loss = ByWeight(loss, mean_weight(getattr(batch, field) for batch in batches))
        passes = check_size("max_iter", passes)
        updates = -(-len(rows) // size)
        self._optimiser.lr = self._rate(schedule, passes * updates)

        def epoch(rng: np.random.Generator) -> Iterator[Batch]:
            order = rng.permutation(rows)
            return (self._batch(x, targets, part) for part in _parts(order, size))

        def validate() -> float:
            parts = _parts(held_out, AT_ONCE)
            return evaluate(model, loss, (self._batch(x, targets, part) for part in parts))

        trainer = Trainer(
            model,
            loss,
            self._optimiser,
            epoch,
            validate=validate if early_stopping else None,
            clip_norm=self.clip_norm,
            seed=self._rng,
        )
        patience = check_size("n_iter_no_change", self.n_iter_no_change)
        trainer.fit(
            passes * updates,
            validate_every=updates,
            patience=patience if early_stopping else None,
            show_progress=bool(self.verbose),
            quiet=not self.verbose,
        )
        trainer.restore_best()
        self._optimiser.lr = self.learning_rate  # a schedule would not be pickled
        self._note(trainer.history)
        return self

    def _rate(self, schedule: str, updates: int) -> Any:
        """The learning rate of a fit of so many updates."""
        if check_choice("schedule", schedule, ("constant", "cosine")) == "constant" or updates < 2:
            return self.learning_rate
        warmup = min(100, updates // 10)
        return warmup_cosine(self.learning_rate, updates, warmup, 0.05 * self.learning_rate)

    def _learner(self) -> Chain:
        """The network as it is trained."""
        return self.network_

    def _note(self, records: list[dict[str, Any]]) -> None:
        """Add the records of a run to the history, counting on from those before it."""
        before = self.history_[-1] if self.history_ else {"step": 0, "seconds": 0.0}
        for record in records:
            self.n_iter_ += 1
            counted = {key: before[key] + record[key] for key in ("step", "seconds")}
            self.history_.append({**record, **counted, "epoch": self.n_iter_})

    def _infer(
        self, X: Any, read: Callable[[Array, Array], Array] | None = None
    ) -> tuple[Sequences, Array]:
        """Check X and return its sequences and the network's outputs, over them or all steps.

        read: makes of outputs `(N, T, K)` and lengths `(N,)` what is to be returned of each step.
        """
        check_is_fitted(self, "network_")
        x = self._sequences(X, first=False)
        outputs, rows = [], self._rows(x)
        for part in x.batches(rows if len(rows) else np.arange(1), AT_ONCE):
            inputs, lengths = part.padded()
            out, _ = self.network_(inputs, lengths=lengths)
            if read is not None:
                out = read(out, part.lengths)
            if out.ndim == 3 or read is not None:
                inside = length_mask(part.lengths, inputs.shape[1], batch_first=True)
                out = out[inside]
            outputs.append(out)
        return x, np.concatenate(outputs)


put_hints(SequenceEstimator, FITTED)


@dataclass(kw_only=True, eq=False, repr=False)
class WholeSequence(SequenceEstimator):
    """Base of the estimators that say one thing of a whole sequence, and may choose how to read it.

    reading: what the last, linear layer sees, "last" (the states in which the recurrent layers end)
    or "mean" (the mean of their outputs). The other parameters: `SequenceEstimator`.
    """

    reading: str = "last"

    def _encoder(self, layer: Stacked) -> Module:
        return Readout(layer, self.reading)


def _parts(rows: Array, size: int) -> Iterator[Array]:
    return (rows[at : at + size] for at in range(0, len(rows), size))
