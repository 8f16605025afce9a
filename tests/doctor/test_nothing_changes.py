"""Gathering changes nothing of a training and leaves nothing behind."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from loops import batches, data, fit, loader, net
from torch import nn, overrides

import pellucid
from pellucid.doctor.evidence.attending import attend

pytestmark = pytest.mark.usefixtures("all_is_gone")

OPTIMIZERS = {
    "SGD": lambda m: torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "Adam": lambda m: torch.optim.Adam(m.parameters(), lr=1e-2),
    "AdamW, fused": lambda m: torch.optim.AdamW(m.parameters(), lr=1e-2, fused=True),
}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("how", ["watch", "attend"])
def test_bit_identical(make, how):
    plain, seen = net(), net()
    torch.manual_seed(5)
    expected = fit(plain, make(plain), 12)
    state = torch.get_rng_state()
    optimizer = make(seen)
    torch.manual_seed(5)
    with pellucid.watch(seen, optimizer, doctor=True) if how == "watch" else attend():
        losses = fit(seen, optimizer, 12)
    assert losses == expected
    assert torch.equal(torch.get_rng_state(), state)
    for (name, a), b in zip(plain.state_dict().items(), seen.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("where", ["forward", "loss", "backward", "step", "input"])
@pytest.mark.parametrize("how", ["watch", "attend"])
@pytest.mark.parametrize("when", [0, 4])
def test_after_an_exception(where, how, when):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    step = -1

    def fails(at: str) -> None:
        if at == where and step == when:
            raise RuntimeError("on purpose")

    class Failing(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            fails("backward")
            return g

    model.head.register_forward_hook(lambda *_: fails("forward"))
    optimizer.register_step_pre_hook(lambda *_: fails("step"))
    with (
        pytest.raises(RuntimeError, match="on purpose"),
        pellucid.watch(model, optimizer, doctor=True) if how == "watch" else attend() as seen,
    ):
        for x, y in batches(8):
            step += 1
            fails("input")
            optimizer.zero_grad()
            value = F.cross_entropy(Failing.apply(model(x)), y)
            fails("loss")
            value.backward()
            optimizer.step()
    failure = (seen.evidence if how == "watch" else seen.evidence()).failure
    assert failure is not None and failure.kind == "RuntimeError" and failure.message == "on purpose"
    assert failure.where.startswith(("test_nothing_changes.py:", "tests/doctor/test_nothing_changes.py:"))
    if not (where == "input" and when == 0 and how == "attend"):  # nothing was known of the model before
        assert failure.during == where
        assert failure.step == when


def test_copies_and_pickles_know_nothing():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pellucid.watch(model, optimizer, doctor=True):
        fit(model, optimizer, 2)
        twin = copy.deepcopy(model)
    assert set(vars(twin)) == set(vars(net()))
    assert all(a.keys() == b.keys() for a, b in zip(map(vars, twin.modules()), map(vars, net().modules()), strict=True))


def test_modes_of_the_user_stay_as_they_are():
    class Counting(overrides.TorchFunctionMode):
        calls = 0

        def __torch_function__(self, func, types, args=(), kwargs=None):
            self.calls += 1
            return func(*args, **(kwargs or {}))

    def counted(**options) -> int:
        model, (x, y) = net(), data(16)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with pellucid.watch(model, optimizer, **options):
            with Counting() as mode:  # open around the model's call, closed before the loss
                output = model(x)
            with torch.device("cpu"):
                value = F.cross_entropy(output, y)
                with Counting():
                    value.backward()
            optimizer.step()
            assert torch.zeros(1).device.type == "cpu"
        return mode.calls

    assert counted(doctor=True) == counted(loss=True)


def test_two_watches_close_in_any_order():
    a, b = net(0), net(1)
    first = torch.optim.SGD(a.parameters(), lr=0.1)
    second = torch.optim.SGD(b.parameters(), lr=0.1)
    one, two = pellucid.watch(a, first, doctor=True), pellucid.watch(b, second, doctor=True)
    one.start()
    two.start()
    fit(a, first, 2)
    one.stop()
    fit(b, second, 3)
    two.stop()
    assert one.evidence.loop.steps == 2
    assert two.evidence.loop.steps == 3


def test_a_fault_of_ours_ends_looking_and_not_the_training(monkeypatch):
    from pellucid.doctor.evidence.gather import Gathering

    def broken(*_):
        raise KeyError("ours")

    monkeypatch.setattr(Gathering, "before_backward", broken)
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.warns(UserWarning, match="the doctor stopped watching"), pellucid.watch(model, optimizer, doctor=True):
        losses = fit(model, optimizer, 3)
    assert len(losses) == 3


def test_sequences_of_loaders_are_as_they_were():
    x, y = data(32)
    plain = [b.sum().item() for b, _ in loader(x, y, generator=torch.Generator().manual_seed(1), shuffle=True)]
    with attend():
        seen = [b.sum().item() for b, _ in loader(x, y, generator=torch.Generator().manual_seed(1), shuffle=True)]
    assert seen == plain


def test_checkpointed_and_compiled_models():
    from torch.utils.checkpoint import checkpoint

    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = net()

        def forward(self, x):
            return checkpoint(self.body, x, use_reentrant=False)

    model = Whole()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with attend() as attended:
        fit(model, optimizer, 4)
    loop = attended.evidence().loop
    assert (loop.steps, loop.backwards, loop.passes) == (4, 4, 4)
