"""The picture: valid XML with every series in it, nothing on top of another, whole on the disk."""

from __future__ import annotations

import json
import re
import stat
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longthought import Store
from longthought.errors import InvalidInput
from longthought.orchestrator.curves import Curve, measure
from longthought.orchestrator.curves.output import chart_of, write_curve, write_whole
from longthought.orchestrator.curves.picture import Chart, Panel, Series, Spot
from tests.curves.scripted import model, questions, setup

SVG = "{http://www.w3.org/2000/svg}"
TEXT = st.text(max_size=60)
SHARE = st.floats(0, 1)


def series(label: str, *xs: float, mark: str = "line") -> Series:
    spots = tuple(Spot(x, 0.4 + n / 50, 0.3, 0.7) for n, x in enumerate(xs or (1.0, 2.0, 4.0)))
    return Series(label, spots, mark)  # type: ignore[arg-type]


def texts(svg: str) -> list[ET.Element]:
    return list(ET.fromstring(svg).iter(f"{SVG}text"))


def test_every_series_is_named_beside_its_end_and_none_overlaps() -> None:
    marks = ["line", "line", "oracle", "control", "point", "line"]
    drawn = tuple(series(f"way <{n}> & ü", 1.0, 8.0, mark=m) for n, m in enumerate(marks))
    svg = Chart("a & b", (Panel("", drawn),), "sub", "tokens").to_svg()
    labels = [text for text in texts(svg) if (text.text or "").startswith("way")]
    assert sorted(text.text or "" for text in labels) == [f"way <{n}> & ü" for n in range(6)]
    heights = sorted(float(text.get("y", "")) for text in labels)
    assert all(b - a >= 16 for a, b in pairwise(heights))
    strokes = [path.get("class") or "" for path in ET.fromstring(svg).iter(f"{SVG}path")]
    assert any(" o " in f"{name} " for name in strokes)  # dashed
    assert any("k c" in name for name in strokes)  # grey
    assert "prefers-color-scheme:dark" in svg


def test_several_panels_share_one_legend_and_its_colours() -> None:
    panels = (
        Panel("first", (series("a"), series("b"))),
        Panel("second", (series("b"), series("c", mark="point"))),
        Panel("third", (series("a"), Series("b", ()))),
        Panel("fourth", ()),
    )
    svg = Chart("all", panels).to_svg()
    said = [text.text for text in texts(svg)]
    assert [said.count(name) for name in ("a", "b", "c")] == [1, 1, 1]
    assert [said.count(name) for name in ("first", "second", "third", "fourth")] == [1] * 4
    colour = {
        name: set(re.findall(rf'class="n (s\d)"[^>]*><title>{name}<', svg)) for name in ("a", "b")
    }
    assert len(colour["a"]) == len(colour["b"]) == 1
    assert colour["a"] != colour["b"]
    assert all(path.get("d") != "M" for path in ET.fromstring(svg).iter(f"{SVG}path"))


@given(
    title=TEXT,
    labels=st.lists(TEXT, max_size=9, unique=True),
    x=st.floats(1e-6, 1e12),
    shares=st.tuples(SHARE, SHARE, SHARE).map(sorted),
    panels=st.integers(1, 5),
)
@settings(max_examples=60, deadline=None)
def test_whatever_is_in_it_it_is_valid(
    title: str, labels: list[str], x: float, shares: list[float], panels: int
) -> None:
    low, y, high = shares
    spots = (Spot(x, y, low, high), Spot(x * 2, y, low, high))
    drawn = tuple(
        Series(label, spots[: 1 + n % 2], ("line", "point", "oracle", "control")[n % 4])
        for n, label in enumerate(labels)
    )
    svg = Chart(title, tuple(Panel(title, drawn) for _ in range(panels)), title).to_svg()
    root = ET.fromstring(svg)
    assert root.tag == f"{SVG}svg"
    width, height = float(root.get("width", "")), float(root.get("height", ""))
    for text in texts(svg):
        assert 0 <= float(text.get("x", "")) <= width
        assert 0 <= float(text.get("y", "")) <= height
    assert "nan" not in svg.lower()


