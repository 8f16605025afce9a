"""The optimizer's parameters are what the learner says they are, whatever was done to the model between two fits.

The loops by hand keep one optimizer of torch's for each parameter, made when the parameter is first trained: there
nothing has to be grouped, matched or carried over.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import TensorDataset

from pellucid.data.loader import DataLoaders
from pellucid.errors import TrainingError, UsageError
from pellucid.optim.groups import params, split_at, trainable_params
from pellucid.optim.optimizers import SGD, Adam
from pellucid.training.callbacks.core import Callback
from pellucid.training.callbacks.progress import ProgressCallback
from pellucid.training.learner import Learner

LR, WD = 0.01, 0.1


def loaders() -> DataLoaders:
    rng = torch.Generator().manual_seed(0)
    data = TensorDataset(torch.randn(24, 6, generator=rng), torch.randn(24, 4, generator=rng))
    return DataLoaders(TorchDataLoader(data, 8), TorchDataLoader(data, 8), device="cpu")


class Loss(nn.Module):
    """A loss with weights, one of them of four axes in channels-last order."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 4))
        kernel = torch.linspace(-1, 1, 2 * 3 * 2 * 2).reshape(2, 3, 2, 2)
        self.kernel = nn.Parameter(kernel.contiguous(memory_format=torch.channels_last))

    def forward(self, pred: Tensor, targ: Tensor) -> Tensor:
        picture = nn.functional.conv2d(pred[:, :, None, None].expand(-1, 4, 3, 3)[:, :3], self.kernel)
        return ((pred - targ) * self.scale).square().mean() + 0.1 * picture.square().mean()


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh()),
        *(nn.Unflatten(1, (6, 1, 1)), nn.Conv2d(6, 6, 1), nn.Flatten(), nn.Linear(6, 4)),
    )


class Hand:
    """A loop by hand: `groups` of parameters as a splitter gives them, one torch optimizer a parameter."""

    def __init__(self, make: Callable[[Tensor, float], Any]):
        self.make, self.opts = make, {}

    def fit(self, model: nn.Module, loss_func: nn.Module, groups: list[list[Tensor]], dls: DataLoaders) -> None:
        biases = {id(p) for name, p in model.named_parameters() if name.endswith("bias")}
        norms = {id(p) for m in model.modules() if isinstance(m, nn.BatchNorm1d) for p in m.parameters()}
        order: dict[int, Tensor] = {}
        for group in groups:
            fresh = [p for p in group if id(p) not in order]
            plain = [p for p in fresh if id(p) in biases | norms]
            order |= {id(p): p for p in [*(p for p in fresh if id(p) not in biases | norms), *plain]}
        for key, p in order.items():
            opt = self.opts.setdefault(key, self.make(p, 0.0 if key in biases | norms else WD))
            for name, value in opt.state[p].items():
                if value.shape == p.shape:  # torch's fused kernels ask for the memory order of the parameter
                    opt.state[p][name] = torch.empty_like(p).detach().copy_(value)
        model.train()
        for xb, yb in dls.train:
            loss_func(model(xb), yb).backward()
            for key in order:
                self.opts[key].decay()
            for key in order:
                self.opts[key].step()
            for p in [*model.parameters(), *loss_func.parameters(), *order.values()]:
                p.grad = None


class AdamByHand(torch.optim.AdamW):
    def __init__(self, p: Tensor, wd: float):
        super().__init__([p], LR, (0.9, 0.99), 1e-5, wd, fused=True)

    def decay(self) -> None: ...


class SGDByHand(torch.optim.SGD):
    def __init__(self, p: Tensor, wd: float):
        super().__init__([p], LR, momentum=0.9)
        self.p, self.kept = p, 1 - LR * wd

    @torch.no_grad()
    def decay(self) -> None:
        if self.p.grad is not None:
            self.p.mul_(self.kept)


OPTIMIZERS: dict[str, tuple[Any, Any]] = {"Adam": (Adam, AdamByHand), "SGD": (partial(SGD, mom=0.9), SGDByHand)}


