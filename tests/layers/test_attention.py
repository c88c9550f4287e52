"""Attention of one sequence to another: its formula, gradients, ragged values."""

import numpy as np
import pytest
from rnncore import AdditiveAttention, DotAttention

from tests.support.compare import assert_same, near
from tests.support.gradients import check_layer


def layers(dtype="float64"):
    found = {
        "dot": DotAttention(dtype=dtype),
        "scaled": DotAttention(scale=True, dtype=dtype),
        "additive": AdditiveAttention(3, dtype=dtype),
    }
    for at, layer in enumerate(found.values()):
        for param in layer.params.values():
            param[...] = np.random.default_rng(at).standard_normal(param.shape)
    return found


def formula(name, layer, q, v, k, lengths):
    """One query after the other."""
    y = np.zeros((*q.shape[:2], v.shape[2]))
    for b, t in np.ndindex(*q.shape[:2]):
        end = v.shape[1] if lengths is None else lengths[b]
        if name == "additive":
            e = np.array([layer.params["scale"] @ np.tanh(q[b, t] + k[b, s]) for s in range(end)])
        else:
            e = np.array([q[b, t] @ k[b, s] for s in range(end)])
            e *= layer.params["scale"] if name == "scaled" else 1
        a = np.exp(e - e.max(initial=0))
        y[b, t] = (a / a.sum()) @ v[b, :end]
    return y


@pytest.mark.parametrize("lengths", [None, [5, 1]], ids=["even", "ragged"])
@pytest.mark.parametrize("keys", [False, True])
@pytest.mark.parametrize("name", layers())
def test_is_what_it_says(rng, name, keys, lengths):
    layer = layers()[name]
    q, v = rng.standard_normal((2, 4, 3)), rng.standard_normal((2, 5, 2 if keys else 3))
    given = (q, v, rng.standard_normal((2, 5, 3))) if keys else (q, v)
    want = formula(name, layer, q, v, given[-1], lengths)
    near(layer(*given, lengths=lengths), want, 1e-13)
    check_layer(layer, *given, lengths=lengths)
    narrow = layers("float32")[name]
    near(narrow(*(x.astype("f4") for x in given), lengths=lengths), want, 2e-5)


@pytest.mark.parametrize("name", layers())
def test_padding_may_hold_anything(rng, name):
    layer, q, v = layers()[name], *rng.standard_normal((2, 2, 4, 3))
    other = v.copy()
    other[1, 2:] = np.nan
    y, back = layer.vjp(q, v, lengths=[4, 2])
    again, again_back = layer.vjp(q, other, lengths=[4, 2])
    assert_same({"y": again}, {"y": y})
    dy = rng.standard_normal(y.shape)
    assert_same(
        dict(zip("qv", again_back(dy), strict=True)), dict(zip("qv", back(dy), strict=True))
    )


@pytest.mark.parametrize("name", layers())
def test_one_step_and_empty_batches(rng, name):
    layer = layers()[name]
    v = rng.standard_normal((2, 1, 3))
    near(layer(rng.standard_normal((2, 4, 3)), v), np.repeat(v, 4, axis=1), 1e-15)
    assert layer(np.zeros((0, 4, 3)), np.zeros((0, 5, 3))).shape == (0, 4, 3)
    assert layer(np.zeros((2, 0, 3)), np.zeros((2, 5, 3))).shape == (2, 0, 3)


def test_refusals(rng):
    q, v = rng.standard_normal((2, 4, 3)), rng.standard_normal((2, 5, 3))
    layer = DotAttention(dtype="float64")
    for given in ((q, v[:1]), (q, v[..., :2]), (q, v, v[:, :4])):
        with pytest.raises(ValueError, match=r"query, value and key must be \(B, Q, D\)"):
            layer(*given)
    with pytest.raises(ValueError, match=r"value must have shape \(B, steps, features\)"):
        layer(q, v[0])
    with pytest.raises(TypeError, match="query is float64, but this module computes in float32"):
        DotAttention()(q, v)
    for lengths in ([5], [0, 5], [6, 1]):
        with pytest.raises(ValueError, match="lengths must"):
            layer(q, v, lengths=lengths)
    with pytest.raises(ValueError, match="query must have 4 features"):
        AdditiveAttention(4, dtype="float64")(q, v)
    with pytest.raises(ValueError, match=r"dy must have shape \(2, 4, 3\)"):
        layer.vjp(q, v)[1](q[:1])
