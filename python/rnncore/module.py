"""Modules: functions, and the pullbacks of their gradients.

    y = module(x)                      # inference: nothing is recorded, dropout is off
    y, pullback = module.vjp(x)        # training
    dx = pullback(dy)                  # accumulates into module.grads

A recurrent module takes and gives a state as well: `y, state = m(x, state)`,
`(y, state), pullback = m.vjp(x, state)`, `dx, dstate = pullback(dy, dstate)`.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import takewhile
from typing import Any, ClassVar, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from . import hints
from .arrays import Array, load_arrays, room_for, save_arrays
from .compiled import info
from .configuration import Builder, Configured, describe
from .files import reading
from .hinting import put_hints
from .notation import written
from .parameters import Arrays, distinct, fitting, laid_together, load_into, lying_together
from .stream.base import Stream
from .stream.chained import stream_of
from .stream.stages import Stages

#: From the gradients of what a call returned to those of what it was given.
Pullback: TypeAlias = Callable[..., Any]

#: What weights may be held in, in fewer bits than those of `dtype`; see `quantize`.
WeightType: TypeAlias = Literal["int8", "bfloat16", "bfloat16_dot"]
WEIGHT_TYPES: tuple[WeightType, ...] = get_args(WeightType)
#: What the metadata of a file calls the description of its model.
KEY = "rnncore"


class _NotMade:
    """In the place of what `Module.__init__` makes: names whoever did not call it."""

    # A `__getattr__` of Module would make every look at an attribute slower.
    def __get__(self, module: Module | None, kind: type[Module]) -> Any:
        if module is None:
            return self
        raise AttributeError(
            f"{kind.__name__} has no parameters: its __init__ must call super().__init__()"
        )


class Module(Configured):
    """Base of every layer and composition: parameters, gradients, and how they are stored.

    A leaf hands its parameters to `__init__`; a composition keeps its parts as attributes, or in
    lists, tuples and dicts that are attributes, however nested, and owns nothing itself. They are
    looked up at every use: what is put in their place later counts from then on.
    """

    #: Whether the module takes and returns a state: `(y, state) = m(x, state)`.
    recurrent: bool = False
    #: Whether each row, a vector along the last axis or an index, is seen by itself.
    pointwise: bool = False
    #: Whether sequences are `(B, T, ...)` and not `(T, B, ...)`; None where it takes both.
    batch_first: Any = None
    #: The `numpy.dtype` it computes in; None where it is that of what it is given.
    dtype: Any = None
    #: In how many directions a recurrent layer reads sequences; 0 where it does not say.
    directions: int = 0
    #: Whether it reads them in both.
    bidirectional: bool = False
    #: Whether outputs depend on later frames.
    looks_ahead: bool = False
    #: Whether x holds indices, and no features.
    takes_indices: bool = False
    #: Of a layer without a state: whether it takes `lengths`; False where it mixes frames and does
    #: not, None where each frame is seen by itself.
    takes_lengths: bool | None = None
    #: Whether it takes `resets`: where sequences start anew.
    takes_resets: bool = False
    #: Whether y has steps where x has them, `out_lengths` of them.
    keeps_steps: bool = True
    #: One of `WEIGHT_TYPES` if `quantize` has made the weights so; None where they are of `dtype`.
    weight_type: str | None = None

    #: Attributes in which no parts are looked for.
    _no_parts: frozenset[str] = frozenset(("_given", "_params", "_grads", "_buffers"))

    _params: Arrays = _NotMade()  # type: ignore[assignment]
    _buffers: Arrays = Arrays({})
    #: How often arrays of any module have been given other memory: who holds some looks again.
    _moves: ClassVar[int] = 0

    def __init__(self, params: Mapping[str, Array] | None = None) -> None:
        self._params = Arrays(params or {})

    def __repr__(self) -> str:
        """Return the module as Python: see `rnncore.notation`."""
        return written(self)

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """Compute the output; nothing is recorded.

        Each class says what its inputs and options are; most often one x, a `state` where it is
        recurrent, and `lengths`.
        """
        raise NotImplementedError(f"{type(self).__name__} must define __call__")

    def vjp(self, *inputs: Any, **options: Any) -> Any:
        """Compute `(output, pullback)`: the output, and the function of its gradient.

        Inputs and options are those of a call.

        A pullback returns the input's gradient and adds the parameters' to `grads`. It consumes
        what was recorded: a second call raises `RuntimeError`. Inputs must stay unchanged until it
        has run. One that a signal's handler ends (Ctrl-C) is used up; of a composition some layers
        may have added their gradients by then, each layer all of them or none.
        """
        raise NotImplementedError(f"{type(self).__name__} must define vjp")

    def stream(self, batch: int = 1) -> Stream:
        """Return an object that takes sequences frame by frame, and keeps the state.

        Raises `TypeError` or `ValueError` where outputs depend on all later frames.
        """
        return stream_of(self, batch)

    def stages(self, batch: int, dtype: np.dtype[Any]) -> Stages:
        """Return the compiled layers that a stream of `batch` rows goes through, and their state.

        dtype: that of frames, where the module has none. Raises `TypeError` or `ValueError` where
        outputs depend on later frames. A class that says nothing here is called frame by frame, if
        it is `pointwise`.
        """
        raise TypeError(f"{type(self).__name__} does not say what a stream goes through")

    def compiles(self) -> bool:
        """Return whether `stages` says what a call does; not where a subclass calls otherwise."""
        names = ("stages", "stream", "__call__")
        classes = takewhile(lambda cls: cls is not Module, type(self).__mro__)
        found = (name for cls in classes for name in names if name in vars(cls))
        return next(found, "") == "stages" and all(part.compiles() for _, part in self.children())

    def dtypes(self) -> set[np.dtype[Any]]:
        """Return in what it and its parts compute, as far as they have a dtype of their own."""
        return {part.dtype for part in modules(self) if part.dtype is not None}

    def out_width(self, width: int | None) -> int | None:
        """Return how wide y is where x is so wide, None where that is not known.

        A width is the length of the last axis, 0 that of indices. `ValueError`: the module does not
        take x of this width.
        """
        return None

    def out_lengths(self, lengths: npt.ArrayLike) -> Array:
        """Return how long rows are in y that are `lengths` long in x."""
        return np.asarray(lengths)

    def children(self) -> Iterator[tuple[str, Module]]:
        """Yield the parts by name, in the order they were made: `head`, `layers.0`, `heads.a`."""
        for name, value in vars(self).items():
            if _may_hold(type(value)) and name not in self._no_parts:
                yield from _parts(name, value, ())

    @property
    def params(self) -> Arrays:
        """All parameters under dotted names; write into them freely, the module sees it."""
        return self._with_parts(lambda part: part._lent())

    @property
    def buffers(self) -> Arrays:
        """What is kept with the parameters but has no gradients, such as running statistics."""
        return self._with_parts(lambda part: part._buffers)

    @property
    def stored(self) -> Arrays:
        """Parameters and buffers, under dotted names: what `save` writes."""
        return self._with_parts(lambda part: Arrays({**part._lent(), **part._buffers}))

    @property
    def grads(self) -> Arrays:
        """The accumulated gradients, one for each of `params`, zero until a pullback has run."""
        if next(self.children(), None) is None:
            return self._own_grads()
        return self._with_parts(lambda part: part._own_grads())

    def flat_params(self) -> Array:
        """Return all parameters end to end: one array `(N,)`, of which `params` are views.

        In the order of `params`, each array once. What is written on either side is seen on the
        other. The first call gives the parameters this memory: arrays taken from `params` and
        streams opened before it are those of a module that no longer is. Optimisers follow by
        themselves; copies and pickles have memory of their own. From then on calls look at the
        weights each time, since somebody else may write to them. Raises `ValueError` where
        parameters have several dtypes, there are none, or they are quantized.
        """
        held = {part.weight_type for part in modules(self)} - {None}
        if held:
            raise ValueError(f"weights are {held.pop()}: they cannot be written to")
        return self._flat(lambda part: part._lent())

    def flat_grads(self) -> Array:
        """Return all gradients end to end: one array `(N,)`, of which `grads` are views.

        In the order of `flat_params`. The first call gives the gradients this memory: arrays taken
        from `grads` before it are no longer added to. Raises what `flat_params` raises.
        """
        return self._flat(lambda part: part._own_grads())

    def _flat(self, own: Callable[[Module], Arrays]) -> Array:
        """Return the arrays end to end, and move them into one memory if they are not."""
        arrays = distinct(self._with_parts(own))
        whole = lying_together(arrays.values())
        if whole is None:
            whole, views = laid_together(arrays)
            parts = list(modules(self))
            for part in parts:
                own(part)._replace(views)
            for part in parts:
                part._moved()
            Module._moves += 1
        return whole

    def _moved(self) -> None:
        """Take note that parameters or gradients lie elsewhere: hand them out anew."""

    def __getstate__(self) -> dict[str, Any]:
        """Return what copies and pickles hold: all but the gradients, which are zero in them."""
        return {name: value for name, value in vars(self).items() if name != "_grads"}

    def _lent(self) -> Arrays:
        mine = self._params
        self._lend()
        return mine

    def _own_grads(self) -> Arrays:
        mine: Arrays | None = vars(self).get("_grads")
        if mine is None:  # of two threads that come here at once, both take the first one's
            zeros = Arrays({name: np.zeros_like(p) for name, p in self._params.items()})
            mine = vars(self).setdefault("_grads", zeros)
        return mine

    def _with_parts(self, of: Callable[[Module], Arrays]) -> Arrays:
        """Return this module's own arrays and those of all its parts."""
        joined, count = {}, 0
        for prefix, part in named_modules(self):
            arrays, dot = of(part), "." if prefix else ""
            joined.update({f"{prefix}{dot}{name}": array for name, array in arrays.items()})
            count += len(arrays)
            if len(joined) < count:
                kind = type(self).__name__
                raise ValueError(f"two parts of this {kind} are called {prefix!r}")
        return Arrays(joined)

    def _lend(self) -> None:
        """Say that somebody is given the arrays: compiled layers have to look at them again."""

    def _hold(self, weights: str) -> None:
        """Hold the matrices in fewer bits; `_settle` must follow."""
        raise ValueError(f"a {type(self).__name__} has no weights to quantize")

    def _check_held(self, prefix: str, found: Mapping[str, Array]) -> None:
        """Refuse parameters to be loaded that the kernels would take for others."""

    def _settle(self) -> None:
        """Take note that parameters have been loaded which the kernels do not watch."""

    def zero_grad(self) -> None:
        """Set every gradient to zero, in place."""
        for grad in self.grads.values():
            grad.fill(0)

    def state_dict(self) -> dict[str, Array]:
        """Copies of all parameters and buffers, by name."""
        return {name: array.copy() for name, array in self.stored.items()}

    def load_state_dict(self, state: Mapping[str, npt.ArrayLike]) -> None:
        """Copy parameters in, e.g. from torch. Raises `ValueError` naming all that does not fit."""
        self._load(state)

    def save(self, path: str | os.PathLike[str], metadata: Mapping[str, Any] | None = None) -> None:
        """Write the module to a safetensors file, replaced atomically; `rnncore.load` reads it.

        It holds the parameters and buffers, what the constructors of the module and of its parts
        were given (but no seeds), and `metadata`, each value as JSON.
        """
        if metadata and KEY in metadata:
            raise ValueError(f"metadata must not have an entry {KEY!r}: the module's own is there")
        own = {"version": info()["version"], "module": describe(self)}
        types = {n: part.weight_type for n, part in named_modules(self) if part.weight_type}
        if types:
            own["weights"] = types
        params = self.stored
        halves = {n for n, array in params.items() if array.dtype == np.uint16}
        save_arrays(path, params, {**(metadata or {}), KEY: own}, bfloat16=halves)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Read the parameters from a safetensors file written by `save`.

        Raises `FileNotFoundError`, or `ValueError` naming the file and all that does not fit; then
        nothing is changed.
        """
        arrays, _ = load_arrays(path)
        with reading(path):
            self._load(arrays)

    def _load(self, state: Mapping[str, npt.ArrayLike]) -> None:
        params = self.stored
        found = fitting(params, state)
        for name, part in named_modules(self):
            part._check_held(f"{name}." if name else "", found)
        load_into(params, found)
        for part in modules(self):
            part._settle()


put_hints(Module, hints.MODULE)

#: Modules, and where they may lie.
_HOLDERS = (Module, list, tuple, deque, dict, set, frozenset)


def _holds(kind: type) -> bool:
    return issubclass(kind, _HOLDERS)


#: Whether parts may lie in a value of this type: asked of every attribute at every use of `params`.
_may_hold: Callable[[type], bool] = lru_cache(maxsize=1024)(_holds)


def _parts(name: str, value: Any, above: tuple[Any, ...]) -> Iterator[tuple[str, Module]]:
    """Yield the modules in an attribute, or in a container within it."""
    if isinstance(value, Module):
        yield name, value
        return
    values = value.values() if isinstance(value, dict) else value
    if not any(map(_may_hold, set(map(type, values)))):
        return
    if any(value is one for one in above):
        raise ValueError(f"{name} lies in itself: parts must not go round in a circle")
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in ((key, part) for key, part in items if _may_hold(type(part))):
        for found in _parts(f"{name}.{key}", part, (*above, value)):
            if isinstance(value, (set, frozenset)):
                raise TypeError(f"{name} is a set, whose parts have no order: use a list or a dict")
            yield found


def named_modules(
    module: Module, prefix: str = "", above: tuple[Module, ...] = ()
) -> Iterator[tuple[str, Module]]:
    """Yield a module and all its parts under dotted names; one in two places comes twice.

    Raises `ValueError` where a module is a part of itself.
    """
    if above and any(module is one for one in above):
        kind = type(module).__name__
        raise ValueError(
            f"{prefix} is the {kind} that it lies in: parts must not go round in a circle"
        )
    yield prefix, module
    for name, part in module.children():
        yield from named_modules(part, f"{prefix}.{name}" if prefix else name, (*above, module))


def modules(module: Module) -> Iterator[Module]:
    """Yield a module and all its parts."""
    return (part for _, part in named_modules(module))


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
        raise ValueError(
            f"{os.fspath(path)} describes no module: its class is not known. load of a module "
            "reads arrays into it, rnncore.convert.from_torch finds the layers that they are of"
        )
    version, mine = own.get("version"), info()["version"]
    hint = "" if version == mine else f" (written by version {version!r:.20}, this is {mine})"
    with reading(path, hint=hint):
        with room_for(sum(array.size for array in arrays.values()), len(arrays)):
            module = Builder(classes, seed).build(own["module"])
        if not isinstance(module, Module):
            raise ValueError(f"it describes no module, but {module!r:.80}")
        _hold_all(module, own.get("weights", {}))
        module._load(arrays)
    return module


def _hold_all(module: Module, types: Any) -> None:
    """Hold weights as a file says of parts by their names."""
    parts = dict(named_modules(module))
    if not isinstance(types, dict):
        raise ValueError(f"it says of the weights {types!r:.80}")
    for name, weights in types.items():
        if name not in parts or weights not in WEIGHT_TYPES:
            raise ValueError(f"it says that the weights of {name!r:.80} are {weights!r:.80}")
        part = parts[name]
        if part.weight_type is None:
            part._hold(weights)
        elif part.weight_type != weights:  # one part under two names
            raise ValueError(f"it says that the weights of {name!r:.80} are of two types")


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
