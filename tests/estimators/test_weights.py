"""Sample and class weights: zero is absent, a whole number is a repetition."""

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="the estimators need scikit-learn")

from rnncore.estimators import Forecaster, SequenceClassifier, SequenceLabeller, SequenceRegressor
from rnncore.estimators.weights import ByWeight, mean_weight
from rnncore.losses import MeanSquaredError, SoftmaxCrossEntropy
from sklearn import config_context
from sklearn.base import clone
from sklearn.ensemble import AdaBoostClassifier
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.validation import has_fit_parameter

EXACT = {"hidden_size": 6, "max_iter": 4, "random_state": 0, "dtype": "float64"}
ALL = [SequenceClassifier, SequenceLabeller, SequenceRegressor, Forecaster]
LENGTHS = [4, 1, 7, 3, 5, 2, 6, 7, 1, 4, 3, 5]
WHOLE = np.array([1, 0, 2, 1, 3, 1, 0, 1, 2, 1, 1, 4])


@pytest.fixture
def ragged(rng):
    return [rng.standard_normal((length, 3)) for length in LENGTHS]


def targets(kind, x):
    if kind is SequenceLabeller:
        return [np.where(row[:, 0] > 0, "up", "down") for row in x]
    sums = np.array([row.sum() for row in x])
    return sums > 0 if kind is SequenceClassifier else sums


def assert_same_network(one, other, rtol=0.0):
    for name, value in one.network_.params.items():
        np.testing.assert_allclose(value, other.network_.params[name], rtol=rtol, atol=rtol)


@pytest.mark.parametrize("kind", ALL)
class TestSamples:
    def test_can_be_given(self, kind):
        assert has_fit_parameter(kind(), "sample_weight")
        assert has_fit_parameter(clone(kind()), "sample_weight")

    def test_zero_is_absent(self, kind, ragged):
        y, weights = targets(kind, ragged), (WHOLE > 0).astype(float)
        kept = [at for at, weight in enumerate(weights) if weight]
        few = [[rows[at] for at in kept] for rows in (ragged, y)]
        options = {**EXACT, "batch_size": 3}
        model = kind(**options).fit(ragged, y, sample_weight=weights)
        other = kind(**options).fit(*few)
        # Standardised targets and inputs go through a mean with and one without weights.
        exact = kind in (SequenceClassifier, SequenceLabeller)
        assert_same_network(model, other, 0 if exact else 1e-9)

    def test_a_whole_number_is_a_repetition(self, kind, ragged):
        y = targets(kind, ragged)
        many = [
            [row for row, times in zip(rows, WHOLE, strict=True) for _ in range(times)]
            for rows in (ragged, y)
        ]
        model = kind(**EXACT).fit(ragged, y, sample_weight=WHOLE)
        assert_same_network(model, kind(**EXACT).fit(*many), 1e-8)
        assert model.history_[0]["train_loss"] > 0

    def test_a_common_factor_changes_nothing(self, kind, ragged):
        y = targets(kind, ragged)
        model, same = (
            kind(**EXACT, batch_size=3).fit(ragged, y, sample_weight=WHOLE * factor)
            for factor in (1, 1024)
        )
        assert_same_network(model, same, 1e-9)
        plain, ones = (
            kind(**EXACT, batch_size=3).fit(ragged, y, sample_weight=weights)
            for weights in (None, np.full(12, 4.0))
        )
        assert_same_network(plain, ones, 1e-9)

    def test_count_in_batches_of_one(self, kind, ragged):
        y = targets(kind, ragged)
        options = {**EXACT, "batch_size": 1, "clip_norm": None}
        model, plain = (
            kind(**options).fit(ragged, y, sample_weight=weights) for weights in (WHOLE, None)
        )
        names = model.network_.params.keys()
        assert any(
            np.abs(model.network_.params[name] - plain.network_.params[name]).max() > 1e-4
            for name in names
        )

    def test_early_stopping_and_partial_fit(self, kind, ragged):
        y = targets(kind, ragged)
        stopped = kind(**EXACT, early_stopping=True, validation_fraction=0.4)
        stopped.fit(ragged, y, sample_weight=WHOLE)
        assert all(record["validation_loss"] > 0 for record in stopped.history_)
        whole, parts = kind(**EXACT).fit(ragged, y, sample_weight=WHOLE), kind(**EXACT)
        for _ in range(EXACT["max_iter"]):
            parts.partial_fit(ragged, y, sample_weight=WHOLE)
        assert_same_network(whole, parts)

    @pytest.mark.parametrize(
        ("weights", "message"),
        [
            (-WHOLE, "sample_weight must be at least 0, got -4.0"),
            (0 * WHOLE, "sample_weight must have at least one entry that is not zero"),
            (WHOLE[1:], r"sample_weight must have shape \(12,\).*got \(11,\)"),
            (np.full(12, np.nan), "sample_weight contains NaN"),
            (np.full(12, np.inf), "sample_weight contains"),
        ],
    )
    def test_refusals(self, kind, weights, message, ragged):
        with pytest.raises(ValueError, match=message):
            kind(**EXACT).fit(ragged, targets(kind, ragged), sample_weight=weights)


