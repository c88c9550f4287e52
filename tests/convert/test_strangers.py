"""Keras and RTNeural files of strangers: no other file is read, no memory taken beyond a budget."""

import io
import json
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
from rnncore.convert import from_keras, from_rtneural
from rnncore.convert.budget import LEAST, RATIO, Budget
from rnncore.files import one_line

h5py = pytest.importorskip("h5py", reason="h5py reads the arrays of Keras models")

DENSE = {"name": "dense", "units": 4, "activation": "linear", "use_bias": False}
CONFIG = {"class_name": "Sequential"}
CONFIG["config"] = {"layers": [{"class_name": "Dense", "config": DENSE}]}


def test_a_budget_is_taken_before_and_only_once():
    budget = Budget(100)
    most = 100 * RATIO + LEAST
    budget.take("an array", (most // 8 - 1,), 8)
    with pytest.raises(
        ValueError, match=r"^it of shape \(2, 8\) is too large: a file of 100 bytes"
    ):
        budget.take("it", (2, 8))
    budget.take("it", (8,))
    budget.add(1)
    assert budget.left == RATIO
    for shape in ((-1, -1), (1 << 62, 1 << 62), (RATIO + 1,)):
        with pytest.raises(ValueError, match="too large"):
            budget.check("it", shape)
    assert budget.left == RATIO


def test_messages_are_cut_in_the_middle():
    assert one_line("a\n b", 80) == "a b"
    assert one_line("a\x1b[31m", 80) == r"a\x1b[31m"
    for text in ("x" * 10**6, "\x01" * 10**6, "\x01" * 80):
        assert len(one_line(text, 80)) == 80 + len(" [...] ")
    assert one_line("a" * 100 + "end", 80).endswith("aend")


def keras(path, fill, config=CONFIG):
    """A .keras file; `fill` writes the arrays."""
    arrays = io.BytesIO()
    with h5py.File(arrays, "w") as file:
        fill(file.create_group("layers/dense/vars"), "0")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.5.0"}))
        archive.writestr("model.weights.h5", arrays.getvalue())


def h5(path, fill, config=CONFIG):
    """An .h5 file; `fill` writes the arrays."""
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(config)
        group = file.create_group("model_weights/dense")
        group.attrs["weight_names"] = [b"kernel"]
        fill(group, "kernel")


@pytest.fixture(params=[keras, h5])
def write(request, tmp_path):
    """Write a model; return its path."""

    def written(fill, config=CONFIG):
        path = tmp_path / f"model.{request.param.__name__}"
        request.param(path, fill, config)
        return path

    return written


@pytest.fixture
def other(tmp_path):
    """A file that no model has to do with."""
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["w"] = np.full((4, 4), 7, "f4")
    return tmp_path / "other.h5"


def plain(group, name):
    group[name] = np.eye(4, dtype="f4")


def virtual(group, name, other):
    layout = h5py.VirtualLayout((4, 4), "f4")
    layout[...] = h5py.VirtualSource(other, "w", (4, 4))
    group.create_virtual_dataset(name, layout)


ELSEWHERE = {
    "external storage": lambda group, name, other: group.create_dataset(
        name, (4, 4), "f4", external=[(other, 0, 64)]
    ),
    "virtual data": virtual,
    "external link": lambda group, name, other: group.update({name: h5py.ExternalLink(other, "w")}),
    "soft link": lambda group, name, _: group.update({name: h5py.SoftLink("/elsewhere")}),
}


def test_what_a_file_holds_itself_is_read(write):
    assert from_keras(write(plain)).params["weight"].sum() == 4


@pytest.mark.parametrize("kind", ELSEWHERE)
def test_arrays_elsewhere_are_refused(write, other, kind):
    path = write(lambda group, name: ELSEWHERE[kind](group, name, other))
    with pytest.raises(ValueError, match=rf"^{path}: .*(another file|another place), which is not"):
        from_keras(path)


@pytest.mark.parametrize("link", ["external", "soft"])
@pytest.mark.parametrize("at", ["model_weights", "model_weights/dense"])
def test_groups_elsewhere_are_refused(tmp_path, other, at, link):
    """Their attributes too are another file's."""
    path = tmp_path / "model.h5"
    h5(path, plain)
    with h5py.File(path, "r+") as file, h5py.File(other, "a") as away:
        file.copy(at, file, "aside")
        file.copy(at, away, "aside")
        del file[at]
        file[at] = (
            h5py.ExternalLink(other, "aside") if link == "external" else h5py.SoftLink("aside")
        )
    with pytest.raises(ValueError, match="is a link to another place, which is not read"):
        from_keras(path)


def refused_cheaply(read, what, most):
    """Whether reading is refused, in few words, and never holds more than so many bytes."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=what) as caught:
            read()
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)


FILLED = {
    "nothing": {},
    "gzip": {"compression": "gzip", "chunks": (1 << 10, 1 << 10)},
    "a wide chunk": {
        "compression": "gzip",
        "chunks": (1 << 12, 1 << 11),
        "maxshape": (None, None),
    },
}


@pytest.mark.parametrize("kind", FILLED)
def test_arrays_of_a_shape_and_no_bytes(write, kind):
    shape = (4, 4) if kind == "a wide chunk" else (1 << 13, 1 << 13)

    def fill(group, name):
        data = group.create_dataset(name, shape, "f4", **FILLED[kind])
        if kind != "nothing":
            data[:2, :2] = 1

    path = write(fill)
    assert path.stat().st_size < 1 << 23
    refused_cheaply(lambda: from_keras(path), "is too large: a file of", LEAST)


def test_a_chunk_that_unpacks_to_more_than_its_size(write):
    bomb = zlib.compress(bytes(1 << 25))

    def fill(group, name):
        data = group.create_dataset(name, (4, 4), "f4", compression="gzip", chunks=(4, 4))
        data.id.write_direct_chunk((0, 0), bomb)

    path = write(fill)
    refused_cheaply(lambda: from_keras(path), "unpacks to more than its 64 bytes", 1 << 24)


def test_filters(write):
    for options in (
        {"compression": "gzip", "shuffle": True, "fletcher32": True},
        {"chunks": (2, 2)},
    ):
        path = write(lambda group, name, o=options: group.create_dataset(name, data=np.eye(4), **o))
        assert from_keras(path).params["weight"].sum() == 4
    path = write(lambda group, name: group.create_dataset(name, data=np.eye(4), compression="lzf"))
    with pytest.raises(ValueError, match="filters other than gzip, once, are not read"):
        from_keras(path)


def test_one_array_named_many_times(tmp_path):
    path = tmp_path / "model.h5"
    h5(path, lambda group, name: group.create_dataset(name, data=np.ones((1 << 10, 1 << 8))))
    with h5py.File(path, "r+") as file:
        file["model_weights/dense"].attrs["weight_names"] = [b"kernel"] * 1000
    refused_cheaply(lambda: from_keras(path), "is too large: a file of", 1 << 27)


def test_one_text_in_an_attribute_many_times(tmp_path):
    path = tmp_path / "model.h5"
    h5(path, plain)
    with h5py.File(path, "r+") as file:
        file["model_weights/dense"].attrs["weight_names"] = ["x" * 20000] * 50
    refused_cheaply(
        lambda: from_keras(path), "the attribute weight_names of .* is too large", 1 << 24
    )


def test_a_damaged_heap_of_texts(tmp_path):
    """libhdf5 walks for ever along free space of size zero."""
    path = tmp_path / "model.h5"
    h5(path, plain)
    data = path.read_bytes()
    at = data.index(b"GCOL") + 16
    while data[at : at + 2] != bytes(2):
        size = int.from_bytes(data[at + 8 : at + 16], "little")
        at += 16 + -(-size // 8) * 8
    for size in (0, 8, 1 << 40):
        path.write_bytes(data[: at + 8] + size.to_bytes(8, "little") + data[at + 16 :])
        with pytest.raises(ValueError, match="its strings of variable length are damaged"):
            from_keras(path)


def test_a_string_said_to_be_longer_than_it_is(tmp_path):
    """libhdf5 takes memory of that length before it looks."""
    path = tmp_path / "model.h5"
    h5(path, plain)
    data, text = path.read_bytes(), json.dumps(CONFIG)
    address = data.index(b"GCOL").to_bytes(8, "little")
    reference = len(text).to_bytes(4, "little") + address
    assert data.count(reference) == 1
    path.write_bytes(data.replace(reference, (3 << 30).to_bytes(4, "little") + address))
    with pytest.raises(ValueError, match="its strings of variable length are damaged"):
        from_keras(path)


@pytest.mark.parametrize("name", ["config.json", "model.weights.h5", "metadata.json"])
def test_zip_files_that_unpack_to_much(tmp_path, name):
    path, held = tmp_path / "model.keras", {}
    keras(path, plain)
    with zipfile.ZipFile(path) as archive:
        held = {entry: archive.read(entry) for entry in archive.namelist()}
    held[name] = bytes(1 << 26)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry, data in held.items():
            archive.writestr(entry, data)
    refused_cheaply(lambda: from_keras(path), rf"{name} of shape .* is too large", 1 << 24)
    packed = path.read_bytes()  # and where the folder of the archive tells a size that is too small
    path.write_bytes(packed.replace((1 << 26).to_bytes(4, "little"), (9).to_bytes(4, "little")))
    refused_cheaply(lambda: from_keras(path), "is not a readable Keras model", 1 << 24)


def test_other_ways_of_packing(tmp_path):
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("config.json", "{}")
    with pytest.raises(ValueError, match=r"config\.json is packed in a way that is not read"):
        from_keras(path)


def test_deep_nesting_and_long_values(tmp_path):
    deep = "[" * 10**5 + "]" * 10**5
    for text in (deep, json.dumps({"in_shape": [1], "layers": [{"type": "y" * 10**6}]})):
        (tmp_path / "m.json").write_text(text)
        refused_cheaply(lambda: from_rtneural(tmp_path / "m.json"), r"m\.json", 1 << 27)
    layers = [{"class_name": "Dense", "config": DENSE | {"novelty": "z" * 10**5}}]
    for config in (
        {"class_name": "x" * 10**5, "config": []},
        {"class_name": "Sequential", "config": {"layers": layers}},
    ):
        path = tmp_path / "long.keras"
        keras(path, plain, config)
        refused_cheaply(
            lambda p=path: from_keras(p), r"^.*long\.keras: rnncore cannot represent", 1 << 26
        )


def test_folders_and_devices_are_no_files(tmp_path):
    for path in (tmp_path, "/dev/zero"):
        with pytest.raises(ValueError, match="is not a file"):
            from_rtneural(path)
        with pytest.raises(FileNotFoundError, match="no such model file"):
            from_keras(path)


@pytest.mark.parametrize("value", ["1", None, True, [[1.0], [1.0, 2.0]], ["x" * 1000] * 3])
def test_weights_that_are_no_numbers(tmp_path, value):
    model = {"in_shape": [None, None, 1]}
    model["layers"] = [{"type": "dense", "weights": [[[1.0]], [value]]}]
    (tmp_path / "m.json").write_text(json.dumps(model))
    with pytest.raises(ValueError, match=r"layer 0: weights must be numbers, in rows of equal"):
        from_rtneural(tmp_path / "m.json")


def test_weights_that_float32_does_not_hold(tmp_path):
    model = {"in_shape": [None, None, 1]}
    model["layers"] = [{"type": "dense", "weights": [[[1e300]], [2.0]]}]
    (tmp_path / "m.json").write_text(json.dumps(model))
    with pytest.raises(ValueError, match="weight has numbers too large for float32: ask for a w"):
        from_rtneural(tmp_path / "m.json")
    assert from_rtneural(tmp_path / "m.json", dtype="float64").params["weight"] == 1e300
    model["layers"][0]["weights"][0] = [[float("inf")]]
    (tmp_path / "m.json").write_text(json.dumps(model))
    assert from_rtneural(tmp_path / "m.json").params["weight"] == np.inf


def test_all_layers_that_are_not_known_come_before_any_setting(tmp_path):
    inner = {"class_name": "SeparableConv1D", "config": {"name": "b", "novelty": 3}}
    layers = [
        {"class_name": "Dense", "config": DENSE | {"novelty": 3}},
        {"class_name": "ConvLSTM2D", "config": {"name": "a", "filters": 3}},
        {"class_name": "TimeDistributed", "config": {"name": "c", "layer": inner}},
        {"class_name": "Sequential", "config": {"name": "d", "layers": [inner]}},
    ]
    keras(tmp_path / "m.keras", plain, {"class_name": "Sequential", "config": {"layers": layers}})
    what = "the Keras layers ConvLSTM2D 'a', SeparableConv1D 'b', SeparableConv1D 'b'$"
    with pytest.raises(ValueError, match=f"cannot represent {what}"):
        from_keras(tmp_path / "m.keras")


def test_a_layer_that_is_not_known_comes_before_its_arrays(tmp_path):
    layers = [{"class_name": "Normalization", "config": {"name": "dense"}}]
    keras(tmp_path / "m.keras", plain, {"class_name": "Sequential", "config": {"layers": layers}})
    h5(
        tmp_path / "m.h5",
        lambda group, name: group.create_dataset(name, data=np.arange(3)),
        {"class_name": "Sequential", "config": {"layers": layers}},
    )
    for name in ("m.keras", "m.h5"):
        with pytest.raises(ValueError, match="the Keras layer Normalization 'dense'"):
            from_keras(tmp_path / name)
