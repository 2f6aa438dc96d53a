"""The tool ``search`` on the real FTS5: hostile queries, changing folders, links, odd files."""

import os
import sqlite3

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from longthought.errors import InvalidInput
from longthought.tools import Tool, ToolCall, ToolContext, run_tool, search
from longthought.tools.passages import MAX_FILE_BYTES, MAX_PASSAGE_CHARS, split


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "notes"
    (root / "deep").mkdir(parents=True)
    (root / "boats.md").write_text(
        "# Boats\n\nSailing boats need wind.\n\n## Anchors\n\nAn anchor holds the boat.\n"
    )
    (root / "deep" / "fish.txt").write_text("Fish swim.\n\nHerrings were swimming in schools.")
    (root / "picture.png").write_bytes(b"sailing boats")
    (root / ".hidden.md").write_text("sailing in secret")
    return root


@pytest.fixture
async def tool(folder):
    it = search(folder)
    yield it
    await it.aclose()


async def find(tool, query):
    return await run_tool(tool, ToolCall("c1", "search", {"query": query}))


def files(result):
    return [hit["file"] for hit in result.data]


def test_it_is_a_reading_tool_whose_fingerprint_names_the_folder(folder):
    it = search(folder, top=3)
    assert isinstance(it, Tool)
    assert it.spec.effect == "read"
    assert it.spec.fingerprint()["options"] == {"folder": "notes", "top": 3}
    assert str(folder) not in str(it.spec.fingerprint())


@pytest.mark.parametrize("top", [0, 51])
def test_top_has_bounds(folder, top):
    with pytest.raises(InvalidInput):
        search(folder, top=top)


def test_a_missing_folder_is_refused(folder):
    for wrong in (folder / "nowhere", folder / "boats.md"):
        with pytest.raises(InvalidInput, match="is no folder"):
            search(wrong)


async def test_finds_by_stem_with_file_heading_and_snippet(tool):
    result = await find(tool, "swim")
    assert files(result) == ["deep/fish.txt"]
    result = await find(tool, "what does an anchor do?")
    assert result.data[0] == {
        "file": "boats.md",
        "heading": "Anchors",
        "snippet": "An anchor holds the boat.",
    }
    assert result.content.startswith("1. boats.md | Anchors\nAn anchor holds the boat.")


async def test_only_text_files_that_are_not_hidden(tool):
    assert files(await find(tool, "sailing")) == ["boats.md"]


async def test_nothing_found_is_no_error(tool):
    result = await find(tool, "zeppelin")
    assert (result.status, result.data) == ("ok", [])
    assert "Nothing was found" in result.content


@pytest.mark.parametrize("query", ["", "  ", "?!", "***", '"'])
async def test_queries_without_words(tool, query):
    assert (await find(tool, query)).status == "tool_error"


@pytest.mark.parametrize(
    "query",
    [
        'boats"',
        "boats OR",
        "NEAR(boats",
        "heading: boats",
        "boats*",
        "-boats",
        "^boats",
        "{boats}",
        "boats' ; DROP TABLE passages; --",
        "boats\x00",
        "boats \ud800",
        "boats " * 5000,
        "BOATS",
        "b\u00f6ats boats",
    ],
)
async def test_no_query_is_read_as_syntax(tool, query):
    assert "boats.md" in files(await find(tool, query))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(st.text(max_size=80))
def test_any_query_is_answered(folder, query):
    import asyncio

    it = search(folder)
    assert asyncio.run(find(it, query)).status in ("ok", "tool_error")
    asyncio.run(it.aclose())


async def test_new_changed_and_deleted_files_are_noticed(tool, folder):
    assert not files(await find(tool, "volcano"))
    (folder / "new.md").write_text("# Volcano\n\nLava flows.")
    assert files(await find(tool, "volcano")) == ["new.md"]
    (folder / "new.md").write_text("# Glacier\n\nIce flows slowly.")
    assert not files(await find(tool, "volcano"))
    assert files(await find(tool, "glacier")) == ["new.md"]
    (folder / "new.md").unlink()
    assert not files(await find(tool, "glacier"))


