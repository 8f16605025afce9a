"""What the page of a report shows, as plain values for its template."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.doctor import wording
from pellucid.errors import UsageError
from pellucid.history.file import N_BINS, RANGE
from pellucid.history.record import Record
from pellucid.text import printable
from pellucid.web.charts import chart, heat

if TYPE_CHECKING:
    from pellucid.doctor.report import Finding, Report

BEFORE, AFTER = 50, 150  # steps around the one of a finding that its pictures show
MOST_HEAT_COLUMNS = 512
MOST_LINES = 6  # in a chart of parameters
# What is drawn of these besides the layer concerned; the numbers that a reader would ask for.
_OF_UPDATES = ("learning-rate-too-high", "learning-rate-too-low", "updates-lost", "weight-decay-too-high")
_OF_GRADIENTS = ("vanishing-gradients", "exploding-gradients", "broken-graph", "gradients-not-zeroed", *_OF_UPDATES)
_OF_DEAD = ("dead-units", "learning-rate-too-high", "saturated-units")


def page_data(report: Report) -> dict[str, Any]:
    """The values of `web/doctor/page.html`."""
    history = report.history
    steps = [finding.step for finding in report.findings if finding.step is not None and finding.step > 0]
    return {
        "title": wording.verdict(report),
        "healthy": report.healthy,
        "findings": [_finding(finding, history) for finding in report.findings],
        "loss": None if history is None else _loss(history, steps),
        "checked": report.checked,
        "notes": report.notes,
        "overhead": _overhead(report.overhead),
    }


def _overhead(ratio: float | None) -> str | None:
    if ratio is None:
        return None
    return f"{100 * ratio:.1f} % of the training's time" if ratio < 1 else f"{ratio:.1f} times the training's time"


def _finding(finding: Finding, history: Record | None) -> dict[str, Any]:
    trial = finding.trial or {}
    return {
        "mark": wording.MARKS.get(finding.severity, "?"),
        "name": finding.name,
        "heading": wording.heading(finding),
        "severity": finding.severity,
        "sure": wording.sureness(finding),
        "confidence": 100 * finding.confidence,
        "place": wording.place(finding),
        "says": finding.says,
        "evidence": _numbers(finding.evidence),
        "tried": trial.get("says"),
        "trial": _numbers({name: value for name, value in trial.items() if name != "says"}),
        "curves": _curves(finding),
        "remedy": wording.remedy(finding),
        "ruled_out": finding.ruled_out,
        "explains": [wording.spoken(name) for name in finding.explains],
        "pictures": [] if history is None else _pictures(finding, history),
    }


def _numbers(values: dict[str, Any]) -> list[dict[str, str]]:
    return [{"name": name.replace("_", " "), "value": _said(value)} for name, value in values.items()]


def _said(value: Any) -> str:
    if isinstance(value, list | tuple | np.ndarray):
        return ", ".join(map(_said, value))
    if isinstance(value, dict):
        return ", ".join(f"{key} {_said(each)}" for key, each in value.items())
    return f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)


def _curves(finding: Finding) -> dict[str, Any] | None:
    lines = {name: (np.arange(len(y)), np.asarray(y, float)) for name, y in finding.curves.items() if len(y)}
    return chart("Losses in the trial, on the same batches", lines)


def _loss(history: Record, marks: list[int]) -> dict[str, Any] | None:
    if history.loss is None:
        return None
    lines = {"training": (history.steps, history.smooth_loss if len(history.loss) > 50 else history.loss)}
    valid, ends = history.epochs.get("valid_loss"), history.series.get("epoch_end")
    if valid is not None and ends is not None:
        lines["validation"] = (ends[: len(valid)], valid)
    return chart("Loss", lines, marks=marks)


def _pictures(finding: Finding, history: Record) -> list[dict[str, Any]]:
    """Charts of the layer concerned around the step concerned, and of what this fault does to all."""
    span = _span(finding, history)
    marks = [] if finding.step is None else [finding.step]
    row = _row(finding, history)
    drawn = [] if row is None else _of_layer(history, row, span, marks)
    if finding.name in _OF_GRADIENTS:
        drawn.append(_of_parameters(history, "grad.norm", "Gradient norms", span, marks))
    if finding.name in _OF_UPDATES:
        drawn.append(
            _of_parameters(history, "update.ratio", "Change of the weights per step, relative to them", span, marks)
        )
    return [each for each in drawn if each is not None]


def _span(finding: Finding, history: Record) -> tuple[float, float]:
    """The steps to be drawn: all, or of a long run those around the finding's."""
    end = max(history.train.end, *history.steps[-1:].tolist(), 1)
    if finding.step is None or end <= BEFORE + AFTER:
        return 0.0, float(end)
    start = min(max(0, finding.step - BEFORE), end - BEFORE - AFTER)
    return float(start), float(start + BEFORE + AFTER)


def _row(finding: Finding, history: Record) -> int | None:
    """The layer to be drawn: the finding's, or of dead units without one the deadest."""
    if not history.layers or not len(history.train.steps):
        return None
    if finding.layer is not None:
        try:
            return history.index(finding.layer)
        except UsageError:
            return None
    if finding.name not in _OF_DEAD:
        return None
    shares = np.nan_to_num(history.dead()[:-1], nan=0.0)  # a last layer's small outputs are no loss
    return int(shares.mean(1).argmax()) if shares.size else None


def _of_layer(history: Record, row: int, span: tuple[float, float], marks: list[int]) -> list[dict[str, Any] | None]:
    x, name = history.train, wording.layer(history.layers[row].name)
    at = x.steps.mean(1)
    zero = chart(
        f"{name}: outputs near zero (≤ 0.05), %",
        {"near zero": (at, 100 * x.share("near_zero")[row])},
        marks=marks,
        span=span,
        y_span=(-3, 103),
    )
    std = chart(f"{name}: standard deviation of the outputs", {"std": (at, x.std[row])}, marks=marks, span=span)
    return [*([] if x.hist is None else [_colours(history, row, span, marks)]), zero, std]


def _colours(history: Record, row: int, span: tuple[float, float], marks: list[int]) -> dict[str, Any] | None:
    """The layer's histograms; columns that stand for several steps are stretched over them."""
    x = history.train
    assert x.hist is not None
    first, last = max(int(span[0]), int(x.steps[0, 0])), min(int(span[1]), x.end)
    if last <= first:
        return None
    shown = np.arange(first, last, -(-(last - first) // MOST_HEAT_COLUMNS))
    columns = np.searchsorted(x.steps[:, 0], shown, side="right") - 1
    title = f"{wording.layer(history.layers[row].name)}: distribution of the outputs (brighter: more)"
    return heat(title, x.hist[row, columns, :N_BINS], (first, last), RANGE, marks=marks)


def _of_parameters(
    history: Record, name: str, title: str, span: tuple[float, float], marks: list[int]
) -> dict[str, Any] | None:
    """Of some of the weights, from the input to the output; biases and norms are left out where there are others."""
    values = history.series.get(name)
    if values is None or not len(history.train.steps):
        return None
    weights = [i for i, each in enumerate(history.params) if each.endswith("weight")] or list(range(len(values)))
    chosen = [weights[i] for i in np.unique(np.linspace(0, len(weights) - 1, MOST_LINES).astype(int))]
    at = history.train.steps.mean(1)
    lines = {printable(history.params[i]): (at, values[i, : len(at)]) for i in chosen}
    return chart(title, lines, marks=marks, span=span, log=True)
