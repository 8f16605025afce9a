"""After a fit every callback cleans up, however the fit ended and whatever the others' cleanup does."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.modules.module import _global_forward_hooks
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import TensorDataset

from pellucid.data.loader import DataLoaders
from pellucid.training.callbacks.core import Callback
from pellucid.training.callbacks.progress import ProgressCallback
from pellucid.training.callbacks.statistics import ActivationStats, HookCallback
from pellucid.training.learner import Learner

FAILURES = [None, ZeroDivisionError, OSError, KeyboardInterrupt, SystemExit]
KINDS = [*FAILURES[1:]]


class Fails(Callback):
    """Cleans up by failing; `order` says whether that is before or after the others."""

    def __init__(self, error: type[BaseException] | None, order: int):
        self.error, self.order = error, order

    def cleanup_fit(self):
        if self.error:
            raise self.error("while cleaning up")


class Ends(Callback):
    """Ends the fit with an error in its second batch."""

    def __init__(self, error: type[BaseException] | None):
        self.error = error

    def after_backward(self):
        if self.error and self.learn.train_iter == 1:
            raise self.error("while training")


class Counts(HookCallback):
    """Counts the calls of layers, by hooks of its own."""

    n = 0

    def hook(self, module, inputs, output):
        self.n += 1


def learner() -> Learner:
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(24, 3), torch.arange(24) % 2)
    dls = DataLoaders(TorchDataLoader(data, 8), TorchDataLoader(data, 8), device="cpu")
    learn = Learner(dls, nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)))
    learn.remove_cb(ProgressCallback)
    return learn


@pytest.mark.parametrize("order", [-1000, 47, 1000])
@pytest.mark.parametrize("cleaning", FAILURES)
@pytest.mark.parametrize("training", FAILURES)
def test_every_callback_cleans_up(training, cleaning, order, tmp_path):
    learn = learner()
    stats, counts = ActivationStats(folder=tmp_path / "seen"), Counts()
    cbs = [stats, counts, Ends(training), Fails(cleaning, order)]
    expected = cleaning if training is None or (cleaning in KINDS[2:] and training in KINDS[:2]) else training
    if expected is None:
        learn.fit(1, 0.01, cbs=cbs)
    else:
        with pytest.raises(expected) as caught:
            learn.fit(1, 0.01, cbs=cbs)
        notes = getattr(caught.value, "__notes__", [])
        assert not (training and cleaning) or expected is not training or cleaning.__name__ in "".join(notes)
    assert not any(m._forward_hooks for m in learn.model.modules()) and all(hook.removed for hook in counts.hooks)
    assert not _global_forward_hooks and (tmp_path / "seen" / "history.safetensors").exists()
    assert not learn.training and all(p.grad is None for p in learn.model.parameters())
    assert not any(cb in learn.cbs for cb in cbs)
    calls = counts.n
    learn.fit(1, 0.01)
    assert counts.n == calls and len(learn.recorder.losses) == 3


def test_a_callback_may_remove_itself():
    class Once(Callback):
        def before_fit(self):
            self.learn.remove_cb(self)

    learn = learner()
    learn.fit(1, 0.01, cbs=Once)
    assert not hasattr(learn, "once") and len(learn.recorder.losses) == 3
