"""What all tests share: helpers whose assertions explain themselves, and one way to be random.

With pytest-xdist, folders of tests are shared out to one worker for each processor. Files and
single tests run in one process, as do all with -n0, --pdb, -s, --cov, or without pytest-xdist.
"""

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from rnncore import get_num_threads, set_num_threads

pytest.register_assert_rewrite("tests.support")

hypothesis.settings.register_profile("rnncore", deadline=None, derandomize=True)
hypothesis.settings.load_profile("rnncore")


#: The most workers: each imports and collects all tests for itself.
MOST_WORKERS = 8


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Choose the number of workers, before pytest-xdist makes them."""
    if not config.pluginmanager.hasplugin("xdist") or "PYTEST_XDIST_WORKER" in os.environ:
        return
    option = config.option
    told = option.numprocesses is not None or option.dist != "no" or option.tx
    watched = option.usepdb or option.trace or option.capture == "no" or option.collectonly
    watched = watched or getattr(option, "cov_source", None)  # pytest-cov has begun for one process
    workers = min(get_num_threads(), MOST_WORKERS)  # by affinity and the container's quota
    if not (told or watched) and workers > 1 and all(Path(arg).is_dir() for arg in config.args):
        # A worker goes on where another is slow; tests with a module's fixtures stay together.
        option.numprocesses, option.dist = workers, "worksteal"
    if option.numprocesses:
        # The processors are taken: libraries of others are to start no threads for each worker.
        for library in ("OPENBLAS", "MKL", "OMP"):
            os.environ.setdefault(f"{library}_NUM_THREADS", "1")
        os.environ.setdefault("RNNCORE_NUM_THREADS", "2")  # which are tested, not only one


def pytest_collection_finish() -> None:
    """All that was imported and collected stays: no later garbage collection need walk it."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20140603)


@pytest.fixture
def set_threads() -> Iterator[Callable[[int], None]]:
    """Choose the number of threads; after the test it is what it was."""
    before = get_num_threads()
    yield set_num_threads
    set_num_threads(before)
