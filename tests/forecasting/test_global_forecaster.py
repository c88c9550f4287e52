"""One network for many series: what it learns from, the same bits, and hostile series."""

import numpy as np
import pytest
from rnncore import get_num_threads, set_num_threads
from rnncore.distributions import Gaussian, NegativeBinomial, PenStrokes, Poisson, StudentT
from rnncore.forecasting import GlobalForecaster, SeasonalNaive, backtest
from rnncore.forecasting.learning import seen
from rnncore.forecasting.sampling import sample_paths
from rnncore.forecasting.windows import Covariates, Windows

SMALL = {"hidden_size": 16, "updates": 60, "seed": 0, "batch_size": 32}


def noisy_seasons(rng, count=20, length=90):
    """Seasons of 6 steps with noise, of which the seasonal naive forecast has twice as much."""
    t = np.arange(length)
    found = []
    for _ in range(count):
        shape = rng.standard_normal(6)[t % 6] * 3
        level = np.cumsum(rng.standard_normal(length)) * 0.1
        found.append(20 + shape + level + rng.standard_normal(length))
    return found


@pytest.mark.parametrize("network", ["direct", "encoder-decoder", "autoregressive"])
def test_it_is_ahead_of_the_seasonal_naive_forecast(network, rng):
    series = noisy_seasons(rng)
    options = SMALL | {"updates": 400, "network": network}
    model = GlobalForecaster(**options, horizon=6, season=6)
    found = backtest(model, series, origins=3, season=6, refit=False)
    text = str(found)
    assert "seasonal naive" in text
    scores = {
        name: np.abs(made.points - found.actual).mean() for name, made in found.forecasts.items()
    }
    assert scores["GlobalForecaster"] < 0.9 * scores["seasonal naive"]


@pytest.mark.parametrize("network", ["direct", "encoder-decoder", "autoregressive"])
@pytest.mark.parametrize("head", [None, Gaussian(), StudentT(), Poisson(), NegativeBinomial()])
def test_every_network_and_head(network, head, rng):
    series = [rng.poisson(5, 40).astype(float) for _ in range(4)]
    series[0][5:9] = np.nan
    model = GlobalForecaster(
        **SMALL | {"updates": 5}, horizon=4, season=3, network=network, head=head, paths=30
    )
    assert model.fit(series) is model
    points, quantiles = model.predict(), model.predict_quantiles()
    assert points.shape == (4, 4)
    assert quantiles.shape == (4, 4, 7)
    assert (np.diff(quantiles, axis=-1) >= 0).all()
    np.testing.assert_allclose(quantiles[..., 3], points)
    drawn = model.sample(series, 9, seed=1)
    assert drawn.shape == (4, 9, 4)
    np.testing.assert_array_equal(drawn, model.sample(series, 9, seed=1))
    for found in (points, quantiles, drawn):
        assert np.isfinite(found).all()
    if head is not None and head.counts:
        assert (drawn >= 0).all()


def test_the_same_bits_for_any_number_of_threads(rng):
    series, before = noisy_seasons(rng, 4), get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            set_num_threads(threads)
            model = GlobalForecaster(**SMALL, horizon=6, season=6, members=3).fit(series)
            found.append(model.predict_quantiles())
            assert get_num_threads() == threads
    finally:
        set_num_threads(before)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
    assert len(model.networks_) == len(model.history_) == 3
    singles = [network(seen_of(model)) for network in model.networks_]
    assert np.abs(singles[0] - singles[1]).max() > 1e-3  # other seeds


def windows_of(model):
    panel, given = model._fitted
    return Windows(panel.values, model._plan, model._beside.read(panel, *given, model.horizon))


def seen_of(model):
    windows = windows_of(model)
    series, origins = windows.ends()
    return seen(windows, series, windows.cut(series, origins))


