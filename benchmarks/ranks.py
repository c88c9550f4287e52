"""What an update over n ranks takes, from what this machine measures and what a network is said to.

    python benchmarks/ranks.py

Measured here, on one thread: forward and backward of a shard of 16 rows; all that a rank does for
every parameter beside (zero, pack, clip, Adam); and, between two ranks under mpiexec, the latency
and the bandwidth of the two exchanges. Then the time of an update is

    t(n) = rows / n * row + exchange(n) + parameters * each
    exchange(n) = 2 (n - 1) latency + 2 (n - 1) / n * bytes / bandwidth

for a batch of 16 rows a rank (weak: the batch grows with the ranks) and for one of 1024 rows
(strong), with as many shards as ranks.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rnncore

STEPS, ROWS, CLASSES = 100, 16, 65
RANKS = (1, 2, 10, 100, 1000)


class Network(NamedTuple):
    """A link between ranks: seconds for a message, bytes a second."""

    name: str
    latency: float
    bandwidth: float


NETWORKS = (
    Network("10 Gb/s Ethernet, 30 us", 30e-6, 1.25e9),
    Network("100 Gb/s InfiniBand, 2 us", 2e-6, 12.5e9),
)


class Model(NamedTuple):
    """What a model takes: seconds a row, seconds for the parameters, their number."""

    hidden: int
    row: float
    rest: float
    parameters: int


def best(function: Callable[[], object], rounds: int = 7) -> float:
    found = []
    for _ in range(rounds):
        began = time.perf_counter()
        function()
        found.append(time.perf_counter() - began)
    return min(found)


def measured(hidden: int) -> Model:
    """Time one shard, and what every rank does with all parameters."""
    model = rnncore.Chain(
        rnncore.Embedding(CLASSES, 64, seed=0),
        rnncore.LSTM(64, hidden, seed=1),
        rnncore.Linear(hidden, CLASSES, seed=2),
    )
    ids = np.random.default_rng(0).integers(CLASSES, size=(STEPS, ROWS))
    loss, optimiser, grads = rnncore.SoftmaxCrossEntropy(), rnncore.Adam(model), model.flat_grads()
    sums = np.zeros_like(grads)

    def shard() -> None:
        (y, _), pullback = model.vjp(ids)
        _, loss_pullback = loss.vjp(y, ids)
        pullback(loss_pullback())

    def rest() -> None:
        grads.fill(0)
        np.copyto(sums, grads)
        np.multiply(sums, np.float32(0.5), out=grads)
        rnncore.clip_grad_norm(model, 1.0)
        optimiser.step()

    return Model(hidden, best(shard) / ROWS, best(rest), grads.size)


def exchanged() -> None:
    """Run as one of two ranks: print what the exchanges take, as JSON."""
    from rnncore.distributed import MPICollective

    ranks = MPICollective()

    def seconds(count: int) -> float:
        rows, slices = np.zeros((2, count), np.float32), np.zeros(count, np.float32)

        def both() -> None:
            ranks.alltoall(rows)
            ranks.allgather(slices)

        ranks.barrier()
        return best(both, 30)

    small, large = seconds(1), seconds(1 << 21)
    if ranks.rank == 0:
        # Each of two ranks sends 4 (1 << 21) bytes twice.
        print(json.dumps({"latency": small / 2, "bandwidth": 2 * (4 << 21) / (large - small)}))


def here() -> Network:
    mpiexec = Path(sys.executable).with_name("mpiexec")
    command = [str(mpiexec) if mpiexec.exists() else "mpiexec", "-n", "2", sys.executable]
    said = subprocess.run([*command, __file__, "--exchange"], capture_output=True, check=True)
    return Network("two ranks of this machine", **json.loads(said.stdout.splitlines()[-1]))


def update(model: Model, network: Network, ranks: int, rows: float) -> tuple[float, float]:
    """Return the seconds of an update and those of its exchange; rows: of each rank."""
    sent = 2 * (ranks - 1) / ranks * 4 * model.parameters / network.bandwidth
    exchange = 2 * (ranks - 1) * network.latency + sent
    return rows * model.row + exchange + model.rest, exchange


def table(models: list[Model], network: Network) -> None:
    print(f"\n{network.name}: milliseconds of an update (of them exchange), share of n times one\n")
    print("| hidden | batch | " + " | ".join(f"{n} ranks" for n in RANKS) + " | stops paying |")
    print("|---|---|" + "---|" * (len(RANKS) + 1))
    for model in models:
        for name, rows in (("16 a rank", lambda n: 16.0), ("1024", lambda n: max(1024 / n, 1.0))):
            one = update(model, network, 1, rows(1))[0]
            cells = []
            for n in RANKS:
                seconds, exchange = update(model, network, n, rows(n))
                done = rows(n) * n / rows(1)  # rows of an update, as a multiple of one rank's
                cells.append(
                    f"{seconds * 1e3:.1f} ({exchange * 1e3:.1f}), {one * done / seconds / n:.0%}"
                )
            print(
                f"| {model.hidden} | {name} | {' | '.join(cells)} | {stops(model, network, rows)} |"
            )


def stops(model: Model, network: Network, rows: Callable[[int], float]) -> str:
    """Say from how many ranks on less than half of n times one is left, as far as 100,000."""
    one = update(model, network, 1, rows(1))[0]
    n = 1
    while n < 100_000:
        n = max(n + 1, int(n * 1.02))
        if one * rows(n) / rows(1) / update(model, network, n, rows(n))[0] < 0.5:
            return f"{n}" if n < 1000 else f"{n:,}"
    return "over 100,000"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, nargs="+", default=[128, 512, 1024])
    parser.add_argument("--exchange", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.exchange:
        exchanged()
        return
    rnncore.set_num_threads(1)
    models = [measured(hidden) for hidden in args.hidden]
    print("| hidden | parameters | ms a row of 100 steps | ms beside | bytes sent of 2 ranks |")
    print("|---|---|---|---|---|")
    for model in models:
        print(
            f"| {model.hidden} | {model.parameters:,} | {model.row * 1e3:.3f} | "
            f"{model.rest * 1e3:.2f} | {4 * model.parameters:,} |"
        )
    own = here()
    print(
        f"\nBetween two ranks here: {own.latency * 1e6:.0f} us an exchange, "
        f"{own.bandwidth / 1e9:.1f} GB/s"
    )
    for network in NETWORKS:
        table(models, network)


if __name__ == "__main__":
    main()
