"""`aug_transforms`, erasing, and augmentation by the name of a strength."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pellucid.data.augment.crops import RandomCrop
from pellucid.data.augment.erasing import RandomErasing
from pellucid.data.augment.geometry import Dihedral, Flip, Geometry, Rotate, Warp, Zoom
from pellucid.data.augment.lighting import Brightness, Contrast, Hue, Lighting, Saturation
from pellucid.data.augment.recipes import AUGMENTATIONS, aug_transforms, augmentation, setup_aug_tfms
from pellucid.data.augment.sizing import CenterCropResize
from pellucid.errors import UsageError


def images(n: int = 6, channels: int = 3, side: int = 20) -> Tensor:
    return torch.rand(n, channels, side, side, generator=torch.Generator().manual_seed(0))


def through(tfms, x: Tensor, seed: int = 1) -> Tensor:
    torch.manual_seed(seed)
    for tfm in tfms:
        x = tfm(x)
    return x


def test_the_default_is_fastais_in_one_resampling_and_one_pass():
    x = images()
    by_hand = [Flip(), Warp(0.2, 0.75), Rotate(10, 0.75), Zoom(1, 1.1, 0.75), Brightness(), Contrast()]
    tfms = aug_transforms()
    assert [type(t) for t in tfms] == [Geometry, Lighting]
    assert all(t.split_idx == 0 for t in tfms)
    assert torch.equal(through(tfms, x), through(setup_aug_tfms(by_hand), x))
    assert not torch.equal(through(tfms, x), x)


@pytest.mark.parametrize(
    ("options", "by_hand"),
    [
        (
            {"do_flip": False, "max_warp": 0, "max_lighting": 0, "min_zoom": 0.8},
            [Rotate(10, 0.75), Zoom(0.8, 1.1, 0.75)],
        ),
        ({"flip_vert": True, "max_rotate": 0, "max_warp": 0, "max_zoom": 1, "max_lighting": 0}, [Dihedral(0.5)]),
        (
            {"mult": 2, "max_warp": 0, "max_zoom": 1, "pad_mode": "zeros", "p_affine": 1, "p_lighting": 0.5},
            [Flip(pad_mode="zeros"), Rotate(20, 1), Brightness(0.4, 0.5), Contrast(0.4, 0.5)],
        ),
        (
            {"max_warp": 0, "max_lighting": 0, "batch": True, "mode": "nearest", "align_corners": False},
            [
                Flip(batch=True, mode="nearest", align_corners=False),
                Rotate(10, 0.75, batch=True),
                Zoom(1, 1.1, 0.75, batch=True),
            ],
        ),
    ],
)
def test_the_arguments_mean_what_they_say(options, by_hand):
    x = images()
    assert torch.equal(through(aug_transforms(**options), x), through(setup_aug_tfms(by_hand), x))


def test_a_size_is_that_of_training_and_validation():
    (geometry, _) = aug_transforms(size=8)
    assert geometry(images()).shape == (6, 3, 8, 8)
    assert geometry.validation == CenterCropResize(8)
    (geometry, _, erasing) = aug_transforms(size=(8, 10), min_scale=0.5, xtra_tfms=RandomErasing(), align_corners=False)
    assert geometry(images()).shape == (6, 3, 8, 10)
    assert geometry.validation == CenterCropResize((8, 10), (1, 1), align_corners=False)
    assert isinstance(erasing, RandomErasing)
    assert aug_transforms()[0].validation is None


def test_what_is_added_joins_its_kind():
    own = RandomCrop(padding=2)
    hue = Hue()
    tfms = aug_transforms(xtra_tfms=[own, Saturation(0.5, p=1), hue])
    assert [type(t) for t in tfms] == [Geometry, Lighting, RandomCrop, Hue]
    assert len(tfms[1].changes) == 3


def test_small_grey_and_single_images_are_taken():
    for kind in (torch.float32, torch.bfloat16, torch.float16):
        for x in (images(1), images(3, channels=1), images(2, side=1)):
            for tfms in (aug_transforms(), augmentation("strong"), augmentation("strong", 7)):
                found = through(tfms, x.to(kind))
                assert found.dtype == kind and found.isfinite().all() and found.shape[:2] == x.shape[:2]


def test_strengths_go_by_name():
    x = images()
    assert augmentation("none") == []
    assert through(augmentation("none", 10), x).shape == (6, 3, 10, 10)
    changes = {name: (through(augmentation(name), x) - x).abs().mean() for name in AUGMENTATIONS}
    assert changes["none"] == 0 < changes["light"] < changes["strong"]
    for name in AUGMENTATIONS:
        first = augmentation(name, 10)[0]
        validation = getattr(first, "validation", first)  # without anything random, validation sees the same
        assert through([validation], x).shape == through(augmentation(name, 10), x).shape == (6, 3, 10, 10)
    with pytest.raises(UsageError, match="augmentation 'heavy' does not exist: use one of none, light, strong"):
        augmentation("heavy")


def test_erasing_puts_noise_into_one_rectangle_of_some_images():
    torch.manual_seed(0)
    x = 0.4 + 0.2 * torch.rand(400, 3, 40, 40, dtype=torch.float64)
    found = RandomErasing(p=0.5, sl=0.05, sh=0.3, min_aspect=0.5)(x)
    shares, aspects, noise = [], [], []
    for before, after in zip(x, found, strict=True):
        changed = (before != after).any(0)
        if not changed.any():
            continue
        rows, columns = (changed.any(axis).nonzero().flatten() for axis in (1, 0))
        height, width = int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1
        assert changed.sum() == height * width  # all of the rectangle, and nothing else
        shares.append(height * width / 1600)
        aspects.append(height / width)
        noise.append((after[:, changed] - before.mean((1, 2))[:, None]) / before.std((1, 2))[:, None])
    assert len(shares) / 400 == pytest.approx(0.5, abs=0.08)
    assert 0.04 < min(shares) < 0.07 and 0.27 < max(shares) < 0.32
    assert 0.45 < min(aspects) < 0.6 and 1.7 < max(aspects) < 2.2
    together = torch.cat([each.flatten() for each in noise])
    assert together.mean().abs() < 0.01 and together.std() == pytest.approx(1, abs=0.02)
    assert torch.equal(RandomErasing(p=0)(x), x)
    torch.manual_seed(5)
    first = RandomErasing()(x)
    torch.manual_seed(5)
    assert torch.equal(RandomErasing()(x), first)


def test_several_rectangles_have_the_area_together():
    torch.manual_seed(0)
    x = torch.rand(100, 1, 60, 60)
    share = (RandomErasing(p=1, sl=0.2, sh=0.2, max_count=4)(x) != x).float().mean((1, 2, 3))
    assert share.max() < 0.22 and share.min() < 0.19  # where they overlap, it is less


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: aug_transforms(min_scale=0.5), "min_scale cuts out parts.*size=224"),
        (lambda: aug_transforms(p_affine=1.1), "p_affine must be a probability"),
        (lambda: aug_transforms(mult=5), "max_lighting must be|below 0.5"),
        (lambda: aug_transforms(size=8, xtra_tfms=Rotate(size=9)), "several sizes"),
        (lambda: RandomErasing(sl=0.5, sh=0.2), "shares of the area"),
        (lambda: RandomErasing(min_aspect=0), "min_aspect must be"),
    ],
)
def test_recipes_refuse_what_makes_no_sense(make, words):
    with pytest.raises(UsageError, match=words):
        make()
