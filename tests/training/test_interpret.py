from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import TensorDataset

from pellucid.data.factories import ImageDataLoaders
from pellucid.data.images import PILImageBW
from pellucid.data.loader import DataLoaders
from pellucid.data.transforms import Normalize
from pellucid.errors import UsageError
from pellucid.metrics import accuracy
from pellucid.nn.losses import BCEWithLogitsLossFlat, LabelSmoothingCrossEntropy
from pellucid.nn.models import simple_cnn
from pellucid.seed import set_seed
from pellucid.training.callbacks.progress import ProgressCallback
from pellucid.training.interpretation import ClassificationInterpretation
from pellucid.training.learner import Learner
from pellucid.training.reports import classification_report, labels_report


@pytest.fixture(scope="module")
def learn(mnist_sample) -> Learner:
    dls = ImageDataLoaders.from_folder(
        mnist_sample, valid="valid", img_cls=PILImageBW, batch_tfms=Normalize(), bs=512, device="cpu"
    )
    set_seed(0)
    learn = Learner(dls, simple_cnn(1, 2), metrics=accuracy)
    learn.remove_cb(ProgressCallback)
    learn.fit_one_cycle(1, 0.03)
    return learn


@pytest.fixture(scope="module")
def interp(learn) -> ClassificationInterpretation:
    return ClassificationInterpretation.from_learner(learn)


def brute_force(learn: Learner, dl) -> list[tuple[int, int, float, float]]:
    """(label, prediction, loss, probability) of each item, one at a time in float64."""
    model = learn.model.eval()
    with torch.no_grad():
        scores = torch.cat([model(xb) for xb, _ in dl]).double()
    labels = torch.cat([yb for _, yb in dl])
    rows = zip(labels.tolist(), scores, strict=True)
    return [(y, int(s.argmax()), float(s.logsumexp(0) - s[y]), float(s.softmax(0).max())) for y, s in rows]


def test_numbers_are_those_counted_one_by_one(learn, interp):
    rows = brute_force(learn, learn.dls.valid)
    counted = Counter((y, guess) for y, guess, *_ in rows)
    matrix = interp.confusion_matrix()
    assert matrix.tolist() == [[counted[i, j] for j in range(2)] for i in range(2)]
    assert matrix.trace() / matrix.sum() == pytest.approx(learn.recorder.values[-1][2])
    assert matrix.sum() - matrix.trace() > 0
    losses, positions = interp.top_losses(5)
    worst = sorted(range(len(rows)), key=lambda i: -rows[i][2])[:5]
    assert positions.tolist() == worst
    assert losses.tolist() == pytest.approx([rows[i][2] for i in worst], rel=1e-4)
    smallest = interp.top_losses(3, largest=False)[0]
    assert smallest.tolist() == pytest.approx(sorted(row[2] for row in rows)[:3], abs=1e-6)
    assert len(interp.top_losses()[0]) == len(interp.top_losses(10**9)[0]) == len(rows)
    wrong = [("3", "7", counted[0, 1]), ("7", "3", counted[1, 0])]
    assert sorted(interp.most_confused()) == sorted(pair for pair in wrong if pair[2])
    assert interp.most_confused(max(counted[0, 1], counted[1, 0]) + 1) == []


def test_the_worst_images_are_shown_with_what_is_known_of_them(learn, interp):
    rows = brute_force(learn, learn.dls.valid)
    losses, positions, paths = interp.top_losses(4, items=True)
    axes = interp.plot_top_losses(4).axes
    for ax, loss, i, path in zip(axes, losses.tolist(), positions.tolist(), paths, strict=True):
        y, guess, expected, probability = rows[i]
        assert loss == pytest.approx(expected, rel=1e-4)
        assert ax.get_title() == f"{'37'[guess]} / {'37'[y]}\n{expected:.2f} / {probability:.2f}"
        assert ax.title.get_color() == ("black" if y == guess else "crimson")
        assert path.parent.name == "37"[y]
        assert np.allclose(ax.images[0].get_array(), np.asarray(Image.open(path)) / 255, atol=1e-6)


