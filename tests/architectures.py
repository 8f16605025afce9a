"""Well-known networks with branches, layer for layer, but a few channels wide."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def unit(c_in: int, c_out: int, k=3, stride=1, padding=None, dilation=1, groups=1, act=True) -> nn.Sequential:
    """Convolution, batchnorm, ReLU; padding that keeps the size unless given."""
    k = (k, k) if isinstance(k, int) else k
    padding = tuple(dilation * (n // 2) for n in k) if padding is None else padding
    layers = [nn.Conv2d(c_in, c_out, k, stride, padding, dilation, groups, bias=False), nn.BatchNorm2d(c_out)]
    return nn.Sequential(*layers, *([nn.ReLU(inplace=True)] if act else []))


class Bottleneck(nn.Module):
    def __init__(self, c_in, c, stride=1, dilation=1):
        super().__init__()
        self.body = nn.Sequential(
            unit(c_in, c, 1), unit(c, c, 3, stride, dilation=dilation), unit(c, 4 * c, 1, act=False)
        )
        self.skip = unit(c_in, 4 * c, 1, stride, act=False) if stride > 1 or c_in != 4 * c else nn.Identity()

    def forward(self, x):
        return F.relu(self.body(x) + self.skip(x))


def _stages(c: int, strides=(1, 2, 2, 2), dilations=(1, 1, 1, 1)) -> list[nn.Module]:
    layers: list[nn.Module] = [unit(3, c, 7, 2), nn.MaxPool2d(3, 2, 1)]
    for i, (n, stride, gap) in enumerate(zip((3, 4, 6, 3), strides, dilations, strict=True)):
        c_in = c if i == 0 else 4 * c * 2 ** (i - 1)
        layers += [
            Bottleneck(c_in if j == 0 else 4 * c * 2**i, c * 2**i, stride if j == 0 else 1, gap) for j in range(n)
        ]
    return layers


def resnet50(c: int = 2) -> nn.Module:
    """He et al., arXiv:1512.03385, the stride in the 3×3 layer."""
    return nn.Sequential(*_stages(c), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32 * c, 10))


class DeepLab(nn.Module):
    """DeepLabv3, arXiv:1706.05587: dilated ResNet-50 at stride 8, parallel dilated branches, image pooling."""

    def __init__(self, c=2):
        super().__init__()
        self.body = nn.Sequential(*_stages(c, (1, 2, 1, 1), (1, 1, 2, 4)))
        self.branches = nn.ModuleList([unit(32 * c, 2, 1), *[unit(32 * c, 2, 3, dilation=d) for d in (12, 24, 36)]])
        self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), unit(32 * c, 2, 1))
        self.head = nn.Sequential(unit(10, 4, 1), nn.Conv2d(4, 3, 1))

    def forward(self, x):
        y = self.body(x)
        far = F.interpolate(self.pooled(y), size=y.shape[2:], mode="bilinear", align_corners=False)
        y = self.head(torch.cat([*[branch(y) for branch in self.branches], far], dim=1))
        return F.interpolate(y, size=x.shape[2:], mode="bilinear", align_corners=False)


class Branches(nn.Module):
    def __init__(self, *branches):
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x):
        return torch.cat([branch(x) for branch in self.branches], 1)


def inception3(c: int = 2) -> nn.Module:
    """Inception-v3, Szegedy et al., arXiv:1512.00567, without auxiliary head."""

    def pooled(c_in):
        return nn.Sequential(nn.AvgPool2d(3, 1, 1), unit(c_in, c, 1))

    def chain(c_in, *kernels):
        return nn.Sequential(*[unit(c_in if i == 0 else c, c, k) for i, k in enumerate(kernels)])

    def small(c_in):
        return Branches(chain(c_in, 1), chain(c_in, 1, 5), chain(c_in, 1, 3, 3), pooled(c_in))

    def long(c_in):
        across, down = (1, 7), (7, 1)
        return Branches(
            chain(c_in, 1), chain(c_in, 1, across, down), chain(c_in, 1, down, across, down, across), pooled(c_in)
        )

    def wide(c_in):
        split = lambda: Branches(unit(c, c, (1, 3)), unit(c, c, (3, 1)))
        one, other = nn.Sequential(unit(c_in, c, 1), split()), nn.Sequential(unit(c_in, c, 1), unit(c, c, 3), split())
        return Branches(chain(c_in, 1), one, other, pooled(c_in))

    last = lambda: unit(c, c, 3, 2, 0)
    stem = unit(3, c, 3, 2, 0), unit(c, c, 3, 1, 0), unit(c, c), nn.MaxPool2d(3, 2), unit(c, c, 1), unit(c, c, 3, 1, 0)
    return nn.Sequential(
        *stem, nn.MaxPool2d(3, 2), small(c), small(4 * c), small(4 * c),
        Branches(unit(4 * c, c, 3, 2, 0), nn.Sequential(chain(4 * c, 1, 3), last()), nn.MaxPool2d(3, 2)),
        *[long(6 * c if i == 0 else 4 * c) for i in range(4)],
        Branches(nn.Sequential(chain(4 * c, 1), last()), nn.Sequential(chain(4 * c, 1, (1, 7), (7, 1)), last()),
                 nn.MaxPool2d(3, 2)),
        wide(6 * c), wide(6 * c), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6 * c, 10),
    )  # fmt: skip


class Dense(nn.Module):
    def __init__(self, c_in, growth):
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(c_in), nn.ReLU(), nn.Conv2d(c_in, 2 * growth, 1, bias=False), nn.BatchNorm2d(2 * growth),
            nn.ReLU(), nn.Conv2d(2 * growth, growth, 3, padding=1, bias=False),
        )  # fmt: skip

    def forward(self, x):
        return torch.cat([x, self.body(x)], 1)


def densenet121(growth: int = 1) -> nn.Module:
    """DenseNet, Huang et al., arXiv:1608.06993."""
    c, layers = 2, [unit(3, 2, 7, 2), nn.MaxPool2d(3, 2, 1)]
    for i, n in enumerate((6, 12, 24, 16)):
        for _ in range(n):
            layers.append(Dense(c, growth))
            c += growth
        if i < 3:
            layers += [nn.BatchNorm2d(c), nn.ReLU(), nn.Conv2d(c, c // 2, 1), nn.AvgPool2d(2)]
            c //= 2
    return nn.Sequential(*layers, nn.BatchNorm2d(c), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, 10))


class UNet(nn.Module):
    """Ronneberger et al., arXiv:1505.04597: valid convolutions, crops, transposed convolutions."""

    def __init__(self, c=2, depth=4):
        super().__init__()
        double = lambda c_in, c_out: nn.Sequential(unit(c_in, c_out, padding=0), unit(c_out, c_out, padding=0))
        self.down = nn.ModuleList([double(3 if i == 0 else c, c) for i in range(depth)])
        self.middle = double(c, c)
        self.up = nn.ModuleList([nn.ConvTranspose2d(c, c, 2, 2) for _ in range(depth)])
        self.join = nn.ModuleList([double(2 * c, c) for _ in range(depth)])
        self.last = nn.Conv2d(c, 2, 1)

    def forward(self, x):
        kept: list[Tensor] = []
        for down in self.down:
            x = down(x)
            kept.append(x)
            x = F.max_pool2d(x, 2)
        x = self.middle(x)
        for up, join in zip(self.up, self.join, strict=True):
            x, skip = up(x), kept.pop()
            top, left = (skip.size(2) - x.size(2)) // 2, (skip.size(3) - x.size(3)) // 2
            x = join(torch.cat([skip[:, :, top : top + x.size(2), left : left + x.size(3)], x], 1))
        return self.last(x)


class Inverted(nn.Module):
    def __init__(self, c_in, c_out, k, stride, squeezes):
        super().__init__()
        c = 2 * c_in
        self.wide, self.deep = unit(c_in, c, 1), unit(c, c, k, stride, groups=c)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(c, 2, 1), nn.ReLU(), nn.Conv2d(2, c, 1), nn.Hardsigmoid()
        )
        self.squeezes, self.keeps = squeezes, stride == 1 and c_in == c_out
        self.thin = unit(c, c_out, 1, act=False)

    def forward(self, x):
        y = self.deep(self.wide(x))
        y = self.thin(y * self.gate(y) if self.squeezes else y)
        return x + y if self.keeps else y


def mobilenet3(c: int = 3) -> nn.Module:
    """MobileNetV3 large, Howard et al., arXiv:1905.02244: kernels, strides and gates of its table 1."""
    table = "3110 3220 3110 5221 5121 5121 3230 3130 3130 3130 3141 3141 5251 5151 5151"
    layers, last = [unit(3, c, 3, 2)], c
    for k, stride, width, gate in (map(int, row) for row in table.split()):
        layers.append(Inverted(last, c + width, k, stride, bool(gate)))
        last = c + width
    return nn.Sequential(*layers, unit(last, last, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(last, 10))


class Shuffled(nn.Module):
    def __init__(self, c, stride):
        super().__init__()
        c_in = c if stride == 2 else c // 2
        self.stride = stride
        self.body = nn.Sequential(
            unit(c_in, c // 2, 1), unit(c // 2, c // 2, 3, stride, groups=c // 2, act=False), unit(c // 2, c // 2, 1)
        )
        self.skip = nn.Sequential(unit(c, c, 3, 2, groups=c, act=False), unit(c, c // 2, 1))

    def forward(self, x):
        one, other = (x, x) if self.stride == 2 else x.chunk(2, dim=1)
        y = torch.cat([self.skip(one) if self.stride == 2 else one, self.body(other)], 1)
        n, c, h, w = y.shape
        return y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def shufflenet2(c: int = 8) -> nn.Module:
    """ShuffleNetV2, Ma et al., arXiv:1807.11164."""
    stages = [Shuffled(c, 2 if i == 0 else 1) for n in (4, 8, 4) for i in range(n)]
    return nn.Sequential(
        unit(3, c, 3, 2), nn.MaxPool2d(3, 2, 1), *stages, unit(c, c, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(c, 10),
    )  # fmt: skip


class HighResolution(nn.Module):
    """HRNet, Wang et al., arXiv:1908.07919: parallel resolutions that exchange what they have."""

    def __init__(self, c=2, n=3):
        super().__init__()
        self.stem = nn.Sequential(unit(3, c, 3, 2), unit(c, c, 3, 2))
        self.starts = nn.ModuleList([nn.Identity(), *[unit(c, c, 3, 2) for _ in range(n - 1)]])
        self.rows = nn.ModuleList([nn.Sequential(unit(c, c), unit(c, c)) for _ in range(2 * n)])
        self.across = nn.ModuleList([self.exchange(c, i, j) for _ in range(2) for i in range(n) for j in range(n)])
        self.n = n

    @staticmethod
    def exchange(c, source, target):
        if source < target:
            return nn.Sequential(*[unit(c, c, 3, 2, act=k < target - source - 1) for k in range(target - source)])
        if source > target:
            return nn.Sequential(unit(c, c, 1, act=False), nn.Upsample(scale_factor=2 ** (source - target)))
        return nn.Identity()

    def forward(self, x):
        rows = [self.starts[0](self.stem(x))]
        for start in self.starts[1:]:
            rows.append(start(rows[-1]))
        for stage in range(2):
            rows = [self.rows[stage * self.n + i](row) for i, row in enumerate(rows)]
            at = lambda i, j, stage=stage: self.across[stage * self.n**2 + i * self.n + j]
            rows = [F.relu(sum(at(i, j)(row) for i, row in enumerate(rows))) for j in range(self.n)]
        return torch.cat([rows[0], *[F.interpolate(r, scale_factor=2**i) for i, r in enumerate(rows) if i]], 1)


NETWORKS = {
    "ResNet-50": (resnet50, (64, 52)),
    "DeepLabv3": (DeepLab, (64, 48)),
    "Inception-v3": (inception3, (83, 78)),
    "DenseNet-121": (densenet121, (44, 52)),
    "U-Net": (UNet, (188, 204)),
    "MobileNetV3": (mobilenet3, (50, 64)),
    "ShuffleNetV2": (shufflenet2, (45, 64)),
    "HRNet": (HighResolution, (48, 32)),
}
