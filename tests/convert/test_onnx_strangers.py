"""ONNX files of strangers: one budget, no files elsewhere, operators named; and files as bytes."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from rnncore import GRU, Chain, Embedding, Linear
from rnncore.cli import main
from rnncore.convert import from_onnx, to_onnx, to_rtneural
from rnncore.convert.budget import LEAST

from tests.support.compare import assert_close

pytest.importorskip("onnx", reason="the package onnx reads and writes the format")

import onnx
from onnx import helper, numpy_helper

from tests.support.onnx_graphs import graph_of, recurrent, run_by_runtime

make = helper.make_node
X = {"x": np.zeros(1, np.float32)}


def refused_cheaply(proto, what, read=from_onnx):
    """Whether reading is refused, in few words, and takes no more than the least there is."""
    data = proto.SerializeToString()
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=what) as caught:
            read(data)
        assert tracemalloc.get_traced_memory()[1] < 3 * LEAST
    finally:
        tracemalloc.stop()
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)


def chain(op, constants, count=60, **attributes):
    """Nodes that each read the one before, twice over."""
    nodes = [make(op, [f"c{n}", f"c{n}"], [f"c{n + 1}"], **attributes) for n in range(count)]
    return graph_of(nodes, X, {f"c{count}": (None,)}, constants)


COLUMN, ROW = np.zeros((1 << 16, 1), np.int8), np.zeros((1, 1 << 16), np.int8)


@pytest.mark.parametrize("op", ["Add", "Mul", "MatMul", "Max", "Pow", "Gemm"])
def test_pairs_of_small_arrays(op):
    kind = np.float32 if op in ("MatMul", "Gemm", "Pow") else np.int32
    constants = {"a": COLUMN.astype(kind), "b": ROW.astype(kind)}
    proto = graph_of([make(op, ["a", "b"], ["y"])], X, {"y": (None, None)}, constants)
    refused_cheaply(proto, rf"{op} 0: an array of shape \(65536, 65536\) is too large")


def test_choices_and_gathers():
    constants = {"c": np.zeros((256, 1, 1), bool), "a": COLUMN, "b": ROW}
    proto = graph_of([make("Where", ["c", "a", "b"], ["y"])], X, {"y": (None,) * 3}, constants)
    refused_cheaply(proto, r"Where 0: an array of shape \(256, 65536, 65536\)")
    constants = {"a": np.zeros((2, 1 << 18), np.int8), "i": np.zeros(1 << 16, np.int32)}
    proto = graph_of([make("Gather", ["a", "i"], ["y"])], X, {"y": (None, None)}, constants)
    refused_cheaply(proto, r"Gather 0: an array of shape \(65536, 262144\)")


LONG, PLACE = np.zeros((1, 1, 1 << 16), np.float32), np.zeros((1, 1, 1), np.float32)
PLACES = np.zeros((1 << 12, 1), np.int64)


@pytest.mark.parametrize(
    ("op", "constants", "options"),
    [
        ("Tile", {"a": ROW, "n": np.array([1 << 20, 1])}, {}),
        ("Pad", {"a": PLACE, "p": np.array([0, 0, 1 << 40, 0, 0, 0])}, {}),
        ("Pad", {"a": PLACE, "p": np.array([0, 0, 0, 0, 1 << 40, 0])}, {"mode": "edge"}),
        ("OneHot", {"i": ROW, "n": np.array(1 << 20), "v": np.zeros(2)}, {}),
        ("GatherND", {"a": np.zeros((2, 1 << 18)), "i": PLACES}, {}),
        ("Resize", {"a": PLACE, "": PLACE, "s": np.array([1, 1, 1e12], "f4")}, {}),
        ("Einsum", {"a": COLUMN * 1.0, "b": ROW * 1.0}, {"equation": "ix,yj->ij"}),
        ("Einsum", {"a": COLUMN[:, 0] * 1.0, "b": ROW[0] * 1.0}, {"equation": "i,j"}),
        ("Conv", {"a": LONG, "w": np.zeros((1, 1, 1 << 14), "f4")}, {}),
        ("Conv", {"a": PLACE, "w": PLACE}, {"pads": [1 << 40, 0]}),
        ("ConvInteger", {"a": LONG.astype("u1"), "w": np.zeros((1, 1, 1 << 13), "u1")}, {}),
        ("ConvTranspose", {"a": LONG, "w": PLACE}, {"strides": [1 << 30]}),
        ("ConvTranspose", {"a": LONG, "w": np.zeros((1, 1, 1 << 14), "f4")}, {"dilations": [1]}),
        ("ConvTranspose", {"a": PLACE, "w": PLACE}, {"output_shape": [1 << 40]}),
        ("MaxPool", {"a": PLACE}, {"kernel_shape": [1], "pads": [1 << 40, 0]}),
        ("AveragePool", {"a": PLACE}, {"kernel_shape": [1], "pads": [0, 1 << 40]}),
        ("NonZero", {"a": np.ones((1,) * 20 + (1 << 17,), "i1")}, {}),
        ("SplitToSequence", {"a": np.zeros(1 << 20, "i1")}, {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_small_arrays_that_become_large(monkeypatch, op, constants, options):
    monkeypatch.setattr(onnx.checker, "check_model", lambda *_: None)
    held = {name: array for name, array in constants.items() if name}
    proto = graph_of([make(op, list(constants), ["y"], **options)], X, {"y": None}, held, 18)
    refused_cheaply(proto, rf"{op} 0: an array of shape .* is too large")


@pytest.mark.parametrize(
    ("op", "names", "options"),
    [
        ("Tile", ["a", "many"], {}),
        ("Resize", ["b", "", "", "far"], {}),
        ("OneHot", ["none", "depth", "ends"], {}),
        ("Trilu", ["e"], {}),
        ("TopK", ["e", "k"], {"axis": 0}),
        ("GatherElements", ["e", "where"], {}),
        ("ScatterElements", ["e", "where", "e"], {}),
        ("AveragePool", ["b"], {"kernel_shape": [1, 1], "pads": [0, 1 << 40, 0, 0]}),
        ("ConvTranspose", ["b", "w"], {}),
    ],
)
def test_long_axes_beside_empty_ones(monkeypatch, op, names, options):
    """There are no numbers, and yet indices along them would be many."""
    monkeypatch.setattr(onnx.checker, "check_model", lambda *_: None)
    far = 1 << 40
    held = {"a": np.zeros((0, 2), "f4"), "b": np.zeros((0, 1, 1, 1), "f4")}
    held |= {"many": np.array([1, far]), "far": np.array([0, 1, far, 1])}
    held |= {"none": np.zeros(0, "i8"), "depth": np.array(far), "ends": np.zeros(2, "f4")}
    held |= {"e": np.zeros((far, 0), "f4"), "k": np.array([far]), "where": np.zeros((far, 0), "i8")}
    held |= {"w": np.zeros((1, 0, far, 1), "f4")}
    held = {name: array for name, array in held.items() if name in names}
    proto = graph_of([make(op, names, ["y"], **options)], X, {"y": None}, held, 18)
    refused_cheaply(proto, rf"{op} 0: an array of shape .* is too large")


def test_what_all_nodes_make_counts_together():
    refused_cheaply(chain("Concat", {"c0": np.zeros(9, np.int8)}, axis=0), r"Concat \d+: an array")
    refused_cheaply(chain("Add", {"c0": np.zeros(1 << 16, "f4")}, 999), r"Add \d+: an array of")
    doubled = graph_of(
        [make("Concat", ["x", "x"], ["c0"], axis=0)]
        + [make("Concat", [f"c{n}"] * 2, [f"c{n + 1}"], axis=0) for n in range(60)],
        X,
        {"c60": (None,)},
    )
    refused_cheaply(
        doubled, r"Concat \d+: an array of shape", lambda data: from_onnx(data).run([1])
    )


def test_weights_that_serve_many_nodes(rng):
    """Each recurrent node has a copy of them; products share one layer."""
    size = 128
    shapes = {"w": (1, 4 * size, size), "r": (1, 4 * size, size)}
    weights = {name: rng.standard_normal(shape).astype("f4") for name, shape in shapes.items()}
    nodes = [make("LSTM", ["x", *weights], [f"y{n}"]) for n in range(60)]
    x = {"x": np.zeros((1, 1, size), np.float32)}
    proto = graph_of(nodes, x, {"y0": (None,) * 4}, weights)
    refused_cheaply(proto, r"LSTM \d+: a layer of shape \(\d+,\) is too large")
    nodes = [make("MatMul", ["x", "w"], [f"y{n}"]) for n in range(400)]
    proto = graph_of(nodes, x, {"y399": (None,) * 3}, {"w": weights["w"][0, :size]})
    model = from_onnx(proto)
    assert len({id(layer) for layer in model.layers.values()}) == 1
    assert len(model.layers) == 400


def test_nodes_and_layers_take_memory_too():
    weights = {"W": np.zeros((1, 4, 1), "f4"), "R": np.zeros((1, 4, 1), "f4")}
    for op, count, what in (("Neg", 12000, "a node"), ("LSTM", 4000, "a (layer|node)")):
        held = weights if op == "LSTM" else {}
        nodes = [make(op, ["x", *held], [f"y{n}"]) for n in range(count)]
        proto = graph_of(nodes, {"x": np.zeros((1, 1, 1), "f4")}, {"y0": (None,) * 3}, held)
        with pytest.raises(ValueError, match=rf"{op} \d+: {what} of shape .* is too large"):
            from_onnx(proto)


def test_sizes_that_an_input_tells():
    proto = graph_of([make("Relu", ["x"], ["y"])], {"x": np.zeros((1, 1, 4), "f4")}, {"y": None})
    for size, what in ((1 << 40, "too large"), (-1, "the input x has a size below zero")):
        proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = size
        refused_cheaply(proto, what, lambda data: from_onnx(data).module())


def test_an_honest_model_may_be_run_on_much(tmp_path):
    """What a run makes is in proportion to what it is given, too."""
    to_onnx(Chain(Embedding(9, 64, seed=0), Linear(64, 64, seed=1)), tmp_path / "m.onnx")
    (y, *_) = from_onnx(tmp_path / "m.onnx").run(np.zeros((4000, 32), np.int64))
    assert y.nbytes > LEAST


class TestExternal:
    """Numbers in files beside the model's."""

    def saved(self, folder, location="m.data"):
        """A model whose weights lie in another file; its path, and what it computes."""
        folder.mkdir(exist_ok=True)
        linear = Linear(40, 30, seed=1)
        to_onnx(linear, folder / "m.onnx")
        proto = onnx.load(folder / "m.onnx")
        onnx.save(
            proto,
            folder / "m.onnx",
            save_as_external_data=True,
            location="m.data",
            size_threshold=0,
        )
        self.change(folder / "m.onnx", location=location)
        return folder / "m.onnx", linear

    def change(self, path, **values):
        proto = onnx.load(path, load_external_data=False)
        for tensor in proto.graph.initializer:
            for entry in tensor.external_data:
                entry.value = str(values.get(entry.key, entry.value))
        path.write_bytes(proto.SerializeToString())

    def test_beside_the_model(self, tmp_path, monkeypatch):
        path, linear = self.saved(tmp_path / "in")
        x = np.ones((2, 3, 40), "f4")
        assert_close({"y": from_onnx(path).run(x)[0]}, {"y": linear(x)}, 1e-6)
        what = "give the path of the model"
        with pytest.raises(ValueError, match=what):
            from_onnx(path.read_bytes())
        monkeypatch.chdir(path.parent)
        assert_close({"y": from_onnx("m.onnx").run(x)[0]}, {"y": linear(x)}, 1e-6)
        for source in (path.read_bytes(), onnx.load(path, load_external_data=False)):
            with pytest.raises(ValueError, match=what):  # though m.data is where we are
                from_onnx(source)

    @pytest.mark.parametrize("kind", ["absolute", "above", "link", "missing", "folder", "below"])
    def test_elsewhere(self, tmp_path, kind):
        folder = tmp_path / "in"
        elsewhere = tmp_path / "other.data"
        names = {"absolute": str(elsewhere), "above": "../other.data", "folder": "."}
        path, _ = self.saved(
            folder, names.get(kind, "other/o.data" if kind == "below" else "o.data")
        )
        elsewhere.write_bytes((folder / "m.data").read_bytes())
        if kind == "link":
            (folder / "o.data").symlink_to(elsewhere)
        if kind == "below":
            (folder / "other").mkdir()
            (folder / "other" / "o.data").write_bytes(elsewhere.read_bytes())
        with pytest.raises(ValueError, match=r"m\.onnx .*is not in the folder of the model"):
            from_onnx(path)

    def test_of_attributes(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        Path("secret").write_bytes(bytes(4))
        tensor = numpy_helper.from_array(np.zeros(1, "f4"), "t")
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="secret")
        proto = graph_of([make("Constant", [], ["c"], value=tensor)], X, {"c": (1,)})
        with pytest.raises(ValueError, match="give the path of the model"):
            from_onnx(proto)

    @pytest.mark.parametrize(
        "values",
        [{"offset": -8}, {"offset": 10**9}, {"length": 10**9}, {"length": -1}, {"length": "x"}],
    )
    def test_places_that_there_are_not(self, tmp_path, values):
        path, _ = self.saved(tmp_path / "in")
        self.change(path, **values)
        with pytest.raises(ValueError, match=r"m\.onnx is not a readable ONNX model"):
            from_onnx(path)


