"""The public face of ``longthought.verifiers`` and the page that documents it."""

import re
from pathlib import Path

import pytest

from longthought import verifiers

DOCS = Path(__file__).parents[2] / "docs"


def snippets(page):
    return re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)


def test_names_are_sorted_and_there():
    for face in (verifiers, verifiers.answers):
        assert face.__all__ == sorted(face.__all__)
        for name in face.__all__:
            assert getattr(face, name).__doc__


@pytest.mark.parametrize("number", range(len(snippets("verifiers.md"))))
def test_the_page_on_verifiers_runs(number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = compile(snippets("verifiers.md")[number], "docs/verifiers.md", "exec")
    exec(code, {"__name__": "__main__"})
