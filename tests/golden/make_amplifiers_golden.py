"""Make `amplifiers/`: models of guitar amplifiers as their trainers write them, and amplifiers.npz.

    pip install torch==2.13.0 numpy
    python tests/golden/make_amplifiers_golden.py

Written by hand from the formats: `.nam` files of Neural Amp Modeler's LSTM, and the JSON of
CoreAudioML's SimpleRNN, which GuitarML's programs read. Both trainers are PyTorch's modules, whose
outputs y for x `(T, B, I)` are `NAME/x` and `NAME/y` in the .npz.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import nn

FOLDER = Path(__file__).with_name("amplifiers")


def draw(module: nn.Module) -> nn.Module:
    """Weights of no particular kind."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.6 * torch.randn_like(parameter))
    return module


def nam(inputs: int, hidden: int, layers: int, outputs: int, started: bool):
    """A file, and the function of x that it says."""
    lstm, head = draw(nn.LSTM(inputs, hidden, layers)), draw(nn.Linear(hidden, outputs))
    first = [torch.randn(layers, hidden) * started for _ in "hc"]
    flat: list[float] = []
    for n in range(layers):
        own = {name: getattr(lstm, f"{name}_l{n}") for name in ("weight_ih", "weight_hh")}
        bias = getattr(lstm, f"bias_ih_l{n}") + getattr(lstm, f"bias_hh_l{n}")
        both = torch.cat([own["weight_ih"], own["weight_hh"]], dim=1)
        for tensor in (both, bias, first[0][n], first[1][n]):
            flat += tensor.flatten().tolist()
    flat += head.weight.flatten().tolist() + head.bias.tolist()
    config = {"input_size": inputs, "hidden_size": hidden, "num_layers": layers}
    config |= {"out_channels": outputs} if outputs > 1 else {}
    model = {"version": "0.5.4", "metadata": {"name": "golden"}, "architecture": "LSTM"}
    model |= {"config": config, "weights": flat, "sample_rate": 48000}

    def run(x: torch.Tensor) -> torch.Tensor:
        state = tuple(part[:, None].repeat(1, x.shape[1], 1) for part in first)
        return head(lstm(x, state)[0])

    return model, run


def guitarml(unit: str, inputs: int, hidden: int, layers: int, skip: int, outputs: int, bias: bool):
    """A file, and the function of x that it says: the first numbers of x go past it."""
    rec = draw(getattr(nn, unit)(inputs, hidden, layers))
    lin = draw(nn.Linear(hidden, outputs, bias=bias))
    data = {"model": "SimpleRNN", "input_size": inputs, "skip": skip, "output_size": outputs}
    data |= {"unit_type": unit, "num_layers": layers, "hidden_size": hidden, "bias_fl": bias}
    parts = {"rec": rec, "lin": lin}
    state = {f"{p}.{n}": t.tolist() for p, m in parts.items() for n, t in m.state_dict().items()}

    def run(x: torch.Tensor) -> torch.Tensor:
        y = lin(rec(x)[0])
        return y + x[:, :, :skip] if skip else y

    return {"model_data": data, "state_dict": state}, run


def main() -> None:
    """Write the files."""
    FOLDER.mkdir(exist_ok=True)
    torch.manual_seed(11)
    cases = {
        "plain.nam": (1, nam(1, 5, 1, 1, False)),
        "started.nam": (1, nam(1, 4, 2, 1, True)),
        "two_channels.nam": (2, nam(2, 3, 1, 2, True)),
        "lstm.json": (1, guitarml("LSTM", 1, 5, 1, 1, 1, True)),
        "conditioned.json": (2, guitarml("LSTM", 2, 4, 1, 1, 1, True)),
        "gru_no_skip.json": (1, guitarml("GRU", 1, 4, 2, 0, 1, True)),
        "rnn_no_bias.json": (1, guitarml("RNN", 1, 4, 1, 1, 1, False)),
        "stereo.json": (2, guitarml("GRU", 2, 3, 1, 2, 2, True)),
        "spread.json": (2, guitarml("LSTM", 2, 3, 1, 1, 2, True)),
    }
    arrays = {}
    for name, (inputs, (model, run)) in cases.items():
        (FOLDER / name).write_text(json.dumps(model))
        x = torch.randn(12, 2, inputs)
        with torch.no_grad():
            arrays |= {f"{name}/x": x.numpy(), f"{name}/y": run(x).numpy()}
    version = torch.__version__.partition("+")[0]
    np.savez_compressed(FOLDER.with_suffix(".npz"), **arrays, torch_version=version)


if __name__ == "__main__":
    main()
