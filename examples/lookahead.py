"""How much of the future a label needs: accuracy against look-ahead, for three ways to look ahead.

A sequence of fillers holds a key, one of three, every 1 to 9 frames. The label of each frame is a
pair: the last key before it, and the next key at it or after it, turned on by one (0, 1, 2, 0, ...)
for each "turn", one of the three fillers, from this frame to that key. The first is in the past,
the second is told by a frame up to 8 ahead and all between. With a look-ahead of r, a frame whose
next key is further away can only be guessed.

    python examples/lookahead.py --plot lookahead.png
"""

from __future__ import annotations

import argparse
import time
from typing import Any, NamedTuple

import numpy as np
import rnncore
from rnncore.training.console import progress_bar
from rnncore.training.plots import require_matplotlib

KEYS, FILLERS, TURN, LONGEST_GAP, CHUNK = 3, 3, 3, 9, 4


class Data(NamedTuple):
    """Sequences of symbols, one-hot `(T, B, 6)`, labels `(T, B)`, frames until the next key."""

    x: np.ndarray
    labels: np.ndarray
    distance: np.ndarray


def generate(rng: np.random.Generator, steps: int, batch: int, plain: bool) -> Data:
    """Draw sequences; their last frame is a key. With `plain`, turns mean nothing."""
    symbols = rng.integers(KEYS, KEYS + FILLERS, (steps, batch))
    for row in range(batch):
        places = np.cumsum(rng.integers(1, LONGEST_GAP + 1, steps)) - 1
        places = np.append(places[places < steps - 1], steps - 1)
        symbols[places, row] = rng.integers(0, KEYS, len(places))
    before, after = np.zeros((steps, batch), int), np.zeros((steps, batch), int)
    distance = np.zeros((steps, batch), int)
    for t in range(1, steps):
        before[t] = np.where(symbols[t - 1] < KEYS, symbols[t - 1], before[t - 1])
    for t in reversed(range(steps)):
        is_key, then = symbols[t] < KEYS, min(t + 1, steps - 1)
        turn = 0 if plain else symbols[t] == TURN
        after[t] = np.where(is_key, symbols[t], (after[then] + turn) % KEYS)
        distance[t] = np.where(is_key, 0, distance[then] + 1)
    one_hot = np.eye(KEYS + FILLERS, dtype=np.float32)[symbols]
    return Data(one_hot, KEYS * before + after, distance)


def best_possible(data: Data, reach: Any) -> float:
    """The accuracy of who knows every key up to `reach` frames ahead and guesses the others."""
    return float(np.mean(np.where(data.distance <= reach, 1, 1 / KEYS)))


def chunk_reach(steps: int, right: int) -> np.ndarray:
    """How many frames ahead each frame sees when cut into chunks, `(T, 1)`."""
    return (CHUNK - 1 - np.arange(steps) % CHUNK + right)[:, None]


def build(form: str, look_ahead: int, hidden: int, seed: int) -> rnncore.Chain:
    """Make a model of one form; the same width comes to the last layer in all of them."""
    inputs, labels = KEYS + FILLERS, KEYS * KEYS
    if form == "row convolution":
        return rnncore.Chain(
            rnncore.GRU(inputs, 2 * hidden, seed=seed),
            rnncore.RowConvolution(2 * hidden, look_ahead, seed=seed),
            rnncore.Linear(2 * hidden, labels, seed=seed),
        )
    parts = [rnncore.GRU(inputs, hidden, seed=seed + at) for at in range(2)]
    layer: rnncore.Module
    if form == "windowed":
        layer = rnncore.Windowed(*parts, past=None, future=look_ahead)
    elif form == "latency-controlled":
        layer = rnncore.LatencyControlled([tuple(parts)], CHUNK, look_ahead)
    else:
        layer = rnncore.Bidirectional(*parts)
    return rnncore.Chain(layer, rnncore.Linear(2 * hidden, labels, seed=seed))


