"""Graphs of modules: against the same calls by hand, gradients, lengths, states, refusals."""

import copy
import pickle

import numpy as np
import pytest
from rnncore import (
    GRU,
    LSTM,
    RNN,
    Bidirectional,
    Chain,
    Conv1d,
    DotAttention,
    Dropout,
    Embedding,
    GlobalMaxPool,
    Graph,
    Linear,
    Merge,
    Permute,
    Readout,
    RepeatVector,
    ReturnState,
    Reversed,
    Tanh,
    load,
)

from tests.support.compare import assert_same, near
from tests.support.gradients import check_layer, check_recurrent

OWN = {"dtype": "float64", "batch_first": True}


def skip():
    """A skip over a layer, and a branch of its own."""
    return Graph(
        ["x"],
        [
            ("lstm", LSTM(3, 4, seed=1, **OWN), "x"),
            ("all", Merge("concat"), "x", "lstm"),
            ("gru", GRU(7, 4, seed=2, **OWN), "all"),
            ("sum", Merge("sum"), "lstm", "gru"),
            ("end", Readout(RNN(4, 2, seed=3, **OWN)), "sum"),
        ],
        ["sum", "end"],
    )


def translator(lengths=None):
    """An encoder whose states start a decoder, which attends to the encoder's steps."""
    return Graph(
        ["source", "target"],
        [
            ("encoder", ReturnState(LSTM(3, 4, seed=1, **OWN)), "source"),
            (
                "decoder",
                ReturnState(LSTM(2, 4, seed=2, **OWN)),
                "target",
                ("encoder", 1),
                ("encoder", 2),
            ),
            ("context", DotAttention(dtype="float64"), "decoder", "encoder"),
            ("both", Merge("concat"), "decoder", "context"),
            ("out", Linear(8, 3, dtype="float64", seed=3), "both"),
        ],
        ["out", ("decoder", 2)],
    )


def test_is_the_calls_of_its_nodes(rng):
    graph, x = skip(), rng.standard_normal((2, 5, 3))
    part = graph.parts
    a, s0 = part["lstm"](x)
    b, s1 = part["gru"](np.concatenate([x, a], axis=-1))
    end, s2 = part["end"](a + b)
    (y, last), state = graph(x)
    assert_same({"y": y, "last": last}, {"y": a + b, "last": end})
    assert_same({"h": state[0][0], "g": state[1], "e": state[2]}, {"h": s0[0], "g": s1, "e": s2})
    assert list(dict(graph.children())) == ["lstm", "all", "gru", "sum", "end"]
    assert "gru.weight_hh_l0" in graph.params


def test_a_state_goes_in_and_out(rng):
    graph, x = skip(), rng.standard_normal((2, 6, 3))
    (whole, _), state = graph(x)
    (first, _), middle = graph(x[:, :2])
    for again in (graph(x[:, 2:], middle), graph(x[:, 2:], state=middle)):
        (rest, _), after = again
        assert_same({"y": np.concatenate([first, rest], axis=1)}, {"y": whole})
        assert_same({"h": after[1]}, {"h": state[1]})


@pytest.mark.parametrize("lengths", [None, [5, 2]], ids=["even", "ragged"])
def test_gradients(rng, lengths):
    graph, x = skip(), rng.standard_normal((2, 5, 3))
    check_recurrent(graph, x, graph(x)[1], lengths=lengths)
    check_recurrent(graph, x, lengths=lengths)


@pytest.mark.parametrize(
    "lengths", [None, {"source": [4, 2], "target": [1, 3]}], ids=["even", "ragged"]
)
def test_several_inputs_and_outputs(rng, lengths):
    graph = translator()
    source, target = rng.standard_normal((2, 4, 3)), rng.standard_normal((2, 3, 2))
    check_layer(graph, source, target, lengths=lengths)
    out, c = graph(source, target, lengths=lengths)
    for row in range(2):
        ends = [None, None] if lengths is None else [lengths[n][row] for n in graph.inputs]
        own = source[row : row + 1, : ends[0]], target[row : row + 1, : ends[1]]
        alone, last = graph(*own)
        near(out[row : row + 1, : ends[1]], alone, 1e-14)
        near(c[row : row + 1], last, 1e-14)


