"""Graphs compiled for the shapes of their inputs: the numbers of their nodes one by one."""

import threading

import numpy as np
import pytest
from rnncore.convert import from_onnx
from rnncore.convert.budget import Budget
from rnncore.convert.onnx.plan.batching import Batch, batched
from rnncore.convert.onnx.plan.tracing import Trace

from tests.support.onnx_graphs import helper, onnx, run_by_runtime
from tests.support.onnx_nodes import IMAGE, by_node, conv, f32, graph, near, plans, steps_of

TensorProto = onnx.TensorProto


class TestSteps:
    """Parts of arrays, arithmetic, sums over axes: all of it in one program."""

    @pytest.mark.parametrize(
        "nodes",
        [
            [("Transpose", "x", "a", {"perm": [2, 0, 1]}), ("Relu", "a", "y", {})],
            [("Reshape", "x shape", "a", {}), ("Sqrt", "a", "b", {}), ("Neg", "b", "y", {})],
            [("Transpose", "x", "a", {}), ("Reshape", "a shape", "y", {})],
            [("Slice", "x first last axis back", "y", {})],
            [("Split", "x", "a b", {"axis": 1}), ("Sub", "a b", "y", {})],
            [("Concat", "x x", "a", {"axis": 1}), ("Tanh", "a", "y", {})],
            [("Concat", "x half", "y", {"axis": 2})],
            [("Gather", "x order", "y", {"axis": 2})],
            [("Gather", "x one", "y", {"axis": 1})],
            [("Expand", "thin wide", "a", {}), ("Mul", "a x", "y", {})],
            [("Tile", "x twice", "y", {})],
            [("Pad", "x pads half", "y", {})],
            [("Pad", "x pads", "y", {"mode": "reflect"})],
            [("Pad", "x pads", "y", {"mode": "edge"})],
            [("Pad", "x cut", "y", {})],
            [("Abs", "x", "a", {}), ("Pow", "a two", "b", {}), ("Pow", "b half", "y", {})],
            [("Clip", "x half two", "y", {})],
            [("Clip", "x  two", "y", {})],
            [("Max", "x half", "a", {}), ("Min", "a two", "y", {})],
            [("Div", "two x", "a", {}), ("Reciprocal", "a", "y", {})],
            [("ReduceMean", "x", "y", {"axes": [1]})],
            [("ReduceMax", "x", "y", {"axes": [-1, 0], "keepdims": 0})],
            [("ReduceMin", "x", "y", {})],
            [("ReduceSum", "x axis", "y", {})],
            [("ReduceL2", "x", "y", {"axes": [0, 2]})],
            [("Softmax", "x", "y", {"axis": 2})],
            [("MatMul", "x m", "a", {}), ("Add", "n a", "y", {})],
            [("Flatten", "x", "a", {}), ("Gemm", "a g n", "y", {"transB": 1})],
            [("Shape", "x", "s", {}), ("Cast", "s", "f", {"to": 1}), ("Mul", "x f", "y", {})],
        ],
        ids=lambda nodes: "-".join(node[0] for node in nodes),
    )
    @pytest.mark.parametrize("shape", [(2, 4, 3), (1, 4, 3)])
    def test_against_the_nodes(self, nodes, shape):
        rng = np.random.default_rng(5)
        constants = {
            "shape": np.array([-1, 2]),
            "first": np.array([-1]),
            "last": np.array([-9]),
            "axis": np.array([1]),
            "back": np.array([-2]),
            "half": np.float32(0.5),
            "two": np.float32(2),
            "order": np.array([2, 0, 0, 1]),
            "one": np.array(3),
            "wide": np.array([1, 4, 1]),
            "thin": f32(rng, 1, 1, 3),
            "twice": np.array([2, 1, 3]),
            "pads": np.array([0, 1, 2, 0, 2, 0]),
            "cut": np.array([0, -1, 2, 1, 2, -1]),
            "m": f32(rng, 3, 6),
            "n": f32(rng, 6),
            "g": f32(rng, 6, 12),
        }
        if nodes[0][0] == "Concat" and "half" in nodes[0][1]:
            constants["half"] = f32(rng, *shape)
        read = " ".join(ins for _, ins, _, _ in nodes).split()
        used = {name: value for name, value in constants.items() if name in read}
        proto = graph(nodes, {"x": ("f", (None, 4, 3))}, "y", used, 13)
        for op in proto.graph.node:
            op.input[:] = ["" if name == "none" else name for name in op.input]
        model, x = from_onnx(proto), np.abs(f32(rng, *shape)) + np.float32(0.1)
        near(model.run(x), by_node(model, {"x": x}))
        near(model.run(-x), by_node(model, {"x": -x}))
        assert steps_of(model) <= 1

    def test_numbers_that_are_none(self):
        """They come out where they went in."""
        nodes = [("Relu", "x", "a", {}), ("Max", "a x", "b", {}), ("ReduceMax", "b", "y", {})]
        model = from_onnx(graph(nodes, {"x": ("f", (2, 3))}, "b y"))
        x = np.array([[1, np.nan, -2], [3, 4, 5]], np.float32)
        whole, largest = model.run(x)
        assert np.array_equal(np.isnan(whole), np.isnan(x))
        assert np.isnan(largest).all()

    @pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0, 0)])
    def test_nothing(self, shape):
        nodes = [("Relu", "x", "a", {}), ("Concat", "a x", "y", {"axis": 0})]
        model = from_onnx(graph(nodes, {"x": ("f", ("a", "b"))}, "y"))
        x = np.zeros(shape, np.float32)
        for _ in range(2):
            near(model.run(x), by_node(model, {"x": x}))

    def test_float64_and_whole_numbers(self, rng):
        nodes = [("Exp", "x", "a", {}), ("Gather", "a i", "b", {}), ("Add", "b b", "y", {})]
        model = from_onnx(graph(nodes, {"x": ("d", ("n", 3)), "i": ("i", (2,))}, "y"))
        x, i = rng.standard_normal((4, 3)), np.array([3, 0])
        near(model.run(x, i), by_node(model, {"x": x, "i": i}), 1e-15)
        assert model.run(x, i)[0].dtype == np.float64


