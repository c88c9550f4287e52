"""Ragged batches of layers that slide windows: rows are those run alone, to the bit."""

import numpy as np
import pytest
from rnncore import AvgPool1d, BatchNorm, Conv1d, GlobalAvgPool, MaxPool1d

from tests.support.gradients import check_layer
from tests.support.windows import SEQUENCES, Ragged

#: Padding that does not depend on where a row ends.
RAGGED = [
    name
    for name, case in SEQUENCES.items()
    if case.arguments.get("padding_mode", "zeros") == "zeros"
    and name not in ("same, strided", "pool, max, same", "pool, mean, ceil")
    and "count_include_pad" not in case.arguments
]


class TestLengths:
    """Rows of a ragged batch are those run alone, to the bit."""

    @pytest.mark.parametrize("first", [False, True])
    @pytest.mark.parametrize("name", RAGGED)
    def test_rows_are_those_alone(self, name, first, rng):
        case = SEQUENCES[name]
        layer, lengths = case.layer("float32", batch_first=first), np.array([12, 5, 9, 1])
        x = rng.standard_normal((12, 4, case.channels)).astype("f")
        for row, n in enumerate(lengths):
            x[n:, row] = np.nan  # never looked at
        swap = (lambda a: a.swapaxes(0, 1)) if first else (lambda a: a)
        y, pullback = layer.vjp(swap(x), lengths=lengths)
        np.testing.assert_array_equal(layer(swap(x), lengths=lengths), y)
        dy = rng.standard_normal(y.shape).astype("f")
        y, dx, dys = swap(y), swap(pullback(dy)), swap(dy)
        after = layer.out_lengths(lengths)
        for row, n in enumerate(lengths):
            alone, back = layer.vjp(x[:n, row])
            assert len(alone) == after[row]
            np.testing.assert_array_equal(y[: after[row], row], alone)
            np.testing.assert_array_equal(dx[:n, row], back(dys[: after[row], row]))
            assert not y[after[row] :, row].any()
            assert not dx[n:, row].any()

    @pytest.mark.parametrize(
        "name", ["same", "stride", "groups", "pool, max", "pool, mean, padded"]
    )
    def test_gradients(self, name, rng):
        case = SEQUENCES[name]
        layer = Ragged(case.layer(), [7, 3, 5])
        check_layer(layer, rng.standard_normal((7, 3, case.channels)))

    def test_of_a_single_row(self, rng):
        layer, x = Conv1d(3, 4, 2, seed=1), rng.standard_normal((7, 3)).astype("f")
        y = layer(x, lengths=[4])
        np.testing.assert_array_equal(y[:3], layer(x[:4]))
        assert not y[3:].any()

    @pytest.mark.parametrize(
        ("lengths", "error", "message"),
        [
            ([5, 0], ValueError, r"lengths must be in 1\.\.5, the number of steps; got 0\.\.5"),
            ([5, 6], ValueError, r"lengths must be in 1\.\.5"),
            ([5], ValueError, r"lengths must have shape \(2,\), got \(1,\)"),
            ([5.0, 2.0], TypeError, "lengths must be whole numbers"),
            ("ab", TypeError, "lengths must be whole numbers"),
        ],
    )
    def test_that_do_not_fit(self, lengths, error, message):
        norm = BatchNorm(3, batch_first=False)
        for layer in (Conv1d(3, 4, 2), MaxPool1d(2), GlobalAvgPool(), norm):
            for call in (layer, layer.vjp):
                with pytest.raises(error, match=message):
                    call(np.zeros((5, 2, 3), "f"), lengths=lengths)

    @pytest.mark.parametrize(
        ("layer", "message"),
        [
            (
                Conv1d(3, 4, 2, padding=1, padding_mode="reflect"),
                "lengths need padding by zeros, no",
            ),
            (Conv1d(3, 4, 2, 2, padding="same"), "with a stride of 2 takes no lengths"),
            (AvgPool1d(3, ceil_mode=True), "lengths need ceil_mode=False"),
            (AvgPool1d(3, padding=1, count_include_pad=False), "lengths need ceil_mode=False, and"),
        ],
        ids=["reflected", "strided, same", "ceil", "without padding"],
    )
    def test_that_cannot_be_told(self, layer, message):
        with pytest.raises(ValueError, match=message):
            layer(np.zeros((5, 2, 3), "f"), lengths=[5, 3])

    def test_after_it(self):
        layer = Conv1d(3, 4, 3, 2)
        np.testing.assert_array_equal(layer.out_lengths([1, 3, 4, 5]), [0, 1, 1, 2])
        with pytest.raises(TypeError, match="lengths must be integers"):
            layer.out_lengths([1.5])
