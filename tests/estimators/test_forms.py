"""What X and y may be: forms of sequences, frames and their names, what is refused and how."""

import pickle
import warnings

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="the estimators need scikit-learn")

from rnncore.estimators import (
    Forecaster,
    SequenceClassifier,
    SequenceLabeller,
    SequenceRegressor,
    SequenceScaler,
)
from sklearn import config_context
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

SMALL = {"hidden_size": 4, "max_iter": 1, "random_state": 0}
ALL = [SequenceClassifier, SequenceLabeller, SequenceRegressor, Forecaster]
LENGTHS = (3, 5, 1, 4, 2, 6)
Y = np.array([0, 1, 0, 1, 1, 0])


@pytest.fixture
def ragged(rng):
    return [rng.standard_normal((length, 2)) for length in LENGTHS]


@pytest.fixture
def table(rng):
    return rng.standard_normal((6, 2))


def objects(rows):
    array = np.empty(len(rows), object)
    array[:] = rows
    return array


def fitted(kind, x, **options):
    """An estimator that was fitted; x is a list, or a table."""
    steps = [row[:, 0] > 0 for row in map(np.asarray, x)] if isinstance(x, list) else Y
    return kind(**SMALL, **options).fit(x, steps if kind is SequenceLabeller else Y)


def assert_same(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, other)


def frames_of(package, arrays):
    frames = pytest.importorskip(package)
    return [frames.DataFrame({"a": x[:, 0], "b": x[:, 1]}) for x in arrays]


@pytest.mark.parametrize("package", ["pandas", "polars"])
@pytest.mark.parametrize("kind", [*ALL, SequenceScaler])
class TestNames:
    def fit(self, kind, x):
        return kind().fit(x) if kind is SequenceScaler else fitted(kind, x)

    def use(self, model, x):
        return model.transform(x) if isinstance(model, SequenceScaler) else model.predict(x)

    def test_of_a_table(self, kind, package, table):
        (frame,) = frames_of(package, [table])
        self.check(kind, frame, frame[["b", "a"]], table)

    def test_of_a_list(self, kind, package, ragged):
        frames = frames_of(package, ragged)
        self.check(kind, frames, [frame[["b", "a"]] for frame in frames], ragged)

    def check(self, kind, x, turned, plain):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model = self.fit(kind, x)
            found = self.use(model, x)
            assert_same(found, self.use(self.fit(kind, plain), plain))
        assert model.feature_names_in_.tolist() == ["a", "b"]
        with pytest.raises(ValueError, match="same order as they were in fit"):
            self.use(model, turned)
        with pytest.warns(UserWarning, match="does not have valid feature names"):
            assert_same(self.use(model, plain), found)
        with pytest.raises(ValueError, match="same order as they were in fit"):
            model.partial_fit(turned, Y)

    def test_are_the_same_in_all_of_a_list(self, kind, package, ragged):
        frames = frames_of(package, ragged)
        message = r"sequence 0 has \['a', 'b'\], sequence 5 has "
        with pytest.raises(ValueError, match=message + r"\['b', 'a'\]"):
            self.fit(kind, [*frames[:-1], frames[-1][["b", "a"]]])
        with pytest.raises(ValueError, match=message + "no names"):
            self.fit(kind, [*frames[:-1], ragged[-1]])


