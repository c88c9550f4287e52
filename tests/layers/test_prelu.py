"""PReLU against torch's, its formula, and what it promises at the edges."""

from pathlib import Path

import numpy as np
import pytest
from rnncore import GRU, Chain, Linear, PReLU, reference

from tests.support.compare import assert_close, assert_same

FILE = Path(__file__).parents[1] / "golden" / "prelu.npz"


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-5), ("float64", 1e-12)])
def test_is_torchs(count, dtype, tolerance):
    with np.load(FILE) as file:
        want = {name: file[f"{count}/{name}"] for name in ("y", "dx", "dweight")}
        x, dy, weight = (file[f"{count}/{name}"].astype(dtype) for name in ("x", "dy", "weight"))
    layer = PReLU(count, dtype=dtype)
    layer.params["weight"] = weight
    y, pullback = layer.vjp(x)
    got = {"y": y, "dx": pullback(dy), "dweight": layer.grads["weight"]}
    assert_close(got, want, tolerance)


def test_is_a_leaky_relu_for_each_number(rng):
    x, slopes = rng.standard_normal((4, 2, 3)), [0.0, 0.25, 1.5]
    layer = PReLU(3, dtype="float64")
    layer.params["weight"] = slopes
    want = [
        reference.activation(("leaky_relu", slope))(x[..., n]) for n, slope in enumerate(slopes)
    ]
    assert_close({"y": layer(x)}, {"y": np.stack(want, axis=-1)}, 1e-12)


def test_starts_as_torchs_does():
    assert_same(PReLU(2).state_dict(), {"weight": np.full(2, 0.25, np.float32)})
    assert_same(PReLU(1, -1.5, dtype=float).state_dict(), {"weight": np.full(1, -1.5)})


def test_numbers_at_the_edges():
    x = np.array([-np.inf, -0.0, 0.0, np.inf, np.nan, 3e38], np.float32)
    with np.errstate(all="raise"):
        np.testing.assert_array_equal(PReLU()(x), [-np.inf, 0, 0, np.inf, np.nan, x[-1]])
        np.testing.assert_array_equal(PReLU(1, 1e38)(x)[-1], x[-1])  # nothing is multiplied
    one, pullback = PReLU().vjp(np.float32(-2))
    assert (one.shape, one) == ((), -0.5)
    assert pullback(np.float32(1)).shape == ()


def test_slopes_that_change_are_seen(rng):
    x, layer = -np.ones((2, 3), np.float32), PReLU(3)
    y, pullback = layer.vjp(x)
    layer.params["weight"] = [1, 2, 3]
    np.testing.assert_array_equal(layer(x), [[-1, -2, -3]] * 2)
    np.testing.assert_array_equal(y, -0.25 * np.ones((2, 3)))
    np.testing.assert_array_equal(pullback(np.ones_like(x)), [[1, 2, 3]] * 2)


@pytest.mark.parametrize("layout", [np.asfortranarray, lambda a: a[::-1][::-1], np.copy])
def test_gradients_do_not_depend_on_the_layout(rng, layout):
    x, dy = (rng.standard_normal((50, 40, 3)).astype("f") for _ in range(2))
    layer, same = PReLU(3), PReLU(3)
    dx = layer.vjp(layout(x))[1](layout(dy))
    assert_same({"dx": dx}, {"dx": same.vjp(x)[1](dy)})
    assert_same(layer.grads, same.grads)


def test_streams_to_the_bit(rng):
    model = Chain(GRU(3, 5, seed=1), PReLU(5, -0.5), Linear(5, 2, seed=2))
    x = rng.standard_normal((9, 2, 3)).astype("f")
    stream = model.stream(2)
    y = np.concatenate([stream.run(x[:4]), stream.step(x[4])[None], stream.run(x[5:])])
    assert_same({"y": y}, {"y": model(x)[0]})


def test_the_width_is_checked():
    with pytest.raises(ValueError, match=r"x must have shape \(\.\.\., 3\), got \(2, 4\)"):
        PReLU(3)(np.zeros((2, 4), np.float32))
    with pytest.raises(ValueError, match=r"x must have shape \(\.\.\., 3\), got \(\)"):
        PReLU(3)(np.float32(1))


def test_slopes_that_are_resized_are_refused():
    layer = PReLU(3)
    stream = layer.stream(1)
    layer.params["weight"].resize(1, refcheck=False)
    x = np.zeros((1, 3), np.float32)
    for call in (lambda: layer(x), lambda: stream.step(x)):
        with pytest.raises(ValueError, match="weight must stay"):
            call()
