"""The configuration of a model: its layers, and what each of their calls reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from ..common import refusal, shown
from .arrays import Entry
from .settings import at_rest, plain

#: A tensor of a configuration: a layer's name, which of its calls, which of that call's outputs.
Tensor = tuple[str, int, int]


class Call(NamedTuple):
    """One call of a layer."""

    entry: Entry
    at: int  # which of the layer's calls
    reads: list[Tensor]  # the input or inputs, and the first states of a recurrent layer


class Description(NamedTuple):
    """A model's layers, and their calls in an order in which they can be made."""

    layers: list[Entry]
    calls: list[Call]
    inputs: list[Tensor]
    outputs: list[Tensor]


def described(model: Entry) -> Description:
    """Take the configuration of a model apart."""
    kind, config = plain(model["class_name"]), model["config"]
    layers = config if isinstance(config, list) else config["layers"]
    for entry in layers:
        check_origin(entry)
    if kind == "Sequential":
        return _in_line(layers)
    if kind != "Functional":
        raise refusal("rnncore", f"a Keras model of class {shown(model['class_name'])}")
    inputs, outputs = (list(_tensors(config[name])) for name in ("input_layers", "output_layers"))
    calls = {(call.entry["config"]["name"], call.at): call for call in _calls(layers)}
    moved = _moved(calls, outputs)
    outputs = [_shifted(tensor, moved) for tensor in outputs]
    ordered = list(_ordered(calls, moved, inputs, outputs))
    return Description(layers, ordered, inputs, outputs)


def check_origin(entry: Entry) -> None:
    """Refuse a class of somebody's own, which may have the name of one of Keras's."""
    module = entry.get("module") or "keras"  # older files do not tell
    if module.split(".")[0] not in ("keras", "tf_keras", "tensorflow"):
        kind, name = entry["class_name"], entry["config"].get("name", "")
        raise refusal("rnncore", f"{kind} {shown(name)} of the module {shown(module)}")


def _in_line(layers: list[Entry]) -> Description:
    """Each layer reads the one before it; the input's may be missing."""
    calls: list[Call] = []
    first = before = ("x", 0, 0)
    for at, entry in enumerate(layers):
        name = entry["config"].get("name", f"{entry['class_name']} {at}")
        if entry["config"].get("return_state"):
            who = f"{entry['class_name']} {shown(name)}"
            raise refusal("rnncore", f"{who} with return_state=True in a Sequential model")
        if entry["class_name"] == "InputLayer":
            first = before = (name, 0, 0)
        else:
            calls.append(Call(entry, 0, [before]))
            before = (name, 0, 0)
    return Description(layers, calls, [first], [before])


def _calls(layers: list[Entry]) -> Iterator[Call]:
    for entry in layers:
        for at, node in enumerate(entry.get("inbound_nodes") or []):
            yield Call(entry, at, _reads(entry, node))


def _reads(entry: Entry, node: Any) -> list[Tensor]:
    """What a call reads, in the form of Keras 3 (args and kwargs) or of Keras 2 (a list)."""
    if isinstance(node, dict):
        given, options = node["args"], dict(node.get("kwargs") or {})
    else:
        given = node
        options = {key: value for one in node if len(one) > 3 for key, value in one[3].items()}
    reads = list(_tensors(given))
    states = options.pop("initial_state", None)
    for key, value in options.items():
        if not at_rest(value):
            who = f"{entry['class_name']} {shown(entry['config'].get('name', ''))}"
            raise refusal("rnncore", f"{who} called with {key}={shown(value)}")
    return [*reads, *_tensors(states)]


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors within a nested value of a configuration."""
    if isinstance(value, dict):
        if value.get("class_name") == "__keras_tensor__":
            yield from _tensors(value["config"]["keras_history"])
        else:
            for part in value.values():
                yield from _tensors(part)
    elif isinstance(value, (list, tuple)):
        if len(value) in (3, 4) and isinstance(value[0], str):
            name, at, output = value[:3]
            yield name, int(at), int(output)
        else:
            for part in value:
                yield from _tensors(part)


def _moved(calls: dict[tuple[str, int], Call], outputs: list[Tensor]) -> dict[str, int]:
    """By how many the numbers of layers' calls are too high: Keras 2 counts a model's making."""
    most: dict[str, int] = {}
    counts = Counter(name for name, _ in calls)
    for name, at, _ in [*outputs, *(tensor for call in calls.values() for tensor in call.reads)]:
        most[name] = max(most.get(name, 0), at)
    return {name: at + 1 - max(counts[name], 1) for name, at in most.items() if at >= counts[name]}


def _shifted(tensor: Tensor, moved: dict[str, int]) -> Tensor:
    name, at, output = tensor
    return name, at - moved.get(name, 0), output


def _ordered(
    calls: dict[tuple[str, int], Call],
    moved: dict[str, int],
    inputs: list[Tensor],
    outputs: list[Tensor],
) -> Iterator[Call]:
    """Those calls that the outputs depend on, each behind what it reads."""
    done = {(name, at) for name, at, _ in inputs}
    waiting = [(name, at) for name, at, _ in reversed(outputs)]
    opened: set[tuple[str, int]] = set()
    while waiting:
        key = waiting[-1]
        if key in done:
            waiting.pop()
            continue
        if key not in calls:
            raise ValueError(f"no layer gives {shown(key[0])}, which is read")
        call = calls[key]
        reads = [_shifted(tensor, moved) for tensor in call.reads]
        missing = [(name, at) for name, at, _ in reads if (name, at) not in done]
        if not missing:
            done.add(key)
            waiting.pop()
            yield call._replace(reads=reads)
        elif key in opened:
            raise ValueError(f"layer {shown(key[0])} reads what depends on it")
        else:
            opened.add(key)
            waiting += reversed(missing)
