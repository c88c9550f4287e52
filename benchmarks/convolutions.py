"""Convolutions of published models, one by one, beside ONNX Runtime: one image, one thread.

python benchmarks/convolutions.py
python benchmarks/convolutions.py --quick       # does it work?

The shapes are those of ddddocr's and captcha-whisperer's models (images of 64 x 176 and 60 x 160)
and of silero-vad's at 16 kHz. Each is a graph of one node: ONNX Runtime takes and returns channels
first, and may order them in blocks in between; ours last. In turns; medians of the rounds' times
and of their ratios.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("RNNCORE_NUM_THREADS", "1")

from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import rnncore
from rnncore.commands.measure.report import duration, table
from rnncore.commands.measure.timing import geometric_mean, ratio, time_call
from tqdm import tqdm


class Shape(NamedTuple):
    """Inputs and outputs, the kernel's size, stride and padding, and the sizes of x."""

    inputs: int
    outputs: int
    kernel: int
    stride: int
    padding: int
    sizes: tuple[int, ...]


SHAPES = [
    Shape(1, 24, 3, 2, 1, (64, 176)),
    Shape(24, 24, 3, 1, 1, (32, 88)),
    Shape(24, 24, 1, 1, 0, (32, 88)),
    Shape(24, 96, 3, 2, 1, (32, 88)),
    Shape(96, 48, 1, 1, 0, (16, 44)),
    Shape(48, 192, 3, 1, 1, (16, 44)),
    Shape(192, 48, 1, 1, 0, (16, 44)),
    Shape(48, 192, 3, 2, 1, (16, 44)),
    Shape(64, 256, 3, 1, 1, (8, 22)),
    Shape(256, 64, 1, 1, 0, (8, 22)),
    Shape(3, 64, 7, 2, 3, (60, 160)),
    Shape(64, 64, 3, 1, 1, (15, 40)),
    Shape(64, 256, 1, 1, 0, (15, 40)),
    Shape(128, 128, 3, 2, 1, (15, 40)),
    Shape(128, 128, 3, 1, 1, (8, 20)),
    Shape(512, 128, 1, 1, 0, (8, 20)),
    Shape(128, 512, 1, 1, 0, (8, 20)),
    Shape(1, 258, 256, 128, 0, (640,)),
    Shape(129, 128, 3, 1, 1, (4,)),
    Shape(128, 64, 3, 2, 1, (4,)),
]


def ours(shape: Shape, x: np.ndarray) -> tuple[rnncore.Module, np.ndarray]:
    """The layer, and x as it takes it."""
    settings = (*shape[:3], shape.stride, shape.padding)
    if len(shape.sizes) == 1:
        return rnncore.Conv1d(*settings, batch_first=True, seed=0), np.moveaxis(x, 1, -1).copy()
    return rnncore.Conv2d(*settings, seed=0), np.moveaxis(x, 1, -1).copy()


def theirs(shape: Shape, layer: rnncore.Module, x: np.ndarray) -> Callable[[], Any]:
    """The same convolution by ONNX Runtime."""
    helper, axes = onnx.helper, len(shape.sizes)
    held = [onnx.numpy_helper.from_array(a, name) for name, a in layer.params.items()]
    pads, strides = [shape.padding] * 2 * axes, [shape.stride] * axes
    node = helper.make_node("Conv", ["x", "weight", "bias"], ["y"], pads=pads, strides=strides)
    given = helper.make_tensor_value_info("x", 1, x.shape)
    made = helper.make_tensor_value_info("y", 1, None)
    graph = helper.make_graph([node], "g", [given], [made], held)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options)
    return lambda: session.run(None, {"x": x})[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="one round")
    options = parser.parse_args()
    rounds = 1 if options.quick else options.rounds
    rows, ratios = [], []
    for shape in tqdm(SHAPES, disable=None):
        first = np.random.default_rng(0).standard_normal((1, shape.inputs, *shape.sizes))
        first = first.astype(np.float32)
        layer, last = ours(shape, first)
        runtime = theirs(shape, layer, first)
        np.testing.assert_allclose(np.moveaxis(layer(last), -1, 1), runtime(), atol=1e-4)
        times = [
            (time_call(lambda m=layer, x=last: m(x)), time_call(runtime)) for _ in range(rounds)
        ]
        own, other = zip(*times, strict=True)
        ratios.append(ratio(other, own))
        name = f"{shape.inputs} to {shape.outputs}, {shape.kernel}, stride {shape.stride}"
        sizes = " x ".join(map(str, shape.sizes))
        row = [f"{name}, {sizes}", duration(median(own)), duration(median(other))]
        rows.append([*row, f"{ratios[-1]:.2f}"])
    print(table(["convolution", "ours", "ONNX Runtime", "theirs / ours"], rows))
    print(f"\ngeometric mean {geometric_mean(ratios):.2f}, least {min(ratios):.2f}")


if __name__ == "__main__":
    main()
