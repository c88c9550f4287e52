"""Initial values of parameters.

Every function takes a `numpy.random.Generator` first and returns a new array. Numbers are drawn in
float64 and then rounded, so that one seed gives the same model in both precisions.

Gated layers stack one matrix per gate along the first axis; `blocks` is how many there are, and
each is initialised as the separate matrix that it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from .arrays import Array, short, take_room
from .module import Module, modules

Shape: TypeAlias = tuple[int, ...]
#: What `numpy.random.default_rng` takes.
Seed: TypeAlias = int | np.random.SeedSequence | np.random.Generator | None

#: `(rng, name, shape, hidden_size, dtype) -> array`: how one parameter of a recurrent layer starts.
RecurrentInit: TypeAlias = Callable[[np.random.Generator, str, Shape, int, npt.DTypeLike], Array]


def uniform(
    rng: np.random.Generator, shape: Shape, bound: float, dtype: npt.DTypeLike = "float32"
) -> Array:
    """Uniform in +-`bound`."""
    take_room(shape)
    if not math.isfinite(2 * bound):
        raise ValueError(f"bound must be finite, got {bound}")
    return rng.uniform(-bound, bound, shape).astype(dtype)


def normal(
    rng: np.random.Generator, shape: Shape, std: float = 1.0, dtype: npt.DTypeLike = "float32"
) -> Array:
    """Normal with mean zero and standard deviation `std`."""
    take_room(shape)
    return rng.normal(0.0, std, shape).astype(dtype)


def xavier_uniform(
    rng: np.random.Generator,
    shape: Shape,
    *,
    blocks: int = 1,
    gain: float = 1.0,
    dtype: npt.DTypeLike = "float32",
) -> Array:
    """Uniform in +-gain * sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010, eq. 16)."""
    rows, columns = _block_shape(shape, blocks)
    return uniform(rng, shape, gain * math.sqrt(6 / max(rows + columns, 1)), dtype)


def xavier_normal(
    rng: np.random.Generator,
    shape: Shape,
    *,
    blocks: int = 1,
    gain: float = 1.0,
    dtype: npt.DTypeLike = "float32",
) -> Array:
    """Normal with variance gain^2 * 2 / (fan_in + fan_out) (Glorot and Bengio 2010, eq. 12)."""
    rows, columns = _block_shape(shape, blocks)
    return normal(rng, shape, gain * math.sqrt(2 / max(rows + columns, 1)), dtype)


def orthogonal(
    rng: np.random.Generator,
    shape: Shape,
    *,
    blocks: int = 1,
    gain: float = 1.0,
    dtype: npt.DTypeLike = "float32",
) -> Array:
    """Random blocks with orthonormal rows or columns, times `gain` (Saxe et al. 2013)."""
    block = _block_shape(shape, blocks)
    take_room(shape)
    parts = [gain * _random_orthogonal(rng, *block) for _ in range(blocks)]
    return np.concatenate(parts).astype(dtype)


def _block_shape(shape: Shape, blocks: int) -> tuple[int, int]:
    if len(shape) != 2 or blocks < 1 or shape[0] % blocks:
        raise ValueError(f"shape must be {blocks} matrices stacked along the rows, got {shape}")
    return int(shape[0] // blocks), int(shape[1])  # sums of Python's numbers do not wrap


def _random_orthogonal(rng: np.random.Generator, rows: int, columns: int) -> Array:
    tall = rng.standard_normal((max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(tall)
    # The signs that make the factorisation unique, and the distribution uniform (Mezzadri 2007).
    q *= np.where(np.diagonal(r) < 0, -1.0, 1.0)
    return q if rows >= columns else q.T


def _torch(
    rng: np.random.Generator, name: str, shape: Shape, hidden_size: int, dtype: npt.DTypeLike
) -> Array:
    return uniform(rng, shape, 1 / math.sqrt(hidden_size), dtype)


def _zero_bias_scheme(inputs: Callable[..., Array], states: Callable[..., Array]) -> RecurrentInit:
    def scheme(
        rng: np.random.Generator, name: str, shape: Shape, hidden_size: int, dtype: npt.DTypeLike
    ) -> Array:
        if name.startswith("bias"):
            return np.zeros(shape, dtype)
        blocks = shape[0] // hidden_size if name.startswith(("weight_ih", "weight_hh")) else 1
        draw = states if name.startswith("weight_hh") else inputs
        return draw(rng, shape, blocks=blocks, dtype=dtype)

    return scheme


#: The named ways to initialise a recurrent layer. `torch`: all parameters uniform in
#: +-1/sqrt(hidden_size). The others have zero biases; `orthogonal` draws the recurrent weights
#: orthogonal and the input weights Xavier uniform, as Keras does.
RECURRENT: Mapping[str, RecurrentInit] = {
    "torch": _torch,
    "xavier_uniform": _zero_bias_scheme(xavier_uniform, xavier_uniform),
    "xavier_normal": _zero_bias_scheme(xavier_normal, xavier_normal),
    "orthogonal": _zero_bias_scheme(xavier_uniform, orthogonal),
}


def recurrent_params(
    init: str | RecurrentInit,
    rng: np.random.Generator,
    shapes: Mapping[str, Shape],
    hidden_size: int,
    dtype: npt.DTypeLike = "float32",
) -> dict[str, Array]:
    """Draw the parameters of a recurrent layer, in the order of `shapes`.

    `init` is a key of `RECURRENT` or a function of its kind; `shapes` has torch's names
    (`weight_ih...` and `weight_hh...` of gates * hidden_size rows, `bias...`).
    Raises `ValueError` for an unknown name or a function that returns another shape.
    """
    if isinstance(init, str) and init not in RECURRENT:
        raise ValueError(f"init must be a function or one of {', '.join(RECURRENT)}, got {init!r}")
    scheme = RECURRENT[init] if isinstance(init, str) else init
    if not callable(scheme):
        raise TypeError(f"init must be a function or a name, got {short(init)}")
    params = {}
    for name, shape in shapes.items():
        params[name] = np.asarray(scheme(rng, name, shape, hidden_size, dtype), dtype)
        if params[name].shape != shape:
            raise ValueError(f"init gave {name} shape {params[name].shape}, expected {shape}")
    return params


def set_forget_bias(lstm: Module, value: float = 1.0) -> None:
    """Set the forget gate's bias of every LSTM layer in `lstm` to `value`, in place.

    A positive bias lets a new LSTM remember (Gers et al. 2000; Jozefowicz et al. 2015). Where the
    gate has two biases, as in torch's layout, the second one becomes zero. Raises `ValueError` if
    there is no LSTM with a forget gate and a bias.
    """
    if not isinstance(lstm, Module):
        raise TypeError(f"lstm must be a Module, got {type(lstm).__name__}")
    biases = [slot for module in modules(lstm) for slot in _forget_biases(module)]
    if not biases:
        raise ValueError("set_forget_bias needs an LSTM with biases and a forget gate")
    for bias, share in biases:
        bias[...] = share * value


def _forget_biases(module: Module) -> Iterator[tuple[Array, float]]:
    """Yield the forget gates' biases of one module, each with its share of the value."""
    cell = getattr(module, "cell", None)
    if cell is None or not cell.has_cell_state or "f" not in cell.gate_names:
        return
    gate = cell.gate_names.index("f")
    for name, param in module.params.items():
        if name.startswith("norm"):  # gains of two sums of each gate, then the biases
            yield param[2 * cell.facts.gates + gate], 1.0
        elif name.startswith("bias"):
            rows = param.reshape(cell.facts.gates, -1)
            alone = name.replace("_ih", "_hh") not in module.params or "_t" in name
            yield rows[gate], float("_ih" in name or alone)
