"""Convolutions against loops over windows, torch, finite differences, and what they promise."""

import copy
import pickle

import numpy as np
import pytest
import rnncore
from rnncore import (
    AvgPool1d,
    BatchNorm,
    Chain,
    Conv1d,
    Conv2d,
    ConvTranspose1d,
    GlobalAvgPool,
    Linear,
    MaxPool1d,
)

from tests.support.compare import assert_close, assert_same, near
from tests.support.gradients import check_layer
from tests.support.windows import (
    OVER_IMAGES,
    OVER_TIME,
    POOLS,
    POOLS_OF_IMAGES,
    Ragged,
    as_given,
    as_images,
    transposed,
)

TOLERANCE = {"float64": 1e-12, "float32": 2e-5}
each_dtype = pytest.mark.parametrize("dtype", TOLERANCE)
LAYOUTS = ("TBC", "BTC", "TC")
SEQUENCES = OVER_TIME | {f"pool, {name}": case for name, case in POOLS.items()}
IMAGES = OVER_IMAGES | {f"pool, {name}": case for name, case in POOLS_OF_IMAGES.items()}

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


def results(layer, x, dy=None, **options):
    """y, dx and gradients by name; dy is drawn if it is not given."""
    layer.zero_grad()
    y, pullback = layer.vjp(x, **options)
    if dy is None:
        dy = np.random.default_rng(7).standard_normal(y.shape).astype(y.dtype)
    return {"y": y, "dx": pullback(dy)} | {name: g.copy() for name, g in layer.grads.items()}


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
        ids=repr,
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


def refused(**options):
    """Make a Conv1d of three channels with one wrong argument."""
    Conv1d(**{"in_channels": 3, "out_channels": 6, "kernel_size": 3} | options)