# Edits of a model and its loss. Each is done alike to the learner's and to the one trained by hand.
def nothing(model: nn.Module, loss: nn.Module) -> None: ...


def new_head(model: nn.Module, loss: nn.Module) -> None:
    torch.manual_seed(3)
    model[8] = nn.Linear(6, 4)


def new_kernel(model: nn.Module, loss: nn.Module) -> None:
    torch.manual_seed(4)
    model[6].weight = nn.Parameter(torch.randn(6, 6, 1, 1))


def longer(model: nn.Module, loss: nn.Module) -> None:
    torch.manual_seed(5)
    model.append(nn.Linear(4, 4))


def tied(model: nn.Module, loss: nn.Module) -> None:
    model[3].weight = model[0].weight


def tied_data(model: nn.Module, loss: nn.Module) -> None:
    model[3].weight.data = model[0].weight.data


def tied_kernel(model: nn.Module, loss: nn.Module) -> None:
    model[6].weight.data = model[3].weight.data[:, :, None, None]


def frozen(model: nn.Module, loss: nn.Module) -> None:
    model[0].requires_grad_(False)


def half_frozen(model: nn.Module, loss: nn.Module) -> None:
    model[6].weight.requires_grad_(False)
    loss.kernel.requires_grad_(False)


def thawed(model: nn.Module, loss: nn.Module) -> None:
    model.requires_grad_(True)
    loss.requires_grad_(True)


def channels_last(model: nn.Module, loss: nn.Module) -> None:
    model.to(memory_format=torch.channels_last)


def standard(model: nn.Module, loss: nn.Module) -> None:
    loss.to(memory_format=torch.contiguous_format)


def assigned(model: nn.Module, loss: nn.Module) -> None:
    model.load_state_dict({k: v.clone() for k, v in model.state_dict().items()}, assign=True)


def in_place(model: nn.Module, loss: nn.Module) -> None:
    with torch.no_grad():
        model[0].weight.mul_(0.5)
        loss.kernel.data = loss.kernel.data * 2


def looked_at(model: nn.Module, loss: nn.Module) -> None:
    model.looks = [p.detach().numpy() for p in model.parameters()]


EDITS = [
    *(nothing, new_head, new_kernel, longer, tied, tied_data, tied_kernel, frozen, half_frozen, thawed),
    *(channels_last, standard, assigned, in_place, looked_at),
]
SPLITTERS: dict[str, Callable[[Any, nn.Module], Any]] = {
    "everything": lambda model, loss: [[*params(model), *params(loss)]],
    "groups": lambda model, loss: [params(model[:3]), params(model[3:]), params(loss)],
    "loss first": lambda model, loss: [params(loss), params(model)],
    "without the loss": lambda model, loss: [params(model)],
    "trainable only": lambda model, loss: [trainable_params(model), trainable_params(loss)],
    "twice": lambda model, loss: [params(model), [*params(model[:3]), *params(loss)]],
}


def by_learner(kind: str, splitter: str, edits: Iterable[Callable]) -> tuple[nn.Module, nn.Module]:
    model, loss = network(), Loss()
    learn = Learner(loaders(), model, loss, OPTIMIZERS[kind][0], LR, lambda m: SPLITTERS[splitter](m, loss), wd=WD)
    learn.remove_cb(ProgressCallback)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the loss has parameters that are not trained")
        for edit in (nothing, *edits):
            edit(model, loss)
            learn.fit(1)
    return model, loss


def by_hand(kind: str, splitter: str, edits: Iterable[Callable]) -> tuple[nn.Module, nn.Module]:
    model, loss, hand = network(), Loss(), Hand(OPTIMIZERS[kind][1])
    for edit in (nothing, *edits):
        edit(model, loss)
        hand.fit(model, loss, SPLITTERS[splitter](model, loss), loaders())
    return model, loss


def assert_same(ours: tuple[nn.Module, ...], theirs: tuple[nn.Module, ...]) -> None:
    for module, other in zip(ours, theirs, strict=True):
        expected = other.state_dict()
        for name, value in module.state_dict().items():
            torch.testing.assert_close(
                value, expected[name], rtol=0, atol=0, msg=lambda text, name=name: f"{name}: {text}"
            )


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_after_any_edit_two_fits_equal_a_loop_by_hand_bit_for_bit(kind, edit):
    assert_same(by_learner(kind, "everything", [edit, nothing]), by_hand(kind, "everything", [edit, nothing]))


