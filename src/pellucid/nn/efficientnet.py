"""EfficientNet-Lite: networks for photos that are fast on a CPU.

Sources: Tan and Le, "EfficientNet", arXiv:1905.11946, table 1 and section 3.3; the Lite variants are Google's, without
squeeze-and-excitation, with ReLU6, and with a first and a last convolution that do not grow (tensorflow/tpu,
efficientnet/lite).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from pellucid.nn.layers import Conv2dSame, Flatten, sequential

STEM, HEAD = 32, 1280  # channels after the first convolution and before the pooling
# Kernel, stride of the first block, expansion, channels, blocks: table 1 of the paper, B0.
STAGES = (
    (3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3), (5, 1, 6, 112, 3), (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)  # fmt: skip


@dataclass(frozen=True)
class Scaling:
    """How a variant grows from Lite0.

    Attributes:
        width: Factor of the channels.
        depth: Factor of the blocks in a stage.
        size: Pixels a side that its weights were trained with.
        dropout: Share of features that dropout silences before the last layer.
    """

    width: float
    depth: float
    size: int
    dropout: float


LITE = {
    "efficientnet_lite0": Scaling(1.0, 1.0, 224, 0.2),
    "efficientnet_lite1": Scaling(1.0, 1.1, 240, 0.2),
    "efficientnet_lite2": Scaling(1.1, 1.2, 260, 0.3),
}


class MBConv(nn.Module):
    """An inverted residual block: 1×1 to more channels, a kernel per channel, 1×1 back, plus the input where it fits.

    Source: Sandler et al., "MobileNetV2", arXiv:1801.04381, section 3.

    Args:
        ni: Channels in.
        nf: Channels out.
        ks: Kernel size.
        stride: Of the kernel per channel.
        expansion: How many times more channels there are inside; 1 leaves the first 1×1 out.
    """

    def __init__(self, ni: int, nf: int, ks: int, stride: int, expansion: int):
        super().__init__()
        inside = ni * expansion
        self.expand = unit(ni, inside, 1) if expansion > 1 else None
        self.depthwise = unit(inside, inside, ks, stride, groups=inside)
        self.project = unit(inside, nf, 1, act=False)
        self.adds_input = stride == 1 and ni == nf

    def forward(self, x: Tensor) -> Tensor:
        """(batch, ni, row, column) → (batch, nf, ⌈row / stride⌉, ⌈column / stride⌉)."""
        out = x if self.expand is None else self.expand(x)
        out = self.project(self.depthwise(out))
        return x + out if self.adds_input else out


def unit(ni: int, nf: int, ks: int, stride: int = 1, groups: int = 1, act: bool = True) -> nn.Sequential:
    """A convolution with TensorFlow's padding, batchnorm with its constants, and ReLU6 if `act`."""
    layers: list[Any] = [
        Conv2dSame(ni, nf, ks, stride, groups=groups, bias=False),
        nn.BatchNorm2d(nf, eps=1e-3, momentum=0.01),
    ]
    return nn.Sequential(*layers, nn.ReLU6()) if act else nn.Sequential(*layers)


def efficientnet_lite(name: str, n_in: int = 3, n_out: int = 1000) -> nn.Sequential:
    """A variant with new weights: stem, blocks, 1×1 to 1280 channels, average pooling, dropout, linear.

    Args:
        name: A key of `LITE`.
        n_in: Image channels.
        n_out: Classes.
    """
    scaling = LITE[name]
    blocks: list[nn.Module] = []
    ni = STEM
    for i, (ks, stride, expansion, channels, n) in enumerate(STAGES):
        nf = _rounded(channels * scaling.width)
        n = n if i in (0, len(STAGES) - 1) else math.ceil(n * scaling.depth)
        for j in range(n):
            blocks.append(MBConv(ni, nf, ks, stride if j == 0 else 1, expansion))
            ni = nf
    return sequential(
        unit(n_in, STEM, 3, 2), *blocks, unit(ni, HEAD, 1), nn.AdaptiveAvgPool2d(1), Flatten(),
        nn.Dropout(scaling.dropout), nn.Linear(HEAD, n_out),
    )  # fmt: skip


def efficientnet_lite0(n_in: int = 3, n_out: int = 1000, size: int = 224) -> nn.Sequential:
    """EfficientNet-Lite0, made for photos of 224 pixels: 4.7 million parameters; `size` is not used."""
    return efficientnet_lite("efficientnet_lite0", n_in, n_out)


def efficientnet_lite1(n_in: int = 3, n_out: int = 1000, size: int = 240) -> nn.Sequential:
    """EfficientNet-Lite1, made for photos of 240 pixels: 5.4 million parameters; `size` is not used."""
    return efficientnet_lite("efficientnet_lite1", n_in, n_out)


def efficientnet_lite2(n_in: int = 3, n_out: int = 1000, size: int = 260) -> nn.Sequential:
    """EfficientNet-Lite2, made for photos of 260 pixels: 6.1 million parameters; `size` is not used."""
    return efficientnet_lite("efficientnet_lite2", n_in, n_out)


def _rounded(channels: float) -> int:
    """To a multiple of 8, at least 90 % of what was asked for."""
    found = max(8, int(channels + 4) // 8 * 8)
    return found + 8 if found < 0.9 * channels else found
