"""Hooks keep what a layer put out or got as gradient at that time, as fastai's do, in a copy that nothing changes."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import TensorDataset

from pellucid.activations.hook import Hook, Hooks, hook_output, hook_outputs
from pellucid.data.block import DataLoaders
from pellucid.training.callbacks.progress import ProgressCallback
from pellucid.training.callbacks.statistics import HookCallback
from pellucid.training.learner import Learner

X = torch.randn(2, 3, generator=torch.Generator().manual_seed(1))


class Then(nn.Module):
    """Changes what the layer before it gave, in place."""

    def __init__(self, change):
        super().__init__()
        self.change = change

    def forward(self, x):
        self.change(x)
        return x


CHANGES = {
    "relu": lambda x: x.relu_(),
    "add": lambda x: x.add_(100),
    "slice": lambda x: x[:, 0].zero_(),
    "view": lambda x: x.view(-1).mul_(3),
    "out": lambda x: torch.mul(x, 0, out=x),
    "data": lambda x: x.data.fill_(7),
    "dropout": lambda x: nn.functional.dropout(x, 0.9, inplace=True),
}
STORES = {
    "output": lambda m, i, o: o,
    "input": lambda m, i, o: i,
    "part": lambda m, i, o: {"first": o[:1], "all": [o, (o.T,)]},
    "weight": lambda m, i, o: m.weight,
}


def flat(value) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [x for each in (value.values() if isinstance(value, dict) else value) for x in flat(each)]


@pytest.mark.parametrize("store", STORES.values(), ids=STORES)
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_is_stored_does_not_change(change, store):
    torch.manual_seed(0)
    layer, x = nn.Linear(3, 4), X.clone()
    want = [t.clone() for t in flat(store(layer, (x.clone(),), layer(x).detach()))]
    with torch.no_grad(), Hook(layer, store) as hook:
        nn.Sequential(layer, Then(change))(x)
        x.zero_()
        layer.weight.zero_()
    got = flat(hook.stored)
    assert len(got) == len(want)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
    assert not any(t.requires_grad for t in got)


def test_an_in_place_relu_behind_a_convolution():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True), nn.Dropout(0.5, inplace=True))
    x = torch.randn(2, 1, 6, 6)
    with hook_outputs(model) as hooks:
        out = model(x)
    conv, relu, dropped = hooks.stored
    assert repr(hooks[0]) == "Hook on Conv2d, removed; stored: Tensor 2×4×4×4"
    assert torch.equal(conv, model[0](x))
    assert torch.equal(relu, model[0](x).relu())
    assert torch.equal(dropped, out)


Pair = namedtuple("Pair", "a b")


@dataclass
class Out:
    y: Tensor
    name: str


@dataclass(frozen=True)
class Frozen:
    y: Tensor


KINDS = {
    "tensor": lambda y: y,
    "tuple": lambda y: (y, y),
    "list": lambda y: [y, (y,)],
    "dict": lambda y: {"y": y, "n": 3},
    "named tuple": lambda y: Pair(y, None),
    "structure": lambda y: torch.max(y, 1),
    "dataclass": lambda y: Out(y, "y"),
    "frozen dataclass": lambda y: [Frozen(y)],
    "packed": lambda y: nn.utils.rnn.pack_padded_sequence(y[None], torch.tensor([2]), batch_first=True),
    "nothing": lambda y: None,
}


def tensors(value) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if hasattr(value, "__dataclass_fields__"):
        value = vars(value)
    if isinstance(value, dict):
        value = list(value.values())
    return [x for each in value for x in tensors(each)] if isinstance(value, list | tuple) else []


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_outputs_of_every_kind_are_detached_copies(kind):
    class Layer(nn.Linear):
        def forward(self, x):
            return kind(super().forward(x))

    layer = Layer(3, 4)
    with hook_output(layer) as hook:
        out = layer(X)
    assert type(hook.stored) is type(out)
    assert len(tensors(hook.stored)) == len(tensors(out))
    for mine, theirs in zip(tensors(hook.stored), tensors(out), strict=True):
        assert torch.equal(mine, theirs)
        assert not mine.requires_grad
        assert mine.untyped_storage().data_ptr() != theirs.untyped_storage().data_ptr()


def test_without_detach_the_tensor_itself_is_kept():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    with hook_output(model[0], detach=False) as hook:
        out = model(X).sum()
    (grad,) = torch.autograd.grad(out, hook.stored)
    assert torch.equal(grad, model[1].weight.expand(2, 4))


def test_gradients_are_the_tuple_that_torch_gives():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    kept = []
    handle = model[0].register_full_backward_hook(lambda m, i, o: kept.append(o))
    with hook_output(model[0], grad=True) as hook, hook_outputs(model, grad=True) as hooks:
        model(X.clone().requires_grad_()).square().sum().backward()
    handle.remove()
    assert isinstance(hook.stored, tuple)
    assert len(hook.stored) == 1
    assert torch.equal(hook.stored[0], kept[0][0])
    assert [type(each) for each in hooks.stored] == [tuple] * 3
    assert torch.equal(hooks[2].stored[0], 2 * model(X).detach())


def test_hooks_go():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    with pytest.raises(ZeroDivisionError), Hooks(model, lambda m, i, o: o) as hooks:
        raise ZeroDivisionError
    model(X)
    assert hooks.stored == [None, None]
    assert repr(hooks) == "Hooks [Hook on Linear, removed; stored: NoneType, Hook on Linear, removed; stored: NoneType]"
    assert all(hook.removed for hook in hooks)


class Means(HookCallback):
    n = 0

    def hook(self, module, inputs, output):
        self.n += 1
        return output.mean()


@pytest.mark.parametrize("remove_end", [True, False])
@pytest.mark.parametrize("include_paramless", [True, False])
def test_a_hook_callback_takes_fastais_arguments(remove_end, include_paramless):
    data = TensorDataset(torch.randn(8, 3), torch.arange(8) % 2)
    dls = DataLoaders(TorchDataLoader(data, 4), TorchDataLoader(data, 4), device="cpu")
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    # fastai: HookCallback(modules, every, remove_end, is_forward, detach, cpu, include_paramless)
    means = Means(None, None, remove_end, True, True, True, include_paramless)
    learn = Learner(dls, model, cbs=means)
    learn.remove_cb(ProgressCallback)
    learn.fit(1, 0.01)
    layers = 3 if include_paramless else 2
    assert means.n == 4 * layers
    model(torch.randn(2, 3))
    assert means.n == (4 + (not remove_end)) * layers
    learn.fit(1, 0.01)
    assert means.n == (8 + (not remove_end)) * layers
    means.remove()
    assert not any(module._forward_hooks for module in model)
