"""Channels-last training: only where it is safe, and gone when the fit ends."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pellucid.layers import Flatten, sequential
from pellucid.layout import channels_last
from pellucid.optimizer import Adam


class Viewing(nn.Module):
    """A user's network whose forward needs the standard layout."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).view(len(x), -1)


def make() -> nn.Sequential:
    torch.manual_seed(0)
    return sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3, 2), Flatten())


def train(model: nn.Module, opt: torch.optim.Optimizer, steps: int) -> None:
    x, y = torch.randn(16, 3, 8, 8), torch.randint(0, 4, (16,))
    for _ in range(steps):
        F.cross_entropy(model(x), y).backward()
        opt.step()
        opt.zero_grad()


def is_standard(model: nn.Module, opt: torch.optim.Optimizer) -> bool:
    states = [v for state in opt.state.values() for v in state.values() if isinstance(v, Tensor)]
    return all(t.is_contiguous() for t in [*model.parameters(), *states])


def test_layout_changes_inside_and_comes_back():
    model = make()
    opt = Adam(model.parameters(), lr=0.01)
    with pytest.raises(KeyError), channels_last(model, opt):
        train(model, opt, 1)
        assert model[3](torch.randn(2, 8, 5, 5)).is_contiguous(memory_format=torch.channels_last)
        assert not is_standard(model, opt)
        raise KeyError
    assert is_standard(model, opt)


def test_training_continues_the_same_in_either_layout():
    trained = []
    for fast in (True, False):
        model = make()
        opt = Adam(model.parameters(), lr=0.01)
        for _ in range(2):
            torch.manual_seed(1)
            if fast:
                with channels_last(model, opt):
                    train(model, opt, 3)
            else:
                train(model, opt, 3)
        trained.append(model.state_dict())
    for fast, plain in zip(trained[0].values(), trained[1].values(), strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-3, atol=1e-4)


def test_code_that_views_activations_still_runs():
    model = Viewing()
    opt = Adam(model.parameters(), lr=0.01)
    with channels_last(model, opt):
        assert is_standard(model, opt)
        model(torch.randn(2, 3, 8, 8)).sum().backward()
