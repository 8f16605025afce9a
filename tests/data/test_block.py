"""From a declaration to batches: what comes out is what the files hold."""

from __future__ import annotations

import gzip
import os
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pellucid.data.block import CategoryBlock, DataBlock, ImageBlock
from pellucid.data.factories import ImageDataLoaders
from pellucid.data.images import PILImage, PILImageBW, Resize
from pellucid.data.items import parent_label
from pellucid.data.loader import DataLoaders
from pellucid.data.splits import GrandparentSplitter, IndexSplitter
from pellucid.data.transforms import Normalize
from pellucid.errors import DataError, UsageError

SIZE = (6, 8)  # height, width


def write(folder: Path, n: int, seed: int, size: tuple[int, int] = SIZE) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for i in range(n):
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(folder / f"{i}.png")


@pytest.fixture
def sides(tmp_path) -> Path:
    """`set/train` with 7 cats and 6 dogs, `set/valid` with 3 and 2, all 6×8 pixels."""
    for i, (name, n) in enumerate((("train/cat", 7), ("train/dog", 6), ("valid/cat", 3), ("valid/dog", 2))):
        write(tmp_path / "set" / name, n, i)
    return tmp_path / "set"


def decoded(files: list[Path]) -> np.ndarray:
    """(image, channel, row, column) on [0, 1]."""
    arrays = []
    for file in files:
        with Image.open(file) as image:
            arrays.append(np.asarray(image.convert("RGB")).transpose(2, 0, 1))
    return np.stack(arrays) / 255


def loaders(folder: Path, **options) -> DataLoaders:
    return ImageDataLoaders.from_folder(folder, **({"bs": 4, "device": "cpu"} | options))


def gathered(dl) -> tuple[np.ndarray, np.ndarray]:
    batches = list(dl)
    return torch.cat([x for x, _ in batches]).numpy(), torch.cat([y for _, y in batches]).numpy()


def test_validation_comes_whole_and_in_order(sides):
    dls = loaders(sides)
    x, y = gathered(dls.valid)
    files = sorted((sides / "valid").glob("*/*.png"))
    assert np.allclose(x, decoded(files), atol=1e-6)
    assert [dls.vocab[i] for i in y] == [f.parent.name for f in files] and dls.vocab == ["cat", "dog"]
    assert [len(xb) for xb, _ in dls.valid] == [4, 1] and len(dls.valid) == 2
    assert list(dls.valid.items) == files


def test_batches_have_the_right_shapes_and_types(sides):
    dls = loaders(sides, val_bs=2)
    for dl, bs in ((dls.train, 4), (dls.valid, 2)):
        xb, yb = next(iter(dl))
        assert xb.shape == (bs, 3, *SIZE) and xb.dtype == torch.float32 and 0 <= xb.min() < xb.max() <= 1
        assert yb.shape == (bs,) and yb.dtype == torch.int64
    assert (dls.c, dls.bs, len(dls), dls[0], dls[1]) == (2, 4, 2, dls.train, dls.valid)
    assert dls.one_batch()[0].shape == dls.train.one_batch()[0].shape == (4, 3, *SIZE)


def test_training_is_shuffled_anew_and_drops_the_last_incomplete_batch(sides):
    dls = loaders(sides)
    torch.manual_seed(0)
    first, again = gathered(dls.train), gathered(dls.train)
    assert len(dls.train) == 3 and len(first[0]) == 12 and dls.train.n == 13
    assert not np.array_equal(first[0], again[0])
    torch.manual_seed(0)
    assert np.array_equal(first[0], gathered(dls.train)[0])
    files = sorted((sides / "train").glob("*/*.png"))
    expected = {x.tobytes(): f.parent.name for x, f in zip(decoded(files).astype(np.float32), files, strict=True)}
    found = {x.tobytes(): dls.vocab[y] for x, y in zip(*first, strict=True)}
    assert len(found) == 12 and found.items() <= expected.items()


def test_a_set_smaller_than_a_batch_is_one_batch(sides):
    dls = loaders(sides, bs=64)
    assert len(dls.train) == 1 and len(dls.one_batch()[0]) == 13