@pytest.mark.parametrize("head", [Gaussian(), StudentT(), NegativeBinomial()])
def test_paths_have_the_bits_of_a_network_that_is_given_them(head, rng):
    """Drawn step by step, they are what one call over the finished paths would have drawn."""
    series = [np.round(one) for one in noisy_seasons(rng, 3, 60)]
    options = SMALL | {"horizon": 5, "season": 6, "window": 4, "log": False, "head": head}
    model = GlobalForecaster(**options, network="autoregressive").fit(series)
    windows, network = windows_of(model), model.networks_[0]
    paths = sample_paths(windows, head, network, 5, 7, np.random.default_rng(3))
    assert paths.shape == (3, 7, 5)
    # The state begins four origins before the end: one window from there to the end of the paths.
    longer = [np.append(one, path) for one, own in zip(series, paths, strict=True) for path in own]
    empty = [np.empty((65, 0))] * 21
    nothing = Covariates(empty, empty, empty, np.zeros((21, 0), int))
    whole = Windows(longer, model._plan._replace(steps=8), nothing)
    whole.errors, whole.levels = (np.repeat(part, 7) for part in (windows.errors, windows.levels))
    cut = whole.cut(np.arange(21), whole.origins(np.full(21, 64)))
    out = network(seen(whole, np.arange(21), cut))[:, 3:].astype(np.float64)
    generator = np.random.default_rng(3)
    for step in range(5):
        drawn = head.sample(out[:, step], seed=generator)
        if not head.counts:
            drawn = drawn * cut.spread[:, 3 + step] + cut.level[:, 3 + step]
        np.testing.assert_array_equal(drawn[:, 0], paths.reshape(21, 5)[:, step])


def test_differences_to_the_seasonal_naive_forecast(rng):
    """Of seasons that repeat, nothing is left to be learnt."""
    series = [np.tile(rng.standard_normal(6), 10) for _ in range(5)]
    model = GlobalForecaster(**SMALL | {"updates": 3}, horizon=8, season=6, residual=True)
    plain = GlobalForecaster(**SMALL | {"updates": 3}, horizon=8, season=6)
    truth = np.stack([np.append(one[:6], one[:2]) for one in series])
    errors = [np.abs(one.fit(series).predict() - truth).mean() for one in (model, plain)]
    assert errors[0] < 0.6 * errors[1]


def test_what_is_known_ahead_is_used(rng):
    signal = [rng.standard_normal(104) for _ in range(12)]
    series = [s[:100] + 0.05 * rng.standard_normal(100) for s in signal]
    model = GlobalForecaster(**SMALL | {"updates": 300}, horizon=4)
    ahead = [s[:, None] for s in signal]
    model.fit(series, ahead=ahead)
    truth = np.stack([s[100:] for s in signal])
    with_it = np.abs(model.predict() - truth).mean()
    without = np.abs(model.fit(series).predict() - truth).mean()
    assert with_it < 0.5 * without


def test_what_is_known_of_the_past_is_used(rng):
    past = [rng.standard_normal((100, 1)) for _ in range(12)]
    series = [np.append(0, p[:-1, 0]) + 0.05 * rng.standard_normal(100) for p in past]
    model = GlobalForecaster(**SMALL | {"updates": 300}, horizon=1)
    truth = np.stack([p[-1] for p in past])
    with_it = np.abs(model.fit(series, past=past).predict() - truth).mean()
    without = np.abs(model.fit(series).predict() - truth).mean()
    assert with_it < 0.5 * without


