"""Windows of series: what is gathered, how it is scaled, what is masked, which are drawn."""

import numpy as np
import pytest
from rnncore.forecasting.windows import Covariates, Plan, Windows

PLAN = Plan(
    horizon=3,
    season=2,
    lags=4,
    stride=2,
    steps=2,
    log=False,
    counts=False,
    masked=False,
    residual=False,
    room=3,
)


def none(values):
    empty = [np.empty((len(one), 0)) for one in values]
    return Covariates(empty, empty, empty, np.zeros((len(values), 0), int))


def windows(values, **options):
    arrays = [np.asarray(one, float) for one in values]
    return Windows(arrays, PLAN._replace(**options), none(arrays))


def one(values, origin, **options):
    made = windows([values], **options)
    return made.cut(np.array([0]), np.array([[origin]])), made


SERIES = np.array([3.0, 8, 1, 9, 4, 7, 2, 6, 5, 10])


def test_inputs_and_targets_by_hand():
    cut, made = one(SERIES, 5)
    past = SERIES[1:5]
    level = past.mean()
    error = np.abs(SERIES[2:] - SERIES[:-2]).mean()
    spread = np.abs(past - level).mean() + 0.1 * error
    scaled = (past - level) / spread
    want = [*scaled, np.log(spread / error), scaled[-2:].mean()]
    np.testing.assert_allclose(cut.inputs[0, 0], want, rtol=1e-6)
    np.testing.assert_allclose(cut.targets[0, 0], (SERIES[5:8] - level) / spread, rtol=1e-12)
    np.testing.assert_allclose(cut.naive[0, 0], scaled[[2, 3, 2]], rtol=1e-12)
    assert cut.known.all()
    np.testing.assert_allclose(made.restored(cut.targets[:, 0], cut)[0], SERIES[5:8])


def test_of_logarithms():
    cut, made = one(SERIES, 5, log=True)
    same, _ = one(np.log(SERIES), 5)
    np.testing.assert_array_equal(cut.inputs, same.inputs)
    np.testing.assert_allclose(made.restored(cut.targets[:, 0], cut)[0], SERIES[5:8])


def test_of_residuals():
    cut, made = one(SERIES, 5, residual=True)
    plain, _ = one(SERIES, 5)
    np.testing.assert_allclose(cut.targets, plain.targets - plain.naive)
    np.testing.assert_allclose(made.restored(cut.targets[:, 0], cut)[0], SERIES[5:8])


def test_of_counts():
    cut, made = one(SERIES, 5, counts=True)
    np.testing.assert_array_equal(cut.targets[0, 0], SERIES[5:8])
    np.testing.assert_array_equal(cut.level, 0)
    error = np.abs(SERIES[2:] - SERIES[:-2]).mean()
    np.testing.assert_allclose(cut.spread, SERIES[1:5].mean() + 0.1 * error)
    np.testing.assert_array_equal(made.restored(cut.targets[:, 0], cut)[0], SERIES[5:8])


def test_missing_values_are_no_inputs_and_no_targets():
    values = SERIES.copy()
    values[[2, 6]] = np.nan
    cut, _ = one(values, 5, masked=True)
    inputs = cut.inputs[0, 0]
    assert inputs[1] == 0
    np.testing.assert_array_equal(inputs[-4:], [0, 1, 0, 0])
    np.testing.assert_allclose(cut.level[0, 0, 0], np.mean([8, 9, 4]))
    np.testing.assert_array_equal(cut.known[0, 0], [True, False, True])
    assert np.isfinite(cut.targets).all()


def test_beyond_both_ends():
    cut, _ = one(SERIES, 2, masked=True)
    np.testing.assert_array_equal(cut.inputs[0, 0, -4:], [1, 1, 0, 0])
    cut, _ = one(SERIES, 9)
    np.testing.assert_array_equal(cut.known[0, 0], [True, False, False])
    cut, _ = one(SERIES, -4)
    assert not cut.known.any()
    assert np.isfinite(cut.inputs).all()


def test_series_do_not_touch():
    """What lies beside a series in memory is never seen."""
    alone = windows([SERIES])
    for other in (np.full(5, 1e9), np.full(9, -1e9)):
        made = windows([other, SERIES, other])
        for origin in range(-3, 14):
            a = alone.cut(np.array([0]), np.array([[min(origin, 10)]]))
            b = made.cut(np.array([1]), np.array([[min(origin, 10)]]))
            for left, right in zip(a, b, strict=True):
                np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("scale", [1e-30, 1e30, 1e300])
def test_scales_cancel(scale):
    small, _ = one(SERIES, 5)
    cut, _ = one(SERIES * scale, 5)
    np.testing.assert_allclose(cut.inputs, small.inputs, rtol=1e-6)
    np.testing.assert_allclose(cut.targets, small.targets, rtol=1e-9)


@pytest.mark.parametrize("value", [0.0, 5.0, -1e30])
def test_a_constant_series(value):
    cut, made = one(np.full(10, value), 5)
    np.testing.assert_array_equal(cut.targets, 0)
    assert (cut.spread > 0).all()
    assert np.isfinite(cut.inputs).all()
    np.testing.assert_allclose(made.restored(np.zeros((1, 3)), cut), value)


def test_windows_are_drawn_over_all_series(rng):
    made = windows([np.arange(50.0), np.arange(7.0), np.arange(1.0)])
    series, origins = made.drawn(rng, 4000)
    assert set(series) == {0, 1}  # of a single value nothing follows
    assert abs((series == 0).mean() - 0.5) < 0.05
    np.testing.assert_array_equal(np.diff(origins, axis=1), 2)
    last = origins[series == 0, -1]
    assert last.min() == 6  # lags and the window lie within
    assert last.max() == 49  # half of the horizon does
    assert origins[series == 1, -1].max() == 6
    assert made.cut(series, origins).known.any(axis=(1, 2)).all()


def test_covariates_stand_where_they_should():
    past, ahead = SERIES[:, None] * 10, np.arange(13.0)[:, None]
    beside = Covariates([past], [ahead], [ahead + 100], np.zeros((1, 0), int))
    made = Windows([SERIES], PLAN, beside)
    cut = made.cut(np.array([0]), np.array([[5]]))
    np.testing.assert_array_equal(cut.inputs[0, 0, 6:], [*past[1:5, 0], 5, 6, 7, 105])
    np.testing.assert_array_equal(cut.ahead[0, 0, :, 0], [5, 6, 7])
    end = made.cut(*(part[:1] for part in made.ends()))
    np.testing.assert_array_equal(end.ahead[0, -1, :, 0], [10, 11, 12])


def test_inputs_of_given_values_have_the_bits_of_a_cut():
    made = windows([SERIES, SERIES[::-1]])
    series = np.array([1, 0])
    cut = made.cut(series, np.array([[10], [10]]))
    inputs, level, spread = made.inputs_at(made.last(series), series, np.array([10, 10]))
    np.testing.assert_array_equal(inputs, cut.inputs[:, 0])
    np.testing.assert_array_equal(level, cut.level[:, 0])
    np.testing.assert_array_equal(spread, cut.spread[:, 0])
