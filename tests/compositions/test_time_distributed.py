"""TimeDistributed and Masked: against the same calls by hand, gradients, refusals."""

import numpy as np
import pytest
from rnncore import (
    GRU,
    LSTM,
    Chain,
    Embedding,
    Graph,
    Linear,
    Masked,
    Merge,
    Readout,
    Reshape,
    Reversed,
    TimeDistributed,
)

from tests.support.compare import assert_same, near
from tests.support.gradients import check_layer, check_recurrent

OWN = {"dtype": "float64", "batch_first": True}


class TestTimeDistributed:
    @pytest.mark.parametrize(
        "layer",
        [
            Readout(Reversed(LSTM(3, 2, seed=1, **OWN))),
            GRU(3, 2, seed=1, **OWN),
            Chain(Reshape(-1), Linear(12, 2, dtype="float64", seed=1)),
        ],
        ids=["readout", "gru", "chain"],
    )
    def test_each_step_goes_through_the_layer(self, rng, layer):
        module, x = TimeDistributed(layer), rng.standard_normal((2, 3, 4, 3))
        y = module(x)
        for b, t in np.ndindex(2, 3):
            alone = layer(x[b, t][None])
            alone = alone[0] if layer.recurrent else alone
            near(y[b, t], alone[0], 1e-15)
        check_layer(module, x)
        assert module(x[:0]).shape == (0, *y.shape[1:])

    def test_over_indices(self, rng):
        table = Embedding(9, 3, dtype="float64", seed=1)
        module = TimeDistributed(Chain(table, Readout(GRU(3, 2, seed=1, **OWN))))
        assert module.takes_indices
        check_layer(module, rng.integers(0, 9, (2, 3, 4)))

    def test_refusals(self):
        with pytest.raises(TypeError, match="layer must be a Module, got a str"):
            TimeDistributed("linear")
        with pytest.raises(ValueError, match=r"x must have shape \(B, T, \.\.\.\), got \(3,\)"):
            TimeDistributed(Linear(3, 2))(np.zeros(3, "f4"))
        with pytest.raises(ValueError, match="same batch_first"):
            Chain(GRU(3, 4), TimeDistributed(Linear(4, 2)))


class TestMasked:
    @pytest.mark.parametrize("batch_first", [True, False])
    def test_lengths_are_those_that_x_tells(self, rng, batch_first):
        own = OWN | {"batch_first": batch_first}
        layer = Chain(Embedding(5, 3, dtype="float64", seed=1), LSTM(3, 4, seed=2, **own))
        x = np.array([[3, 1, 4, 1], [2, 2, 0, 0], [4, 0, 0, 0]])
        x = x if batch_first else x.T
        module = Masked(layer)
        want = layer(x, lengths=[4, 2, 1])
        for found in (module(x), module(x, None), module(x, lengths=[4, 2, 1])):
            assert_same({"y": found[0], "h": found[1][0][0]}, {"y": want[0], "h": want[1][0][0]})
        check_recurrent(module, x)

    def test_steps_of_features(self, rng):
        layer = Readout(GRU(3, 4, seed=1, **OWN))
        x = rng.standard_normal((2, 5, 3))
        x[1, 2:] = -1
        x[:, 0, 1:] = -1  # not all of it
        assert_same({"y": Masked(layer, -1)(x)[0]}, {"y": layer(x, lengths=[5, 2])[0]})
        x[0, 1] = np.nan  # counts
        assert np.isnan(Masked(layer, -1)(x)[0]).any(axis=1).tolist() == [True, False]

    def test_one_of_several_inputs(self, rng):
        nodes = [
            ("end", Readout(GRU(3, 2, seed=1, **OWN)), "steps"),
            ("y", Merge("concat"), "end", "more"),
        ]
        graph = Graph(["steps", "more"], nodes, ["y"])
        steps, more = rng.standard_normal((2, 4, 3)), np.zeros((2, 1))
        steps[0, 1:] = 0
        y, _ = Masked(graph, [0, None])(steps, more)
        assert_same({"y": y}, {"y": graph(steps, more, lengths={"steps": [1, 4]})[0]})

    def test_holes_are_refused(self):
        layer = Masked(Chain(Embedding(5, 3), LSTM(3, 4, batch_first=True)))
        for x, row, step in (([[1, 2], [0, 3]], 1, 0), ([[1, 0, 2], [1, 2, 3]], 0, 1)):
            for call in (layer, layer.vjp):
                with pytest.raises(ValueError, match=f"end of sequence {row}, at step {step}: put"):
                    call(np.array(x))

    def test_refusals(self):
        layer = Masked(Chain(Embedding(5, 3), LSTM(3, 4, batch_first=True)))
        x = np.array([[1, 2], [3, 0]])
        with pytest.raises(ValueError, match=r"must be those that x tells, \[2, 1\], got \[2, 2\]"):
            layer(x, lengths=[2, 2])
        with pytest.raises(ValueError, match=r"lengths must be in 1\.\.2"):
            layer(np.array([[1, 2], [0, 0]]))
        with pytest.raises(ValueError, match=r"x must be a batch of sequences, got shape \(2,\)"):
            layer(x[0])
        with pytest.raises(
            ValueError, match=r"values must be one for each of \('x',\), got \[0, 0\]"
        ):
            Masked(LSTM(3, 4), [0, 0])
        with pytest.raises(TypeError, match="values must be a number"):
            Masked(LSTM(3, 4), "0")
