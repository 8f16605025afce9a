"""What a GPU changes: everything that works on the CPU works there, with the same results.

`make gpu` runs it; the other tests hide the GPUs of a machine, since they compare with loops by hand on the CPU.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import pellucid
from hanging import HUNG_S
from pellucid import convolution as cv
from pellucid.training.timing import faster_precision
from pellucid.vision.all import (
    SGD,
    ActivationStats,
    Adam,
    ClassificationInterpretation,
    CohenKappa,
    DataLoaders,
    F1Score,
    FocalLossFlat,
    Hook,
    ImageDataLoaders,
    Jaccard,
    LabelSmoothingCrossEntropyFlat,
    Learner,
    MatthewsCorrCoef,
    Normalize,
    Precision,
    Recall,
    Resize,
    accuracy,
    default_device,
    error_rate,
    hook_outputs,
    load_run,
    params,
    top_k_accuracy,
)

GPU = torch.device("cuda")
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@pytest.fixture(autouse=True)
def full_precision(monkeypatch):
    """Convolutions in float32 and not in TensorFloat-32, which keeps three digits."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def loaders(photos: Path, device: Any, **options: Any) -> DataLoaders:
    return ImageDataLoaders.from_folder(
        photos, valid_pct=0.3, seed=0, bs=8, device=device,
        **{"item_tfms": Resize(24), "batch_tfms": Normalize()} | options,
    )  # fmt: skip


def small(width: int = 8) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, 6, 3, 2, 1, padding_mode="reflect"), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(24, 3),
    )  # fmt: skip


def quiet(learn: Learner) -> Learner:
    learn.no_bar().__enter__(), learn.no_logging().__enter__()
    return learn


def learner(photos: Path, device: Any = GPU, model: nn.Module | None = None, **options: Any) -> Learner:
    return quiet(
        Learner(loaders(photos, device), small() if model is None else model, **{"path": photos.parent} | options)
    )


def close(ours: Any, theirs: Any, tolerance: float = 2e-3) -> None:
    torch.testing.assert_close(*(torch.as_tensor(each).detach().cpu().float() for each in (ours, theirs)),
                               rtol=tolerance, atol=tolerance)  # fmt: skip


def test_the_gpu_is_the_default():
    assert default_device() == GPU


@pytest.mark.parametrize("opt_func", [SGD, Adam])
def test_a_fit_is_the_fit_on_the_cpu(photos, opt_func):
    done = []
    for device in (GPU, torch.device("cpu")):
        metrics = [accuracy, error_rate, F1Score(average="macro")]
        learn = learner(
            photos, device, opt_func=opt_func, metrics=metrics, cbs=ActivationStats(with_hist=True, with_grads=True)
        )
        torch.manual_seed(1)
        learn.fit_one_cycle(2, 0.01)
        done.append(learn)
    for ours, theirs in zip(*(learn.model.state_dict().values() for learn in done), strict=True):
        close(ours, theirs, 0.02)
    close(*(learn.recorder.losses for learn in done), 0.02)
    histories = [learn.activation_stats.history for learn in done]
    assert histories[0].layers == histories[1].layers
    ours, theirs = (np.stack(learn.activation_stats.layer_stats(0)) for learn in done)
    close(ours, theirs, 0.02)
    bins = [np.asarray(learn.activation_stats.hist(0), np.float64) for learn in done]
    assert bins[0].sum() == bins[1].sum() and abs(bins[0] - bins[1]).sum() < 0.02 * bins[1].sum()


