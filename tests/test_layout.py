"""Channels-last training: only where it is safe, and gone when the fit ends."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pellucid.layers import CallableModel, Flatten, sequential
from pellucid.layout import channels_last
from pellucid.optimizer import Adam


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
