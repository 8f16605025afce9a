from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import TensorDataset

from pellucid.data.loader import DataLoader, DataLoaders
from pellucid.data.sources import StoredImages
from pellucid.errors import TrainingError, UsageError
from pellucid.metrics import accuracy, error_rate, top_k_accuracy
from pellucid.nn.losses import LabelSmoothingCrossEntropy
from pellucid.optim.groups import params, split_at, trainable_params
from pellucid.optim.hypers import hypers
from pellucid.optim.optimizers import SGD
from pellucid.schedule import exponential, one_cycle
from pellucid.seed import set_seed
from pellucid.training.callbacks.core import (
    EVENTS,
    Callback,
    CancelBatchException,
    CancelEpochException,
    CancelFitException,
    CancelStepException,
    CancelTrainException,
    CancelValidException,
)
from pellucid.training.callbacks.progress import ProgressCallback
from pellucid.training.callbacks.schedule import ParamScheduler
from pellucid.training.learner import Learner

N_TRAIN, N_VALID, BS = 96, 40, 16


def stripes() -> DataLoaders:
    """Three classes of 8×8 images that a small network tells apart: stripes of three widths, with noise."""
    rng = np.random.default_rng(0)
    labels = np.arange(N_TRAIN + N_VALID) % 3
    columns = np.arange(8)[None, None, None, :]
    pixels = 255 * ((columns // (labels[:, None, None, None] + 1)) % 2) * np.ones((1, 1, 8, 1))
    pixels = (pixels * 0.6 + rng.uniform(0, 80, pixels.shape)).astype(np.uint8)
    source = StoredImages(pixels, np.zeros((len(pixels), 1, 2), np.int64))
    train = DataLoader(source, range(N_TRAIN), labels[:N_TRAIN], bs=BS, shuffle=True, drop_last=True, training=True)
    valid = DataLoader(source, range(N_TRAIN, len(pixels)), labels[N_TRAIN:], bs=BS)
    return DataLoaders(train, valid, vocab=["thin", "middle", "wide"], device="cpu")


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 3))


def learner(seed: int = 0, **options) -> Learner:
    set_seed(seed)
    options = {"metrics": accuracy} | options
    learn = Learner(stripes(), network(), **options)
    learn.remove_cb(ProgressCallback)
    return learn


class Log(Callback):
    """Write every event down; raise `error` at `at`."""

    def __init__(self, at: str = "", error: type[BaseException] = Exception):
        self.events: list[str] = []
        self.at, self.error = at, error


def _logger(event: str):
    def log(self: Log) -> None:
        self.events.append(event)
        if event == self.at:
            raise self.error

    return log


for _event in EVENTS:
    setattr(Log, _event, _logger(_event))

BATCH = ["before_batch", "after_pred", "after_loss"]
STEP = ["before_backward", "after_backward", "before_step", "after_step", "after_batch"]


def test_events_come_in_the_documented_order():
    log = Log()
    learner().fit(1, 0.01, cbs=log)
    n, m = N_TRAIN // BS, -(-N_VALID // BS)
    assert log.events == [
        *("before_fit", "before_epoch", "before_train"),
        *(BATCH + STEP) * n,
        *("after_train", "before_validate"),
        *[*BATCH, "after_batch"] * m,
        *("after_validate", "after_epoch", "after_fit", "cleanup_fit"),
    ]


@pytest.mark.parametrize(
    ("at", "error", "then"),
    [
        ("before_fit", CancelFitException, ["after_cancel_fit", "after_fit", "cleanup_fit"]),
        ("before_epoch", CancelEpochException, ["after_cancel_epoch", "after_epoch", "after_fit"]),
        ("before_train", CancelTrainException, ["after_cancel_train", "after_train", "before_validate"]),
        ("after_loss", CancelBatchException, ["after_cancel_batch", "after_batch"]),
        ("before_step", CancelStepException, ["after_cancel_step", "after_step", "after_batch"]),
        ("before_validate", CancelValidException, ["after_cancel_validate", "after_validate", "after_epoch"]),
    ],
)
def test_cancelling_ends_its_own_phase_only(at, error, then):
    log = Log(at, error)
    learner().fit(1, 0.01, cbs=log)
    i = log.events.index(at) + 1
    assert log.events[i : i + len(then)] == then
    assert log.events[-1] == "cleanup_fit"


