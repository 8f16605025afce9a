"""What a watch, a history and its tables print, and which layers are called dead."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import pellucid


def recorded(n_layers: int, steps: int):
    torch.manual_seed(0)
    model = nn.Sequential(*[nn.Linear(4, 4) for _ in range(n_layers)])
    opt = torch.optim.SGD(model.parameters(), lr=0.01)
    with pellucid.watch(model, opt if steps else None, loss=steps > 0) as seen:
        for _ in range(steps):
            model(torch.ones(3, 4)).square().mean().backward()
            opt.step()
            opt.zero_grad()
        model.eval()(torch.ones(3, 4))
    return seen


@pytest.mark.parametrize("n_layers", [1, 20, 300])
@pytest.mark.parametrize("steps", [0, 1, 20])
def test_a_history_prints_a_short_useful_text(n_layers, steps):
    seen = recorded(n_layers, steps)
    text = str(seen.history)
    assert text in str(seen)
    assert len(text) < 2500
    assert len(text.splitlines()) == 2 + min(n_layers, 20) + (n_layers > 20)
    head = text.splitlines()[0]
    assert f"{n_layers} layer" in head
    assert f"{steps} training step" in head
    assert "1 validation pass" in head
    if steps:
        x, losses = seen.history.train, seen.history.loss
        assert f"loss {losses[0]:.3g} to {losses[-1]:.3g}" in head
        assert text.splitlines()[2].split()[:4] == ["0", "Linear", "4", f"{x.mean[0, -1]:.3g}"]
    assert "Section of" in repr(seen.history.train)
    assert len(repr(seen.history.train)) < 120


def test_what_is_open_broken_or_nothing_yet_is_said():
    seen = pellucid.watch(nn.Linear(2, 2), modules=lambda name, module: True)
    assert "0 training steps" in str(seen)
    with seen:
        seen.model(torch.tensor([[torch.nan, 1.0], [1.0, 1.0]]))
        assert str(seen).startswith("open watch of Linear: History of 1 layer")
    assert "2 values nan or infinite" in str(seen)


class Residual(nn.Module):
    def __init__(self, zero):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)
        self.last = {
            "norm": lambda: nn.BatchNorm2d(2),
            "layer norm": lambda: nn.GroupNorm(1, 2),
            "convolution": lambda: nn.Conv2d(2, 2, 1),
        }[zero]()
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        self.head = nn.Linear(2, 2)

    def forward(self, x):
        x = (x + self.last(self.conv(x).relu())).relu()
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize("zero", ["norm", "layer norm", "convolution"])
def test_a_layer_initialised_to_zero_is_not_dead(zero):
    torch.manual_seed(0)
    model = Residual(zero)
    x = torch.randn(16, 2, 6, 6)
    with pellucid.watch(model) as seen, torch.no_grad():
        for i in range(9):
            if i in (2, 4):  # barely moved: still near zero; then trained
                model.last.weight.fill_(0.01 if i == 2 else 1)
            if i == 7:  # and now dead indeed
                model.last.weight.zero_()
                model.last.bias.fill_(-1)
            model(x)
    h = seen.history
    row, share = h.index("last"), h.train.share("near_zero")
    dead = h.dead()
    assert share[row, :4].min() > 0.9, "it would have been called dead"
    assert np.isnan(dead[row, :4]).all()
    np.testing.assert_array_equal(dead[row, 4:], share[row, 4:])
    assert dead[row, 7:].tolist() == [1, 1]
    others = [i for i in range(len(h.layers)) if i != row]
    np.testing.assert_array_equal(dead[others], share[others])
    chart = h.dead_chart()
    assert chart.axes[0].get_title("left") == "blank: not seen, or zero from the start"


def test_a_layer_that_died_is_dead():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    with pellucid.watch(model) as seen:
        for i in range(4):
            if i == 2:
                with torch.no_grad():
                    model[0].weight.zero_()
                    model[0].bias.fill_(-1)
            model(torch.randn(5, 4))
    assert seen.history.dead()[0].tolist()[2:] == [1, 1]
    assert (seen.history.dead()[0, :2] < 1).all()