class TestRecurrences:
    @pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
    @pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
    @pytest.mark.parametrize("batch", [1, 3])
    def test_against_onnx_runtime(self, rng, op, direction, batch):
        gates, count = {"LSTM": 4, "GRU": 3, "RNN": 1}[op], 2 if direction[0] == "b" else 1
        names = ("h", "c") if op == "LSTM" else ("h",)
        constants = {
            "w": f32(rng, count, gates * 5, 3),
            "r": f32(rng, count, gates * 5, 5),
            "b": f32(rng, count, 2 * gates * 5),
        }
        inputs = dict.fromkeys(names, ("f", (count, batch, 5))) | {"x": ("f", ("t", batch, 3))}
        outputs = "y yh yc" if op == "LSTM" else "y yh"
        attributes = {"hidden_size": 5, "direction": direction}
        nodes = [(op, f"x w r b none {' '.join(names)}", outputs, attributes)]
        proto = graph(nodes, inputs, outputs, constants)
        proto.graph.node[0].input[4] = ""
        model = from_onnx(proto)
        for steps in (1, 4):
            given = {n: f32(rng, count, batch, 5) for n in names}
            given |= {"x": f32(rng, steps, batch, 3)}
            near(model.run(**given), run_by_runtime(proto, given), 1e-5)
            near(model.run(**given), run_by_runtime(proto, given), 1e-5)