class TestOneArray:
    """It may be one series or a table: what was fitted on sequences does not guess."""

    ADVICE = r"X is one array \(6, 2\): give \[X\] for one series, {}\[:, None\] for sequences of"

    @pytest.mark.parametrize("kind", ALL)
    def test_is_refused_after_sequences(self, kind, ragged, table):
        for x in (ragged, list(np.stack([table] * 6))):
            model = fitted(kind, x)
            with pytest.raises(ValueError, match=self.ADVICE.format("X")):
                model.predict(table)
            with pytest.raises(ValueError, match=self.ADVICE.format(r"np\.asarray\(X\)")):
                model.predict(table.tolist())
            with pytest.raises(ValueError, match="was fitted on sequences"):
                model.partial_fit(table, Y)
            with pytest.raises(
                ValueError, match=r"\(6,\): give \[X\[:, None\]\] for one series$|;"
            ):
                model.predict(table[:, 0])
        assert len(model.predict([table])) == 1
        assert len(model.predict(table[:, None])) == 6

    @pytest.mark.parametrize("kind", ALL)
    def test_is_a_table_after_a_table(self, kind, table):
        model = fitted(kind, table)
        found = model.predict(table)
        assert found.shape == (6,)
        assert_same(model.predict(table[:, None]).reshape(6), found)

    def test_is_one_series_to_a_forecaster_without_y(self, table):
        model = Forecaster(**SMALL).fit([table])
        for x in (table, table.tolist()):
            assert_same(Forecaster(**SMALL).fit(x).predict(x), model.predict([table])[0])
            assert_same(model.predict(x), model.predict([table])[0])
            assert model.score(x) == model.score([table])
        again = Forecaster(**SMALL).fit(table)
        assert again.partial_fit(table).n_iter_ == model.n_iter_ + 1
        assert model.predict([table, table]).shape == (2, 1, 2)

    def test_of_one_axis_is_one_series_of_one_column(self, table):
        column = table[:, :1]
        model = Forecaster(**SMALL).fit([column])
        for x in (table[:, 0], table[:, 0].tolist()):
            assert_same(Forecaster(**SMALL).fit(x).predict(x), model.predict([column])[0, :, 0])
        with pytest.raises(ValueError, match=r"X must be a list of arrays \(T_n, I\), got int$|;"):
            model.predict(14)

    def test_of_a_frame(self, table):
        (frame,) = frames_of("pandas", [table])
        model = Forecaster(**SMALL).fit(frame)
        assert list(model.feature_names_in_) == list(frame.columns)
        assert_same(model.predict(frame), model.predict([frame])[0])
        single = Forecaster(**SMALL).fit(frame["a"])
        assert list(single.feature_names_in_) == ["a"]
        assert single.predict(frame["a"]).shape == (1,)


@pytest.mark.parametrize("package", ["pandas", "polars"])
def test_columns_that_are_no_numbers_are_named(package, table):
    frames = pytest.importorskip(package)
    days = np.arange("2026-01-01", "2026-01-07", dtype="datetime64[D]").astype("datetime64[ms]")
    frame = frames.DataFrame({"day": days, "kind": list("abcabc"), "on": table[:, 0] > 0})
    message = (
        r"sequence 0 of X is no array of numbers: columns \['day', 'kind'\] hold dates or text"
    )
    with pytest.raises(ValueError, match=message):
        Forecaster(**SMALL).fit([frame])
    assert Forecaster(**SMALL).fit([frame[["on"]]]).predict([frame[["on"]]]).shape == (1, 1, 1)


class TestSeriesOfOneFeature:
    @pytest.mark.parametrize("kind", ALL)
    @pytest.mark.parametrize("lengths", [(20, 30), (20, 20)])
    def test_are_refused_without_their_axis(self, kind, lengths):
        x = [np.arange(float(length)) for length in lengths]
        advice = r"sequence 0 of X must have shape \(T, features\), got \(20,\): give {}\[:, None\]"
        for given in (x, tuple(x), objects(x)):
            with pytest.raises(ValueError, match=advice.format("x")) as caught:
                kind(**SMALL).fit(given, [0, 1])
            assert ("np.stack(X) for a table" in str(caught.value)) == (lengths[0] == lengths[1])

    def test_of_pandas(self):
        pd = pytest.importorskip("pandas")
        x = [pd.Series(np.arange(20.0)), pd.Series(np.arange(30.0))]
        for given in (x, pd.Series(x)):
            with pytest.raises(ValueError, match=r"give np\.asarray\(x\)\[:, None\]"):
                Forecaster(**SMALL).fit(given)

    def test_ragged_lists_of_numbers(self):
        with pytest.raises(ValueError, match=r"sequence 0 of X must have shape \(T, features\)"):
            SequenceRegressor(**SMALL).fit([[1.0, 2.0], [3.0]], [0, 1])

    def test_lists_of_one_length_are_a_table(self):
        x = [[1.0, 2.0], [3.0, 4.0]]
        found = SequenceRegressor(**SMALL).fit(x, [0, 1]).predict(x)
        assert_same(found, SequenceRegressor(**SMALL).fit(np.array(x), [0, 1]).predict(np.array(x)))


