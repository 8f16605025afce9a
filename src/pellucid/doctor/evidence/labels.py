"""Labels of classification, wherever they are seen, with what the model said of each item."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pellucid.doctor.evidence.record import Labels
from pellucid.doctor.evidence.streams import Items, Numbers

MAX_LOGITS = 1_000_000  # of a batch whose cross-entropies are computed at every step
_NAMES = "labels", "label", "targets", "target", "y"
_BINARY = "binary_cross_entropy", "binary_cross_entropy_with_logits", "soft_margin_loss"


@dataclass
class Answer:
    """What a pass output for each item, and the labels of the items, as far as they are seen.

    Attributes:
        logits: (item, class), or (item,) of two classes; whoever made them may still change them: `version` tells.
        kind: Of the loss that was given them: `log` (log-probabilities), `probability`, or `''`.
        labels: [item], whole numbers.
    """

    logits: Tensor | None = None
    version: int = 0
    kind: str = ""
    labels: Tensor | None = None

    def said(self, output: Tensor | None) -> None:
        """Take the output of the model, or what a loss is given."""
        if output is not None and output.ndim == 2 and output.shape[1] == 1:
            output = output[:, 0]
        if output is not None and output.is_floating_point() and output.ndim in (1, 2) and len(output):
            self.logits = output.detach()
            self.version = 0 if output.is_inference() else output._version

    @property
    def width(self) -> int:
        """Number of outputs; 0 where unknown."""
        return 0 if self.logits is None else 1 if self.logits.ndim == 1 else self.logits.shape[1]

    def measured(self) -> tuple[Tensor | None, Tensor | None]:
        """Predicted class and cross-entropy of each item, as far as they are known."""
        x = self.logits
        if x is None or x.numel() > MAX_LOGITS or (not x.is_inference() and x._version != self.version):
            return None, None
        if x.ndim == 1:
            threshold = 0.5 if self.kind == "probability" else 0.0
            predicted = (x > threshold).int()
            if self.labels is None:
                return predicted, None
            of = F.binary_cross_entropy if self.kind == "probability" else F.binary_cross_entropy_with_logits
            ok = bool(((self.labels == 0) | (self.labels == 1)).all()) and (
                self.kind != "probability" or bool(((x >= 0) & (x <= 1)).all())
            )
            return predicted, of(x.float(), self.labels.float(), reduction="none") if ok else None
        predicted = x.argmax(1)
        if self.labels is None:
            return predicted, None
        known = (self.labels >= 0) & (self.labels < x.shape[1])
        losses = F.cross_entropy(x.float(), self.labels.long().where(known, 0), reduction="none")
        return predicted, losses.where(known, torch.nan)


@dataclass
class Answers:
    """Labels and answers of all passes of a phase."""

    sequence: Items = field(default_factory=lambda: Items(np.int32))
    losses: Items = field(default_factory=lambda: Items(np.float64))
    predicted: Items = field(default_factory=lambda: Items(np.int32))
    starts: Numbers = field(default_factory=Numbers)
    width: int = 0
    compared: str = ""

    def add(self, answer: Answer) -> None:
        """Take those of a pass; without labels there is nothing to take."""
        if answer.labels is None or self.sequence.is_full:
            return
        predicted, losses = answer.measured()
        n = len(answer.labels)
        if answer.logits is not None and len(answer.logits) == n:
            self.width = answer.width
        else:
            predicted = losses = None
        self.starts.put(self.sequence.n)
        self.sequence.put(answer.labels)
        blank = torch.empty(0)
        self.predicted.put(blank.new_full((n,), -1).int() if predicted is None else predicted)
        self.losses.put(blank.new_full((n,), torch.nan) if losses is None else losses)

    def labels(self) -> Labels:
        """Everything so far."""
        predicted, losses = self.predicted.array(), self.losses.array()
        return Labels(
            self.sequence.array(),
            self.starts.array().astype(np.int64),
            losses if np.isfinite(losses).any() else losses[:0],
            predicted if (predicted >= 0).any() else predicted[:0],
            self.width,
            self.compared,
        )


def from_loss(name: str, prediction: Any, target: Any, n: int) -> Tensor | None:
    """The labels of `n` items in what a loss was called with: indices, or rows with a single 1; else None."""
    if (
        not isinstance(target, Tensor)
        or target.ndim not in (1, 2)
        or len(target) != n
        or not isinstance(prediction, Tensor)
    ):
        return None
    if not target.is_floating_point() and target.dtype is not torch.bool:
        return target.detach() if target.ndim == 1 else target.detach()[:, 0] if target.shape[1] == 1 else _hot(target)
    if target.ndim == 2 and target.shape[1] > 1:
        return _hot(target)
    if name in _BINARY:
        column = target.detach().reshape(-1)
        return column.int() if bool(((column == 0) | (column == 1)).all()) else None
    return None


def _hot(target: Tensor) -> Tensor | None:
    rows = target.detach().float()
    ones = bool(((rows.sum(1) == 1) & (rows.amax(1) == 1)).all())
    return rows.argmax(1) if ones else None


def from_batch(batch: Any, n: int) -> Tensor | None:
    """The labels of `n` items in a batch of a loader: the second of two, or one by name; else None."""
    found: Any = None
    if isinstance(batch, list | tuple) and len(batch) == 2:
        found = batch[1]
    elif isinstance(batch, Mapping):
        found = next((batch[name] for name in _NAMES if name in batch), None)
    if not isinstance(found, Tensor) or found.is_floating_point() or found.is_complex():
        return None
    if found.ndim == 2 and found.shape[1] == 1:
        found = found[:, 0]
    return found.detach() if found.ndim == 1 and len(found) == n else None
