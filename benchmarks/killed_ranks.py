"""Kills ranks of a training run at random moments, and resumes it with other numbers of ranks.

    python benchmarks/killed_ranks.py --text input.txt --kills 20

Each time `examples/data_parallel.py` is started under mpiexec with 2 to 4 ranks, and one of them is
killed (SIGKILL) between its first step and its last. Then all other processes must end by
themselves within `--limit` seconds, an error must name the rank, the checkpoint must be whole, and
the run resumed from it must end with the parameters of one that nobody disturbed, to the bit.

With `--launcher named` the ranks are started by `python -m rnncore.distributed`, with `plain` by
mpiexec alone, which ends all ranks as well, but says only which process it was.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from rnncore.arrays import load_arrays

EXAMPLE = Path(__file__).parent.parent / "examples" / "data_parallel.py"
SIZES = ("--hidden=48", "--layers=2", "--batch=32", "--length=25", "--validate-every=5")


class Run(NamedTuple):
    """How a run ended: which rank was killed after how many seconds, and how long the rest took."""

    code: int
    said: str
    killed: int | None = None
    after: float = 0.0
    rest: float = 0.0


def command_for(launcher: str, ranks: int) -> list[str]:
    beside = Path(sys.executable).with_name("mpiexec")
    command = [str(beside) if beside.exists() else "mpiexec", "-n", str(ranks), sys.executable]
    return command + ["-m", "rnncore.distributed"] * (launcher == "named") + [str(EXAMPLE)]


def run(args: argparse.Namespace, ranks: int, folder: Path, kill: random.Random | None) -> Run:
    """Train with so many ranks, from the folder's checkpoint if there is one."""
    command = [
        *command_for(args.launcher, ranks),
        f"--text={args.text}",
        *SIZES,
        f"--steps={args.steps}",
        "--say-processes",
    ]
    command += [f"--checkpoint={folder / 'run'}", f"--out={folder / 'out.json'}", "--threads=1"]
    command += [f"--timeout={args.timeout}"]
    one = dict.fromkeys(("RNNCORE_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    with subprocess.Popen(
        command,
        env=os.environ | one,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        lines, processes = [], {}
        while len(processes) < ranks and (line := process.stdout.readline()):
            lines.append(line)
            for rank, number in re.findall(r"rank (\d+) is process (\d+)", line):
                processes[int(rank)] = int(number)
        killed, after, began = None, 0.0, time.perf_counter()
        if kill is not None and processes:
            killed, after = kill.randrange(ranks), kill.uniform(0.1, args.duration)
            time.sleep(after)
            if process.poll() is None:
                os.kill(processes[killed], signal.SIGKILL)
            began = time.perf_counter()
        try:
            rest, _ = process.communicate(timeout=args.limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            rest, _ = process.communicate()
            raise SystemExit(f"hung for {args.limit} s\n{''.join(lines)}{rest}") from None
    return Run(
        process.returncode, "".join(lines) + rest, killed, after, time.perf_counter() - began
    )


def parameters(folder: Path) -> str:
    return str(json.loads((folder / "out.json").read_text())["parameters"])


def trial(args: argparse.Namespace, rng: random.Random, whole: str) -> Run | None:
    """Kill a rank, look at the checkpoint, resume; None where the run had ended before."""
    with tempfile.TemporaryDirectory() as name:
        folder, ranks = Path(name), rng.choice((2, 3, 4))
        found = run(args, ranks, folder, rng)
        if (folder / "out.json").exists():
            return None
        step = 0
        if (folder / "run").exists():
            step = load_arrays(folder / "run")[1]["run"]["progress"]["step"]
        others = rng.choice([n for n in (1, 2, 4) if n != ranks])
        resumed = run(args, others, folder, None)
        assert resumed.code == 0, resumed.said
        equal = parameters(folder) == whole
        named = f"rank {found.killed} died of SIGKILL" in found.said
        print(
            f"rank {found.killed} of {ranks} killed after {found.after:.2f} s, the others ended "
            f"after {found.rest:.2f} s{', naming it' if named else ''}; checkpoint of step {step}, "
            f"resumed with {others}: {'equal to the bit' if equal else 'NOT EQUAL'}",
            flush=True,
        )
        assert equal
        assert named or args.launcher != "named", found.said
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--timeout", type=float, default=10.0, help="of the collective, in seconds")
    parser.add_argument("--limit", type=float, default=30.0, help="seconds until a run has hung")
    parser.add_argument("--launcher", choices=("named", "plain"), default="named")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng, ends = random.Random(args.seed), []
    with tempfile.TemporaryDirectory() as name:
        undisturbed = run(args, 2, Path(name), None)
        assert undisturbed.code == 0, undisturbed.said
        args.duration, whole = undisturbed.rest, parameters(Path(name))
    while len(ends) < args.kills:
        found = trial(args, rng, whole)
        if found is not None:
            ends.append(found.rest)
    print(f"result: kills={len(ends)} hung=0 longest={max(ends):.2f} equal={len(ends)}")


if __name__ == "__main__":
    main()