class TestObjects:
    """Arrays of objects come back as such; lists as lists that NumPy can join."""

    def test_predictions_have_the_form_of_x(self, ragged):
        model = fitted(SequenceLabeller, ragged)
        listed = model.predict(ragged)
        assert isinstance(listed, list)
        for method in (model.predict, model.predict_proba, SequenceScaler().fit(ragged).transform):
            found = method(objects(ragged))
            assert isinstance(found, np.ndarray)
            assert (found.dtype, found.shape) == (object, (6,))
            assert_same(found, method(ragged))
        assert np.asarray(listed).shape == (6,)
        assert_same(pickle.loads(pickle.dumps(listed)), listed)

    @pytest.mark.parametrize("form", [list, objects])
    def test_cross_val_predict(self, form, ragged):
        labels = [row[:, 0] > 0 for row in ragged]
        model = SequenceLabeller(**SMALL)
        found = cross_val_predict(model, form(ragged), form(labels), cv=3)
        assert [len(row) for row in found] == list(LENGTHS)
        first = SequenceLabeller(**SMALL).fit(ragged[2:], labels[2:]).predict(ragged[:2])
        assert_same(found[:2], first)

    def test_cross_val_predict_of_sequences_of_one_length(self, rng):
        x = list(rng.standard_normal((6, 4, 2)))
        labels = [row[:, 0] > 0 for row in x]
        found = cross_val_predict(SequenceLabeller(**SMALL), x, labels, cv=3)
        assert [len(row) for row in found] == [4] * 6

    def test_series_of_arrays(self, ragged):
        pd = pytest.importorskip("pandas")
        series = pd.Series(ragged, index=range(5, 11))
        labels = [row[:, 0] > 0 for row in ragged]
        found = SequenceLabeller(**SMALL).fit(series, pd.Series(labels)).predict(series)
        assert_same(found, fitted(SequenceLabeller, ragged).predict(ragged))


