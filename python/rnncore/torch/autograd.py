"""One recurrent layer as a differentiable function of torch's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad

from .kernels import Call, Compiled, Kernels, Kind, array_of, backward, forward

#: The gradients of what is no tensor: a layer, its kind, and batch sizes.
_NONE = (None, None, None)


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
    recorded = torch.is_grad_enabled() and True in [
        t is not None and t.requires_grad for t in tensors
    ]
    if recorded or forward_ad._current_level >= 0:  # which the function refuses
        y, h, c = _Layer.apply(compiled, kind, batch_sizes, *tensors)
        return y, h, c
    layer, _ = compiled.kernels(kind, weights)
    return forward(Call(kind, batch_sizes, x, *states), layer, False)[:3]


def gradients_of(
    kernels: Kernels,
    call: Call,
    tape: Any,
    wanted: Sequence[bool],
    gradients: Sequence[Tensor | None],
    weights: Sequence[Tensor],
) -> tuple[Tensor | None, ...]:
    """The gradients of x, h0, c0 and the weights, None where they are not wanted.

    tape: None to run forward again. gradients: those of y, h and c, None for zero.
    """
    layer, parameters = kernels
    if tape is None:
        *_, tape = forward(call, layer, True)
    found: list[Any] = list(wanted)
    targets = None
    if True in wanted[3:]:
        # Memory of torch's own: Python frees an array's, and some of torch's threads outlive it.
        found[3:] = [torch.zeros(w.shape, dtype=w.dtype) for w in weights]
        targets = layer.targets_in(parameters, [array_of(gradient) for gradient in found[3:]])
    found[:3] = backward(layer, tape, gradients, targets, wanted[0])
    return tuple([d if want else None for d, want in zip(found, wanted, strict=True)])


class _Layer(Function):
    """x, h0, c0 and weights to y, h and c."""

    @staticmethod
    def forward(
        ctx: Any,
        compiled: Compiled,
        kind: Kind,
        batch_sizes: Tensor | None,
        x: Tensor,
        h0: Tensor | None,
        c0: Tensor | None,
        *weights: Tensor,
    ) -> Any:
        kernels, call = compiled.kernels(kind, weights), Call(kind, batch_sizes, x, h0, c0)
        y, h, c, tape = forward(call, kernels.layer, True)
        # The tape refers to x and y. Saved, they are watched: what is changed, torch refuses.
        ctx.save_for_backward(batch_sizes, x, h0, c0, y, *weights)
        ctx.set_materialize_grads(False)
        ctx.kept = [kind, kernels, tape]
        return y, h, c

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        batch_sizes, x, h0, c0, _, *weights = ctx.saved_tensors
        (kind, kernels, tape), wanted = ctx.kept, ctx.needs_input_grad[3:]
        ctx.kept[2] = None  # a tape serves once; of a graph that is kept, forward runs again
        if torch.is_grad_enabled():
            given = (*gradients, x, h0, c0, *weights)
            return *_NONE, *_Gradient.apply(kernels, kind, tape, wanted, batch_sizes, *given)
        call = Call(kind, batch_sizes, x, h0, c0)
        return *_NONE, *gradients_of(kernels, call, tape, wanted, gradients, weights)


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
        layer, _ = compiled.kernels(kind, weights)
        return forward(Call(kind, batch_sizes, x, h0, c0), layer, False)[:3]

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _, ctx.kind, *tensors = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        batch_sizes, *tensors = ctx.saved_tensors
        given = (batch_sizes, *gradients, *tensors)
        return *_NONE, *_Gradient.apply(None, ctx.kind, None, ctx.needs_input_grad[3:], *given)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        """Layers one after the other: each has weights of its own."""
        results = [
            _TransformedLayer.apply(Compiled(), *one[1:])
            for one in _split(info.batch_size, in_dims, args)
        ]
        return _stacked(results)


class _Gradient(Function):
    """The gradients of x, h0, c0 and the weights; they have no derivatives of their own."""

    @staticmethod
    def forward(
        kernels: Kernels | None,
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
        kernels = kernels or Compiled().kernels(kind, weights)
        call = Call(kind, batch_sizes, x, h0, c0)
        return gradients_of(kernels, call, tape, wanted, (dy, dh, dc), weights)

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
        calls = _split(info.batch_size, in_dims, args)
        return _stacked([_Gradient.apply(None, one[1], None, *one[3:]) for one in calls])


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
