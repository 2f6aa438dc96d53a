"""What a curve is written to: ``curve.json`` and ``curve.svg``, whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from longthought.errors import InvalidInput
from longthought.orchestrator.curves.costs import Cost
from longthought.orchestrator.curves.curve import Curve, Line
from longthought.orchestrator.curves.picture import Chart, Mark, Panel, Series, Spot

__all__ = ["AXES", "Axis", "chart_of", "panel_of", "write_curve", "write_whole"]

Axis: TypeAlias = Literal["output", "tokens", "samples"]
"""What stands on the x axis: output tokens, all tokens, or samples; means per question."""

AXES: dict[Axis, str] = {
    "output": "output tokens per question",
    "tokens": "tokens per question, prompt and output",
    "samples": "samples per question",
}


def panel_of(curve: Curve, axis: Axis = "output") -> Panel:
    """A curve as one panel, titled by its set.

    A way without a compute of its own on the axis is left out.
    """
    return Panel(
        str(curve.about["set"]["name"]), tuple(_series(line, axis) for line in curve.lines)
    )


def chart_of(curves: Sequence[Curve], axis: Axis = "output", title: str = "") -> Chart:
    """One chart of one or several curves, a panel for each.

    Raises:
        InvalidInput: there is no such axis, or no curve.
    """
    if axis not in AXES:
        raise InvalidInput("x", f"there is no axis {axis!r}", f"Use {', '.join(AXES)}")
    if not curves:
        raise InvalidInput("curves", "there is none to draw")
    about = curves[0].about
    names = dict.fromkeys(str(curve.about["model"].get("name", "")) for curve in curves)
    sizes = dict.fromkeys(curve.about["set"]["questions"] for curve in curves)
    sets = ", ".join(str(curve.about["set"]["name"]) for curve in curves)
    counted = " / ".join(f"{size:,}" for size in sizes)
    each = " each" if len(curves) > 1 and len(sizes) == 1 else ""
    subtitle = (
        f"{counted} questions{each}, samples of each: {about['samples']}; "
        "areas are 95 % bands, resampled over questions"
    )
    return Chart(
        title=title or f"{', '.join(names)} on {sets}",
        panels=tuple(panel_of(curve, axis) for curve in curves),
        subtitle=subtitle,
        x_label=AXES[axis],
    )


def write_curve(curve: Curve, folder: str | Path, axis: Axis = "output") -> tuple[Path, Path]:
    """Write ``curve.json`` and ``curve.svg`` into a folder, which is made; returns both paths.

    Raises:
        InvalidInput: the folder cannot be written to, or there is no such axis.
    """
    folder = Path(folder).expanduser()
    text = json.dumps(curve.to_json(), ensure_ascii=False, indent=2) + "\n"
    picture = chart_of([curve], axis).to_svg()
    return (
        write_whole(folder / "curve.json", text),
        write_whole(folder / "curve.svg", picture),
    )


def write_whole(path: Path, text: str) -> Path:
    """Write a file so that at every moment the old one or the new one is there, whole.

    Raises:
        InvalidInput: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise InvalidInput("out", f"{path} cannot be written: {error.strerror}") from error
    return path


def _series(line: Line, axis: Axis) -> Series:
    marks: dict[str, Mark] = {"oracle": "oracle", "control": "control"}
    mark = marks.get(line.kind, "line")
    if len(line.points) == 1 and mark == "line":
        mark = "point"
    spots = [
        Spot(_compute(point.at, axis), point.accuracy, point.low, point.high)
        for point in line.points
    ]
    return Series(line.label, tuple(spot for spot in spots if spot.x > 0), mark)


def _compute(cost: Cost, axis: Axis) -> float:
    if axis == "samples":
        return cost.samples
    return cost.output_tokens if axis == "output" else cost.tokens
