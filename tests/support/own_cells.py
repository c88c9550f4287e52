"""Cells of the library written as a user would, and the rows of the table that they equal."""

from __future__ import annotations

from typing import Any

from rnncore import cells
from rnncore.cells import CellDefinition, Gate, activation, maximum, minimum, relu, sigmoid, tanh


@cells.define(gates="ifgo", states="hc")
def lstm(i, f, g, o, c):
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    return sigmoid(o) * tanh(c), c


@cells.define(gates="ifgo", states="hc", units=("p_i", "p_f", "p_o"))
def lstm_peephole(i, f, g, o, c, p_i, p_f, p_o):
    i, f = sigmoid(i + p_i * c), sigmoid(f + p_f * c)
    c = f * c + i * tanh(g)
    return sigmoid(o + p_o * c) * tanh(c), c


@cells.define(gates="igo", states="hc")
def lstm_coupled(i, g, o, c):
    i = sigmoid(i)
    c = (1 - i) * c + i * tanh(g)
    return sigmoid(o) * tanh(c), c


@cells.define(gates="ifgo", states="hc")
def lstm_clipped(i, f, g, o, c):
    c = maximum(minimum(sigmoid(f) * c + sigmoid(i) * tanh(g), 0.5), -0.5)
    return sigmoid(o) * tanh(c), c


@cells.define(gates="ifgo", states="hc")
def lstm_chosen(i, f, g, o, c):
    gate = ("hard_sigmoid", 0.3, 0.4)
    c = activation(gate, f) * c + activation(gate, i) * activation("softsign", g)
    return activation(gate, o) * activation(("scaled_tanh", 1.7159, 0.6667), c), c


@cells.define(gates=["r", "z", Gate("n", apart=True)])
def gru(r, z, n_input, n_recurrent, h):
    z, n = sigmoid(z), tanh(n_input + sigmoid(r) * n_recurrent)
    return (1 - z) * n + z * h


@cells.define(gates=["r", "z", Gate("n", of=lambda r, h: sigmoid(r) * h)])
def gru_reset_before(z, n, h):
    z = sigmoid(z)
    return (1 - z) * tanh(n) + z * h


@cells.define(gates=["f", Gate("n", of=lambda f, h: sigmoid(f) * h)])
def mgu(f, n, h):
    f = sigmoid(f)
    return (1 - f) * h + f * tanh(n)


@cells.define(gates=[Gate("n", recurrent=False)], units={"u": (0, 1)})
def indrnn(n, u, h):
    return relu(n + u * h)


@cells.define(gates=[Gate("z", recurrent=False), Gate("n", recurrent=False)])
def mingru(z, n, h):
    z = sigmoid(z)
    return (1 - z) * h + z * n


@cells.define(gates="n")
def rnn_tanh(n):
    return tanh(n)


@cells.define(gates=["i", Gate("f", each=lambda f, c: sigmoid(f) * c), *"go"], states="hc")
def child_sum_lstm(i, f, g, o):
    c = sigmoid(i) * tanh(g) + f
    return sigmoid(o) * tanh(c), c


@cells.define(gates=[Gate("r", each=lambda r, h: sigmoid(r) * h), "z", Gate("n", of=lambda r: r)])
def child_sum_gru(r, z, n, h):
    z = sigmoid(z)
    return (1 - z) * tanh(n) + z * h


@cells.define(
    gates=["z", Gate("k", input=False, each=lambda k, h, c, u: tanh(k + u * h) * c * c)],
    states="hc",
    units={"u": (0.2, 0.9)},
)
def child_sum_odd(z, k, h, c, u):
    return tanh(z + k) * u + h, c * sigmoid(k)


#: Cells with a part of each predecessor.
EACH: dict[str, CellDefinition] = {
    name: globals()[name] for name in ("child_sum_lstm", "child_sum_gru", "child_sum_odd")
}

#: By the names of the rows in `tests.support.cells`.
OWN: dict[str, CellDefinition] = {
    name: value
    for name, value in list(globals().items())
    if isinstance(value, CellDefinition) and name not in EACH
}


def facts(cell: CellDefinition) -> dict[str, Any]:
    """What a definition says beside its nodes."""
    return {"gates": cell.gates, "states": cell.states, "units": cell.units}
