"""One recurrent layer as a differentiable function of torch's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from .kernels import Call, Compiled, Kind, backward, forward


def apply_layer(
    compiled: Compiled,
    kind: Kind,
    x: Tensor,
    states: tuple[Tensor | None, Tensor | None],
    weights: Sequence[Tensor],
    batch_sizes: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return y, and the final h and c (None where there is none), of one layer.

    x: `(T, B, I)`, `(B, T, I)`, or the rows of a packed sequence. states: h and c `(D, B, H)`, each
    of them or None for zero. weights: of each direction, in torch's order.
    """
    tensors = (x, *states, *weights)
    if torch._C._are_functorch_transforms_active():
        y, h, c = _TransformedLayer.apply(compiled, kind, batch_sizes, *tensors)
        return y, h, c
    if torch.is_grad_enabled() and True in [t is not None and t.requires_grad for t in tensors]:
        y, h, c = _Layer.apply(compiled, kind, batch_sizes, *tensors)
        return y, h, c
    layer, _ = compiled.kernels(kind, weights)
    return forward(Call(kind, batch_sizes, x, *states), layer, False)[:3]


def gradients_of(
    compiled: Compiled,
    call: Call,
    tape: Any,
    wanted: Sequence[bool],
    gradients: Sequence[Tensor | None],
    weights: Sequence[Tensor],
) -> tuple[Tensor | None, ...]:
    """The gradients of x, h0, c0 and the weights, None where they are not wanted.

    tape: None to run forward again. gradients: those of y, h and c, None for zero.
    """
    layer, parameters = compiled.kernels(call.kind, weights)
    if tape is None:
        *_, tape = forward(call, layer, True)
    targets, own = layer.fresh(parameters) if any(wanted[3:]) else (None, [])
    of_weights = map(torch.from_numpy, own) if own else [None] * len(weights)
    found = (*backward(layer, tape, gradients, targets, wanted[0]), *of_weights)
    return tuple(d if want else None for d, want in zip(found, wanted, strict=True))


class _Layer(Function):
    """x, h0, c0 and weights to y, h and c."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Any:
        *outputs, tape = _recorded(*inputs)
        _remember(ctx, inputs, outputs[0], [tape])
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        _, batch_sizes, *tensors = ctx.saved_tensors
        # A tape serves once. A graph that is kept has forward run again, to the same bits.
        tape = ctx.tapes.pop() if ctx.tapes else None
        wanted = ctx.needs_input_grad[3:]
        given = (ctx.compiled, ctx.kind, tape, wanted, batch_sizes, *gradients, *tensors)
        if torch.is_grad_enabled() or torch._C._are_functorch_transforms_active():
            return None, None, None, *_Gradient.apply(*given)
        return None, None, None, *_Gradient.forward(*given)


class _TransformedLayer(Function):
    """The same for torch.func: what binds arguments there costs more than a small layer."""

    @staticmethod
    def forward(
        compiled: Compiled,
        kind: Kind,
        batch_sizes: Tensor | None,
        x: Tensor,
        h0: Tensor | None,
        c0: Tensor | None,
        *weights: Tensor,
    ) -> Any:
        return _recorded(compiled, kind, batch_sizes, x, h0, c0, *weights)[:3]

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _remember(ctx, inputs, output[0], [])

    backward = _Layer.backward

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        """Layers one after the other: each has weights of its own."""
        results = [
            _TransformedLayer.apply(Compiled(), *one[1:])
            for one in _split(info.batch_size, in_dims, args)
        ]
        return _stacked(results)


def _recorded(compiled: Compiled, kind: Kind, *tensors: Any) -> tuple[Any, ...]:
    batch_sizes, x, h0, c0, *weights = tensors
    layer, _ = compiled.kernels(kind, weights)
    return forward(Call(kind, batch_sizes, x, h0, c0), layer, True)


def _remember(ctx: Any, inputs: Any, y: Tensor, tapes: list[Any]) -> None:
    compiled, kind, batch_sizes, *tensors = inputs
    ctx.set_materialize_grads(False)
    # The tape refers to x and y. Saved, they are watched: what is changed meanwhile, torch refuses.
    ctx.save_for_backward(y, batch_sizes, *tensors)
    ctx.compiled, ctx.kind, ctx.tapes = compiled, kind, tapes


class _Gradient(Function):
    """The gradients of x, h0, c0 and the weights; they have no derivatives of their own."""

    @staticmethod
    def forward(
        compiled: Compiled,
        kind: Kind,
        tape: Any,
        wanted: Sequence[bool],
        batch_sizes: Tensor | None,
        dy: Tensor | None,
        dh: Tensor | None,
        dc: Tensor | None,
        x: Tensor,
        h0: Tensor | None,
        c0: Tensor | None,
        *weights: Tensor,
    ) -> Any:
        call = Call(kind, batch_sizes, x, h0, c0)
        return gradients_of(compiled, call, tape, wanted, (dy, dh, dc), weights)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise RuntimeError(
            "rnncore's layers have no second derivatives: their gradients cannot be differentiated"
        )

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        results = [
            _Gradient.apply(Compiled(), one[1], None, *one[3:])
            for one in _split(info.batch_size, in_dims, args)
        ]
        return _stacked(results)


def _split(count: int, in_dims: Any, args: Any) -> list[list[Any]]:
    """The arguments of each of `count` calls."""
    return [
        [a if dim is None or not isinstance(dim, int) else a.select(dim, i) for a, dim in pairs]
        for i in range(count)
        for pairs in [list(zip(args, in_dims, strict=True))]
    ]


def _stacked(results: list[Any]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Results of several calls as those of one, and the axes along which they lie."""
    stacked = tuple(
        None if parts[0] is None else torch.stack(parts) for parts in zip(*results, strict=True)
    )
    return stacked, tuple(None if parts is None else 0 for parts in stacked)
