"""Pooling at its edges, and over all that there is; `test_convolution` walks its windows."""

import numpy as np
import pytest
import rnncore
from rnncore import AvgPool1d, AvgPool2d, GlobalAvgPool, GlobalMaxPool, MaxPool1d, MaxPool2d

from tests.support.compare import assert_close, assert_same, near
from tests.support.gradients import check_layer
from tests.support.windows import Ragged

WINDOWS = (MaxPool1d, AvgPool1d, MaxPool2d, AvgPool2d)
WHOLE = (GlobalMaxPool, GlobalAvgPool)
each_whole = pytest.mark.parametrize("kind", WHOLE)


class TestLargest:
    def test_nan_is_the_largest_and_the_first_gets_the_gradient(self):
        nan, inf = np.nan, np.inf
        x = np.array([[1, nan, -inf, -0.0, 2, nan], [3, 1, -inf, 0.0, 2, nan]], np.float32)
        y, pullback = MaxPool1d(2).vjp(x)
        np.testing.assert_array_equal(y, [[3, nan, -inf, 0, 2, nan]])
        dx = pullback(np.arange(1, 7, dtype=np.float32)[None])
        np.testing.assert_array_equal(dx, [[0, 2, 3, 4, 5, 6], [1, 0, 0, 0, 0, 0]])

    def test_padding_is_never_the_largest(self):
        y, pullback = MaxPool1d(2, padding=1).vjp(np.full((2, 1), -5.0))
        np.testing.assert_array_equal(y, [[-5], [-5]])
        np.testing.assert_array_equal(pullback(np.ones((2, 1))), [[1], [1]])

    def test_windows_whose_taps_are_all_beyond_the_ends(self):
        y, pullback = MaxPool1d(2, 1, 1, dilation=2).vjp(np.full((1, 1), 3.0))
        np.testing.assert_array_equal(y, [[-np.inf]])
        np.testing.assert_array_equal(pullback(np.ones((1, 1))), [[0]])

    @pytest.mark.parametrize("channels", [1, 63, 64, 65, 130])
    def test_each_channel_has_its_own(self, channels, rng):
        x = rng.standard_normal((9, 2, channels)).astype("f")
        y, pullback = MaxPool1d(3, 1).vjp(x)
        windows = np.stack([x[k : k + 7] for k in range(3)])
        np.testing.assert_array_equal(y, windows.max(axis=0))
        dx, dy = np.zeros_like(x), rng.standard_normal(y.shape).astype("f")
        for t, b, c in np.ndindex(y.shape):
            dx[t + windows[:, t, b, c].argmax(), b, c] += dy[t, b, c]
        assert_same({"dx": pullback(dy)}, {"dx": dx})


class TestWindows:
    @pytest.mark.parametrize("kind", WINDOWS)
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_have_the_dtype_of_x(self, kind, dtype):
        layer, x = kind(2), np.ones((4, 4, 3), dtype)
        y, pullback = layer.vjp(x)
        assert layer(x).dtype == y.dtype == pullback(y).dtype == dtype
        assert layer.dtype is None
        with pytest.raises(TypeError, match="x must be float32 or float64, got int64"):
            layer(x.astype(int))
        if dtype == "float32":
            with pytest.raises(TypeError, match="dy is float64"):
                layer.vjp(x)[1](y.astype("float64"))

    @pytest.mark.parametrize("kind", WINDOWS)
    def test_without_channels(self, kind):
        y, pullback = kind(2).vjp(np.zeros((4, 4, 0)))
        assert y.shape[-1] == 0
        assert pullback(y).shape == (4, 4, 0)

    @pytest.mark.parametrize("kind", WINDOWS)
    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"kernel_size": 0}, ValueError, "kernel_size must be at least 1, got 0"),
            ({"kernel_size": True}, TypeError, "kernel_size must be an integer"),
            ({"kernel_size": 1 << 31}, ValueError, "kernel_size must be at most 2147483647"),
            ({"stride": 0}, ValueError, "stride must be at least 1, got 0"),
            ({"stride": 1.0}, TypeError, "stride must be an integer"),
            ({"padding": 2}, ValueError, "padding must be at most half of kernel_size 3, got 2"),
            ({"padding": -1}, ValueError, "padding must be at least 0"),
            ({"padding": "all"}, ValueError, "padding must be one of valid, same, causal"),
            ({"ceil_mode": 2}, TypeError, "ceil_mode must be True or False, got 2"),
        ],
    )
    def test_refuse(self, kind, options, error, message):
        with pytest.raises(error, match=message):
            kind(**{"kernel_size": 3} | options)

    def test_refuse_by_kind(self):
        for kind in (AvgPool1d, AvgPool2d):
            with pytest.raises(TypeError, match="count_include_pad must be True or False"):
                kind(2, count_include_pad="no")
        for kind in (MaxPool1d, MaxPool2d):
            with pytest.raises(ValueError, match="dilation must be at least 1"):
                kind(2, dilation=0)
            with pytest.raises(TypeError, match="positional argument"):
                kind(2, 2, 0, 1, True)  # torch's `return_indices`
        with pytest.raises(TypeError, match="batch_first must be True or False"):
            MaxPool1d(2, batch_first=None)

    @pytest.mark.parametrize("layer", [MaxPool1d(2), AvgPool1d(2)])
    def test_refuse_shapes(self, layer):
        for shape in ((), (3,), (5, 2, 2, 3)):
            with pytest.raises(ValueError, match=r"x must have shape \(T, B, C\) or \(T, C\), got"):
                layer(np.zeros(shape, "f"))


REDUCED = {GlobalMaxPool: np.max, GlobalAvgPool: np.mean}
SHAPES = [((7, 3), (0,)), ((7, 2, 3), (0,)), ((2, 4, 5, 3), (1, 2)), ((1, 1, 1), (0,))]


