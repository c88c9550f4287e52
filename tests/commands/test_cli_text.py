"""What the commands read and print: text with a mark, terminals of few characters, devices."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from rnncore import GRU, load
from rnncore.cli import main
from rnncore.commands.options import check_writable, read_text
from rnncore.convert import from_torch
from rnncore.text import CharConfig, CharModel, Vocabulary

SNOW = "abc ☃数é"
SMALL = ["--hidden", "4", "--embedding", "2", "--batch", "2", "--length", "8", "--steps", "2"]


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "model"
    CharModel(Vocabulary.of(SNOW), CharConfig(hidden=8, embedding=4), seed=0).save(path)
    return str(path)


def rnncore(*argv: str, **environment: str) -> bytes:
    """Run the command in a process of its own, and return what it prints."""
    inherited = {n: v for n, v in os.environ.items() if n not in ("PYTHONIOENCODING", "PYTHONUTF8")}
    done = subprocess.run(
        [sys.executable, "-m", "rnncore", *argv], env=inherited | environment, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-8"])
def test_a_mark_is_not_part_of_the_text(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text(f"{SNOW}\ufeff", encoding=encoding)
    assert read_text(str(path)) == f"{SNOW}\ufeff"  # within a text it is a character
    path.write_text(SNOW * 20, encoding=encoding)
    assert main(["train", "--text", str(path), "--out", str(tmp_path / "model"), *SMALL]) == 0
    assert CharModel.from_file(tmp_path / "model").vocabulary.characters == "".join(sorted(SNOW))


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1", "utf-8"])
def test_a_sample_is_printed_in_every_encoding(encoding: str, model: str) -> None:
    sample = ["sample", model, "--prompt", "a", "--length", "200", "--seed", "1"]
    said = rnncore(*sample, PYTHONIOENCODING=encoding).decode(encoding)
    whole = rnncore(*sample, PYTHONIOENCODING="utf-8").decode()
    assert said == whole.encode(encoding, "backslashreplace").decode(encoding)
    assert set(SNOW) <= set(whole)


def test_where_nobody_chose_and_no_terminal_reads_text_is_utf_8(model: str) -> None:
    sample = ["sample", model, "--prompt", "a", "--length", "200", "--seed", "1"]
    narrow = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    assert set(SNOW) <= set(rnncore(*sample, **narrow).decode())


def test_train_and_demo_print_what_a_terminal_lacks(tmp_path: Path) -> None:
    text = tmp_path / "数.txt"
    text.write_text(SNOW * 40, encoding="utf-8")
    out = str(tmp_path / "☃")
    said = rnncore("train", "--text", str(text), "--out", out, *SMALL, PYTHONIOENCODING="ascii")
    assert rb"is saved as" in said
    assert rb"\u2603" in said


def test_a_model_for_nobody(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A device is written into; beside it lies no checkpoint, from which none can be resumed."""
    text, nowhere = tmp_path / "text", tmp_path / "nowhere"
    text.write_text(SNOW * 40, encoding="utf-8")
    nowhere.symlink_to("/dev/null")
    assert main(["train", "--text", str(text), "--out", str(nowhere), *SMALL]) == 0
    assert sorted(os.listdir(tmp_path)) == ["nowhere", "text"]
    assert not os.path.exists("/dev/null.checkpoint")
    assert main(["train", "--text", str(text), "--out", str(nowhere), "--resume"]) == 2
    assert "is no regular file, and has no checkpoint" in capsys.readouterr().err


def test_a_checkpoints_name_may_be_too_long(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, out = tmp_path / "text", tmp_path / ("n" * 250)
    text.write_text(SNOW * 40, encoding="utf-8")
    check_writable(out)
    assert main(["train", "--text", str(text), "--out", str(out), *SMALL]) == 2
    assert "name too long" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["text"]


def test_suffixes_in_capitals(tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="the package onnx reads and writes the format")
    gru = GRU(2, 3, seed=0)
    names = ["a.SAFETENSORS", "b.JSON", "c.Safetensors", "d.Onnx", "e.safetensors"]
    gru.save(tmp_path / names[0])
    for source, target in pairwise(str(tmp_path / name) for name in names):
        assert main(["convert", source, target]) == 0
    x = np.ones((3, 1, 2), "float32")
    np.testing.assert_allclose(load(tmp_path / names[-1])(x)[0], gru(x)[0], atol=1e-6)
    for name in ("w.PT", "w.Ckpt"):
        with pytest.raises(FileNotFoundError, match=name):  # torch would read it
            from_torch(tmp_path / name)