def test_any_rank_or_position_can_be_shown(learn, interp):
    positions = interp.top_losses()[1].tolist()
    paths = interp.top_losses(items=True)[2]
    for shown, ranks in (
        (interp.plot_top_losses(range(3, 6)), [3, 4, 5]),
        (interp.plot_top_losses([7, 2]), [7, 2]),
        (interp.show_results(positions[11]), [11]),
        (interp.show_results(torch.tensor([positions[4], positions[0]])), [4, 0]),
    ):
        for ax, rank in zip(shown.axes, ranks, strict=False):  # a grid may end in empty axes
            assert np.allclose(ax.images[0].get_array(), np.asarray(Image.open(paths[rank])) / 255, atol=1e-6)
            i = positions[rank]
            assert ax.get_title().endswith(f"{interp.losses[i]:.2f} / {interp.preds[i].max():.2f}")
    n = len(interp.losses)
    for bad in ([-1], [n], [], [0.5], [[1]]):
        with pytest.raises(UsageError, match=f"whole numbers from 0 to {n - 1}, at least one"):
            interp.plot_top_losses(bad)
        with pytest.raises(UsageError, match="positions must be whole numbers"):
            interp.show_results(bad)
    for k in (0, -1):
        with pytest.raises(UsageError, match="k is how many losses, at least 1"):
            interp.top_losses(k)


def test_an_activation_of_ones_own(learn, interp):
    sharp = ClassificationInterpretation.from_learner(learn, act=lambda pred: (3 * pred).softmax(1))
    expected = interp.preds**3 / (interp.preds**3).sum(1, keepdim=True)
    assert torch.allclose(sharp.preds, expected, atol=1e-4) and torch.equal(sharp.losses, interp.losses)


def test_training_images_are_all_taken_in_order(learn):
    interp = ClassificationInterpretation.from_learner(learn, ds_idx=0)
    assert torch.equal(interp.targs, learn.dls.train.labels)  # 12,396 images, though batches of 512 leave some out
    assert learn.dls.train.shuffle and learn.dls.train.drop_last
    paths = interp.top_losses(2, items=True)[2]
    shown = interp.plot_top_losses(2).axes
    for ax, path in zip(shown, paths, strict=True):
        assert np.allclose(ax.images[0].get_array(), np.asarray(Image.open(path)) / 255, atol=1e-6)


