"""Where numbers stop being finite: the layer and time step, found by doing the update again.

To look at every layer's output in every update would read all of them once more. So the trainer
looks at the loss and at the gradients' norm alone, and does an update that failed once more, with
every layer watched: by the same parameters, and with the generators set back by the same masks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from ..arrays import Array
from ..compositions.bidirectional import Reversed
from ..compositions.composition import Composition
from ..compositions.time_distributed import TimeDistributed
from ..module import Module, modules
from ..recurrent.stack import Stacked
from ..states import State, leaves

#: Generators, and where they stand.
Drawn: TypeAlias = list[tuple[np.random.Generator, Any]]


class Diverged(FloatingPointError):
    """A loss or a norm of gradients that is not finite, after how many updates, and where it began.

    layer: the dotted name of the layer that made the first such number, "" for the model as a
    whole, None if it was not found; step: the time step, from 0, None where there is no time.
    """

    def __init__(
        self, message: str, updates: int, layer: str | None = None, step: int | None = None
    ) -> None:
        super().__init__(message)
        self.updates, self.layer, self.step = updates, layer, step

    def __reduce__(self) -> tuple[Any, ...]:
        """Let it pass from process to process."""
        return type(self), (str(self), self.updates, self.layer, self.step)


@dataclass(frozen=True)
class Place:
    """Where the first number stands that is not finite."""

    layer: str
    kind: str
    step: int | None
    stacked: int | None = None
    backward: bool = False

    def __str__(self) -> str:
        """Say it: "in time step 4 of layer 0 (LSTM)"."""
        said = f"layer {self.layer} ({self.kind})" if self.layer else f"the model ({self.kind})"
        if self.stacked is not None:
            said = f"stacked layer {self.stacked} of {said}"
        if self.step is not None:
            said = f"time step {self.step} of {said}"
        return f"in the backward pass of {said}" if self.backward else f"in {said}"


def find(model: Module, drawn: Drawn, inputs: Any, again: Callable[[], Any]) -> Place | str | None:
    """Return where the first number stands that is not finite when `again` is run, if anywhere.

    drawn: where the generators stood before. Words instead of a place say that it is in the inputs.
    """
    batch_first = any(part.batch_first for part in modules(model))
    step = _first_step(inputs, batch_first) if isinstance(inputs, np.ndarray) else None
    if step is not None:
        return f"in time step {step} of the inputs" if np.ndim(inputs) > 2 else "in the inputs"
    for rng, state in drawn:
        rng.bit_generator.state = state
    # Another error must not take the place of the one that is explained.
    with _watched(model, batch_first) as found, np.errstate(all="ignore"), suppress(Exception):
        again()
    return found[0] if found else None


@contextmanager
def _watched(model: Module, batch_first: bool) -> Iterator[list[Place]]:
    """Watch every `vjp` within and its pullback; the list gets the places in the order found."""
    found: list[Place] = []
    parts: list[Module] = []
    try:
        for name, part in _in_time(model):
            if not any(part is one for one in parts):
                parts.append(part)
                vars(part)["vjp"] = _seeing(part, name, batch_first, found)
        yield found
    finally:
        for part in parts:
            del vars(part)["vjp"]


def _in_time(module: Module, prefix: str = "") -> Iterator[tuple[str, Module]]:
    """Yield a module and those parts of it that see the same time steps, by dotted name."""
    yield prefix, module
    if not isinstance(module, (Composition, TimeDistributed)):
        for name, part in module.children():
            yield from _in_time(part, f"{prefix}.{name}" if prefix else name)


def _seeing(
    part: Module, name: str, batch_first: bool, found: list[Place]
) -> Callable[..., tuple[Any, Any]]:
    """Return the `vjp` of a part, which adds a place to `found` where it is not finite."""
    vjp = part.vjp

    def look(result: Any, backward: bool) -> None:
        y, state = result if part.recurrent and isinstance(result, tuple) else (result, None)
        has_time = np.ndim(y) > 2 or (np.ndim(y) == 2 and part.recurrent and part.keeps_steps)
        step = _step_of(part, y, batch_first, backward) if isinstance(y, np.ndarray) else None
        if step is not None:
            place = step if has_time else None
            found.append(Place(name, type(part).__name__, place, _stacked(part, state), backward))

    def seen(*args: Any, **options: Any) -> tuple[Any, Any]:
        output, pullback = vjp(*args, **options)
        look(output, False)

        def seen_pullback(*gradients: Any, **others: Any) -> Any:
            result = pullback(*gradients, **others)
            look(result, True)
            return result

        return output, seen_pullback

    return seen


def _step_of(part: Module, y: Array, batch_first: bool, backward: bool) -> int | None:
    """Return the step of y, or of the gradient of x, which the part came to first."""
    if isinstance(part, Stacked) and part.bidirectional and not backward:
        ahead, behind = np.split(y, 2, axis=-1)
        step = _first_step(ahead, batch_first)
        return _first_step(behind, batch_first, late=True) if step is None else step
    return _first_step(y, batch_first, late=backward != isinstance(part, Reversed))


def _first_step(array: Array, batch_first: bool, late: bool = False) -> int | None:
    """Return the first time step, or the last with `late`, with an entry that is not finite.

    None where all entries are finite. array: `(T, B, ...)`, `(B, T, ...)`, or `(T, ...)`.
    """
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return None
    steps = np.moveaxis(array, 1, 0) if batch_first and array.ndim > 2 else array
    bad = ~np.isfinite(steps.reshape(len(steps), -1)).all(axis=1)
    return int(np.flatnonzero(bad)[-1 if late else 0])


def _stacked(part: Module, state: State) -> int | None:
    """Return the lowest of stacked layers whose state is not finite, None where there is one."""
    layers = getattr(part, "num_layers", 1)
    if not isinstance(layers, int) or layers < 2:
        return None
    rows = [layer for array in leaves(state) for layer in _bad_rows(array, layers)]
    return min(rows, default=None)


def _bad_rows(state: Array, layers: int) -> Iterator[int]:
    """Yield the layers `(layers * D, B, H)` whose state is not finite."""
    for row, values in enumerate(state):
        if not np.isfinite(values).all():
            yield row * layers // len(state)
