"""Loaders of all kinds: ours, torch's, lists; what cannot be used says so before it is used."""

from __future__ import annotations

import io
import random

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader as TorchLoader
from torch.utils.data import IterableDataset, TensorDataset

from pellucid.data.batch import show_batch, take_apart, viewable
from pellucid.data.block import CategoryBlock, DataBlock, ImageBlock
from pellucid.data.dataset import item_list
from pellucid.data.images import Resize
from pellucid.data.items import parent_label
from pellucid.data.loader import DataLoader, DataLoaders
from pellucid.data.sources import StoredImages
from pellucid.data.transforms import Normalize
from pellucid.errors import UsageError
from pellucid.plot.images import show_image
from pellucid.seed import set_seed

X, Y = torch.rand(10, 3, 4, 4), torch.arange(10) % 3


class Stream(IterableDataset):
    def __iter__(self):
        return iter(zip(X, Y, strict=True))


class SizedStream(Stream):
    def __len__(self):
        return len(X)


def torch_loader(**options) -> TorchLoader:
    return TorchLoader(TensorDataset(X, Y), **({"batch_size": 4} | options))


@pytest.fixture
def dls(tmp_path) -> DataLoaders:
    """Six images of two classes, of one colour each: 0, 20, 40, … of 255."""
    for i in range(6):
        folder = tmp_path / "set" / ("cat", "dog")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 5), (20 * i, 0, 0)).save(folder / f"{i}.png")
    block = DataBlock(get_y=parent_label, splitter=lambda items: ([0, 1, 4, 5], [2, 3]), batch_tfms=Normalize())
    return block.dataloaders(tmp_path / "set", bs=3, device="cpu")


@pytest.mark.parametrize(
    ("batch", "n_inputs", "n_targets"),
    [((X, Y), 1, 1), ([X, Y], 1, 1), ((X,), 1, 0), (X, 1, 0), ((X, X, Y), 2, 1), ([X, X, X, Y], 3, 1)],
)
def test_all_but_the_last_member_of_a_batch_are_inputs(batch, n_inputs, n_targets):
    inputs, targets = take_apart(batch, "cpu")
    assert (len(inputs), len(targets)) == (n_inputs, n_targets)
    members = [batch] if isinstance(batch, torch.Tensor) else batch
    assert all(a is b for a, b in zip((*inputs, *targets), members, strict=True))


def test_how_many_members_are_inputs_may_be_said():
    inputs, targets = take_apart((X, Y, Y), "cpu", n_inp=1)
    assert len(inputs) == 1 and len(targets) == 2


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"image": X, "label": Y}, r"a dict with keys 'image', 'label'; .*returns batch\['image'\], batch\['label'\]"),
        ((X, ["cat", "dog"]), r"a tuple of 10×3×4×4 float32, list; .*returns two tensors"),
        ([X.numpy(), Y.numpy()], r"a list of ndarray, ndarray"),
        ((), "a tuple of nothing"),
        (None, "got a NoneType"),
        ("ab", "got a str"),
        (((X, X), Y), "a tuple of tuple, 10 int64"),
    ],
)
def test_a_batch_of_another_form_is_described(batch, message):
    with pytest.raises(UsageError, match=f"a batch must be tensors, .inputs, labels., got .*{message}|{message}"):
        take_apart(batch, "cpu")


@pytest.mark.parametrize("side", ["training", "validation"])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TorchLoader(Stream(), batch_size=4), "is a DataLoader without a length.*__len__"),
        (lambda: TensorDataset(X, Y), "is a TensorDataset, which gives single items: wrap it"),
        (lambda: Stream(), "is a Stream, which gives single items"),
        (lambda: iter([(X, Y)]), "is a list_iterator, which one pass uses up"),
        (lambda: ((x, Y) for x in [X]), "is a generator, which one pass uses up"),
        (lambda: 3, "is a int, which holds no batches"),
        (lambda: "abc", "is a str, which holds no batches"),
    ],
)
def test_what_is_no_loader_is_refused_when_it_is_given(make, message, side):
    pair = [torch_loader(), make()] if side == "validation" else [make()]
    with pytest.raises(UsageError, match=f"the {side} loader {message}"):
        DataLoaders(*pair)


