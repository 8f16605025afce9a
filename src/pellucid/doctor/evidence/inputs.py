"""What a model is given: hashes of every item, statistics at looks."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pellucid.doctor.evidence.record import Inputs
from pellucid.doctor.evidence.streams import BATCHES, MAX_ITEMS, Items, Numbers

HASHED = 128  # values of an item that its hash is of: two images that agree in so many places are the same
MAX_NEARS = 100_000  # items
MAX_VALUES = 4_000_000  # of a batch that statistics are of
MAX_CHANNELS = 4_096
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def hashes(x: Tensor) -> Tensor:
    """A number for each item that depends on the bits of up to 128 of its values, spread evenly: [item] int64.

    The sum of the values' bits times odd numbers drawn once, modulo 2**64. Equal items have equal hashes; +0.0 and
    −0.0 are different.
    """
    return _hashed(_sample(x))


def _sample(x: Tensor) -> Tensor:
    """A copy of the values that the hash of each item is of: [item, value]."""
    values = x.reshape(len(x), -1)
    if values.is_complex():
        values = torch.view_as_real(values).reshape(len(x), -1)
    step = max(1, values.shape[1] // HASHED)
    return values[:, ::step].clone(memory_format=torch.contiguous_format)


def _hashed(values: Tensor) -> Tensor:
    bits = values.to(torch.uint8) if values.dtype is torch.bool else values.view(_BITS[values.element_size()])
    bits, odd = bits.to(torch.int64), _odd(bits.shape[1], str(values.device))
    # CPUs have a product of integers, which takes a tenth of the time; GPUs have none.
    return bits @ odd if values.device.type == "cpu" else (bits * odd).sum(1)


def nears(x: Tensor) -> Tensor:
    """A signature of each image that survives rescaling of values and small changes: [item] int64.

    Bit i says whether the mean of the i-th of 8 × 8 blocks is above the mean of the image.

    Args:
        x: Images, (item, channel, height, width) with at least 8 × 8 pixels.
    """
    blocks = F.adaptive_avg_pool2d(x.float(), 8).mean(1).reshape(len(x), 64)
    return ((blocks > blocks.mean(1, keepdim=True)).to(torch.int64) * _powers(str(x.device))).sum(1)


def _alike(a: Tensor, b: Tensor) -> bool:
    return a.shape[1:] == b.shape[1:] and a.dtype == b.dtype and a.device == b.device


@cache
def _odd(n: int, device: str) -> Tensor:
    drawn = np.random.default_rng(0).integers(-(2**62), 2**62, n) * 2 + 1
    return torch.from_numpy(drawn).to(device)


@cache
def _powers(device: str) -> Tensor:
    return (torch.ones(64, dtype=torch.int64) << torch.arange(64)).to(device)


@dataclass
class Look:
    """Statistics of one batch; `n`, `total` and `squares` are [channel], or [1] without a channel axis."""

    items: int
    n: float
    total: np.ndarray
    squares: np.ndarray
    min: float
    max: float
    between: float
    constant: float
    layout: np.ndarray
    steps: float  # the mean difference of neighbouring pixels


def look_at(x: Tensor) -> Look:
    """The statistics of a batch of values, (item, …), of its first items if it is very large."""
    x = x[: max(2, MAX_VALUES // max(1, x[0].numel()))]
    x = x if x.is_floating_point() else x.float()
    flat = x.reshape(len(x), -1)
    by_channel = x.movedim(1, 0).flatten(1) if x.ndim > 1 and x.shape[1] <= MAX_CHANNELS else flat.reshape(1, -1)
    variance, mean = (each.double().cpu().numpy() for each in torch.var_mean(by_channel.float(), 1, correction=0))
    low, high = torch.aminmax(flat, dim=1)
    n = by_channel.shape[1]
    return Look(
        len(x),
        n,
        n * mean,
        n * (variance + mean**2),
        low.min().item(),
        high.max().item(),
        flat.float().std(0, correction=0).mean().item() if len(x) > 1 else np.nan,
        (low == high).float().mean().item(),
        *_pictures(x),
    )


def _pictures(x: Tensor) -> tuple[np.ndarray, float]:
    """Layout and steps of a batch of images of 8 × 8 pixels or more; empty and nan of others."""
    if x.ndim != 4 or min(x.shape[2:]) < 8:
        return np.zeros(0), np.nan
    x = x.float()
    steps = torch.stack([x.diff(dim=axis).abs().mean() for axis in (2, 3)]).mean()
    return F.adaptive_avg_pool2d(x.mean((0, 1))[None], 8).reshape(64).double().cpu().numpy(), steps.item()


@dataclass
class Given:
    """What one pass was given.

    Attributes:
        shape: Of the batch.
        source: Which loader the batch came from; 0 if none was seen to give it.
        sample: The values that hashes are made of.
        nears, look: As far as they were taken.
    """

    shape: tuple[int, ...]
    integers: bool
    source: int = 0
    sample: Tensor | None = None
    nears: Tensor | None = None
    look: Look | None = None


@dataclass
class Gathered:
    """The inputs of all passes of a phase."""

    sizes: Numbers = field(default_factory=Numbers)
    hashes: Items = field(default_factory=lambda: Items(np.uint64))
    nears: Items = field(default_factory=lambda: Items(np.uint64, MAX_NEARS))
    looks: list[Look] = field(default_factory=list)
    shape: tuple[int, ...] = ()
    integers: bool = False
    sources: list[int] = field(default_factory=list)
    repeats: bool = False  # whether the items are those of an earlier epoch, as they were then
    _samples: list[Tensor] = field(default_factory=list)
    _known: set[int] = field(default_factory=set)

    def take(self, x: Tensor, *, look: bool) -> Given:
        """Read what a pass is given, which this phase may not be the one of: `add` says so."""
        given = Given(tuple(x.shape), integers=not x.is_floating_point() and x.ndim < 4)
        if not x.numel():
            return given
        if not self.hashes.is_full:
            given.sample = _sample(x)
            if not self.repeats and not self.nears.is_full and x.ndim == 4 and min(x.shape[2:]) >= 8:
                given.nears = nears(x)
        if look and not given.integers:
            given.look = look_at(x)
        return given

    def add(self, given: Given) -> None:
        """Take a pass into this phase."""
        if given.source and len(self.sources) < MAX_ITEMS:
            self.sources.append(given.source)
        self.sizes.put(given.shape[0] if given.shape else 1)
        if not self.shape:
            self.shape, self.integers = given.shape[1:], given.integers
        if given.sample is not None:
            if self._samples and not _alike(self._samples[0], given.sample):
                self._settle()
            self._samples.append(given.sample)
            if len(self._samples) >= BATCHES:
                self._settle()
        if given.nears is not None:
            self.nears.put(given.nears)
        if given.look is not None and (not self.looks or len(given.look.total) == len(self.looks[0].total)):
            self.looks.append(given.look)

    def _settle(self) -> None:
        """Hash what waits for it."""
        if self._samples:
            found = _hashed(torch.cat(self._samples))
            self.hashes.put(found)
            self._samples = []
            if not self.nears.is_full and self.nears.n and not self.repeats:
                new = found.tolist()
                self.repeats = sum(each in self._known for each in new) > 0.9 * len(new)
                self._known.update(new)

    def inputs(self, trained: Gathered | None = None) -> Inputs:
        """Everything so far; of validation, with the inputs of training."""
        self._settle()
        found = Inputs(
            self.shape,
            self.sizes.array().astype(np.int64),
            hashes=self.hashes.array(),
            nears=self.nears.array(),
            integers=self.integers,
        )
        if trained is not None and self.sources:
            found.from_training_loader = float(np.mean(np.isin(self.sources, trained.sources)))
        if self.looks:
            found.looked = sum(look.items for look in self.looks)
            n = sum(look.n for look in self.looks)
            totals, squares = (np.sum([getattr(k, name) for k in self.looks], 0) for name in ("total", "squares"))
            found.channel_mean = totals / n
            found.channel_std = np.sqrt(np.maximum(squares / n - found.channel_mean**2, 0))
            found.mean = float(found.channel_mean.mean())
            found.std = float(np.sqrt(max(np.mean(squares / n) - found.mean**2, 0)))
            found.min, found.max = min(look.min for look in self.looks), max(look.max for look in self.looks)
            found.between = float(np.mean([look.between for look in self.looks]))
            found.constant = float(np.average([look.constant for look in self.looks]))
            if all(len(look.layout) for look in self.looks):
                found.layout = np.average([look.layout for look in self.looks], 0, [look.n for look in self.looks])
                found.roughness = float(np.mean([look.steps for look in self.looks])) / max(found.std, 1e-12)
        return found
