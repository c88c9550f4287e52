"""Modules: functions with a way back.

    y = module(x)                      # inference: nothing is recorded, dropout is off
    y, pullback = module.vjp(x)        # training
    dx = pullback(dy)                  # accumulates into module.grads

A recurrent module takes and gives a state as well: `y, state = m(x, state)`,
`(y, state), pullback = m.vjp(x, state)`, `dx, dstate = pullback(dy, dstate)`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from . import _core
from .arrays import (
    Array,
    Arrays,
    join_names,
    load_arrays,
    load_into,
    room_for,
    save_arrays,
)
from .configuration import Builder, Configured, describe
from .files import reading

if TYPE_CHECKING:
    from .stream import Stream

#: What the metadata of a file calls the description of its model.
KEY = "rnncore"


class Module(Configured):
    """Base of every layer and composition: parameters, gradients, and how they are stored.

    A leaf hands its parameters to `__init__`; a composition keeps its parts as attributes (or
    yields them from `children`) and owns nothing itself.
    """

    #: Whether the module takes and returns a state: `(y, state) = m(x, state)`.
    recurrent: bool = False
    #: Whether each row, a vector along the last axis or an index, is seen by itself.
    pointwise: bool = False

    def __init__(self, params: Mapping[str, Array] | None = None) -> None:
        self._params = Arrays(params or {})

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the output; nothing is recorded."""
        raise NotImplementedError

    def vjp(self, *args: Any, **kwargs: Any) -> Any:
        """Compute `(output, pullback)`: the output, and the way back from its gradient.

        A pullback returns the input's gradient and adds the parameters' to `grads`. It consumes
        what was recorded: a second call raises `RuntimeError`. Inputs must stay unchanged until it
        has run. One that a signal's handler ends (Ctrl-C) is used up; of a composition some layers
        may have added their gradients by then, each layer all of them or none.
        """
        raise NotImplementedError

    def stream(self, batch: int = 1) -> Stream:
        """Return an object that takes sequences frame by frame, and keeps the state.

        Raises `TypeError` or `ValueError` where outputs depend on all later frames.
        """
        from .pipeline import stream_of

        return stream_of(self, batch)

    def children(self) -> Iterator[tuple[str, Module]]:
        """Yield the parts by name, in the order they were made."""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value

    @property
    def params(self) -> Arrays:
        """All parameters under dotted names; write into them freely, the module sees it."""
        self._lend()
        parts = join_names((name, child.params) for name, child in self.children())
        return Arrays(self._params | parts)

    @property
    def grads(self) -> Arrays:
        """The accumulated gradients, one for each of `params`, zero until a pullback has run."""
        mine: Arrays | None = vars(self).get("_grads")
        if mine is None:  # of two threads that come here at once, both take the first one's
            zeros = Arrays({name: np.zeros_like(p) for name, p in self._params.items()})
            mine = vars(self).setdefault("_grads", zeros)
        parts = join_names((name, child.grads) for name, child in self.children())
        return Arrays(mine | parts) if parts else mine

    def _lend(self) -> None:
        """Say that somebody is given the arrays: compiled layers have to look at them again."""

    def zero_grad(self) -> None:
        """Set every gradient to zero, in place."""
        for grad in self.grads.values():
            grad.fill(0)

    def state_dict(self) -> dict[str, Array]:
        """Copies of all parameters, by name."""
        return {name: array.copy() for name, array in self.params.items()}

    def load_state_dict(self, state: Mapping[str, npt.ArrayLike]) -> None:
        """Copy parameters in, e.g. from torch. Raises `ValueError` naming all that does not fit."""
        load_into(self.params, state)

    def save(self, path: str | os.PathLike[str], metadata: Mapping[str, Any] | None = None) -> None:
        """Write the module to a safetensors file, replaced atomically; `rnncore.load` reads it.

        It holds the parameters, what the constructors of the module and of its parts were given
        (but no seeds), and `metadata`, each value as JSON.
        """
        if metadata and KEY in metadata:
            raise ValueError(f"metadata must not have an entry {KEY!r}: the module's own is there")
        own = {"version": _core.info()["version"], "module": describe(self)}
        save_arrays(path, self.params, {**(metadata or {}), KEY: own})

    def load(self, path: str | os.PathLike[str]) -> None:
        """Read the parameters from a safetensors file written by `save`.

        Raises `FileNotFoundError`, or `ValueError` naming the file and all that does not fit; then
        nothing is changed.
        """
        arrays, _ = load_arrays(path)
        with reading(path):
            load_into(self.params, arrays)


def load(
    path: str | os.PathLike[str],
    *,
    classes: Iterable[type[Module]] = (),
    seed: int | None = None,
) -> Any:
    """Return the module that `Module.save` wrote; nothing in the file is executed.

    classes: those outside this library that the file may name; seed: of what the module draws.
    Raises `FileNotFoundError`, or `ValueError` saying what is wrong with the file.
    """
    arrays, metadata = load_arrays(path)
    own = metadata.get(KEY)
    if not isinstance(own, dict) or "module" not in own:
        raise ValueError(f"{os.fspath(path)} describes no module: its class is not known")
    version, mine = own.get("version"), _core.info()["version"]
    hint = "" if version == mine else f" (written by version {version!r:.20}, this is {mine})"
    with reading(path, hint=hint):
        with room_for(sum(array.size for array in arrays.values()), len(arrays)):
            module = Builder(classes, seed).build(own["module"])
        if not isinstance(module, Module):
            raise ValueError(f"it describes no module, but {module!r:.80}")
        load_into(module.params, arrays)
    return module


def once(pullback: Callable[..., Any]) -> Callable[..., Any]:
    """Let `pullback` succeed a single time: then it lets go of all it holds, and a call raises.

    A call refused for its arguments does not count.
    """
    held: list[Callable[..., Any]] = [pullback]
    del pullback

    def run(*args: Any, **kwargs: Any) -> Any:
        mine = taken(held)
        try:
            return mine(*args, **kwargs)
        except BaseException:
            held.append(mine)
            raise

    return run


def taken(held: list[Any]) -> Any:
    """What a pullback holds until it runs; `RuntimeError` if it has run already."""
    try:
        return held.pop()  # in one go: of two threads that come here at once, one has it
    except IndexError:
        message = "this pullback has already run; call vjp again for another"
        raise RuntimeError(message) from None
