"""What convolutions refuse: every wrong argument by name."""

import numpy as np
import pytest
from rnncore import Conv1d, Conv2d, ConvTranspose1d


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
