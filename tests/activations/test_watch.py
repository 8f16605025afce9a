from __future__ import annotations

import copy
import json
import pickle
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import pellucid
from pellucid.activations import autosave, global_hooks
from pellucid.activations.watch import Watch
from pellucid.errors import UsageError
from pellucid.optim.optimizers import Adam


def net(inplace: bool = False) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(inplace), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(36, 5)
    )


def batches(sizes=(8, 8, 5)):
    generator = torch.Generator().manual_seed(2)
    return [(torch.randn(n, 3, 8, 8, generator=generator), torch.arange(n) % 5) for n in sizes]


def train(model, opt, data):
    losses = []
    for xb, yb in data:
        loss = F.cross_entropy(model(xb), yb)
        loss.backward()
        opt.step()
        opt.zero_grad()
        losses.append(loss.item())
    return losses


def quiet() -> None:
    assert not (global_hooks._calls or global_hooks._losses)
    assert global_hooks._hook is None
    assert global_hooks._backward is None
    assert not torch.nn.modules.module._global_forward_hooks


@pytest.fixture(autouse=True)
def hooks_are_gone():
    yield
    quiet()


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("opt_func", [torch.optim.SGD, Adam])
def test_plain_loop_equals_brute_force(inplace, opt_func):
    model = net(inplace)
    opt = opt_func(model.parameters(), lr=0.1)
    seen_by_hooks: dict[str, list[torch.Tensor]] = {}
    handles = [
        m.register_forward_hook(
            lambda m, i, o, name=name: seen_by_hooks.setdefault(name, []).append(o.detach().clone())
        )
        for name, m in model.named_children()
    ]
    grads, weights = [], []

    def keep(*_):
        grads.append([p.grad.clone() for p in model.parameters()])
        weights.append([*map(torch.clone, model.parameters())])

    before = opt.register_step_pre_hook(keep)
    with pellucid.watch(model, optimizer=opt, loss=True) as seen:
        losses = train(model, opt, batches())
    before.remove()
    for handle in handles:
        handle.remove()
    h = seen.history
    assert [layer.name for layer in h.layers] == ["0", "1", "2", "4"]
    assert [layer.role for layer in h.layers] == ["layer", "activation", "layer", "layer"]
    assert h.train.steps.tolist() == [[0, 1], [1, 2], [2, 3]]
    for row, layer in enumerate(h.layers):
        for column, x in enumerate(seen_by_hooks[layer.name]):
            x = x.double()
            assert h.train.mean[row, column] == pytest.approx(x.mean().item(), rel=1e-5, abs=1e-6)
            assert h.train.std[row, column] == pytest.approx(x.std().item(), rel=1e-5)
            assert h.train.min[row, column] == pytest.approx(x.min().item())
            assert h.train.count[row, column] == x.numel()
            near = float(np.float32(0.05))
            assert h.train.near_zero[row, column] == (x <= near).sum()
            assert h.train.hist[row, column].sum() == x.numel()
    np.testing.assert_allclose(h.loss, losses, rtol=1e-6)
    for column, (step_grads, step_weights) in enumerate(zip(grads, weights, strict=True)):
        after = weights[column + 1] if column + 1 < len(weights) else list(model.parameters())
        for row, (g, w, new) in enumerate(zip(step_grads, step_weights, after, strict=True)):
            s = h.series
            assert s["grad.norm"][row, column] == pytest.approx(g.double().norm().item(), rel=1e-4)
            assert s["grad.mean_abs"][row, column] == pytest.approx(g.double().abs().mean().item(), rel=1e-4)
            assert s["grad.zero"][row, column] == pytest.approx((g == 0).double().mean().item(), abs=1e-6)
            assert s["weight.norm"][row, column] == pytest.approx(w.detach().double().norm().item(), rel=1e-4)
            if w.norm() > 0:
                ratio = ((new.double() - w.double()).norm() / w.double().norm()).item()
                assert s["update.ratio"][row, column] == pytest.approx(ratio, rel=1e-3)
    assert h.hypers["lr"].tolist() == [[pytest.approx(0.1)] * 3] * len(opt.param_groups)
    assert (
        set(h.hypers)
        == {torch.optim.SGD: {"lr", "mom", "wd", "dampening"}, Adam: {"lr", "mom", "sqr_mom", "eps", "wd"}}[opt_func]
    )


