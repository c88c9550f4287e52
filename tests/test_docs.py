"""The code in README and docs runs as it stands, the blocks of a page one after the other."""

import re
from pathlib import Path
from types import ModuleType

import pytest
import rnncore

ROOT = Path(__file__).parent.parent
CODE = {
    page.name: re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    for page in [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
}
EXTRAS = {"plot": "matplotlib", "rnncore.estimators": "sklearn", "rnncore.torch": "torch"}


@pytest.mark.parametrize("page", [name for name, blocks in CODE.items() if blocks])
def test_page(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for word, module in EXTRAS.items():
        if word in "".join(CODE[page]):
            pytest.importorskip(module)
    monkeypatch.chdir(tmp_path)  # what they save is saved here
    names: dict[str, object] = {}
    for code in CODE[page]:
        exec(compile(code, page, "exec"), names)
    if page in ("README.md", "quick_start.md"):  # their training loop has learnt something
        assert float(str(names["value"])) < 0.35


def test_the_api_page_has_every_public_name() -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    modules = dict(re.findall(r"automodule:: (\S+)\n   :members:(.*)\n", page))
    missing = []
    for name in rnncore.__all__:
        value = getattr(rnncore, name)
        if isinstance(value, ModuleType):
            listed = value.__name__ in modules
        else:
            members = modules.get(value.__module__)
            listed = members is not None and (not members or name in members.strip().split(", "))
        if not listed and f" rnncore.{name}\n" not in page:
            missing.append(name)
    assert not missing
