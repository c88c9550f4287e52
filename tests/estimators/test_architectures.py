"""Depth in four places, layers of one's own and schedules, in every kind of estimator."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import rnncore
from rnncore import Linear, cells
from rnncore.estimators import (
    Forecaster,
    SequenceClassifier,
    SequenceLabeller,
    SequenceRegressor,
    SequenceTranscriber,
)
from sklearn.base import clone

RNG = np.random.default_rng(0)
X = [RNG.standard_normal((n, 2)).astype("f") for n in RNG.integers(4, 9, 30)]
SIGNS = np.array([x[:, 0].sum() > 0 for x in X])
DEEP = {"input_depth": 3, "transition_depth": 2, "output_depth": 2, "hidden_size": 5}
TASKS: list[tuple[Any, Any]] = [
    (SequenceClassifier, SIGNS),
    (SequenceRegressor, np.array([x.sum() for x in X])),
    (SequenceLabeller, [x[:, 0] > 0 for x in X]),
    (SequenceTranscriber, ["ab" if sign else "b" for sign in SIGNS]),
    (Forecaster, None),
]


@pytest.mark.parametrize(("kind", "y"), TASKS, ids=lambda case: getattr(case, "__name__", ""))
def test_depth(kind: Any, y: Any) -> None:
    model = kind(cell="rnn", max_iter=2, random_state=0, **DEEP).fit(X, y)
    assert model.predict(X) is not None
    shapes = {n: p.shape for n, p in model.network_.params.items() if n.startswith("0.")}
    assert [shape for n, shape in shapes.items() if n.endswith("weight")] == [(5, 2), (5, 5)]
    hidden = [n for n in model.network_.params if n.startswith("1.") and "weight_hh" in n]
    assert len(hidden) == 2  # a transition of two
    assert model.network_.params["2.0.weight"].shape == (5, 5)
    assert np.isfinite(model.history_[-1]["train_loss"])


def test_a_cell_that_reads_columns_has_no_layers_before_it() -> None:
    model = SequenceClassifier(cell=cells.shelf.cfc, input_depth=2)
    with pytest.raises(ValueError, match="input_depth must be 1"):
        model.fit(X, SIGNS)


def test_a_depth_of_one_is_the_plain_network() -> None:
    plain = SequenceClassifier(random_state=0, max_iter=2).fit(X, SIGNS)
    assert [type(layer).__name__ for layer in plain.network_.layers] == [
        *("Readout", "Dropout", "Linear"),
    ]


def test_a_cell_may_be_a_class_or_a_function() -> None:
    def remembering(*sizes: Any, **options: Any) -> Any:
        layer = rnncore.LSTM(*sizes, **options)
        rnncore.init.set_forget_bias(layer, 3.0)
        return layer

    by_name, by_class, own = (
        SequenceClassifier(cell=cell, random_state=0).initialise(X, SIGNS)
        for cell in ("lstm", rnncore.LSTM, remembering)
    )
    for name, array in by_name.network_.params.items():
        np.testing.assert_array_equal(by_class.network_.params[name], array)
    bias = own.network_.params["0.layer.bias_ih_l0"].reshape(4, -1)
    assert np.all(bias[1] == 3)
    assert clone(own).cell is remembering
    with pytest.raises(ValueError, match=r"cell must be .*, got 'no'"):
        SequenceClassifier(cell="no").fit(X, SIGNS)


def test_initialise_is_where_fit_begins() -> None:
    begun = SequenceClassifier(random_state=3).initialise(X, SIGNS)
    fitted = SequenceClassifier(random_state=3, learning_rate=0.0, max_iter=1).fit(X, SIGNS)
    for name, array in begun.network_.params.items():
        np.testing.assert_array_equal(fitted.network_.params[name], array)
    assert list(begun.predict(X)) == list(fitted.predict(X))
    assert isinstance(begun.network_[-1], Linear)


class TestSchedule:
    def test_the_rate_rises_and_falls(self, monkeypatch: pytest.MonkeyPatch) -> None:
        rates: list[float] = []
        step = rnncore.AdamW.step

        def seen(self: Any) -> None:
            rates.append(self.lr(self.steps) if callable(self.lr) else self.lr)
            step(self)

        monkeypatch.setattr(rnncore.AdamW, "step", seen)
        model = SequenceClassifier(schedule="cosine", max_iter=20, batch_size=16, random_state=0)
        model.fit(X, SIGNS)
        assert len(rates) == 40
        assert max(rates) == rates[4] == pytest.approx(5e-3)
        assert rates[4:] == sorted(rates[4:], reverse=True)
        assert rates[-1] < 0.1 * rates[4]
        assert model.partial_fit(X, SIGNS).n_iter_ == 21
        assert rates[40:] == [5e-3] * 2

    def test_it_is_pickled(self) -> None:
        model = SequenceClassifier(schedule="cosine", max_iter=2, random_state=0).fit(X, SIGNS)
        copy = pickle.loads(pickle.dumps(model))
        assert list(copy.predict(X)) == list(model.predict(X))

    def test_others_are_refused(self) -> None:
        with pytest.raises(ValueError, match="schedule must be"):
            SequenceClassifier(schedule="linear").fit(X, SIGNS)
