"""Arrays of a single layer that no configuration describes, made into a layer in our terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy.typing as npt

from ...arrays import Array
from ...files import one_line
from ...reference.keras import KerasLayer
from ..common import GATES, as_floats, refusal, shown
from .cudnn import on_cudnn, plain_weights
from .settings import CELLS, Version, activation_name


class Options(NamedTuple):
    """What the caller says of the layer; None is Keras's default."""

    cell: str | None
    activation: Any
    recurrent_activation: Any
    reset_after: bool | None
    merge_mode: str | None

    def check_none(self, what: str) -> None:
        """Refuse those that were given where they have no effect."""
        for name, value in self._asdict().items():
            if value is not None:
                raise ValueError(f"{name} has no effect on {what}: it must be None")


def from_weights(source: Sequence[npt.ArrayLike], options: Options) -> KerasLayer:
    """Return a recurrent layer of what its `get_weights()` gives."""
    weights = [as_floats(f"array {at}", array) for at, array in enumerate(source)]
    if len(weights) not in (2, 3, 4, 6) or any(array.ndim != 2 for array in weights[:2]):
        shapes = ", ".join(str(array.shape) for array in weights)
        raise ValueError(
            "weights must be kernel, recurrent kernel and, it may be, bias, of one direction or "
            f"two; got arrays of shapes {one_line(shapes, 200) or 'none at all'}"
        )
    if len(weights) in (4, 6):
        _check_two_directions(weights, options.merge_mode)
    return _recurrent("", weights, options, len(weights) in (4, 6))


def _check_two_directions(weights: list[Array], merge_mode: str | None) -> None:
    """Refuse the arrays of two layers on one another, which a Bidirectional's may look like."""
    half = len(weights) // 2
    kernel, recurrent, other = weights[0], weights[1], weights[half]
    if other.ndim != 2 or kernel.shape[0] != other.shape[0]:
        raise ValueError(
            f"array {half} of shape {other.shape} does not read what array 0 of shape "
            f"{kernel.shape} reads: not a Bidirectional, but two layers; give the arrays of each"
        )
    if other.shape[0] == recurrent.shape[0] and merge_mode is None:
        raise ValueError(
            f"{len(weights)} arrays are those of a Bidirectional, or of two layers of which the "
            'second reads the first: say merge_mode="concat" for the one, give each layer\'s '
            "arrays for the other"
        )


def from_names(
    name: str, named: Mapping[str, Array], options: Options, version: Version
) -> KerasLayer:
    """Return a layer of a file of weights, known by the names of its arrays."""
    ends = tuple(key.rsplit("/", 1)[-1] for key in named)
    weights = list(named.values())
    if ends[:2] == ("kernel", "recurrent_kernel"):
        both = all(any(f"{side}_" in key for key in named) for side in ("forward", "backward"))
        if len(weights) > 3 and not both:
            raise refusal("rnncore", f"layer {shown(name)} of several cells without a description")
        return _recurrent(name, weights, _dated(name, weights, options, version), both)
    if ends in (("kernel",), ("kernel", "bias")) and weights[0].ndim == 2:
        options._replace(activation=None).check_none(f"the Dense layer {shown(name)}")
        own = {"activation": activation_name(options.activation)}
        return KerasLayer("Dense", name, own, weights)
    if ends not in _KINDS:
        raise ValueError(
            f"layer {shown(name)} cannot be told by its arrays, {', '.join(ends) or 'none'}: "
            "give the architecture, or take the arrays from keras_weights(path)"
        )
    options.check_none(f"the layer {shown(name)}")
    return KerasLayer(_KINDS[ends], name, {"epsilon": 1e-3, "momentum": 0.99}, weights)


_KINDS = {
    ("embeddings",): "Embedding",
    ("gamma", "beta"): "LayerNormalization",
    ("gamma", "beta", "moving_mean", "moving_variance"): "BatchNormalization",
}


def _dated(name: str, weights: list[Array], options: Options, version: Version) -> Options:
    """Take the default that Keras had when the file was written; refuse to guess it.

    Until Keras 2.3 `recurrent_activation` was "hard_sigmoid", except on cuDNN. TensorFlow's own
    Keras changed it without changing its version.
    """
    kind = _kind(weights[0], weights[1], options.cell)
    told = options.recurrent_activation
    changed = kind != "SimpleRNN" and version < (2, 3) and not on_cudnn(kind, weights[:3])
    if told is None and changed:
        if not version.certain:
            raise ValueError(
                f"layer {shown(name)} may be of a Keras before 2.3, whose recurrent_activation "
                'was "hard_sigmoid" unless told: say recurrent_activation='
            )
        told = "hard_sigmoid"
    if isinstance(told, str):
        options = options._replace(recurrent_activation=activation_name(told, version[0]))
    return options


def _recurrent(name: str, weights: list[Array], options: Options, both: bool) -> KerasLayer:
    count = len(weights) // 2 if both else len(weights)
    kind = _kind(weights[0], weights[1], options.cell)
    name = name or kind
    parts = [plain_weights(kind, weights[at : at + count]) for at in (0, count)[: 1 + both]]
    config = {
        "activation": activation_name("tanh" if options.activation is None else options.activation),
        "recurrent_activation": activation_name(
            "sigmoid" if options.recurrent_activation is None else options.recurrent_activation
        ),
        "use_bias": count == 3,
        "return_sequences": True,
    }
    if kind == "GRU":
        config["reset_after"] = _reset_after(parts[0], options.reset_after)
    if not both:
        return KerasLayer(kind, name, config, parts[0])
    directions = [(kind, config), (kind, config | {"go_backwards": True})]
    merged = {"parts": directions, "merge_mode": options.merge_mode or "concat"}
    return KerasLayer("Bidirectional", name, merged, [*parts[0], *parts[1]])


def _kind(kernel: Array, recurrent: Array, cell: str | None) -> str:
    """The class by the number of gates."""
    size, columns = recurrent.shape
    kinds = {len(gates): (name, mine) for name, (mine, gates) in CELLS.items()}
    kind, mine = kinds.get(columns // size if size and columns % size == 0 else 0, ("", ""))
    if cell is not None and cell not in GATES:
        raise ValueError(f"cell must be one of {', '.join(GATES)}, got {cell!r}")
    if not kind or kernel.shape[1] != columns or cell not in (None, mine):
        raise ValueError(
            f"a kernel of shape {kernel.shape} and a recurrent kernel of shape {recurrent.shape} "
            f"make no {cell or 'SimpleRNN, LSTM or GRU'}"
        )
    return kind


def _reset_after(weights: list[Array], told: bool | None) -> bool:
    found = weights[2].ndim == 2 if len(weights) > 2 else told is None or told
    if told is not None and bool(told) != found:
        raise ValueError(f"reset_after={told} does not go with a bias of shape {weights[2].shape}")
    return found
