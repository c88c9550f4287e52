"""The estimators: scikit-learn's contract, ragged lists, and what training promises."""

import itertools
import pickle

import numpy as np
import pytest
from rnncore.recurrent.registry import LAYERS

from tests.support.processes import run_python

pytest.importorskip("sklearn", reason="the estimators need scikit-learn")

from rnncore.estimators import (
    Forecaster,
    SequenceClassifier,
    SequenceLabeller,
    SequenceRegressor,
    SequenceScaler,
)
from sklearn import __version__ as sklearn_version
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

LENGTHS = [4, 1, 7, 3, 5, 2, 6, 7, 1, 4, 3, 5]
SMALL = {"hidden_size": 8, "max_iter": 3, "batch_size": 5, "random_state": 0}
# Whole weights are repetitions, but sums of float32 are not the same to 7 digits in any order.
EXPECTED = {"float32": {"check_sample_weight_equivalence_on_dense_data": "rounding"}}
if sklearn_version.startswith("1.6."):  # which gives sparse data to all, whatever their tags say
    issue = {"check_sample_weight_equivalence_on_sparse_data": "scikit-learn#30139"}
    EXPECTED[None] = issue
ALL = [SequenceClassifier, SequenceLabeller, SequenceRegressor, Forecaster]


@pytest.fixture
def ragged(rng):
    return [rng.standard_normal((length, 3)) for length in LENGTHS]


def targets(kind, x):
    """What an estimator of this kind learns from the ragged list x."""
    if kind is SequenceLabeller:
        return [np.where(np.cumsum(row[:, 0]) > 0, "up", "down") for row in x]
    sums = np.array([row.sum() for row in x])
    return sums > 0 if kind is SequenceClassifier else sums


def assert_same(found, wanted):
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [*itertools.product(ALL, ["float32", "float64"]), (SequenceScaler, None)],
)
def test_check_estimator(kind, dtype):
    estimator = kind(max_iter=25, hidden_size=16, dtype=dtype) if dtype else kind()
    checks = check_estimator(
        estimator, on_skip=None, on_fail=None, expected_failed_checks=EXPECTED.get(dtype, {})
    )
    assert not [check for check in checks if check["status"] == "failed"]
    assert len(checks) > 50


class TestForms:
    @pytest.mark.parametrize("kind", ALL)
    def test_arrays_lists_and_objects_are_the_same(self, kind, rng):
        x = rng.standard_normal((6, 4, 3))
        y = targets(kind, x)
        objects = np.empty(6, object)
        objects[:] = list(x)
        by_array = kind(**SMALL).fit(x, np.array(y)).predict(x)
        for same in (list(x), objects, x.tolist()):
            assert_same(kind(**SMALL).fit(same, y).predict(same), by_array)

    @pytest.mark.parametrize("kind", ALL)
    def test_a_table_is_sequences_of_one_step(self, kind, rng):
        x = rng.standard_normal((12, 3))
        y = targets(SequenceClassifier, x).astype(int)
        model = kind(**SMALL).fit(x, y)
        steps = y[:, None] if kind is SequenceLabeller else y
        other = kind(**SMALL).fit(x[:, None], steps)
        assert_same(model.predict(x), other.predict(x[:, None]).reshape(12))

    @pytest.mark.parametrize("kind", ALL)
    def test_a_ragged_row_does_not_see_the_others(self, kind, ragged):
        model = kind(**SMALL).fit(ragged, targets(kind, ragged))
        alone = [model.predict([row])[0] for row in ragged]
        assert_same(model.predict(ragged), alone)

    def test_labels_have_the_form_of_their_sequences(self, ragged):
        model = SequenceLabeller(**SMALL).fit(ragged, targets(SequenceLabeller, ragged))
        assert [len(row) for row in model.predict(ragged)] == LENGTHS
        assert [p.shape for p in model.predict_proba(ragged)] == [(n, 2) for n in LENGTHS]
        square = np.stack([row[:1].repeat(5, axis=0) for row in ragged])
        assert model.predict(square).shape == (12, 5)
        assert model.predict_proba(square).shape == (12, 5, 2)

    def test_a_labeller_counts_steps(self, ragged):
        y = targets(SequenceLabeller, ragged)
        model = SequenceLabeller(**SMALL).fit(ragged, y)
        right = np.concatenate(model.predict(ragged)) == np.concatenate(y)
        assert model.score(ragged, y) == right.mean()
        weights = [np.arange(len(row)) + 1.0 for row in y]
        weighted = np.average(right, weights=np.concatenate(weights))
        assert model.score(ragged, y, weights) == pytest.approx(weighted)

    def test_several_outputs(self, ragged, rng):
        for shape in ((12, 2), (12, 1), (12, 3, 2)):
            y = rng.standard_normal(shape)
            for kind in (SequenceRegressor, Forecaster):
                model = kind(**SMALL).fit(ragged, y)
                found = model.predict(ragged)
                assert found.shape == shape
                wanted = r2_score(y.reshape(12, -1), found.reshape(12, -1))
                assert model.score(ragged, y) == wanted

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_both_precisions(self, dtype, ragged):
        model = SequenceRegressor(dtype=dtype, **SMALL).fit(ragged, np.arange(12))
        assert {p.dtype.name for p in model.network_.params.values()} == {dtype}