def test_series_alone_have_weights(ragged):
    long = [row for row, weight in zip(ragged, WHOLE, strict=True) if weight]
    options = {**EXACT, "window": 2, "horizon": 2}
    model = Forecaster(**options).fit(ragged, sample_weight=WHOLE > 0)
    assert_same_network(model, Forecaster(**options).fit(long), 1e-9)
    many = [row for row, times in zip(ragged, WHOLE, strict=True) for _ in range(times)]
    options |= {"batch_size": 200}
    model = Forecaster(**options).fit(ragged, sample_weight=WHOLE)
    assert_same_network(model, Forecaster(**options).fit(many), 1e-8)


@pytest.mark.parametrize("kind", ALL)
class TestScores:
    def test_a_whole_number_is_a_repetition(self, kind, ragged):
        y = targets(kind, ragged)
        model = kind(**EXACT).fit(ragged, y)
        many = [
            [row for row, times in zip(rows, WHOLE, strict=True) for _ in range(times)]
            for rows in (ragged, y)
        ]
        assert model.score(ragged, y, WHOLE) == pytest.approx(model.score(*many), rel=1e-12)
        assert model.score(ragged, y, WHOLE) != model.score(ragged, y)

    def test_a_search_by_them(self, kind, ragged):
        """scikit-learn passes weights on to fit and to score where routing is on."""
        y = targets(kind, ragged)
        with config_context(enable_metadata_routing=True):
            model = kind(**EXACT).set_fit_request(sample_weight=True)
            model.set_score_request(sample_weight=True)
            options = {"params": {"sample_weight": WHOLE}, "error_score": "raise", "cv": 2}
            scores = cross_validate(model, ragged, y, **options)["test_score"]
            ones = cross_validate(model, ragged, y, cv=2)["test_score"]
        assert np.isfinite(scores).all()
        assert (scores != ones).any()


def test_the_score_of_series_alone(ragged):
    model = Forecaster(**EXACT).fit(ragged)
    many = [row for row, times in zip(ragged, WHOLE, strict=True) for _ in range(times)]
    weighted = model.score(ragged, sample_weight=WHOLE)
    assert weighted == pytest.approx(model.score(many), rel=1e-10)
    assert weighted != model.score(ragged)
    assert model.score(ragged, sample_weight=np.full(12, 2.0)) == pytest.approx(model.score(ragged))


