"""Sequences whose ends their own steps tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..arrays import Array, check_kind, check_number, read, short
from ..module import Module, Pullback
from .composition import agreed, told_resets
from .graph import Graph


class Masked(Module):
    """A layer whose lengths are told by its inputs: a step counts unless it is `value`.

    values: of one input, or a list of one for each, None where an input tells nothing. A step of
    indices does not count if it is that number, a step of features if all of them are. Each
    sequence must end in the steps that do not count: one before its end raises `ValueError`, for a
    mask with holes would skip steps in the middle, which is not done here. Called as the layer is;
    `lengths` may be given too, and must be the same.
    """

    def __init__(self, layer: Module, values: float | Sequence[float | None] = 0) -> None:
        super().__init__()
        self.layer: Any = check_kind("layer", layer, Module)
        several: Any = values if isinstance(values, (tuple, list)) else [values]
        self.values = tuple(None if v is None else check_number("values", v) for v in several)
        self.inputs = layer.inputs if isinstance(layer, Graph) else ("x",)
        if len(self.values) != len(self.inputs):
            raise ValueError(f"values must be one for each of {self.inputs}, got {short(values)}")
        self.recurrent, self.takes_indices = layer.recurrent, layer.takes_indices
        self.takes_lengths, self.keeps_steps = layer.takes_lengths, layer.keeps_steps
        self.takes_resets = layer.takes_resets
        self.batch_first = agreed("batch_first", {"layer": layer})
        self.dtype = agreed("dtype", {"layer": layer})

    def out_lengths(self, lengths: npt.ArrayLike) -> Array:
        """Return how long rows are in y that are `lengths` long in x."""
        found: Array = self.layer.out_lengths(lengths)
        return found

    def __call__(self, *given: Any, lengths: Any = None, resets: Any = None) -> Any:
        """Return what the layer returns."""
        anew = told_resets(self.layer, resets)
        return self.layer(*given, lengths=self._lengths(given, lengths), **anew)

    def vjp(self, *given: Any, lengths: Any = None, resets: Any = None) -> tuple[Any, Pullback]:
        """Return what the layer returns, and its pullback."""
        anew, lengths = told_resets(self.layer, resets), self._lengths(given, lengths)
        found: tuple[Any, Pullback] = self.layer.vjp(*given, lengths=lengths, **anew)
        return found

    def _lengths(self, given: Sequence[Any], lengths: Any) -> Any:
        """The lengths that the inputs tell; `ValueError` if others are given."""
        found = {
            name: _told(name, x, value, bool(self.batch_first))
            for name, x, value in zip(self.inputs, given, self.values, strict=False)
            if value is not None
        }
        if lengths is not None:
            told: Any = lengths if isinstance(lengths, Mapping) else dict.fromkeys(found, lengths)
            for name, own in told.items():
                if not np.array_equal(own, found.get(name, own)):
                    raise ValueError(
                        f"lengths must be those that {name} tells, {short(found[name].tolist())}, "
                        f"got {short(own)}"
                    )
            found |= told
        return found if len(self.inputs) > 1 else found.get(self.inputs[0])


def _told(name: str, x: npt.ArrayLike, value: float, batch_first: bool) -> Array:
    """How many steps of each sequence count."""
    array, _ = read(name, x)
    steps = array != value if array.dtype.kind in "iu" else (array != value).any(axis=-1)
    if steps.ndim != 2:
        raise ValueError(f"{name} must be a batch of sequences, got shape {array.shape}")
    mask: Array = steps if batch_first else steps.T
    counts: Array = mask.sum(axis=1)
    holes = np.argwhere(mask & (np.arange(mask.shape[1]) >= counts[:, None]))
    if len(holes):
        row = holes[0, 0]
        step = int(np.argmin(mask[row]))
        raise ValueError(
            f"{name} has a step that does not count, all {value:g}, before the end of sequence "
            f"{row}, at step {step}: put such steps behind the others"
        )
    return counts
