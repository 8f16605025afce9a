from __future__ import annotations

import copy
import itertools
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import TensorDataset

from pellucid.data.factories import ImageDataLoaders
from pellucid.data.images import PILImageBW
from pellucid.data.loader import DataLoaders
from pellucid.data.transforms import Normalize
from pellucid.errors import TrainingError, UsageError
from pellucid.metrics import accuracy
from pellucid.nn.models import simple_cnn
from pellucid.optim.groups import split_at
from pellucid.optim.optimizers import SGD
from pellucid.seed import set_seed
from pellucid.training.callbacks.core import Callback
from pellucid.training.callbacks.lr_finder import SuggestionMethod, minimum, slide, steep, valley
from pellucid.training.callbacks.progress import ProgressCallback
from pellucid.training.callbacks.statistics import ActivationStats
from pellucid.training.learner import Learner

N, BS = 96, 16


def blobs(**options) -> DataLoaders:
    """Three classes of points around three centres, in torch's own loaders."""
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(N) % 3
    points = torch.randn(N, 4, generator=rng) + 3 * nn.functional.one_hot(labels, 4)
    data = TensorDataset(points, labels)
    return DataLoaders(
        TorchDataLoader(data, BS, shuffle=True, **options), TorchDataLoader(data, BS), vocab="abc", device="cpu"
    )


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3))


def learner(dls: DataLoaders | None = None, seed: int = 0, **options) -> Learner:
    set_seed(seed)
    learn = Learner(dls or blobs(), network(), **{"metrics": accuracy} | options)
    learn.remove_cb(ProgressCallback)
    return learn


def curve(n: int = 85) -> tuple[np.ndarray, np.ndarray]:
    """Rates from 1e-6 up, and a loss that is flat, falls to 0.7 and explodes."""
    lrs = 1e-7 * 1e8 ** (np.arange(n) / 100 + 0.1)
    x = np.log10(lrs)
    return lrs, 2.3 - 1.6 / (1 + np.exp(-2 * (x + 3))) + np.exp(4 * (x + 0.6))


def noisy(n: int = 85) -> tuple[np.ndarray, np.ndarray]:
    lrs, losses = curve(n)
    return lrs, losses + np.random.default_rng(0).normal(0, 0.02, n)


# What fastai 2.8.12's functions of these names give for the same curves.
FASTAI = [
    (curve(), [0.0001318256738556407, 0.0008317637711026709, 0.003311311214825907, 0.0003311311214825914]),
    (noisy(), [0.0006918309709189362, 0.0008317637711026709, 0.0027542287033381634, 0.000478630092322638]),
    ((curve()[0], 2 + 0.01 * np.arange(85)), [6.309573444801933e-07, None, 6.309573444801932e-08, 0.20892961308540364]),
    ((curve()[0], 2 - 0.01 * np.arange(85)), [0.001202264434617413, None, 0.3311311214825908, 0.20892961308540364]),
]


@pytest.mark.parametrize(("given", "expected"), FASTAI)
def test_suggestions_are_those_of_fastai(given, expected):
    for function, value in zip((valley, steep, minimum, slide), expected, strict=True):
        if value is not None:  # on a straight line every place is as steep as any other
            assert function(*given) == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
@pytest.mark.parametrize(("given", "expected"), FASTAI[:2])
def test_called_as_fastai_calls_them_they_answer_as_fastai_does(given, expected, kind):
    lrs, losses = (kind(values.tolist()) for values in given)
    for function, value in zip((valley, steep, minimum, slide), expected, strict=True):
        rate, (x, y) = function(lrs, losses, 100)
        assert rate == pytest.approx(value, rel=1e-4)
        assert x == pytest.approx(value * (10 if function is minimum else 1), rel=1e-4)
        assert y == pytest.approx(np.interp(np.log(x), np.log(given[0]), given[1]), rel=1e-4)
    # the third argument is never taken for slide's first setting
    assert slide(*given, 3) == slide(*given, 100) and slide(*given, 3, 5)[0] == slide(*given, lr_diff=5)