class TestArguments:
    """Every wrong argument is refused by name."""

    @pytest.mark.parametrize("make", [Conv1d, Conv2d, ConvTranspose1d])
    @pytest.mark.parametrize(
        "name", ["in_channels", "out_channels", "kernel_size", "stride", "dilation", "groups"]
    )
    def test_sizes(self, make, name):
        given = {"in_channels": 6, "out_channels": 6, "kernel_size": 3}
        for value in (0, -1, 1 << 70):
            with pytest.raises(ValueError, match=f"^{name} must be at (least|most)"):
                make(**given | {name: value})
        for value in (True, 1.0, "2", None, np.float32(2), [1, 2, 3] if make is Conv1d else {}):
            with pytest.raises(TypeError, match=f"^{name} must be an integer, got"):
                make(**given | {name: value})

    @pytest.mark.parametrize("name", ["kernel_size", "stride", "dilation", "padding"])
    def test_numbers_beyond_what_memory_holds(self, name):
        refused(**{name: np.int64(1)})
        with pytest.raises(ValueError, match=f"{name} must be at most 2147483647, got 2147483648"):
            refused(**{name: 1 << 31})

    def test_groups(self):
        with pytest.raises(
            ValueError, match="groups must divide in_channels and out_channels, got 2 of 3 and 6"
        ):
            refused(groups=2)
        with pytest.raises(ValueError, match="groups must divide"):
            ConvTranspose1d(4, 3, 2, groups=2)

    @pytest.mark.parametrize(
        ("padding", "error", "message"),
        [
            (-1, ValueError, "padding must be at least 0, got -1"),
            ((0, -1), ValueError, "padding must be at least 0, got -1"),
            ((1, 2, 3), ValueError, "padding must be one number or two"),
            ((), ValueError, "padding must be one number or two"),
            ("SAME", ValueError, "padding must be one of valid, same, causal, got 'SAME'"),
            ("", ValueError, "padding must be one of valid, same, causal"),
            (1.5, TypeError, "padding must be an integer, got 1.5"),
            (True, TypeError, "padding must be an integer, got True"),
            ((True, 1), TypeError, "padding must be an integer, got True"),
            (None, TypeError, "padding must be an integer, got None"),
            (("same", "same"), TypeError, "padding must be an integer, got 'same'"),
        ],
    )
    def test_padding(self, padding, error, message):
        with pytest.raises(error, match=message):
            refused(padding=padding)

    def test_padding_that_a_name_makes_is_bounded(self):
        with pytest.raises(ValueError, match="padding must be at most 2147483647"):
            refused(padding="causal", dilation=(1 << 31) - 1)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"padding": (1, 2, 3)}, "padding must be given once or for both axes"),
            ({"padding": (1, (1, 2, 3))}, "padding must be one number or two"),
            ({"padding": ("same", "middle")}, "padding must be one of valid, same, causal"),
            ({"kernel_size": (2, 0)}, "kernel_size must be at least 1, got 0"),
            ({"kernel_size": (2, 2, 2)}, "kernel_size must be one number or two"),
            ({"stride": (1,)}, "stride must be one number or two"),
        ],
    )
    def test_of_two_axes(self, options, message):
        with pytest.raises(ValueError, match=message):
            Conv2d(**{"in_channels": 3, "out_channels": 6, "kernel_size": 3} | options)

    def test_padding_of_a_transpose(self):
        for padding in ("same", (1, 2), 1.0):
            with pytest.raises(TypeError, match="padding must be an integer"):
                ConvTranspose1d(3, 4, 3, padding=padding)
        with pytest.raises(ValueError, match="output_padding must be smaller than stride or dilat"):
            ConvTranspose1d(3, 4, 3, 2, output_padding=2)
        with pytest.raises(TypeError, match="stride must be an integer"):
            ConvTranspose1d(3, 4, 3, "2", output_padding=1)
        with pytest.raises(TypeError, match="output_padding must be an integer"):
            ConvTranspose1d(3, 4, 3, 2, output_padding=True)

    @pytest.mark.parametrize("make", [Conv1d, Conv2d])
    @pytest.mark.parametrize("mode", ["circular", "", None, 1, b"zeros"])
    def test_padding_modes(self, make, mode):
        with pytest.raises(ValueError, match="padding_mode must be one of zeros, reflect, replic"):
            make(3, 4, 3, padding_mode=mode)

    @pytest.mark.parametrize("name", ["bias", "batch_first"])
    def test_flags(self, name):
        for make in (Conv1d, ConvTranspose1d):
            for value in (2, "yes", None, 1.0):
                with pytest.raises(TypeError, match=f"{name} must be True or False, got"):
                    make(3, 4, 3, **{name: value})

    def test_dtypes(self):
        for make in (Conv1d, Conv2d, ConvTranspose1d):
            with pytest.raises(ValueError, match="dtype must be float32 or float64, got float16"):
                make(3, 4, 3, dtype="float16")

    @pytest.mark.parametrize("shape", [(), (3,), (5, 2, 4), (5, 4), (5, 2, 2, 3)])
    def test_shapes(self, shape):
        for layer in (Conv1d(3, 4, 2), ConvTranspose1d(3, 4, 2)):
            for call in (layer, layer.vjp):
                with pytest.raises(
                    ValueError, match=r"x must have shape \(T, B, 3\) or \(T, 3\), go"
                ):
                    call(np.zeros(shape, "f"))
        first = Conv1d(3, 4, 2, batch_first=True)
        with pytest.raises(ValueError, match=r"x must have shape \(B, T, 3\) or \(T, 3\), got"):
            first(np.zeros(shape, "f"))
        with pytest.raises(
            ValueError, match=r"x must have shape \(B, H, W, 3\) or \(H, W, 3\), got"
        ):
            Conv2d(3, 4, 2)(np.zeros((*shape, 2), "f"))

    @pytest.mark.parametrize("make", [Conv1d, Conv2d, ConvTranspose1d])
    def test_dtypes_of_x(self, make):
        layer, x = make(3, 4, 2), np.zeros((2, 4, 3))
        for call in (layer, layer.vjp):
            with pytest.raises(
                TypeError, match="x is float64, but this module computes in float32"
            ):
                call(x)
            with pytest.raises(TypeError, match="x must not be a masked array"):
                call(np.ma.masked_array(x.astype("f")))
        y, pullback = layer.vjp(x.astype("f"))
        with pytest.raises(ValueError, match=r"dy must have shape \(.*\), got \(3,\)"):
            pullback(np.zeros(3, "f"))
        with pytest.raises(TypeError, match="dy is float64"):
            pullback(y.astype("float64"))
        pullback(y)
        with pytest.raises(RuntimeError, match="already run"):
            pullback(y)

    def test_reflected_ends_that_are_not_there(self):
        layer = Conv1d(1, 1, 3, padding=2, padding_mode="reflect", seed=1)
        for call in (layer, layer.vjp):
            with pytest.raises(
                ValueError, match="x has 2 places along an axis: too few for padding 2 by 'reflect'"
            ):
                call(np.zeros((2, 1, 1), "f"))

    def test_memory_that_is_not_there(self):
        with pytest.raises(MemoryError):
            Conv1d(1 << 16, 1 << 16, 1 << 12)
        with pytest.raises(MemoryError):
            Conv1d(1, 1 << 12, 1, padding=(1 << 31) - 1)(np.zeros((1, 1, 1), "f"))


