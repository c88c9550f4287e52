"""Make `seq2seq.npz`, what PyTorch's automatic differentiation makes of models with attention.

    pip install torch==2.13.0 numpy pytest
    PYTHONPATH=python python -m tests.golden.make_seq2seq_golden

The file holds for each model of `GOLDEN` its parameters, logits and gradients under dotted names,
`bahdanau.params.decoder.head.weight` and so on, and what it was given: `source`, `target`,
`source_lengths`, `target_lengths`, `upstream`, the gradient of the logits.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from rnncore.compositions.ragged import length_mask
from torch.func import functional_call
from torch.nn.functional import embedding, linear
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tests.support.seq2seq_models import (
    MODELS,
    SOURCE_LENGTHS,
    TARGET_LENGTHS,
    B,
    E,
    H,
    T,
    V,
    awake,
    tokens,
)

TORCH_VERSION = "2.13.0"
FILE = Path(__file__).with_name("seq2seq.npz")
GOLDEN = ("general, 2 layers", "feeding, concat", "bahdanau")
Params = dict[str, torch.Tensor]


def main() -> None:
    """Write the file."""
    version = torch.__version__.partition("+")[0]
    if version != TORCH_VERSION:
        raise SystemExit(f"the golden file is made with torch {TORCH_VERSION}, this is {version}")
    source, target = tokens()
    upstream = np.random.default_rng(0).standard_normal((T, B, V))
    upstream *= length_mask(TARGET_LENGTHS, T)[..., None]
    fields: dict[str, Any] = {"source": source, "target": target, "upstream": upstream}
    fields |= {"source_lengths": SOURCE_LENGTHS, "target_lengths": TARGET_LENGTHS}
    for name in GOLDEN:
        params = {
            n: torch.tensor(np.round(p * 1024) / 1024, requires_grad=True)
            for n, p in awake(MODELS[name]("float64")).params.items()
        }
        logits = decoded(name, params, torch.tensor(source), torch.tensor(target))
        (logits * torch.tensor(upstream)).sum().backward()
        fields |= {f"{name}.params.{n}": p.detach().numpy() for n, p in params.items()}
        fields |= {f"{name}.grads.{n}": p.grad.numpy() for n, p in params.items()}  # type: ignore[union-attr]
        fields[f"{name}.logits"] = logits.detach().numpy()
    np.savez_compressed(FILE, torch_version=np.array(torch.__version__), **fields)
    print(f"{FILE}: {len(GOLDEN)} models, {FILE.stat().st_size / 1024:.0f} KB")


def part(params: Params, prefix: str) -> Params:
    """The parameters below a name."""
    return {n.removeprefix(prefix): p for n, p in params.items() if n.startswith(prefix)}


def decoded(name: str, params: Params, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The logits (T, B, V)."""
    gru, feeds = name == "bahdanau", "feeding" in name
    layer, layers = torch.nn.GRU if gru else torch.nn.LSTM, 2 if "2 layers" in name else 1
    memory, state = encoded(params, layer, source)
    first = starts(params, state, layers, gru)
    own, fed = part(params, "decoder.attention."), torch.zeros(B, H, dtype=torch.float64)
    fed_size = 2 * H if gru else H if feeds else 0
    rnn = layer(E + fed_size, H, layers).double()
    inputs, logits = embedding(target, params["decoder.embedding.weight"]), []
    for x in inputs:
        if gru:
            fed = context(own, first[-1], memory)
        step = torch.cat([x, fed], 1) if fed_size else x
        y, first = functional_call(rnn, part(params, "decoder.rnn."), (step[None], first))
        seen = fed if gru else context(own, y[0], memory)
        out = torch.tanh(linear(torch.cat([seen, y[0]], 1), own["combine.weight"]))
        fed = fed if gru else out
        head = part(params, "decoder.head.")
        logits.append(linear(out, head["weight"], head["bias"]))
    return torch.stack(logits)


def encoded(params: Params, layer: Any, source: torch.Tensor) -> tuple[torch.Tensor, Any]:
    """What the bidirectional encoder makes of the sources, and its final state."""
    x = embedding(source, params["encoder.0.weight"])
    packed = pack_padded_sequence(x, torch.tensor(SOURCE_LENGTHS), enforce_sorted=False)
    net = layer(E, H, bidirectional=True).double()
    y, state = functional_call(net, part(params, "encoder.1."), (packed,))
    return pad_packed_sequence(y)[0], state


def starts(params: Params, state: Any, layers: int, gru: bool) -> Any:
    """The decoder's first state: maps of both directions, for the GRU of the backward one."""
    both = [s[1] if gru else torch.cat([s[0], s[1]], 1) for s in (state if not gru else (state,))]

    def mapped(kind: str, final: torch.Tensor) -> torch.Tensor:
        maps = [part(params, f"bridge.{kind}.{n}.0.") for n in range(layers)]
        return torch.stack([torch.tanh(linear(final, m["weight"], m["bias"])) for m in maps])

    return mapped("h", both[0]) if gru else (mapped("h", both[0]), mapped("c", both[1]))


def context(own: Params, h: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
    """What h (B, H) sees of the memory (S, B, M)."""
    keys = linear(memory, own["key.weight"])
    if "v" in own:
        asked = linear(h, own["query.weight"], own["query.bias"])
        scores = torch.tanh(asked + keys) @ own["v"]
    else:
        scores = (keys * h).sum(-1)
    unseen = torch.arange(len(memory))[:, None] >= torch.tensor(SOURCE_LENGTHS)
    weights = torch.softmax(scores.masked_fill(unseen, -torch.inf), 0)
    return (weights[..., None] * memory).sum(0)


if __name__ == "__main__":
    main()