def test_everything_a_learner_can_do(photos, tmp_path):
    learn = learner(
        photos, metrics=[accuracy, F1Score(average="macro")], path=tmp_path, cbs=ActivationStats(with_hist=True)
    )
    learn.fit_one_cycle(2, 0.01)
    learn.lr_find(num_it=10, suggest_funcs=None)
    loss, share, _ = learn.validate()
    probabilities, labels = learn.get_preds()
    assert share == pytest.approx(float((probabilities.argmax(1) == labels).float().mean())) and np.isfinite(loss)
    file = photos / "red" / "0.jpg"
    name, index, row = learn.predict(file)
    assert learn.dls.vocab[int(index)] == name and row.device.type == "cpu"
    learn.show_results(), learn.dls.show_batch(), learn.activation_stats.plot_layer_stats(0), learn.recorder.plot_loss()
    assert "Total params" in str(learn.summary())
    found = ClassificationInterpretation.from_learner(learn)
    found.plot_top_losses(2), found.plot_confusion_matrix()
    before = {key: value.clone() for key, value in learn.model.state_dict().items()}
    learn.save("here")
    learn.fit(1, 0.01)
    learn.load("here")
    assert all(torch.equal(value, before[key]) for key, value in learn.model.state_dict().items())
    learn.fit(1, 0.01)
    folder = learn.save_run(tmp_path / "run", small)
    run = load_run(folder, allow=f"{small.__module__}:small")
    (theirs,) = run.predict([file])
    close([theirs.probabilities[name] for name in learn.dls.vocab], learn.predict(file)[2])
    assert learn.opt.state and all(v.is_cuda for s in learn.opt.state.values() for k, v in s.items() if k != "step")


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains_as_float32(precision, photos):
    done = []
    for each in ("fp32", precision):
        learn = learner(photos, opt_func=SGD, cbs=ActivationStats(with_grads=True))
        getattr(learn, f"to_{each}")()
        torch.manual_seed(1)
        learn.fit(3, 0.01)
        assert learn.get_preds()[0].dtype == torch.float32
        done.append(learn)
    exact, half = done
    for ours, theirs in zip(half.model.parameters(), exact.model.parameters(), strict=True):
        close(ours, theirs, 0.05)
    close(half.recorder.raw_losses, exact.recorder.raw_losses, 0.05)
    assert half.scaling is None or half.scaling.n_steps == len(half.recorder.raw_losses)


def test_batches_are_sent_ahead_unchanged(photos):
    ours, theirs = (loaders(photos, device).valid for device in (GPU, torch.device("cpu")))
    for _ in range(3):
        kept, busy = [], torch.randn(2000, 2000, device=GPU)
        for xb, yb in ours:
            busy = busy @ busy / 2000  # the GPU is behind, so that copies run beside it
            kept.append((xb * 2, yb))
        for (doubled, labels), (x, y) in zip(kept, theirs, strict=True):
            close(doubled, 2 * x)
            assert labels.tolist() == y.tolist()


def test_a_trial_of_precisions_leaves_the_model_alone(photos):
    learn = learner(photos)
    before = {name: value.to(GPU, copy=True) for name, value in learn.model.state_dict().items()}
    chosen, seconds = faster_precision(learn)
    assert chosen in seconds and len(seconds) == 2
    assert all(torch.equal(value, before[name]) for name, value in learn.model.state_dict().items())


BEFORE_A_FIT: dict[str, Callable[[Learner, Path], Any]] = {
    "validate": lambda learn, _: learn.validate(),
    "get_preds": lambda learn, _: learn.get_preds(),
    "predict": lambda learn, folder: learn.predict(folder / "photos" / "red" / "0.jpg"),
    "show_results": lambda learn, _: learn.show_results(),
    "summary": lambda learn, _: str(learn.summary()),
    "lr_find": lambda learn, _: learn.lr_find(num_it=10, suggest_funcs=None),
    "interpretation": lambda learn, _: ClassificationInterpretation.from_learner(learn).top_losses(2),
    "save and load": lambda learn, _: (learn.save("x"), learn.load("x")),
    "save_run": lambda learn, folder: learn.save_run(folder / "run", small),
    "create_opt": lambda learn, _: learn.create_opt(),
    "freeze": lambda learn, _: learn.freeze(),
    "print": lambda learn, _: repr(learn),
}