class TestWeights:
    @pytest.mark.parametrize("make", [Conv1d, Conv2d, ConvTranspose1d])
    def test_start_as_torchs_do(self, make):
        params = make(40, 80, 5, groups=2, seed=3).params
        inputs = (40 if make is ConvTranspose1d else 20) * (25 if make is Conv2d else 5)
        for name, param in params.items():
            bound = 1 / np.sqrt(inputs)
            assert bound * (0.9 if name == "bias" else 0.99) < np.abs(param).max() <= bound
            assert abs(param.mean()) < bound / 4
        assert make(4, 8, 5, bias=False).params.keys() == {"weight"}

    def test_have_torchs_shapes(self):
        assert Conv1d(4, 6, 3, groups=2).params["weight"].shape == (6, 2, 3)
        assert Conv2d(4, 6, (3, 2), groups=2).params["weight"].shape == (6, 2, 3, 2)
        assert ConvTranspose1d(4, 6, 3, groups=2).params["weight"].shape == (4, 3, 3)

    def test_seeds(self):
        one, same, other = (Conv1d(3, 4, 2, seed=seed).params["weight"] for seed in (1, 1, 2))
        np.testing.assert_array_equal(one, same)
        assert (one != other).all()
        wide = Conv1d(3, 4, 2, seed=1, dtype="float64").params["weight"]
        np.testing.assert_array_equal(one, wide.astype("f"))

    @pytest.mark.parametrize("make", [Conv1d, Conv2d, ConvTranspose1d])
    def test_written_to_count(self, make, rng):
        layer, x = make(3, 4, 2, seed=1), rng.standard_normal((5, 4, 3)).astype("f")
        y = layer(x)
        held = layer.params["weight"]
        for change in (lambda: held.fill(0), lambda: layer.params["bias"].fill(2)):
            change()
            again = make(3, 4, 2, seed=9)
            again.load_state_dict(layer.params)
            np.testing.assert_array_equal(layer(x), again(x))
            assert (layer(x) != y).any()
        np.testing.assert_array_equal(layer(x), np.full_like(y, 2))

    def test_written_to_count_for_the_gradient(self):
        """As of `Linear`: a pullback takes the weights as they then are."""
        layer, x = Conv1d(1, 1, 1, seed=1), np.ones((2, 1, 1), "f")
        _, pullback = layer.vjp(x)
        layer.params["weight"].fill(3)
        np.testing.assert_array_equal(pullback(x), 3 * x)

    @pytest.mark.filterwarnings("ignore:Setting the dtype")
    @pytest.mark.parametrize("make", [Conv1d, Conv2d, ConvTranspose1d])
    @pytest.mark.parametrize("name", ["weight", "bias"])
    @pytest.mark.parametrize("change", ["resize", "retype"])
    def test_changed_in_place_are_refused(self, make, name, change):
        layer, x = make(3, 4, 2, seed=1), np.ones((5, 4, 3), "f")
        y, pullback = layer.vjp(x)
        array = layer.params[name]
        if change == "resize":
            array.resize((1, 1), refcheck=False)
        else:
            array.dtype = np.int32
        if make is ConvTranspose1d and name == "bias":  # read where it lies, by the call alone
            with pytest.raises((ValueError, TypeError), match="bias must"):
                layer(x)
            return
        for call in (lambda: layer(x), lambda: layer.vjp(x), lambda: pullback(y)):
            with pytest.raises(ValueError, match=f"{name} must stay the array that it was"):
                call()

    @pytest.mark.parametrize("make", [Conv1d, Conv2d, ConvTranspose1d])
    def test_gradients_changed_in_place_are_refused(self, make):
        layer, x = make(3, 4, 2, seed=1), np.ones((5, 4, 3), "f")
        y, pullback = layer.vjp(x)
        layer.grads["weight"].resize((1, 1), refcheck=False)
        with pytest.raises(ValueError, match=r"weight must have shape \(.*\), got \(1, 1\)"):
            pullback(y)

    @pytest.mark.parametrize("again", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
    @pytest.mark.parametrize("make", [Conv1d, Conv2d, ConvTranspose1d])
    def test_copies_are_apart(self, make, again, rng):
        layer, x = make(3, 4, 2, seed=1), rng.standard_normal((5, 4, 3)).astype("f")
        want = results(layer, x)
        twin = again(layer)
        assert_same(results(twin, x), want)
        twin.params["weight"].fill(0)
        assert_same({"y": layer(x)}, {"y": want["y"]})
        assert (twin(x) == twin.params["bias"]).all()

    @pytest.mark.parametrize("make", [Conv1d, Conv2d, ConvTranspose1d])
    def test_files(self, make, tmp_path, rng):
        layer, x = make(3, 4, 2, seed=1), rng.standard_normal((5, 4, 3)).astype("f")
        layer.save(tmp_path / "layer")
        assert_same({"y": rnncore.load(tmp_path / "layer")(x)}, {"y": layer(x)})
        other = make(3, 4, 2, seed=2)
        other.load(tmp_path / "layer")
        assert_same({"y": other(x)}, {"y": layer(x)})

    def test_are_left_as_they_are_by_quantize(self, rng):
        conv, linear = Conv1d(3, 40, 3, padding="same", seed=1), Linear(40, 2, seed=2)
        model, x = Chain(conv, linear), rng.standard_normal((9, 2, 3)).astype("f")
        small = rnncore.quantize(model)
        assert_same({"y": small[0](x)}, {"y": conv(x)})
        assert small[0].params["weight"].dtype == np.float32
        assert small[1].weight_type == "int8"
        near(small(x), model(x), 0.02)
        small[0].params["weight"].fill(0)
        assert conv.params["weight"].any()


#: Padding that does not depend on where a row ends.
RAGGED = [
    name
    for name, case in SEQUENCES.items()
    if case.arguments.get("padding_mode", "zeros") == "zeros"
    and name not in ("same, strided", "pool, max, same", "pool, mean, ceil")
    and "count_include_pad" not in case.arguments
]


class TestLengths:
    """Rows of a ragged batch are those run alone, to the bit."""

    @pytest.mark.parametrize("first", [False, True])
    @pytest.mark.parametrize("name", RAGGED)
    def test_rows_are_those_alone(self, name, first, rng):
        case = SEQUENCES[name]
        layer, lengths = case.layer("float32", batch_first=first), np.array([12, 5, 9, 1])
        x = rng.standard_normal((12, 4, case.channels)).astype("f")
        for row, n in enumerate(lengths):
            x[n:, row] = np.nan  # never looked at
        swap = (lambda a: a.swapaxes(0, 1)) if first else (lambda a: a)
        y, pullback = layer.vjp(swap(x), lengths=lengths)
        np.testing.assert_array_equal(layer(swap(x), lengths=lengths), y)
        dy = rng.standard_normal(y.shape).astype("f")
        y, dx, dys = swap(y), swap(pullback(dy)), swap(dy)
        after = layer.out_lengths(lengths)
        for row, n in enumerate(lengths):
            alone, back = layer.vjp(x[:n, row])
            assert len(alone) == after[row]
            np.testing.assert_array_equal(y[: after[row], row], alone)
            np.testing.assert_array_equal(dx[:n, row], back(dys[: after[row], row]))
            assert not y[after[row] :, row].any()
            assert not dx[n:, row].any()

    @pytest.mark.parametrize(
        "name", ["same", "stride", "groups", "pool, max", "pool, mean, padded"]
    )
    def test_gradients(self, name, rng):
        case = SEQUENCES[name]
        layer = Ragged(case.layer(), [7, 3, 5])
        check_layer(layer, rng.standard_normal((7, 3, case.channels)))

    def test_of_a_single_row(self, rng):
        layer, x = Conv1d(3, 4, 2, seed=1), rng.standard_normal((7, 3)).astype("f")
        y = layer(x, lengths=[4])
        np.testing.assert_array_equal(y[:3], layer(x[:4]))
        assert not y[3:].any()

    @pytest.mark.parametrize(
        ("lengths", "error", "message"),
        [
            ([5, 0], ValueError, r"lengths must be in 1\.\.5, the number of steps; got 0\.\.5"),
            ([5, 6], ValueError, r"lengths must be in 1\.\.5"),
            ([5], ValueError, r"lengths must have shape \(2,\), got \(1,\)"),
            ([5.0, 2.0], TypeError, "lengths must be whole numbers"),
            ("ab", TypeError, "lengths must be whole numbers"),
        ],
    )
    def test_that_do_not_fit(self, lengths, error, message):
        for layer in (Conv1d(3, 4, 2), MaxPool1d(2), GlobalAvgPool(), BatchNorm(3)):
            for call in (layer, layer.vjp):
                with pytest.raises(error, match=message):
                    call(np.zeros((5, 2, 3), "f"), lengths=lengths)

    @pytest.mark.parametrize(
        ("layer", "message"),
        [
            (
                Conv1d(3, 4, 2, padding=1, padding_mode="reflect"),
                "lengths need padding by zeros, no",
            ),
            (Conv1d(3, 4, 2, 2, padding="same"), "with a stride of 2 takes no lengths"),
            (AvgPool1d(3, ceil_mode=True), "lengths need ceil_mode=False"),
            (AvgPool1d(3, padding=1, count_include_pad=False), "lengths need ceil_mode=False, and"),
        ],
        ids=repr,
    )
    def test_that_cannot_be_told(self, layer, message):
        with pytest.raises(ValueError, match=message):
            layer(np.zeros((5, 2, 3), "f"), lengths=[5, 3])

    def test_after_it(self):
        layer = Conv1d(3, 4, 3, 2)
        np.testing.assert_array_equal(layer.out_lengths([1, 3, 4, 5]), [0, 1, 1, 2])
        with pytest.raises(TypeError, match="lengths must be integers"):
            layer.out_lengths([1.5])
