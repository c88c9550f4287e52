"""
Find labels without their places
================================

A sequence holds tones of unknown length and place; only their order is given to learn from.
``CTCLoss`` sums over all ways to place the labels. The picture shows what the model says when.

Data: made here, 3 to 6 tones out of 4 in noise, drawn anew for every update.
"""

import matplotlib.pyplot as plt
import numpy as np
import rnncore
from rnncore.batches import padded

TONES, BANDS, BLANK = 4, 12, 0


def draw(rng, count):
    """Return spectra (T, 12) and the numbers of their tones, 1 to 4."""
    spectra, labels = [], []
    for _ in range(count):
        tones = rng.integers(1, TONES + 1, rng.integers(3, 7))
        frames = []
        for tone in tones:
            frames += [np.zeros(BANDS)] * int(rng.integers(2, 6))
            frames += [np.exp(-0.5 * (np.arange(BANDS) - 3 * tone + 1.5) ** 2)] * int(
                rng.integers(3, 8)
            )
        frames += [np.zeros(BANDS)] * 3
        spectra.append(
            np.array(frames) + 0.4 * rng.standard_normal((len(frames), BANDS))
        )
        labels.append(tones)
    return [s.astype(np.float32) for s in spectra], labels


# %%
# Five classes: four tones and the blank.

model = rnncore.Chain(
    rnncore.LSTM(BANDS, 32, bidirectional=True, seed=0),
    rnncore.Linear(64, TONES + 1, seed=1),
)
optimiser, loss = rnncore.Adam(model, lr=2e-2), rnncore.CTCLoss(blank=BLANK)
rng = np.random.default_rng(0)
for _ in range(300):
    spectra, labels = draw(rng, 32)
    x, lengths = padded(spectra)
    targets, target_lengths = padded(labels)
    (logits, state), pullback = model.vjp(x, lengths=lengths)
    value, back = loss.vjp(logits, targets.T, lengths, target_lengths)
    model.zero_grad()
    pullback(back())
    rnncore.clip_grad_norm(model, 5.0)
    optimiser.step()

# %%
# Errors on new sequences, along the best path.

spectra, labels = draw(np.random.default_rng(1), 200)
x, lengths = padded(spectra)
logits, state = model(x, lengths=lengths)
found = [
    transcript.labels
    for transcript in rnncore.ctc_best_path(logits, lengths, blank=BLANK)
]
print(f"label errors: {rnncore.error_rate(found, labels):.2%}")

figure, (above, below) = plt.subplots(
    2, 1, figsize=(9, 5), sharex=True, layout="constrained"
)
above.imshow(spectra[0].T, aspect="auto", origin="lower", cmap="Greys")
above.set(ylabel="band", title=f"tones {', '.join(map(str, labels[0]))}")
probabilities = rnncore.Softmax()(logits[: lengths[0], 0])
for label in range(TONES + 1):
    style = (
        {"color": "0.7", "linestyle": "--"}
        if label == BLANK
        else {"color": f"C{label - 1}"}
    )
    name = "blank" if label == BLANK else f"tone {label}"
    below.plot(probabilities[:, label], label=name, **style)
below.set(xlabel="frame", ylabel="probability")
below.legend(
    ncols=TONES + 1, loc="upper center", bbox_to_anchor=(0.5, 1.2), frameon=False
)

# %%
# Spoken digits: ``examples/spoken_digits.py``.
