from __future__ import annotations

import inspect
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pellucid.activations.watch import watch
from pellucid.errors import UsageError
from pellucid.optim.hypers import has_momentum, hypers, set_hyper
from pellucid.optim.optimizers import SGD, Adam, align_state, forget, moment_device, param_groups


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


MAKERS = {
    "SGD": lambda params: torch.optim.SGD(params, lr=np.float32(0.5), momentum=0.25, weight_decay=1),
    "AdamW": lambda params: torch.optim.AdamW(params, lr=torch.tensor(0.5), betas=(0.25, 0.75), weight_decay=1),
    "RMSprop": lambda params: torch.optim.RMSprop(params, lr=0.5, alpha=0.125, momentum=0.25, weight_decay=1),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_watch_and_a_schedule_call_them_the_same(make):
    net = model()
    opt = make(net.parameters())
    found = {name: [float(value) for value in values] for name, values in hypers(opt).items()}
    assert {"lr": [0.5], "mom": [0.25], "wd": [1]}.items() <= found.items()
    with watch(net, opt) as seen:
        net(torch.ones(4, 3)).sum().backward()
        opt.step()
    recorded = {name: values[:, 0].tolist() for name, values in seen.history.hypers.items()}
    for name, values in found.items():
        assert recorded[name] == pytest.approx(values)


def test_wrong_hyper_names_and_numbers():
    opt = SGD(param_groups(net := model(), [list(net.parameters())]), 0.1)
    with pytest.raises(UsageError, match="no hyper-parameter 'sqr_mom'; it has lr, mom"):
        set_hyper(opt, "sqr_mom", 0.9)
    with pytest.raises(UsageError, match="2 values of lr for 1 parameter groups"):
        set_hyper(opt, "lr", [0.1, 0.2])


IMPOSSIBLE = [("lr", -0.1), ("mom", -0.1), ("mom", 1), ("sqr_mom", 2.0), ("sqr_mom", -1), ("eps", -1e-5), ("wd", -1)]


OF_EACH = [
    (make, *each) for make in (Adam, SGD) for each in IMPOSSIBLE if each[0] in inspect.signature(make).parameters
]


@pytest.mark.parametrize(("make", "name", "value"), OF_EACH)
def test_impossible_settings_are_refused(make, name, value):
    params = [nn.Parameter(torch.ones(1))]
    with pytest.raises(UsageError, match=rf"{name} .* at least 0.*, got {value}"):
        make(params, **{name: value})
    opt = make(params)
    before = hypers(opt)
    for given in (value, [value]):
        with pytest.raises(UsageError, match=rf"{name} .* at least 0.*, got {value}"):
            set_hyper(opt, name, given)
    assert hypers(opt) == before
    set_hyper(opt, name, 0)  # where schedules may end


def test_a_pair_is_no_hyper_parameter():
    opt = torch.optim.Adafactor([nn.Parameter(torch.ones(2, 2))], 0.1)
    assert "eps" not in hypers(opt) and {"lr", "wd"} <= hypers(opt).keys()
    with pytest.raises(UsageError, match="no hyper-parameter 'eps'"):
        set_hyper(opt, "eps", 1e-8)


@pytest.mark.parametrize("decouple_wd", [True, False])
@pytest.mark.parametrize("wd", [0.0, 0.3])
@pytest.mark.parametrize("mom", [0.0, 0.9])
def test_sgd_follows_its_formula_in_float64(mom, wd, decouple_wd):
    lr = 0.05
    p = nn.Parameter(torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64))
    frozen = nn.Parameter(torch.ones(2, dtype=torch.float64))
    expected, mean = p.detach().clone(), torch.zeros(3, dtype=torch.float64)
    opt = SGD([p, frozen], lr, mom=mom, wd=wd, decouple_wd=decouple_wd)
    for t in range(1, 20):
        grad = torch.sin(expected * t)
        p.grad = grad.clone()
        opt.step()
        assert opt.param_groups[0]["weight_decay"] == wd
        if decouple_wd:
            expected = expected * (1 - lr * wd)
        else:
            grad = grad + wd * expected
        mean = mom * mean + grad
        expected = expected - lr * mean
        assert torch.allclose(p.detach(), expected, rtol=1e-12)
    assert torch.equal(frozen.detach(), torch.ones(2).double())  # without a gradient nothing decays


def test_sgd_has_no_momentum_unless_asked_for():
    assert hypers(SGD([nn.Parameter(torch.ones(1))], 0.1))["mom"] == [0.0]
    assert not has_momentum(SGD([nn.Parameter(torch.ones(1))], 0.1))


def test_adam_with_decay_in_the_gradient_equals_torch_adam():
    ours, theirs = model(), model()
    settings = {"betas": (0.9, 0.99), "eps": 1e-5, "weight_decay": 0.1, "fused": True}
    a, b = Adam(ours.parameters(), 0.01, wd=0.1, decouple_wd=False), torch.optim.Adam(theirs.parameters(), **settings)
    b.param_groups[0]["lr"] = 0.01
    x = torch.randn(8, 3)
    for net, opt in ((ours, a), (theirs, b)):
        for _ in range(5):
            net(x).square().sum().backward()
            opt.step()
            opt.zero_grad()
    assert all(torch.equal(p, q) for p, q in zip(ours.parameters(), theirs.parameters(), strict=True))


@pytest.mark.parametrize("make", [Adam, SGD])
@pytest.mark.parametrize("form", ["generator", "groups of generators", "named", "one tensor a group"])
def test_parameters_in_every_form_that_torch_takes(make, form):
    net = model()
    given = {
        "generator": net.parameters,
        "groups of generators": lambda: ({"params": part.parameters()} for part in net),
        "named": net.named_parameters,
        "one tensor a group": lambda: [{"params": p} for p in net.parameters()],
    }[form]()
    held = [id(p) for group in make(given, 0.1).param_groups for p in group["params"]]
    assert held == [id(p) for p in net.parameters()]


