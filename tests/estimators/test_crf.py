"""Labels told together, by a CRF: `SequenceLabeller(crf=True)`."""

import itertools
import pickle
from functools import partial

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="the estimators need scikit-learn")

from rnncore import CRF
from rnncore.estimators import SequenceLabeller
from sklearn.base import clone
from sklearn.model_selection import cross_val_predict
from sklearn.utils.estimator_checks import check_estimator

from .test_estimators import EXPECTED, LENGTHS, SMALL, assert_same
from .test_weights import EXACT, WHOLE, assert_same_network

Labeller = partial(SequenceLabeller, crf=True)


@pytest.fixture
def ragged(rng):
    return [rng.standard_normal((length, 3)) for length in LENGTHS]


def targets(x):
    return [np.where(np.cumsum(row[:, 0]) > 0, "up", "down") for row in x]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_check_estimator(dtype):
    refused = {"check_class_weight_classifiers": "a CRF's loss is one of whole sequences"}
    checks = check_estimator(
        Labeller(max_iter=25, hidden_size=16, dtype=dtype),
        on_skip=None,
        on_fail=None,
        expected_failed_checks=EXPECTED.get(dtype, {}) | refused,
    )
    assert not [check for check in checks if check["status"] == "failed"]


class TestWhatItSays:
    def test_the_best_sequence_and_the_marginals(self, ragged):
        model = Labeller(**SMALL).fit(ragged, targets(ragged))
        crf = model.network_[-1]
        assert isinstance(crf, CRF)
        found, probabilities = model.predict(ragged), model.predict_proba(ragged)
        for row, labels, p in zip(ragged, found, probabilities, strict=True):
            emissions, _ = model.network_(row[None].astype(np.float32))
            np.testing.assert_array_equal(labels, model.classes_[crf.decode(emissions)[0]])
            np.testing.assert_array_equal(p, crf.marginals(emissions)[0])
            np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-6)

    def test_arrays_lists_tables(self, rng):
        x = rng.standard_normal((6, 4, 3))
        y = np.array(targets(x))
        model = Labeller(**SMALL).fit(x, y)
        assert model.predict(x).shape == (6, 4)
        assert model.predict_proba(x).shape == (6, 4, 2)
        assert_same(Labeller(**SMALL).fit(list(x), list(y)).predict(list(x)), model.predict(x))
        table = Labeller(**SMALL).fit(x[:, 0], y[:, 0])
        assert table.predict(x[:, 0]).shape == (6,)

    def test_sequences_of_no_steps(self, ragged):
        x = [*ragged, np.zeros((0, 3))]
        model = Labeller(**SMALL).fit(x, targets(x))
        assert [len(row) for row in model.predict(x)] == [*LENGTHS, 0]
        assert model.predict([x[-1]])[0].shape == (0,)
        assert model.predict_proba([x[-1]])[0].shape == (0, 2)

    def test_a_score_counts_steps(self, ragged):
        y = targets(ragged)
        model = Labeller(**SMALL).fit(ragged, y)
        right = np.concatenate(model.predict(ragged)) == np.concatenate(y)
        assert model.score(ragged, y) == right.mean()

    def test_cross_validation(self, ragged):
        found = cross_val_predict(Labeller(**SMALL), ragged, targets(ragged), cv=3)
        assert [len(row) for row in found] == LENGTHS

    def test_copies(self, ragged):
        model = Labeller(**SMALL).fit(ragged, targets(ragged))
        assert clone(model).crf is True
        assert_same(pickle.loads(pickle.dumps(model)).predict(ragged), model.predict(ragged))
        parts = Labeller(**SMALL)
        for _ in range(3):
            parts.partial_fit(ragged, targets(ragged))
        assert_same_network(parts, model)

    def test_it_learns_what_follows_what(self, rng):
        """Labels that stay, in noise, of which the recurrent layer sees what came before."""
        y = [np.cumsum(rng.random(30) < 0.06) % 2 for _ in range(150)]
        x = [row[:, None] + 1.2 * rng.standard_normal((len(row), 1)) for row in y]
        options = {"cell": "rnn", "hidden_size": 4, "learning_rate": 0.02, "random_state": 0}
        plain = SequenceLabeller(**options).fit(x[:100], y[:100]).score(x[100:], y[100:])
        together = Labeller(**options).fit(x[:100], y[:100]).score(x[100:], y[100:])
        assert together > plain + 0.03


class TestWeights:
    def test_zero_is_absent(self, ragged):
        y, weights = targets(ragged), (WHOLE > 0).astype(float)
        kept = np.flatnonzero(weights)
        few = [[rows[at] for at in kept] for rows in (ragged, y)]
        options = {**EXACT, "batch_size": 3}
        model = Labeller(**options).fit(ragged, y, sample_weight=weights)
        assert_same_network(model, Labeller(**options).fit(*few))

    def test_a_whole_number_is_a_repetition(self, ragged):
        rows = ragged, targets(ragged)
        many = [
            list(itertools.chain(*([r] * n for r, n in zip(x, WHOLE, strict=True)))) for x in rows
        ]
        model = Labeller(**EXACT).fit(*rows, sample_weight=WHOLE)
        assert_same_network(model, Labeller(**EXACT).fit(*many), 1e-8)

    def test_steps_that_count_nothing_are_unknown(self, ragged):
        """Any label may stand there, and the steps beside them count as before."""
        y = targets(ragged)
        weights = [np.arange(len(row)) % 3 != 1 for row in y]
        other = [np.where(w, row, "?") for row, w in zip(y, weights, strict=True)]
        weights = [w * 2.0 for w in weights]
        model = Labeller(**EXACT).fit(ragged, y, sample_weight=weights)
        assert_same_network(model, Labeller(**EXACT).fit(ragged, other, sample_weight=weights))
        whole = Labeller(**EXACT).fit(ragged, y)
        assert any(
            (whole.network_.params[name] != array).any()
            for name, array in model.network_.params.items()
        )

    def test_early_stopping(self, ragged):
        model = Labeller(**EXACT, early_stopping=True, validation_fraction=0.4)
        model.fit(ragged, targets(ragged), sample_weight=WHOLE)
        assert all(record["validation_loss"] > 0 for record in model.history_)


class TestRefusals:
    def test_weights_that_differ_within_a_sequence(self, ragged):
        weights = [np.ones(length) for length in LENGTHS]
        weights[2] = np.arange(7.0)
        with pytest.raises(ValueError, match=r"in sequence 2 some count 6 times what others do"):
            Labeller(**SMALL).fit(ragged, targets(ragged), sample_weight=weights)

    @pytest.mark.parametrize("weight", ["balanced", {"up": 2.0}, {}])
    def test_weights_of_classes(self, weight, ragged):
        model = Labeller(**SMALL, class_weight=weight)
        for fit in (model.fit, model.partial_fit):
            with pytest.raises(ValueError, match=r"class_weight must be None with crf=True.*got "):
                fit(ragged, targets(ragged))
        assert not hasattr(model, "network_")

    def test_no_flag(self, ragged):
        with pytest.raises(TypeError, match="crf must be True or False, got 'BIO'"):
            SequenceLabeller(**SMALL, crf="BIO").fit(ragged, targets(ragged))
