"""Layers against their formulas, finite differences and their promises about dtypes and errors."""

import math

import numpy as np
import pytest
from rnncore.compositions.chain import Chain
from rnncore.layers.activations import Identity, ReLU, Sigmoid, Softmax, Tanh, sigmoid
from rnncore.layers.dropout import Dropout
from rnncore.layers.layer_norm import LayerNorm
from rnncore.layers.linear import Linear
from rnncore.layers.prelu import PReLU

from tests.support.compare import near
from tests.support.gradients import check_layer

EXACT = 1e-12


def layers(dtype="float64"):
    """A layer of every kind that takes rows of 5 numbers."""
    return {
        "linear": Linear(5, 3, dtype=dtype, seed=1),
        "linear_no_bias": Linear(5, 3, bias=False, dtype=dtype, seed=1),
        "linear_one": Linear(5, 1, dtype=dtype, seed=1),
        "dropout": Dropout(0.4, seed=1),
        "dropout_none": Dropout(0.0, seed=1),
        "dropout_all": Dropout(1.0, seed=1),
        "layer_norm": scrambled(LayerNorm(5, dtype=dtype)),
        "identity": Identity(),
        "tanh": Tanh(),
        "sigmoid": Sigmoid(),
        "relu": ReLU(),
        "prelu": scrambled(PReLU(5, dtype=dtype)),
        "prelu_one": PReLU(dtype=dtype),
        "softmax": Softmax(),
        "softmax_first_axis": Softmax(axis=0),
        "chain": Chain(Linear(5, 4, dtype=dtype, seed=1), Tanh(), Linear(4, 2, dtype=dtype)),
        "empty_chain": Chain(),
    }


def scrambled(module):
    """Give parameters that start as constants values that tell them apart."""
    rng = np.random.default_rng(5)
    for param in module.params.values():
        param[...] = rng.standard_normal(param.shape)
    return module


LAYERS = list(layers())
SHAPES = [(5,), (2, 5), (3, 2, 5), (2, 1, 3, 5)]


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("shape", SHAPES)
def test_gradients(name, shape, rng):
    check_layer(layers()[name], rng.standard_normal(shape))


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_stays(name, dtype, rng):
    layer = layers(dtype)[name]
    x = rng.standard_normal((3, 2, 5)).astype(dtype)
    assert layer(x).dtype == dtype
    y, pullback = layer.vjp(x)
    assert y.dtype == dtype
    dx = pullback(np.ones_like(y))
    assert (dx.dtype, dx.shape) == (x.dtype, x.shape)
    assert all(grad.dtype == dtype for grad in layer.grads.values())


@pytest.mark.parametrize("name", LAYERS)
def test_float32_is_near_float64(name, rng):
    narrow, wide = layers("float32")[name], layers("float64")[name]
    if narrow.params:
        wide.load_state_dict(narrow.params)
    x = rng.standard_normal((400, 5)).astype("float32")
    (y, pullback), (wide_y, wide_pullback) = narrow.vjp(x), wide.vjp(x.astype("float64"))
    dy = rng.standard_normal(y.shape).astype("float32")
    near(y, wide_y, 2e-5)
    near(pullback(dy), wide_pullback(dy.astype("float64")), 2e-5)
    for key, grad in wide.grads.items():
        near(narrow.grads[key], grad, 2e-5)


@pytest.mark.parametrize("name", [n for n in LAYERS if not n.startswith("dropout")])
def test_call_is_vjp(name, rng):
    layer, x = layers()[name], rng.standard_normal((3, 5))
    np.testing.assert_array_equal(layer(x), layer.vjp(x)[0])


@pytest.mark.parametrize("name", [n for n in LAYERS if n != "softmax_first_axis"])
@pytest.mark.parametrize("shape", [(0, 5), (2, 0, 5)])
def test_empty_batch(name, shape):
    layer, x = layers()[name], np.zeros(shape)
    y, pullback = layer.vjp(x)
    assert y.shape[:-1] == shape[:-1]
    assert pullback(np.zeros_like(y)).shape == shape
    assert not any(grad.any() for grad in layer.grads.values())


