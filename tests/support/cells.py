"""Every cell that the tests walk: the layer's class, its options, its parameters, its reference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from rnncore import reference
from rnncore.reference import (
    IDENTITY,
    LSTM,
    SIGMOID,
    TANH,
    DeepTransition,
    NormalisedLSTM,
    activation,
    clipped,
)


@dataclass(frozen=True)
class CellUnderTest:
    """One cell. Its parameters are torch's four, less what is missing, and what it has besides."""

    layer: str
    options: dict[str, Any]
    gates: int
    reference: reference.Cell
    #: Parameters of torch's four that this cell has not.
    missing: tuple[str, ...] = ()
    #: Parameters with some numbers for each hidden unit: how many; each has the shape (many, H).
    units: dict[str, int] = field(default_factory=dict)
    #: Whether h is projected, to half of H.
    projected: bool = False

    @property
    def states(self) -> str:
        """The letters of the arrays that make a state."""
        return "hc" if self.layer == "LSTM" else "h"

    @property
    def depth(self) -> int:
        """How many transitions lie between two steps."""
        return self.options.get("transition_depth", 1)

    @property
    def shortcut(self) -> bool:
        """Whether the last of them sees h(t-1)."""
        return self.options.get("shortcut", False)

    def deep(self, depth: int, shortcut: bool) -> CellUnderTest:
        """The same with a deep transition."""
        options = self.options | {"transition_depth": depth, "shortcut": shortcut}
        return replace(
            self, options=options, reference=DeepTransition(self.reference, depth, shortcut)
        )


CELLS = {
    "rnn_tanh": CellUnderTest("RNN", {"nonlinearity": "tanh"}, 1, reference.CELLS["rnn_tanh"]),
    "rnn_relu": CellUnderTest("RNN", {"nonlinearity": "relu"}, 1, reference.CELLS["rnn_relu"]),
    "lstm": CellUnderTest("LSTM", {}, 4, reference.CELLS["lstm"]),
    "gru": CellUnderTest("GRU", {}, 3, reference.CELLS["gru"]),
    "gru_reset_before": CellUnderTest(
        "GRU", {"reset_after": False}, 3, reference.CELLS["gru_reset_before"]
    ),
}

MGU = CellUnderTest("MGU", {}, 2, reference.CELLS["mgu"])
_NO_W_H = ("weight_hh", "bias_hh")
_NO_BIAS = ("bias_ih", "bias_hh")
_NO_INPUT, _NO_FORGET, _NO_OUTPUT = ({f"{n}_gate": False} for n in ("input", "forget", "output"))
_LSTM_PEEPHOLE = CellUnderTest("LSTM", {"peephole": True}, 4, LSTM(), units={"weight_ch": 3})
_LEAKY = ("leaky_relu", 0.1)
_CHOSEN = (("hard_sigmoid", 0.3, 0.4), "softsign", ("scaled_tanh", 1.7159, 0.6667))
_BOUNDED = clipped(SIGMOID, 0.8), clipped(TANH, 0.8)
_CHOSEN_REFERENCE = tuple(activation(name) for name in _CHOSEN)