def test_suggestions_written_for_fastai():
    def last_lower(lrs, losses, num_it):
        assert num_it == 30 and isinstance(lrs, torch.Tensor)
        at = (losses[1:] < losses[:-1]).nonzero().max().item()
        return lrs[at].item(), (lrs[at].item(), losses[at].item())

    def steepest(lrs, losses, num_it: int):
        grads = (losses[1:] - losses[:-1]) / (lrs[1:].log() - lrs[:-1].log())
        return lrs[grads.argmin()], (0, 0)

    learn = learner()
    found = learn.lr_find(
        num_it=30, show_plot=False, suggest_funcs=(last_lower, steepest, steep, partial(slide, thresh=0.1))
    )
    assert found._fields == ("last_lower", "steepest", "steep", "slide") and found.steepest == pytest.approx(
        found.steep
    )
    assert type(found.last_lower) is float and found.last_lower in found.lrs


@pytest.mark.parametrize("answer", [None, "much", (1e-3, 2, 3), np.zeros(2)])
def test_suggestions_that_are_no_rate(answer):
    with pytest.raises(UsageError, match=r"odd returned .*a suggestion is a learning rate"):
        learner().lr_find(num_it=20, show_plot=False, suggest_funcs=odd_one(answer))


def odd_one(answer):
    def odd(lrs, losses):
        return answer

    return odd


def test_valley_is_the_longest_falling_subsequence():
    rng = np.random.default_rng(1)
    for n in range(2, 11):
        lrs, losses = np.geomspace(1e-4, 1, n), rng.permutation(n).astype(float)
        falling = [
            c
            for k in range(1, n + 1)
            for c in itertools.combinations(range(n), k)
            if all(losses[a] > losses[b] for a, b in itertools.pairwise(c))
        ]
        longest = max(map(len, falling))
        end = min(c[-1] for c in falling if len(c) == longest)
        at = (end - longest if end else 0) + longest // 3 + int(longest / 6)
        assert valley(lrs, losses) == lrs[at]


def test_suggestions_mean_what_they_say():
    lrs, losses = curve()
    slope = np.gradient(losses, np.log(lrs))
    assert abs(np.searchsorted(lrs, steep(lrs, losses)) - slope.argmin()) <= 1
    assert minimum(lrs, losses) == pytest.approx(lrs[losses.argmin()] / 10)
    assert slide(lrs, losses, adjust_value=0.5) == pytest.approx(slide(lrs, losses) / 2)
    assert slide(lrs[:5], losses[:5]) == lrs[0]  # shorter than the interval
    assert SuggestionMethod.Valley is valley and SuggestionMethod.Slide is slide


def state(learn: Learner) -> dict:
    moments = [{k: v.clone() for k, v in learn.opt.state[p].items()} for p in learn.model.parameters()]
    return {
        "weights": {k: v.clone() for k, v in learn.model.state_dict().items()},
        "moments": moments,
        "recorder": learn.recorder.to_arrays() | {"seconds": list(learn.recorder.seconds)},
        "rng": torch.get_rng_state(),
        "numpy": np.random.get_state()[1],
        "epoch": (learn.epoch, learn.train_iter, learn.pct_train),
    }


def same(a, b) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    return np.array_equal(a, b)


