"""What a classifier said of images whose labels are known, and everything that follows from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from pellucid.errors import DataError
from pellucid.evaluation import writing
from pellucid.evaluation.calibration import Calibration, calibration
from pellucid.evaluation.scores import ClassScore, wilson
from pellucid.evaluation.wording import as_words
from pellucid.metrics.counts import class_shares
from pellucid.plot.classification import plot_confusion_matrix, plot_reliability
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


@dataclass(frozen=True, repr=False)
class Evaluation:
    """How good a run is on labelled images; `Run.evaluate` makes one.

    Printed, it is a report. Nothing in it was chosen on these images: the temperature is the run's.

    Attributes:
        source: What was evaluated on.
        vocab: Names of the classes.
        sources: Paths of the images, in order.
        labels: Numbers of their classes, int (image,).
        probabilities: As the run predicts them, float64 (image, class).
        temperature: Of the run, fitted on its validation images; None if it has none.
        scaled: Probabilities at that temperature, float64 (image, class); None without one.
        failed: Image that could not be classified → why.
    """

    source: str
    vocab: Sequence[str]
    sources: Sequence[str]
    labels: np.ndarray
    probabilities: np.ndarray
    temperature: float | None = None
    scaled: np.ndarray | None = None
    failed: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not len(self.sources):
            raise DataError(f"{self.source}: none of its {len(self.failed)} images could be classified")

    def __repr__(self) -> str:
        return as_words(self)

    @property
    def n(self) -> int:
        """Images that were classified."""
        return len(self.labels)

    @cached_property
    def predicted(self) -> np.ndarray:
        """Numbers of the most probable classes, int (image,)."""
        return self.probabilities.argmax(1)

    @property
    def n_right(self) -> int:
        """Right answers."""
        return int((self.predicted == self.labels).sum())

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return self.n_right / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % confidence interval of the accuracy; it takes the images for independent of each other."""
        return wilson(self.n_right, self.n)

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
    def calibration(self) -> Calibration:
        """Whether the probabilities are what they say, as the run predicts them."""
        return calibration(self.probabilities, self.labels)

    @property
    def scaled_calibration(self) -> Calibration | None:
        """The same at the run's temperature; None if it has none."""
        return None if self.scaled is None else calibration(self.scaled, self.labels)

    @cached_property
    def predictions(self) -> list[Answer]:
        """Of every image, in order."""
        rows = np.arange(self.n)
        said = self.probabilities[rows, self.predicted].tolist(), self.probabilities[rows, self.labels].tolist()
        labels, predicted = ([self.vocab[int(i)] for i in each] for each in (self.labels, self.predicted))
        return [Answer(*row) for row in zip(self.sources, labels, predicted, *said, strict=True)]

    @property
    def mistakes(self) -> list[Answer]:
        """The wrong answers, those given with most confidence first."""
        wrong = [answer for answer in self.predictions if answer.predicted != answer.label]
        return sorted(wrong, key=lambda answer: -answer.probability)

    def plot_confusion(self, normalize: bool = False, **options: Unpack[AxesOptions]) -> Figure:
        """Show the confusion matrix.

        Args:
            normalize: Show shares of each actual class instead of counts.
            options: `figsize`, `dpi`, `title`, `suptitle`, and `ax` (or `ctx`) to draw into.
        """
        names = list(map(drawable, self.vocab))
        drawn = plot_confusion_matrix(self.confusion, names, normalize=normalize, ax=given_axes(options))
        return finished(given_axes(options) or drawn.axes[0], options)

    def plot_reliability(self, **options: Unpack[AxesOptions]) -> Figure:
        """Show how often answers are right by the probability they were given; options as of `plot_confusion`."""
        raw, scaled = self.calibration, self.scaled_calibration
        after = None if scaled is None else (scaled.counts, scaled.accuracy)
        drawn = plot_reliability(raw.edges, raw.counts, raw.accuracy, after, ax=given_axes(options))
        return finished(given_axes(options) or drawn.axes[0], options)

    def to_json(self) -> dict[str, Any]:
        """Scores, confusion matrix, calibration and mistakes as plain values; a share of nothing is None."""
        return writing.to_json(self)

    def to_csv(self, path: str | Path) -> Path:
        """Write a row for each image: path, label, predicted, the probability of each class, and errors.

        Raises:
            UsageError: the file cannot be written.
        """
        return writing.to_csv(self, Path(path))

    def to_html(self, path: str | Path) -> Path:
        """Write one page with scores, confusion matrix, calibration and the mistakes with their images.

        Raises:
            UsageError: the file has not the ending .html, or cannot be written.
        """
        return writing.to_html(self, Path(path))

    def save(self, folder: str | Path) -> Path:
        """Write the page `index.html`, `predictions.csv`, `evaluation.json`, `confusion.png` and `reliability.png`.

        Raises:
            UsageError: the folder cannot be written.
        """
        return writing.save(self, Path(folder))
