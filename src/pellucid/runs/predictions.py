"""A trained model with all it needs to look at new images, and what it says of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pellucid.activations.history import History
from pellucid.data.images import Decoding
from pellucid.data.loader import DataLoader
from pellucid.data.sources import StreamedImages
from pellucid.data.transforms import Normalize
from pellucid.looking import looking
from pellucid.runs.statistics import load_history
from pellucid.summary import ModelSummary, summarize


@dataclass(frozen=True)
class Prediction:
    """What a run says of one image.

    Attributes:
        source: The image, as it was given.
        label: Name of the most probable class.
        probabilities: Class name → probability, most probable first.
    """

    source: str
    label: str
    probabilities: dict[str, float]


@dataclass(frozen=True)
class Run:
    """A trained model with all that is needed to use it on new images.

    Attributes:
        folder: Where it is kept.
        settings: Contents of its `run.json`.
        model: The network, in evaluation mode.
    """

    folder: Path
    settings: dict[str, Any]
    model: nn.Module

    @property
    def vocab(self) -> list[Any]:
        """Class names, in order of their index."""
        return self.settings["vocab"]

    @property
    def results(self) -> list[dict[str, float]]:
        """Losses and metrics of each epoch."""
        return self.settings["results"]

    def predict(self, images: Sequence[Any]) -> list[Prediction]:
        """Classify images (paths, Pillow images or arrays).

        Raises:
            DataError: an image cannot be decoded, or the run knows no resize and its size differs.
        """
        with looking(self.model), torch.no_grad():
            probabilities = torch.cat([self.model(xb).softmax(-1) for (xb,) in self._loader(images)])
        return [self._prediction(image, row) for image, row in zip(images, probabilities, strict=True)]

    def batch(self, images: Sequence[Any]) -> torch.Tensor:
        """Images as the model sees them, decoded and normalised: (image, channel, row, column).

        Raises:
            DataError: as `predict`.
        """
        return torch.cat([xb for (xb,) in self._loader(images)])

    def summary(self) -> ModelSummary:
        """The layer table, for a batch of one image."""
        return summarize(self.model, torch.zeros(1, *self.settings["input_shape"]))

    @property
    def history(self) -> History:
        """What its layers did while it trained.

        Raises:
            UsageError: it was trained without statistics.
        """
        return load_history(self.folder)

    def _loader(self, images: Sequence[Any]) -> DataLoader:
        decoding = Decoding.from_json(self.settings["decoding"])
        source = StreamedImages(list(images), decoding, tuple(self.settings["input_shape"]))
        normalize = Normalize(**self.settings["normalize"])
        return DataLoader(source, range(len(images)), None, bs=64, batch_tfms=[normalize])

    def _prediction(self, image: Any, row: torch.Tensor) -> Prediction:
        values, order = row.sort(descending=True)
        names = [str(self.vocab[i]) for i in order.tolist()]
        return Prediction(str(image), names[0], dict(zip(names, values.tolist(), strict=True)))
