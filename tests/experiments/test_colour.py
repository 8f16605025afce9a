from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.data.catalogue import mnist_arrays
from pellucid.experiments.colour import HUE_SPREAD, INKS, colour_digits, rgb_to_grey, rgb_to_hsv, rgb_to_turned_hsv

SHARE = st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 1, width=32))


@settings(max_examples=50)
@given(st.lists(st.tuples(SHARE, SHARE, SHARE), min_size=1, max_size=30))
def test_hsv_is_colorsyss(pixels):
    x = torch.tensor(pixels, dtype=torch.float64).T.reshape(1, 3, 1, -1)
    ours = rgb_to_hsv(x)[0, :, 0].T
    theirs = torch.tensor([colorsys.rgb_to_hsv(*pixel) for pixel in pixels], dtype=torch.float64)
    turn = (ours[:, 0] - theirs[:, 0]).abs()
    assert torch.minimum(turn, 1 - turn).max() < 1e-9  # 0 and 1 are the same hue
    assert torch.allclose(ours[:, 1:], theirs[:, 1:])
    assert ours.min() >= 0 and ours.max() <= 1


def test_hue_counted_from_magenta_jumps_there():
    names = torch.tensor([(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 0.999), (0.999, 0, 1)]).T.reshape(1, 3, 1, 5)
    hue = rgb_to_turned_hsv(names)[0, 0, 0]
    assert hue.tolist() == pytest.approx([1 / 6, 1 / 2, 5 / 6, 0, 1], abs=1e-3)
    assert torch.equal(rgb_to_turned_hsv(names)[:, 1:], rgb_to_hsv(names)[:, 1:])


@pytest.fixture(scope="module")
def painted():
    digits, labels, _, _ = mnist_arrays()
    return digits[:6_000], labels[:6_000], *colour_digits(digits[:6_000], labels[:6_000])


def test_the_class_says_digit_and_ink(painted):
    digits, labels, images, classes = painted
    assert images.shape == (6_000, 3, 28, 28) and images.dtype == np.uint8
    np.testing.assert_array_equal(classes // len(INKS), labels)
    full = digits == 255
    for image, ink, where in zip(images[:500], classes[:500] % len(INKS), full[:500], strict=True):
        if where.any():
            hue = colorsys.rgb_to_hsv(*(image[:, where].mean(1) / 255))[0]
            away = abs((hue - ink / len(INKS) + 0.5) % 1 - 0.5)
            assert away < HUE_SPREAD + 0.02


def test_grey_tells_nothing_of_the_ink(painted):
    digits, _, images, classes = painted
    grey = rgb_to_grey(torch.from_numpy(images).float() / 255)[:, 0].numpy()
    has_ink = (digits == 255).any((1, 2))
    luma = np.array([g[d == 255].mean() for g, d in zip(grey[has_ink], digits[has_ink], strict=True)])
    paper, ink = grey[has_ink, 0, 0], classes[has_ink] % len(INKS)
    for brightness in (luma, paper):
        means = [brightness[ink == kind].mean() for kind in range(len(INKS))]
        assert max(means) - min(means) < 0.1 * brightness.std()
    reds, others = luma[ink == 0], luma[ink != 0]
    edges = np.quantile(luma, np.linspace(0, 1, 9)[1:-1])
    shares = [np.bincount(np.digitize(part, edges), minlength=8) / len(part) for part in (reds, others)]
    assert np.abs(shares[0] - shares[1]).max() < 0.03


def test_red_lies_around_the_jump_of_hue(painted):
    digits, _, images, classes = painted
    first = next(i for i in range(100) if classes[i] % 3 == 0)
    assert (digits[first] == 255).any()
    hues = []
    for image, digit in zip(images[classes % 3 == 0][:200], digits[classes % 3 == 0][:200], strict=True):
        if (digit == 255).any():
            hues.append(colorsys.rgb_to_hsv(*(image[:, digit == 255].mean(1) / 255))[0])
    assert np.mean(np.array(hues) < 0.5) == pytest.approx(0.5, abs=0.15)


def test_same_seed_same_images(painted):
    digits, labels, images, classes = painted
    again = colour_digits(digits[:300], labels[:300])
    other = colour_digits(digits[:300], labels[:300], seed=1)
    assert np.array_equal(colour_digits(digits[:300], labels[:300])[0], again[0])
    assert not np.array_equal(other[0], again[0]) and not np.array_equal(other[1], again[1])
    assert np.array_equal(colour_digits(digits, labels)[0], images)
    assert np.array_equal(colour_digits(digits, labels)[1], classes)