def test_cancelled_steps_leave_the_weights_and_zero_the_gradients():
    learn = learner()
    before = copy.deepcopy(learn.model.state_dict())
    learn.fit(1, 0.1, cbs=Log("before_step", CancelStepException))
    assert torch.equal(before["4.weight"], learn.model.state_dict()["4.weight"])
    assert all(p.grad is None for p in learn.model.parameters())


def test_same_seed_same_weights_bit_for_bit():
    runs = []
    for _ in range(2):
        learn = learner(7)
        learn.fit_one_cycle(2, 0.05)
        runs.append(learn.model.state_dict())
    assert all(torch.equal(v, runs[1][k]) for k, v in runs[0].items())


def test_training_equals_a_loop_written_by_hand():
    learn = learner(3)
    model = copy.deepcopy(learn.model)
    rng = torch.get_rng_state()
    learn.fit_one_cycle(2, 0.02)
    torch.set_rng_state(rng)
    decay = [model[0].weight, model[4].weight]
    rest = [model[0].bias, *model[1].parameters(), model[4].bias]
    groups = [{"params": decay}, {"params": rest, "weight_decay": 0.0}]
    opt = torch.optim.AdamW(groups, betas=(0.9, 0.99), eps=1e-5, weight_decay=0.01, fused=True)
    n_steps, step = 2 * (N_TRAIN // BS), 0
    for _ in range(2):
        for xb, yb in learn.dls.train:
            for group in opt.param_groups:
                group["lr"] = one_cycle(0.02)(step / n_steps)
                half = (step / n_steps - 0.25) / 0.75 if step / n_steps >= 0.25 else 1 - step / n_steps / 0.25
                group["betas"] = (0.95 + (0.85 - 0.95) * (1 + np.cos(np.pi * half)) / 2, 0.99)
            F.cross_entropy(model(xb), yb).backward()
            opt.step()
            opt.zero_grad()
            step += 1
    for ours, theirs in zip(learn.model.parameters(), model.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_it_learns_and_the_record_is_right():
    learn = learner(metrics=[accuracy, error_rate, top_k_accuracy])
    learn.fit_one_cycle(8, 0.05)
    recorder = learn.recorder
    assert recorder.values[-1][2] > 0.95
    assert recorder.values[-1][2] + recorder.values[-1][3] == pytest.approx(1)
    assert recorder.values[-1][4] == 1  # three classes are all among the best five
    assert recorder.metric_names == [
        *("epoch", "train_loss", "valid_loss", "accuracy", "error_rate", "top_k_accuracy", "time"),
    ]
    assert recorder.iters == [6 * (i + 1) for i in range(8)]
    mean, expected = 0.0, []
    for i, loss in enumerate(recorder.raw_losses, 1):
        mean = 0.98 * mean + 0.02 * loss
        expected.append(mean / (1 - 0.98**i))
    assert recorder.losses == pytest.approx(expected)
    assert recorder.values[0][0] == pytest.approx(expected[5])


def test_validation_weighs_batches_by_their_size():
    learn = learner()
    learn.fit(1, 0.01)
    loss, share = learn.validate()
    source = learn.dls.valid
    x = source.source.pixels[source.rows].float() / 255
    with torch.no_grad():
        pred = learn.model.eval()(x)
    assert loss == pytest.approx(F.cross_entropy(pred, source.labels).item(), rel=1e-5)
    assert share == pytest.approx((pred.argmax(1) == source.labels).float().mean().item())
    assert learn.recorder.values[-1][1:] == pytest.approx([loss, share])


def test_validate_and_summary_disturb_nothing():
    learn, other = learner(5), learner(5)
    for tried in (learn, other):
        set_seed(6)
        tried.fit(1, 0.01)
        if tried is learn:
            record, losses = copy.deepcopy(learn.recorder.__dict__ | {"learn": None}), list(learn.recorder.losses)
            learn.validate(), learn.summary(), learn.get_preds()
            assert {**learn.recorder.__dict__, "learn": None}.keys() == record.keys()
            assert learn.recorder.losses == losses and learn.recorder.values == record["values"]
        tried.fit(1, 0.01)
    assert all(torch.equal(v, other.model.state_dict()[k]) for k, v in learn.model.state_dict().items())


def test_fit_after_one_cycle_has_its_own_momentum_again():
    learn = learner()
    learn.fit_one_cycle(1, 0.01)
    assert learn.recorder.hypers["mom"][1][0] < 0.95
    learn.fit(1, 0.003)
    assert learn.recorder.hypers["mom"] == [[0.9]] * 6
    assert learn.recorder.lrs == [0.003] * 6
    assert learn.recorder.plot_sched().axes[1].get_ylabel() == "momentum"


def two_groups(model: nn.Sequential) -> list[list[nn.Parameter]]:
    return [list(model[:3].parameters()), list(model[3:].parameters())]


def test_rates_over_parameter_groups():
    learn = learner(splitter=two_groups)
    for given, expected in ((slice(1e-4, 1e-2), [1e-4, 1e-2]), (slice(1e-2), [1e-3, 1e-2]), ([0.1, 0.2], [0.1, 0.2])):
        learn.fit(1, given)
        assert learn.recorder.hypers["lr"][0] == pytest.approx(expected)
    learn.fit_one_cycle(1, slice(1e-4, 1e-2))
    assert learn.recorder.hypers["lr"][0] == pytest.approx([1e-4 / 25, 1e-2 / 25])
    with pytest.raises(UsageError, match="3 learning rates for 2 parameter groups"):
        learn.fit(1, [1, 2, 3])
    alone = learner()
    alone.fit(1, slice(1e-4, 1e-2))
    assert alone.recorder.lrs == [1e-2] * 6


def test_freezing_keeps_the_first_group_but_its_norms():
    learn = learner(splitter=two_groups)
    before = copy.deepcopy(learn.model.state_dict())
    learn.freeze()
    learn.fit(1, 0.01)
    after = learn.model.state_dict()
    assert torch.equal(before["0.weight"], after["0.weight"])
    assert not torch.equal(before["4.weight"], after["4.weight"])
    assert not torch.equal(before["1.weight"], after["1.weight"])
    learn.fine_tune(1)
    assert not torch.equal(before["0.weight"], learn.model.state_dict()["0.weight"])


# Learning rates of three groups and momentum at each batch of fine_tune(1, base_lr=0.02), as fastai 2.8.12 sets them.
FINE_TUNE = [
    ([8e-05, 8e-05, 0.0008], 0.95),
    ([0.00021116589922060653, 0.00021116589922060653, 0.0021116589922060653], 0.9431684427489267),
    ([0.0005688209028858627, 0.0005688209028858627, 0.005688209028858628], 0.9245405779746946),
    ([0.001055231250843329, 0.001055231250843329, 0.01055231250843329], 0.8992067056852433),
    ([0.001537479705088972, 0.001537479705088972, 0.015374797050889722], 0.8740895986932826),
    ([0.0018837854738991977, 0.0018837854738991977, 0.018837854738991976], 0.8560528399010834),
    ([2e-05, 0.0002, 0.002], 0.95),
    ([6.694592300870579e-05, 0.0006694592300870579, 0.0066945923008705785], 0.8913175962391178),
    ([9.94415469622919e-05, 0.0009944154696229191, 0.00994415469622919], 0.8505584586222943),
    ([8.117468043945326e-05, 0.0008117468043945326, 0.008117468043945326], 0.8688255078156248),
    ([4.6264028239819686e-05, 0.0004626402823981968, 0.004626402823981968], 0.9037365091252716),
    ([1.3348277786386377e-05, 0.0001334827778638637, 0.0013348277786386364], 0.936652588739501),
]


class Steps(Callback):
    """Rates, momentum and which parameters are trained, at each step."""

    order = 70

    def __init__(self):
        self.steps: list[tuple[list[float], float, list[bool]]] = []

    def before_step(self):
        now = hypers(self.learn.opt)
        trained = [p.requires_grad for p in self.learn.model.parameters()]
        self.steps.append((now["lr"], now["mom"][-1], trained))


def test_fine_tune_sets_the_rates_that_fastai_sets():
    learn = learner(splitter=lambda m: [params(m[0]), params(m[1:4]), params(m[4])], cbs=Steps)
    learn.fine_tune(1, base_lr=0.02)
    for (lrs, mom, _), (fastai_lrs, fastai_mom) in zip(learn.steps.steps, FINE_TUNE, strict=True):
        assert lrs == pytest.approx(fastai_lrs, rel=1e-4) and mom == pytest.approx(fastai_mom, rel=1e-6)
    assert [trained for *_, trained in learn.steps.steps[:6]] == [[False, False, True, True, True, True]] * 6
    assert all(all(trained) for *_, trained in learn.steps.steps[6:])


def test_fine_tune_of_one_group_trains_everything_at_one_rate():
    learn = learner(cbs=Steps)
    learn.fine_tune(1, base_lr=0.02)
    assert [lrs for lrs, *_ in learn.steps.steps] == [[pytest.approx(lrs[-1], rel=1e-4)] for lrs, _ in FINE_TUNE]
    assert all(all(trained) for *_, trained in learn.steps.steps)


def test_fine_tune_without_a_frozen_part():
    learn = learner(splitter=split_at(3), cbs=Steps)
    learn.fine_tune(2, freeze_epochs=0)
    assert len(learn.steps.steps) == 12 and all(all(trained) for *_, trained in learn.steps.steps)


def test_freezing_more_than_there_is():
    learn = learner(splitter=split_at(3))
    with pytest.raises(UsageError, match=r"freeze_to\(2\) leaves nothing to train: the parameter groups are 0 to 1"):
        learn.freeze_to(2)


def test_splitters_of_one_flat_group_and_with_groups_of_no_parameter():
    for splitter in (trainable_params, lambda m: iter([params(m[2]), params(m)])):
        learn = learner(splitter=splitter)
        learn.fit_one_cycle(1, slice(0.01))
        assert len(learn.recorder.hypers["lr"][0]) == 1
    with pytest.raises(UsageError, match="holds a Conv2d, not parameters"):
        learner(splitter=lambda m: [m[0], params(m[4])]).fit(1)


def test_label_smoothing_trains_and_predicts_probabilities():
    learn = learner(loss_func=LabelSmoothingCrossEntropy(0.2))
    learn.fit_one_cycle(6, 0.05)
    assert learn.recorder.values[-1][2] > 0.9
    floor = -(0.2 / 3 * 2 * np.log(0.2 / 3) + (0.8 + 0.2 / 3) * np.log(0.8 + 0.2 / 3))
    assert learn.recorder.values[-1][1] > floor  # entropy of the smoothed target
    probabilities, _ = learn.get_preds()
    assert torch.allclose(probabilities.sum(1), torch.ones(N_VALID))
    x = learn.dls.valid.source.pixels[learn.dls.valid.rows].float() / 255
    assert torch.allclose(probabilities, learn.model(x).softmax(1).detach(), atol=1e-6)


def test_our_own_loss_names_an_output_that_does_not_fit():
    learn = learner(loss_func=LabelSmoothingCrossEntropy())
    learn.model[4] = nn.Linear(6 * 36, 2)
    with pytest.raises(TrainingError, match="LabelSmoothingCrossEntropy does not fit model output 16×2"):
        learn.fit(1)


def test_any_hyper_parameter_can_be_scheduled():
    learn = learner(opt_func=SGD)
    learn.fit(1, 0.01, cbs=ParamScheduler({"wd": exponential(1e-4, 1e-2)}))
    assert [v[0] for v in learn.recorder.hypers["wd"]] == pytest.approx([1e-4 * 100 ** (k / 6) for k in range(6)])


def test_flat_cos_and_torch_optimizers_and_loaders():
    x, y = torch.randn(50, 3), torch.arange(50) % 2
    loader = TorchDataLoader(TensorDataset(x, y), batch_size=10)
    learn = Learner(DataLoaders(loader, loader), nn.Linear(3, 2), opt_func=torch.optim.RMSprop, metrics=accuracy)
    learn.fit_flat_cos(2, 0.01)
    assert learn.recorder.lrs[0] == 0.01 > learn.recorder.lrs[-1]
    assert learn.dls.bs == 10


def test_save_and_load_give_the_same_predictions(tmp_path):
    learn, other = learner(1, path=tmp_path), learner(2, path=tmp_path)
    learn.fit(1, 0.01)
    file = learn.save("half-way")
    assert file == tmp_path / "models" / "half-way.safetensors"
    other.load("half-way")
    assert torch.equal(learn.get_preds()[0], other.get_preds()[0])
    with pytest.raises(UsageError, match="no such file"):
        learn.load("nothing")
    other.model = nn.Linear(2, 2)
    with pytest.raises(UsageError, match="do not fit this Linear"):
        other.load("half-way")


def test_predictions_are_probabilities():
    learn = learner()
    probabilities, labels = learn.get_preds()
    assert torch.allclose(probabilities.sum(1), torch.ones(N_VALID))
    assert torch.equal(labels, learn.dls.valid.labels)


def test_two_callbacks_of_one_name_are_refused():
    learn = learner(cbs=Log)
    with pytest.raises(UsageError, match=r"learn\.log exists already"):
        learn.add_cb(Log())
    assert isinstance(learn.log, Log)
    learn.remove_cb(Log)
    assert not hasattr(learn, "log")
    with pytest.raises(UsageError, match="no such callback"):
        learn.remove_cb(Log)


def test_callbacks_of_a_fit_leave_with_it_even_when_it_fails():
    learn = learner()
    log = Log("after_backward", ZeroDivisionError)
    with pytest.raises(ZeroDivisionError):
        learn.fit(1, 0.01, cbs=log)
    assert log.events[-1] == "cleanup_fit"
    assert log not in learn.cbs and not hasattr(learn, "log")
    learn.fit(1, 0.01)
    assert len(learn.recorder.losses) == 6


def test_a_function_that_makes_a_model_is_no_model():
    learn = Learner(stripes(), network)
    with pytest.raises(UsageError, match="function that makes a model"):
        learn.fit(1)


def test_plain_callables_train_with_a_splitter():
    weight = nn.Parameter(torch.zeros(64, 3))
    learn = Learner(stripes(), lambda x: x.flatten(1) @ weight, metrics=accuracy, splitter=lambda m: [[weight]])
    learn.fit(3, 0.05)
    assert learn.recorder.values[-1][2] > 0.9


def test_non_finite_losses_stop_and_keep_the_weights():
    class Poison(Callback):
        order = 30

        def after_loss(self):
            if self.learn.train_iter == 4:
                self.learn.loss = self.learn.loss * float("inf")

    learn = learner()
    with pytest.raises(TrainingError, match=r"became inf at epoch 0, batch 4.*Lower the learning rate"):
        learn.fit(2, 0.01, cbs=Poison)
    assert all(p.isfinite().all() for p in learn.model.parameters())
    assert len(learn.recorder.losses) == 4


def test_weights_that_are_gone_already_are_put_back():
    class Ruin(Callback):
        def after_step(self):
            if self.learn.train_iter == 3:
                with torch.no_grad():
                    self.learn.model[4].weight.fill_(float("nan"))

    learn = learner()
    with pytest.raises(TrainingError, match="put back"):
        learn.fit(2, 0.01, cbs=Ruin)
    assert all(v.isfinite().all() for v in learn.model.state_dict().values())


def test_pictures_have_labels_and_the_data():
    learn = learner(metrics=accuracy)
    learn.fit_one_cycle(3, 0.05)
    (ax,) = learn.recorder.plot_loss(skip_start=5).axes
    train, valid = ax.get_lines()
    assert list(train.get_ydata()) == learn.recorder.losses[5:]
    assert list(valid.get_ydata()) == [row[1] for row in learn.recorder.values]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("batch", "loss")
    lr, mom = learn.recorder.plot_sched().axes
    assert list(lr.get_lines()[0].get_ydata()) == learn.recorder.lrs
    assert lr.get_ylabel() == "learning rate" and mom.get_ylabel() == "momentum"
    axes = learn.show_results(max_n=4).axes
    guesses, labels = learn.get_preds()
    shown = [0, 13, 26, 39]  # evenly over the validation images
    for ax, i in zip(axes, shown, strict=True):
        names = [learn.dls.vocab[index] for index in (labels[i], guesses[i].argmax())]
        assert ax.get_title() == "\n".join(names)
        image = learn.dls.valid.source.pixels[N_TRAIN + i, 0] / 255
        np.testing.assert_allclose(ax.get_images()[0].get_array(), image, atol=1e-6)
