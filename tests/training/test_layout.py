"""Channels-last training: only where it is safe, and gone when the fit ends."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import perf_counter

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pellucid.data.loader import DataLoaders
from pellucid.nn.layers import CallableModel, Flatten, sequential
from pellucid.optim.optimizers import Adam
from pellucid.training.callbacks.core import Callback
from pellucid.training.callbacks.recorder import Recorder
from pellucid.training.layout import channels_last
from pellucid.training.learner import Learner


class Viewing(nn.Module):
    """A user's network whose forward needs the standard layout."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).view(x.shape[0], -1)


def make() -> nn.Sequential:
    torch.manual_seed(0)
    return sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3, 2), Flatten())


def train(model: nn.Module, opt: torch.optim.Optimizer, steps: int) -> None:
    x, y = torch.randn(16, 3, 8, 8), torch.randint(0, 4, (16,))
    for _ in range(steps):
        F.cross_entropy(model(x), y).backward()
        opt.step()
        opt.zero_grad()


def is_standard(model: nn.Module, opt: torch.optim.Optimizer) -> bool:
    states = [v for state in opt.state.values() for v in state.values() if isinstance(v, Tensor)]
    return all(t.is_contiguous() for t in [*model.parameters(), *states])


def test_layout_changes_inside_and_comes_back():
    model = make()
    opt = Adam(model.parameters(), lr=0.01)
    with pytest.raises(KeyError), channels_last(model, opt):
        train(model, opt, 1)
        assert model[3](torch.randn(2, 8, 5, 5)).is_contiguous(memory_format=torch.channels_last)
        assert not is_standard(model, opt)
        raise KeyError
    assert is_standard(model, opt)


def test_training_continues_the_same_in_either_layout():
    trained = []
    for fast in (True, False):
        model = make()
        opt = Adam(model.parameters(), lr=0.01)
        for _ in range(2):
            torch.manual_seed(1)
            if fast:
                with channels_last(model, opt):
                    train(model, opt, 3)
            else:
                train(model, opt, 3)
        trained.append(model.state_dict())
    for fast, plain in zip(trained[0].values(), trained[1].values(), strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-3, atol=1e-4)


def test_code_that_views_activations_still_runs():
    model = Viewing()
    opt = Adam(model.parameters(), lr=0.01)
    with channels_last(model, opt):
        assert is_standard(model, opt)
        model(torch.randn(2, 3, 8, 8)).sum().backward()


def conv(model: nn.Module) -> nn.Conv2d:
    return next(m for m in model.modules() if isinstance(m, nn.Conv2d) and m.in_channels > 1)


def test_weights_stay_in_their_own_memory_and_order():
    model = make()
    model[3].weight.data = model[3].weight.data.contiguous(memory_format=torch.channels_last)  # the user's own wish
    before = [(p.data_ptr(), p.stride()) for p in model.parameters()]
    opt = Adam(model.parameters(), lr=0.01)
    for _ in range(2):
        with channels_last(model, opt):
            assert all(m.weight.is_contiguous(memory_format=torch.channels_last) for m in (model[0], model[3]))
            train(model, opt, 1)
    assert [(p.data_ptr(), p.stride()) for p in model.parameters()] == before


def by_numpy(model: nn.Module) -> object:
    return conv(model).weight.detach().numpy()


def by_data(model: nn.Module) -> object:
    model.append(nn.Sequential(nn.Identity()))  # no second use, the tie alone
    other = nn.Conv2d(*reversed(conv(model).weight.shape[:2]), 3)
    other.weight.data = conv(model).weight.data
    return other


def by_view(model: nn.Module) -> object:
    return conv(model).weight.data[1:]


def by_state_dict(model: nn.Module) -> object:
    return model.state_dict()


def by_processes(model: nn.Module) -> object:
    return model.share_memory()


@pytest.mark.parametrize("look", [by_numpy, by_data, by_view, by_state_dict, by_processes])
def test_weights_that_others_look_at_stay_where_they_are(look):
    model = make()
    seen = look(model)
    opt = Adam(model.parameters(), lr=0.01)
    place = conv(model).weight.data_ptr()
    with channels_last(model, opt):
        train(model, opt, 1)
        assert conv(model).weight.data_ptr() == place
    del seen
    if look is not by_processes:
        with channels_last(model, opt):
            assert conv(model).weight.data_ptr() != place


class Views(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.view(len(x), -1)


def patched() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3))
    body = model.forward
    model.forward = lambda x: body(x).view(len(x), -1)  # type: ignore[method-assign]
    return model