class TestNoSteps:
    @pytest.mark.parametrize("kind", [SequenceClassifier, SequenceRegressor, Forecaster])
    def test_are_answered_from_the_zero_state(self, kind, ragged):
        empty, options = np.zeros((0, 2)), {"bidirectional": True}
        x, y = [*ragged, empty], [*Y, 1]
        model = kind(**SMALL, **options).fit(x, y)
        head = model.network_.layers[-1]
        found = getattr(model, "predict_proba", model.predict)([empty, ragged[0], empty])
        assert_same([found[0]], [found[2]])
        alone = getattr(model, "predict_proba", model.predict)([empty])
        np.testing.assert_array_equal(alone[0], found[0])
        bias = head.params["bias"]
        if kind is SequenceClassifier:
            np.testing.assert_allclose(found[0], np.exp(bias) / np.exp(bias).sum(), rtol=1e-6)
        else:
            np.testing.assert_allclose(found[0], bias[0] * model._scale + model._mean, rtol=1e-6)

    def test_of_a_labeller(self, ragged):
        labels = [row[:, 0] > 0 for row in ragged]
        plain = fitted(SequenceLabeller, ragged)
        x = [ragged[0], np.zeros((0, 2)), *ragged[1:]]
        model = SequenceLabeller(**SMALL).fit(x, [labels[0], [], *labels[1:]])
        found = model.predict(x)
        assert_same(found, [*plain.predict(ragged[:1]), [], *plain.predict(ragged[1:])])
        assert model.score(x, [labels[0], [], *labels[1:]]) == plain.score(ragged, labels)
        assert [p.shape for p in model.predict_proba(x[1:2])] == [(0, 2)]
        assert model.predict(np.zeros((3, 0, 2))).shape == (3, 0)

    def test_of_a_forecaster_alone(self, ragged):
        for window in (1, 2, None):
            plain = Forecaster(window=window, **SMALL).fit(ragged)
            model = Forecaster(window=window, **SMALL).fit([*ragged, np.zeros((0, 2))])
            assert_same(model.predict(ragged), plain.predict(ragged))
            assert model.score([*ragged, np.zeros((0, 2))]) == plain.score(ragged)

    def test_of_a_scaler(self, ragged):
        scaler = SequenceScaler().fit([*ragged, np.zeros((0, 2))])
        assert_same(scaler.mean_, SequenceScaler().fit(ragged).mean_)
        assert [x.shape for x in scaler.transform([np.zeros((0, 2))])] == [(0, 2)]

    def test_at_all_are_refused(self):
        for x in ([np.zeros((0, 2))], np.zeros((3, 0, 2)), np.zeros((0, 3, 2))):
            with pytest.raises(ValueError, match="X must have at least one step, got"):
                SequenceRegressor(**SMALL).fit(x, np.zeros(len(x)))
        with pytest.raises(ValueError, match="X must hold at least one sequence, got none"):
            SequenceRegressor(**SMALL).fit([], [])


class TestScaler:
    def test_pandas_output_is_of_tables(self, ragged, table):
        pd = pytest.importorskip("pandas")
        (frame,) = frames_of("pandas", [table])
        for x in (ragged, objects(ragged), np.stack([table] * 3), frames_of("pandas", ragged)):
            plain = SequenceScaler().fit_transform(x)
            scaler = SequenceScaler().set_output(transform="pandas")
            found = scaler.fit_transform(x)
            assert type(found) is type(plain)
            assert_same(found, plain)
            assert_same(scaler.transform(x), plain)
            with config_context(transform_output="pandas"):
                assert_same(SequenceScaler().fit(x).transform(x), plain)
                pipeline = make_pipeline(SequenceScaler(), Forecaster(**SMALL)).fit(x)
                assert len(pipeline.predict(x)) == len(x)
        found = SequenceScaler().set_output(transform="pandas").fit(frame).transform(frame)
        assert isinstance(found, pd.DataFrame)
        assert found.columns.tolist() == ["a", "b"]

    def test_weights_of_sequences_and_steps(self, ragged):
        own = np.arange(1.0, 7)
        steps = [np.full(len(row), weight) for row, weight in zip(ragged, own, strict=True)]
        wanted = StandardScaler().fit(np.concatenate(ragged), sample_weight=np.concatenate(steps))
        for weights in (own, steps, objects(steps)):
            found = SequenceScaler().fit(ragged, sample_weight=weights)
            np.testing.assert_array_equal(found.mean_, wanted.mean_)
            np.testing.assert_array_equal(found.scale_, wanted.scale_)
        with pytest.raises(ValueError, match="sample_weight must have shape"):
            SequenceScaler().fit(ragged, sample_weight=np.ones(21))


