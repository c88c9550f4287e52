"""
Classify sequences
==================

An LSTM reads images of handwritten digits row by row: sequences of 8 steps with 8 pixels each.
``SequenceClassifier`` follows scikit-learn, so a pipeline with a scaler serves as usual.

Data: the 1,797 digits that ship with scikit-learn.
"""

import matplotlib.pyplot as plt
from rnncore.estimators import SequenceClassifier, SequenceScaler
from sklearn.datasets import load_digits
from sklearn.metrics import ConfusionMatrixDisplay
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline

digits = load_digits()
train, test, y_train, y_test = train_test_split(
    digits.images, digits.target, test_size=1 / 3, random_state=0
)

# %%
# 20 passes over 1,198 images.

model = make_pipeline(SequenceScaler(), SequenceClassifier(max_iter=20, random_state=0))
model.fit(train, y_train)
print(f"right: {model.score(test, y_test):.1%} of {len(test)} images never seen")

# %%
# Which digits are taken for which.

figure, axes = plt.subplots(figsize=(5, 5), layout="constrained")
ConfusionMatrixDisplay.from_estimator(
    model, test, y_test, ax=axes, cmap="Blues", colorbar=False
)

# %%
# The larger program, with cross-validation: ``examples/digits.py``.
