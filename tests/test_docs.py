"""The code in the docs runs as it stands, page by page."""

import re
from pathlib import Path

import pytest

PAGES = {page.name: page.read_text("utf-8") for page in Path(__file__).parents[1].glob("docs/*.md")}


@pytest.mark.parametrize("page", sorted(name for name in PAGES if "```python" in PAGES[name]))
def test_page(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # what they save is saved here
    names = {}
    for block in re.findall(r"```python\n(.*?)```", PAGES[page], re.DOTALL):
        exec(block, names)
