"""Modules that read one another's outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from ..arrays import Array, check_count, short
from ..module import Module, Pullback, once
from .composition import agreed, run, told_resets
from .ragged import lengths_after, takes_lengths, told

#: What a module reads: an input or a node by name, or (name, n), the n-th output of a node.
Read: TypeAlias = "str | tuple[str, int]"
#: A value's place: the name of an input or a node, and which of its outputs.
_Place: TypeAlias = tuple[str, int]


class _Run(NamedTuple):
    """What became of a call: all values, final states, and the nodes' pullbacks if recorded."""

    values: dict[str, Any]
    state: tuple[Any, ...]
    pullbacks: dict[str, Any]


class Graph(Module):
    """Modules that read one another's outputs: branches, several inputs and outputs.

        Graph(
            ["x"],
            [
                ("lstm", LSTM(3, 4), "x"),
                ("both", Merge("concat"), "x", "lstm"),
                ("out", Linear(7, 2), "both"),
            ],
            ["out"],
        )

    inputs: names of the arrays of a call, in order. nodes: (name, module, what it reads, ...), each
    after those that it reads. A read is a name, or (name, n) for the n-th output of a module that
    returns a tuple, of which the name alone is the first. outputs: what a call returns, a tuple if
    several. One module may stand in several nodes.

    If a node is recurrent, so is the graph: `graph(x, ..., state=None, *, lengths=None,
    resets=None) -> (y, state)` with a tuple of one state for each recurrent node. lengths: `(B,)`
    for the steps of the inputs, or a mapping from names of inputs where there are unequal ones.
    They follow an input through modules, as in a `Chain`; what reads other steps (behind a
    `RepeatVector`, say) runs over all of them. resets follow the one input whose steps nodes read.
    """

    def __init__(
        self, inputs: Sequence[str], nodes: Sequence[tuple[Any, ...]], outputs: Sequence[Read]
    ) -> None:
        super().__init__()
        self.inputs = tuple(_checked_name("inputs", name, ()) for name in inputs)
        if not self.inputs or len(set(self.inputs)) < len(self.inputs):
            raise ValueError(f"inputs must be names, each another one, got {short(inputs)}")
        self.parts: dict[str, Module] = {}
        self._reads: dict[str, tuple[_Place, ...]] = {}
        for node in nodes:
            self._add(node)
        self.outputs = tuple(self._place("outputs", place) for place in outputs)
        if not self.outputs:
            raise ValueError("outputs must name at least one value")
        self.recurrent = any(part.recurrent for part in self.parts.values())
        self.takes_lengths = takes_lengths(self.parts.values())
        self.takes_resets = any(part.takes_resets for part in self.parts.values())
        self.takes_indices = any(part.takes_indices for part in self.parts.values())
        self.batch_first = agreed("batch_first", self.parts)
        self.dtype = agreed("dtype", self.parts)
        self._steps = _steps(self)
        ends = self._steps.of.get(self.outputs[0])
        self.keeps_steps = ends is not None and ends == self._steps.of[self.inputs[0], 0]

    def _add(self, node: Any) -> None:
        if not isinstance(node, (tuple, list)) or len(node) < 3:
            raise TypeError(f"nodes must be (name, module, reads, ...), got {short(node)}")
        name, module, *reads = node
        _checked_name("nodes", name, (*self.inputs, *self.parts))
        if not isinstance(module, Module):
            raise TypeError(f"node {name!r} must be a Module, got {type(module).__name__}")
        self._reads[name] = tuple(self._place(f"node {name!r}", place) for place in reads)
        self.parts[name] = module

    def _place(self, who: str, given: Any) -> _Place:
        pair = isinstance(given, (tuple, list)) and len(given) == 2
        name, at = given if pair else (given, 0)
        check_count(f"the output that {who} reads", at, 0)
        if name not in self.inputs and name not in self.parts:
            raise ValueError(f"{who} reads {short(name)}, which is no input and no node before it")
        return name, at

    def children(self) -> Iterator[tuple[str, Module]]:
        """Yield the modules under their nodes' names."""
        return iter(self.parts.items())

    def out_lengths(self, lengths: npt.ArrayLike) -> Array:
        """Return how long rows of the first output are that are `lengths` long in the first input.

        They are the same where the output has no steps of that input.
        """
        found: dict[_Place, Any] = {(self.inputs[0], 0): np.asarray(lengths)}
        for name, part in self.parts.items():
            _, found[name, 0] = _lengths(part, [found.get(place) for place in self._reads[name]])
        after = found.get(self.outputs[0])
        return np.asarray(lengths if after is None else after)

    @property
    def ragged_inputs(self) -> tuple[str, ...]:
        """The inputs that lengths may be given for: nodes that take lengths read their steps."""
        return tuple(name for name in self.inputs if self._steps.equal[name] in self._steps.read)

    def __call__(
        self, *given: Any, state: Any = None, lengths: Any = None, resets: Any = None
    ) -> Any:
        """Return the outputs, or (outputs, state) if the graph is recurrent."""
        xs, state = self._split(given, state)
        found = self._run(xs, state, lengths, resets, False)
        return self._result(found)

    def vjp(
        self, *given: Any, state: Any = None, lengths: Any = None, resets: Any = None
    ) -> tuple[Any, Pullback]:
        """Return what a call returns, and the pullback from dy (and dstate) to dx (and dstate).

        Of several outputs `pullback(dy, ...)` takes one after the other, that of a recurrent graph
        `pullback((dy, ...), dstate)`; of several inputs dx is a tuple. None stands for zero in dy
        and dstate, and in dx for the gradient of indices and of what no output depends on.
        """
        xs, state = self._split(given, state)
        found = self._run(xs, state, lengths, resets, True)
        pullbacks = found.pullbacks
        counts = {n: len(v) for n, v in found.values.items() if isinstance(v, tuple)}
        result = self._result(found)
        del found

        def pullback(*dys: Any) -> Any:
            return self._pull(_Sums(counts), pullbacks, dys)[0]

        def pullback_with_state(dy: Any, dstate: Any = None) -> Any:
            dys = dy if len(self.outputs) > 1 else (dy,)
            return self._pull(_Sums(counts), pullbacks, dys, dstate)

        return result, once(pullback_with_state if self.recurrent else pullback)

    def _pull(
        self, sums: _Sums, pullbacks: dict[str, Any], dys: Any, dstate: Any = None
    ) -> tuple[Any, tuple[Any, ...]]:
        """The gradients of the inputs, and of the first states."""
        if not isinstance(dys, (tuple, list)) or len(dys) != len(self.outputs):
            raise ValueError(f"dy must be given for each of the {len(self.outputs)} outputs")
        for place, d in zip(self.outputs, dys, strict=True):
            sums.add(place, d)
        dfirst = self._back(sums, pullbacks, self._states("dstate", dstate))
        dxs = tuple(sums.of.get((name, 0)) for name in self.inputs)
        return dxs if len(dxs) > 1 else dxs[0], dfirst

    def _split(self, given: tuple[Any, ...], state: Any) -> tuple[tuple[Any, ...], Any]:
        """Take what a call was given apart: the inputs, and the state that may come last."""
        count = len(self.inputs)
        if self.recurrent and state is None and len(given) == count + 1:
            return given[:-1], given[-1]
        if len(given) != count:
            raise TypeError(f"the graph takes {', '.join(self.inputs)}: got {len(given)} arrays")
        return given, state

    def _states(self, name: str, states: Any) -> list[Any]:
        """One state for each recurrent node."""
        count = sum(part.recurrent for part in self.parts.values())
        if states is None:
            return [None] * count
        if not isinstance(states, (tuple, list)) or len(states) != count:
            raise ValueError(
                f"{name} must be a tuple with one entry for each of the {count} recurrent nodes"
            )
        return list(states)

    def _run(self, xs: Sequence[Any], state: Any, lengths: Any, resets: Any, record: bool) -> _Run:
        before, after = self._states("state", state), []
        values, pullbacks = dict(zip(self.inputs, xs, strict=True)), {}
        ragged = self._steps.given(lengths)
        source = None if resets is None else self._steps.reset(self.takes_resets)
        for name, part in self.parts.items():
            args = [_value(values, place) for place in self._reads[name]]
            own, ragged[name, 0] = _lengths(part, [ragged.get(p) for p in self._reads[name]])
            if source in map(self._steps.of.get, self._reads[name]):
                own |= told_resets(part, resets)
            if part.recurrent:
                args.append(before.pop(0))
            output, pullbacks[name] = run(part, record, *args, **own)
            if part.recurrent:
                output, final = output
                after.append(final)
            values[name] = output
        return _Run(values, tuple(after), pullbacks)

    def _result(self, found: _Run) -> Any:
        ys = tuple(_value(found.values, place) for place in self.outputs)
        y = ys if len(ys) > 1 else ys[0]
        return (y, found.state) if self.recurrent else y

    def _back(self, sums: _Sums, pullbacks: dict[str, Any], dlast: list[Any]) -> tuple[Any, ...]:
        """Run the nodes' pullbacks, last first; return the gradients of the first states."""
        dfirst = []
        for name, part in reversed(self.parts.items()):
            d = sums.taken(name)
            if part.recurrent:
                dx, dstate = pullbacks[name](d, dlast.pop())
                dfirst.append(dstate)
            elif d is None:
                continue
            else:
                dx = pullbacks[name](*d) if isinstance(d, tuple) else pullbacks[name](d)
            reads = self._reads[name]
            for place, own in zip(reads, dx if len(reads) > 1 else (dx,), strict=True):
                sums.add(place, own)
        return tuple(reversed(dfirst))


