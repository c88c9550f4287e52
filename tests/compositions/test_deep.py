"""Depth in four places, and what each of them reduces to."""

from typing import Any

import numpy as np
import pytest
import rnncore
from rnncore import GRU, LSTM, RNN, DeepRNN
from rnncore.recurrent.registry import LAYERS

from tests.support.compare import assert_gradients_of

LENGTHS = np.array([6, 3, 1, 4])
DEEP: dict[str, dict[str, Any]] = {
    "plain": {},
    "input": {"input_depth": 3, "width": 7},
    "output": {"output_depth": 3, "activation": "sigmoid"},
    "transition": {"transition_depth": 3, "shortcut": True},
    "all, with dropout": {
        "cell": "gru",
        "num_layers": 2,
        "input_depth": 2,
        "transition_depth": 2,
        "output_depth": 2,
        "dropout": 0.3,
    },
    "residual": {"cell": "gru", "num_layers": 3, "residual": True, "dropout": 0.3},
    "skip": {"cell": "lstm", "num_layers": 3, "skip": True, "bidirectional": True},
    "residual and skip": {"cell": "lstm", "num_layers": 3, "skip": True, "residual": True},
}
each_deep = pytest.mark.parametrize("options", DEEP.values(), ids=list(DEEP))


def x(batch_first: bool = False, dtype: str = "float64") -> np.ndarray:
    drawn = np.random.default_rng(0).standard_normal((6, 4, 5)).astype(dtype)
    return np.ascontiguousarray(drawn.swapaxes(0, 1)) if batch_first else drawn


def parts(state: Any) -> tuple[Any, ...]:
    return state if isinstance(state, tuple) else (state,)


class TestGradients:
    @pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["even", "ragged"])
    @each_deep
    def test_agree_with_differences(self, options: dict[str, Any], lengths: Any) -> None:
        model = DeepRNN(5, 8, dtype="float64", seed=0, **options)
        rng, inputs = np.random.default_rng(1), x()
        generator = model.between.rng
        masks = generator.bit_generator.state

        def run() -> Any:
            generator.bit_generator.state = masks
            return model.vjp(inputs, lengths=lengths)

        (y, state), pullback = run()
        dy = rng.standard_normal(y.shape)
        dstate = tuple(rng.standard_normal(part.shape) for part in parts(state))

        def loss() -> float:
            (y, state), _ = run()
            ends = zip(parts(state), dstate, strict=True)
            return float((y * dy).sum() + sum((end * d).sum() for end, d in ends))

        dx, _ = pullback(dy, dstate if isinstance(state, tuple) else dstate[0])
        params = ((param, model.grads[name]) for name, param in model.params.items())
        assert_gradients_of(loss, [(inputs, dx), *params])


class TestReductions:
    @pytest.mark.parametrize("cell", LAYERS)
    def test_depth_one_is_the_plain_layer(self, cell: str) -> None:
        deep = DeepRNN(5, 17, cell=cell, num_layers=2, bidirectional=True, seed=3)
        plain = LAYERS[cell](5, 17, 2, bidirectional=True, seed=3)
        inputs = x(dtype="float32")
        (y, state), pullback = deep.vjp(inputs, lengths=LENGTHS)
        (y0, state0), pullback0 = plain.vjp(inputs, lengths=LENGTHS)
        np.testing.assert_array_equal(y, y0)
        np.testing.assert_array_equal(state, state0)
        np.testing.assert_array_equal(pullback(y)[0], pullback0(y0)[0])
        for name, gradient in plain.grads.items():
            np.testing.assert_array_equal(deep.grads[f"recurrent.0.{name}"], gradient)

    @pytest.mark.parametrize("layer", [RNN, LSTM, GRU, rnncore.MGU])
    def test_a_zero_shortcut_is_none(self, layer: Any) -> None:
        with_one = layer(5, 17, transition_depth=3, shortcut=True, seed=0)
        without = layer(5, 17, transition_depth=3, seed=1)
        with_one.params["weight_ih_l0_t3"].fill(0)
        without.load_state_dict(
            {name: value for name, value in with_one.params.items() if name != "weight_ih_l0_t3"}
        )
        inputs = x(dtype="float32")
        (y, _), pullback = with_one.vjp(inputs)
        (y0, _), pullback0 = without.vjp(inputs)
        np.testing.assert_array_equal(y, y0)
        np.testing.assert_array_equal(pullback(y)[0], pullback0(y0)[0])
        for name, gradient in without.grads.items():
            np.testing.assert_array_equal(with_one.grads[name], gradient)

    def test_residual_adds_what_a_layer_saw(self) -> None:
        model = DeepRNN(5, 8, num_layers=2, residual=True, dtype="float64", seed=0)
        first, second = model.layers
        below, _ = first(x())
        np.testing.assert_array_equal(model(x())[0], second(below)[0] + below)

    def test_skip_shows_every_layer_the_input_and_y_every_layer(self) -> None:
        model = DeepRNN(5, 8, num_layers=2, skip=True, dtype="float64", seed=0)
        first, second = model.layers
        below, _ = first(x())
        above, _ = second(np.concatenate([below, x()], axis=-1))
        np.testing.assert_array_equal(model(x())[0], np.concatenate([below, above], axis=-1))


