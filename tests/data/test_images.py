"""Image files to pixels, against arithmetic done here."""

from __future__ import annotations

import json
import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pellucid.data.images import Decoding, PILImage, PILImageBW, Resize, ResizeMethod
from pellucid.errors import DataError, UsageError

HEIGHT, WIDTH = 6, 9


def noise(*shape: int, seed: int = 0, high: int = 256, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, high, shape).astype(dtype)


def smooth(height: int, width: int) -> np.ndarray:
    """A picture of slow waves, one phase a channel, that survives JPEG and halving."""
    y, x = np.mgrid[:height, :width] / 60
    waves = [np.sin(y + phase) * np.cos(x - phase) for phase in (0, 1, 2)]
    return (127 + 120 * np.stack(waves, axis=2)).astype(np.uint8)


def colour(path: Path) -> np.ndarray:
    return Decoding("RGB").pixels(path).transpose(1, 2, 0)


def grey(path: Path) -> np.ndarray:
    return Decoding("L").pixels(path)[0]


def luma(rgb: np.ndarray) -> np.ndarray:
    return rgb.astype(float) @ [0.299, 0.587, 0.114]  # ITU-R 601, as Pillow documents


def on_white(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None] / 255
    return rgb * share + 255 * (1 - share)


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "ppm"])
def test_lossless_colour_comes_through_as_channels_first(tmp_path, ending):
    rgb = noise(HEIGHT, WIDTH, 3)
    Image.fromarray(rgb).save(tmp_path / f"a.{ending}")
    pixels = Decoding("RGB").pixels(tmp_path / f"a.{ending}")
    assert pixels.dtype == np.uint8 and pixels.flags.c_contiguous
    assert np.array_equal(pixels, rgb.transpose(2, 0, 1))


def test_colour_to_grey_is_the_luma(tmp_path):
    rgb = noise(HEIGHT, WIDTH, 3)
    Image.fromarray(rgb).save(tmp_path / "a.png")
    assert np.abs(grey(tmp_path / "a.png") - luma(rgb)).max() <= 1


def test_grey_to_colour_repeats_the_channel(tmp_path):
    values = noise(HEIGHT, WIDTH)
    Image.fromarray(values).save(tmp_path / "a.png")
    assert np.array_equal(colour(tmp_path / "a.png"), np.repeat(values[..., None], 3, axis=2))


def test_black_and_white_uses_the_whole_range(tmp_path):
    bits = noise(HEIGHT, WIDTH, high=2, dtype=bool)
    Image.fromarray(bits).save(tmp_path / "a.png")
    assert np.array_equal(grey(tmp_path / "a.png"), bits * 255)


def test_cmyk_is_converted_by_the_subtractive_formula(tmp_path):
    cmyk = noise(HEIGHT, WIDTH, 4)
    Image.fromarray(cmyk, "CMYK").save(tmp_path / "a.tif")
    ink, key = cmyk[..., :3].astype(float), cmyk[..., 3:].astype(float)
    expected = (255 - ink) * (255 - key) / 255
    assert np.abs(colour(tmp_path / "a.tif") - expected).max() <= 1


@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path, ending, mode):
    values = noise(HEIGHT, WIDTH, high=65536, dtype=np.uint16)
    values[0, :4] = [0, 255, 256, 65535]
    Image.fromarray(values).save(tmp_path / f"a.{ending}")
    expected = np.round(values / 257)
    for channel in Decoding(mode).pixels(tmp_path / f"a.{ending}"):
        assert np.array_equal(channel, expected)


def paletted(path: Path, **options) -> tuple[np.ndarray, np.ndarray]:
    """Save an indexed image of 16 colours; returns (indices, palette)."""
    indices, palette = noise(HEIGHT, WIDTH, high=16), noise(16, 3, seed=1)
    image = Image.fromarray(indices, "L")
    image = image.convert("P")
    image.putdata(indices.ravel().tolist())
    image.putpalette(palette.ravel().tolist())
    image.save(path, **options)
    return indices, palette


@pytest.mark.parametrize("ending", ["png", "gif"])
def test_palettes_are_looked_up(tmp_path, ending):
    indices, palette = paletted(tmp_path / f"a.{ending}")
    assert np.array_equal(colour(tmp_path / f"a.{ending}"), palette[indices])


