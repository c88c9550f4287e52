"""GuitarML's files: as their trainer writes them, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import rnncore
from rnncore import Chain, Parallel, Residual
from rnncore.convert import from_guitarml

from tests.convert.test_strangers import refused_cheaply
from tests.support.compare import assert_close

FOLDER = Path(__file__).parents[1] / "golden" / "amplifiers"
FILES = {
    "lstm.json": Residual,
    "conditioned.json": Parallel,
    "gru_no_skip.json": Chain,
    "rnn_no_bias.json": Residual,
    "stereo.json": Residual,
    "spread.json": Parallel,
}


@pytest.fixture(scope="module")
def golden():
    with np.load(FOLDER.with_suffix(".npz")) as file:
        return dict(file)


def test_every_golden_file_is_tested():
    assert sorted(path.name for path in FOLDER.glob("*.json")) == sorted(FILES)


@pytest.mark.parametrize("name", FILES)
class TestGolden:
    def test_computes_what_the_trainer_does(self, golden, name):
        x, y, found = golden[f"{name}/x"], golden[f"{name}/y"], []
        for verify in (True, x, (x, y)):
            model = from_guitarml(FOLDER / name, verify=verify, report=found.append)
        assert type(model) is FILES[name]
        assert all(check.difference <= 2e-5 * check.largest for check in found)
        assert_close({"y": model(x)[0]}, {"y": y}, 2e-5)
        turned = from_guitarml(FOLDER / name, batch_first=True)(x.swapaxes(0, 1))[0]
        assert_close({"y": turned.swapaxes(0, 1)}, {"y": y}, 2e-5)

    def test_streams_and_is_saved(self, golden, name, tmp_path):
        model, x = from_guitarml(FOLDER / name), golden[f"{name}/x"]
        stream = model.stream(2)
        y = np.stack([stream.step(frame) for frame in x])
        np.testing.assert_array_equal(y, model(x)[0])
        model.save(tmp_path / "m.safetensors")
        np.testing.assert_array_equal(rnncore.load(tmp_path / "m.safetensors")(x)[0], y)


def test_a_wrong_skip_is_noticed(golden, tmp_path):
    """What verify= compares with adds the dry signal by itself."""
    x, y = (golden[f"lstm.json/{name}"] for name in "xy")
    model = json.loads((FOLDER / "lstm.json").read_text())
    model["model_data"]["skip"] = 0
    (tmp_path / "m.json").write_text(json.dumps(model))
    with pytest.raises(ValueError, match="does not agree"):
        from_guitarml(tmp_path / "m.json", verify=(x, y), report=lambda check: None)
    assert_close({"y": from_guitarml(tmp_path / "m.json")(x)[0]}, {"y": y - x}, 2e-5)


def changed(**said):
    def change(model):
        model["model_data"] |= said

    return change


def without(holder, name):
    return lambda model: model[holder].pop(name)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (changed(model="GatedConvNet"), "rnncore cannot represent the model 'GatedConvNet' of"),
        (changed(unit_type="MGU"), "rnncore cannot represent the unit_type 'MGU' of GuitarML"),
        (changed(unit_type=["LSTM"]), r"the unit_type \['LSTM'\] of"),
        (changed(unit_type="GRU"), "20 rows for 5 hidden units: no gru"),
        (changed(hidden_size=6), "hidden_size is 6, but that of the weights is 5"),
        (changed(input_size=2), "input_size is 2, but that of the weights is 1"),
        (changed(num_layers=2), "num_layers is 2, but that of the weights is 1"),
        (changed(output_size=2), "output_size is 2, but that of the weights is 1"),
        (changed(output_size=None), "output_size must be a whole number of at least 0, got None"),
        (changed(skip=2), "2 of 1 inputs cannot be added to 1 outputs"),
        (changed(skip=-1), "skip must be a whole number of at least 0, got -1"),
        (changed(skip=True), "skip must be a whole number of at least 0, got True"),
        (without("model_data", "skip"), "KeyError"),
        (without("state_dict", "lin.weight"), r"the layer of lin\.bias"),
        (without("state_dict", "rec.bias_hh_l0"), "missing 'bias_hh_l0'"),
        (lambda model: model["state_dict"].clear(), "no entry begins with"),
        (lambda model: model.pop("model_data"), "KeyError"),
        (lambda model: model.update(state_dict=5), r"m\.json cannot be read as a GuitarML model"),
    ],
)
def test_what_cannot_be_read(tmp_path, change, what):
    path = tmp_path / "m.json"
    model = json.loads((FOLDER / "lstm.json").read_text())
    change(model)
    path.write_text(json.dumps(model))
    refused_cheaply(lambda: from_guitarml(path), what, 1 << 24)


def test_widths_that_do_not_fit_one_another(tmp_path):
    model = json.loads((FOLDER / "lstm.json").read_text())
    model["state_dict"] |= {"lin.weight": [[1.0, 2.0]]}
    (tmp_path / "m.json").write_text(json.dumps(model))
    with pytest.raises(ValueError, match=r"m\.json .*one gives 5 features, the next takes 2"):
        from_guitarml(tmp_path / "m.json")


@pytest.mark.parametrize("text", ["", "[]", "5", "{}", "\x00", "[" * 10**5])
def test_a_file_that_is_none(tmp_path, text):
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(ValueError, match=r"m\.json cannot be read as a GuitarML model"):
        from_guitarml(tmp_path / "m.json")
    with pytest.raises(FileNotFoundError):
        from_guitarml(tmp_path / "none.json")
