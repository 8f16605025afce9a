"""What the evaluations of classes and of labels have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Unpack

import numpy as np
from PIL import Image

from pellucid.data.images import load
from pellucid.errors import DataError
from pellucid.evaluation import writing
from pellucid.evaluation.calibration import Calibration
from pellucid.evaluation.scores import ClassScore, wilson
from pellucid.plot.classification import plot_reliability
from pellucid.plot.figure import AxesOptions, GridOptions, finished, given_axes
from pellucid.plot.images import show_grid
from pellucid.text import counted, drawable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIDE = 224  # pixels of a thumbnail
MOST_LINES = 3  # above a picture
GONE = np.full((1, 1), 0.9)  # in place of an image whose file is gone


class Error(NamedTuple):
    """A part of a mistake.

    Attributes:
        word: Before the name: "is" of what is true, "not" or nothing of what was said.
        name: Of the class or label.
        probability: It was given.
        said: Whether it was said, rather than true.
    """

    word: str
    name: str
    probability: float
    said: bool


@dataclass(frozen=True, repr=False)
class Evaluated(ABC):
    """How good a run is on labelled images: what does not depend on how many labels an image has.

    Printed, it is a report. Nothing in it was chosen on these images: the temperature is the run's.

    Attributes:
        source: What was evaluated on.
        vocab: Names of the classes or labels.
        sources: Names of the images, their paths where they are files, in order.
        labels: What is true of them.
        probabilities: As the run predicts them, float64 (image, class).
        temperature: Of the run, fitted on its validation images; None if it has none.
        scaled: Probabilities at that temperature, float64 (image, class); None without one.
        failed: Image that could not be classified → why.
        pixels: Images that are no files, uint8 (image, row, column); None of files.
    """

    source: str
    vocab: Sequence[str]
    sources: Sequence[str]
    labels: np.ndarray
    probabilities: np.ndarray
    temperature: float | None = None
    scaled: np.ndarray | None = None
    failed: Mapping[str, str] = field(default_factory=dict)
    pixels: np.ndarray | None = None

    RELIABILITY: ClassVar[tuple[str, str]]
    """What the axes of the reliability diagram are."""

    def __post_init__(self) -> None:
        if not len(self.sources):
            raise DataError(f"{self.source}: none of its {len(self.failed)} images could be classified")

    @property
    def n(self) -> int:
        """Images that were classified."""
        return len(self.labels)

    @property
    @abstractmethod
    def right(self) -> np.ndarray:
        """Whether all that was said of an image is right, bool (image,)."""

    @property
    def n_right(self) -> int:
        """Images of which all that was said is right."""
        return int(self.right.sum())

    @property
    def accuracy(self) -> float:
        """Share of the images of which all that was said is right."""
        return self.n_right / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % confidence interval of the accuracy; it takes the images for independent of each other."""
        return wilson(self.n_right, self.n)

    @property
    @abstractmethod
    def per_class(self) -> Sequence[ClassScore]:
        """Precision, recall, F1 and support of each class or label, in the order of `vocab`."""

    @property
    def calibration(self) -> Calibration:
        """Whether the probabilities are what they say, as the run predicts them."""
        return self._calibrated(self.probabilities)

    @property
    def scaled_calibration(self) -> Calibration | None:
        """The same at the run's temperature; None if it has none."""
        return None if self.scaled is None else self._calibrated(self.scaled)

    @abstractmethod
    def answer(self, i: int) -> Any:
        """What was said of image number `i`, and what is true."""

    @property
    def predictions(self) -> list[Any]:
        """The answers of all images, in order."""
        return [self.answer(i) for i in range(self.n)]

    @property
    def mistakes(self) -> list[Any]:
        """The wrong answers, those given with most confidence first."""
        return [self.answer(i) for i in self.wrong.tolist()]

    @property
    @abstractmethod
    def wrong(self) -> np.ndarray:
        """Places of the mistakes among the images, those given with most confidence first, int (mistake,)."""

    @abstractmethod
    def errors(self, i: int) -> list[Error]:
        """What was said wrongly of image number `i`, and what is true of it."""

    def plot_reliability(self, **options: Unpack[AxesOptions]) -> Figure:
        """Show how often answers are right by the probability they were given.

        Args:
            options: `figsize`, `dpi`, `title`, `suptitle`, and `ax` (or `ctx`) to draw into.
        """
        raw, scaled = self.calibration, self.scaled_calibration
        after = None if scaled is None else (scaled.counts, scaled.accuracy)
        x, y = self.RELIABILITY
        drawn = plot_reliability(raw.edges, raw.counts, raw.accuracy, after, x=x, y=y, ax=given_axes(options))
        return finished(given_axes(options) or drawn.axes[0], options)

    def plot_mistakes(self, k: int = 9, **options: Unpack[GridOptions]) -> Figure:
        """Show the `k` most confident mistakes, each under what was said with its probability, and what is true.

        Args:
            k: How many at most.
            options: `nrows`, `ncols`, `figsize`, `dpi`, `title` and `suptitle`.

        Raises:
            DataError: there are no mistakes.
        """
        places = self.wrong[:k].tolist()
        if not places:
            raise DataError(
                f"{self.source}: there is no mistake to show: of {counted(self.n, 'image')} all were told rightly"
            )
        images = [self.picture(i) for i in places]
        titles = ["\n".join(map(_line, self.errors(i)[:MOST_LINES])) for i in places]
        shown = [GONE if image is None else np.asarray(image) / 255 for image in images]
        return show_grid(shown, titles, options)[0, 0].figure

    def picture(self, i: int) -> Image.Image | None:
        """Image number `i`, of about 224 pixels if it has more; None where its file is gone meanwhile."""
        if self.pixels is not None:
            return Image.fromarray(self.pixels[i])
        try:
            image = load(self.sources[i], draft_size=SIDE)
        except DataError:
            return None
        image.thumbnail((SIDE, SIDE))
        return image

    def to_json(self) -> dict[str, Any]:
        """Scores, calibration and mistakes as plain values; a share of nothing is None."""
        return writing.to_json(self, self._scores())

    def to_csv(self, path: str | Path) -> Path:
        """Write a row for each image: path, label, predicted, the probability of each class, and errors.

        Raises:
            UsageError: the file cannot be written.
        """
        return writing.to_csv(self, Path(path))

    def to_html(self, path: str | Path) -> Path:
        """Write one page with scores, calibration and the mistakes with their images.

        Raises:
            UsageError: the file has not the ending .html, or cannot be written.
        """
        return writing.to_html(self, self._page(), Path(path))

    def save(self, folder: str | Path) -> Path:
        """Write the page `index.html`, `predictions.csv`, `evaluation.json` and the pictures.

        Raises:
            UsageError: the folder cannot be written.
        """
        return writing.save(self, self._pictures(), Path(folder))

    def _pictures(self) -> dict[str, Callable[[], Figure]]:
        return {"reliability.png": self.plot_reliability}

    @abstractmethod
    def _calibrated(self, probabilities: np.ndarray) -> Calibration: ...

    @abstractmethod
    def _scores(self) -> dict[str, Any]:
        """Of `to_json`, what only this kind has."""

    @abstractmethod
    def _page(self) -> dict[str, Any]:
        """Of the page, what only this kind has."""


def _line(error: Error) -> str:
    return f"{error.word} {drawable(error.name)} {error.probability:.2f}".strip()
