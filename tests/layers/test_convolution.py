"""Convolutions against loops over windows, torch, finite differences, and what they promise."""

import numpy as np
import pytest
from rnncore import Conv1d, ConvTranspose1d

from tests.support.compare import assert_close, assert_same, near
from tests.support.gradients import check_layer
from tests.support.windows import (
    IMAGES,
    SEQUENCES,
    as_given,
    as_images,
    results,
    transposed,
)

TOLERANCE = {"float64": 1e-12, "float32": 2e-5}
each_dtype = pytest.mark.parametrize("dtype", TOLERANCE)
LAYOUTS = ("TBC", "BTC", "TC")

#: ConvTranspose1d by its arguments behind the channels.
TRANSPOSED = {
    "one": (1, 1, 1),
    "plain": (3, 4, 3),
    "stride": (3, 4, 3, 2),
    "stride beyond the kernel": (3, 4, 2, 5),
    "padding": (3, 4, 4, 1, 2),
    "output_padding": (3, 4, 3, 3, 1, 2),
    "groups": (4, 6, 3, 2, 1, 1, 2),
    "depthwise": (5, 5, 2, 1, 0, 0, 5),
    "no bias": (3, 4, 3, 1, 0, 0, 1, False),
    "dilation": (3, 4, 3, 1, 1, 0, 1, True, 2),
    "all": (4, 6, 2, 2, 1, 2, 2, True, 3),
    "wide": (35, 70, 3, 2),
}


def shaped(layout, steps, batch, channels):
    sizes = {"T": steps, "B": batch, "C": channels}
    return tuple(sizes[axis] for axis in layout)


def check(case, layer, x, layout, tolerance):
    """What a layer makes of x, against the reference of its case."""
    found = results(layer, x)
    dy = np.random.default_rng(7).standard_normal(found["y"].shape).astype(x.dtype)
    images = as_images(np.asarray(x, np.float64), layout)
    want = case.expected(layer, images, as_images(dy.astype(np.float64), layout))
    want |= {name: as_given(want[name], layout) for name in ("y", "dx")}
    assert found.keys() == want.keys()
    assert_close(found, want, tolerance)
    assert all(array.dtype == x.dtype for array in found.values())
    np.testing.assert_array_equal(layer(x), found["y"])


class TestReference:
    """The equation, by loops over windows."""

    @each_dtype
    @pytest.mark.parametrize("layout", LAYOUTS)
    @pytest.mark.parametrize("name", SEQUENCES)
    def test_over_time(self, name, layout, dtype, rng):
        case = SEQUENCES[name]
        layer = case.layer(dtype, batch_first=layout == "BTC")
        x = rng.standard_normal(shaped(layout, 11, 2, case.channels)).astype(dtype)
        check(case, layer, x, layout, TOLERANCE[dtype])

    @pytest.mark.parametrize(("steps", "batch"), [(1, 1), (2, 3), (3, 1), (4, 5), (40, 9)])
    @pytest.mark.parametrize("name", SEQUENCES)
    def test_of_any_size(self, name, steps, batch, rng):
        case = SEQUENCES[name]
        if case.arguments.get("padding_mode") == "reflect" and steps < 3:
            steps = 3
        x = rng.standard_normal((steps, batch, case.channels))
        check(case, case.layer(), x, "TBC", 1e-12)

    @each_dtype
    @pytest.mark.parametrize("layout", ["BHWC", "HWC"])
    @pytest.mark.parametrize("name", IMAGES)
    def test_over_images(self, name, layout, dtype, rng):
        case = IMAGES[name]
        x = rng.standard_normal((2, 6, 7, case.channels)[-len(layout) :]).astype(dtype)
        check(case, case.layer(dtype), x, layout, TOLERANCE[dtype])

    @pytest.mark.parametrize("sizes", [(1, 1), (1, 9), (9, 1), (2, 3), (13, 30)])
    @pytest.mark.parametrize("name", IMAGES)
    def test_of_images_of_any_size(self, name, sizes, rng):
        case = IMAGES[name]
        if case.arguments.get("padding_mode") == "reflect":
            sizes = tuple(max(size, 3) for size in sizes)
        check(case, case.layer(), rng.standard_normal((2, *sizes, case.channels)), "BHWC", 1e-12)

    @each_dtype
    @pytest.mark.parametrize(("steps", "batch"), [(5, 2), (1, 1), (0, 2), (5, 0), (30, 7)])
    @pytest.mark.parametrize("name", TRANSPOSED)
    def test_transposed(self, name, steps, batch, dtype, rng):
        given = TRANSPOSED[name]
        layer = ConvTranspose1d(*given, dtype=dtype, seed=1)
        x = rng.standard_normal((steps, batch, given[0])).astype(dtype)
        params = {n: array.astype("float64") for n, array in layer.params.items()}
        names = ("stride", "padding", "output_padding", "groups", "bias", "dilation")
        options = dict(zip(names, given[3:], strict=False))
        options.pop("bias", None)
        wide = x.astype("float64"), params["weight"], params.get("bias")
        near(layer(x), transposed(*wide, **options), TOLERANCE[dtype])
        np.testing.assert_array_equal(layer(x), layer.vjp(x)[0])
        first = ConvTranspose1d(*given, batch_first=True, dtype=dtype, seed=1)
        np.testing.assert_array_equal(first(x.swapaxes(0, 1)), layer(x).swapaxes(0, 1))
        if batch:
            np.testing.assert_array_equal(layer(x[:, 0]), layer(x)[:, 0])


