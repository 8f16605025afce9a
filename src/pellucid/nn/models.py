"""Named architectures. Each takes channels in, classes out and image size, and returns a model giving logits."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any, Literal

from torch import nn

from pellucid.errors import UsageError
from pellucid.nn.efficientnet import efficientnet_lite0, efficientnet_lite1, efficientnet_lite2
from pellucid.nn.layers import ConvLayer, Flatten, ResBlock, sequential
from pellucid.nn.libraries import is_library, library_model, nearest
from pellucid.nn.norms import NormKind, norm_layer
from pellucid.text import printable

Norm = NormKind | bool | None
Pool = Literal["max", "avg"]
POOLS: dict[str, Callable[..., nn.Module]] = {"max": nn.MaxPool2d, "avg": nn.AvgPool2d}


def conv(
    ni: int,
    nf: int,
    ks: int = 3,
    act: bool = True,
    norm: Norm = False,
    *,
    act_first: bool = True,
    pool: Pool | None = None,
) -> nn.Sequential:
    """The chapter's layer that halves the map: a stride-2 convolution, then ReLU if `act`, then norm if there is one.

    Args:
        ni: Channels in.
        nf: Channels out.
        ks: Kernel size.
        act: ReLU or none.
        norm: True for batchnorm, or a kind of `norm_layer`; False or None for none.
        act_first: ReLU before the norm; False puts it after.
        pool: Halve the map by `max` or `avg` pooling over 2×2 pixels at the end instead, with a stride-1 convolution;
            the sizes stay the same.
    """
    if pool not in (None, *POOLS):
        raise UsageError(f"pool {pool!r} does not exist: use 'max', 'avg' or None for stride 2")
    kind: Any = {True: "batch", False: None}.get(norm, norm)  # pyright: ignore[reportArgumentType, reportCallIssue]
    after: list[nn.Module] = [nn.ReLU()] if act else []
    if kind:
        after.insert(len(after) if act_first else 0, norm_layer(kind, nf))
    after += [POOLS[pool](2, ceil_mode=True)] if pool else []
    return nn.Sequential(nn.Conv2d(ni, nf, ks, stride=1 if pool else 2, padding=ks // 2), *after)


def simple_cnn(
    n_in: int = 1,
    n_out: int = 10,
    size: int = 28,
    *,
    norm: Norm = True,
    width: int = 8,
    first_ks: int = 5,
    act_first: bool = True,
    pool: Pool | None = None,
    norm_last: bool | None = None,
) -> nn.Sequential:
    """The chapter's network: stride-2 convolutions that double their channels until the map is one pixel.

    At 28 pixels: 5×5 kernel to 8 channels (14×14), 16 (7×7), 32 (4×4), 64 (2×2), `n_out` (1×1), flattened; 30,542
    parameters with norm. Other sizes take as many layers as they need.

    Args:
        n_in: Image channels.
        n_out: Classes.
        size: Longest side of the images, in pixels.
        norm: True for batchnorm, or a kind of `norm_layer`: batch, group, instance, layer; False or None for none.
        width: Channels of the first layer.
        first_ks: Kernel size of the first layer, an odd number.
        act_first: ReLU before the norm, as in the chapter; False puts it after.
        pool: Halve the maps by `max` or `avg` pooling instead of stride 2.
        norm_last: Whether the outputs are normalised too. None does so for batchnorm, as the chapter does: the other
            norms would compare the classes of one image with each other, or a single pixel with itself.

    Raises:
        UsageError: no such norm or pooling, an even `first_ks`, or an instance norm of single pixels.
    """
    if first_ks % 2 == 0 or first_ks < 1:
        raise UsageError(f"first_ks must be odd, so that padding keeps the size, got {first_ks}")
    if norm == "instance" and norm_last:
        raise UsageError(
            "an instance norm of the outputs has one pixel to take mean and variance of: leave norm_last out"
        )
    norm_last = norm in (True, "batch") if norm_last is None else norm_last
    n_layers = max(2, math.ceil(math.log2(size)))
    widths = [n_in, *(width << i for i in range(n_layers - 1))]
    kernels = [first_ks, *[3] * (n_layers - 2)]
    halved = partial(conv, act_first=act_first, pool=pool)
    layers = [halved(ni, nf, ks, norm=norm) for (ni, nf), ks in zip(pairwise(widths), kernels, strict=True)]
    return sequential(*layers, halved(widths[-1], n_out, act=False, norm=norm if norm_last else None), Flatten())


def small_resnet(n_in: int = 3, n_out: int = 10, size: int = 128, *, width: int = 32) -> nn.Sequential:
    """A residual network for colour photos: stride-2 stem, four stages of one block each, average pooling, linear.

    1.2 million parameters at the default width; any image size from 32 pixels up.

    Args:
        n_in: Image channels.
        n_out: Classes.
        size: Not used: the average pooling fits any size.
        width: Channels of the stem; stages have 1, 2, 4 and 8 times as many.
    """
    stages = [width << i for i in range(4)]
    begun: dict[str, Any] = {"init": None, "bias_std": None}  # as torch begins, which the published results are of
    blocks = [ResBlock(1, ni, nf, stride=2, **begun) for ni, nf in pairwise([width, *stages])]
    return sequential(
        ConvLayer(n_in, width, stride=2, **begun),
        *blocks,
        nn.AdaptiveAvgPool2d(1),
        Flatten(),
        nn.Linear(stages[-1], n_out),
    )


def plain_cnn(n_in: int = 1, n_out: int = 10, size: int = 28) -> nn.Sequential:
    """`simple_cnn` without batchnorm: the chapter's first network for ten digits, 30,282 parameters."""
    return simple_cnn(n_in, n_out, size, norm=False)


ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "simple_cnn": simple_cnn,
    "plain_cnn": plain_cnn,
    "small_resnet": small_resnet,
    "efficientnet_lite0": efficientnet_lite0,
    "efficientnet_lite1": efficientnet_lite1,
    "efficientnet_lite2": efficientnet_lite2,
}


def create_model(arch: str, n_in: int, n_out: int, size: int, **arguments: Any) -> nn.Module:
    """Make a named architecture, one of pellucid's or of a library, such as `timm:resnet50`.

    Args:
        arch: The name.
        n_in: Image channels.
        n_out: Classes.
        size: Longest side of the images, in pixels.
        arguments: Others that it takes.

    Raises:
        UsageError: there is none of that name, or its library is missing.
    """
    if is_library(arch):
        return library_model(arch, n_in, n_out, arguments)
    check_own(arch)
    return ARCHITECTURES[arch](n_in, n_out, size, **arguments)


def check_own(arch: str, otherwise: str = "") -> None:
    """Make sure that pellucid has an architecture.

    Args:
        arch: The name.
        otherwise: What else can be named, at the end of the message.

    Raises:
        UsageError: it has none of that name; the message has the nearest.
    """
    if arch not in ARCHITECTURES:
        found = nearest(arch, tuple(ARCHITECTURES))
        closest = f"the nearest are {', '.join(found)}; " if found else ""
        listed = ", ".join((*ARCHITECTURES, "timm:NAME", "torchvision:NAME"))
        raise UsageError(f"architecture {printable(arch)!r} does not exist: {closest}use one of {listed}{otherwise}")
