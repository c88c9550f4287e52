"""RNN, LSTM and GRU nodes on our layers; products of constant weights on our kernels."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ...arrays import Array
from ...compositions.composition import Part, Sequences
from ...compositions.ragged import from_end
from ...layers.linear import Linear
from ...precision import copy_parameters
from ...recurrent.registry import LAYERS
from .. import common
from ..common import refusal
from .weights import ORDER, read_activations, read_weights

_STANDARD = {"rnn": ["Tanh"], "lstm": ["Sigmoid", "Tanh", "Tanh"], "gru": ["Sigmoid", "Tanh"]}
_DIRECTIONS = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}
_ATTRIBUTES = {
    *("activations", "activation_alpha", "activation_beta", "clip", "direction", "hidden_size"),
    *("input_forget", "layout", "linear_before_reset", "output_sequence"),
}

Given = Sequence[Array | None]


class Recurrent:
    """One node. Its layers are made when it first sees its weights, and kept while sizes stay.

    `weights`: W, R, B and P if the file holds all that there are of them, else None.
    """

    def __init__(
        self, where: str, op: str, attributes: Mapping[str, Any], weights: Given | None
    ) -> None:
        self.where, self.kind = where, op.lower()
        if unknown := attributes.keys() - _ATTRIBUTES:
            raise refusal("rnncore", f"{where}: the attribute {min(unknown)}")
        direction = attributes.get("direction", "forward")
        if direction not in _DIRECTIONS:
            raise refusal("rnncore", f"{where}: direction={direction!r}")
        self.directions = _DIRECTIONS[direction]
        self.time_major = not attributes.get("layout", 0)
        self.coupled = bool(attributes.get("input_forget", 0))
        self.hidden_size = attributes.get("hidden_size")
        self.options = self._options(attributes)
        self.parts: list[Part] = []
        self._keywords: list[dict[str, Any]] = []  # of the parts' layers
        self.sizes: Any = None
        self.fixed = weights is not None
        self.lock = threading.Lock()  # while weights are inputs, one call at a time
        if weights is not None:
            self._load(*weights)

    def __call__(self, *given: Any) -> tuple[Array, ...]:
        """X, W, R, B, sequence_lens, initial_h, initial_c, P -> Y, Y_h, Y_c."""
        x, w, r, b, lengths, h, c, p = (*given, *(None,) * 8)[:8]
        if self.fixed:
            return self._compute(x, lengths, h, c)
        with self.lock:
            self._load(w, r, b, p)
            return self._compute(x, lengths, h, c)

    def _compute(self, x: Array, lengths: Any, h: Any, c: Any) -> tuple[Array, ...]:
        if x.ndim != 3:
            raise ValueError(f"X must have three axes, got shape {x.shape}")
        if not self.time_major:
            x = x.swapaxes(0, 1)
            h, c = (a if a is None else a.swapaxes(0, 1) for a in (h, c))
        ends = self._lengths(lengths, *x.shape[:2])
        y, states = self._run(x, ends, h, c)
        count = len(self.directions)
        y = y.reshape(*y.shape[:2], count, y.shape[2] // count).swapaxes(1, 2)
        if ends is not None and not ends.all():  # ONNX Runtime gives zeros for what has no steps
            states = [np.where(ends[:, None] > 0, s, s.dtype.type(0)) for s in states]
        if not self.time_major:
            return (y.transpose(2, 0, 1, 3), *(s.swapaxes(0, 1) for s in states))
        return (y, *states)

    def _options(self, attributes: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Of each direction the keywords of its layer."""
        count = len(_STANDARD[self.kind])
        names = attributes.get("activations") or _STANDARD[self.kind] * len(self.directions)
        if len(names) != count * len(self.directions):
            expected = count * len(self.directions)
            raise ValueError(f"{self.where}: {len(names)} activations, expected {expected}")
        constants = (attributes.get(f"activation_{name}", []) for name in ("alpha", "beta"))
        activations = read_activations(self.where, names, *constants)
        clip = attributes.get("clip", 0)
        shared: dict[str, Any] = {"gate_clip": clip} if clip else {}
        if self.kind == "gru":
            shared["reset_after"] = bool(attributes.get("linear_before_reset", 0))
        if self.kind == "lstm" and self.coupled:
            shared["coupled"] = True
        options = []
        for at in range(0, len(activations), count):
            own = activations[at : at + count]
            key, value = ("nonlinearity", own[0]) if count == 1 else ("activations", tuple(own))
            options.append(shared | {key: value})
        return options

    @staticmethod
    def _lengths(lengths: Array | None, steps: int, batch: int) -> Array | None:
        """sequence_lens, which may be zero here."""
        if lengths is None:
            return None
        fits = lengths.shape == (batch,) and lengths.dtype.kind in "iu"
        if not fits or (batch and not 0 <= lengths.min() <= lengths.max() <= steps):
            raise ValueError(f"sequence_lens must be ({batch},) whole numbers in 0..{steps}")
        return lengths.astype(np.int64)

    def _load(self, w: Array | None, r: Array | None, b: Array | None, p: Array | None) -> None:
        """Bring the weights into our layers."""
        if w is None or r is None or w.ndim != 3 or r.ndim != 3:
            raise ValueError("W and R must be there, with three axes")
        if w.dtype not in common.TOLERANCE:
            raise refusal("rnncore", f"{self.where}: weights in {w.dtype}")
        count, gates = len(self.directions), len(ORDER[self.kind])
        hidden = r.shape[-1]
        for name, array, shape in (
            ("W", w, (count, gates * hidden, w.shape[-1])),
            ("R", r, (count, gates * hidden, hidden)),
            ("B", b, (count, 2 * gates * hidden)),
            ("P", p, (count, 3 * hidden)),
        ):
            if array is not None and array.shape != shape:
                raise ValueError(f"{self.where}: {name} must be {shape}, got {array.shape}")
        if self.hidden_size not in (None, hidden):
            raise ValueError(f"{self.where}: hidden_size is {self.hidden_size}, but R has {hidden}")
        bias, peepholes = ([None] * count if a is None else list(a) for a in (b, p))
        directions = [
            read_weights(self.kind, self.coupled, *arrays)
            for arrays in zip(w, r, bias, peepholes, strict=True)
        ]
        sizes = [(n, a.shape, a.dtype) for params in directions for n, a in params.items()]
        if sizes != self.sizes:
            self._keywords, self.sizes = self._layers_of(directions[0]), sizes
            self.parts = [Part(layer, False) for layer in self._new_layers(False)]
        self._fill(directions)

    @property
    def hidden(self) -> int:
        """How wide a state is, once the weights are known."""
        return int(self._keywords[0]["hidden_size"])

    def layers(self, batch_first: bool, first: Mapping[str, Array]) -> list[Any]:
        """Return layers of their own with these weights, for sequences laid so.

        first: what their parameters `initial_h` and `initial_c` are, `(D, H)`, empty for zero.
        """
        made = self._new_layers(batch_first, learned_state=bool(first))
        states = self.by_part(
            [{n: a[d] for n, a in first.items()} for d in range(len(self.directions))]
        )
        for layer, part, own in zip(made, self.parts, states, strict=True):
            copy_parameters(part.layer, layer, own)
        return made

    def _new_layers(self, batch_first: bool, **options: Any) -> list[Any]:
        options |= {"batch_first": batch_first}
        return [LAYERS[self.kind](**own, **options) for own in self._keywords]

    def _layers_of(self, params: dict[str, Array]) -> list[dict[str, Any]]:
        """The keywords of one layer for both directions, or of two if their activations differ."""
        alike = all(options == self.options[0] for options in self.options)
        shared: dict[str, Any] = {"peephole": True} if "weight_ch" in params else {}
        shared |= {
            "input_size": params["weight_ih"].shape[1],
            "hidden_size": params["weight_hh"].shape[1],
            "bias": "bias_ih" in params,
            "bidirectional": alike and len(self.directions) == 2,
            "dtype": params["weight_ih"].dtype,
        }
        return [shared | options for options in (self.options[:1] if alike else self.options)]

    def _fill(self, directions: list[dict[str, Array]]) -> None:
        for part, params in zip(self.parts, self.by_part(directions), strict=True):
            common.filled(part.layer, params)

    def by_part(self, directions: list[dict[str, Array]]) -> Iterator[dict[str, Array]]:
        """Yield what each layer has of the arrays of all directions, by their names in it."""
        each = len(directions) // len(self.parts)
        for at in range(0, len(directions), each):
            yield {
                name + suffix: array
                for suffix, arrays in zip(
                    ("_l0", "_l0_reverse"), directions[at : at + each], strict=False
                )
                for name, array in arrays.items()
            }

    def _run(self, x: Array, lengths: Array | None, h: Any, c: Any) -> tuple[Array, list[Array]]:
        """y `(T, B, D * H)` and the final states `(D, B, H)`."""
        runs = []
        each = len(self.directions) // len(self.parts)
        for at, part in enumerate(self.parts):
            own = slice(at * each, (at + 1) * each)
            backwards = each == 1 and self.directions[at]
            h_own, c_own = (None if s is None else s[own] for s in (h, c))
            state = (h_own, c_own) if self.kind == "lstm" else h_own
            given = Sequences(x, state, lengths)
            run = from_end(part.run, given, False) if backwards else part.run(given, False)
            runs.append(run)
        ys, states, _ = zip(*runs, strict=True)
        joined = [s if isinstance(s, tuple) else (s,) for s in states]
        finals = [np.concatenate(parts) for parts in zip(*joined, strict=True)]
        return np.concatenate(ys, axis=-1), finals


def product(weight: Array) -> Linear:
    """X -> X weight, (..., I) to (..., O): the kernels of a Linear without bias."""
    inputs, outputs = weight.shape
    linear = Linear(inputs, outputs, bias=False, dtype=weight.dtype)
    linear.params["weight"] = weight.T
    return linear
