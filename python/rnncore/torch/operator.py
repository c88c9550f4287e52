"""One recurrent layer as an operator that torch.compile and torch.export know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .autograd import gradients_of
from .kernels import Compiled, Kind, forward

_KIND = "str mode, int hidden_size, int proj_size, bool bias, bool batch_first, int directions"
_TENSORS = "Tensor? batch_sizes, Tensor x, Tensor? h0, Tensor? c0, Tensor[] weights"

torch.library.define("rnncore::layer", f"({_KIND}, {_TENSORS}) -> (Tensor y, Tensor h, Tensor c)")
torch.library.define(
    "rnncore::layer_backward",
    f"({_KIND}, {_TENSORS}, bool[] wanted, Tensor? dy, Tensor? dh, Tensor? dc) -> Tensor[]",
)


def call_operator(
    kind: Kind,
    x: Tensor,
    states: tuple[Tensor | None, Tensor | None],
    weights: Sequence[Tensor],
    batch_sizes: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """`apply_layer` as an operator of torch's. Backward runs forward again: it keeps no tape."""
    y, h, c = torch.ops.rnncore.layer(*kind, batch_sizes, x, *states, list(weights))
    return y, h, c if kind.has_cell_state else None


@torch.library.impl("rnncore::layer", "CPU")
def _layer(*given: Any) -> tuple[Tensor, Tensor, Tensor]:
    kind, (*call, weights) = Kind(*given[:6]), given[6:]
    layer, _ = Compiled().kernels(kind, weights)
    y, h, c, _ = forward(layer, call, False)
    return y, h, y.new_empty(0) if c is None else c


@torch.library.register_fake("rnncore::layer")
def _layer_shapes(*given: Any) -> tuple[Tensor, Tensor, Tensor]:
    kind, (batch_sizes, x, h0, _, _) = Kind(*given[:6]), given[6:]
    if batch_sizes is None:
        batch = x.shape[0 if kind.batch_first else 1]
    else:
        batch = torch.library.get_ctx().new_dynamic_size() if h0 is None else h0.shape[1]
    y = x.new_empty((*x.shape[:-1], kind.directions * kind.output_size))
    h = x.new_empty((kind.directions, batch, kind.output_size))
    wide = (kind.directions, batch, kind.hidden_size) if kind.has_cell_state else (0,)
    return y, h, x.new_empty(wide)


@torch.library.impl("rnncore::layer_backward", "CPU")
def _layer_backward(*given: Any) -> list[Tensor]:
    kind, (*call, weights) = Kind(*given[:6]), given[6:11]
    wanted, *upstream = given[11:]
    kernels = Compiled().kernels(kind, weights)
    found = gradients_of(kernels, call, None, upstream, wanted)
    return [weights[0].new_empty(0) if gradient is None else gradient for gradient in found]


@torch.library.register_fake("rnncore::layer_backward")
def _gradient_shapes(*given: Any) -> list[Tensor]:
    x, h0, c0, weights, wanted = given[7], given[8], given[9], given[10], given[11]
    tensors = (x, h0, c0, *weights)
    return [
        torch.empty_like(t, memory_format=torch.contiguous_format) if want else x.new_empty(0)
        for t, want in zip(tensors, wanted, strict=True)
    ]


def _setup_context(ctx: Any, inputs: Any, output: Any) -> None:
    *kind, batch_sizes, x, h0, c0, weights = inputs
    ctx.set_materialize_grads(False)
    ctx.kind = kind
    ctx.save_for_backward(batch_sizes, x, h0, c0, *weights)


def _backward(ctx: Any, dy: Any, dh: Any, dc: Any) -> Any:
    batch_sizes, x, h0, c0, *weights = ctx.saved_tensors
    *_, wants_x, wants_h, wants_c, wants_weights = ctx.needs_input_grad
    wanted = [wants_x, wants_h, wants_c, *wants_weights]
    if not Kind(*ctx.kind).has_cell_state:
        dc = None
    found = torch.ops.rnncore.layer_backward(
        *ctx.kind, batch_sizes, x, h0, c0, weights, wanted, dy, dh, dc
    )
    dx, dh0, dc0, *d = (g if want else None for g, want in zip(found, wanted, strict=True))
    return *[None] * len(ctx.kind), None, dx, dh0, dc0, d


torch.library.register_autograd("rnncore::layer", _backward, setup_context=_setup_context)
