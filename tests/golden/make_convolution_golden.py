"""Writes convolution.npz: what torch makes of the cases below, forward and backward, in float64.

python -m tests.golden.make_convolution_golden
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

FILE = Path(__file__).with_name("convolution.npz")


class Golden(NamedTuple):
    """A layer by its name here, its arguments, and the shape of x: channels are its last axis."""

    layer: str
    arguments: tuple[Any, ...]
    shape: tuple[int, ...]
    options: Mapping[str, Any] = MappingProxyType({})


CASES = {
    "Conv1d": Golden("Conv1d", (3, 4, 3), (9, 2, 3)),
    "Conv1d, all": Golden("Conv1d", (6, 9, 3, 2, 2, 2, 3), (11, 2, 6)),
    "Conv1d, depthwise": Golden("Conv1d", (5, 5, 4, 1, 0, 1, 5, False), (9, 2, 5)),
    "Conv1d, same": Golden("Conv1d", (3, 2, 4, 1, "same", 2), (9, 2, 3)),
    "Conv1d, reflect": Golden("Conv1d", (2, 3, 5, 1, 2), (4, 3, 2), {"padding_mode": "reflect"}),
    "Conv1d, replicate": Golden(
        "Conv1d", (2, 3, 5, 3, 4), (4, 3, 2), {"padding_mode": "replicate"}
    ),
    "Conv1d, one": Golden("Conv1d", (1, 1, 1), (1, 1, 1)),
    "Conv1d, wide": Golden("Conv1d", (35, 70, 2), (5, 2, 35)),
    "Conv2d": Golden("Conv2d", (3, 5, 3), (2, 5, 6, 3)),
    "Conv2d, all": Golden("Conv2d", (4, 6, (3, 2), (2, 1), (1, 2), (1, 2), 2), (2, 6, 5, 4)),
    "Conv2d, one channel": Golden("Conv2d", (1, 20, 3, 1, "same"), (2, 4, 4, 1)),
    "Conv2d, reflect": Golden("Conv2d", (3, 2, 3, 1, 1), (1, 3, 4, 3), {"padding_mode": "reflect"}),
    "ConvTranspose1d": Golden("ConvTranspose1d", (3, 4, 3), (5, 2, 3)),
    "ConvTranspose1d, all": Golden("ConvTranspose1d", (4, 6, 3, 3, 1, 2, 2, True, 2), (5, 2, 4)),
    "ConvTranspose1d, groups": Golden("ConvTranspose1d", (4, 6, 2, 2, 0, 1, 2, False), (5, 2, 4)),
    "MaxPool1d": Golden("MaxPool1d", (2,), (7, 2, 3)),
    "MaxPool1d, ceil": Golden("MaxPool1d", (3, 2, 1), (8, 2, 3), {"ceil_mode": True}),
    "MaxPool1d, dilated": Golden("MaxPool1d", (3, 1, 1, 2), (8, 2, 3)),
    "AvgPool1d": Golden("AvgPool1d", (3, 2, 1), (7, 2, 3)),
    "AvgPool1d, ceil": Golden("AvgPool1d", (3, 2, 1, True), (8, 2, 3)),
    "AvgPool1d, inside": Golden("AvgPool1d", (3, 2, 1, True, False), (8, 2, 3)),
    "MaxPool2d": Golden("MaxPool2d", ((2, 3), 2, 1), (2, 5, 6, 3), {"ceil_mode": True}),
    "MaxPool2d, dilated": Golden("MaxPool2d", (2, (2, 1), 0, (1, 3)), (2, 5, 6, 3)),
    "AvgPool2d": Golden("AvgPool2d", (3, (1, 2), (1, 0), True), (2, 5, 6, 3)),
    "AvgPool2d, inside": Golden("AvgPool2d", (3, 2, 1, True, False), (2, 6, 5, 3)),
    "BatchNorm": Golden("BatchNorm", (5, 1e-2, 0.3), (7, 3, 5)),
    "BatchNorm, plain": Golden("BatchNorm", (5, 1e-5, 0.1, False), (4, 3, 2, 5)),
    "GLU": Golden("GLU", (), (4, 2, 6)),
}


def main() -> None:
    """Write the file."""
    import torch

    arrays = {}
    for name, case in CASES.items():
        arrays |= {f"{name}/{key}": array for key, array in torchs(case).items()}
    np.savez_compressed(FILE, torch_version=np.array(torch.__version__), **arrays)
    print(f"{FILE}: {len(CASES)} cases, {FILE.stat().st_size / 1024:.0f} KB")


def torchs(case: Golden) -> dict[str, np.ndarray]:
    """Inputs, parameters and what torch makes of them; arrays have the shapes of this library."""
    import torch

    torch.manual_seed(20200614)
    layer = made(case).double()
    with torch.no_grad():
        for tensor in (*layer.parameters(), *layer.buffers()):
            if tensor.is_floating_point():  # not the count of batches
                tensor.copy_(rounded(torch.rand_like(tensor) + 0.25))
    x = rounded(torch.randn(case.shape, dtype=torch.float64)).requires_grad_()
    found = {"x": x, "evaluated": turned(layer.eval()(turned(x, case)), case, back=True)}
    found |= {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    y = turned(layer.train()(turned(x, case)), case, back=True)
    dy = rounded(torch.randn_like(y))
    y.backward(dy)
    found |= {"y": y, "dy": dy, "dx": x.grad}
    found |= {f"d{name}": param.grad for name, param in layer.named_parameters()}
    found |= {f"new {name}": buffer for name, buffer in layer.named_buffers()}
    return {
        name: tensor.detach().numpy() for name, tensor in found.items() if "num_batches" not in name
    }


def made(case: Golden) -> Any:
    """Torch's layer."""
    from torch import nn

    axes = {3: "1d", 4: "2d"}[len(case.shape)]
    options = dict(case.options)
    if case.layer == "GLU":
        options["dim"] = 1
    return getattr(nn, case.layer + axes * (case.layer == "BatchNorm"))(*case.arguments, **options)


def turned(x: Any, case: Golden, back: bool = False) -> Any:
    """Channels second, and the batch first, as torch has them."""
    if len(case.shape) == 3:  # (T, B, C) and (B, C, T)
        return x.permute((2, 0, 1) if back else (1, 2, 0))
    return x.permute((0, 2, 3, 1) if back else (0, 3, 1, 2))


def rounded(tensor: Any) -> Any:
    """On a grid of 1/64, which compresses well."""
    return (tensor * 64).round() / 64


if __name__ == "__main__":
    main()
