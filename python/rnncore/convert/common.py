"""What the conversions share: gates in order, options named, refusals, and how they are checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..arrays import Array, read
from ..compositions.chain import Chain
from ..files import one_line
from ..layers.activations import Elementwise, ReLU, Sigmoid, Softmax, Tanh
from ..layers.batch_norm import BatchNorm
from ..layers.convolution import Conv1d, Conv2d, ConvTranspose1d
from ..layers.embedding import Embedding
from ..layers.layer_norm import LayerNorm
from ..layers.linear import Linear
from ..layers.multihead import MultiheadAttention
from ..layers.sliding import SlidesOverImages, SlidesOverTime
from ..module import Module, modules
from ..recurrent.base import RecurrentBase
from ..recurrent.registry import LAYERS
from ..recurrent.stack import Stacked
from ..recurrent.step import Step
from .budget import Budget

#: The cells that other libraries have, each with the order of the gates in the rows of our weights,
#: which is torch's.
GATES = {cell: LAYERS[cell](1, 1).cell.gate_names for cell in ("rnn", "lstm", "gru")}

#: True for random input, an input, or an input and the outputs that are expected of it.
Verify: TypeAlias = Any
Report: TypeAlias = Callable[["Check"], object]

#: The project's bounds, relative to the largest magnitude.
TOLERANCE = {np.dtype("float32"): 2e-5, np.dtype("float64"): 1e-12}
#: The bound where two round activations to 8 bits, each in a way of its own.
ROUNDED = 0.05


@dataclass(frozen=True)
class Check:
    """How far a converted model's outputs are from those of its reference."""

    reference: str
    difference: float
    largest: float

    def __str__(self) -> str:
        return (
            f"largest difference {self.difference:.2g}, the largest output being "
            f"{self.largest:.2g}; compared with {self.reference}"
        )


def check(
    reference: str,
    got: Iterable[Array],
    want: Iterable[Array],
    report: Report,
    rounded: bool = False,
) -> None:
    """Report the largest difference; raise `ValueError` if it is beyond the project's bounds.

    rounded: whether activations are rounded to 8 bits.
    """
    difference = largest = 0.0
    tolerance = ROUNDED if rounded else 0.0
    for mine, theirs in zip(got, want, strict=True):
        if mine.shape != np.shape(theirs):
            raise ValueError(f"{reference} gives shape {np.shape(theirs)}, the model {mine.shape}")
        with np.errstate(invalid="ignore"):  # inf - inf
            off = np.abs(mine.astype(np.float64) - theirs).max(initial=0)
        difference = float(max(difference, off) if np.isfinite(off) else np.inf)
        largest = float(max(largest, np.abs(theirs).max(initial=0)))
        tolerance = max(tolerance, TOLERANCE.get(mine.dtype, 0))
    found = Check(reference, difference, largest)
    report(found)
    if not difference <= tolerance * largest:
        raise ValueError(f"the converted model does not agree: {found}")


def verify_module(
    module: Any, verify: Verify, reference: Callable[[Array], Array], report: Report
) -> None:
    """Check a module's y against given outputs, or else those of a reference for float64 x."""
    x, y = input_and_output(verify, lambda: random_input(module))
    mine = output(module, x)
    if y is not None:
        check("the outputs given", [mine], [np.asarray(y)], report)
    else:
        x = x if x.dtype.kind in "iu" else x.astype(np.float64)
        check("the NumPy reference", [mine], [reference(x)], report)


def output(module: Any, x: Array) -> Array:
    """Return y alone."""
    y = module(x)
    has_state = module.has_cell_state if isinstance(module, Step) else module.recurrent
    return np.asarray(y[0] if has_state else y)


def input_and_output(verify: Verify, random: Callable[[], Array]) -> tuple[Array, Any]:
    """Take what `verify=` was given apart: an input, and the outputs expected or None."""
    if verify is True:
        return random(), None
    if isinstance(verify, tuple):
        if len(verify) != 2:
            raise ValueError(f"verify must be True, x or (x, y), got {len(verify)} entries")
        return np.asarray(verify[0]), verify[1]
    return np.asarray(verify), None


def is_batch_first(module: Module) -> bool:
    """Whether a module's sequences are batch-major."""
    return any(part.batch_first for part in modules(module))


def random_input(
    module: Module, steps: int = 7, batch: int = 3, budget: Budget | None = None
) -> Array:
    """Draw an input that the module takes; the budget is asked before."""
    rng = np.random.default_rng(0)
    sizes = _sizes(module, steps)
    axes = (batch, sizes[0]) if is_batch_first(module) else (sizes[0], batch)
    shape, dtype, indices = _input_of(module, axes, (batch, *sizes))
    if budget is not None:
        budget.take("an input", shape, 8)
    if indices:
        return rng.integers(indices, size=shape)
    return rng.standard_normal(shape).astype(dtype)


def _sizes(module: Module, size: int) -> list[int]:
    """How many steps, or rows and columns, go in for at least `size` to come out."""
    sizes = [size, size]
    for part in reversed(list(modules(module))):
        if isinstance(part, (SlidesOverTime, SlidesOverImages)):
            axes = part.axes if isinstance(part, SlidesOverImages) else [part.axis]
            for at, axis in enumerate(axes):
                sizes[at] = (sizes[at] - 1) * axis.stride + axis.span
    return sizes


