"""What an update over n ranks takes, from what this machine measures and what a network is said to.

    python benchmarks/ranks.py

Measured here, on one thread: forward and backward of a shard of 16 rows; all that a rank does for
every parameter beside (zero, pack, clip, Adam); and, between two ranks under mpiexec, the latency
and the bandwidth of the two exchanges. Then the time of an update is

    t(n) = rows / n * row + exchange(n) + parameters * each
    exchange(n) = 2 (n - 1) latency + 2 (n - 1) / n * bytes / bandwidth

for a batch of 16 rows a rank (weak: the batch grows with the ranks) and for one of 1024 rows
(strong), with as many shards as ranks.

    python benchmarks/ranks.py --shards     # what it costs that shards have few rows
    python benchmarks/ranks.py --overlap    # what it brings to exchange during backward

The last trains four layers on two ranks of this machine; a slow link is a wait before an exchange.
"""

from __future__ import annotations

import argparse
import json
import os
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


def under_mpiexec(option: str) -> str:
    mpiexec = Path(sys.executable).with_name("mpiexec")
    command = [str(mpiexec) if mpiexec.exists() else "mpiexec", "-n", "2", sys.executable]
    one = dict.fromkeys(("RNNCORE_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    said = subprocess.run(
        [*command, __file__, option], stdout=subprocess.PIPE, check=True, env=os.environ | one
    )
    return said.stdout.decode()


def here() -> Network:
    said = under_mpiexec("--exchange").splitlines()[-1]
    return Network("two ranks of this machine", **json.loads(said))


def shards() -> None:
    """Print what a row takes in shards of several sizes."""
    print(
        "| rows of a shard | ms a row, LSTM(64, 512), 64 steps, forward and backward |\n|---|---|"
    )
    lstm = rnncore.LSTM(64, 512, seed=0)
    for rows in (64, 32, 16, 8, 4):
        x = np.random.default_rng(0).standard_normal((64, rows, 64), dtype=np.float32)

        def run(x: np.ndarray = x) -> None:
            (y, _), pullback = lstm.vjp(x)
            pullback(y)

        print(f"| {rows} | {best(run, 15) / rows * 1e3:.2f} |")


def updates() -> None:
    """Run as one of two ranks: time updates over links that are made slow by waiting."""
    from rnncore.distributed import MPICollective
    from rnncore.training import Trainer

    class Slow(MPICollective):
        bandwidth = np.inf

        def allgather(self, array: np.ndarray) -> np.ndarray:
            time.sleep(array.nbytes / self.bandwidth)
            return super().allgather(array)

        def alltoall(self, array: np.ndarray) -> np.ndarray:
            time.sleep(array.nbytes / 2 / self.bandwidth)
            return super().alltoall(array)

    ranks = Slow()
    model = rnncore.Chain(
        rnncore.Embedding(CLASSES, 256, seed=0),
        *(rnncore.LSTM(256, 256, seed=layer) for layer in range(1, 5)),
        rnncore.Linear(256, CLASSES, seed=5),
    )
    ids = np.random.default_rng(0).integers(CLASSES, size=(STEPS, 2 * ROWS))
    loss, optimiser = rnncore.SoftmaxCrossEntropy(), rnncore.SGD(model)
    trainer = Trainer(model, loss, optimiser, [(ids, ids)], collective=ranks, shards=2)
    if ranks.rank == 0:
        print("| link | ms an update, exchange behind backward | overlapping |\n|---|---|---|")
    for name, bandwidth in (("this machine's", np.inf), ("10 Gb/s", 1.25e9), ("1 Gb/s", 1.25e8)):
        ranks.bandwidth, found = bandwidth, []
        for ranks.overlaps in (False, True):
            found.append(best(trainer.update, 12) * 1e3)
        if ranks.rank == 0:
            print(f"| {name} | {found[0]:.1f} | {found[1]:.1f} |")


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
    parser.add_argument("--shards", action="store_true", help="what few rows a shard cost instead")
    parser.add_argument("--overlap", action="store_true", help="measure that instead; see below")
    parser.add_argument("--updates", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--exchange", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    rnncore.set_num_threads(1)
    if args.exchange:
        exchanged()
        return
    if args.updates:
        updates()
        return
    if args.overlap:
        print(under_mpiexec("--updates"), end="")
        return
    if args.shards:
        shards()
        return
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