def test_bytes_are_a_file_too(tmp_path, rng):
    path, layer = tmp_path / "M.ONNX", GRU(2, 3, seed=1)
    to_onnx(layer, path, lengths=False, state=False)
    x = rng.standard_normal((4, 2, 2)).astype("f4")
    data = path.read_bytes()
    for source in (path, str(path), data, bytearray(data), memoryview(data)):
        assert_close({"y": from_onnx(source).run(x)[0]}, {"y": layer(x)[0]}, 1e-6)
    with pytest.raises(ValueError, match="the model is not a readable ONNX model"):
        from_onnx(data[:100])
    for strange in (None, 3, [data]):
        with pytest.raises(TypeError, match="source must be a path, bytes or an onnx"):
            from_onnx(strange)


def test_suffixes_in_capitals(tmp_path, capsys):
    to_rtneural(GRU(2, 3, seed=1), tmp_path / "M.JSON")
    assert main(["convert", str(tmp_path / "M.JSON"), str(tmp_path / "M.Onnx")]) == 0
    assert main(["convert", str(tmp_path / "M.Onnx"), str(tmp_path / "N.SafeTensors")]) == 0
    assert "GRU; 63 parameters" in capsys.readouterr().out


def packed(rng):
    """What torch writes of pack_padded_sequence(enforce_sorted=False): sort, run, put back."""
    proto, inputs = recurrent(rng, "LSTM", {}, ragged=True)
    weights = list(proto.graph.initializer)
    nodes = [
        make("Shape", ["sequence_lens"], ["count"]),
        make("Cast", ["sequence_lens"], ["long"], to=onnx.TensorProto.INT64),
        make("TopK", ["long", "count"], ["sorted", "order"], axis=-1, largest=1),
        make("Gather", ["X", "order"], ["x"], axis=1),
        make("Cast", ["sorted"], ["lens"], to=onnx.TensorProto.INT32),
        make("ReduceProd", ["count"], ["all"], keepdims=0),
        make("Range", ["zero", "all", "one"], ["places"]),
        make(
            "ConstantOfShape",
            ["count"],
            ["blank"],
            value=numpy_helper.from_array(np.zeros(1, "i8")),
        ),
        make("ScatterElements", ["blank", "order", "places"], ["back"], axis=0),
        make("LSTM", ["x", "W", "R", "B", "lens"], ["y", "h", "c"], hidden_size=4),
        make("Gather", ["y", "back"], ["Y"], axis=2),
        make("Gather", ["h", "back"], ["Y_h"], axis=1),
    ]
    held = {t.name: numpy_helper.to_array(t) for t in weights}
    held |= {"zero": np.array(0), "one": np.array(1)}
    shapes = {"Y": (None,) * 4, "Y_h": (None,) * 3}
    return graph_of(nodes, inputs, shapes, held), proto, inputs


