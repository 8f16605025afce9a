"""The doctor watches a learner within a share of its time, and ends a fit that is plainly sick."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import pellucid
from pellucid.doctor.evidence import attention
from pellucid.training.callbacks.doctor import Doctor
from pellucid.training.callbacks.progress import ProgressCallback
from pellucid.training.callbacks.statistics import ActivationStats
from pellucid.training.callbacks.stopping import StopWhenSick


class Cut(nn.Module):
    """Lets no gradient through."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.detach()


def learner(*between: nn.Module, cbs: list[object], n: int = 40) -> pellucid.Learner:
    torch.manual_seed(0)
    x = torch.randn(16 * n, 16)
    data = list(zip(x.split(16), x[:, :4].argmax(1).split(16), strict=True))
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), *between, nn.Linear(32, 4))
    learn = pellucid.Learner(pellucid.DataLoaders(data, data[:4]), model, F.cross_entropy, lr=1e-2, cbs=cbs)
    return learn.remove_cb(ProgressCallback)


@pytest.mark.parametrize("look_s", [0.001, 0.02, 0.5])
def test_looking_takes_no_more_than_its_share_however_long_a_look_takes(monkeypatch, look_s):
    now, looking, looks = 0.0, 0.0, 0
    monkeypatch.setattr(attention, "perf_counter", lambda: now)
    chosen = attention.Attention(0.05)
    for step in range(20_000):
        looked = chosen.step(step)
        seconds = 0.01 + looked * look_s
        now, looking, looks = now + seconds, looking + looked * look_s, looks + chosen.begins
        chosen.took(seconds, training=True, looked=looked)
    assert 2 < looks < 10_000 and looking <= 0.05 * now
    assert looking > 0.5 * attention.LOOKING * 0.05 * now or look_s == 0.001  # and no much less


def test_no_share_and_all_of_it():
    assert not any(attention.Attention(0.0).step(step) for step in range(20))
    assert all(attention.Attention(None).step(step) for step in range(20))


def test_what_was_not_looked_at_is_known_all_the_same():
    learn = learner(cbs=[Doctor(share=0.05)])
    learn.fit(3)
    seen = learn.doctor.evidence()
    assert seen.loop.steps == seen.loop.backwards == 120 and (seen.loop.backwards_per_step == 1).all()
    assert torch.equal(torch.tensor(seen.losses).float(), torch.tensor(list(learn.recorder.raw_losses)).float())
    assert seen.looks[0] == 0 and len(seen.looks) < 60  # not all of them
    assert sorted(set(seen.valid_steps)) == [40, 80, 120]
    assert len(learn.doctor.history().layers) == 3


def test_layers_are_read_once_for_both():
    learn = learner(cbs=[Doctor(share=0.05), ActivationStats(with_hist=True, with_grads=True)])
    learn.fit(1)
    assert learn.doctor.watch is learn.activation_stats.watch
    assert learn.doctor.history().train.end == 40  # every step, as the statistics want it
    assert learn.diagnose(budget_s=0).healthy


def test_a_network_that_is_cut_in_two_is_not_trained_on():
    learn = learner(Cut(), cbs=[Doctor(share=0.05), StopWhenSick()])
    learn.fit(5)
    assert learn.stop_when_sick.finding.name == "broken-graph"
    assert learn.recorder.iters == [32]  # of 40; and it was validated
    assert not learn.doctor.gathering.is_open and not learn.doctor.watch.is_open


def test_a_healthy_fit_is_not_ended():
    learn = learner(cbs=[Doctor(share=0.05), StopWhenSick()])
    learn.fit(4)
    assert learn.stop_when_sick.finding is None and learn.recorder.iters == [40, 80, 120, 160]
