"""What users get wrong: each has a message that names it and says what to do, and loses nothing."""

from __future__ import annotations

import builtins
import errno
import os
import subprocess
import sys
import traceback
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from commands import pellucid
from hanging import HUNG_S
from pellucid.data.block import DataBlock
from pellucid.data.factories import ImageDataLoaders
from pellucid.data.images import PILImage, PILImageBW, Resize
from pellucid.data.items import parent_label
from pellucid.data.loader import DataLoaders
from pellucid.data.splits import FuncSplitter
from pellucid.data.store import stores_folder
from pellucid.data.transforms import Normalize
from pellucid.errors import DataError, PellucidError, TrainingError, UsageError
from pellucid.metrics import accuracy
from pellucid.training.callbacks.core import Callback
from pellucid.training.callbacks.progress import ProgressCallback
from pellucid.training.learner import Learner


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("PELLUCID_HOME", str(tmp_path / "home"))


@pytest.fixture
def pets(tmp_path) -> Path:
    """`pets/cat` (dark) and `pets/dog` (light), 8 grey-ish images of 8×8 each."""
    rng = np.random.default_rng(0)
    for name, low in (("cat", 0), ("dog", 128)):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for i in range(8):
            pixels = rng.integers(low, low + 128, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pets" / name / f"{i}.png")
    return tmp_path / "pets"


def loaders(folder: Path, **options) -> DataLoaders:
    return ImageDataLoaders.from_folder(folder, **({"bs": 4, "device": "cpu", "seed": 0} | options))


def network(n_out: int = 2) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, n_out))


def learner(dls: DataLoaders, **options) -> Learner:
    learn = Learner(dls, **({"model": network(), "metrics": accuracy} | options))
    learn.remove_cb(ProgressCallback)
    return learn


def message(error: type[Exception], function, *args, **options) -> str:
    with pytest.raises(error) as caught:
        function(*args, **options)
    return str(caught.value)


def contains(text: str, *parts: object) -> bool:
    missing = [part for part in map(str, parts) if part not in text]
    assert not missing, f"{missing} not in: {text}"
    return True


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-40])


def dirty(file: Path) -> None:
    raw = bytearray(file.read_bytes())
    raw[60:90] = bytes(30)
    file.write_bytes(raw)


def empty(file: Path) -> None:
    file.write_bytes(b"")


def text(file: Path) -> None:
    file.write_text("<html>404 not found</html>")


DAMAGE = {"cat/1.png": dirty, "cat/2.png": cut, "dog/3.png": empty, "dog/4.png": text}
REASONS = {
    "cat/1.png": "damaged image",
    "cat/2.png": "damaged image",
    "dog/3.png": "empty file",
    "dog/4.png": "not an image",
}


@pytest.fixture
def damaged(pets) -> Path:
    for name, harm in DAMAGE.items():
        harm(pets / name)
    return pets


def test_an_empty_folder(tmp_path):
    (tmp_path / "nothing").mkdir()
    said = message(DataError, loaders, tmp_path / "nothing")
    assert contains(said, tmp_path / "nothing", "no images found in it", "one sub-folder a class")


def test_a_folder_of_images_without_class_folders(pets):
    said = message(DataError, loaders, pets / "cat")
    assert contains(said, pets / "cat", "one sub-folder a class")


def test_a_folder_that_is_not_there(tmp_path):
    assert message(DataError, loaders, tmp_path / "nowhere") == f"{tmp_path / 'nowhere'}: no such folder"


def test_one_class_only(pets):
    for file in (pets / "dog").iterdir():
        file.unlink()
    said = message(DataError, loaders, pets)
    assert contains(said, "one class, 'cat'", "at least two", "one sub-folder a class?")


