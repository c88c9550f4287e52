"""How gradients fade or explode: through time, and over a training run.

    flow = gradient_flow(LSTM(8, 32, num_layers=2), x)       # (T, 2)
    figure = plot_gradient_flow({"LSTM": flow})              # or saved: "flow.png" behind it

The pictures need matplotlib: pip install 'rnncore[plot]'.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..arrays import Array, as_array, read
from ..compositions.chain import Chain
from ..compositions.composition import check_remembers
from ..module import Module
from .plots import axes_for, finished


def gradient_flow(
    module: Module, x: npt.ArrayLike, dy: npt.ArrayLike | None = None, state: Any = None
) -> Array:
    """Return how much of the last output's gradient reaches every earlier state: `(T, layers)`.

    Entry `[t, n]` is the 2-norm of the gradient of the loss with respect to the state that layer n
    was given at step t (of an LSTM h and c together), T - t steps before the end; the mean over the
    sequences. The loss is a function of the last output alone, whose gradient is `dy` (the shape of
    one output step, `(B, H)`); by default a random direction of length one for every sequence.

    x: `(T, B, I)`, `(B, T, I)` with `batch_first`, or `(T, I)` for one sequence. module: a
    recurrent layer of one direction, a `DeepRNN`, or a `Chain` with at least one of them and
    others that see one step; layers count from the input on. What was in `grads` and in buffers is
    left there. Dropout is on, as in training.
    """
    _check(module)
    held = module.grads, module.buffers
    before = [{name: array.copy() for name, array in arrays.items()} for arrays in held]
    array, _ = read("x", x)
    if array.ndim not in (2, 3):
        raise ValueError(f"x must have shape (T, B, I) or (T, I), got {array.shape}")
    axis = _time_axis(module, array.ndim)
    steps = np.moveaxis(array, axis, 0)[:, None]
    if not len(steps):
        raise ValueError("x must have at least one step")
    pullbacks, y = [], None
    for step in steps:
        (y, state), pullback = module.vjp(np.moveaxis(step, 0, axis), state)
        pullbacks.append(pullback)
    dstate, flow = None, []
    for pullback in reversed(pullbacks):
        d = None if dstate is not None else np.expand_dims(_last_gradient(y, dy, axis), axis)
        _, dstate = pullback(d, dstate)
        flow.append(_norms(module, dstate))
    for arrays, kept in zip(held, before, strict=True):
        arrays.update(kept)
    return np.array(flow[::-1])


def _check(module: Module) -> None:
    """Refuse what cannot be run step by step."""
    if not module.recurrent:
        raise TypeError(f"{type(module).__name__} is not recurrent: no gradient flows through time")
    for layer in _recurrent(module):
        if layer.directions != 1:
            kind = type(layer).__name__
            raise ValueError(f"gradient_flow goes from step to step: this {kind} looks ahead")
    check_remembers("module", module)


def _recurrent(module: Module) -> Iterable[Module]:
    """The recurrent layers of a module, chains taken apart."""
    if not isinstance(module, Chain):
        return [module]
    return [leaf for layer in module.layers if layer.recurrent for leaf in _recurrent(layer)]


def _time_axis(module: Module, ndim: int) -> int:
    first = next(iter(_recurrent(module)))
    return int(ndim == 3 and bool(first.batch_first))


def _last_gradient(y: Any, dy: npt.ArrayLike | None, axis: int) -> Array:
    shape = y.take(0, axis).shape
    if dy is None:
        d = np.random.default_rng(0).standard_normal(shape)
        return np.asarray(d / np.linalg.norm(d, axis=-1, keepdims=True), y.dtype)
    dy = as_array("dy", dy, y.dtype)
    if dy.shape != shape:
        raise ValueError(f"dy must have the shape of one output step {shape}, got {dy.shape}")
    return dy


def _norms(module: Module, dstate: Any) -> list[float]:
    """For every layer the norm of its state's gradient, the mean over the sequences."""
    if isinstance(module, Chain):
        layers = [layer for layer in module.layers if layer.recurrent]
        parts = [_norms(layer, part) for layer, part in zip(layers, dstate, strict=True)]
        return [norm for part in parts for norm in part]
    arrays = dstate if isinstance(dstate, tuple) else (dstate,)
    squares = sum(np.square(array, dtype=np.float64).sum(axis=-1) for array in arrays)
    norms = np.sqrt(np.asarray(squares))
    return [float(norm) for norm in norms.reshape(len(norms), -1).mean(axis=1)]