class TestLoopsUnrolled:
    """Products with one matrix that do not wait for each other are one."""

    def graph(self, rng, steps, twice=False):
        """h(t) = tanh(W x(t) + U h(t-1) + b), written step by step; or a layer on top of it."""
        constants = {"w": f32(rng, 4, 4), "u": f32(rng, 4, 4), "b": f32(rng, 4)}
        constants |= {"v": f32(rng, 4, 4), "zero": np.zeros((2, 4), np.float32)}
        nodes, outputs = [], []
        for layer in range(2 if twice else 1):
            first = "zero"
            for t in range(steps):
                x, end = f"x{t}" if layer == 0 else f"h0_{t}", f"{layer}_{t}"
                if layer == 0:
                    constants |= {f"t{t}": np.array(t)}
                    nodes.append(("Gather", f"x t{t}", x, {"axis": 0}))
                nodes += [
                    ("Gemm", f"{x} w b", f"a{end}", {"transB": 1}),
                    ("MatMul", f"{first} {'uv'[layer]}", f"r{end}", {}),
                    ("Add", f"a{end} r{end}", f"s{end}", {}),
                    ("Tanh", f"s{end}", f"h{end}", {}),
                ]
                first = f"h{end}"
                outputs.append(first)
        return graph(nodes, {"x": ("f", (steps, 2, 4))}, " ".join(outputs), constants)

    @pytest.mark.parametrize("twice", [False, True])
    @pytest.mark.parametrize("steps", [1, 2, 7])
    def test_against_onnx_runtime(self, rng, steps, twice):
        """On top, one matrix serves both layers: the upper one's products wait for the lower's."""
        proto = self.graph(rng, steps, twice)
        model, x = from_onnx(proto), f32(rng, steps, 2, 4)
        near(model.run(x), run_by_runtime(proto, {"x": x}), 1e-5)
        assert steps_of(model) == 1

    def test_what_is_together(self, rng):
        model, x = from_onnx(self.graph(rng, 7)), f32(rng, 7, 2, 4)
        trace = Trace(model._body, {"x": x}, Budget(1 << 30))
        sizes = [len(item.nodes) for item in batched(trace.nodes) if isinstance(item, Batch)]
        assert sizes == [7]

    def test_batches_that_wait_for_each_other(self, rng):
        """a is W x and d W V x, c is V x and b V W x: then all stay as they are."""
        constants = {"w": f32(rng, 4, 4), "v": f32(rng, 4, 4)}
        nodes = [
            ("MatMul", "x w", "a", {}),
            ("MatMul", "a v", "b", {}),
            ("MatMul", "x v", "c", {}),
            ("MatMul", "c w", "d", {}),
        ]
        proto = graph(nodes, {"x": ("f", (3, 4))}, "b d", constants)
        model, x = from_onnx(proto), f32(rng, 3, 4)
        near(model.run(x), run_by_runtime(proto, {"x": x}), 1e-5)


def branches(rng, condition):
    """x + 1 or x * 2 in two branches, one of which is chosen by nodes that make `c`."""
    value = [helper.make_tensor_value_info("r", TensorProto.FLOAT, None)]
    then = helper.make_graph([helper.make_node("Add", ["x", "one"], ["r"])], "then", [], value)
    other = helper.make_graph([helper.make_node("Add", ["x", "x"], ["r"])], "else", [], value)
    nodes = [*condition, ("If", "c", "y", {"then_branch": then, "else_branch": other})]
    return nodes, {"one": np.float32(1), "limit": np.array(3), "zero": np.float32(0)}


