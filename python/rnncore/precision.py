"""Weights in fewer bits, for inference: how they are held, and modules made to hold them.

int8: the weights of a row, one of a gate or an output, are whole numbers within +-127 times a scale
of the row's own, `max |w| / 127`. What they are multiplied by is rounded likewise row by row at
every time step, the sums between are exact, and all else is computed in float32. bfloat16: the
upper half of a float32, seven bits of mantissa; only the weights are rounded. bfloat16_dot: what
they are multiplied by is, too, where the processor multiplies two of them at once (AVX-512 BF16).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np

from .arrays import Array, check_choice, check_kind
from .compiled import HoldsCompiled
from .files import listed
from .module import WEIGHT_TYPES, Module, WeightType, named_modules
from .parameters import Arrays

#: What fits into 32 bits: so many products of whole numbers within +-127.
MOST_COLUMNS = 133_000
#: The ending of the name under which the scales of a matrix in int8 stand.
SCALE = "_scale"
#: 127 times as much is finite.
_LARGEST_SCALE = np.nextafter(np.finfo(np.float32).max / np.float32(127), np.float32(0))

Model = TypeVar("Model", bound=Module)


class HoldsWeights(HoldsCompiled, Module):
    """A layer over compiled kernels whose weights may be held in fewer bits."""

    #: Whether whole numbers count as they are held; else kernels find each row's scale themselves.
    keeps_rows: bool = False

    def weight_names(self) -> Iterator[str]:
        """Yield the names of the matrices of products, as they are while weights are float32."""
        for name, array in self._params.items():
            if name.startswith("weight") and array.ndim > 1:
                yield name

    def float_params(self) -> Mapping[str, Array]:
        """Return the parameters in `dtype`, by their names in a module that is not quantized."""
        if self.weight_type is None:
            return self._params
        return {
            name: widened(array, self._params.get(name + SCALE))
            for name, array in self._params.items()
            if not name.endswith(SCALE)
        }

    def _weights_in(self) -> str:
        """The type of the weights that the kernels multiply by; empty: that of all numbers."""
        return self.weight_type or ""

    def _hold(self, weights: str) -> None:
        if self.weight_type is not None:
            raise ValueError(f"the weights of this {type(self).__name__} are {self.weight_type}")
        if self.dtype != np.float32:
            raise ValueError(f"this {type(self).__name__} computes in {self.dtype}, not in float32")
        encode = _in_int8 if weights == "int8" else _in_bfloat16
        names, held = set(self.weight_names()), {}
        if not names:
            raise ValueError(f"this {type(self).__name__} has no weights to quantize")
        for name, array in self._params.items():
            held.update(encode(name, array) if name in names else {name: array})
        self._become(held, weights)

    def _become(self, held: Mapping[str, Array], weights: str) -> None:
        """Have these parameters from now on, the matrices among them in fewer bits."""
        self._params, self.weight_type = Arrays(held), weights
        vars(self).pop("_grads", None)  # a copy of the model's

    def _check_held(self, prefix: str, found: Mapping[str, Array]) -> None:
        for name in (prefix + own for own, array in self._params.items() if array.dtype == np.int8):
            scale = found[name + SCALE]
            if not (np.isfinite(scale) & (scale >= 0)).all():
                raise ValueError(f"{name + SCALE!r} must be finite and not negative")
            most = np.abs(found[name].astype(np.int16)).max(axis=-1)
            if not self.keeps_rows and ((most != 0) & (most != 127)).any():
                raise ValueError(
                    f"{name!r} has rows whose largest number is not 127, as kernels expect: "
                    "rnncore.precision.hold_int8 rounds them"
                )

    def _settle(self) -> None:
        if self._weights_in():
            self._build_anew()

    def _build_anew(self) -> None:
        """Make the compiled parts; parameters that they do not watch are read-only after it."""
        for array in self._params.values():
            array.flags.writeable = True
        self._build()
        for array in self._params.values():
            array.flags.writeable = not self._weights_in()

    def _own_grads(self) -> Arrays:
        self._check_trains()
        return super()._own_grads()

    def _check_trains(self) -> None:
        """Refuse gradients where the weights are rounded ones."""
        if self.weight_type is not None:
            raise TypeError(
                f"the weights of this {type(self).__name__} are {self.weight_type}: it has no "
                "gradients; train the module that it was made from"
            )

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._build_anew()


def quantize(model: Model, weights: WeightType = "int8", exclude: Iterable[str] = ()) -> Model:
    """Return a copy of a model for inference whose weights take fewer bits.

    Every recurrent layer and cell, `Linear` and `Embedding` in it holds its matrices in `weights`;
    biases, peepholes, gains, states and the filters of convolutions stay float32. `"int8"`: whole
    numbers with a scale for each row, and what they are multiplied by rounded likewise at every
    step. `"bfloat16"`: the weights alone are rounded. `"bfloat16_dot"`: what they are multiplied by
    is rounded to bfloat16 as well, if the processor has AVX-512 BF16, which multiplies two at once;
    on others as `"bfloat16"`. The copy is called, streamed, saved, loaded and pickled as the model
    is; it has no gradients, and its parameters are read-only. A row's results do not depend on
    other rows, chunks or threads.

    exclude: dotted names of parts that stay as they are, as `named_modules` has them (`"head"`,
    `"layers.0"`), with all that is in them. Raises `ValueError` for a name that is no part, for
    weights that are not finite, for a model in float64, and where no part has weights to quantize.
    """
    check_kind("model", model, Module)
    check_choice("weights", weights, WEIGHT_TYPES)
    left = _names(exclude)
    names = [name for name, _ in named_modules(model)][1:]
    for name in left:
        if name not in names:
            raise ValueError(f"exclude: there is no part {name!r:.80}; there are {listed(names)}")
    made = copy.deepcopy(model)
    done: dict[int, Module] = {}
    for name, part in named_modules(made):
        if any(name == one or name.startswith(f"{one}.") for one in left):
            done[id(part)] = part  # wherever else it is
    count = len(done)
    for name, part in named_modules(made):
        if isinstance(part, HoldsWeights) and id(part) not in done and any(part.weight_names()):
            done[id(part)] = part
            try:
                part._hold(weights)
            except ValueError as error:
                raise ValueError(f"{name or type(part).__name__}: {error}") from None
    if len(done) == count:
        but = ", but for what is excluded" if left else ""
        raise ValueError(f"this {type(model).__name__} has no weights to quantize{but}")
    for _, part in named_modules(made):
        part._settle()  # after all are held: some read another's weights
    return made


def _names(exclude: Iterable[str]) -> list[str]:
    if isinstance(exclude, str):
        return [exclude]
    if not isinstance(exclude, Iterable):
        raise TypeError(f"exclude must be names of parts, got a {type(exclude).__name__}")
    return list(exclude)


def dequantized(model: Model) -> Model:
    """Return a model that computes in float32 with the weights that a quantized one has.

    A model with none that are quantized is returned itself.
    """
    if all(part.weight_type is None for _, part in named_modules(model)):
        return model
    made = copy.deepcopy(model)
    for _, part in named_modules(made):
        if isinstance(part, HoldsWeights) and part.weight_type is not None:
            held = {name: np.array(array) for name, array in part.float_params().items()}
            part._params, part.weight_type = Arrays(held), None
    for _, part in named_modules(made):
        if isinstance(part, HoldsWeights):
            part._build_anew()
    return made


def hold_int8(layer: Module, weights: Mapping[str, tuple[Array, Array]]) -> None:
    """Give a layer in float32 its matrices as whole numbers within +-127 and a scale for each row.

    weights: `(out, in)` and `(out,)` for each of `layer.weight_names()`; other parameters stay. The
    kernels of products know a row by its largest number, which is 127 times the scale: a row
    whose numbers do not reach +-127 is rounded once more, to steps that are finer than its own.
    Others, and all rows of an `Embedding`, are held as they are. Raises `ValueError` for names,
    shapes, numbers or scales that are not such.
    """
    if not isinstance(layer, HoldsWeights):
        raise TypeError(f"a {type(layer).__name__} has no weights to quantize")
    names = list(layer.weight_names())
    if layer.weight_type is not None or weights.keys() != set(names):
        raise ValueError(f"weights must be {listed(names)}, not yet held in fewer bits")
    held: dict[str, Array] = {}
    for name, array in layer._params.items():
        if name in names:
            held |= _given(name, array.shape, *weights[name], layer.keeps_rows)
        else:
            held[name] = array
    layer._become(held, "int8")
    layer._settle()


def copy_parameters(source: Module, target: Module, more: Mapping[str, Array]) -> None:
    """Give a layer in `dtype` the parameters of another one made alike, in as few bits.

    more: those that the other one does not have.
    """
    if source.weight_type is not None:
        target._hold(source.weight_type)
    target.load_state_dict({**source.stored, **more})


def widened(array: Array, scale: Array | None) -> Array:
    """Return weights as float32, if they are held in fewer bits."""
    if array.dtype == np.int8 and scale is not None:
        return array.astype(np.float32) * scale[..., None]
    if array.dtype == np.uint16:
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array


def _in_int8(name: str, array: Array) -> dict[str, Array]:
    if array.shape[-1] > MOST_COLUMNS:
        raise ValueError(
            f"{name} has {array.shape[-1]:,} columns, and sums of int8 products hold "
            f"{MOST_COLUMNS:,}: exclude it"
        )
    largest = np.abs(array).max(axis=-1)
    _check_finite(name, largest)
    inverse = np.divide(127, largest, out=np.zeros_like(largest), where=largest > 1e-30)
    whole = np.rint(array * inverse[..., None]).astype(np.int8)
    scale = np.where(largest > 1e-30, np.minimum(largest / np.float32(127), _LARGEST_SCALE), 0)
    scale = scale.astype(np.float32)
    return {name: whole, name + SCALE: scale}


def _given(
    name: str, shape: tuple[int, ...], whole: Array, scale: Array, as_they_are: bool
) -> dict[str, Array]:
    """Whole numbers and scales that somebody else has found, as our kernels take them."""
    if whole.shape != shape or scale.shape != shape[:-1]:
        raise ValueError(
            f"{name} must have shape {shape}, with scales {shape[:-1]}; got {whole.shape}, "
            f"{scale.shape}"
        )
    most = np.abs(whole.astype(np.int32)).max(axis=-1, initial=0)
    if whole.dtype.kind not in "iu" or most.max(initial=0) > 127:
        raise ValueError(f"{name} must hold whole numbers within +-127")
    scale = scale.astype(np.float32)
    if not (np.isfinite(scale) & (scale >= 0)).all():
        raise ValueError(f"{name} must have scales that are finite and not negative")
    whole = np.array(whole, np.int8, order="C")
    found = _in_int8(name, whole.astype(np.float32) * scale[..., None])
    exact = np.full_like(most, as_they_are, bool) | (most == 127)
    return {
        name: np.where(exact[..., None], whole, found[name]),
        name + SCALE: np.where(exact, scale, found[name + SCALE]),
    }


def _in_bfloat16(name: str, array: Array) -> dict[str, Array]:
    _check_finite(name, array)
    bits = np.ascontiguousarray(array).view(np.uint32)
    rounded = (bits + (0x7FFF + (bits >> 16 & 1))) >> 16  # to the nearest, of two the even one
    if (rounded & 0x7FFF == 0x7F80).any():
        raise ValueError(f"{name} holds numbers too large for bfloat16")
    return {name: rounded.astype(np.uint16)}


def _check_finite(name: str, array: Array) -> None:
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds numbers that are not finite")