@pytest.mark.parametrize(
    "loader", [torch_loader(), TorchLoader(SizedStream(), batch_size=4), [(X[:4], Y[:4])], ((X[:4], Y[:4]),)]
)
def test_any_sized_loader_will_do(loader):
    made = DataLoaders(loader, device="cpu")
    assert made.bs == 4 and made.one_batch()[0].shape == (4, 3, 4, 4) and made.train is loader
    assert made.loaders == list(made) == [loader] and made.valid is None
    assert made.cpu() is made and made.device == torch.device("cpu")
    assert len(made.show_batch(max_n=3).axes) >= 3
    with pytest.raises(UsageError, match="no validation loader"):
        made[1]


def test_torch_and_lists_keep_their_data_sets():
    made = DataLoaders(torch_loader(), torch_loader(batch_size=5), vocab="abc")
    assert len(made.train_ds) == len(made.valid_ds) == made.n == 10 and made.c == 3
    assert [ax.get_title() for ax in made.show_batch(max_n=3).axes[:3]] == ["a", "b", "c"]


def test_an_empty_loader_says_so():
    with pytest.raises(UsageError, match="the loader has no batch"):
        DataLoaders([]).one_batch()


def test_our_loader_is_not_called_like_torchs():
    with pytest.raises(UsageError, match=r"needs their rows.*torch\.utils\.data\.DataLoader"):
        DataLoader(TensorDataset(X, Y), bs=4)


@pytest.mark.parametrize("bs", [0, -1, "4", 4.0, None, True])
def test_a_batch_size_is_a_whole_number(dls, bs):
    with pytest.raises(UsageError, match="batch size must be"):
        DataLoader(dls.valid.source, [0], bs=bs)
    assert DataLoader(dls.valid.source, [0], bs=np.int64(4)).bs == 4


def picture() -> Image.Image:
    return Image.new("RGB", (6, 5), (20, 0, 0))


ONE_ITEM = {
    "path": lambda p: p,
    "string": str,
    "image": lambda p: picture(),
    "bytes": lambda p: p.read_bytes(),
    "file": lambda p: io.BytesIO(p.read_bytes()),
    "dict": lambda p: {"a": 1},
}


@pytest.mark.parametrize("kind", ONE_ITEM)
def test_one_item_stands_for_a_list_of_it(kind, tmp_path):
    picture().save(tmp_path / "a.png")
    item = ONE_ITEM[kind](tmp_path / "a.png")
    assert item_list(item, "f") == [item]


def test_one_path_or_image_is_predicted_as_one(dls):
    first = dls.train_ds.items[0]
    expected = next(iter(dls.test_dl([first])))[0]
    for given in (first, str(first), Image.open(first)):
        (batch,) = dls.test_dl(given)
        assert batch[0].shape == (1, 3, 5, 6) and torch.equal(batch[0], expected)


@pytest.mark.parametrize("array", [np.zeros((5, 6)), np.zeros((5, 6, 3), np.uint8), torch.zeros(3, 5, 6)])
def test_an_array_that_may_be_one_image_or_several_is_refused(array):
    with pytest.raises(UsageError, match=r"f got one 5×6 array|f got one 5×6×3 array|f got one 3×5×6 array"):
        item_list(array, "f")
    assert len(item_list([array], "f")) == 1 and len(item_list(np.zeros((7, 3, 5, 6)), "f")) == 7


@pytest.mark.parametrize(
    ("items", "n"),
    [
        (iter("ab"), 2),
        (("a", "b"), 2),
        (pd.Series(["a", "b"]), 2),
        (pd.DataFrame({"a": [1, 2]}), 2),
        (np.array(["a"]), 1),
    ],
)
def test_whatever_lists_items_is_a_list_of_them(items, n):
    assert len(item_list(items, "f")) == n


@pytest.mark.parametrize("items", [[], (), 3, None, pd.DataFrame({"a": []})])
def test_no_items_are_refused(items):
    with pytest.raises(UsageError, match=r"f got no items|f takes a list of paths"):
        item_list(items, "f")


