"""Any module of this library as one of PyTorch: `wrap`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from threading import RLock
from typing import Any

import numpy as np
import torch

from ..alignment.joint import TransducerJoint
from ..arrays import Array
from ..layers.tied import TiedLinear
from ..losses import Objective
from ..module import Module, modules
from ..recurrent.step import Step
from ..seq2seq.attention import Attention
from ..seq2seq.bridge import Bridge
from ..seq2seq.decoder import Decoder
from ..training.checkpoint import generator_states, restore_generators

#: Modules whose second output, the weights of attention, has no gradient.
_ATTENDING = Attention, Decoder
#: Modules whose pullback takes the gradients of all outputs in one argument.
_STATEFUL = Step, Bridge
#: Held while gradients are in use: one for all, as wrapped modules may have parts in common.
_lock = RLock()


def wrap(module: Module | Objective) -> Wrapped:
    """Return a `torch.nn.Module` that computes what a module or a loss of this library does.

    Its parameters have the names of `module.params` and share their memory, as its buffers do with
    `module.buffers`: what either side writes, the other sees. `load_state_dict`, copies and pickles
    keep it so. Where torch gives one of them other memory (`double()`,
    `load_state_dict(assign=True)`), calls raise `RuntimeError`.

    It is called as the module is, with tensors in the place of arrays: on the CPU and in the
    module's dtype, others raise `TypeError`. They are read where they lie. What is no tensor (None,
    a `Forest`, lengths in a list) is handed on. Arrays of floating point come back as tensors, a
    Python float as one of float64, all of them copies; anything else comes back as it is.

    In training mode a call is `module.vjp`, with dropout; in eval mode it computes what `module()`
    does. Under `no_grad` it is `module()` in either mode: unlike torch's layers it drops nothing.

    `backward` leaves `module.grads` as they were. Through a retained graph it computes the call
    again; where a call drops at random, that raises `RuntimeError`, and so does any backward in
    eval mode, there of a module that has buffers, too. So do second derivatives, and a backward
    after torch has changed an argument or a parameter in place (changes by NumPy go unnoticed).

    The pullback of a user's own module is taken to be called with the gradients of its outputs, one
    by one, and to return those of the arguments but lengths, in their order: one, or a tuple.
    """
    module = _Criterion(module) if isinstance(module, Objective) else module
    if not isinstance(module, Module):
        raise TypeError(f"module must be a Module or a loss, got a {type(module).__name__}")
    parts = list(modules(module))
    if any(isinstance(part, TransducerJoint) for part in parts):
        raise TypeError(
            "a TransducerJoint hands itself on to its loss, where PyTorch follows tensors alone: "
            "wrap the encoder, the prediction network and the loss, which takes logits, too"
        )
    if any(part.weight_type for part in parts):
        raise TypeError("module must have weights in its own dtype: wrap it before `quantize`")
    if any(isinstance(part, TiedLinear) and part.embedding not in parts for part in parts):
        raise ValueError("a TiedLinear must be wrapped with its Embedding, for its gradient's sake")
    return Wrapped(module)


class _Criterion(Module):
    """A loss as a module, with the parts that it has: the CRF of a `CRFLoss`."""

    def __init__(self, loss: Objective) -> None:
        super().__init__()
        parts = {name: part for name, part in vars(loss).items() if isinstance(part, Module)}
        vars(self).update(parts, loss=loss, vjp=loss.vjp)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.vjp(*args, **kwargs)[0]


class Wrapped(torch.nn.Module):
    """What `wrap` returns; `module` is what it was given."""

    def __init__(self, module: Module) -> None:
        super().__init__()
        self.module = module
        parameters = inspect.signature(module.vjp).parameters
        self._arguments = [n for n, p in parameters.items() if p.kind <= p.POSITIONAL_OR_KEYWORD]
        dtypes = module.dtypes() or {np.dtype("float32"), np.dtype("float64")}
        self._dtypes = [getattr(torch, dtype.name) for dtype in dtypes]
        made: dict[int, torch.nn.Parameter] = {}
        for name, array in module.params.items():
            holder, leaf = self._holder(name)
            param = torch.nn.Parameter(torch.from_numpy(array))
            holder._parameters[leaf] = made.setdefault(id(array), param)
        for name, array in module.buffers.items():
            holder, leaf = self._holder(name)
            holder._buffers[leaf] = torch.from_numpy(array)

    def _holder(self, name: str) -> tuple[Any, str]:
        """Return the part of this module that a dotted name is in, and its last part."""
        *path, leaf = name.split(".")
        holder: Any = self
        for step in path:  # add_module refuses names of attributes: a part called "forward"
            holder = holder._modules.setdefault(step, torch.nn.Module())
        return holder, leaf

    def _held(self) -> dict[str, torch.Tensor]:
        """Parameters and buffers by name."""
        buffers = self.named_buffers(remove_duplicate=False)
        return {**dict(self.named_parameters(remove_duplicate=False)), **dict(buffers)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        held = self._held()
        for name, array in self.module.stored.items():
            held[name].data = torch.from_numpy(array).copy_(held[name].data)

    def __repr__(self) -> str:
        return f"wrap({self.module!r})"

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the module; see `wrap`."""
        compiling = torch.compiler.is_compiling()  # what it cannot follow
        call = torch.compiler.disable(self._call) if compiling else self._call
        return call(args, kwargs)

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        arrays, held = self.module.params, self._held()
        for name, array in self.module.stored.items():
            tensor = held.get(name)
            if tensor is None or tensor.data_ptr() != torch.from_numpy(array).data_ptr():
                raise RuntimeError(
                    f"{name} does not share its memory with the wrapped module any more: change "
                    "parameters in place, in their dtype and on the CPU, or wrap the module again"
                )
        own = list({id(array): name for name, array in arrays.items()}.values())
        call = _Call(self.module, self.training, own)
        tensors = call.enter(args, kwargs, self._arguments)
        for name, tensor in zip(call.labels, tensors, strict=True):
            _check(name, tensor, self._dtypes)
        tensors += (held[name] for name in own)
        graded = self.training or any(tensor.requires_grad for tensor in tensors)
        call.recorded = graded and torch.is_grad_enabled()
        outputs = _Function.apply(call, *tensors)
        return _filled(call.output, outputs)