@pytest.mark.parametrize("kind", [float, np.float32, np.array, torch.tensor])
def test_numbers_of_any_kind_are_settings(kind):
    half = kind(0.5)
    group = Adam([nn.Parameter(torch.ones(1))], half, half, half, half, half).param_groups[0]
    assert [group["lr"], *group["betas"], group["eps"], group["weight_decay"]] == [0.5] * 5
    opt = SGD([nn.Parameter(torch.ones(1))], half, half, half)
    set_hyper(opt, "mom", kind(0.25))
    set_hyper(opt, "wd", [half])
    assert [hypers(opt)[name] for name in ("lr", "mom", "wd")] == [[0.5], [0.25], [0.5]]
    assert all(type(value[0]) is float for value in hypers(opt).values())
    for wrong in ("0.1", None, float("nan"), [None]):
        with pytest.raises(UsageError, match="one finite number"):
            set_hyper(opt, "mom", wrong)


def strided(kind: str) -> Tensor:
    values = torch.linspace(-1, 1, 2 * 3 * 4 * 4).reshape(2, 3, 4, 4)
    return {
        "standard": values,
        "channels last": values.contiguous(memory_format=torch.channels_last),
        "transposed": values.permute(3, 1, 0, 2),
        "with holes": values[:, :, ::2],
        "scalar": values[0, 0, 0, 0].clone(),
    }[kind].detach()


@pytest.mark.parametrize("kind", ["standard", "channels last", "transposed", "with holes", "scalar"])
def test_memory_order_does_not_change_a_step(kind):
    """Against the same values in plain order, in torch's loop over single tensors."""
    p = nn.Parameter(
        strided(kind).clone(memory_format=torch.preserve_format) if kind != "with holes" else strided(kind)
    )
    q = nn.Parameter(p.detach().contiguous().clone())
    weights = torch.arange(float(p.numel())).reshape(p.shape)
    ours = Adam([p], 0.1)
    theirs = torch.optim.AdamW([q], 0.1, (0.9, 0.99), 1e-5, 0.01, foreach=False)
    for step in range(6):
        for tensor, opt in ((p, ours), (q, theirs)):
            (weights * tensor - step).square().sum().backward()
            opt.step()
            opt.zero_grad()
        if step == 2:  # whatever was done to the memory in between
            p.data = p.data.contiguous()
            align_state(ours)
    torch.testing.assert_close(p, q)


def test_weight_decay_comes_back_after_a_zero_and_never_to_norms():
    for make in (Adam, SGD):
        opt = make(param_groups(net := model(), [list(net.parameters())]), 0.1)
        for wd in (0.0, 0.5, 0.0, 0.25):
            set_hyper(opt, "wd", wd)
            assert sorted(g["weight_decay"] for g in opt.param_groups) == sorted([0.0, wd])
    everything = param_groups(net, [list(net.parameters())], decay_all=True)
    assert [len(group["params"]) for group in everything] == [6]


def test_groups_that_a_user_made_stand_for_themselves():
    net = model()
    opt = torch.optim.SGD([{"params": net[0].parameters(), "lr": 0.1}, {"params": net[2].parameters(), "lr": 0.2}])
    assert hypers(opt)["lr"] == [0.1, 0.2]
    set_hyper(opt, "lr", [1, 2])
    assert [group["lr"] for group in opt.param_groups] == [1.0, 2.0]
    opt = Adam(param_groups(net, [list(net[0].parameters()), list(net[1].parameters())]), 0.1)
    opt.add_param_group({"params": net[2].parameters()})
    set_hyper(opt, "lr", [1, 2, 3])
    assert hypers(opt)["lr"] == [1, 2, 3] and opt.param_groups[-1]["lr"] == 3


def test_training_does_not_import_the_compiler():
    # torch._dynamo costs a second or two at the first optimizer of a process
    code = """
import sys, torch
from pellucid.optim.optimizers import Adam, SGD
for make in (Adam, SGD, lambda ps, lr: SGD(ps, lr, wd=0.1), lambda ps, lr: Adam(ps, lr, decouple_wd=False)):
    p = torch.nn.Parameter(torch.ones(3)); opt = make([p], 0.1)
    p.sum().backward(); opt.step(); opt.zero_grad()
sys.exit("torch._dynamo" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_count_of_steps_lies_where_the_kernel_reads_it():
    there, count = torch.empty(3, device="meta"), torch.tensor(2.0)
    assert moment_device(count, there, {}).type == "cpu"
    assert all(moment_device(count, there, {name: True}).type == "meta" for name in ("fused", "capturable"))
    assert moment_device(torch.ones(3), there, {}).type == "meta"


@pytest.mark.parametrize("make", [Adam, SGD, torch.optim.Adagrad, torch.optim.RMSprop, torch.optim.Adadelta])
def test_a_forgetful_optimizer_steps_as_a_new_one(make):
    def trained(forgetting: bool) -> list[Tensor]:
        p, q = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))
        opt = make([p, q], lr=0.1)
        if forgetting:
            for _ in range(3):
                step(opt, p, q)
            forget(opt, [p]), forget(opt)
            with torch.no_grad():
                p.fill_(1), q.fill_(1)
        step(opt, p, q)
        return [p, q]

    def step(opt, p, q) -> None:
        p.grad, q.grad = torch.tensor([1.0, -2, 0]), torch.tensor([0.5, 3])
        opt.step()

    assert all(map(torch.equal, trained(True), trained(False)))
