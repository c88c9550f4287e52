"""torch.distributed: the same bits as of one rank, and ranks that die."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("torch", reason="torch is not installed")

PROGRAM = """
import os, sys
import numpy as np, rnncore
import torch.distributed
from rnncore.batches import chunked
from rnncore.distributed import Alone, TorchCollective
from rnncore.training import Trainer

rank, size, file, dies = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
try:
    TorchCollective()
except RuntimeError as error:
    assert "call torch.distributed.init_process_group" in str(error)
torch.distributed.init_process_group(
    "gloo", init_method="file://" + file, rank=rank, world_size=size
)
ranks = TorchCollective(timeout=5)
for dtype in ("float32", "bool", "int64"):
    for shape in ((), (0,), (3, 1000)):
        mine = np.full(shape, rank % 2, dtype)
        every = ranks.allgather(mine)
        assert every.shape == (size, *shape)
        assert all((row == r % 2).all() for r, row in enumerate(every))
        assert (ranks.broadcast(mine, size - 1) == (size - 1) % 2).all()
assert ranks.alltoall(10 * np.arange(size) + rank).tolist() == [10 * rank + r for r in range(size)]
ranks.barrier()

def parameters(collective):
    ids = np.random.default_rng(0).integers(5, size=(30, 9))
    model = rnncore.Chain(rnncore.Embedding(5, 4, seed=rank), rnncore.GRU(4, 5, seed=1))
    loss, optimiser = rnncore.SoftmaxCrossEntropy(), rnncore.Adam(model, 1e-2)
    batches = list(chunked(ids[:-1], ids[1:], 5))
    trainer = Trainer(model, loss, optimiser, batches, collective=collective, shards=8)
    for step in range(8):
        if collective is ranks and rank == dies and step == 5:
            os.kill(os.getpid(), 9)
        trainer.update()
    return model.flat_params().tobytes()

found = parameters(ranks)
if rank == 0:
    assert found == parameters(Alone())
torch.distributed.destroy_process_group()
"""


def run(size, tmp_path, dies=-1):
    """Run the program on so many ranks; return their codes and what they said."""
    command = [sys.executable, "-c", PROGRAM]
    file = str(tmp_path / f"rendezvous{size}{dies}")
    processes = [
        subprocess.Popen(
            [*command, str(rank), str(size), file, str(dies)], stderr=subprocess.PIPE, text=True
        )
        for rank in range(size)
    ]
    try:
        said = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], said


def test_two_ranks_have_the_bits_of_one(tmp_path):
    codes, said = run(2, tmp_path)
    assert codes == [0, 0], said


def test_a_killed_rank_is_named_by_the_others(tmp_path):
    codes, said = run(3, tmp_path, dies=1)
    assert codes == [1, -9, 1], said
    for rank in (0, 2):
        assert f"RankLost: rank 1 does not answer rank {rank} of 3: " in said[rank]
