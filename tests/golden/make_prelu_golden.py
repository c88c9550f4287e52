"""Writes prelu.npz: outputs and gradients of torch's PReLU, its channels on the last axis.

python tests/golden/make_prelu_golden.py
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn

HERE = Path(__file__).parent


def case(count: int) -> dict[str, np.ndarray]:
    """Inputs, slopes of both signs, and what torch makes of them, in float64."""
    torch.manual_seed(count)
    layer = nn.PReLU(count).double()
    nn.init.normal_(layer.weight)
    x = torch.randn(6, 2, 5, dtype=torch.float64)
    x[0, 0, :2] = 0.0
    dy = torch.randn_like(x)
    x.requires_grad_()
    y = layer(x.transpose(1, 2)).transpose(1, 2)  # the channels are torch's second axis
    y.backward(dy)
    found = {"x": x, "dy": dy, "weight": layer.weight, "y": y}
    found |= {"dx": x.grad, "dweight": layer.weight.grad}
    return {name: array.detach().numpy() for name, array in found.items()}


if __name__ == "__main__":
    arrays = {f"{n}/{name}": array for n in (1, 5) for name, array in case(n).items()}
    np.savez_compressed(HERE / "prelu.npz", torch_version=torch.__version__, **arrays)
