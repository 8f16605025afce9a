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
from pellucid.doctor.evidence.streams import BATCHES, Items, Numbers

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

    @property
    def known(self) -> Tensor | None:
        """The logits, unless they have been changed since."""
        x = self.logits
        unchanged = x is not None and (x.is_inference() or x._version == self.version)
        return x if unchanged else None


def predicted(x: Tensor, kind: str) -> Tensor:
    """The class that logits, (item, class) or (item,), give each item."""
    return x.argmax(1) if x.ndim == 2 else (x > (0.5 if kind == "probability" else 0.0)).int()


def _losses(x: Tensor, labels: Tensor, kind: str) -> Tensor:
    """Cross-entropy of each item; nan where the label is none of the classes."""
    if x.ndim == 2:
        known = (labels >= 0) & (labels < x.shape[1])
        return F.cross_entropy(x.float(), labels.long().where(known, 0), reduction="none").where(known, torch.nan)
    known = (labels == 0) | (labels == 1)
    x, labels = x.float(), labels.float().where(known, 0)
    if kind != "probability":
        return F.binary_cross_entropy_with_logits(x, labels, reduction="none").where(known, torch.nan)
    known &= (x >= 0) & (x <= 1)
    return F.binary_cross_entropy(x.clamp(0, 1), labels, reduction="none").where(known, torch.nan)


@dataclass
class Answers:
    """Labels and answers of all passes of a phase."""

    sequence: Items = field(default_factory=lambda: Items(np.int32))
    losses: Items = field(default_factory=lambda: Items(np.float64))
    predicted: Items = field(default_factory=lambda: Items(np.int32))
    starts: Numbers = field(default_factory=Numbers)
    width: int = 0
    compared: str = ""
    _waiting: list[tuple[Tensor, Tensor | None]] = field(default_factory=list)  # labels and logits
    _alike: object = None  # what those that wait have in common
    _kind: str = ""

    def add(self, answer: Answer) -> None:
        """Take those of a pass; without labels there is nothing to take."""
        labels = answer.labels
        if labels is None or self.sequence.is_full:
            return
        self.starts.put(self.sequence.n)
        self.sequence.put(labels)
        logits = None
        if answer.logits is not None and len(answer.logits) == len(labels):
            self.width = answer.width
            logits = answer.known if answer.logits.numel() <= MAX_LOGITS else None
        of = None if logits is None else (logits.shape[1:], logits.dtype, logits.device, answer.kind)
        alike = labels.dtype, labels.device, of
        if alike != self._alike or len(self._waiting) >= BATCHES:
            self._settle()
        self._alike, self._kind = alike, answer.kind
        # Whoever made the logits may still change them.
        self._waiting.append((labels, None if logits is None else logits.clone()))

    def _settle(self) -> None:
        """Measure what waits for it, all at once."""
        if not self._waiting:
            return
        labels = torch.cat([each for each, _ in self._waiting])
        logits = [each for _, each in self._waiting if each is not None]
        self._waiting = []
        if logits:
            x = torch.cat(logits)
            self.predicted.put(predicted(x, self._kind))
            self.losses.put(_losses(x, labels.to(x.device), self._kind))
        else:
            self.predicted.put(torch.full((len(labels),), -1, dtype=torch.int32))
            self.losses.put(torch.full((len(labels),), torch.nan))

    def labels(self) -> Labels:
        """Everything so far."""
        self._settle()
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
