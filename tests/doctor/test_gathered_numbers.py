"""Inputs, labels, losses, functions, units and parameters, against computations by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from loops import Net, batches, data, fit, loader, net
from torch import nn

import pellucid
from pellucid.doctor.evidence.attending import attend
from pellucid.doctor.evidence.inputs import hashes, nears
from pellucid.doctor.evidence.looks import is_sampled
from pellucid.optim import optimizers

pytestmark = pytest.mark.usefixtures("all_is_gone")


def sgd(model, lr=0.05, **options):
    return torch.optim.SGD(model.parameters(), lr=lr, **options)


def seen_training(model, loss=F.cross_entropy, n=3, x=lambda x: x, y=lambda y: y, optimizer=None):
    optimizer = sgd(model) if optimizer is None else optimizer
    with attend() as attended:
        for xb, yb in batches(n):
            optimizer.zero_grad()
            loss(model(x(xb)), y(yb)).backward()
            optimizer.step()
    return attended.evidence()


# inputs


def test_statistics_of_inputs():
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(72, 3))
    x = torch.cat([torch.rand(16, 1, 8, 8) * scale for scale in (1, 10, 100)], 1)
    x[:4] = 7.0
    optimizer = sgd(model, lr=1e-6)
    with attend() as attended:
        for part in x.split(8):
            F.cross_entropy(model(part), torch.zeros(8).long()).backward()
            optimizer.step()
    i = attended.evidence().train
    a = x.double().numpy()
    assert i.shape == (3, 8, 8) and i.batch_sizes.tolist() == [8, 8] and not i.integers
    np.testing.assert_allclose([i.mean, i.std, i.min, i.max], [a.mean(), a.std(), a.min(), a.max()], rtol=1e-5)
    np.testing.assert_allclose(i.channel_mean, a.mean((0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(i.channel_std, a.std((0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(i.between, np.mean([part.std(0).mean() for part in (a[:8], a[8:])]), rtol=1e-5)
    assert i.constant == 4 / 16
    np.testing.assert_allclose(i.layout, a.mean((0, 1)).reshape(64), rtol=1e-5)
    steps = [np.mean([np.abs(np.diff(part, axis=axis)).mean() for axis in (2, 3)]) for part in (a[:8], a[8:])]
    np.testing.assert_allclose(i.roughness, np.mean(steps) / a.std(), rtol=1e-5)


@pytest.mark.parametrize("batches", range(1, 13))
def test_every_batch_of_validation_is_sampled_sooner_or_later(batches):
    passes = [n for n in range(16 * batches) if is_sampled(n)]
    assert len(passes) < 0.3 * 16 * batches + 1
    assert {n % batches for n in passes} == set(range(batches))


def test_hashes_tell_equal_images():
    x = data(40)[0].repeat(1, 3, 1, 1)
    h = hashes(x)
    assert len(set(h.tolist())) == 40
    assert torch.equal(hashes(x.flip(0)), h.flip(0)) and torch.equal(hashes(x.clone()[:7]), h[:7])
    for dtype in torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool:
        y = (x * 40).to(dtype)
        assert len(set(hashes(y).tolist())) == len({row.tobytes() for row in y.float().numpy()})
    assert torch.equal(nears(x), nears(x * 3.5 - 2)) and len(set(nears(x).tolist())) > 35
    blocks = x.double().mean(1).numpy()
    expected = [sum(1 << int(i) for i in np.flatnonzero(b.ravel() > b.mean())) for b in blocks]
    assert [v % 2**64 for v in nears(x).tolist()] == expected


def test_hashes_of_training_and_validation_meet():
    x, y = data(48)
    model, (tx, ty), (vx, vy) = net(), (x[:32], y[:32]), (x[24:], y[24:])
    optimizer = sgd(model)
    with attend() as attended:
        for xb, yb in loader(tx, ty):
            F.cross_entropy(model(xb), yb).backward()
            optimizer.step()
        with torch.no_grad():
            for xb, _ in loader(vx, vy):
                model(xb)
    e = attended.evidence()
    assert e.train.hashes.dtype == e.valid.nears.dtype == np.uint64
    assert (
        len(set(e.train.hashes)) == 32 and np.isin(e.valid.hashes, e.train.hashes).tolist() == [True] * 8 + [False] * 16
    )
    assert e.valid_labels.sequence.tolist() == vy.tolist()  # of the loader: there was no loss


def test_tokens():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.head = nn.Embedding(20, 8), nn.Linear(8, 2)

        def forward(self, ids, mask=None):
            return self.head(self.table(ids).mean(1))

    model = Tokens()
    ids = torch.randint(0, 20, (10, 5))
    optimizer = sgd(model)
    with attend() as attended:
        F.cross_entropy(model(ids=ids), torch.ones(10).long()).backward()
        optimizer.step()
    i = attended.evidence().train
    assert i.integers and i.shape == (5,) and math.isnan(i.mean) and len(set(i.hashes)) == 10


# labels and losses


def test_labels_and_cross_entropies():
    model = net().eval()
    e = seen_training(model, n=3)
    reference = net().eval()
    optimizer = sgd(reference)
    losses, predicted, labels = [], [], []
    for x, y in batches(3):
        logits = reference(x)
        p = logits.double().softmax(1).detach()
        losses += [-math.log(p[i, c]) for i, c in enumerate(y.tolist())]
        predicted += logits.argmax(1).tolist()
        labels += y.tolist()
        optimizer.zero_grad()
        F.cross_entropy(logits, y).backward()
        optimizer.step()
    found = e.train_labels
    assert found.sequence.tolist() == labels and found.starts.tolist() == [0, 16, 32] and found.width == 3
    assert found.predicted.tolist() == predicted
    np.testing.assert_allclose(found.losses, losses, rtol=1e-4)


def hot(y):
    return F.one_hot(y, 3).float()


LOSSES = {
    "one-hot": (F.mse_loss, hot, lambda y: y),
    "log-softmax": (lambda x, y: F.nll_loss(x.log_softmax(1), y), lambda y: y, lambda y: y),
    "BCE on one-hot": (F.binary_cross_entropy_with_logits, hot, lambda y: y),
    "two classes": (
        lambda x, y: F.binary_cross_entropy_with_logits(x[:, :1], y),
        lambda y: y[:, None].gt(0).float(),
        lambda y: y.gt(0).long(),
    ),
    "a module": (nn.CrossEntropyLoss(label_smoothing=0.1), lambda y: y, lambda y: y),
}


@pytest.mark.parametrize(("loss", "target", "expected"), LOSSES.values(), ids=LOSSES)
def test_labels_of_other_losses(loss, target, expected):
    e = seen_training(net(), loss, y=target)
    want = torch.cat([expected(y) for _, y in batches(3)])
    assert e.train_labels.sequence.tolist() == want.tolist()
    assert e.train_labels.predicted.size == e.train_labels.losses.size == 48


def test_labels_of_a_comparison():
    model, (x, y) = net(), data(24)
    optimizer = sgd(model)
    with attend() as attended:
        for xb, yb in batches(2):
            F.cross_entropy(model(xb), yb).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            hits = (model(x).argmax(dim=1) == y).sum().item()
    found = attended.evidence().valid_labels
    assert found.sequence.tolist() == y.tolist()
    assert (found.predicted == found.sequence).sum() == hits


def test_mixed_labels_are_none():
    e = seen_training(net(), y=lambda y: 0.7 * hot(y) + 0.3 * hot(y.flip(0)))
    assert e.train_labels.sequence.size == 0
    assert e.calls[0].target_kind == "float" and e.calls[0].one_hot < 1


def test_calls_of_losses():
    (first, *_) = seen_training(nn.Sequential(net(), nn.Softmax(1))).calls
    assert (first.step, first.name, first.input_shape, first.target_shape) == (0, "cross_entropy", (16, 3), (16,))
    assert (first.target_kind, first.target_min, first.target_max) == ("index", 0, 2)
    assert first.rows_sum_to_one == 1
    assert first.where.endswith(f"test_gathered_numbers.py:{seen_training.__code__.co_firstlineno + 5}")
    first = seen_training(net(), nn.CrossEntropyLoss(label_smoothing=0.1, reduction="sum")).calls[0]
    assert first.options == {"label_smoothing": 0.1, "reduction": "sum"} and first.rows_sum_to_one == 0
    first = seen_training(net(), lambda x, y: F.nll_loss(F.log_softmax(x, 1), y)).calls[0]
    assert (first.name, first.log_rows) == ("nll_loss", 1)
    first = seen_training(net(), lambda x, y: F.mse_loss(x, y), y=hot).calls[0]
    assert (first.name, first.one_hot, first.target_whole, first.target_rows_sum_to_one) == ("mse_loss", 1, True, 1)
    assert first.target_std == pytest.approx(math.sqrt(2) / 3, rel=1e-5)
    values = [c.value for c in seen_training(net().eval()).calls]
    assert values == pytest.approx(seen_training(net().eval()).losses.tolist())


def test_a_loss_that_is_put_together():
    (first, *_) = seen_training(net(), lambda x, y: ((x[:, :1] - y) ** 2).mean(), y=lambda y: y.float()).calls
    assert (first.name, first.input_shape, first.target_shape) == ("", (16, 1), (16,))
    assert first.value > 0 and "test_gathered_numbers.py" in first.where
    (first, *_) = seen_training(net(), lambda x, y: -x.log_softmax(1)[torch.arange(len(y)), y].mean()).calls
    assert (first.input_shape, first.target_shape, first.target_kind) == ((16, 3), (16,), "index")


def test_validation_losses():
    model, (x, y) = net(), data(20)
    optimizer = sgd(model)
    with attend() as attended:
        fit(model, optimizer, 2)
        model.eval()
        with torch.no_grad():
            expected = F.cross_entropy(model(x), y).item()
    e = attended.evidence()
    assert e.valid_losses.tolist() == [pytest.approx(expected)] and e.valid_steps.tolist() == [2]


# functions and units


def test_functions_in_order():
    ops = seen_training(net()).ops
    names = [op.name for op in ops]
    order = ["conv2d", "batch_norm", "tanh", "conv2d", "relu", "dropout", "linear", "cross_entropy"]
    assert [name for name in names if name in order] == order
    tanh = next(op for op in ops if op.name == "tanh")
    line = Net.forward.__code__.co_firstlineno + 1
    assert (tanh.module, tanh.kind, tanh.shape) == ("", "Net", (16, 4, 8, 8)) and tanh.where.endswith(
        f"loops.py:{line}"
    )
    relu = next(op for op in ops if op.name == "relu")
    assert (relu.module, relu.kind) == ("act", "ReLU")
    assert ops[-1].module is None
    model = net()
    (x, _), *_ = batches(1)
    y = torch.tanh(model.norm(model.conv1(x))).detach()
    assert (tanh.mean, tanh.std) == pytest.approx((y.mean().item(), y.std(correction=0).item()), rel=1e-4)
    assert (tanh.low, tanh.high) == pytest.approx((y.lt(-0.97).float().mean().item(), y.gt(0.97).float().mean().item()))
    r = model.act(model.conv2(y))
    assert relu.zero == pytest.approx(r.eq(0).float().mean().item())


def test_readings_of_activations_are_none_of_its_functions():
    """Values that are not numbers are read by torch's own functions, as all are on a GPU."""
    model = net()
    well, broken = seen_training(model), seen_training(model, x=lambda x: x * torch.nan)
    assert [op.name for op in broken.ops] == [op.name for op in well.ops]
    assert [unit.name for unit in broken.units] == [unit.name for unit in well.units]


