"""Activations as layers."""

import numpy as np
import pytest
from rnncore import Elementwise, _core, reference
from rnncore.nonlinearities import ACTIVATIONS

from tests.support.compare import assert_close
from tests.support.gradients import check_layer

CONSTANTS = {"leaky_relu": (0.1,), "scaled_tanh": (1.7, 0.6), "affine": (0.7, -0.2), "elu": (0.6,)}


@pytest.mark.parametrize("spec", [(name, *CONSTANTS.get(name, ())) for name in ACTIVATIONS])
class TestElementwise:
    def test_is_the_reference(self, rng, spec):
        x = 3 * rng.standard_normal((4, 5))
        y = Elementwise(spec)(x)
        assert_close({"y": y}, {"y": reference.activation(spec)(x)}, 1e-12)
        single = Elementwise(spec)(x.astype(np.float32))
        assert single.dtype == np.float32
        assert_close({"y": single}, {"y": y}, 2e-5)

    def test_not_a_number_stays_one(self, spec):
        x = np.array([0.5, np.nan, 2.0], np.float32)
        assert np.isnan(Elementwise(spec)(x)).tolist() == [False, True, False]

    @pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-5), ("float64", 1e-12)])
    def test_slopes_are_the_references(self, rng, spec, dtype, tolerance):
        layer, slope = Elementwise(spec), reference.activation(spec).slope
        x, dy = (5 * rng.standard_normal((300, 7)).astype(dtype) for _ in range(2))
        y, pullback = layer.vjp(x)
        dx = pullback(dy)
        assert dx.dtype == dtype
        want = dy.astype(np.float64) * slope(y.astype(np.float64))
        assert_close({"dx": dx}, {"dx": want}, tolerance)
        for n in range(36):
            np.testing.assert_array_equal(layer.vjp(x.flat[:n])[1](dy.flat[:n]), dx.flat[:n])
        one = layer.vjp(x[0, 0])[1](dy[0, 0])
        assert (one.shape, one.dtype, one) == ((), dtype, dx[0, 0])

    def test_gradients_lie_as_they_like(self, rng, spec):
        layer, x, dy = Elementwise(spec), rng.standard_normal((6, 5)), rng.standard_normal((6, 5))
        want = layer.vjp(x)[1](dy)
        np.testing.assert_array_equal(layer.vjp(x)[1](np.asfortranarray(dy)), want)
        np.testing.assert_array_equal(layer.vjp(x[::2])[1](dy[::2]), want[::2])

    def test_gradients(self, rng, spec):
        check_layer(Elementwise(spec), rng.standard_normal((4, 5)))


@pytest.mark.parametrize("name", ["elu", "selu", "softplus", "exponential"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_made_of_exponentials_over_the_whole_range(name, dtype):
    most = float(np.log(np.finfo(dtype).max)) - 1e-3
    x = np.concatenate([np.linspace(-most, most, 10001), np.linspace(-2, 2, 10001)]).astype(dtype)
    y, true = Elementwise(name)(x), reference.activation(name)(x.astype(np.longdouble))
    limits = np.finfo(dtype)
    assert (abs(y - true) <= 8 * limits.eps * abs(true) + limits.tiny).all()


def test_a_gradient_of_another_shape_is_refused():
    kernels = _core.ActivationF32("tanh", 0, 0)
    with pytest.raises(ValueError, match="dy: unexpected shape"):
        kernels.backward(np.zeros(4, np.float32), np.zeros(3, np.float32))
    with pytest.raises(TypeError, match="another dtype"):
        kernels.backward(np.zeros(4, np.float32), np.zeros(4))


def test_elementwise_refuses_an_unknown_name():
    with pytest.raises(ValueError, match=r"activation must be one of sigmoid, .*; got 'gelu'"):
        Elementwise("gelu")
