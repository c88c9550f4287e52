"""Recurrent layers in Keras's letters.

Kernels are (I, G*H) and (H, G*H), biases (G*H,), or (2, G*H) of a GRU that resets after; the gates
are i, f, c, o in an LSTM and z, r, h in a GRU. Sequences are (B, T, I), first and last states (B,
H): with `return_state` these come after the output. Outputs are in the order in which they were
made, with `reverse_outputs` in the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...arrays import Array
from .pointwise import function

Settings = dict[str, Any]


def recurrent(kind: str) -> Callable[..., Any]:
    """Return the function of one of Keras's recurrent layers."""

    def walk(config: Settings, weights: list[Array], x: Array, *first: Array) -> Any:
        kernel, recurrent, *bias = weights
        step = _STEPS[kind](config, kernel, recurrent, bias[0] if bias else None)
        state: Any = first or (np.zeros((len(x), len(recurrent))),) * (2 if kind == "LSTM" else 1)
        outputs = []
        for x_t in x.swapaxes(0, 1)[:: -1 if config.get("go_backwards") else 1]:
            state = step(x_t, *state)
            outputs.append(state[0])
        y = np.stack(outputs, axis=1) if config.get("return_sequences") else state[0]
        y = y[:, ::-1] if config.get("reverse_outputs") else y
        return (y, *state) if config.get("return_state") else y

    return walk


def _simple_rnn(config: Settings, kernel: Array, recurrent: Array, bias: Any) -> Any:
    phi, b = function(config["activation"]), 0 if bias is None else bias
    return lambda x, h: (phi(x @ kernel + h @ recurrent + b),)


def _lstm(config: Settings, kernel: Array, recurrent: Array, bias: Any) -> Any:
    sigma, tau = function(config["recurrent_activation"]), function(config["activation"])
    b = 0 if bias is None else bias

    def step(x: Array, h: Array, c: Array) -> tuple[Array, Array]:
        z_i, z_f, z_c, z_o = np.split(x @ kernel + h @ recurrent + b, 4, axis=1)
        c = sigma(z_f) * c + sigma(z_i) * tau(z_c)
        return sigma(z_o) * tau(c), c

    return step


def _gru(config: Settings, kernel: Array, recurrent: Array, bias: Any) -> Any:
    sigma, tau = function(config["recurrent_activation"]), function(config["activation"])
    after, size = config["reset_after"], len(recurrent)
    b_x, b_h = (0, 0) if bias is None else bias if after else (bias, 0)

    def step(x: Array, h: Array) -> tuple[Array]:
        x_z, x_r, x_h = np.split(x @ kernel + b_x, 3, axis=1)
        h_z, h_r, h_h = np.split(h @ recurrent + b_h, 3, axis=1)
        z, r = sigma(x_z + h_z), sigma(x_r + h_r)
        n = tau(x_h + (r * h_h if after else (r * h) @ recurrent[:, 2 * size :]))
        return (z * h + (1 - z) * n,)

    return step


def bidirectional(config: Settings, weights: list[Array], x: Array, *first: Array) -> Any:
    """A layer forward and one backward, whose settings and kinds are `parts`."""
    half, halves = len(weights) // 2, len(first) // 2
    (ahead, *last), (behind, *last_behind) = (
        _as_list(recurrent(kind)(part, own, x, *states))
        for (kind, part), own, states in zip(
            config["parts"],
            (weights[:half], weights[half:]),
            (first[:halves], first[halves:]),
            strict=True,
        )
    )
    if behind.ndim == 3:
        behind = behind[:, ::-1]
    y = _MERGES[config["merge_mode"]](ahead, behind)
    return (y, *last, *last_behind) if last else y


def _as_list(found: Any) -> list[Array]:
    return list(found) if isinstance(found, tuple) else [found]


_MERGES: dict[str, Callable[[Array, Array], Array]] = {
    "concat": lambda a, b: np.concatenate((a, b), axis=-1),
    "mul": lambda a, b: a * b,
    "ave": lambda a, b: (a + b) / 2,
    "sum": lambda a, b: a + b,
}
_STEPS = {"SimpleRNN": _simple_rnn, "LSTM": _lstm, "GRU": _gru}
KINDS: dict[str, Callable[..., Any]] = {kind: recurrent(kind) for kind in _STEPS}
KINDS["Bidirectional"] = bidirectional