class _Sums:
    """Gradients of values, summed over all that read them."""

    def __init__(self, counts: dict[str, int]) -> None:
        self.of: dict[_Place, Any] = {}
        self._counts = counts

    def add(self, place: _Place, d: Any) -> None:
        """Add to the gradient of a value; None is zero."""
        if d is not None:
            self.of[place] = d if place not in self.of else self.of[place] + d

    def taken(self, name: str) -> Any:
        """The gradient of what a node returned: None, or a tuple, if it returned one."""
        if name not in self._counts:
            return self.of.pop((name, 0), None)
        found = tuple(self.of.pop((name, at), None) for at in range(self._counts[name]))
        return None if all(d is None for d in found) else found


def _lengths(part: Module, found: list[Any]) -> tuple[dict[str, Any], Any]:
    """What a node is told of the lengths of what it reads, and the lengths of its output."""
    known = [lengths for lengths in found if lengths is not None]
    # Of attention the lengths are those of the values, its last; its steps the query's, its first.
    last = known[-1] if known else None
    own = {"lengths": last} if part.recurrent and known else told(part, last)
    first = found[0] if part.recurrent or part.takes_lengths else next(iter(known), None)
    return own, lengths_after(part, first)


class _Steps(NamedTuple):
    """Whose steps each value has."""

    of: dict[_Place, str | None]  # a place to the input whose steps it has, of equal ones the first
    read: tuple[str, ...]  # the inputs whose steps are read by nodes that take lengths
    equal: dict[str, str]  # inputs to the first of those with the same steps

    def reset(self, takes_resets: bool) -> str:
        """The input whose steps sequences start anew at."""
        if not takes_resets or len(self.read) != 1:
            names = ", ".join(self.read) if takes_resets else ""
            raise ValueError(
                f"resets must be for the steps of one input, nodes read those of {names or 'none'}"
            )
        return self.read[0]

    def given(self, lengths: Any) -> dict[_Place, Any]:
        """The lengths of the inputs."""
        if lengths is None:
            return {}
        if not isinstance(lengths, Mapping):
            if len(self.read) != 1:
                names = ", ".join(self.read) or "none: no node takes lengths"
                raise ValueError(f"lengths must be given for each of the inputs by name: {names}")
            lengths = {self.read[0]: lengths}
        unknown = [name for name in lengths if self.equal.get(name) not in self.read]
        if unknown:
            raise ValueError(f"lengths has {short(unknown[0])}, whose steps no node reads")
        found: dict[str, Any] = {}
        for name, value in lengths.items():
            first = found.setdefault(self.equal[name], value)
            if not np.array_equal(first, value):
                raise ValueError(
                    f"lengths of {name} must be those of {self.equal[name]}, which has the same "
                    f"steps: {short(first)}, got {short(value)}"
                )
        return {(name, 0): found[first] for name, first in self.equal.items() if first in found}


