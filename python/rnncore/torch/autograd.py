"""One recurrent layer as a differentiable function of torch's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad

from .kernels import Call, Compiled, Kernels, Kind, backward, forward


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
    if torch._C._are_functorch_transforms_active():
        y, h, c = _TransformedLayer.apply(compiled, kind, batch_sizes, x, *states, *weights)
        return y, h, c
    kernels = compiled.kernels(kind, weights)
    # Forward-mode derivatives, too, are something that the function refuses.
    if _is_recorded((*weights, x, *states)) or forward_ad._current_level >= 0:
        y, h, c = _record(kernels, batch_sizes, x, *states, *weights)
        return y, h, c
    return forward(kernels.layer, (batch_sizes, x, *states), False)[:3]


def gradients_of(
    kernels: Kernels,
    call: Call,
    taped: tuple[Tensor, Any] | None,
    upstream: Sequence[Tensor | None],
    wanted: Sequence[bool],
) -> list[Tensor | None]:
    """The gradients of x, h0, c0 and the weights, None where they are not wanted.

    taped: y and the tape, or None to run forward again. upstream: the gradients of y, h and c, None
    for zero.
    """
    if taped is None:
        y, _, _, tape = forward(kernels.layer, call, True)
        taped = y, tape
    return backward(kernels, call[1], taped, upstream, wanted)


def _is_recorded(tensors: Sequence[Tensor | None]) -> bool:
    """Whether autograd is to have a record of what is computed from these."""
    if torch.is_grad_enabled():
        for tensor in tensors:
            if tensor is not None and tensor.requires_grad:
                return True
    return False


class _Layer(Function):
    """Batch sizes, x, h0, c0 and weights to y, h and c."""

    @staticmethod
    def forward(ctx: Any, kernels: Kernels, *tensors: Any) -> Any:
        y, h, c, tape = forward(kernels.layer, tensors[:4], True)
        # What is saved is watched: if it has been changed, torch refuses.
        ctx.save_for_backward(y, *tensors)
        ctx.set_materialize_grads(False)
        ctx.kept = [kernels, tape]
        return y, h, c

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> Any:
        y, *tensors = ctx.saved_tensors
        kernels, tape = ctx.kept
        ctx.kept[1] = None  # a tape serves once; of a graph that is kept, forward runs again
        taped, wanted = None if tape is None else (y, tape), ctx.needs_input_grad[2:]
        if torch.is_grad_enabled():
            found = _Gradient.apply(kernels, None, taped, wanted, *upstream, *tensors)
        else:
            found = gradients_of(kernels, tensors[:4], taped, upstream, wanted)
        return None, None, *found


#: `_Layer.apply` without what torch.func needs of it, which takes longer than the kernels of a
#: small layer: `apply_layer` has looked for torch.func already.
_record = super(Function, _Layer).apply


class _TransformedLayer(Function):
    """The same for torch.func: what binds arguments there costs more than a small layer."""

    @staticmethod
    def forward(compiled: Compiled, kind: Kind, *tensors: Any) -> Any:
        layer, _ = compiled.kernels(kind, tensors[4:])
        return forward(layer, tensors[:4], False)[:3]

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _, ctx.kind, *tensors = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> Any:
        wanted = ctx.needs_input_grad[3:]
        found = _Gradient.apply(None, ctx.kind, None, wanted, *upstream, *ctx.saved_tensors)
        return None, None, None, *found

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        """Layers one after the other: each has weights of its own."""
        calls = _split(info.batch_size, in_dims, args)
        return _stacked([_TransformedLayer.apply(Compiled(), *one[1:]) for one in calls])


class _Gradient(Function):
    """The gradients of x, h0, c0 and the weights; they have no derivatives of their own."""

    @staticmethod
    def forward(
        kernels: Kernels | None,
        kind: Kind | None,
        taped: tuple[Tensor, Any] | None,
        wanted: Sequence[bool],
        *tensors: Any,
    ) -> Any:
        upstream, call, weights = tensors[:3], tensors[3:7], tensors[7:]
        if kernels is None:
            assert kind is not None
            kernels = Compiled().kernels(kind, weights)
        return tuple(gradients_of(kernels, call, taped, upstream, wanted))

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
