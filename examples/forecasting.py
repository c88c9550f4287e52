"""Many steps from a window: the Mackey-Glass series, an LSTM that reads, an LSTM that goes on.

    python examples/forecasting.py --plot forecast.png

    dx/dt = 0.2 x(t - 17) / (1 + x(t - 17)^10) - 0.1 x(t)

(Mackey and Glass 1977), sampled once per unit of time. From 96 values the next 84 are forecast: at
every step the decoder reads the value before, in training the series' own with noise added, so that
it learns to live with errors, and then its own forecast. Beside it the last value said again and
again (persistence), and the linear map from window to forecast with the least squared error. Errors
are root mean squares over the test part, divided by the standard deviation of the series.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rnncore
from rnncore import Decoder, FinalBridge, Linear, Seq2Seq
from rnncore.batches import Batch
from rnncore.schedules import warmup_cosine
from rnncore.training import Trainer, evaluate

WINDOW, AHEAD, DELAY = 96, 84, 17


def mackey_glass(steps: int, rng: np.random.Generator, per_unit: int = 10) -> np.ndarray:
    """Draw a history, integrate by Runge-Kutta of order 4, drop the first 1000 units of time."""
    total, lag, h = (steps + 1000) * per_unit, DELAY * per_unit, 1 / per_unit
    x = np.empty(total + lag + 1)
    x[: lag + 1] = 1.2 + 0.2 * rng.uniform(-1, 1)

    def slope(now: float, delayed: float) -> float:
        return 0.2 * delayed / (1 + delayed**10) - 0.1 * now

    for t in range(lag, total + lag):
        old, new = x[t - lag], x[t - lag + 1]
        between = (old + new) / 2
        a = slope(x[t], old)
        b = slope(x[t] + h / 2 * a, between)
        c = slope(x[t] + h / 2 * b, between)
        d = slope(x[t] + h * c, new)
        x[t + 1] = x[t] + h / 6 * (a + 2 * b + 2 * c + d)
    return x[lag + 1 :][1000 * per_unit :: per_unit]


class Windows(NamedTuple):
    """Pieces of a series, and how each goes on."""

    past: np.ndarray  # (WINDOW, N)
    future: np.ndarray  # (AHEAD, N)

    @classmethod
    def of(cls, series: np.ndarray) -> Windows:
        """Cut at every place."""
        pieces = np.lib.stride_tricks.sliding_window_view(series, WINDOW + AHEAD).T
        return cls(pieces[:WINDOW], pieces[WINDOW:])

    def batch(self, rows: np.ndarray | slice) -> Batch:
        """Put some pieces in a batch: what the decoder reads is one step behind the future."""
        past, future = (part[:, rows, None].astype(np.float32) for part in self)
        return Batch((past, rnncore.shifted(future, past[-1])), future)


class Forecaster(rnncore.Module):
    """Encoder and decoder as a trainer calls them, and as they forecast."""

    def __init__(self, hidden: int, noise: float, rng: np.random.Generator) -> None:
        super().__init__()
        self.model = Seq2Seq(
            rnncore.LSTM(1, hidden, seed=rng),
            Decoder(None, rnncore.LSTM(1, hidden, seed=rng), None, Linear(hidden, 1, seed=rng)),
            FinalBridge(),
        )
        self.noise, self.rng = noise, rng

    def __call__(self, inputs: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """Return forecasts (AHEAD, B, 1) from the past alone: each step reads the one before."""
        past, future = inputs
        x, state, forecasts = past[-1], self.model.start(past), []
        for _ in future:
            x, state = self.model.decoder.step(x, state)
            forecasts.append(x)
        return np.stack(forecasts)

    def vjp(self, inputs: tuple[np.ndarray, np.ndarray]) -> Any:
        """Return forecasts one step from a noisy truth, and the pullback."""
        past, before = inputs
        noise = self.rng.standard_normal(before.shape, dtype=np.float32)
        return self.model.vjp(past, before + np.float32(self.noise) * noise)


def train(parts: dict[str, Windows], args: argparse.Namespace) -> Forecaster:
    """Train; the parameters are those of the best validation."""
    model = Forecaster(args.hidden, args.noise, np.random.default_rng(args.seed))
    loss = rnncore.MeanSquaredError()
    windows, valid = parts["train"], parts["valid"].batch(slice(None, None, 7))
    count = windows.past.shape[1]

    def epoch(rng: np.random.Generator) -> Iterator[Batch]:
        order = rng.permutation(count)
        return (windows.batch(order[at : at + args.batch]) for at in range(0, count, args.batch))

    schedule = warmup_cosine(args.lr, args.steps, args.steps // 20)
    trainer = Trainer(
        model,
        loss,
        rnncore.Adam(model, lr=schedule),
        epoch,
        validate=lambda: evaluate(model, loss, [valid]),
        clip_norm=1.0,
        seed=args.seed,
    )
    trainer.fit(args.steps, validate_every=max(1, args.steps // 10))
    trainer.restore_best()
    return model


def linear(fitted: Windows, past: np.ndarray) -> np.ndarray:
    """Forecast by least squares."""

    def features(part: np.ndarray) -> np.ndarray:
        return np.concatenate([part.T, np.ones((part.shape[1], 1))], axis=1)

    weights, *_ = np.linalg.lstsq(features(fitted.past), fitted.future.T, rcond=None)
    return (features(past) @ weights).T


def plot(windows: Windows, forecasts: dict[str, np.ndarray], path: Path) -> None:
    """Draw one window with its forecasts, and the errors by how far they look ahead."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    at, ahead = windows.past.shape[1] // 2, np.arange(1, AHEAD + 1)
    left.plot(np.arange(1 - WINDOW, 1), windows.past[:, at], "k", linewidth=0.8)
    left.plot(ahead, windows.future[:, at], "k", linewidth=0.8, label="series")
    for name, forecast in forecasts.items():
        left.plot(ahead, forecast[:, at], label=name)
        right.plot(ahead, by_step(forecast, windows.future), label=name)
    left.set(xlabel="time", ylabel="x (standardised)")
    right.set(xlabel="steps ahead", ylabel="error / standard deviation", yscale="log")
    left.lines[1].set_zorder(9)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=4)
    figure.savefig(path, dpi=150)


