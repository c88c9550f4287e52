"""`rnncore convert IN OUT`: by suffix, through all formats, and how it fails."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from rnncore import GRU, RNN, Chain, Embedding, Linear, Residual, Tanh, TreeLSTM, load, quantize
from rnncore.arrays import save_arrays
from rnncore.cli import main
from rnncore.convert import (
    from_onnx,
    from_rtneural,
    from_torch,
    to_rtneural,
)
from rnncore.precision import dequantized

GOLDEN = Path(__file__).parents[1] / "golden" / "keras"


@pytest.fixture
def model():
    return Chain(Linear(2, 4, seed=1), Tanh(), GRU(4, 3, seed=2))


def test_around_all_formats(tmp_path, model, rng, capsys):
    pytest.importorskip("onnx", reason="the package onnx reads and writes the format")
    first, graph, weights, last = (
        tmp_path / f"m.{s}" for s in ("json", "onnx", "safetensors", "j.json")
    )
    to_rtneural(model, first)
    assert main(["convert", str(first), str(graph), "--verify"]) == 0
    assert main(["convert", str(graph), str(last)]) == 0
    assert main(["convert", str(first), str(weights)]) == 0
    said = capsys.readouterr().out
    assert said.count("largest difference") == 2
    assert f"{graph}: Linear, Tanh, GRU; 93 parameters\n" in said
    x = rng.standard_normal((5, 2, 2)).astype(np.float32)
    want = model(x)[0]
    again = from_torch(weights, ["0", Tanh(), "2"])
    got = from_onnx(graph).run(x, np.array([5, 5], np.int32), np.zeros((1, 2, 3), np.float32))[0]
    for y in (again(x)[0], got, from_rtneural(last)(x)[0]):
        np.testing.assert_allclose(y, want, atol=1e-6)


def test_of_torch_and_keras(tmp_path, model, capsys):
    pytest.importorskip("onnx", reason="the package onnx reads and writes the format")
    pytest.importorskip("h5py", reason="h5py reads the arrays of Keras models")
    model.save(tmp_path / "m.safetensors")
    out = str(tmp_path / "out.json")
    assert main(["convert", str(tmp_path / "m.safetensors"), out, "--prefix", "2"]) == 0
    assert capsys.readouterr().out == f"{out}: GRU; 81 parameters\n"
    out = str(tmp_path / "out.onnx")
    assert main(["convert", str(GOLDEN / "tagger.keras"), out]) == 0
    assert (
        "Embedding, LSTM, Dropout, LSTM, LayerNorm, Linear, Tanh, Softmax"
        in capsys.readouterr().out
    )


def test_of_state_dicts_and_amplifiers(tmp_path, capsys):
    state = {f"rnn.{n}": a for n, a in GRU(3, 4, seed=1).state_dict().items()}
    np.savez(tmp_path / "m.npz", **state)
    (tmp_path / "m.json").write_text(json.dumps({n: a.tolist() for n, a in state.items()}))
    for source in ("m.npz", "m.json"):
        out = str(tmp_path / "out.safetensors")
        asked = ["convert", str(tmp_path / source), out, "--prefix", "rnn", "--batch-first"]
        assert main(asked) == 0
        assert capsys.readouterr().out == f"{out}: GRU; 108 parameters\n"
        assert load(out).batch_first
    source = str(GOLDEN.parent / "amplifiers" / "plain.nam")
    assert main(["convert", source, str(tmp_path / "nam.json"), "--verify"]) == 0
    assert capsys.readouterr().out.count("largest difference") == 2
    source = str(GOLDEN.parent / "amplifiers" / "lstm.json")
    aida = str(tmp_path / "m.aidax.json")
    assert main(["convert", source, aida, "--verify"]) == 0
    assert capsys.readouterr().out.endswith(f"{aida}: Residual; 166 parameters\n")
    os.rename(aida, tmp_path / "m.aidax")
    assert main(["convert", str(tmp_path / "m.aidax"), out]) == 0
    assert type(load(out)) is Residual


def test_of_a_file_of_ours(tmp_path, rng, capsys):
    """What it says of the model counts: the shapes are those of torch's layers."""
    pytest.importorskip("onnx", reason="the package onnx reads and writes the format")
    model = Chain(RNN(2, 4, nonlinearity="relu", seed=1), GRU(4, 3, reset_after=False, seed=2))
    source, graph, back = (str(tmp_path / name) for name in ("m.safetensors", "m.onnx", "b.onnx"))
    model.save(source)
    assert main(["convert", source, graph]) == 0
    x, states = np.ones((5, 2, 2), "f"), [np.zeros((1, 2, n), "f") for n in (4, 3)]
    got = from_onnx(graph).run(x, np.array([5, 5], np.int32), *states)[0]
    np.testing.assert_allclose(got, model(x)[0], atol=1e-6)
    RNN(2, 4, nonlinearity="relu").save(source)
    assert main(["convert", source, back, "--batch-first"]) == 2
    assert "--batch-first is not for" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "out", "what"),
    [
        ("m.json", "m.h5", "OUT must end in .safetensors, .onnx, .json, got "),
        (
            "m.pb",
            "m.onnx",
            "IN must end in .safetensors, .keras, .onnx, .json, .aidax, .nam, .h5, ",
        ),
        ("none.pt", "m.onnx", "no such model file: "),
        ("m.json", "nowhere/m.onnx", "there is no folder"),
        ("none.json", "m.onnx", "No such file"),
    ],
)
def test_failures_are_one_line(tmp_path, model, capsys, source, out, what):
    to_rtneural(model, tmp_path / "m.json")
    assert main(["convert", str(tmp_path / source), str(tmp_path / out)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert what in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.json"]


class TestWeights:
    @pytest.mark.parametrize("weights", ["int8", "bfloat16"])
    def test_a_quantized_model_is_written(self, tmp_path, model, capsys, rng, weights):
        source, out, data = (tmp_path / n for n in ("m.json", "q.safetensors", "x.npz"))
        to_rtneural(model, source)
        x = rng.standard_normal((5, 2, 2))
        np.savez(data, x=x, other=[1])
        asked = ["convert", str(source), str(out), "--weights", weights]
        assert main([*asked, "--data", str(data)]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 3
        assert lines[0].startswith(f"{weights} weights: largest difference ")
        assert lines[0].endswith(" on random input")
        got, want = load(out)(x.astype("f"))[0], model(x.astype("f"))[0]
        assert f"difference {np.abs(got - want).max():.2g}, the largest output " in lines[1]
        assert lines[1].endswith(f"being {np.abs(want).max():.2g}, on {data}")
        np.testing.assert_array_equal(got, quantize(model, weights)(x.astype("f"))[0])
        # 8 + 36 + 27 numbers in 26 rows of matrices, and 22 biases
        size = {"int8": 71 + 4 * (22 + 22), "bfloat16": 2 * 71 + 4 * 22}[weights]
        assert lines[2] == f"{out}: Linear, Tanh, GRU; 93 parameters in {size} bytes, 372 before"

    def test_indices_and_models_without_random_input(self, tmp_path, capsys):
        source, out, data = (str(tmp_path / n) for n in ("m.safetensors", "q.safetensors", "x.npy"))
        Chain(Embedding(9, 4, seed=1), GRU(4, 3, seed=2)).save(source)
        np.save(data, np.arange(8).reshape(4, 2))
        assert main(["convert", source, out, "--weights", "int8", "--data", data]) == 0
        assert capsys.readouterr().out.count("largest difference") == 2
        TreeLSTM(4, 3, seed=1).save(source)
        assert main(["convert", source, out, "--weights", "int8"]) == 0
        assert "no random input is known for a TreeLSTM" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("options", "what"),
        [
            ("--data x.npy", "--data is for --weights"),
            ("--weights int8 --data none.npy", "none.npy: No such file"),
            ("--weights int8 --data text.npy", "text.npy"),
            ("--weights int8 --data objects.npy", "objects.npy: "),
            ("--weights int8 --data y.npz", "y.npz: there is no array x, only y"),
            ("--weights int8 --data x.npy", "x.npy: x must have"),
            ("--weights int8 --data words.npy", "words.npy: "),
        ],
    )
    def test_bad_data_is_one_line(self, tmp_path, model, capsys, monkeypatch, options, what):
        monkeypatch.chdir(tmp_path)
        to_rtneural(model, "m.json")
        np.save("x.npy", np.zeros((5, 2, 7)))
        np.save("words.npy", np.array(["a"]))
        np.save("objects.npy", np.array([{}]), allow_pickle=True)
        np.savez("y.npz", y=[1])
        Path("text.npy").write_text("none")
        assert main(["convert", "m.json", "q.safetensors", *options.split()]) == 2
        said = capsys.readouterr()
        assert said.err.count("\n") == 1
        assert what in said.err
        assert not Path("q.safetensors").exists()

    def test_other_formats_hold_the_same_weights_in_float32(self, tmp_path, model, capsys):
        source, out = str(tmp_path / "m.safetensors"), str(tmp_path / "m.json")
        quantize(model, "int8").save(source)
        assert main(["convert", source, out]) == 0
        want, got = dequantized(load(source)), from_rtneural(out)
        for name, array in want.params.items():
            np.testing.assert_allclose(got.params[name], array, rtol=1e-6, atol=1e-9)
        assert main(["convert", source, source, "--weights", "int8"]) == 2
        assert "are int8" in capsys.readouterr().err


def test_numbers_of_another_kind_are_a_line_too(tmp_path, capsys):
    source = tmp_path / "m.safetensors"
    save_arrays(source, {"weight_ih_l0": np.zeros((4, 2), "i4"), "weight_hh_l0": np.eye(4)})
    assert main(["convert", str(source), str(tmp_path / "m.json")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "m.safetensors: 'weight_ih_l0' must be an array of floats, got int32" in said