@pytest.mark.parametrize("name", LAYERS)
def test_memory_order_does_not_matter(name, rng):
    """Transposed, reversed and strided inputs give what a contiguous copy gives."""
    layer, dy_rng = layers()[name], np.random.default_rng(3)
    whole = rng.standard_normal((5, 4, 6))
    for x in (whole.T[:, :, :], whole.T[::-1], np.asfortranarray(whole.T)[::2]):
        if isinstance(layer, Dropout):
            layer.rng = np.random.default_rng(1)
        y, pullback = layer.vjp(x)
        dy = dy_rng.standard_normal(y.T.shape).T
        dx = pullback(dy)
        if isinstance(layer, Dropout):
            layer.rng = np.random.default_rng(1)
        same_y, same_pullback = layer.vjp(x.copy("C"))
        near(y, same_y, EXACT)
        near(dx, same_pullback(dy.copy("C")), EXACT)


@pytest.mark.parametrize("name", [n for n in LAYERS if n != "softmax_first_axis"])
def test_nan_stays_in_its_row(name, rng):
    layer, x = layers()[name], rng.standard_normal((4, 5))
    clean = layer(x)
    x[2] = np.nan
    y = layer(x)
    assert np.isnan(y[2]).all()
    np.testing.assert_array_equal(np.delete(y, 2, 0), np.delete(clean, 2, 0))


@pytest.mark.parametrize("name", [n for n in LAYERS if "dropout" not in n and "first" not in n])
def test_rows_do_not_see_each_other(name, rng):
    layer, x = layers()[name], rng.standard_normal((7, 5))
    together, alone = layer(x), np.concatenate([layer(row[None]) for row in x])
    near(together, alone, 0 if not layer.params or name == "layer_norm" else EXACT)


@pytest.mark.parametrize("name", [n for n in LAYERS if n != "empty_chain"])
def test_refused_gradients_and_a_second_call(name, rng):
    layer = layers()[name]
    y, pullback = layer.vjp(rng.standard_normal((2, 5)))
    with pytest.raises(ValueError, match=r"dy must have shape \(2, \d\), got \(3,\)"):
        pullback(np.zeros(3))
    y32 = layers("float32")[name].vjp(rng.standard_normal((2, 5)).astype("float32"))
    with pytest.raises(TypeError, match="dy is float64"):
        y32[1](np.zeros_like(y))
    pullback(np.zeros_like(y))
    with pytest.raises(RuntimeError, match="already run"):
        pullback(np.zeros_like(y))


class Wrong(Tanh):
    """The tanh whose gradient is off by a millionth."""

    def _backward(self, dy, y):
        return super()._backward(dy, y) * (1 + 1e-6)


def test_a_wrong_gradient_is_noticed(rng):
    x = rng.standard_normal((2, 5))
    for module in (Wrong(), Chain(Linear(5, 3, dtype="float64", seed=1), Wrong())):
        with pytest.raises(AssertionError, match="gradient of input 0, array 0: analytic"):
            check_layer(module, x)


def test_gradients_accumulate(rng):
    layer, x, dy = Linear(5, 3, dtype="float64"), rng.standard_normal((2, 5)), np.ones((2, 3))
    layer.vjp(x)[1](dy)
    once_only = {name: grad.copy() for name, grad in layer.grads.items()}
    layer.vjp(x)[1](dy)
    for name, grad in layer.grads.items():
        near(grad, 2 * once_only[name], EXACT)


# Linear


def test_linear_is_torchs_formula(rng):
    layer, x = Linear(4, 3, dtype="float64", seed=0), rng.standard_normal((2, 5, 4))
    weight, bias = layer.params["weight"], layer.params["bias"]
    assert (weight.shape, bias.shape) == ((3, 4), (3,))
    near(layer(x), np.einsum("tbi,oi->tbo", x, weight) + bias, EXACT)


def test_linear_starts_as_torchs_does():
    params = Linear(100, 400, seed=3).params
    for param in params.values():
        assert np.abs(param).max() <= 0.1
        assert np.abs(param).max() > 0.099
        assert abs(param.std() - 0.1 / math.sqrt(3)) < 2e-3
    assert Linear(100, 400, bias=False).params.keys() == {"weight"}


