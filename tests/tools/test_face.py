"""The public face of ``longthought.tools`` and the page that documents it."""

import re
from pathlib import Path

import pytest

from longthought import tools

DOCS = Path(__file__).parents[2] / "docs"


def snippets(page):
    return re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)


def test_names_are_sorted_and_there():
    assert tools.__all__ == sorted(tools.__all__)
    for name in tools.__all__:
        assert getattr(tools, name).__doc__


def test_tools_that_share_their_modules_name_are_the_functions():
    assert callable(tools.calculator)
    assert callable(tools.python)
    assert callable(tools.search)


@pytest.mark.parametrize("number", range(len(snippets("tools.md"))))
def test_the_page_on_tools_runs(number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(snippets("tools.md")[number], "docs/tools.md", "exec"), {"__name__": "__main__"})
