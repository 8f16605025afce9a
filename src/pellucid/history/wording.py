"""A history in a few lines of text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pellucid.tables import columns
from pellucid.text import counted, printable

if TYPE_CHECKING:
    from pellucid.history.history import History, Section

MOST_LAYERS = 20
_HEAD = ("layer", "kind", "outputs", "mean", "std", "near zero")


def said(history: History) -> str:
    """What was recorded, and a row for each layer as it was last seen."""
    last = [_last(history.train, history.valid, row) for row in range(len(history.layers))]
    table: list[tuple[str, ...]] = [_HEAD]
    for layer, (x, row, column) in list(zip(history.layers, last, strict=True))[:MOST_LAYERS]:
        shape = "×".join(map(str, layer.shape)) or "–"
        numbers = ["–"] * 3
        if column >= 0:
            share = 100 * x.share("near_zero")[row, column]
            numbers = [f"{x.mean[row, column]:.3g}", f"{x.std[row, column]:.3g}", f"{share:.0f} %"]
        table.append((printable(layer.name), printable(layer.kind), shape, *numbers))
    lines = [f"  {line}" for line in columns(table)]
    more = len(history.layers) - MOST_LAYERS
    return "\n".join([headline(history), *lines, *[f"  … and {more} more layers"] * (more > 0)])


def headline(history: History) -> str:
    """What was recorded, in a line."""
    parts = [_counted(len(history.layers), "layer"), _counted(_end(history.train), "training step")]
    if len(history.valid.steps):
        parts.append(_counted(len(history.valid.steps), "validation pass", "es"))
    if history.params:
        parts.append(f"gradients of {_counted(len(history.params), 'parameter')}")
    loss = history.loss
    if loss is not None and len(known := loss[~np.isnan(loss)]):
        parts.append(f"loss {known[0]:.3g} to {known[-1]:.3g}")
    broken = int(history.train.nonfinite.sum() + history.valid.nonfinite.sum())
    if broken:
        parts.append(f"{counted(broken, 'value')} nan or infinite")
    return f"History of {', '.join(parts)}"


def said_of_section(section: Section) -> str:
    """The shape of a table, in a line."""
    rows, columns = section.count.shape
    bins = "without histograms" if section.hist is None else f"with {section.hist.shape[2]} bins"
    last = f", steps {section.steps[0, 0]} to {_end(section) - 1}" if columns else ""
    return f"Section of {_counted(rows, 'layer')} × {_counted(columns, 'column')}{last}, {bins}"


def _last(train: Section, valid: Section, row: int) -> tuple[Section, int, int]:
    """The table, row and column in which a layer was last seen in training, else in validation; −1 for never."""
    for section in (train, valid):
        seen = np.flatnonzero(section.count[row])
        if len(seen):
            return section, row, int(seen[-1])
    return train, row, -1


def _end(section: Section) -> int:
    return int(section.steps[-1, 1]) if len(section.steps) else 0


def _counted(n: int, what: str, plural: str = "s") -> str:
    return f"{n:,} {what}{plural * (n != 1)}"
