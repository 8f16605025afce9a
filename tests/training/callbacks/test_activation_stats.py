"""Statistics as code written for fastai reads them, against statistics taken by hand in the same fit."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from pellucid.data.loader import DataLoaders
from pellucid.errors import UsageError
from pellucid.seed import set_seed
from pellucid.training.callbacks.core import Callback
from pellucid.training.callbacks.progress import ProgressCallback
from pellucid.training.callbacks.statistics import ActivationStats
from pellucid.training.learner import Learner

N_BATCHES = 5


class ByHand(Callback):
    """The formulas of fastai's documentation on the outputs of the layers with parameters."""

    run_valid = False

    def before_fit(self):
        self.seen, self._now = [], []
        self._hooks = [m.register_forward_hook(self._take) for m in self.model if isinstance(m, nn.Linear)]

    def _take(self, module, inputs, output):
        o = output.detach().float()
        stats = {"mean": o.mean().item(), "std": o.std().item(), "near_zero": (o <= 0.05).sum().item() / o.numel()}
        self._now.append(stats | {"hist": o.histc(40, 0, 10)})

    def before_batch(self):
        self._now.clear()

    def after_batch(self):
        self.seen.append(list(self._now))

    def cleanup_fit(self):
        for hook in self._hooks:
            hook.remove()


def learner(**options) -> Learner:
    set_seed(0)
    x = 3 * torch.randn(48, 6)
    valid = DataLoader(TensorDataset(x[:8], (x[:8, 0] > 0).long()), 8)
    train = DataLoader(TensorDataset(x[8:], (x[8:, 0] > 0).long()), 8)
    model = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 4), nn.ReLU(), nn.Linear(4, 2))
    learn = Learner(DataLoaders(train, valid, device="cpu"), model, **options)
    learn.remove_cb(ProgressCallback)
    return learn


def test_the_lists_are_those_of_fastais_formulas():
    learn = learner(cbs=[ActivationStats(with_hist=True), ByHand])
    learn.fit(1, 0.05)
    ours, hand = learn.activation_stats, learn.by_hand.seen
    assert len(ours.stats) == len(hand) == N_BATCHES and len(ours.stats[0]) == 3
    for batch, by_hand in zip(ours.stats, hand, strict=True):
        for layer, expected in zip(batch, by_hand, strict=True):
            assert layer.keys() == expected.keys()
            assert [layer[k] for k in ("mean", "std", "near_zero")] == pytest.approx(
                [expected[k] for k in ("mean", "std", "near_zero")], rel=1e-5, abs=1e-6
            )
            assert layer["hist"].tolist() == expected["hist"].tolist()
    for i in (0, 1, -1):
        mean, std, near_zero = ours.layer_stats(i)
        assert mean == ours.stats.itemgot(i).itemgot("mean")
        assert list(mean) == pytest.approx([b[i]["mean"] for b in hand], abs=1e-6)
        assert list(std) == pytest.approx([b[i]["std"] for b in hand], rel=1e-5)
        assert list(near_zero) == pytest.approx([b[i]["near_zero"] for b in hand])
        expected = torch.stack([b[i]["hist"] for b in hand]).t().float().log1p()
        assert ours.hist(i).shape == (40, N_BATCHES) and torch.allclose(ours.hist(i), expected)
    assert ours.layer_stats("2") == ours.layer_stats(1)
    plt.plot(ours.layer_stats(-2)[0])


def test_what_was_not_recorded():
    learn = learner(cbs=ActivationStats)
    assert repr(learn.activation_stats) == "ActivationStats: nothing recorded yet"
    for look in (lambda s: s.stats, lambda s: s.layer_stats(0), lambda s: s.hist(0)):
        with pytest.raises(UsageError, match="nothing was recorded yet"):
            look(learn.activation_stats)
    learn.fit(1, 0.05)
    assert set(learn.activation_stats.stats[0][0]) == {"mean", "std", "near_zero"}
    with pytest.raises(UsageError, match="with_hist=True"):
        learn.activation_stats.hist(0)
    with pytest.raises(UsageError, match="no layer 7"):
        learn.activation_stats.layer_stats(7)
    assert repr(learn.activation_stats) == "ActivationStats: 5 layers over 5 training batches"
