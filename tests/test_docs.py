"""The code in README and docs runs as it stands, the blocks of a page one after the other."""

import re
from pathlib import Path
from types import ModuleType

import pytest
import rnncore

from tests.support.published import place

ROOT = Path(__file__).parent.parent
PAGES = {
    page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8")
    for page in [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
}
EXTRAS = {
    "plot": "matplotlib",
    "rnncore.estimators": "sklearn",
    "rnncore.torch": "torch",
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
    "PIL": "PIL",
}


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGES[page], re.DOTALL)


def find_packages(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a page find what it asks for; the test is skipped, with the reason, where it is not."""
    code = "".join(blocks(page, "python"))
    for word, module in EXTRAS.items():
        if word in code:
            pytest.importorskip(module)
    for project in re.findall(r"pip install --no-deps (\S+)", PAGES[page]):
        package = project.split("==")[0].replace("-", "_")
        monkeypatch.syspath_prepend(place(package, "__init__.py", project).parents[1])


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")])
def test_page(
    page: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    find_packages(page, monkeypatch)
    monkeypatch.chdir(tmp_path)  # what they save is saved here
    names: dict[str, object] = {}
    for code in blocks(page, "python"):
        exec(compile(code, page, "exec"), names)
    printed = capsys.readouterr().out
    assert [output for output in blocks(page, "output") if output not in printed] == []
    if page in ("README.md", "docs/quick_start.md"):  # their training loop has learnt something
        assert float(str(names["value"])) < 0.35


def test_the_api_page_has_every_public_name() -> None:
    page = PAGES["docs/api.md"]
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
