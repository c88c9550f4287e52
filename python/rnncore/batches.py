"""What a trainer learns from: batches, and the ways to cut and order them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from .arrays import Array, as_held, as_integers, check_number, check_size, read
from .compositions.composition import agreed
from .compositions.ragged import length_mask
from .losses import Loss, Objective, as_weights
from .module import Module
from .states import State

#: The fields of a batch that only its loss can take.
_FOR_THE_LOSS = ("mask", "target_lengths", "weights")


class Batch(NamedTuple):
    """What one update learns from; a plain tuple that starts the same way serves as well.

    `lengths` (B,) goes to the model and `mask`, booleans or weights, to the loss. Where outputs and
    targets are per step and there is no mask, the lengths are it: padding does not count. A loss is
    handed those of the outputs, which convolutions change (`Module.out_lengths`). `carry` starts
    from the state in which the previous batch ended, with gradients cut there: truncated
    back-propagation through time. `resets`, booleans in the order of axes of the inputs, go to the
    model, and are true where a sequence starts anew.

    `weights`, numbers of at least 0, say how much each sequence counts, `(B,)`, or each item, with
    leading axes of the outputs. A loss that takes a mask and no weights is handed the product of
    both: padding counts nothing, whatever its weight. A loss may take other fields, see
    `Objective.takes`; `target_lengths` (B,) are for those that do.
    """

    inputs: Any
    targets: Array
    lengths: Array | None = None
    mask: Array | None = None
    carry: bool = False
    target_lengths: Array | None = None
    weights: Array | None = None
    resets: Array | None = None

    @property
    def counted(self) -> float:
        """How many targets count, or the sum of their weights."""
        share = 1.0 if self.mask is None else float(np.mean(self.mask))
        return np.size(self.targets) * share

    def arguments(self, model: Module, state: State) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return what a model is called with, whether it takes a state and lengths or not."""
        given = {"lengths": self.lengths, "resets": self.resets}
        options = {name: value for name, value in given.items() if value is not None}
        if model.recurrent:
            return (self.inputs, state if self.carry else None), options
        return (self.inputs,), options

    def masked(self, y: Array, model: Module) -> Batch:
        """Return the batch with the mask that goes with outputs y `(T, B, ...)` of a model."""
        if self.lengths is None or self.mask is not None:
            return self
        axes = np.shape(self.inputs)[:2]
        if len(axes) < 2 or y.ndim < 3 or y.shape[:2] != np.shape(self.targets)[:2]:
            return self  # one output for each sequence
        batch_first = bool(agreed("batch_first", {"model": model}))
        time = int(batch_first)
        ends = model.out_lengths([axes[time], *self.lengths])
        same = y.shape[1 - time] == axes[1 - time] and y.shape[time] == ends[0]
        if not model.keeps_steps or not same:
            return self  # steps of their own
        return self._replace(mask=length_mask(ends[1:], y.shape[time], batch_first))

    def weighed(self, y: Array, model: Module) -> Batch:
        """Return the batch with its weights as a part of the mask, for outputs y of a model."""
        if self.weights is None:
            return self
        weights = as_weights("weights", self.weights).astype(y.dtype)
        steps = weights.ndim == 1 and y.ndim > 2 and model.keeps_steps
        first = int(steps and not agreed("batch_first", {"model": model}))  # the axis of weights
        wanted = y.shape[first : first + weights.ndim]
        if weights.shape != wanted:
            raise ValueError(
                f"weights must have shape {wanted}, as the outputs {y.shape}, got {weights.shape}"
            )
        own = np.asarray(True if self.mask is None else self.mask)
        shape = y.shape[: max(y.ndim - 1, first + weights.ndim, own.ndim)]
        mask = _spread(weights, first, shape) * _spread(own, 0, shape)
        return self._replace(mask=mask, weights=None)

    def for_loss(self, loss: Objective, y: Array, model: Module) -> tuple[Any, ...]:
        """Return the arguments of a loss behind the outputs y of a model: targets, what it takes.

        Raises `ValueError` if the loss takes what no batch has, or not what is for it alone.
        """
        takes = getattr(loss, "takes", Loss.takes)  # any object with a loss's methods serves
        kind = type(loss).__name__
        for name in takes:
            if name not in self._fields:
                raise ValueError(
                    f"{kind} takes {name!r}, but a batch has {', '.join(self._fields)}"
                )
        batch = self
        if "mask" in takes:
            batch = self.masked(y, model)
            batch = batch if "weights" in takes else batch.weighed(y, model)
        for name in _FOR_THE_LOSS:
            if name not in takes and getattr(batch, name) is not None:
                raise ValueError(
                    f"a batch has {name}, but {kind} takes {', '.join(takes) or 'nothing'}"
                )
        if "lengths" in takes and self.lengths is not None and model.keeps_steps:
            batch = batch._replace(lengths=model.out_lengths(self.lengths))
        return (batch.targets, *(getattr(batch, name) for name in takes))