def test_no_validation_images(pets):
    block = DataBlock(get_y=parent_label, splitter=FuncSplitter(lambda file: False))
    assert contains(message(DataError, block.dataloaders, pets), "no validation images", "splitter", "16 items")
    (pets / "train").mkdir()
    for name in ("cat", "dog"):
        (pets / name).rename(pets / "train" / name)
    (pets / "valid" / "cat").mkdir(parents=True)
    said = message(DataError, loaders, pets)
    assert contains(said, "no validation images", "'valid'", "'train'")


def test_no_training_images(pets):
    block = DataBlock(get_y=parent_label, splitter=FuncSplitter(lambda file: True))
    assert contains(message(DataError, block.dataloaders, pets), "no training images", "splitter", "16 items")


def test_every_damaged_image_is_listed_before_training(damaged):
    said = message(DataError, loaders, damaged)
    assert contains(said, "4 of 16 images cannot be decoded", "remove them", "on_error='skip'")
    for name, reason in REASONS.items():
        assert f"{damaged / name}: {reason}" in said
    assert said.count(".png") == 4


@pytest.mark.parametrize("cache", [True, False])
def test_damaged_images_are_skipped_when_asked(damaged, cache):
    with pytest.warns(UserWarning, match="skipped 4 of 16 images" if cache else "skipped .*png") as warned:
        dls = loaders(damaged, on_error="skip", cache=cache, valid_pct=0.5, bs=1, batch_tfms=Normalize())
        learn = learner(dls)
        learn.fit(8, 0.005)
        n_seen = sum(len(yb) for dl in dls for _, yb in dl)
    told = "\n".join(str(w.message) for w in warned)
    for name, reason in REASONS.items():
        assert told.count(f"{damaged / name}: {reason}") == 1
    assert n_seen == 12
    assert learn.recorder.values[-1][2] == 1


def test_one_side_of_nothing_but_damage(pets):
    for file in (pets / "dog").iterdir():
        text(file)
    block = DataBlock(get_y=lambda file: file.stem, splitter=FuncSplitter(lambda file: file.parent.name == "dog"))
    with pytest.warns(UserWarning, match="skipped 8 of 16"):
        said = message(DataError, block.dataloaders, pets, on_error="skip")
    assert contains(said, "no validation image is left", "damaged")


@pytest.mark.parametrize("side", [0, -1])
def test_a_damaged_image_met_while_streaming(pets, side):
    file = sorted(pets.glob("*/*.png"))[side]
    cut(file)
    block = DataBlock(get_y=parent_label, splitter=FuncSplitter(lambda file: file.stem == "7"))
    said = message(DataError, lambda: learner(block.dataloaders(pets, bs=4, device="cpu", cache=False)).fit(1))
    assert contains(said, f"{file}: damaged image", "remove it", "on_error='skip'")


def test_nothing_but_damage_among_the_images_that_normalize_looks_at(pets):
    for file in (pets / "cat").iterdir():
        text(file)
    block = DataBlock(
        get_y=lambda file: int(file.stem) % 2,
        splitter=FuncSplitter(lambda file: file.parent.name == "dog"),
        batch_tfms=Normalize(),
    )
    with pytest.warns(UserWarning, match="skipped .*not an image"):
        said = message(DataError, block.dataloaders, pets, cache=False, on_error="skip")
    assert contains(said, "none of the 8 training images looked at can be decoded")


def test_an_unknown_way_to_handle_damage(pets):
    said = message(UsageError, loaders, pets, on_error="ignore")
    assert contains(said, "on_error", "'raise' or 'skip'", "'ignore'")


def test_images_of_different_sizes(pets):
    Image.new("RGB", (5, 9)).save(pets / "dog" / "3.png")
    said = message(DataError, loaders, pets)
    assert contains(said, "images differ in size", "item_tfms=Resize(128)", "--size 128", "9×5", "8×8")
    assert loaders(pets, item_tfms=Resize(8)).one_batch()[0].shape == (4, 3, 8, 8)


def test_images_of_different_sizes_while_streaming(pets):
    Image.new("RGB", (5, 9)).save(pets / "dog" / "3.png")
    said = message(DataError, lambda: [list(dl) for dl in loaders(pets, cache=False)])
    assert contains(said, "item_tfms=Resize(128)", "9×5", "8×8")


