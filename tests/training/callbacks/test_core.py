"""The callback protocol as code written for fastai relies on it."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import torch
from fastcore.basics import class2attr
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from pellucid.data.loader import DataLoaders
from pellucid.errors import UsageError
from pellucid.metrics import accuracy
from pellucid.optim.optimizers import SGD
from pellucid.schedule import linear
from pellucid.seed import set_seed
from pellucid.training.callbacks.core import (
    EVENTS,
    Callback,
    CancelBackwardException,
    CancelFitException,
    CancelTrainException,
)
from pellucid.training.callbacks.progress import ProgressCallback
from pellucid.training.callbacks.recorder import Recorder
from pellucid.training.callbacks.schedule import ParamScheduler
from pellucid.training.callbacks.statistics import ActivationStats, HookCallback
from pellucid.training.learner import Learner

N_TRAIN, N_VALID = 4, 2
LOOP = ["epoch", "n_epoch", "iter", "n_iter", "train_iter", "pct_train", "training", "x", "y", "xb", "yb", "pred"]
LOOP += ["loss", "loss_grad", "smooth_loss"]
LEARNER = ["model", "dls", "dl", "opt", "loss_func", "opt_func", "lr", "wd", "metrics", "path", "cbs", "recorder"]


def loaders(*tensors: torch.Tensor) -> DataLoaders:
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    tensors = tensors or (x, (x[:, 0] > 0).long())
    train = DataLoader(TensorDataset(*(t[:32] for t in tensors)), 8)
    return DataLoaders(train, DataLoader(TensorDataset(*(t[24:] for t in tensors)), 8), device="cpu")


def learner(**options) -> Learner:
    set_seed(0)
    learn = Learner(loaders(), nn.Linear(3, 2), **{"metrics": accuracy} | options)
    learn.remove_cb(ProgressCallback)
    return learn


def test_everything_of_the_moment_is_read_as_ones_own():
    def look(self):
        for name in [*LOOP, *LEARNER]:
            own, learners = getattr(self, name), getattr(self.learn, name)
            assert type(own) is type(learners)
            assert torch.equal(own, learners) if isinstance(own, torch.Tensor) else own == learners
        looked.append((self.training, self.x.shape, self.y.shape, self.pred.shape))

    looked: list = []
    learn = learner()
    learn.fit(1)
    last = Callback(after_batch=look)
    last.order = 99
    learn.fit(1, cbs=last)
    shapes = ((8, 3), (8,), (8, 2))
    assert looked == [(True, *shapes)] * N_TRAIN + [(False, *shapes)] * N_VALID


def test_batches_are_tuples_of_inputs_and_targets():
    def change(self):
        assert type(self.xb) is type(self.yb) is tuple and len(self.xb) == len(self.yb) == 1
        assert self.xb[0] is self.x and self.yb[0] is self.y
        self.learn.xb, self.learn.yb = (self.x + 1,), [1 - self.y]
        changed.append((self.x, self.y))

    changed: list = []
    learn = learner(cbs=Callback(before_batch=change))
    learn.fit(1, 0.0)
    x, y = learn.dls.train.dataset.tensors
    assert torch.equal(torch.cat([a for a, _ in changed[:N_TRAIN]]), x + 1)
    assert torch.equal(torch.cat([b for _, b in changed[:N_TRAIN]]), 1 - y)
    first = nn.functional.cross_entropy(learn.model(x[:8] + 1), 1 - y[:8])
    assert learn.recorder.losses[0] == pytest.approx(first.item(), rel=1e-6)


@pytest.mark.parametrize("name", ["xb", "yb"])
def test_a_bare_tensor_is_no_batch(name):
    def change(self):
        setattr(self.learn, name, getattr(self, name)[0])

    with pytest.raises(UsageError, match=rf"learn\.{name} is a tuple of tensors, got 8.*assign \(tensor,\)"):
        learner(cbs=Callback(before_batch=change)).fit(1)
    with pytest.raises(AttributeError):
        learner().x = torch.zeros(8, 3)


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, a, b):
        return self.layer(a) * b


@pytest.mark.parametrize("n_inp", [None, 1])
def test_the_last_of_several_tensors_is_the_target(n_inp):
    a, b, c = torch.randn(40, 3), torch.randn(40, 1), torch.randn(40, 1)
    dls = loaders(a, b, c)
    if n_inp is None:
        model, loss_func = TwoInputs(), nn.functional.mse_loss
        expected = nn.functional.mse_loss(model(a[:8], b[:8]), c[:8])
    else:
        dls.n_inp, model = n_inp, nn.Linear(3, 1)
        loss_func = lambda pred, targ, weight: (weight * (pred - targ) ** 2).mean()
        expected = (c[:8] * (model(a[:8]) - b[:8]) ** 2).mean()
    seen = Callback(after_loss=lambda self: shapes.add((len(self.xb), len(self.yb))))
    shapes: set = set()
    learn = Learner(dls, model, loss_func, cbs=seen)
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 0.0)
    assert shapes == {(2, 1) if n_inp is None else (1, 2)}
    assert learn.recorder.raw_losses[0] == pytest.approx(expected.item(), rel=1e-6)
    assert len(learn.get_preds(dl=dls.train)[0]) == 32


def test_a_batch_without_labels_is_reported():
    with pytest.raises(UsageError, match="has no labels"):
        Learner(loaders(torch.randn(40, 3)), nn.Linear(3, 2)).fit(1)


@pytest.mark.parametrize("name", ["loss", "model", "training", "xb", "lr", "x", "recorder"])
def test_assigning_the_learners_attribute_on_self_warns_and_leaves_the_learner_alone(name):
    def assign(self):
        value = getattr(self.learn, name)
        self.run = False
        with pytest.warns(UserWarning, match=rf"self\.{name} of Callback.*self\.learn\.{name} = ") as warned:
            setattr(self, name, "mine")
        assert warned[0].filename == __file__
        assert getattr(self, name) == "mine" and getattr(self.learn, name) is value

    learner(cbs=Callback(after_loss=assign)).fit(1, 0.0)


def test_ones_own_names_do_not_warn():
    class Own(Callback):
        def __init__(self, lr):
            self.lr = lr  # before there is a learner

        def before_fit(self):
            self.best, self._loss = self.lr, 1

    learn = learner(cbs=Own(7))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learn.fit(1, 0.0)
    assert learn.own.best == 7


def test_what_nobody_has():
    cb = Callback()
    with pytest.raises(AttributeError, match="Callback has no attribute 'model' and no learner"):
        _ = cb.model
    learner(cbs=cb)
    with pytest.raises(AttributeError, match="neither Callback nor its learner has 'no_such_thing'"):
        _ = cb.no_such_thing
    assert not hasattr(cb, "_handlers")  # the learner's own business


def test_copies_and_pickles_go_before_and_after_there_is_a_learner():
    cb = ParamScheduler({"lr": linear(1, 2)})
    assert copy.copy(cb).schedules is cb.schedules
    assert pickle.loads(pickle.dumps(ProgressCallback(False))).bar is False
    learn = learner(cbs=Recorder.__base__())
    learn.fit(1)
    assert copy.deepcopy(learn.recorder).losses == learn.recorder.losses


@given(st.from_regex(r"[A-Z][a-zA-Z0-9]{0,12}(Callback)?", fullmatch=True))
def test_names_are_fastais(name):
    cb = type(name, (Callback,), {})()
    assert cb.name == class2attr(cb, "Callback")


def test_events_as_functions():
    seen: list = []
    functions = {event: lambda self, event=event: seen.append((self, event)) for event in EVENTS}
    cb, other = Callback(**functions), Callback(after_fit=lambda self: seen.append((self, "after_fit")))
    learn = learner(cbs=[cb, other])
    assert seen == [(cb, "after_create")]
    learn.fit(1)
    assert {event for c, event in seen if c is cb} == {e for e in EVENTS if "cancel" not in e}
    assert (other, "after_fit") in seen and learn.callback is cb
    learn.remove_cbs([other, cb])
    assert not hasattr(learn, "callback") and [c.name for c in learn.cbs] == ["non_finite_guard", "recorder"]


def test_unknown_events_are_refused_by_name():
    with pytest.raises(UsageError, match=r"before_bath=….*no event; the events are after_create, before_fit"):
        Callback(before_bath=print)
    with pytest.raises(UsageError, match="no function but 3"):
        Callback(before_batch=3)


NEVER_CALLED = ["begin_fit", "begin_batch", "before_valid", "after_validation", "before_loss"]
NEVER_CALLED += ["on_epoch_end", "on_train_batch_end"]


@pytest.mark.parametrize("name", NEVER_CALLED)
def test_methods_that_look_like_events_are_refused(name):
    with pytest.raises(UsageError, match=rf"Mine\.{name} is never called; the events are"):
        learner(cbs=type("Mine", (Callback,), {name: lambda self: None}))


@pytest.mark.parametrize("name", ["run_after", "run_before", "toward_end"])
def test_fastais_old_ways_to_order_are_refused(name):
    with pytest.raises(UsageError, match=rf"Mine\.{name} has no effect.*order = Recorder.order \+ 1"):
        learner(cbs=type("Mine", (Callback,), {name: Recorder}))


def test_helpers_of_other_names_are_fine():
    names = ["after_party", "before_images", "on_gpu", "beginning", "after_batchnorm"]
    learner(cbs=type("Mine", (Callback,), {name: lambda self: None for name in names}))


class Count(Callback):
    def __init__(self):
        self.n = dict.fromkeys(EVENTS, 0)


def _counting(event: str):
    def count(self):
        self.n[event] += 1

    return count


for _event in EVENTS:
    setattr(Count, _event, _counting(_event))

OUTSIDE = ["before_fit", "before_epoch", "before_train", "after_train", "before_validate", "after_validate"]
OUTSIDE += ["after_epoch", "after_fit"]
TRAINED = ["before_backward", "after_backward", "before_step", "after_step"]
EACH = ["before_batch", "after_pred", "after_loss", "after_batch"]


def expected(n_train: int, n_valid: int, outside: int = 1) -> dict[str, int]:
    counts = dict.fromkeys(EVENTS, 0) | dict.fromkeys(OUTSIDE, outside) | dict.fromkeys(TRAINED, n_train)
    return counts | dict.fromkeys(EACH, n_train + n_valid) | {"cleanup_fit": 1}


@pytest.mark.parametrize("as_class_attribute", [True, False])
@pytest.mark.parametrize(
    ("flags", "counts"),
    [
        ({}, expected(N_TRAIN, N_VALID)),
        ({"run_valid": False}, expected(N_TRAIN, 0)),
        ({"run_train": False}, expected(0, N_VALID)),
        ({"run_train": False, "run_valid": False}, expected(0, 0)),
        ({"run": False}, expected(0, 0, outside=0)),
    ],
)
def test_run_flags(flags, counts, as_class_attribute):
    cb = type("Mine", (Count,), flags if as_class_attribute else {})()
    learn = learner()
    learn.add_cb(cb)
    for name, value in {} if as_class_attribute else flags.items():
        setattr(cb, name, value)
    learn.fit(1)
    assert cb.n == counts


def test_run_flags_hold_from_the_event_that_sets_them_and_run_comes_back():
    class Stops(Count):
        def after_train(self):
            self.run = False

        def before_batch(self):
            self.n["before_batch"] += 1
            if self.training and self.iter == 1:
                self.run_train = False

    cb = Stops()
    learn = learner(cbs=cb)
    learn.fit(1)
    assert cb.n["before_batch"] == cb.n["after_pred"] + 1 == 2 and cb.n["before_validate"] == 0
    assert cb.n["after_fit"] == 0 and cb.run and not cb.run_train
    learn.fit(1)
    assert cb.n["before_fit"] == 2 and cb.n["before_batch"] == 2


BUILT_IN = ["recorder", "progress", "non_finite_guard", "activation_stats", "shapes"]


class Shapes(HookCallback):
    def hook(self, module, inputs, output):
        return output.shape


@pytest.mark.parametrize("flag", ["run", "run_train", "run_valid"])
@pytest.mark.parametrize("name", BUILT_IN)
def test_our_own_callbacks_may_be_told_not_to_run(name, flag):
    learn = Learner(loaders(), nn.Linear(3, 2), cbs=[ActivationStats(with_hist=True), Shapes])
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
        setattr(getattr(learn, name), flag, False)
        learn.fit(2)
        setattr(getattr(learn, name), flag, False)
        learn.fit(1, cbs=Callback(before_train=lambda self: setattr(getattr(self.learn, name), flag, False)))
        if name != "recorder":
            assert len(learn.recorder.losses) == N_TRAIN and len(learn.recorder.values) == 1


def test_a_used_learner_can_be_copied_and_pickled():
    learn = learner(cbs=[ActivationStats, Count])
    learn.fit(1)
    for other in (copy.deepcopy(learn), pickle.loads(pickle.dumps(learn))):
        assert other.recorder.values == learn.recorder.values and other.recorder.losses == learn.recorder.losses
        assert other.count.learn is other and other.cbs[-1] is not learn.cbs[-1]
        other.fit(1)
        assert other.count.n["before_batch"] == 2 * (N_TRAIN + N_VALID)
    assert learn.count.n["before_batch"] == N_TRAIN + N_VALID


def test_events_and_order_set_or_patched_later_count():
    seen: list = []
    learn = learner(cbs=Callback(before_fit=lambda self: seen.append("first")))
    cb = type("Mine", (Callback,), {"before_fit": lambda self: seen.append("second")})()
    learn.add_cb(cb)
    learn.fit(1)
    cb.order = -1
    learn.fit(1)
    cb.before_fit = lambda: seen.append("new")
    learn.fit(1)
    type(cb).after_fit = lambda self: seen.append("patched")
    learn.fit(1)
    assert seen == ["first", "second", "second", "first", "new", "first", "new", "first", "patched"]


def test_counters_and_modes_are_fastais():
    """As fastai 2.8's TrainEvalCallback sets them, before any other callback of order ≥ −10 sees an event."""
    seen: list = []

    def look(event):
        return lambda self: seen.append((event, self.train_iter, self.pct_train, self.training, self.model.training))

    events = ["before_fit", "before_train", "before_batch", "after_batch", "after_train", "before_validate"]
    learn = learner()
    learn.fit(1)
    learn.fit(2, cbs=Callback(**{event: look(event) for event in events}))
    expected: list = [("before_fit", 0, 0.0)]
    for epoch in range(2):
        start = epoch * N_TRAIN
        expected.append(("before_train", start, epoch / 2))
        for i in range(start, start + N_TRAIN):
            expected += [("before_batch", i, i / 8), ("after_batch", i + 1, (i + 1) / 8)]
        expected += [("after_train", start + N_TRAIN, (epoch + 1) / 2)]
        expected += [("before_validate", start + N_TRAIN, (epoch + 1) / 2)]
    trained = [entry[:3] for entry in seen if entry[3] or entry[0] in ("before_fit", "before_validate")]
    assert trained == expected
    assert all(mode is model for event, *_, mode, model in seen if event != "before_fit")


