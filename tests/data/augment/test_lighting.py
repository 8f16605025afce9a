"""Light against a computation pixel by pixel, in float64, one change after another."""

from __future__ import annotations

import colorsys
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from pellucid.data.augment.lighting import Brightness, Contrast, Hue, Lighting, Saturation, lit
from pellucid.errors import UsageError


def images(n: int = 4, channels: int = 3, side: int = 6, seed: int = 0) -> Tensor:
    return torch.rand(n, channels, side, side, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pixels_through(images: Tensor, *functions) -> Tensor:
    """Every pixel through functions of (logits of the channels, image number), and back."""
    out = np.zeros(images.shape)
    for k, image in enumerate(images.numpy()):
        for i in range(image.shape[1]):
            for j in range(image.shape[2]):
                z = [math.log(v / (1 - v)) for v in image[:, i, j]]
                for function in functions:
                    z = function(z, k)
                out[k, :, i, j] = [1 / (1 + math.exp(-v)) for v in z]
    return torch.tensor(out)


def brighter(middles):
    return lambda z, k: [v + math.log(middles[k] / (1 - middles[k])) for v in z]


def stretched(factors):
    return lambda z, k: [v * factors[k] for v in z]


def saturated(factors):
    def change(z, k):
        grey = 0.299 * z[0] + 0.587 * z[1] + 0.114 * z[2]
        return [grey + (v - grey) * factors[k] for v in z]

    return change


MIDDLES, FACTORS, COLOURS = [0.3, 0.5, 0.8, 0.45], [1.5, 0.6, 1, 2], [0, 1.4, 0.5, 1]


def test_each_change_of_light_is_what_it_says():
    x = images()
    for tfm, function in (
        (Brightness(p=1, draw=MIDDLES), brighter(MIDDLES)),
        (Contrast(p=1, draw=FACTORS), stretched(FACTORS)),
        (Saturation(p=1, draw=COLOURS), saturated(COLOURS)),
    ):
        torch.testing.assert_close(tfm(x), pixels_through(x, function))
        single = tfm(x.float())
        assert single.dtype == torch.float32
        torch.testing.assert_close(single.double(), pixels_through(x, function), atol=1e-6, rtol=1e-5)


def test_changes_in_one_pass_are_changes_one_after_another():
    x = images()
    b, c, s = Brightness(p=1, draw=MIDDLES), Contrast(p=1, draw=FACTORS), Saturation(p=1, draw=COLOURS)
    for tfms, functions in (
        ([b, c, s], [brighter(MIDDLES), stretched(FACTORS), saturated(COLOURS)]),
        ([s, b, c], [saturated(COLOURS), brighter(MIDDLES), stretched(FACTORS)]),
        ([c, s, b, c], [stretched(FACTORS), saturated(COLOURS), brighter(MIDDLES), stretched(FACTORS)]),
    ):
        torch.testing.assert_close(lit(tfms)(x), pixels_through(x, *functions))


def test_grey_images_have_brightness_and_contrast_and_no_colour():
    x = images(channels=1)
    torch.testing.assert_close(
        lit([Brightness(p=1, draw=MIDDLES), Contrast(p=1, draw=FACTORS)])(x),
        pixels_through(x, brighter(MIDDLES), stretched(FACTORS)),
    )
    torch.testing.assert_close(Saturation(p=1, draw=COLOURS)(x), x)
    assert torch.equal(Hue(p=1, draw=0.3)(x), x)


def test_hue_is_that_of_colorsys():
    x, shifts = images(), [0.2, 0.5, -0.1, 0.93]
    x[0, :, 0, 0], x[0, :, 0, 1], x[0, :, 0, 2] = 0.4, 0.0, torch.tensor([1.0, 0, 0], dtype=torch.float64)
    found = Hue(p=1, draw=shifts)(x)
    for k, shift in enumerate(shifts):
        for i in range(6):
            for j in range(6):
                h, s, v = colorsys.rgb_to_hsv(*x[k, :, i, j].tolist())
                assert found[k, :, i, j].tolist() == pytest.approx(colorsys.hsv_to_rgb((h + shift) % 1, s, v), abs=1e-9)
    assert (Hue(p=1, draw=shifts)(x.float()) - found).abs().max() < 1e-5


def test_black_and_white_stay_finite():
    x = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2).repeat(1, 3, 2, 1)
    for kind in (torch.float32, torch.bfloat16, torch.float16):
        found = lit([Brightness(p=1, draw=0.6), Contrast(p=1, draw=1.3), Saturation(p=1, draw=0.5)])(x.to(kind))
        assert found.dtype == kind
        assert found.isfinite().all() and (found.float() - x).abs().max() < 0.01
        half = images().to(kind)
        found, exact = (Contrast(p=1, draw=1.3)(each).double() for each in (half, half.double()))
        assert (found - exact).abs().max() < {torch.float32: 1e-6, torch.bfloat16: 2**-8, torch.float16: 2**-11}[kind]