class TestSteps:
    def test_have_weights_of_their_own(self, ragged):
        y = targets(SequenceLabeller, ragged)
        by_sequence = SequenceLabeller(**EXACT).fit(ragged, y, sample_weight=WHOLE)
        spread = [np.full(len(row), weight) for row, weight in zip(ragged, WHOLE, strict=True)]
        assert_same_network(by_sequence, SequenceLabeller(**EXACT).fit(ragged, y, spread))
        plain = SequenceLabeller(**EXACT).fit(ragged, y)
        assert_same_network(plain, SequenceLabeller(**EXACT).fit(ragged, y, 2), 1e-9)
        with pytest.raises(
            TypeError, match="y must have one array for each sequence of X, got int"
        ):
            SequenceLabeller(**EXACT).fit(ragged, 3)

    def test_of_pandas(self, ragged):
        pd = pytest.importorskip("pandas")
        weights = pd.Series(WHOLE, index=range(20, 32))
        for kind in ALL:
            y = targets(kind, ragged)
            model = kind(**EXACT).fit(ragged, y, sample_weight=weights)
            assert_same_network(model, kind(**EXACT).fit(ragged, y, sample_weight=WHOLE))

    def test_without_weight_are_read_but_have_no_label(self, ragged, rng):
        y = targets(SequenceLabeller, ragged)
        weights = [(rng.random(len(row)) < 0.6).astype(float) for row in ragged]
        weights[3][:] = 0
        model = SequenceLabeller(**EXACT).fit(ragged, y, sample_weight=weights)
        other = [
            np.where(own > 0, row, np.where(row == "up", "down", "none"))
            for row, own in zip(y, weights, strict=True)
        ]
        assert_same_network(model, SequenceLabeller(**EXACT).fit(ragged, other, weights))
        assert model.classes_.tolist() == ["down", "up"]

    def test_of_arrays(self, rng):
        x = rng.standard_normal((6, 4, 2))
        y, weights = x[..., 0] > 0, rng.integers(0, 3, (6, 4))
        model = SequenceLabeller(**EXACT).fit(x, y, sample_weight=weights)
        listed = SequenceLabeller(**EXACT).fit(list(x), list(y), sample_weight=list(weights))
        assert_same_network(model, listed)
        right = (model.predict(x) == y).reshape(-1)
        assert model.score(x, y, weights) == np.average(right, weights=weights.reshape(-1))
        with pytest.raises(ValueError, match=r"sample_weight must have shape \(6,\)"):
            model.fit(x, y, sample_weight=np.ones(24))


class TestClasses:
    def test_balanced_is_a_dict_is_sample_weights(self, ragged):
        y = np.array(["a"] * 9 + ["b"] * 3)
        factors = {"a": 12 / (2 * 9), "b": 12 / (2 * 3)}
        options = {**EXACT, "batch_size": 5}
        fits = [
            SequenceClassifier(**options, class_weight="balanced").fit(ragged, y),
            SequenceClassifier(**options, class_weight=factors).fit(ragged, y),
            SequenceClassifier(**options).fit(ragged, y, [factors[label] for label in y]),
        ]
        for model in fits[1:]:
            assert_same_network(model, fits[0], 1e-9)
        plain = SequenceClassifier(**options).fit(ragged, y)
        assert plain.predict_proba(ragged)[:, 1].mean() < fits[0].predict_proba(ragged)[:, 1].mean()

    def test_balanced_counts_sample_weights(self, ragged):
        y = np.arange(12) % 3
        many = [
            [r for r, n in zip(rows, WHOLE, strict=True) for _ in range(n)] for rows in (ragged, y)
        ]
        model = SequenceClassifier(**EXACT, class_weight="balanced").fit(ragged, y, WHOLE)
        other = SequenceClassifier(**EXACT, class_weight="balanced").fit(*many)
        assert_same_network(model, other, 1e-8)

    def test_of_a_labeller(self, ragged):
        y = targets(SequenceLabeller, ragged)
        factors = {"up": 2.5, "down": 0.5}
        model = SequenceLabeller(**EXACT, class_weight=factors).fit(ragged, y)
        steps = [np.array([factors[label] for label in row]) for row in y]
        assert_same_network(model, SequenceLabeller(**EXACT).fit(ragged, y, steps), 1e-9)
        SequenceLabeller(**EXACT, class_weight="balanced").fit(ragged, y)

    def test_rare_classes_are_found(self, rng):
        x = rng.standard_normal((300, 6, 1))
        y = (x.sum(axis=(1, 2)) + rng.standard_normal(300) > 4).astype(int)
        options = {"hidden_size": 8, "max_iter": 15, "learning_rate": 0.02, "random_state": 0}
        recall = {
            weight: SequenceClassifier(**options, class_weight=weight)
            .fit(x, y)
            .predict(x)[y == 1]
            .mean()
            for weight in (None, "balanced")
        }
        assert 0.01 < y.mean() < 0.15
        assert recall["balanced"] > max(0.8, recall[None])

    def test_a_class_that_is_missing_from_a_fit(self, ragged):
        """Sample weights of zero take a class away; its entry in the dict does no harm."""
        y, weights = np.array(["a"] * 8 + ["b"] * 4), np.repeat([1.0, 0.0], [8, 4])
        model = SequenceClassifier(**EXACT, class_weight="balanced").fit(ragged, y, weights)
        assert model.classes_.tolist() == ["a"]
        given = SequenceClassifier(**EXACT, class_weight={"a": 1, "b": 2})
        assert_same_network(given.fit(ragged, y, weights), model)

    def test_partial_fit_knows_classes_to_come(self, ragged):
        model = SequenceClassifier(**EXACT, class_weight="balanced")
        model.partial_fit(ragged, [0] * 10 + [1] * 2, classes=[0, 1, 2])
        model.partial_fit(ragged, [2] * 12, sample_weight=WHOLE)
        assert model.predict_proba(ragged).shape == (12, 3)

    @pytest.mark.parametrize(
        ("weight", "message"),
        [
            ("even", "class_weight must be None, 'balanced' or a dict, got 'even'"),
            ([1, 2], r"class_weight must be None, 'balanced' or a dict, got \[1, 2\]"),
            ({5: 1}, "not in class_weight"),
            ({0: -1}, "class_weight must be finite numbers of at least 0, got -1 for 0"),
            ({0: "a"}, "class_weight must be finite numbers of at least 0, got 'a' for 0"),
            ({0: 0, 1: 0}, "sample_weight and class_weight together leave no weight above zero"),
        ],
    )
    def test_refusals(self, weight, message, ragged):
        with pytest.raises(ValueError, match=message):
            SequenceClassifier(**EXACT, class_weight=weight).fit(ragged, np.arange(12) % 2)


