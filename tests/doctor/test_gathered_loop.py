"""Passes, backward, steps, modes, schedules, time: in healthy and in sick loops."""

from __future__ import annotations

import gc
import math
import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from loops import Net, batches, data, fit, loader, net
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR, ReduceLROnPlateau, SequentialLR

import pellucid
from pellucid.doctor.evidence.attending import attend

pytestmark = pytest.mark.usefixtures("all_is_gone")


def sgd(model, lr=0.05, **options):
    return torch.optim.SGD(model.parameters(), lr=lr, **options)


def test_a_plain_loop():
    model = net()
    optimizer = sgd(model)
    with pellucid.watch(model, optimizer, doctor=True) as seen:
        losses = fit(model, optimizer, 23)
    e = seen.evidence
    assert (e.model, e.models) == ("Net", 1)
    assert (e.loop.steps, e.loop.backwards, e.loop.passes, e.loop.by_hand) == (23, 23, 23, False)
    assert e.loop.backwards_per_step.tolist() == [1] * 23
    assert e.looks.tolist() == e.loop.left_steps.tolist() == [0, 1, 2, 5, 10, 20]
    assert e.loop.left_before_backward.tolist() == [0] * 6
    np.testing.assert_allclose(e.losses, losses, rtol=1e-6)
    assert e.train.batch_sizes.tolist() == [16] * 23
    assert e.failure is None and e.valid.batch_sizes.size == 0


def test_gradients_that_are_never_zeroed_against_accumulation():
    def left(every: int, zero: bool) -> tuple[list[float], list[int]]:
        model = net()
        optimizer = sgd(model)
        with pellucid.watch(model, optimizer, doctor=True) as seen:
            for i, (x, y) in enumerate(batches(12)):
                F.cross_entropy(model(x), y).backward()
                if i % every == every - 1:
                    optimizer.step()
                    if zero:
                        optimizer.zero_grad()
        loop = seen.evidence.loop
        return loop.left_before_backward.tolist(), loop.backwards_per_step.tolist()

    assert left(1, True)[0] == [0] * 5
    sick, per_step = left(1, False)
    assert per_step == [1] * 12
    assert sick[0] == 0 and min(sick[1:]) > 0.2
    healthy, per_step = left(4, True)
    assert per_step == [4] * 3 and healthy == [0] * 3


def test_left_gradients_by_hand():
    model, reference = net(), net()
    optimizer, twin = sgd(model), sgd(reference)
    expected = []
    torch.manual_seed(3)
    for x, y in batches(3):
        before = norm(reference)
        F.cross_entropy(reference(x), y).backward()
        expected.append(before / norm(reference))
        twin.step()
    torch.manual_seed(3)
    with pellucid.watch(model, optimizer, doctor=True) as seen:
        for x, y in batches(3):
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
    np.testing.assert_allclose(seen.evidence.loop.left_before_backward, expected, rtol=1e-5)


def norm(model: nn.Module) -> float:
    return math.sqrt(sum(p.grad.double().square().sum().item() for p in model.parameters() if p.grad is not None))


def test_never_stepped():
    model = net()
    optimizer = sgd(model)
    with attend() as attended:
        for x, y in batches(6):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
    e = attended.evidence()
    assert (e.loop.steps, e.loop.backwards, e.loop.by_hand) == (0, 6, False)
    assert e.losses.size == 6
    assert all(np.nanmax(p.moved) == 0 for p in e.parameters)


def test_steps_by_hand():
    model = net()
    with attend() as attended:
        for x, y in batches(6):
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            for p in model.parameters():
                p.data -= 0.1 * p.grad
                p.grad = None
    e = attended.evidence()
    assert (e.loop.steps, e.loop.by_hand, e.optimizers) == (6, True, [])
    assert all(p.moved[0] > 0 for p in e.parameters if "weight" in p.name)
    assert attended.history is not None and attended.history.train.end == 6


def test_an_optimizer_of_an_older_model():
    model = net(1)
    optimizer = sgd(net(0))
    for p in optimizer.param_groups[0]["params"]:
        p.grad = torch.ones_like(p)
    with attend() as attended:
        fit(model, optimizer, 4)
    e = attended.evidence()
    assert e.loop.steps == 4
    assert [(o.kind, o.steps, o.foreign) for o in e.optimizers] == [("SGD", 4, 8)]
    assert {p.held for p in e.parameters} == {-1}