def test_a_graph_that_is_cut():
    class Cut(Net):
        def forward(self, x):
            y = self.act(self.conv1(x)).detach()
            z = torch.from_numpy(y.numpy())
            return self.head(self.act(self.conv2(z)).flatten(1))

    e = seen_training(Cut())
    assert {op.name for op in e.ops if not op.attached} >= {"detach", "numpy"}
    grads = {p.name: p.has_grad for p in e.parameters}
    assert grads["conv1.weight"] == 0 and grads["head.weight"] == 1


def test_units():
    class Dying(Net):
        def forward(self, x):
            y = self.act(self.conv1(x) + torch.tensor([0.0, -100.0, 0.0, -100.0])[:, None, None])
            y = F.relu_(self.conv2(y) - 100)
            return self.head(torch.tanh(50 * (y.flatten(1) + 1)))

    torch.manual_seed(0)
    model = Dying()
    e = seen_training(model, n=6)
    act, relu, tanh = e.units
    assert (act.name, act.kind) == ("act", "relu")
    assert relu.name.startswith("relu in Dying (") and relu.kind == "relu"
    assert act.steps.tolist() == [0, 1, 2, 5]
    assert act.silent.tolist() == [0.5] * 4 and act.always_silent == 0.5
    assert relu.silent.tolist() == [1] * 4 and relu.always_silent == 1
    assert tanh.saturated.tolist() == [1] * 4 and np.isnan(act.saturated).all()
    (x, _), *_ = batches(1)
    torch.manual_seed(0)
    given = Dying().conv1(x) + torch.tensor([0.0, -100.0, 0.0, -100.0])[:, None, None]
    assert act.std[0] == pytest.approx(given.std(correction=0).item(), rel=1e-5)


