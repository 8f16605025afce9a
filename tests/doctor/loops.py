"""Ordinary small training loops, as people write them, for the tests of the doctor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


def data(n: int = 64, classes: int = 3, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Images of 8 × 8 pixels whose mean tells the class."""
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(0, classes, (n,), generator=g)
    return torch.randn(n, 1, 8, 8, generator=g) + y[:, None, None, None], y


class Net(nn.Module):
    """Two convolutions with a norm, a dropout and functional activations."""

    def __init__(self, classes: int = 3):
        super().__init__()
        self.conv1, self.norm = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv2, self.act = nn.Conv2d(4, 6, 3, stride=2), nn.ReLU()
        self.drop, self.head = nn.Dropout(0.2), nn.Linear(6 * 9, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.norm(self.conv1(x)))
        return self.head(self.drop(self.act(self.conv2(x))).flatten(1))


def net(seed: int = 0) -> Net:
    torch.manual_seed(seed)
    return Net()


def loader(x: Tensor, y: Tensor, bs: int = 16, **options: Any) -> DataLoader:
    return DataLoader(TensorDataset(x, y), batch_size=bs, **options)


def batches(n: int, bs: int = 16, seed: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
    x, y = data(bs * 4, seed=seed)
    for i in range(n):
        at = slice(i % 4 * bs, i % 4 * bs + bs)
        yield x[at], y[at]


def fit(model: nn.Module, optimizer: Any, n: int = 6, loss: Callable[..., Tensor] = F.cross_entropy) -> list[float]:
    """Train for some steps; the losses."""
    losses = []
    for x, y in batches(n):
        optimizer.zero_grad()
        value = loss(model(x), y)
        value.backward()
        optimizer.step()
        losses.append(value.item())
    return losses
