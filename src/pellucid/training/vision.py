"""A learner for photos: a body with pretrained weights, and a new head for the classes at hand."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pellucid.data.batch import take_apart
from pellucid.data.loader import DataLoader
from pellucid.data.transforms import Normalize
from pellucid.errors import UsageError
from pellucid.inspection.looking import looking
from pellucid.nn.heads import create_head
from pellucid.nn.layers import Initialiser, init_default
from pellucid.nn.libraries import Images
from pellucid.nn.transfer import BodyAndHead, Cut, pretrained_body
from pellucid.optim.groups import Splitter, default_split
from pellucid.training.learner import Learner

WIDE = 256  # pixels, of an image on which every usual body gives maps of several pixels
WEIGHTED = nn.Linear, nn.modules.conv._ConvNd
LEARNER = ("loss_func", "opt_func", "lr", "cbs", "metrics", "path", "model_dir", "wd", "wd_bn_bias", "moms", "compile")


def vision_learner(
    dls: Any,
    arch: str = "efficientnet_lite0",
    normalize: bool = True,
    n_out: int | None = None,
    pretrained: bool = True,
    *,
    splitter: Splitter | None = None,
    cut: Cut = None,
    init: Initialiser | None = nn.init.kaiming_normal_,
    custom_head: nn.Module | None = None,
    arguments: Mapping[str, Any] | None = None,
    weights: str | Path | None = None,
    sha256: str | None = None,
    train_bn: bool = False,
    **options: Any,
) -> Learner:
    """A learner whose body knows ImageNet's photos, frozen: `fine_tune` trains the head first, then both.

    `learn.save_run(folder)` needs no more than the folder, unless `cut` is a function or there is a `custom_head`.

    Args:
        dls: Batches of images with 3 channels, or 1.
        arch: A name in `pellucid.nn.pretrained.WEIGHTS`, or an architecture of a library that is installed, such as
            `timm:resnet50` or `torchvision:resnet18`; without `pretrained`, or with `weights`, also any of
            `pellucid.nn.models`.
        normalize: Normalise batches as the published weights of `arch` need it, unless the loaders normalise already.
        n_out: Outputs; None takes the number of classes.
        pretrained: Begin with the weights there are (a library may download its own); otherwise with new ones, and
            nothing is frozen.
        splitter: Model → parameter groups; None makes two, body and head.
        cut: Where the body ends, see `create_body`.
        init: Sets the weights of the head; None leaves them as torch makes them.
        custom_head: Takes the place of the head.
        arguments: Of the network, such as `{'drop_path_rate': 0.1}`, which must fit into JSON.
        weights: A file to begin with instead, see `read_weights`.
        sha256: Of that file.
        train_bn: Train the norms of the frozen body, as fastai does. Without, the body is frozen whole, and `fine_tune`
            computes what it gives for each image once.
        options: `lin_ftrs`, `ps`, `concat_pool` and others of `create_head`; `loss_func`, `metrics`, `cbs`, `compile`
            and others of `Learner`.

    Raises:
        UsageError: there are no weights for `arch`, or no such architecture; a file of weights has another hash or does
            not fit; the number of classes is not known; the loaders are of others and cannot be told to normalise;
            another number of channels; images smaller than a step of the body's maps.
    """
    if not isinstance(arch, str):
        name = getattr(arch, "__name__", type(arch).__name__)
        raise UsageError(f"arch is a name, such as 'torchvision:{name}' or 'timm:{name}', not a {type(arch).__name__}")
    of_learner = {name: options.pop(name) for name in LEARNER if name in options}
    n_out = n_out or len(getattr(dls, "vocab", ()))
    if not n_out:
        raise UsageError("the number of classes is not known: give n_out=, or loaders with a vocab")
    if custom_head is not None and options:
        raise UsageError(f"custom_head is the whole head: {', '.join(options)} would have no effect")
    images = take_apart(dls.one_batch(), "cpu")[0][0][:1]
    started = pretrained or weights is not None
    body, known, made = pretrained_body(arch, images, n_out, cut, arguments or {}, pretrained, weights, sha256)
    if started and normalize and known:
        _normalise(dls, known, images.shape[1])
    maps = _maps(arch, body, images)
    head = custom_head
    if head is None:
        options = {"nf": maps.shape[1], "pool": maps.dim() > 2, **options}
        head = create_head(n_out=n_out, **options)
    for module in head.modules() if init else ():
        if isinstance(module, WEIGHTED):
            init_default(module, init)
    again = None if custom_head is not None or callable(cut) else made.with_head(options)
    learn = Learner(
        dls, BodyAndHead(body, head, again), splitter=splitter or default_split, train_bn=train_bn, **of_learner
    )
    if started:
        learn.freeze()
    return learn


cnn_learner = vision_learner  # fastai's earlier name


def _maps(arch: str, body: nn.Module, images: Tensor) -> Tensor:
    """What a body makes of images.

    Raises:
        UsageError: it gives no tensor (batch, channel, …), or cannot take the images, or they are too small.
    """
    maps = _passed(arch, body, images)
    if not isinstance(maps, Tensor) or maps.dim() < 2:
        raise UsageError(f"the body gives a {type(maps).__name__}, and a head needs a tensor (batch, channel, …)")
    if maps.dim() == 4 and max(maps.shape[2:]) == 1:
        wide = _passed(arch, body, images.new_zeros(*images.shape[:2], WIDE, WIDE))
        step = WIDE // wide.shape[-1]
        if min(images.shape[2:]) < step:
            raise UsageError(
                f"images of {images.shape[2]}×{images.shape[3]} pixels are smaller than one step of the maps of "
                f"{arch}, {step} pixels: enlarge them, item_tfms=Resize({WIDE // 2}), or take an architecture for "
                "small images"
            )
    return maps


def _passed(arch: str, body: nn.Module, images: Tensor) -> Any:
    with looking(body), torch.no_grad():
        try:
            return body(images)
        except (RuntimeError, AssertionError) as error:
            raise UsageError(f"the body of {arch} cannot take images {tuple(images.shape[1:])}: {error}") from None


def _normalise(dls: Any, weights: Images, n_in: int) -> None:
    """Have both loaders normalise as the weights need it; say so where they normalise in another way."""
    mean, std = ([float(np.mean(each))] if n_in == 1 else list(each) for each in (weights.mean, weights.std))
    loaders = [loader for loader in (dls.train, dls.valid) if loader is not None]
    if not all(isinstance(loader, DataLoader) for loader in loaders):
        raise UsageError(
            f"these weights need images with mean {_short(mean)} and standard deviation {_short(std)} taken out, and "
            "loaders of others cannot be told to: normalise there, and pass normalize=False"
        )
    found = [t for loader in loaders for t in loader.batch_tfms if isinstance(t, Normalize)]
    for each in found:
        if not (np.allclose(each.mean or 0, mean, atol=0.02) and np.allclose(each.std or 1, std, atol=0.02)):
            warnings.warn(
                f"images are normalised with mean {_short(each.mean)} and standard deviation {_short(each.std)}, the "
                f"weights were learnt with {_short(mean)} and {_short(std)}: leave Normalize out of batch_tfms, and "
                "the right one is added",
                stacklevel=3,
            )
            return
    for loader in loaders if not found else ():
        loader.batch_tfms = [*loader.batch_tfms, Normalize(mean, std)]


def _short(values: Any) -> str:
    return ", ".join(f"{value:.3g}" for value in dict.fromkeys(np.ravel(values).tolist()))
