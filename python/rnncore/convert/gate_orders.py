"""In which order programs stack the gates of a cell, as letters of our gates.

i, f and o are an LSTM's input, forget and output gate, g its candidate; r, z and n a GRU's reset
gate, update gate and candidate.
"""

from __future__ import annotations

from .common import GATES

#: By program and cell. DyNet (`VanillaLSTMBuilder`), TensorFlow 1 (`BasicLSTMCell`, `LSTMCell`),
#: Sonnet and Haiku add 1 to the sum of the forget gate, which their biases do not hold. "kaldi" is
#: nnet3's `LstmNonlinearityComponent`, "kaldi-nnet1" its `LstmProjected`.
GATE_ORDERS: dict[str, dict[str, str]] = {
    "torch": {"lstm": "ifgo", "gru": "rzn"},
    "cudnn": {"lstm": "ifgo", "gru": "rzn"},
    "keras": {"lstm": "ifgo", "gru": "zrn"},
    "onnx": {"lstm": "iofg", "gru": "zrn"},
    "dynet": {"lstm": "ifog"},
    "kaldi": {"lstm": "ifgo"},
    "kaldi-nnet1": {"lstm": "gifo"},
    "tensorflow1": {"lstm": "igfo"},
    "sonnet": {"lstm": "igfo"},
    "haiku": {"lstm": "igfo"},
}


def order_of(gate_order: str | None, cell: str) -> str:
    """Return the letters of a cell's gates in an order given so, or by the name of a program.

    Raises `ValueError` for another cell's letters, and for a program that does not stack its gates.
    """
    own: str = GATES[cell]
    if gate_order is None or (cell == "rnn" and gate_order in GATE_ORDERS):
        return own
    order = gate_order if isinstance(gate_order, str) else ""
    order = GATE_ORDERS.get(order, {}).get(cell, order)
    if sorted(order) != sorted(own):
        raise ValueError(
            f"gate_order of a {cell} must be the letters {own} in another order or one of "
            f"{', '.join(name for name in GATE_ORDERS if cell in GATE_ORDERS[name])}; "
            f"got {gate_order!r:.80}"
        )
    return order
