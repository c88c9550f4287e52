"""If, Loop and Scan: graphs within nodes that see the values around them."""

import numpy as np
import pytest
from rnncore import LSTM
from rnncore.convert import from_onnx
from rnncore.convert.onnx.control import If

from tests.support.compare import assert_close

pytest.importorskip("onnx", reason="the package onnx reads and writes the format")

import onnx
from onnx import helper, numpy_helper

from tests.support.onnx_graphs import GATES, INPUTS, H, graph_of, run_by_runtime

make, FLOAT, INT, BOOL = (
    helper.make_node,
    *(getattr(onnx.TensorProto, name) for name in ("FLOAT", "INT64", "BOOL")),
)


def info(name, kind=FLOAT, shape=None):
    return helper.make_tensor_value_info(name, kind, shape)


def graph(nodes, inputs=(), outputs=("y",), arrays=()):
    """A graph within a node; inputs and outputs are names, or what describes them."""
    described = [
        [info(value) if isinstance(value, str) else value for value in values]
        for values in (inputs, outputs)
    ]
    held = [numpy_helper.from_array(np.asarray(a), n) for n, a in dict(arrays).items()]
    return helper.make_graph(nodes, "inner", *described, held)


def agrees(proto, inputs, tolerance=1e-6):
    """What we make, which ONNX Runtime makes as well."""
    got = from_onnx(proto).run(**inputs)
    for mine, theirs in zip(got, run_by_runtime(proto, inputs), strict=True):
        assert mine.dtype == theirs.dtype
        assert_close({"y": mine}, {"y": theirs}, tolerance)
    return got


def choice(condition="c", then=None, other=None):
    """y = x + x, or else x - 1."""
    then = then or graph([make("Add", ["x", "x"], ["y"])])
    other = other or graph([make("Sub", ["x", "one"], ["y"])], arrays={"one": np.float32(1)})
    return make("If", [condition], ["out"], "choice", then_branch=then, else_branch=other)


X = {"x": np.arange(6, dtype=np.float32).reshape(2, 3)}


class TestIf:
    @pytest.mark.parametrize("taken", [True, False])
    def test_either_branch_sees_what_is_around(self, taken):
        proto = graph_of([choice()], X | {"c": np.array(taken)}, {"out": None})
        (y,) = agrees(proto, X | {"c": np.array(taken)})
        np.testing.assert_array_equal(y, X["x"] * 2 if taken else X["x"] - 1)

    @pytest.mark.parametrize("taken", [True, False])
    def test_a_known_condition_leaves_one_branch(self, taken):
        strange = graph([make("Mine", ["x"], ["y"], domain="d")])
        branches = {"other": strange} if taken else {"then": strange}
        after = make("Neg", ["out"], ["z"])
        proto = graph_of([choice(**branches), after], X, {"z": None}, {"c": np.array(taken)})
        proto.opset_import.append(helper.make_opsetid("d", 1))
        model = from_onnx(proto)
        assert not any(isinstance(node.function, If) for node in model._body.nodes)
        (z,) = model.run(**X)
        np.testing.assert_array_equal(z, -X["x"] * 2 if taken else 1 - X["x"])

    def test_branches_of_several_nodes_may_use_the_same_names(self):
        first, second = choice(), choice("d")
        second.output[0], second.name = "twice", first.name
        for branch in second.attribute:
            for node in branch.g.node:
                node.input[0] = "out"
        known = {"c": np.array(True), "d": np.array(False)}
        (y,) = from_onnx(graph_of([first, second], X, {"twice": None}, known)).run(**X)
        np.testing.assert_array_equal(y, X["x"] * 2 - 1)

    @pytest.mark.parametrize("first", [True, False])
    def test_names_that_are_taken_are_refused(self, first):
        """Values of a branch that is left get names of their own."""
        same = make("Neg", ["x"], ["0: y"])
        nodes = [same, choice()] if first else [choice(), same]
        proto = graph_of(nodes, X, {"out": None}, {"c": np.array(True)})
        with pytest.raises(ValueError, match="the name '0: y' is taken"):
            from_onnx(proto)

    def test_one_within_the_other(self):
        inner = choice("d")
        inner.output[0] = "y"
        outer = choice(then=graph([inner]))
        for c in (True, False):
            for d in (True, False):
                given = {"c": np.array(c), "d": np.array(d)}
                want = X["x"] * 2 if c and d else X["x"] - 1
                for known in ({}, {"c": given["c"]}, {"d": given["d"]}, given):
                    inputs = X | {n: a for n, a in given.items() if n not in known}
                    (y,) = agrees(graph_of([outer], inputs, {"out": None}, known), inputs)
                    np.testing.assert_array_equal(y, want)

    def test_a_branch_that_fails_does_so_when_it_is_taken(self):
        """Its nodes read constants alone, and are tried when the file is read."""
        bad = {"a": np.zeros(2, np.float32), "s": np.array([3])}
        proto = graph_of(
            [choice(other=graph([make("Reshape", ["a", "s"], ["y"])], arrays=bad))],
            X | {"c": np.array(True)},
            {"out": None},
        )
        model = from_onnx(proto)
        assert model.run(**X, c=np.array(True))[0].shape == (2, 3)
        with pytest.raises(ValueError, match="If choice: Reshape 0: cannot reshape"):
            model.run(**X, c=np.array(False))

    def test_layers_in_branches_have_names_of_their_own(self, rng):
        def recurrence(seed):
            drawn = np.random.default_rng(seed)
            shapes = {"W": (1, GATES["LSTM"] * H, INPUTS), "R": (1, GATES["LSTM"] * H, H)}
            weights = {n: drawn.standard_normal(s).astype(np.float32) for n, s in shapes.items()}
            node = make("LSTM", ["x", "W", "R"], ["y"], hidden_size=H)
            return graph([node], arrays=weights)

        x = {"x": rng.standard_normal((5, 2, INPUTS)).astype(np.float32)}
        inputs = x | {"c": np.array(True)}
        proto = graph_of([choice(then=recurrence(1), other=recurrence(2))], inputs, {"out": None})
        layers = from_onnx(proto).layers
        assert list(layers) == [
            "If choice then_branch: LSTM 0",
            "If choice else_branch: LSTM 0",
        ]
        assert all(type(layer) is LSTM for layer in layers.values())
        for taken in (True, False):
            agrees(proto, x | {"c": np.array(taken)}, 2e-5)

    def test_conditions_are_one_boolean(self, monkeypatch):
        monkeypatch.setattr(onnx.checker, "check_model", lambda *_: None)
        inputs = X | {"c": np.array([True, False])}
        with pytest.raises(ValueError, match="If choice: can only convert an array of size 1"):
            from_onnx(graph_of([choice()], inputs, {"out": None})).run(**inputs)


