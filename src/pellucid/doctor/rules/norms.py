"""Batch normalisation of too few images, and images that influence one another.

Healthy, and alike: batch norms at batch sizes of 8 and more, or from 5 on where validation is as good as training; a
short last batch; GroupNorm, LayerNorm and InstanceNorm at any batch size; that batch norms mix a batch while training.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pellucid.doctor.rules.core import Case, Suspicion, rule
from pellucid.doctor.rules.descent import accuracy, fails, last_round, late, learns
from pellucid.doctor.rules.wording import layer, percent
from pellucid.text import counted

_FEW_IMAGES = 4  # Wu and He, arXiv:1803.08494: with 32, 8, 4 and 2 images the error is 23.6, 24.8, 27.3 and 34.7 %
_MIXERS = ("MultiheadAttention", "TransformerEncoderLayer", "TransformerDecoderLayer", "RNN", "LSTM", "GRU")
_RESHAPES = ("reshape", "view", "transpose", "permute", "softmax", "layer_norm", "cumsum", "roll", "flip", "einsum")


@rule
def few_images(case: Case) -> Iterator[Suspicion]:
    """Statistics of a handful of images (Wu and He, arXiv:1803.08494)."""
    norms = [norm for norm in case.evidence.norms if "BatchNorm" in norm.kind and not norm.trained_in_eval > 0.9]
    sizes = case.evidence.train.batch_sizes
    if not norms:
        return
    size = int(np.median(sizes)) if len(sizes) else min(norm.batch_size for norm in norms)
    if not 0 < size <= 2 * _FEW_IMAGES:
        return
    worst = min(norms, key=lambda norm: norm.per_channel or size)
    apart = np.array([norm.disagreement for norm in norms])
    apart = float(np.median(apart[np.isfinite(apart)])) if np.isfinite(apart).any() else np.nan
    prior = 0.92 if size <= 2 else 0.85 if size <= _FEW_IMAGES else 0.25
    if size > _FEW_IMAGES and apart > 0.5:
        prior = 0.4
    validated = accuracy(case.evidence.valid_labels, last_round(case))
    if size > _FEW_IMAGES and learns(case) and validated.share > late(case.evidence.train_labels).share - 0.05:
        prior *= 0.5  # running statistics that are off would be seen there
    off = f"; the variances of batches are {percent(apart)} off the running ones" if apart > 0.1 else ""
    values = f" ({worst.per_channel} values per channel in {layer(worst.name)})" if worst.per_channel else ""
    yield Suspicion(
        "batchnorm-batch-too-small",
        prior,
        f"batch norms compute their statistics from {counted(size, 'image')} at a time{values}{off}",
        {"batch_size": size, "per_channel": worst.per_channel, "disagreement": apart},
        layer=worst.name,
        step=0,
        remedy=f"Use batches of 16 or more instead of {size}, or GroupNorm instead of batch normalisation.",
        trials=("norm-modes",),
    )


@rule
def mixing(case: Case) -> Iterator[Suspicion]:
    """What can work along the batch axis; only the gradient across images, in a trial, can tell."""
    evidence = case.evidence
    if not evidence.ops or not len(evidence.train.batch_sizes):
        return
    size = int(np.median(evidence.train.batch_sizes))
    kinds = {layer.kind for layer in case.history.layers} | {op.kind for op in evidence.ops}
    suspects = sorted(kinds & set(_MIXERS))
    reshaped = [op for op in evidence.ops if op.module is not None and op.name in _RESHAPES and op.shape[:1] != (size,)]
    prior = 0.03
    says = "the operations that were seen do not show it, but the trial does"
    if suspects or reshaped:
        what = suspects[0] if suspects else f"{reshaped[0].name} ({reshaped[0].where or reshaped[0].module})"
        says = (
            f"the model uses {what}, which mixes the images of a batch if the axes of its input are in the wrong order"
        )
        prior = 0.1
    trained, validated = late(evidence.train_labels), accuracy(evidence.valid_labels, last_round(case))
    if trained.above_chance and validated.share < 0.6 * trained.share:
        prior *= 2
        says += f"; the accuracy is {percent(trained.share)} in training and {percent(validated.share)} in validation"
    elif fails(case):
        prior *= 2
    yield Suspicion(
        "batch-mixing",
        prior,
        says,
        {"batch_size": size},
        where=(reshaped[0].where or None) if reshaped and not suspects else None,
        trials=("image-mixing",),
    )
