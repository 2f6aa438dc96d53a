"""Line charts as SVG, written by hand: a logarithmic axis of compute, shares from 0 to 100 %.

One panel stands alone with its lines named at their ends; several stand side by side under one
legend. The picture has its colours for a light and for a dark page in it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias
from xml.sax.saxutils import escape

__all__ = ["Chart", "Mark", "Panel", "Series", "Spot"]

Mark: TypeAlias = Literal["line", "oracle", "control", "point"]
"""``oracle`` is dashed, ``control`` grey and dashed finely, ``point`` a diamond without a line."""

# Okabe and Ito's colours, a little darker for a white page and a little lighter for a dark one.
_LIGHT = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#b0528c",
    "#8a6d00",
    "#6e4a9e",
    "#a23b3b",
    "#4d7c0f",
    "#00808c",
    "#7a5546",
)
_DARK = (
    "#56b4e9",
    "#f0883e",
    "#3fc79a",
    "#e08bbd",
    "#e0c341",
    "#b59be8",
    "#f28b82",
    "#a3c45a",
    "#4dd0dc",
    "#c9a08e",
)

_PLOT_WIDTH, _PLOT_HEIGHT = 440.0, 300.0
_SMALL_WIDTH, _SMALL_HEIGHT = 290.0, 220.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 58.0, 18.0, 26.0, 50.0
_HEAD, _EDGE = 66.0, 14.0
_LINE_HEIGHT, _GLYPH = 17.0, 6.4  # of 12-point text; the width is that of a wide font
_MOST_LABEL = 34
_LEAST_SPAN = 0.1  # of shares on the axis


@dataclass(frozen=True, slots=True)
class Spot:
    """A point: ``x`` compute, greater than 0, and a share with its band, all three in [0, 1]."""

    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Series:
    """Points in the order of ``x`` under one name; equal names have one colour in every panel."""

    label: str
    spots: tuple[Spot, ...]
    mark: Mark = "line"


@dataclass(frozen=True, slots=True)
class Panel:
    """One plot. ``title`` is left out where a chart has a single panel."""

    title: str
    series: tuple[Series, ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """One or several panels under one title."""

    title: str
    panels: tuple[Panel, ...]
    subtitle: str = ""
    x_label: str = "compute"
    y_label: str = "right answers"

    def to_svg(self) -> str:
        """The picture as an SVG document.

        Raises:
            ValueError: there is no panel.
        """
        if not self.panels:
            raise ValueError("a chart needs a panel")
        return _Page(self).drawn()


class _Page:
    """A chart on its way to SVG: sizes, colours, and the pieces drawn so far."""

    def __init__(self, chart: Chart) -> None:
        self.chart = chart
        self.alone = len(chart.panels) == 1
        drawn = [s for panel in chart.panels for s in panel.series if s.mark != "control"]
        # lines choose first: where colours have to be shared, a diamond shares that of a line
        drawn.sort(key=lambda series: series.mark == "point")
        labels = dict.fromkeys(series.label for series in drawn)
        self.colours = {label: n % len(_LIGHT) for n, label in enumerate(labels)}
        self.pieces: list[str] = []

    def drawn(self) -> str:
        columns = min(3, len(self.chart.panels))
        width, height = (_PLOT_WIDTH, _PLOT_HEIGHT) if self.alone else (_SMALL_WIDTH, _SMALL_HEIGHT)
        cell = (_LEFT + width + _RIGHT, (0 if self.alone else _TOP) + height + _BOTTOM)
        gutter = self._gutter() if self.alone else 0.0
        least = _EDGE * 2 + _GLYPH * 1.25 * len(_short(self.chart.title, 90))
        total = max(columns * cell[0] + gutter + 2 * _EDGE, min(least, 900))
        legend = [] if self.alone else self._legend(total - 2 * _EDGE)
        top = _HEAD + len(legend) * _LINE_HEIGHT + (8 if legend else 0)
        rows = math.ceil(len(self.chart.panels) / columns)
        bottom = top + rows * cell[1] + _EDGE
        self._titles()
        self.pieces += [piece for line in legend for piece in line]
        for number, panel in enumerate(self.chart.panels):
            x = _EDGE + (number % columns) * cell[0] + _LEFT
            y = top + (number // columns) * cell[1] + (0 if self.alone else _TOP)
            _Plot(self, panel, x, y, width, height).draw()
        return _document(total, bottom, self.chart, self.pieces)

    def colour(self, series: Series) -> str:
        return "c" if series.mark == "control" else f"s{self.colours[series.label]}"

    def _titles(self) -> None:
        title, subtitle = _short(self.chart.title, 90), _short(self.chart.subtitle, 120)
        self.pieces.append(f'<text class="t" x="{_EDGE}" y="28">{escape(title)}</text>')
        if subtitle:
            self.pieces.append(f'<text class="u" x="{_EDGE}" y="47">{escape(subtitle)}</text>')

    def _gutter(self) -> float:
        longest = max((len(_short(s.label)) for s in self.chart.panels[0].series), default=0)
        return 34 + longest * _GLYPH

    def _legend(self, width: float) -> list[list[str]]:
        """A line of entries for each line of the page that they fill."""
        lines: list[list[str]] = [[]]
        x = 0.0
        for series in _distinct(self.chart.panels):
            label = _short(series.label)
            size = 30 + len(label) * _GLYPH + 18
            if x and x + size > width:
                lines.append([])
                x = 0.0
            y = _HEAD + len(lines) * _LINE_HEIGHT - 8
            lines[-1].append(self.swatch(series, _EDGE + x, y - 4))
            text = f'<text class="l" x="{_EDGE + x + 30:.1f}" y="{y:.1f}">{escape(label)}</text>'
            lines[-1].append(text)
            x += size
        return lines

    def swatch(self, series: Series, x: float, y: float) -> str:
        """A short piece of a series' line, or its point."""
        colour = self.colour(series)
        if series.mark == "point":
            return _diamond(colour, x + 11, y)
        return f'<path class="{_stroke(series)} {colour}" d="M{x:.1f} {y:.1f}h22"/>'


