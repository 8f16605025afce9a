"""What a classifier said of images that have any number of labels each, and everything that follows from it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np

from pellucid.errors import UsageError
from pellucid.evaluation import page
from pellucid.evaluation.calibration import Calibration, binned
from pellucid.evaluation.evaluated import Error, Evaluated
from pellucid.evaluation.scores import LabelScore
from pellucid.evaluation.wording import label_words
from pellucid.metrics.counts import class_shares
from pellucid.metrics.ranking import average_precision
from pellucid.text import first_few

THRESHOLD = 0.5


@dataclass(frozen=True)
class LabelsAnswer:
    """What was said of one image that may have several labels, and what is true.

    Attributes:
        source: Path of the image.
        label: Its labels, joined by ";".
        predicted: Those it was given, joined by ";".
        added: Labels it was given and does not have → their probability, most probable first.
        missed: Labels it has and was not given → their probability, least probable first.
    """

    source: str
    label: str
    predicted: str
    added: dict[str, float]
    missed: dict[str, float]


@dataclass(frozen=True, repr=False)
class LabelsEvaluation(Evaluated):
    """How good a run is on images of any number of labels; `Run.evaluate` makes one.

    An image counts as right where all of its labels are told and no other (`accuracy`, also called subset accuracy).

    Attributes:
        thresholds: A label is given to an image where its probability is above this, float (label,) or one for all.

    The others are those of `Evaluated`; `labels` say which labels an image has, bool (image, label).
    """

    thresholds: float | np.ndarray = THRESHOLD

    RELIABILITY = "probability of a label", "share of images that have it"

    def __repr__(self) -> str:
        return label_words(self)

    def at(self, threshold: float | Mapping[str, float]) -> Self:
        """The same probabilities with other thresholds.

        Thresholds that are chosen by looking at the scores belong to other images than those that are reported.

        Args:
            threshold: For all labels, or label → threshold; those that are left out keep theirs.

        Raises:
            UsageError: a threshold is outside [0, 1], or of a label that does not exist.
        """
        found = np.broadcast_to(np.asarray(self.thresholds, float), len(self.vocab)).copy()
        given = threshold if isinstance(threshold, Mapping) else dict.fromkeys(self.vocab, threshold)
        if unknown := [name for name in given if name not in self.vocab]:
            raise UsageError(f"thresholds of {first_few(unknown)}: the labels are {first_few(self.vocab)}")
        for name, value in given.items():
            if not 0 <= value <= 1:
                raise UsageError(f"a threshold is a probability from 0 to 1, got {value} (--threshold)")
            found[self.vocab.index(name)] = value
        return replace(self, thresholds=found)

    @cached_property
    def predicted(self) -> np.ndarray:
        """Which labels an image was given, bool (image, label)."""
        return self.probabilities > self.thresholds

    @property
    def right(self) -> np.ndarray:
        """Whether an image was given its labels and no other, bool (image,)."""
        return (self.predicted == self.labels).all(1)

    @property
    def hamming_loss(self) -> float:
        """Share of wrong answers, of which each image has one a label."""
        return float((self.predicted != self.labels).mean())

    @cached_property
    def confusion(self) -> np.ndarray:
        """Number of images, int [label, it has it (0 or 1), it was given it (0 or 1)]."""
        kinds = 2 * self.labels.astype(int) + self.predicted
        return np.stack([(kinds == kind).sum(0) for kind in range(4)], 1).reshape(-1, 2, 2)

    @property
    def per_class(self) -> list[LabelScore]:
        """Precision, recall, F1, support and average precision of each label, in the order of `vocab`."""
        columns = zip(self.vocab, self.confusion, self.probabilities.T, self.labels.T, strict=True)
        return [_score(*column) for column in columns]

    @property
    def pooled(self) -> LabelScore:
        """The same of all answers together, whatever their label (the micro average)."""
        return _score("all", self.confusion.sum(0), self.probabilities.ravel(), self.labels.ravel())

    @property
    def predictions(self) -> list[LabelsAnswer]:
        """Of every image, in order."""
        return [self.answer(i) for i in range(self.n)]

    @property
    def wrong(self) -> np.ndarray:
        """Places of the mistakes among the images, those with the most confident wrong answer first, int (mistake,)."""
        sure = np.where(self.predicted, self.probabilities, 1 - self.probabilities)
        worst = np.where(self.predicted != self.labels, sure, -math.inf).max(1)
        places = np.flatnonzero(~self.right)
        return places[np.argsort(-worst[places], kind="stable")]

    def errors(self, i: int) -> list[Error]:
        """The labels that image number `i` was given and does not have, and those it was not given."""
        answer = self.answer(i)
        added = [Error("not", name, p, True) for name, p in answer.added.items()]
        return [*added, *(Error("is", name, p, False) for name, p in answer.missed.items())]

    def answer(self, i: int) -> LabelsAnswer:
        """Of image number `i`."""
        row, has, said = self.probabilities[i], self.labels[i], self.predicted[i]

        def named(places: np.ndarray) -> dict[str, float]:
            return {self.vocab[int(place)]: float(row[place]) for place in places}

        falling = np.argsort(-row, kind="stable")
        return LabelsAnswer(
            self.sources[i],
            ";".join(named(np.flatnonzero(has))),
            ";".join(named(np.flatnonzero(said))),
            named(falling[(said & ~has)[falling]]),
            named(falling[::-1][(has & ~said)[falling[::-1]]]),
        )

    def _calibrated(self, probabilities: np.ndarray) -> Calibration:
        return binned(probabilities.ravel(), self.labels.ravel())

    def _scores(self) -> dict[str, Any]:
        return {
            "hamming_loss": self.hamming_loss,
            "thresholds": np.broadcast_to(self.thresholds, len(self.vocab)).tolist(),
            "pooled": asdict(self.pooled),
            "confusion": self.confusion.tolist(),
        }

    def _page(self) -> dict[str, Any]:
        return page.label_values(self)


def _score(name: str, counts: np.ndarray, probabilities: np.ndarray, labels: np.ndarray) -> LabelScore:
    """Of one label: counts [has it, was given it], and each image's probability (image,) and label (image,)."""
    precision, recall, f1 = class_shares(counts)[1].tolist()
    return LabelScore(name, precision, recall, f1, int(counts[1].sum()), average_precision(probabilities, labels))
