"""torch's settings, and kinds of modules and outputs: everything works with them, or one message says why not."""

from __future__ import annotations

import copy
import pickle
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from pellucid import convolution as cv
from pellucid.data.factories import ImageDataLoaders
from pellucid.data.images import Resize
from pellucid.data.loader import DataLoaders
from pellucid.data.transforms import Normalize
from pellucid.errors import UsageError
from pellucid.metrics import F1Score, accuracy
from pellucid.optim.optimizers import SGD, Adam
from pellucid.training.callbacks.progress import ProgressCallback, TerminalDisplay
from pellucid.training.callbacks.statistics import ActivationStats
from pellucid.training.interpretation import ClassificationInterpretation
from pellucid.training.learner import Learner


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("kinds"), np.random.default_rng(0)
    for name in "abc":
        (root / name).mkdir()
        for i in range(6):
            Image.fromarray(rng.integers(0, 255, (12, 12, 3), dtype=np.uint8)).save(root / name / f"{i}.png")
    return root


def loaders(folder) -> DataLoaders:
    options: dict[str, Any] = {"item_tfms": Resize(12), "batch_tfms": Normalize(), "bs": 4, "device": "cpu"}
    return ImageDataLoaders.from_folder(folder, valid_pct=0.3, seed=1, **options)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(100, 3))


def learner(folder, model: Any, *args: Any, **options: Any) -> Learner:
    learn = Learner(loaders(folder), model, *args, **{"metrics": accuracy} | options)
    learn.remove_cb(ProgressCallback)
    return learn


def use_everything(folder, model: nn.Module, path, seen: bool = True) -> Learner:
    """Whatever a learner can do, once."""
    cbs = ActivationStats(with_hist=True, with_grads=True) if seen else None
    learn = learner(folder, model, cbs=cbs, metrics=[accuracy, F1Score(average="macro")], path=path)
    learn.fit_one_cycle(2, 0.01)
    learn.lr_find(num_it=10, suggest_funcs=None)
    loss, share, _ = learn.validate()
    probabilities, labels = learn.get_preds()
    assert share == pytest.approx(float((probabilities.argmax(1) == labels).float().mean()))
    assert float(probabilities.float().sum(1).mean()) == pytest.approx(1, abs=0.01) and np.isfinite(loss)
    learn.predict(folder / "a" / "0.png"), learn.show_results(), learn.dls.show_batch()
    assert "Total params" in str(learn.summary())
    ClassificationInterpretation.from_learner(learn).plot_top_losses(2)
    before = {key: value.clone() for key, value in learn.model.state_dict().items()}
    learn.save("kinds")
    learn.fit(1, 0.01)
    learn.load("kinds")
    assert all(torch.equal(value, before[key]) for key, value in learn.model.state_dict().items())
    return learn


def explain(model: nn.Module) -> None:
    image = torch.linspace(0, 1, 3 * 144, device="cpu").reshape(3, 12, 12)
    assert cv.trace(model, image, 0).full() and str(cv.receptive_field(model, (3, 12, 12)))
    assert cv.layer_counts(model, (3, 12, 12)).n_params == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("way", ["default", "converted"])
def test_models_of_every_floating_type(dtype, way, folder, tmp_path):
    if way == "default":
        torch.set_default_dtype(dtype)
    try:
        model = network().to(dtype)
        learn = use_everything(folder, model, tmp_path)
        explain(model)
    finally:
        torch.set_default_dtype(torch.float32)
    assert {p.dtype for p in model.parameters()} == {dtype}
    assert learn.activation_stats.history.train is not None


def test_a_double_model_equals_a_loop_by_hand(folder):
    learn, hand = learner(folder, network().double(), opt_func=SGD), network().double()
    torch.manual_seed(1)
    learn.fit(2, 0.1)
    opt = torch.optim.SGD(hand.parameters(), 0.1)
    torch.manual_seed(1)
    for _ in range(2):
        hand.train()
        for xb, yb in learn.dls.train:
            F.cross_entropy(hand(xb.double()), yb).backward()
            opt.step()
            opt.zero_grad()
    for ours, theirs in zip(learn.model.parameters(), hand.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_a_default_device_elsewhere(folder, tmp_path):
    """On "meta" tensors have no values: whatever is not put on its device by name fails there."""
    model, plain = network(), network()
    torch.set_default_device("meta")
    try:
        torch.random.default_generator.manual_seed(2)
        learn = use_everything(folder, model, tmp_path)
        explain(model)
    finally:
        torch.set_default_device(None)
    torch.manual_seed(2)
    other = use_everything(folder, plain, tmp_path)
    assert all(map(torch.equal, learn.model.parameters(), other.model.parameters()))


class Own(nn.Sequential):
    """A user's class, for which the layout is left alone."""


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "compiled": lambda model: torch.compile(model, backend="eager"),
    "DataParallel": nn.DataParallel,
    "scripted": torch.jit.script,
    "traced by fx": torch.fx.symbolic_trace,
}