def test_a_schedule_goes_on_with_the_next_epoch_where_one_was_cut_short():
    def cut(self):
        if self.epoch == 0 and self.iter == 1 and self.training:
            raise CancelTrainException

    places: list = []
    cbs = [Callback(before_batch=lambda self: self.training and places.append(self.pct_train), after_batch=cut)]
    learner().fit(2, cbs=cbs)
    assert places == [0, 1 / 8, 4 / 8, 5 / 8, 6 / 8, 7 / 8]


def test_what_before_train_does_to_modes_stays():
    def freeze_norm(self):
        self.model[1].eval()

    set_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    learn = Learner(loaders(), model, cbs=Callback(before_train=freeze_norm))
    with learn.no_bar(), learn.no_logging():
        learn.fit(2, 0.1)
    assert torch.equal(model[1].running_mean, torch.zeros(4)) and model[1].num_batches_tracked == 0


@pytest.mark.parametrize("how", ["in place", "assigned", "loss assigned"])
def test_another_loss_for_the_backward_pass(how):
    def half(self):
        if how == "in place":
            self.learn.loss_grad /= 2
        elif how == "assigned":
            self.learn.loss_grad = self.loss / 2
        else:
            self.learn.loss = self.loss / 2

    def gradient(self):
        grads.append(self.model.weight.grad.clone())

    grads: list = []
    learn = learner(opt_func=SGD)
    model = copy.deepcopy(learn.model)
    x, y = (t[:8] for t in learn.dls.train.dataset.tensors)
    loss = nn.functional.cross_entropy(model(x), y)
    (loss / 2).backward()
    learn.fit(1, cbs=Callback(after_loss=half, after_backward=gradient))
    assert torch.allclose(grads[0], model.weight.grad, rtol=1e-6)
    recorded = loss.item() / (2 if how == "loss assigned" else 1)
    assert learn.recorder.raw_losses[0] == pytest.approx(recorded, rel=1e-6)