@pytest.mark.parametrize("ending", ["png", "gif"])
def test_a_transparent_palette_entry_is_white(tmp_path, ending):
    indices, palette = paletted(tmp_path / f"a.{ending}", transparency=4)
    palette[4] = 255
    assert (indices == 4).any()
    assert np.array_equal(colour(tmp_path / f"a.{ending}"), palette[indices])


def test_a_palette_with_an_alpha_each_is_laid_on_white(tmp_path):
    alphas = noise(16, seed=2)
    indices, palette = paletted(tmp_path / "a.png", transparency=alphas.tobytes())
    expected = on_white(palette[indices], alphas[indices])
    assert np.abs(colour(tmp_path / "a.png") - expected).max() <= 1


def test_transparency_is_laid_on_white(tmp_path):
    rgba = noise(HEIGHT, WIDTH, 4)
    rgba[0, :2, 3] = [0, 255]
    Image.fromarray(rgba).save(tmp_path / "a.png")
    expected = on_white(rgba[..., :3], rgba[..., 3])
    assert np.abs(colour(tmp_path / "a.png") - expected).max() <= 1
    assert np.abs(grey(tmp_path / "a.png") - luma(expected)).max() <= 2


def test_grey_with_alpha_is_laid_on_white(tmp_path):
    values, alpha = noise(HEIGHT, WIDTH), noise(HEIGHT, WIDTH, seed=1)
    Image.fromarray(np.stack([values, alpha], axis=2)).save(tmp_path / "a.png")
    expected = on_white(values[..., None], alpha)[..., 0]
    assert np.abs(grey(tmp_path / "a.png") - expected).max() <= 1


