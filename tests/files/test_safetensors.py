"""Safetensors files, whoever wrote them: read as the format's library reads them, or refused."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rnncore
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rnncore import GRU, LSTM, Linear
from rnncore.arrays import load_arrays, save_arrays
from rnncore.cli import main
from rnncore.convert import from_torch
from rnncore.files import listed, one_line
from safetensors.numpy import load, save_file

DTYPES = ["bool", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8"]


def written(path: Path, entries: dict[str, tuple[str, list[int], bytes]], **more: Any) -> Path:
    """Write a file by hand: entries are (dtype, shape, bytes) by name."""
    header, body = dict(more), b""
    for name, (dtype, shape, data) in entries.items():
        place = [len(body), len(body) + len(data)]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": place}
        body += data
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)
    return path


ARRAYS = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0, max_side=4))
)


@given(st.dictionaries(st.text(max_size=9), ARRAYS, max_size=5), st.randoms())
def test_reads_what_the_formats_own_library_reads(
    tmp_path_factory: Any, arrays: dict[str, Any], random: Any
) -> None:
    arrays.pop("__metadata__", None)
    path = tmp_path_factory.mktemp("file") / "file"
    save_arrays(path, arrays)
    found, metadata = load_arrays(path)
    wanted = load(path.read_bytes())
    assert metadata == {}
    assert found.keys() == wanted.keys() == arrays.keys()
    for name, array in wanted.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes() == arrays[name].tobytes()
        assert found[name].flags.writeable


# Metadata


def test_metadata_that_are_no_json_are_text(tmp_path: Path) -> None:
    said = {"format": "pt", "note": "{oops", "own": '{"a": [1]}', "deep": "[" * 100_000}
    save_file({"a": np.zeros(1)}, tmp_path / "file", said)
    assert load_arrays(tmp_path / "file")[1] == said | {"own": {"a": [1]}}


@pytest.mark.parametrize("metadata", [[], "text", {"a": 1}, {"a": {}}, None])
def test_metadata_that_are_no_text_are_refused(metadata: Any, tmp_path: Path) -> None:
    path = written(tmp_path / "file", {}, __metadata__=metadata)
    with pytest.raises(ValueError, match="its metadata are not text by name"):
        load_arrays(path)


def test_a_foreign_file_describes_no_module(tmp_path: Path) -> None:
    for text in ("pt", '{"module": 1', "3"):
        save_file({"a": np.zeros(1)}, tmp_path / "file", {"rnncore": text})
        with pytest.raises(ValueError, match="file describes no module"):
            rnncore.load(tmp_path / "file")


def test_an_array_cannot_be_named_as_the_metadata_are(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must not be named '__metadata__'"):
        save_arrays(tmp_path / "file", {"__metadata__": np.ones(1)})
    for dtype in ("complex64", "object", "U3", np.longdouble):
        with pytest.raises(TypeError, match=r"'b' is \S+, which is not stored: convert it"):
            save_arrays(tmp_path / "file", {"a": np.ones(1), "b": np.zeros(1, dtype)})
    with pytest.raises(ValueError, match="header too large"):
        save_arrays(tmp_path / "file", {}, {"text": "n" * 100_000_001})
    assert os.listdir(tmp_path) == []


# Half precision


def test_every_bfloat16_is_widened_exactly(tmp_path: Path) -> None:
    bits = np.arange(1 << 16, dtype="<u2")
    path = written(tmp_path / "file", {"a": ("BF16", [256, 256], bits.tobytes())})
    found = load_arrays(path)[0]["a"]
    assert (found.dtype, found.shape) == (np.float32, (256, 256))
    assert found.view(np.uint32).ravel().tolist() == (bits.astype(np.uint32) << 16).tolist()
    one = written(tmp_path / "one", {"a": ("BF16", [], b"\x80\x3f"), "b": ("BF16", [0], b"")})
    assert load_arrays(one)[0]["a"] == 1
    assert load_arrays(one)[0]["b"].shape == (0,)


@pytest.mark.parametrize("kind", ["BF16", "F16"])
def test_a_model_of_half_precision(kind: str, tmp_path: Path, rng: np.random.Generator) -> None:
    model, entries, wanted = LSTM(3, 5, seed=0), {}, {}
    for name, param in model.params.items():
        half = param.astype("f2")
        bits = (param.view(np.uint32) >> 16).astype("<u2")
        entries[name] = (kind, list(param.shape), (half if kind == "F16" else bits).tobytes())
        wide = half.astype("f4") if kind == "F16" else (bits.astype("u4") << 16).view("f4")
        wanted[name] = wide
    path = written(tmp_path / "half.SAFETENSORS", entries, __metadata__={"format": "pt"})
    twin = LSTM(3, 5, seed=1)
    twin.load(path)
    assert main(["convert", str(path), str(tmp_path / "whole.SafeTensors")]) == 0
    for module in (twin, from_torch(path), rnncore.load(tmp_path / "whole.SafeTensors")):
        for name, array in wanted.items():
            np.testing.assert_array_equal(module.params[name], array)
            assert module.params[name].dtype == np.float32


def test_a_torch_state_in_half_precision() -> None:
    torch = pytest.importorskip("torch", reason="torch makes the state")
    for dtype in (torch.bfloat16, torch.float16):
        layer = torch.nn.GRU(3, 5).to(dtype)
        module = from_torch(layer.state_dict())
        for name, tensor in layer.state_dict().items():
            np.testing.assert_array_equal(module.params[name], tensor.float().numpy())


def test_other_floats_are_not_narrowed() -> None:
    state = GRU(3, 5, seed=0).state_dict()
    swapped = {name: array.astype(">f4") for name, array in state.items()}
    np.testing.assert_array_equal(from_torch(swapped).params["bias_hh_l0"], state["bias_hh_l0"])
    with pytest.raises(TypeError, match="'weight_ih_l0' must be an array of floats, got float"):
        from_torch({name: array.astype(np.longdouble) for name, array in state.items()})
    with pytest.raises(ValueError, match="'weight_ih_l0': weights must be numbers, in rows of eq"):
        from_torch(state | {"weight_ih_l0": [[1.0], [2.0, 3.0]]})


# What is refused


F = ("F32", [1], bytes(4))


def file_of(header: Any, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def entry(dtype: Any = "F32", shape: Any = (1,), offsets: Any = (0, 4), **more: Any) -> Any:
    return {"a": {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}}


DAMAGED = {
    "is shorter than its header": b"\x09\0\0\0\0\0\0\0{}",
    "the format allows": file_of(b" " * 100_000_001),
    "no JSON object": file_of([1]),
    "codec can't decode": file_of(b"\xff\xfe{}"),
    "something twice": file_of(
        b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},'
        b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,0]}}'
    ),
    "entry 'a' says 7": file_of({"a": 7}),
    "entry 'a' says {'dtype'": file_of({"a": {"dtype": "F32"}}),
    "entry 'a' says {'dtype': 'F32'": file_of(entry(more=1), bytes(4)),
    r"entry 'a' has dtype 'F8_E5M2': save it as float32": file_of(
        entry("F8_E5M2", offsets=(0, 1)), b"a"
    ),
    r"entry 'a' has dtype \['F32'\]": file_of(entry(["F32"]), bytes(4)),
    r"entry 'a' has shape \[-1\]": file_of(entry(shape=[-1])),
    r"entry 'a' has shape \[True\]": file_of(entry(shape=[True]), bytes(4)),
    r"entry 'a' has shape \[1.0\]": file_of(entry(shape=[1.0]), bytes(4)),
    r"entry 'a' has shape 1 at": file_of(entry(shape=1), bytes(4)),
    r"at \[0, 4, 8\]": file_of(entry(offsets=[0, 4, 8]), bytes(8)),
    r"at \[-4, 0\]": file_of(entry(offsets=[-4, 0])),
    r"bytes are not shape \[2\]": file_of(entry(shape=[2]), bytes(4)),
    r"-4 bytes are not shape \[1\]": file_of(entry(offsets=[4, 0])),
    r"bytes are not shape \[4611686018427387904, 4\]": file_of(entry(shape=[1 << 62, 4]), bytes(4)),
    "begins at 4, not at 0": file_of(entry(offsets=[4, 8]), bytes(8)),
    "begins at 0, not at 4": file_of({**entry(), "b": entry()["a"]}, bytes(4)),
    "take 4 bytes, and it holds 5": file_of(entry(), bytes(5)),
    "take 4 bytes, and it holds 3": file_of(entry(), bytes(3)),
    "too big": file_of(entry(shape=[0, 1 << 62, 1 << 62], offsets=[0, 0])),
    "RecursionError": file_of(b'{"a":' + b"[" * 100_000),
}


@pytest.mark.parametrize("message", DAMAGED)
def test_damaged_files_are_refused_by_name(message: str, tmp_path: Path) -> None:
    path = tmp_path / "damaged"
    path.write_bytes(DAMAGED[message])
    with pytest.raises(ValueError, match=f"damaged is not a readable safetensors.*{message}"):
        load_arrays(path)


def test_messages_are_of_one_line(tmp_path: Path) -> None:
    """Names of 300,000 characters, of several lines, and 10,000 of them."""
    long = "n" * 300_000
    many = {f"layer\n{n}\x1b[2J.bias": F for n in range(10_000)}
    files = [
        written(tmp_path / "long", {long: F}),
        written(tmp_path / "many", many),
        written(tmp_path / "dtype", {long: ("Q7", [1], bytes(4))}),
        written(tmp_path / "shape", {"a": ("F32", [1] * 100_000 + [2], bytes(4))}),
        written(tmp_path / "weight", {"weight_ih_l0": F, f"{long}.weight_hh_l0": F}),
    ]
    described = {"class": long, "arguments": {}}
    for number, module in enumerate(
        (
            described,
            {"class": "Chain", "arguments": {"layers": [{"shared": 0}] * 1000}},
            {"class": "GRU", "arguments": {"input_size": 1, "hidden_size": 1, long: 1}},
            {"class": "GRU", "arguments": {"input_size": long, "hidden_size": 1}},
            {"class": "CharConfig", "arguments": {"cell": long}},
            {"class": "Elementwise", "arguments": {"activation": long}},
            [long],
            long,
        )
    ):
        path = tmp_path / f"model{number}"
        save_arrays(path, {}, {"rnncore": {"module": module, "version": long}})
        files.append(path)
    for path in files:
        for read in (rnncore.load, Linear(2, 2).load, from_torch):
            with pytest.raises(ValueError, match=path.name) as refusal:
                read(path)
            said = str(refusal.value)
            assert said.isprintable()
            assert len(said) < 1500, said[:200]


def test_lines_and_lists() -> None:
    assert one_line("a\n b\x1b\t c é") == "a b\\x1b c é"
    assert one_line("x" * 50, 20) == "x" * 15 + " [...] " + "x" * 5
    assert listed([]) == "none"
    assert listed(["a", "b"]) == "'a', 'b'"
    assert listed(range(12)) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/null", "/dev/zero"):
        with pytest.raises(ValueError, match="is no regular file"):
            load_arrays(path)


def test_a_file_that_is_replaced_meanwhile_is_read_whole(tmp_path: Path) -> None:
    path, stop = tmp_path / "file", threading.Event()
    both = [{"a": np.full(50_000, value), "b": np.full(3, value)} for value in (1.0, 2.0)]
    save_arrays(path, both[0])

    def save() -> None:
        while not stop.is_set():
            for arrays in both:
                save_arrays(path, arrays)

    thread = threading.Thread(target=save)
    thread.start()
    try:
        for _ in range(100):
            found, _ = load_arrays(path)
            assert len({*found["a"].tolist(), *found["b"].tolist()}) == 1
    finally:
        stop.set()
        thread.join()