def test_a_streaming_loader_that_skips_damaged_images(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(24):
        folder = tmp_path / ("valid" if i % 2 else "train") / "ab"[i // 2 % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(folder / f"{i:02d}.png")
    (tmp_path / "valid" / "a" / "01.png").write_bytes(b"not an image")
    with pytest.warns(UserWarning, match="skipped"):
        dls = ImageDataLoaders.from_folder(tmp_path, bs=4, cache=False, on_error="skip", device="cpu")
        learn = Learner(dls, simple_cnn(3, 2, 8))
        interp = ClassificationInterpretation.from_learner(learn)
        assert len(interp.targs) == 11
        position = int(interp.top_losses(1)[1][0])
        (ax,) = interp.plot_top_losses(1).axes
    path = sorted(dls.valid.items)[position + 1]  # the first one is damaged
    assert np.allclose(ax.images[0].get_array(), np.asarray(Image.open(path)) / 255, atol=1e-6)


def torch_learner(shuffle: bool = False, **options) -> Learner:
    rng = torch.Generator().manual_seed(0)
    data = TensorDataset(torch.randn(50, 1, 6, 6, generator=rng), torch.randint(0, 4, (50,), generator=rng))
    loader = TorchDataLoader(data, 8, shuffle=shuffle)
    return Learner(DataLoaders(loader, loader, device="cpu"), nn.Sequential(nn.Flatten(), nn.Linear(36, 4)), **options)


def test_any_torch_loader_does():
    set_seed(0)
    learn = torch_learner()
    interp = ClassificationInterpretation.from_learner(learn)
    rows = brute_force(learn, learn.dls.valid)
    assert interp.vocab == [0, 1, 2, 3]
    assert interp.losses.tolist() == pytest.approx([row[2] for row in rows], rel=1e-4)
    images = learn.dls.valid.dataset.tensors[0]
    for ax, i in zip(interp.plot_top_losses(4).axes, interp.top_losses(4)[1].tolist(), strict=True):
        image = images[i, 0]
        stretched = (image - image.min()) / (image.max() - image.min())
        assert np.allclose(ax.images[0].get_array(), stretched)
    with pytest.raises(UsageError, match="does not know what its images were made from"):
        interp.top_losses(3, items=True)


def test_a_loader_that_shuffles_cannot_find_its_images_again():
    interp = ClassificationInterpretation.from_learner(torch_learner(shuffle=True))
    assert interp.confusion_matrix().sum() == 50
    torch.rand(1)  # whatever is drawn in between, the loader's next order is another one
    with pytest.raises(UsageError, match=r"another order each time.* does not shuffle"):
        interp.plot_top_losses(3)


def test_losses_of_other_kinds():
    for loss in (LabelSmoothingCrossEntropy(0.3), lambda pred, targ: F.cross_entropy(pred, targ) ** 2):
        learn = torch_learner(loss_func=loss)
        interp = ClassificationInterpretation.from_learner(learn)
        xb, yb = learn.dls.valid.dataset.tensors
        with torch.no_grad():
            expected = [float(loss(learn.model(xb[i : i + 1]), yb[i : i + 1])) for i in range(50)]
        assert interp.losses.tolist() == pytest.approx(expected, rel=1e-4)


def test_what_cannot_be_interpreted(learn):
    with pytest.raises(UsageError, match="this loader has none"):
        ClassificationInterpretation.from_learner(learn, dl=learn.dls.test_dl([np.zeros((28, 28), np.uint8)]))
    with pytest.raises(UsageError, match="no batch"):
        ClassificationInterpretation.from_learner(learn, dl=[])
    for labels, said in ((torch.tensor([0, 1, -100]), "1 labels are not among the classes 0 to 1, -100 for one"),):
        with pytest.raises(UsageError, match=said):
            ClassificationInterpretation.from_learner(learn, dl=[(torch.randn(3, 1, 28, 28), labels)])
    with pytest.raises(UsageError, match="one output: it needs one per class"):
        ClassificationInterpretation([], ["a"], torch.ones(3, 1), torch.zeros(3).long(), torch.zeros(3))
    regression = [(torch.randn(4, 1, 28, 28), torch.randn(4, 2))]
    other = Learner(learn.dls, learn.model, loss_func=F.mse_loss)
    with pytest.raises(UsageError, match=r"whole number.* got outputs \(4, 2\) and labels \(4, 2\)"):
        ClassificationInterpretation.from_learner(other, dl=regression)


COUNTS = np.array([[8, 1, 0, 1], [2, 5, 0, 0], [3, 0, 0, 1], [0, 0, 0, 0]])
# scikit-learn 1.9.1: classification_report of these labels and predictions with zero_division=0
SKLEARN = """\
              precision    recall  f1-score   support

         cat      0.615     0.800     0.696        10
         dog      0.833     0.714     0.769         7
        fish      0.000     0.000     0.000         4
        bird      0.000     0.000     0.000         0

    accuracy                          0.619        21
   macro avg      0.362     0.379     0.366        21
weighted avg      0.571     0.619     0.588        21
"""


def test_the_report_is_scikit_learns():
    ours = classification_report(COUNTS, ["cat", "dog", "fish", "bird"], digits=3)
    assert [line.split() for line in ours.splitlines()] == [line.split() for line in SKLEARN.splitlines()]
    widths = {len(line) for line in ours.splitlines() if line}
    assert len(widths) == 1


ACTUAL = np.array([[1, 0, 1], [0, 0, 0], [1, 1, 0], [0, 1, 0], [1, 0, 0]], bool)
SAID = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0], [1, 0, 0], [0, 0, 0]], bool)
# scikit-learn 1.9.1: classification_report of these answers with zero_division=0
SKLEARN_LABELS = """\
              precision    recall  f1-score   support

         cat      0.667     0.667     0.667         3
         dog      0.500     0.500     0.500         2
        fish      0.000     0.000     0.000         1

   micro avg      0.600     0.500     0.545         6
   macro avg      0.389     0.389     0.389         6
weighted avg      0.500     0.500     0.500         6
 samples avg      0.400     0.300     0.333         6
"""