def test_one_module_in_two_nodes(rng):
    shared = Linear(3, 3, dtype="float64", seed=1)
    nodes = [
        ("a", shared, "x"),
        ("b", Tanh(), "a"),
        ("c", shared, "b"),
        ("y", Merge("mul"), "a", "c"),
    ]
    graph, x = Graph(["x"], nodes, ["y"]), rng.standard_normal((4, 3))
    first = shared(x)
    near(graph(x), first * shared(np.tanh(first)), 1e-15)
    y, back = graph.vjp(x)
    graph.zero_grad()
    back(np.ones_like(y))
    assert_same({"g": graph.grads["a.weight"]}, {"g": graph.grads["c.weight"]})
    h, d = 1e-6, np.zeros((3, 3))
    d[1, 2] = h
    ends = []
    for sign in (1, -1):
        shared.params["weight"] += sign * d
        ends.append(graph(x).sum())
        shared.params["weight"] -= sign * d
    assert abs((ends[0] - ends[1]) / (2 * h) - graph.grads["a.weight"][1, 2]) < 1e-7


def test_indices_and_unread_values_have_no_gradient(rng):
    nodes = [
        ("table", Embedding(5, 3, dtype="float64", seed=1), "ids"),
        ("unread", Tanh(), "x"),
        ("y", Tanh(), "table"),
    ]
    graph = Graph(["ids", "x"], nodes, ["y"])
    y, back = graph.vjp(np.array([[1, 4]]), rng.standard_normal((2, 2)))
    assert back(np.ones_like(y)) == (None, None)
    assert graph.grads["table.weight"][[1, 4]].all()


def test_lengths_follow_the_steps(rng):
    """Those of inputs that are merged are the same; what starts anew runs over all of its steps."""
    graph = Graph(
        ["a", "b"],
        [
            ("both", Merge("concat"), "a", "b"),
            ("end", Readout(GRU(4, 3, seed=1, **OWN)), "both"),
            ("again", RepeatVector(3), "end"),
            ("gru", GRU(3, 2, seed=2, **OWN), "again"),
        ],
        ["gru"],
    )
    a, b = rng.standard_normal((2, 2, 5, 2))
    want, _ = graph(a[1:, :2], b[1:, :2])
    for lengths in ([5, 2], {"a": [5, 2]}, {"b": [5, 2]}):
        near(graph(a, b, lengths=lengths)[0][1:], want, 1e-15)
    assert graph.ragged_inputs == ("a", "b")
    with pytest.raises(ValueError, match=r"lengths of b must be those of a, which has the same st"):
        graph(a, b, lengths={"a": [5, 2], "b": [5, 5]})
    assert not graph.keeps_steps
    assert Chain(graph.parts["both"], Tanh()).keeps_steps


def test_lengths_go_through_convolutions(rng):
    """As in a chain, alone and within others; what has no steps has no lengths either."""
    graph = Graph(
        ["x"],
        [
            ("conv", Conv1d(3, 4, 3, 2, seed=1, **OWN), "x"),
            ("gru", GRU(4, 4, seed=2, **OWN), "conv"),
            ("sum", Merge(), "conv", "gru"),
            ("pool", GlobalMaxPool(batch_first=True), "sum"),
        ],
        ["sum", "pool"],
    )
    x = rng.standard_normal((2, 9, 3))
    check_recurrent(graph, x, lengths=[9, 5])
    (y, pool), _ = graph(x, lengths=[9, 5])
    (alone, last), _ = graph(x[1:, :5])
    near(y[1:, :2], alone, 1e-14)
    near(pool[1:], last, 1e-14)
    assert graph.out_lengths([9, 5]).tolist() == [4, 2]
    inner = Chain(Conv1d(3, 4, 3, 2, seed=1, **OWN), Tanh())
    chain = Chain(inner, GRU(4, 4, seed=2, **OWN), GRU(4, 2, seed=3, **OWN))
    near(Chain(chain, Tanh())(x, lengths=[9, 5])[0][1:, :2], np.tanh(chain(x[1:, :5])[0]), 1e-14)
    pooled = Chain(inner, GlobalMaxPool(batch_first=True))
    near(pooled(x, lengths=[9, 5])[1:], pooled(x[1:, :5]), 1e-14)
    again = Chain(Readout(GRU(3, 4, seed=1, **OWN)), RepeatVector(3), GRU(4, 2, seed=2, **OWN))
    near(again(x, lengths=[9, 5])[0][1:], again(x[1:, :5])[0], 1e-14)
    with pytest.raises(ValueError, match="a Permute takes no lengths: give rows of equal length"):
        Chain(Permute(2, 1), GRU(9, 2, seed=2, **OWN))(x, lengths=[9, 5])


