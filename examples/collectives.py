"""Ranks of Dask and of Ray: what a collective of one's own takes.

    python examples/collectives.py --engine dask

Both have actors: objects on one of the machines whose functions are called from all. One of them,
`Room`, collects the arrays of an exchange; a collective is a call of it. All bytes go through that
one place: good for a few ranks and small models, and for others use MPI. The last line says whether
two ranks have the bits of one.
"""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

import numpy as np
import rnncore
from rnncore.batches import chunked
from rnncore.distributed import Alone, Collective
from rnncore.training import Trainer


class Room:
    """Where the ranks of a run meet: an actor, of Dask or of Ray."""

    def __init__(self, size: int) -> None:
        self.size, self.meetings = size, {}

    async def meet(self, number: int, rank: int, array: np.ndarray) -> list[np.ndarray]:
        """Return the arrays of all ranks when the last has come."""
        arrays = self.meetings.setdefault(number, {})
        arrays[rank] = array
        while len(arrays) < self.size:
            await asyncio.sleep(1e-3)
        self.meetings.pop(number - 2, None)  # nobody is there any more
        return [arrays[rank] for rank in range(self.size)]


class DaskCollective(Collective):
    """A rank that is a task of Dask; `room`: from `client.submit(Room, size, actor=True)`."""

    def __init__(self, rank: int, size: int, room: Any) -> None:
        self.rank, self.size, self.room, self.number = rank, size, room, 0

    def allgather(self, array: np.ndarray) -> np.ndarray:
        """Return the arrays of all ranks."""
        self.number += 1
        return np.stack(self.room.meet(self.number, self.rank, np.array(array)).result())


class RayCollective(Collective):
    """A rank that is a task of Ray; `room`: from `ray.remote(Room).remote(size)`."""

    def __init__(self, rank: int, size: int, room: Any) -> None:
        self.rank, self.size, self.room, self.number = rank, size, room, 0

    def allgather(self, array: np.ndarray) -> np.ndarray:
        """Return the arrays of all ranks."""
        import ray

        self.number += 1
        return np.stack(ray.get(self.room.meet.remote(self.number, self.rank, np.array(array))))


def train(collective: Collective) -> bytes:
    """Train as one rank; return all parameters."""
    rnncore.set_num_threads(1)
    ids = np.random.default_rng(0).integers(20, size=(101, 32))
    model = rnncore.Chain(
        rnncore.Embedding(20, 16, seed=0),
        rnncore.LSTM(16, 32, seed=1),
        rnncore.Linear(32, 20, seed=2),
    )
    loss, optimiser = rnncore.SoftmaxCrossEntropy(), rnncore.Adam(model)
    batches = list(chunked(ids[:-1], ids[1:], 20))
    trainer = Trainer(model, loss, optimiser, batches, seed=0, collective=collective, shards=4)
    trainer.fit(10, quiet=True)
    return model.flat_params().tobytes()


def on_dask(size: int) -> list[bytes]:
    """Train on a cluster of processes of this machine: a worker for each rank."""
    from distributed import Client

    with Client(n_workers=size, threads_per_worker=1, dashboard_address=None) as client:
        room = client.submit(Room, size, actor=True).result()
        workers = list(client.scheduler_info()["workers"])
        ranks = [DaskCollective(rank, size, room) for rank in range(size)]
        tasks = [
            client.submit(train, rank, workers=[worker], pure=False)
            for rank, worker in zip(ranks, workers, strict=True)
        ]
        return client.gather(tasks)


def on_ray(size: int) -> list[bytes]:
    """Train on Ray, here or on the cluster that it is connected to: a processor for each rank."""
    import ray

    ray.init(num_cpus=size, include_dashboard=False, ignore_reinit_error=True)
    room = ray.remote(Room).options(num_cpus=0).remote(size)
    task = ray.remote(train)
    return ray.get([task.remote(RayCollective(rank, size, room)) for rank in range(size)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", choices=("dask", "ray"), default="dask")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="for tests; it is quick as it is")
    args = parser.parse_args()
    run = on_dask if args.engine == "dask" else on_ray
    found, alone = run(args.ranks), train(Alone())
    print(f"result: bits_equal={int(all(parameters == alone for parameters in found))}")


if __name__ == "__main__":
    main()
