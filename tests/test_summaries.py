"""The table of a module's parts."""

import copy
import threading

import numpy as np
import pytest
import rnncore
from rnncore import GRU, LSTM, BatchNorm, Chain, Dropout, Embedding, Linear, Module, Tanh, summary
from rnncore.summaries import _size

from tests.support.models import MODELS

CASES = [(name, at) for name, (models, _) in MODELS.items() for at in range(len(models))]


def outputs(found):
    return {row.name: row.output for row in found.rows}


@pytest.mark.parametrize(("name", "at"), CASES)
def test_parameters_are_counted_once(name, at):
    module = MODELS[name][0][at]
    found = summary(module)
    arrays = {id(array): array for array in module.params.values()}.values()
    buffers = {id(array): array for array in module.buffers.values()}.values()
    assert found.parameters == sum(array.size for array in arrays)
    assert found.parameter_bytes == sum(array.nbytes for array in arrays)
    assert (found.buffers, found.buffer_bytes) == (
        sum(array.size for array in buffers),
        sum(array.nbytes for array in buffers),
    )
    assert sum(row.parameters for row in found.rows) == found.parameters
    assert {array.dtype.name for array in arrays} == set(found.dtypes)
    names = [row.name for row in found.rows]
    assert names[0] == ""
    assert len(names) == len(set(names))
    assert f"{found.parameters:,} parameters" in str(found).splitlines()[-1]


class TestShapes:
    def test_of_a_chain(self):
        model = Chain(Embedding(7, 3), Dropout(), LSTM(3, 5, bidirectional=True), Linear(10, 2))
        shapes = ["(6, 4, 2)", "(6, 4, 3)", "(6, 4, 3)", "(6, 4, 10)", "(6, 4, 2)"]
        ids = np.zeros((6, 4), int)
        for found in (summary(model, (6, 4)), summary(model, ids), summary(model, ids.tolist())):
            assert [row.output for row in found.rows] == shapes
        widths = ["(..., 2)", "(..., 3)", "(..., 3)", "(..., 10)", "(..., 2)"]
        assert [row.output for row in summary(model).rows] == widths

    def test_are_those_of_the_calls(self):
        """Convolutions shorten, readings drop steps, lengths go along."""
        model = Chain(
            rnncore.Conv1d(3, 4, 3, 2, batch_first=True),
            rnncore.Readout(GRU(4, 5, batch_first=True), "mean"),
            Linear(5, 2, dtype="float32"),
        )
        found = summary(model, (2, 9, 3), lengths=np.array([9, 4]))
        assert [row.output for row in found.rows] == [
            "(2, 2)", "(2, 4, 4)", "(2, 5)", "(2, 4, 5)", "(2, 2)"
        ]  # fmt: skip

    def test_of_several_inputs_and_outputs(self):
        merge = rnncore.Merge("mul")
        assert outputs(summary(merge, (2, 3), (2, 3))) == {"": "(2, 3)"}
        graph = MODELS["Graph"][0][0]
        found = summary(graph, (4, 2, 3))
        assert outputs(found)[""] == "(4, 2, 4), (4, 4)"
        assert outputs(found)["encoder.layer"] == "(4, 2, 4)"
        (again,) = (row for row in found.rows if row.again)
        assert (again.name, again.again, again.parameters) == ("out", "state", 0)

    def test_of_trees(self):
        forest = rnncore.Forest.from_nested([((1, 2), 3)])
        assert outputs(summary(rnncore.TreeGRU(3, 4), (5, 3), forest)) == {"": "(5, 4)"}

    def test_a_shape_is_a_tuple_of_whole_numbers(self):
        layer = Linear(3, 4)
        for x in ((2, 3), (np.int64(2), 3), np.ones((2, 3), np.float32), [[1, 2, 3], [4, 5, 6]]):
            assert outputs(summary(layer, x)) == {"": "(2, 4)"}
        assert outputs(summary(layer, ((1.0, 2.0, 3.0),))) == {"": "(1, 4)"}
        with pytest.raises(ValueError, match="x must have shape"):
            summary(layer, ())

    def test_float64(self):
        assert outputs(summary(Linear(3, 4, dtype="float64"), (2, 3))) == {"": "(2, 4)"}

    def test_of_quantized_models(self):
        model = rnncore.quantize(Chain(GRU(3, 4), Linear(4, 2)))
        found = summary(model, (5, 2, 3))
        assert [row.output for row in found.rows] == ["(5, 2, 2)", "(5, 2, 4)", "(5, 2, 2)"]
        assert found.dtypes == ("float32", "int8")

    def test_a_part_called_several_times(self):
        class Twice(Module):
            def __init__(self):
                super().__init__()
                self.pool, self.idle = rnncore.AvgPool1d(2), Tanh()

            def __call__(self, x):
                return self.pool(self.pool(x))

        found = summary(Twice(), (8, 1, 2))
        assert outputs(found) == {"": "(2, 1, 2)", "pool": "(4, 1, 2)", "idle": ""}


