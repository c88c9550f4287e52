"""g2p-en's GRUs, from letters to phonemes, beside the package's own NumPy.

tests/support/published.py says where it is found. What it needs beside NumPy (taggers,
dictionaries) is no part of its model: stand-ins take its place.
"""

import importlib.util
import re
import sys
import warnings
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
import rnncore
from rnncore.batches import padded

from tests.support.compare import near
from tests.support.data import data
from tests.support.published import place

PAGE = Path(__file__).parents[2] / "docs" / "models" / "spelling_to_sound.md"
#: Long and short ones, and signs that the model does not know.
WORDS = ["activationist", "quantiser", "zyzzyva", "a", "mmmm", "naïve", "o'clock"]
WORDS += ["pneumonoultramicroscopicsilicovolcanoconiosis"]
#: Of the largest number, the project's bound for float32.
BOUND = 2e-5


@pytest.fixture
def theirs(monkeypatch):
    """The package's `G2p`."""
    path = place("g2p_en", "g2p.py", "g2p-en==2.1.0")
    for name in ("nltk", "nltk.corpus", "nltk.tokenize", "g2p_en.expand"):
        monkeypatch.setitem(sys.modules, name, MagicMock())
    spec = importlib.util.spec_from_file_location("g2p_en.g2p", path)
    module = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a string's escapes
        spec.loader.exec_module(module)
    module.construct_homograph_dictionary = dict  # which leaves its file open
    return module.G2p()


@pytest.fixture
def ours(theirs, monkeypatch):
    """What docs/models/spelling_to_sound.md makes of the package's arrays, by name."""
    folder = place("g2p_en", "__init__.py", "g2p-en==2.1.0").parents[1]
    monkeypatch.syspath_prepend(folder)
    names = {}
    for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(code, str(PAGE), "exec"), names)
    return names


def test_letters_and_phonemes(ours, theirs):
    assert ours["letters"] == theirs.graphemes
    assert ours["sounds"] == theirs.phonemes


def states_of_letters(theirs, word):
    """After each letter: (T, H)."""
    arrays = (theirs.enc_w_ih, theirs.enc_w_hh, theirs.enc_b_ih, theirs.enc_b_hh)
    return theirs.gru(theirs.encode(word), len(word) + 1, *arrays)[0]


def test_reading(ours, theirs):
    """All words at once give what each gives alone."""
    source, lengths = padded([ours["spelt"](word) for word in WORDS])
    y, _ = ours["encoder"](source, lengths=lengths)
    for row, word in enumerate(WORDS):
        near(y[: lengths[row], row], states_of_letters(theirs, word), BOUND)


def scores_of_phonemes(theirs, word, read):
    """Of each phoneme behind those that were read before it: (T, V)."""
    arrays = (theirs.dec_w_ih, theirs.dec_w_hh, theirs.dec_b_ih, theirs.dec_b_hh)
    h = states_of_letters(theirs, word)[-1:]
    said = theirs.gru(theirs.dec_emb[read][None], len(read), *arrays, h0=h)
    return said[0] @ theirs.fc_w.T + theirs.fc_b


def test_writing(ours, theirs, rng):
    read = np.concatenate([[2], rng.integers(4, 74, 12)])
    for word in WORDS:
        source = np.array(ours["spelt"](word))[:, None]
        scores = ours["model"](source, read[:, None])
        near(scores[:, 0], scores_of_phonemes(theirs, word, read), BOUND)


def check_words(ours, theirs, words):
    source, lengths = padded([ours["spelt"](word) for word in words])
    found = rnncore.search.greedy(ours["model"], source, lengths, **ours["rules"])
    for word, said in zip(words, found, strict=True):
        assert [ours["sounds"][token] for token in said.tokens] == theirs.predict(word), word


def test_words(ours, theirs):
    check_words(ours, theirs, WORDS)


def test_words_of_a_dictionary(ours, theirs, rng):
    lines = data("cmudict/cmudict.dict").read_text(encoding="utf-8").splitlines()
    words = [line.split()[0] for line in lines]
    check_words(ours, theirs, rng.choice([w for w in words if w.isalpha()], 300, replace=False))


def test_its_file(ours, tmp_path):
    """Saved and read again it says the same."""
    ours["model"].save(tmp_path / "g2p.safetensors")
    again = rnncore.load(tmp_path / "g2p.safetensors")
    spoken = [
        rnncore.search.greedy(model, ours["source"], ours["lengths"], **ours["rules"])
        for model in (ours["model"], again)
    ]
    for one, other in zip(*spoken, strict=True):
        assert one.log_prob == other.log_prob
        assert np.array_equal(one.tokens, other.tokens)
