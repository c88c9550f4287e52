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
        # Memory of torch's own: to free an array's, a thread of torch's would need the GIL.
        found[3:] = [torch.zeros(w.shape, dtype=w.dtype) for w in weights]
        targets = layer.targets_in(parameters, [array_of(gradient) for gradient in found[3:]])
    found[:3] = backward(layer, tape, gradients, targets, wanted[0])
    return tuple([d if want else None for d, want in zip(found, wanted, strict=True)])


class _Layer(Function):
    """Batch sizes, x, h0, c0 and weights to y, h and c."""

    @staticmethod
    def forward(ctx: Any, compiled: Compiled, kind: Kind, *tensors: Any) -> Any:
        kernels = compiled.kernels(kind, tensors[4:])
        y, h, c, tape = forward(Call(kind, *tensors[:4]), kernels.layer, True)
        # The tape refers to x and y. Saved, they are watched: what is changed, torch refuses.
        ctx.save_for_backward(y, *tensors)
        ctx.set_materialize_grads(False)
        ctx.kept = [kind, kernels, tape]
        return y, h, c

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        _, *tensors = ctx.saved_tensors
        (kind, kernels, tape), wanted = ctx.kept, ctx.needs_input_grad[3:]
        ctx.kept[2] = None  # a tape serves once; of a graph that is kept, forward runs again
        if torch.is_grad_enabled():
            return *_NONE, *_Gradient.apply(kernels, kind, tape, wanted, *gradients, *tensors)
        call = Call(kind, *tensors[:4])
        return *_NONE, *gradients_of(kernels, call, tape, wanted, gradients, tensors[4:])


class _TransformedLayer(Function):
    """The same for torch.func: what binds arguments there costs more than a small layer."""

    @staticmethod
    def forward(compiled: Compiled, kind: Kind, *tensors: Any) -> Any:
        layer, _ = compiled.kernels(kind, tensors[4:])
        return forward(Call(kind, *tensors[:4]), layer, False)[:3]

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _, ctx.kind, *tensors = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        given = (ctx.needs_input_grad[3:], *gradients, *ctx.saved_tensors)
        return *_NONE, *_Gradient.apply(None, ctx.kind, None, *given)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        """Layers one after the other: each has weights of its own."""
        calls = _split(info.batch_size, in_dims, args)
        return _stacked([_TransformedLayer.apply(Compiled(), *one[1:]) for one in calls])


class _Gradient(Function):
    """The gradients of x, h0, c0 and the weights; they have no derivatives of their own."""

    @staticmethod
    def forward(
        kernels: Kernels | None, kind: Kind, tape: Any, wanted: Sequence[bool], *tensors: Any
    ) -> Any:
        gradients, given, weights = tensors[:3], tensors[3:7], tensors[7:]
        kernels = kernels or Compiled().kernels(kind, weights)
        return gradients_of(kernels, Call(kind, *given), tape, wanted, gradients, weights)

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
