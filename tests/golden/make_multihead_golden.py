"""Write multihead.npz: outputs and gradients of torch's MultiheadAttention, in float64.

    pip install torch==2.13.0 numpy
    python tests/golden/make_multihead_golden.py

The arrays of a case are `CASE/x`, `CASE/y`, `CASE/dy`, `CASE/dx`, `CASE/lengths`, and of every
parameter `CASE/state/NAME` and `CASE/grad/NAME`. Past the ends of sequences y and dy are zero.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn

HERE = Path(__file__).parent
#: T, B, E, heads, lengths, causal, bias.
CASES = {
    "plain": (7, 3, 6, 2, None, False, True),
    "no_bias": (5, 2, 4, 4, None, False, False),
    "ragged": (7, 4, 6, 3, (7, 1, 4, 6), False, True),
    "causal": (70, 1, 4, 2, None, True, True),
    "causal_ragged": (40, 3, 4, 1, (33, 40, 2), True, True),
}


def case(
    T: int, B: int, E: int, heads: int, lengths: tuple[int, ...] | None, causal: bool, bias: bool
) -> dict[str, np.ndarray]:
    """Run forward and backward."""
    layer = nn.MultiheadAttention(E, heads, bias=bias).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    ends = torch.tensor(lengths or (T,) * B)
    padding = torch.arange(T) >= ends[:, None]  # (B, T)
    inside = (~padding.T[..., None]).double()
    x = torch.randn(T, B, E, dtype=torch.float64, requires_grad=True)
    dy = torch.randn(T, B, E, dtype=torch.float64) * inside
    later = torch.ones(T, T, dtype=torch.bool).triu(1) if causal else None
    y = layer(x, x, x, key_padding_mask=padding, attn_mask=later)[0] * inside
    y.backward(dy)
    found = {"x": x, "y": y, "dy": dy, "dx": x.grad, "lengths": ends}
    for name, parameter in layer.named_parameters():
        found |= {f"state/{name}": parameter, f"grad/{name}": parameter.grad}
    return {name: array.detach().numpy() for name, array in found.items()}


if __name__ == "__main__":
    torch.manual_seed(3)
    arrays = {f"{n}/{name}": a for n, told in CASES.items() for name, a in case(*told).items()}
    np.savez_compressed(HERE / "multihead.npz", torch_version=torch.__version__, **arrays)