def test_categories_of_series_are_used(rng):
    """One value tells nothing of the next: of one kind it grows, of the other it shrinks."""
    kinds = ["up", "down"] * 8
    rates = [np.where(k == "up", 0.1, -0.1) + 0.01 * rng.standard_normal(40) for k in kinds]
    series = [np.exp(np.cumsum(rate)) for rate in rates]
    model = GlobalForecaster(**SMALL | {"updates": 400, "learning_rate": 0.03}, lags=1, window=1)
    model.fit(series, static=kinds)
    last = np.array([[one[-1]] for one in series])
    want = np.where(np.arange(16) % 2, np.exp(-0.1), np.exp(0.1))[:, None]
    np.testing.assert_allclose(model.predict() / last, want, atol=0.03)
    told = model.predict([series[0], series[0]], static=["down", "up"])[:, 0]
    np.testing.assert_allclose(told / series[0][-1], np.exp([-0.1, 0.1]), atol=0.03)
    assert np.isfinite(model.predict(series[:1], static=["new"])).all()


def test_the_calendar_is_an_input():
    pandas = pytest.importorskip("pandas")
    index = pandas.date_range("2024-01-01", periods=24 * 21, freq="h", tz="Europe/Paris")
    values = 10.0 + index.hour + 5 * (index.day_of_week >= 5)
    frame = pandas.DataFrame({"a": values, "b": values[::-1]}, index=index)
    model = GlobalForecaster(**SMALL | {"updates": 20}, horizon=3, season=1, lags=4).fit(frame)
    assert model._beside.cycles == ("day", "week")
    found = model.predict()
    assert list(found.columns) == ["a", "b"]
    assert (found.index == pandas.date_range(index[-1], periods=4, freq="h")[1:]).all()


def test_conformal_intervals_cover_what_was_held_out(rng):
    series = noisy_seasons(rng, 40)
    model = GlobalForecaster(
        **SMALL, horizon=6, season=6, quantiles=(0.1, 0.5, 0.9), calibrate=True
    ).fit(series)
    actual, quantiles = model.held_out_
    np.testing.assert_array_equal(actual, np.stack([one[-6:] for one in series]))
    below = (actual[..., None] <= quantiles).mean(axis=(0, 1))
    np.testing.assert_allclose(below[[0, 2]], [0.1, 0.9], atol=0.01)
    assert model.conformal_factors_.shape == (3,)


def test_intervals_of_few_series_are_not_made_narrower(rng):
    """The end of one series may happen to lie near its forecast: 29 are few, 30 are not."""
    series = noisy_seasons(rng, 30)
    for quiet in series:
        quiet[-6:] = quiet[-12:-6]  # easier than all that was learnt from
    options = SMALL | {"horizon": 6, "season": 6, "quantiles": (0.1, 0.5, 0.9)}
    many = GlobalForecaster(**options, calibrate=True).fit(series)
    few = GlobalForecaster(**options, calibrate=True).fit(series[:29])
    assert many.conformal_factors_.min() < 1
    assert few.conformal_factors_.min() >= 1
    assert few.conformal_factors_.max() < 2


class TestHostile:
    @pytest.mark.parametrize("network", ["direct", "autoregressive"])
    @pytest.mark.parametrize(
        "values",
        [
            np.zeros(30),
            np.full(30, 7.0),
            np.full(30, -1e30),
            np.array([3.0]),
            np.array([np.nan, 3.0, np.nan]),
            np.arange(2.0),
            np.geomspace(1e-30, 1e30, 40),
            np.where(np.arange(50) % 7, 0.0, 1e30),
            np.where(np.arange(50) % 3, np.nan, 1e-30),
            np.full(20, 1.7e308),
        ],
        ids=str,
    )
    def test_finite_forecasts(self, network, values):
        model = GlobalForecaster(
            **SMALL | {"updates": 10}, horizon=5, season=4, network=network, paths=20
        )
        model.fit(values)
        for found in (model.predict(), model.predict_quantiles(), model.sample(paths=5, seed=0)):
            assert np.isfinite(found).all()

    def test_one_hostile_series_among_others(self, rng):
        series = [*noisy_seasons(rng, 4), np.full(3, 5.0), np.array([1e30, np.nan, 1e-30])]
        found = GlobalForecaster(**SMALL, horizon=5, season=6, calibrate=True).fit(series)
        assert np.isfinite(found.predict_quantiles()).all()

    def test_a_constant_series_stays_near(self):
        model = GlobalForecaster(**SMALL, horizon=5).fit([np.full(40, 7.0), np.full(40, 2e9)])
        np.testing.assert_allclose(model.predict(), [[7] * 5, [2e9] * 5], rtol=0.01)

    def test_all_missing(self):
        with pytest.raises(ValueError, match="series 0 of X must have a value"):
            GlobalForecaster().fit(np.full(5, np.nan))


