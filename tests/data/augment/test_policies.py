"""The operations against Pillow's, and which of them are drawn for whom."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from pellucid.data.augment import operations as op
from pellucid.data.augment.policies import USUAL, WIDE, RandAugment, TrivialAugment, applied
from pellucid.errors import UsageError


def pictures(n: int = 3, height: int = 24, width: int = 30) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    small = [rng.integers(20, 220, (5, 6, 3), np.uint8) for _ in range(n)]
    return [Image.fromarray(each).resize((width, height), Image.Resampling.BICUBIC) for each in small]


def batch(images: list[Image.Image]) -> Tensor:
    return torch.tensor(np.stack([np.asarray(i) for i in images]).transpose(0, 3, 1, 2) / 255)


def affine(image: Image.Image, *numbers: float) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, numbers, Image.Resampling.BILINEAR)


def about_the_middle(image: Image.Image, a: float, b: float, d: float, e: float) -> Image.Image:
    x, y = image.width / 2, image.height / 2
    return affine(image, a, b, x - a * x - b * y, d, e, y - d * x - e * y)


def turned(image: Image.Image, degrees: float) -> Image.Image:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return about_the_middle(image, cos, sin, -sin, cos)


MOVES = {
    "shear_x": ([0.3, -0.7, 0.1], lambda i, s: about_the_middle(i, 1, -s, 0, 1)),
    "shear_y": ([0.3, -0.7, 0.1], lambda i, s: about_the_middle(i, 1, 0, -s, 1)),
    "translate_x": ([0.1, -0.3, 0.05], lambda i, s: affine(i, 1, 0, -s * i.width, 0, 1, 0)),
    "translate_y": ([0.1, -0.3, 0.05], lambda i, s: affine(i, 1, 0, 0, 0, 1, -s * i.height)),
    "rotate": ([20, -95, 135], turned),
}
VALUES = {
    "brightness": ([0.5, -0.9, 0], lambda i, s: ImageEnhance.Brightness(i).enhance(1 + s)),
    "colour": ([0.9, -0.9, 0.3], lambda i, s: ImageEnhance.Color(i).enhance(1 + s)),
    "contrast": ([0.9, -0.9, 0.3], lambda i, s: ImageEnhance.Contrast(i).enhance(1 + s)),
    "sharpness": ([0.9, -0.9, 0.3], lambda i, s: ImageEnhance.Sharpness(i).enhance(1 + s)),
    "posterize": ([1, 4, 6], lambda i, s: ImageOps.posterize(i, 8 - s)),
    "solarize": ([0, 0.5, 1], lambda i, s: ImageOps.solarize(i, round(256 * (1 - s)))),
    "autocontrast": ([0, 0, 0], lambda i, s: ImageOps.autocontrast(i)),
    "equalize": ([0, 0, 0], lambda i, s: ImageOps.equalize(i)),
    "identity": ([0, 0, 0], lambda i, s: i),
}
EXACT = {"posterize", "solarize", "equalize", "identity"}


@pytest.mark.parametrize("name", VALUES)
def test_values_change_as_pillow_changes_them(name):
    strengths, by_pillow = VALUES[name]
    images = pictures()
    found = getattr(op, name)(batch(images), torch.tensor(strengths, dtype=torch.float64))
    wanted = batch([by_pillow(image, s) for image, s in zip(images, strengths, strict=True)])
    # Pillow rounds what it mixes with, and the result, to whole levels.
    assert (found - wanted).abs().max() < (1e-9 if name in EXACT else 2.6 / 255)


@pytest.mark.parametrize("name", MOVES)
def test_movements_are_pillows_away_from_the_edges(name):
    strengths, by_pillow = MOVES[name]
    images = pictures()
    strength = torch.tensor(strengths, dtype=torch.float64)
    found = getattr(op, name)(batch(images), strength)
    wanted = batch([by_pillow(image, s) for image, s in zip(images, strengths, strict=True)])
    inside = getattr(op, name)(torch.ones(3, 3, 24, 30, dtype=torch.float64), strength) > 0.999
    assert inside.float().mean((1, 2, 3)).min() > 0.3
    assert ((found - wanted).abs() * inside).max() < 1.5 / 255
    assert (found[~inside] <= batch(images).amax()).all() and not found.amin((1, 2, 3)).any()  # black comes in


def test_flat_images_stay_as_they_are():
    x = torch.full((2, 3, 5, 5), 0.4)
    for operation in (op.autocontrast, op.equalize):
        torch.testing.assert_close(operation(x, torch.zeros(2)), x)


def test_every_image_has_an_operation_of_its_own():
    torch.manual_seed(0)
    x = batch(pictures(1)).expand(700, 3, 24, 30)
    found = TrivialAugment()(x)
    kinds = len(found.flatten(1).unique(dim=0))
    assert kinds > 200
    still = (found == x).flatten(1).all(1).float().mean()
    assert 1 / 14 < still < 0.2  # drawn with strength 0 too
    torch.manual_seed(0)
    assert torch.equal(TrivialAugment()(x), found)
    assert torch.equal(x[0], batch(pictures(1))[0])


def test_strengths_go_from_nothing_to_the_most():
    x = batch(pictures(1)).expand(300, 3, 24, 30)
    for among in (WIDE, USUAL):
        for choice in among:
            if choice.operation in (op.identity, op.autocontrast, op.equalize):
                continue
            zero = applied(x, [choice], torch.zeros(300, dtype=torch.long))
            torch.testing.assert_close(zero, x)
            found = applied(x, [choice], torch.full((300,), 30))
            both = [
                choice.operation(x[:1], torch.tensor([s], dtype=torch.float64)) for s in (choice.most, -choice.most)
            ]
            for image in found:
                assert any(torch.allclose(image, each[0]) for each in both[: 2 if choice.signed else 1])
            assert len(found.flatten(1).unique(dim=0)) == (2 if choice.signed else 1)


def test_randaugment_does_several_of_one_strength():
    torch.manual_seed(0)
    x = batch(pictures(1)).expand(200, 3, 24, 30)
    weak, strong = (RandAugment(1, m)(x) for m in (1, 30))
    assert (weak - x).abs().mean() < (strong - x).abs().mean()
    assert (RandAugment(3, 9)(x) - x).abs().mean() > (RandAugment(1, 9)(x) - x).abs().mean()


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_kind_of_images_is_taken(kind, channels):
    torch.manual_seed(0)
    for x in (batch(pictures(1)).to(kind)[:, :channels], torch.rand(60, channels, 2, 1).to(kind)):
        for tfm in (TrivialAugment(), RandAugment(2, 30)):
            found = tfm(x.expand(60, *x.shape[1:]))
            assert found.dtype == kind and found.isfinite().all()
            assert found.min() >= 0 and found.max() <= 1


@pytest.mark.parametrize("arguments", [(0, 9), (2, 31), (2, -1)])
def test_randaugment_refuses_what_makes_no_sense(arguments):
    with pytest.raises(UsageError, match="RandAugment takes n of at least 1 and m from 0 to 30"):
        RandAugment(*arguments)
