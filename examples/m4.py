"""Forecasts of a frequency of the M4 competition: points and 95 % intervals of all its series.

    python examples/m4.py --train Hourly-train.csv.gz --test Hourly-test.csv.gz \\
        --horizon 48 --season 24

One network for all series (`rnncore.forecasting.GlobalForecaster`), several of them from other
seeds. First the last values of each series, as many as are to be forecast, are held out: that is
what choices are made by, and the intervals are corrected by. Then all is learnt again with them.
The test part is read once that is done. Scores are the competition's: sMAPE, MASE, and MSIS and
coverage of 95 % intervals, means over series (Makridakis, Spiliotis and Assimakopoulos 2020).
"""

from __future__ import annotations

import argparse
import csv
import gzip
import time
from pathlib import Path

import numpy as np
from rnncore.forecasting import GlobalForecaster, SeasonalNaive, coverage, mase, msis, smape

LEVELS = (0.025, 0.1, 0.25, 0.5, 0.75, 0.9, 0.975)


def read(path: Path, most: int | None) -> list[np.ndarray]:
    """Read the series of a file, a row each: a name, then the values."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        next(rows)
        found = [np.array([float(value) for value in row[1:] if value]) for row in rows]
    return found[:most]


def score(
    stage: str, actual: np.ndarray, known: list[np.ndarray], season: int, quantiles: np.ndarray
) -> dict[str, float]:
    """Print a row of scores of quantiles (N, H, 3): the interval around the median."""
    low, middle, high = np.moveaxis(quantiles, -1, 0)
    found = {
        "smape": np.mean(smape(actual, middle)),
        "mase": np.nanmean(mase(actual, middle, known, season)),
        "msis": np.nanmean(msis(actual, low, high, known, season)),
        "coverage": 100 * np.mean(coverage(actual, low, high)),
    }
    print(f"| {stage} |", " | ".join(f"{value:.3f}" for value in found.values()), "|", flush=True)
    return {name: float(value) for name, value in found.items()}


def naive(known: list[np.ndarray], args: argparse.Namespace) -> np.ndarray:
    """Return the quantiles of the seasonal naive forecast."""
    model = SeasonalNaive(args.horizon, args.season, (0.025, 0.5, 0.975)).fit(known)
    return np.asarray(model.predict_quantiles())


def main() -> None:
    """Hold out, choose, learn, forecast, and only then look at the test part."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--horizon", type=int, required=True, help="how many values to forecast")
    parser.add_argument("--season", type=int, required=True, help="how many values a season has")
    parser.add_argument("--members", type=int, default=6)
    parser.add_argument("--updates", type=int, default=6000)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--series", type=int, help="only the first so many")
    parser.add_argument("--validate", action="store_true", help="hold out, print, and stop there")
    parser.add_argument("--quick", action="store_true", help="a few seconds, for tests")
    args = parser.parse_args()
    if args.quick:
        args.members, args.updates, args.hidden, args.series = 2, 30, 16, args.series or 20
    started = time.perf_counter()
    train = read(args.train, args.series)
    model = GlobalForecaster(
        horizon=args.horizon,
        season=args.season,
        quantiles=LEVELS,
        members=args.members,
        updates=args.updates,
        hidden_size=args.hidden,
        calibrate=True,
        verbose=False,
        seed=args.seed,
    )
    print("| | sMAPE | MASE | MSIS | coverage |\n| --- | ---: | ---: | ---: | ---: |", flush=True)
    before = [series[: -args.horizon] for series in train]
    tail = np.stack([series[-args.horizon :] for series in train])
    score("held out: seasonal naive", tail, before, args.season, naive(before, args))
    if args.validate:
        model.calibrate = False
        model.fit(before)
        score("held out", tail, before, args.season, model.predict_quantiles()[..., [0, 3, 6]])
        return
    model.fit(train)
    actual, held_out = model.held_out_
    score("held out", actual, before, args.season, held_out[..., [0, 3, 6]])
    found = np.asarray(model.predict_quantiles())
    test = np.stack(read(args.test, args.series))
    score("test: seasonal naive", test, train, args.season, naive(train, args))
    scores = score("test", test, train, args.season, found[..., [0, 3, 6]])
    seconds = time.perf_counter() - started
    print(
        "result: smape={smape:.3f} mase={mase:.4f} msis={msis:.3f} coverage={coverage:.1f}".format(
            **scores
        ),
        f"seconds={seconds:.0f}",
    )


if __name__ == "__main__":
    main()
