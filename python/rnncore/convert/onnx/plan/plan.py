"""What runs a graph for inputs of one set of shapes, and the few of them that a model keeps."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np

from ....arrays import Array
from ...budget import Budget
from ..nodes import Body, Node, Value
from .batching import Batch, batched, needed
from .fusing import Fused, Fuser
from .layers import convolve, lower, multiply_together
from .steps import Layers, Steps
from .tracing import Trace, Unknown, is_choice

#: So many sets of shapes are kept.
_KEPT = 8
#: What plans compute in.
_TYPES = (np.dtype(np.float32), np.dtype(np.float64))


class Plan:
    """The steps for one set of shapes, over arrays of their own: one call at a time."""

    def __init__(self, trace: Trace, dtype: np.dtype[Any], layers: Layers) -> None:
        steps = Steps(trace, dtype, layers)
        self.inputs = {}
        for name in trace.inputs:
            if name not in trace.static:
                self.inputs[name] = steps.values[name] = np.zeros_like(trace.values[name])
        for item in batched(needed(Fuser(trace, dtype).items(), trace.outputs)):
            if isinstance(item, Fused):
                convolve(steps, item)
            elif isinstance(item, Batch):
                if not multiply_together(steps, item):
                    for node in item.nodes:
                        _add(steps, node)
            else:
                _add(steps, item)
        self.steps = steps.steps
        self.outputs = [steps.value(name) for name in trace.outputs]

    def run(self, given: Mapping[str, Array]) -> tuple[Array, ...]:
        """Return the outputs, in new arrays."""
        for name, array in self.inputs.items():
            np.copyto(array, given[name])
        with np.errstate(all="ignore"):  # a graph may divide by zero, as elsewhere
            for step in self.steps:
                step()
        return tuple(np.array(value, order="C") for value in self.outputs)


def _add(steps: Steps, node: Node) -> None:
    """Add a node: compiled where it computes in the plan's type, else as it is."""
    names = [name for name in (*node.inputs, *node.outputs) if name not in steps.trace.static]
    values = [steps.trace.values[name] for name in names if name]
    alike = all(value.dtype == steps.dtype for value in values)
    if not (alike and all(value.size for value in values) and lower(steps, node)):
        steps.interpret(node)


class Plans:
    """The plans of a model, by the shapes of its inputs: the first run with some makes theirs.

    size: what a run may make for each number that it is given, and once beside them, in bytes.
    """

    def __init__(self, body: Body, size: int) -> None:
        self._body, self._size = body, size
        self._free: OrderedDict[Any, list[Plan]] = OrderedDict()
        self._open = False  # shapes depend on numbers: there can be none
        self._layers: Layers = {}
        self._lock = threading.Lock()

    def run(self, given: Mapping[str, Array]) -> tuple[Value, ...]:
        """Return the outputs of a body for these inputs, which are all of them in its order.

        They are arrays of their own, or lists for sequences.
        """
        key = tuple(map(_signature, given.values()))
        plan = self._take(key) or self._make(given)
        if plan is None:
            results = self._body.run(given, self._budget(given))
            return tuple(v if isinstance(v, list) else np.array(v, order="C") for v in results)
        try:
            return plan.run(given)
        finally:
            self._give(key, plan)

    def _take(self, key: Any) -> Plan | None:
        """A plan that no other thread uses now."""
        with self._lock:
            plans = self._free.get(key)
            return plans.pop() if plans else None

    def _give(self, key: Any, plan: Plan) -> None:
        with self._lock:
            self._free.setdefault(key, []).append(plan)
            self._free.move_to_end(key)
            while len(self._free) > _KEPT:
                self._free.popitem(last=False)

    def _make(self, given: Mapping[str, Array]) -> Plan | None:
        """A new plan; None where there can be none."""
        trace = None if self._open else self._trace(given)
        if trace is None:
            return None
        floats = {value.dtype for value in given.values() if value.dtype in _TYPES}
        with self._lock:
            return Plan(trace, max(floats, default=_TYPES[0], key=_TYPES.index), self._layers)

    def _trace(self, given: Mapping[str, Array]) -> Trace | None:
        """A trace; None where there is none, or none for what was given."""
        try:
            return Trace(self._body, given, self._budget(given))
        except Unknown:
            self._open = True
        except ValueError:  # the nodes, run one by one, say what is wrong
            pass
        return None

    def _budget(self, given: Mapping[str, Array]) -> Budget:
        return Budget(self._size * (1 + sum(value.size for value in given.values())))


def _signature(value: Array) -> Any:
    return value.item() if is_choice(value) else (value.shape, value.dtype)
