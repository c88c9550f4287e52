"""A graph whose states are inputs and outputs, frame by frame."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ...arrays import Array, check_count
from ..common import shown

if TYPE_CHECKING:
    from .reader import OnnxModel


class GraphStream:
    """A graph that keeps its states: made by `OnnxModel.stream`.

    A call that raises leaves the states as they were. `inputs` names what `step` takes in order,
    `outputs` what it returns.
    """

    def __init__(
        self, model: OnnxModel, states: Mapping[str, str], batch: int, fixed: Mapping[str, Any]
    ) -> None:
        self._model, self._states, self.batch = model, dict(states), check_count("batch", batch)
        self._check(fixed)
        self.inputs = tuple(n for n in model.inputs if n not in states and n not in fixed)
        self.outputs = tuple(n for n in model.outputs if n not in states.values())
        self._given = dict.fromkeys(model.inputs, np.zeros(0)) | {
            name: np.array(model.inputs[name].checked(name, value)) for name, value in fixed.items()
        }
        self._first = {name: self._zeros(name) for name in states}
        self._now = self._first

    def step(self, *inputs: npt.ArrayLike, **named: npt.ArrayLike) -> Any:
        """Take one frame, by `inputs` in order or by name; return the outputs, one alone as such.

        Raises `ValueError` naming an input that does not fit.
        """
        if named or len(inputs) != len(self.inputs):
            inputs = self._in_order(inputs, named)
        given = self._given.copy()
        for name, value in zip(self.inputs, inputs, strict=True):
            given[name] = self._model.inputs[name].checked(name, value)
        given.update(self._now)
        results = self._model.compute(given)
        made = dict(zip(self._model.outputs, results, strict=True))
        self._now = {name: self._kept(name, made[after]) for name, after in self._states.items()}
        kept = [made[name] for name in self.outputs]
        return kept[0] if len(kept) == 1 else tuple(kept)

    @property
    def state(self) -> dict[str, Array]:
        """Copies of the states, by the names of their inputs; set all of them, or None for zero."""
        return {name: value.copy() for name, value in self._now.items()}

    @state.setter
    def state(self, state: Mapping[str, npt.ArrayLike] | None) -> None:
        if state is None:
            self._now = self._first
            return
        if not isinstance(state, Mapping) or state.keys() != self._states.keys():
            raise ValueError(f"state must have the entries {', '.join(self._states)}")
        taken = {n: self._model.inputs[n].checked(n, value) for n, value in state.items()}
        self._now = {name: self._kept(name, np.array(value)) for name, value in taken.items()}

    def reset(self) -> None:
        """Start from zero again."""
        self._now = self._first

    def _in_order(
        self, inputs: tuple[npt.ArrayLike, ...], named: Mapping[str, npt.ArrayLike]
    ) -> tuple[npt.ArrayLike, ...]:
        given = dict(zip(self.inputs, inputs, strict=False))
        both = {**given, **named}
        if len(both) != len(inputs) + len(named) or both.keys() != set(self.inputs):
            raise ValueError(
                f"a step takes {', '.join(self.inputs)}; got {len(inputs)} in order and "
                f"{', '.join(named) or 'none'} by name"
            )
        return tuple(both[name] for name in self.inputs)

    def _check(self, fixed: Mapping[str, Any]) -> None:
        model, states = self._model, self._states
        if unknown := [n for n in (*states, *fixed) if n not in model.inputs]:
            raise ValueError(
                f"states: there is no input {shown(unknown[0])}; there are "
                f"{', '.join(model.inputs)}"
            )
        if unknown := [n for n in states.values() if n not in model.outputs]:
            raise ValueError(
                f"states: there is no output {shown(unknown[0])}; there are "
                f"{', '.join(model.outputs)}"
            )
        if both := [n for n in fixed if n in states]:
            raise ValueError(f"{shown(both[0])} is a state: it cannot be fixed")

    def _zeros(self, name: str) -> Array:
        described = self._model.inputs[name]
        if described.shape is None:
            raise ValueError(f"states: the file does not say the shape of {shown(name)}")
        sizes = [size if isinstance(size, int) else self.batch for size in described.shape]
        return np.zeros(sizes, described.dtype)

    def _kept(self, name: str, value: Array) -> Array:
        """A state as the next step takes it, or `ValueError` where its shape is another one."""
        first = self._first[name]
        if value.shape != first.shape or value.dtype != first.dtype:
            raise ValueError(
                f"the state {shown(name)} must be {first.dtype} of shape {first.shape}, got "
                f"{value.dtype} {value.shape}"
            )
        return value