def _spread(array: Array, first: int, shape: tuple[int, ...]) -> Array:
    """Return an array whose axes are those of `shape` from `first` on, repeated over the others."""
    behind = (1,) * (len(shape) - first - array.ndim)
    return np.broadcast_to(array.reshape(*array.shape, *behind), shape)


#: A batch, or a plain tuple of its first fields.
BatchLike: TypeAlias = tuple[Any, ...]

#: One epoch: the same at every pass, or made anew by a function from the generator it is given.
Batches: TypeAlias = Iterable[BatchLike] | Callable[[np.random.Generator], Iterable[BatchLike]]


def chunked(
    inputs: Array,
    targets: Array,
    length: int,
    mask: Array | None = None,
    resets: Array | None = None,
) -> Iterator[Batch]:
    """Cut long sequences, arrays (T, B, ...), into chunks that carry the state on.

    Every chunk has at most `length` steps, and their lengths differ by one at most. resets: `(T,
    B)`, where sequences start anew within.
    """
    steps = len(inputs)
    for name, given in (("targets", targets), ("mask", mask), ("resets", resets)):
        if given is not None and np.shape(given)[:1] != (steps,):
            raise ValueError(f"{name} must have {steps} steps as inputs, got {np.shape(given)}")
    pieces = -(-steps // check_size("length", length))
    for start, end in pairwise(i * steps // pieces for i in range(pieces + 1)):
        part = None if mask is None or np.all(mask[start:end] == 1) else mask[start:end]
        anew = None if resets is None else resets[start:end]
        own = inputs[start:end], targets[start:end]
        yield Batch(*own, mask=part, carry=start > 0, resets=anew)


def shuffled(batches: Iterable[BatchLike]) -> Batches:
    """Give the same batches in a new order every epoch. Not for batches that carry a state."""
    kept = list(batches)

    def epoch(rng: np.random.Generator) -> Iterator[BatchLike]:
        return (kept[i] for i in rng.permutation(len(kept)))

    return epoch


def padded(sequences: Sequence[npt.ArrayLike], value: float = 0) -> tuple[Array, Array]:
    """Put sequences `(T_b, ...)` side by side: an array `(T, B, ...)` and the lengths `(B,)`.

    Behind the end of each there is `value`, a number that the sequences' dtype holds: NaN among
    integers raises `ValueError`.
    """
    if not isinstance(sequences, Iterable):
        raise TypeError(f"sequences must be a list of sequences, got {type(sequences).__name__}")
    arrays = [read(f"sequences[{at}]", sequence)[0] for at, sequence in enumerate(sequences)]
    if not arrays:
        raise ValueError("sequences must hold at least one sequence")
    for at, array in enumerate(arrays):
        if array.ndim < 1 or array.shape[1:] != arrays[0].shape[1:]:
            raise ValueError(
                f"sequences must have one shape behind the first axis: sequence 0 has "
                f"{arrays[0].shape}, sequence {at} has {array.shape}"
            )
    dtype = np.result_type(*arrays)
    check_number("value", value)
    lengths = np.array([len(array) for array in arrays])
    shape = (lengths.max(), len(arrays), *arrays[0].shape[1:])
    together = np.full(shape, as_held("value", value, dtype))
    for b, array in enumerate(arrays):
        together[: len(array), b] = array
    return together, lengths


def bucketed(
    lengths: npt.ArrayLike, size: int, rng: np.random.Generator | None = None, spread: float = 0.2
) -> list[Array]:
    """Cut sequences into batches of `size` that are about equally long; return their indices.

    With `rng` the batches come in random order, and each length `(N,)` counts as up to a share
    `spread` longer than it is, so that not always the same sequences meet. One batch may be
    smaller.
    """
    keys = as_integers("lengths", lengths)
    if keys.ndim != 1:
        raise ValueError(f"lengths must have shape (N,), got {keys.shape}")
    check_size("size", size)
    if not 0 <= spread <= 1:
        raise ValueError(f"spread must be in 0..1, got {spread}")
    noisy = keys if rng is None else keys * rng.uniform(1, 1 + spread, len(keys))
    order = np.argsort(noisy, kind="stable")
    batches = [order[at : at + size] for at in range(0, len(order), size)]
    return batches if rng is None else [batches[i] for i in rng.permutation(len(batches))]