def test_our_own_number_of_a_group_is_no_hyper_parameter():
    model = net()
    opt = Adam([{"params": list(model.parameters()), "group": 0}], lr=0.1)
    with pellucid.watch(model, optimizer=opt) as seen:
        train(model, opt, batches())
    assert "group" not in seen.history.hypers


def test_watching_changes_nothing():
    results = []
    for watched in (False, True):
        model = net()
        opt = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        torch.manual_seed(5)
        if watched:
            with pellucid.watch(model, optimizer=opt, loss=True):
                train(model, opt, batches())
        else:
            train(model, opt, batches())
        results.append([*map(torch.clone, model.state_dict().values()), torch.rand(3)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_validation_is_told_apart_and_pooled():
    model = net()
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    with pellucid.watch(model, optimizer=opt) as seen:
        for _ in range(2):
            model.train()
            train(model, opt, batches())
            model.eval()
            for xb, _ in batches((7, 6)):
                model(xb)
    h = seen.history
    assert h.train.steps[:, 0].tolist() == list(range(6))
    assert h.valid.steps[:, 0].tolist() == [3, 6]
    assert h.valid.count[3].tolist() == [65, 65]


def test_without_optimizer_a_training_pass_is_a_step():
    model = net()
    with pellucid.watch(model) as seen:
        for xb, _ in batches():
            model(xb)
    assert seen.history.train.count[3].tolist() == [40, 40, 25]


def test_every_nth_step():
    model = net()
    with pellucid.watch(model, every=2) as seen:
        for xb, _ in batches((4, 4, 4, 4, 4)):
            model(xb)
    assert seen.history.train.steps.tolist() == [[0, 1], [2, 3], [4, 5]]


def test_accumulated_and_repeated_calls_pool():
    shared = nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.randn(6, 4)
    with pellucid.watch(model, optimizer=opt) as seen:
        for _ in range(2):
            for _ in range(3):
                model(x).sum().backward()
            opt.step()
    h = seen.history
    assert h.train.count[h.index("0")].tolist() == [2 * 3 * 24] * 2
    assert h.train.count[h.index("1")].tolist() == [3 * 24] * 2


@dataclass
class Out:
    ids: torch.Tensor
    logits: torch.Tensor


class Odd(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind, self.w = kind, nn.Parameter(torch.ones(3))

    def forward(self, x):
        y, ids = x * self.w, torch.arange(3)
        return {"tuple": (ids, y), "dict": {"ids": ids, "y": y}, "dataclass": Out(ids, y), "list": [[y], ids]}[
            self.kind
        ]


@pytest.mark.parametrize("kind", ["tuple", "dict", "dataclass", "list"])
def test_structured_outputs(kind):
    model = Odd(kind)
    with pellucid.watch(model) as seen:
        model(torch.full((2, 3), 2.0))
    assert seen.history.train.mean[0, 0] == 2
    assert seen.history.train.count[0, 0] == 6


def test_integer_and_empty_outputs_are_ignored_once():
    class Ints(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return x.long()

    model = nn.Sequential(Ints(), nn.Flatten())
    with (
        pytest.warns(UserWarning, match=r"layer 0 gives torch.int64 output: .* \(said once\)") as caught,
        pellucid.watch(model) as seen,
    ):
        for _ in range(3):
            model(torch.randn(2, 3))
    assert len(caught) == 1
    assert np.isnan(seen.history.train.mean).all()
    linear = nn.Linear(3, 3)
    with pytest.warns(UserWarning, match="empty torch.float32 output"), pellucid.watch(linear):
        linear(torch.empty(0, 3))


def test_autocast_lstm_and_frozen_layers():
    model = nn.LSTM(4, 5, batch_first=True)
    for p in model.parameters():
        p.requires_grad_(False)
    try:
        with torch.autocast("cpu", torch.bfloat16):
            model(torch.randn(2, 3, 4))
    except RuntimeError as error:  # oneDNN has no such kernel on processors without AVX-512
        pytest.skip(f"torch cannot run an LSTM in bfloat16 here: {error}")
    with pellucid.watch(model) as seen, torch.autocast("cpu", torch.bfloat16):
        out = model(torch.randn(2, 3, 4))[0]
    assert seen.history.train.count[0, 0] == 30
    assert seen.history.train.mean[0, 0] == pytest.approx(out.double().mean().item(), rel=1e-5)


def test_checkpointed_activations_count_once():
    inner = nn.Linear(4, 4)
    for reentrant in (False, True):
        x = torch.randn(5, 4, requires_grad=True)
        with pellucid.watch(inner) as seen:
            checkpoint(inner, x, use_reentrant=reentrant).sum().backward()
        assert seen.history.train.count[0].tolist() == [20]


def test_nested_watches_and_copies():
    model = net()
    with pellucid.watch(model) as outer, pellucid.watch(model, modules="4") as inner:
        model(batches()[0][0])
        copied, unpickled = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
        copied(batches()[0][0])
        unpickled(batches()[0][0])
        assert not model[0]._forward_hooks
    assert outer.history.train.count[3].tolist() == [40]
    assert [layer.name for layer in inner.history.layers] == ["4"]


def test_hooks_are_gone_after_an_exception():
    model = net()
    with pytest.raises(ZeroDivisionError), pellucid.watch(model, loss=True) as seen:
        model(batches()[0][0])
        raise ZeroDivisionError
    quiet()
    assert seen.history.train.count[3].tolist() == [40]


def test_compiled_model_runs_uncompiled_with_right_results():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    compiled = torch.compile(model, backend="eager")
    x = torch.randn(3, 4)
    with pytest.warns(UserWarning, match="runs uncompiled while it is watched"), pellucid.watch(compiled) as seen:
        out = compiled(x)
    assert seen.history.train.mean[0, 0] == pytest.approx(model[0](x).mean().item(), rel=1e-5)
    assert seen.history.train.mean[1, 0] == pytest.approx(out.mean().item(), rel=1e-5)


def test_choosing_modules():
    model = net()

    def names(which):
        return [layer.name for layer in pellucid.watch(model, modules=which).history.layers]

    assert names(nn.ReLU) == ["1"]
    assert names(["0", nn.Linear]) == ["0", "4"]
    assert names("[01]") == ["0", "1"]
    assert names(model[2]) == ["2"]
    assert names(lambda name, m: isinstance(m, nn.Flatten)) == ["3"]


def test_start_and_stop_do_what_the_block_does(tmp_path):
    model = net()
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    seen = pellucid.watch(model, optimizer=opt, loss=True, folder=tmp_path)
    assert seen.start() is seen
    assert seen.is_open
    with pytest.raises(UsageError, match="open already"):
        seen.start()
    losses = train(model, opt, batches())
    seen.stop()
    quiet()
    assert not seen.is_open
    (tmp_path / "history.safetensors").unlink()
    seen.stop()  # a second one does nothing
    assert not (tmp_path / "history.safetensors").exists()
    train(model, opt, batches())
    assert seen.step == 3
    np.testing.assert_allclose(seen.history.loss, losses, rtol=1e-6)
    with seen:  # goes on where it stopped
        train(model, opt, batches())
    assert seen.step == 6
    assert len(seen.history.loss) == 6


def test_a_training_that_failed_says_nothing_of_what_was_not_seen():
    model, other = net(), net()
    seen = pellucid.watch(model, loss=True).start()
    other(batches()[0][0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        seen.stop(failed=True)
    quiet()
    with pytest.warns(UserWarning, match="no watched layer of Sequential was called"):
        pellucid.watch(model).start().stop()


def test_columns_are_bounded_in_a_long_run():
    model = nn.Linear(2, 2)
    seen = Watch(model, None, loss=False, modules=None, every=1, with_hist=True, with_grads=False, capacity=8)
    with seen:
        for _ in range(100):
            model(torch.ones(3, 2))
    h = seen.history
    assert len(h.train.steps) <= 8
    assert h.train.count.sum() == 600
    assert h.train.steps[-1, 1] == 100


def test_kernel_snapshots():
    model = net()
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    first = model[0].weight.detach().clone()
    with pellucid.watch(model, optimizer=opt) as seen:
        for _ in range(60):
            train(model, opt, batches())
    h = seen.history
    assert len(h.kernels) <= 64
    np.testing.assert_array_equal(h.kernels[0], first.numpy())
    assert h.kernel_steps.tolist() == list(range(0, 180, 4))


def test_history_is_saved_meanwhile_and_loads_without_torch(tmp_path, monkeypatch):
    monkeypatch.setattr(autosave, "SAVE_EVERY_S", 0.0)
    model = net()
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    with pellucid.watch(model, optimizer=opt, loss=True, folder=tmp_path) as seen:
        seen._autosave.at = 0.0
        train(model, opt, batches((4,) * 60))
        assert len(pellucid.History.load(tmp_path).train.steps) == 50
    code = f"""
import sys
from pellucid.history.history import History
h = History.load({str(tmp_path)!r})
assert 'torch' not in sys.modules
print(h.train.mean.shape, h.loss.shape)
"""
    import subprocess
    import sys

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(4, 60) (60,)"
    again = pellucid.History.load(tmp_path)
    for name, array in seen.history.to_arrays().items():
        np.testing.assert_array_equal(array, again.to_arrays()[name])
        assert array.dtype in (np.float32, np.int64)
    assert json.loads((tmp_path / "history.json").read_text())["schema"] == 2
    frame = again.to_pandas()
    assert len(frame) == 4 * 60
    assert frame[frame.layer == "4"]["mean"].to_numpy()[3] == again.train.mean[3, 3]


def test_wrong_input(tmp_path):
    model = net()
    with pytest.raises(UsageError, match="give watch"):
        pellucid.watch(model, with_grads=True)
    with pytest.raises(UsageError, match=r"no module of Sequential is called 'conv1'; there are .*0, 1, 2"):
        pellucid.watch(model, modules="conv1")
    with pytest.raises(UsageError, match="same module twice"):
        pellucid.watch(model, modules=[model[0], model[0]])
    with pytest.raises(UsageError, match="no layer with parameters"):
        pellucid.watch(nn.Flatten())
    with pytest.raises(UsageError, match="every must be"):
        pellucid.watch(model, every=0)
    seen = pellucid.watch(model, with_hist=False)
    with pytest.raises(UsageError, match="train at least one batch"):
        seen.plot()
    with seen:
        with pytest.raises(UsageError, match="open already"), seen:
            pass
        model(batches()[0][0])
    with pytest.raises(UsageError, match="with_hist=True"):
        seen.color_dim(-2)
    with pytest.raises(UsageError, match=r"no layer 7; the 3 watched ones are 0 0 \(Conv2d\)"):
        seen.plot_layer_stats(7)
    with pytest.raises(UsageError, match="no layer 'x' was watched; there are 0, 1, 2, 4"):
        seen.plot_layer_stats("x")
    with pytest.raises(UsageError, match="no gradients"):
        seen.plot_gradients()
    with pytest.raises(UsageError, match="step 9 was not recorded; there are 0 to 0"):
        seen.plot_hist(0, 9)
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.warns(UserWarning, match="gradients were asked for"), pellucid.watch(model, opt, with_grads=True):
        model(batches()[0][0])
        opt.step()
    with pytest.raises(UsageError, match="no such file"):
        pellucid.History.load(tmp_path)
    file = seen.history.save(tmp_path)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsageError, match="truncated or damaged"):
        pellucid.History.load(tmp_path)
    file.write_bytes(whole.replace(b'\\"schema\\": 2', b'\\"schema\\": 9'))
    with pytest.raises(UsageError, match=r"its schema is 9.*update pellucid"):
        pellucid.History.load(tmp_path)


def test_every_picture_draws(tmp_path):
    model = net()
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    with pellucid.watch(model, optimizer=opt) as seen:
        train(model, opt, batches((4,) * 20))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures = [seen.plot_layer_stats(-2), seen.plot(), seen.plot_gradients()]
        figures += [seen.color_dim("1", signed=True), seen.dead_chart(), seen.plot_hist(0, 5), seen.show_kernels(3)]
        figures.append(seen.color_dim(-2))
        for i, figure in enumerate(figures):
            figure.savefig(tmp_path / f"{i}.png")
    colours, bar = figures[-1].axes
    image = colours.images[0]
    hist = seen.history.train.hist[seen.history.index(-2)]
    np.testing.assert_allclose(image.get_array(), np.log1p(hist[:, 40:].T))
    assert image.origin == "lower"
    assert colours.get_xlabel() == "batch"
    assert bar.get_ylabel() == "count"