@pytest.mark.parametrize("call", BEFORE_A_FIT)
@pytest.mark.parametrize("lazy", [False, True])
def test_what_comes_before_the_first_fit(call, lazy, photos):
    model = small()
    if lazy and call not in ("save and load", "save_run", "print"):
        model[0] = nn.LazyConv2d(8, 3, 2, 1)
    learn = learner(photos, model=model, splitter=lambda m: [params(m[:3]), params(m[3:])])
    BEFORE_A_FIT[call](learn, photos.parent)
    learn.fit(1, 0.01)


class Batches:
    """A loader of others, whose batches lie on the CPU."""

    def __init__(self, n: int = 4):
        draw = torch.Generator().manual_seed(3)
        self.batches = [(torch.rand(8, 3, 24, 24, generator=draw), torch.arange(8) % 3) for _ in range(n)]

    def __iter__(self):
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def test_loaders_of_others(tmp_path):
    dls = DataLoaders(Batches(), Batches(2), vocab=["a", "b", "c"])
    assert dls.device == GPU
    learn = quiet(Learner(dls, small(), metrics=accuracy, cbs=ActivationStats))
    learn.fit(1, 0.01)
    learn.show_results(), learn.dls.show_batch(), learn.get_preds()
    assert learn.save_run(tmp_path / "run", small).exists()


def masked(p: Tensor) -> None:
    p.grad = torch.where(torch.ones_like(p, dtype=torch.bool), p.grad, 0)  # in the standard order


def noisy(p: Tensor) -> None:
    p.grad = p.grad.contiguous() + 0.1


@pytest.mark.parametrize("edit", [None, masked, noisy])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(
    "make", [Adam, lambda ps, lr: SGD(ps, lr, mom=0.9), lambda ps, lr: torch.optim.AdamW(ps, lr, fused=True)]
)
def test_a_fit_is_a_loop_by_hand(make, last, edit):
    """Fused kernels pair elements of weights, gradients and moments by their place in memory."""
    kind = {"memory_format": torch.channels_last} if last else {}
    ours, theirs = small().to(GPU, **kind), small().double().to(GPU)
    batches = list(Batches())
    learn = quiet(Learner(DataLoaders(batches, None), ours, F.cross_entropy, opt_func=make, wd=None))
    if edit:
        learn.add_cb(
            pellucid.training.callbacks.core.Callback(before_step=lambda _: [edit(p) for p in ours.parameters()])
        )
    learn.fit(2, 0.01)
    opt = make(theirs.parameters(), 0.01)
    decays = {id(p): g["weight_decay"] for g in learn.opt.param_groups for p in g["params"]}
    by_decay: dict[float, list[Tensor]] = {}
    for mine, p in zip(ours.parameters(), theirs.parameters(), strict=True):
        by_decay.setdefault(decays[id(mine)], []).append(p)
    rest = {k: v for k, v in opt.param_groups[0].items() if k != "params"}
    opt.param_groups[:] = [rest | {"params": ps, "weight_decay": wd} for wd, ps in by_decay.items()]
    for _ in range(2):
        for xb, yb in batches:
            F.cross_entropy(theirs(xb.double().to(GPU)), yb.to(GPU)).backward()
            for p in theirs.parameters() if edit else ():
                edit(p)
            opt.step()
            opt.zero_grad()
    for mine, p in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.double(), p, atol=2e-4, rtol=0)


OPTIMIZERS = [Adam, lambda ps, lr: SGD(ps, lr, mom=0.9), torch.optim.AdamW, torch.optim.NAdam, torch.optim.Adagrad]


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_a_learner_moves_with_its_loaders(make, photos):
    """Weights, moments and the loss's own tensors go along, there and back."""
    done = []
    for places in (("cpu", GPU, "cpu"), ("cpu", "cpu", "cpu")):
        loss = nn.CrossEntropyLoss(torch.tensor([1.0, 2, 3]))
        learn = learner(photos, "cpu", loss_func=loss, opt_func=make, cbs=ActivationStats)
        torch.manual_seed(1)
        for place in places:
            learn.dls.to(place)
            learn.fit(1, 0.003)
        done.append(learn.validate()[0])
    assert done[0] == pytest.approx(done[1], rel=0.02)


