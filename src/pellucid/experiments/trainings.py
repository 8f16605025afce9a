"""The trainings that the experiments compare: one call, one seed, a few numbers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from pellucid.convolution.summary import summarize
from pellucid.data.catalogue import N_TEST, N_TRAIN, mnist_arrays
from pellucid.data.decoder import moments
from pellucid.data.loader import DataLoader, DataLoaders, default_device
from pellucid.data.sources import StoredImages
from pellucid.data.transforms import BatchTransform, Normalize
from pellucid.errors import TrainingError, UsageError
from pellucid.experiments.colour import ENCODINGS, INKS, colour_digits
from pellucid.metrics import accuracy
from pellucid.nn.models import simple_cnn
from pellucid.seed import set_seed
from pellucid.training.callbacks.progress import ProgressCallback
from pellucid.training.learner import Learner

SIDE = 28
MIN_IMAGES = 60  # ten for validation
STATS_IMAGES = 5_000


def train_digits(
    seed: int, *, epochs: int, images: int = N_TRAIN, bs: int = 512, lr: float = 0.06, **model: Any
) -> dict[str, float]:
    """Train the chapter's network on MNIST with 1cycle.

    Args:
        seed: Of the weights and the order of the images; the order is the same for every model.
        epochs: Passes over the training images.
        images: Training images, evenly spaced over the 60,000; validation images are a sixth as many.
        bs: Images a batch.
        lr: Highest learning rate.
        model: Options of `simple_cnn`.

    Returns:
        `accuracy` and `valid_loss` after the last epoch, `train_loss` (smoothed), `parameters`, `multiplications` per
        image, and `diverged`: 1 if the loss stopped being a number, and the results are those of the weights left.
    """
    found = _mnist(images)
    normalize = Normalize(*found.source.channel_stats(torch.arange(found.n_train, device="cpu")))
    return _trained(seed, found.loaders([normalize], bs), epochs, lr, **model)


def train_colours(
    seed: int, *, epochs: int, images: int = N_TRAIN, bs: int = 512, lr: float = 0.06, encoding: str = "RGB"
) -> dict[str, float]:
    """Train the chapter's network on coloured digits, in one of `ENCODINGS`; otherwise as `train_digits`."""
    transforms = [ENCODINGS[encoding], Normalize(*_encoded_stats(images, encoding))]
    return _trained(seed, _colour_mnist(images).loaders(transforms, bs), epochs, lr)


@dataclass(frozen=True)
class ImageSet:
    """Images in memory, those for training first, with their labels."""

    source: StoredImages
    labels: list[int]
    n_train: int
    n_classes: int

    def loaders(self, transforms: list[BatchTransform], bs: int) -> DataLoaders:
        """Batches of `bs` training images in random order, and of the validation images."""
        rows, n, common = range(len(self.labels)), self.n_train, {"batch_tfms": transforms, "device": default_device()}
        options: dict[str, Any] = {"bs": bs, "shuffle": True, "drop_last": True, "training": True, **common}
        train = DataLoader(self.source, rows[:n], self.labels[:n], **options)
        return DataLoaders(
            train, DataLoader(self.source, rows[n:], self.labels[n:], bs=512, **common), vocab=range(self.n_classes)
        )


def _trained(seed: int, dls: DataLoaders, epochs: int, lr: float, **model: Any) -> dict[str, float]:
    xb = dls.valid.sample(2)[0].cpu()
    set_seed(seed)
    network = simple_cnn(xb.shape[1], dls.c, SIDE, **model)
    counts = summarize(network, xb)
    set_seed(seed)  # variants draw different numbers of weights, and shall see the same batches
    learn = Learner(dls, network, F.cross_entropy, metrics=accuracy)
    learn.remove_cb(ProgressCallback)
    diverged = _diverges(learn, epochs, lr)
    valid_loss, share = learn.validate()
    return {
        "accuracy": share,
        "valid_loss": valid_loss,
        "train_loss": learn.recorder.losses[-1] if learn.recorder.losses else float("nan"),
        "parameters": counts.n_params,
        "multiplications": sum(row.n_multiplications for row in counts.rows),
        "diverged": diverged,
    }


def _diverges(learn: Learner, epochs: int, lr: float) -> bool:
    """Train; whether the loss stopped being a number."""
    try:
        learn.fit_one_cycle(epochs, lr)
    except TrainingError:
        return True
    return False


def _digits(images: int) -> tuple[np.ndarray, np.ndarray]:
    """Digits, uint8 (image, row, column), and their labels: `images` for training, then a sixth for validation."""
    if not MIN_IMAGES <= images <= N_TRAIN:
        raise UsageError(f"images must be between {MIN_IMAGES} and {N_TRAIN:,}, got {images:,}")
    train_x, train_y, test_x, test_y = mnist_arrays()
    train = np.linspace(0, N_TRAIN - 1, images).round().astype(int)
    test = np.linspace(0, N_TEST - 1, images // 6).round().astype(int)
    return np.concatenate([train_x[train], test_x[test]]), np.concatenate([train_y[train], test_y[test]])


@lru_cache(maxsize=1)
def _mnist(images: int) -> ImageSet:
    digits, labels = _digits(images)
    pixels = digits[:, None]
    return ImageSet(StoredImages(pixels, moments(pixels)), labels.tolist(), images, 10)


@lru_cache(maxsize=1)
def _colour_mnist(images: int) -> ImageSet:
    pixels, classes = colour_digits(*_digits(images))
    return ImageSet(StoredImages(pixels, moments(pixels)), classes.tolist(), images, 10 * len(INKS))


@lru_cache(maxsize=len(ENCODINGS))
def _encoded_stats(images: int, encoding: str) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each encoded channel, over up to 5,000 training images."""
    found = _colour_mnist(images)
    rows = torch.linspace(0, images - 1, min(images, STATS_IMAGES), device="cpu").long()
    std, mean = torch.std_mean(ENCODINGS[encoding](found.source.pixels[rows].float() / 255), (0, 2, 3))
    return mean.tolist(), std.tolist()