class TestArguments:
    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"horizon": 0}, ValueError, "horizon must be"),
            ({"members": 0}, ValueError, "members must be"),
            ({"network": "transformer"}, ValueError, "network must be"),
            ({"quantiles": (0.9, 0.1)}, ValueError, "quantiles must be"),
            ({"head": "gaussian"}, TypeError, "head must be a rnncore.distributions"),
            ({"head": PenStrokes(1)}, ValueError, "head must tell one value"),
            ({"relative": -1}, ValueError, "relative must be at least 0"),
            ({"log": True}, ValueError, "log needs values above 0"),
            ({"log": True, "head": Poisson()}, ValueError, "log"),
            ({"calibrate": True, "horizon": 9}, ValueError, "calibrate needs series of more"),
        ],
    )
    def test_refused(self, options, error, message):
        with pytest.raises(error, match=message):
            GlobalForecaster(**options).fit(np.array([0.0, 1, 2, 3]))

    def test_before_fit(self):
        with pytest.raises(ValueError, match="fit must be called before"):
            GlobalForecaster().predict()

    def test_covariates(self):
        series = [np.arange(9.0), np.arange(8.0)]
        ahead = [np.ones((11, 1)), np.ones((10, 1))]
        model = GlobalForecaster(**SMALL | {"updates": 2}, horizon=2)
        for given, message in (
            ({"past": [np.ones((9, 1))]}, "past must have 2 arrays, one a series, got 1"),
            ({"past": [np.ones((9, 1)), np.ones((7, 1))]}, r"past of series 1 must have shape \(8"),
            ({"ahead": [np.ones((9, 1)), np.ones((8, 2))]}, "ahead must have the same columns"),
            ({"ahead": [np.ones(9), np.full(8, np.inf)]}, "series 1 must be finite or NaN"),
            ({"static": ["a"]}, r"static must have shape \(2,\) or \(2, S\), got \(1, 1\)"),
        ):
            with pytest.raises(ValueError, match=message):
                model.fit(series, **given)
        model.fit(series, ahead=ahead)
        with pytest.raises(ValueError, match="ahead must be given, as it was to fit"):
            model.predict(series)
        with pytest.raises(ValueError, match=r"ahead of series 0 must have shape \(11, K\)"):
            model.predict(series, ahead=[one[:9] for one in ahead])
        with pytest.raises(ValueError, match="static must be None, as it was to fit"):
            model.predict(series, ahead=ahead, static=["a", "b"])
        with pytest.raises(ValueError, match="ahead must have 1 columns"):
            model.predict(series, ahead=[np.ones((11, 2)), np.ones((11, 2))])
        assert model.predict().shape == (2, 2)

    def test_logarithms_were_learnt(self):
        model = GlobalForecaster(**SMALL | {"updates": 2}).fit(np.arange(1.0, 20))
        with pytest.raises(ValueError, match="X must have values above 0"):
            model.predict(np.array([1.0, 0, 2]))


def test_fewer_steps_than_the_horizon(rng):
    """A naive method serves a series of two values; so does this, of its own scale."""
    series = [np.array([4.0, 5.0]), *noisy_seasons(rng, 3)]
    model = GlobalForecaster(**SMALL, horizon=12, season=6).fit(series)
    naive = SeasonalNaive(12, 6).fit(series).predict()
    assert np.abs(model.predict()[0] - naive[0]).max() < 5