def test_seeds():
    def weights(seed, dtype="float32"):
        return Linear(6, 7, seed=seed, dtype=dtype).params["weight"]

    np.testing.assert_array_equal(weights(3), weights(3))
    assert (weights(3) != weights(4)).all()
    assert (weights(None) != weights(None)).all()
    np.testing.assert_array_equal(weights(3), weights(3, "float64").astype("float32"))
    shared = np.random.default_rng(3)
    np.testing.assert_array_equal(weights(shared), weights(3))
    assert (weights(shared) != weights(3)).all()


def test_linear_refuses():
    layer = Linear(4, 3)
    with pytest.raises(ValueError, match=r"x must have shape \(\.\.\., 4\), got \(2, 5\)"):
        layer(np.zeros((2, 5), "float32"))
    with pytest.raises(ValueError, match=r"x must have shape \(\.\.\., 4\), got \(\)"):
        layer(np.float32(1))
    with pytest.raises(TypeError, match="x is float64, but this module computes in float32"):
        layer(np.zeros((2, 4)))
    with pytest.raises(ValueError, match="in_features must be at least 1, got 0"):
        Linear(0, 3)
    with pytest.raises(ValueError, match="out_features must be at least 1, got -1"):
        Linear(3, -1)
    with pytest.raises(TypeError, match="integer"):
        Linear(2.5, 3)
    with pytest.raises(ValueError, match="dtype must be float32 or float64, got float16"):
        Linear(3, 3, dtype="float16")


def test_linear_widens_safely(rng):
    layer = Linear(3, 2, dtype="float64", seed=0)
    x = rng.integers(-3, 3, (4, 3))
    np.testing.assert_array_equal(layer(x), layer(x.astype("float64")))
    np.testing.assert_array_equal(layer(x.tolist()), layer(x))


# Dropout


def test_dropout_at_inference_is_nothing(rng):
    x = rng.standard_normal((3, 4))
    layer = Dropout(0.5, seed=0)
    before = layer.rng.bit_generator.state
    np.testing.assert_array_equal(layer(x), x)
    assert layer.rng.bit_generator.state == before


def test_dropout_in_training():
    x = np.ones((300, 400), "float32")
    y, pullback = Dropout(0.3, seed=0).vjp(x)
    kept = y != 0
    assert abs(kept.mean() - 0.7) < 0.005
    np.testing.assert_array_equal(y[kept], np.float32(1 / 0.7))
    np.testing.assert_array_equal(pullback(x), y)


def test_dropout_masks_come_from_its_generator():
    x, layer, twin = np.ones((50, 3)), Dropout(0.5, seed=7), Dropout(0.5, seed=7)
    first = layer.vjp(x)[0]
    np.testing.assert_array_equal(first, twin.vjp(x)[0])
    np.testing.assert_array_equal(first, Dropout(0.5, seed=7).vjp(x.astype("float32"))[0])
    state = layer.rng.bit_generator.state
    second = layer.vjp(x)[0]
    assert (second != first).any()
    layer.rng.bit_generator.state = state
    np.testing.assert_array_equal(layer.vjp(x)[0], second)


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
def test_dropout_refuses(p):
    with pytest.raises(ValueError, match=r"p must be in \[0, 1\], got"):
        Dropout(p)


# LayerNorm


@pytest.mark.parametrize("normalized", [3, (3,), (4, 3), (2, 4, 3)])
def test_layer_norm(normalized, rng):
    layer = scrambled(LayerNorm(normalized, eps=0.1, dtype="float64"))
    x = 3 + rng.standard_normal((2, 4, 3))
    axes = tuple(range(-np.size(normalized), 0))
    expected = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 0.1)
    near(layer(x), expected * layer.params["weight"] + layer.params["bias"], EXACT)
    check_layer(layer, x)


def test_layer_norm_starts_plain():
    params = LayerNorm((2, 3)).params
    np.testing.assert_array_equal(params["weight"], np.ones((2, 3), "float32"))
    np.testing.assert_array_equal(params["bias"], np.zeros((2, 3), "float32"))


