"""RTNeural's JSON: what is written is read again, and checked in Keras's letters."""

import json

import numpy as np
import pytest
from rnncore import (
    GRU,
    LSTM,
    RNN,
    Chain,
    Dropout,
    Elementwise,
    Linear,
    ReLU,
    Sigmoid,
    Softmax,
    Tanh,
)
from rnncore.convert import from_rtneural, to_rtneural

from tests.support.compare import assert_close, assert_same

MODELS = {
    "lstm": lambda: LSTM(2, 3, seed=1),
    "lstm_no_bias": lambda: LSTM(2, 3, bias=False, seed=1),
    "gru_stack": lambda: GRU(2, 3, 3, seed=1),
    "one_unit": lambda: LSTM(1, 1, seed=1),
    "batch_first": lambda: GRU(2, 3, batch_first=True, seed=1),
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
    x = rng.standard_normal((6, 2, 1 if name == "one_unit" else 2)).astype(np.float32)
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
        (Chain(), "a model without layers"),
    ],
    ids=lambda value: value.replace(" ", "_") if isinstance(value, str) else "",
)
def test_what_it_lacks_is_refused_by_name(tmp_path, model, what):
    with pytest.raises(ValueError, match=f"RTNeural cannot represent {what}"):
        to_rtneural(model, tmp_path / "model.json")
    assert not (tmp_path / "model.json").exists()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"type": "conv1d"}, "layer 1: RTNeural's conv1d"),
        ({"activation": "relu"}, "layer 1: RTNeural's lstm with activation 'relu'"),
        ({"type": "dense", "activation": "cubic"}, "layer 1: RTNeural's activation 'cubic'"),
        ({"type": "prelu", "weights": [[[0.1, 0.2]]]}, "layer 1: RTNeural's prelu"),
        ({"weights": [[1.0]]}, "layer 1: lstm must have weights of"),
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


def test_the_width_of_the_input_is_checked(tmp_path):
    path = tmp_path / "model.json"
    to_rtneural(LSTM(2, 3), path)
    path.write_text(path.read_text().replace("[null, null, 2]", "[null, null, 5]"))
    with pytest.raises(ValueError, match="does not read the 5 numbers of in_shape"):
        from_rtneural(path)