def test_validation_passes_and_modes():
    x, y = data(32)
    train, valid = loader(x, y, shuffle=True), loader(*data(20, seed=2))

    def epochs(model, *, eval_mode: bool, back: bool, no_grad: bool):
        optimizer = sgd(model)
        with attend() as attended:
            for _ in range(2):
                for xb, yb in train:
                    optimizer.zero_grad()
                    F.cross_entropy(model(xb), yb).backward()
                    optimizer.step()
                model.train(not eval_mode)
                with torch.set_grad_enabled(not no_grad):
                    for xb, yb in valid:
                        F.cross_entropy(model(xb), yb)
                if back:
                    model.train()
        return attended.evidence()

    for no_grad in True, False:
        e = epochs(net(), eval_mode=True, back=True, no_grad=no_grad)
        assert e.train.batch_sizes.tolist() == [16] * 4
        assert e.valid.batch_sizes.tolist() == [16, 4] * 2
        assert e.valid_steps.tolist() == [2, 2, 4, 4]
        assert e.loop.epoch_starts == [0, 2]
        assert {(n.name, n.trained_in_eval, n.validated_in_train) for n in e.norms} == {
            ("norm", 0, 0),
            ("drop", 0, 0),
        }
        assert (
            e.train_labels.sequence.size == 64 and e.valid_labels.sequence.tolist() == data(20, seed=2)[1].tolist() * 2
        )
    e = epochs(net(), eval_mode=False, back=False, no_grad=True)
    assert {n.validated_in_train for n in e.norms} == {1}
    e = epochs(net(), eval_mode=True, back=False, no_grad=False)
    assert {n.trained_in_eval for n in e.norms} == {0.5}
    norm = next(n for n in e.norms if n.name == "norm")
    assert (norm.kind, norm.per_channel, norm.batch_size, norm.moved) == ("BatchNorm2d", 16 * 64, 16, True)


def test_functional_dropout():
    class Dropping(Net):
        def forward(self, x):
            return F.dropout(super().forward(x), 0.1)

    model = Dropping()
    optimizer = sgd(model)
    with attend() as attended:
        fit(model, optimizer, 3)
        model.eval()
        with torch.no_grad():
            model(data()[0])
    dropped = next(n for n in attended.evidence().norms if n.kind == "function")
    assert dropped.name.startswith("dropout in Dropping (") and "test_gathered_loop.py:" in dropped.name
    assert (dropped.trained_in_eval, dropped.validated_in_train) == (0, 1)


def test_batch_statistics_against_running_ones():
    model = net()
    model.norm.momentum = 0.0  # running variance stays 1
    optimizer = sgd(model, lr=0.0)
    with pellucid.watch(model, optimizer, doctor=True) as seen:
        fit(model, optimizer, 3)
    *_, (x, _) = batches(3)
    expected = (model.conv1(x).movedim(1, 0).flatten(1).var(1) - 1).abs().mean().item()
    norm = next(n for n in seen.evidence.norms if n.name == "norm")
    assert norm.disagreement == pytest.approx(expected, rel=1e-5)
    assert not norm.moved


def test_schedules():
    model = net()
    optimizer = sgd(model, lr=0.1, momentum=0.9)
    schedule = OneCycleLR(optimizer, max_lr=0.5, total_steps=5)
    rates = []
    with pytest.raises(ValueError, match="Tried to step"), pellucid.watch(model, optimizer, doctor=True) as seen:
        for x, y in batches(9):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
    e = seen.evidence
    (found,) = e.schedulers
    assert (found.kind, found.planned, found.stepped_at.tolist()) == ("OneCycleLR", 5, [1, 2, 3, 4, 5])
    assert found.raised.startswith("Tried to step 6 times")
    np.testing.assert_allclose(found.rates, rates[1:])
    np.testing.assert_allclose(e.optimizers[0].hypers["lr"], rates)
    assert len(e.optimizers[0].hypers["momentum"]) == 6 and e.optimizers[0].kind == "SGD"


def test_schedules_of_other_kinds():
    model = net()
    optimizer = sgd(model)
    with pellucid.watch(model, optimizer, doctor=True) as seen:
        plateau = ReduceLROnPlateau(optimizer)
        parts = [CosineAnnealingLR(optimizer, T_max=7), CosineAnnealingLR(optimizer, T_max=9)]
        both = SequentialLR(optimizer, parts, milestones=[2])
        for loss in fit(model, optimizer, 3):
            plateau.step(loss)
            both.step()
    assert [(s.kind, s.planned, s.stepped_at.tolist()) for s in seen.evidence.schedulers] == [
        ("ReduceLROnPlateau", 0, [3, 3, 3]),
        ("SequentialLR", 0, [3, 3, 3]),
    ]


def test_time_of_a_slow_loader():
    class Slow(torch.utils.data.Dataset):
        def __len__(self):
            return 6

        def __getitem__(self, i):
            time.sleep(0.01)
            return data(6)[0][i], data(6)[1][i]

    model = net()
    optimizer = sgd(model)
    with attend() as attended:
        for x, y in torch.utils.data.DataLoader(Slow(), batch_size=2):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
    r = attended.evidence().resources
    assert r.step_s.size == r.waited_s.size == r.loader_s.size == 2
    assert (r.loader_s > 0.02).all() and (r.waited_s >= r.loader_s).all() and (r.step_s > r.waited_s).all()


def test_memory_that_grows():
    gc.collect()  # what tests before this one left, which may go between two counts
    model = net()
    optimizer = sgd(model)
    losses, total = [], 0
    with pellucid.watch(model, optimizer, doctor=True) as seen:
        for x, y in batches(101):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss)
            total = total + loss
    r = seen.evidence.resources
    assert r.steps.tolist()[:2] == [20, 50]
    assert (r.resident_mib > 10).all() and (np.diff(r.live_tensors) > 20).all() and (r.live_mib > 0).all()
    assert any(each.startswith("losses (") and "tensors that keep their graph" in each for each in r.holders)
    assert any(each.startswith("total (") and "a tensor with a graph of" in each for each in r.holders)
    with pellucid.watch(model, optimizer, doctor=True) as seen:
        fit(model, optimizer, 101)
    assert seen.evidence.resources.holders == []
