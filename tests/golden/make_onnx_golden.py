"""Make `onnxruntime.npz`: what ONNX Runtime computes for the nodes of `support/onnx_graphs.py`.

    pip install onnx onnxruntime==1.32.0 numpy pytest
    python -m tests.golden.make_onnx_golden

The outputs of a case are `CASE/0`, `CASE/1`, ...; its inputs are drawn as `tests/conftest.py` does.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime

from tests.support.onnx_graphs import CASES, arguments, recurrent, run_by_runtime

VERSION = "1.32.0"
FILE = Path(__file__).with_name("onnxruntime.npz")


def main() -> None:
    """Write the file."""
    if onnxruntime.__version__ != VERSION:
        raise SystemExit(f"the golden file is made with onnxruntime {VERSION}")
    arrays = {"onnxruntime_version": np.asarray(VERSION)}
    for case in CASES:
        attributes, options = arguments(*case)
        rng = np.random.default_rng(20140603)
        proto, inputs = recurrent(rng, case[0], attributes, **options)
        for at, output in enumerate(run_by_runtime(proto, inputs)):
            arrays["-".join(map(str, case)) + f"/{at}"] = output
    np.savez_compressed(FILE, **arrays)


if __name__ == "__main__":
    main()
