"""How ONNX lays out what a recurrent layer is made of: gates, biases, peepholes, activations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...arrays import Array
from ...nonlinearities import Activation, as_activation
from ...precision import SCALE
from ..common import GATES, refusal, regate

#: The gates in the rows of a node's weights, in our letters.
ORDER = {"rnn": "h", "lstm": "iofg", "gru": "zrn"}
_PEEPHOLES = "iof"

#: Our activations: ONNX's names, and how many of alpha and beta each has.
ACTIVATIONS = {
    "relu": ("Relu", 0),
    "tanh": ("Tanh", 0),
    "sigmoid": ("Sigmoid", 0),
    "affine": ("Affine", 2),
    "leaky_relu": ("LeakyRelu", 1),
    "thresholded_relu": ("ThresholdedRelu", 1),
    "scaled_tanh": ("ScaledTanh", 2),
    "hard_sigmoid": ("HardSigmoid", 2),
    "elu": ("Elu", 1),
    "softsign": ("Softsign", 0),
    "softplus": ("Softplus", 0),
}
_OURS = {name.lower(): (ours, count) for ours, (name, count) in ACTIVATIONS.items()}


def read_activations(
    where: str, names: Sequence[str], alpha: Sequence[float], beta: Sequence[float]
) -> list[Activation]:
    """Our activations of a node's; alpha and beta go, in order, to those that have them."""
    alphas, betas = list(alpha), list(beta)
    read: list[Activation] = []
    for name in names:
        if name.lower() not in _OURS:
            raise refusal("rnncore", f"{where}: the activation {name!r}")
        ours, count = _OURS[name.lower()]
        _, a, b = as_activation(where, ours)
        if count > 0 and alphas:
            a = alphas.pop(0)
        if count > 1 and betas:
            b = betas.pop(0)
        read.append((ours, a, b))
    if alphas or betas:
        raise refusal(
            "rnncore", f"{where}: more of activation_alpha or _beta than {', '.join(names)} have"
        )
    return read


def write_activations(where: str, activations: Sequence[Any]) -> dict[str, Any]:
    """The attributes that say a layer's activations."""
    names, alphas, betas = [], [], []
    for name, alpha, beta in activations:
        if name == "identity":
            name, alpha, beta = "affine", 1.0, 0.0
        if name not in ACTIVATIONS:
            raise refusal("ONNX", f"{where} with the activation {name!r}")
        written, count = ACTIVATIONS[name]
        names.append(written)
        alphas += [float(alpha)] if count > 0 else []
        betas += [float(beta)] if count > 1 else []
    attributes: dict[str, Any] = {"activations": names}
    if alphas:
        attributes["activation_alpha"] = alphas
    if betas:
        attributes["activation_beta"] = betas
    return attributes


def read_weights(
    kind: str, coupled: bool, w: Array, r: Array, b: Array | None, p: Array | None
) -> dict[str, Array]:
    """Our parameters, without a suffix, of one direction of a node's."""
    order, ours = ORDER[kind], GATES[kind]
    if coupled:  # then the rows of f are not used
        ours = ours.replace("f", "")
    arrays = {"weight_ih": w, "weight_hh": r}
    if b is not None:
        arrays["bias_ih"], arrays["bias_hh"] = np.split(b, 2)
    params = {name: regate(array, order, ours) for name, array in arrays.items()}
    if p is not None:
        params["weight_ch"] = regate(p, _PEEPHOLES, ours.replace("g", "")).reshape(-1, r.shape[1])
    return params


def write_weights(kind: str, layer: Any, suffix: str) -> dict[str, Array]:
    """W, R, B and P of one direction of a layer; a coupled gate's rows are zero.

    W and R as the layer holds them; in int8 with W_scale and R_scale, one a row.
    """
    order, size = ORDER[kind], layer.hidden_size
    params = layer.params

    def rows(name: str, into: str, letters: str, ending: str = "") -> Array:
        array = params[name + suffix + ending]
        blocks = dict(zip(letters, array.reshape(len(letters), size, -1), strict=True))
        absent = np.zeros_like(next(iter(blocks.values())))
        stacked = np.concatenate([blocks.get(gate, absent) for gate in into])
        return stacked if array.ndim == 2 and name != "weight_ch" else stacked.reshape(-1)

    gates = layer.cell.gate_names
    arrays = {"W": rows("weight_ih", order, gates), "R": rows("weight_hh", order, gates)}
    if layer.weight_type == "int8":
        arrays["W_scale"] = rows("weight_ih", order, gates, SCALE)[:, None]
        arrays["R_scale"] = rows("weight_hh", order, gates, SCALE)[:, None]
    if layer.bias:
        biases = [rows(name, order, gates) for name in ("bias_ih", "bias_hh")]
        arrays["B"] = np.concatenate(biases)
    if layer.cell.units == "weight_ch":
        arrays["P"] = rows("weight_ch", _PEEPHOLES, gates.replace("g", ""))
    return arrays