FOREIGN = {
    "a module": Viewing,
    "a child": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3), Views()),
    "patched": patched,
    "traced by fx": lambda: torch.fx.symbolic_trace(Viewing()),
    "scripted": lambda: torch.jit.trace(Viewing(), torch.randn(2, 3, 8, 8)),
    "a callable": lambda: CallableModel(Viewing()),
}


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_code_of_others_in_every_form_keeps_the_standard_layout(kind):
    model = FOREIGN[kind]()
    opt = Adam(Viewing().parameters() if kind == "a callable" else model.parameters(), lr=0.01)
    with channels_last(model, opt):
        assert is_standard(model, opt)
        model(torch.randn(2, 3, 8, 8)).sum().backward()


def test_moments_of_parameters_outside_the_model_keep_their_order():
    model, outside = make(), nn.Parameter(torch.randn(2, 3, 4, 4))
    opt = Adam([*model.parameters(), outside], lr=0.01)
    plain, theirs = make(), nn.Parameter(outside.detach().clone())
    opts = [opt, torch.optim.AdamW([*plain.parameters(), theirs], 0.01, (0.9, 0.99), 1e-5, 0.01, foreach=False)]
    weights = torch.arange(96.0).reshape(outside.shape)
    for step in range(4):
        with channels_last(model, opt):
            for tensor, each in zip((outside, theirs), opts, strict=True):
                (weights * tensor - step).square().sum().backward()
                each.step()
                each.zero_grad()
    torch.testing.assert_close(outside, theirs)


def test_a_callback_may_change_the_type_of_the_model():
    model = make()
    opt = Adam(model.parameters(), lr=0.01)
    with channels_last(model, opt):
        train(model, opt, 1)
        model.double()
    assert all(p.dtype == torch.float64 for p in model.parameters())
    with channels_last(model, opt):
        model(torch.randn(4, 3, 8, 8).double()).sum().backward()
        opt.step()


def averaged() -> nn.Sequential:
    torch.manual_seed(0)
    return sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.AdaptiveAvgPool2d(1), Flatten())


def batches() -> list[tuple[Tensor, Tensor]]:
    torch.manual_seed(2)
    return [(torch.randn(16, 3, 8, 8), torch.randint(0, 4, (16,))) for _ in range(4)]


def noisy(p: Tensor) -> None:
    p.grad = torch.zeros(p.shape) + p.grad


def masked(p: Tensor) -> None:
    p.grad = torch.where(torch.ones(p.shape, dtype=torch.bool), p.grad, torch.zeros(()))


def reshaped(p: Tensor) -> None:
    p.grad = p.grad.flatten().view(p.shape)


def clamped(p: Tensor) -> None:
    p.data = torch.clamp(p.data, -1, 1).contiguous()


def outer(w: Tensor) -> Tensor:
    flat = w.view(w.size(0), -1)
    return (flat @ flat.T).square().sum()


def by_hand(model: nn.Module, make_opt, edit, loss_func) -> None:
    opt = make_opt(model.parameters(), lr=0.01)
    for x, y in batches():
        loss = loss_func(model)(model(x), y)
        loss.backward()
        for p in model.parameters():
            edit(p)
        opt.step(lambda loss=loss: loss)
        opt.zero_grad()


def editing(model: nn.Module, edit) -> Callback:
    return Callback(before_step=lambda _: [edit(p) for p in model.parameters()])


def plain(model: nn.Module):
    return F.cross_entropy


def regularised(model: nn.Module):
    return lambda output, y: F.cross_entropy(output, y) + 0.01 * outer(model[0].weight)


@pytest.mark.parametrize("edit", [noisy, masked, reshaped, clamped, lambda p: torch.nn.utils.parameters_to_vector([p])])
@pytest.mark.parametrize("loss_func", [plain, regularised])
@pytest.mark.parametrize(
    "make_opt", [partial(Adam, wd=0.0), partial(torch.optim.AdamW, fused=True, weight_decay=0.0), torch.optim.SGD]
)
@pytest.mark.parametrize("seen", ["fresh", "a gradient from before", "hooked"])
def test_gradients_of_any_order_reach_their_weights(edit, loss_func, make_opt, seen):
    results, seen_by_hook = [], []
    for fit in (False, True):
        model = averaged()
        x, y = batches()[0]
        if seen == "a gradient from before":
            F.cross_entropy(model(x), y).backward()
        if seen == "hooked":
            model[0].register_forward_hook(
                lambda module, _, output: seen_by_hook.append(output.view(len(output), -1).mean())
            )
        if fit:
            learn = Learner(DataLoaders(batches(), None), model, loss_func(model), opt_func=make_opt, lr=0.01)
            with learn.no_bar(), learn.no_logging():
                learn.fit(1, cbs=editing(model, edit))
        else:
            by_hand(model, make_opt, edit, loss_func)
        results.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.testing.assert_close(*results, atol=2e-6, rtol=0)


