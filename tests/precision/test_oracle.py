"""Layers with int8 and bfloat16 weights against NumPy, and sums that every processor has alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from rnncore import Linear, _core, quantize
from rnncore.precision import dequantized

from tests.support.cases import Case, built, each
from tests.support.processes import run_python
from tests.support.quantized import FLOAT32, STACKED, STEPS, Rounding, arrays, farthest

ROWS, FRAMES = 24, 6
SIZES = [(1, 1), (3, 5), (17, 8), (64, 70), (130, 16)]


def quantised(case: Case, weights: str, seed: int = 0) -> tuple[Any, Any]:
    """A layer with weights of fewer bits, and what it is called with."""
    numbers = case.draw(seed)
    return quantize(built(case, numbers), weights), numbers


class TestInt8:
    """Every time step from the very state that the layer had: no difference is carried on."""

    @pytest.mark.parametrize("cell", STEPS)
    @pytest.mark.parametrize(("inputs", "hidden"), SIZES)
    def test_a_step_is_that_of_numpy(self, cell: str, inputs: int, hidden: int) -> None:
        hidden += hidden == 1 and cell == "lstm_projected"  # whose h is narrower than c
        case = Case(cell, "float32", 1, False, False, FRAMES, ROWS, inputs, hidden)
        layer, numbers = quantised(case, "int8")
        params = dict(layer.params)
        state: Any = numbers.state
        judged = 0
        for x in numbers.x:
            before = [part[0].astype(float) for part in arrays(state)]
            _, state = layer(x[None], state)
            rounding = Rounding(ROWS)

            def product(rows: np.ndarray, name: str, rounding: Rounding = rounding) -> np.ndarray:
                return rounding.product(rows, params[name], params[f"{name}_scale"])

            want = STEPS[cell](params, product, x, *before)
            for got, expected in zip(arrays(state), want, strict=True):
                error = np.abs(got[0] - expected)[rounding.clear]
                assert error.max(initial=0) <= 2e-6 * max(1, np.abs(expected).max())
            judged += np.count_nonzero(rounding.clear)
        assert judged >= ROWS * FRAMES / 2

    def test_it_is_not_that_of_float32(self) -> None:
        """What the oracle's tolerance tells apart is far above it."""
        layer, numbers = quantised(Case("lstm", "float32", 1, False, False, 1, 8, 17, 33), "int8")
        y, _ = layer(numbers.x, numbers.state)
        want, _ = dequantized(layer)(numbers.x, numbers.state)
        assert np.abs(y - want).max() > 2e-4

    @pytest.mark.parametrize("outputs", [1, 16, 48, 65])
    @pytest.mark.parametrize("inputs", [1, 2, 3, 4, 7, 16, 63, 64, 65, 200])
    def test_linear(self, inputs: int, outputs: int, rng: np.random.Generator) -> None:
        linear = quantize(Linear(inputs, outputs, seed=1))
        x, rounding = rng.standard_normal((ROWS, inputs)).astype("f4"), Rounding(ROWS)
        params = linear.params
        want = rounding.product(x, params["weight"], params["weight_scale"]) + params["bias"]
        clear = rounding.clear
        assert np.count_nonzero(clear) >= ROWS / 2
        assert np.abs(linear(x) - want)[clear].max() <= 1e-6 * np.abs(want).max()

    @pytest.mark.parametrize("name", ["int8", "bfloat16"])
    def test_whole_numbers_are_exact(self, name: Any, rng: np.random.Generator) -> None:
        """Rows and weights whose largest number is 127 are not rounded at all."""
        linear = Linear(300, 50, bias=False)
        weight = rng.integers(-127, 128, (50, 300))
        x = rng.integers(-127, 128, (9, 300))
        weight[:, 7] = x[:, 250] = 127
        linear.params["weight"] = weight.astype("f4")
        got = quantize(linear, name)(x.astype("f4"))
        np.testing.assert_array_equal(got, x @ weight.T)

    def test_no_sum_saturates(self) -> None:
        """All numbers of one sign and the largest there are, in as long a row as anyone has."""
        linear = Linear(8192, 3, bias=False)
        linear.params["weight"] = np.full((3, 8192), 127, "f4") * np.array([[1], [-1], [1]], "f4")
        x = np.full((2, 8192), 127, "f4")
        x[1] = -127
        got = quantize(linear)(x)
        np.testing.assert_array_equal(got, 127 * 127 * 8192 * np.array([[1, -1, 1], [-1, 1, -1]]))


def test_how_weights_are_rounded() -> None:
    linear = Linear(4, 3, bias=False)
    linear.params["weight"] = np.array([[127, 0.5, 1.5, -2.5], [0, 0, 0, 0], [-254, 2, 3, 1]], "f4")
    held = quantize(linear).params
    assert held["weight"].tolist() == [[127, 0, 2, -2], [0, 0, 0, 0], [-127, 1, 2, 0]]
    assert held["weight_scale"].tolist() == [1, 0, 2]
    assert held["weight"].dtype == np.int8
    # Two that lie in the middle between even and odd ones, one beyond it.
    linear.params["weight"][0] = [-1, 1 + 1 / 256, 1 + 3 / 256, 1 + 1 / 256 + 2.0**-20]
    upper = quantize(linear, "bfloat16")
    assert upper.params["weight"].dtype == np.uint16
    assert dequantized(upper).params["weight"][0].tolist() == [-1, 1, 1 + 1 / 64, 1 + 1 / 128]