def counting(nodes, states, outputs, arrays=()):
    """The body of a Loop: turn, condition and states; the condition stays."""
    inputs = [info("turn", INT, ()), info("on", BOOL, ()), *states]
    keep = make("Identity", ["on"], ["go"])
    return graph([keep, *nodes], inputs, [info("go", BOOL, ()), *outputs], arrays)


class TestLoop:
    def body(self):
        """s' = s + x, and s' squared; `x` is around."""
        nodes = [make("Add", ["s", "x"], ["s2"]), make("Mul", ["s2", "s2"], ["square"])]
        return counting(nodes, [info("s", shape=(2, 3))], ["s2", info("square", shape=(2, 3))])

    def test_states_are_carried_and_outputs_collected(self):
        node = make("Loop", ["n", "", "x"], ["last", "squares"], body=self.body())
        inputs = X | {"n": np.array(4)}
        proto = graph_of([node], inputs, {"last": None, "squares": None})
        last, squares = agrees(proto, inputs)
        np.testing.assert_array_equal(last, 5 * X["x"])
        np.testing.assert_array_equal(squares, [(n * X["x"]) ** 2 for n in (2, 3, 4, 5)])
        last, squares = agrees(proto, X | {"n": np.array(0)})
        np.testing.assert_array_equal(last, X["x"])
        assert squares.shape == (0, 2, 3)

    def test_a_condition_ends_it(self):
        limit = {"limit": np.float32(20)}
        nodes = [
            make("Add", ["s", "x"], ["s2"]),
            make("ReduceMax", ["s2"], ["most"], keepdims=0),
            make("Less", ["most", "limit"], ["go"]),
        ]
        inputs = [info("turn", INT, ()), info("on", BOOL, ()), "s"]
        body = graph(nodes, inputs, [info("go", BOOL, ()), "s2"], limit)
        node = make("Loop", ["", "go0", "x"], ["last"], body=body)
        proto = graph_of([node], X, {"last": None}, {"go0": np.array(True)})
        (last,) = agrees(proto, X)
        np.testing.assert_array_equal(last, 4 * X["x"])
        proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.array(False), "go0"))
        np.testing.assert_array_equal(agrees(proto, X)[0], X["x"])

    def test_one_that_does_not_end_is_ended(self):
        for many in ([], [np.array(1 << 62)]):
            names = ["n"] if many else [""]
            node = make("Loop", [*names, "", "x"], ["last", "squares"], body=self.body())
            proto = graph_of([node], X, {"last": None}, {"n": many[0]} if many else {})
            with pytest.raises(ValueError, match=r"Loop 0: .* too large: a file of"):
                from_onnx(proto).run(**X)
        constant = make("Loop", ["", "", "k"], ["last", "squares"], body=self.body())
        held = {"k": X["x"], "x": X["x"]}
        with pytest.raises(ValueError, match=r"Loop 0: .* too large: a file of"):
            from_onnx(graph_of([constant], {"z": X["x"]}, {"last": None}, held))

    def test_a_sequence_is_carried(self):
        """As PyTorch writes a list that grows in a loop."""
        nodes = [
            make("Cast", ["turn"], ["t"], to=FLOAT),
            make("Mul", ["x", "t"], ["scaled"]),
            make("SequenceInsert", ["list", "scaled"], ["longer"]),
        ]
        kind = helper.make_tensor_sequence_value_info("list", FLOAT, None)
        after = helper.make_tensor_sequence_value_info("longer", FLOAT, None)
        body = counting(nodes, [kind], [after])
        outer = [
            make("SequenceEmpty", [], ["none"]),
            make("Loop", ["n", "", "none"], ["all"], body=body),
            make("ConcatFromSequence", ["all"], ["y"], axis=0, new_axis=1),
        ]
        inputs = X | {"n": np.array(3)}
        (y,) = agrees(graph_of(outer, inputs, {"y": None}), inputs)
        np.testing.assert_array_equal(y, [n * X["x"] for n in range(3)])

    def test_errors_are_named_from_without_to_within(self):
        body = counting([make("Reshape", ["s", "n"], ["s2"])], ["s"], ["s2"])
        node = make("Loop", ["two", "", "x"], ["last"], "outer", body=body)
        inputs = X | {"n": np.array([4])}
        proto = graph_of([node], inputs, {"last": None}, {"two": np.array(2)})
        with pytest.raises(ValueError, match="Loop outer: Reshape 1: cannot reshape"):
            from_onnx(proto).run(**inputs)

    def test_bodies_that_do_not_fit_are_refused(self, monkeypatch):
        monkeypatch.setattr(onnx.checker, "check_model", lambda *_: None)
        node = make("Loop", ["n", "", "x", "x"], ["last"], body=self.body())
        with pytest.raises(ValueError, match="a body of 3 inputs and 3 outputs, expected 4"):
            from_onnx(graph_of([node], X | {"n": np.array(4)}, {"last": None}))


