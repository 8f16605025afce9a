"""What a classifier said of images that have one class each, and everything that follows from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from pellucid.evaluation import page
from pellucid.evaluation.calibration import Calibration, calibration
from pellucid.evaluation.evaluated import Error, Evaluated
from pellucid.evaluation.scores import ClassScore
from pellucid.evaluation.wording import class_words
from pellucid.metrics.counts import class_shares
from pellucid.plot.classification import plot_confusion_matrix
from pellucid.plot.figure import AxesOptions, finished, given_axes
from pellucid.text import drawable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Answer:
    """What was said of one image, and what is true.

    Attributes:
        source: Path of the image.
        label: Its class.
        predicted: The most probable class.
        probability: Probability of the predicted class.
        of_label: Probability of its own class.
    """

    source: str
    label: str
    predicted: str
    probability: float
    of_label: float


class Evaluation(Evaluated):
    """How good a run is on images of one class each; `Run.evaluate` makes one.

    Printed, it is a report. Nothing in it was chosen on these images: the temperature is the run's. The attributes are
    those of `Evaluated`; `labels` are the numbers of the classes, int (image,).
    """

    RELIABILITY = "probability of the answer", "share of right answers"

    def __repr__(self) -> str:
        return class_words(self)

    @cached_property
    def predicted(self) -> np.ndarray:
        """Numbers of the most probable classes, int (image,)."""
        return self.probabilities.argmax(1)

    @property
    def right(self) -> np.ndarray:
        """Whether the answer is right, bool (image,)."""
        return self.predicted == self.labels

    @cached_property
    def confusion(self) -> np.ndarray:
        """Number of images, int [actual class, predicted class]."""
        n = len(self.vocab)
        return np.bincount(self.labels * n + self.predicted, minlength=n * n).reshape(n, n)

    @property
    def per_class(self) -> list[ClassScore]:
        """Precision, recall, F1 and support of each class, in the order of `vocab`."""
        rows = zip(self.vocab, class_shares(self.confusion).tolist(), self.confusion.sum(1).tolist(), strict=True)
        return [ClassScore(name, precision, recall, f1, n) for name, (precision, recall, f1), n in rows]

    @property
    def most_confused(self) -> list[tuple[str, str, int]]:
        """Pairs of classes that were confused: (actual, predicted, images), most first."""
        wrong = self.confusion * ~np.eye(len(self.vocab), dtype=bool)
        order = np.argsort(-wrong, axis=None, kind="stable")[: np.count_nonzero(wrong)]
        pairs = (divmod(int(place), len(self.vocab)) for place in order)
        return [(self.vocab[i], self.vocab[j], int(wrong[i, j])) for i, j in pairs]

    @property
    def predictions(self) -> list[Answer]:
        """Of every image, in order."""
        return [self.answer(i) for i in range(self.n)]

    def answer(self, i: int) -> Answer:
        """Of image number `i`."""
        row, label, said = self.probabilities[i], int(self.labels[i]), int(self.predicted[i])
        return Answer(self.sources[i], self.vocab[label], self.vocab[said], float(row[said]), float(row[label]))

    @property
    def wrong(self) -> np.ndarray:
        """Places of the mistakes among the images, those given with most confidence first, int (mistake,)."""
        places = np.flatnonzero(~self.right)
        return places[np.argsort(-self.probabilities[places].max(1), kind="stable")]

    def errors(self, i: int) -> list[Error]:
        """The class that was said of image number `i`, and its own."""
        answer = self.answer(i)
        said = Error("", answer.predicted, answer.probability, True)
        return [said, Error("is", answer.label, answer.of_label, False)]

    def plot_confusion(self, normalize: bool = False, **options: Unpack[AxesOptions]) -> Figure:
        """Show the confusion matrix.

        Args:
            normalize: Show shares of each actual class instead of counts.
            options: `figsize`, `dpi`, `title`, `suptitle`, and `ax` (or `ctx`) to draw into.
        """
        names = list(map(drawable, self.vocab))
        drawn = plot_confusion_matrix(self.confusion, names, normalize=normalize, ax=given_axes(options))
        return finished(given_axes(options) or drawn.axes[0], options)

    def _pictures(self) -> dict[str, Callable[[], Figure]]:
        return {"confusion.png": self.plot_confusion} | super()._pictures()

    def _calibrated(self, probabilities: np.ndarray) -> Calibration:
        return calibration(probabilities, self.labels)

    def _scores(self) -> dict[str, Any]:
        return {"confusion": self.confusion.tolist()}

    def _page(self) -> dict[str, Any]:
        return page.class_values(self)