UPRIGHT = {  # EXIF 2.3, table 6: what turns the stored array upright
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_images_are_turned_upright(tmp_path, ending, orientation):
    rgb = noise(HEIGHT, WIDTH, 3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(rgb).save(tmp_path / f"a.{ending}", exif=exif)
    assert np.array_equal(colour(tmp_path / f"a.{ending}"), UPRIGHT[orientation](rgb))


def test_a_drafted_jpeg_is_turned_upright_too(tmp_path):
    rgb = smooth(400, 800)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(rgb).save(tmp_path / "a.jpg", exif=exif, quality=95)
    pixels = Decoding("RGB", Resize((40, 20), "squish")).pixels(tmp_path / "a.jpg").transpose(1, 2, 0)
    expected = np.rot90(rgb, -1).reshape(40, 20, 20, 20, 3).mean((1, 3))
    assert np.abs(pixels - expected).mean() < 3


@pytest.mark.parametrize("method", [("crop",), ("squish",), ("pad", "zeros")], ids=lambda method: method[0])
@pytest.mark.parametrize("size", [(1, 300), (300, 1), (40, 40), (7, 5), (500, 301)])
@pytest.mark.parametrize("target", [16, (12, 20)])
def test_resize_always_gives_the_size_asked_for(method, size, target):
    height, width = (target, target) if isinstance(target, int) else target
    assert Decoding("RGB", Resize(target, *method)).pixels(Image.new("RGB", size)).shape == (3, height, width)


def test_squish_keeps_everything_and_averages():
    values = noise(40, 60)
    squished = np.asarray(Resize((20, 30), "squish")(Image.fromarray(values))).astype(float)
    weights = np.array([1, 3, 3, 1]) / 8  # a triangle filter of support 2 at scale 1/2, away from the edges
    rows = sum(w * values[i : i + 36 : 2].astype(float) for i, w in enumerate(weights, 1))
    expected = sum(w * rows[:, j : j + 56 : 2] for j, w in enumerate(weights, 1))
    assert np.abs(squished[1:-1, 1:-1] - expected).max() <= 1


def test_crop_keeps_the_middle():
    rgb = noise(20, 50, 3)
    cropped = np.asarray(Resize(20, "crop")(Image.fromarray(rgb)))
    assert np.array_equal(cropped, rgb[:, 15:35])
    tall = np.asarray(Resize((10, 20), "crop")(Image.fromarray(rgb[:, :20])))
    assert np.array_equal(tall, rgb[5:15, :20])


def test_pad_keeps_all_of_it_between_black_bars():
    rgb = noise(10, 20, 3, high=200) + 55
    padded = np.asarray(Resize(20, "pad", "zeros")(Image.fromarray(rgb)))
    assert np.array_equal(padded[5:15], rgb)
    assert not padded[:5].any() and not padded[15:].any()


def test_resize_refuses_what_it_cannot_do():
    with pytest.raises(UsageError, match="'stretch' does not exist: use 'crop', 'squish' or 'pad'"):
        Resize(8, "stretch")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="at least 1 pixel, got 0"):
        Resize(0)
    with pytest.raises(UsageError, match=r"100,000×100,000 makes .* 10,000 million pixels, above the limit of 89"):
        Resize(100_000)
    for method in ("crop", "squish", "pad"):
        with pytest.raises(UsageError, match="'wrap' does not exist: use one of zeros, border, reflection"):
            Resize(8, method, "wrap")


def test_methods_have_fastais_names_and_survive_a_run_folder():
    methods = [ResizeMethod.Crop, ResizeMethod.Squish]
    padding = [Resize(8, ResizeMethod.Pad, pad_mode=mode) for mode in ("zeros", "border", "reflection")]
    for resize in (*(Resize((3, 4), method) for method in methods), *padding):
        assert Decoding.from_json(Decoding("L", resize).to_json()) == Decoding("L", resize)


@pytest.mark.parametrize(("shape", "size"), [((10, 20), 20), ((20, 9), (16, 12)), ((5, 41), 30), ((3, 200), 64)])
@pytest.mark.parametrize("channels", [(), (3,)])
def test_padding_repeats_the_border_or_reflects(shape, size, channels):
    image = Image.fromarray(np.random.default_rng(0).integers(1, 256, (*shape, *channels), dtype=np.uint8))
    black, border, mirror = (np.asarray(Resize(size, "pad", mode)(image)) for mode in ("zeros", "border", "reflection"))
    rows, columns = (np.flatnonzero(black.reshape(*black.shape[:2], -1).any(2).any(axis)) for axis in (1, 0))
    top, bottom, left, right = rows[0], rows[-1], columns[0], columns[-1]
    for i in range(black.shape[0]):
        for j in range(black.shape[1]):
            nearest = np.clip(i, top, bottom), np.clip(j, left, right)
            assert np.array_equal(border[i, j], black[nearest])
            assert np.array_equal(mirror[i, j], black[bounced(i, top, bottom), bounced(j, left, right)])
    assert np.array_equal(np.asarray(Resize(size, "pad")(image)), mirror)  # as fastai's


def bounced(i: int, first: int, last: int) -> int:
    """Where a ball is that runs between two walls, i steps from 0."""
    if first == last:
        return first
    period = 2 * (last - first)
    step = (i - first) % period
    return first + min(step, period - step)


def test_padding_that_was_not_written_down_is_black():
    old = {"mode": "L", "resize": {"size": 8, "method": "pad"}}
    assert Decoding.from_json(old).resize == Resize(8, "pad", "zeros")


@pytest.mark.parametrize("size", [8.0, "128", None, (8,), (8, 8, 3), (8, 2.5), [], np.array([8, 8])], ids=str)
def test_resize_takes_whole_numbers_only(size):
    with pytest.raises(UsageError, match=r"a whole number of pixels, or \(height, width\), got"):
        Resize(size)


@pytest.mark.parametrize("size", [np.int64(8), torch.tensor(8), (np.uint8(8), 8), [8, 8]], ids=str)
def test_resize_takes_numbers_of_any_kind(size):
    resize = Resize(size)
    assert resize.height_width == (8, 8)
    assert Decoding.from_json(json.loads(json.dumps(Decoding("L", resize).to_json()))) == Decoding("L", resize)
    assert Decoding("L", resize).pixels(noise(20, 30)).shape == (1, 8, 8)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("method", [("crop",), ("squish",), ("pad", "zeros")], ids=lambda method: method[0])
def test_a_jpeg_decoded_by_halves_is_nearly_the_full_one(tmp_path, mode, method):
    Image.fromarray(smooth(600, 480)).save(tmp_path / "a.jpg", quality=95)
    resize = Resize(64, *method)
    pixels = Decoding(mode, resize).pixels(tmp_path / "a.jpg").astype(float)
    with Image.open(tmp_path / "a.jpg") as image:
        full = np.asarray(resize(image.convert(mode))).astype(float)
    full = full.transpose(2, 0, 1) if mode == "RGB" else full[None]
    assert np.abs(pixels - full).mean() < 1.5 and np.abs(pixels - full).max() < 40


def test_further_transforms_come_after_the_resize():
    seen = []
    decoding = Decoding("L", Resize(8), (lambda image: seen.append(image.size) or image.rotate(180),))
    values = noise(8, 8)
    assert np.array_equal(decoding.pixels(Image.fromarray(values))[0], values[::-1, ::-1])
    assert seen == [(8, 8)] and not decoding.storable


@pytest.mark.parametrize("resize", [None, Resize(8), Resize((3, 4), "pad", "zeros")])
def test_settings_come_back_from_json(resize):
    decoding = Decoding("L", resize)
    assert Decoding.from_json(decoding.to_json()) == decoding


SOURCES = {
    "Pillow image": lambda a: Image.fromarray(a),
    "array": lambda a: a,
    "array, channels first": lambda a: a.transpose(2, 0, 1),
    "tensor": lambda a: torch.from_numpy(a),
    "tensor, channels first": lambda a: torch.from_numpy(a).permute(2, 0, 1),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_opened_images_and_arrays_are_sources_too(kind):
    rgb = noise(HEIGHT, WIDTH, 3)
    image = PILImage.create(SOURCES[kind](rgb))
    assert image.mode == "RGB" and np.array_equal(np.asarray(image), rgb)


@pytest.mark.parametrize("shape", [(HEIGHT, WIDTH), (1, HEIGHT, WIDTH), (HEIGHT, WIDTH, 1), (1, 5), (5, 1)])
@pytest.mark.parametrize("make", [np.asarray, torch.from_numpy])
def test_grey_arrays_keep_their_shape(shape, make):
    values = noise(*shape)
    image = PILImageBW.create(make(values))
    expected = values if values.ndim == 2 else values.reshape(HEIGHT, WIDTH)
    assert image.mode == "L" and np.array_equal(np.asarray(image), expected)


def test_paths_may_be_strings(tmp_path):
    Image.fromarray(noise(HEIGHT, WIDTH)).save(tmp_path / "a.png")
    assert np.array_equal(np.asarray(PILImageBW.create(str(tmp_path / "a.png"))), noise(HEIGHT, WIDTH))


@pytest.mark.parametrize(
    "thing",
    [
        np.zeros((3, 4, 5), np.float32),
        np.zeros((4, 5), np.int64),
        np.zeros(7, np.uint8),
        np.zeros((2, 3, 4, 5), np.uint8),
        [[1, 2], [3]],
        None,
        5,
    ],
    ids=str,
)
def test_what_is_no_picture_is_refused_with_what_would_be_one(thing):
    with pytest.raises(DataError, match=r"no picture.*give a path, a Pillow image, or uint8 values"):
        PILImage.create(thing)


def test_floating_point_files_are_refused_by_name(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"a\.tif: floating-point pixels have no known range; save it as"):
        Decoding("RGB").pixels(tmp_path / "a.tif")


def encoded(kind: str) -> bytes:
    file = BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {"TIFF": {"compression": "tiff_deflate"}}.get(kind, {})
    Image.fromarray(noise(20, 30, 3)).save(file, kind, exif=exif, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "GIF", "WEBP"])
def test_damage_anywhere_is_a_data_error_or_an_image(tmp_path_factory, kind):
    raw, path = encoded(kind), tmp_path_factory.mktemp("damaged") / "a.img"
    decoding = Decoding("RGB", Resize(8))

    @settings(max_examples=60, database=None)
    @given(
        cut=st.integers(0, len(raw)),
        dirt=st.lists(st.tuples(st.integers(0, len(raw) - 1), st.integers(0, 255)), max_size=4),
    )
    def check(cut, dirt):
        damaged = bytearray(raw)
        for position, value in dirt:
            damaged[position] = value
        path.write_bytes(damaged[: cut if not dirt else None])
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow warns of odd metadata
                pixels = decoding.pixels(path)
        except DataError as error:
            assert str(path) in str(error)
        else:
            assert pixels.shape == (3, 8, 8)

    check()
