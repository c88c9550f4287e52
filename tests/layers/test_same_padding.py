"""padding="same" with strides: one output for each stride that begins, as TensorFlow pads."""

import numpy as np
import pytest
from rnncore import AvgPool1d, Conv1d, Conv2d, MaxPool1d, MaxPool2d

from tests.support.compare import assert_same, near
from tests.support.gradients import check_layer

OWN = {"dtype": "float64", "seed": 1}


def pads(size, taps, stride, dilation=1):
    """The numbers of places before and after."""
    more = max((-(-size // stride) - 1) * stride + dilation * (taps - 1) + 1 - size, 0)
    return more // 2, more - more // 2


@pytest.mark.parametrize("steps", [1, 2, 5, 6, 7])
@pytest.mark.parametrize(
    ("taps", "stride", "dilation"), [(3, 2, 1), (2, 3, 1), (3, 2, 2), (4, 4, 1)]
)
def test_is_what_these_pads_give(rng, steps, taps, stride, dilation):
    x = rng.standard_normal((steps, 2, 3))
    layer = Conv1d(3, 4, taps, stride, "same", dilation, **OWN)
    plain = Conv1d(3, 4, taps, stride, pads(steps, taps, stride, dilation), dilation, **OWN)
    assert_same({"y": layer(x)}, {"y": plain(x)})
    assert len(layer(x)) == -(-steps // stride)
    check_layer(layer, x)
    if dilation == 1:
        before, after = pads(steps, taps, stride)
        padded = np.pad(x, ((before, after), (0, 0), (0, 0)), constant_values=-np.inf)
        starts = range(0, len(padded) - taps + 1, stride)
        want = np.stack([padded[at : at + taps].max(axis=0) for at in starts])
        assert_same({"y": MaxPool1d(taps, stride, "same")(x)}, {"y": want})
        seen = np.ma.masked_invalid(padded)
        mean = np.stack([seen[at : at + taps].mean(axis=0).data for at in starts])
        near(AvgPool1d(taps, stride, "same", count_include_pad=False)(x), mean, 1e-15)


def test_images_are_padded_along_both_axes(rng):
    x = rng.standard_normal((2, 5, 4, 3))
    layer = Conv2d(3, 2, 3, (2, 3), "same", **OWN)
    plain = Conv2d(3, 2, 3, (2, 3), (pads(5, 3, 2), pads(4, 3, 3)), **OWN)
    assert_same({"y": layer(x)}, {"y": plain(x)})
    check_layer(layer, x)
    assert MaxPool2d(2, 2, "same")(x).shape == (2, 3, 2, 3)


def test_what_depends_on_the_length_is_refused(rng):
    layer, x = Conv1d(3, 4, 3, 2, "same", **OWN), rng.standard_normal((5, 2, 3))
    with pytest.raises(ValueError, match='padding="same" with a stride of 2 takes no lengths'):
        layer(x, lengths=[5, 3])
    with pytest.raises(ValueError, match="cannot be padded by what its length asks for"):
        layer.stream()
    for pool in (MaxPool1d(3, 2, "same"), AvgPool1d(3, 2, "same")):
        with pytest.raises(ValueError, match="takes no lengths"):
            pool(x, lengths=[5, 3])
