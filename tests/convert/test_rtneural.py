"""RTNeural's JSON: what is written is read again, and checked in Keras's letters."""

import json
from pathlib import Path

import numpy as np
import pytest
from rnncore import (
    GRU,
    LSTM,
    RNN,
    BatchNorm,
    Chain,
    Conv1d,
    Dropout,
    Elementwise,
    Linear,
    PReLU,
    ReLU,
    Residual,
    Sigmoid,
    Softmax,
    Tanh,
)
from rnncore.convert import from_rtneural, to_rtneural

from tests.support.compare import assert_close, assert_same

GOLDEN = Path(__file__).parents[1] / "golden" / "rtneural"

MODELS = {
    "lstm": lambda: LSTM(2, 3, seed=1),
    "lstm_no_bias": lambda: LSTM(2, 3, bias=False, seed=1),
    "gru_stack": lambda: GRU(2, 3, 3, seed=1),
    "one_unit": lambda: LSTM(1, 1, seed=1),
    "batch_first": lambda: GRU(2, 3, batch_first=True, seed=1),
    "convolution": lambda: Chain(
        Conv1d(2, 4, 3, padding="causal", dilation=2, groups=2, seed=1),
        Tanh(),
        BatchNorm(4, affine=False),
        PReLU(4),
        Conv1d(4, 3, 1, padding="causal", bias=False, seed=2),
        PReLU(),
        BatchNorm(3, 1e-2),
    ),
    "skip": lambda: Residual(Chain(LSTM(1, 3, seed=1), Linear(3, 1, seed=2))),
    "dense": lambda: Linear(2, 4, bias=False, seed=1),
    "amplifier": lambda: Chain(
        Linear(2, 4, seed=1),
        Tanh(),
        Chain(LSTM(4, 5, seed=2), Dropout(0.5)),
        Sigmoid(),
        GRU(5, 3, seed=3),
        Elementwise(("leaky_relu", 0.1)),
        Linear(3, 2, seed=4),
        ReLU(),
        Elementwise("elu"),
        Softmax(),
    ),
}


def outputs(model, x):
    y = model(x)
    return y[0] if isinstance(y, tuple) else y


@pytest.mark.parametrize("name", MODELS)
def test_comes_back_and_agrees_with_the_reference(tmp_path, rng, name):
    path, found = tmp_path / "model.json", []
    model = MODELS[name]()
    to_rtneural(model, path, verify=True, report=found.append)
    again = from_rtneural(path, verify=True, report=found.append)
    assert [check.reference for check in found] == ["the NumPy reference"] * 2
    x = rng.standard_normal((6, 2, 1 if name in ("one_unit", "skip") else 2)).astype("f")
    y = outputs(again, x.swapaxes(0, 1) if name == "batch_first" else x)
    y = y.swapaxes(0, 1) if name == "batch_first" else y
    assert_close({"y": y}, {"y": outputs(model, x)}, 1e-6)


def test_the_layers_as_rtneural_reads_them(tmp_path):
    model = MODELS["amplifier"]()
    to_rtneural(model, tmp_path / "model.json")
    written = json.loads((tmp_path / "model.json").read_text())
    assert written["in_shape"] == [None, None, 2]
    found = [(e["type"], e["activation"], e["shape"][-1]) for e in written["layers"]]
    assert found == [
        ("dense", "tanh", 4),
        ("lstm", "tanh", 5),
        ("activation", "sigmoid", 5),
        ("gru", "tanh", 3),
        ("prelu", "", 3),
        ("dense", "relu", 2),
        ("activation", "elu", 2),
        ("activation", "softmax", 2),
    ]
    shapes = [[np.shape(array) for array in e["weights"]] for e in written["layers"][1:4:2]]
    assert shapes == [[(4, 20), (5, 20), (20,)], [(5, 9), (3, 9), (2, 9)]]
    lstm = model[2][0]
    kernel = np.float32(written["layers"][1]["weights"][0])
    assert_same({"kernel": kernel}, {"kernel": lstm.params["weight_ih_l0"].T.copy()})


