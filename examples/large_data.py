"""A model answers for many sequences, on all processors of a machine or of a cluster.

    python examples/large_data.py --engines joblib futures dask

Each engine cuts the data and runs `answer` in workers. The model reaches a worker once, not with
each piece of data: from a file, or sent when the worker starts. A worker computes on one thread, as
there are as many workers as processors: joblib's and Dask's set OMP_NUM_THREADS, which rnncore
heeds; those of concurrent.futures are told. The last line says how many times as fast each engine
was as a loop in one process, all of them with the same answers.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rnncore
from rnncore.batches import padded

Sequences = list[np.ndarray]


def answer(model: Any, sequences: Sequences) -> np.ndarray:
    """Return the class of each sequence (T, 8)."""
    x, lengths = padded(sequences)
    logits, _ = model(x, lengths=lengths)
    return logits.argmax(axis=-1)


def answer_by(path: str, sequences: Sequences) -> np.ndarray:
    """Return the classes by the model of a file, which each process reads once."""
    return answer(rnncore.load_once(path), sequences)


def on_joblib(path: str, pieces: list[Sequences], jobs: int) -> list[np.ndarray]:
    from joblib import Parallel, delayed

    return Parallel(n_jobs=jobs)(delayed(answer_by)(path, piece) for piece in pieces)


_model: Any = None


def begin(model: Any) -> None:
    """Start a worker: with its model, and on one thread."""
    global _model
    _model = model
    rnncore.set_num_threads(1)


def answer_here(sequences: Sequences) -> np.ndarray:
    return answer(_model, sequences)


def on_futures(path: str, pieces: list[Sequences], jobs: int) -> list[np.ndarray]:
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    model, spawn = rnncore.load(path), get_context("spawn")
    with ProcessPoolExecutor(jobs, spawn, initializer=begin, initargs=(model,)) as pool:
        return list(pool.map(answer_here, pieces))


def answer_pieces(pieces: Iterable[Sequences], model: Any) -> list[np.ndarray]:
    return [answer(model, piece) for piece in pieces]


def on_dask(path: str, pieces: list[Sequences], jobs: int) -> list[np.ndarray]:
    from dask import bag
    from distributed import Client

    with Client(n_workers=jobs, threads_per_worker=1, dashboard_address=None) as client:
        model = client.scatter(rnncore.load(path), broadcast=True)  # once to each worker
        data = bag.from_delayed(client.scatter([[piece] for piece in pieces]))
        return data.map_partitions(answer_pieces, model=model).compute()


def answer_frames(frames: Iterable[Any], path: str) -> Iterator[Any]:
    """Take and give data frames of pandas, as Spark's mapInPandas does: `sequence` to `answer`."""
    model = rnncore.load_once(path)
    for frame in frames:
        rows = [np.asarray(row, np.float32).reshape(-1, 8) for row in frame["sequence"]]
        yield frame[["number"]].assign(answer=answer(model, rows))


def on_spark(path: str, pieces: list[Sequences], jobs: int) -> list[np.ndarray]:
    from pyspark.sql import SparkSession

    session = SparkSession.builder.master(f"local[{jobs}]")
    spark = session.config("spark.executorEnv.OMP_NUM_THREADS", "1").getOrCreate()
    rows = enumerate(sequence for piece in pieces for sequence in piece)
    data = [(number, sequence.ravel().tolist()) for number, sequence in rows]
    frame = spark.createDataFrame(data, "number long, sequence array<float>").repartition(jobs)
    answers = frame.mapInPandas(partial(answer_frames, path=path), "number long, answer long")
    found = answers.toPandas().sort_values("number")["answer"].to_numpy()
    ends = np.cumsum([len(piece) for piece in pieces])[:-1]
    return np.split(found, ends)


ENGINES = {"joblib": on_joblib, "futures": on_futures, "dask": on_dask, "spark": on_spark}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=["joblib", "futures"])
    parser.add_argument("--sequences", type=int, default=20_000)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="few sequences, for tests")
    args = parser.parse_args()
    if args.quick:
        args.sequences, args.hidden = 200, 16
    rng = np.random.default_rng(0)
    lengths = rng.integers(20, 200, args.sequences)
    data = [rng.standard_normal((length, 8), dtype=np.float32) for length in lengths]
    pieces = [data[at : at + 100] for at in range(0, len(data), 100)]
    model = rnncore.Chain(
        rnncore.Readout(rnncore.LSTM(8, args.hidden, seed=0), "last"),
        rnncore.Linear(args.hidden, 5, seed=1),
    )
    rnncore.set_num_threads(1)
    began = time.perf_counter()
    expected = answer_pieces(pieces, model)
    alone = time.perf_counter() - began
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "model.safetensors")
        model.save(path)
        times = {}
        for name in args.engines:
            began = time.perf_counter()
            found = ENGINES[name](path, pieces, args.jobs)
            times[name] = time.perf_counter() - began
            assert all(map(np.array_equal, found, expected)), name
            print(f"{name}: {times[name]:.2f} s with its start, one process {alone:.2f} s")
    print("result: " + " ".join(f"{name}={alone / taken:.2f}" for name, taken in times.items()))


if __name__ == "__main__":
    main()
