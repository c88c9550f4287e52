"""Neural Amp Modeler's files: as its trainer writes them, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from rnncore import LSTM, Chain, Linear
from rnncore.convert import from_nam

from tests.convert.test_strangers import refused_cheaply
from tests.support.compare import assert_close

FOLDER = Path(__file__).parents[1] / "golden" / "amplifiers"
FILES = sorted(path.name for path in FOLDER.glob("*.nam"))


@pytest.fixture(scope="module")
def golden():
    with np.load(FOLDER.with_suffix(".npz")) as file:
        return dict(file)


@pytest.mark.parametrize("name", FILES)
def test_computes_what_the_trainer_does(golden, name):
    x, y, found = golden[f"{name}/x"], golden[f"{name}/y"], []
    for verify in (True, x, (x, y)):
        model = from_nam(FOLDER / name, verify=verify, report=found.append)
    assert [type(layer) for layer in model] == [LSTM, Linear]
    assert model[0].learned_state == (name != "plain.nam")
    assert all(check.difference <= 2e-5 * check.largest for check in found)
    assert_close({"y": model(x)[0]}, {"y": y}, 2e-5)
    turned = from_nam(FOLDER / name, batch_first=True)(x.swapaxes(0, 1))[0]
    assert_close({"y": turned.swapaxes(0, 1)}, {"y": y}, 2e-5)
    assert from_nam(FOLDER / name, dtype="float64")[0].dtype == np.float64


@pytest.mark.parametrize("name", FILES)
def test_streams_from_its_first_state(golden, name):
    model, x = from_nam(FOLDER / name), golden[f"{name}/x"]
    stream = model.stream(2)
    y = np.stack([stream.step(frame) for frame in x])
    np.testing.assert_array_equal(y, model(x)[0])


def test_a_file_of_ours_keeps_it(golden, tmp_path):
    import rnncore

    model = from_nam(FOLDER / "started.nam")
    model.save(tmp_path / "m.safetensors")
    again, x = rnncore.load(tmp_path / "m.safetensors"), golden["started.nam/x"]
    assert type(again) is Chain
    np.testing.assert_array_equal(again(x)[0], model(x)[0])


CONFIG = {"input_size": 1, "hidden_size": 5, "num_layers": 1}


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"architecture": "WaveNet"}, "rnncore cannot represent NAM's architecture 'WaveNet'"),
        ({"architecture": "y" * 10**6}, "rnncore cannot represent NAM's architecture 'yyy"),
        ({"weights": [1.0] * 9}, r"5 hidden units over 1 inputs have 156 weights, not shape \(9,"),
        ({"weights": [[1.0]] * 156}, r"have 156 weights, not shape \(156, 1\)"),
        ({"weights": [1.0] * 155 + ["1"]}, "weights: weights must be numbers, in rows of equal"),
        ({"weights": [1e300] * 156}, "numbers too large for float32"),
        ({"config": CONFIG | {"hidden_size": 10**9}}, "1000000000 hidden units .* have 40000000"),
        ({"config": CONFIG | {"num_layers": 10**9}}, "1000000000 layers of 5 hidden units"),
        (
            {"config": CONFIG | {"num_layers": 0}},
            "num_layers must be a number of at least 1, got 0",
        ),
        ({"config": CONFIG | {"input_size": True}}, "input_size must be .* got True"),
        ({"config": CONFIG | {"input_size": 1.0}}, r"input_size must be .* got 1\.0"),
        ({"config": {}}, "KeyError"),
        ({"config": 5}, r"m\.nam cannot be read as a \.nam file"),
    ],
)
def test_what_cannot_be_read(tmp_path, change, what):
    path = tmp_path / "m.nam"
    model = json.loads((FOLDER / "plain.nam").read_text())
    path.write_text(json.dumps(model | change))
    refused_cheaply(lambda: from_nam(path), what, 1 << 24)


@pytest.mark.parametrize("text", ["", "[]", "5", "{}", "\x00", "[" * 10**5])
def test_a_file_that_is_none(tmp_path, text):
    (tmp_path / "m.nam").write_text(text)
    with pytest.raises(ValueError, match=r"m\.nam cannot be read as a \.nam file"):
        from_nam(tmp_path / "m.nam")
    with pytest.raises(FileNotFoundError):
        from_nam(tmp_path / "none.nam")
    with pytest.raises(ValueError, match="is not a file"):
        from_nam(tmp_path)