def _steps(graph: Graph) -> _Steps:
    """Follow the steps of the inputs through the modules that keep them."""
    equal = {name: name for name in graph.inputs}
    of: dict[_Place, str | None] = {(name, 0): name for name in graph.inputs}
    read: list[str] = []
    for name, part in graph.parts.items():
        found = [of.get(place) for place in graph._reads[name]]
        known = [source for source in found if source is not None]
        takes = part.recurrent or part.takes_lengths
        if takes:
            read += known[-1:]
        elif part.keeps_steps:
            for source in known[1:]:
                equal = _joined(equal, known[0], source)
        first = found[0] if takes else next(iter(known), None)
        of[name, 0] = first if part.keeps_steps else None
    return _Steps(
        {place: source and equal[source] for place, source in of.items()},
        tuple(dict.fromkeys(equal[source] for source in read)),
        equal,
    )


def _joined(equal: dict[str, str], a: str, b: str) -> dict[str, str]:
    """Say that two inputs have the same steps."""
    return {name: equal[a] if first == equal[b] else first for name, first in equal.items()}


def _checked_name(what: str, name: Any, taken: Sequence[str]) -> str:
    if not isinstance(name, str) or not name or name in taken:
        raise ValueError(f"{what} must have names, each another one, got {short(name)}")
    return name


def _value(values: Mapping[str, Any], place: _Place) -> Any:
    name, at = place
    value = values[name]
    if not isinstance(value, tuple):
        value = (value,)
    if not 0 <= at < len(value):
        raise ValueError(f"{name} has no output {at}, it has {len(value)}")
    return value[at]
