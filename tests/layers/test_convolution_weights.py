"""Weights of convolutions: how they start, who may write to them, copies, files, `quantize`."""

import copy
import pickle

import numpy as np
import pytest
import rnncore
from rnncore import Chain, Conv1d, Conv2d, ConvTranspose1d, Linear

from tests.support.compare import assert_same, near
from tests.support.windows import results


class TestWeights:
    @pytest.mark.parametrize("make", [Conv1d, Conv2d, ConvTranspose1d])
    def test_start_as_torchs_do(self, make):
        params = make(40, 80, 5, groups=2, seed=3).params
        inputs = (40 if make is ConvTranspose1d else 20) * (25 if make is Conv2d else 5)
        for name, param in params.items():
            bound = 1 / np.sqrt(inputs)
            assert bound * (0.9 if name == "bias" else 0.99) < np.abs(param).max() <= bound
            assert abs(param.mean()) < bound / 4
        assert make(4, 8, 5, bias=False).params.keys() == {"weight"}

    def test_have_torchs_shapes(self):
        assert Conv1d(4, 6, 3, groups=2).params["weight"].shape == (6, 2, 3)
        assert Conv2d(4, 6, (3, 2), groups=2).params["weight"].shape == (6, 2, 3, 2)
        assert ConvTranspose1d(4, 6, 3, groups=2).params["weight"].shape == (4, 3, 3)

    def test_seeds(self):
        one, same, other = (Conv1d(3, 4, 2, seed=seed).params["weight"] for seed in (1, 1, 2))
        np.testing.assert_array_equal(one, same)
        assert (one != other).all()
        wide = Conv1d(3, 4, 2, seed=1, dtype="float64").params["weight"]
        np.testing.assert_array_equal(one, wide.astype("f"))

    @pytest.mark.parametrize("make", [Conv1d, Conv2d, ConvTranspose1d])
    def test_written_to_count(self, make, rng):
        layer, x = make(3, 4, 2, seed=1), rng.standard_normal((5, 4, 3)).astype("f")
        y = layer(x)
        held = layer.params["weight"]
        for change in (lambda: held.fill(0), lambda: layer.params["bias"].fill(2)):
            change()
            again = make(3, 4, 2, seed=9)
            again.load_state_dict(layer.params)
            np.testing.assert_array_equal(layer(x), again(x))
            assert (layer(x) != y).any()
        np.testing.assert_array_equal(layer(x), np.full_like(y, 2))

    def test_written_to_count_for_the_gradient(self):
        """As of `Linear`: a pullback takes the weights as they then are."""
        layer, x = Conv1d(1, 1, 1, seed=1), np.ones((2, 1, 1), "f")
        _, pullback = layer.vjp(x)
        layer.params["weight"].fill(3)
        np.testing.assert_array_equal(pullback(x), 3 * x)

    @pytest.mark.filterwarnings("ignore:Setting the dtype")
    @pytest.mark.parametrize("make", [Conv1d, Conv2d, ConvTranspose1d])
    @pytest.mark.parametrize("name", ["weight", "bias"])
    @pytest.mark.parametrize("change", ["resize", "retype"])
    def test_changed_in_place_are_refused(self, make, name, change):
        layer, x = make(3, 4, 2, seed=1), np.ones((5, 4, 3), "f")
        y, pullback = layer.vjp(x)
        array = layer.params[name]
        if change == "resize":
            array.resize((1, 1), refcheck=False)
        else:
            array.dtype = np.int32
        if make is ConvTranspose1d and name == "bias":  # read where it lies, by the call alone
            with pytest.raises((ValueError, TypeError), match="bias must"):
                layer(x)
            return
        for call in (lambda: layer(x), lambda: layer.vjp(x), lambda: pullback(y)):
            with pytest.raises(ValueError, match=f"{name} must stay the array that it was"):
                call()

    @pytest.mark.parametrize("make", [Conv1d, Conv2d, ConvTranspose1d])
    def test_gradients_changed_in_place_are_refused(self, make):
        layer, x = make(3, 4, 2, seed=1), np.ones((5, 4, 3), "f")
        y, pullback = layer.vjp(x)
        layer.grads["weight"].resize((1, 1), refcheck=False)
        with pytest.raises(ValueError, match=r"weight must have shape \(.*\), got \(1, 1\)"):
            pullback(y)

    @pytest.mark.parametrize("again", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
    @pytest.mark.parametrize("make", [Conv1d, Conv2d, ConvTranspose1d])
    def test_copies_are_apart(self, make, again, rng):
        layer, x = make(3, 4, 2, seed=1), rng.standard_normal((5, 4, 3)).astype("f")
        want = results(layer, x)
        twin = again(layer)
        assert_same(results(twin, x), want)
        twin.params["weight"].fill(0)
        assert_same({"y": layer(x)}, {"y": want["y"]})
        assert (twin(x) == twin.params["bias"]).all()

    @pytest.mark.parametrize("make", [Conv1d, Conv2d, ConvTranspose1d])
    def test_files(self, make, tmp_path, rng):
        layer, x = make(3, 4, 2, seed=1), rng.standard_normal((5, 4, 3)).astype("f")
        layer.save(tmp_path / "layer")
        assert_same({"y": rnncore.load(tmp_path / "layer")(x)}, {"y": layer(x)})
        other = make(3, 4, 2, seed=2)
        other.load(tmp_path / "layer")
        assert_same({"y": other(x)}, {"y": layer(x)})

    def test_are_left_as_they_are_by_quantize(self, rng):
        conv, linear = Conv1d(3, 40, 3, padding="same", seed=1), Linear(40, 2, seed=2)
        model, x = Chain(conv, linear), rng.standard_normal((9, 2, 3)).astype("f")
        small = rnncore.quantize(model)
        assert_same({"y": small[0](x)}, {"y": conv(x)})
        assert small[0].params["weight"].dtype == np.float32
        assert small[1].weight_type == "int8"
        near(small(x), model(x), 0.02)
        small[0].params["weight"].fill(0)
        assert conv.params["weight"].any()