def test_the_report_of_labels_is_scikit_learns():
    ours = labels_report(ACTUAL, SAID, ["cat", "dog", "fish"], digits=3)
    assert [line.split() for line in ours.splitlines()] == [line.split() for line in SKLEARN_LABELS.splitlines()]


def test_items_of_several_labels(capsys):
    torch.manual_seed(0)
    xb, yb = torch.randn(20, 3, 4, 4), (torch.rand(20, 3) < 0.5).float()
    dls = DataLoaders([(xb, yb)], [(xb, yb)], vocab=["cat", "dog", "fish"], device="cpu")
    learn = Learner(dls, nn.Sequential(nn.Flatten(), nn.Linear(48, 3)), loss_func=BCEWithLogitsLossFlat(thresh=0.3))
    interp = ClassificationInterpretation.from_learner(learn)
    with torch.no_grad():
        outputs = learn.model(xb).double()
    said = outputs.sigmoid() > 0.3
    losses = F.binary_cross_entropy_with_logits(outputs, yb.double(), reduction="none").mean(1)
    assert interp.multi and torch.equal(interp.decoded, said)
    values, places = interp.top_losses(4)
    assert places.tolist() == losses.topk(4).indices.tolist()
    torch.testing.assert_close(values.double(), losses[places], rtol=1e-5, atol=0)
    names = lambda flags: ";".join(name for name, flag in zip(dls.vocab, flags, strict=True) if flag)
    for ax, i in zip(interp.plot_top_losses(4).axes, places.tolist(), strict=True):
        assert ax.get_title() == f"{names(said[i])}\n{names(yb[i])}\n{losses[i]:.2f}"
        assert ax.title.get_color() == ("black" if torch.equal(said[i], yb[i].bool()) else "crimson")
    interp.print_classification_report(3)
    assert capsys.readouterr().out == labels_report(yb.bool().numpy(), said.numpy(), dls.vocab, 3) + "\n"
    for refused in (interp.confusion_matrix, interp.most_confused, interp.plot_confusion_matrix):
        with pytest.raises(UsageError, match="no label is taken for another"):
            refused()


def test_the_report_is_printed(interp, capsys):
    interp.print_classification_report(4)
    printed = capsys.readouterr().out
    matrix = interp.confusion_matrix()
    assert f"{matrix.trace() / matrix.sum():.4f}" in printed and str(matrix.sum()) in printed


def test_the_matrix_is_drawn(interp):
    from pellucid.plot.classification import plot_confusion_matrix

    matrix = interp.confusion_matrix()
    (ax,) = interp.plot_confusion_matrix().axes
    assert np.array_equal(ax.images[0].get_array(), matrix)
    assert {text.get_text() for text in ax.texts} == {str(n) for n in matrix.flat if n}
    assert [label.get_text() for label in ax.get_yticklabels()] == ["3", "7"]
    assert ax.get_xlabel() == "predicted" and ax.get_ylabel() == "actual"
    (ax,) = interp.plot_confusion_matrix(normalize=True, norm_dec=3, title="shares").axes
    assert np.allclose(ax.images[0].get_array(), matrix / matrix.sum(1, keepdims=True))
    assert f"{matrix[0, 0] / matrix[0].sum():.3f}" in {text.get_text() for text in ax.texts}
    (ax,) = plot_confusion_matrix(COUNTS, ["cat", "dog", "fish", "bird"], normalize=True, plot_txt=False).axes
    assert not ax.texts and np.isfinite(ax.images[0].get_array()).all()