class GradientNorms:
    """A record of gradient norms over training, by groups of parameters.

        norms = GradientNorms(model)
        while trainer.progress.step < 1000:
            trainer.update()
            norms.record(trainer.progress.step)

    Inside a `Trainer`'s `validate` it takes a record at every validation. With `clip_norm` the
    norms are those after clipping. `group` names the group of a parameter from its name; without
    it every parameter is a group by itself.
    """

    def __init__(self, model: Module, group: Callable[[str], str] | None = None) -> None:
        self.model = model
        self._group = group or (lambda name: name)
        #: The step of each record.
        self.steps: list[int] = []
        #: The 2-norms of each group, one for each record.
        self.norms: dict[str, list[float]] = {self._group(name): [] for name in model.params}

    def record(self, step: int | None = None) -> dict[str, float]:
        """Take down the norms of the gradients as they are; `step` counts on if not given."""
        squares = dict.fromkeys(self.norms, 0.0)
        for name, grad in self.model.grads.items():
            squares[self._group(name)] += float(np.square(grad, dtype=np.float64).sum())
        if step is None:
            step = self.steps[-1] + 1 if self.steps else 1
        self.steps.append(step)
        now = {name: math.sqrt(square) for name, square in squares.items()}
        for name, norm in now.items():
            self.norms[name].append(norm)
        return now


def plot_gradient_flow(
    flows: Mapping[str, npt.ArrayLike],
    path: str | os.PathLike[str] | None = None,
    title: str = "",
    *,
    ax: Any = None,
) -> Any:
    """Draw what `gradient_flow` returned for several cells, over the steps back from the end.

    A line per cell, or per layer of a stack. Returns the figure; path, ax: as for
    `rnncore.training.plots.plot_history`. Raises `ImportError` without matplotlib.
    """
    lines = {}
    for name, flow in flows.items():
        for n, norms in enumerate(layers := np.asarray(flow)[::-1].T):
            label = name if len(layers) == 1 else f"{name}, layer {n}"
            lines[label] = (range(1, len(norms) + 1), norms)
    labels = "steps back from the last output", "norm of the state's gradient"
    return finished(_plot(lines, ax, *labels, title), path)


def plot_gradient_norms(
    norms: GradientNorms,
    path: str | os.PathLike[str] | None = None,
    title: str = "",
    *,
    ax: Any = None,
) -> Any:
    """Draw a record of `GradientNorms`, a line per group; return the figure.

    path, ax: as for `rnncore.training.plots.plot_history`. Raises `ImportError` without matplotlib.
    """
    lines = {name: (norms.steps, values) for name, values in norms.norms.items()}
    return finished(_plot(lines, ax, "step", "norm of the gradient", title), path)


def _plot(
    lines: Mapping[str, tuple[Sequence[int], Any]], ax: Any, xlabel: str, ylabel: str, title: str
) -> Any:
    """Draw lines over a logarithmic axis, beside a legend in a figure of its own."""
    axes = axes_for(ax, (9, 4), xlabel=xlabel, ylabel=ylabel, yscale="log", title=title)
    for label, (steps, norms) in lines.items():
        shown = np.where(np.asarray(norms) > 0, norms, np.nan)  # zero is nowhere on this axis
        axes.plot(steps, shown, label=label)
    axes.grid(alpha=0.3)
    if lines and ax is None:
        axes.figure.legend(loc="outside right upper")
    elif lines:
        axes.legend()
    return axes
