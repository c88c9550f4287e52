"""Masks inside the kernels: what they do, the same both ways, and what they refuse."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from rnncore import GRU, LSTM, MGU, RNN, IndRNN, LSTMCell, MinGRU, MinLSTM

from tests.support import cases
from tests.support.cases import Case, Numbers
from tests.support.compare import assert_gradient_along, assert_same


def has_recurrent_weights(cell: str) -> bool:
    return not cell.startswith(("min", "indrnn"))


MASKED: dict[str, tuple[str, dict[str, Any]]] = {
    f"{cell}, {name}": (cell, options)
    for name, options, suits in [
        ("variational", {"variational_dropout": 0.4}, has_recurrent_weights),
        ("recurrent", {"recurrent_dropout": 0.4}, lambda cell: "rnn" not in cell),
        ("zoneout", {"zoneout": 0.4}, lambda cell: "norm" not in cell and "proj" not in cell),
        ("weight drop", {"weight_drop": 0.4}, has_recurrent_weights),
    ]
    for cell in [*cases.CELLS, *cases.GATED]
    if suits(cell)
} | {
    "lstm, different rates": ("lstm", {"zoneout": (0.1, 0.5)}),
    "lstm, cells alone": ("lstm", {"zoneout": (0, 0.5)}),
    "gru, all": (
        "gru",
        {"zoneout": 0.2, "variational_dropout": 0.3, "recurrent_dropout": 0.2, "weight_drop": 0.3},
    ),
    "lstm, all": (
        "lstm",
        {"zoneout": 0.2, "variational_dropout": 0.3, "recurrent_dropout": 0.2, "cell_clip": 0.5},
    ),
}  # fmt: skip

each_masked = pytest.mark.parametrize(("cell", "options"), MASKED.values(), ids=list(MASKED))


class TestGradients:
    @pytest.mark.parametrize("ragged", [False, True])
    @each_masked
    def test_are_those_of_the_same_masks(
        self, cell: str, options: dict[str, Any], ragged: bool
    ) -> None:
        case = Case(cell, num_layers=2, bidirectional=True, ragged=ragged)
        numbers = case.draw()

        def same_masks(numbers: Numbers) -> tuple[cases.Named, cases.Named]:
            return cases.layer_results(case, numbers, seed=1, **options)

        _, gradients = same_masks(numbers)
        assert_gradient_along(lambda moved: same_masks(moved)[0], numbers, gradients)


class TestToTheBit:
    @each_masked
    def test_any_number_of_threads_and_any_tape(
        self, cell: str, options: dict[str, Any], set_threads: Callable[[int], None]
    ) -> None:
        case = Case(cell, "float32", 2, True, True, 30, 40, 17, 33)
        numbers, results = case.draw(), []
        for count, checkpoint in [(1, False), (3, False), (2, 7)]:
            set_threads(count)
            results.append(
                cases.layer_results(case, numbers, seed=1, checkpoint=checkpoint, **options)
            )
        for outputs, gradients in results[1:]:
            assert_same(outputs, results[0][0])
            assert_same(gradients, results[0][1])

    @pytest.mark.parametrize(
        ("cell", "options"),
        [pair for pair in MASKED.values() if not {"zoneout", "cell_clip"} & pair[1].keys()],
    )
    def test_inference_without_zoneout_is_the_plain_layer(
        self, cell: str, options: dict[str, Any]
    ) -> None:
        case = Case(cell)
        numbers = case.draw()
        plain = cases.layer_outputs(case, numbers)
        assert_same(cases.layer_outputs(case, numbers, **options), plain)


def still(layer: Any, **params: float) -> Any:
    """The layer with these parameters set, and all others zero."""
    for name, array in layer.params.items():
        array[...] = params.get(name, 0)
    return layer


NOTHING = np.zeros((50, 8, 1))
ONES = np.ones((1, 8, 40))


class TestMeaning:
    def test_variational_dropout_drops_the_same_units_at_every_step(self) -> None:
        layer = still(
            RNN(1, 40, nonlinearity="identity", variational_dropout=0.25, dtype="float64", seed=0)
        )
        layer.params["weight_hh_l0"][...] = np.eye(40)
        (y, _), _ = layer.vjp(NOTHING, ONES)
        kept = y[0] != 0
        assert 0.6 < kept.mean() < 0.9
        np.testing.assert_allclose(y, kept * (4 / 3) ** np.arange(1, 51)[:, None, None])

    def test_recurrent_dropout_drops_others_at_every_step(self) -> None:
        layer = still(MinGRU(1, 40, recurrent_dropout=0.25, dtype="float64", seed=0))
        layer.params["bias_ih_l0"][40:] = 1  # n = 1, z = 1/2: h' = (h + mask) / 2
        (y, _), _ = layer.vjp(NOTHING)
        before = np.concatenate([np.zeros((1, 8, 40)), y[:-1]])
        masks = 2 * y - before
        np.testing.assert_allclose(masks, np.where(masks > 0.5, 4 / 3, 0), atol=1e-12)
        kept = masks > 0.5
        assert 0.7 < kept.mean() < 0.8
        assert (kept[0] != kept[1]).any()

    def test_zoneout_keeps_units_as_they_were(self) -> None:
        layer = still(RNN(1, 40, zoneout=0.25, dtype="float64", seed=0))  # the new h is zero
        (y, _), _ = layer.vjp(NOTHING, ONES)
        assert set(np.unique(y)) <= {0, 1}
        assert 0.15 < y[0].mean() < 0.35
        assert (y[1] <= y[0]).all()

    def test_zoneout_expects_at_inference(self) -> None:
        layer = still(RNN(1, 40, zoneout=0.25, dtype="float64"))
        y, _ = layer(NOTHING, ONES)
        np.testing.assert_allclose(y[:, 0, 0], 0.25 ** np.arange(1, 51))

    def test_zoneout_has_rates_for_h_and_c(self) -> None:
        layer = still(LSTM(1, 40, zoneout=(0.0, 0.5), dtype="float64"))  # gates 1/2, g = 0
        _, (h, c) = layer(NOTHING[:1], (ONES, ONES))
        np.testing.assert_allclose(c, 0.75)  # half of 1, half of f c = 1/2
        np.testing.assert_allclose(h, 0.5 * np.tanh(0.5))  # of the new c before it is mixed

    def test_weight_drop_has_no_gradient_where_it_dropped(self) -> None:
        layer = RNN(1, 40, weight_drop=0.25, dtype="float64", seed=0)
        (y, _), pullback = layer.vjp(np.ones((5, 8, 1)))
        pullback(np.ones_like(y))
        dropped = layer.grads["weight_hh_l0"] == 0
        assert 0.2 < dropped.mean() < 0.3
        assert (layer.params["weight_hh_l0"] != 0).all()

    def test_masks_differ_from_call_to_call_and_follow_the_seed(self) -> None:
        def twice(seed: int) -> list[np.ndarray]:
            layer = LSTM(1, 40, zoneout=0.5, seed=seed)
            return [layer.vjp(np.ones((5, 8, 1), np.float32))[0][0] for _ in range(2)]

        one, other = twice(1)
        assert (one != other).any()
        np.testing.assert_array_equal(twice(1), [one, other])


class TestRefusals:
    @pytest.mark.parametrize(
        ("layer", "options", "message"),
        [
            (LSTM, {"zoneout": 1.0}, r"zoneout must be in \[0, 1\), got 1.0"),
            (LSTM, {"zoneout": (0.1, 0.2, 0.3)}, "zoneout must be a rate or a pair"),
            (GRU, {"variational_dropout": -0.1}, r"variational_dropout must be in \[0, 1\)"),
            (LSTM, {"weight_drop": 2}, r"weight_drop must be in \[0, 1\), got 2"),
            (RNN, {"recurrent_dropout": 0.1}, "recurrent_dropout needs a gated layer"),
            (IndRNN, {"variational_dropout": 0.1}, "variational_dropout needs recurrent weights"),
            (MinLSTM, {"weight_drop": 0.1}, "weight_drop needs recurrent weights"),
            (LSTM, {"zoneout": 0.1, "layer_norm": True}, "zoneout and layer_norm do not go"),
            (LSTM, {"zoneout": 0.1, "proj_size": 2}, "zoneout and proj_size do not go"),
            (MGU, {"zoneout": 0.1, "transition_depth": 2}, "zoneout and transition_depth do not"),
        ],
    )
    def test_names_what_is_wrong(self, layer: Any, options: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            layer(3, 4, **options)

    def test_unknown_keywords(self) -> None:
        for layer in (LSTM, MGU, LSTMCell):
            message = f"{layer.__name__}.* unexpected keyword argument 'zonout'"
            with pytest.raises(TypeError, match=message):
                layer(3, 4, zonout=0.1)
