"""The code in README and docs runs as it stands, the blocks of a page one after the other."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CODE = {
    page.name: re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    for page in [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
}
EXTRAS = {"plot": "matplotlib", "rnncore.estimators": "sklearn"}


@pytest.mark.parametrize("page", [name for name, blocks in CODE.items() if blocks])
def test_page(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for word, module in EXTRAS.items():
        if word in "".join(CODE[page]):
            pytest.importorskip(module)
    monkeypatch.chdir(tmp_path)  # what they save is saved here
    names: dict[str, object] = {}
    for code in CODE[page]:
        exec(compile(code, page, "exec"), names)
    if isinstance(names.get("value"), float):  # a training loop: it has learnt something
        assert names["value"] < 0.35
