"""Validation and predictions in fastai's words, on loaders of every kind, with batches of every form."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import BatchSampler, IterableDataset, SequentialSampler, SubsetRandomSampler, TensorDataset
from torch.utils.data import DataLoader as TorchLoader

from pellucid.data.images import Decoding
from pellucid.data.loader import DataLoader, DataLoaders
from pellucid.data.sources import StoredImages
from pellucid.errors import PellucidError, TrainingError, UsageError
from pellucid.metrics import accuracy
from pellucid.nn.losses import BCEWithLogitsLossFlat
from pellucid.training.callbacks.core import Callback
from pellucid.training.callbacks.progress import ProgressCallback
from pellucid.training.interpretation import ClassificationInterpretation
from pellucid.training.learner import Learner

N, N_VALID = 10, 6
PIXELS = np.random.default_rng(0).integers(0, 256, (N + N_VALID, 1, 3, 3)).astype(np.uint8)
LABELS = torch.arange(N + N_VALID) % 3
X = torch.from_numpy(PIXELS).float() / 255


def ours() -> DataLoaders:
    source = StoredImages(PIXELS, np.zeros((len(PIXELS), 1, 2), np.int64))
    train = DataLoader(source, range(N), LABELS[:N], bs=4, shuffle=True, drop_last=True, training=True)
    return DataLoaders(train, DataLoader(source, range(N, len(PIXELS)), LABELS[N:], bs=4), vocab="abc", device="cpu")


def torchs() -> DataLoaders:
    sides = (slice(N), slice(N, None))
    return DataLoaders(*(TorchLoader(TensorDataset(X[s], LABELS[s]), 4) for s in sides), vocab="abc", device="cpu")


def lists() -> DataLoaders:
    sides = (slice(N), slice(N, None))
    return DataLoaders(
        *([*zip(X[s].split(4), LABELS[s].split(4), strict=True)] for s in sides), vocab="abc", device="cpu"
    )


def learner(dls: DataLoaders, model: nn.Module | None = None, **options) -> Learner:
    torch.manual_seed(0)
    learn = Learner(dls, model or nn.Sequential(nn.Flatten(), nn.Linear(9, 3)), **options)
    return learn.remove_cb(ProgressCallback)  # type: ignore[return-value]


@pytest.mark.parametrize("loaders", [ours, torchs, lists])
@pytest.mark.parametrize("ds_idx", [0, 1])
def test_each_side_is_predicted_whole_and_in_order(loaders, ds_idx):
    learn = learner(loaders(), metrics=accuracy)
    x, y = (X[:N], LABELS[:N]) if ds_idx == 0 else (X[N:], LABELS[N:])
    out = learn.model(x)
    xs, preds, targs, decoded, losses = learn.get_preds(ds_idx, with_input=True, with_decoded=True, with_loss=True)
    assert torch.equal(xs, x) and torch.equal(targs, y) and torch.equal(decoded, out.argmax(1))
    assert torch.allclose(preds, out.softmax(1)) and torch.allclose(losses, F.cross_entropy(out, y, reduction="none"))
    assert learn.validate(ds_idx) == pytest.approx(
        [F.cross_entropy(out, y).item(), (out.argmax(1) == y).float().mean().item()], rel=1e-5
    )


@pytest.mark.parametrize(
    ("asked", "n"),
    [({}, 2), ({"with_loss": True}, 3), ({"with_decoded": True}, 3), ({"with_input": True, "with_loss": True}, 4)],
)
def test_only_what_is_asked_for_comes(asked, n):
    assert len(learner(torchs()).get_preds(**asked)) == n


@pytest.mark.parametrize(
    ("loss_func", "n_out", "expected"),
    [
        (F.cross_entropy, 3, lambda out: out.argmax(1)),
        (nn.CrossEntropyLoss(), 3, lambda out: out.argmax(1)),
        (lambda pred, targ: F.cross_entropy(pred, targ), 3, lambda out: out),
        (nn.BCEWithLogitsLoss(), 1, lambda out: out.sigmoid() > 0.5),
        (F.mse_loss, 1, lambda out: out),
    ],
)
def test_what_predictions_say_depends_on_the_loss(loss_func, n_out, expected):
    targets = LABELS if n_out == 3 else LABELS[:, None].float()
    learn = learner(
        DataLoaders([(X, targets)], [(X, targets)], device="cpu"),
        nn.Sequential(nn.Flatten(), nn.Linear(9, n_out)),
        loss_func=loss_func,
    )
    _, _, decoded = learn.get_preds(with_decoded=True)
    assert torch.equal(decoded, expected(learn.model(X)))


@pytest.mark.parametrize("loaders", [ours, torchs, lists])
@pytest.mark.parametrize("ds_idx", [0, 1])
def test_results_of_either_side_are_shown(loaders, ds_idx):
    learn = learner(loaders())
    with torch.no_grad():
        learn.model[1].bias[1] += 9  # everything is taken for class 1, "b"
    figure = learn.show_results(ds_idx, max_n=3)
    x, y = (X[:N], LABELS[:N]) if ds_idx == 0 else (X[N:], LABELS[N:])
    rows = torch.linspace(0, len(x) - 1, 3).round().long() if loaders is ours else torch.arange(3)
    shown = [ax for ax in figure.axes if ax.get_images()]
    assert [ax.get_title() for ax in shown] == [f"{'abc'[i]}\nb" for i in y[rows]]
    assert [ax.title.get_color() for ax in shown] == ["black" if i == 1 else "crimson" for i in y[rows]]
    assert np.allclose([ax.get_images()[0].get_array() for ax in shown], x[rows][:, 0])


def one_output(loss_func) -> tuple[Learner, torch.Tensor]:
    """A learner of cats and dogs whose one output is the mean of the pixels less the median one, and who is a dog."""
    source = StoredImages(PIXELS, np.zeros((len(PIXELS), 1, 2), np.int64))
    means = X.mean((1, 2, 3))
    dogs = means > means.median()
    ours = DataLoader(source, range(len(X)), dogs.long(), bs=4)
    net = nn.Sequential(nn.Flatten(), nn.Linear(9, 1))
    learn = learner(
        DataLoaders(ours, ours, vocab=["cat", "dog"], decoding=Decoding("L"), device="cpu"), net, loss_func=loss_func
    )
    with torch.no_grad():
        net[1].weight.fill_(1 / 9), net[1].bias.fill_(-means.median())
    return learn, dogs


def test_one_yes_or_no_output_names_both_classes():
    learn, dogs = one_output(BCEWithLogitsLossFlat())
    assert 0 < dogs.sum() < len(dogs)
    for pixels, dog in zip(PIXELS, dogs, strict=True):
        name, index, probabilities = learn.predict(pixels[0])
        assert (name, int(index)) == (("dog", 1) if dog else ("cat", 0))
        assert (float(probabilities) > 0.5) == dog
    wrong = ~dogs  # as whole numbers, as numbers of each item, in a column
    for labels, right in ((dogs, True), (dogs.float(), True), (dogs.float()[:, None], True), (wrong.long(), False)):
        figure = learn.show_results(dl=[(X, labels)], max_n=len(X))
        shown = [ax for ax in figure.axes if ax.get_images()]
        names = [("cat", "dog")[int(i)] for i in labels.flatten()]
        said = [("cat", "dog")[int(i)] for i in dogs]
        assert [ax.get_title() for ax in shown] == [f"{a}\n{b}" for a, b in zip(names, said, strict=True)]
        assert {ax.title.get_color() for ax in shown} == {"black" if right else "crimson"}


def test_one_number_of_no_meaning_is_no_class():
    learn, _ = one_output(lambda pred, targ: F.mse_loss(pred[:, 0], targ.float()))
    with pytest.raises(UsageError, match="does not say which class it means"):
        learn.predict(PIXELS[0, 0])


def test_results_of_any_loader_are_shown():
    learn = learner(torchs())
    figure = learn.show_results(dl=[(X[:2],)], figsize=(2, 1))
    titles = [ax.get_title() for ax in figure.axes if ax.get_images()]
    assert titles == ["abc"[i] for i in learn.model(X[:2]).argmax(1)]
    assert figure.get_suptitle() == "prediction" and figure.get_size_inches().tolist() == [2, 1]
    with pytest.raises(UsageError, match=r"loader .* does not exist"):
        learn.show_results(learn.dls.valid)
    regression = learner(
        DataLoaders([(X, X.mean((1, 2, 3)))], device="cpu"),
        nn.Sequential(nn.Flatten(), nn.Linear(9, 1), nn.Flatten(0)),
        loss_func=F.mse_loss,
    )
    title = regression.show_results(0, max_n=1).axes[0].get_title().split("\n")
    assert title == [f"{X[0].mean():.4g}", f"{regression.model(X[:1]).item():.4g}"]


def test_loaders_and_numbers_are_not_confused():
    learn = learner(torchs())
    for call in (learn.get_preds, learn.validate):
        with pytest.raises(UsageError, match=r"loader .* does not exist: 0 is training.*your own goes in as dl="):
            call(learn.dls.train)
        with pytest.raises(UsageError, match="loader 2 does not exist"):
            call(2)
    with pytest.raises(UsageError, match="with_loss needs labels"):
        learn.get_preds(dl=[(X,)], with_loss=True)
    with pytest.raises(UsageError, match="no batch to predict"):
        learn.get_preds(dl=[])
    preds, targs = learn.get_preds(dl=[X])  # a bare tensor, not its rows
    assert preds.shape == (N + N_VALID, 3) and targs is None


def test_a_learner_may_do_without_validation():
    learn = learner(DataLoaders(torchs().train, None, vocab="abc", device="cpu"), metrics=accuracy)
    learn.fit_one_cycle(2, 0.01)
    assert len(learn.recorder.raw_losses) == 6
    assert all(np.isnan(row[1:]).all() and np.isfinite(row[0]) for row in learn.recorder.values)
    assert len(learn.validate(0)) == 2 and learn.lr_find(num_it=10, show_plot=False)
    for call in (learn.validate, learn.get_preds, learn.show_results):
        with pytest.raises(UsageError, match="no validation loader"):
            call()


def test_the_table_of_a_fit_without_validation_is_printed(capsys):
    learn = Learner(DataLoaders(torchs().train, device="cpu"), nn.Sequential(nn.Flatten(), nn.Linear(9, 3)))
    learn.fit(1, 0.01)
    assert capsys.readouterr().out.splitlines()[-1].split()[0] == "0"


BATCHES = {
    "a dict": ({"image": X, "label": LABELS}, r"a dict with keys 'image', 'label'.*batch\['image'\], batch\['label'\]"),
    "a list of names": ((X, ["a"] * len(X)), "a tuple of 16×1×3×3 float32, list"),
    "arrays": ((X.numpy(), LABELS.numpy()), "a tuple of ndarray, ndarray"),
}


@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize("side", ["fit", "validate", "get_preds"])
def test_batches_that_cannot_be_taken_apart_are_described(name, side):
    batch, message = BATCHES[name]
    learn = learner(DataLoaders([batch], [batch], device="cpu"))
    with pytest.raises(UsageError, match=f"a batch must be a tuple of tensors, .*{message}"):
        learn.fit(1) if side == "fit" else getattr(learn, side)()


@pytest.mark.parametrize("batch", [(X,), X])
def test_training_needs_labels(batch):
    with pytest.raises(UsageError, match="labels"):
        learner(DataLoaders([batch], device="cpu")).fit(1)


def test_of_three_members_two_are_inputs():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(9, 3)

        def forward(self, a, b):
            return self.layer(a.flatten(1) + b.flatten(1))

    learn = learner(DataLoaders([(X, X, LABELS)], [(X, X, LABELS)], device="cpu"), Sum())
    learn.fit(1, 0.01)
    preds, targs = learn.get_preds()
    assert torch.allclose(preds, learn.model(X, X).softmax(1)) and torch.equal(targs, LABELS)


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, nn.LazyBatchNorm1d])
def test_one_image_and_a_batchnorm(norm):
    layer = norm() if norm is nn.LazyBatchNorm1d else norm(9)
    data = TensorDataset(X[:9], LABELS[:9])  # the last batch of 4 has one image
    net = nn.Sequential(nn.Flatten(), layer, nn.Linear(9, 3))
    net(X)
    learn = learner(DataLoaders(TorchLoader(data, 4), device="cpu"), net)
    seen = []
    learn.add_cb(Callback(after_batch=lambda self: seen.append(self.loss.item())))
    message = r"batchnorm .* has 1 item, .*larger batches.*drop_last=True"
    with pytest.raises(TrainingError, match=message):
        learn.fit(1, 0.01)
    assert len(seen) == 2
    learn.dls = DataLoaders(TorchLoader(data, 4, drop_last=True), TorchLoader(data, 1), device="cpu")
    learn.fit(1, 0.01)  # validation takes one image at a time


def test_other_errors_of_a_model_stay_its_own():
    class Broken(nn.Module):
        def forward(self, x):
            raise ValueError("my own")

    with pytest.raises(ValueError, match="my own"):
        learner(torchs(), Broken()).validate()


class First(nn.Module):
    """Sees the first of its inputs only."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(9, 3)

    def forward(self, x, *others):
        return self.layer(x.flatten(1))