@pytest.mark.parametrize(
    ("model", "what"),
    [
        (RNN(2, 3), "RNN"),
        (LSTM(2, 3, bidirectional=True), "LSTM with bidirectional=True"),
        (LSTM(2, 3, peephole=True), "LSTM with peephole=True"),
        (GRU(2, 3, reset_after=False), "GRU with reset_after=False"),
        (Chain(Linear(2, 3), Elementwise("softsign")), r"Elementwise\('softsign'\)"),
        (Chain(Linear(2, 3), Elementwise(("elu", 0.5))), r"Elementwise\(\('elu', 0.5\)\)"),
        (Chain(Linear(2, 3), Softmax(0)), r"Softmax\(0\)"),
        (Chain(Tanh(), Linear(2, 3)), "a model that begins with an activation"),
        (Chain(PReLU(), Linear(2, 3)), "a model that begins with an activation"),
        (Chain(Elementwise("leaky_relu"), Linear(2, 3)), "a model that begins with an activation"),
        (Residual(GRU(2, 2)), "a Residual of 2 numbers"),
        (Chain(Residual(GRU(1, 1))), "Residual"),
        (Conv1d(2, 3, 2), "a Conv1d that is not causal without a stride: before=0"),
        (Conv1d(2, 3, 2, 2, "causal"), "a Conv1d that is not .*: stride=2"),
        (Conv1d(2, 3, 2, padding=(1, 0), padding_mode="replicate"), ".*: mode='replicate'"),
        (Chain(), "a model without layers"),
    ],
    ids=lambda value: value.replace(" ", "_") if isinstance(value, str) else "",
)
def test_what_it_lacks_is_refused_by_name(tmp_path, model, what):
    with pytest.raises(ValueError, match=f"RTNeural cannot represent {what}"):
        to_rtneural(model, tmp_path / "model.json")
    assert not (tmp_path / "model.json").exists()


B = [0.5, 0.5, 0.5]
K = [[1.0] * 2] * 3
CONV = {"type": "conv1d", "activation": "", "shape": [None, None, 2]}
CONV |= {"weights": [[K, K], B[:2]], "kernel_size": [2], "dilation": [1]}
NORM = {"type": "batchnorm", "shape": [None, None, 3], "epsilon": 1e-3, "weights": [B] * 4}


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"type": "conv2d"}, "layer 1: RTNeural's conv2d"),
        ({"type": ["lstm"]}, r"layer 1: RTNeural's \['lstm'\]"),
        ({"activation": "relu"}, "layer 1: RTNeural's lstm with activation 'relu'"),
        ({"type": "activation", "activation": "cubic"}, "layer 1: RTNeural's activation 'cubic'"),
        ({"weights": [[1.0]]}, r"layer 1: lstm must have weights of \(2, 2, 1\) axes, got \(1,\)"),
        ({"type": "prelu", "weights": [[[0.1, 0.2]]]}, "1: its weights read 2 numbers, layer 0 s"),
        ({"type": "prelu", "weights": [[[0.1], [0.2]]]}, r"have one row of slopes, got \(2, 1\)"),
        ({"type": "prelu", "weights": [[[]]]}, r"must have one row of slopes, got \(1, 0\)"),
        ({"type": "conv1d", "weights": [K, B]}, "conv1d must have weights of .* axes, got"),
        (CONV | {"kernel_size": [4]}, r"kernel_size is \[4\], its weights have 2 taps"),
        (CONV | {"strides": [2]}, r"RTNeural's conv1d with strides=\[2\]"),
        (CONV | {"dilation": [0]}, "dilation must be a number, got 0"),
        (CONV | {"dilation": [1.5]}, "dilation must be a number, got 1.5"),
        (CONV | {"groups": 2}, "its weights read 6 numbers, layer 0 says 3"),
        (NORM | {"weights": [B, B, B]}, "batchnorm must have weights of .* axes, got"),
        (NORM | {"epsilon": "small"}, "could not convert string to float"),
        ({k: v for k, v in NORM.items() if k != "epsilon"}, "KeyError"),
    ],
)
def test_what_we_lack_is_refused_by_name(tmp_path, change, what):
    path = tmp_path / "model.json"
    to_rtneural(Chain(Linear(2, 3), LSTM(3, 2)), path)
    model = json.loads(path.read_text())
    model["layers"][1] |= change
    path.write_text(json.dumps(model))
    with pytest.raises(ValueError, match=what):
        from_rtneural(path)


