"""Models that people ship, read as they are, beside ONNX Runtime: one frame or one image at a time.

python benchmarks/published_models.py --models FOLDER     # where their packages are unpacked
python benchmarks/published_models.py                     # those that are installed
python benchmarks/published_models.py --quick             # does it work?

    pip install --no-deps --target FOLDER silero-vad==6.2.3 ddddocr==1.6.1 \\
        captcha-whisperer==0.1.0 dksplit==1.0.2

For each ONNX file `from_onnx(path).run(...)` and ONNX Runtime, one thread, in turns; the medians of
the rounds' times and of their ratios, and the largest difference of an output, relative to its
largest number. Then the 16 kHz models of silero-vad as streams, `graph.stream(...).step(chunk)`,
beside ONNX Runtime called with the states by hand.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("RNNCORE_NUM_THREADS", "1")

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import rnncore
from rnncore.commands.measure.report import duration, table
from rnncore.commands.measure.timing import ratio, time_call
from tqdm import tqdm

RNG = np.random.default_rng(0)
Feed = dict[str, np.ndarray]


class Published(NamedTuple):
    """A file of a package, what it is called with, and which inputs are states of its stream."""

    package: str
    path: str
    feed: Callable[[], Feed]
    states: Mapping[str, str] = MappingProxyType({})


def floats(*shape: int, scale: float = 1.0) -> np.ndarray:
    return (scale * RNG.standard_normal(shape)).astype(np.float32)


def chunk(rate: bool) -> Feed:
    """A chunk of 32 ms at 16 kHz with what came before it."""
    feed = {"input": floats(1, 576, scale=0.1), "state": floats(2, 1, 128, scale=0.3)}
    return feed | ({"sr": np.array(16000)} if rate else {})


def chunks() -> Feed:
    return {"input": floats(1, 576, scale=0.1)} | {n: floats(1, 1, 128) for n in ("h", "c")}


def image(name: str, *shape: int) -> Callable[[], Feed]:
    return lambda: {name: RNG.random(shape, dtype=np.float32)}


STATE = {"state": "stateN"}
PUBLISHED = [
    Published("silero_vad", "data/silero_vad.onnx", lambda: chunk(True), STATE),
    Published("silero_vad", "data/silero_vad_half.onnx", lambda: chunk(False), STATE),
    Published("silero_vad", "data/silero_vad_16k_op15.onnx", lambda: chunk(True), STATE),
    Published("silero_vad", "data/silero_vad_openvino_16k.onnx", lambda: chunk(False), STATE),
    Published("silero_vad", "data/silero_vad_op18_ifless.onnx", lambda: chunk(True), STATE),
    Published("silero_vad", "data/silero_vad_16k_sequence.onnx", chunks, {"h": "hn", "c": "cn"}),
    Published("ddddocr", "common.onnx", image("input1", 1, 1, 64, 176)),
    Published("ddddocr", "common_old.onnx", image("input1", 1, 1, 64, 176)),
    Published("captcha_whisperer", "models/captcha_crnn.onnx", image("image", 1, 3, 60, 160)),
    Published(
        "dksplit", "models/dksplit-int8.onnx", lambda: {"chars": RNG.integers(0, 30, (1, 20))}
    ),
]


def place(entry: Published, folder: Path | None) -> Path | None:
    """Where a file is; None where its package is not."""
    spec = None if folder else find_spec(entry.package)
    found = (spec.submodule_search_locations or []) if spec else []
    roots = [folder / entry.package] if folder else [Path(root) for root in found]
    return next((root / entry.path for root in roots if (root / entry.path).is_file()), None)


def session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def off(mine: tuple[np.ndarray, ...], theirs: list[np.ndarray]) -> float:
    """The largest difference, relative to the largest number of its output."""
    both = zip(mine, theirs, strict=True)
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in both)


def compared(ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int) -> list[str]:
    """Median times of both, and how many times as long theirs takes."""
    times = [(time_call(ours), time_call(theirs)) for _ in range(rounds)]
    own, other = zip(*times, strict=True)
    return [duration(median(own)), duration(median(other)), f"{ratio(other, own):.2f}"]


def run_rows(entry: Published, path: Path, rounds: int) -> list[str]:
    model, runtime, feed = rnncore.convert.from_onnx(path), session(path), entry.feed()
    error = off(model.run(**feed), runtime.run(None, feed))
    row = compared(lambda: model.run(**feed), lambda: runtime.run(None, feed), rounds)
    return [f"{entry.package} {path.name}", *row, f"{error:.1e}"]


def stream_rows(entry: Published, path: Path, rounds: int) -> list[str]:
    model, runtime, feed = rnncore.convert.from_onnx(path), session(path), entry.feed()
    fixed = {name: value for name, value in feed.items() if name == "sr"}
    stream = model.stream(entry.states, **fixed)
    stream.state = {name: feed[name] for name in entry.states}
    held = dict(feed)

    def step() -> Any:
        results = dict(zip(model.outputs, runtime.run(None, held), strict=True))
        held.update({before: results[after] for before, after in entry.states.items()})
        return results[stream.outputs[0]]

    error = max(off((stream.step(feed["input"]),), [step()]) for _ in range(8))
    row = compared(lambda: stream.step(feed["input"]), step, rounds)
    return [f"{path.name}, as a stream", *row, f"{error:.1e}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, help="a folder of unpacked packages")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="one round")
    options = parser.parse_args()
    rounds = 1 if options.quick else options.rounds
    found = [(entry, place(entry, options.models)) for entry in PUBLISHED]
    works = [(run_rows, entry, path) for entry, path in found if path]
    works += [(stream_rows, entry, path) for entry, path in found if path and entry.states]
    rows = [of(entry, path, rounds) for of, entry, path in tqdm(works, disable=None)]
    for entry, path in found:
        if not path:
            print(f"not there: {entry.package}/{entry.path}")
    if rows:
        print(table(["model", "ours", "ONNX Runtime", "theirs / ours", "off"], rows))


if __name__ == "__main__":
    main()
