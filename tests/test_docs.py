"""The code in README and docs runs as it stands, the blocks of a page one after the other."""

import inspect
import re
import runpy
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
    "import torch": "torch",
    "import pandas": "pandas",
    "joblib": "joblib",
    "statsmodels": "statsmodels",
    "vega_datasets": "vega_datasets",
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


def test_figures_of_the_summary_are_in_the_tables() -> None:
    summary, tables = PAGES["docs/benchmarks.md"].split("\n## How it was measured", 1)
    figures = re.findall(r"\b\d+\.\d\d\b", summary)
    assert len(figures) > 5
    assert [figure for figure in figures if figure not in tables] == []


def test_charts_show_what_the_tables_say(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    charts = runpy.run_path(str(ROOT / "docs" / "charts.py"))
    page = PAGES["docs/benchmarks.md"]
    means = charts["means"](list(charts["tables"](page)), "One thread")["torch"]
    for cell in ("lstm", "gru", "rnn"):  # as `must_show.py` has printed them
        claim = re.search(rf"{cell} training against PyTorch, geometric mean .*: (\S+) over", page)
        assert claim
        assert abs(means[f"{cell.upper()}\ntraining"] - float(claim[1])) < 0.01
    charts["draw"](ROOT / "docs" / "benchmarks.md", tmp_path)
    drawn = {chart.name for chart in tmp_path.iterdir()}
    assert drawn == set(re.findall(r"charts/(\S+\.svg)", page))


ENTRIES = [
    name
    for page, text in PAGES.items()
    if page.startswith("docs/api/")
    for name in re.findall(r"^\.\. auto\w+:: (\S+)$", text, re.MULTILINE)
]


def test_each_public_name_has_one_entry_on_the_api_pages() -> None:
    parts = [name for name in rnncore.__all__ if isinstance(getattr(rnncore, name), ModuleType)]
    public = [f"rnncore.{name}" for name in rnncore.__all__]
    public += [f"rnncore.{part}.{name}" for part in parts for name in own_names(part)]
    assert sorted(ENTRIES) == sorted(set(ENTRIES))
    assert sorted(set(public) - set(ENTRIES)) == []


def own_names(part: str) -> list[str]:
    """What a module such as `rnncore.losses` has that is not `rnncore`'s too."""
    module = getattr(rnncore, part)
    own = {
        n for n, value in vars(module).items() if inspect.isroutine(value) or inspect.isclass(value)
    }
    own = {n for n in own if getattr(module, n).__module__ == module.__name__ and n[0] != "_"}
    return sorted((set(getattr(module, "__all__", own)) & own) - set(rnncore.__all__))


def test_the_glossary_refers_to_entries_and_has_words_that_people_look_for() -> None:
    page = PAGES["docs/glossary.md"]
    terms = re.findall(r"^([^\s`#].*)\n  \S", page, re.MULTILINE)
    assert {"backward", "CIFG", "pooling", "Sequential"} <= set(terms)
    for name in re.findall(r"{py:obj}`[^`]*?(rnncore\.[\w.]+)", page):
        assert name in ENTRIES or name.rpartition(".")[0] in ENTRIES, name


@pytest.mark.parametrize("name", rnncore.__all__)
def test_signatures_say_what_is_taken(name: str) -> None:
    value = getattr(rnncore, name)
    if not inspect.isclass(value) and not inspect.isfunction(value):
        pytest.skip("neither a class nor a function of Python")
    calls = [getattr(value, call, None) for call in ("__call__", "vjp") if inspect.isclass(value)]
    for called in [value, *filter(inspect.isfunction, calls)]:
        assert "*args" not in str(inspect.signature(called))
