"""More rows than 32 bits can number are refused by name, before anything of their size is made."""

import numpy as np
import pytest
from rnncore import GRU, LSTM, RNN, Forest, Linear, LSTMCell
from rnncore.trees.order import Order

ROWS = 1 << 31  # one too many
STEPS, BATCH = 1 << 20, 1 << 11
MESSAGE = rf"x must have at most {ROWS - 1} rows, got {ROWS}"


def wide(*shape, dtype=np.float32):
    """An array of that shape which takes no memory."""
    return np.broadcast_to(np.zeros((), dtype), shape)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", [RNN, LSTM, GRU])
@pytest.mark.parametrize("shape", [(STEPS, BATCH, 1), (ROWS, 1, 1), (1, ROWS, 1), (ROWS, 1)])
def test_sequences(kind, shape, dtype):
    layer, x = kind(1, 1, dtype=dtype, seed=0), wide(*shape, dtype=dtype)
    for call in (layer, layer.vjp):
        with pytest.raises(ValueError, match=MESSAGE):
            call(x)


@pytest.mark.parametrize(
    "options", [{"num_layers": 2}, {"bidirectional": True}, {"batch_first": True}], ids=str
)
def test_stacks(options):
    layer = GRU(1, 1, seed=0, **options)
    with pytest.raises(ValueError, match=MESSAGE):
        layer(wide(STEPS, BATCH, 1))


def test_empty_sequences():
    with pytest.raises(ValueError, match=MESSAGE):
        GRU(1, 1, seed=0)(wide(0, ROWS, 1))


def test_cells():
    with pytest.raises(ValueError, match=MESSAGE):
        LSTMCell(1, 1, seed=0)(wide(ROWS, 1))


def test_streams():
    stream = GRU(1, 1, seed=0).stream(BATCH)
    with pytest.raises(ValueError, match=MESSAGE):
        stream.run(wide(STEPS, BATCH, 1))
    with pytest.raises(ValueError, match=rf"batch must have at most {ROWS - 1} rows"):
        Linear(1, 1, seed=0).stream(ROWS)


def test_forests():
    rows, one_tree = wide(ROWS, dtype=np.int32), [0, ROWS]
    for name, call in (
        ("parent", lambda: Forest(rows, one_tree)),
        ("begin", lambda: Forest([-1], rows)),
        ("prev", lambda: Order.of(one_tree, wide(2, ROWS, dtype=np.int32))),
        ("wave", lambda: Order(np.array(one_tree), np.zeros((1, 1), np.int32), rows)),
    ):
        with pytest.raises(ValueError, match=rf"{name} must have at most .*, got {ROWS}"):
            call()
