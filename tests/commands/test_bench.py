"""Measuring: what the numbers mean, and the command `bench` on a tiny grid."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rnncore import cli
from rnncore.cli import main
from rnncore.commands import bench
from rnncore.commands.measure import machine
from rnncore.commands.measure.cases import GATES, Case, Shape
from rnncore.commands.measure.contest import Contestant, Entry, contest
from rnncore.commands.measure.engines import ENGINES, Unsupported, available
from rnncore.commands.measure.report import Record, Results, duration, table
from rnncore.commands.measure.timing import geometric_mean, ratio, time_call

from tests.support.compare import assert_close

Capture = pytest.CaptureFixture[str]
NUMPY = ["--against", "numpy", "numpy"]  # who is named twice takes part once
TINY = ["bench", "--cells", "gru", "--shapes", "3,2,4,5", "2..4,3,2,6", *NUMPY]
QUICK = ["--rounds", "2", "--seconds", "0.001"]
compiled = pytest.mark.skipif(not machine.compiler(), reason="needs a C++ compiler")


class TestBench:
    def test_prints_a_table_for_each_cell_and_mode(self, tmp_path: Path, capsys: Capture) -> None:
        saved, drawn = tmp_path / "times.json", tmp_path / "roofline.png"
        assert main([*TINY, *QUICK, "--json", str(saved), "--plot", str(drawn)]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split(" (")[0] for line in lines if line.startswith("**")] == [
            "**gru, inference**",
            "**gru, training**",
        ]
        assert sum(line.startswith("| 2..4,3,2,6") for line in lines) == 2
        assert any(line.startswith("- numpy: NumPy") for line in lines)
        results = Results.from_json(json.loads(saved.read_text()))
        assert len(results.records) == 4
        for record in results.records:
            assert record.times.keys() == results.about.keys() >= {"rnncore", "numpy"}
            assert all(len(times) == 2 and min(times) > 0 for times in record.times.values())
        assert drawn.read_bytes().startswith(b"\x89PNG")

    def test_does_without_a_compiler(
        self, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(machine, "compiler", lambda: None)
        assert main([*TINY, *QUICK, "--plot", str(tmp_path / "roofline.svg")]) == 0
        assert "roof" not in capsys.readouterr().out

    @pytest.mark.parametrize("weights", ["int8", "bfloat16"])
    def test_quantized_layers_stand_beside_their_own(
        self, weights: str, tmp_path: Path, capsys: Capture
    ) -> None:
        saved = tmp_path / "times.json"
        asked = ["--weights", weights, "--against", "numpy", "--json", str(saved)]
        assert main(["bench", *TINY[1:-3], *asked, *QUICK]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split(" (")[0] for line in lines if line.startswith("**")] == [
            "**gru, inference**"
        ]
        results = Results.from_json(json.loads(saved.read_text()))
        assert list(results.about) == [f"rnncore:{weights}", "rnncore", "numpy"]
        assert len(results.records) == 2

    def test_others_with_such_weights_are_asked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(bench, "available", lambda: list(ENGINES))
        asked = cli.parser().parse_args(["bench", "--weights", "int8"])
        assert list(map(str, bench.chosen_entries(asked))) == [
            "rnncore:int8",
            "rnncore",
            "torch:int8",
            "onnxruntime:int8",
        ]

    @pytest.mark.parametrize(
        ("options", "complaint"),
        [
            (["--weights", "int8", "--modes", "training"], "for inference only"),
            (["--weights", "int8", "--dtype", "float64"], "for --dtype float32, got float64"),
            (["--shapes", "3,2"], "a shape is T,B,I,H"),
            (["--shapes", "9..3,2,2,2"], "lengths"),
            (["--against", "cudnn"], "not here: cudnn"),
            (["--json", "nowhere/times.json"], "no folder nowhere"),
        ],
    )
    def test_says_what_is_wrong(self, options: list[str], complaint: str, capsys: Capture) -> None:
        try:
            status = main(["bench", *options])
        except SystemExit as leaving:
            status = leaving.code
        said = capsys.readouterr().err
        assert status == 2
        assert said.count("\n") == 1
        assert complaint in said


class TestEngines:
    @pytest.mark.parametrize("cell", GATES)
    @pytest.mark.parametrize("shape", ["4,3,2,5", "1..6,3,2,5"])
    def test_compute_the_same(self, cell: str, shape: str) -> None:
        case = Case(cell, "training", Shape.parse(shape), "float64")
        ours, numpys = (ENGINES[name]().prepare(case).results() for name in ("rnncore", "numpy"))
        assert numpys.keys() >= {"y", "dx", "dh", *case.params()}
        assert_close(ours, numpys, 1e-12)

    @pytest.mark.parametrize("cell", GATES)
    @pytest.mark.parametrize(
        ("engine", "weights"),
        [(name, kind) for name, engine in ENGINES.items() for kind in engine.weights],
    )
    def test_weights_of_fewer_bits(self, engine: str, weights: str, cell: str) -> None:
        if engine not in available():
            pytest.skip(f"{engine} is not installed")
        case = Case(cell, "inference", Shape(4, 3, 5, 8))
        want = ENGINES["rnncore"]().prepare(case).results()["y"]
        try:
            work = ENGINES[engine]().prepare(replace(case, weights=weights))
        except Unsupported as error:
            pytest.skip(str(error))
        got = work.results()["y"]
        if engine == "onnxruntime":
            from tests.support.onnx_graphs import sums_bytes_exactly  # needs the package onnx

            if not sums_bytes_exactly():
                pytest.skip("ONNX Runtime's sums of bytes saturate on this processor")
        assert 0 < np.abs(got - want).max() < 0.05

    def test_weights_that_an_engine_does_not_hold(self) -> None:
        for engine, mode in (("numpy", "inference"), ("rnncore", "training")):
            case = Case("gru", mode, Shape(2, 1, 1, 1), weights="int8")
            with pytest.raises(Unsupported, match="int8 weights"):
                ENGINES[engine]().prepare(case)

    @compiled
    def test_roof_is_above_the_reference(self) -> None:
        case = Case("lstm", "inference", Shape(16, 8, 64, 64))
        roof, numpys = (ENGINES[name]().prepare(case).time(0.01) for name in ("roof", "numpy"))
        assert 0 < roof < numpys


class TestContest:
    def test_complaints_arrive(self) -> None:
        with contest([Entry("rnncore")]) as (contestant,):
            with pytest.raises(RuntimeError, match="no case is ready"):
                contestant.time()
            with pytest.raises(RuntimeError, match="whole numbers, got '3'"):
                contestant.ask("case", "rnn", "inference", 3, "float32")
        with pytest.raises(RuntimeError, match="died"):
            Contestant(Entry("none"), ["true"])

    def test_cases_that_nobody_can_do_are_told_apart(self) -> None:
        answer = ["sh", "-c", "read line; echo ok me; read line; echo unsupported not this"]
        contestant = Contestant(Entry("other"), answer)
        with pytest.raises(Unsupported, match="not this"):
            contestant.load(Case("lstm", "training", Shape(1, 1, 1, 1)))
        contestant.close()

    @pytest.mark.parametrize(
        "text",
        ["rnncore", "rnncore:2:float64", "rnncore:int8", "onednn:v3", "numpy:Haswell", "torch:2"],
    )
    def test_entries_are_written_as_read(self, text: str) -> None:
        assert str(Entry.parse(text)) == text

    def test_entries_set_their_environment(self) -> None:
        environment = Entry.parse("rnncore:2:v2").environment()
        assert environment["RNNCORE_NUM_THREADS"] == "2"
        assert environment["RNNCORE_ISA"] == "v2"
        assert Entry.parse("numpy:Haswell").environment()["OPENBLAS_CORETYPE"] == "Haswell"


class TestCases:
    @pytest.mark.parametrize("text", ["128,32,256,300", "10..200,64,39,128"])
    def test_shapes_are_written_as_read(self, text: str) -> None:
        assert str(Shape.parse(text)) == text

    def test_ragged_lengths(self) -> None:
        shape = Shape.parse("10..200,64,128,128")
        assert shape.lengths is not None
        assert shape.lengths.min() >= 10
        assert shape.lengths.max() == 200
        assert shape.rows == shape.lengths.sum()

    def test_cases_are_written_as_read(self) -> None:
        for text in ("gru inference 1,2,3,4 float32", "lstm inference 1,2,3,4 float32 int8"):
            assert str(Case.parse(text)) == text

    def test_work(self) -> None:
        shape = Shape(steps=7, batch=3, inputs=2, hidden=5)
        inference, training = (Case("gru", mode, shape) for mode in ("inference", "training"))
        assert inference.flops == 7 * 3 * 2 * (15 * 2 + 15 * 5)
        assert training.flops == 3 * inference.flops
        assert inference.recurrent_bytes == 4 * 15 * 5
        assert Case("gru", "inference", Shape(1, 32, 8, 8)).intensity == 2 * 32 * 2 / 4

    def test_numbers_are_the_same_for_everybody(self) -> None:
        case = Case("rnn", "inference", Shape(2, 3, 4, 5), "float64")
        for ours, theirs in zip(case.arrays(), case.arrays(), strict=True):
            np.testing.assert_array_equal(ours, theirs)
            assert ours.dtype == np.float64


class TestNumbers:
    def test_ratio_is_the_median_of_the_rounds(self) -> None:
        assert ratio([2.0, 40.0, 3.0], [1.0, 10.0, 1.0]) == 3.0
        record = Record(Case("rnn", "inference", Shape(1, 1, 1, 1)), {"a": [1.0], "b": [4.0]})
        assert record.ratio("b", "a") == 4.0
        assert np.isnan(record.ratio("c", "a"))

    def test_geometric_mean(self) -> None:
        assert geometric_mean([0.5, 8.0]) == pytest.approx(2.0)
        assert np.isnan(geometric_mean([]))

    def test_a_call_is_timed_many_times(self) -> None:
        calls: list[int] = []
        assert 0 < time_call(lambda: calls.append(1), 0.001) < 0.001
        assert len(calls) > 10

    def test_a_long_call_is_timed_once(self) -> None:
        calls: list[int] = []

        def work() -> None:
            calls.append(sum(range(100_000)))

        time_call(work, 1e-6)
        assert len(calls) == 1

    @pytest.mark.parametrize(
        ("seconds", "shown"),
        [(2.5, "2.5 s"), (0.0123, "12.3 ms"), (3.5e-6, "3.5 us"), (2e-8, "0.02 us")],
    )
    def test_duration(self, seconds: float, shown: str) -> None:
        assert duration(seconds) == shown

    def test_table(self) -> None:
        assert table(["a", "bc"], [["xyz", "1"]]).splitlines() == [
            "| a   | bc |",
            "| --- | -: |",
            "| xyz |  1 |",
        ]
