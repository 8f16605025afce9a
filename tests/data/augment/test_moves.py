"""Flip, turn, zoom, warp and crop against a computation pixel by pixel, in float64, that knows no matrices."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from pellucid.data.augment.crops import CenterCrop, RandomCrop, RandomResizedCropGPU
from pellucid.data.augment.geometry import Dihedral, Flip, Geometry, Rotate, Warp, Zoom, composed
from pellucid.data.augment.sizing import CenterCropResize
from pellucid.errors import UsageError


def images(n: int = 4, channels: int = 3, height: int = 9, width: int = 12, seed: int = 0) -> Tensor:
    return torch.rand(n, channels, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def reflected(place: float, n: int, align: bool) -> float:
    """A place mirrored at the ends of a row of n pixels until it is in it."""
    low, high = (0.0, n - 1.0) if align else (-0.5, n - 0.5)
    while n > 1 and not low <= place <= high:
        place = 2 * low - place if place < low else 2 * high - place
    return min(max(place, 0.0), n - 1.0)


def pixel(image: np.ndarray, y: float, x: float, pad: str, align: bool) -> np.ndarray:
    """The image between its pixels: the mean of the four around a place, weighted by nearness."""
    height, width = image.shape[1:]
    if pad == "border":
        y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    if pad == "reflection":
        y, x = reflected(y, height, align), reflected(x, width, align)
    found = np.zeros(len(image))
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < height and 0 <= column < width:
                found += (1 - abs(y - row)) * (1 - abs(x - column)) * image[:, row, column]
    return found


def seen(image: np.ndarray, where, size=None, pad="reflection", align=True) -> np.ndarray:
    """Each pixel of the result looked up where `where` says; places are on -1 to 1."""
    height, width = image.shape[1:]
    rows, columns = size or (height, width)
    found = np.zeros((len(image), rows, columns))
    for i in range(rows):
        for j in range(columns):
            ends = 1 if align else 0
            x, y = ((2 * k + 1 - ends) / (n - ends) - 1 for k, n in ((j, columns), (i, rows)))
            x, y = where(x, y)
            x, y = (
                (side - ends) * (place + 1) / 2 - (0 if align else 0.5) for side, place in ((width, x), (height, y))
            )
            found[:, i, j] = pixel(image, y, x, pad, align)
    return found


def turned(degrees: float, height: int, width: int, align: bool = True):
    """Where a picture turned clockwise shows what was elsewhere; in pixels, so that shapes stay."""
    angle, ends = math.radians(degrees), 1 if align else 0
    half_x, half_y = (width - ends) / 2, (height - ends) / 2

    def where(x, y):
        right, down = x * half_x, y * half_y
        distance, direction = math.hypot(right, down), math.atan2(down, right)
        return distance * math.cos(direction - angle) / half_x, distance * math.sin(direction - angle) / half_y

    return where


def zoomed(factor: float, x0: float, y0: float):
    """Places come nearer to a fixed one, given on 0 to 1 of the image."""
    fixed_x, fixed_y = 2 * x0 - 1, 2 * y0 - 1
    return lambda x, y: (fixed_x + (x - fixed_x) / factor, fixed_y + (y - fixed_y) / factor)


def warped(dx: float, dy: float):
    """The projection under which the corners of the image are seen where they were moved to."""
    moved = {
        (-1, -1): (-1 - dy, -1 - dx),
        (-1, 1): (-1 + dy, 1 + dx),
        (1, -1): (1 + dy, -1 + dx),
        (1, 1): (1 - dy, 1 - dx),
    }
    equations = []
    for (u, v), (x, y) in moved.items():  # (x, y, 1) P is a multiple of (u, v, 1)
        equations.append([x, y, 1, 0, 0, 0, -u * x, -u * y, -u])
        equations.append([0, 0, 0, x, y, 1, -v * x, -v * y, -v])
    p = np.linalg.svd(np.array(equations))[2][-1].reshape(3, 3)

    def where(x, y):
        u, v, depth = p @ [x, y, 1]
        return u / depth, v / depth

    return where


def batch_of(pictures) -> Tensor:
    return torch.tensor(np.stack(pictures))


@pytest.mark.parametrize("align", [True, False])
@pytest.mark.parametrize("pad", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("channels", [1, 3])
def test_each_image_is_turned_by_its_own_angle(pad, align, channels):
    x, angles = images(channels=channels), [30, -75, 10, 160]
    found = Rotate(180, p=1, draw=angles, pad_mode=pad, align_corners=align)(x)
    wanted = [seen(i.numpy(), turned(a, 9, 12, align), pad=pad, align=align) for i, a in zip(x, angles, strict=True)]
    torch.testing.assert_close(found, batch_of(wanted))


@pytest.mark.parametrize("pad", ["zeros", "border", "reflection"])
def test_zoom_keeps_its_fixed_place(pad):
    x = images()
    factors, places_x, places_y = [1.1, 0.6, 2, 1.5], [0, 1, 0.5, 0.2], [0.3, 0.5, 1, 0]
    found = Zoom(0.5, 2, p=1, draw=factors, draw_x=places_x, draw_y=places_y, pad_mode=pad)(x)
    each = zip(x, factors, places_x, places_y, strict=True)
    torch.testing.assert_close(found, batch_of([seen(i.numpy(), zoomed(*of), pad=pad) for i, *of in each]))


@pytest.mark.parametrize("pad", ["zeros", "border", "reflection"])
def test_warp_moves_the_corners(pad):
    x, dx, dy = images(), [0.2, -0.1, 0, 0.3], [0.1, 0.2, -0.3, 0]
    found = Warp(0.3, p=1, draw_x=dx, draw_y=dy, pad_mode=pad)(x)
    each = zip(x, dx, dy, strict=True)
    torch.testing.assert_close(found, batch_of([seen(i.numpy(), warped(*of), pad=pad) for i, *of in each]))


def test_flip_and_dihedral_move_pixels_and_change_none():
    x = images(8, height=7, width=7).float()
    ways = [
        lambda i: i,
        lambda i: i[:, :, ::-1],
        lambda i: i[:, ::-1],
        lambda i: i[:, :, ::-1].transpose(0, 2, 1),
        lambda i: i[:, ::-1, ::-1],
        lambda i: i[:, ::-1].transpose(0, 2, 1),
        lambda i: i.transpose(0, 2, 1),
        lambda i: i[:, ::-1, ::-1].transpose(0, 2, 1),
    ]
    found = Dihedral(p=1, draw=list(range(8)))(x)
    for image, way, result in zip(x, ways, found, strict=True):
        assert np.array_equal(result.numpy(), way(image.numpy()))
    flipped = Flip(p=1)(images().float())
    assert np.array_equal(flipped.numpy(), images().float().numpy()[:, :, :, ::-1])


def test_dihedral_turns_what_is_not_square_without_stretching_it():
    x = images(1, height=5, width=9)
    found = Dihedral(p=1, draw=6, pad_mode="zeros")(x)
    assert torch.equal(found[0, :, :, 2:7].isclose(x[0, :, :, 2:7].mT), torch.ones(3, 5, 5, dtype=torch.bool))
    assert not found[0, :, :, :2].any() and not found[0, :, :, 7:].any()


def test_all_movements_are_one_resampling():
    x, size = images(2), (6, 8)
    steps = [
        Flip(p=1, draw=[1, 0]),
        Warp(p=1, draw_x=[0.2, -0.1], draw_y=[0.1, 0.15]),
        Rotate(40, p=1, draw=[40, -20]),
        Zoom(p=1, draw=[1.3, 1.1], draw_x=[0.1, 0.7], draw_y=[0.9, 0.4]),
    ]
    found = composed([*steps, Geometry([], size)])(x)
    wanted = []
    for k, image in enumerate(x):
        sign = [-1, 1][k]
        warp = warped([0.2, -0.1][k], [0.1, 0.15][k])
        turn = turned([40, -20][k], 9, 12)
        zoom = zoomed([1.3, 1.1][k], [0.1, 0.7][k], [0.9, 0.4][k])

        def where(x, y, sign=sign, warp=warp, turn=turn, zoom=zoom):
            x, y = warp(*turn(*zoom(x, y)))
            return sign * x, y

        wanted.append(seen(image.numpy(), where, size))
    torch.testing.assert_close(found, batch_of(wanted))
    one_by_one = x
    for step in steps:
        one_by_one = step(one_by_one)
    assert (one_by_one - composed(steps)(x)).abs().mean() > 0.01  # several resamplings blur


def test_single_precision_is_right_to_rounding():
    x = images(2, height=40, width=50)
    tfm = composed([Rotate(p=1, draw=[7, -9]), Warp(p=1, draw_x=[0.1, -0.2], draw_y=[-0.1, 0.05])])
    assert (tfm(x.float()) - tfm(x)).abs().max() < 3e-5
    for kind, tolerance in ((torch.bfloat16, 2**-7), (torch.float16, 2**-10)):
        half = x.to(kind)
        assert tfm(half).dtype == kind
        assert (tfm(half).double() - tfm(half.double())).abs().max() < tolerance


def test_what_shrinks_a_lot_is_averaged_first():
    x = images(1, height=36, width=36)
    found = Geometry([], 12, align_corners=False)(x)
    wanted = x.view(1, 3, 12, 3, 12, 3).mean((3, 5))
    torch.testing.assert_close(found, wanted)
    ramp = torch.linspace(0, 1, 36, dtype=torch.float64).expand(1, 1, 36, 36)
    for align in (True, False):  # places stay where they are
        half = Geometry([], 12, align_corners=align)(ramp)[0, 0, 6]
        edges = (0, 35) if align else (1, 34)
        inner = torch.linspace(edges[0] / 35, edges[1] / 35, 12, dtype=torch.float64)[1:-1]
        torch.testing.assert_close(half[1:-1], inner)


@pytest.mark.parametrize("align", [True, False])
def test_a_random_resized_crop_is_a_part_of_the_image(align):
    torch.manual_seed(0)
    height, width, n = 30, 40, 300
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    x = torch.stack([rows, columns]).double().expand(n, 2, height, width)
    tfm = RandomResizedCropGPU((height, width), min_scale=0.25, ratio=(0.5, 2))
    tfm.align_corners = align
    found = tfm(x)
    first, second = found[:, :, 10, 10], found[:, :, 20, 20]
    pixels = torch.tensor([30.0, 40.0], dtype=torch.float64)
    step = (second - first) / 10
    sides = step * (pixels - 1) + 1 if align else step * pixels
    corners = first - 10 * step if align else first - 10.5 * step + 0.5
    for value in (sides, corners):
        torch.testing.assert_close(value, value.round())
    (top, left), (tall, wide) = corners.T, sides.T
    assert corners.min() > -0.01 and (top + tall).max() < height + 0.01 and (left + wide).max() < width + 0.01
    share, shape = tall * wide / (height * width), wide / tall
    assert share.min() > 0.24 and share.max() <= 1 and share.std() > 0.15
    assert 0.47 < shape.min() < 0.7 and 1.6 < shape.max() < 2.1
    assert len({tuple(each) for each in torch.stack([top, left, tall, wide], -1).round().tolist()}) > 250


def test_validation_sees_the_middle_whatever_was_drawn():
    x = images(2, height=20, width=40)
    crop = RandomResizedCropGPU(10, min_scale=0.5, ratio=(1, 1), valid_scale=0.5)
    assert crop.validation == CenterCropResize(10, (1, 1), 0.5)
    assert crop.split_idx == 0 and crop.validation.split_idx == 1
    torch.testing.assert_close(crop.validation(x), x[:, :, 5:15, 15:25])
    squished = Rotate(size=(15, 30)).validation
    assert squished is not None
    torch.testing.assert_close(squished(x), batch_of([seen(i.numpy(), lambda x, y: (x, y), (15, 30)) for i in x]))
    assert Rotate().validation is None
    assert composed([Flip(size=10), Rotate(), crop]).validation == crop.validation


def test_random_crop_moves_by_whole_pixels():
    torch.manual_seed(1)
    x = images(200, height=8, width=8)
    found = RandomCrop(padding=2)(x)
    places = set()
    for image, result in zip(x, found, strict=True):
        padded = np.pad(image.numpy(), ((0, 0), (2, 2), (2, 2)))
        fits = [(i, j) for i in range(5) for j in range(5) if np.array_equal(padded[:, i : i + 8, j : j + 8], result)]
        assert len(fits) == 1
        places |= set(fits)
    assert len(places) == 25
    assert RandomCrop(padding=2).validation is None
    smaller = RandomCrop((5, 6))
    assert smaller(x).shape[2:] == (5, 6)
    assert smaller.validation == CenterCrop((5, 6))
    assert torch.equal(smaller.validation(x), x[:, :, 1:6, 1:7])
    reflected_ = RandomCrop(padding=3, pad_mode="reflection")(x[:1])
    assert reflected_.min() > 0  # nothing black


TRANSFORMS = [
    lambda **o: Flip(**o),
    lambda **o: Dihedral(**o),
    lambda **o: Rotate(30, **o),
    lambda **o: Zoom(1.2, 1.5, **o),
    lambda **o: Warp(0.3, **o),
]


@pytest.mark.parametrize("make", TRANSFORMS)
def test_p_is_the_share_of_images_that_change_and_others_keep_their_bits(make):
    torch.manual_seed(0)
    x = images(400, height=8, width=8).float()
    before = x.clone()
    assert torch.equal(make(p=0.0)(x), x)
    changed = (make(p=0.25)(x) != x).flatten(1).any(1).float().mean()
    assert 0.12 < changed < 0.5  # of Dihedral an eighth of these is as it was, of Warp either axis may be hit
    assert torch.equal(x, before)


@pytest.mark.parametrize("make", TRANSFORMS)
def test_every_image_has_its_own_draw_unless_one_is_asked_for_the_batch(make):
    x = images(1, height=8, width=8).expand(16, 3, 8, 8)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    found = make(p=0.5)(x)
    assert len(found.flatten(1).unique(dim=0)) > 1
    torch.set_rng_state(state)
    assert torch.equal(make(p=0.5)(x), found)
    assert len(make(p=0.5, batch=True)(x).flatten(1).unique(dim=0)) == 1
    assert make(p=1)(x[:1]).shape == (1, 3, 8, 8)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Flip(p=1.5), "p must be a probability"),
        (lambda: Flip(p=1, draw=[1, 0])(images(3)), "draw has 2 numbers, and the batch 3"),
        (lambda: Rotate(-3), "max_deg must be an amount"),
        (lambda: Zoom(1.2, 1.1), "smallest factor to a largest"),
        (lambda: Zoom(0, 1), "above 0"),
        (lambda: Warp(0.5), "below 0.5"),
        (lambda: Rotate(pad_mode="mirror"), "pad_mode 'mirror' does not exist"),
        (lambda: Rotate(mode="cubic"), "mode 'cubic' does not exist"),
        (lambda: Rotate(size=0), "at least 1 pixel"),
        (lambda: composed([Flip(size=8), Rotate(size=9)]), "several sizes"),
        (lambda: RandomResizedCropGPU(8, min_scale=0), "share of the image"),
        (lambda: RandomResizedCropGPU(8, ratio=(2, 1)), "ratio must be"),
        (lambda: CenterCropResize(8, scale=2), "share of an image"),
        (lambda: RandomCrop(), "needs a size, or padding"),
        (lambda: RandomCrop(20)(images()), "20×20 pixels cannot be cut out of images of 9×12"),
        (lambda: CenterCrop(20)(images()), "cannot be cut out"),
        (lambda: RandomCrop(padding=9, pad_mode="reflection")(images()), "cannot be padded"),
    ],
)
def test_what_makes_no_sense_is_refused(make, words):
    with pytest.raises(UsageError, match=words):
        make()
