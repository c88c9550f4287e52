"""Which layer entries are those of, and how it is made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from ...layers.embedding import Embedding
from ...layers.layer_norm import LayerNorm
from ...layers.linear import Linear
from ...layers.prelu import PReLU
from ...module import Module
from ...recurrent.registry import LAYERS, STEPS
from ..common import GATES, filled, refusal
from .entries import Entries, Settings
from .recurrent import kind_of, recurrent

#: What makes a layer of a class from its entries, with the options of that layer alone.
Maker: TypeAlias = Callable[[type[Any], Entries, Settings, Mapping[str, Any]], Module]


def kinds_of(own: Entries, settings: Settings) -> list[type[Module]]:
    """Return the classes whose parameters have these names and shapes; several where none is told.

    Raises `ValueError` naming the entries where there is none.
    """
    recurrence = kind_of(own, settings.cell)
    if recurrence is not None:
        return [recurrence]
    names, weight, bias = own.arrays.keys(), own.arrays.get("weight"), own.arrays.get("bias")
    if names & {"in_proj_weight", "q_proj_weight"}:
        raise refusal("rnncore", f"torch's MultiheadAttention, of {own.named()}")
    kinds: list[type[Module]] = []
    if weight is not None and names <= {"weight", "bias"}:
        kinds = _KINDS.get((weight.ndim, bias is not None and bias.ndim), [])
    if not kinds:
        raise refusal("rnncore", f"the layer of {own.named()}")
    return kinds[:1] if weight is not None and weight.shape == (1,) else kinds


#: By the axes of weight and bias. One slope is a PReLU: a LayerNorm of one number makes no sense.
_KINDS: dict[tuple[int, int | bool], list[type[Module]]] = {
    (1, False): [PReLU, LayerNorm],
    (1, 1): [LayerNorm],
    (2, False): [Embedding, Linear],
    (2, 1): [Linear],
    (2, 2): [LayerNorm],
    (3, 3): [LayerNorm],
}


def layer_of(
    kind: type[Module], own: Entries, settings: Settings, options: Mapping[str, Any]
) -> Module:
    """Make a layer of a class; `ValueError` where the entries are not its own."""
    if kind not in MAKERS:
        known = ", ".join(known.__name__ for known in MAKERS)
        raise ValueError(f"of a state_dict come {known}; not {kind.__name__}")
    return MAKERS[kind](kind, own, settings, options)


def _shape(own: Entries, kind: type[Module], axes: int) -> tuple[int, ...]:
    """The shape of the weight, which must have so many axes."""
    weight = own.arrays.get("weight")
    if weight is None or weight.ndim != axes:
        given = "is not there" if weight is None else f"has shape {weight.shape}"
        raise ValueError(
            f"{own.start}weight of a {kind.__name__} must have {axes} axes; it {given}"
        )
    return weight.shape


def _linear(kind: type[Linear], own: Entries, _: Settings, options: Mapping[str, Any]) -> Module:
    rows, columns = _shape(own, kind, 2)
    layer = kind(columns, rows, "bias" in own.arrays, dtype=own.dtype, **options)
    return filled(layer, own.arrays)  # type: ignore[no-any-return]


def _table(kind: type[Embedding], own: Entries, _: Settings, options: Mapping[str, Any]) -> Module:
    layer = kind(*_shape(own, kind, 2), dtype=own.dtype, **options)
    return filled(layer, own.arrays)  # type: ignore[no-any-return]


def _norm(kind: type[LayerNorm], own: Entries, _: Settings, options: Mapping[str, Any]) -> Module:
    """Without a bias, as torch's with bias=False, it is zero."""
    weight = own.arrays.get("weight")
    layer = kind(
        _shape(own, kind, weight.ndim if weight is not None else 1), dtype=own.dtype, **options
    )
    return filled(layer, {"bias": layer.params["bias"]} | own.arrays)  # type: ignore[no-any-return]


def _slopes(kind: type[PReLU], own: Entries, _: Settings, options: Mapping[str, Any]) -> Module:
    layer = kind(*_shape(own, kind, 1), dtype=own.dtype, **options)
    return filled(layer, own.arrays)  # type: ignore[no-any-return]


MAKERS: dict[type[Module], Maker] = {
    Linear: _linear,
    Embedding: _table,
    LayerNorm: _norm,
    PReLU: _slopes,
    **{kinds[cell]: recurrent for kinds in (LAYERS, STEPS) for cell in GATES},
}