#: The gated family, one variation at a time, and some together.
GATED = {
    "rnn_leaky_relu": CellUnderTest(
        "RNN", {"nonlinearity": _LEAKY}, 1, reference.Vanilla(activation(_LEAKY))
    ),
    "lstm_peephole": _LSTM_PEEPHOLE,
    "lstm_coupled": CellUnderTest("LSTM", {"coupled": True}, 3, LSTM(gates="igo", coupled=True)),
    "lstm_coupled_peephole": CellUnderTest(
        "LSTM",
        {"coupled": True, "peephole": True},
        3,
        LSTM(gates="igo", coupled=True),
        units={"weight_ch": 2},
    ),
    "lstm_no_input_gate": CellUnderTest("LSTM", _NO_INPUT, 3, LSTM(gates="fgo")),
    "lstm_no_forget_gate": CellUnderTest("LSTM", _NO_FORGET, 3, LSTM(gates="igo")),
    "lstm_no_output_gate": CellUnderTest("LSTM", _NO_OUTPUT, 3, LSTM(gates="ifg")),
    "lstm_no_input_activation": CellUnderTest(
        "LSTM", {"activations": ("sigmoid", "identity", "tanh")}, 4, LSTM(tau=IDENTITY)
    ),
    "lstm_no_output_activation": CellUnderTest(
        "LSTM", {"activations": ("sigmoid", "tanh", "identity")}, 4, LSTM(upsilon=IDENTITY)
    ),
    "lstm_chosen": CellUnderTest("LSTM", {"activations": _CHOSEN}, 4, LSTM(*_CHOSEN_REFERENCE)),
    "lstm_clipped": CellUnderTest("LSTM", {"cell_clip": 0.5}, 4, LSTM(clip=0.5)),
    "rnn_gate_clipped": CellUnderTest("RNN", {"gate_clip": 0.8}, 1, reference.Vanilla(_BOUNDED[1])),
    "lstm_gate_clipped": CellUnderTest("LSTM", {"gate_clip": 0.8}, 4, LSTM(*_BOUNDED)),
    "gru_gate_clipped": CellUnderTest(
        "GRU", {"gate_clip": 0.8}, 3, reference.GRUResetAfter(*_BOUNDED)
    ),
    "gru_reset_before_gate_clipped": CellUnderTest(
        "GRU",
        {"gate_clip": 0.8, "reset_after": False},
        3,
        reference.GRUResetBefore(*_BOUNDED),
    ),
    "lstm_projected": CellUnderTest("LSTM", {}, 4, LSTM(), projected=True),
    "lstm_projected_peephole_clipped": replace(
        _LSTM_PEEPHOLE,
        options={"peephole": True, "cell_clip": 0.5},
        reference=LSTM(clip=0.5),
        projected=True,
    ),
    "lstm_projected_coupled": CellUnderTest(
        "LSTM", {"coupled": True}, 3, LSTM(gates="igo", coupled=True), projected=True
    ),
    "lstm_layer_norm": CellUnderTest(
        "LSTM", {"layer_norm": True}, 4, NormalisedLSTM(), _NO_BIAS, {"norm": 14}
    ),
    "lstm_layer_norm_gate": CellUnderTest(
        "LSTM", {"layer_norm": "gate"}, 4, NormalisedLSTM(each_gate=True), _NO_BIAS, {"norm": 14}
    ),
    "lstm_layer_norm_chosen_clipped": CellUnderTest(
        "LSTM",
        {"layer_norm": True, "activations": (*_CHOSEN[:2], "softsign"), "cell_clip": 0.5},
        4,
        NormalisedLSTM(*_CHOSEN_REFERENCE[:2], activation("softsign"), clip=0.5),
        _NO_BIAS,
        {"norm": 14},
    ),
    "gru_chosen": CellUnderTest(
        "GRU", {"activations": _CHOSEN[:2]}, 3, reference.GRUResetAfter(*_CHOSEN_REFERENCE[:2])
    ),
    "gru_reset_before_chosen": CellUnderTest(
        "GRU",
        {"reset_after": False, "activations": _CHOSEN[:2]},
        3,
        reference.GRUResetBefore(*_CHOSEN_REFERENCE[:2]),
    ),
    "mgu": MGU,
    "mgu_chosen": CellUnderTest(
        "MGU", {"activations": _CHOSEN[:2]}, 2, reference.MGU(*_CHOSEN_REFERENCE[:2])
    ),
    "indrnn": CellUnderTest("IndRNN", {}, 1, reference.IndRNN(), _NO_W_H, {"weight_hh": 1}),
    "indrnn_tanh": CellUnderTest(
        "IndRNN",
        {"nonlinearity": "tanh"},
        1,
        reference.IndRNN(activation("tanh")),
        _NO_W_H,
        {"weight_hh": 1},
    ),
    "mingru": CellUnderTest("MinGRU", {}, 2, reference.MinGRU(), _NO_W_H),
    "minlstm": CellUnderTest("MinLSTM", {}, 3, reference.MinLSTM(), _NO_W_H),
    "minlstm_chosen": CellUnderTest(
        "MinLSTM",
        {"activations": ("softplus", "tanh")},
        3,
        reference.MinLSTM(activation("softplus"), activation("tanh")),
        _NO_W_H,
    ),
}