def test_random_changes_are_within_their_limits_and_each_images_own():
    torch.manual_seed(0)
    x = torch.full((2000, 3, 1, 1), 0.5, dtype=torch.float64)
    bright = Brightness(0.2, p=1)(x)[:, 0, 0, 0]
    assert bright.min() >= 0.4 and bright.max() <= 0.6 and bright.std() == pytest.approx(0.2 / math.sqrt(12), rel=0.05)
    factors = Contrast(0.2, p=1)(x + 0.2)[:, 0, 0, 0].logit() / math.log(0.7 / 0.3)
    assert factors.min() >= 0.8 - 1e-9 and factors.max() <= 1.25 + 1e-9
    assert factors.log().mean().abs() < 0.01 and len(factors.unique()) == 2000
    changed = Brightness(0.2, p=0.75)(x)[:, 0, 0, 0] != 0.5
    assert changed.float().mean() == pytest.approx(0.75, abs=0.04)
    assert len(Brightness(0.2, p=1, batch=True)(x).unique()) == 1
    red = torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1).repeat(500, 1, 1, 1)
    hues = [colorsys.rgb_to_hsv(*colour)[0] for colour in Hue(0.1, p=1)(red)[:, :, 0, 0].tolist()]
    turns = [(h + 0.5) % 1 - 0.5 for h in hues]
    assert -0.1 <= min(turns) < -0.09 and 0.1 < max(turns) <= 1 / 0.9 - 1 + 1e-6


@pytest.mark.parametrize("make", [Brightness, Contrast, Saturation, Hue])
def test_images_that_are_not_hit_keep_their_bits(make):
    torch.manual_seed(0)
    x = images(60).float()
    before = x.clone()
    assert torch.equal(make(0.5, p=0.0)(x), x)
    same = (make(0.5, p=0.5)(x) == x).flatten(1).all(1).float().mean()
    assert 0.3 < same < 0.7
    assert torch.equal(x, before)
    torch.manual_seed(4)
    first = make(0.5, p=0.5)(x)
    torch.manual_seed(4)
    assert torch.equal(make(0.5, p=0.5)(x), first)
    assert make(0.5, p=1)(x[:1]).shape == (1, 3, 6, 6)


def test_lighting_of_nothing_is_nothing():
    x = images()
    assert Lighting([])(x) is x


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Brightness(1), "max_lighting must be at least 0 and below 1"),
        (lambda: Contrast(-0.1), "max_lighting must be"),
        (lambda: Saturation(p=2), "p must be a probability"),
        (lambda: Hue(1), "max_hue must be"),
        (lambda: Hue(p=1)(images(channels=4)), "1 or 3 channels, these have 4"),
        (lambda: Saturation(p=1)(images(channels=2)), "1 or 3 channels, these have 2"),
    ],
)
def test_what_light_cannot_be_is_refused(make, words):
    with pytest.raises(UsageError, match=words):
        make()