class _Call:
    """A call: arguments and output, with an `_At` in the place of each tensor, and the pullback."""

    def __init__(self, module: Module, training: bool, params: list[str]) -> None:
        self.module, self.training, self.params = module, training, params
        self.labels: list[str] = []  # of the tensors among the arguments
        self.pullbacks: list[Any] = []  # one, until it has run
        self.recorded, self.output = False, None

    def enter(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], names: list[str]
    ) -> list[torch.Tensor]:
        """Take the arguments, which have names; return the tensors in them."""
        tensors: list[torch.Tensor] = []

        def enter(value: Any, name: str) -> Any:
            if not isinstance(value, torch.Tensor):
                return value
            tensors.append(value)
            self.labels.append(name)
            return _At(len(tensors) - 1)

        names = [*names, *(f"argument {n}" for n in range(len(names), len(args)))]
        self.args = [_mapped(enter, *pair) for pair in zip(args, names, strict=False)]
        self.kwargs = {name: _mapped(enter, value, name) for name, value in kwargs.items()}
        given = dict(zip(names, self.args, strict=False)) | self.kwargs
        every = dict.fromkeys([*names, *kwargs])
        #: The arguments that a pullback returns gradients of, in their order.
        self.slots = [given.get(name) for name in every if not name.endswith("lengths")]
        return tensors

    def run(self, arrays: list[Array]) -> Any:
        """Return what the module does; record it if wanted."""
        args, kwargs = _filled((self.args, self.kwargs), arrays)
        found = self._vjp(args, kwargs, self.training) if self.recorded else None
        output, *self.pullbacks = found or (self.module(*args, **kwargs),)
        return output

    def pull(self, arrays: list[Array], dy: Any) -> Iterator[tuple[int, Any]]:
        """Run the pullback; yield the gradients of tensors among the arguments."""
        args, kwargs = _filled((self.args, self.kwargs), arrays)
        found = self.pullbacks or self._vjp(args, kwargs, drops=False)
        if found is None:
            eval_mode = self.module.buffers and not self.training
            does = "uses running statistics" if eval_mode else "drops at random"
            raise RuntimeError(
                f"this call {does}: it has no gradient in eval mode, and in training mode "
                "for one backward only, unless the module is called again"
            )
        pullback, self.pullbacks = found[-1], []
        if isinstance(self.module, _ATTENDING):
            dy = dy[:1]
        elif isinstance(self.module, _STATEFUL) or not isinstance(dy, tuple):
            dy = (dy,)
        given = pullback(*dy)
        given = given if isinstance(given, tuple) else (given,)
        for slot, d in zip(self.slots, given, strict=False):
            yield from _pairs(slot, d)

    def _vjp(self, args: list[Any], kwargs: dict[str, Any], drops: bool) -> Any:
        """Return what the module's `vjp` does; None if it drops at random and must not.

        None, too, where a call in eval mode would use running statistics: `vjp` uses the batch's.
        """
        buffers = self.module.buffers
        if buffers and not self.training:
            return None
        states = {} if drops else generator_states(self.module)
        kept = {} if drops else {name: array.copy() for name, array in buffers.items()}
        found = self.module.vjp(*args, **kwargs)
        buffers.update(kept)  # the same call moves running statistics once
        if drops or generator_states(self.module) == states:
            return found
        restore_generators(self.module, states)
        return None


