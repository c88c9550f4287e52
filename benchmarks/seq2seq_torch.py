"""The model of examples/pronunciation.py in PyTorch: training, greedy search, beam search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

PAD, BOS, EOS = 0, 1, 2
State = tuple[Tensor, Tensor]


class Model(nn.Module):
    """Time-major, as PyTorch prefers it; attention batch-major, as its products do."""

    def __init__(self, letters: int, phonemes: int, args: Any) -> None:
        super().__init__()
        width = 2 * args.hidden
        self.reads = nn.Embedding(letters, args.embedding)
        self.encoder = nn.LSTM(
            args.embedding, args.hidden, args.layers, dropout=args.dropout, bidirectional=True
        )
        self.bridge_h, self.bridge_c = nn.Linear(width, width), nn.Linear(width, width)
        self.writes = nn.Embedding(phonemes, args.embedding)
        self.decoder = nn.LSTM(args.embedding, width)
        self.combine = nn.Linear(2 * width, width, bias=False)
        self.head = nn.Linear(width, phonemes)
        self.dropout = nn.Dropout(args.dropout)

    def load(self, params: Mapping[str, np.ndarray]) -> None:
        """Take the parameters of the model that it is compared with."""
        names = {
            "encoder.0": "reads",
            "encoder.2": "encoder",
            "bridge.h.0.0": "bridge_h",
            "bridge.c.0.0": "bridge_c",
            "decoder.embedding.0": "writes",
            "decoder.rnn": "decoder",
            "decoder.attention.combine": "combine",
            "decoder.head.1": "head",
        }
        split = (name.rpartition(".") for name in params)
        self.load_state_dict(
            {f"{names[p]}.{n}": torch.from_numpy(params[f"{p}.{n}"].copy()) for p, _, n in split}
        )

    def encode(self, source: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, State]:
        """Memory `(B, S, M)`, what is beyond a source's end `(B, S)`, the decoder's state."""
        x = self.dropout(self.reads(source))
        packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
        packed, (h, c) = self.encoder(packed)
        memory, _ = pad_packed_sequence(packed)
        memory = self.dropout(memory).transpose(0, 1).contiguous()
        beyond = torch.arange(len(source)) >= lengths[:, None]
        h = torch.tanh(self.bridge_h(torch.cat([h[-2], h[-1]], dim=1)))
        c = torch.tanh(self.bridge_c(torch.cat([c[-2], c[-1]], dim=1)))
        return memory, beyond, (h[None], c[None])

    def decode(
        self, target: Tensor, memory: Tensor, beyond: Tensor, state: State
    ) -> tuple[Tensor, State]:
        """Logits `(B, T, V)` after targets `(T, B)`."""
        y, state = self.decoder(self.dropout(self.writes(target)), state)
        y = y.transpose(0, 1)
        scores = torch.bmm(y, memory.transpose(1, 2)).masked_fill(beyond[:, None], -torch.inf)
        context = torch.bmm(scores.softmax(dim=-1), memory)
        attended = torch.tanh(self.combine(torch.cat([context, y], dim=-1)))
        return self.head(self.dropout(attended)), state


class Trainer:
    """Updates, as the example makes them."""

    def __init__(self, model: Model, args: Any) -> None:
        self.model, self.smoothing = model, args.label_smoothing
        self.optimiser = torch.optim.Adam(model.parameters(), lr=args.lr)

    def update(self, source: Tensor, lengths: Tensor, before: Tensor, target: Tensor) -> float:
        """Learn from a batch; return its loss."""
        self.model.train()
        logits, _ = self.model.decode(before, *self.model.encode(source, lengths))
        loss = cross_entropy(
            logits.flatten(0, 1),
            target.t().flatten(),
            ignore_index=PAD,
            label_smoothing=self.smoothing,
        )
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        return loss.item()


def greedy(
    model: Model, source: Tensor, lengths: Tensor, shortest: int, longest: int
) -> list[list[int]]:
    """The likeliest token at every step, until all have ended."""
    model.eval()
    with torch.inference_mode():
        memory, beyond, state = model.encode(source, lengths)
        last = torch.full((1, len(lengths)), BOS)
        ended, said = torch.zeros(len(lengths), dtype=torch.bool), []
        for t in range(longest):
            logits, state = model.decode(last, memory, beyond, state)
            if t < shortest:
                logits[..., EOS] = -torch.inf
            last = logits.argmax(dim=-1).t().masked_fill(ended, EOS)
            ended |= last[0] == EOS
            said.append(last[0])
            if ended.all():
                break
        return _cut(torch.stack(said, dim=1))


def beam(
    model: Model, source: Tensor, lengths: Tensor, width: int, shortest: int, longest: int
) -> list[list[int]]:
    """The best of a beam, all sources at once; what has ended keeps its place and its score."""
    model.eval()
    with torch.inference_mode():
        memory, beyond, state = model.encode(source, lengths)
        count = len(lengths)
        memory, beyond = (part.repeat_interleave(width, dim=0) for part in (memory, beyond))
        state = tuple(part.repeat_interleave(width, dim=1) for part in state)
        scores = torch.full((count, width), -torch.inf)
        scores[:, 0] = 0
        said = torch.full((count * width, 1), BOS)
        ended = torch.zeros(count * width, dtype=torch.bool)
        offsets = torch.arange(count)[:, None] * width
        for t in range(longest + 1):
            logits, state = model.decode(said[:, -1:].t(), memory, beyond, state)
            log_probs = logits[:, 0].log_softmax(dim=-1)
            if t < shortest:
                log_probs[:, EOS] = -torch.inf
            if t == longest:
                log_probs[:, :EOS] = log_probs[:, EOS + 1 :] = -torch.inf
            log_probs[ended] = -torch.inf
            log_probs[ended, EOS] = 0
            size = log_probs.shape[1]
            total = scores[..., None] + log_probs.view(count, width, size)
            scores, best = total.view(count, -1).topk(width)
            rows = (offsets + best // size).flatten()
            tokens = (best % size).flatten()
            said = torch.cat([said[rows], tokens[:, None]], dim=1)
            state = tuple(part[:, rows] for part in state)
            ended = tokens == EOS
            if ended.view(count, width)[:, 0].all():
                break
        return _cut(said.view(count, width, -1)[:, 0, 1:])


def _cut(said: Tensor) -> list[list[int]]:
    return [row[: row.index(EOS)] if EOS in row else row for row in said.tolist()]
