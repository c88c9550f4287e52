"""Make `rtneural/`: models of PyTorch's modules in RTNeural's layout, and rtneural.npz.

    pip install torch==2.13.0 numpy
    python tests/golden/make_rtneural_golden.py

The layout is that of RTNeural's own script for Keras (`python/model_utils.py`): kernels are (I, O),
of convolutions (taps, I / groups, O), which are causal; gates are i, f, c, o, and z, r, h; the
biases of a GRU are two rows. Outputs y for x `(T, B, I)` are `NAME/x` and `NAME/y` in the .npz.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

FOLDER = Path(__file__).with_name("rtneural")


class Causal(nn.Conv1d):
    """A convolution over x `(T, B, C)` that sees what was."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return y `(T, B, O)`."""
        past = self.dilation[0] * (self.kernel_size[0] - 1)
        rows = nn.functional.pad(x.permute(1, 2, 0), (past, 0))
        return super().forward(rows).permute(2, 0, 1)


def regate(rows: torch.Tensor, order: tuple[int, ...]) -> torch.Tensor:
    """Blocks of rows in another order."""
    blocks = rows.chunk(len(order))
    return torch.cat([blocks[at] for at in order])


def entry(kind: str, width: int, *weights: torch.Tensor, **more: Any) -> dict[str, Any]:
    """One layer of the file."""
    said = {"type": kind, "activation": "", "shape": [None, None, width]}
    return said | {"weights": [tensor.tolist() for tensor in weights]} | more


def entries(layers: list[nn.Module], width: int) -> Iterator[dict[str, Any]]:
    """The layers of the file; width: of what the next is given."""
    for layer in layers:
        if isinstance(layer, nn.Linear):
            width = layer.out_features
            yield entry("dense", width, layer.weight.T, layer.bias)
        elif isinstance(layer, nn.LSTM):
            width, bias = layer.hidden_size, layer.bias_ih_l0 + layer.bias_hh_l0
            yield entry("lstm", width, layer.weight_ih_l0.T, layer.weight_hh_l0.T, bias)
        elif isinstance(layer, nn.GRU):
            width = layer.hidden_size
            parts = (layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0, layer.bias_hh_l0)
            kernel, recurrent, *biases = (regate(part, (1, 0, 2)) for part in parts)
            yield entry("gru", width, kernel.T, recurrent.T, torch.stack(biases))
        elif isinstance(layer, Causal):
            width = layer.out_channels
            more = {"kernel_size": list(layer.kernel_size), "dilation": list(layer.dilation)}
            more |= {"groups": layer.groups} if layer.groups > 1 else {}
            yield entry("conv1d", width, layer.weight.permute(2, 1, 0), layer.bias, **more)
        elif isinstance(layer, nn.BatchNorm1d):
            affine = (layer.weight, layer.bias) if layer.affine else ()
            arrays = (*affine, layer.running_mean, layer.running_var)
            yield entry("batchnorm", width, *arrays, epsilon=layer.eps)
        elif isinstance(layer, nn.PReLU):
            yield entry("prelu", width, layer.weight[None])
        else:
            yield entry("activation", width) | {"activation": type(layer).__name__.lower()}


def run(layers: list[nn.Module], x: torch.Tensor) -> torch.Tensor:
    """What the layers compute one after the other; channels come last."""
    for layer in layers:
        if isinstance(layer, (nn.BatchNorm1d, nn.PReLU)):
            x = layer(x.permute(1, 2, 0)).permute(2, 0, 1)
        else:
            x = layer(x)
            x = x[0] if isinstance(x, tuple) else x
    return x


def models() -> dict[str, list[nn.Module]]:
    """The cases; each is given frames of 2 numbers."""
    return {
        "convolutions.json": [
            *(Causal(2, 4, 3), nn.Tanh(), Causal(4, 6, 2, dilation=3, groups=2)),
            *(nn.BatchNorm1d(6, eps=1e-3), nn.PReLU(6), nn.Linear(6, 2)),
        ],
        "mixed.json": [
            *(nn.Linear(2, 4), nn.BatchNorm1d(4, affine=False), Causal(4, 3, 1), nn.ReLU()),
            *(nn.LSTM(3, 4), nn.GRU(4, 3), nn.PReLU(1), nn.Linear(3, 1)),
        ],
        "norm_first.json": [nn.BatchNorm1d(2), nn.GRU(2, 3), nn.Sigmoid()],
    }


def main() -> None:
    """Write the files."""
    FOLDER.mkdir(exist_ok=True)
    torch.manual_seed(12)
    arrays = {}
    for name, layers in models().items():
        x = torch.randn(14, 2, 2)
        with torch.no_grad():
            for layer in layers:
                for parameter in layer.parameters():
                    parameter.add_(0.4 * torch.randn_like(parameter))
            run(layers, 3 * x + 1)  # which moves running statistics
            for layer in layers:
                layer.eval()
            y = run(layers, x)
        model = {"in_shape": [None, None, 2], "layers": list(entries(layers, 2))}
        (FOLDER / name).write_text(json.dumps(model))
        arrays |= {f"{name}/x": x.numpy(), f"{name}/y": y.numpy()}
    version = torch.__version__.partition("+")[0]
    np.savez_compressed(FOLDER.with_suffix(".npz"), **arrays, torch_version=version)


if __name__ == "__main__":
    main()
