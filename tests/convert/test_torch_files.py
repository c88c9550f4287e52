"""Files of state_dicts: .npz, .json, .safetensors, and torch's own, which torch reads."""

import io
import json
import sys
import types
import zipfile

import numpy as np
import pytest
from rnncore import LSTM, Linear
from rnncore.arrays import load_arrays, save_arrays
from rnncore.convert import from_torch
from safetensors.numpy import save

from tests.convert.test_strangers import refused_cheaply
from tests.support.compare import assert_same


@pytest.fixture
def lstm():
    return LSTM(3, 4, 2, proj_size=2, seed=1)


class TestNpz:
    @pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
    @pytest.mark.parametrize("dtype", ["f2", "<f4", ">f4", "f8"])
    def test_is_read(self, lstm, tmp_path, write, dtype):
        state = {name: array.astype(dtype) for name, array in lstm.state_dict().items()}
        state["weight_ih_l1"] = np.asfortranarray(state["weight_ih_l1"])
        write(tmp_path / "m.npz", **state, n_averaged=3)
        layer = from_torch(tmp_path / "m.NPZ".lower())
        assert layer.dtype == ("float64" if dtype == "f8" else "float32")
        want = {name: array.astype(layer.dtype) for name, array in state.items()}
        assert_same(layer.params, {n: np.ascontiguousarray(a) for n, a in want.items()})

    def test_what_is_no_array_of_floats(self, tmp_path):
        path = tmp_path / "m.npz"
        for arrays, what in (
            ({"weight": np.array([None])}, r"m\.npz cannot .* weight\.npy is a pickle, which"),
            ({"weight": np.array(["a"])}, "'weight' must be an array of floats, got <U1"),
            ({"weight": np.ones((2, 2), complex)}, "must be an array of floats, got complex128"),
        ):
            np.savez(path, **arrays)
            with pytest.raises((ValueError, TypeError), match=what):
                from_torch(path, ("", Linear))
        state = Linear(2, 2, seed=1).state_dict()
        np.savez(path, **{f"out.{n}": a for n, a in state.items()}, words=np.array(["a"]))
        assert_same(from_torch(path, "out").params, state)

    def test_shapes_beyond_the_bytes(self, tmp_path):
        head = io.BytesIO()
        header = {"descr": "<f4", "fortran_order": False, "shape": (1 << 40,)}
        np.lib.format.write_array_header_1_0(head, header)
        for data, what in (
            (head.getvalue(), r"weight\.npy: 0 bytes are not shape \(1099511627776,\)"),
            (head.getvalue() + bytes(1 << 26), r"weight\.npy of shape .* is too large"),
            (b"\x93NUMPY\x03\x00" + head.getvalue()[8:], r"version \(3, 0\), which is not read"),
            (b"none", r"m\.npz cannot be read as a state_dict"),
        ):
            path = tmp_path / "m.npz"
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr("weight.npy", data)
            refused_cheaply(lambda p=path: from_torch(p, ""), what, 1 << 24)


class TestJson:
    def test_is_read_in_float32(self, lstm, tmp_path):
        path = tmp_path / "m.json"
        state = {name: array.tolist() for name, array in lstm.state_dict().items()}
        path.write_text(json.dumps({"epoch": 3, "best": None, "model": {"rnn": state}}))
        assert_same(from_torch(path, "model.rnn").params, lstm.params)
        assert from_torch(path, "model.rnn", dtype="float64").dtype == np.float64

    @pytest.mark.parametrize(
        ("text", "what"),
        [
            ("[1]", "it holds a list, and no arrays by their names"),
            ("5", "it holds a int, and no arrays"),
            ("{", "Expecting property name"),
            ('{"a":' * 99 + "1" + "}" * 99, "lies too deep"),
            ('{"a":' * 99999 + "1" + "}" * 99999, "Recursion"),
            ("\x00", "Expecting value"),
        ],
    )
    def test_that_is_no_state_dict(self, tmp_path, text, what):
        (tmp_path / "m.json").write_text(text)
        with pytest.raises(ValueError, match=rf"m\.json cannot be read as a state_dict: .*{what}"):
            from_torch(tmp_path / "m.json")

    def test_a_fault_within_names_the_file(self, tmp_path):
        (tmp_path / "m.json").write_text('{"weight": [[1], [2, 3]]}')
        with pytest.raises(ValueError, match=r"m\.json: 'weight': weights must be numbers"):
            from_torch(tmp_path / "m.json", ("", Linear))


class TestSafetensors:
    def test_metadata_of_others_are_text(self, lstm, tmp_path):
        path = tmp_path / "m.safetensors"
        path.write_bytes(save(lstm.state_dict(), {"format": "pt", "note": "{not JSON"}))
        assert load_arrays(path)[1] == {"format": "pt", "note": "{not JSON"}
        assert_same(from_torch(path).params, lstm.params)

    def test_bfloat16_is_widened_exactly(self, lstm, tmp_path):
        bits = {n: a.view(np.uint32) for n, a in lstm.state_dict().items()}
        halves = {name: (array >> 16).astype(np.uint16) for name, array in bits.items()}
        save_arrays(tmp_path / "m.safetensors", halves, bfloat16=halves)
        want = {name: (array >> 16 << 16).view(np.float32) for name, array in bits.items()}
        assert_same(from_torch(tmp_path / "m.safetensors").params, want)


@pytest.mark.parametrize("suffix", ["npz", "json", "pt", "pth", "bin", "ckpt", "jit"])
def test_no_file_and_no_folder(tmp_path, suffix):
    with pytest.raises(FileNotFoundError, match=f"no such model file: .*none.{suffix}"):
        from_torch(tmp_path / f"none.{suffix}")
    (tmp_path / f"folder.{suffix}").mkdir()
    with pytest.raises(FileNotFoundError, match=f"no such model file: .*folder.{suffix}"):
        from_torch(tmp_path / f"folder.{suffix}")


class TestPickles:
    """Without torch."""

    @pytest.fixture
    def path(self, tmp_path):
        (tmp_path / "m.pt").write_bytes(b"\x80\x02}q\x00.")
        return tmp_path / "m.pt"

    def test_need_torch(self, path, monkeypatch):
        monkeypatch.setitem(sys.modules, "torch", None)
        what = r"m\.pt needs torch: pip install 'rnncore\[torch\]', or save .* as \.safetensors"
        with pytest.raises(ImportError, match=what):
            from_torch(path)

    def test_need_a_torch_that_runs_no_code(self, path, monkeypatch):
        monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(__version__="2.5.1+cpu"))
        with pytest.raises(
            ImportError, match=r"needs torch 2\.6 or newer, .* this is 2\.5\.1\+cpu"
        ):
            from_torch(path)

    def test_archives_of_code_are_named(self, path, monkeypatch):
        monkeypatch.setitem(sys.modules, "torch", None)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("m/constants.pkl", b"")
        what = r"m\.pt .*TorchScript archive, which .* torch\.jit\.load\(path\)\.state_dict\(\) in"
        with pytest.raises(ValueError, match=what):
            from_torch(path)