def test_a_graph_that_attends_takes_lengths_in_a_chain(rng):
    nodes = [("y", DotAttention(dtype="float64"), "x", "x")]
    chain = Chain(Tanh(), Graph(["x"], nodes, ["y"]))
    x = rng.standard_normal((2, 5, 3))
    near(chain(x, lengths=[5, 2])[1:, :2], chain(x[1:, :2]), 1e-15)
    check_layer(chain, x, lengths=[5, 2])
    with pytest.raises(TypeError, match="takes no lengths"):
        Chain(Tanh())(x, lengths=[5, 2])


def test_in_a_chain_and_in_itself(rng):
    inner = skip()
    outer = Graph(
        ["x"], [("in", inner, "x"), ("y", Linear(2, 2, dtype="float64"), ("in", 1))], ["y"]
    )
    x = rng.standard_normal((2, 4, 3))
    y, state = outer(x)
    near(y, outer.parts["y"](inner(x)[0][1]), 1e-15)
    check_recurrent(outer, x, state, lengths=[4, 1])
    chain = Chain(Linear(3, 3, dtype="float64", seed=4), outer)
    check_recurrent(chain, x, lengths=[3, 4])


def test_protocol(rng, tmp_path):
    graph, x = skip(), rng.standard_normal((2, 4, 3))
    want = graph(x)[0][0]
    graph.save(tmp_path / "graph.safetensors")
    twins = (
        pickle.loads(pickle.dumps(graph)),
        copy.deepcopy(graph),
        load(tmp_path / "graph.safetensors"),
    )
    for twin in twins:
        assert_same({"y": twin(x)[0][0]}, {"y": want})
    result, back = graph.vjp(x)
    dx, dstate = back((None, None))
    assert not dx.any()
    assert not dstate[1].any()
    with pytest.raises(RuntimeError, match="already run"):
        back((None, None))
    del result


def test_dropout_is_drawn_in_training(rng):
    graph = Graph(["x"], [("d", Dropout(0.5, seed=1), "x"), ("y", Merge(), "d", "x")], ["y"])
    x = rng.standard_normal((4, 3))
    near(graph(x), 2 * x, 0)
    check_layer(graph, x)


@pytest.mark.parametrize(
    ("inputs", "nodes", "outputs", "what"),
    [
        ([], [], ["x"], "inputs must be names, each another one"),
        (["x", "x"], [], ["x"], "inputs must be names, each another one"),
        ([3], [], ["x"], "inputs must have names, each another one, got 3"),
        (["x"], [("x", Tanh(), "x")], ["x"], "nodes must have names, each another one, got 'x'"),
        (["x"], [("a", Tanh(), "b"), ("b", Tanh(), "x")], ["b"], "node 'a' reads 'b', which is no"),
        (["x"], [("a", Tanh(), "x")], ["b"], "outputs reads 'b', which is no input and no node"),
        (
            ["x"],
            [("a", Tanh(), ("x", -1))],
            ["a"],
            "the output that node 'a' reads must be at least",
        ),
        (["x"], [("a", Tanh(), "x")], [], "outputs must name at least one value"),
    ],
)
def test_graphs_that_are_none(inputs, nodes, outputs, what):
    with pytest.raises(ValueError, match=what):
        Graph(inputs, nodes, outputs)


