"""Cells written in Python: beside the built-in LSTM, and beside the same in PyTorch and JAX.

python benchmarks/own_cells.py              # one processor
python benchmarks/own_cells.py --quick      # does it work?

The first table has an LSTM written as a user's cell against the built-in one: the ratios of times
of a call and of a call with its pullback. The second has sLSTM and SRU of `rnncore.cells.shelf`
in training, gradients of the parameters and of x included, against the same equations as a loop
over time in PyTorch, as they are and with the time step under `torch.compile`, and as JAX's
`scan` under `jit` (where JAX is installed). Products with x are taken for all steps at once by
all of them. Its last columns are operations in products with weights, in 10^9 a second: ours, what
five times the speed of the fastest other would be, and NumPy's in one product of as many.
In turns; medians of the rounds' times and of their ratios.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
from collections.abc import Callable
from statistics import geometric_mean, median
from typing import Any

import numpy as np
import rnncore
import torch
from rnncore import cells
from rnncore.cells import sigmoid, tanh
from rnncore.cells.shelf import slstm, sru
from rnncore.commands.measure.report import duration, table
from rnncore.commands.measure.timing import ratio, time_call
from tqdm import tqdm

Call = Callable[[], Any]
BATCHES, HIDDEN = (1, 8, 32), (32, 64, 128, 256, 512)
STEPS = 64
#: T, B, H of the second table: first a controller or policy that learns from one sequence.
SHAPES = [(64, 1, 32), (128, 1, 64), (64, 8, 64), (64, 32, 128), (128, 32, 256)]


@cells.define(gates="ifgo", states="hc")
def lstm(i: Any, f: Any, g: Any, o: Any, c: Any) -> Any:
    """As `rnncore.LSTM`."""
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    return sigmoid(o) * tanh(c), c


def training(layer: Any, x: np.ndarray) -> Call:
    """Return a call forward and back."""

    def call() -> Any:
        layer.zero_grad()
        (y, _), pullback = layer.vjp(x)
        return y, pullback(y)[0]

    return call


def beside_built_in(batch: int, hidden: int, rounds: int) -> list[float]:
    """Ratios of times, own to built-in: of a call and of training."""
    x = np.random.default_rng(0).standard_normal((STEPS, batch, hidden), np.float32)
    built_in, own = rnncore.LSTM(hidden, hidden, seed=0), lstm(hidden, hidden, seed=0)
    found = []
    for mine, theirs in (
        (lambda: own(x), lambda: built_in(x)),
        (training(own, x), training(built_in, x)),
    ):
        np.testing.assert_allclose(mine()[0], theirs()[0], atol=2e-6)
        times = [(time_call(mine), time_call(theirs)) for _ in range(rounds)]
        found.append(ratio(*zip(*times, strict=True)))
    return found


def torch_slstm(sums: torch.Tensor, h: Any, c: Any, n: Any, m: Any, w: torch.Tensor) -> Any:
    z, i, f, o = (sums + h @ w.T).chunk(4, -1)
    m_new = torch.maximum(f + m, i)
    i, f = torch.exp(i - m_new), torch.exp(f + m - m_new)
    c, n = f * c + i * torch.tanh(z), f * n + i
    return torch.sigmoid(o) * c / n, c, n, m_new


def torch_sru(sums: torch.Tensor, h: Any, c: Any, v_f: torch.Tensor, v_r: torch.Tensor) -> Any:
    u, f, r, p = sums.chunk(4, -1)
    f, r = torch.sigmoid(f + v_f * c), torch.sigmoid(r + v_r * c)
    c = f * c + (1 - f) * u
    return r * c + (1 - r) * p, c


def weights_of(layer: Any) -> list[np.ndarray]:
    """Those of x and their bias, and those of the states."""
    p = layer.params
    bias = p["bias_ih_l0"] + p.get("bias_hh_l0", 0)
    of_states = [p["weight_hh_l0"]] if "weight_ch_l0" not in p else [*p["weight_ch_l0"]]
    return [p["weight_ih_l0"], bias, *(of_states if "bias_hh_l0" in p else [*p["weight_hh_l0"]])]


def in_torch(layer: Any, x: np.ndarray, step: Callable[..., Any], states: int) -> Call:
    tensors = [torch.from_numpy(a.copy()).requires_grad_() for a in [x, *weights_of(layer)]]
    xs, weight, bias, *of_states = tensors

    def call() -> Any:
        for tensor in tensors:
            tensor.grad = None
        state = tuple(torch.zeros(x.shape[1], layer.hidden_size) for _ in range(states))
        outputs = []
        for sums in (xs @ weight.T + bias).unbind(0):
            state = step(sums, *state, *of_states)
            outputs.append(state[0])
        y = torch.stack(outputs)
        y.backward(y.detach())
        return y.detach().numpy(), xs.grad

    return call


def in_jax(layer: Any, x: np.ndarray, name: str, states: int) -> Call:
    import jax
    import jax.numpy as jnp

    def slstm_step(carry: Any, sums: Any, w: Any) -> Any:
        h, c, n, m = carry
        z, i, f, o = jnp.split(sums + h @ w.T, 4, -1)
        m_new = jnp.maximum(f + m, i)
        i, f = jnp.exp(i - m_new), jnp.exp(f + m - m_new)
        c, n = f * c + i * jnp.tanh(z), f * n + i
        h = jax.nn.sigmoid(o) * c / n
        return (h, c, n, m_new), h

    def sru_step(carry: Any, sums: Any, v_f: Any, v_r: Any) -> Any:
        _, c = carry
        u, f, r, p = jnp.split(sums, 4, -1)
        f, r = jax.nn.sigmoid(f + v_f * c), jax.nn.sigmoid(r + v_r * c)
        c = f * c + (1 - f) * u
        h = r * c + (1 - r) * p
        return (h, c), h

    step = {"sLSTM": slstm_step, "SRU": sru_step}[name]

    def run(xs: Any, weight: Any, bias: Any, *of_states: Any) -> Any:
        first = tuple(jnp.zeros((xs.shape[1], layer.hidden_size)) for _ in range(states))
        return jax.lax.scan(lambda c, s: step(c, s, *of_states), first, xs @ weight.T + bias)[1]

    @jax.jit
    def both(*given: Any) -> Any:
        y, back = jax.vjp(run, *given)
        return y, back(y)

    given = [jnp.asarray(a) for a in [x, *weights_of(layer)]]
    return lambda: jax.block_until_ready(both(*given))


def others(name: str, layer: Any, x: np.ndarray) -> dict[str, Call]:
    """Who else computes it, and how."""
    step, states = {"sLSTM": (torch_slstm, 4), "SRU": (torch_sru, 2)}[name]
    found = {
        "PyTorch": in_torch(layer, x, step, states),
        "torch.compile": in_torch(layer, x, torch.compile(step), states),
    }
    if importlib.util.find_spec("jax"):
        found["JAX"] = in_jax(layer, x, name, states)
    return found


def beside_others(name: str, shape: tuple[int, int, int], rounds: int) -> list[str]:
    steps, batch, hidden = shape
    x = np.random.default_rng(0).standard_normal((steps, batch, hidden), np.float32)
    layer = {"sLSTM": slstm, "SRU": sru}[name](hidden, hidden, seed=0)
    own, calls = training(layer, x), others(name, layer, x)
    for call in calls.values():
        np.testing.assert_allclose(own()[0], np.asarray(call()[0]), atol=2e-5)
    times = [[time_call(own), *map(time_call, calls.values())] for _ in range(rounds)]
    mine, *their = zip(*times, strict=True)
    ratios = dict(zip(calls, (ratio(times, mine) for times in their), strict=True))
    row = [name, ", ".join(map(str, shape)), duration(median(mine))]
    row += [f"{ratios[n]:.1f}" if n in ratios else "" for n in ("PyTorch", "torch.compile", "JAX")]
    a, rate = np.ones((steps * batch, hidden), np.float32), products(layer, x) / 1e9 / median(mine)
    alone = time_call(lambda: a @ layer.params["weight_ih_l0"].T)
    theirs = 2 * a.shape[0] * layer.params["weight_ih_l0"].size / 1e9 / alone
    return row + [f"{n:.0f}" for n in (rate, 5 * rate / min(ratios.values()), theirs)]


def products(layer: Any, x: np.ndarray) -> int:
    """Operations in products with weights, forward and back: of each two and four."""
    weights = sum(layer.params[name].size for name in layer.weight_names())
    return 6 * x.shape[0] * x.shape[1] * weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="one round of small shapes")
    options = parser.parse_args()
    rounds = 1 if options.quick else options.rounds
    if hasattr(os, "sched_setaffinity"):  # JAX has no other switch for its threads
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    rnncore.set_num_threads(1)
    torch.set_num_threads(1)
    sizes = [(2, 8)] if options.quick else [(b, h) for h in HIDDEN for b in BATCHES]
    rows, found = [], []
    for batch, hidden in tqdm(sizes, disable=None):
        found.append(beside_built_in(batch, hidden, rounds))
        rows.append([str(hidden), str(batch), *(f"{times:.2f}" for times in found[-1])])
    print("An LSTM as a user's cell, its time over that of the built-in one:")
    print(table(["H", "B", "call", "training"], rows))
    mean = [geometric_mean(column) for column in zip(*found, strict=True)]
    print(f"Geometric mean: {mean[0]:.2f} of calls, {mean[1]:.2f} of training.\n")
    shapes = [(4, 2, 8)] if options.quick else SHAPES
    pairs = [(name, shape) for name in ("sLSTM", "SRU") for shape in shapes]
    rows = [beside_others(*pair, rounds) for pair in tqdm(pairs, disable=None)]
    print("Training, their time over ours:")
    heads = ["cell", "T, B, H", "ours", "PyTorch", "torch.compile", "JAX"]
    print(table([*heads, "GF/s", "five times", "NumPy"], rows))


if __name__ == "__main__":
    main()