def _input_of(
    module: Module, axes: tuple[int, int], images: tuple[int, ...]
) -> tuple[tuple[int, ...], Any, int]:
    """The shape and dtype of an input, and below which number it is where it is one of indices."""
    for part in modules(module):
        if isinstance(part, Conv2d):
            return (*images, part.in_channels or 0), part.dtype, 0
        if isinstance(part, (Conv1d, ConvTranspose1d)):
            return (*axes, part.in_channels or 0), part.dtype, 0
        if isinstance(part, BatchNorm):
            return (*axes, part.num_features), part.dtype, 0
        if isinstance(part, Embedding):
            return axes, np.int64, part.num_embeddings
        if isinstance(part, Step):
            return (images[0], part.input_size), part.dtype, 0
        if isinstance(part, Stacked):
            return (*axes, part.input_size), part.dtype, 0
        if isinstance(part, Linear):
            return (*axes, part.in_features), part.dtype, 0
        if isinstance(part, MultiheadAttention):
            return (*axes, part.embed_dim), part.dtype, 0
        if isinstance(part, LayerNorm):
            return (*axes, *part.normalized_shape), part.dtype, 0
    return (*axes, 4), np.float32, 0


#: What a damaged file raises on the walk through what it holds.
_DAMAGE: tuple[type[Exception], ...]
_DAMAGE = (LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
#: How long a message about a file may be, and the part of it that one value may have.
_MOST, _MOST_OF_A_VALUE = 380, 80


@contextmanager
def readable(name: str, fault: str, *more: type[Exception]) -> Iterator[None]:
    """Make one `ValueError`, a line with the file's name, of all that a damaged file raises.

    `fault` is said of what is no error on purpose.
    """
    damage = (*_DAMAGE, *more)
    try:
        yield
    except damage as error:
        said = str(error) if isinstance(error, ValueError) else repr(error)
        raise ValueError(f"{name} {fault}: {one_line(said, _MOST)}") from error
    except ValueError as error:
        raise ValueError(f"{name}: {one_line(str(error), _MOST)}") from error


def shown(value: object) -> str:
    """What a message shows of a value from a file."""
    return one_line(repr(value), _MOST_OF_A_VALUE)


def regate(rows: Array, source: str, target: str) -> Array:
    """Put blocks of rows, one for each letter of `source`, into the order of `target`."""
    blocks = dict(zip(source, np.split(rows, len(source)), strict=True))
    return np.concatenate([blocks[gate] for gate in target])


class NotFloats(TypeError):
    """Numbers of a kind that no parameter is of."""


def as_floats(name: str, value: npt.ArrayLike) -> Array:
    """Return an array of floats; float16 and bfloat16 become float32, which is exact."""
    array, _ = read(name, value)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if array.dtype in TOLERANCE:
        return array
    if array.dtype.name not in ("float16", "bfloat16"):
        raise NotFloats(f"{name} must be an array of floats, got {array.dtype}")
    return array.astype(np.float32)


def dtype_of(arrays: Iterable[Array], dtype: npt.DTypeLike | None) -> np.dtype[Any]:
    """Return the dtype asked for, or else the widest of the arrays'."""
    return np.dtype(dtype) if dtype is not None else np.result_type(*arrays)


def filled(module: Module, params: Mapping[str, Array]) -> Any:
    """Load parameters into a new module, in its own dtype.

    Raises `ValueError` where names or shapes differ, or numbers are too large for the dtype.
    """
    dtypes = {name: mine.dtype for name, mine in module.stored.items()}
    module.load_state_dict({n: in_dtype(n, p, dtypes.get(n, p.dtype)) for n, p in params.items()})
    return module


def in_dtype(name: str, array: Array, dtype: np.dtype[Any]) -> Array:
    """Return an array in a dtype that may be narrower, which must not make numbers infinite."""
    if array.dtype == dtype:
        return array
    with np.errstate(over="ignore"):
        narrow = array.astype(dtype)
    if (np.isinf(narrow) > np.isinf(array)).any():
        raise ValueError(f"{name} has numbers too large for {dtype}: ask for a wider dtype")
    return narrow


def activation_layer(activation: Any) -> Module | None:
    """Return an activation as a layer, None for the identity."""
    name = activation if isinstance(activation, str) else activation[0]
    if name == "identity":
        return None
    own: dict[str, type[Module]] = {"tanh": Tanh, "sigmoid": Sigmoid, "relu": ReLU}
    own["softmax"] = Softmax
    return own[name]() if name in own else Elementwise(activation)


def features(layer: RecurrentBase) -> dict[str, Any]:
    """The options by which a layer's outputs differ from those of its plain form."""
    zoneout = layer.regularisers.zoneout if isinstance(layer, Stacked) else ()
    found = layer.cell.options() | ({"zoneout": zoneout} if any(zoneout) else {})
    return found | ({"learned_state": True} if layer.learned_state else {})


def check_representable(where: str, layer: Module, allowed: Sequence[str]) -> dict[str, Any]:
    """Return a plain layer's features, or raise `ValueError` naming what cannot be said there."""
    if type(layer) not in [LAYERS[cell] for cell in GATES]:
        raise refusal(where, type(layer).__name__)
    assert isinstance(layer, RecurrentBase)
    found = features(layer)
    for name, value in found.items():
        if name not in allowed:
            raise refusal(where, f"{type(layer).__name__} with {name}={value!r}")
    return found


def refusal(where: str, what: str) -> ValueError:
    """The error that says what cannot be converted."""
    return ValueError(f"{where} cannot represent {one_line(what, 240)}")


def chain_of(layers: Sequence[Module]) -> Any:
    """Return the layers one after another; a single one as it is."""
    return layers[0] if len(layers) == 1 else Chain(*layers)