@pytest.mark.parametrize("options", [{}, {"item_tfms": Resize((5, 4), "squish")}, {"img_cls": PILImageBW}])
def test_streaming_gives_the_batches_of_the_store(sides, options):
    stored, streamed = (loaders(sides, cache=cache, batch_tfms=Normalize(), **options) for cache in (True, False))
    assert type(stored.valid.source) is not type(streamed.valid.source)
    for side in (0, 1):
        torch.manual_seed(1)
        x, y = gathered(stored[side])
        torch.manual_seed(1)
        x2, y2 = gathered(streamed[side])
        assert np.allclose(x, x2, atol=1e-5) and np.array_equal(y, y2)


def test_normalize_takes_the_statistics_of_the_training_set(sides):
    dls = loaders(sides, batch_tfms=Normalize())
    files = sorted((sides / "train").glob("*/*.png"))
    pixels = decoded(files)
    mean, std = pixels.mean((0, 2, 3)), pixels.std((0, 2, 3))
    assert dls.valid.batch_tfms[0].mean == pytest.approx(mean, abs=1e-12)
    assert dls.valid.batch_tfms[0].std == pytest.approx(std, abs=1e-12)
    raw = decoded(sorted((sides / "valid").glob("*/*.png")))
    x, _ = gathered(dls.valid)
    assert np.allclose(x, (raw - mean[:, None, None]) / std[:, None, None], atol=1e-5)
    assert np.allclose(dls.valid.decode(torch.from_numpy(x)).numpy(), raw, atol=1e-6)


def test_streamed_statistics_are_those_of_a_sample(sides, monkeypatch):
    monkeypatch.setattr("pellucid.data.sources.STATS_SAMPLE", 5)
    tfm = loaders(sides, cache=False, batch_tfms=Normalize()).valid.batch_tfms[0]
    pixels = decoded(sorted((sides / "train").glob("*/*.png")))
    assert tfm.mean == pytest.approx(pixels[[0, 3, 6, 9, 12]].mean((0, 2, 3)), abs=1e-12)


def test_a_constant_channel_is_only_centred(tmp_path):
    for i, name in enumerate("ab"):
        write(tmp_path / "set" / name, 5, i)
        for file in (tmp_path / "set" / name).iterdir():
            with Image.open(file) as image:
                pixels = np.array(image)
            pixels[..., 1] = 51
            Image.fromarray(pixels).save(file)
    dls = loaders(tmp_path / "set", batch_tfms=Normalize(), seed=0)
    assert dls.valid.batch_tfms[0].mean[1] == pytest.approx(0.2)
    x, _ = gathered(dls.valid)
    assert np.isfinite(x).all() and np.abs(x[:, 1]).max() < 1e-6


def test_normalize_needs_both_or_neither():
    with pytest.raises(UsageError, match="both mean and std"):
        Normalize([0.5])
    with pytest.raises(UsageError, match=r"positive standard deviations, got \[0\.2, 0\.0\]"):
        Normalize([0.5, 0.5], [0.2, 0.0])
    with pytest.raises(UsageError, match=r"no statistics yet.*Normalize\.from_stats"):
        Normalize()(torch.zeros(1, 1, 2, 2))
    assert torch.equal(Normalize.from_stats(0.5, 0.25)(torch.ones(1, 1, 1, 1)), torch.full((1, 1, 1, 1), 2.0))


def test_a_transform_may_be_for_training_only(sides):
    def invert(x):
        return 1 - x

    invert.split_idx = 0  # type: ignore[attr-defined]
    plain, inverted = loaders(sides), loaders(sides, batch_tfms=invert)
    assert np.array_equal(gathered(plain.valid)[0], gathered(inverted.valid)[0])
    torch.manual_seed(0)
    x = gathered(plain.train)[0]
    torch.manual_seed(0)
    assert np.allclose(gathered(inverted.train)[0], 1 - x)


@pytest.mark.parametrize(
    ("train", "valid"), [("training", "testing"), ("train", "val"), ("train", "test"), ("training", "validation")]
)
def test_the_usual_names_of_the_sides_are_found(sides, train, valid):
    (sides / "train").rename(sides / train)
    (sides / "valid").rename(sides / valid)
    dls = loaders(sides)
    assert (dls.train.n, dls.valid.n) == (13, 5)


def test_a_test_folder_does_not_get_in_when_there_is_a_valid_one(sides):
    write(sides / "test" / "cat", 4, 9)
    assert (loaders(sides).valid.n, loaders(sides, valid="test").valid.n) == (5, 4)


