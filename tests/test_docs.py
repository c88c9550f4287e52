"""The code in the docs runs as it stands, the blocks of a page one after the other."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
CODE = {
    page.name: re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    for page in sorted(DOCS.glob("*.md"))
}


@pytest.mark.parametrize("page", [name for name, blocks in CODE.items() if blocks])
def test_page(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "plot(" in "".join(CODE[page]):
        pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for code in CODE[page]:
        exec(code, names)
