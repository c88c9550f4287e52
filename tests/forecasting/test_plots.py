"""Pictures of forecasts: what is drawn, into which axes, for which series."""

import numpy as np
import pytest
from rnncore.forecasting import Naive, SeasonalNaive, backtest, plot_backtest, plot_forecast

pytest.importorskip("matplotlib", reason="matplotlib draws")

from matplotlib.figure import Figure

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)
Y = np.sin(np.arange(60.0))
MODEL = SeasonalNaive(6, 6, LEVELS)


def forecast(**options):
    return plot_forecast(Y, MODEL.predict(Y), MODEL.predict_quantiles(Y), LEVELS, **options)


def rolled(**options):
    return plot_backtest(backtest(MODEL, Y, origins=3, season=6), **options)


PLOTS = {"forecast": forecast, "backtest": rolled}


@pytest.mark.parametrize("kind", PLOTS)
class TestEach:
    def test_returns_a_figure_and_is_saved_where_there_is_a_path(self, kind, tmp_path):
        figure = PLOTS[kind](path=tmp_path / "picture.png")
        assert isinstance(figure, Figure)
        assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
        PLOTS[kind]()
        assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]

    def test_draws_into_given_axes(self, kind):
        figure = Figure()
        left, right = figure.subplots(1, 2)
        assert PLOTS[kind](ax=right) is figure
        assert right.lines
        assert right.collections
        assert not left.lines
        with pytest.raises(TypeError, match="ax must be a matplotlib Axes or None"):
            PLOTS[kind](ax=figure)

    def test_bands_lie_between_pairs_of_quantiles(self, kind):
        texts = [text.get_text() for text in PLOTS[kind]().axes[0].get_legend().get_texts()]
        assert [text for text in texts if "interval" in text] == ["80% interval", "50% interval"]


def test_a_forecast_is_drawn_behind_its_history():
    axes = forecast(actual=np.arange(6.0), last=10).axes[0]
    history, came, points = axes.lines
    np.testing.assert_array_equal(history.get_xydata(), np.c_[np.arange(50, 60), Y[50:]])
    np.testing.assert_array_equal(came.get_xydata(), np.c_[np.arange(60, 66), np.arange(6)])
    np.testing.assert_array_equal(points.get_xydata(), np.c_[np.arange(60, 66), Y[54:]])
    band = axes.collections[0].get_paths()[0].vertices
    quantiles = MODEL.predict_quantiles(Y)
    assert band[:, 1].min() == quantiles[:, 0].min()
    assert band[:, 1].max() == quantiles[:, -1].max()


def test_a_backtest_is_drawn_at_its_origins():
    axes = rolled().axes[0]
    lines = [line for line in axes.lines if len(line.get_xdata()) == 6]
    starts = [line.get_xdata()[0] for line in lines]
    assert starts == [42, 48, 54] * 2
    np.testing.assert_array_equal(lines[1].get_ydata(), Y[42:48])
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert {"SeasonalNaive", "seasonal naive", "what came"} <= set(labels)


def test_series_of_frames_are_chosen_by_name():
    pd = pytest.importorskip("pandas", reason="pandas has the frames")
    months = pd.date_range("2020-01-31", periods=60, freq="ME", tz="Europe/Berlin")
    frame = pd.DataFrame({"a": Y, "b": Y + 5}, months)
    model = SeasonalNaive(3, 6, LEVELS)
    told, spread = model.predict(frame), model.predict_quantiles(frame)
    axes = plot_forecast(frame, told, spread, series="b").axes[0]  # the frame says its levels
    assert axes.get_ylabel() == "b"
    assert len(axes.collections) == 2
    np.testing.assert_array_equal(axes.lines[-1].get_ydata(), told["b"])
    assert axes.lines[-1].get_xdata()[0] == np.datetime64("2025-01-31")
    long = frame.rename_axis("t").reset_index().melt("t", var_name="id").astype({"id": str})
    axes = plot_forecast(long, model.predict(long), series="b").axes[0]
    np.testing.assert_array_equal(axes.lines[-1].get_ydata(), told["b"])
    axes = backtest(model, long, season=6).plot("b").axes[0]
    assert axes.get_ylabel() == "b"
    for bad in (
        lambda: plot_forecast(frame, told, series="c"),
        lambda: backtest(model, frame).plot("c"),
    ):
        with pytest.raises(ValueError, match="series must be one of 'a', 'b', got 'c'"):
            bad()


@pytest.mark.parametrize("data", [[Y, Y[:9]], np.c_[Y, Y], [np.c_[Y, Y]] * 2])
def test_horizons_are_told_from_forecasts_of_any_form(data):
    model = Naive(2, (0.1, 0.9))
    figure = plot_forecast(data, model.predict(data), model.predict_quantiles(data), (0.1, 0.9))
    assert len(figure.axes[0].lines[-1].get_xdata()) == 2


def test_one_step_is_a_point():
    model = Naive(1, (0.1, 0.9))
    axes = plot_forecast(Y, model.predict(Y), model.predict_quantiles(Y), (0.1, 0.9)).axes[0]
    assert axes.lines[-1].get_marker() == "o"


def test_arrays_do_not_say_their_levels():
    with pytest.raises(ValueError, match="levels must say which quantiles these are"):
        plot_forecast(Y, MODEL.predict(Y), MODEL.predict_quantiles(Y))
    with pytest.raises(ValueError, match="forecast must have shape"):
        plot_forecast(Y, MODEL.predict(Y), MODEL.predict_quantiles(Y), (0.1, 0.9))