def private_order() -> DataLoaders:
    return blobs(generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("make", [blobs, private_order])
@pytest.mark.parametrize("options", [{}, {"opt_func": SGD}, {"splitter": split_at(-1)}])
def test_the_next_fit_is_the_same_bit_for_bit(make, options):
    ends = []
    for finds in (False, True):
        learn = learner(make(), **options)
        if finds:
            learn.lr_find(num_it=30, show_plot=False)
            assert learn.opt is None
        learn.fit_one_cycle(1, 0.01)
        if finds:
            before = state(learn)
            learn.lr_find(start_lr=1e-4, num_it=20, show_plot=False)
            assert same(state(learn), before)
        learn.fit(1, 0.01)
        ends.append(state(learn))
        ends[-1]["recorder"].pop("seconds")
    assert same(*ends)


def test_the_next_fit_on_images_is_the_same_bit_for_bit(mnist_sample):
    dls = ImageDataLoaders.from_folder(
        mnist_sample, valid="valid", img_cls=PILImageBW, batch_tfms=Normalize(), bs=512, device="cpu"
    )
    ends = []
    for finds in (False, True):
        set_seed(1)
        learn = Learner(dls, simple_cnn(1, 2), cbs=ActivationStats())
        learn.remove_cb(ProgressCallback)
        if finds:
            found = learn.lr_find(num_it=15, end_lr=1, show_plot=False)
            assert 1e-7 < found.valley < 1
        learn.fit(1, 0.02)
        ends.append([*learn.model.state_dict().values(), torch.tensor(learn.recorder.raw_losses)])
    assert same(*ends)


class Busy(Callback):
    """Count every event of training, and leave its mark on the loss."""

    def __init__(self):
        self.n_batches = 0

    def after_loss(self):
        self.n_batches += 1
        self.learn.loss = self.learn.loss * 2


def test_callbacks_take_no_part_and_keep_what_they_have():
    learn = learner(cbs=[Busy, ActivationStats(with_hist=True)])
    learn.fit(1, 0.01)
    history, n_batches, cbs = learn.activation_stats.history, learn.busy.n_batches, list(learn.cbs)
    learn.lr_find(num_it=20, show_plot=False)
    assert learn.cbs == cbs and all(cb.learn is learn for cb in cbs)
    assert learn.busy.n_batches == n_batches
    after = learn.activation_stats.history
    assert np.array_equal(history.train.mean, after.train.mean) and np.array_equal(history.train.hist, after.train.hist)


def test_functions_as_callbacks_and_loggers_take_no_part_either():
    seen: list = []
    learn = learner(cbs=[Callback(after_loss=seen.append), Callback(after_batch=seen.append)])
    learn.logger = seen.append
    cbs = list(learn.cbs)
    learn.lr_find(num_it=20, show_plot=False)
    assert not seen and learn.cbs == cbs and learn.logger == seen.append and learn.callback is cbs[0]


def test_modes_gradients_and_private_parameters_are_put_back():
    weight = nn.Parameter(torch.randn(4, 3, generator=torch.Generator().manual_seed(0)))
    learn = Learner(blobs(), lambda x: x @ weight, splitter=lambda model: [weight])
    weight.grad = torch.ones(4, 3)
    before, grad = weight.detach().clone(), weight.grad
    learn.model.eval()
    found = learn.lr_find(num_it=20, start_lr=1e-2, show_plot=False)
    assert found.losses[-1] < found.losses[0]
    assert torch.equal(weight, before) and weight.grad is grad and torch.equal(grad, torch.ones(4, 3))
    assert not learn.model.training


def test_an_error_and_ctrl_c_put_everything_back():
    def stop(pred, targ):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return nn.functional.cross_entropy(pred, targ)

    calls: list[int] = []
    learn = learner(loss_func=stop)
    before, rng = copy.deepcopy(learn.model.state_dict()), torch.get_rng_state()
    with pytest.raises(KeyboardInterrupt):
        learn.lr_find(start_lr=0.1, show_plot=False)
    assert same(dict(before), dict(learn.model.state_dict())) and torch.equal(rng, torch.get_rng_state())


def test_rates_rise_in_equal_ratios_and_the_curve_is_that_of_a_fit():
    found = learner().lr_find(start_lr=1e-5, end_lr=1e-3, num_it=20, show_plot=False)
    assert found.lrs == pytest.approx(1e-5 * 100 ** (np.arange(20) / 20))
    learn = learner()
    opt, mean = torch.optim.AdamW(learn.model.parameters(), betas=(0.9, 0.99), eps=1e-5, weight_decay=0.01), 0.0
    no_decay = [p for name, p in learn.model.named_parameters() if p.dim() == 1]
    opt.param_groups[0]["params"] = [p for p in learn.model.parameters() if p.dim() > 1]
    opt.add_param_group({"params": no_decay, "weight_decay": 0.0})
    batches = itertools.chain.from_iterable(learn.dls.train for _ in itertools.count())
    for i, (xb, yb) in enumerate(itertools.islice(batches, 20)):
        for group in opt.param_groups:
            group["lr"] = found.lrs[i]
        loss = nn.functional.cross_entropy(learn.model(xb), yb)
        mean = 0.98 * mean + 0.02 * loss.item()
        assert found.losses[i] == pytest.approx(mean / (1 - 0.98 ** (i + 1)), rel=1e-4)
        loss.backward(), opt.step(), opt.zero_grad()


def test_it_stops_when_the_loss_explodes():
    options = {"opt_func": SGD, "loss_func": lambda pred, targ: pred.pow(2).mean()}
    found = learner(**options).lr_find(1e-4, 1e6, show_plot=False)
    n = len(found.lrs)
    assert n < 100
    assert found.losses[-1] > 4 * found.losses.min() or n == np.isfinite(found.losses).sum()
    assert max(found.losses[:-1]) <= 4 * found.losses.min()
    on = learner(**options).lr_find(1e-4, 1e6, stop_div=False, show_plot=False, suggest_funcs=None)
    assert len(on.lrs) > n and np.isfinite(on.losses).all() and on == ()


def test_negative_losses_do_not_look_like_an_explosion():
    found = learner(loss_func=lambda pred, targ: nn.functional.cross_entropy(pred, targ) - 5).lr_find(
        end_lr=1e-3, show_plot=False
    )
    assert len(found.lrs) == 100


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_from_the_first_step(value):
    learn = learner(loss_func=lambda pred, targ: pred.sum() * value)
    before = copy.deepcopy(learn.model.state_dict())
    with pytest.raises(TrainingError, match=r"loss of the first batch is (nan|inf|-inf) .* no learning rate to find"):
        learn.lr_find()
    assert same(dict(before), dict(learn.model.state_dict()))


def test_a_loss_that_explodes_at_once():
    learn = learner(opt_func=SGD, loss_func=lambda pred, targ: pred.pow(4).sum())
    with pytest.raises(TrainingError, match=r"exploded after \d+ of 100 batches.*lower start_lr"):
        learn.lr_find(start_lr=100, end_lr=1e5)


def test_wrong_arguments():
    learn = learner()
    with pytest.raises(UsageError, match="at least 10 batches"):
        learn.lr_find(num_it=5)
    with pytest.raises(UsageError, match="positive"):
        learn.lr_find(start_lr=0)
    with pytest.raises(UsageError, match="cannot be negative"):
        learn.lr_find(-1e-6)
    with pytest.raises(UsageError, match="name of its own"):
        learn.lr_find(num_it=20, suggest_funcs=(slide, partial(slide, thresh=0.1)))


def test_rates_of_groups_and_functions_of_ones_own():
    def half_of_steep(lrs, losses):
        return steep(lrs, losses) / 2

    learn = learner(splitter=split_at(-1))
    found = learn.lr_find([1e-6, 1e-5], [1e-3, 1e-2], 30, show_plot=False, suggest_funcs=[steep, half_of_steep])
    assert found.lrs[0] == pytest.approx(1e-5)
    assert found._fields == ("steep", "half_of_steep")
    assert found.half_of_steep == found.steep / 2


def test_the_plot_shows_the_curve_and_marks_the_suggestions():
    import matplotlib.pyplot as plt

    found = learner().lr_find(suggest_funcs=(valley, steep, minimum, slide))
    (ax,) = plt.gcf().axes
    line = ax.get_lines()[0]
    assert np.array_equal(line.get_xdata(), found.lrs[:-5]) and np.array_equal(line.get_ydata(), found.losses[:-5])
    marks = [mark for mark in ax.get_lines()[1:] if mark.get_marker() == "o"]
    assert [mark.get_xdata()[0] for mark in marks] == list(found)
    for mark in marks:  # on the curve
        assert mark.get_ydata()[0] == pytest.approx(
            np.interp(np.log(mark.get_xdata()[0]), np.log(found.lrs), found.losses)
        )
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        f"{name}: {value:.2g}" for name, value in found._asdict().items()
    ]
    assert ax.get_xscale() == "log" and ax.get_xlabel() == "learning rate"
