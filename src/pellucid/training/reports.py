"""Precision, recall and F1 of each class or label as a table, as scikit-learn words it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pellucid.metrics.counts import class_shares

_Row = tuple[str, Any, int]


def classification_report(counts: np.ndarray, names: Sequence[str], digits: int = 2) -> str:
    """Precision, recall, F1 and support of each class as a table, with accuracy and means, as scikit-learn words it.

    Shares are those of `class_shares`, 0 of no items; support is the items of a class. The macro mean weighs classes
    alike, the weighted mean by support.

    Args:
        counts: Items, [actual class, predicted class].
        names: Of the classes.
        digits: Decimals.
    """
    right, support = counts.diagonal(), counts.sum(1)
    total = int(support.sum())
    shares = np.nan_to_num(class_shares(counts))
    accuracy: _Row = ("accuracy", ["", "", right.sum() / max(total, 1)], total)
    return _report(names, shares, support, [accuracy, *_means(shares, support)], digits)


def labels_report(actual: np.ndarray, said: np.ndarray, names: Sequence[str], digits: int = 2) -> str:
    """The same of labels that an item may have any number of; `micro` is of all answers, `samples` the mean of items.

    Args:
        actual: Whether an item has a label, bool (item, label).
        said: Whether it was said to have it, likewise.
        names: Of the labels.
        digits: Decimals.
    """
    both, support = actual & said, actual.sum(0)
    shares = _yes_shares(both.sum(0), support, said.sum(0))
    micro = _yes_shares(*(np.array([each.sum()]) for each in (both, actual, said)))[0]
    samples = _yes_shares(both.sum(1), actual.sum(1), said.sum(1)).mean(0)
    means = [("micro avg", micro, int(support.sum())), *_means(shares, support)]
    return _report(names, shares, support, [*means, ("samples avg", samples, int(support.sum()))], digits)


def _yes_shares(both: np.ndarray, actual: np.ndarray, said: np.ndarray) -> np.ndarray:
    """Precision, recall and F1 from numbers of answers: rightly said, true, and said, all (n,); 0 of none: (n, 3)."""
    below = np.stack([said, actual, said + actual], 1)
    return np.stack([both, both, 2 * both], 1) / np.where(below == 0, 1, below)


def _means(shares: np.ndarray, support: np.ndarray) -> list[_Row]:
    total = int(support.sum())
    return [("macro avg", shares.mean(0), total), ("weighted avg", support @ shares / max(total, 1), total)]


def _report(names: Sequence[str], shares: np.ndarray, support: np.ndarray, below: Sequence[_Row], digits: int) -> str:
    width = max(len("weighted avg"), *map(len, names))
    head = " " * width + "".join(f" {name:>9}" for name in ("precision", "recall", "f1-score", "support"))

    def line(name: str, values: Sequence[Any], n: int) -> str:
        cells = "".join(f" {value if isinstance(value, str) else f'{value:.{digits}f}':>9}" for value in values)
        return f"{name:>{width}}{cells} {n:>9}"

    rows = zip(names, shares, support.tolist(), strict=True)
    return "\n".join([head, "", *(line(*row) for row in rows), "", *(line(*row) for row in below)])