class _Plot:
    """One panel: its scales, and what is drawn with them."""

    def __init__(
        self, page: _Page, panel: Panel, x: float, y: float, width: float, height: float
    ) -> None:
        self.page, self.panel = page, panel
        self.x, self.y, self.width, self.height = x, y, width, height
        spots = [spot for series in panel.series for spot in series.spots]
        xs = [spot.x for spot in spots if spot.x > 0] or [1.0]
        self.first, self.last = math.log2(min(xs)), math.log2(max(xs))
        if self.last - self.first < 1:  # so that at least two powers of two are on the axis
            self.first, self.last = math.floor(self.first), math.floor(self.last) + 1
        top = max((spot.high for spot in spots), default=1.0)
        low = min((spot.low for spot in spots), default=0.0)
        # figures that are all alike still need an axis: a tenth of it, within 0 and 1
        low = max(0.0, min(low, top - _LEAST_SPAN))
        top = min(1.0, max(top, low + _LEAST_SPAN))
        self.step = _step(top - low)
        self.bottom = math.floor(low / self.step + 1e-9) * self.step
        self.top = max(math.ceil(top / self.step - 1e-9) * self.step, self.bottom + self.step)

    def draw(self) -> None:
        self._axes()
        # luck and oracles first: what is measured lies above them
        order = sorted(self.panel.series, key=lambda s: s.mark not in ("control", "oracle"))
        for series in order:
            self._band(series)
        for series in order:
            self._line(series)
        if self.page.alone:
            self._labels()

    def at(self, spot: Spot) -> tuple[float, float]:
        across = (math.log2(max(spot.x, 1e-9)) - self.first) / (self.last - self.first)
        return self.x + 8 + across * (self.width - 16), self.height_of(spot.y)

    def height_of(self, share: float) -> float:
        return self.y + self.height * (1 - (share - self.bottom) / (self.top - self.bottom))

    def _axes(self) -> None:
        put = self.page.pieces.append
        right, floor = self.x + self.width, self.y + self.height
        if not self.page.alone:
            title = escape(_short(self.panel.title, 40))
            put(f'<text class="p" x="{self.x:.1f}" y="{self.y - 10:.1f}">{title}</text>')
        for number in range(round((self.top - self.bottom) / self.step) + 1):
            share = self.bottom + number * self.step
            y = self.height_of(share)
            put(f'<path class="g" d="M{self.x:.1f} {y:.1f}H{right:.1f}"/>')
            put(f'<text class="a e" x="{self.x - 7:.1f}" y="{y + 4:.1f}">{_percent(share)}</text>')
        for value in _ticks(self.first, self.last, self.width):
            x, _ = self.at(Spot(value, 0, 0, 0))
            put(f'<path class="x" d="M{x:.1f} {floor:.1f}v4"/>')
            put(f'<text class="a m" x="{x:.1f}" y="{floor + 18:.1f}">{_figure(value)}</text>')
        put(f'<path class="x" d="M{self.x:.1f} {floor:.1f}H{right:.1f}"/>')
        middle = self.x + self.width / 2
        label = escape(_short(self.page.chart.x_label, 60))
        put(f'<text class="u m" x="{middle:.1f}" y="{floor + 38:.1f}">{label}</text>')
        if self.x < _EDGE + _LEFT + 1:  # beside the panels of the first column alone
            x, y = self.x - 44, self.y + self.height / 2
            turned = f'transform="rotate(-90 {x:.1f} {y:.1f})"'
            text = escape(_short(self.page.chart.y_label, 40))
            put(f'<text class="u m" x="{x:.1f}" y="{y:.1f}" {turned}>{text}</text>')

    def _band(self, series: Series) -> None:
        colour = self.page.colour(series)
        if series.mark == "point" or len(series.spots) < 2:
            for spot in series.spots:
                x, _ = self.at(spot)
                low, high = self.height_of(spot.low), self.height_of(spot.high)
                path = f"M{x:.1f} {high:.1f}V{low:.1f}"
                self.page.pieces.append(f'<path class="w {colour}" d="{path}"/>')
            return
        upper = [(self.at(spot)[0], self.height_of(spot.high)) for spot in series.spots]
        lower = [(self.at(spot)[0], self.height_of(spot.low)) for spot in reversed(series.spots)]
        self.page.pieces.append(f'<path class="b {colour}" d="{_path([*upper, *lower])}Z"/>')

    def _line(self, series: Series) -> None:
        colour = self.page.colour(series)
        name = f"<title>{escape(_short(series.label, 200))}</title>"
        put = self.page.pieces.append
        if not series.spots:
            return
        if series.mark == "point":
            for spot in series.spots:
                put(_diamond(colour, *self.at(spot), name))
            return
        path = _path([self.at(spot) for spot in series.spots])
        put(f'<path class="{_stroke(series)} {colour}" d="{path}">{name}</path>')
        if series.mark != "control" or len(series.spots) == 1:
            for spot in series.spots:
                x, y = self.at(spot)
                put(f'<circle class="d {colour}" cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>')

    def _labels(self) -> None:
        """The name of each series beside its last point, moved apart where they would overlap."""
        ends = [(self.at(s.spots[-1]), s) for s in self.panel.series if s.spots]
        ends.sort(key=lambda end: end[0][1])
        heights = _apart([end[0][1] for end in ends], _LINE_HEIGHT, self.y, self.y + self.height)
        left = self.x + self.width + 10
        put = self.page.pieces.append
        for (_, series), y in zip(ends, heights, strict=True):
            put(self.page.swatch(series, left, y))
            label = escape(_short(series.label))
            put(f'<text class="l" x="{left + 29:.1f}" y="{y + 4:.1f}">{label}</text>')


