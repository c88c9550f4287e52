"""The code in the README runs as it stands."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("code", BLOCKS, ids=["inference", "training"])
def test_readme_example(code: str) -> None:
    names: dict[str, object] = {}
    exec(code, names)
    if "value" in names:  # the training loop: it has learnt something
        assert float(str(names["value"])) < 0.35
