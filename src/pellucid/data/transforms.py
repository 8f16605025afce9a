"""Transforms of whole batches, on the device."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pellucid.data.registry import BATCH_TRANSFORMS, called, registered
from pellucid.errors import UsageError
from pellucid.seed import kept_rng

BatchTransform = Callable[[Tensor], Tensor]
OVERSHOOT = 0.1  # of [0, 1], by bicubic resampling at edges


@registered(BATCH_TRANSFORMS)
class Normalize:
    """Batch transform x → (x − mean) / std per channel, on values in [0, 1].

    Args:
        mean: Mean of each channel, or one number for all; None takes those of the training set when the data loaders
            are made.
        std: Standard deviation of each channel, likewise.

    Raises:
        UsageError: only one of the two is given, they are of different lengths, or a number is unusable; when called,
            images have another number of channels.
    """

    def __init__(self, mean: Any = None, std: Any = None):
        if (mean is None) != (std is None):
            raise UsageError("Normalize needs both mean and std, or neither to take the training set's")
        self.mean, self.std = (None if s is None else _numbers(s) for s in (mean, std))
        if self.mean is not None and self.std is not None:
            if len(self.mean) != len(self.std) and 1 not in (len(self.mean), len(self.std)):
                raise UsageError(f"Normalize got means of {len(self.mean)} channels and deviations of {len(self.std)}")
            if not all(0 < value < math.inf for value in self.std):
                raise UsageError(f"Normalize needs positive standard deviations, got {self.std}")
            if not all(map(math.isfinite, self.mean)):
                raise UsageError(f"Normalize needs finite means, got {self.mean}")
        self._on: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}

    @classmethod
    def from_stats(cls, mean: Any, std: Any) -> Normalize:
        """Normalize with known statistics, a number or one a channel: `Normalize.from_stats(*imagenet_stats)`."""
        return cls(mean, std)

    def __call__(self, x: Tensor) -> Tensor:
        """Normalise a batch (batch, channel, row, column)."""
        mean, std = self._tensors(x)
        return (x - mean).div_(std)

    def decode(self, x: Tensor) -> Tensor:
        """Undo the normalisation, to show pictures."""
        mean, std = self._tensors(x)
        return x * std + mean

    def to_json(self) -> dict[str, Any]:
        """Arguments that make the same transform."""
        return {"mean": self.mean, "std": self.std}

    def __repr__(self) -> str:
        return f"Normalize(mean={self.mean}, std={self.std})"

    def _tensors(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.mean is None or self.std is None:
            raise UsageError("Normalize() has no statistics yet: pass it to a DataBlock, or use Normalize.from_stats")
        # Three means would make three channels of a grey image's one, by broadcasting.
        n_channels, n_given = x.shape[-3] if x.ndim > 2 else 1, max(len(self.mean), len(self.std))
        if n_given not in (1, n_channels):
            raise UsageError(
                f"Normalize has statistics of {n_given} channels, images of shape {tuple(x.shape)} have {n_channels}: "
                "give a number for each, or Normalize() to take the training set's"
            )
        key = x.device, x.dtype if x.is_floating_point() else torch.float32
        if key not in self._on:
            mean, std = (torch.tensor(s, device=key[0], dtype=key[1]).view(-1, 1, 1) for s in (self.mean, self.std))
            self._on[key] = mean, std
        return self._on[key]


def of_side(transforms: Sequence[BatchTransform], training: bool) -> list[BatchTransform]:
    """Those of some transforms that images of one side go through.

    `split_idx` of a transform is 0 for training only and 1 for validation only. One for training only may have a
    `validation`, which validation images go through in its place, such as a crop in the middle for a random one.
    """
    found = []
    for transform in transforms:
        here = getattr(transform, "split_idx", None) in (None, 0 if training else 1)
        meant = transform if here else None if training else getattr(transform, "validation", None)
        found += [] if meant is None else [meant]
    return found


def transformed(transform: BatchTransform, x: Tensor) -> Tensor:
    """What a transform makes of a batch; the weights of one that is a module go where the batch is."""
    if isinstance(transform, nn.Module):
        transform.to(x.device)
    return transform(x)


def _numbers(values: Any) -> list[float]:
    return torch.as_tensor(values, dtype=torch.float64, device="cpu").reshape(-1).tolist()


def refuse_random(transforms: Sequence[BatchTransform], shape: Sequence[int], device: torch.device) -> None:
    """Refuse random transforms among those that validation images go through too.

    Each is tried twice on made-up images, and the random numbers are put back.

    Args:
        transforms: All of them, in order; those with a `split_idx` of 0 are for training only, and may be random.
        shape: (channel, row, column) of an image.
        device: Where batches are.

    Raises:
        UsageError: one draws random numbers, or gives two results.
    """
    x = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0), device="cpu").to(device)
    for transform in of_side(transforms, training=False):
        x, drawn = tried_twice(lambda x=x, t=transform: transformed(t, x.clone()), device)
        if drawn:
            name = called(transform)
            raise UsageError(
                f"batch_tfms: {name} is random, and would change validation images and predictions too; give it the "
                f"attribute split_idx = 0 ({name}.split_idx = 0), and only training images go through it"
            )


def refuse_misplaced(transforms: Sequence[BatchTransform], shape: Sequence[int], device: torch.device) -> None:
    """Refuse transforms of pixels that come after another has left [0, 1], as `Normalize` does.

    A transform with the attribute `of_pixels` works on values in [0, 1] alone. All up to the last of them are tried on
    a made-up image, and the random numbers are put back.

    Args:
        transforms: Those of one side, in order.
        shape: (channel, row, column) of an image.
        device: Where batches are.

    Raises:
        UsageError: one comes too late.
    """
    places = [i for i, transform in enumerate(transforms) if getattr(transform, "of_pixels", False)]
    x, before = torch.linspace(0, 1, shape[-1], device=device).expand(2, *shape), ""
    with kept_rng():
        for transform in transforms[: places[-1] + 1] if places else ():
            low, high = x.aminmax()
            if getattr(transform, "of_pixels", False) and not -OVERSHOOT <= float(low) <= float(high) <= 1 + OVERSHOOT:
                raise UsageError(
                    f"batch_tfms: {called(transform)} works on pixels in [0, 1], and {before} before it gives "
                    f"{low:.2f} to {high:.2f}: Normalize comes last, as in [*aug_transforms(), Normalize()]"
                )
            x, before = transformed(transform, x.clone()), called(transform)


def tried_twice(call: Callable[[], Any], device: torch.device | str = "cpu") -> tuple[Any, bool]:
    """The result of a call, and whether it is random: it drew random numbers, or a second call gave another result."""
    with kept_rng():
        before = _states(torch.device(device))
        first, second = call(), call()
        drawn = _states(torch.device(device)) != before
    one, two = (torch.as_tensor(value, device="cpu") for value in (first, second))
    # Not to the last bit: some kernels of accelerators add in another order each time.
    return first, drawn or one.shape != two.shape or not torch.allclose(one, two, equal_nan=True)


def _states(device: torch.device) -> list[Any]:
    """Where the generators of Python, numpy and torch stand."""
    modules = [torch] if device.type == "cpu" else [torch, torch.get_device_module(device)]
    torches = [bytes(module.get_rng_state().numpy()) for module in modules]
    name, *numpy = np.random.get_state()
    return [random.getstate(), name, *(np.asarray(part).tolist() for part in numpy), *torches]


imagenet_stats = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