class TestNetwork:
    @pytest.mark.parametrize("cell", LAYERS)
    def test_every_cell(self, cell, ragged):
        options = {"num_layers": 2, "bidirectional": True, "dropout": 0.2, "reading": "mean"}
        model = SequenceClassifier(cell=cell, **options, **SMALL).fit(ragged, LENGTHS)
        p = model.predict_proba(ragged)
        assert p.shape == (12, 7)
        np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-12)
        np.testing.assert_array_equal(np.log(p), model.predict_log_proba(ragged))

    def test_cell_options(self, ragged):
        model = SequenceRegressor(cell_options={"peephole": True}, **SMALL)
        model.fit(ragged, np.arange(12))
        assert "0.layer.weight_ch_l0" in model.network_.params


class TestTraining:
    @pytest.mark.parametrize("kind", ALL)
    def test_random_state_decides_everything(self, kind, ragged):
        y = targets(kind, ragged)
        options = {**SMALL, "dropout": 0.3}
        one, same = (kind(**options).fit(ragged, y) for _ in range(2))
        other = kind(**{**options, "random_state": 1}).fit(ragged, y)
        for name, value in one.network_.params.items():
            np.testing.assert_array_equal(value, same.network_.params[name])
        assert any(
            not np.array_equal(value, other.network_.params[name])
            for name, value in one.network_.params.items()
        )

    def test_threads_change_no_bit(self, rng, set_threads):
        x, y = rng.standard_normal((64, 20, 8)), np.arange(64) % 3
        found = []
        for threads in (1, 2, 3):
            set_threads(threads)
            model = SequenceClassifier(max_iter=2, bidirectional=True, random_state=0).fit(x, y)
            found.append(model.predict_proba(x))
        assert_same(found[1:], found[:1] * 2)

    @pytest.mark.parametrize("kind", ALL)
    def test_partial_fit_goes_on(self, kind, ragged):
        y = targets(kind, ragged)
        whole = kind(**SMALL).fit(ragged, y)
        parts = kind(**SMALL)
        for _ in range(3):
            parts.partial_fit(ragged, y)
            parts = pickle.loads(pickle.dumps(parts))  # the optimiser and the order come along
        assert_same(parts.predict(ragged), whole.predict(ragged))
        for name, value in parts.network_.params.items():
            np.testing.assert_array_equal(value, whole.network_.params[name])
        assert parts.n_iter_ == 3
        for key in ("step", "epoch", "train_loss"):
            assert [r[key] for r in parts.history_] == [r[key] for r in whole.history_]

    def test_partial_fit_uses_the_learning_rate_of_the_day(self, ragged):
        model = SequenceRegressor(**SMALL).fit(ragged, np.arange(12))
        before = model.network_.state_dict()
        model.set_params(learning_rate=0.0).partial_fit(ragged, np.arange(12))
        for name, value in model.network_.params.items():
            np.testing.assert_array_equal(value, before[name])

    @pytest.mark.parametrize("kind", [SequenceClassifier, SequenceLabeller])
    def test_classes_are_told_beforehand(self, kind, rng):
        x, y = rng.standard_normal((4, 2)), np.array([3, 5, 3, 5])
        model = kind(**SMALL).partial_fit(x, y, classes=[5, 3, 9])
        assert model.classes_.tolist() == [3, 5, 9]
        model.partial_fit(x, [9, 9, 9, 9])
        assert model.predict_proba(x).shape == (4, 3)
        with pytest.raises(ValueError, match=r"not among the classes: \[7\]"):
            model.partial_fit(x, [3, 7, 3, 3])
        with pytest.raises(ValueError, match="at the first call, now"):
            model.partial_fit(x, y, classes=[3, 5])

    def test_early_stopping_keeps_the_best(self, rng):
        x, y = rng.standard_normal((36, 4, 3)), np.arange(36) % 2  # nothing to be learnt
        model = SequenceClassifier(
            hidden_size=8,
            max_iter=300,
            n_iter_no_change=3,
            learning_rate=0.03,
            early_stopping=True,
            validation_fraction=0.25,
            random_state=0,
        ).fit(x, y)
        losses = [record["validation_loss"] for record in model.history_]
        assert model.n_iter_ == len(losses) == np.argmin(losses) + 1 + 3
        # What was set aside: 9 rows, with the classes' shares.
        again = clone(model).set_params(max_iter=int(np.argmin(losses)) + 1).fit(x, y)
        np.testing.assert_array_equal(again.predict_proba(x), model.predict_proba(x))

    def test_it_learns(self, rng):
        x = [rng.standard_normal((n, 1)) for n in rng.integers(2, 9, 150)]
        options = {"hidden_size": 16, "learning_rate": 0.02, "random_state": 0}
        assert (
            SequenceLabeller(**options)
            .fit(x, targets(SequenceLabeller, x))
            .score(x, targets(SequenceLabeller, x))
            > 0.9
        )
        y = 1000 + 50 * targets(SequenceRegressor, x)
        assert SequenceRegressor(**options).fit(x, y).score(x, y) > 0.9

    def test_verbose(self, ragged, capsys):
        SequenceRegressor(**SMALL).fit(ragged, np.arange(12))
        assert capsys.readouterr() == ("", "")
        SequenceRegressor(**SMALL, verbose=True).fit(ragged, np.arange(12))
        out, err = capsys.readouterr()
        assert not out
        assert err.count("step ") == 3

    def test_history_and_its_picture(self, ragged, tmp_path):
        pytest.importorskip("matplotlib")
        model = SequenceRegressor(**SMALL).fit(ragged, np.arange(12))
        assert [record["epoch"] for record in model.history_] == [1, 2, 3]
        assert [record["step"] for record in model.history_] == [3, 6, 9]
        model.plot_history(tmp_path / "history.png")
        assert (tmp_path / "history.png").stat().st_size > 0


