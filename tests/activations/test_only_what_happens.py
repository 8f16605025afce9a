"""A watch sees what happens to its own model, and only that; what it cannot see it says once."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

import pellucid
from pellucid.activations import global_hooks
from pellucid.errors import UsageError

X = torch.randn(6, 4, generator=torch.Generator().manual_seed(3))


@pytest.fixture(autouse=True)
def hooks_are_gone():
    backward, scale = torch.autograd.backward, torch.amp.GradScaler.scale
    yield
    assert not (global_hooks._calls or global_hooks._losses)
    assert not torch.nn.modules.module._global_forward_hooks
    assert not torch.nn.modules.module._global_forward_pre_hooks
    assert torch.autograd.backward is backward
    assert torch.amp.GradScaler.scale is scale


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))


def sgd(*models: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD([p for m in models for p in m.parameters()], lr=0.1)


def said(caught) -> list[str]:
    return [str(each.message) for each in caught if each.category is UserWarning]


# whose loss it is


def test_student_and_teacher_keep_their_own_losses():
    student, teacher = net(0), net(1)
    losses: dict[str, list[float]] = {"student": [], "teacher": []}
    s_opt, t_opt = sgd(student), sgd(teacher)
    with (
        pellucid.watch(student, s_opt, loss=True) as s_seen,
        pellucid.watch(teacher, t_opt, loss=True) as t_seen,
    ):
        for _ in range(3):
            loss = teacher(X).square().mean()
            losses["teacher"].append(loss.item())
            loss.backward()
            t_opt.step()
            loss = (student(X) - teacher(X).detach()).square().mean() + 7
            losses["student"].append(loss.item())
            loss.backward()
            s_opt.step()
            for opt in (s_opt, t_opt):
                opt.zero_grad()
    np.testing.assert_allclose(s_seen.history.loss, losses["student"], rtol=1e-6)
    np.testing.assert_allclose(t_seen.history.loss[:3], losses["teacher"], rtol=1e-6)
    assert t_seen.history.train.steps[-1, 0] == 3  # its last call, by the student, comes after its last step


def test_a_shared_loss_is_of_both_and_a_stranger_of_none():
    a, b, stranger = net(0), net(1), net(2)
    opt = sgd(a, b)
    with pellucid.watch(a, opt, loss=True) as a_seen, pellucid.watch(b, opt, loss=True) as b_seen:
        loss = (a(X) + b(X)).square().mean()
        (100 * stranger(X).square().mean()).backward()
        loss.backward()
        (100 * stranger(X).square().mean()).backward()
        opt.step()
    assert a_seen.history.loss.tolist() == b_seen.history.loss.tolist() == [pytest.approx(loss.item())]


class Whole(nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        self.body, self.reentrant = net(), reentrant

    def forward(self, x):
        return checkpoint(self.body, x, use_reentrant=self.reentrant)


def frozen_but_last(model):
    for p in model.parameters():
        p.requires_grad_(False)
    model[0].bias.requires_grad_(True)
    return model


OWN = {
    "plain": (net, lambda m: m(X).square().mean()),
    "one element": (net, lambda m: m(X).square().mean().reshape(1, 1)),
    "scaled": (net, lambda m: m(X).square().mean() / 4),
    "only the first bias trains": (lambda: frozen_but_last(net()), lambda m: m(X).square().mean()),
    "checkpoint": (lambda: Whole(False), lambda m: m(X).square().mean()),
    "reentrant checkpoint": (lambda: Whole(True), lambda m: m(X.clone().requires_grad_()).square().mean()),
    "functional call": (net, lambda m: torch.func.functional_call(m, dict(m.named_parameters()), X).square().mean()),
    "parametrized": (
        lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 3))),
        lambda m: m(X).square().mean(),
    ),
    "DataParallel": (net, lambda m: nn.DataParallel(m)(X).square().mean()),
    "a parameter alone": (net, lambda m: m[0].bias.square().sum()),
    "a list": (net, lambda m: [m(X).square().mean(), m(2 * X).abs().mean()]),
}


@pytest.mark.parametrize(("make", "loss_of"), OWN.values(), ids=OWN)
def test_every_way_to_a_loss_of_its_own(make, loss_of):
    model, stranger, expected = make(), net(9), []
    opt = sgd(model)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "nothing is recorded of|no watched layer")  # where no layer is called
        with pellucid.watch(model, opt, loss=True) as seen:
            for _ in range(3):
                (100 * stranger(X).square().mean()).backward()
                loss = loss_of(model)
                expected.append(sum(each.item() for each in (loss if isinstance(loss, list) else [loss])))
                torch.autograd.backward(loss) if isinstance(loss, list) else loss.backward()
                opt.step()
                opt.zero_grad()
    np.testing.assert_allclose(seen.history.loss, expected, rtol=1e-6)


def test_a_frozen_model_and_an_image_that_is_optimised():
    model = net().requires_grad_(False)
    image = X.clone().requires_grad_()
    opt = torch.optim.SGD([image], lr=0.1)
    with pellucid.watch(model, opt, loss=True) as seen:
        loss = model(image).square().mean()
        loss.backward()
        opt.step()
    assert seen.history.loss.tolist() == [pytest.approx(loss.item())]


@pytest.mark.parametrize("as_list", [False, True])
def test_an_attack_on_the_inputs_is_no_loss_of_the_training(as_list):
    model = net()
    opt = sgd(model)
    scaler = torch.amp.GradScaler("cpu")
    with pellucid.watch(model, opt, loss=True) as seen:
        x = X.clone().requires_grad_()
        (100 * model(x).square().mean()).backward(inputs=[x] if as_list else x)
        losses = [model(x).square().mean(), model(x).abs().mean()]
        torch.autograd.backward(scaler.scale(losses), inputs=list(model.parameters()))
        scaler.step(opt)
    assert seen.history.loss.tolist() == [pytest.approx(sum(losses).item())]


def test_no_loss_is_said():
    model = net()
    opt = sgd(model)
    with pytest.warns(UserWarning, match="no loss was recorded"), pellucid.watch(model, opt, loss=True):
        for p, g in zip(
            model.parameters(), torch.autograd.grad(model(X).square().mean(), model.parameters()), strict=True
        ):
            p.grad = g
        opt.step()


def test_without_an_optimizer_a_loss_belongs_to_the_pass_it_came_from():
    model, losses = net(), []
    with pellucid.watch(model, loss=True) as seen:
        for i in range(3):
            loss = model(X * i).square().mean()
            losses.append(loss.item())
            loss.backward()
            assert seen.step == i + 1
            if i == 1:
                model.eval()(X)
                model.train()
    h = seen.history
    assert h.train.steps.tolist() == [[0, 1], [1, 2], [2, 3]]
    assert h.valid.steps[:, 0].tolist() == [2]
    np.testing.assert_allclose(h.loss, losses, rtol=1e-6)


def test_watches_may_close_in_any_order():
    class Own:
        def __init__(self, model):
            self.param_groups = [{"params": list(model.parameters()), "lr": 0.1}]

        def step(self):
            pass

    model = net()
    opt = Own(model)
    first, second = pellucid.watch(model, opt, loss=True), pellucid.watch(model, opt, loss=True)
    first.start()
    second.start()
    for close in (first, second):
        model(X).square().mean().backward()
        opt.step()
        close.stop()
    opt.step()
    assert (first.step, second.step) == (1, 2)
    assert "step" not in vars(opt)
    assert len(second.history.loss) == 2


def test_anothers_wrapper_around_backward_stays():
    model, calls = net(), []
    opt = sgd(model)
    original = torch.autograd.backward
    with pellucid.watch(model, opt, loss=True):
        ours = torch.autograd.backward
        torch.autograd.backward = lambda *a, **k: (calls.append(1), ours(*a, **k))[1]
        model(X).sum().backward()
        opt.step()
    model(X).sum().backward()
    assert len(calls) == 2
    torch.autograd.backward = original


# layers


class Direct(nn.Module):
    """Uses its layers in ways that hooks do not see."""

    def __init__(self):
        super().__init__()
        self.by_call, self.by_forward, self.by_weight, self.unused = (nn.Linear(4, 4) for _ in range(4))

    def forward(self, x):
        x = self.by_forward.forward(self.by_call(x))
        return F.linear(x, self.by_weight.weight)


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc, self.dec = nn.Linear(4, 4), nn.Linear(4, 4)
        self.dec.weight = self.enc.weight

    def forward(self, x):
        return self.dec(self.enc(x))


class Listed(nn.Module):
    def __init__(self):
        super().__init__()
        self.weights = nn.ParameterList([torch.ones(4)])
        self.named = nn.ParameterDict({"a": torch.ones(4)})
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        return self.fc(x * self.weights[0] + self.named["a"])


def encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True, dropout=0.0)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.fc = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 4)

    def forward(self, x):
        return self.fc(self.attention(x, x, x, need_weights=False)[0])


def scripted() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return nn.Sequential(nn.Linear(4, 4), torch.jit.script(nn.Sequential(nn.Linear(4, 4))))


MODELS = {  # model, input, what must be recorded in training, what is said after a training and an evaluating pass
    "plain": (net, ["0", "1", "2"], []),
    "direct": (Direct, ["by_call"], [r"of by_forward, by_weight, unused: they were not called"]),
    "weight sharing": (Shared, ["enc", "dec"], []),
    "lists of parameters": (Listed, ["fc"], []),
    "parametrized": (
        lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 4, bias=False)), nn.ReLU()),
        ["0", "1"],
        [],
    ),
    "spectral norm": (lambda: nn.Sequential(parametrizations.spectral_norm(nn.Linear(4, 4))), ["0"], []),
    "old weight norm": (lambda: nn.Sequential(torch.nn.utils.weight_norm(nn.Linear(4, 4))), ["0"], []),
    "attention": (Attention, ["attention", "fc"], []),
    "encoder": (
        encoder,
        [f"layers.{i}.{name}" for i in (0, 1) for name in ("self_attn", "linear1", "linear2", "norm1", "norm2")],
        [r"of layers.0.self_attn, layers.0.linear1, layers.0.linear2 and 7 more in validation: nn.TransformerEncoder"],
    ),
    "scripted child": (scripted, ["0"], [r"of 1.0: TorchScript"]),
    "checkpoint": (lambda: Whole(False), ["body.0", "body.1", "body.2"], []),
    "DataParallel": (lambda: nn.DataParallel(net()), ["0", "1", "2"], []),
    "lazy": (lambda: nn.Sequential(nn.LazyLinear(5), nn.ReLU()), ["0", "1"], []),
}


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm`", "ignore:Lazy modules")
@pytest.mark.parametrize(("make", "recorded", "says"), MODELS.values(), ids=MODELS)
def test_every_layer_is_recorded_or_named(make, recorded, says):
    torch.manual_seed(1)
    model = make()
    opt = sgd(model)
    outputs: dict[str, torch.Tensor] = {}
    x = torch.randn(2, 3, 4)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pellucid.watch(model, opt) as seen:
            handles = [
                module.register_forward_hook(
                    lambda m, i, o, name=name: outputs.__setitem__(name, o[0] if isinstance(o, tuple) else o)
                )
                for name, module in getattr(model, "module", model).named_modules()
                if not isinstance(module, torch.jit.ScriptModule)
            ]
            model(x).square().mean().backward()
            opt.step()
            for handle in handles:
                handle.remove()
            model.eval()
            with torch.no_grad():
                model(x)
    h = seen.history
    filled = [layer.name for layer, n in zip(h.layers, h.train.count[:, 0], strict=True) if n]
    assert filled == recorded
    for name in recorded:
        row, want = h.index(name), outputs[name].detach().double()
        assert h.train.count[row, 0] == want.numel()
        assert h.train.mean[row, 0] == pytest.approx(want.mean().item(), rel=1e-5, abs=1e-6)
    empty = [
        layer.name for row, layer in enumerate(h.layers) if not (h.train.count[row].any() and h.valid.count[row].any())
    ]
    messages = said(caught)
    assert len(messages) == len(says) == bool(empty), messages
    for message, pattern in zip(messages, says, strict=True):
        assert pattern in message


def test_the_fused_path_gives_the_same_results_watched_and_can_be_turned_off():
    model = encoder().eval()
    x = torch.randn(2, 3, 4)
    with torch.no_grad():
        plain = model(x)
        with pytest.warns(UserWarning, match="set_fastpath_enabled"), pellucid.watch(model, modules="*linear*"):
            assert torch.equal(model(x), plain)
            nn.Linear(1, 1)(torch.ones(1))
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            with pellucid.watch(model) as seen:
                model(x)
        finally:
            torch.backends.mha.set_fastpath_enabled(True)
    assert (seen.history.valid.count > 0).all()


def test_a_spectral_norm_trains_the_same_watched():
    states = []
    for watched in (False, True):
        torch.manual_seed(1)
        model = nn.Sequential(parametrizations.spectral_norm(nn.Conv2d(1, 3, 3)), nn.Flatten(), nn.Linear(12, 2))
        opt = sgd(model)
        seen = pellucid.watch(model, opt, loss=True)
        if watched:
            seen.start()
        for i in range(5):
            opt.zero_grad()
            model(torch.full((2, 1, 4, 4), i / 3)).square().mean().backward()
            opt.step()
        if watched:
            seen.stop()
        states.append(model.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(*(s.values() for s in states), strict=True))


@pytest.mark.parametrize("optimizer", [False, True])
def test_calling_forward_directly_is_said(optimizer):
    model = net()
    opt = sgd(model)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pellucid.watch(model, opt if optimizer else None) as seen:
            for _ in range(3):
                model.forward(X).sum().backward()
                opt.step()
    if optimizer:
        assert seen.history.train.count[0].tolist() == [30] * 3
        assert said(caught) == []
    else:
        assert ["ends no step: call model(x), not model.forward(x)" in each for each in said(caught)] == [True]
    with pytest.warns(UserWarning, match=r"called by model\(x\), not model.forward\(x\)"), pellucid.watch(model[0]):
        model[0].forward(X)


def test_copies_of_data_parallel_are_said():
    model = nn.DataParallel(net())
    model.device_ids = [0, 1]
    with (
        pytest.warns(UserWarning, match="DataParallel on several devices runs copies"),
        pytest.warns(UserWarning, match="no watched layer"),
        pellucid.watch(model),
    ):
        pass


def test_a_layer_replaced_while_watched_is_said():
    model = net()
    with pytest.warns(UserWarning, match="2 left the model while it was watched"), pellucid.watch(model):
        model(X)
        model[2] = nn.Linear(5, 3)
        model(X)


@pytest.mark.parametrize("outputs", [["int", "int"], ["int", "empty"], ["meta", "none"]])
def test_all_outputs_that_are_ignored_are_named(outputs):
    class Odd(nn.Module):
        def __init__(self, kind):
            super().__init__()
            self.kind, self.w = kind, nn.Parameter(torch.ones(1))

        def forward(self, x):
            x = x if isinstance(x, torch.Tensor) and x.is_cpu else X
            return {"int": x.long(), "empty": x[:0], "meta": x.to("meta"), "none": None}[self.kind]

    model = nn.Sequential(*map(Odd, outputs), Odd("int"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pellucid.watch(model):
            model(X)
            model(X)
    messages = said(caught)
    assert len(messages) == 2
    assert "layer 0 gives" in messages[0]
    assert all(f"{i} (" in messages[1] for i in (1, 2))


def test_passes_that_compute_nothing_are_no_error():
    from torch._subclasses.fake_tensor import FakeTensorMode

    model = net()
    with pytest.warns(UserWarning, match="meta output"), pellucid.watch(model) as seen:
        with FakeTensorMode(allow_non_fake_inputs=True):
            model(torch.randn(2, 4))
        torch.vmap(model)(torch.randn(2, 3, 4))
        torch.fx.symbolic_trace(model)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            torch.jit.trace(model, X, check_trace=False)
        model(X)
    assert seen.history.train.count[0].sum() == 30


# the optimizer


def test_an_optimizer_of_another_model_is_said_at_once():
    model, other = net(), net(1)
    seen = pellucid.watch(model, sgd(other))
    with pytest.warns(UserWarning, match="holds none of the parameters of Sequential"):
        seen.start()
    model(X)
    seen.stop()


def test_a_head_replaced_after_the_optimizer_was_made_is_said_at_once():
    model = net()
    opt = sgd(model)
    model[2] = nn.Linear(5, 3)
    seen = pellucid.watch(model, opt)
    with pytest.warns(
        UserWarning, match=r"does not hold 2.weight, 2.bias, but holds tensors that are not in the model"
    ):
        seen.start()
    seen.stop(failed=True)


def test_a_head_added_after_the_optimizer_was_made_is_said_in_the_end():
    model = net()
    opt = sgd(model)
    model.append(nn.Linear(3, 2))
    with (
        pytest.warns(UserWarning, match=r"3.weight, 3.bias get gradients, but are not in the optimizer and never"),
        pellucid.watch(model, opt),
    ):
        for _ in range(3):
            model(X).square().mean().backward()
            opt.step()
            opt.zero_grad()


@pytest.mark.parametrize("by_data", [False, True])
def test_parts_that_another_optimizer_trains_are_no_fault(by_data):
    model = net()
    opt = sgd(model[0])
    with pellucid.watch(model, opt):
        for _ in range(3):
            model(X).square().mean().backward()
            opt.step()
            for p in model[2].parameters():
                if by_data:
                    p.data -= 0.1 * p.grad
                else:
                    with torch.no_grad():
                        p -= 0.1 * p.grad
            model.zero_grad()


def test_groups_added_while_watched_are_recorded():
    model = net()
    opt = torch.optim.SGD(model[2].parameters(), lr=0.1)
    model[0].requires_grad_(False)
    norms = []
    with pellucid.watch(model, opt) as seen:
        for i in range(4):
            if i == 2:
                model[0].requires_grad_(True)
                opt.add_param_group({"params": list(model[0].parameters()), "lr": 0.5})
                torch.optim.lr_scheduler.LambdaLR(opt, lambda _: 1.0)  # keeps `initial_lr` in the groups
            opt.zero_grad()
            model(X).square().mean().backward()
            norms.append(0.0 if model[0].weight.grad is None else model[0].weight.grad.norm().item())
            opt.step()
    h = seen.history
    assert h.params == ["2.weight", "2.bias", "0.weight", "0.bias"]
    got = h.series["grad.norm"][2]
    assert np.isnan(got[:2]).all()
    np.testing.assert_allclose(got[2:], norms[2:], rtol=1e-5)
    np.testing.assert_allclose(h.hypers["lr"], [[0.1] * 4, [np.nan] * 2 + [0.5] * 2], rtol=1e-6)
    np.testing.assert_allclose(h.hypers["initial_lr"], [[np.nan] * 2 + [0.1] * 2, [np.nan] * 2 + [0.5] * 2], rtol=1e-6)


def test_what_is_no_model_and_no_optimizer():
    with pytest.raises(UsageError, match="not of a function"):
        pellucid.watch(lambda x: x)
    with pytest.raises(UsageError, match="a list has no step"):
        pellucid.watch(net(), [sgd(net())])


def test_nothing_to_choose():
    with pytest.raises(UsageError, match=r"modules=\[\] chooses nothing"):
        pellucid.watch(net(), modules=[])


def test_a_std_beyond_float32_is_infinite_without_a_numpy_warning():
    with pellucid.watch(nn.Linear(2, 2).double()) as seen:
        seen.model(torch.full((3, 2), 1e300, dtype=torch.float64))
    assert np.isinf(seen.history.train.max).all()