_NUMBER = '{"in_shape": [1], "layers": [{"type": "dense", "weights": [0.5, 0.5]}]}'
_NARROW = [[[0.0] * 3], [[0.0] * 3], [[0.0] * 3]]  # a bias of one row


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", '{"in_shape": [1], "layers": [{}]}', "\x00", "[" * 100_000, _NUMBER),
        '{"in_shape": [1e999], "layers": []}',
        json.dumps({"in_shape": [1], "layers": [{"type": "gru", "weights": _NARROW}]}),
    ],
    ids=range(9),
)
def test_a_file_that_is_none_is_named(tmp_path, text):
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(ValueError, match=r"model\.json cannot be read as an RTNeural model"):
        from_rtneural(tmp_path / "model.json")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (
            lambda m: m.update(in_shape=[None, None, 5]),
            "layer 0: .* read 2 numbers, in_shape says 5",
        ),
        (lambda m: m["layers"][0].update(shape=[None, 4]), "layer 0: its shape says 4 .* gives 3"),
        (lambda m: m["layers"][1].update(shape=[None, 3]), "layer 1: its shape says 3 .* gives 4"),
        (lambda m: m["layers"][2].update(shape=[None, 5]), "layer 2: its shape says 5 .* gives 4"),
        (lambda m: m["layers"].pop(0), "layer 0: its weights read 3 numbers, in_shape says 2"),
        (lambda m: m["layers"].pop(1), "layer 1: its shape says 4 numbers, it gives 3"),
        (lambda m: m.update(in_skip=1), "in_skip=1 but for one number in and one out"),
        (lambda m: m.update(in_skip=[2]), r"in_skip=\[2\] but for"),
        (lambda m: m.update(out_gain=-3.5), r"cannot represent a model with out_gain=-3\.5"),
        (lambda m: m.update(in_gain=[1]), r"cannot represent a model with in_gain=\[1\]"),
    ],
)
def test_widths_that_contradict_the_weights(tmp_path, change, what):
    path = tmp_path / "model.json"
    to_rtneural(Chain(LSTM(2, 3), Linear(3, 4), Elementwise("elu"), Tanh(), GRU(4, 3)), path)
    model = json.loads(path.read_text())
    assert [entry["type"] for entry in model["layers"]] == ["lstm", "dense", "activation", "gru"]
    change(model)
    path.write_text(json.dumps(model))
    with pytest.raises(ValueError, match=rf"model\.json.*{what}"):
        from_rtneural(path)


def test_shapes_need_not_be_said(tmp_path):
    path = tmp_path / "model.json"
    to_rtneural(LSTM(2, 3, seed=1), path)
    model = json.loads(path.read_text())
    del model["layers"][0]["shape"]
    path.write_text(json.dumps(model | {"out_gain": 0.0, "in_gain": None}))
    assert from_rtneural(path).hidden_size == 3


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN.with_suffix(".npz")) as file:
        return dict(file)


class TestGolden:
    """What torch computes, written in RTNeural's layout by another program."""

    @pytest.mark.parametrize("name", sorted(path.name for path in GOLDEN.glob("*.json")))
    def test_computes_what_torch_does(self, golden, name, tmp_path):
        x, y, found = golden[f"{name}/x"], golden[f"{name}/y"], []
        for verify in (True, x, (x, y)):
            model = from_rtneural(GOLDEN / name, verify=verify, report=found.append)
        assert all(check.difference <= 2e-5 * check.largest for check in found)
        assert_close({"y": outputs(model, x)}, {"y": y}, 2e-5)
        to_rtneural(model, tmp_path / "again.json", verify=True, report=found.append)
        again = from_rtneural(tmp_path / "again.json")
        assert_same({"y": outputs(again, x)}, {"y": outputs(model, x)})

    @pytest.mark.parametrize("name", ["convolutions.json", "mixed.json"])
    def test_streams(self, golden, name):
        model, x = from_rtneural(GOLDEN / name), golden[f"{name}/x"]
        stream = model.stream(x.shape[1])
        y = np.concatenate([stream.run(x[:5]), *(stream.step(frame)[None] for frame in x[5:])])
        assert_same({"y": y}, {"y": outputs(model, x)})


def test_slopes_of_their_own_are_a_prelu(tmp_path):
    model = Chain(Linear(2, 3, seed=1), PReLU(3), Linear(3, 2, seed=2), PReLU(1, -0.5))
    model[1].params["weight"] = [0.1, 0.2, -0.3]
    to_rtneural(model, tmp_path / "m.json")
    again = from_rtneural(tmp_path / "m.json")
    assert [type(layer) for layer in again] == [Linear, PReLU, Linear, PReLU]
    assert_same({"weight": again[1].params["weight"]}, {"weight": model[1].params["weight"]})
    assert again[3].num_parameters == 2
