from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from pellucid.errors import UsageError
from pellucid.optimizer import SGD, Adam, hypers, param_groups, set_hyper


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def test_adam_follows_its_formula_in_float64():
    lr, mom, sqr, eps, wd = 0.05, 0.9, 0.99, 1e-5, 0.01
    p = nn.Parameter(torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64))
    expected = p.detach().clone()
    mean = square = torch.zeros_like(expected)
    opt = Adam([p], lr)
    for t in range(1, 20):
        grad = torch.sin(expected * t)
        p.grad = grad.clone()
        opt.step()
        expected = expected * (1 - lr * wd)
        mean, square = mom * mean + (1 - mom) * grad, sqr * square + (1 - sqr) * grad**2
        expected = expected - lr / (1 - mom**t) * mean / ((square / (1 - sqr**t)).sqrt() + eps)
        assert torch.allclose(p.detach(), expected, rtol=1e-12)


def test_adam_equals_torch_adamw_bit_for_bit():
    ours, theirs = model(), model()
    a = Adam(ours.parameters(), 0.01)
    b = torch.optim.AdamW(theirs.parameters(), 0.01, betas=(0.9, 0.99), eps=1e-5, weight_decay=0.01, fused=True)
    x = torch.randn(8, 3)
    for net, opt in ((ours, a), (theirs, b)):
        for _ in range(5):
            net(x).square().sum().backward()
            opt.step()
            opt.zero_grad()
    assert all(torch.equal(p, q) for p, q in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_norms_and_biases_do_not_decay():
    net = model()
    opt = Adam(param_groups(net, [list(net.parameters())]), 0.1, wd=0.5)
    decayed = {id(p) for g in opt.param_groups if g["weight_decay"] for p in g["params"]}
    assert decayed == {id(net[0].weight), id(net[2].weight)}
    set_hyper(opt, "wd", 0.25)
    assert sorted(g["weight_decay"] for g in opt.param_groups) == [0.0, 0.25]


def test_hypers_have_one_name_for_every_optimizer():
    net = model()
    groups = [list(net[0].parameters()), list(net[2].parameters())]
    for make, names in ((Adam, {"lr", "mom", "sqr_mom", "eps", "wd"}), (SGD, {"lr", "mom", "wd"})):
        opt = make(param_groups(net, groups), 0.1)
        assert names <= hypers(opt).keys()
        set_hyper(opt, "lr", [0.1, 0.2])
        set_hyper(opt, "mom", 0.7)
        assert hypers(opt)["lr"] == [0.1, 0.2]
        assert hypers(opt)["mom"] == [0.7, 0.7]
    opt = torch.optim.RMSprop(param_groups(net, groups), 0.1)
    set_hyper(opt, "alpha", 0.5)
    assert hypers(opt)["alpha"] == [0.5, 0.5]


def test_wrong_hyper_names_and_numbers():
    opt = SGD(param_groups(net := model(), [list(net.parameters())]), 0.1)
    with pytest.raises(UsageError, match="no hyper-parameter 'sqr_mom'; it has lr, mom"):
        set_hyper(opt, "sqr_mom", 0.9)
    with pytest.raises(UsageError, match="2 values of lr for 1 parameter groups"):
        set_hyper(opt, "lr", [0.1, 0.2])


def test_training_does_not_import_the_compiler():
    # torch._dynamo costs a second or two at the first optimizer of a process
    code = """
import sys, torch
from pellucid.optimizer import Adam
p = torch.nn.Parameter(torch.ones(3)); opt = Adam([p], 0.1)
p.sum().backward(); opt.step(); opt.zero_grad()
sys.exit("torch._dynamo" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