def by_step(forecast: np.ndarray, future: np.ndarray) -> np.ndarray:
    """Root mean square error of each step ahead."""
    return np.sqrt(np.mean((forecast - future) ** 2, axis=1))


def main() -> None:
    """Train, and print the errors of all three."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--length", type=int, default=10_000, help="of the series")
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--noise", type=float, default=0.1, help="on what the decoder reads")
    parser.add_argument("--steps", type=int, default=1800)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=5e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw forecasts and errors")
    parser.add_argument("--quick", action="store_true", help="a few seconds, for tests")
    args = parser.parse_args()
    if args.quick:
        args.length, args.hidden, args.steps = 1500, 8, 20
    series = mackey_glass(args.length, np.random.default_rng(args.seed))
    cuts = [int(0.6 * args.length), int(0.8 * args.length)]
    mean, deviation = series[: cuts[0]].mean(), series[: cuts[0]].std()
    pieces = np.split((series - mean) / deviation, cuts)
    parts = dict(zip(("train", "valid", "test"), map(Windows.of, pieces), strict=True))

    started = time.perf_counter()
    model = train(parts, args)
    seconds, test = time.perf_counter() - started, parts["test"]
    forecasts = {
        "seq2seq": model(test.batch(slice(None)).inputs)[..., 0],
        "linear": linear(parts["train"], test.past),
        "persistence": np.broadcast_to(test.past[-1], test.future.shape),
    }
    shown = (1, 12, 42, AHEAD)
    print("| forecast by | all steps |", *(f"step {step} |" for step in shown))
    print("| --- |", " ".join(["---: |"] * (len(shown) + 1)))
    overall = {}
    for name, forecast in forecasts.items():
        errors = by_step(forecast, test.future)
        overall[name] = float(np.sqrt(np.mean(errors**2)))
        print(f"| {name} | {overall[name]:.4f} |", *(f"{errors[s - 1]:.4f} |" for s in shown))
    if args.plot:
        plot(test, forecasts, args.plot)
    print("result:", *(f"{k}={v:.4f}" for k, v in overall.items()), f"train_seconds={seconds:.0f}")


if __name__ == "__main__":
    main()
