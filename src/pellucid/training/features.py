"""What a frozen body makes of each image: computed once, kept beside the pixels, and trained on in its place."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pellucid.data.derived import derived
from pellucid.data.imbalance import drawn_order
from pellucid.data.loader import DataLoader, DataLoaders
from pellucid.data.pipeline import Pipeline
from pellucid.data.progress import progress
from pellucid.data.sources import StoredImages
from pellucid.errors import UsageError
from pellucid.inspection.looking import looking
from pellucid.nn.layers import AdaptiveConcatPool2d, Flatten
from pellucid.text import counted
from pellucid.training.computing import half_of
from pellucid.training.memory import keep_freed_memory

VERSION = 1
# Always the same: the last bits of a convolution depend on how many images are computed together. With 8, what the
# first layers output stays in the processor's cache: 95 images a second of Lite0 on two cores, 56 with 32.
BATCH = 8
# Layers of a head that have neither weights nor state nor chance in them, so that what they make can be kept too.
PLAIN = AdaptiveConcatPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Flatten, Flatten, nn.Identity


def divided(model: nn.Module) -> tuple[list[nn.Module], list[nn.Module]]:
    """The layers of a model of body and head: those that make features, and those that learn from them.

    The first are the body and what has no weights at the beginning of the head, its pooling.

    Raises:
        UsageError: the model is no `Sequential` of a body and a head that is a `Sequential` too.
    """
    parts = list(model.children()) if isinstance(model, nn.Sequential) else []
    head = parts[1] if len(parts) == 2 else None
    if not isinstance(head, nn.Sequential):
        raise UsageError("features are of models of a body and a head, as vision_learner makes them")
    pooling = list(takewhile(lambda layer: type(layer) in PLAIN, head))
    return [parts[0], *pooling], list(head.children())[len(pooling) :]


def body_features(learn: Any, ds_idx: int = 1, *, flipped: bool = False) -> Tensor:
    """What the body of a model gives for each image of a set, pooled as the head pools it: (image, feature).

    The body is in evaluation mode and computes in the learner's precision; images go through the transforms of
    validation. Of images in a pixel store the
    result is kept on disk, and read from there until image files, transforms, weights or the machine change.

    Args:
        learn: A learner of a body and a head, with loaders of ours.
        ds_idx: 1 for the validation images, 0 for all training images, in order.
        flipped: Look at every image's mirror image instead.

    Returns:
        float32, on the CPU.

    Raises:
        UsageError: the model has no body and head, or the loaders are of others.
    """
    loader, pipeline = learn.dls[ds_idx], learn.dls.pipeline
    if not isinstance(loader, DataLoader) or pipeline is None:
        raise UsageError("features need loaders made by a DataBlock or ImageDataLoaders, with a validation set")
    plain = loader.new(BATCH, shuffle=False, drop_last=False)
    plain.batch_tfms = list(pipeline.batch_tfms)
    body = nn.Sequential(*divided(learn.model)[0]).to(learn.dls.device)
    half = half_of(learn.precision, torch.device(loader.device))
    with looking(body), torch.inference_mode(), torch.autocast(learn.dls.device.type, half, enabled=half is not None):
        compute = lambda: _computed(body, plain, flipped)
        key = _key(body, plain, pipeline, f"{learn.precision}{flipped}")
        if key is None:
            return torch.from_numpy(compute())
        # The body's answer to a made-up image is kept as the last row. It finds what no key can: other code of the same
        # name. Not compared to the last bit, for it is computed alone.
        answer = _answer(body, plain)
        sound = lambda kept: kept.shape == (plain.n + 1, *answer.shape) and np.allclose(kept[-1], answer, 1e-3, 1e-4)
        kept = derived(key[0], key[1], lambda: np.concatenate([compute(), answer[None]]), sound)
    return torch.from_numpy(kept[:-1])


@contextmanager
def features_in_place_of_images(learn: Any, views: int = 1) -> Iterator[None]:
    """Inside the block the learner's loaders give features, and the layers that made them pass them on unchanged.

    Model, optimizer and callbacks stay what they are, so weights are saved, loaded and counted as ever.

    Args:
        learn: As of `body_features`.
        views: 2 for each training image or its mirror image, at random in every epoch; 1 for the images alone.
    """
    train, valid = learn.dls.train, learn.dls.valid
    seen = torch.stack([body_features(learn, 0, flipped=bool(view)) for view in range(views)])
    loaders = DataLoaders(
        FeatureLoader(seen, train.labels, train.bs, train.shuffle, train.drop_last, train.weights),
        FeatureLoader(body_features(learn)[None], valid.labels, valid.bs),
        vocab=learn.dls.vocab,
        device=learn.dls.device,
    )
    loaders.made_from = learn.dls
    images, learn.dls = learn.dls, loaders
    try:
        with _passing_features_on(learn.model):
            yield
    finally:
        learn.dls = images


@contextmanager
def validation_features(learn: Any) -> Iterator[FeatureLoader]:
    """A loader of the validation images' features; inside the block the layers that make them pass them on unchanged.

    What `validate(dl=…)` and `get_preds(dl=…)` give for it they also give for the images, which take longer.
    """
    valid = learn.dls.valid
    loader = FeatureLoader(body_features(learn)[None], valid.labels, valid.bs)
    with _passing_features_on(learn.model):
        yield loader


@contextmanager
def _passing_features_on(model: nn.Module) -> Iterator[None]:
    layers, _ = divided(model)
    for layer in layers:
        layer.forward = _passed_on
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def needs_images(learn: Any, cbs: Sequence[Any]) -> bool:
    """Whether frozen epochs of a learner must compute its body anew for every batch.

    That is so where the body is not frozen or no part of its own, where images are not in memory or a store, and where
    a callback looks at them or at the body.
    """
    loaders = (learn.dls.train, learn.dls.valid)
    if not all(isinstance(each, DataLoader) and isinstance(each.source, StoredImages) for each in loaders):
        return True
    if any(each.labels is None for each in loaders):
        return True
    try:
        layers, _ = divided(learn.model)
    except UsageError:
        return True
    trained = any(p.requires_grad for layer in layers for p in layer.parameters())
    return trained or any(cb.needs_images for cb in (*learn.cbs, *cbs))


class FeatureLoader:
    """Batches (features, labels), of features in memory.

    Args:
        views: Features of each view of each image, (view, image, feature).
        labels: One an image.
        bs: Images a batch.
        shuffle: New random order and choice of views in every epoch, from torch's global generator.
        drop_last: Leave out a last batch of fewer than `bs`, unless it is the only one.
        weights: How often each image is drawn, as of `DataLoader`.
    """

    def __init__(
        self,
        views: Tensor,
        labels: Tensor,
        bs: int,
        shuffle: bool = False,
        drop_last: bool = False,
        weights: Tensor | None = None,
    ):
        self.views, self.labels, self.bs, self.shuffle, self.drop_last = views, labels, bs, shuffle, drop_last
        self.weights = weights

    def __len__(self) -> int:
        n = len(self.labels)
        return n // self.bs if self.drop_last and n >= self.bs else -(-n // self.bs)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self.batches_from(0)

    def batches_from(self, first: int) -> Iterator[tuple[Tensor, Tensor]]:
        """As of `DataLoader`."""
        return self._of(drawn_order(len(self.labels), self.shuffle, self.weights).split(self.bs)[first : len(self)])

    def _of(self, chunks: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        n_views = len(self.views)
        for rows in chunks:
            view = torch.randint(n_views, rows.shape, device="cpu") if n_views > 1 else torch.zeros_like(rows)
            yield self.views[view, rows], self.labels[rows]


def _passed_on(x: Tensor) -> Tensor:
    return x


def _computed(body: nn.Module, loader: DataLoader, flipped: bool) -> np.ndarray:
    keep_freed_memory()
    found = []
    with progress(f"looking at {counted(loader.n, 'image')}", loader.n) as tick:
        for xb, *_ in loader:
            found.append(_of_batch(body, xb.flip(-1) if flipped else xb))
            tick(len(xb))
    return np.concatenate(found)


def _of_batch(body: nn.Module, xb: Tensor) -> np.ndarray:
    # On a CPU convolutions are a third faster where an image's channels lie side by side.
    return body(xb.contiguous(memory_format=torch.channels_last)).float().cpu().numpy()


def _answer(body: nn.Module, loader: DataLoader) -> np.ndarray:
    xb = loader.sample(1)[0]
    made_up = torch.rand(xb.shape, generator=torch.Generator().manual_seed(0), device="cpu")
    return _of_batch(body, made_up.to(xb.device))[0]


def _key(body: nn.Module, loader: DataLoader, pipeline: Pipeline, how: str) -> tuple[str, str] | None:
    """Key of the pixel store, and of everything else that features depend on; None where they cannot be kept."""
    source = loader.source
    if not isinstance(source, StoredImages) or source.key is None:
        return None
    try:
        steps = pipeline.to_json()
    except UsageError:  # a transform that only this process knows
        return None
    machine = [str(loader.device), torch.get_num_threads(), torch.backends.cpu.get_cpu_capability()]
    settings = [VERSION, BATCH, how, steps, str(body), torch.__version__, *machine]
    digest = hashlib.blake2b(json.dumps(settings).encode(), digest_size=16)
    digest.update(loader.rows.numpy().tobytes())
    for name, tensor in body.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return source.key, digest.hexdigest()
