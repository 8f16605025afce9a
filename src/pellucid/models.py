"""Named architectures. Each takes channels in, classes out and image size, and returns a model giving logits."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

from torch import nn

from pellucid.errors import UsageError
from pellucid.layers import ConvLayer as _ConvLayer
from pellucid.layers import Flatten, ResBlock, sequential


def conv(ni: int, nf: int, ks: int = 3, act: bool = True, norm: bool = False) -> nn.Sequential:
    """The chapter's stride-2 layer: convolution, ReLU if `act`, batchnorm if `norm`."""
    return _ConvLayer(
        ni, nf, ks, stride=2, norm="batch" if norm else None, act=nn.ReLU if act else None, act_first=True, bias=True
    )


def simple_cnn(n_in: int = 1, n_out: int = 10, size: int = 28, *, norm: bool = True, width: int = 8) -> nn.Sequential:
    """The chapter's network: stride-2 convolutions that double their channels until the map is one pixel.

    At 28 pixels: 5×5 kernel to 8 channels (14×14), 16 (7×7), 32 (4×4), 64 (2×2), `n_out` (1×1), flattened; 30,542
    parameters with norm. Other sizes take as many layers as they need.

    Args:
        n_in: Image channels.
        n_out: Classes.
        size: Longest side of the images, in pixels.
        norm: Batchnorm after each layer's ReLU.
        width: Channels of the first layer.
    """
    n_layers = max(2, math.ceil(math.log2(size)))
    widths = [n_in, *(width << i for i in range(n_layers - 1))]
    layers = [conv(ni, nf, ks=5 if i == 0 else 3, norm=norm) for i, (ni, nf) in enumerate(pairwise(widths))]
    return sequential(*layers, conv(widths[-1], n_out, act=False, norm=norm), Flatten())


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
    blocks = [ResBlock(ni, nf, stride=2) for ni, nf in pairwise([width, *stages])]
    return sequential(
        _ConvLayer(n_in, width, stride=2), *blocks, nn.AdaptiveAvgPool2d(1), Flatten(), nn.Linear(stages[-1], n_out)
    )


def plain_cnn(n_in: int = 1, n_out: int = 10, size: int = 28) -> nn.Sequential:
    """`simple_cnn` without batchnorm: the chapter's first network for ten digits, 30,282 parameters."""
    return simple_cnn(n_in, n_out, size, norm=False)


ARCHITECTURES: dict[str, Callable[[int, int, int], nn.Module]] = {
    "simple_cnn": simple_cnn,
    "plain_cnn": plain_cnn,
    "small_resnet": small_resnet,
}


def create_model(arch: str, n_in: int, n_out: int, size: int) -> nn.Module:
    """Make a named architecture.

    Raises:
        UsageError: there is none of that name.
    """
    if arch not in ARCHITECTURES:
        raise UsageError(f"architecture {arch!r} does not exist: use one of {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[arch](n_in, n_out, size)