def test_class_folders_are_split_at_random(sides):
    dls = [loaders(sides / "train", valid_pct=0.4, seed=seed) for seed in (1, 1, 2)]
    assert [d.valid.n for d in dls] == [5, 5, 5]
    assert list(dls[0].valid.items) == list(dls[1].valid.items) != list(dls[2].valid.items)
    both = set(dls[0].valid.items) | set(dls[0].train.items)
    assert both == set((sides / "train").glob("*/*.png"))
    assert loaders(sides / "train").valid.n == 2  # a fifth
    assert loaders(sides, valid_pct=0.5).valid.n == 9  # over all, whatever the sub-folders


def test_a_share_of_nothing_is_refused(sides):
    with pytest.raises(UsageError, match="between 0 and 1, got 0"):
        loaders(sides, valid_pct=0)


def test_a_training_folder_alone_asks_for_the_other(sides):
    (sides / "valid").rename(sides / "holdout")
    with pytest.raises(DataError, match=r"has 'train' but no validation folder \(one of valid, .*valid_pct=0\.2"):
        loaders(sides)
    assert loaders(sides, valid="holdout").valid.n == 5


def test_csv_rows_become_items(sides, tmp_path):
    files = sorted((sides / "train").glob("*/*.png"))
    rows = [f"set/train/{f.parent.name}/{f.name},{'odd' if int(f.stem) % 2 else 'even'}" for f in files]
    (tmp_path / "labels.csv").write_text("\n".join(["file,label", *rows]))
    dls = ImageDataLoaders.from_csv(tmp_path / "labels.csv", 0.3, seed=1, bs=2, device="cpu")
    x, y = gathered(dls.valid)
    assert dls.vocab == ["even", "odd"] and len(y) == 3
    expected = {p.tobytes(): int(f.stem) % 2 for p, f in zip(decoded(files).astype(np.float32), files, strict=True)}
    assert [expected[image.tobytes()] for image in x] == y.tolist()


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def write_idx(folder: Path, **replaced: np.ndarray) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    arrays = {
        "train-images-idx3": rng.integers(0, 256, (10, 4, 5)),
        "train-labels-idx1": np.arange(10) % 3 + 4,
        "t10k-images-idx3": rng.integers(0, 256, (5, 4, 5)),
        "t10k-labels-idx1": np.arange(5) % 3 + 4,
    } | {name.replace("_", "-"): array for name, array in replaced.items()}
    folder.mkdir(exist_ok=True)
    for name, array in arrays.items():
        (folder / f"{name}-ubyte").write_bytes(idx(array))
    return arrays


@pytest.mark.parametrize("packed", [False, True])
def test_idx_files_become_batches(tmp_path, packed):
    arrays = write_idx(tmp_path / "idx")
    if packed:
        for file in list((tmp_path / "idx").iterdir()):
            file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
            file.unlink()
    dls = ImageDataLoaders.from_idx(tmp_path / "idx", bs=3, device="cpu", batch_tfms=Normalize())
    train = arrays["train-images-idx3"] / 255
    x, y = gathered(dls.valid)
    assert np.allclose(x[:, 0], (arrays["t10k-images-idx3"] / 255 - train.mean()) / train.std(), atol=1e-5)
    assert dls.vocab == [4, 5, 6] and [dls.vocab[i] for i in y] == arrays["t10k-labels-idx1"].tolist()
    assert (len(dls.train), dls.train.n) == (3, 10)


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        (
            {"train_labels_idx1": np.zeros(9)},
            r"train-images-idx3-ubyte: images 10×4×5 .*labels 9 of .*train-labels-idx1",
        ),
        ({"t10k_images_idx3": np.zeros((5, 20))}, r"t10k-images-idx3-ubyte: images 5×20"),
        ({"t10k_labels_idx1": np.zeros((5, 1))}, r"t10k-images-idx3-ubyte: .*labels 5×1"),
        ({"t10k_images_idx3": np.zeros((5, 6, 7))}, r"training images are 4×5, validation images 6×7"),
        ({"t10k_labels_idx1": np.full(5, 9)}, r"classes \[9\] occur in validation but not in training"),
        ({"train_images_idx3": np.zeros((0, 4, 5)), "train_labels_idx1": np.zeros(0)}, r"train-images.* images 0×4×5"),
    ],
)
def test_idx_files_that_do_not_fit_are_named(tmp_path, replaced, message):
    write_idx(tmp_path / "idx", **replaced)
    with pytest.raises(DataError, match=message):
        ImageDataLoaders.from_idx(tmp_path / "idx")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda raw: raw[:-3], "damaged: its header says 10×4×5, it holds 197 bytes"),
        (lambda raw: raw[:9], "damaged"),
        (lambda raw: b"", "no IDX file of unsigned bytes"),
        (lambda raw: b"\x89PNG" + raw, "no IDX file of unsigned bytes"),
        (lambda raw: raw[:2] + b"\x0d" + raw[3:], "no IDX file of unsigned bytes"),
    ],
)
def test_damaged_idx_files_are_named(tmp_path, content, message):
    write_idx(tmp_path / "idx")
    file = tmp_path / "idx" / "train-images-idx3-ubyte"
    file.write_bytes(content(file.read_bytes()))
    with pytest.raises(DataError, match=f"train-images-idx3-ubyte: {message}"):
        ImageDataLoaders.from_idx(tmp_path / "idx")