def test_cancelling_the_backward_pass_skips_it():
    def cancel(self):
        raise CancelBackwardException

    learn = learner(opt_func=SGD)
    before = copy.deepcopy(learn.model.state_dict())
    count = Count()
    learn.fit(1, cbs=[Callback(before_backward=cancel), count])
    assert count.n["after_cancel_backward"] == N_TRAIN == count.n["after_step"]
    assert all(torch.equal(value, before[name]) for name, value in learn.model.state_dict().items())


def test_adding_and_removing_several():
    learn = learner()
    own, cbs = Callback(), list(learn.cbs)
    assert learn.add_cbs([Count, own]) is learn and learn.callback is own
    assert learn.add_cbs(None) is learn and learn.remove_cbs([]) is learn
    with learn.removed_cbs([Count, own]) as inside:
        assert inside is learn and learn.cbs == cbs and not hasattr(learn, "count")
    assert learn.callback is own and isinstance(learn.count, Count)
    assert learn.remove_cbs([Count, own]).cbs == cbs
    with pytest.raises(UsageError, match="a callback is a Callback or a class of them, got 'count'"):
        learn.add_cb("count")


def test_a_removed_callback_has_no_learner():
    learn, count = learner(), Count()
    learn.fit(1, cbs=count)
    assert count.learn is None and count.n["after_fit"] == 1
    with pytest.raises(AttributeError, match="Count has no attribute 'model' and no learner"):
        _ = count.model
    recorder = learn.recorder
    learn.remove_cb(recorder)
    assert repr(recorder) == "Recorder: 4 batches, 1 epoch"


