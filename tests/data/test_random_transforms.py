"""Random transforms never reach validation images, and what is only tried leaves no trace."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from pellucid.data.augment.geometry import Flip
from pellucid.data.augment.lighting import Brightness, Contrast, Hue, Lighting, Saturation, lit
from pellucid.data.augment.policies import RandAugment, TrivialAugment
from pellucid.data.augment.recipes import aug_transforms
from pellucid.data.block import DataBlock
from pellucid.data.factories import ImageDataLoaders
from pellucid.data.images import Resize
from pellucid.data.items import parent_label
from pellucid.data.splits import IndexSplitter
from pellucid.data.transforms import Normalize, imagenet_stats
from pellucid.errors import UsageError
from pellucid.training.learner import Learner
from pets import write_pets


@pytest.fixture
def pets(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("PELLUCID_HOME", str(tmp_path / "home"))
    return write_pets(tmp_path / "pets", 6)


def loaders(folder: Path, **options):
    return ImageDataLoaders.from_folder(folder, valid_pct=0.5, seed=1, bs=3, device="cpu", **options)


NUMPY, TORCH = np.random.default_rng(0), torch.Generator().manual_seed(0)


def flip_sometimes(x):
    return x.flip(-1) if random.random() < 0.5 else x


RANDOM = {
    "python": flip_sometimes,
    "numpy": lambda x: x * np.random.uniform(0.5, 1),
    "torch": lambda x: x + torch.randn_like(x),
    "drawn and not used": lambda x: x + 0 * np.random.rand(),
    "a numpy generator of its own": lambda x: x * NUMPY.uniform(),
    "a torch generator of its own": lambda x: x * torch.rand(1, generator=TORCH),
    "another size each time": lambda x: x[..., : random.randint(1, 6)],
    "a module": nn.Dropout(),
    "after Normalize": nn.Sequential(nn.Identity(), nn.Dropout(0.9)),
}
PLAIN = {
    "a function": lambda x: x * 2 - 1,
    "a module": nn.Conv2d(3, 3, 1).requires_grad_(False),
    "Dropout that is switched off": nn.Dropout().eval(),
    "nan": lambda x: x / 0 * 0,
    "in place": lambda x: x.mul_(2),
}


@pytest.mark.parametrize("transform", RANDOM.values(), ids=RANDOM)
@pytest.mark.parametrize("cache", [True, False])
def test_a_random_batch_transform_is_refused(pets, transform, cache):
    with pytest.raises(UsageError, match=r"batch_tfms: .* is random, .*split_idx = 0"):
        loaders(pets, batch_tfms=[Normalize(), transform], cache=cache)


@pytest.mark.parametrize("transform", PLAIN.values(), ids=PLAIN)
def test_other_batch_transforms_change_both_sides(pets, transform):
    plain, changed = loaders(pets), loaders(pets, batch_tfms=transform)
    for raw, seen in zip(plain.valid, changed.valid, strict=True):
        assert torch.equal(torch.nan_to_num(seen[0]), torch.nan_to_num(transform(raw[0].clone())))


def test_a_random_transform_for_training_only_leaves_validation_alone(pets):
    class Noise:
        split_idx = 0

        def __call__(self, x):
            return x + torch.randn_like(x)

    plain, noisy = loaders(pets), loaders(pets, batch_tfms=Noise())
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(plain.valid, noisy.valid, strict=True))
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(noisy.valid, noisy.valid, strict=True))
    assert noisy.one_batch()[0].abs().max() > 1.2


def test_a_transform_may_be_for_validation_only(pets):
    def invert(x):
        return 1 - x

    invert.split_idx = 1  # type: ignore[attr-defined]
    plain, inverted = loaders(pets), loaders(pets, batch_tfms=invert)
    assert all(torch.equal(1 - a, b) for (a, _), (b, _) in zip(plain.valid, inverted.valid, strict=True))
    torch.manual_seed(0)
    expected = plain.one_batch()[0]
    torch.manual_seed(0)
    assert torch.equal(inverted.one_batch()[0], expected)


def turn_sometimes(image):
    return image.rotate(random.choice([0, 90, 180, 270]))


def noise(image):
    return Image.fromarray(np.asarray(image) ^ np.random.randint(0, 2, dtype=np.uint8))


@pytest.mark.parametrize("item_tfms", [turn_sometimes, [Resize(4), noise], [lambda image: image, noise]])
@pytest.mark.parametrize("damaged", [False, True])
def test_a_random_item_transform_is_refused(pets, item_tfms, damaged):
    if damaged:
        (pets / "cat" / "0.png").write_bytes(b"")
    with pytest.raises(UsageError, match=r"item_tfms: (noise|turn_sometimes) is random.*split_idx = 0"):
        loaders(pets, item_tfms=item_tfms, on_error="skip")


def test_trying_transforms_draws_no_random_numbers(pets):
    block = DataBlock(
        get_y=parent_label,
        splitter=IndexSplitter([0, 11]),
        item_tfms=lambda image: image.rotate(90),
        batch_tfms=[lambda x: x * 2, Normalize()],
    )
    states = random.getstate(), torch.get_rng_state(), np.random.get_state()[1].copy()
    block.dataloaders(pets, device="cpu")
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1]) and np.array_equal(np.random.get_state()[1], states[2])


def darker(x):
    """Leaves [0, 1] as Normalize does, under a name of its own."""
    return x - 3


def both() -> Lighting:
    return lit([Contrast(), Saturation()])


@pytest.mark.parametrize("late", [Brightness, Hue, RandAugment, TrivialAugment, both])
@pytest.mark.parametrize("first", [Normalize(), Normalize.from_stats(*imagenet_stats), darker])
def test_changes_of_pixels_are_refused_behind_what_leaves_their_range(pets, late, first):
    name = getattr(first, "__name__", "Normalize")
    said = rf"batch_tfms: \w+ works on pixels in \[0, 1\], and {name} before it gives -.*Normalize comes last"
    with pytest.raises(UsageError, match=said):
        loaders(pets, batch_tfms=[Flip(), first, late()])
    loaders(pets, batch_tfms=[late(), first])


def test_augmented_views_of_predictions_are_checked_too(pets):
    learn = Learner(loaders(pets, batch_tfms=Normalize()), nn.Sequential(nn.Flatten(), nn.Linear(108, 2)))
    with pytest.raises(UsageError, match="Brightness works on pixels"):
        learn.tta(n=1, batch_tfms=[darker, Brightness()])


def test_bicubic_edges_are_no_other_range(pets):
    loaders(pets, batch_tfms=[*aug_transforms(mode="bicubic", max_rotate=45), Normalize()])