@pytest.mark.parametrize(
    "damage",
    [
        lambda packed: packed[:-20],
        lambda packed: packed[:12] + b"\xff" * 5 + packed[17:],
        lambda packed: b"plain" + packed,
        lambda packed: packed[:-8] + b"\0" * 8,
    ],
    ids=["truncated", "dirty", "not packed", "checksum"],
)
def test_damaged_gzip_is_named(tmp_path, damage):
    arrays = write_idx(tmp_path / "idx")
    (tmp_path / "idx" / "train-images-idx3-ubyte").unlink()
    packed = gzip.compress(idx(arrays["train-images-idx3"]))
    (tmp_path / "idx" / "train-images-idx3-ubyte.gz").write_bytes(damage(packed))
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz: cannot be read \("):
        ImageDataLoaders.from_idx(tmp_path / "idx")


def test_idx_files_take_no_more_memory_than_their_headers_say(tmp_path):
    write_idx(tmp_path / "idx")
    file = tmp_path / "idx" / "train-images-idx3-ubyte.gz"
    file.with_suffix("").unlink()
    for shape, said in (((10, 4, 5), "its header says 10×4×5, it holds more"), ((2**32 - 1,) * 3, "such a small file")):
        file.write_bytes(gzip.compress(struct.pack(">BBBB3I", 0, 0, 8, 3, *shape) + bytes(50_000_000), 1))
        tracemalloc.start()
        with pytest.raises(DataError, match=rf"train-images-idx3-ubyte\.gz: .*{said}"):
            ImageDataLoaders.from_idx(tmp_path / "idx")
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
        tracemalloc.stop()


def test_a_pipe_is_no_idx_file(tmp_path):
    write_idx(tmp_path / "idx")
    (tmp_path / "idx" / "train-images-idx3-ubyte").unlink()
    os.mkfifo(tmp_path / "idx" / "train-images-idx3-ubyte")
    with pytest.raises(DataError, match="expected train-images-idx3-ubyte"):
        ImageDataLoaders.from_idx(tmp_path / "idx")


def test_a_folder_without_all_idx_files_says_which_it_expects(tmp_path):
    write_idx(tmp_path / "idx")
    (tmp_path / "idx" / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match=r"idx: expected train-images-idx3-ubyte, .* and the t10k- pair"):
        ImageDataLoaders.from_idx(tmp_path / "idx")


def block(**options) -> DataBlock:
    return DataBlock(**({"get_y": parent_label, "splitter": GrandparentSplitter()} | options))


def test_datasets_hold_images_and_indices(sides):
    datasets = block().datasets(sides)
    assert (len(datasets.train), len(datasets.valid), datasets.vocab) == (13, 5, ["cat", "dog"])
    image, label = datasets.valid[4]
    assert np.array_equal(np.asarray(image) / 255, decoded([datasets.valid.items[4]])[0].transpose(1, 2, 0))
    assert label.dtype == torch.int64 and label == 1 and datasets.valid.items[4].parent.name == "dog"


def test_a_vocab_sets_the_order_of_the_classes(sides):
    datasets = block(blocks=(ImageBlock, CategoryBlock(["dog", "cat", "cow"], sort=False))).datasets(sides)
    assert datasets.vocab == ["dog", "cat", "cow"] and datasets.valid[4][1] == 0


def test_a_class_outside_the_vocab_is_named(sides):
    with pytest.raises(
        DataError, match=r"0\.png: its class 'dog' is not in the vocab of CategoryBlock, \['cat', 'cow'\]"
    ):
        block(blocks=(ImageBlock, CategoryBlock(["cat", "cow"]))).datasets(sides)


def test_items_may_be_anything_that_get_x_and_get_y_understand():
    rng = np.random.default_rng(0)
    items = [{"pixels": rng.integers(0, 256, (4, 4), np.uint8), "digit": i % 2} for i in range(8)]
    made = DataBlock(
        (ImageBlock(PILImageBW), CategoryBlock),
        splitter=IndexSplitter([6, 7]),
        get_x=lambda item: item["pixels"],
        get_y=lambda item: np.int64(item["digit"]),
    ).dataloaders(items, bs=2, device="cpu")
    x, y = gathered(made.valid)
    assert np.allclose(x[:, 0] * 255, np.stack([item["pixels"] for item in items[6:]]))
    assert made.vocab == [0, 1] and y.tolist() == [0, 1]


def test_blocks_other_than_image_and_category_are_refused():
    with pytest.raises(UsageError, match=r"must be \(ImageBlock, CategoryBlock\)"):
        DataBlock((CategoryBlock, ImageBlock))
    with pytest.raises(UsageError, match="DataBlock needs get_y"):
        DataBlock().datasets(["a.png", "b.png"])


def test_summary_tells_every_step(sides, capsys):
    block(blocks=(ImageBlock(PILImage), CategoryBlock), item_tfms=Resize(5), batch_tfms=Normalize()).summary(sides)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"items       18 from {sides}",
        "split       13 training, 5 validation",
        "classes     2: 'cat' 7, 'dog' 6",
        f"example     {sides / 'train' / 'cat' / '0.png'}",
        "  label     'cat' → 0",
        "  image     RGB, 5×5 (height×width)",
        "  pixels    uint8 (3, 5, 5)",
        "batch       float32 in [0, 1] → Normalize",
    ]


