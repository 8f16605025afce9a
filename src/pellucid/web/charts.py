"""Charts as plain values for `charts.html`, which draws them in the colours of the page, light or dark."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np

WIDTH, HEIGHT = 400, 180  # of the frame, in units of the drawing
MOST_POINTS = 400  # of a line: more than one a unit cannot be seen
N_TICKS = 5
EXPLODED, KEPT = 100, 10  # values above so many medians are cut off, the axis ends at so many

Line = tuple[np.ndarray, np.ndarray]


def chart(
    title: str,
    lines: Mapping[str, Line],
    *,
    marks: Sequence[int] = (),
    span: tuple[float, float] | None = None,
    y_span: tuple[float, float] | None = None,
    log: bool = False,
) -> dict[str, Any] | None:
    """Lines over steps.

    Args:
        title: Above the chart; says what y is, with its unit.
        lines: Name → (x, y), both [value]; a line is interrupted where y is nan or infinite.
        marks: Steps to be marked.
        span: First and last x; None takes those of the lines.
        y_span: Lowest and highest y; None fits the values, and cuts explosions off.
        log: Logarithmic y.

    Returns:
        Values for the template; None where there is nothing to draw.
    """
    kept = {name: _inside(*line, span, log) for name, line in lines.items()}
    kept = {name: line for name, line in kept.items() if len(line[0])}
    values = np.concatenate([y[np.isfinite(y)] for _, y in kept.values()]) if kept else np.zeros(0)
    if not len(values):
        return None
    low, high = span or (min(x[0] for x, _ in kept.values()), max(x[-1] for x, _ in kept.values()))
    bottom, top = _heights(values, log) if y_span is None else y_span
    drawn = [
        {"name": name, "number": i % 6, "paths": _paths(_across(x, low, high), _down(y, bottom, top))}
        for i, (name, (x, y)) in enumerate(kept.items())
    ]
    above = float(values.max()) if values.max() > top else None
    return {
        **_frame(title, (low, high), (bottom, top), marks, log),
        "lines": drawn,
        "image": None,
        "note": "" if above is None else f"up to {_shown(above, log)}",
    }


def heat(
    title: str,
    counts: np.ndarray,
    span: tuple[float, float],
    y_span: tuple[float, float],
    *,
    marks: Sequence[int] = (),
) -> dict[str, Any]:
    """Histograms over steps as colours, log(1 + count).

    Args:
        title: Above the chart.
        counts: [column, bin], columns of equal width.
        span: First and last step.
        y_span: Lower edge of the first bin and upper edge of the last.
        marks: Steps to be marked.
    """
    frame = _frame(title, span, y_span, marks, log=False)
    return {**frame, "lines": [], "image": _png(counts), "note": ""}


def _inside(x: np.ndarray, y: np.ndarray, span: tuple[float, float] | None, log: bool) -> Line:
    """The part of a line in the span, thinned by means, on the scale it is drawn on."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if span is not None:
        inside = (x >= span[0]) & (x <= span[1])
        x, y = x[inside], y[inside]
    if log:
        y = np.log10(np.where(y > 0, y, np.nan))
    n = -(-len(x) // MOST_POINTS)
    if n > 1:
        starts = np.arange(0, len(x), n)
        sizes = np.diff(np.append(starts, len(x)))
        x, y = np.add.reduceat(x, starts) / sizes, np.add.reduceat(y, starts) / sizes
    return x, y


def _heights(values: np.ndarray, log: bool) -> tuple[float, float]:
    bottom, top = float(values.min()), float(values.max())
    middle = float(np.median(np.abs(values)))
    if not log and middle > 0 and top > EXPLODED * middle:
        top = KEPT * middle
    room = 0.05 * (top - bottom) or 0.05 * abs(top) or 0.5
    return bottom - room, top + room


def _frame(
    title: str, x_span: tuple[float, float], y_span: tuple[float, float], marks: Sequence[int], log: bool
) -> dict[str, Any]:
    (low, high), (bottom, top) = x_span, y_span
    high = high if high > low else low + 1
    across, down = ticks(low, high), (_powers if log else ticks)(bottom, top)
    return {
        "title": title,
        "width": WIDTH,
        "height": HEIGHT,
        "x_ticks": [{"at": _across(x, low, high), "text": _shown(x, digits=_digits(across))} for x in across],
        "y_ticks": [{"at": _down(y, bottom, top), "text": _shown(y, log, _digits(down))} for y in down],
        "marks": [{"at": _across(x, low, high), "step": x} for x in marks if low <= x <= high],
    }


def ticks(low: float, high: float) -> list[float]:
    """About five round numbers from `low` to `high`.

    >>> ticks(0, 1)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    rough = (high - low) / N_TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(n * power for n in (1, 2, 5, 10) if n * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _powers(low: float, high: float) -> list[float]:
    """Logarithms of round numbers from 10^low to 10^high: powers of ten, and 2 and 5 of them if there are few."""
    every, parts = max(1, math.ceil((high - low) / N_TICKS)), (1, 2, 5) if high - low < 2 else (1,)
    powers = range(math.floor(low), math.ceil(high) + 1)
    marks = (power + math.log10(n) for power in powers if power % every == 0 for n in parts)
    return [mark for mark in marks if low <= mark <= high]


def _digits(marks: Sequence[float]) -> int:
    """How many significant digits tell the ticks of an axis apart: 1.605 and 1.61 need four."""
    if len(marks) < 2:
        return 3
    step = marks[1] - marks[0]
    return next((n for n in range(3, 9) if all(abs(float(f"{x:.{n}g}") - x) < 0.01 * step for x in marks)), 9)


def _shown(value: float, log: bool = False, digits: int = 3) -> str:
    value = 10.0**value if log else value
    if value == round(value) and abs(value) < 1e6:
        return f"{round(value):,}".replace("-", "−")
    return f"{value:.{3 if log else digits}g}".replace("-", "−")


def _across(x: Any, low: float, high: float) -> Any:
    return (x - low) / ((high - low) or 1) * WIDTH


def _down(y: Any, bottom: float, top: float) -> Any:
    return (top - y) / ((top - bottom) or 1) * HEIGHT


def _paths(x: np.ndarray, y: np.ndarray) -> list[str]:
    """Pieces of a line without gaps, as the points of polylines; what lies far outside stops just outside."""
    y = np.clip(y, -HEIGHT, 2 * HEIGHT)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], np.isfinite(y).astype(int), [0]])))
    pieces = [range(start, stop) for start, stop in edges.reshape(-1, 2).tolist()]
    return [" ".join(f"{x[i]:.1f},{y[i]:.1f}" for i in piece) for piece in pieces]


def _png(counts: np.ndarray) -> str:
    """[column, bin] in the colours of `color_dim`, the first bin at the bottom, as an address that holds it."""
    import matplotlib
    from PIL import Image

    shades = np.log1p(counts.T[::-1].astype(np.float64))
    pixels = matplotlib.colormaps["viridis"](shades / (shades.max() or 1), bytes=True)[..., :3]
    file = BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
