"""`rnncore.torch` beside torch's threads, in its workers and under DistributedDataParallel."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import rnncore
import rnncore.torch as inside
import torch.distributed as dist
import torch.multiprocessing as mp

from tests.support.processes import run_python

needs_gloo = pytest.mark.skipif(
    not (dist.is_available() and dist.is_gloo_available()), reason="torch has no gloo"
)


def layer() -> Any:
    torch.manual_seed(0)
    return inside.GRU(6, 64)


def sequences() -> Any:
    return torch.randn(20, 32, 6, generator=torch.Generator().manual_seed(1))


class Encoded(torch.utils.data.Dataset):  # type: ignore[misc,type-arg]
    """What a layer makes of some sequences, computed by whoever asks."""

    def __init__(self, model: Any) -> None:
        self.model, self.x = model, sequences()

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Any:
        with torch.no_grad():
            return self.model(self.x[:, 4 * index : 4 * index + 4])[0]


def test_threads_are_those_of_torch() -> None:
    model, x, before = layer(), sequences(), (torch.get_num_threads(), rnncore.get_num_threads())
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            model(x)
            assert rnncore.get_num_threads() == count
        rnncore.set_num_threads(1)  # asked for since
        model(x)
        assert rnncore.get_num_threads() == 1
    finally:
        torch.set_num_threads(before[0])
        model(x)
        rnncore.set_num_threads(before[1])


@pytest.mark.skipif(sys.platform != "linux", reason="torch has GCC's OpenMP on Linux alone")
class TestSharedThreads:
    """rnncore's calls run on torch's threads."""

    def test_any_number_computes_the_same(self) -> None:
        assert inside.share_threads()
        before, found = torch.get_num_threads(), []
        try:
            for count in (1, 2, 3):
                torch.set_num_threads(count)
                for model, x in ((layer(), sequences()), (inside.LSTM(6, 300), sequences()[:, :1])):
                    torch.manual_seed(0)
                    model.reset_parameters()
                    y, _ = model(x)
                    y.square().sum().backward()
                    found.append([y.detach(), *(p.grad for p in model.parameters())])
        finally:
            torch.set_num_threads(before)
        for other in (2, 4):
            for got, want in zip(found[other] + found[other + 1], found[0] + found[1], strict=True):
                assert torch.equal(got, want)

    def test_no_threads_of_our_own_are_started(self) -> None:
        code = """
            import os, torch, rnncore.torch
            torch.set_num_threads(3)
            layer, x = rnncore.torch.GRU(64, 256), torch.randn(50, 32, 64)
            torch.randn(600, 600) @ torch.randn(600, 600)  # torch's start
            torch.randn(2000, 2000).exp()
            before = len(os.listdir("/proc/self/task"))
            layer(x)
            assert len(os.listdir("/proc/self/task")) <= before
        """
        run_python(code, OPENBLAS_NUM_THREADS="1")

    @pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
    def test_a_forked_child_computes_on(self) -> None:
        model, x = layer(), sequences()
        with torch.no_grad():
            want = model(x)[0]
        child = os.fork()
        if not child:
            with torch.no_grad():
                # By NumPy: torch's own parallel loops wait for threads that a child has not.
                same = np.array_equal(model(x)[0].numpy(), want.numpy())
            os._exit(0 if same else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("start", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_workers_of_a_loader(start: str) -> None:
    data = Encoded(layer())
    want = data.model(data.x)[0]  # threads have been started
    loader = torch.utils.data.DataLoader(
        data, batch_size=None, num_workers=2, multiprocessing_context=start
    )
    assert torch.equal(torch.cat(list(loader), dim=1), want)


def _train(rank: int, count: int, port: int, folder: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=count)
    model = torch.nn.parallel.DistributedDataParallel(layer())
    x = sequences().chunk(count, dim=1)[rank]
    model(x)[0].square().mean().backward()
    torch.save([p.grad for p in model.parameters()], Path(folder, f"{rank}.pt"))
    dist.barrier()
    dist.destroy_process_group()
    # A thread of gloo's may still drop work, and asks for the GIL to do so. Where the interpreter
    # ends meanwhile, torch 2.13 aborts (~AsyncWork, ~ThreadLocalState).
    os._exit(0)


@needs_gloo
def test_two_processes_have_the_gradients_of_one(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(_train, (2, port, str(tmp_path)), nprocs=2)
    model = layer()
    model(sequences())[0].square().mean().backward()
    for rank in range(2):
        for got, p in zip(torch.load(tmp_path / f"{rank}.pt"), model.parameters(), strict=True):
            torch.testing.assert_close(got, p.grad)


def _double(model: Any) -> None:
    with torch.no_grad():
        model.weight_hh_l0.mul_(2)


def test_weights_in_shared_memory() -> None:
    model = layer().share_memory()
    x = sequences()
    before = model(x)[0]
    process = mp.get_context("spawn").Process(target=_double, args=(model,))
    process.start()
    process.join()
    assert process.exitcode == 0
    after = model(x)[0]
    assert not torch.equal(before, after)
    theirs = torch.nn.GRU(6, 64)
    theirs.load_state_dict(model.state_dict())
    torch.testing.assert_close(after, theirs(x)[0])
