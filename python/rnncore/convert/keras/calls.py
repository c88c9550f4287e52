"""The configuration of a model: its layers, and what each of their calls reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator
from typing import Any, NamedTuple

from ..common import refusal, shown
from .arrays import Entry, name_of
from .others import OTHERS
from .settings import at_rest, plain

#: A tensor of a configuration: a layer's name, which of its calls, which of that call's outputs.
Tensor = tuple[str, int, int]


class Call(NamedTuple):
    """One call of a layer."""

    entry: Entry
    at: int  # which of the layer's calls
    reads: list[Tensor]  # the input or inputs, and the first states of a recurrent layer
    masks: list[Tensor]  # what tells which steps count, where the configuration says so


class Description(NamedTuple):
    """A model's layers, and their calls in an order in which they can be made."""

    layers: list[Entry]
    calls: list[Call]
    inputs: list[Tensor]
    outputs: list[Tensor]


def described(model: Entry, custom: Container[str] = ()) -> Description:
    """Take the configuration of a model apart; custom: classes that may be anybody's."""
    kind, config = plain(model["class_name"]), model["config"]
    layers = config if isinstance(config, list) else config["layers"]
    for entry in layers:
        if entry["class_name"] not in custom:
            check_origin(entry)
    if kind == "Sequential":
        return _in_line(layers)
    if kind != "Functional":
        raise refusal("rnncore", f"a Keras model of class {shown(model['class_name'])}")
    inputs, outputs = (list(_tensors(config[name])) for name in ("input_layers", "output_layers"))
    calls = {(name_of(call.entry), call.at): call for call in _calls(layers)}
    moved = _moved(calls, outputs)
    outputs = [_shifted(tensor, moved) for tensor in outputs]
    ordered = list(_ordered(calls, moved, inputs, outputs))
    return Description(layers, ordered, inputs, outputs)


def who(entry: Entry) -> str:
    """Return a layer's class and name, as messages have them."""
    return f"{entry['class_name']} {shown(name_of(entry))}"


def check_origin(entry: Entry) -> None:
    """Refuse a class of somebody's own, which may have the name of one of Keras's."""
    module, other = entry.get("module"), OTHERS.get(entry["class_name"])
    packages = (other.package,) if other else ("keras", "tf_keras", "tensorflow")
    if module and module.split(".")[0] not in packages:  # older files do not tell
        raise refusal("rnncore", f"{who(entry)} of the module {shown(module)}")


def _in_line(layers: list[Entry]) -> Description:
    """Each layer reads the one before it; the input's may be missing."""
    calls: list[Call] = []
    first = before = ("x", 0, 0)
    for entry in layers:
        if isinstance(entry["config"], dict) and entry["config"].get("return_state"):
            raise refusal("rnncore", f"{who(entry)} with return_state=True in a Sequential model")
        name = name_of(entry)
        if entry["class_name"] == "InputLayer":
            first = before = (name, 0, 0)
        else:
            calls.append(Call(entry, 0, [before], []))
            before = (name, 0, 0)
    return Description(layers, calls, [first], [before])


def _calls(layers: list[Entry]) -> Iterator[Call]:
    for entry in layers:
        for at, node in enumerate(entry.get("inbound_nodes") or []):
            yield _call(entry, at, node)


def _call(entry: Entry, at: int, node: Any) -> Call:
    """One call, in the form of Keras 3 (args and kwargs) or of Keras 2 (a list)."""
    if isinstance(node, dict):
        given, options = node["args"], dict(node.get("kwargs") or {})
    else:
        given = node
        options = {key: value for one in node if len(one) > 3 for key, value in one[3].items()}
    reads = [*_tensors(given), *_tensors(options.pop("initial_state", None))]
    masks = list(_tensors(options.pop("mask", None)))
    for key, value in options.items():
        if not at_rest(value):
            raise refusal("rnncore", f"{who(entry)} called with {key}={shown(value)}")
    return Call(entry, at, reads, masks)


def _masked(calls: dict[tuple[str, int], Call], moved: dict[str, int], call: Call) -> list[Tensor]:
    """The tensors whose steps are compared with a number to make the masks of a call.

    Keras 3 writes these comparisons as layers of their own.
    """
    found = []
    for mask in call.masks:
        tensor, kind = mask, ""
        while kind != "NotEqual":
            maker = calls.get(_shifted(tensor, moved)[:2])
            kind = maker.entry["class_name"] if maker else ""
            if maker is None or kind not in ("NotEqual", "Any") or len(maker.reads) != 1:
                what = f"{who(call.entry)} called with mask={shown(mask[0])}"
                raise refusal("rnncore", what)
            (tensor,) = maker.reads
        found.append(_shifted(tensor, moved))
    return found


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
            yield call._replace(reads=reads, masks=_masked(calls, moved, call))
        elif key in opened:
            raise ValueError(f"layer {shown(key[0])} reads what depends on it")
        else:
            opened.add(key)
            waiting += reversed(missing)