class TestWhole:
    """Over all frames, or all pixels."""

    @each_whole
    @pytest.mark.parametrize(("shape", "axes"), SHAPES)
    @pytest.mark.parametrize("keepdims", [False, True])
    def test_is_numpys(self, kind, shape, axes, keepdims, rng):
        x = rng.standard_normal(shape)
        near(kind(keepdims)(x), REDUCED[kind](x, axis=axes, keepdims=keepdims), 1e-12)
        if len(shape) == 3:
            first = kind(keepdims, batch_first=True)
            got = first(x.swapaxes(0, 1))
            np.testing.assert_array_equal(
                got, kind(keepdims)(x).swapaxes(0, 1) if keepdims else kind()(x)
            )

    @each_whole
    @pytest.mark.parametrize(("shape", "axes"), SHAPES)
    @pytest.mark.parametrize("first", [False, True])
    @pytest.mark.parametrize("keepdims", [False, True])
    def test_gradients(self, kind, shape, axes, first, keepdims, rng):
        check_layer(kind(keepdims, batch_first=first), rng.standard_normal(shape))

    @each_whole
    def test_gradients_of_ragged_rows(self, kind, rng):
        check_layer(Ragged(kind(), [7, 1, 4]), rng.standard_normal((7, 3, 2)))

    @each_whole
    @pytest.mark.parametrize("channels", [1, 2, 5, 33])
    @pytest.mark.parametrize("steps", [1, 9, 1024, 1500, 2500])
    def test_rows_are_those_alone(self, kind, channels, steps, rng):
        """To the bit, though long means are summed in blocks."""
        layer, lengths = kind(), np.array([steps, steps // 2 + 1, steps, 1])
        x = rng.standard_normal((steps, 4, channels)).astype("f")
        for row, n in enumerate(lengths):
            x[n:, row] = np.nan
        y = layer(x, lengths=lengths)
        y2, pullback = layer.vjp(x, lengths=lengths)
        np.testing.assert_array_equal(y, y2)
        first = kind(batch_first=True)(x.swapaxes(0, 1), lengths=lengths)
        np.testing.assert_array_equal(first, y)
        dx = pullback(np.ones_like(y))
        for row, n in enumerate(lengths):
            alone, back = layer.vjp(x[:n, row])
            np.testing.assert_array_equal(y[row], alone)
            np.testing.assert_array_equal(dx[:n, row], back(np.ones_like(alone)))
            assert not dx[n:, row].any()

    def test_long_means_keep_their_digits(self, rng):
        x = (10 + rng.standard_normal((300_000, 2))).astype("f")
        near(GlobalAvgPool()(x), x.mean(axis=0, dtype="float64"), 1e-6)

    @each_whole
    def test_memory_order_does_not_matter(self, kind, rng):
        whole = rng.standard_normal((3, 4, 50)).astype("f")
        for x in (whole.T, whole.T[::-1], np.asfortranarray(whole.T)[::2]):
            np.testing.assert_array_equal(kind()(x), kind()(x.copy()))

    def test_largest_of_equals_and_of_nan(self):
        x = np.array([[1, np.nan], [3, 5], [3, np.nan]])
        y, pullback = GlobalMaxPool().vjp(x)
        np.testing.assert_array_equal(y, [3, np.nan])
        np.testing.assert_array_equal(pullback(np.ones(2)), [[0, 1], [1, 0], [0, 0]])

    @each_whole
    def test_nan_stays_in_its_row(self, kind, rng):
        x = rng.standard_normal((5, 3, 2))
        clean = kind()(x)
        x[2, 1] = np.nan
        y = kind()(x)
        assert np.isnan(y[1]).all()
        assert_close({"y": y[[0, 2]]}, {"y": clean[[0, 2]]}, 0)

    @each_whole
    def test_of_no_rows(self, kind):
        y, pullback = kind().vjp(np.zeros((5, 0, 3)))
        assert y.shape == (0, 3)
        assert pullback(y).shape == (5, 0, 3)

    @each_whole
    def test_refuses(self, kind):
        layer = kind()
        with pytest.raises(
            ValueError, match=r"x must have at least one frame, got shape \(0, 2, 3"
        ):
            layer(np.zeros((0, 2, 3)))
        for shape in ((), (3,), (2, 2, 2, 2, 2)):
            with pytest.raises(
                ValueError, match=r"x must have shape \(T, B, C\), \(T, C\) or \(B, "
            ):
                layer(np.zeros(shape))
        with pytest.raises(ValueError, match="lengths must be None for images"):
            layer(np.zeros((2, 3, 3, 1)), lengths=[1, 2])
        with pytest.raises(TypeError, match="x must be float32 or float64, got int64"):
            layer(np.zeros((5, 2, 3), int))
        for name in ("keepdims", "batch_first"):
            with pytest.raises(TypeError, match=f"{name} must be True or False"):
                kind(**{name: 7})
        y, pullback = layer.vjp(np.zeros((5, 2, 3)))
        with pytest.raises(ValueError, match=r"dy must have shape \(2, 3\), got \(3,\)"):
            pullback(y[0])

    def test_in_a_chain_what_comes_behind_has_no_lengths(self, rng):
        model = rnncore.Chain(
            rnncore.Conv1d(3, 4, 3, padding="same", dtype="float64", seed=1),
            GlobalAvgPool(),
            rnncore.BatchNorm(4, dtype="float64"),
            rnncore.Linear(4, 2, dtype="float64", seed=2),
        )
        check_layer(Ragged(model, [6, 2, 3]), rng.standard_normal((6, 3, 3)))
