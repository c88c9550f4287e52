"""Layer classes of other packages that are read by name, and classes that `custom` names."""

import json

import numpy as np
import pytest
from rnncore import GRU, LSTM, Chain, Reversed, TimeDistributed
from rnncore.convert import from_keras
from rnncore.module import modules

from tests.support.compare import near

h5py = pytest.importorskip("h5py", reason="h5py reads the arrays of Keras models")

#: What rnnmorph's files say of their layer, as far as it counts.
TOLD = {
    "name": "behind",
    "units": 4,
    "activation": "tanh",
    "recurrent_activation": "sigmoid",
    "return_sequences": True,
    "go_backwards": True,
}
ARRAYS = {"kernel": (3, 16), "recurrent_kernel": (4, 16), "bias": (16,)}


def saved(tmp_path, layer):
    """The weights of a ReversedLSTM, and a model beside them that has this layer alone."""
    rng, arrays = np.random.default_rng(5), {}
    with h5py.File(tmp_path / "model.h5", "w") as file:
        file.attrs["layer_names"] = [b"behind"]
        group = file.create_group("behind")
        group.attrs["weight_names"] = [f"behind/{name}:0".encode() for name in ARRAYS]
        for name, shape in ARRAYS.items():
            arrays[name] = group[f"behind/{name}:0"] = rng.standard_normal(shape)
    told = {"class_name": "Sequential", "config": [layer], "keras_version": "2.2.4"}
    (tmp_path / "model.json").write_text(json.dumps(told))
    return tmp_path / "model.h5", arrays


def layer(kind="ReversedLSTM", module=None, **settings):
    entry = {"class_name": kind, "config": TOLD | settings}
    return entry | ({"module": module} if module else {})


def reversed_lstm(x, kernel, recurrent_kernel, bias):
    """rnnmorph's layer: an LSTM over the frames in reverse, its outputs reversed again."""
    h = c = np.zeros((len(x), 4))
    outputs = []
    for t in reversed(range(x.shape[1])):
        z = x[:, t] @ kernel + h @ recurrent_kernel + bias
        i, f, g, o = np.split(z, 4, axis=1)
        i, f, o = (1 / (1 + np.exp(-gate)) for gate in (i, f, o))
        c = f * c + i * np.tanh(g)
        h = o * np.tanh(c)
        outputs.append(h)
    return np.stack(outputs[::-1], axis=1)


class TestReversedLstm:
    @pytest.mark.parametrize("module", [None, "rnnmorph.lstm"])
    def test_its_outputs_stand_beside_the_frames_they_read(self, rng, tmp_path, module):
        path, arrays = saved(tmp_path, layer(module=module))
        checks = []
        model = from_keras(path, dtype="float64", verify=True, report=checks.append)
        assert isinstance(model, Reversed)
        assert checks[0].difference <= 1e-12 * checks[0].largest
        x = rng.standard_normal((2, 6, 3))
        near(model(x)[0], reversed_lstm(x, *arrays.values()), 1e-12)
        ragged, _ = model(x, lengths=[6, 4])
        near(ragged[1:, :4], reversed_lstm(x[1:, :4], *arrays.values()), 1e-12)

    @pytest.mark.parametrize("name", ["go_backwards", "return_sequences", "return_state"])
    def test_other_settings_are_refused(self, tmp_path, name):
        value = name == "return_state"
        path, _ = saved(tmp_path, layer(**{name: value}))
        what = f"'behind' with {name}={value}"
        with pytest.raises(ValueError, match=what):
            from_keras(path)

    def test_in_a_bidirectional_it_is_refused(self, tmp_path):
        both = {"name": "behind", "layer": layer(), "merge_mode": "concat"}
        path, _ = saved(tmp_path, {"class_name": "Bidirectional", "config": both})
        with pytest.raises(ValueError, match="Bidirectional 'behind' of ReversedLSTM"):
            from_keras(path)

    def test_in_a_time_distributed_it_is_the_same(self, rng, tmp_path):
        each = {"name": "behind", "layer": layer()}
        path, arrays = saved(tmp_path, {"class_name": "TimeDistributed", "config": each})
        model = from_keras(path, dtype="float64")
        assert any(isinstance(one, TimeDistributed) for one in modules(model))
        x = rng.standard_normal((2, 5, 6, 3))
        want = reversed_lstm(x.reshape(10, 6, 3), *arrays.values()).reshape(2, 5, 6, 4)
        near(model(x)[0] if model.recurrent else model(x), want, 1e-12)

    def test_another_package_has_one_of_its_own(self, tmp_path):
        path, _ = saved(tmp_path, layer(module="mine.layers"))
        with pytest.raises(ValueError, match=r"'behind' of the module 'mine\.layers'"):
            from_keras(path)


@pytest.mark.parametrize("module", [None, "rnnmorph.lstm", "mine.layers"])
def test_what_the_caller_makes_of_a_class_counts(tmp_path, module):
    path, _ = saved(tmp_path, layer(module=module))
    own = LSTM(3, 4, batch_first=True)
    assert from_keras(path, custom={"ReversedLSTM": lambda _: own}) is own
    path, _ = saved(tmp_path, layer("Mine", module))
    own = Chain(GRU(3, 4, batch_first=True))
    assert from_keras(path, custom={"Mine": lambda _: own}) is own