@pytest.mark.parametrize("make_opt", [partial(Adam, wd=0.0), torch.optim.SGD])
def test_a_gradient_from_before_an_ordinary_fit(make_opt):
    results = []
    for fit in (False, True):
        model = averaged()
        x, y = batches()[0]
        F.cross_entropy(model(x), y).backward()
        if fit:  # nothing of others runs inside: the weights are channels-last, the gradient is not
            with Learner(DataLoaders(batches(), None), model, opt_func=make_opt, lr=0.01).no_bar() as learn:
                learn.fit(1)
        else:
            by_hand(model, make_opt, lambda p: None, plain)
        results.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.testing.assert_close(*results, atol=2e-6, rtol=0)


def test_lbfgs_trains_convolutions():
    learn = Learner(DataLoaders(batches(), None), make(), opt_func=torch.optim.LBFGS, lr=0.1)
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
    assert len(learn.recorder.losses) == 4


def test_ordinary_fits_are_channels_last():
    model, inside = make(), []

    class Looks(Recorder):
        """A callback of ours, as far as the layout is concerned."""

        def after_step(self) -> None:
            inside.append(model[0].weight.is_contiguous(memory_format=torch.channels_last))

    Looks.__module__ = "pellucid.training.callbacks.recorder"
    learn = Learner(DataLoaders(batches(), None), model, cbs=Looks)
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
    assert inside == [True] * 4 and model[0].weight.is_contiguous()


class Timer(Callback):
    """As users time their epochs."""

    def before_epoch(self) -> None:
        self.began = perf_counter()

    def after_epoch(self) -> None:
        ends.append(perf_counter() - self.began)

    def after_batch(self) -> None:
        if self.training:
            seen_losses.append(self.loss.item())


class Focal(nn.Module):
    def forward(self, output: Tensor, y: Tensor) -> Tensor:
        loss = F.cross_entropy(output, y, reduction="none")
        return ((1 - (-loss).exp()) ** 2 * loss).mean()


class Weighty(Callback):
    def after_epoch(self) -> None:
        self.norm = helper(self)


class Nets(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, output: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(output, y)


def helper(callback: Callback) -> float:
    return callback.model[0].weight.view(-1).norm().item()


def smooth(output: Tensor, y: Tensor, by: float = 0.1) -> Tensor:
    return F.cross_entropy(output, y, label_smoothing=by)


ends: list[float] = []
seen_losses: list[float] = []
held = make()


def unbound() -> Callable[[Tensor, Tensor], Tensor]:
    """A loss that names something which is bound only later, if ever."""

    def loss(output: Tensor, y: Tensor) -> Tensor:
        return smooth(output, y) * (later if len(y) < 0 else 1)

    if ends:
        later = 2.0
    return loss


HARMLESS = {
    "a timer": Timer(),
    "a loss": smooth,
    "a partial": partial(smooth, by=0.2),
    "a lambda": lambda output, y: smooth(output, y) * 2,
    "a loss module": Focal(),
    "an empty closure": unbound(),
    "a callback of functions": Callback(after_epoch=lambda self: ends.append(self.epoch)),
}
REACHING = {
    "a global model": lambda output, y: F.cross_entropy(output, y) + outer(held[0].weight),
    "by a helper": Weighty(),
    "through a closure": regularised(held),
    "a loss that is a network": Nets(held),
    "a partial": partial(lambda net, output, y: F.cross_entropy(output, y), held),
    "a callback of functions": Callback(after_epoch=lambda self: self.model.parameters()),
    "hidden in a list": partial(lambda nets, output, y: F.cross_entropy(output, y), [held[0].weight]),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_code_that_cannot_reach_a_weight_does_not_slow_training(name):
    model = make()
    opt = Adam(model.parameters(), lr=0.01)
    with channels_last(model, opt, [HARMLESS[name]]):
        assert not is_standard(model, opt)


@pytest.mark.parametrize("name", REACHING)
def test_code_that_might_reach_a_weight_finds_the_standard_layout(name):
    model = make()
    opt = Adam(model.parameters(), lr=0.01)
    with channels_last(model, opt, [REACHING[name]]):
        assert is_standard(model, opt)


def test_a_fit_with_a_timer_and_a_loss_of_ones_own_is_the_fit_by_hand():
    learn = Learner(DataLoaders(batches(), None), averaged(), smooth, opt_func=torch.optim.SGD, lr=0.01, cbs=Timer())
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
    model = averaged()
    by_hand(model, torch.optim.SGD, lambda p: None, lambda model: smooth)
    for ours, theirs in zip(learn.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=0)