class Plain(nn.Module):
    """A batch transform with weights."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.full((3, 1, 1), 0.5), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale

    def to_json(self) -> dict[str, Any]:
        return {}


def test_a_module_transforms_batches_wherever_they_are(photos, tmp_path):
    dls = loaders(photos, GPU, batch_tfms=[Normalize(), Plain()])
    on_gpu = dls.valid.one_batch()[0]
    close(on_gpu, dls.to("cpu").valid.one_batch()[0])
    learn = quiet(Learner(dls.to(GPU), small()))
    learn.fit(1, 0.01)
    learn.save_run(tmp_path / "run", small)


def top_2(pred: Tensor, targ: Tensor) -> Tensor:
    return top_k_accuracy(pred, targ, k=2)


METRICS = [
    F1Score(average="macro"), Precision(average="micro"), Recall(average="weighted"), Jaccard(average="macro"),
    CohenKappa(), MatthewsCorrCoef(), accuracy, error_rate, top_2,
]  # fmt: skip
LOSSES = [nn.CrossEntropyLoss(torch.tensor([1.0, 2, 3])), LabelSmoothingCrossEntropyFlat(), FocalLossFlat(gamma=1.0)]


@pytest.mark.parametrize("loss", LOSSES, ids=lambda each: type(each).__name__)
def test_metrics_and_losses(loss, photos):
    values = []
    for device in ("cpu", GPU):
        learn = learner(photos, device, loss_func=copy.deepcopy(loss), metrics=METRICS)
        values.append(list(learn.validate()))
        learn.get_preds(with_loss=True)
    close(*values)


def test_explaining_a_model_on_the_gpu(tmp_path):
    ours, theirs = small().eval().to(GPU), small().eval()
    image = torch.rand(3, 24, 24, generator=torch.Generator().manual_seed(0))
    for given in (image, image.to(GPU)):
        mine, other = cv.trace(ours, given, "3", (2, 3), channel=1), cv.trace(theirs, image, "3", (2, 3), channel=1)
        close(mine.immediate().products, other.immediate().products)
        assert np.array_equal(mine.precedents()["image"], other.precedents()["image"])
        assert mine.full() and str(mine)
    assert str(cv.receptive_field(ours, (3, 24, 24))) == str(cv.receptive_field(theirs, (3, 24, 24)))
    close(cv.effective_field(ours, image[None].to(GPU), "3").map, cv.effective_field(theirs, image[None], "3").map)
    assert str(cv.layer_counts(ours, (3, 24, 24))) == str(cv.layer_counts(theirs, (3, 24, 24)))
    for layer in (0, 3):
        mine, other = (cv.as_matrix(m[layer], 24 // (layer + 1)) for m in (ours, theirs))
        close(mine.dense(), other.dense())
        close(mine.bias_vector(), other.bias_vector())
        close(mine.weight_gradient(mine.dense()), other.weight_gradient(other.dense()))
        assert mine.equations([0, 5]) == other.equations([0, 5])
    close(
        cv.apply_kernel(image[0].to(GPU), 3, 4, ours[0].weight[0, 0]),
        cv.apply_kernel(image[0], 3, 4, theirs[0].weight[0, 0]),
    )
    close(cv.feature_map(image.to(GPU), ours[0].weight), cv.feature_map(image, theirs[0].weight))
    close(
        cv.channel_products(image.to(GPU), ours[0].weight[0], 3, 4).products,
        cv.channel_products(image, theirs[0].weight[0], 3, 4).products,
    )
    cv.show_channels(image.to(GPU)), cv.show_gallery(image[0].to(GPU))
    cv.show_application(image[0].to(GPU), ours[0].weight[0, 0], 3, 4)
    cv.to_spreadsheet(nn.Sequential(*list(ours)[:1]), image[:, :8, :8].to(GPU), tmp_path / "sheet.xlsx")
    assert (tmp_path / "sheet.xlsx").stat().st_size


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
def test_a_loop_of_ones_own(kind):
    model = small().to(GPU)
    opt, scaler = (
        torch.optim.AdamW(model.parameters(), 0.01),
        torch.amp.GradScaler("cuda", enabled=kind is torch.float16),
    )
    with pellucid.watch(model, optimizer=opt, loss=True, with_hist=True) as seen:
        for xb, yb in Batches(12):
            with torch.autocast("cuda", kind, enabled=kind is not torch.float32):
                loss = F.cross_entropy(model(xb.to(GPU)), yb.to(GPU))
            scaler.scale(loss).backward()
            scaler.step(opt)
            scaler.update()
            opt.zero_grad()
    train = seen.history.train
    assert len(train.steps) == 12 and np.isfinite(seen.history.loss).all()
    assert str(seen.history)


def test_no_memory_of_the_gpu_stays(photos):
    learn = learner(photos, cbs=ActivationStats(with_hist=True, with_grads=True))
    learn.fit(1, 0.01)
    taken = []
    for _ in range(3):
        learn.fit(2, 0.01)
        taken.append(torch.cuda.memory_allocated())
    assert taken[1] == taken[2]


def test_hooks():
    model, x = small().to(GPU), torch.rand(2, 3, 24, 24, device=GPU)
    with hook_outputs(model) as hooks, Hook(model[0], lambda m, i, o: o.mean().item()) as one:
        model(x)
    assert all(each.stored.is_cuda for each in hooks) and isinstance(one.stored, float)


@pytest.mark.filterwarnings("ignore:the model runs uncompiled")
@pytest.mark.parametrize(
    "wrap", [nn.DataParallel, lambda m: torch.compile(m, backend="eager")], ids=["parallel", "compiled"]
)
def test_wrappers(wrap, photos, tmp_path):
    learn = learner(photos, model=wrap(small()), cbs=ActivationStats, path=tmp_path, metrics=accuracy)
    learn.fit(1, 0.01)
    learn.validate(), learn.save("x"), learn.save_run(tmp_path / "run", small)
    learner(photos, path=tmp_path).load("x")


RANKS = """
import os, torch, pellucid
import torch.distributed as dist
from torch.nn import functional as F
dist.init_process_group("nccl", init_method=f"file://{os.getcwd()}/meeting", rank=0, world_size=1)
model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(4, 3).cuda(), device_ids=[0])
opt = torch.optim.SGD(model.parameters(), 0.1)
with pellucid.watch(model, optimizer=opt, loss=True) as seen:
    for _ in range(3):
        F.cross_entropy(model(torch.rand(8, 4).cuda()), torch.arange(8).cuda() % 3).backward()
        opt.step()
        opt.zero_grad()
print(len(seen.history.train.steps), flush=True)
dist.destroy_process_group()
"""


def test_ranks_with_nccl(tmp_path):
    done = subprocess.run([sys.executable, "-c", RANKS], cwd=tmp_path, capture_output=True, text=True, timeout=HUNG_S)
    assert done.returncode == 0 and done.stdout.split()[-1] == "3", done.stderr


def test_the_command_line(photos, tmp_path):
    def said(*words: Any) -> str:
        command = [sys.executable, "-m", "pellucid", *map(str, words)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=HUNG_S, env=os.environ)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    said("train", photos, "--epochs", 2, "--out", "run", "--size", 24)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["settings"]["device"].startswith("cuda")
    file = photos / "red" / "0.jpg"
    assert "red" in said("predict", "run", file)
    said("show", "run"), said("explain", "run", file, "--out", "page.html")


def test_experiments():
    from pellucid.experiments.trainings import train_digits

    first, again = (train_digits(0, epochs=1, images=600) for _ in range(2))
    assert first["accuracy"] == pytest.approx(again["accuracy"], abs=0.02)
    assert first["valid_loss"] == pytest.approx(again["valid_loss"], rel=1e-2)