def test_labels_of_new_items_are_checked(dls, tmp_path):
    (tmp_path / "cow").mkdir()
    picture().save(tmp_path / "cow" / "1.png")
    with pytest.raises(Exception, match=r"1\.png: its class 'cow' is not in the vocabulary, \['cat', 'dog'\]"):
        dls.test_dl([tmp_path / "cow" / "1.png"], with_labels=True)
    with pytest.raises(UsageError, match="with_labels needs items as the set was declared on, PosixPath; got a Image"):
        dls.test_dl([picture()], with_labels=True)
    _, yb = next(iter(dls.test_dl(list(map(str, dls.valid_ds.items)), with_labels=True)))
    assert yb.tolist() == dls.valid.labels.tolist()


def test_either_side_can_be_shown(dls):
    figure = dls.valid.show_batch(nrows=1, ncols=2)
    shown = [ax for ax in figure.axes if ax.get_images()]
    assert [ax.get_title() for ax in shown] == [dls.vocab[y] for y in dls.valid.labels]
    expected = [np.asarray(Image.open(f))[0, 0] / 255 for f in dls.valid_ds.items]
    assert np.allclose([ax.get_images()[0].get_array()[0, 0] for ax in shown], expected, atol=1e-6)
    unlabelled = dls.test_dl(dls.valid_ds.items).show_batch(figsize=(2, 3))
    assert unlabelled.get_size_inches().tolist() == [2, 3] and unlabelled.axes[0].get_title() == ""
    given = dls.train.show_batch(dls.valid.one_batch(), max_n=1)
    assert np.allclose(given.axes[0].get_images()[0].get_array()[0, 0], expected[0], atol=1e-6)


def test_names_given_to_both_are_those_of_each():
    source = StoredImages(np.zeros((4, 1, 3, 3), np.uint8), np.zeros((4, 1, 2), np.int64))
    sides = (DataLoader(source, part, [0, 1], bs=2) for part in ([0, 1], [2, 3]))
    made = DataLoaders(*sides, vocab=["cat", "dog"], device="cpu")
    for figure in (made.show_batch(), made.valid.show_batch()):
        assert [ax.get_title() for ax in figure.axes if ax.get_images()] == ["cat", "dog"]


def test_one_image_may_be_shown_several_times(dls):
    shown = [
        ax.get_images()[0].get_array() for ax in dls.train.show_batch(max_n=4, unique=True).axes if ax.get_images()
    ]
    assert len(shown) == 4 and all(np.array_equal(shown[0], other) for other in shown)


def test_other_batches_of_the_same_images(dls):
    other = dls.train.new(bs=1, shuffle=False)
    assert [len(xb) for xb, _ in other] == [1, 1, 1, 1] and len(dls.train) == 1 and dls.train.shuffle
    assert torch.equal(torch.cat([yb for _, yb in other]), dls.train.labels)
    assert [len(xb) for xb, _ in dls.train.new(drop_last=False)] == [3, 1]
    assert str(dls.train.source) == "StoredImages of 6 images (3×5×6)"
    assert str(dls.test_dl(dls.valid_ds.items).source) == "StreamedImages of 2 images (3×5×6)"


def test_what_cannot_be_shown_says_so(dls):
    for make, message in (
        (lambda: dls.show_batch(4), r"for 4 images say show_batch\(max_n=4\)"),
        (lambda: dls.show_batch(max_n=0), "max_n must be at least 1"),
        (lambda: DataLoaders([(torch.rand(4, 20), Y[:4])]).show_batch(), "only images can be shown.*4×20 float32"),
    ):
        with pytest.raises(UsageError, match=message):
            make()


def test_normalised_images_of_torch_loaders_are_stretched_to_be_seen():
    images = torch.stack([X[0], 3 * X[1] - 1, torch.full((3, 4, 4), 7.0)])
    shown = viewable(images)
    assert torch.equal(shown[0], X[0]) and (shown[1].min(), shown[1].max()) == (0, 1) and (shown[2] == 0).all()