def test_layer_norm_far_from_zero(rng):
    x = 1e4 + rng.standard_normal((6, 300))
    near(LayerNorm(300)(x.astype("float32")), LayerNorm(300, dtype="float64")(x), 1e-3)


def test_layer_norm_refuses():
    with pytest.raises(ValueError, match=r"x must end with axes \(4, 3\), got shape \(3,\)"):
        LayerNorm((4, 3))(np.zeros(3, "float32"))
    with pytest.raises(ValueError, match="at least one axis"):
        LayerNorm(())
    with pytest.raises(ValueError, match="normalized_shape must be at least 1, got 0"):
        LayerNorm((3, 0))


# Activations


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sigmoid_and_tanh_over_the_whole_range(dtype):
    # Where float64 underflows, extended precision says what float64 should give.
    low = {"float32": -100, "float64": -740}[dtype]
    x = np.linspace(low, -low, 20011).astype(dtype)
    wide = x.astype(np.longdouble)
    for got, expected in ((Sigmoid()(x), 1 / (1 + np.exp(-wide))), (Tanh()(x), np.tanh(wide))):
        ulp = np.spacing(np.abs(expected).astype(dtype))
        ulp[np.abs(expected) < np.finfo(dtype).tiny] = np.finfo(dtype).tiny  # may count as zero
        assert np.abs(got - expected).max() < 1
        assert (np.abs(got - expected) <= 4 * ulp).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_limits(dtype):
    x = np.array([-np.inf, 0, np.inf, np.nan], dtype)
    np.testing.assert_array_equal(Sigmoid()(x), [0, 0.5, 1, np.nan])
    np.testing.assert_array_equal(Tanh()(x), [-1, 0, 1, np.nan])
    np.testing.assert_array_equal(ReLU()(x), [0, 0, np.inf, np.nan])
    assert sigmoid(x).dtype == dtype


def test_softmax(rng):
    x = 3 * rng.standard_normal((4, 3))
    near(Softmax()(x), np.exp(x) / np.exp(x).sum(-1, keepdims=True), EXACT)
    near(Softmax()(x + 1000), Softmax()(x), 1e-11)
    near(Softmax(0)(x), Softmax()(x.T).T, EXACT)


@pytest.mark.parametrize("kind", [Identity, Tanh, Sigmoid, ReLU])
def test_activations_without_axes(kind):
    y, pullback = kind().vjp(np.float64(0.5))
    assert y.shape == ()
    assert isinstance(pullback(np.float64(1)), np.ndarray)
    assert kind()(0.5).dtype == np.float32  # no dtype of its own: the library's default


def test_output_of_vjp_cannot_be_changed(rng):
    """It is on the tape; the input, which `Identity` returns, stays as writable as it was."""
    x = rng.standard_normal(3)
    for kind in (Identity, Tanh, Sigmoid, ReLU, Softmax):
        y, _ = kind().vjp(x)
        with pytest.raises(ValueError, match="read-only"):
            y[0] = 1
        assert x.flags.writeable


@pytest.mark.parametrize("kind", [Identity, Tanh, Sigmoid, ReLU, Softmax, Dropout])
@pytest.mark.parametrize("x", [np.arange(3), np.zeros(3, "float16"), np.zeros(3, complex)])
def test_floating_point_only(kind, x):
    with pytest.raises(TypeError, match=f"x must be float32 or float64, got {x.dtype}"):
        kind()(x)
    with pytest.raises(TypeError, match="x must be float32 or float64"):
        kind().vjp(x)


def test_gradients_do_not_depend_on_the_layout_of_dy(rng):
    layer, x = LayerNorm(3), rng.standard_normal((4, 20, 3)).astype("float32")
    dy = rng.standard_normal(x.shape).astype("float32")
    found = []
    for given in (dy, np.asfortranarray(dy)):
        layer.zero_grad()
        layer.vjp(x)[1](given)
        found.append([grad.tobytes() for grad in layer.grads.values()])
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("axis", "error"), [(1.0, TypeError), ("0", TypeError), (1 << 40, ValueError)]
)
def test_the_axis_of_a_softmax_is_checked(axis, error):
    with pytest.raises(error, match="axis must be"):
        Softmax(axis)