class TestProtocol:
    @each_deep
    def test_what_padding_holds_does_not_matter(self, options: dict[str, Any]) -> None:
        model = DeepRNN(5, 8, dtype="float64", seed=0, **options | {"dropout": 0.0})
        padded, clean = x(), x()
        for b, length in enumerate(LENGTHS):
            padded[length:, b], clean[length:, b] = np.nan, 0
        (y, _), pullback = model.vjp(padded, lengths=LENGTHS)
        dx, _ = pullback(y)
        np.testing.assert_array_equal(y, model(clean, lengths=LENGTHS)[0])
        for b, length in enumerate(LENGTHS):
            assert (y[length:, b] == 0).all()
            assert (dx[length:, b] == 0).all()
        assert all(np.isfinite(gradient).all() for gradient in model.grads.values())

    @pytest.mark.parametrize("name", [name for name in DEEP if name != "skip"])  # one direction
    def test_pieces_of_time_are_the_whole(self, name: str) -> None:
        options = DEEP[name]
        model = DeepRNN(5, 8, dtype="float64", seed=0, **options)
        y, last = model(x())
        first, state = model(x()[:2])
        second, state = model(x()[2:], state)
        np.testing.assert_array_equal(np.concatenate([first, second]), y)
        np.testing.assert_array_equal(np.asarray(state), np.asarray(last))

    @each_deep
    def test_batch_first_and_single_sequences(self, options: dict[str, Any]) -> None:
        model = DeepRNN(5, 8, dtype="float64", seed=0, **options)
        other = DeepRNN(5, 8, dtype="float64", seed=0, batch_first=True, **options)
        y, _ = model(x(), lengths=LENGTHS)
        np.testing.assert_array_equal(other(x(True), lengths=LENGTHS)[0].swapaxes(0, 1), y)
        np.testing.assert_array_equal(model(x()[:3, 1], lengths=[3])[0], y[:3, 1])
        assert model.output_size == y.shape[-1]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"cell": "gnu"}, "cell must be one of rnn, .*lstm, .* got 'gnu'"),
            ({"output_depth": 0}, "output_depth must be at least 1"),
            ({"activation": "swish"}, "activation must be one of"),
            ({"shortcut": True}, "shortcut=True needs a transition_depth of at least 2"),
            ({"transition_depth": 0}, "transition_depth must be at least 1"),
        ],
    )
    def test_refuses(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            DeepRNN(5, 8, **options)

    def test_refuses_wrong_arrays(self) -> None:
        model = DeepRNN(5, 8, num_layers=2, residual=True)
        with pytest.raises(ValueError, match=r"x must have shape \(T, B, 5\) or \(T, 5\)"):
            model(np.zeros((6, 4, 3), np.float32))
        with pytest.raises(ValueError, match="state must have 2 rows"):
            model(x(dtype="float32"), np.zeros((3, 4, 8), np.float32))
