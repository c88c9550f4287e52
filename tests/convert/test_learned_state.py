"""First states that are learnt, in ONNX's files as constants; other formats have no such thing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from rnncore import GRU, LSTM, RNN, Bidirectional, Chain, DeepRNN, Embedding, Linear, Readout
from rnncore.convert import from_onnx, from_torch, to_onnx, to_rtneural, to_torch_state_dict

from tests.support.compare import assert_close, assert_same
from tests.support.gradients import leaves
from tests.support.streams import learned, same

ON = {"learned_state": True}
MODELS = {
    "rnn": lambda **o: RNN(3, 4, **ON, **o),
    "lstm": lambda **o: LSTM(3, 4, 2, bidirectional=True, **ON, **o),
    "gru": lambda **o: GRU(3, 4, 3, reset_after=False, **ON, **o),
    "tagger": lambda **o: Chain(Embedding(7, 3), LSTM(3, 4, **ON, **o), GRU(4, 3, **o)),
    "both": lambda **o: Bidirectional(LSTM(3, 4, **ON, **o), GRU(3, 4, **ON, **o), "sum"),
    "final": lambda **o: Readout(LSTM(3, 4, **ON, **o)),
    "deep": lambda **o: DeepRNN(3, 4, num_layers=2, input_depth=2, output_depth=2, **ON, **o),
    "residual": lambda **o: DeepRNN(3, 4, cell="lstm", num_layers=3, residual=True, **ON, **o),
}


def input_of(name: str, rng: np.random.Generator, batch_first: bool = False) -> np.ndarray:
    shape = (3, 6) if batch_first else (6, 3)
    if name == "tagger":
        return rng.integers(7, size=shape)
    return rng.standard_normal((*shape, 3)).astype(np.float32)


class TestOnnx:
    @pytest.fixture(autouse=True)
    def _packages(self) -> None:
        pytest.importorskip("onnx", reason="the package onnx reads and writes the format")

    @pytest.mark.parametrize("batch_first", [False, True])
    @pytest.mark.parametrize("name", MODELS)
    def test_what_is_written(
        self, name: str, batch_first: bool, tmp_path: Any, rng: np.random.Generator
    ) -> None:
        """By ONNX Runtime and by our own reader; a row has no step."""
        model = learned(MODELS[name](batch_first=batch_first))
        to_onnx(model, tmp_path / "model", verify=True, report=str)
        graph = from_onnx(tmp_path / "model")
        states = [] if name != "tagger" else ["2.h0"]
        assert list(graph.inputs) == ["x", "lengths", *states]
        x, lengths = input_of(name, rng, batch_first), np.array([6, 2, 4], np.int32)
        zero = [np.zeros((1, 3, 3), np.float32) for _ in states]
        y, after = model(x, lengths=lengths)
        for got, want in zip(graph.run(x, lengths, *zero), (y, *leaves(after)), strict=True):
            assert_close({"y": got}, {"y": want}, 2e-5)
        _, *ends = graph.run(x, np.array([0, 2, 4], np.int32), *zero)
        starts = leaves(model(x[:, :0] if batch_first else x[:0])[1])
        if name != "final":
            for got, want in zip(ends, starts, strict=True):
                same(got[:, 0], want[:, 0])

    @pytest.mark.parametrize("name", ["lstm", "residual", "final"])
    def test_without_states_and_lengths(
        self, name: str, tmp_path: Any, rng: np.random.Generator
    ) -> None:
        model, x = learned(MODELS[name]()), input_of(name, rng)
        path = tmp_path / "model"
        to_onnx(model, path, lengths=False, state=False, verify=True, report=str)
        graph = from_onnx(path)
        assert (list(graph.inputs), graph.outputs) == (["x"], ("y",))
        for rows in (x, x[:, :1], x[:1]):
            assert_close({"y": graph.run(rows)[0]}, {"y": model(rows)[0]}, 2e-5)

    @pytest.mark.parametrize("batch_first", [False, True])
    @pytest.mark.parametrize("name", ["rnn", "lstm", "gru", "tagger", "final"])
    def test_modules_keep_it(
        self, name: str, batch_first: bool, tmp_path: Any, rng: np.random.Generator
    ) -> None:
        model = learned(MODELS[name](batch_first=batch_first))
        to_onnx(model, tmp_path / "model")
        again = from_onnx(tmp_path / "model").module()
        mine, theirs = (
            sum(p.size for n, p in m.params.items() if "initial" in n) for m in (model, again)
        )
        assert mine == theirs > 0
        x = input_of(name, rng, batch_first)
        assert_close({"y": again(x)[0]}, {"y": model(x)[0]}, 2e-6)

    def graph(self, rng: np.random.Generator, first: np.ndarray, **attributes: Any) -> Any:
        """A GRU whose initial state is `first (1, B, 4)`, expanded as PyTorch writes it."""
        from onnx import helper

        from tests.support.onnx_graphs import graph_of

        make = helper.make_node
        arrays = {"W": (1, 12, 3), "R": (1, 12, 4)}
        arrays = {n: rng.standard_normal(s).astype(np.float32) for n, s in arrays.items()}
        arrays |= {"first": first, "zero": np.array(0), "one": np.array([1])}
        arrays |= {"layers": np.array([1]), "size": np.array([4]), "at": np.array(1)}
        nodes = [
            make("Shape", ["x"], ["sizes"]),
            make("Gather", ["sizes", "at"], ["rows"], axis=0),
            make("Unsqueeze", ["rows", "layers_at"], ["batch"]),
            make("Concat", ["layers", "batch", "size"], ["shape"], axis=0),
            make("Expand", ["first", "shape"], ["h0"]),
            make("GRU", ["x", "W", "R", "", "", "h0"], ["Y", ""], hidden_size=4, **attributes),
            make("Squeeze", ["Y", "one"], ["y"]),
        ]
        arrays["layers_at"] = np.array([0])
        x = rng.standard_normal((6, 3, 3)).astype(np.float32)
        return from_onnx(graph_of(nodes, {"x": x}, {"y": (6, 3, 4)}, arrays)), x

    def test_modules_of_graphs_as_exporters_write_them(self, rng: np.random.Generator) -> None:
        first = rng.standard_normal((1, 1, 4)).astype(np.float32)
        graph, x = self.graph(rng, first)
        module = graph.module()
        assert_same({"h": module.params["initial_h_l0"]}, {"h": first[0, 0]})
        assert_close({"y": module(x)[0]}, {"y": graph.run(x)[0]}, 1e-6)
        graph, _ = self.graph(rng, np.zeros((1, 1, 4), np.float32))
        assert not graph.module().learned_state

    def test_rows_that_start_otherwise_are_refused(self, rng: np.random.Generator) -> None:
        graph, _ = self.graph(rng, rng.standard_normal((1, 3, 4)).astype(np.float32))
        with pytest.raises(ValueError, match="GRU 5, whose rows start from different states"):
            graph.module()
        graph, x = self.graph(rng, np.ones((1, 3, 4), np.float32))
        assert_close({"y": graph.module()(x)[0]}, {"y": graph.run(x)[0]}, 1e-6)

    def test_states_of_a_wrong_shape_are_refused(self, rng: np.random.Generator) -> None:
        graph, _ = self.graph(rng, np.ones(4, np.float32))
        graph._body.constants["size"] = np.array([5])
        graph._body.constants["first"] = np.ones((1, 1, 5), np.float32)
        with pytest.raises(ValueError, match=r"must be \(1, B, 4\), got \(1, 1, 5\)"):
            graph.module()


def test_torch_and_rtneural_have_no_such_thing(tmp_path: Any) -> None:
    for module in (GRU(3, 4, **ON), Chain(LSTM(3, 4, **ON), Linear(4, 2))):
        with pytest.raises(ValueError, match=r"torch\.nn cannot represent .* learned_state=True"):
            to_torch_state_dict(module)
        with pytest.raises(ValueError, match=r"RTNeural cannot represent .* learned_state=True"):
            to_rtneural(module, tmp_path / "model")
    assert not list(tmp_path.iterdir())
    state = to_torch_state_dict(GRU(3, 4))
    with pytest.raises(ValueError, match="missing 'initial_h_l0'"):
        from_torch(state, **ON)
