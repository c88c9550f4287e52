"""Which layer entries are those of, and how it is made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from ...layers.batch_norm import BatchNorm
from ...layers.convolution import Conv1d, Conv2d, ConvTranspose1d
from ...layers.embedding import Embedding
from ...layers.layer_norm import LayerNorm
from ...layers.linear import Linear
from ...layers.multihead import MultiheadAttention
from ...layers.prelu import PReLU
from ...module import Module
from ...recurrent.registry import LAYERS, STEPS
from ..common import GATES, filled, refusal
from .attention import attention, is_attention
from .entries import Entries, Settings
from .recurrent import kind_of, recurrent

#: What makes a layer of a class from its entries, with the options of that layer alone.
Maker: TypeAlias = Callable[[type[Any], Entries, Settings, Mapping[str, Any]], Module]

_STATISTICS = {"running_mean", "running_var"}


def kinds_of(own: Entries, settings: Settings) -> list[type[Module]]:
    """Return the classes whose parameters have these names and shapes; several where none is told.

    Raises `ValueError` naming the entries where there is none.
    """
    recurrence = kind_of(own, settings.cell)
    if recurrence is not None:
        return [recurrence]
    names, weight = own.arrays.keys(), own.arrays.get("weight")
    if is_attention(own):
        return [MultiheadAttention]
    if names in (_STATISTICS, _STATISTICS | {"weight", "bias"}):
        return [BatchNorm]
    if weight is None or not names <= {"weight", "bias"}:
        raise refusal("rnncore", f"the layer of {own.named()}")
    return _by_shape(own)


def _by_shape(own: Entries) -> list[type[Module]]:
    """The classes that have a weight, and perhaps a bias, of these shapes."""
    weight, bias = own.arrays["weight"], own.arrays.get("bias")
    if bias is not None and bias.shape == weight.shape:
        return [LayerNorm]
    if weight.ndim == 1 and bias is None:  # a LayerNorm of one number would make no sense
        return [PReLU] if len(weight) == 1 else [PReLU, LayerNorm]
    if weight.ndim == 2:
        return [Embedding, Linear] if bias is None else [Linear]
    if weight.ndim == 3:
        return [k for k in (Conv1d, ConvTranspose1d) if _has_outputs(own, k is ConvTranspose1d)]
    if weight.ndim == 4 and _has_outputs(own, False):
        if _has_outputs(own, True):
            raise ValueError(
                f"the shapes of {own.named()} are also those of a transposed convolution: "
                f"put the class beside the prefix, as ({own.start[:-1]!r}, rnncore.Conv2d)"
            )
        return [Conv2d]
    raise refusal("rnncore", f"the layer of {own.named()}")


def _has_outputs(own: Entries, transposed: bool) -> bool:
    """Whether the bias, if there is one, is that of a convolution, transposed or not."""
    weight, bias = own.arrays["weight"], own.arrays.get("bias")
    return bias is None or bias.shape == (weight.shape[int(transposed)],)


def layer_of(
    kind: type[Module], own: Entries, settings: Settings, options: Mapping[str, Any]
) -> Module:
    """Make a layer of a class; `ValueError` where the entries are not its own."""
    if kind not in MAKERS:
        known = ", ".join(known.__name__ for known in MAKERS)
        raise ValueError(f"of a state_dict come {known}; not {kind.__name__}")
    return MAKERS[kind](kind, own, settings, options)


def _shape(own: Entries, kind: type[Module], *axes: int) -> tuple[int, ...]:
    """The shape of the weight, which must have so many axes."""
    weight = own.arrays.get("weight")
    if weight is None or weight.ndim not in axes:
        given = "is not there" if weight is None else f"has shape {weight.shape}"
        raise ValueError(
            f"{own.start}weight of a {kind.__name__} must have {axes[0]} axes; it {given}"
        )
    return weight.shape


def _linear(
    kind: type[Linear], own: Entries, settings: Settings, options: Mapping[str, Any]
) -> Module:
    rows, columns = _shape(own, kind, 2)
    layer = kind(columns, rows, "bias" in own.arrays, dtype=own.dtype, **options)
    return filled(layer, own.arrays)  # type: ignore[no-any-return]


def _table(
    kind: type[Embedding], own: Entries, settings: Settings, options: Mapping[str, Any]
) -> Module:
    layer = kind(*_shape(own, kind, 2), dtype=own.dtype, **options)
    return filled(layer, own.arrays)  # type: ignore[no-any-return]


def _norm(
    kind: type[LayerNorm], own: Entries, settings: Settings, options: Mapping[str, Any]
) -> Module:
    """Without a bias, as torch's with bias=False, it is zero."""
    layer = kind(_shape(own, kind, 1, 2, 3, 4), dtype=own.dtype, **options)
    return filled(layer, {"bias": layer.params["bias"]} | own.arrays)  # type: ignore[no-any-return]


def _slopes(
    kind: type[PReLU], own: Entries, settings: Settings, options: Mapping[str, Any]
) -> Module:
    layer = kind(*_shape(own, kind, 1), dtype=own.dtype, **options)
    return filled(layer, own.arrays)  # type: ignore[no-any-return]


def _batch_norm(
    kind: type[BatchNorm], own: Entries, settings: Settings, options: Mapping[str, Any]
) -> Module:
    mean = own.arrays.get("running_mean")
    if mean is None or mean.ndim != 1:
        raise ValueError(f"{own.start}running_mean of a {kind.__name__} must be there, a vector")
    given = {"affine": "weight" in own.arrays, "batch_first": settings.batch_first}
    layer = kind(len(mean), dtype=own.dtype, **given | dict(options))
    return filled(layer, own.arrays)  # type: ignore[no-any-return]


def _convolution(
    kind: type[Any], own: Entries, settings: Settings, options: Mapping[str, Any]
) -> Module:
    """The taps are read off the weight; stride, padding, dilation and groups are options."""
    first, second, *taps = _shape(own, kind, 4 if kind is Conv2d else 3)
    groups = options.get("groups", 1)
    channels = (first, second * groups) if kind is ConvTranspose1d else (second * groups, first)
    given: dict[str, Any] = {"bias": "bias" in own.arrays, "dtype": own.dtype}
    if kind is not Conv2d:
        given["batch_first"] = settings.batch_first
    size = tuple(taps) if kind is Conv2d else taps[0]
    return filled(kind(*channels, size, **given | dict(options)), own.arrays)  # type: ignore[no-any-return]


#: Layers that have the same parameters here as in torch.
PLAIN: dict[type[Module], Maker] = {
    Linear: _linear,
    Embedding: _table,
    LayerNorm: _norm,
    BatchNorm: _batch_norm,
    PReLU: _slopes,
    MultiheadAttention: attention,
    Conv1d: _convolution,
    Conv2d: _convolution,
    ConvTranspose1d: _convolution,
}
MAKERS: dict[type[Module], Maker] = PLAIN | {
    kinds[cell]: recurrent for kinds in (LAYERS, STEPS) for cell in GATES
}