class _Function(torch.autograd.Function):
    """A call, as torch records it."""

    @staticmethod
    def forward(ctx: Any, call: _Call, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        outputs: list[torch.Tensor] = []

        def leave(value: Any, _: str) -> Any:
            numbers = isinstance(value, (float, np.floating, np.ndarray))
            if not numbers or np.asarray(value).dtype.kind != "f":
                return value
            outputs.append(_tensor(value))
            return _At(len(outputs) - 1)

        ctx.call, call.output = call, _mapped(leave, call.run(_arrays(tensors)))
        ctx.save_for_backward(*tensors)
        if isinstance(call.module, _ATTENDING):
            ctx.mark_non_differentiable(*outputs[1:])
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *dys: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        tensors = ctx.saved_tensors  # raises if one was changed in place, or the graph is gone
        wanted = ctx.needs_input_grad[1:]
        return None, *_Gradient.apply(ctx.call, wanted, len(dys), *dys, *tensors)


class _Gradient(torch.autograd.Function):
    """The gradients of a call, which have none themselves."""

    @staticmethod
    def forward(
        ctx: Any, call: _Call, wanted: Sequence[bool], outputs: int, *tensors: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        arrays, grads = _arrays(tensors), call.module.grads
        dy = _filled(call.output, arrays[:outputs])
        with _lock:
            before = {name: grad.copy() for name, grad in grads.items() if grad.any()}
            call.module.zero_grad()
            try:
                found = dict(call.pull(arrays[outputs:], dy))
                found |= enumerate((grads[name] for name in call.params), len(call.labels))
                for n, label in enumerate(call.labels):
                    if wanted[n] and n not in found:
                        raise RuntimeError(f"this module has no gradient of {label}: detach it")
                given = [found.get(n) if want else None for n, want in enumerate(wanted)]
                return tuple(None if d is None else _tensor(d) for d in given)
            finally:
                call.module.zero_grad()
                grads.update(before)

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise RuntimeError(
            "wrapped modules have no second derivatives: their gradients cannot be differentiated"
        )


class _At(int):
    """The place of a tensor: which one."""


def _mapped(function: Callable[[Any, str], Any], nest: Any, name: str = "") -> Any:
    """Apply a function to the value and the name of all that nested tuples, lists, dicts hold."""
    if isinstance(nest, dict):
        return {key: _mapped(function, part, f"{name}[{key!r}]") for key, part in nest.items()}
    if type(nest) in (tuple, list) or type(nest).__bases__ == (tuple,):
        parts = [_mapped(function, part, f"{name}[{n}]") for n, part in enumerate(nest)]
        return type(nest)(*parts) if hasattr(nest, "_fields") else type(nest)(parts)
    return function(nest, name)


def _filled(nest: Any, values: Sequence[Any]) -> Any:
    """Put values in their places."""
    return _mapped(lambda part, _: values[part] if isinstance(part, _At) else part, nest)


def _pairs(nest: Any, values: Any) -> Iterator[tuple[int, Any]]:
    """Yield the places in a nest, and what has been computed for each; None is for all parts."""
    if isinstance(nest, _At):
        yield nest, values
    elif isinstance(nest, (tuple, list)):
        for n, part in enumerate(nest):
            yield from _pairs(part, None if values is None else values[n])


def _check(name: str, tensor: torch.Tensor, dtypes: Sequence[torch.dtype]) -> None:
    """Refuse a tensor that cannot be read where it lies."""
    if tensor.device.type != "cpu" or tensor.layout != torch.strided:
        kind = f"{tensor.layout} on {tensor.device}"
        raise TypeError(f"{name} must be a strided tensor on the CPU, got {kind}")
    if (tensor.is_floating_point() or tensor.is_complex()) and tensor.dtype not in dtypes:
        wanted = " or ".join(sorted(map(str, dtypes)))
        raise TypeError(f"{name} is {tensor.dtype}, but this module computes in {wanted}")


def _arrays(tensors: Sequence[torch.Tensor]) -> list[Array]:
    return [tensor.numpy(force=True) for tensor in tensors]


def _tensor(value: Any) -> torch.Tensor:
    """Return a copy: torch's users change outputs in place, torch itself gradients."""
    return torch.from_numpy(np.array(value, order="C"))