class TestForecaster:
    def series(self, count=2, steps=200):
        t = np.arange(steps)[:, None] + 40 * np.arange(count)
        return np.stack([np.sin(t / 5), 20 + 5 * np.cos(t / 3)], axis=2).swapaxes(0, 1)

    def test_it_learns_to_continue_series(self):
        x = self.series()
        model = Forecaster(horizon=4, window=25, learning_rate=0.02, max_iter=60, random_state=0)
        model.fit(x[:, :150])
        assert model.score(x[:, :150]) > 0.9
        ahead = model.predict(x[:, :180])
        assert ahead.shape == (2, 4, 2)
        assert r2_score(x[:, 180:184].reshape(-1, 2), ahead.reshape(-1, 2)) > 0.8

    def test_targets_are_the_steps_that_follow(self, rng):
        lengths, horizon, window = [9, 1, 2, 4, 14], 3, 4
        x = [rng.standard_normal((n, 2)).astype(np.float32) for n in lengths]
        model = Forecaster(horizon=horizon, window=window, **SMALL).fit(x)
        pieces, _ = model._load(x, None, first=False)
        scaled = [model._inputs.transform(row.astype(float)).astype(np.float32) for row in x]
        batch = model._batch(pieces, None, np.arange(len(pieces.lengths)))
        wanted = [(n, at) for n, row in enumerate(x) for at in range(0, len(row) - 1, window)]
        assert len(batch.inputs) == len(wanted)
        for row, (n, at) in enumerate(wanted):
            own = scaled[n]
            steps = min(window, len(own) - 1 - at)
            assert batch.lengths[row] == steps
            np.testing.assert_array_equal(batch.inputs[row, :steps], own[at : at + steps])
            mask = batch.mask[row].reshape(-1, horizon, 2)
            told = batch.targets[row].reshape(-1, horizon, 2)
            assert not mask[steps:].any()
            for t in range(steps):
                after = own[at + t + 1 : at + t + 1 + horizon]
                after = after[: at + window + horizon - at - t - 1]
                assert mask[t].all(axis=1).sum() == len(after)
                np.testing.assert_array_equal(told[t, : len(after)], after)

    def test_early_stopping_validates_on_the_last_pieces(self):
        x = self.series(1)
        model = Forecaster(window=20, early_stopping=True, validation_fraction=0.3, **SMALL).fit(x)
        train, validation = model._split(10, None)
        assert (train.tolist(), validation.tolist()) == ([*range(7)], [7, 8, 9])
        assert all(record["validation_loss"] > 0 for record in model.history_)
        with pytest.raises(ValueError, match="at least 2 pieces of series, X has 1"):
            model.set_params(window=None).fit(x)

    def test_what_cannot_be_forecast(self, rng):
        with pytest.raises(ValueError, match="at least 2 steps where y is None"):
            Forecaster().fit(rng.standard_normal((5, 1, 3)))
        with pytest.raises(ValueError, match="bidirectional=True needs y"):
            Forecaster(bidirectional=True).fit(self.series())
        with pytest.raises(ValueError, match="horizon must be at least 1, got 0"):
            Forecaster(horizon=0).fit(self.series())
        model = Forecaster(**SMALL).fit(self.series())
        with pytest.raises(ValueError, match="y must be None, as it was at first"):
            model.partial_fit(self.series(), [1.0, 2.0])
        with pytest.raises(ValueError, match=r"sample_weight must have shape \(2,\)"):
            model.score(self.series(), sample_weight=[1])
        with pytest.raises(ValueError, match="must leave a series of at least 2 steps"):
            model.score([*self.series(), self.series()[0][:1]], sample_weight=[0, 0, 1])
        with pytest.raises(ValueError, match="y must be given, as it was to fit"):
            Forecaster(**SMALL).fit(self.series(), [1.0, 2.0]).score(self.series())


