from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import pellucid
from pellucid.errors import UsageError

X = torch.randn(16, 4, generator=torch.Generator().manual_seed(1))
Y = torch.arange(16) % 3


def net() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


def loss_of(model: nn.Module) -> torch.Tensor:
    return F.cross_entropy(model(X), Y)


class Wrapper:
    """As accelerate and Lightning wrap: no optimizer's constructor was called, the one inside steps."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    def step(self):
        self.optimizer.step()


class Own:
    """Neither torch's nor derived from it."""

    def __init__(self, params):
        self.param_groups = [{"params": list(params), "lr": 0.1}]

    def step(self):
        with torch.no_grad():
            for p in self.param_groups[0]["params"]:
                p -= 0.1 * p.grad


class Twice(torch.optim.SGD):
    def step(self, closure=None):
        return super().step(closure)


@pytest.mark.parametrize("by_name", [False, True])
@pytest.mark.parametrize("auto", [False, True])
def test_gradients_of_a_closure_are_those_of_its_first_evaluation(by_name, auto):
    model = net()
    opt = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=4)
    norms, losses = [], []

    def closure():
        opt.zero_grad()
        loss = loss_of(model)
        loss.backward()
        norms[-1].append(model[0].weight.grad.double().norm().item())
        losses[-1].append(loss.item())
        return loss

    with pellucid.watch(model, optimizer="auto" if auto else opt, loss=True) as seen:
        for _ in range(3):
            norms.append([])
            losses.append([])
            opt.step(closure=closure) if by_name else opt.step(closure)
    h = seen.history
    assert h.train.steps.tolist() == [[0, 1], [1, 2], [2, 3]]
    np.testing.assert_allclose(h.series["grad.norm"][h.params.index("0.weight")], [n[0] for n in norms], rtol=1e-5)
    np.testing.assert_allclose(h.loss, [np.mean(each) for each in losses], rtol=1e-5)
    assert h.train.count[0].tolist() == [128 * len(each) for each in losses]


@pytest.mark.parametrize("wrap", [lambda opt: opt, Wrapper, lambda opt: Wrapper(Wrapper(opt)), lambda _: "auto"])
def test_wrapped_and_found_optimizers_are_the_same(wrap):
    model = net()
    opt = torch.optim.SGD([{"params": model[2].parameters()}, {"params": [model[0].bias], "lr": 0.3}], lr=0.1)
    other = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=9.0)
    with (
        pytest.warns(UserWarning, match=r"0.weight gets gradients, but is not in the optimizer and never moved"),
        pellucid.watch(model, optimizer=wrap(opt), loss=True) as seen,
    ):
        for _ in range(3):
            other.step()
            loss_of(model).backward()
            opt.step()
            opt.zero_grad()
    h = seen.history
    assert h.params == ["0.bias", "2.weight", "2.bias"]
    assert seen.step == 3
    np.testing.assert_allclose(h.hypers["lr"], [[0.1] * 3, [0.3] * 3])
    assert (h.series["update.ratio"] > 0).all()
    assert np.isfinite(h.loss).all()


def test_a_step_that_calls_super_is_one_step():
    model = net()
    opt = Twice(model.parameters(), lr=0.1)
    torch.optim.SGD(net().parameters(), lr=0.1)  # from now on torch wraps SGD.step too
    with pellucid.watch(model, optimizer=opt) as seen:
        for _ in range(2):
            loss_of(model).backward()
            before = model[0].weight.detach().clone()
            opt.step()
    assert seen.step == 2
    ratio = ((model[0].weight - before).norm() / before.norm()).item()
    assert seen.history.series["update.ratio"][0, -1] == pytest.approx(ratio, rel=1e-4)


def test_a_step_that_fails_does_not_count():
    model = net()
    opt = torch.optim.SGD(model.parameters(), lr=0.1)

    def broken():
        raise ZeroDivisionError

    with pellucid.watch(model, optimizer=opt) as seen:
        with pytest.raises(ZeroDivisionError):
            opt.step(broken)
        loss_of(model).backward()
        opt.step()
    assert seen.step == 1


def test_nested_watches_of_an_object_with_a_step():
    model = net()
    opt = Own(model.parameters())
    with pellucid.watch(model, optimizer=opt) as outer:
        inner = None
        for inside in (True, False):
            with pellucid.watch(model, optimizer=opt) if inside else nullcontext(inner) as inner:
                loss_of(model).backward()
                opt.step()
    assert (outer.step, inner.step) == (2, 1)
    assert "step" not in vars(opt)


def test_auto_says_when_nothing_stepped():
    model = net()
    with pytest.warns(UserWarning, match="none at any optimizer step"), pellucid.watch(model, "auto"):
        loss_of(model).backward()
    with pytest.raises(UsageError, match="optimizer='adam': give the optimizer itself, or 'auto'"):
        pellucid.watch(model, "adam")


def test_a_scaled_loss_is_recorded_unscaled():
    model = net()
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu")
    losses = []
    with pellucid.watch(model, optimizer=opt, loss=True) as seen:
        for i in range(4):
            with torch.autocast("cpu", torch.float16):
                loss = loss_of(model)
            losses.append(loss.item())
            scaler.scale(loss).backward()
            if i == 1:
                model[0].weight.grad.fill_(torch.inf)  # this step is left out
            scaler.step(opt)
            scaler.update()
            opt.zero_grad()
    h = seen.history
    np.testing.assert_allclose(h.loss, [losses[0], (losses[1] + losses[2]) / 2, losses[3]], rtol=1e-5)
    assert h.train.count[0].tolist() == [128, 256, 128]
    assert (h.series["grad.norm"] < 10).all()
    assert torch.amp.GradScaler.scale.__module__ == "torch.amp.grad_scaler"


def test_layers_that_cannot_be_seen():
    model = net()
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    objective = torch.compile(lambda: loss_of(model), backend="eager")
    objective()
    with (
        pytest.warns(UserWarning, match=r"no watched layer of Sequential was called in 1 steps.*compile the model"),
        pellucid.watch(model, optimizer=opt),
    ):
        objective().backward()
        opt.step()
    with pytest.warns(DeprecationWarning):
        traced = torch.jit.trace(model, X)
    with pytest.raises(UsageError, match="TorchScript"):
        pellucid.watch(traced)


def test_a_relu_of_another_kind_is_read_itself():
    class Shifted(nn.ReLU):
        def forward(self, x):
            return super().forward(x) + 1

    model = nn.Sequential(nn.Linear(4, 8), Shifted())
    with pellucid.watch(model) as seen:
        out = model(X)
    assert seen.history.train.mean[1, 0] == pytest.approx(out.mean().item(), rel=1e-5)
