"""A history in a few lines of text."""

from __future__ import annotations

import numpy as np

from pellucid.history.record import Record, Section
from pellucid.tables import columns
from pellucid.text import counted, printable

MOST_LAYERS = 20
_HEAD = ("layer", "kind", "outputs", "mean", "std", "near zero")


def said(history: Record) -> str:
    """What was recorded, and a row for each layer as it was last seen."""
    if not history.layers:
        return headline(history)
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


def headline(history: Record) -> str:
    """What was recorded, in a line."""
    n_steps = max(history.train.end, *history.steps[-1:].tolist(), 0)
    parts = [counted(len(history.layers), "layer")] if history.layers else []
    parts.append(counted(n_steps, "training step"))
    if len(history.series.get("epoch_end", ())):
        parts.append(counted(len(history.series["epoch_end"]), "epoch"))
    if len(history.valid.steps):
        parts.append(counted(len(history.valid.steps), "validation pass", "validation passes"))
    if history.params:
        parts.append(f"gradients of {counted(len(history.params), 'parameter')}")
    loss = history.loss
    if loss is not None and len(known := loss[~np.isnan(loss)]):
        parts.append(f"loss {known[0]:.3g} to {known[-1]:.3g}")
    broken = int(history.train.nonfinite.sum() + history.valid.nonfinite.sum())
    if broken:
        parts.append(f"{counted(broken, 'value')} nan or infinite")
    return f"History of {', '.join(parts)}"


def _last(train: Section, valid: Section, row: int) -> tuple[Section, int, int]:
    """The table, row and column in which a layer was last seen in training, else in validation; −1 for never."""
    for section in (train, valid):
        seen = np.flatnonzero(section.count[row])
        if len(seen):
            return section, row, int(seen[-1])
    return train, row, -1