@pytest.mark.filterwarnings("ignore:`torch.jit", "ignore:the model runs uncompiled", "ignore:Using `torch.compile")
@pytest.mark.parametrize("kind", WRAPPERS)
def test_wrapped_models_train_as_the_plain_one(kind, folder, tmp_path):
    # Only modules of torch alone train channels-last, where the last bits of a convolution differ.
    plain = network() if kind == "DataParallel" else Own(*network())
    wrapped = WRAPPERS[kind](network())
    for model in (plain, wrapped):
        torch.manual_seed(2)
        use_everything(folder, model, tmp_path, seen=kind != "scripted")
    for ours, theirs in zip(wrapped.parameters(), plain.parameters(), strict=True):
        if kind == "scripted":  # the compiler of TorchScript rounds in other places
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
        else:
            assert torch.equal(ours, theirs)
    learner(folder, plain, path=tmp_path).load("kinds")  # what the wrapped one saved


Outputs = namedtuple("Outputs", "scores twice")
KINDS: dict[str, Callable[[Tensor], Any]] = {
    "tuple": lambda y: (y, 2 * y),
    "list": lambda y: [y, 2 * y],
    "named": lambda y: Outputs(y, 2 * y),
    "dict": lambda y: {"scores": y, "twice": 2 * y},
    "nested": lambda y: (y, {"twice": (2 * y,)}),
}


class Several(nn.Module):
    def __init__(self, kind: str):
        super().__init__()
        self.body, self.kind = network(), kind

    def forward(self, x: Tensor) -> Any:
        return KINDS[self.kind](self.body(x))


def scores(pred: Any) -> Tensor:
    return pred["scores"] if isinstance(pred, dict) else pred[0]


@pytest.mark.parametrize("kind", KINDS)
def test_models_with_several_outputs(kind, folder):
    def loss(pred: Any, targ: Tensor) -> Tensor:
        return F.cross_entropy(scores(pred), targ)

    learn = learner(folder, Several(kind), loss, metrics=lambda pred, targ: accuracy(scores(pred), targ))
    plain = learner(folder, Own(*network()))
    for each in (learn, plain):
        torch.manual_seed(3)
        each.fit(1, 0.01)
    assert learn.validate() == plain.validate() and learn.recorder.values == plain.recorder.values
    preds, labels = learn.get_preds()
    expected = plain.get_preds(act=lambda pred: pred)
    assert type(preds) is type(KINDS[kind](torch.ones(1))) and torch.equal(labels, expected[1])
    assert torch.equal(scores(preds), expected[0])
    for use in (lambda: learn.predict(folder / "a" / "0.png"), learn.show_results):
        with pytest.raises(UsageError, match=f"one tensor .*, this one gives a {type(preds).__name__}"):
            use()
    with pytest.raises(UsageError, match="interpretation needs one output"):
        ClassificationInterpretation.from_learner(learn)


def test_pictures_as_outputs_can_be_viewed(folder):
    """A loss and a metric that call `view`, on what a convolution put out while the model trains channels-last."""

    def loss(pred: Tensor, targ: Tensor) -> Tensor:
        return F.cross_entropy(pred.view(len(pred), -1)[:, :3], targ)

    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 3, 3, 2))
    learner(folder, model, loss, metrics=lambda pred, targ: pred.view(-1).mean()).fit(1, 0.01)


COPIES = {"pickle": lambda learn: pickle.loads(pickle.dumps(learn)), "deepcopy": copy.deepcopy}


@pytest.mark.parametrize("copied", COPIES)
@pytest.mark.parametrize("opt_func", [Adam, SGD, torch.optim.RMSprop])
def test_a_used_learner_can_be_copied_and_goes_on_alike(copied, opt_func, folder, monkeypatch):
    learn = Learner(
        loaders(folder), network(), opt_func=opt_func, metrics=accuracy, cbs=ActivationStats(with_grads=True)
    )
    monkeypatch.setattr("pellucid.training.callbacks.progress.make_display", lambda bar: TerminalDisplay())
    learn.fit_one_cycle(1, 0.01)
    learn.lr_find(num_it=10, suggest_funcs=None)
    learn.show_results(), learn.summary()
    ends = []
    for each in (COPIES[copied](learn), learn):
        torch.manual_seed(4)
        each.fit(1, 0.01)
        assert each.opt.param_groups[0]["params"][0] is each.model[0].weight
        ends.append([*each.model.parameters(), torch.tensor(each.validate())])
    assert all(map(torch.equal, *ends)) and not any(map(torch.Tensor.is_set_to, *ends))