def test_images_of_different_channels_while_streaming(pets):
    def grey_dogs(image):
        return image.convert("L") if np.asarray(image).mean() > 127 else image

    said = message(DataError, lambda: [list(dl) for dl in loaders(pets, item_tfms=[Resize(8), grey_dogs])])
    assert "channel(s), the first image" in said and "an item transform changes them" in said
    assert "8×8" not in said and "Resize" not in said


def test_an_unreadable_image(pets, monkeypatch):
    def guarded(file, *args, **options):
        if str(file) == str(pets / "cat" / "0.png"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))
        return real(file, *args, **options)

    real = builtins.open
    monkeypatch.setattr(builtins, "open", guarded)
    said = message(DataError, loaders, pets)
    assert contains(said, "1 of 16 images", f"{pets / 'cat' / '0.png'}: no permission to read it", "on_error='skip'")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_an_image_without_read_permission(pets):
    (pets / "cat" / "0.png").chmod(0)
    assert contains(message(DataError, loaders, pets), f"{pets / 'cat' / '0.png'}: no permission to read it")


def test_a_decompression_bomb(pets, monkeypatch):
    Image.new("RGB", (30, 30)).save(pets / "cat" / "0.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    said = message(DataError, loaders, pets, item_tfms=Resize(8))
    assert contains(said, "1 of 16", pets / "cat" / "0.png", "900 pixels", "shrink it", "MAX_IMAGE_PIXELS")


def test_a_half_decompression_bomb_warns_and_is_used(pets, monkeypatch):
    Image.new("RGB", (20, 20), "red").save(pets / "cat" / "0.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    with pytest.warns(Image.DecompressionBombWarning, match="400 pixels"):
        dls = loaders(pets, item_tfms=Resize(8))
    assert (dls.train.n, dls.valid.n) == (13, 3)


def test_a_full_disk(pets, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    said = message(PellucidError, loaders, pets)
    assert contains(said, stores_folder(), "No space left", "PELLUCID_HOME", "cache=False")
    assert [p.name for p in stores_folder().iterdir() if p.suffix != ".lock"] == []
    assert loaders(pets, cache=False).one_batch()[0].shape == (4, 3, 8, 8)


def test_a_damaged_store(pets):
    before = torch.cat([x for x, _ in loaders(pets).valid])
    (pixels,) = stores_folder().glob("*/pixels.npy")
    os.truncate(pixels, 1000)
    assert torch.equal(torch.cat([x for x, _ in loaders(pets).valid]), before)


def test_a_class_that_training_lacks(pets):
    for name, side in (("cat", "train"), ("dog", "train"), ("cow", "valid")):
        (pets / side).mkdir(exist_ok=True)
        if name == "cow":
            (pets / side / name).mkdir()
            Image.new("RGB", (8, 8)).save(pets / side / name / "moo.png")
        else:
            (pets / name).rename(pets / side / name)
    said = message(DataError, loaders, pets)
    assert contains(said, pets / "valid" / "cow" / "moo.png", "'cow'", "['cat', 'dog']", "add training images")


@pytest.mark.parametrize("label", [1.5, None, ["cat"], b"cat"])
def test_labels_that_are_neither_strings_nor_integers(pets, label):
    block = DataBlock(get_y=lambda file: label)
    said = message(DataError, block.dataloaders, pets)
    assert contains(said, pets, f"get_y returned {label!r} ({type(label).__name__})", "string or an integer")


def test_labels_may_be_integers_but_not_both_kinds(pets):
    dls = DataBlock(get_y=lambda file: int(file.stem) % 3).dataloaders(pets, device="cpu")
    assert dls.vocab == [0, 1, 2]
    mixed = DataBlock(get_y=lambda file: int(file.stem) if file.parent.name == "cat" else "dog")
    assert contains(message(DataError, mixed.dataloaders, pets), "mix strings and integers", "make get_y return one")


def raised_in(function, error: type[Exception]) -> tuple[Exception, str, str]:
    """The exception and the last frame of its traceback: name of the function and file."""
    with pytest.raises(error) as caught:
        function()
    frame = traceback.extract_tb(caught.value.__traceback__)[-1]
    return caught.value, frame.name, frame.filename


def test_a_labelling_function_that_raises(pets):
    def get_label(file):
        return {}[file.name]

    error, name, filename = raised_in(lambda: DataBlock(get_y=get_label).datasets(pets), KeyError)
    assert type(error) is KeyError and name == "get_label" and filename == __file__


@pytest.mark.parametrize("loss_func", [F.cross_entropy, nn.CrossEntropyLoss()])
@pytest.mark.parametrize(
    ("model", "parts"),
    [
        (network(1), ["model output 4×1 float32", "labels 4 int64 with highest label"]),
        (nn.Sequential(nn.Conv2d(3, 2, 3)), ["model output 4×2×6×6 float32", "labels 4 int64"]),
    ],
)
def test_model_output_that_does_not_fit_the_loss(pets, model, parts, loss_func):
    learn = learner(loaders(pets), model=model, loss_func=loss_func)
    said = message(TrainingError, learn.fit, 1, 0.01)
    assert contains(said, *parts, "one output per class", "(batch, classes)")
    learn.model = network()
    learn.fit(1, 0.01, reset_opt=True)
    assert len(learn.recorder.losses) == len(learn.dls.train)


def grey_model() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


def flat_model(n: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(n, 2))


UNFIT = {
    "colour for grey": (grey_model(), 3, ["takes images of 1 channel, the batches have 3", "×3×8×8)", "PILImageBW"]),
    "grey for colour": (nn.Sequential(nn.Conv2d(3, 2, 8), nn.Flatten()), 1, ["of 3 channels, the batches have 1"]),
    "grouped": (nn.Sequential(nn.Conv2d(4, 4, 8, groups=2)), 3, ["of 4 channels, the batches have 3"]),
    "flat": (flat_model(784), 3, ["takes 784 values of each image, the batches have 3×8×8 = 192", "Resize"]),
}


@pytest.mark.parametrize("kind", UNFIT)
@pytest.mark.parametrize("way", ["fit", "validate", "get_preds", "lr_find"])
def test_images_that_do_not_fit_the_model(pets, kind, way):
    model, n_channels, parts = UNFIT[kind]
    cls = PILImageBW if n_channels == 1 else PILImage
    learn = learner(loaders(pets, img_cls=cls), model=model)
    call = {"fit": lambda: learn.fit(1), "lr_find": lambda: learn.lr_find(show_plot=False)}
    said = message(TrainingError, call.get(way, getattr(learn, way)))
    assert contains(said, *parts)


def test_a_layer_inside_that_does_not_fit_keeps_torchs_words(pets):
    learn = learner(loaders(pets), model=nn.Sequential(nn.Conv2d(3, 2, 3), nn.Conv2d(5, 2, 3), nn.Flatten()))
    error, *_ = raised_in(learn.validate, RuntimeError)
    assert "to have 5 channels, but got 2 channels" in str(error) and not isinstance(error, TrainingError)


def test_a_loss_of_the_user_that_raises(pets):
    def my_loss(pred, targ):
        raise ValueError("my own words")

    learn = learner(loaders(pets), loss_func=my_loss)
    error, name, filename = raised_in(lambda: learn.fit(1, 0.01), ValueError)
    assert type(error) is ValueError and str(error) == "my own words"
    assert name == "my_loss" and filename == __file__
    assert error.__notes__ == ["(the loss was given model output 4×2 float32 and labels 4 int64)"]
    learn.loss_func = F.cross_entropy
    learn.fit(1, 0.01)


def test_a_metric_of_the_user_that_raises(pets):
    def my_metric(pred, targ):
        return {}["nothing"]

    learn = learner(loaders(pets), metrics=my_metric)
    error, name, filename = raised_in(lambda: learn.fit(1, 0.01), KeyError)
    assert type(error) is KeyError and name == "my_metric" and filename == __file__
    assert learn.recorder.losses == []  # metrics are tried before the first batch
    learn.metrics = []
    learn.fit(1, 0.01)


class Stop(Callback):
    """Press Ctrl-C at the beginning of a training batch, or of the validation."""

    def __init__(self, batch: int | None = None):
        self.batch = batch

    def before_batch(self) -> None:
        learn = self.learn
        if learn.train_iter == self.batch if learn.training else self.batch is None:
            raise KeyboardInterrupt


@pytest.mark.parametrize(("batch", "n_losses", "n_epochs"), [(0, 0, 0), (5, 5, 1), (None, 3, 0)])
@pytest.mark.parametrize("cache", [True, False])
def test_ctrl_c_leaves_a_learner_that_goes_on(pets, batch, n_losses, n_epochs, cache):
    learn = learner(loaders(pets, cache=cache))
    assert len(learn.dls.train) == 3
    cbs, stop = list(learn.cbs), Stop(batch)
    with pytest.raises(KeyboardInterrupt):
        learn.fit_one_cycle(3, 0.01, cbs=stop)
    assert learn.cbs == cbs and not hasattr(learn, stop.name)
    assert len(learn.recorder.losses) == len(learn.recorder.lrs) == n_losses
    assert len(learn.recorder.values) == n_epochs
    assert all(p.grad is None for p in learn.model.parameters()) and not learn.training
    loss, share = learn.validate()
    assert np.isfinite(loss) and 0 <= share <= 1
    learn.fit(2, 0.01)
    assert len(learn.recorder.losses) == 6 and learn.recorder.lrs == [0.01] * 6


def test_ctrl_c_while_building_leaves_no_half_store(pets, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pellucid.data.store._checksum", interrupted)
        with pytest.raises(KeyboardInterrupt):
            loaders(pets)
    assert [p.name for p in stores_folder().iterdir() if p.suffix != ".lock"] == []
    assert loaders(pets).train.n == 13


def train(*args: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return pellucid("train", *args, "--out", "run", cwd=cwd)


def train_in_a_process(*args: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pellucid", "train", *map(str, args), "--out", "run"]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=HUNG_S)


def test_the_command_line_names_an_empty_folder(tmp_path):
    (tmp_path / "nothing").mkdir()
    done = train("nothing", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: nothing: no images found in it")
    assert not (tmp_path / "run").exists()


def test_the_command_line_lists_damaged_images_and_can_skip_them(damaged):
    done = train_in_a_process(damaged, "--size", 8, cwd=damaged.parent)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.startswith("error: 4 of 16 images cannot be decoded:")
    assert all(f"{damaged / name}: {reason}" in done.stderr for name, reason in REASONS.items())
    assert not (damaged.parent / "run").exists()
    done = train_in_a_process(damaged, "--size", 8, "--epochs", 1, "--on-error", "skip", cwd=damaged.parent)
    assert done.returncode == 0, done.stderr
    assert "warning: skipped 4 of 16 images" in done.stderr and (damaged.parent / "run" / "run.json").exists()


def test_the_command_line_asks_for_a_size_when_sizes_differ(pets):
    Image.new("RGB", (5, 9)).save(pets / "dog" / "3.png")
    done = train(pets, "--size", 0, cwd=pets.parent)
    assert done.returncode == 2
    assert contains(done.stderr, "error: images differ in size", "--size 128", pets / "dog" / "3.png")


def test_the_command_line_asks_for_the_missing_side(pets):
    (pets / "cat").rename(pets / "train")
    done = train(pets, cwd=pets.parent)
    assert done.returncode == 2
    assert contains(done.stderr, "no validation folder", "--valid-pct 0.2")
