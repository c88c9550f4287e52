"""Layer classes of other packages, by name: which of Keras's layers each computes, and when."""

from __future__ import annotations

from typing import Any, NamedTuple


class Other(NamedTuple):
    """A class of another package; what it computes is known where its settings are these."""

    package: str
    kind: str  # the class of Keras's that it derives from
    where: dict[str, Any]
    own: dict[str, Any]  # what it does beyond that class, as a setting of ours


OTHERS = {
    # rnnmorph/model.py of 0.4.1: reads from the end, then reverses the outputs in time.
    "ReversedLSTM": Other(
        "rnnmorph",
        "LSTM",
        {"go_backwards": True, "return_sequences": True, "return_state": False},
        {"reverse_outputs": True},
    ),
}
