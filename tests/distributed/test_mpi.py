"""MPI itself: the bits of one rank, ranks that die or hang, errors, arrays of any kind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytest.importorskip("mpi4py", reason="mpi4py is not installed")
ROOT = Path(__file__).parent.parent.parent
MPIEXEC = Path(sys.executable).with_name("mpiexec")  # as the package mpich brings it
if not MPIEXEC.exists():
    pytest.skip("mpich is not installed beside this Python", allow_module_level=True)

#: A small run whose rank `DIES` is killed in its 8th update, or stopped, or raises.
TRAINING = """
import os, signal, sys
import numpy as np, rnncore
from rnncore.batches import chunked
from rnncore.distributed import MPICollective, overlap
from rnncore.training import Trainer

overlap.LEAST = 1  # so that buckets go out during backward
how, rank, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
ranks = MPICollective(timeout=1.0)
ids = np.random.default_rng(0).integers(5, size=(60, 8))
model = rnncore.Chain(
    rnncore.Embedding(5, 4, seed=0), rnncore.GRU(4, 8, seed=1), rnncore.Linear(8, 5, seed=2)
)

def batches(rng):
    for at, batch in enumerate(chunked(ids[:-1], ids[1:], 4)):
        if at == 8 and ranks.rank == rank and how == "raise":
            raise KeyError("no such batch")
        if at == 8 and ranks.rank == rank and how.startswith("SIG"):
            os.kill(os.getpid(), getattr(signal, how))
        yield batch

trainer = Trainer(
    model, rnncore.SoftmaxCrossEntropy(), rnncore.Adam(model), batches,
    collective=ranks, shards=4, seed=0,
)
if os.path.exists(path):
    trainer.resume(path)
trainer.fit(15, validate_every=3, checkpoint=path, quiet=True)
if ranks.rank == 0:
    print("parameters", model.flat_params().tobytes().hex())
"""


def start(size, tmp_path, *args, named=True, code=TRAINING, timeout=60):
    """Run code on so many ranks; return how it ended and what it said, within a minute."""
    file = tmp_path / "program.py"
    file.write_text(textwrap.dedent(code), encoding="utf-8")
    module = ["-m", "rnncore.distributed"] if named else []
    process = subprocess.Popen(
        [str(MPIEXEC), "-n", str(size), sys.executable, *module, str(file), *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"RNNCORE_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
    )
    try:
        output, complaints = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise AssertionError(f"hung for {timeout} s: {process.communicate()}") from None
    return process.returncode, output, complaints


def parameters(found):
    code, output, complaints = found
    assert code == 0, complaints
    (line,) = [line for line in output.splitlines() if line.startswith("parameters ")]
    return line


def test_a_killed_rank_is_named_and_the_run_goes_on_with_fewer(tmp_path):
    whole = parameters(start(1, tmp_path, "", -1, tmp_path / "whole"))
    code, _, complaints = start(3, tmp_path, "SIGKILL", 1, tmp_path / "run")
    assert code != 0
    assert "rank 1 died of SIGKILL" in complaints
    assert parameters(start(2, tmp_path, "", -1, tmp_path / "run")) == whole


def test_a_rank_that_hangs_is_named_by_the_others(tmp_path):
    code, _, complaints = start(3, tmp_path, "SIGSTOP", 2, tmp_path / "run", named=False)
    assert code != 0
    assert "RankLost: rank 2 does not answer rank " in complaints
    assert "computes for longer than timeout=1 s" in complaints


def test_an_error_outside_updates_ends_all(tmp_path):
    code, _, complaints = start(2, tmp_path, "raise", 1, tmp_path / "run")
    assert code != 0
    assert "KeyError: 'no such batch'" in complaints


EXCHANGES = """
import numpy as np
from rnncore.distributed import MPICollective
from rnncore.distributed.collective import from_first, gathered

ranks = MPICollective()
for dtype in ("float32", "float64", "int64", "bool", "uint8"):
    for shape in ((), (0,), (3,), (2, 0, 3), (5, 100_000)):
        mine = np.full(shape, ranks.rank % 2, dtype)
        every = ranks.allgather(mine)
        assert every.dtype == dtype and every.shape == (ranks.size, *shape)
        assert all((every[rank] == rank % 2).all() for rank in range(ranks.size))
        for root in range(ranks.size):
            assert (ranks.broadcast(mine, root) == root % 2).all()
        sent = np.arange(ranks.size).reshape(-1, *(1,) * len(shape)) * 10 + ranks.rank
        sent = np.broadcast_to(sent, (ranks.size, *shape)).astype(np.int32)
        found = ranks.alltoall(sent)
        for rank in range(ranks.size):
            assert (found[rank] == 10 * ranks.rank + rank).all()
scattered = np.arange(12.0).reshape(3, 4)[:, ::2]
assert (ranks.allgather(scattered)[0] == scattered).all()
assert gathered(ranks, "a" * ranks.rank) == ["a" * rank for rank in range(ranks.size)]
assert from_first(ranks, ranks.rank) == 0
ranks.barrier()
print(f"rank {ranks.rank} is content")
"""


@pytest.mark.parametrize("size", [1, 3])
def test_arrays_of_any_kind_are_exchanged(tmp_path, size):
    code, output, complaints = start(size, tmp_path, code=EXCHANGES, named=False)
    assert code == 0, complaints
    assert output.count("is content") == size


def test_processors_of_a_machine_are_shared(tmp_path):
    program = """
        import os, rnncore
        from rnncore.distributed import MPICollective
        from unittest import mock
        for name in ("RNNCORE_NUM_THREADS", "OMP_NUM_THREADS"):
            os.environ.pop(name, None)
        rnncore.set_num_threads(6)
        with mock.patch("os.sched_getaffinity", lambda _: set(range(6)), create=True):
            ranks = MPICollective()
        assert rnncore.get_num_threads() == 6 // ranks.size, rnncore.get_num_threads()
        with mock.patch("os.sched_getaffinity", lambda _: {ranks.rank, 7}, create=True):
            rnncore.set_num_threads(2)
            MPICollective()
        assert rnncore.get_num_threads() == (ranks.size + 1) // ranks.size
    """
    for size in (1, 2, 3):
        code, _, complaints = start(size, tmp_path, code=program, named=False)
        assert code == 0, complaints


def test_arguments_are_checked(tmp_path):
    program = """
        from rnncore.distributed import MPICollective
        for timeout in (0, -1):
            try:
                MPICollective(timeout=timeout)
            except ValueError as error:
                assert str(error) == f"timeout must be positive, got {timeout}"
            else:
                raise AssertionError(timeout)
    """
    code, _, complaints = start(1, tmp_path, code=program, named=False)
    assert code == 0, complaints
