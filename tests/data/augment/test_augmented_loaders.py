"""Augmentation between files and model: training is augmented, validation and prediction are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pellucid.data.augment.crops import RandomCrop, RandomResizedCropGPU
from pellucid.data.augment.geometry import Flip, Rotate
from pellucid.data.augment.recipes import augmentation
from pellucid.data.augment.sizing import CenterCropResize
from pellucid.data.factories import ImageDataLoaders
from pellucid.data.images import Resize
from pellucid.data.transforms import Normalize
from pellucid.errors import UsageError
from pellucid.nn.models import create_model
from pellucid.runs import Settings, load_run, train
from pellucid.seed import set_seed
from pellucid.training.learner import Learner


@pytest.fixture
def pets(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("PELLUCID_HOME", str(tmp_path / "home"))
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for i in range(8):
            pixels = rng.integers(0, 256, (9, 9, 3), np.uint8)
            Image.fromarray(pixels).resize((30, 24), Image.Resampling.BICUBIC).save(
                tmp_path / "pets" / name / f"{i}.png"
            )
    return tmp_path / "pets"


def loaders(folder: Path, tfms, **options):
    return ImageDataLoaders.from_folder(
        folder, valid_pct=0.5, seed=1, bs=4, device="cpu", item_tfms=Resize(24), batch_tfms=tfms, **options
    )


def test_validation_has_the_size_of_training_and_nothing_random(pets):
    plain = loaders(pets, [Normalize()])
    dls = loaders(pets, [RandomResizedCropGPU(16, min_scale=0.5), Normalize()])
    train, valid = (dls[i].one_batch()[0] for i in (0, 1))
    assert train.shape[2:] == valid.shape[2:] == (16, 16)
    assert [type(t).__name__ for t in dls.train.batch_tfms] == ["RandomResizedCropGPU", "Normalize"]
    assert [type(t).__name__ for t in dls.valid.batch_tfms] == ["CenterCropResize", "Normalize"]
    torch.manual_seed(1)
    assert torch.equal(valid, dls.valid.one_batch()[0])
    untouched = loaders(pets, [Flip(), Rotate(), RandomCrop(padding=4), Normalize()])
    assert torch.equal(untouched.valid.one_batch()[0], plain.valid.one_batch()[0])
    assert not torch.equal(untouched.train.one_batch()[0], plain.train.one_batch()[0])


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("cache", [True, False])
def test_same_seed_same_bits_however_images_are_decoded(pets, cache, workers):
    tfms = [RandomResizedCropGPU(16, min_scale=0.5), Rotate(p=1)]
    set_seed(3)
    first = [xb for xb, _ in loaders(pets, tfms).train]
    set_seed(3)
    again = [xb for xb, _ in loaders(pets, tfms, cache=cache, workers=workers).train]
    assert torch.equal(torch.cat(first), torch.cat(again))


def test_pictures_of_one_image_differ_and_are_undone_from_normalising(pets):
    dls = loaders(pets, [Rotate(60, p=1), Normalize()])
    images = [ax.images[0].get_array() for ax in dls.show_batch(unique=True, max_n=4).axes]
    assert len({np.asarray(image).tobytes() for image in images}) == 4
    for image in images:
        assert image.min() >= 0 and image.max() <= 1 and 0.3 < image.mean() < 0.7
    plain = loaders(pets, [Normalize()]).show_batch(unique=True, max_n=2)
    turned = loaders(pets, [Rotate(p=0.0), Normalize()]).show_batch(unique=True, max_n=2)
    for ours, theirs in zip(turned.axes, plain.axes, strict=True):
        assert np.array_equal(ours.images[0].get_array(), theirs.images[0].get_array())


@pytest.mark.parametrize("tfm", [RandomResizedCropGPU(16, valid_scale=0.75), RandomCrop(16), Rotate(size=16)])
def test_a_run_folder_keeps_what_validation_saw(pets, tmp_path, tfm):
    set_seed(0)
    dls = loaders(pets, [tfm, Normalize()])
    learn = Learner(dls, create_model("small_resnet", 3, 2, 16))
    learn.save_run(tmp_path / "run", "small_resnet")
    run = load_run(tmp_path / "run")
    assert run.pipeline is not None
    assert run.pipeline.batch_tfms[0] == dls.valid.batch_tfms[0]
    assert isinstance(run.pipeline.batch_tfms[0], type(tfm.validation))
    files = [str(item) for item in dls.valid.items]
    expected = learn.get_preds()[0]
    found = torch.tensor([[answer.probabilities[name] for name in dls.vocab] for answer in run.predict(files)])
    torch.testing.assert_close(found.to(expected), expected, atol=1e-5, rtol=1e-4)


def test_what_a_run_folder_says_of_a_crop_is_checked():
    assert CenterCropResize([16, 20], ratio=[1, 1]) == CenterCropResize((16, 20), (1.0, 1.0))


def test_train_takes_augmentation_by_name_and_the_run_says_so(pets, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("pellucid.runs.fitting.augmentation", lambda name: seen.append(name) or augmentation(name))
    common = {"epochs": 1, "size": 16, "device": "cpu", "valid_pct": 0.5}
    for name in (None, "none", "light"):
        run = train(Settings(str(pets), augment=name, **common), tmp_path / f"{name}")
        assert run.settings["settings"]["augment"] == (name or "none")
        assert run.pipeline is not None and [type(t) for t in run.pipeline.batch_tfms] == [Normalize]
    assert seen == ["none", "none", "light"]
    plain, none, light = (load_run(tmp_path / name).model.state_dict() for name in ("None", "none", "light"))
    assert all(torch.equal(plain[key], none[key]) for key in plain)
    assert not all(torch.equal(plain[key], light[key]) for key in plain)
    with pytest.raises(UsageError, match="augmentation 'lots' does not exist"):
        Settings(str(pets), augment="lots")