def train(model: rnncore.Chain, args: argparse.Namespace, bar: Any) -> None:
    """Fit to fresh sequences, the same ones for every model."""
    rng, loss = np.random.default_rng(args.seed + 1), rnncore.SoftmaxCrossEntropy()
    optimiser = rnncore.Adam(model, rnncore.schedules.warmup_cosine(0.01, args.updates))
    for _ in range(args.updates):
        data = generate(rng, args.steps, args.batch, args.plain)
        model.zero_grad()
        (logits, _), back = model.vjp(data.x)
        _, loss_back = loss.vjp(logits, data.labels)
        back(loss_back())
        rnncore.clip_grad_norm(model, 1.0)
        optimiser.step()
        bar.update()


def accuracy(model: rnncore.Chain, data: Data) -> float:
    return float(np.mean(model(data.x)[0].argmax(axis=-1) == data.labels))


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Train and test every form with every look-ahead; return the rows of the table."""
    rng = np.random.default_rng(args.seed)
    test = generate(rng, args.steps, 16 * args.batch, args.plain)
    runs = [("row convolution", r, r, r) for r in args.look_aheads]
    runs += [("windowed", r, r, r) for r in args.look_aheads]
    runs += [
        ("latency-controlled", r, CHUNK - 1 + r, chunk_reach(args.steps, r))
        for r in args.look_aheads
    ]
    runs.append(("bidirectional", None, None, args.steps))
    rows = []
    with progress_bar(len(runs) * args.updates, 0, show=True) as bar:
        for form, look_ahead, waits, reach in runs:
            bar.set_postfix_str(f"{form} {look_ahead}", refresh=False)
            started = time.perf_counter()
            model = build(form, look_ahead, args.hidden, args.seed)
            train(model, args, bar)
            row = {"form": form, "look_ahead": look_ahead, "waits": waits}
            row |= {"best": best_possible(test, reach), "reached": accuracy(model, test)}
            rows.append(row | {"seconds": time.perf_counter() - started})
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table, and a last line for machines."""
    print("| form | look-ahead | waits at most | best possible | reached | seconds |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        ahead, waits = ("all" if row[key] is None else row[key] for key in ("look_ahead", "waits"))
        shares = f"{row['best']:.3f} | {row['reached']:.3f} | {row['seconds']:.1f}"
        print(f"| {row['form']} | {ahead} | {waits} | {shares} |")
    last = {row["form"].replace(" ", "_").replace("-", "_"): row["reached"] for row in rows}
    print("result: " + " ".join(f"{form}={reached:.3f}" for form, reached in last.items()))


def plot(rows: list[dict[str, Any]], path: str) -> None:
    """Draw what was reached and what is possible over the frames that a label waits for."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="frames that a label waits for at most", ylabel="accuracy")
    whole = rows[-1]["reached"]
    axes.axhline(whole, color="0.6", linewidth=1, label="bidirectional, whole sequence")
    for form in dict.fromkeys(row["form"] for row in rows[:-1]):
        own = [row for row in rows if row["form"] == form]
        waits = [row["waits"] for row in own]
        (line,) = axes.plot(waits, [row["reached"] for row in own], marker="o", label=form)
        best = [row["best"] for row in own]
        axes.plot(waits, best, "--", color=line.get_color(), linewidth=1, alpha=0.7)
    axes.plot([], [], "k--", linewidth=1, label="best possible")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few updates, to see that it runs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plain", action="store_true", help="without turns: only the key counts")
    parser.add_argument("--plot", metavar="FILE", help="save the picture (needs matplotlib)")
    args = parser.parse_args()
    if args.plot:
        require_matplotlib()
    args.look_aheads = [0, 2] if args.quick else [0, 1, 2, 4, 6, 8]
    args.updates, args.steps, args.batch, args.hidden = 400, 64, 32, 32
    if args.quick:
        args.updates, args.batch = 5, 4
    rows = measure(args)
    show(rows)
    if args.plot:
        plot(rows, args.plot)


if __name__ == "__main__":
    main()
