"""scikit-learn's handwritten digits, read row by row: sequences of 8 steps of 8 pixels.

A pipeline of scaler and classifier is cross-validated on two thirds of the images, fitted to
them, and tested on the third that it has not seen.

    python examples/digits.py --plot digits.png
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from rnncore.estimators import SequenceClassifier, SequenceScaler
from rnncore.training.plots import require_matplotlib
from sklearn.datasets import load_digits
from sklearn.metrics import confusion_matrix
from sklearn.model_selection import cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few passes, to see that it runs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", metavar="FILE", help="save the losses (needs matplotlib)")
    args = parser.parse_args()
    if args.plot:
        require_matplotlib()
    images, digits = load_digits(return_X_y=True)
    train, test, train_digits, test_digits = train_test_split(
        images.reshape(-1, 8, 8), digits, test_size=1 / 3, random_state=args.seed, stratify=digits
    )
    classifier = SequenceClassifier(
        cell="gru",
        hidden_size=48,
        dropout=0.2,
        bidirectional=True,
        max_iter=8 if args.quick else 50,
        random_state=args.seed,
        verbose=True,
    )
    model = make_pipeline(SequenceScaler(), classifier)
    if not args.quick:
        scores = cross_val_score(model, train, train_digits, cv=3)
        print(f"cross-validation: {np.round(scores, 4)}")
    started = time.perf_counter()
    model.fit(train, train_digits)
    seconds = time.perf_counter() - started
    print(confusion_matrix(test_digits, model.predict(test)))
    if args.plot:
        classifier.plot_history(args.plot)
    print(f"result: accuracy={model.score(test, test_digits):.4f} seconds={seconds:.1f}")


if __name__ == "__main__":
    main()