@pytest.mark.parametrize("name", ["train_metrics", "valid_metrics", "add_time"])
def test_settings_of_fastais_recorder_are_refused(name):
    recorder = learner().recorder
    with pytest.raises(UsageError, match=rf"{name} is always (True|False).*learn\.validate\(0\)"):
        setattr(recorder, name, name == "train_metrics")
    setattr(recorder, name, name != "train_metrics")


def test_a_hook_as_a_function():
    stored: list = []
    look = Callback(after_batch=lambda self: stored.append((self.hook.hooks.stored, self.pred)))
    learner(cbs=[HookCallback(hook=lambda module, inputs, output: output), look]).fit(1)
    assert len(stored) == N_TRAIN + N_VALID
    assert all(torch.equal(outputs[0], pred) for outputs, pred in stored)


@pytest.mark.parametrize("name", ["X", "Model", "SmoothLoss", "Fit", "Recorder", "Logger"])
def test_callbacks_named_like_something_of_the_learner_are_refused(name):
    with pytest.raises(UsageError, match=r"learn\.\w+ exists already; remove that, or rename the class"):
        learner().add_cb(type(name, (Callback,), {}))


def test_removed_callbacks_come_back_to_their_places():
    cbs = [type(name, (Callback,), {})() for name in ("A", "B", "C")]
    learn = learner(cbs=cbs)
    before = list(learn.cbs)
    with pytest.raises(ZeroDivisionError), learn.removed_cbs([cbs[1], Recorder]):
        raise ZeroDivisionError
    assert learn.cbs == before