class TestScan:
    def body(self):
        """h' = tanh(h + x), handed on and collected."""
        nodes = [make("Add", ["h", "x"], ["sum"]), make("Tanh", ["sum"], ["h2"])]
        nodes.append(make("Identity", ["h2"], ["each"]))
        entry = info("x", shape=(2, 3))
        return graph(nodes, [info("h", shape=(2, 3)), entry], ["h2", info("each", shape=(2, 3))])

    @pytest.mark.parametrize("axis", [0, 1, -1])
    @pytest.mark.parametrize("backwards", [0, 1])
    def test_axes_and_directions(self, rng, axis, backwards):
        xs = rng.standard_normal((5, 2, 3)).astype(np.float32)
        node = make(
            "Scan",
            ["h0", "xs"],
            ["h", "hs"],
            body=self.body(),
            num_scan_inputs=1,
            scan_input_axes=[axis],
            scan_input_directions=[backwards],
            scan_output_axes=[axis],
            scan_output_directions=[backwards],
        )
        inputs = {"h0": xs[0], "xs": np.moveaxis(xs, 0, axis)}
        proto = graph_of([node], inputs, {"h": None, "hs": None})
        h, hs = agrees(proto, inputs)
        want, each = inputs["h0"], []
        for x in xs[:: -1 if backwards else 1]:
            want = np.tanh(want + x)
            each.append(want)
        assert_close({"h": h}, {"h": want}, 1e-6)
        stacked = np.stack(each[:: -1 if backwards else 1], axis)
        assert_close({"hs": hs}, {"hs": stacked}, 1e-6)

    def test_no_entries_and_unequal_ones(self, rng):
        node = make("Scan", ["h0", "xs"], ["h", "hs"], body=self.body(), num_scan_inputs=1)
        inputs = {"h0": X["x"], "xs": np.zeros((0, 2, 3), np.float32)}
        h, hs = from_onnx(graph_of([node], inputs, {"h": None, "hs": None})).run(**inputs)
        np.testing.assert_array_equal(h, X["x"])
        assert hs.shape == (0, 2, 3)
        body = graph([make("Add", ["a", "b"], ["y"])], ["a", "b"])
        node = make("Scan", ["a", "b"], ["y"], body=body, num_scan_inputs=2)
        inputs = {"a": np.zeros((2, 1), np.float32), "b": np.zeros((3, 1), np.float32)}
        with pytest.raises(ValueError, match=r"Scan 0: the arrays have \[2, 3\] entries"):
            from_onnx(graph_of([node], inputs, {"y": None})).run(**inputs)


def test_all_unknown_operators_are_listed_wherever_they_are():
    strange = graph([make("Mine", ["x"], ["y"], "m1", domain="d")])
    nodes = [
        choice(then=strange),
        make("Unique", ["x"], ["u"], "one"),
        make("Unique", ["x"], ["v"]),
        make("Det", ["out"], ["z"]),
    ]
    proto = graph_of(nodes, X | {"c": np.array(True)}, {"z": None})
    proto.opset_import.append(helper.make_opsetid("d", 1))
    what = r"the operators Det \(Det 3\), Unique \(2 times\), d\.Mine \(Mine m1\)$"
    with pytest.raises(ValueError, match=f"rnncore cannot represent {what}"):
        from_onnx(proto)
