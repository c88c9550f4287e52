"""Rounded weights in files, state dicts, pickles and copies; files that are not what they say."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rnncore
from rnncore import GRU, LSTM, Chain, Embedding, Linear, Module, Tanh, TiedLinear, quantize
from rnncore.files import load_arrays, save_arrays
from rnncore.module import KEY
from rnncore.parameters import load_into

from tests.support.models import MODELS
from tests.support.quantized import assert_same_bits, dtypes_in, each_model, each_type

X = np.random.default_rng(0).standard_normal((5, 2, 3)).astype("f4")
IDS = np.array([[0, 2], [6, 1], [3, 3]])


def model(seed: int = 0) -> Chain:
    return Chain(
        LSTM(3, 4, seed=seed), Chain(Tanh(), Linear(4, 4, seed=seed + 1)), GRU(4, 2, seed=seed)
    )


def tied(seed: int = 0) -> Chain:
    embedding = Embedding(7, 4, seed=seed)
    return Chain(embedding, LSTM(4, 4, peephole=True, seed=seed), TiedLinear(embedding))


def rewritten(path: Path, change: Any) -> None:
    """Save a file of ours again, with something else in it."""
    arrays, metadata = load_arrays(path)
    halves = [name for name, dtype in dtypes_in(path).items() if dtype == "BF16"]
    change(arrays, metadata)
    for name in halves:
        if name in arrays:
            arrays[name] = (arrays[name].view(np.uint32) >> 16).astype(np.uint16)
    save_arrays(path, arrays, metadata, bfloat16=[name for name in halves if name in arrays])


def assert_locked(module: Module) -> None:
    for name, array in module.params.items():
        assert not array.flags.writeable, name


class TestTheSameBits:
    @each_type
    @pytest.mark.parametrize(("made", "call"), each_model(MODELS, held=True))
    def test_of_every_module(self, made: Module, call: Any, weights: Any, tmp_path: Path) -> None:
        held = quantize(made, weights)
        want, params = call(held), list(held.params.values())
        path = tmp_path / "model"
        held.save(path)
        for again in (
            rnncore.load(path),
            rnncore.load(path, seed=3),
            copy.deepcopy(held),
            pickle.loads(pickle.dumps(held)),
        ):
            assert type(again) is type(held)
            assert list(again.params) == list(held.params)
            assert_same_bits(list(again.params.values()), params)
            assert_same_bits(call(again), want)
            with pytest.raises(TypeError, match="no gradients"):
                _ = again.grads
            again.save(tmp_path / "again")
            assert (tmp_path / "again").read_bytes() == path.read_bytes()

    @each_type
    def test_loaded_into_another(self, weights: Any, tmp_path: Path) -> None:
        first, second = quantize(model(), weights), quantize(model(7), weights)
        want = first(X)
        first.save(tmp_path / "model")
        second.load(tmp_path / "model")
        assert_same_bits(second(X), want)
        third = quantize(model(8), weights)
        stream, before = third.stream(2), third(X)[0]
        third.load_state_dict(first.state_dict())
        assert_same_bits(third(X), want)
        for changed in (second, third):
            assert_locked(changed)
            assert_same_bits([changed.stream(2).run(X)], [want[0]])
        assert_same_bits([stream.run(X)], [before])  # it took the weights of its time

    @each_type
    def test_a_tied_table(self, weights: Any, tmp_path: Path) -> None:
        first, second = quantize(tied(), weights), quantize(tied(7), weights)
        want = first(IDS)
        first.save(tmp_path / "model")
        for again in (
            rnncore.load(tmp_path / "model"),
            pickle.loads(pickle.dumps(first)),
            copy.deepcopy(first),
        ):
            assert_same_bits(again(IDS), want)
            assert_locked(again)
            assert again.layers[2].embedding is again.layers[0]
        second.load(tmp_path / "model")
        assert_same_bits(second(IDS), want)
        assert "2.weight" not in dtypes_in(tmp_path / "model")

    @each_type
    def test_what_is_left_in_float32(self, weights: Any, tmp_path: Path) -> None:
        held = quantize(model(), weights, exclude="1")
        held.save(tmp_path / "model")
        again = rnncore.load(tmp_path / "model")
        assert_same_bits(again(X), held(X))
        assert [p.weight_type for p in again.layers] == [weights, None, weights]
        assert again.layers[1].layers[1].weight_type is None
        again.layers[1].params["1.weight"] *= 2  # which is watched, as before
        assert not np.array_equal(again(X)[0], held(X)[0])

    def test_two_types(self, tmp_path: Path) -> None:
        held = quantize(quantize(model(), "int8", ["1", "2"]), "bfloat16", "0")
        held.save(tmp_path / "model")
        again = rnncore.load(tmp_path / "model")
        assert_same_bits(again(X), held(X))
        assert {"I8", "BF16", "F32"} == set(dtypes_in(tmp_path / "model").values())


class TestWhatIsInAFile:
    def test_int8_with_scales(self, tmp_path: Path) -> None:
        quantize(tied()).save(tmp_path / "model", {"note": 1})
        assert dtypes_in(tmp_path / "model") == {
            "0.weight": "I8",
            "0.weight_scale": "F32",
            "1.weight_ih_l0": "I8",
            "1.weight_ih_l0_scale": "F32",
            "1.weight_hh_l0": "I8",
            "1.weight_hh_l0_scale": "F32",
            "1.bias_ih_l0": "F32",
            "1.bias_hh_l0": "F32",
            "1.weight_ch_l0": "F32",
            "2.bias": "F32",
        }
        arrays, metadata = load_arrays(tmp_path / "model")
        assert arrays["0.weight_scale"].shape == (7,)
        assert metadata["note"] == 1
        assert metadata[KEY]["weights"] == {"0": "int8", "1": "int8"}

    def test_bfloat16(self, tmp_path: Path) -> None:
        held = quantize(tied(), "bfloat16")
        held.save(tmp_path / "model")
        found = dtypes_in(tmp_path / "model")
        halves = {"0.weight", "1.weight_ih_l0", "1.weight_hh_l0"}
        assert {name for name, dtype in found.items() if dtype == "BF16"} == halves
        assert {dtype for name, dtype in found.items() if name not in halves} == {"F32"}
        arrays, _ = load_arrays(tmp_path / "model")  # as anyone reads it
        assert_same_bits([arrays["0.weight"]], [held.layers[0].weights()])
        safe = pytest.importorskip("safetensors")
        with safe.safe_open(tmp_path / "model", "np") as file:
            assert set(file.keys()) == set(found)

    @each_type
    def test_they_are_small(self, weights: Any, tmp_path: Path) -> None:
        layer = LSTM(100, 100, seed=0)
        layer.save(tmp_path / "wide")
        quantize(layer, weights).save(tmp_path / "held")
        wide, held = ((tmp_path / name).stat().st_size for name in ("wide", "held"))
        assert held < {"int8": 0.29, "bfloat16": 0.53}[weights] * wide
        assert sum(a.nbytes for a in quantize(layer, weights).params.values()) < held
        assert len(pickle.dumps(quantize(layer, weights))) < held + 5000

    def test_a_model_in_float32_says_nothing_of_it(self, tmp_path: Path) -> None:
        model().save(tmp_path / "model")
        assert "weights" not in load_arrays(tmp_path / "model")[1][KEY]


SAID: dict[str, tuple[Any, str]] = {
    "no map": (["int8"], r"it says of the weights \['int8'\]"),
    "text": ("int8", "it says of the weights 'int8'"),
    "none": (None, "it says of the weights None"),
    "number": (8, "it says of the weights 8"),
    "unknown part": ({"9": "int8"}, "it says that the weights of '9' are 'int8'"),
    "unknown type": ({"0": "int4"}, "it says that the weights of '0' are 'int4'"),
    "no type": ({"0": None}, "it says that the weights of '0' are None"),
    "a list": ({"0": ["int8"]}, "it says that the weights of '0' are"),
    "a map": ({"0": {"int8": 1}}, "it says that the weights of '0' are"),
    "a composition": ({"": "int8"}, "a Chain has no weights to quantize"),
    "no weights": ({"1.0": "int8"}, "a Tanh has no weights to quantize"),
    "too few": ({"0": "int8"}, "these entries do not fit: .*'1.1.weight_scale'"),
    "the other type": ({"0": "bfloat16", "1.1": "int8", "2": "int8"}, "weight_ih_l0"),
    "long": ({"x" * 100_000: "int8"}, "it says that the weights of 'xxx"),
}


class TestHostileFiles:
    @pytest.mark.parametrize("name", SAID)
    def test_what_is_said_of_weights(self, name: str, tmp_path: Path) -> None:
        said, message = SAID[name]
        path = tmp_path / "model"
        quantize(model()).save(path)
        rewritten(path, lambda arrays, metadata: metadata[KEY].update(weights=said))
        with pytest.raises(ValueError, match=message) as refusal:
            rnncore.load(path)
        assert str(path) in str(refusal.value)
        assert len(str(refusal.value)) < 2500

    def test_a_tied_linear_has_none_of_its_own(self, tmp_path: Path) -> None:
        path = tmp_path / "model"
        quantize(tied()).save(path)
        rewritten(path, lambda _, metadata: metadata[KEY]["weights"].update({"2": "int8"}))
        with pytest.raises(ValueError, match="this TiedLinear has no weights to quantize"):
            rnncore.load(path)

    def test_one_part_of_two_types(self, tmp_path: Path) -> None:
        twice, path = Linear(3, 3, seed=0), tmp_path / "model"
        quantize(Chain(twice, twice)).save(path)
        assert rnncore.load(path).layers[1].weight_type == "int8"
        rewritten(path, lambda _, metadata: metadata[KEY]["weights"].update({"1": "bfloat16"}))
        with pytest.raises(ValueError, match="the weights of '1' are of two types"):
            rnncore.load(path)

    def test_a_model_in_float64(self, tmp_path: Path) -> None:
        path = tmp_path / "model"
        Linear(3, 3, dtype="float64").save(path)
        rewritten(path, lambda _, metadata: metadata[KEY].update(weights={"": "int8"}))
        with pytest.raises(ValueError, match="computes in float64, not in float32"):
            rnncore.load(path)

    @pytest.mark.parametrize("name", ["0.weight_ih_l0", "0.weight_ih_l0_scale", "0.bias_ih_l0"])
    def test_arrays_that_do_not_fit(self, name: str, tmp_path: Path) -> None:
        held, path = quantize(model()), tmp_path / "model"
        want = held(X)

        def cut(arrays: Any, _: Any) -> None:
            arrays[name] = arrays[name][:-1].copy()

        def removed(arrays: Any, _: Any) -> None:
            del arrays[name]

        def added(arrays: Any, _: Any) -> None:
            arrays["0.weight_zero_point"] = np.zeros(3, "i1")

        def widened(arrays: Any, _: Any) -> None:
            arrays[name] = arrays[name].astype("f8") + 0.3

        for change in (cut, removed, added, widened):
            model(5).save(path)
            quantize(model(5)).save(path)
            rewritten(path, change)
            with pytest.raises(ValueError, match=r"weight_ih_l0|bias_ih_l0|zero_point"):
                rnncore.load(path)
            with pytest.raises(ValueError, match=r"weight_ih_l0|bias_ih_l0|zero_point"):
                held.load(path)
            assert_same_bits(held(X), want)
            assert_locked(held)


class TestRefusedLoads:
    @each_type
    def test_a_quantized_model_stays_as_it_was(self, weights: Any, tmp_path: Path) -> None:
        held, path = quantize(model(), weights), tmp_path / "model"
        want, other = held(X), {"int8": "bfloat16", "bfloat16": "int8"}[weights]
        before = held.state_dict()
        for wrong in (
            model(3),
            quantize(model(3), other),
            Linear(3, 4),
            quantize(model(3), weights, "0"),
        ):
            wrong.save(path)
            with pytest.raises(ValueError, match=r"model: .*weight"):
                held.load(path)
            with pytest.raises((ValueError, TypeError)):
                held.load_state_dict(wrong.state_dict())
            assert_locked(held)
            assert_same_bits(held(X), want)
            assert_same_bits(list(held.params.values()), list(before.values()))
        for name in before:
            state = dict(before)
            state[name] = np.zeros((1, 1), before[name].dtype)
            with pytest.raises(ValueError, match="must have shape"):
                held.load_state_dict(state)
        assert_locked(held)
        assert_same_bits(held(X), want)

    @each_type
    def test_a_model_in_float32_takes_no_rounded_file(self, weights: Any, tmp_path: Path) -> None:
        held, path = quantize(model(3), weights), tmp_path / "model"
        held.save(path)
        wide = model()
        want, before = wide(X), wide.state_dict()
        if weights == "int8":
            with pytest.raises(ValueError, match=r"unknown '0\.weight_ih_l0_scale'"):
                wide.load(path)
            with pytest.raises(ValueError, match=r"unknown '0\.weight_ih_l0_scale'"):
                wide.load_state_dict(held.state_dict())
            assert_same_bits(list(wide.params.values()), list(before.values()))
            assert_same_bits(wide(X), want)
        else:  # its numbers are numbers in float32, and mean the same
            wide.load(path)
            assert np.abs(wide(X)[0] - held(X)[0]).max() < 2e-6
            wide = model()
            with pytest.raises(
                ValueError, match=r"'0\.weight_ih_l0' is uint16, as bits of bfloat16"
            ):
                wide.load_state_dict(held.state_dict())
            assert_same_bits(wide(X), want)
        assert all(array.flags.writeable for array in wide.params.values())

    @each_type
    def test_another_int8_layer_of_the_same_shape_is_taken_whole(self, weights: Any) -> None:
        """From one state to the next with nothing left of the first."""
        held, states = quantize(model(), weights), []
        for seed in (4, 9, 4):
            other = quantize(model(seed), weights)
            held.load_state_dict(other.state_dict())
            assert_same_bits(held(X), other(X))
            states.append(json.dumps({n: a.tolist() for n, a in held.params.items()}))
        assert states[0] == states[2] != states[1]


def test_arrays_that_are_read_only_stay_so() -> None:
    """Also where nobody settles the module after it."""
    held = quantize(model())
    load_into(held.params, quantize(model(4)).state_dict())
    assert_locked(held)


class TestNumbersThatKernelsWouldTakeForOthers:
    @pytest.mark.parametrize(
        ("name", "value", "what"),
        [
            ("weight", [[127, 5], [126, -3]], "largest number is not 127"),
            ("weight_scale", [1, np.nan], "finite and not negative"),
            ("weight_scale", [-1, 1], "finite and not negative"),
        ],
    )
    def test_are_refused_and_change_nothing(self, name: str, value: Any, what: str) -> None:
        held = quantize(Linear(2, 2, seed=0))
        state, before = held.state_dict(), held(X[..., :2])
        state[name] = np.array(value, state[name].dtype)
        with pytest.raises(ValueError, match=f"{name}.*{what}"):
            held.load_state_dict(state)
        np.testing.assert_array_equal(held(X[..., :2]), before)
        assert_locked(held)

    def test_rows_of_a_table_count_as_they_are(self) -> None:
        held = quantize(Embedding(2, 2, seed=0))
        table = np.array([[3, -5], [0, 0]], "i1")
        held.load_state_dict({"weight": table, "weight_scale": np.array([2, 1], "f4")})
        np.testing.assert_array_equal(held([0, 1]), [[6, -10], [0, 0]])

    def test_rows_of_zeros_are_zeros(self) -> None:
        held = quantize(Linear(3, 2, bias=False, seed=0))
        state = {"weight": np.zeros((2, 3), "i1"), "weight_scale": np.ones(2, "f4")}
        held.load_state_dict(state)
        np.testing.assert_array_equal(held(X), np.zeros((5, 2, 2)))