class TestRefusals:
    @pytest.mark.parametrize(
        ("x", "message"),
        [
            ((row for row in np.ones((2, 3, 2))), "got generator: give a list"),
            ({0: np.ones((3, 2))}, "got dict: give a list"),
            (np.ma.ones((2, 3, 2)), "X must not be a masked array"),
            (np.ma.ones((2, 3)), "X must not be a masked array"),
            ([np.ma.ones((3, 2)), np.ones((3, 2))], "sequence 0 of X must not be a masked array"),
            ([np.zeros((3, 2), "M8[s]")] * 2, r"sequence 0 of X must be numbers, got datetime64"),
        ],
    )
    @pytest.mark.parametrize("kind", [SequenceRegressor, SequenceScaler])
    def test_kinds(self, kind, x, message):
        with pytest.raises(TypeError, match=message):
            kind().fit(x, [1.0, 2.0])

    def test_sparse_sequences(self):
        sparse = pytest.importorskip("scipy.sparse")
        with pytest.raises(TypeError, match=r"sequence 1 of X is sparse: give x.toarray\(\)"):
            SequenceScaler().fit([np.ones((3, 2)), sparse.csr_array(np.ones((3, 2)))])

    def test_sequences_in_the_cells_of_a_table(self, ragged):
        pd = pytest.importorskip("pandas")
        cells = pd.DataFrame({"a": [x[:, 0] for x in ragged], "b": [x[:, 1] for x in ragged]})
        with pytest.raises(ValueError, match="X is a table whose cells are sequences: give a list"):
            SequenceRegressor(**SMALL).fit(cells, Y)
        advised = [np.stack(list(row), axis=1) for row in np.asarray(cells)]
        assert_same(advised, ragged)

    def test_missing_values_of_frames(self, ragged):
        pd = pytest.importorskip("pandas")
        frames = [pd.DataFrame({"a": pd.array([1, 2], "Int64"), "b": [1, 2]}) for _ in Y]
        assert len(fitted(SequenceRegressor, frames).predict(frames)) == 6
        frames[3].loc[1, "a"] = pd.NA
        with pytest.raises(ValueError, match="Input X contains NaN"):
            SequenceRegressor(**SMALL).fit(frames, Y)

    @pytest.mark.parametrize(
        ("y", "message"),
        [
            (["u", None] * 3, "y must be labels of one kind, none missing, got NoneType, str"),
            (["u", 1] * 3, "y must be labels of one kind, none missing, got int, str"),
        ],
    )
    def test_labels(self, y, message, ragged):
        with pytest.raises(ValueError, match=message):
            SequenceClassifier(**SMALL).fit(ragged, np.array(y, object))

    def test_labels_of_two_kinds(self, ragged):
        labels = [np.zeros(length, int) for length in LENGTHS]
        labels[2] = labels[2].astype(str)
        with pytest.raises(ValueError, match="y must hold numbers or strings, got both"):
            SequenceLabeller(**SMALL).fit(ragged, labels)

    def test_targets(self, ragged):
        with pytest.raises(TypeError, match="y must not be a masked array"):
            SequenceRegressor(**SMALL).fit(ragged, np.ma.array(Y))
        with pytest.raises(TypeError, match="y must not be a masked array"):
            SequenceClassifier(**SMALL).fit(ragged, np.ma.array(Y))
        with pytest.raises(ValueError, match="y is too large to be standardised: up to 1e"):
            SequenceRegressor(**SMALL).fit(ragged, Y * 1e300)
        for kind in (SequenceClassifier, SequenceLabeller, SequenceRegressor):
            with pytest.raises(ValueError, match="requires y to be passed"):
                kind(**SMALL).fit(ragged, None)

    def test_labels_of_pandas(self, ragged):
        pd = pytest.importorskip("pandas")
        for y in (
            pd.Series(Y, index=range(9, 3, -1)),
            pd.Series(Y, dtype="Int64"),
            pd.Series(Y, dtype="category"),
        ):
            found = SequenceClassifier(**SMALL).fit(ragged, y).predict(ragged)
            assert_same(found, fitted(SequenceClassifier, ragged).predict(ragged))
        with pytest.raises(ValueError, match="none missing"):
            SequenceClassifier(**SMALL).fit(ragged, pd.Series(["u", None] * 3, dtype="string"))
