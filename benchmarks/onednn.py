"""oneDNN among the contestants: builds `onednn_rnn.cpp`, and translates to and from its layout."""

from __future__ import annotations

import subprocess
import tempfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
from rnncore.arrays import Array
from rnncore.commands.measure.cases import GATES, Case
from rnncore.commands.measure.contest import Contestant, Entry
from rnncore.commands.measure.engines import Unsupported
from rnncore.commands.measure.machine import compiler

SOURCE = Path(__file__).with_name("onednn_rnn.cpp")
PROGRAM = SOURCE.parent / "build" / "onednn_rnn"

#: torch's gates in oneDNN's order.
ORDER = {"lstm": [0, 1, 2, 3], "gru": [1, 0, 2], "rnn": [0]}
#: Which cells it computes with weights of fewer bits; int8 not for the GRU that is torch's.
HELD = {"int8": ("lstm",), "bfloat16": ("lstm", "gru", "rnn")}


def installed() -> bool:
    """Whether the packages and a compiler are there."""
    return None not in (_find("dnnl.hpp"), _find("libdnnl.so"), compiler())


def _find(name: str) -> Path | None:
    """Return where the packages keep a file."""
    for package in ("onednn-devel-cpu-gomp", "onednn-cpu-gomp"):
        try:
            files = distribution(package).files or []
        except PackageNotFoundError:
            continue
        for file in files:
            if file.name == name:
                return Path(file.locate()).resolve()
    return None


def build() -> Path:
    """Compile the program if it is not up to date, and return it."""
    header, library, cxx = _find("dnnl.hpp"), _find("libdnnl.so"), compiler()
    if header is None or library is None or cxx is None:
        needs = "a C++ compiler and pip install onednn-cpu-gomp onednn-devel-cpu-gomp"
        raise ImportError(f"measuring oneDNN needs {needs}")
    if not PROGRAM.exists() or PROGRAM.stat().st_mtime < SOURCE.stat().st_mtime:
        PROGRAM.parent.mkdir(exist_ok=True)
        flags = ["-O2", "-std=c++17", f"-I{header.parent}", f"-Wl,-rpath,{library.parent}"]
        subprocess.run([cxx, *flags, str(SOURCE), str(library), "-o", str(PROGRAM)], check=True)
    return PROGRAM


class OneDNN(Contestant):
    """oneDNN's own process, in C++: nothing of Python is in its times."""

    def __init__(self, entry: Entry) -> None:
        super().__init__(entry, [str(build())])

    def load(self, case: Case) -> None:
        """Hand it the numbers in its own order, in a file."""
        shape = case.shape
        if shape.lengths is not None or self.entry.dtype != "float32":
            raise Unsupported(f"{self.entry}: whole batches in float32 only")
        weights = self.entry.weights or ""
        if weights and (case.training or case.cell not in HELD.get(weights, ())):
            raise Unsupported(f"{self.entry}: no {weights} weights for {case.cell} {case.mode}")
        self.case = case
        with tempfile.NamedTemporaryFile(suffix=".bin") as file:
            for array in (*case.arrays(), *_from_torch(case)):
                array.tofile(file)
            file.flush()
            sizes = (shape.steps, shape.batch, shape.inputs, shape.hidden)
            self.ask("case", case.cell, case.mode, *sizes, file.name, weights)

    def results(self) -> dict[str, Array]:
        """Return what the case comes to, by name, in torch's layout."""
        with tempfile.NamedTemporaryFile(suffix=".bin") as file:
            self.ask("save", file.name)
            values = np.fromfile(file.name, np.float32)
        shapes = self._shapes()
        pieces = np.split(values, np.cumsum([np.prod(shape) for shape in shapes.values()])[:-1])
        named = {
            name: piece.reshape(shape)
            for (name, shape), piece in zip(shapes.items(), pieces, strict=True)
        }
        return _to_torch(self.case, named)

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """Return what its file of results holds."""
        s, gates = self.case.shape, GATES[self.case.cell]
        state = (1, s.batch, s.hidden)
        has_c = self.case.cell == "lstm"
        shapes = {"y": (s.steps, s.batch, s.hidden), "h": state, **({"c": state} if has_c else {})}
        if not self.case.training:
            return shapes
        biases = 4 if self.case.cell == "gru" else gates
        return {
            **shapes,
            "dx": (s.steps, s.batch, s.inputs),
            "dh": state,
            **({"dc": state} if has_c else {}),
            "weight_ih_l0": (s.inputs, gates, s.hidden),
            "weight_hh_l0": (s.hidden, gates, s.hidden),
            "bias": (biases, s.hidden),
        }


def _from_torch(case: Case) -> list[Array]:
    """Return both weights as (inputs, gates, H), and the bias: one a gate, and a GRU's fourth."""
    params, order = case.params(), ORDER[case.cell]

    def gates(name: str) -> Array:
        param = params[f"{name}_l0"]
        return param.reshape(len(order), case.shape.hidden, *param.shape[1:])[order]

    weights = [
        np.ascontiguousarray(gates(f"weight_{side}").transpose(2, 0, 1)) for side in ("ih", "hh")
    ]
    own, recurrent = gates("bias_ih"), gates("bias_hh")
    if case.cell == "gru":  # the candidate's recurrent bias is inside the reset
        return [*weights, np.concatenate([own[:2] + recurrent[:2], own[2:], recurrent[2:]])]
    return [*weights, own + recurrent]


def _to_torch(case: Case, named: dict[str, Array]) -> dict[str, Array]:
    """Undo `_from_torch` for gradients."""
    if not case.training:
        return named
    back = np.argsort(ORDER[case.cell])
    for name in ("weight_ih_l0", "weight_hh_l0"):
        gates = named[name].transpose(1, 2, 0)[back]
        named[name] = gates.reshape(-1, gates.shape[-1])
    bias = named.pop("bias")
    sides = {"bias_ih_l0": bias[: len(back)], "bias_hh_l0": bias[: len(back)]}
    if case.cell == "gru":
        sides["bias_hh_l0"] = bias[[0, 1, 3]]
    return named | {name: side[back].reshape(-1) for name, side in sides.items()}