def test_refusals(rng):
    graph, x = skip(), rng.standard_normal((2, 4, 3))
    with pytest.raises(
        TypeError, match=r"nodes must be \(name, module, reads, \.\.\.\), got \('a'"
    ):
        Graph(["x"], [("a", Tanh())], ["a"])
    with pytest.raises(TypeError, match="node 'a' must be a Module, got str"):
        Graph(["x"], [("a", "tanh", "x")], ["a"])
    with pytest.raises(ValueError, match="all layers must have the same batch_first: a has True"):
        Graph(["x"], [("a", GRU(3, 3, batch_first=True), "x"), ("b", GRU(3, 3), "a")], ["b"])
    with pytest.raises(TypeError, match="the graph takes x: got 0 arrays"):
        graph()
    with pytest.raises(TypeError, match="the graph takes source, target: got 3 arrays"):
        translator()(x, x, x)
    with pytest.raises(ValueError, match="state must be a tuple with one entry for each of the 3"):
        graph(x, (None,))
    with pytest.raises(ValueError, match="dy must be given for each of the 2 outputs"):
        graph.vjp(x)[1](x)
    with pytest.raises(ValueError, match="dy must be given for each of the 2 outputs"):
        translator().vjp(x, x[..., :2])[1](x)
    with pytest.raises(
        ValueError, match="lengths must be given for each of the inputs by name: so"
    ):
        translator()(x, x[..., :2], lengths=[4, 4])
    with pytest.raises(ValueError, match="lengths has 'y', whose steps no node reads"):
        graph(x, lengths={"y": [4, 4]})
    with pytest.raises(ValueError, match="no node takes lengths"):
        Graph(["x"], [("a", Tanh(), "x")], ["a"])(x, lengths=[4, 4])
    with pytest.raises(ValueError, match="x has no output 1, it has 1"):
        Graph(["x"], [("a", Tanh(), ("x", 1))], ["a"])(x)
    with pytest.raises(TypeError, match="Graph cannot run as a stream: it does not say how"):
        graph.stream()


class TestReturnState:
    @pytest.mark.parametrize("lengths", [None, [5, 2]], ids=["even", "ragged"])
    @pytest.mark.parametrize(
        ("layer", "count"),
        [
            (GRU(3, 4, seed=1, **OWN), 1),
            (LSTM(3, 4, seed=1, **OWN), 2),
            (LSTM(3, 4, 2, bidirectional=True, seed=1, **OWN), 8),
            (Readout(LSTM(3, 4, bidirectional=True, seed=1, **OWN)), 4),
            (Bidirectional(LSTM(3, 4, seed=1, **OWN), GRU(3, 2, seed=2, **OWN)), 3),
            (Readout(Reversed(RNN(3, 4, seed=1, **OWN))), 1),
        ],
        ids=["gru", "lstm", "stacked", "readout", "bidirectional", "reversed"],
    )
    def test_states_are_arrays(self, rng, layer, count, lengths):
        module, x = ReturnState(layer), rng.standard_normal((2, 5, 3))
        y, *states = module(x, lengths=lengths)
        assert [s.shape[0] for s in states] == [2] * count
        assert_same({"y": y}, {"y": layer(x, lengths=lengths)[0]})
        check_layer(module, x, lengths=lengths)
        check_layer(module, x, *states, lengths=lengths)
        assert module.keeps_steps == (not isinstance(layer, Readout))

    def test_in_their_order(self, rng):
        layer, x = LSTM(3, 4, bidirectional=True, seed=1, **OWN), rng.standard_normal((2, 5, 3))
        _, (h, c) = layer(x)
        _, *states = ReturnState(layer)(x)
        wanted = (h[0], c[0], h[1], c[1])
        assert_same(dict(enumerate(states)), dict(enumerate(wanted)))
        again, _ = layer(x, (h, c))
        assert_same({"y": ReturnState(layer)(x, *states)[0]}, {"y": again})

    def test_a_gradient_may_be_none(self, rng):
        module, x = ReturnState(LSTM(3, 4, seed=1, **OWN)), rng.standard_normal((2, 5, 3))
        (_, h, c), back = module.vjp(x)
        one = back(None, None, np.ones_like(c))
        (_, h, c), back = module.vjp(x)
        assert_same({"dx": back(None, np.zeros_like(h), np.ones_like(c))}, {"dx": one})
        assert not module.vjp(x)[1](None).any()

    def test_refusals(self, rng):
        with pytest.raises(TypeError, match=r"layer must have states \(B, H\), got Linear"):
            ReturnState(Linear(3, 4))
        with pytest.raises(TypeError, match=r"layer must have states \(B, H\), got float"):
            ReturnState(0.5)
        with pytest.raises(ValueError, match="there must be 2 dstates, or none: got 1"):
            ReturnState(LSTM(3, 4)).vjp(np.zeros((5, 2, 3), "f4"))[1](None, None)
        with pytest.raises(ValueError, match="there must be 2 first states, or none: got 1"):
            ReturnState(LSTM(3, 4))(np.zeros((5, 2, 3), "f4"), np.zeros((2, 4), "f4"))