class TestScaler:
    def test_steps_are_samples(self, ragged):
        steps = np.concatenate(ragged)
        plain, scaler = StandardScaler().fit(steps), SequenceScaler().fit(ragged)
        np.testing.assert_array_equal(scaler.mean_, plain.mean_)
        scaled = scaler.transform(ragged)
        np.testing.assert_array_equal(np.concatenate(scaled), plain.transform(steps))
        assert [len(row) for row in scaled] == LENGTHS
        back = scaler.inverse_transform(scaled)
        np.testing.assert_allclose(np.concatenate(back), steps, rtol=1e-12)

    def test_arrays(self, rng):
        x = rng.standard_normal((4, 5, 3))
        scaled = SequenceScaler().fit_transform(x)
        assert scaled.shape == x.shape
        np.testing.assert_allclose(scaled.reshape(-1, 3).std(axis=0), 1, rtol=1e-12)

    def test_a_fit_that_fails_is_no_fit(self, ragged):
        scaler = SequenceScaler().fit(ragged)
        with pytest.raises(ValueError, match="must have shape"):
            scaler.fit([row[:, 0] for row in ragged])
        with pytest.raises(NotFittedError):
            scaler.transform(ragged)

    def test_with_sequences_of_one_step_it_is_the_standard_scaler(self, rng):
        x = rng.standard_normal((8, 3))
        found, wanted = SequenceScaler().fit_transform(x), StandardScaler().fit_transform(x)
        np.testing.assert_array_equal(found, wanted)


class TestSearch:
    @pytest.mark.parametrize("kind", ALL)
    def test_cross_validation_of_a_pipeline_on_ragged_lists(self, kind, ragged):
        model = make_pipeline(SequenceScaler(), kind(**SMALL))
        scores = cross_val_score(model, ragged, targets(kind, ragged), cv=3, error_score="raise")
        assert scores.shape == (3,)
        assert np.isfinite(scores).all()

    def test_cross_validation_of_series_alone(self):
        x = TestForecaster().series(6, 20)
        scores = cross_val_score(Forecaster(**SMALL), list(x), cv=3, error_score="raise")
        assert np.isfinite(scores).all()

    def test_grid_search(self, ragged):
        grid = {"sequenceclassifier__cell": ["gru", "rnn"]}
        model = make_pipeline(SequenceScaler(), SequenceClassifier(**SMALL))
        found = GridSearchCV(model, grid, cv=2, error_score="raise")
        found.fit(ragged, targets(SequenceClassifier, ragged))
        assert found.best_params_["sequenceclassifier__cell"] in ("gru", "rnn")


