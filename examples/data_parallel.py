"""A character model trained by 1, 2 and 4 processes: the same bits, in less time.

    python examples/data_parallel.py --text input.txt     # starts itself under mpiexec
    mpiexec -n 4 python examples/data_parallel.py --text input.txt --threads 1

Every rank reads the same text and makes the same model. A batch is cut into eight shards, which the
ranks share; gradients are added up in the order of the shards, whoever computed them. The last line
says whether losses and parameters of all runs are equal to the bit, and how many times as fast two
ranks of one thread are as one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import rnncore
from rnncore.distributed import MPICollective
from rnncore.distributed.__main__ import RANKS
from rnncore.text import CharConfig, CharModel, Vocabulary, split, streams
from rnncore.training import Trainer, evaluate


def train(args: argparse.Namespace) -> dict[str, Any]:
    """Train as one rank of those that mpiexec has started; return what became of it."""
    ranks = MPICollective(timeout=args.timeout)
    if args.threads:
        rnncore.set_num_threads(args.threads)
    if args.say_processes:
        print(f"rank {ranks.rank} is process {os.getpid()}", flush=True)
    text = args.text.read_text(encoding="utf-8")
    vocabulary = Vocabulary.of(text)
    learn, held_out = (vocabulary.encode(part) for part in split(text))
    model = CharModel(
        vocabulary, CharConfig("lstm", args.hidden, layers=args.layers, dropout=0.1), seed=0
    )
    loss = rnncore.SoftmaxCrossEntropy()
    valid = streams(held_out[: args.batch * args.length * 4], args.batch, args.length)
    trainer = Trainer(
        model,
        loss,
        rnncore.Adam(model, 2e-3),
        streams(learn, args.batch, args.length),
        validate=lambda: evaluate(model, loss, valid, collective=ranks, shards=8),
        clip_norm=1.0,
        seed=0,
        collective=ranks,
        shards=8,
    )
    if args.checkpoint and args.checkpoint.exists():
        trainer.resume(args.checkpoint)
    trainer.fit(args.steps, validate_every=args.validate_every, checkpoint=args.checkpoint)
    numbers = b"".join(array.tobytes() for array in model.stored.values())
    losses = [[r["step"], r["train_loss"], r["validation_loss"]] for r in trainer.history]
    found = {
        "ranks": ranks.size,
        "losses": losses,
        "parameters": hashlib.sha256(numbers).hexdigest(),
        "targets_per_second": trainer.targets_per_second,
    }
    if ranks.rank == 0 and args.out:
        args.out.write_text(json.dumps(found))
    if ranks.rank == 0:
        print(
            f"{ranks.size} ranks of {rnncore.get_num_threads()} threads: "
            f"train {losses[-1][1]:.6f}, validation {losses[-1][2]:.6f}, "
            f"{found['targets_per_second']:,.0f} characters/s, parameters "
            f"{found['parameters'][:16]}"
        )
    return found


def started(ranks: int, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run this file under mpiexec; return what rank 0 has found."""
    out = folder / f"{ranks}.json"
    own = [f"--{name}={getattr(args, name)}" for name in ("text", "hidden", "layers", "batch")]
    own += [f"--length={args.length}", f"--steps={args.steps}", f"--timeout={args.timeout}"]
    own += [f"--validate-every={args.validate_every}", "--threads=1", f"--out={out}"]
    command = [args.mpiexec, "-n", str(ranks), sys.executable, "-m", "rnncore.distributed"]
    command += [__file__, *own]
    one = dict.fromkeys(("RNNCORE_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    subprocess.run(command, check=True, env=os.environ | one)
    found: dict[str, Any] = json.loads(out.read_text())
    assert found["ranks"] == ranks, f"{args.mpiexec} is not of the MPI that mpi4py uses"
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--length", type=int, default=100)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--validate-every", type=int, default=4)
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds, of a lost rank")
    parser.add_argument("--threads", type=int, help="of each rank; else processors are shared")
    parser.add_argument("--checkpoint", type=Path, help="written, and resumed from if it is there")
    parser.add_argument("--out", type=Path, help="what rank 0 has found, as JSON")
    parser.add_argument("--repeats", type=int, default=2, help="how often speed is measured")
    parser.add_argument("--mpiexec", default=default_mpiexec())
    parser.add_argument("--say-processes", action="store_true")
    parser.add_argument("--quick", action="store_true", help="a small model, for tests")
    args = parser.parse_args()
    if args.quick:
        args.hidden, args.layers, args.batch, args.length = 24, 2, 16, 10
        args.steps, args.validate_every, args.repeats = 6, 3, 1
    if any(name in os.environ for name in RANKS):
        train(args)
        return
    with tempfile.TemporaryDirectory() as folder:
        order = [1, 2] * args.repeats + [4]
        runs = [started(ranks, args, Path(folder)) for ranks in order]
    equal = all(run[key] == runs[0][key] for run in runs for key in ("losses", "parameters"))
    rate = {n: max(r["targets_per_second"] for r in runs if r["ranks"] == n) for n in set(order)}
    print(f"result: bits_equal={int(equal)} speedup={rate[2] / rate[1]:.2f}")


def default_mpiexec() -> str:
    """The launcher beside this Python, as the package mpich brings it, or the system's."""
    beside = Path(sys.executable).with_name("mpiexec")
    return str(beside) if beside.exists() else "mpiexec"


if __name__ == "__main__":
    main()