def test_the_loop_is_shown_with_who_runs_when(capsys):
    class First(Callback):
        order = -5

        def after_step(self): ...

    learn = learner(cbs=[Callback(after_step=print), First])
    assert learn.ordered_cbs("after_step") == [learn.first, learn.callback]
    learn.show_training_loop()
    lines = capsys.readouterr().out.splitlines()
    assert [line.strip() for line in lines if "after_step" in line] == ["- after_step            : [First, Callback]"]
    shown = [line.split()[1] for line in lines if line.strip().startswith("-")]
    assert set(shown) == set(EVENTS) - {"after_create"}
    names: list = []
    learn.fit(1, cbs=Callback(**{e: lambda self, e=e: names.append(e) for e in EVENTS}))
    assert names[3:11] == [*EACH[:3], *TRAINED, "after_batch"]  # one training batch
    first_valid = names.index("before_validate")
    seen = [*names[:11], *names[first_valid - 1 : first_valid + 5], *names[-4:]]
    assert seen == [name for name in shown if "cancel" not in name]
    assert lines[0] == "Start Fit" and lines[-1] == "End Fit"
    with pytest.raises(UsageError, match="no event 'begin_fit'"):
        learn.ordered_cbs("begin_fit")


def test_it_prints_itself():
    learn = learner(cbs=Count)
    lines = repr(learn).splitlines()
    assert lines[0] == "Learner: Linear of 8 parameters, cross_entropy"
    assert lines[1:-2] == repr(learn.dls).splitlines()
    assert lines[-2:] == ["callbacks: count, non_finite_guard, recorder", "Recorder: nothing recorded yet"]
    learn.fit(1)
    assert repr(learn).splitlines()[-1] == repr(learn.recorder)
    lazy = Learner(loaders(), nn.LazyLinear(2))
    assert "LazyLinear of 0 parameters" in repr(lazy)


def test_a_fit_ends_from_any_event_of_a_function():
    def stop(self):
        raise CancelFitException

    learn, cb = learner(), Callback(after_epoch=stop)
    cb.order = 60
    learn.fit(3, cbs=cb)
    assert len(learn.recorder.values) == 1


def test_the_constructor_takes_arguments_in_the_order_of_fastai():
    net, seen = nn.Linear(3, 2), Callback()
    args = nn.functional.cross_entropy, SGD, 0.1, lambda model: [[model.weight]], seen, accuracy, "here", "there", 0.5
    learn = Learner(loaders(), net, *args, True, False, (0.9, 0.8, 0.9), False)
    learn.create_opt()
    assert [group["params"] for group in learn.opt.param_groups] == [[net.weight]]
    assert learn.cbs == [seen] and learn.metrics == [accuracy] and str(learn.path / learn.model_dir) == "here/there"
    assert (learn.wd, learn.wd_bn_bias, learn.train_bn, learn.moms) == (0.5, True, False, (0.9, 0.8, 0.9))