async def test_links_out_of_the_folder_are_not_followed(tool, folder, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.md").write_text("the unicorn password")
    (folder / "link.md").symlink_to(outside / "secret.md")
    (folder / "linked").symlink_to(outside)
    (folder / "circle.md").symlink_to(folder / "circle.md")
    (folder / "inside.md").symlink_to(folder / "boats.md")
    assert not files(await find(tool, "unicorn"))
    assert set(files(await find(tool, "anchor"))) == {"boats.md", "inside.md"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
async def test_a_named_pipe_does_not_hang_the_search(tool, folder):
    os.mkfifo(folder / "pipe.md")
    assert files(await find(tool, "anchor")) == ["boats.md"]


async def test_odd_files(tool, folder):
    (folder / "latin.txt").write_bytes(b"caf\xe9 terrace")
    (folder / "bom.txt").write_bytes(b"\xef\xbb\xbfmarmalade")
    (folder / "empty.md").write_bytes(b"")
    (folder / "zeros.txt").write_bytes(b"\x00" * 1000 + b" walrus")
    (folder / "line.txt").write_text("penguin " * 100_000)
    (folder / "UPPER.MD").write_text("giraffe")
    for word in ("terrace", "marmalade", "walrus", "penguin", "giraffe"):
        assert len(set(files(await find(tool, word)))) == 1, word


async def test_of_a_large_file_the_beginning_is_read(tool, folder):
    text = b"aardvark\n\n" + b"word " * (MAX_FILE_BYTES // 5) + b"\n\nzymurgy"
    (folder / "large.txt").write_bytes(text)
    assert files(await find(tool, "aardvark")) == ["large.txt"]
    assert not files(await find(tool, "zymurgy"))


async def test_a_cache_file_saves_reading_again(folder, tmp_path):
    cache = tmp_path / "index.db"
    first = search(folder, cache=cache)
    assert files(await find(first, "anchor")) == ["boats.md"]
    await first.aclose()
    status = (folder / "boats.md").stat()
    (folder / "boats.md").write_bytes(b"x" * status.st_size)  # same size, time put back
    os.utime(folder / "boats.md", ns=(status.st_atime_ns, status.st_mtime_ns))
    second = search(folder, cache=cache)
    assert files(await find(second, "anchor")) == ["boats.md"]
    await second.aclose()
    await second.aclose()


async def test_a_cache_that_is_something_else_is_left_alone(folder, tmp_path):
    text = tmp_path / "text.db"
    text.write_text("not a database at all, but long enough to be one" * 20)
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE mine (a)")
    connection.close()
    for cache in (text, other):
        before = cache.read_bytes()
        result = await find(search(folder, cache=cache), "anchor")
        assert result.status == "tool_error"
        assert "cache" in result.content
        assert cache.read_bytes() == before


async def test_many_searches_at_once(tool):
    import asyncio

    results = await asyncio.gather(*[find(tool, "anchor") for _ in range(20)])
    assert {tuple(files(result)) for result in results} == {("boats.md",)}


async def test_calling_it_directly_checks_arguments(tool):
    for wrong in ({}, {"query": 3}, {"query": "a", "x": 1}):
        with pytest.raises(InvalidInput):
            await tool.call(wrong, ToolContext())


def test_passages_keep_headings_and_stay_small():
    found = list(split("intro\n\n# A\n\n" + "long " * 1000 + "\n\n# B\n\n# C\n\nend"))
    assert [p.heading for p in found] == ["", "A", "A", "A", "A", "B", "C"]
    assert max(len(p.body) for p in found) <= MAX_PASSAGE_CHARS
    assert found[-2].body == "B"


def test_headings_inside_code_are_no_headings():
    found = list(split("# A\n\n```\n# comment\n```\n"))
    assert [(p.heading, p.body) for p in found] == [("A", "```\n# comment\n```")]


@given(st.text(alphabet="# `~\n ab", max_size=200))
def test_splitting_loses_no_letters(text):
    joined = "".join(p.heading + p.body for p in split(text))
    assert {c for c in text if c in "ab"} <= set(joined)