def test_a_chart_needs_a_panel() -> None:
    with pytest.raises(ValueError, match="a panel"):
        Chart("empty", ()).to_svg()


@pytest.fixture
async def measured(sqlite_store: Store) -> Curve:
    return await measure(
        questions({"a?": "1", "b?": "2"}),
        setup(model({"a?": ["1", "2"], "b?": ["1", "2"]})),
        sqlite_store,
        samples=2,
        strategies=("majority", "greedy", "pass"),
        resamples=100,
    )


def test_a_curve_is_written_whole(measured: Curve, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "er"
    for _ in range(2):
        data, picture = write_curve(measured, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["curve.json", "curve.svg"]
    assert stat.S_IMODE(data.stat().st_mode) == 0o644
    assert json.loads(data.read_text()) == measured.to_json()
    said = [text.text for text in texts(picture.read_text())]
    for line in measured.lines:
        assert line.label in said
    assert "scripted on numbers" in said


def test_every_axis_can_be_drawn(measured: Curve) -> None:
    for axis in ("output", "tokens", "samples"):
        ET.fromstring(chart_of([measured, measured], axis).to_svg())  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="no axis 'time'"):
        chart_of([measured], "time")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="none to draw"):
        chart_of([])


def test_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here")
    with pytest.raises(InvalidInput, match="cannot be written"):
        write_whole(tmp_path / "file" / "curve.json", "{}")
    with pytest.raises(UnicodeEncodeError):
        write_whole(tmp_path / "b.json", "\ud800")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_the_json_has_its_fields(measured: Curve) -> None:
    value = measured.to_json()
    assert list(value) == [
        *("format", "set", "model", "verifier", "system", "sampling", "samples", "seed"),
        *("resamples", "lines", "groups", "differences", "unanswered", "failed_samples"),
        *("spent", "questions"),
    ]
    assert set(value["lines"][0]) == {"name", "label", "kind", "points"}
    assert set(value["lines"][0]["points"][0]) == {
        *("size", "accuracy", "low", "high", "samples", "prompt_tokens", "cached_tokens"),
        *("output_tokens", "calls", "usd", "tokens"),
    }
    assert set(value["differences"][0]) == {
        *("a", "b", "size", "difference", "low", "high", "excludes_zero"),
    }
    assert set(value["questions"][0]) == {"id", "right", "samples", "runs"}
    assert set(value["set"]) == {"name", "questions", "digest", "answer", "controls"}
    assert value["format"] == 1


def test_lines_keep_colours_of_their_own_beside_many_points() -> None:
    points = [series(f"point {n}", 2.0, mark="point") for n in range(9)]
    lines = [series(f"line {n}") for n in range(2)]
    svg = Chart("many", (Panel("one", (lines[0], *points, lines[1])), Panel("two", ()))).to_svg()
    drawn = [path.get("class") or "" for path in ET.fromstring(svg).iter(f"{SVG}path")]
    strokes = {name.split()[-1] for name in drawn if name.startswith("n ")}
    assert len(strokes) == 2


@pytest.mark.parametrize("share", [0.0, 0.003, 0.5, 1.0])
def test_figures_that_are_all_alike_have_an_axis_within_0_and_100(share: float) -> None:
    spots = tuple(Spot(x, share, share, share) for x in (1.0, 8.0))
    svg = Chart("alike", (Panel("", (Series("a", spots),)),)).to_svg()
    marks = [
        float((t.text or "").removesuffix(" %")) for t in texts(svg) if t.get("class") == "a e"
    ]
    assert len(marks) >= 4
    assert 0 <= min(marks) <= 100 * share <= max(marks) <= 100