class TestRefusals:
    @pytest.mark.parametrize(
        ("option", "message"),
        [
            ({"cell": "lsmt"}, "cell must be one of .*lstm, gru, .*, got 'lsmt'"),
            ({"hidden_size": 0}, "hidden_size must be at least 1, got 0"),
            ({"max_iter": 0}, "max_iter must be at least 1, got 0"),
            ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
            ({"n_iter_no_change": 0}, "n_iter_no_change must be at least 1, got 0"),
            ({"learning_rate": -1.0}, "lr must be at least 0, got -1.0"),
            ({"dropout": 1.5}, "dropout must be in"),
            (
                {"early_stopping": True, "validation_fraction": 2},
                "validation_fraction must be between 0 and 1, got 2",
            ),
            ({"reading": "steps"}, "reading must be one of last, last_step, mean, got 'steps'"),
        ],
    )
    def test_parameters(self, option, message, ragged):
        with pytest.raises(ValueError, match=message):
            SequenceClassifier(**{**SMALL, **option}).fit(ragged, LENGTHS)

    @pytest.mark.parametrize(
        ("x", "message"),
        [
            ([np.ones((2, 3)), np.ones((2, 4))], r"sequence 1 of X must have shape \(T, 3\)"),
            ([np.ones((0, 3)), np.ones((0, 3))], "at least one step, got 2 sequences of none"),
            ([np.ones((2, 3)), np.ones(3)], r"sequence 1 of X .* got \(3,\)"),
            (np.ones((2, 0, 3)), r"at least one step, got shape \(2, 0, 3\)"),
            (np.ones((2, 2, 2, 2)), "dim 4"),
            (np.ones((2, 2, 0)), "0 feature"),
            ([np.ones((2, 3)), [[1, 2, 3], [4, 5]]], "sequence 1 of X is no array"),
            ([np.ones((2, 3)), np.full((1, 3), np.nan)], "NaN"),
        ],
    )
    def test_sequences(self, x, message):
        with pytest.raises(ValueError, match=message):
            SequenceRegressor(**SMALL).fit(x, [1.0, 2.0])

    @pytest.mark.parametrize(
        ("y", "message"),
        [
            ([[0, 1], [1, 1]], r"sequence 1 of y must have shape \(3,\), one entry for each step"),
            ([[0, 1]], "y must have 2 sequences, as X has, got 1"),
        ],
    )
    def test_labels(self, y, message):
        with pytest.raises(ValueError, match=message):
            SequenceLabeller(**SMALL).fit([np.ones((2, 1)), np.ones((3, 1))], y)
        with pytest.raises(ValueError, match=r"y must have shape \(2, 4\), .* got \(2,\)"):
            SequenceLabeller(**SMALL).fit(np.ones((2, 4, 1)), [0, 1])

    def test_numbers(self):
        with pytest.raises(ValueError, match="y must be numbers, got <U1"):
            SequenceRegressor(**SMALL).fit(np.ones((2, 4, 1)), np.array(["a", "b"]))

    @pytest.mark.parametrize("kind", ALL)
    def test_a_fit_that_fails_is_no_fit(self, kind, ragged):
        """What is left must not say with a new fit's labels or scales what an old one learnt."""
        model = kind(**SMALL).fit(ragged, targets(kind, ragged))
        with pytest.raises(ValueError, match="hidden_size must be"):
            model.set_params(hidden_size=0).fit(ragged, targets(kind, ragged))
        with pytest.raises(NotFittedError):
            model.predict(ragged)

    def test_targets_keep_their_shape(self, ragged):
        model = SequenceRegressor(**SMALL).fit(ragged, np.arange(12))
        with pytest.raises(ValueError, match="y must have shape"):
            model.partial_fit(ragged, np.ones((12, 2)))


def test_without_scikit_learn():
    run_python("""
        import sys
        import rnncore
        assert not any(name.startswith("sklearn") for name in sys.modules)
        sys.modules["sklearn"] = None
        try:
            import rnncore.estimators
        except ImportError as error:
            assert "rnncore[estimators]" in str(error), error
        else:
            raise AssertionError
    """)
