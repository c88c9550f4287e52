"""The reference of convolutions against the layers, in every variant that these have."""

from itertools import product

import numpy as np
import pytest
from rnncore import Conv1d, Conv2d, ConvTranspose1d
from rnncore.convert.pytorch.reference import computed

from tests.support.compare import assert_close

MODES = ("zeros", "reflect", "replicate")
F64 = {"dtype": "float64", "seed": 1}


def agree(layer, x):
    assert_close({"y": layer(x)}, {"y": computed(layer, x)}, 1e-12)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("padding", [0, (2, 1), "same", "causal"])
def test_over_time(rng, padding, mode):
    x = rng.standard_normal((2, 9, 4))
    for stride, dilation, groups in product((1, 2, 3), (1, 2), (1, 2)):
        if padding == "same" and stride > 1:
            continue
        for taps in (1, 2, 3):
            sizes = (4, 6, taps, stride, padding, dilation, groups, taps > 1, mode)
            agree(Conv1d(*sizes, batch_first=True, **F64), x)
            agree(Conv1d(*sizes, **F64), x.swapaxes(0, 1))


@pytest.mark.parametrize("mode", MODES)
def test_over_images(rng, mode):
    x = rng.standard_normal((2, 7, 5, 4))
    for stride, dilation, groups in product((1, (2, 1)), (1, (1, 2)), (1, 4)):
        padding = ((1, 0), (2, 1))
        layer = Conv2d(4, 8, (3, 2), stride, padding, dilation, groups, True, mode, **F64)
        agree(layer, x)


def test_transposed(rng):
    x = rng.standard_normal((5, 2, 4))
    for stride, padding, dilation, groups in product((1, 2, 3), (0, 1), (1, 2), (1, 2)):
        for more in range(max(stride, dilation)):
            options = {"groups": groups, "dilation": dilation, "bias": groups > 1, **F64}
            sizes = (4, 6, 3, stride, padding, more)
            agree(ConvTranspose1d(*sizes, **options), x)
            agree(ConvTranspose1d(*sizes, batch_first=True, **options), x.swapaxes(0, 1))


def test_of_one_tap_is_a_product(rng):
    x, layer = rng.standard_normal((5, 2, 4)), Conv1d(4, 3, 1, **F64)
    weight = layer.params["weight"][:, :, 0]
    want = np.einsum("tbi,oi->tbo", x, weight) + layer.params["bias"]
    agree(layer, x)
    assert_close({"y": layer(x)}, {"y": want}, 1e-12)