def test_hardtanh_is_told_by_its_bounds():
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 8), nn.ReLU6(), nn.Linear(8, 8), nn.Hardtanh(), nn.Hardtanh(-2, 2)
    )
    e = seen_training(nn.Sequential(*model, nn.Linear(8, 3)))
    assert [(unit.name, unit.kind) for unit in e.units] == [("2", "relu6"), ("4", "hardtanh")]
    assert e.units[0].saturated.max() == 0.0  # that it is above 1 says nothing
    assert [op.name for op in e.ops if op.kind in ("ReLU6", "Hardtanh")] == ["relu6", "hardtanh", "clamp"]


def test_a_module_that_is_called_twice():
    act = nn.ReLU()
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), act, nn.Linear(8, 8), act, nn.Linear(8, 3))
    assert [u.name for u in seen_training(model).units] == ["2", "2, call 2"]


# parameters

OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.1, weight_decay=0.1),
    "Nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1),
    "AMSGrad": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "maximised": lambda p: torch.optim.AdamW(p, lr=0.001, maximize=True),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.001, momentum=0.5, centered=True, weight_decay=0.1),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.01, lr_decay=0.1),
    "pellucid's Adam": lambda p: optimizers.Adam(p, lr=0.01, wd=0.1),
    "pellucid's SGD": lambda p: optimizers.SGD(p, lr=0.01, mom=0.9, wd=0.1),
}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_weights_move_as_asked(make):
    model = net()
    e = seen_training(model, n=11, optimizer=make(model.parameters()))
    for p in e.parameters:
        assert p.held == 0 and p.group == 0 and p.has_grad == 1
        assert p.asked.shape == p.moved.shape == (5,) and p.overwritten == 0
        np.testing.assert_allclose(p.asked, p.moved, rtol=1e-3, atol=1e-8)
        assert (p.deviation < 1e-3 * p.moved + 1e-8).all()


