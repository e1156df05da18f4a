"""Line charts as inline SVG."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 440, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 12, 38
_MOST_POINTS = 300
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999", "#f0e442")
"""Okabe and Ito: told apart also by the colour-blind."""


@dataclass(frozen=True)
class Line:
    """A named curve: finite x and y of equal length."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


def _ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers within [low, high]."""
    span = high - low
    raw = span / 4
    step = 10 ** math.floor(math.log10(raw))
    step = next(step * m for m in (1, 2, 5, 10) if step * m >= raw)
    first = math.ceil(low / step - 1e-9)
    return [step * n for n in range(first, math.floor(high / step + 1e-9) + 1)]


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high - low > 1e-12 else (low - 0.5, high + 0.5)


def line_chart(lines: Sequence[Line], x_name: str, y_name: str, unit_square: bool = False) -> str:
    """An SVG of the lines with axes and a legend.

    Args:
        unit_square: both axes from 0 to 1, instead of what the data span.
    """
    lines = [line for line in lines if len(line.x)]
    if not lines:
        return "<p>Nothing to draw.</p>"
    x0, x1 = (0.0, 1.0) if unit_square else _range([v for line in lines for v in line.x])
    y0, y1 = (0.0, 1.0) if unit_square else _range([v for line in lines for v in line.y])

    def place(x: float, y: float) -> tuple[float, float]:
        across = _LEFT + (x - x0) / (x1 - x0) * (_WIDTH - _LEFT - _RIGHT)
        return across, _HEIGHT - _BOTTOM - (y - y0) / (y1 - y0) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(y_name)} over {escape(x_name)}">']
    for value in _ticks(x0, x1):
        across, _ = place(value, y0)
        parts.append(f'<path class="grid" d="M{across:.1f} {_TOP}V{_HEIGHT - _BOTTOM}"/>')
        parts.append(f'<text x="{across:.1f}" y="{_HEIGHT - _BOTTOM + 14}" text-anchor="middle">{value:g}</text>')
    for value in _ticks(y0, y1):
        _, down = place(x0, value)
        parts.append(f'<path class="grid" d="M{_LEFT} {down:.1f}H{_WIDTH - _RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 5}" y="{down + 4:.1f}" text-anchor="end">{value:.3g}</text>')
    for number, line in enumerate(lines):
        colour = COLOURS[number % len(COLOURS)]
        every = max(1, len(line.x) // _MOST_POINTS)
        rows = list(zip(line.x, line.y, strict=True))
        points = [*rows[::every], *([rows[-1]] if (len(rows) - 1) % every else [])]
        path = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in points)
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.8" points="{path}"/>')
        if len(points) == 1:
            x, y = place(*points[0])
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>')
    parts.append(f'<text x="{(_LEFT + _WIDTH) / 2:.0f}" y="{_HEIGHT - 6}" text-anchor="middle">{escape(x_name)}</text>')
    parts.append(
        f'<text transform="translate(12 {_HEIGHT / 2:.0f}) rotate(-90)" text-anchor="middle">{escape(y_name)}</text>'
    )
    parts.append("</svg>")
    legend = "".join(
        f'<span><i style="background:{COLOURS[n % len(COLOURS)]}"></i>{escape(line.name)}</span>'
        for n, line in enumerate(lines)
    )
    return f'<figure>{"".join(parts)}<figcaption class="legend">{legend}</figcaption></figure>'