class TestAModuleIsLeftAlone:
    def test_its_class_and_what_it_draws(self, tmp_path):
        model = Chain(BatchNorm(3), GRU(3, 4, seed=0), Dropout(0.5, seed=1), Linear(4, 2, seed=2))
        kept, x = copy.deepcopy(model), np.ones((5, 2, 3), np.float32)
        before = model.state_dict()
        summary(model, x)
        assert [type(part) for _, part in model.children()] == [BatchNorm, GRU, Dropout, Linear]
        for name, array in before.items():
            np.testing.assert_array_equal(model.stored[name], array)
        np.testing.assert_array_equal(model.vjp(x)[0][0], kept.vjp(x)[0][0])
        model.save(tmp_path / "model")  # classes are known by their names
        assert type(rnncore.load(tmp_path / "model")) is Chain

    def test_weights_are_not_copied_for_good(self):
        layer = Linear(3, 4)
        found = summary(layer, (2, 3))
        layer.params["weight"][:] = 1
        np.testing.assert_array_equal(layer(np.ones((1, 3), np.float32)) > 2, True)
        assert found.parameters == 16

    def test_other_threads_may_call_it(self):
        model, x = Chain(GRU(3, 4, seed=0), Linear(4, 2, seed=1)), np.ones((5, 2, 3), np.float32)
        wanted, found = model(x)[0], []
        threads = [
            threading.Thread(target=lambda: found.append(summary(model, x))) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for _ in range(50):
            np.testing.assert_array_equal(model(x)[0], wanted)
        for thread in threads:
            thread.join()
        assert len(set(found)) == 1


class TestForm:
    def test_text(self):
        model = Chain(LSTM(8, 32), Linear(32, 2))
        assert str(summary(model, (20, 4, 8))).splitlines() == [
            "name  class   output       parameters",
            "-------------------------------------",
            "      Chain   (20, 4, 2)            -",
            "0     LSTM    (20, 4, 32)       5,376",
            "1     Linear  (20, 4, 2)           66",
            "-------------------------------------",
            "5,442 parameters, 21.8 kB in float32",
        ]
        assert repr(summary(model)) == str(summary(model))
        with_buffers = summary(BatchNorm(3))
        assert with_buffers.totals().endswith("; 6 numbers in buffers, 24 bytes")
        assert summary(Tanh()).totals() == "0 parameters, 0 bytes"

    def test_html(self):
        class Own(Module):
            def __init__(self):
                super().__init__()
                self.parts = {"<b>": Linear(2, 2)}

        page = summary(Own())._repr_html_()
        assert page.count("<tr>") == 3
        assert "<td>parts.&lt;b&gt;</td><td>Linear</td><td>(..., 2)</td><td>6</td>" in page

    @pytest.mark.parametrize(
        ("count", "text"),
        [(0, "0 bytes"), (9999, "9,999 bytes"), (10_000, "10 kB"), (2_500_000, "2.5 MB")],
    )
    def test_sizes(self, count, text):
        assert _size(count) == text


class TestRefusals:
    def test_what_is_no_module(self):
        with pytest.raises(TypeError, match="module must be a Module, got a int"):
            summary(3)

    def test_what_the_module_refuses(self):
        with pytest.raises(ValueError, match=r"x must have shape .*, got \(2, 4\)"):
            summary(Linear(3, 4), (2, 4))
        with pytest.raises(TypeError, match="x is float64"):
            summary(Linear(3, 4), np.ones((2, 3)))
