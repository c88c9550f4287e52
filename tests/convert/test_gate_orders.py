"""Other programs' orders of gates: against their equations, and against what their files say."""

import numpy as np
import pytest
from rnncore import GRU, LSTM, RNN, GRUCell, LSTMCell
from rnncore.convert import GATE_ORDERS, from_keras, from_torch, to_onnx
from rnncore.convert.common import GATES, regate

from tests.support.compare import assert_close, assert_same

LAYERS = {"lstm": LSTM, "gru": GRU}


@pytest.mark.parametrize(
    ("program", "cell"), [(p, c) for p, cells in GATE_ORDERS.items() for c in cells]
)
def test_rows_are_put_into_ours(program, cell):
    layer = LAYERS[cell](3, 4, 2, bidirectional=True, seed=1)
    order = GATE_ORDERS[program][cell]
    theirs = {n: regate(a, GATES[cell], order) for n, a in layer.state_dict().items()}
    for asked in (program, order):
        assert_same(from_torch(theirs, gate_order=asked).params, layer.params)


def test_cells_and_projections():
    for module in (LSTMCell(3, 4, seed=1), LSTM(3, 4, proj_size=2, seed=1)):
        theirs = {
            name: array if "hr" in name else regate(array, "ifgo", "ifog")
            for name, array in module.state_dict().items()
        }
        assert_same(from_torch(theirs, gate_order="dynet").params, module.params)


def test_what_is_no_order():
    lstm, gru, rnn = (kind(3, 4, seed=1).state_dict() for kind in (LSTM, GRU, RNN))
    for state, order in ((lstm, "ifo"), (lstm, "ifgg"), (lstm, "zrn"), (lstm, "IFGO"), (lstm, 5)):
        with pytest.raises(ValueError, match="gate_order of a lstm must be the letters ifgo in"):
            from_torch(state, gate_order=order)
    with pytest.raises(ValueError, match="rzn in another order or one of torch, cudnn, keras, o"):
        from_torch(gru, gate_order="dynet")
    with pytest.raises(ValueError, match="gate_order of a rnn must be the letters h"):
        from_torch(rnn, gate_order="ifgo")
    assert_same(from_torch(rnn, gate_order="keras").params, rnn)
    assert from_torch(GRUCell(3, 4).state_dict(), gate_order="zrn")


# Against the programs' equations


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def numbers(rng, projected):
    """Weights as a program has them: of the input, of the recurrence and one bias."""
    seen = 2 if projected else 4
    shapes = {"W_x": (16, 3), "W_h": (16, seen), "b": (16,), "peepholes": (3, 4), "W_r": (2, 4)}
    return {name: rng.standard_normal(shape) for name, shape in shapes.items()}


NAMES = {"weight_ih_l0": "W_x", "weight_hh_l0": "W_h", "bias_l0": "b"}


@pytest.mark.parametrize(("program", "letters"), [("dynet", "ifog"), ("tensorflow1", "igfo")])
def test_a_forget_gate_to_which_1_is_added(rng, program, letters):
    """DyNet's VanillaLSTMGates and TensorFlow 1's BasicLSTMCell: sigma(W x + U h + b + 1)."""
    weights = {n: a for n, a in numbers(rng, False).items() if n in NAMES.values()}
    x, h, c, outputs = rng.standard_normal((6, 3)), np.zeros(4), np.zeros(4), []
    for x_t in x:
        sums = np.split(weights["W_x"] @ x_t + weights["W_h"] @ h + weights["b"], 4)
        gate = dict(zip(letters, sums, strict=True))
        c = sigmoid(gate["f"] + 1) * c + sigmoid(gate["i"]) * np.tanh(gate["g"])
        h = sigmoid(gate["o"]) * np.tanh(c)
        outputs.append(h)
    at = letters.index("f") * 4
    weights["b"][at : at + 4] += 1  # which their biases do not hold
    lstm = from_torch(weights, names=NAMES, gate_order=program)
    assert_close({"y": lstm(x[:, None])[0][:, 0]}, {"y": np.stack(outputs)}, 1e-12)


@pytest.mark.parametrize(("program", "letters"), [("kaldi-nnet1", "gifo"), ("kaldi", "ifgo")])
def test_kaldis_with_peepholes_and_a_projection(rng, program, letters):
    """LstmProjected and LstmNonlinearityComponent: o sees c(t), i and f see c(t-1)."""
    weights = numbers(rng, True)
    p_i, p_f, p_o = weights["peepholes"]
    x, r, c, outputs = rng.standard_normal((6, 3)), np.zeros(2), np.zeros(4), []
    for x_t in x:
        sums = np.split(weights["W_x"] @ x_t + weights["W_h"] @ r + weights["b"], 4)
        gate = dict(zip(letters, sums, strict=True))
        i, f = sigmoid(gate["i"] + p_i * c), sigmoid(gate["f"] + p_f * c)
        c = f * c + i * np.tanh(gate["g"])
        r = weights["W_r"] @ (sigmoid(gate["o"] + p_o * c) * np.tanh(c))
        outputs.append(r)
    names = NAMES | {"weight_ch_l0": "peepholes", "weight_hr_l0": "W_r"}
    lstm = from_torch(weights, "", names=names, gate_order=program, peephole=True)
    assert_close({"y": lstm(x[:, None])[0][:, 0]}, {"y": np.stack(outputs)}, 1e-12)


# Against other readers and writers


@pytest.mark.parametrize(("gates", "cell"), [(4, "lstm"), (3, "gru")])
def test_keras_arrays(rng, gates, cell):
    shapes = ((3, 4 * gates), (4, 4 * gates), *([(2, 12)] if cell == "gru" else [(16,)]))
    arrays = [rng.standard_normal(shape) for shape in shapes]
    state = dict(zip(("weight_ih_l0", "weight_hh_l0"), (a.T for a in arrays), strict=False))
    state["bias_l0"] = arrays[2]
    assert_same(from_torch(state, gate_order="keras").params, from_keras(arrays).params)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_onnx_arrays(tmp_path, cell):
    onnx = pytest.importorskip("onnx", reason="the package onnx reads the format")
    from onnx import numpy_helper

    layer = LAYERS[cell](3, 4, seed=1)
    to_onnx(layer, tmp_path / "m.onnx")
    graph = onnx.load(str(tmp_path / "m.onnx")).graph
    (node,) = (node for node in graph.node if node.op_type == cell.upper())
    held = {array.name: numpy_helper.to_array(array) for array in graph.initializer}
    w, r, b = (held[name][0] for name in node.input[1:4])
    state = {"weight_ih_l0": w, "weight_hh_l0": r, "bias_l0": b}
    assert_same(from_torch(state, gate_order="onnx").params, layer.params)
