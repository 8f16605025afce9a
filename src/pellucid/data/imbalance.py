"""Classes with many images and classes with few: weights that let each count alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pellucid.errors import UsageError
from pellucid.text import printable

UNEVEN = 3  # times as many images in the largest class as in the smallest: worth a word


def class_weights(labels: Tensor, n_classes: int) -> Tensor:
    """Weight of each class, float32 (class,): n / (k · n_c), so that the weights of all images add up to n.

    Args:
        labels: Class number of each of n images, int64 (image,), of k classes with n_c images each.
        n_classes: Classes there are; one without images has the weight 1.

    Source: King and Zeng, "Logistic Regression in Rare Events Data", 2001; scikit-learn's `class_weight='balanced'`.

    >>> class_weights(torch.tensor([0, 0, 0, 1]), 2)
    tensor([0.6667, 2.0000])
    """
    counts = torch.bincount(labels, minlength=n_classes)
    weights = len(labels) / (torch.count_nonzero(counts) * counts)
    return torch.where(counts > 0, weights, 1.0).float()


def checked_weights(weights: Any, n: int) -> Tensor:
    """How often each of n images is drawn, float64 (image,); raises UsageError where that cannot be."""
    found = torch.as_tensor(weights, dtype=torch.float64, device="cpu")
    if found.shape != (n,):
        raise UsageError(f"weights are one number for each of {n:,} images, got {tuple(found.shape)}")
    if not bool(found.isfinite().all()) or bool((found < 0).any()) or not bool(found.any()):
        raise UsageError("weights say how often images are drawn: none may be negative or nan, nor all of them 0")
    return found


def drawn_order(n: int, shuffle: bool, weights: Tensor | None = None) -> Tensor:
    """The positions of one epoch, int64 (image,): in order, shuffled, or with weights drawn with replacement.

    Random numbers come from torch's global generator.
    """
    if not shuffle:
        return torch.arange(n, device="cpu")
    return torch.randperm(n, device="cpu") if weights is None else torch.multinomial(weights, n, replacement=True)


def unevenness(labels: Tensor, vocab: Sequence[Any]) -> str:
    """What to say of classes of very different sizes; empty where they are not."""
    counts = torch.bincount(labels, minlength=len(vocab))
    present = counts.nonzero()[:, 0]
    most, least = present[counts[present].argmax()], present[counts[present].argmin()]
    if counts[most] <= UNEVEN * counts[least]:
        return ""
    large, small = (f"{printable(vocab[int(i)])!r} {int(counts[i]):,}" for i in (most, least))
    return f"classes are uneven, of training images {large} and {small}: --balance loss or sample lets each count alike"