@settings(max_examples=25)
@given(
    st.sampled_from(sorted(OPTIMIZERS)),
    st.sampled_from(sorted(SPLITTERS)),
    st.lists(st.sampled_from(EDITS), min_size=1, max_size=4),
)
@example("Adam", "trainable only", [frozen, thawed])  # its moments come back with it
@example("SGD", "trainable only", [frozen, nothing, half_frozen, thawed, nothing])
def test_after_any_mix_of_edits_fits_equal_a_loop_by_hand_bit_for_bit(kind, splitter, edits):
    try:
        trained = by_learner(kind, splitter, edits)
    except TrainingError:  # a mix that makes the loss explode, by hand too
        assume(False)
    else:
        assert_same(trained, by_hand(kind, splitter, edits))


def learner(model: Any = None, loss: Any = None, **options: Any) -> Learner:
    torch.manual_seed(0)
    loss = loss or nn.functional.mse_loss
    learn = Learner(
        loaders(), model or nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 4)), loss, **options
    )
    learn.remove_cb(ProgressCallback)
    return learn


def weights(model: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def moved(before: list[Tensor], model: nn.Module) -> list[bool]:
    return [not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)]


class Holder:
    """A callable object, no module, that holds some."""

    def __init__(self, net: nn.Module):
        self.parts = list(net)

    def __call__(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = part(x)
        return x


CALLABLES: dict[str, Callable[[nn.Module], Callable]] = {
    "lambda": lambda net: lambda x: net(x),
    "bound method": lambda net: net.forward,
    "partial": lambda net: partial(net),
    "keyword": lambda net: partial(lambda x, net: net(x), net=net),
    "object": Holder,
}


@pytest.mark.parametrize("kind", CALLABLES)
def test_callables_of_every_kind_train_evaluate_and_are_saved_as_the_module_would(kind, tmp_path):
    plain = learner(path=tmp_path)
    plain.fit(2, LR)
    net = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 4))
    torch.manual_seed(0)
    for layer in (net[0], net[2]):
        layer.reset_parameters()
    learn = learner(CALLABLES[kind](net), path=tmp_path)
    learn.fit(2, LR)
    assert_same((net,), (plain.model,))
    assert torch.equal(learn.get_preds()[0], plain.get_preds()[0])  # batch norm in evaluation mode
    learn.save("callable")
    before = weights(net)
    learn.fit(1, LR)
    learn.load("callable")
    assert not any(moved(before, net))


def test_parameters_that_a_function_uses_are_its_own():
    weight = nn.Parameter(torch.zeros(6, 4))
    learn = learner(lambda x: x @ weight)
    learn.fit(1, LR)
    assert weight.abs().sum() > 0


def test_parameters_of_the_loss_are_trained_or_it_is_said_that_they_are_not():
    loss = Loss()
    with pytest.warns(
        UserWarning, match=r"loss has parameters that are not trained \('scale', 'kernel'\): give a splitter"
    ):
        learner(loss=loss).fit(1)
    loss.requires_grad_(False)
    learner(loss=loss).fit(1)


def test_a_splitter_that_still_gives_a_layer_that_was_replaced():
    learn = learner()
    first, last = learn.model[0], learn.model[2]
    learn.splitter = lambda m: [params(first), params(last)]
    learn.fit(1)
    learn.model[2] = nn.Linear(5, 4)
    with pytest.warns(UserWarning, match=r"2 of the param.* '1.weight', '1.bias', '2.weight' and 1 more of the"):
        learn.fit(1)
    learn.splitter = lambda m: params(m[2])  # left out on purpose: nothing to say
    learn.fit(1)


