"""Each line of the tables of names runs, in the other library and here."""

import contextlib
import importlib
import io
import re
import warnings
from pathlib import Path
from typing import Any

import pytest

from tests.test_docs import PAGES, blocks, find_packages

#: The other library's name in the head of its tables, and the package.
LIBRARIES = {
    "docs/coming_from_pytorch.md": ("PyTorch", "torch"),
    "docs/coming_from_keras.md": ("Keras", "keras"),
    "docs/coming_from_scikit_learn.md": ("scikit-learn", "sklearn"),
}
OURS = """
from rnncore.estimators import *
from rnncore.training import Trainer
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
"""
SKLEARNS = """
import numpy as np
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.preprocessing import StandardScaler

table_model = MLPClassifier(max_iter=3, random_state=0)
rng = np.random.default_rng(0)
table, y = rng.standard_normal((90, 4)), rng.integers(2, size=90)
"""


def rows(page: str) -> list[list[str]]:
    """The cells of the lines of all tables of names: theirs, ours, a remark."""
    heading = rf"^\| {LIBRARIES[page][0]} \| rnncore \|.*\n\|[-|]+\n((?:\|.*\n)+)"
    lines = "".join(re.findall(heading, PAGES[page], re.MULTILINE)).splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def run(code: str, names: dict[str, Any]) -> None:
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # three steps are no training
        exec(code, names)


def failures(page: str, column: int, names: dict[str, Any]) -> list[str]:
    found = []
    for row in rows(page):
        for code in re.findall("`(.+?)`", row[column]):
            try:
                run(code, names)
            except Exception as error:
                found.append(f"{code}: {error!r}")
    return found


@pytest.mark.parametrize("page", LIBRARIES)
def test_our_names(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find_packages(page, monkeypatch)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for code in blocks(page, "python"):
        run(code, names)
    if "sklearn" in LIBRARIES[page]:
        run(OURS, names)
    assert len(rows(page)) > 10
    assert failures(page, 1, names) == []


@pytest.mark.parametrize("page", LIBRARIES)
def test_their_names(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = LIBRARIES[page][1]
    pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {package: importlib.import_module(package)}
    if package == "torch":
        run(blocks(page, "python")[0], names)  # their half of the comparison
    if package == "sklearn":
        run(SKLEARNS, names)
    assert failures(page, 0, names) == []
