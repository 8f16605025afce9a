"""A trained model with all it needs to look at new images, and what it says of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from pellucid.convolution.summary import ModelSummary, summarize
from pellucid.data.dataset import item_list
from pellucid.data.loader import DataLoader
from pellucid.data.opening import name_of
from pellucid.data.pipeline import Pipeline
from pellucid.data.sources import is_path
from pellucid.errors import DataError, UsageError
from pellucid.evaluation.evaluation import Evaluation
from pellucid.evaluation.labels import LabelsEvaluation
from pellucid.history.history import History
from pellucid.inspection.looking import looking
from pellucid.nn.losses import ACTIVATIONS
from pellucid.runs.evaluating import evaluate
from pellucid.runs.statistics import load_history, result_of

if TYPE_CHECKING:
    from pellucid.doctor.report import Report

BATCH = 64
ROUNDING = 1e-3  # of probabilities that were computed in half precision


@dataclass(frozen=True)
class Prediction:
    """What a run says of one image.

    Attributes:
        source: Path of the image as it was given, or "image" where it came without one.
        label: Name of the most probable class.
        probabilities: Class name → probability, most probable first.
    """

    source: str
    label: str
    probabilities: dict[str, float]


@dataclass(frozen=True)
class LabelsPrediction(Prediction):
    """What a run says of one image that may have any number of labels.

    Attributes:
        labels: Those that are more probable than not, most probable first; `label` is the same joined by ";".
    """

    labels: list[str]


@dataclass(frozen=True)
class Run:
    """A trained model with all that is needed to use it on new images.

    Attributes:
        folder: Where it is kept.
        settings: Contents of its `run.json`.
        model: The network, in evaluation mode.
        pipeline: What an image goes through on its way to the model; None where that is not known.
    """

    folder: Path
    settings: dict[str, Any]
    model: nn.Module
    pipeline: Pipeline | None = None

    @property
    def vocab(self) -> list[Any]:
        """Class names, in order of their index."""
        return self.settings["vocab"]

    @property
    def results(self) -> list[dict[str, float | None]]:
        """Losses and metrics of each epoch; None stands for a number that was not finite."""
        return self.settings.get("results", [])

    @property
    def epoch(self) -> int | None:
        """The epoch at whose end the model was as it is here, from 0; None where that is not known."""
        return self.settings.get("epoch")

    @property
    def result(self) -> dict[str, float | None]:
        """Losses and metrics of that epoch, or of the probe where no epoch was better; empty without results."""
        return result_of(self.settings)

    @property
    def temperature(self) -> float | None:
        """What its outputs are divided by to be calibrated, fitted on its validation images; None where it has none."""
        return self.settings.get("temperature")

    @property
    def stopped(self) -> str | None:
        """What ended its training early, an error or the doctor; None if nothing did."""
        return self.settings["settings"].get("stopped")

    @property
    def report(self) -> Report:
        """What the doctor says of its training.

        Raises:
            UsageError: it was trained without the doctor and without statistics, or as a probe.
        """
        from pellucid.runs.diagnosing import diagnose_run

        return diagnose_run(self.folder)

    def predict(self, images: Any, *, calibrated: bool = False) -> list[Prediction]:
        """Classify images (paths, Pillow images or arrays); of several labels an image, each is a `LabelsPrediction`.

        Args:
            images: A list of them. One path or image counts as a list of it, a folder as the list of its images, as
                in `dls.test_dl`.
            calibrated: Give probabilities at the run's temperature. The classes and their order stay as they are.

        Raises:
            UsageError: an array that may be one image or several, a run whose outputs are no probabilities, or one
                without a temperature.
            DataError: an image cannot be decoded, or the run knows no resize and its size differs.
        """
        found: list[Prediction] = []
        for answer in self.answers(images, calibrated=calibrated):
            if isinstance(answer, DataError):
                raise answer
            found.append(answer)
        return found

    def answers(self, images: Any, *, calibrated: bool = False) -> Iterator[Prediction | DataError]:
        """Classify images one batch after the other: for each its prediction, or why there is none.

        Raises:
            UsageError: as `predict`.
        """
        images = _listed(images)
        for position, rows in self.rows(images, self.activation(calibrated=calibrated)):
            if isinstance(rows, DataError):
                yield rows
                continue
            for image, row in zip(images[position:], rows, strict=False):
                yield self._prediction(image, row)

    def rows(
        self, images: list[Any], activation: Callable[[Tensor], Tensor]
    ) -> Iterator[tuple[int, Tensor | DataError]]:
        """What an activation makes of the outputs, batch by batch, or an image's error; with the first one's number."""
        for position, taken in _taken(self._loader(images), len(images)):
            if isinstance(taken, DataError):
                yield position, taken
                continue
            with looking(self.model), torch.no_grad():
                outputs = self._checked(self.model(taken), len(taken))
                rows = activation(outputs)
            yield position, rows

    def evaluate(
        self,
        source: str | Path,
        *,
        on_error: Literal["raise", "skip"] = "raise",
        threshold: float | Mapping[str, float] | None = None,
        **columns: Any,
    ) -> Evaluation | LabelsEvaluation:
        """Compare what it says of labelled images with their labels.

        Args:
            source: A folder with a sub-folder of images for each class, or with `test` (else `valid`) that has them; a
                folder of IDX files, of which the test side is taken; a CSV or TSV file of paths and labels; or the name
                of a data set. Images of several labels come from a label file.
            on_error: Images that cannot be classified: `raise` lists them, `skip` leaves them out and says so in what
                it returns.
            threshold: Of several labels, the probability above which an image is given one, for all or label →
                threshold; None means 0.5, as `predict` has it.
            columns: Of a label file, the arguments of `csv_items`, such as `label_col`. A run of several labels knows
                the `label_delim` and the columns that it was trained with.

        Raises:
            UsageError: as `predict`, or a threshold for a run of one class an image.
            DataError: there are no images, some are of classes that the run does not know, or cannot be decoded.
        """
        return evaluate(self, source, on_error, threshold, columns)

    def batch(self, images: Any) -> torch.Tensor:
        """Images as the model sees them, decoded and normalised: (image, channel, row, column).

        Raises:
            UsageError, DataError: as `predict`.
        """
        images = _listed(images)
        return torch.cat([xb for (xb,) in self._loader(images)(range(len(images)))])

    def summary(self) -> ModelSummary:
        """The layer table, for a batch of one image."""
        return summarize(self.model, torch.zeros(1, *self.settings["input_shape"], device="cpu"))

    @property
    def history(self) -> History:
        """Losses and hyper-parameters of its training, and what its layers did if it recorded statistics.

        Raises:
            UsageError: there is none, or it is damaged.
        """
        return load_history(self.folder)

    def _loader(self, images: list[Any]) -> Callable[[range], DataLoader]:
        """What makes batches of the images at these positions."""
        if self.pipeline is None or self.pipeline.decoding is None:
            raise UsageError(
                "this run was trained on batches of your own and does not know how a file becomes one; call its model"
            )
        return partial(DataLoader, self.pipeline.source(images), bs=BATCH, batch_tfms=self.pipeline.batch_tfms)

    def activation(self, *, calibrated: bool = False) -> Callable[[Tensor], Tensor]:
        """What turns its outputs (image, class) into probabilities; calibrated, at its temperature.

        Raises:
            UsageError: the loss does not say what does, or the run has no temperature.
        """
        if calibrated:
            return self._scaling()
        name = self.settings.get("activation", "softmax")
        if name is None:
            raise UsageError("the loss this run was trained with does not say how its outputs become probabilities")
        return lambda outputs: self._probabilities(outputs, ACTIVATIONS[name](outputs))

    def _scaling(self) -> Callable[[Tensor], Tensor]:
        """Softmax, of several labels sigmoid, at the run's temperature, in float64."""
        temperature = self.temperature
        if temperature is None:
            raise UsageError(
                "this run has no temperature to calibrate with: it was trained by an earlier pellucid, or its "
                "validation images gave none (no mistake among them, or no better than guessing)"
            )
        activation = ACTIVATIONS["sigmoid" if self.settings.get("activation") == "sigmoid" else "softmax"]
        return lambda outputs: activation(outputs.double() / temperature)

    def _checked(self, outputs: Any, n: int) -> Tensor:
        expected = (n, len(self.vocab))
        if not isinstance(outputs, Tensor) or outputs.shape != expected:
            found = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
            raise UsageError(f"the model gives {found}, not one output for each of {expected[1]} classes, {expected}")
        return outputs.float()

    def _probabilities(self, outputs: Tensor, rows: Tensor) -> Tensor:
        outside = outputs.isfinite() & ((rows < 0) | (rows > 1 + ROUNDING))
        if bool(outside.any()):
            raise UsageError(
                f"the model's outputs become {float(rows[outside][0]):.4g}, which is no probability: 'activation' in "
                f"run.json, {self.settings.get('activation', 'softmax')!r}, does not fit the model; 'softmax' fits "
                "outputs of any size, 'exp' logarithms of probabilities"
            )
        return rows

    def _prediction(self, image: Any, row: torch.Tensor) -> Prediction | DataError:
        if not bool(row.isfinite().all()):
            return DataError(f"{name_of(image)}: the model's output for it is nan or infinite")
        values, order = row.sort(descending=True)
        names = [str(self.vocab[i]) for i in order.tolist()]
        source = str(image) if is_path(image) else name_of(image)  # never an array's numbers or a file's bytes
        probabilities = dict(zip(names, values.tolist(), strict=True))
        if self.settings.get("multi"):
            labels = [name for name, probability in probabilities.items() if probability > 0.5]
            return LabelsPrediction(source, ";".join(labels), probabilities, labels)
        return Prediction(source, names[0], probabilities)


def _taken(loader: Callable[[range], DataLoader], n: int) -> Iterator[tuple[int, Tensor | DataError]]:
    """Batches in order, each with the number of its first image; a bad image comes alone, as its error."""
    start = 0
    while start < n:
        try:
            for (xb,) in loader(range(start, n)):  # decodes ahead, while the model works
                yield start, xb
                start += len(xb)
        except DataError:
            stop = min(start + BATCH, n)
            for position in range(start, stop):
                yield from _alone(loader, position)
            start = stop


def _alone(loader: Callable[[range], DataLoader], position: int) -> Iterator[tuple[int, Tensor | DataError]]:
    try:
        for (xb,) in loader(range(position, position + 1)):
            yield position, xb
    except DataError as error:
        yield position, error


def _listed(images: Any) -> list[Any]:
    # Nothing to classify is no mistake: whoever chooses among files may have chosen none.
    return [] if isinstance(images, list | tuple) and not images else item_list(images, "a run")