def test_ragged_sequences_in_any_order_as_torch_writes_them(rng):
    proto, plain, inputs = packed(rng)
    got = from_onnx(proto).run(**inputs)
    for mine, theirs in zip(got, from_onnx(plain).run(**inputs), strict=False):
        assert_close({"y": mine}, {"y": theirs}, 1e-6)
    inputs["sequence_lens"] = np.array([2, 5, 4], np.int32)
    for mine, theirs in zip(
        from_onnx(proto).run(**inputs), run_by_runtime(proto, inputs), strict=True
    ):
        assert_close({"y": mine}, {"y": theirs}, 2e-5)


def test_an_operator_that_is_not_known_is_named_whatever_is_read_of_it():
    graph = helper.make_graph([], "g", [], [])
    for node, what in (
        (make("Unique", ["x"], ["u", "", "y"], "u1"), r"the operator Unique \(Unique u1\)"),
        (make("SequenceMap", ["x"], ["y"], body=graph), r"the operator SequenceMap \(S.* 0\)"),
        (make("Mine", ["x"], ["y"], domain="d"), r"the operator d\.Mine \(Mine 0\)"),
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(onnx.checker, "check_model", lambda *_: None)
            with pytest.raises(ValueError, match=rf"rnncore cannot represent {what}"):
                from_onnx(graph_of([node], X, {"y": (None,)}))


def test_axes_and_shapes_are_whole_numbers():
    for op, value in (("Unsqueeze", [0j]), ("Reshape", [1.0]), ("Expand", [2.5])):
        nodes, held = [make(op, ["x", "s"], ["y"])], {"s": np.array(value)}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(onnx.checker, "check_model", lambda *_: None)
            with pytest.raises(ValueError, match=rf"{op} 0: .*integer"):
                from_onnx(graph_of(nodes, X, {"y": (None,)}, held)).run([1])


def test_a_graph_reads_only_what_there_is(monkeypatch):
    monkeypatch.setattr(onnx.checker, "check_model", lambda *_: None)
    for nodes, what in (
        ([make("Neg", ["q"], ["y"])], "Neg 0 reads 'q', which nothing before it makes"),
        ([make("Neg", ["x"], ["q"])], "the graph reads 'y', which nothing before it makes"),
    ):
        with pytest.raises(ValueError, match=what):
            from_onnx(graph_of(nodes, X, {"y": (1,)}))