def test_sizes_of_gradients_weights_and_moves():
    model, reference = net().eval(), net().eval()
    e = seen_training(model, n=1)
    (x, y), *_ = batches(1)
    F.cross_entropy(reference(x), y).backward()
    for found, (name, p) in zip(e.parameters, reference.named_parameters(), strict=True):
        g = p.grad.double()
        assert (found.name, found.shape, found.dtype) == (name, tuple(p.shape), "float32")
        assert (
            found.layer == name.rpartition(".")[0]
            and found.kind == type(dict(reference.named_modules())[found.layer]).__name__
        )
        assert found.gradient[0] == pytest.approx(g.square().mean().sqrt().item(), rel=1e-4)
        assert found.weight[0] == pytest.approx(p.double().square().mean().sqrt().item(), rel=1e-5, abs=1e-9)
        assert found.moved[0] == pytest.approx(0.05 * g.square().mean().sqrt().item(), rel=1e-2)


def test_decay():
    model = net().eval()
    optimizer = sgd(model, lr=0.1, weight_decay=0.5)
    e = seen_training(model, n=1, optimizer=optimizer)
    reference = net().eval()
    (x, y), *_ = batches(1)
    F.cross_entropy(reference(x), y).backward()
    p = reference.head.weight
    expected = 0.5 * p.norm() / (0.5 * p.norm() + p.grad.norm())
    assert next(f for f in e.parameters if f.name == "head.weight").decay_share[0] == pytest.approx(
        expected.item(), rel=1e-4
    )


