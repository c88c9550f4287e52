"""A search of scikit-learn over estimators in workers of joblib and Dask: time and threads.

    python benchmarks/workers.py

The same search runs in one process of one thread, in two processes of joblib (loky), in two of
Dask, and in two that were each told to use all processors, as nothing but the environment keeps
them from. Each time the workers say how many threads rnncore uses there. All find the same scores.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from contextlib import contextmanager
from typing import Any

import numpy as np
import rnncore
from joblib import Parallel, delayed, parallel_config
from rnncore.estimators import SequenceClassifier
from sklearn.model_selection import GridSearchCV


def data(count: int) -> tuple[list[np.ndarray], np.ndarray]:
    rng = np.random.default_rng(0)
    found = [rng.standard_normal((n, 8), dtype=np.float32) for n in rng.integers(40, 80, count)]
    return found, np.array([int(x[:, 0].sum() > 0) for x in found])


def threads_after_a_while() -> int:
    time.sleep(0.2)  # so that every worker gets a task
    return rnncore.get_num_threads()


def search(args: argparse.Namespace) -> tuple[float, list[float], list[int]]:
    """Return the seconds of a search, its scores, and the threads of its workers."""
    x, y = data(args.sequences)
    model = SequenceClassifier(hidden_size=64, max_iter=args.passes, random_state=0)
    grid = GridSearchCV(model, {"hidden_size": [48, 64], "learning_rate": [1e-3, 3e-3]}, cv=3)
    threads = Parallel()(delayed(threads_after_a_while)() for _ in range(4))
    began = time.perf_counter()
    grid.fit(x, y)
    taken = time.perf_counter() - began
    return taken, grid.cv_results_["mean_test_score"].tolist(), sorted(set(threads))


@contextmanager
def alone(jobs: int) -> Any:
    with parallel_config("sequential"):
        yield


@contextmanager
def loky(jobs: int) -> Any:
    with parallel_config("loky", n_jobs=jobs):
        yield


@contextmanager
def told_too_many(jobs: int) -> Any:
    from joblib.externals.loky import get_reusable_executor

    get_reusable_executor().shutdown(wait=True)  # workers keep what their environment was
    with parallel_config("loky", n_jobs=jobs, inner_max_num_threads=os.cpu_count()):
        yield


@contextmanager
def dask(jobs: int) -> Any:
    from distributed import Client

    with (
        Client(n_workers=jobs, threads_per_worker=1, dashboard_address=None),
        parallel_config("dask", wait_for_workers_timeout=60),
    ):
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--sequences", type=int, default=600)
    parser.add_argument("--passes", type=int, default=20)
    args = parser.parse_args()
    rnncore.set_num_threads(1)
    warnings.simplefilter("ignore")  # searches that end before they converge
    found = {}
    for backend in (alone, loky, dask, told_too_many):
        with backend(args.jobs):
            taken, scores, threads = search(args)
        found[backend.__name__] = taken, scores, threads
        print(f"{backend.__name__}: {taken:.2f} s, threads of a worker {threads}", flush=True)
    equal = all(scores == found["alone"][1] for _, scores, _ in found.values())
    processors = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    )
    fits = all(args.jobs * max(found[name][2]) <= processors for name in ("loky", "dask"))
    speeds = " ".join(f"{n}={found['alone'][0] / found[n][0]:.2f}" for n in list(found)[1:])
    print(f"result: equal={int(equal)} within_processors={int(fits)} {speeds}")


if __name__ == "__main__":
    main()
