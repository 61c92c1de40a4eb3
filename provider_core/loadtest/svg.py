"""Line charts as self-contained SVG: no script, no font and nothing else from elsewhere.

Enough for a report of a benchmark: axes from zero with round ticks, a logarithmic x axis for
sweeps that double, dashed lines, markers that say their values, a legend.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

WIDTH, HEIGHT = 640, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 40, 52
_LEGEND_LINE = 18
_MAX_MARKERS = 40

# Okabe and Ito's palette, which people with any colour vision can tell apart.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c6d31")


@dataclass(frozen=True, slots=True)
class Series:
    """One line.

    Attributes:
        points: Pairs of x and y, in the order they are joined.
        colour: Index into `COLOURS`, taken modulo.
        names: Of each point, shown with its values; empty for none.
    """

    name: str
    points: Sequence[tuple[float, float]]
    colour: int = 0
    is_dashed: bool = False
    names: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """Lines over common axes.

    Attributes:
        name: Of the file, without its ending.
        x_scale: `log` needs x above 0, and has its ticks where points are.
        note: A warning that must not be lost when the chart is cut out of its page.
    """

    name: str
    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    x_scale: Literal["linear", "log"] = "linear"
    note: str = ""


def render(chart: Chart) -> str:
    """The chart as one `<svg>` element."""
    height = HEIGHT + _LEGEND_LINE * math.ceil(len(chart.series) / 2)
    axes = _Axes(chart)
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" role="img" aria-label="{escape(chart.title)}" '
        'font-family="system-ui, sans-serif" font-size="12" fill="#222">'
    )
    parts = [
        opening,
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        _text(_LEFT, 20, chart.title, 'font-size="15" font-weight="600"'),
        *axes.grid(),
    ]
    if chart.note:
        parts.append(_text(_LEFT, 35, chart.note, 'fill="#b00020" font-size="11"'))
    for series in chart.series:
        parts += _line(series, axes)
    parts += _legend(chart.series)
    return "\n".join([*parts, "</svg>"])


class _Axes:
    """Where values lie on the drawing."""

    def __init__(self, chart: Chart) -> None:
        xs = [x for series in chart.series for x, _ in series.points] or [0.0, 1.0]
        ys = [y for series in chart.series for _, y in series.points]
        self._chart = chart
        self._is_log = chart.x_scale == "log"
        self._y_ticks = round_ticks(max(ys, default=0.0) or 1.0)
        if self._is_log:
            self._x_ticks = sorted(set(xs))
            self._x_range = math.log(min(xs)), math.log(max(xs))
        else:
            self._x_ticks = round_ticks(max(xs) or 1.0)
            self._x_range = 0.0, self._x_ticks[-1]

    def x(self, value: float) -> float:
        low, high = self._x_range
        at = math.log(value) if self._is_log else value
        share = (at - low) / (high - low) if high > low else 0.5
        return _LEFT + share * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        share = value / self._y_ticks[-1]
        return HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM)

    def grid(self) -> list[str]:
        left, right, bottom = _LEFT, WIDTH - _RIGHT, HEIGHT - _BOTTOM
        parts = []
        for tick in self._y_ticks:
            y = self.y(tick)
            parts += [
                f'<path d="M{left} {y:.1f}H{right}" stroke="#ddd"/>',
                _text(left - 6, y + 4, number(tick), 'text-anchor="end"'),
            ]
        last_x = -math.inf
        for tick in self._x_ticks:
            x = self.x(tick)
            if x - last_x >= 28:  # room for a number
                parts.append(_text(x, bottom + 16, number(tick), 'text-anchor="middle"'))
                last_x = x
            parts.append(f'<path d="M{x:.1f} {bottom}v4" stroke="#888"/>')
        middle = (left + right) / 2
        turned = f'transform="rotate(-90 14 {HEIGHT / 2})" text-anchor="middle"'
        return [
            *parts,
            f'<path d="M{left} {bottom}H{right}" stroke="#888"/>',
            _text(middle, HEIGHT - 14, self._chart.x_label, 'text-anchor="middle"'),
            _text(14, HEIGHT / 2, self._chart.y_label, turned),
        ]


def _line(series: Series, axes: _Axes) -> list[str]:
    colour = COLOURS[series.colour % len(COLOURS)]
    at = [(axes.x(x), axes.y(y)) for x, y in series.points]
    joined = "L".join(f"{x:.1f} {y:.1f}" for x, y in at)
    dash = ' stroke-dasharray="5 4"' if series.is_dashed else ""
    parts = [f'<path d="M{joined}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>']
    if len(at) > _MAX_MARKERS:
        return parts
    for index, ((x, y), values) in enumerate(zip(at, series.points, strict=True)):
        name = f"{series.names[index]}: " if series.names else ""
        said = escape(f"{series.name}, {name}{number(values[0])}, {number(values[1])}")
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"><title>{said}</title>'
            "</circle>"
        )
    return parts


def _legend(series: Sequence[Series]) -> list[str]:
    parts = []
    for index, one in enumerate(series):
        x = _LEFT + (index % 2) * (WIDTH - _LEFT - _RIGHT) / 2
        y = HEIGHT + _LEGEND_LINE * (index // 2)
        dash = ' stroke-dasharray="5 4"' if one.is_dashed else ""
        colour = COLOURS[one.colour % len(COLOURS)]
        parts += [
            f'<path d="M{x:.0f} {y - 4}h22" stroke="{colour}" stroke-width="2"{dash}/>',
            _text(x + 28, y, one.name),
        ]
    return parts


def _text(x: float, y: float, text: str, attributes: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {attributes}>{escape(text)}</text>'


def round_ticks(high: float) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten from 0 to the first one not below `high`."""
    raw = high / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))
    count = math.ceil(high / step - 1e-9)
    return [index * step for index in range(count + 1)]


def number(value: float) -> str:
    """Short, with a comma every three digits."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.4g}"
