"""Before the first epoch, in a loop of one's own, and in a learner: the diagnosis from Python."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import pellucid
from pellucid.doctor import examining
from pellucid.errors import UsageError
from pellucid.training.callbacks.doctor import Doctor
from pellucid.training.callbacks.progress import ProgressCallback


def batches(n: int = 12) -> list[tuple[torch.Tensor, torch.Tensor]]:
    torch.manual_seed(1)
    x = torch.randn(32 * n, 16)
    y = (x[:, :4] + 0.1 * torch.randn(32 * n, 4)).argmax(1)
    return list(zip(x.split(32), y.split(32), strict=True))


def network(*more: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4), *more)


def test_examine_names_a_fault_and_leaves_no_trace():
    train, valid, model = batches(), batches(2), network(nn.Softmax(1))
    opt = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    weights, moments, random = copy.deepcopy(model.state_dict()), copy.deepcopy(opt.state_dict()), torch.get_rng_state()
    report = pellucid.examine(model, F.cross_entropy, train, valid, optimizer=opt, budget_s=3)
    assert report.findings[0].name == "softmax-before-cross-entropy" and not report.healthy
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    assert opt.state_dict() == moments and torch.equal(torch.get_rng_state(), random)
    assert all(p.grad is None for p in model.parameters())


def test_of_a_slow_model_parts_of_the_batches_are_used(monkeypatch):
    monkeypatch.setattr(examining, "STEP_S", 0.0)
    seen = examining.examined(network(nn.BatchNorm1d(4)), F.cross_entropy, batches(), batches(2), None, notes := [])
    assert set(seen.evidence.train.batch_sizes) == set(seen.evidence.valid.batch_sizes) == {16}
    assert seen.evidence.norms[0].validated_in_train == 0.0  # the pass that took the time is none of them
    assert notes == ["a step of this model takes long, so only 16 items of each batch were used"]


def test_what_examine_cannot_use_is_said():
    model, data = network(), batches(2)
    with pytest.raises(UsageError, match="train_loader is a list_iterator, which can be read only once"):
        pellucid.examine(model, F.cross_entropy, iter(data))
    with pytest.raises(UsageError, match="no batch"):
        pellucid.examine(model, F.cross_entropy, [])
    with pytest.raises(UsageError, match=r"not \(input, …, target\)"):
        pellucid.examine(model, F.cross_entropy, [data[0][0]])
    model.extra = torch.ones(2, requires_grad=True) * 2
    with pytest.raises(UsageError, match="cannot be copied"):
        pellucid.examine(model, F.cross_entropy, data)


def test_a_watch_is_diagnosed_only_if_it_gathered_and_something_trained():
    model = network()
    with pellucid.watch(model) as seen:
        model(batches(1)[0][0])
    with pytest.raises(UsageError, match="doctor=True"):
        seen.diagnose()
    with pytest.warns(UserWarning, match="no loss was recorded"), pellucid.watch(model, doctor=True) as seen:
        model(batches(1)[0][0])
    with pytest.raises(UsageError, match="nothing was trained yet"):
        seen.diagnose()


def test_a_learner_is_diagnosed_and_treated():
    data = batches()
    learn = pellucid.Learner(pellucid.DataLoaders(data, data[:2]), network(nn.Softmax(1)), F.cross_entropy, lr=1e-2)
    learn.remove_cb(ProgressCallback)
    with pytest.raises(UsageError, match="call diagnose"):
        learn.treat(pellucid.Report([]))
    learn.add_cb(Doctor())
    learn.fit(4)
    report = learn.diagnose(budget_s=3)
    assert report.findings[0].name == "softmax-before-cross-entropy"
    assert report.checked[0].startswith("watched: 48 steps of Sequential (4 layers)")
    treated = learn.treat(report)
    assert treated is not None and treated.after[-5:].mean() < treated.before[-5:].mean()
