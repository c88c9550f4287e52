"""torch's MultiheadAttention in a state_dict, and what of it and around it cannot be read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...layers.multihead import MultiheadAttention
from ...module import Module
from ..common import filled, refusal
from .entries import Entries, Settings

#: What torch's module may be made with, and we have not, by the entries that show it.
_STRANGE = {
    "q_proj_weight": "kdim or vdim",
    "k_proj_weight": "kdim or vdim",
    "v_proj_weight": "kdim or vdim",
    "bias_k": "add_bias_kv=True",
    "bias_v": "add_bias_kv=True",
}
#: The same by the name of the option.
_OPTIONS = ("kdim", "vdim", "add_bias_kv", "add_zero_attn")
#: Layers of transformers, by what they call their attention; a decoder's has both.
_AROUND = {"multihead_attn": "TransformerDecoderLayer", "self_attn": "TransformerEncoderLayer"}


def is_attention(own: Entries) -> bool:
    """Return whether entries are those of attention; refuse whole layers of transformers."""
    inside = [
        n.rpartition(".in_proj_weight")[0] for n in own.arrays if n.endswith(".in_proj_weight")
    ]
    for called, kind in _AROUND.items():
        for part in inside:
            if part.split(".")[-1] == called:
                why = f"by one prefix: name its parts, {own.start + part!r} among them"
                raise refusal("rnncore", f"torch's {kind} {why}")
    return not {"in_proj_weight", *_STRANGE}.isdisjoint(own.arrays)


def attention(
    kind: type[MultiheadAttention], own: Entries, settings: Settings, options: Mapping[str, Any]
) -> Module:
    """Make self-attention; the number of heads is an option, since no array tells it."""
    found = [told for name, told in _STRANGE.items() if name in own.arrays]
    found += [f"{name}={options[name]!r}" for name in _OPTIONS if options.get(name)]
    if found:
        raise refusal("rnncore", f"torch's MultiheadAttention with {found[0]}, of {own.named()}")
    weight = own.arrays.get("in_proj_weight")
    if weight is None or weight.ndim != 2:
        given = "is not there" if weight is None else f"has shape {weight.shape}"
        raise ValueError(
            f"{own.start}in_proj_weight of a {kind.__name__} must have 2 axes; it {given}"
        )
    if "num_heads" not in options:
        raise ValueError(
            f"the shapes of {own.named()} do not tell num_heads: put it beside the prefix, as "
            f"({own.start[:-1]!r}, rnncore.{kind.__name__}, {{'num_heads': 8}})"
        )
    given_here = {"bias": "in_proj_bias" in own.arrays, "batch_first": settings.batch_first}
    ours = {name: value for name, value in options.items() if name not in _OPTIONS}
    layer = kind(weight.shape[1], dtype=own.dtype, **given_here | ours)
    return filled(layer, own.arrays)  # type: ignore[no-any-return]
