"""A learner for photos: a body with pretrained weights, and a new head for the classes at hand."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pellucid.data.batch import take_apart
from pellucid.data.loader import DataLoader
from pellucid.data.transforms import Normalize
from pellucid.errors import UsageError
from pellucid.inspection.looking import looking
from pellucid.nn.heads import create_body, create_head
from pellucid.nn.layers import Initialiser, init_default
from pellucid.nn.models import create_model
from pellucid.nn.pretrained import Weights, pretrained_model, weights_of
from pellucid.optim.groups import Splitter, default_split
from pellucid.training.learner import Learner

WEIGHTED = nn.Linear, nn.modules.conv._ConvNd
LEARNER = ("loss_func", "opt_func", "lr", "cbs", "metrics", "path", "model_dir", "wd", "wd_bn_bias", "train_bn", "moms")


def vision_learner(
    dls: Any,
    arch: str = "efficientnet_lite0",
    normalize: bool = True,
    n_out: int | None = None,
    pretrained: bool = True,
    *,
    splitter: Splitter | None = None,
    cut: int | Callable[[nn.Module], nn.Module] | None = None,
    init: Initialiser | None = nn.init.kaiming_normal_,
    custom_head: nn.Module | None = None,
    **options: Any,
) -> Learner:
    """A learner whose body knows ImageNet's photos, frozen: `fine_tune` trains the head first, then both.

    Args:
        dls: Batches of images with 3 channels, or 1.
        arch: A name in `pellucid.nn.pretrained.WEIGHTS`; without `pretrained` any of `pellucid.nn.models`.
        normalize: Normalise batches as the weights need it, unless the loaders normalise already.
        n_out: Outputs; None takes the number of classes.
        pretrained: Begin with the weights there are; otherwise with new ones, and nothing is frozen.
        splitter: Model → parameter groups; None makes two, body and head.
        cut: Where the body ends, see `create_body`.
        init: Sets the weights of the head; None leaves them as torch makes them.
        custom_head: Takes the place of the head.
        options: `lin_ftrs`, `ps`, `concat_pool` and others of `create_head`; `loss_func`, `metrics`, `cbs` and others
            of `Learner`.

    Raises:
        UsageError: there are no weights for `arch`, or no such architecture; the number of classes is not known; the
            loaders are of others and cannot be told to normalise; another number of channels.
    """
    of_learner = {name: options.pop(name) for name in LEARNER if name in options}
    n_out = n_out or len(getattr(dls, "vocab", ()))
    if not n_out:
        raise UsageError("the number of classes is not known: give n_out=, or loaders with a vocab")
    images = take_apart(dls.one_batch(), "cpu")[0][0]
    n_in, size = images.shape[1], min(images.shape[2:])
    if pretrained and normalize:
        _normalise(dls, weights_of(arch), n_in)
    network = pretrained_model(arch, n_in) if pretrained else create_model(arch, n_in, n_out, size)
    body = create_body(network, cut)
    if custom_head is not None and options:
        raise UsageError(f"custom_head is the whole head: {', '.join(options)} would have no effect")
    head = create_head(_n_features(body, images[:1]), n_out, **options) if custom_head is None else custom_head
    for module in head.modules() if init else ():
        if isinstance(module, WEIGHTED):
            init_default(module, init)
    learn = Learner(dls, nn.Sequential(body, head), splitter=splitter or default_split, **of_learner)
    if pretrained:
        learn.freeze()
    return learn


cnn_learner = vision_learner  # fastai's earlier name


def _n_features(body: nn.Module, images: Tensor) -> int:
    """Channels of the maps that a body gives.

    Raises:
        UsageError: it gives no tensor (batch, channel, …), or cannot take the images.
    """
    with looking(body), torch.no_grad():
        try:
            found = body(images)
        except RuntimeError as error:
            raise UsageError(f"the body cannot take images {tuple(images.shape[1:])}: {error}") from None
    if not isinstance(found, Tensor) or found.dim() < 2:
        raise UsageError(f"the body gives a {type(found).__name__}, and a head needs a tensor (batch, channel, …)")
    return found.shape[1]


def _normalise(dls: Any, weights: Weights, n_in: int) -> None:
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