@pytest.mark.parametrize("loss", [MeanSquaredError(), SoftmaxCrossEntropy()])
def test_gradients_of_batches_add_up_to_that_of_all(loss, rng):
    x, weights = rng.standard_normal((10, 4)), rng.uniform(0.1, 5, 10)
    wanted = rng.integers(0, 4, 10) if isinstance(loss, SoftmaxCrossEntropy) else x[::-1].copy()
    weighed, parts = ByWeight(loss, mean_weight([weights])), np.split(np.arange(10), [1, 3, 4])
    dx = np.concatenate(
        [len(at) * weighed.vjp(x[at], wanted[at], weights[at])[1]() for at in parts]
    )
    np.testing.assert_allclose(dx, 10 * loss.vjp(x, wanted, weights)[1](), rtol=1e-12)


class TestAround:
    """What of scikit-learn passes weights on."""

    def test_a_pipeline_and_a_search(self, ragged):
        y = targets(SequenceClassifier, ragged)
        model = make_pipeline(FunctionTransformer(), SequenceClassifier(**EXACT))
        model.fit(ragged, y, sequenceclassifier__sample_weight=WHOLE)
        wanted = SequenceClassifier(**EXACT).fit(ragged, y, WHOLE)
        assert_same_network(model[-1], wanted)
        grid = {"class_weight": [None, "balanced", {False: 1, True: 3}]}
        search = GridSearchCV(SequenceClassifier(**EXACT), grid, cv=2, error_score="raise")
        assert search.fit(ragged, y, sample_weight=WHOLE).best_params_["class_weight"] in [
            *grid["class_weight"]
        ]

    def test_boosting(self, rng):
        x = rng.standard_normal((20, 3, 2))
        y = x[:, 0, 0] > 0
        weak = SequenceClassifier(**{**EXACT, "max_iter": 30, "learning_rate": 0.02})
        model = AdaBoostClassifier(weak, n_estimators=2, random_state=0).fit(x, y)
        assert model.score(x, y) > 0.8
