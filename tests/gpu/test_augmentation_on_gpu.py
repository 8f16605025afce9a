"""Augmentation draws the same on every device, and gives the same images to rounding."""

from __future__ import annotations

import pytest
import torch

from pellucid.vision.all import (
    Dihedral,
    Flip,
    Hue,
    RandAugment,
    RandomCrop,
    RandomErasing,
    RandomResizedCropGPU,
    Saturation,
    TrivialAugment,
    aug_transforms,
    augmentation,
)

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
SETS = {
    "aug_transforms": aug_transforms(size=20, min_scale=0.5),
    "strong": augmentation("strong"),
    "pixels": [Flip(), Dihedral(), RandomCrop(padding=3), RandomErasing(p=1)],
    "colours": [Saturation(0.5), Hue(0.2)],
    "crop": [RandomResizedCropGPU(10)],
    "policies": [TrivialAugment(), RandAugment()],
}


@pytest.mark.parametrize("name", SETS)
def test_the_same_seed_gives_the_same_images(name, device="cuda"):
    x = torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = []
    for where in (device, "cpu"):
        torch.manual_seed(1)
        images = x.to(where)
        for tfm in SETS[name]:
            images = tfm(images)
        assert images.device.type == where
        found.append(images.cpu())
    # Where a value is rounded to a level, or compared with one, the devices may differ by a level here and there.
    assert ((found[0] - found[1]).abs() > 1e-3).float().mean() < 0.002
    assert not torch.equal(found[0], x)