def test_updates_that_are_lost():
    model = net().bfloat16()
    e = seen_training(model, x=lambda x: x.bfloat16(), optimizer=sgd(model, lr=1e-6))
    head = next(p for p in e.parameters if p.name == "head.weight")
    assert head.dtype == "bfloat16" and (head.asked > 0).all()
    np.testing.assert_allclose(head.deviation, head.asked, rtol=0.3)

    model = net()
    optimizer = sgd(model)
    kept = {k: v.clone() for k, v in model.state_dict().items()}
    with pellucid.watch(model, optimizer, doctor=True) as seen:
        for x, y in batches(4):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            model.load_state_dict(kept)
    found = {p.name: p for p in seen.evidence.parameters if p.name.endswith("weight")}
    assert {p.overwritten for p in found.values()} == {1}
    np.testing.assert_allclose([p.kept[:2] for p in found.values()], 0, atol=1e-3)
    assert (found["head.weight"].moved > 0).all()


def test_parameters_in_no_optimizer_and_frozen_ones():
    model = net()
    model.conv1.requires_grad_(False)
    optimizer = torch.optim.SGD(model.head.parameters(), lr=0.1)
    e = seen_training(model, optimizer=optimizer)
    found = {p.name: p for p in e.parameters}
    assert (found["head.weight"].held, found["conv2.weight"].held) == (0, -1)
    assert (found["conv2.weight"].requires_grad, found["conv1.weight"].requires_grad) == (True, False)
    assert (found["conv2.weight"].has_grad, found["conv1.weight"].has_grad) == (1, 0)
    assert np.nanmax(found["conv2.weight"].moved) == 0 and np.nanmin(found["head.weight"].moved) > 0