FORMS = {
    "a pair": (X, LABELS),
    "two inputs": (X, X, LABELS),
    "a dict": {"x": X, "y": LABELS},
    "a tensor": X,
    "one member": (X,),
    "names": (X, ["a"] * len(X)),
    "arrays": (X.numpy(), LABELS.numpy()),
    "nested": ((X, X), LABELS),
    "doubles": (X.double(), LABELS),
    "bytes": (torch.from_numpy(PIXELS), LABELS),
    "labels in a column": (X, LABELS[:, None]),
    "nothing": None,
}
USES = {
    "fit": lambda learn: learn.fit(1),
    "lr_find": lambda learn: learn.lr_find(num_it=10, show_plot=False),
    "validate": lambda learn: learn.validate(),
    "get_preds": lambda learn: learn.get_preds(with_loss=True, with_decoded=True, with_input=True),
    "show_results": lambda learn: learn.show_results(max_n=1),
    "show_batch": lambda learn: learn.dls.show_batch(max_n=1),
    "summary": lambda learn: learn.summary(),
    "interpret": lambda learn: ClassificationInterpretation.from_learner(learn).plot_top_losses(1),
    "bs": lambda learn: learn.dls.bs,
    "print": lambda learn: str(learn.dls),
}
ALWAYS = {(form, use) for form in ("a pair", "two inputs") for use in USES} - {("two inputs", "summary")}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_batch_works_or_is_refused_in_our_words(form, use):
    batches = [] if FORMS[form] is None else [FORMS[form]]
    learn = learner(DataLoaders(batches, batches, vocab="abc", device="cpu"), First(), metrics=accuracy)
    refusing = contextlib.nullcontext() if (form, use) in ALWAYS else contextlib.suppress(PellucidError)
    with refusing:
        USES[use](learn)


