"""The chapter's network with batch normalisation and its optimizer, in plain PyTorch, for the hand-written peers."""

import math

import torch
from torch import Tensor, nn

LR_MAX, MEAN, STD = 0.06, 0.1307, 0.3081
N_PARAMETERS = 30_542


def conv(ni: int, nf: int, ks: int = 3, act: bool = True) -> nn.Sequential:
    """Stride-2 convolution, ReLU if `act`, batch normalisation."""
    layers: list[nn.Module] = [nn.Conv2d(ni, nf, stride=2, kernel_size=ks, padding=ks // 2)]
    if act:
        layers.append(nn.ReLU())
    layers.append(nn.BatchNorm2d(nf))
    return nn.Sequential(*layers)


def simple_cnn() -> nn.Sequential:
    """Five convolutions from 28x28 pixels to ten classes."""
    model = nn.Sequential(
        conv(1, 8, ks=5),  # 14x14
        conv(8, 16),  # 7x7
        conv(16, 32),  # 4x4
        conv(32, 64),  # 2x2
        conv(64, 10, act=False),  # 1x1
        nn.Flatten(),
    )
    assert sum(p.numel() for p in model.parameters()) == N_PARAMETERS
    return model


def adam(model: nn.Module, fused: bool = True) -> torch.optim.AdamW:
    """AdamW with the chapter's defaults."""
    return torch.optim.AdamW(model.parameters(), lr=LR_MAX, betas=(0.9, 0.99), eps=1e-5, weight_decay=0.01, fused=fused)


def cosine(start: float, end: float, pos: float) -> float:
    """Half a cosine from `start` at 0 to `end` at 1."""
    return end + (start - end) * (1 + math.cos(math.pi * pos)) / 2


def one_cycle(n_steps: int) -> list[tuple[float, float]]:
    """Learning rate and momentum of every step: up for a quarter of the steps, then down."""
    values = []
    for step in range(n_steps):
        pos = step / n_steps
        if pos < 0.25:
            values.append((cosine(LR_MAX / 25, LR_MAX, pos / 0.25), cosine(0.95, 0.85, pos / 0.25)))
        else:
            pos = (pos - 0.25) / 0.75
            values.append((cosine(LR_MAX, LR_MAX / 1e5, pos), cosine(0.85, 0.95, pos)))
    return values


def set_hypers(optimizer: torch.optim.Optimizer, lr: float, mom: float) -> None:
    """Give every parameter group this learning rate and momentum."""
    for group in optimizer.param_groups:
        group["lr"] = lr
        group["betas"] = (mom, 0.99)


def n_correct(logits: Tensor, y: Tensor) -> Tensor:
    """Number of rows whose highest logit is the label, as a tensor: reading it is left to the end of the epoch."""
    return (logits.argmax(dim=1) == y).sum()