def test_printed_loaders_are_short_and_say_what_they_hold(dls, tmp_path):
    assert str(dls).splitlines() == [
        "DataLoaders on cpu, 2 classes: cat, dog",
        "  train  4 images (3×5×6), 1 batch of 3, shuffled",
        "  valid  2 images (3×5×6), 1 batch of 3, in order",
    ]
    assert str(dls.valid) == "DataLoader of 2 images (3×5×6), 1 batch of 3, in order on cpu"
    assert str(DataLoaders(torch_loader(), device="cpu")).splitlines() == [
        "DataLoaders on cpu",
        "  train  3 batches of a DataLoader",
        "  valid  none",
    ]
    assert str(dls.valid_ds) == f"Dataset of 2 images of 2 classes, the first {dls.valid_ds.items[0]}"
    block = DataBlock(get_y=parent_label, item_tfms=Resize(5), batch_tfms=[Normalize(), torch.sqrt])
    assert "RandomSplitter, get_y=parent_label, item_tfms=[Resize(size=5, method='crop')]" in str(block)
    assert "Normalize(mean=None, std=None), sqrt" in str(block)
    datasets = str(block.datasets(tmp_path / "set"))
    assert datasets.startswith("Datasets\n  train  Dataset of 5 images of 2 classes") and datasets.count("\n") == 2


def test_printing_shows_no_control_characters_and_no_thousand_classes():
    many = CategoryBlock(list(map(str, range(100, 999))))
    assert (
        "CategoryBlock(899 classes)" in str(DataBlock((ImageBlock, many)))
        and len(str(DataBlock((ImageBlock, many)))) < 200
    )
    made = DataLoaders([(X, Y)], vocab=["a\x1b[31m", *map(str, range(1000))], device="cpu")
    assert "\x1b" not in str(made) and len(str(made)) < 200


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("height", [1, 3, 4, 7])
@pytest.mark.parametrize("width", [1, 3, 4, 7])
def test_images_of_any_size_are_shown_as_they_are(channels, height, width):
    images = torch.rand(2, channels, height, width)
    axes = DataLoaders([(images, Y[:2])]).show_batch(nrows=1, ncols=2).axes
    for ax, image in zip(axes, images, strict=False):
        expected = image[0] if channels == 1 else image.permute(1, 2, 0)
        assert np.allclose(ax.get_images()[0].get_array(), expected)


def jitter(x: torch.Tensor) -> torch.Tensor:
    return x + torch.rand_like(x) + random.random() + np.random.rand()


jitter.split_idx = 0  # type: ignore[attr-defined]

LOOKS = {
    "show_batch": lambda dls: dls.show_batch(max_n=2),
    "unique": lambda dls: dls.show_batch(max_n=2, unique=True),
    "valid": lambda dls: dls.valid.show_batch(max_n=2),
    "one_batch": lambda dls: dls.one_batch(),
    "a loader's one_batch": lambda dls: dls.train.one_batch(),
    "sample": lambda dls: dls.train.sample(2),
    "take": lambda dls: dls.train.take(torch.tensor([0, 3])),
    "new": lambda dls: dls.train.new(bs=2).one_batch(),
    "data sets": lambda dls: (dls.train_ds[0], dls.valid_ds[1]),
    "test_dl": lambda dls: list(dls.test_dl(dls.valid_ds.items, with_labels=True)),
    "print": lambda dls: (str(dls), str(dls.train)),
    "bs": lambda dls: (dls.bs, dls.n, dls.c),
}


@pytest.mark.parametrize("look", LOOKS)
def test_looking_at_data_leaves_what_training_draws(dls, look):
    dls.train.batch_tfms.append(jitter)

    def epochs() -> list[torch.Tensor]:
        return [part for _ in range(2) for batch in dls.train for part in batch]

    set_seed(1)
    expected = epochs()
    set_seed(1)
    LOOKS[look](dls)
    found = epochs()
    assert all(map(torch.equal, found, expected)) and not torch.equal(found[0], found[2])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.filterwarnings("error")
def test_the_largest_numbers_there_are_can_be_shown(channels):
    """From the least to the largest float, whose difference is none."""
    x = torch.linspace(-1, 1, 64, dtype=torch.float64).view(1, 1, 8, 8) * 3.4e38
    x = x.float().expand(2, channels, 8, 8)
    torch.testing.assert_close(viewable(x), ((x.double() / 3.4e38 + 1) / 2).float())
    show_batch((x, torch.tensor([0, 1])), viewable, ["a", "b"]).savefig(io.BytesIO())
    show_image(x[0, :1]).figure.savefig(io.BytesIO())
