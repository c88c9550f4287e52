"""Chains: the plain and the recurrent protocol, states, gradients, refusals."""

import numpy as np
import pytest
from rnncore.compositions.chain import Chain
from rnncore.layers.activations import Tanh, sigmoid
from rnncore.layers.dropout import Dropout
from rnncore.layers.embedding import Embedding
from rnncore.layers.layer_norm import LayerNorm
from rnncore.layers.linear import Linear
from rnncore.module import Module, once

from tests.support.gradients import check_layer, check_recurrent


class Decay(Module):
    """A recurrent layer to test chains with: s = w * s + x over the first axis, y = s."""

    recurrent = True

    def __init__(self, w):
        super().__init__({"w": np.array([w], "float64")})
        self.seen = []

    def __call__(self, x, state=None, *, lengths=None):
        return self.vjp(x, state, lengths=lengths)[0]

    def vjp(self, x, state=None, *, lengths=None):
        self.seen.append(lengths)
        w = self.params["w"]
        states = [np.zeros(x.shape[1:]) if state is None else state]
        for row in x:
            states.append(w * states[-1] + row)

        def pullback(dy, dstate=None):
            dx = np.zeros_like(x)
            d = np.zeros(x.shape[1:]) if dstate is None else dstate.copy()
            for t in reversed(range(len(x))):
                d += 0 if dy is None else dy[t]
                dx[t] = d
                self.grads["w"] += (d * states[t]).sum()
                d = w * d
            return dx, d

        return (np.stack(states[1:]), states[-1]), once(pullback)


def recurrent_chain():
    return Chain(
        Linear(3, 4, dtype="float64", seed=1),
        Decay(0.5),
        Chain(Tanh(), Decay(-0.3), LayerNorm(4, dtype="float64"), Decay(0.9)),
        Dropout(0.3, seed=2),
        Linear(4, 2, dtype="float64", seed=3),
    )


def test_chain_is_its_layers(rng):
    first, second = Linear(5, 4, dtype="float64"), Linear(4, 3, dtype="float64")
    chain, x = Chain(first, Tanh(), second), rng.standard_normal((2, 5))
    np.testing.assert_array_equal(chain(x), second(Tanh()(first(x))))
    assert list(chain.params) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert chain.params["2.weight"] is second.params["weight"]
    assert (len(chain), chain[2]) == (3, second)
    assert not chain.recurrent


def test_chain_starting_with_an_embedding(rng):
    chain = Chain(Embedding(4, 3, dtype="float64"), Tanh(), Linear(3, 2, dtype="float64"))
    check_layer(chain, rng.integers(0, 4, (5, 2)))


def test_recurrent_chain_gradients(rng):
    x, zero = rng.standard_normal((6, 2, 3)), None
    a, b, c = (rng.standard_normal((2, 4)) for _ in range(3))
    for state in (zero, (a, (b, c)), (zero, (b, c)), (a, zero), (a, (zero, c))):
        check_recurrent(recurrent_chain(), x, state)


def test_recurrent_chain_protocol(rng):
    chain, x = recurrent_chain(), rng.standard_normal((6, 2, 3))
    assert chain.recurrent
    whole, state = chain(x)
    first, between = chain(x[:4])
    second, last = chain(x[4:], between)
    np.testing.assert_array_equal(np.concatenate([first, second]), whole)
    assert [np.shape(s) for s in (state[0], *state[1])] == [(2, 4)] * 3
    np.testing.assert_array_equal(last[1][1], state[1][1])
    (_, _), pullback = chain.vjp(x, lengths=[6, 3])
    assert chain[1].seen[-1] == [6, 3]
    assert chain[2][3].seen[-1] == [6, 3]
    dx, dstate = pullback(None)
    assert not dx.any()
    assert [np.shape(d) for d in (dstate[0], *dstate[1])] == [(2, 4)] * 3


def test_recurrent_chain_from_the_final_state_alone(rng):
    chain, dlast = recurrent_chain(), rng.standard_normal((2, 4))
    x = rng.standard_normal((6, 2, 3))
    dx, _ = chain.vjp(x)[1](None, (dlast, None))
    np.testing.assert_array_equal(
        dx, chain.vjp(x)[1](np.zeros((6, 2, 2)), (dlast, (None, None)))[0]
    )
    assert dx.any()
    assert not chain.grads["4.weight"].any()


def test_chain_refuses():
    with pytest.raises(TypeError, match="layer 1 must be a Module, got function"):
        Chain(Tanh(), sigmoid)
    plain, x = Chain(Tanh()), np.zeros((2, 3))
    with pytest.raises(TypeError, match="no layer of this chain is recurrent"):
        plain(x, ())
    with pytest.raises(TypeError, match="no layer of this chain is recurrent"):
        plain.vjp(x, lengths=[2])
    with pytest.raises(TypeError, match="takes no dstate"):
        plain.vjp(x)[1](x, (x,))
    with pytest.raises((TypeError, ValueError), match="dy"):
        plain.vjp(x)[1](None)
    chain, x = recurrent_chain(), np.zeros((6, 2, 3))
    for state in ((), (None,), (None, None, None), np.zeros((2, 2, 4))):
        with pytest.raises(ValueError, match=r"state must be a tuple .* each of the 2 recurrent"):
            chain(x, state)
    with pytest.raises(ValueError, match="dstate must be a tuple"):
        chain.vjp(x)[1](None, (None,))