class TestWhatIsKnown:
    def test_a_branch_by_shape(self, rng):
        chosen = [
            ("Shape", "x", "s", {}),
            ("Gather", "s zero_at", "n", {}),
            ("Less", "n limit", "c", {}),
        ]
        nodes, constants = branches(rng, chosen)
        constants |= {"zero_at": np.array(0)}
        model = from_onnx(graph(nodes, {"x": ("f", ("n", 2))}, "y", constants))
        for rows in (2, 5, 2, 5):
            x = f32(rng, rows, 2)
            near(model.run(x), [x + 1 if rows < 3 else x + x])
        assert len(plans(model)) == 2

    def test_a_branch_by_an_input(self, rng):
        """A whole number without axes: there is a plan for each."""
        nodes, constants = branches(rng, [("Less", "k limit", "c", {})])
        inputs = {"x": ("f", (2,)), "k": ("i", ())}
        model = from_onnx(graph(nodes, inputs, "y", constants))
        x = f32(rng, 2)
        for k in (1, 7, 1, 3):
            near(model.run(x, np.array(k)), [x + 1 if k < 3 else x + x])
        assert len(plans(model)) == 3

    def test_a_branch_by_numbers(self, rng):
        """It is not known before: there is no plan."""
        chosen = [("ReduceSum", "x", "t", {"keepdims": 0}), ("Less", "t zero", "c", {})]
        nodes, constants = branches(rng, chosen)
        model = from_onnx(graph(nodes, {"x": ("f", (2,))}, "y", constants))
        for x in (np.float32([1, 2]), np.float32([-1, -2]), np.float32([3, 1])):
            near(model.run(x), [x + 1 if x.sum() < 0 else x + x])
        assert not plans(model)

    def test_a_shape_by_numbers(self, rng):
        nodes = [("NonZero", "x", "i", {}), ("Cast", "i", "f", {"to": 1}), ("Relu", "f", "y", {})]
        model = from_onnx(graph(nodes, {"x": ("f", (4,))}, "y"))
        for x in (np.float32([0, 1, 0, 2]), np.float32([1, 1, 1, 0])):
            assert np.array_equal(model.run(x)[0], np.flatnonzero(x)[None].astype(np.float32))
        assert not plans(model)

    def test_an_output_that_is_known(self, rng):
        model = from_onnx(graph([("Shape", "x", "y", {})], {"x": ("f", ("n", 2))}, "y"))
        for _ in range(2):
            (y,) = model.run(f32(rng, 3, 2))
            assert y.tolist() == [3, 2]
            y[:] = 0  # is the caller's

    def test_an_input_that_is_an_output(self, rng):
        model = from_onnx(graph([("Identity", "x", "y", {})], {"x": ("f", (2,))}, "y x"))
        x = f32(rng, 2)
        for array in model.run(x):
            assert np.array_equal(array, x)
            assert not np.shares_memory(array, x)

    def test_what_zeros_would_be_refused_for(self, rng):
        """Convolutions are not computed for a plan: nodes behind them may refuse zeros."""
        nodes = [
            ("Conv", "x w", "a", {}),
            ("ReduceMax", "a", "b", {"keepdims": 0}),
            ("Cast", "b", "c", {"to": onnx.TensorProto.INT64}),
            ("Sub", "c one", "d", {}),
            ("Gather", "few d", "y", {}),
        ]
        constants = {"w": np.full((1, 1, 1, 1), 3, np.float32), "one": np.array(2)}
        constants |= {"few": np.float32([5])}
        model = from_onnx(graph(nodes, {"x": ("f", (1, 1, 2, 2))}, "y", constants))
        x = np.full((1, 1, 2, 2), 2 / 3, np.float32)
        for _ in range(2):
            assert model.run(x)[0] == 5
        with pytest.raises(ValueError, match=r"Gather 4: .*indices must be in -1\.\.0"):
            model.run(5 * x)

    def test_a_node_that_fails_is_named(self, rng):
        """Also in a plan, between two programs."""
        nodes = [("Exp", "x", "a", {}), ("Gather", "a i", "b", {}), ("Neg", "b", "y", {})]
        inputs = {"x": ("f", (4,)), "i": ("i", (2,))}
        model, x = from_onnx(graph(nodes, inputs, "y")), f32(rng, 4)
        model.run(x, np.array([3, 0]))
        assert steps_of(model) == 3
        with pytest.raises(ValueError, match=r"Gather 1: .*indices must be in -4\.\.3"):
            model.run(x, np.array([3, 4]))
        near(model.run(x, np.array([1, 2])), [-np.exp(x[1:3])])


class TestCalls:
    def model(self, rng):
        constants = conv(rng, outputs=8)
        nodes = [("Conv", "x w w_b", "a", {"pads": [1, 1, 1, 1]}), ("Relu", "a", "y", {})]
        return from_onnx(graph(nodes, {"x": ("f", ("n", 3, "h", "w"))}, "y", constants))

    def test_results_stay(self, rng):
        model = self.model(rng)
        first, second = f32(rng, *IMAGE), f32(rng, *IMAGE)
        (y,) = model.run(first)
        kept = y.copy()
        model.run(second)
        assert np.array_equal(y, kept)
        assert np.array_equal(model.run(first)[0], kept), "every run has the same bits"

    def test_how_x_lies(self, rng):
        model = self.model(rng)
        x = f32(rng, *IMAGE)
        (y,) = model.run(x)
        assert np.array_equal(model.run(np.asfortranarray(x))[0], y)
        assert np.array_equal(model.run(np.repeat(x, 2, axis=3)[..., ::2])[0], y)

    def test_few_plans_are_kept(self, rng):
        model = self.model(rng)
        for width in range(1, 30):
            assert model.run(f32(rng, 1, 3, 2, width))[0].shape == (1, 8, 2, width)
        assert len(plans(model)) <= 8

    def test_threads(self, rng):
        """Each has arrays of its own."""
        model = self.model(rng)
        xs = [f32(rng, 1, 3, 20, 20) for _ in range(4)]
        want = [model.run(x)[0] for x in xs]
        wrong = []

        def work(at):
            for _ in range(50):
                if not np.array_equal(model.run(xs[at])[0], want[at]):
                    wrong.append(at)

        threads = [threading.Thread(target=work, args=(at,)) for at in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
