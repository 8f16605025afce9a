"""Pictures show what happened: nan is marked, what explodes does not hide the rest, nothing is cut or unnamed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.patches import Rectangle
from torch import nn
from torch.nn import functional as F

import pellucid
from pellucid.errors import UsageError
from pellucid.plot import activations as draw

BREAKS_AT, N = 40, 60


@pytest.fixture(scope="module")
def seen():
    """A run whose learning rate jumps to 1000 at batch 40: a few batches explode, the rest is nan.

    How soon it would overflow by itself differs between processors, so the weights are spoilt by hand.
    """
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 16, 3, 2, 1), nn.Conv2d(16, 16, 3, 2, 1)]
    model = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2], nn.Flatten(), nn.Linear(256, 5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pellucid.watch(model, optimizer=optimizer, loss=True, with_hist=True, with_grads=True) as seen:
        for step in range(N):
            optimizer.param_groups[0]["lr"] = 0.1 if step < BREAKS_AT else 1e3
            loss = F.cross_entropy(model(torch.rand(16, 3, 32, 32)), torch.randint(0, 5, (16,)))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if step == BREAKS_AT + 4:
                nn.init.constant_(layers[0].weight, float("nan"))
    assert np.nanmax(np.abs(seen.history.train.mean)) > 1e10  # it did explode before it became nan
    return seen


def hatched(ax) -> list[tuple[float, float]]:
    spans = [patch for patch in ax.patches if isinstance(patch, Rectangle) and patch.get_hatch()]
    return [(span.get_x(), span.get_x() + span.get_width()) for span in spans]


@pytest.mark.parametrize("name", ["plot_layer_stats", "color_dim", "plot", "plot_gradients", "plot_loss"])
def test_what_is_nan_is_hatched(seen, name):
    history = seen.history
    broken = np.flatnonzero(history.train.nonfinite[history.index(0)] > 0)
    picture = getattr(history, name)
    figure = picture(0) if name in ("plot_layer_stats", "color_dim") else picture()
    for ax in figure.axes[: 1 if name == "color_dim" else None]:  # the other is its colour bar
        ((start, stop),) = hatched(ax)
        assert BREAKS_AT < start <= broken[0] and stop == N
        assert "nan or inf" in [text.get_text() for text in ax.texts]


def test_the_map_of_silent_units_is_red_where_values_are_nan(seen):
    ax = seen.dead_chart().axes[0]
    shown, red = ax.images
    assert red.get_array().mask.sum() + shown.get_array().mask.sum() == red.get_array().size
    assert "red" in ax.get_title("right")


def test_an_explosion_does_not_set_the_axis(seen):
    history = seen.history
    before = np.abs(history.train.std[history.index(0), :BREAKS_AT]).max()
    mean, std, _ = seen.plot_layer_stats(0).axes
    assert before < std.get_ylim()[1] < 11 * before and mean.get_ylim()[1] < 11 * before
    assert any("up to" in text.get_text() for text in std.texts)
    before = history.loss[:BREAKS_AT].max()
    assert before < history.plot_loss().axes[0].get_ylim()[1] < 11 * before
    assert all(ax.get_ylim()[1] < 100 for ax in seen.plot().axes[1::3])


def test_a_sound_run_is_shown_whole_and_without_marks():
    steps = np.stack([np.arange(50), np.arange(1, 51)], 1)
    mean, std = np.linspace(-3, 80, 50), np.linspace(0.01, 90, 50)
    figure = draw.plot_layer_stats(steps, mean, std, np.zeros(50), np.zeros(50))
    for ax, values in zip(figure.axes, (mean, std), strict=False):
        assert ax.get_ylim()[0] <= values.min() and ax.get_ylim()[1] >= values.max()
        assert not hatched(ax) and not ax.texts


def test_single_values_show_beside_many():
    counts = np.zeros(80, int)
    counts[[3, 40]] = 1, 3_000_000
    low, high = draw.plot_hist(counts, (-10.0, 10.0)).get_ylim()
    assert low < 1 and high > 3_000_000


def test_a_kernel_near_zero_looks_like_one():
    kernels = np.stack([np.full((1, 3, 3), 0.5), np.full((1, 3, 3), -1e-9), np.full((1, 3, 3), -1.0)])
    shown = draw.show_kernels(kernels).images[0].get_array()
    assert sorted(np.round(np.unique(np.asarray(shown)), 6)) == [0.0, 0.5, 0.75, 1.0]  # 1 is the gap between tiles


@pytest.mark.parametrize("n", [3, 40])
def test_every_line_has_a_name(n):
    steps = np.stack([np.arange(5), np.arange(1, 6)], 1)
    names = [f"_blocks.{i}.weight" for i in range(n)]  # a leading underscore hides a label from matplotlib's legends
    figure = draw.plot_gradients(steps, np.ones((n, 5)), np.ones((n, 5)), names)
    figure.canvas.draw()
    if n <= 16:
        assert [text.get_text() for text in figure.axes[1].get_legend().get_texts()] == names
    else:
        labels = [label.get_text() for label in figure.axes[2].get_yticklabels()]
        assert labels[0] == names[0] and labels[-1] == names[-1] and len(labels) == 8


def test_a_run_without_loss_says_so():
    model = nn.Linear(2, 2)
    with pellucid.watch(model) as seen:
        model(torch.rand(3, 2))
    with pytest.raises(UsageError, match="loss=True"):
        seen.history.plot_loss()
