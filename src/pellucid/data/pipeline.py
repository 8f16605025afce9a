"""From a file to what the model sees: every step that is the same each time, as JSON and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pellucid.data.augment import crops  # noqa: F401  (what it registers, a run folder may hold)
from pellucid.data.images import Decoding
from pellucid.data.registry import BATCH_TRANSFORMS, called, from_json, to_json
from pellucid.data.sources import StreamedImages
from pellucid.data.transforms import BatchTransform, Normalize, transformed
from pellucid.errors import DataError, UsageError
from pellucid.seed import kept_rng


@dataclass(frozen=True)
class Pipeline:
    """What an image goes through on its way to the model, in validation and prediction.

    Attributes:
        decoding: How a file becomes pixels; None where batches were made by code of others.
        shape: Of the decoded image, (channel, row, column).
        batch_tfms: Transforms of float batches in [0, 1], in order.
    """

    decoding: Decoding | None
    shape: tuple[int, ...]
    batch_tfms: Sequence[BatchTransform] = ()

    @property
    def normalization(self) -> tuple[list[float], list[float]] | None:
        """Mean and deviation of each channel, where batches are normalised and nothing else."""
        if not self.batch_tfms:
            return [0.0], [1.0]
        only = self.batch_tfms[0]
        if len(self.batch_tfms) > 1 or not isinstance(only, Normalize) or only.mean is None or only.std is None:
            return None
        return only.mean, only.std

    def source(self, files: Sequence[Any], workers: int | None = None) -> StreamedImages:
        """The pixels of new images (paths, Pillow images or arrays), decoded as they are asked for.

        Raises:
            UsageError: it is not known how a file becomes pixels.
        """
        if self.decoding is None:
            raise UsageError("these batches were made by code of others, which alone knows how a file becomes one")
        return StreamedImages(files, self.decoding, self.shape, workers)

    def to_json(self) -> dict[str, Any]:
        """Plain settings; inverse of `from_json`.

        Raises:
            UsageError: a transform cannot be imported by its name, or does not say what it was made with.
        """
        return {
            "decoding": None if self.decoding is None else self.decoding.to_json(),
            "image_shape": list(self.shape),
            "batch_tfms": [to_json(transform) for transform in self.batch_tfms],
        }

    @classmethod
    def from_json(cls, settings: Mapping[str, Any]) -> Pipeline:
        """Make it again; transforms of others are imported, so their permission comes first.

        Raises:
            UsageError: a transform that does not exist, or does not take its arguments.
        """
        decoding, shape = settings["decoding"], tuple(settings["image_shape"])
        transforms = [from_json(each, BATCH_TRANSFORMS) for each in settings["batch_tfms"]]
        return cls(None if decoding is None else Decoding.from_json(decoding), shape, transforms)


def kept(pipeline: Pipeline, files: Sequence[Any], device: torch.device) -> tuple[dict[str, Any], tuple[int, ...]]:
    """A pipeline as JSON that was seen to make the same one again, and the shape that it gives the model.

    Args:
        pipeline: Of loaders whose batches are on `device`.
        files: Some images, of which the first sound one is tried.
        device: Where batches are.

    Raises:
        UsageError: a transform cannot be made again, or makes something else then.
    """
    try:
        settings = pipeline.to_json()
        again = Pipeline.from_json(settings)
        with kept_rng():
            if pipeline.decoding and again.decoding and pipeline.decoding.transforms:
                _compare_items(pipeline.decoding, again.decoding, files)
            shape = _compare_batches(pipeline, again, device)
    except UsageError as error:
        raise UsageError(
            f"a run folder keeps each step from file to model, without one its predictions would be wrong: {error}. Or "
            "save the weights alone, with learn.save, or move the step into the model"
        ) from None
    return settings, shape


def _compare_items(ours: Decoding, theirs: Decoding, files: Sequence[Any]) -> None:
    for file in files:
        try:
            pixels = ours.pixels(file)
        except DataError:
            continue  # reported or skipped when it was first decoded
        if not np.array_equal(pixels, theirs.pixels(file)):
            raise UsageError(f"{', '.join(map(called, ours.transforms))} made again gives another image")
        return


def _compare_batches(ours: Pipeline, theirs: Pipeline, device: torch.device) -> tuple[int, ...]:
    """Try both on made-up images, transform by transform; returns the shape of an image after the last."""
    x = torch.rand(2, *ours.shape, generator=torch.Generator().manual_seed(0), device="cpu")
    y = x.clone()
    for transform, other in zip(ours.batch_tfms, theirs.batch_tfms, strict=True):
        x, y = transformed(transform, x.to(device)).cpu(), transformed(other, y)
        # Not to the last bit: an accelerator rounds otherwise.
        if x.shape != y.shape or not torch.allclose(x, y, 1e-3, 1e-4, equal_nan=True):
            raise UsageError(f"{called(transform)} made again by {to_json(other)} gives something else")
        y = x.clone()
    return tuple(x.shape[1:])