class Hiding(nn.Module):
    """Its middle layers are in a list, which hides them from `parameters()`."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.blocks, self.head = nn.Linear(64, 8), [nn.Linear(8, 8), nn.Linear(8, 8)], nn.Linear(8, 3)

    def forward(self, x):
        x = self.first(x.flatten(1)).relu()
        for block in self.blocks:
            x = block(x).relu()
        return self.head(x)


def test_layers_that_the_model_calls_and_does_not_have():
    hidden = [p for p in seen_training(Hiding()).parameters if p.held == -1]
    assert [(p.name, p.shape, p.has_grad) for p in hidden] == [("weight", (8, 8), 1), ("bias", (8,), 1)] * 2
    assert {p.layer for p in hidden} == {"Linear in Hiding.blocks, which is no part of the model"}
    model = Hiding()
    with attend() as attended:  # another optimizer has them, which is gone when they are looked at
        optimizers = [sgd(model), torch.optim.SGD([p for block in model.blocks for p in block.parameters()], lr=0.1)]
        for x, y in batches(3):
            F.cross_entropy(model(x), y).backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=False)
        del optimizers, optimizer
    assert all(p.held == 0 for p in attended.evidence().parameters)
    frozen = Hiding()
    for block in frozen.blocks:
        block.requires_grad_(False)
    assert all(p.held == 0 for p in seen_training(frozen).parameters)


def test_modules_that_are_called_one_by_one():
    """That the first part belongs to the model is known only after its first pass."""
    torch.manual_seed(0)
    body, head = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh()), nn.Linear(8, 3)
    optimizer = torch.optim.SGD([*body.parameters(), *head.parameters()], lr=0.1)
    with attend() as attended:
        for x, y in batches(4):
            optimizer.zero_grad()
            F.cross_entropy(head(body(x)), y).backward()
            optimizer.step()
    e = attended.evidence()
    assert [op.name for op in e.ops] == ["flatten", "linear", "tanh", "linear", "cross_entropy"]
    run = attended.specimen()
    assert not run.why and run.initial is not None and run.achieved > 0


def test_equal_units():
    model = net()
    nn.init.constant_(model.conv1.weight, 0.1)
    nn.init.constant_(model.head.weight, 0.0)
    e = {p.name: p for p in seen_training(model).parameters}
    assert e["conv1.weight"].spread == e["head.weight"].spread == 0
    rows = net().conv2.weight.flatten(1).double()
    expected = (rows - rows[0]).norm(dim=1).max() / rows.norm(dim=1).max()
    assert e["conv2.weight"].spread == pytest.approx(expected.item(), rel=1e-4)
    assert math.isnan(e["head.bias"].spread) and e["head.weight"].gradient_spread > 0


def test_scaled_losses():
    model, reference = net().eval(), net().eval()
    optimizer, scaler = sgd(model), torch.amp.GradScaler("cpu")
    with pellucid.watch(model, optimizer, doctor=True) as seen:
        for x, y in batches(1):
            scaler.scale(F.cross_entropy(model(x), y)).backward()
            scaler.step(optimizer)
            scaler.update()
    e = seen.evidence
    expected = seen_training(reference, n=1)
    assert e.losses.tolist() == pytest.approx(expected.losses.tolist())
    for a, b in zip(e.parameters, expected.parameters, strict=True):
        np.testing.assert_allclose(a.gradient, b.gradient, rtol=1e-3)


# what is not a number


def failure_of(model, loss=F.cross_entropy, x=lambda x: x, lr=0.05, n=3):
    optimizer = sgd(model, lr=lr)
    with pellucid.watch(model, optimizer, doctor=True) as seen:
        for xb, yb in batches(n):
            optimizer.zero_grad()
            loss(model(x(xb)), yb).backward()
            optimizer.step()
    return seen.evidence.failure


def test_where_values_stop_being_numbers():
    failure = failure_of(net(), x=lambda x: x.clone().fill_(torch.nan))
    assert (failure.during, failure.step, failure.kind) == ("input", 0, "")
    failure = failure_of(net(), loss=lambda out, y: (out - 1e3).relu().mean(1).log().mean())
    assert (failure.during, failure.first_nonfinite, failure.step) == ("loss", "log", 0)
    assert "test_gathered_numbers.py" in failure.where
    calls = 0

    def later(out, y):
        nonlocal calls
        calls += 1
        return (out.square().mean() * (0.0 if calls == 5 else 1.0)).log()

    failure = failure_of(net(), loss=later, n=6)
    assert (failure.during, failure.first_nonfinite, failure.step) == ("loss", "log", 4)
    failure = failure_of(net(), lr=torch.inf)
    assert (failure.during, failure.step) == ("step", 1)
    failure = failure_of(net(), loss=lambda out, y: (0 * out).square().sum(1).sqrt().mean())
    assert failure.during == "backward" and failure.step == 1

    class Broken(Net):
        def forward(self, x):
            x = torch.tanh(self.norm(self.conv1(x) * torch.inf))
            return self.head(self.drop(self.act(self.conv2(x))).flatten(1))

    failure = failure_of(Broken())
    assert (failure.during, failure.step, failure.first_nonfinite) == ("forward", 0, "mul")
