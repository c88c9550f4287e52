"""
Translate with attention
========================

An encoder reads a sequence of symbols, a decoder with attention writes it in reverse. The picture
shows where the decoder looks at each step.

Data: made here, words of 4 to 10 letters, drawn anew for every update.
"""

import matplotlib.pyplot as plt
import numpy as np
import rnncore
from rnncore import search
from rnncore.batches import padded

LETTERS = "abcdefgh"
PAD, BOS, EOS, FIRST = 0, 1, 2, 3
SIZE, HIDDEN = FIRST + len(LETTERS), 48


def draw(rng, count):
    """Return words as arrays of numbers."""
    return [rng.integers(FIRST, SIZE, rng.integers(4, 11)) for _ in range(count)]


# %%
# Encoder, decoder and the bridge between their states.

model = rnncore.Seq2Seq(
    rnncore.Chain(rnncore.Embedding(SIZE, 24, seed=0), rnncore.GRU(24, HIDDEN, seed=1)),
    rnncore.Decoder(
        rnncore.Embedding(SIZE, 24, seed=2),
        rnncore.GRU(24, HIDDEN, seed=3),
        rnncore.LuongAttention(HIDDEN, HIDDEN, output_size=HIDDEN, seed=4),
        rnncore.Linear(HIDDEN, SIZE, seed=5),
    ),
    rnncore.FinalBridge(),
)
optimiser, loss = rnncore.Adam(model, lr=1e-2), rnncore.SoftmaxCrossEntropy()
rng = np.random.default_rng(0)
for _ in range(250):
    words = draw(rng, 64)
    source, lengths = padded(words)
    target, target_lengths = padded([np.append(word[::-1], EOS) for word in words])
    logits, pullback = model.vjp(
        source,
        rnncore.shifted(target, BOS),
        source_lengths=lengths,
        target_lengths=target_lengths,
    )
    value, back = loss.vjp(
        logits, target, rnncore.length_mask(target_lengths, len(target))
    )
    model.zero_grad()
    pullback(back())
    rnncore.clip_grad_norm(model, 1.0)
    optimiser.step()

# %%
# New words, by beam search.

words = draw(np.random.default_rng(1), 200)
source, lengths = padded(words)
found = search.beam(model, source, lengths, bos=BOS, eos=EOS, width=4, max_length=20)
right = [
    np.array_equal(best[0].tokens[best[0].tokens != EOS], word[::-1])
    for best, word in zip(found, words, strict=True)
]
print(
    f"loss {value:.3f}, {np.mean(right):.1%} of {len(words)} new words reversed without an error"
)

figure, axes = plt.subplots(figsize=(5, 5), layout="constrained")
longest = int(np.argmax(lengths))
tokens, attention = found[longest][0].tokens, found[longest][0].attention
written = [LETTERS[t - FIRST] if t >= FIRST else "end" for t in tokens]
axes.imshow(attention[:, : lengths[longest]], cmap="Blues", vmin=0, vmax=1)
axes.set_xticks(range(lengths[longest]), [LETTERS[t - FIRST] for t in words[longest]])
axes.set_yticks(range(len(written)), written)
axes.set(xlabel="read", ylabel="written")

# %%
# From spelling to sound, with all of CMUdict: ``examples/pronunciation.py``.