def test_an_optimizer_assigned_by_hand_is_trained_with_as_it_is():
    learn, hand = learner(), learner().model

    def make(net: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD([{"params": net[0].parameters(), "lr": 0.1}, {"params": net[2].parameters()}], 0.01, 0.9)

    learn.opt, opt = make(learn.model), make(hand)
    for lrs in (None, None, [0.02, 0.03], None):
        learn.fit(1, lrs)
        for group, lr in zip(opt.param_groups, lrs or [0.1, 0.01], strict=True):
            group["lr"] = lr
        hand.train()
        for xb, yb in learn.dls.train:
            nn.functional.mse_loss(hand(xb), yb).backward()
            opt.step()
            hand.zero_grad()
    assert_same((learn.model,), (hand,))
    learn.opt.param_groups[1]["lr"] = 0.5  # a user's setting stays
    learn.fit_one_cycle(1)
    assert [group["lr"] for group in learn.opt.param_groups] == [0.1, 0.5]
    assert learn.recorder.hypers["lr"][0] == pytest.approx([0.1 / 25, 0.5 / 25])
    assert type(learn.opt) is torch.optim.SGD
    learn.lr_find(num_it=10, suggest_funcs=None)
    learn.opt.add_param_group({"params": learn.model[1].parameters()})
    before = weights(learn.model)
    learn.fit(1, 0.01)
    assert all(moved(before, learn.model)[2:])


def test_an_optimizer_of_nothing_that_the_model_has():
    learn = learner()
    learn.opt = torch.optim.SGD([nn.Parameter(torch.ones(1))], 0.1)
    with pytest.warns(UserWarning, match="1 of the parameters that will be trained are not the model's"):
        learn.fit(1)
    learn.opt = torch.optim.SGD([nn.Parameter(torch.ones(1), requires_grad=False)], 0.1)
    with pytest.raises(UsageError, match="no trainable parameters"):
        learn.fit(1)


def test_gradients_of_parameters_outside_the_optimizer_do_not_pile_up():
    learn = learner(splitter=lambda m: params(m[2]))
    learn.fit(2)
    assert all(p.grad is None for p in learn.model.parameters())


def test_lbfgs_evaluates_the_loss_itself_as_in_a_loop_by_hand():
    learn, hand = learner(opt_func=partial(torch.optim.LBFGS, max_iter=5)), learner().model
    steps = []
    learn.fit(2, 0.1, cbs=Callback(after_step=lambda self: steps.append(self.loss)))
    opt = torch.optim.LBFGS(hand.parameters(), 0.1, max_iter=5)
    for _ in range(2):
        hand.train()
        for xb, yb in learn.dls.train:

            def closure(xb=xb, yb=yb):
                opt.zero_grad()
                loss = nn.functional.mse_loss(hand(xb), yb)
                loss.backward()
                return loss

            opt.step(closure)
    assert_same((learn.model,), (hand,))
    assert len(steps) == 6
    learn.fit_one_cycle(1)
    with pytest.raises(UsageError, match="no optimizer of 2 parameter groups could be made: LBFGS"):
        learner(opt_func=torch.optim.LBFGS, splitter=split_at(1)).fit(1)


@pytest.mark.parametrize(
    "opt_func",
    [torch.optim.Adagrad, torch.optim.Rprop, torch.optim.RMSprop, torch.optim.SGD, SGD, torch.optim.Adadelta],
)
def test_one_cycle_leaves_an_optimizer_without_momentum_without(opt_func):
    learn = learner(opt_func=opt_func)
    learn.fit_one_cycle(1, 0.01)
    rates = learn.recorder.hypers
    assert rates["lr"][1] != rates["lr"][0] and rates.get("mom", [[0.0]]) == [[0.0]] * len(rates.get("mom", [0]))
    assert learn.opt.param_groups[0].get("momentum", 0) == 0


def test_one_cycle_schedules_momentum_where_there_is_some():
    for opt_func in (Adam, partial(SGD, mom=0.9), partial(torch.optim.RMSprop, momentum=0.5), torch.optim.NAdam):
        learn = learner(opt_func=opt_func)
        learn.fit_one_cycle(1, 0.01, moms=torch.tensor([0.5, 0.25, 0.5]))
        assert learn.recorder.hypers["mom"][0] == [0.5] and type(learn.recorder.hypers["mom"][1][0]) is float


def test_norms_and_biases_decay_and_freeze_as_asked():
    for wd_bn_bias, train_bn in ((False, True), (True, False)):
        learn = learner(wd_bn_bias=wd_bn_bias, train_bn=train_bn, splitter=split_at(-1), wd=0.5)
        learn.freeze()
        before = weights(learn.model)
        learn.fit(1)
        decays = {id(p): g["weight_decay"] for g in learn.opt.param_groups for p in g["params"]}
        decayed = [decays[id(p)] > 0 for p in learn.model.parameters()]
        assert decayed == [True, wd_bn_bias, wd_bn_bias, wd_bn_bias, True, wd_bn_bias]
        assert moved(before, learn.model) == [False, False, train_bn, train_bn, True, True]


def test_none_stands_for_the_default():
    learn = Learner(loaders(), nn.Linear(6, 4), None, cbs=None, metrics=None, path=None, splitter=None, wd=None)
    assert learn.loss_func is nn.functional.cross_entropy
    learn.loss_func = nn.functional.mse_loss
    learn.fit(1, None, None, None)
    assert learn.opt.param_groups[0]["lr"] == 1e-3


@pytest.mark.parametrize("surroundings", [torch.no_grad, torch.inference_mode])
def test_training_works_where_gradients_are_switched_off(surroundings):
    plain, learn = learner(), learner()
    plain.fit(1, LR)
    with surroundings():
        learn.fit(1, LR)
        found = learn.lr_find(num_it=10, suggest_funcs=None)
        assert learn.validate() == plain.validate() and len(found.losses) == 10
    assert_same((learn.model,), (plain.model,))
    with torch.inference_mode():
        made = learner()
    with pytest.raises(UsageError, match=r"made inside torch.inference_mode"):
        made.fit(1)


def test_lazy_modules_find_their_sizes_before_the_optimizer_is_made():
    lazy = nn.Sequential(nn.LazyLinear(5), nn.LazyBatchNorm1d(), nn.Linear(5, 4))
    learn = learner(lazy, splitter=split_at(1))
    learn.freeze()
    learn.fit(1)
    assert lazy[0].weight.shape == (5, 6) and len(learn.opt.state) == 4
    assert all(m.training for m in learner(nn.Sequential(nn.LazyLinear(4))).model.modules())


@pytest.mark.parametrize("kind", [float, np.float32, np.array, torch.tensor])
def test_numbers_of_any_kind_are_arguments_of_a_fit(kind):
    rates = []
    for of in (float, kind):
        learn = learner(lr=of(0.25))
        moms = [of(0.5), of(0.25), of(0.5)]
        fits = [
            lambda learn=learn, of=of: learn.fit(2, of(0.5), wd=of(0.125)),
            lambda learn=learn, of=of, moms=moms: learn.fit_one_cycle(
                1, slice(of(0.125), of(0.5)), of(4), of(100), of(0.5), of(0.25), moms
            ),
            lambda learn=learn, of=of: learn.fit_flat_cos(1, None, of(10), of(0.5)),
            lambda learn=learn, of=of: learn.fine_tune(1, of(0.5), 1, of(10), of(0.25), of(4)),
            lambda learn=learn: learn.fit(1),
        ]
        for fit in fits:
            fit()
            for values in learn.recorder.hypers.values():
                assert all(type(value) is float for step in values for value in step)
                rates.append([list(step) for step in values])
    half = len(rates) // 2
    for ours, theirs in zip(rates[:half], rates[half:], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)  # schedules of float32 numbers are float32's


@pytest.mark.parametrize("n", [np.int64(2), torch.tensor(2), np.array(2)])
def test_numbers_of_epochs(n):
    learn = learner()
    learn.fit(n)
    assert len(learn.recorder.values) == 2
    for wrong, said in ((0, "at least 1, got 0"), (1.5, "a whole number, got 1.5"), ("2", "a whole number, got '2'")):
        with pytest.raises(UsageError, match=f"n_epoch must be {said}"):
            learn.fit(wrong)
