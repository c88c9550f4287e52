"""The last output alone, reading from the end, and activations as layers."""

import numpy as np
import pytest
from compare import assert_close, assert_same
from gradients import check_layer, check_recurrent
from rnncore import (
    GRU,
    LSTM,
    RNN,
    Bidirectional,
    Chain,
    Elementwise,
    Final,
    Linear,
    Reversed,
    reference,
)
from rnncore.cells import ACTIVATIONS

RAGGED = [4, 1, 6]


def layer(kind, dtype="float64", **options):
    if kind is Bidirectional:
        return Bidirectional(LSTM(3, 4, dtype=dtype, seed=1), GRU(3, 4, dtype=dtype, seed=2), "mul")
    return kind(3, 4, dtype=dtype, seed=1, **options)


LAYERS = {
    "rnn": lambda: layer(RNN),
    "lstm_deep": lambda: layer(LSTM, num_layers=2, bidirectional=True),
    "lstm_projected": lambda: layer(LSTM, proj_size=2),
    "gru_batch_first": lambda: layer(GRU, batch_first=True),
    "bidirectional": lambda: layer(Bidirectional),
    "reversed": lambda: Reversed(layer(LSTM)),
}


@pytest.mark.parametrize("lengths", [None, RAGGED], ids=["even", "ragged"])
@pytest.mark.parametrize("kind", LAYERS)
class TestFinal:
    def test_is_what_stands_at_the_ends_of_y(self, rng, kind, lengths):
        inner = LAYERS[kind]()
        x = rng.standard_normal((3, 6, 3) if inner.batch_first else (6, 3, 3))
        whole, state = inner(x, lengths=lengths)
        y, after = Final(inner)(x, lengths=lengths)
        if inner.batch_first:
            whole = whole.swapaxes(0, 1)
        ends = np.array(lengths or [6] * 3) - 1
        last, first = whole[ends, np.arange(3)], whole[0]
        width = y.shape[-1] // 2
        want = {
            "lstm_deep": lambda: np.hstack((last[:, :width], first[:, width:])),
            "reversed": lambda: first,
        }.get(kind, lambda: last)
        if kind == "bidirectional":  # the two parts end at different steps
            (h, _), g = state
            assert_same({"y": y}, {"y": h[0] * g[0]})
        else:
            assert_same({"y": y}, {"y": want()})
        for got, expected in zip(leaves(after), leaves(state), strict=True):
            np.testing.assert_array_equal(got, expected)

    def test_gradients(self, rng, kind, lengths):
        inner = LAYERS[kind]()
        x = rng.standard_normal((3, 6, 3) if inner.batch_first else (6, 3, 3))
        state = inner(x)[1]
        check_recurrent(Final(inner), x, state, lengths=lengths)


def leaves(tree):
    return [a for part in tree for a in leaves(part)] if isinstance(tree, tuple) else [tree]


def test_final_of_one_sequence_and_in_a_chain(rng):
    model = Chain(Final(layer(LSTM)), Linear(4, 2, dtype="float64"))
    x = rng.standard_normal((6, 3))
    assert_close({"y": model(x)[0]}, {"y": model(x[:, None])[0][0]}, 0)
    check_recurrent(model, rng.standard_normal((6, 2, 3)))


def test_final_refuses_what_has_more_behind_its_state():
    with pytest.raises(TypeError, match=r"layer must be a recurrent layer.*got Chain"):
        Final(Chain(layer(LSTM), Linear(4, 4)))


class TestReversed:
    @pytest.mark.parametrize("lengths", [None, RAGGED], ids=["even", "ragged"])
    def test_is_the_backward_direction_to_the_bit(self, rng, lengths):
        both, inner = layer(GRU, bidirectional=True), layer(GRU)
        for name in inner.params:
            inner.params[name] = both.params[f"{name}_reverse"]
        x = rng.standard_normal((6, 3, 3))
        y, h = Reversed(inner)(x, lengths=lengths)
        want, last = both(x, lengths=lengths)
        assert_same({"y": y, "h": h}, {"y": want[..., 4:].copy(), "h": last[1:]})

    def test_gradients(self, rng):
        check_recurrent(Reversed(layer(LSTM)), rng.standard_normal((6, 3, 3)), lengths=RAGGED)


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

    def test_gradients(self, rng, spec):
        check_layer(Elementwise(spec), rng.standard_normal((4, 5)))


def test_elementwise_refuses_an_unknown_name():
    with pytest.raises(ValueError, match=r"activation must be one of sigmoid, .*; got 'gelu'"):
        Elementwise("gelu")