def _deep() -> Iterator[tuple[str, CellUnderTest]]:
    shallow = {"mgu": MGU} | CELLS
    for name in ("rnn_tanh", "lstm", "gru", "gru_reset_before", "mgu"):
        for depth in (2, 3):
            yield f"{name}_depth{depth}", shallow[name].deep(depth, False)
            yield f"{name}_depth{depth}_shortcut", shallow[name].deep(depth, True)
    yield "lstm_coupled_depth3_shortcut", GATED["lstm_coupled"].deep(3, True)


#: Several transitions between two steps.
DEEP = dict(_deep())

#: What the activations' alpha and beta are, where they have them.
_CONSTANTS: dict[str, tuple[float, ...]] = {
    "affine": (0.7, -0.2),
    "leaky_relu": (0.1,),
    "thresholded_relu": (0.3,),
    "scaled_tanh": (1.7159, 0.6667),
    "hard_sigmoid": (0.3, 0.4),
    "elu": (0.6,),
}


def _activated() -> Iterator[tuple[str, CellUnderTest]]:
    for name in reference.ACTIVATIONS:
        spec = (name, *_CONSTANTS.get(name, ()))
        yield (
            f"mingru_{name}",
            CellUnderTest(
                "MinGRU",
                {"activations": (spec, spec)},
                2,
                reference.MinGRU(activation(spec), activation(spec)),
                _NO_W_H,
            ),
        )


#: Every activation, as a gate's and as the candidate's, where its values do not feed on themselves.
ACTIVATED = dict(_activated())

VARIANTS = GATED | DEEP | ACTIVATED

_ALL = (IDENTITY,) * 3
_LINEAR = {"activations": ("identity",) * 2}
_LINEAR_LSTM = {"activations": ("identity",) * 3}
_LINEAR_RNN = CellUnderTest("RNN", {"nonlinearity": "identity"}, 1, reference.Vanilla(IDENTITY))
_LINEAR_LONG_SHORT = CellUnderTest("LSTM", _LINEAR_LSTM, 4, LSTM(*_ALL))
_LINEAR_GRU = CellUnderTest("GRU", _LINEAR, 3, reference.GRUResetAfter(*_ALL[:2]))

#: The identity for every activation: on small whole numbers everything is exact.
LINEAR_CELLS = {
    "rnn_linear": _LINEAR_RNN,
    "rnn_linear_depth2": _LINEAR_RNN.deep(2, True),
    "lstm_linear": _LINEAR_LONG_SHORT,
    "lstm_linear_depth2": _LINEAR_LONG_SHORT.deep(2, False),
    "lstm_linear_peephole": replace(
        _LSTM_PEEPHOLE, options={"peephole": True} | _LINEAR_LSTM, reference=LSTM(*_ALL)
    ),
    "lstm_linear_projected": replace(_LINEAR_LONG_SHORT, projected=True),
    "gru_linear": _LINEAR_GRU,
    "gru_linear_depth2": _LINEAR_GRU.deep(2, False),
    "gru_reset_before_linear": CellUnderTest(
        "GRU", {"reset_after": False} | _LINEAR, 3, reference.GRUResetBefore(*_ALL[:2])
    ),
    "mgu_linear": CellUnderTest("MGU", _LINEAR, 2, reference.MGU(*_ALL[:2])),
    "indrnn_linear": CellUnderTest(
        "IndRNN",
        {"nonlinearity": "identity"},
        1,
        reference.IndRNN(IDENTITY),
        _NO_W_H,
        {"weight_hh": 1},
    ),
    "mingru_linear": CellUnderTest("MinGRU", _LINEAR, 2, reference.MinGRU(*_ALL[:2]), _NO_W_H),
}