class TestGradients:
    """Finite differences of every parameter and input."""

    @pytest.mark.parametrize("layout", LAYOUTS)
    @pytest.mark.parametrize("name", [n for n in SEQUENCES if "wide" not in n])
    def test_over_time(self, name, layout, rng):
        case = SEQUENCES[name]
        layer = case.layer(batch_first=layout == "BTC")
        check_layer(layer, rng.standard_normal(shaped(layout, 6, 2, case.channels)))

    @pytest.mark.parametrize("name", [n for n in IMAGES if n != "wide"])
    def test_over_images(self, name, rng):
        case = IMAGES[name]
        check_layer(case.layer(), rng.standard_normal((2, 4, 3, case.channels)))

    @pytest.mark.parametrize("name", [n for n in TRANSPOSED if n != "wide"])
    def test_transposed(self, name, rng):
        given = TRANSPOSED[name]
        check_layer(
            ConvTranspose1d(*given, dtype="float64", seed=1), rng.normal(size=(3, 2, given[0]))
        )

    def test_add_up(self, rng):
        layer, x = Conv1d(3, 4, 2, dtype="float64", seed=1), rng.standard_normal((5, 2, 3))
        once = results(layer, x)
        layer.vjp(x)[1](np.random.default_rng(7).standard_normal(once["y"].shape))
        for name, grad in layer.grads.items():
            near(grad, 2 * once[name], 1e-12)


class TestToTheBit:
    """Rows do not see each other, whatever the layout; nor do threads."""

    @each_dtype
    @pytest.mark.parametrize("name", SEQUENCES)
    def test_rows_are_those_of_single_rows_in_any_layout(self, name, dtype, rng):
        case = SEQUENCES[name]
        layer, first = case.layer(dtype), case.layer(dtype, batch_first=True)
        x = rng.standard_normal((12, 5, case.channels)).astype(dtype)
        y = layer(x)
        np.testing.assert_array_equal(first(x.swapaxes(0, 1)), y.swapaxes(0, 1))
        for row in range(5):
            np.testing.assert_array_equal(layer(x[:, row]), y[:, row])
            np.testing.assert_array_equal(layer(x[:, row : row + 1]), y[:, row : row + 1])
            np.testing.assert_array_equal(first(x[:, row][None]), y[:, row][None])

    @each_dtype
    @pytest.mark.parametrize("channels", [1, 2, 3, 5, 6, 8, 9, 16, 17, 31, 32, 33])
    @pytest.mark.parametrize("outputs", [1, 2, 5, 16, 17, 33, 70])
    @pytest.mark.parametrize(
        "more", [{}, {"dilation": 2}, {"stride": 2, "padding": 1}, {"padding": 2}]
    )
    def test_rows_of_any_width(self, channels, outputs, dtype, more, rng):
        """Narrow products sum in strands, which begin anew with each run of numbers."""
        for taps in (1, 2, 3):
            layer = Conv1d(channels, outputs, taps, **more, dtype=dtype, seed=1)
            x = rng.standard_normal((7, 3, channels)).astype(dtype)
            y = layer(x)
            for row in range(3):
                np.testing.assert_array_equal(layer(x[:, row]), y[:, row])

    @pytest.mark.parametrize("name", IMAGES)
    def test_images_are_those_alone(self, name, rng):
        case = IMAGES[name]
        layer, x = case.layer("float32"), rng.standard_normal((4, 6, 7, case.channels)).astype("f")
        y = layer(x)
        for at in range(4):
            np.testing.assert_array_equal(layer(x[at]), y[at])

    @pytest.mark.parametrize("name", TRANSPOSED)
    def test_transposed_rows_are_those_alone(self, name, rng):
        given = TRANSPOSED[name]
        layer = ConvTranspose1d(*given, seed=1)
        x = rng.standard_normal((9, 4, given[0])).astype("f")
        for row in range(4):
            np.testing.assert_array_equal(layer(x[:, row]), layer(x)[:, row])

    @pytest.mark.parametrize(
        "layer",
        [
            Conv1d(33, 70, 5, padding=2, seed=1),
            Conv1d(33, 70, 5, padding=2, batch_first=True, seed=1),
            Conv1d(36, 36, 3, groups=4, stride=2, seed=1),
            ConvTranspose1d(40, 30, 4, 2, seed=1),
            ConvTranspose1d(40, 30, 4, 2, batch_first=True, seed=1),
        ],
        ids=["over time", "rows first", "groups", "transposed", "transposed, rows first"],
    )
    def test_any_number_of_threads(self, layer, set_threads, rng):
        x = rng.standard_normal((37, 90, layer.in_channels)).astype("f")
        set_threads(1)
        alone = results(layer, x)
        for threads in (2, 3):
            set_threads(threads)
            assert_same(results(layer, x), alone)

    @pytest.mark.parametrize("name", ["wide", "groups", "pool, max", "pool, mean"])
    def test_any_number_of_threads_over_images(self, name, set_threads, rng):
        case = IMAGES[name]
        layer, x = (
            case.layer("float32"),
            rng.standard_normal((9, 40, 50, case.channels)).astype("f"),
        )
        set_threads(1)
        alone = results(layer, x)
        for threads in (2, 3):
            set_threads(threads)
            assert_same(results(layer, x), alone)


