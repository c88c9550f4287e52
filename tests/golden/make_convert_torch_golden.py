"""Make `convert_torch.npz`: state_dicts of PyTorch modules, an input, and what they make of it.

    pip install torch==2.13.0 numpy
    python tests/golden/make_convert_torch_golden.py

The arrays of a case are `CASE/state/NAME`, `CASE/x` and `CASE/y`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrizations

TORCH_VERSION = "2.13.0"
FILE = Path(__file__).with_name("convert_torch.npz")


class Tagger(nn.Module):
    """An embedding, a recurrent layer in both directions, a normalisation and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 5)
        self.rnn = nn.LSTM(5, 4, bidirectional=True)
        self.norm = nn.LayerNorm(8)
        self.out = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return scores `(T, B, 3)`."""
        return self.out(torch.tanh(self.norm(self.rnn(self.embed(x))[0])))


class Frontend(nn.Module):
    """Convolutions in front of a recurrent layer; x is `(T, B, C)`, as here."""

    def __init__(self) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(4, 8, 3, padding=1, groups=4, bias=False)
        self.norm = nn.BatchNorm1d(8, eps=1e-3)
        self.slopes = nn.PReLU(8)
        self.strided = parametrizations.weight_norm(nn.Conv1d(8, 6, 4, stride=2, dilation=2))
        self.up = nn.ConvTranspose1d(6, 5, 3, stride=2, padding=1, output_padding=1)
        self.plain = nn.BatchNorm1d(5, affine=False)
        self.rnn = nn.GRU(5, 4)
        self.out = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return y `(T', B, 2)`."""
        x = self.slopes(self.norm(self.depthwise(x.permute(1, 2, 0))))
        x = self.plain(self.up(torch.relu(self.strided(x))))
        return self.out(self.rnn(x.permute(2, 0, 1))[0])


class Images(nn.Module):
    """Convolutions of images; x is `(B, H, W, C)`, as here."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, (3, 2), stride=(2, 1), padding=(1, 0))
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 4, 3, padding="same", padding_mode="replicate", groups=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return y `(B, H', W', 4)`."""
        x = self.norm(self.first(x.permute(0, 3, 1, 2)))
        return self.second(torch.tanh(x)).permute(0, 2, 3, 1)


class SelfAttention(nn.MultiheadAttention):
    """Attention called with x alone."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return y without the weights."""
        return super().forward(x, x, x)[0]


class AttentionTagger(nn.Module):
    """Causal attention between a recurrent layer and a linear one; x is `(B, T, I)`."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(3, 8, batch_first=True)
        self.attention = nn.MultiheadAttention(8, 4, batch_first=True)
        self.out = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return scores `(B, T, 2)`."""
        h = self.rnn(x)[0]
        later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        return self.out(self.attention(h, h, h, attn_mask=later)[0])


def modules() -> dict[str, nn.Module]:
    """The cases."""
    return {
        "rnn": nn.RNN(3, 5),
        "rnn_relu_no_bias": nn.RNN(3, 5, 2, nonlinearity="relu", bias=False),
        "lstm": nn.LSTM(3, 5),
        "lstm_deep": nn.LSTM(3, 5, 2, bidirectional=True),
        "lstm_batch_first": nn.LSTM(3, 5, batch_first=True),
        "lstm_projected": nn.LSTM(3, 5, 2, bidirectional=True, proj_size=2),
        "lstm_one_unit": nn.LSTM(1, 1),
        "gru": nn.GRU(3, 5),
        "gru_deep": nn.GRU(3, 5, 3, bidirectional=True, bias=False),
        "rnn_cell": nn.RNNCell(3, 5),
        "lstm_cell": nn.LSTMCell(3, 5),
        "gru_cell": nn.GRUCell(3, 5),
        "tagger": Tagger(),
    }


def others() -> dict[str, nn.Module]:
    """Cases that came later, drawn after those before."""
    return {
        "weight_norm": normed(nn.LSTM(3, 5, bidirectional=True), parametrizations.weight_norm),
        "weight_norm_old": normed(nn.GRU(3, 5, 2), nn.utils.weight_norm),
        "frontend": Frontend(),
        "images": Images(),
    }


def attending() -> dict[str, nn.Module]:
    """Cases with attention, drawn after those before."""
    return {
        "attention": SelfAttention(6, 3),
        "attention_no_bias": SelfAttention(4, 1, bias=False, batch_first=True),
        "attention_tagger": AttentionTagger(),
        "encoder": nn.TransformerEncoderLayer(6, 2, 8),
    }


def normed(module: nn.Module, norm: Callable[..., nn.Module]) -> nn.Module:
    """Put weight_norm on all matrices of a recurrent layer, on some over other axes than rows."""
    for at, name in enumerate([n for n, _ in module.named_parameters() if "weight" in n]):
        norm(module, name, dim=(0, 1, None)[at % 3])
    with torch.no_grad():  # so that lengths are not those of the directions
        for parameter in module.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return module


def numbers(case: str, module: nn.Module) -> dict[str, np.ndarray]:
    """The arrays of one case."""
    with torch.no_grad():
        if case == "tagger":
            for parameter in module.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
            x = torch.randint(11, (6, 2))
        elif case.startswith(("attention", "encoder")):
            for parameter in module.parameters():  # so that no bias is zero
                parameter += 0.1 * torch.randn_like(parameter)
            module.eval()
            x = torch.randn(5, 2, {"attention_no_bias": 4, "attention_tagger": 3}.get(case, 6))
        elif case in ("frontend", "images"):
            x = torch.randn(*((12, 2, 4) if case == "frontend" else (3, 7, 5, 2)))
            module(3 * x + 1)  # which moves the running statistics
            module.eval()
        else:
            shape = (2,) if case.endswith("cell") else (6, 2)
            x = torch.randn(*shape, module.input_size)
        y = module(x)
    state = {f"state/{name}": value.numpy() for name, value in module.state_dict().items()}
    return {"x": x.numpy(), "y": (y[0] if isinstance(y, tuple) else y).numpy()} | state


def main() -> None:
    """Write the file."""
    version = torch.__version__.partition("+")[0]
    if version != TORCH_VERSION:
        raise SystemExit(f"the golden file is made with torch {TORCH_VERSION}, this is {version}")
    arrays: dict[str, np.ndarray] = {}
    for seed, cases in ((7, modules), (8, others), (9, attending)):
        torch.manual_seed(seed)
        for case, module in cases().items():
            arrays |= {f"{case}/{name}": array for name, array in numbers(case, module).items()}
    np.savez_compressed(FILE, **arrays, torch_version=version)


if __name__ == "__main__":
    main()
