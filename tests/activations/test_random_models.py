"""What a watch records of random models in random loops, against all activations kept and counted in float64."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pellucid.activations.watch import Watch

EDGES = np.linspace(-10, 10, 81)
NEAR = np.float32(0.05)
RELU, IN_PLACE, TANH = (lambda _: nn.ReLU()), (lambda _: nn.ReLU(inplace=True)), (lambda _: nn.Tanh())
AFTER = [[], [RELU], [IN_PLACE], [RELU, nn.BatchNorm2d], [nn.BatchNorm2d, IN_PLACE], [nn.BatchNorm2d, TANH, RELU]]


@st.composite
def models(draw: st.DrawFn) -> nn.Sequential:
    """Chains of convolutions with norms, activation functions and pooling, with a linear head."""
    torch.manual_seed(draw(st.integers(0, 10_000)))
    widths = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    layers: list[nn.Module] = []
    for ni, nf in pairwise([2, *widths]):
        layers.append(nn.Conv2d(ni, nf, draw(st.sampled_from([1, 2, 3])), padding=1))
        layers += [make(nf) for make in draw(st.sampled_from(AFTER))]
    with torch.no_grad():
        layers[0].weight.mul_(draw(st.sampled_from([0.0, 1.0, 30.0])))  # type: ignore[operator]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 3))


def steps_of(model: nn.Module, opt: torch.optim.Optimizer, sizes: list[int], accumulate: int) -> None:
    """Train, each step on `accumulate` batches of one of the sizes, with a validation pass after every third."""
    for i, size in enumerate(sizes):
        for _ in range(accumulate):
            model(torch.randn(size, 2, 5, 5)).square().mean().backward()
        opt.step()
        opt.zero_grad()
        if i % 3 == 2:
            model.eval()(torch.randn(3, 2, 5, 5))
            model.train()


@settings(max_examples=25)
@given(
    model=models(),
    sizes=st.lists(st.integers(2, 5), min_size=1, max_size=14),
    accumulate=st.integers(1, 2),
    capacity=st.sampled_from([2, 4, 64]),
    every=st.integers(1, 2),
    seed=st.integers(0, 1000),
)
def test_history_equals_counting_all_activations(model, sizes, accumulate, capacity, every, seed):
    torch.manual_seed(seed)
    options = {"loss": False, "modules": None, "with_hist": True, "with_grads": False}
    kept: dict[tuple[str, bool], list[tuple[int, torch.Tensor]]] = {}
    opt = torch.optim.SGD(model.parameters(), lr=0.01)
    watch = Watch(model, opt, every=every, capacity=capacity, **options)
    for name, module in model.named_modules():
        if name in watch.recording.outputs.targets:
            module.register_forward_hook(
                lambda m, i, o, name=name: kept.setdefault((name, model.training), []).append(
                    (watch.step, o.detach().double().clone())
                )
            )
    with watch:
        steps_of(model, opt, sizes, accumulate)
    history = watch.history
    for training, section in ((True, history.train), (False, history.valid)):
        assert len(section.steps) <= capacity
        for row, layer in enumerate(history.layers):
            for column, (start, stop) in enumerate(section.steps):
                seen = [
                    x
                    for step, x in kept[layer.name, training]
                    if start <= step < stop and (not training or step % every == 0)
                ]
                x = torch.cat([each.flatten() for each in seen]).numpy()
                where = f"{layer} {training} {column}"
                assert section.count[row, column] == len(x), where
                assert section.mean[row, column] == pytest.approx(
                    x.mean(), rel=1e-5, abs=1e-6 * np.abs(x).max() + 1e-30
                )
                assert section.std[row, column] == pytest.approx(x.std(ddof=1), rel=1e-5, abs=1e-6 * np.abs(x).max())
                assert (section.min[row, column], section.max[row, column]) == (x.min(), x.max()), where
                assert section.near_zero[row, column] == (x <= NEAR).sum(), where
                assert section.near_zero_abs[row, column] == (np.abs(x) <= NEAR).sum(), where
                assert section.zero[row, column] == (x == 0).sum(), where
                bins = [((x >= low) & (x < high)).sum() for low, high in pairwise(EDGES)]
                bins[-1] += (x == 10).sum()
                assert section.hist is not None
                assert section.hist[row, column].tolist() == bins, where
                assert section.underflow[row, column] == (x < -10).sum(), where
                assert section.overflow[row, column] == (x > 10).sum(), where