def test_show_batch_puts_the_labels_above_the_images(sides):
    dls = loaders(sides, batch_tfms=Normalize())
    torch.manual_seed(4)
    axes = dls.show_batch(max_n=3).axes
    torch.manual_seed(4)
    xb, yb = next(iter(loaders(sides).train))
    shown = [ax for ax in axes if ax.get_images()]
    assert [ax.get_title() for ax in shown] == [dls.vocab[i] for i in yb[:3]]
    for ax, x in zip(shown, xb, strict=False):
        assert np.allclose(ax.get_images()[0].get_array(), x.permute(1, 2, 0), atol=1e-5)


def test_new_images_are_treated_as_validation_images_were(sides):
    dls = loaders(sides, item_tfms=Resize((4, 5), "squish"), batch_tfms=Normalize())
    files = sorted((sides / "valid").glob("*/*.png"))
    with Image.open(files[1]) as image:
        opened = image.convert("RGB")
    items = [files[0], opened, np.asarray(opened), str(files[1])]
    batches = list(dls.test_dl(items, bs=3))
    assert [len(batch) for batch in batches] == [1, 1] and [len(xb) for (xb,) in batches] == [3, 1]
    x, expected = torch.cat([xb for (xb,) in batches]), gathered(dls.valid)[0]
    assert np.allclose(x, expected[[0, 1, 1, 1]], atol=1e-6)


def test_new_images_of_another_size_are_refused(sides, tmp_path):
    write(tmp_path / "new", 1, 0, (5, 9))
    with pytest.raises(DataError, match=r"0\.png: is 5×9 \(height×width\), the model was trained on 6×8"):
        list(loaders(sides).test_dl([tmp_path / "new" / "0.png"]))
    with pytest.raises(UsageError, match="test_dl got no items"):
        loaders(sides).test_dl([])
    with pytest.raises(UsageError, match="made by a DataBlock or ImageDataLoaders"):
        DataLoaders([], [], device="cpu").test_dl(["a.png"])


@pytest.mark.parametrize(("option", "value"), [("bs", 0), ("bs", -1)])
def test_a_batch_of_nothing_is_refused(sides, option, value):
    with pytest.raises(UsageError, match=f"batch size must be at least 1, got {value}"):
        loaders(sides, **{option: value})