class TestBfloat16:
    @each(FLOAT32 + STACKED)
    def test_a_layer_is_that_of_its_rounded_weights(self, case: Case) -> None:
        layer, numbers = quantised(case, "bfloat16")
        given = numbers.x, numbers.state
        got = layer(*given, lengths=numbers.lengths)
        assert farthest(got, dequantized(layer)(*given, lengths=numbers.lengths)) <= 2e-6
        exact = built(case, numbers)(*given, lengths=numbers.lengths)
        assert 0 < farthest(got, exact) < 0.1

    @pytest.mark.parametrize("outputs", [1, 16, 48, 65])
    @pytest.mark.parametrize("inputs", [1, 2, 3, 4, 7, 16, 63, 64, 65, 200])
    def test_linear(self, inputs: int, outputs: int, rng: np.random.Generator) -> None:
        linear = quantize(Linear(inputs, outputs, seed=1), "bfloat16")
        x = rng.standard_normal((ROWS, inputs)).astype("f4")
        assert farthest(linear(x), dequantized(linear)(x)) <= 1e-6


def in_bfloat16(rows: Any) -> Any:
    """Numbers as float64, each rounded to bfloat16."""
    linear = Linear(rows.shape[1], rows.shape[0], bias=False)
    linear.params["weight"] = rows
    return dequantized(quantize(linear, "bfloat16")).params["weight"].astype(float)


class TestBfloat16Dot:
    """What is multiplied is rounded as well, where the processor does both at once."""

    @each(FLOAT32 + STACKED)
    def test_a_layer_is_near(self, case: Case) -> None:
        layer, numbers = quantised(case, "bfloat16_dot")
        got = layer(numbers.x, numbers.state, lengths=numbers.lengths)
        exact = built(case, numbers)(numbers.x, numbers.state, lengths=numbers.lengths)
        assert 0 < farthest(got, exact) < 0.1

    @pytest.mark.parametrize("outputs", [1, 16, 48, 65])
    @pytest.mark.parametrize("inputs", [1, 2, 3, 4, 7, 16, 63, 64, 65, 200])
    def test_linear(self, inputs: int, outputs: int, rng: np.random.Generator) -> None:
        linear = Linear(inputs, outputs, bias=False, seed=1)
        x = rng.standard_normal((ROWS, inputs)).astype("f4")
        got = quantize(linear, "bfloat16_dot")(x)
        weight = in_bfloat16(linear.params["weight"])
        both, weights_alone = in_bfloat16(x) @ weight.T, x @ weight.T
        rounds = farthest(got, both) < farthest(got, weights_alone)
        want = both if rounds else weights_alone
        assert farthest(got, want) <= 1e-6
        if "bf16" in _core.info()["instruction_set"]:
            assert rounds or np.abs(both - weights_alone).max() < 1e-6


@each(FLOAT32 + STACKED)
def test_int8_is_near(case: Case) -> None:
    layer, numbers = quantised(case, "int8")
    got = layer(numbers.x, numbers.state, lengths=numbers.lengths)
    exact = built(case, numbers)(numbers.x, numbers.state, lengths=numbers.lengths)
    assert 0 < farthest(got, exact) < 0.1


SUMS = """
import hashlib
import numpy as np
import rnncore

rng = np.random.default_rng(0)
digest = hashlib.sha256()
for inputs, outputs, rows in [(1, 1, 1), (5, 3, 2), (64, 16, 9), (67, 65, 30), (1000, 130, 3)]:
    linear = rnncore.Linear(inputs, outputs, bias=False)
    weight = rng.integers(-127, 128, (outputs, inputs))
    x = rng.integers(-127, 128, (rows, inputs))
    weight[:, 0] = x[:, -1] = 127
    linear.params["weight"] = weight.astype("f4")
    y = rnncore.quantize(linear)(x.astype("f4"))
    assert (y == x @ weight.T).all()
    x = rng.standard_normal((rows, inputs)).astype("f4")
    x[:, 0] = 127  # a scale of one: what is summed up are whole numbers
    digest.update(y.tobytes() + rnncore.quantize(linear)(x).tobytes())
print(digest.hexdigest())
"""


def test_sums_are_the_same_on_every_instruction_set() -> None:
    levels = _core.info()["compiled_for"]
    digests = {}
    for level in levels:
        try:
            digests[level] = run_python(SUMS, RNNCORE_ISA=level)
        except AssertionError as error:
            if "this processor does not have" not in str(error):
                raise
    assert len(set(digests.values())) == 1
    if len(digests) < 2:
        pytest.skip("one instruction set alone is there to run")