# -- shapes -------------------------------------------------------------------------------------


def _stroke(series: Series) -> str:
    return {"oracle": "n o", "control": "n k"}.get(series.mark, "n")


def _diamond(colour: str, x: float, y: float, inside: str = "") -> str:
    path = f"M{x:.1f} {y - 5.5:.1f}l5.5 5.5-5.5 5.5-5.5-5.5z"
    return f'<path class="d {colour}" d="{path}">{inside}</path>'


def _path(points: Iterable[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _apart(heights: Sequence[float], gap: float, top: float, bottom: float) -> list[float]:
    """Heights in ascending order, at least ``gap`` apart and near where they were."""
    if not heights:
        return []
    gap = min(gap, (bottom - top) / max(1, len(heights) - 1))
    placed: list[float] = []
    for height in heights:
        placed.append(max(height, placed[-1] + gap) if placed else max(height, top))
    limit = bottom
    for number in reversed(range(len(placed))):
        placed[number] = min(placed[number], limit)
        limit = placed[number] - gap
    return placed


# -- scales -------------------------------------------------------------------------------------


def _step(span: float) -> float:
    """The distance of the lines of the grid: four to seven of them."""
    return next((step for step in (0.02, 0.05, 0.1, 0.2) if span / step <= 6.5), 0.2)


def _ticks(first: float, last: float, width: float) -> list[float]:
    """Powers of two between two logarithms, no closer than their labels need."""
    powers = range(math.ceil(first - 1e-9), math.floor(last + 1e-9) + 1)
    most = max(2, int(width // 44))
    every = max(1, math.ceil(len(powers) / most))
    return [2.0**power for power in powers if power % every == 0] or [2.0 ** round(first)]


def _percent(share: float) -> str:
    return f"{share * 100:.0f} %"


def _figure(value: float) -> str:
    for size, unit in ((2**30, "G"), (2**20, "M"), (2**13, "k")):
        if value >= size:
            scale = {"G": 2**30, "M": 2**20, "k": 2**10}[unit]
            return f"{value / scale:.0f}{unit}"
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"


# -- texts and the page -------------------------------------------------------------------------


def _short(text: str, most: int = _MOST_LABEL) -> str:
    """Text that fits, without the control characters that XML cannot hold."""
    plain = "".join(c for c in " ".join(text.split()) if c.isprintable())
    return plain if len(plain) <= most else plain[: most - 1] + "…"


def _distinct(panels: Sequence[Panel]) -> list[Series]:
    found: dict[str, Series] = {}
    for panel in panels:
        for series in panel.series:
            found.setdefault(series.label, series)
    return list(found.values())


def _document(width: float, height: float, chart: Chart, pieces: Sequence[str]) -> str:
    title, about = escape(_short(chart.title, 200)), escape(_short(chart.subtitle, 400))
    size = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
            f"<title>{title}</title>",
            f"<desc>{about}</desc>",
            f"<style>{_style()}</style>",
            '<rect class="z" width="100%" height="100%"/>',
            *pieces,
            "</svg>\n",
        ]
    )


def _style() -> str:
    """Each colour twice: as it is, and for whoever reads on a dark page."""
    fixed = (
        "text{font:12px system-ui,-apple-system,'Segoe UI',sans-serif;fill:#24292f}"
        ".t{font-size:16px;font-weight:600}.p{font-weight:600;font-size:13px}"
        ".m{text-anchor:middle}.e{text-anchor:end}"
        ".n{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}"
        ".o{stroke-dasharray:7 5}.k{stroke-dasharray:2 4}"
        ".b{stroke:none;fill-opacity:.13}.w{fill:none;stroke-width:1.6;stroke-opacity:.55}"
        ".d{stroke:none}.z{fill:#fff}.g{stroke:#e4e7eb;fill:none}.x{stroke:#6e7781;fill:none}"
        ".u{fill:#57606a}.a{fill:#57606a;font-size:11px}"
    )
    dark = (
        "text{fill:#e6edf3}.z{fill:#0d1117}.g{stroke:#262c36}.x{stroke:#8b949e}.u,.a{fill:#9da7b3}"
    )
    light_colours = _colours([*_LIGHT, "#8c959f"])
    dark_colours = _colours([*_DARK, "#848d97"])
    return f"{fixed}{light_colours}@media(prefers-color-scheme:dark){{{dark}{dark_colours}}}"


def _colours(values: Sequence[str]) -> str:
    names = [*(f"s{number}" for number in range(len(values) - 1)), "c"]
    return "".join(
        f".n.{name},.w.{name}{{stroke:{value}}}.b.{name},.d.{name}{{fill:{value}}}"
        for name, value in zip(names, values, strict=True)
    )