class Sized(IterableDataset):
    def __iter__(self):
        return iter(zip(X, LABELS, strict=True))

    def __len__(self):
        return len(X)


DATA = TensorDataset(X, LABELS)
TORCHS = {
    "shuffled": lambda: TorchLoader(DATA, 4, shuffle=True),
    "own generator": lambda: TorchLoader(DATA, 4, shuffle=True, generator=torch.Generator().manual_seed(1)),
    "sampler": lambda: TorchLoader(DATA, 4, sampler=SubsetRandomSampler(range(8))),
    "batch sampler": lambda: TorchLoader(DATA, batch_sampler=BatchSampler(SequentialSampler(DATA), 4, False)),
    "no batches": lambda: TorchLoader(TensorDataset(X[None], LABELS[None]), batch_size=None),
    "sized stream": lambda: TorchLoader(Sized(), 4),
    "lists of tensors": lambda: TorchLoader(
        DATA, 4, collate_fn=lambda rows: [torch.stack(x) for x in zip(*rows, strict=True)]
    ),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("kind", TORCHS)
def test_every_kind_of_torch_loader_works_everywhere(kind, use):
    valid = TorchLoader(DATA, 4) if use == "interpret" else TORCHS[kind]()
    learn = learner(DataLoaders(TORCHS[kind](), valid, vocab="abc", device="cpu"), First(), metrics=accuracy)
    USES[use](learn)


@pytest.mark.parametrize("dls", [None, [(X, LABELS)], ([(X, LABELS)], None), torchs().train])
def test_a_learner_of_anything_but_two_loaders_is_refused(dls):
    with pytest.raises(UsageError, match=r"Learner takes DataLoaders first, got a .*DataLoaders\(train, valid\)"):
        Learner(dls, First())