class TestEdges:
    @pytest.mark.parametrize("layout", ["TBC", "BTC"])
    @pytest.mark.parametrize(("steps", "batch"), [(0, 2), (5, 0), (0, 0)])
    @pytest.mark.parametrize("name", SEQUENCES)
    def test_nothing(self, name, layout, steps, batch):
        case = SEQUENCES[name]
        layer = case.layer(batch_first=layout == "BTC")
        x = np.zeros(shaped(layout, steps, batch, case.channels))
        if case.cannot_pad(steps):
            with pytest.raises(
                ValueError, match="x has 0 places along an axis: too few for paddin"
            ):
                layer(x)
            return
        found = results(layer, x)
        assert found["dx"].shape == x.shape
        made = case.places((steps,))[1] if steps or "Pool" not in case.kind else ()
        assert found["y"].shape == shaped(layout, len(made), batch, found["y"].shape[-1])
        if not batch:
            assert not any(found[name].any() for name in layer.params)

    @pytest.mark.parametrize("shape", [(0, 4, 5, 3), (2, 0, 5, 3), (2, 4, 0, 3)])
    @pytest.mark.parametrize("name", [n for n, c in IMAGES.items() if c.channels == 3])
    def test_no_images(self, name, shape):
        layer, x = IMAGES[name].layer(), np.zeros(shape)
        if IMAGES[name].cannot_pad(*shape[1:3]):
            with pytest.raises(
                ValueError, match="x has 0 places along an axis: too few for paddin"
            ):
                layer(x)
            return
        assert results(layer, x)["dx"].shape == shape

    def test_padding_alone_is_the_bias(self):
        layer = Conv1d(2, 3, 2, padding=2, seed=1)
        y = layer(np.zeros((0, 4, 2), "f"))
        np.testing.assert_array_equal(y, np.broadcast_to(layer.params["bias"], (3, 4, 3)))

    @pytest.mark.parametrize("name", SEQUENCES)
    def test_nan_stays_in_its_windows(self, name, rng):
        case = SEQUENCES[name]
        layer, x = case.layer("float32"), rng.standard_normal((12, 3, case.channels)).astype("f")
        clean = layer(x)
        x[6, 1] = np.nan
        y = layer(x)
        reached = (case.places((12,))[1] == 6).any(axis=1)
        assert np.isnan(y[reached, 1]).all()
        kept = np.ones(y.shape[:2], bool)
        kept[reached, 1] = False
        np.testing.assert_array_equal(y[kept], clean[kept])

    @pytest.mark.parametrize("name", SEQUENCES)
    @pytest.mark.parametrize("value", [np.inf, -np.inf])
    def test_infinity_stays_in_its_windows(self, name, value, rng):
        case = SEQUENCES[name]
        layer, x = case.layer("float32"), rng.standard_normal((12, 3, case.channels)).astype("f")
        clean = layer(x)
        x[6, 1] = value
        reached = (case.places((12,))[1] == 6).any(axis=1)
        kept = np.ones(clean.shape[:2], bool)
        kept[reached, 1] = False
        np.testing.assert_array_equal(layer(x)[kept], clean[kept])

    @pytest.mark.parametrize("name", SEQUENCES)
    def test_memory_order_does_not_matter(self, name, rng):
        case = SEQUENCES[name]
        whole = rng.standard_normal((case.channels, 24, 12)).astype("f")
        for layer in (case.layer("float32"), case.layer("float32", batch_first=True)):
            for x in (whole.T, whole.T[::-1], np.asfortranarray(whole.T)[:, ::2]):
                y = layer(x)
                dy = np.asfortranarray(rng.standard_normal(y.shape).astype("f"))
                assert_same(results(layer, x, dy), results(layer, x.copy("C"), dy.copy("C")))

    def test_lists_and_whole_numbers(self):
        layer, x = Conv1d(1, 1, 2, dtype="float64", seed=1), [[1.0], [2.0], [3.5]]
        np.testing.assert_array_equal(layer(x), layer(np.array(x)))
        np.testing.assert_array_equal(layer(np.arange(3)[:, None]), layer([[0.0], [1.0], [2.0]]))
