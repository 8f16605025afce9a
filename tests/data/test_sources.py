"""One image, one result: every Pillow mode, however it arrives, as grey and as colour, against formulas worked here."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pellucid.data.block import DataBlock
from pellucid.data.images import Decoding, PILImage, PILImageBW, Resize
from pellucid.data.splits import IndexSplitter
from pellucid.errors import DataError, UsageError

HEIGHT, WIDTH = 6, 9


def noise(*shape: int, seed: int = 0, high: int = 256, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, high, shape).astype(dtype)


def on_white(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None] / 255
    return rgb * share + 255 * (1 - share)


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(np.asarray(values, float)[..., None], 3, axis=2)


def from_hsv(hsv: np.ndarray) -> np.ndarray:
    import colorsys

    return np.array([[colorsys.hsv_to_rgb(*pixel) for pixel in row] for row in hsv / 255]) * 255


def from_ycbcr(ycbcr: np.ndarray) -> np.ndarray:  # JFIF 1.02
    y, cb, cr = (ycbcr[..., i].astype(float) for i in range(3))
    rgb = [y + 1.402 * (cr - 128), y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128), y + 1.772 * (cb - 128)]
    return np.stack(rgb, axis=2).clip(0, 255)


def from_lab(lab: np.ndarray) -> np.ndarray:
    """CIE L*a*b* under D50, a and b signed as TIFF has them, to sRGB. IEC 61966-2-1, Bradford's adaptation."""
    lightness, (a, b) = lab[..., 0] / 2.55, (lab[..., i].astype(np.int8).astype(float) for i in (1, 2))
    fy = (lightness + 16) / 116
    f = np.stack([fy + a / 500, fy, fy - b / 200], axis=2)
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * [0.9642, 1.0, 0.8249]
    to_rgb = [
        [3.1338561, -1.6168667, -0.4906146],
        [-0.9787684, 1.9161415, 0.0334540],
        [0.0719453, -0.2289914, 1.4052427],
    ]
    linear = (xyz @ np.array(to_rgb).T).clip(0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def palette_image(mode: str) -> tuple[Image.Image, np.ndarray]:
    indices, colours = noise(HEIGHT, WIDTH, high=16), noise(16, 3, seed=1)
    image = Image.new("P", (WIDTH, HEIGHT))
    image.putpalette(colours.ravel().tolist())
    image.putdata(indices.ravel().tolist())
    if mode == "P":
        return image, colours[indices].astype(float)
    alpha = noise(HEIGHT, WIDTH, seed=2)
    image = image.convert("PA")
    image.putalpha(Image.fromarray(alpha))
    return image, on_white(colours[indices], alpha)


def premultiplied(mode: str, n_channels: int) -> tuple[Image.Image, np.ndarray]:
    """Colour times alpha, as `La` and `RGBa` hold it: on white it is simply what is there plus the white that shows."""
    alpha = noise(HEIGHT, WIDTH, seed=3) // 2 + 128
    values = (noise(HEIGHT, WIDTH, n_channels) * (alpha[..., None] / 255)).astype(np.uint8)
    stacked = np.concatenate([values, alpha[..., None]], axis=2).astype(np.uint8)
    image = Image.frombytes(mode, (WIDTH, HEIGHT), stacked.tobytes())
    return image, np.broadcast_to(values + 255.0 - alpha[..., None], (HEIGHT, WIDTH, 3))


def raw(mode: str, *channels: int) -> tuple[Image.Image, np.ndarray]:
    values = noise(HEIGHT, WIDTH, *channels)
    return Image.frombytes(mode, (WIDTH, HEIGHT), values.tobytes()), values


def ycbcr() -> tuple[Image.Image, np.ndarray]:
    """Colours that RGB has, of those that YCbCr can say."""
    rgb = noise(HEIGHT, WIDTH, 3).astype(float)
    y = rgb @ [0.299, 0.587, 0.114]
    values = np.stack([y, 128 + (rgb[..., 2] - y) / 1.772, 128 + (rgb[..., 0] - y) / 1.402], axis=2)
    values = np.round(values).clip(0, 255).astype(np.uint8)
    return Image.frombytes("YCbCr", (WIDTH, HEIGHT), values.tobytes()), from_ycbcr(values)


def smooth_lab() -> tuple[Image.Image, np.ndarray]:
    """Colours inside sRGB's gamut, where clipping plays no part."""
    values = noise(HEIGHT, WIDTH, 3, high=30) + np.array([120, 256 - 15, 256 - 15]).astype(np.uint8)
    return Image.frombytes("LAB", (WIDTH, HEIGHT), values.tobytes()), from_lab(values)


def sixteen(mode: str) -> tuple[Image.Image, np.ndarray]:
    values = noise(HEIGHT, WIDTH, high=65536, dtype=np.uint16)
    values[0, :4] = [0, 255, 256, 65535]
    order = ">" if mode == "I;16B" else "<"
    return Image.frombytes(mode, (WIDTH, HEIGHT), values.astype(f"{order}u2").tobytes()), grey(values / 257)


def every_mode() -> dict[str, tuple[Image.Image, np.ndarray | None]]:
    """An image of each mode, and the colours it shows, float (row, column, 3); None where nobody can know."""
    bits = noise(HEIGHT, WIDTH, high=2, dtype=bool)
    made: dict[str, tuple[Image.Image, np.ndarray | None]] = {"1": (Image.fromarray(bits), grey(bits * 255))}
    for mode, n, colours in (
        ("L", 0, grey),
        ("RGB", 3, lambda v: v),
        ("RGBX", 4, lambda v: v[..., :3]),
        ("LA", 2, lambda v: on_white(grey(v[..., 0]), v[..., 1])),
        ("RGBA", 4, lambda v: on_white(v[..., :3], v[..., 3])),
        ("CMYK", 4, lambda v: (255.0 - v[..., :3]) * (255.0 - v[..., 3:]) / 255),
        ("HSV", 3, from_hsv),
    ):
        image, values = raw(mode, *([n] if n else []))
        made[mode] = image, np.asarray(colours(values), float)
    made["YCbCr"] = ycbcr()
    made |= {"P": palette_image("P"), "PA": palette_image("PA"), "LAB": smooth_lab()}
    made |= {"La": premultiplied("La", 1), "RGBa": premultiplied("RGBa", 3)}
    made |= {mode: sixteen(mode) for mode in ("I;16", "I;16L", "I;16B", "I;16N")}
    made |= {mode: (Image.new(mode, (WIDTH, HEIGHT), 7), None) for mode in ("I", "F")}
    return made


MODES = every_mode()
ENDINGS = {"1": "png", "L": "png", "LA": "png", "RGB": "png", "RGBA": "png", "P": "png", "I;16": "png"}
ENDINGS |= dict.fromkeys(["I;16B", "I", "F", "CMYK", "LAB", "YCbCr", "RGBX"], "tif")
ARRAYS = ["1", "L", "LA", "RGB", "RGBA", "I;16", "I;16B", "I;16L", "I;16N", "I", "F"]  # whose numbers say it all


def encoded(image: Image.Image, ending: str) -> bytes:
    file = BytesIO()
    image.save(file, {"png": "PNG", "tif": "TIFF"}[ending])
    return file.getvalue()


def written(image: Image.Image, folder: Path) -> Path:
    path = folder / f"a.{ENDINGS[image.mode]}"
    path.write_bytes(encoded(image, ENDINGS[image.mode]))
    return path


SOURCES = {
    "opened": lambda image, folder: image,
    "path": written,
    "string": lambda image, folder: str(written(image, folder)),
    "bytes": lambda image, folder: written(image, folder).read_bytes(),
    "lazily opened": lambda image, folder: Image.open(written(image, folder)),
    "array": lambda image, folder: np.array(image),
    "tensor": lambda image, folder: torch.from_numpy(np.array(image).astype(np.array(image).dtype.newbyteorder("="))),
}
CASES = [
    (mode, kind, target)
    for mode in MODES
    for kind in SOURCES
    for target in ("L", "RGB")
    if kind == "opened" or (mode in ARRAYS if kind in ("array", "tensor") else mode in ENDINGS)
]


def test_every_mode_of_pillow_is_here():
    assert set(MODES) == set(Image.MODES)


@pytest.mark.parametrize(("mode", "kind", "target"), CASES)
def test_every_mode_from_every_source_is_what_it_shows(tmp_path, mode, kind, target):
    image, colours = MODES[mode]
    source = SOURCES[kind](image, tmp_path)
    if colours is None:
        with pytest.raises(DataError, match="no known range"):
            Decoding(target).pixels(source)
        return
    pixels = Decoding(target).pixels(source)
    expected = colours if target == "RGB" else (colours @ [0.299, 0.587, 0.114])[..., None]  # ITU-R 601
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.transpose(1, 2, 0) - expected).max() <= (3 if mode in ("LAB", "HSV", "YCbCr") else 2)
    exact = mode in ("1", "L") or (mode == "RGB" and target == "RGB") or mode.startswith("I;16")
    assert not exact or np.array_equal(pixels.transpose(1, 2, 0), np.round(expected))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(bits: int, colour: int, samples: np.ndarray, transparent: list[int]) -> bytes:
    """A PNG written by hand, with a tRNS chunk; `samples` (row, column, channel) of `bits` bits."""
    height, width = samples.shape[:2]
    rows = []
    for row in samples.reshape(height, -1):
        text = "".join(format(value, f"0{bits}b") for value in row.tolist())
        text += "0" * (-len(text) % 8)
        rows.append(b"\0" + int(text, 2).to_bytes(len(text) // 8, "big"))
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = chunk(b"tRNS", struct.pack(f">{len(transparent)}H", *transparent)) + chunk(
        b"IDAT", zlib.compress(b"".join(rows))
    )
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + body + chunk(b"IEND", b"")


@pytest.mark.parametrize("target", ["L", "RGB"])
@pytest.mark.parametrize("kind", ["path", "bytes", "opened"])
@pytest.mark.parametrize(("bits", "colour"), [(1, 0), (2, 0), (4, 0), (8, 0), (16, 0), (8, 2), (16, 2)])
def test_a_transparent_colour_is_white_at_every_depth(tmp_path, bits, colour, kind, target):
    n_channels = 3 if colour == 2 else 1
    samples = noise(HEIGHT, WIDTH, n_channels, high=2**bits, dtype=np.uint16)
    samples[1, 2] = samples[4, 4]
    clear = samples[4, 4]
    data = png(bits, colour, samples, clear.tolist())
    (tmp_path / "a.png").write_bytes(data)
    source = {"path": tmp_path / "a.png", "bytes": data, "opened": Image.open(BytesIO(data))}[kind]
    shown = samples * (255 / (2**bits - 1)) if bits != 16 or colour == 0 else (samples >> 8).astype(float)
    shown[(samples == clear).all(axis=2)] = 255
    colours = np.broadcast_to(shown, (HEIGHT, WIDTH, 3))
    expected = colours if target == "RGB" else (colours @ [0.299, 0.587, 0.114])[..., None]
    pixels = Decoding(target).pixels(source).transpose(1, 2, 0)
    assert np.abs(pixels - expected).max() <= 1
    assert (pixels[1, 2] == 255).all() and (pixels[4, 4] == 255).all()


@pytest.mark.parametrize("kind", ["bytes", "opened", "array", "tensor"])
def test_a_set_may_be_made_of_any_source(tmp_path, kind):
    make = {
        "bytes": Path.read_bytes,
        "opened": lambda p: Image.open(p).copy(),
        "array": lambda p: np.asarray(Image.open(p)),
    }
    make["tensor"] = lambda path: torch.tensor(np.asarray(Image.open(path))).permute(2, 0, 1)
    files = [tmp_path / f"{i}.png" for i in range(8)]
    for i, file in enumerate(files):
        Image.fromarray(noise(7, 9, 3, seed=i)).save(file)
    block = DataBlock(get_x=make[kind], get_y=lambda path: int(path.stem) % 2, splitter=IndexSplitter([6, 7]))
    batch = block.dataloaders(files, bs=6, device="cpu").valid.one_batch()[0]
    expected = np.stack([noise(7, 9, 3, seed=i).transpose(2, 0, 1) for i in (6, 7)])
    assert np.allclose(batch.numpy() * 255, expected, atol=1e-3)


UNKNOWN = [
    np.int8,
    np.int16,
    np.int32,
    np.int64,
    np.uint32,
    np.uint64,
    np.float16,
    np.float32,
    np.float64,
    np.complex64,
]


@pytest.mark.parametrize("dtype", UNKNOWN)
@pytest.mark.parametrize("shape", [(HEIGHT, WIDTH), (HEIGHT, WIDTH, 3), (3, HEIGHT, WIDTH)])
def test_numbers_without_a_known_range_are_refused(dtype, shape):
    values = np.ones(shape, dtype)
    for source in (values, torch.from_numpy(values)):
        for cls in (PILImage, PILImageBW):
            with pytest.raises(DataError, match=r"no picture \(values of type \w+ have no known range\)"):
                cls.create(source)


def test_tensors_of_every_kind_are_read_or_refused_in_words():
    rgb = noise(HEIGHT, WIDTH, 3)
    assert np.array_equal(np.asarray(PILImage.create(torch.from_numpy(rgb).permute(2, 0, 1))), rgb)
    for source in (torch.ones(4, 5, requires_grad=True), torch.ones(4, 5, dtype=torch.bfloat16)):
        with pytest.raises(DataError, match="no picture"):
            PILImage.create(source)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, bool])
@pytest.mark.parametrize("n_channels", [1, 2, 3, 4])
@pytest.mark.parametrize("first", [True, False])
def test_channels_may_stand_first_or_last(n_channels, first, dtype):
    values = noise(HEIGHT, WIDTH, n_channels, high=65536, dtype=np.uint16)
    values = {np.uint8: values.astype(np.uint8), np.uint16: values, bool: values > 30000}[dtype]
    levels = np.round(values / 257 if dtype is np.uint16 else values * (255 if dtype is bool else 1))
    colours = levels[..., :3] if n_channels > 2 else grey(levels[..., 0])
    expected = colours if n_channels % 2 else on_white(colours, levels[..., -1])
    for make in (np.asarray, torch.from_numpy):
        source = make(np.ascontiguousarray(values.transpose(2, 0, 1)) if first else values)
        assert np.abs(np.asarray(PILImage.create(source)) - expected).max() <= 1


@pytest.mark.parametrize("shape", [(1, WIDTH, 3), (3, HEIGHT, 3), (3, HEIGHT, 1), (4, 5, 4), (1, 1, 1), (2, 7, 3)])
@pytest.mark.parametrize("make", [np.asarray, torch.from_numpy])
def test_a_channel_axis_that_could_be_either_is_not_guessed(shape, make):
    with pytest.raises(DataError, match="its first or its last axis may be the channels"):
        PILImage.create(make(noise(*shape)))
    image = Image.fromarray(noise(1, WIDTH, 3))  # which says what is meant
    assert PILImage.create(image).size == (WIDTH, 1)


@pytest.mark.parametrize(("shape", "why"), [((5, 6, 7), "neither"), ((0, 5), "no pixels"), ((5, 0, 3), "no pixels")])
def test_shapes_that_are_no_picture_are_refused(shape, why):
    with pytest.raises(DataError, match=why):
        PILImage.create(np.zeros(shape, np.uint8))


def test_an_opened_image_without_pixels_is_refused():
    with pytest.raises(DataError, match="0×5 has no pixels"):
        Decoding("RGB", Resize(4)).pixels(Image.new("RGB", (0, 5)))


def test_a_twelve_bit_tiff_uses_the_whole_range():
    values = noise(HEIGHT, 10, high=4096, dtype=np.uint16)
    values[0, :2] = [0, 4095]
    text = "".join(format(value, "012b") for value in values.ravel())
    data = int(text, 2).to_bytes(len(text) // 8, "big")
    pixels = Decoding("L").pixels(tiff(data, 10, HEIGHT, bits=12, photometric=1))[0]
    assert np.array_equal(pixels, np.round(values / 4095 * 255))


def test_a_sixteen_bit_tiff_where_zero_is_white_is_not_a_negative():
    values = noise(HEIGHT, WIDTH, high=65536, dtype=np.uint16)
    pixels = Decoding("L").pixels(tiff(values.astype("<u2").tobytes(), WIDTH, HEIGHT, bits=16, photometric=0))[0]
    assert np.array_equal(pixels, np.round((65535 - values.astype(float)) / 257))


def tiff(data: bytes, width: int, height: int, bits: int, photometric: int) -> bytes:
    """An uncompressed grey TIFF of one strip."""
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 0, 277: 1, 278: height, 279: len(data)}
    offset = 8 + 2 + 12 * len(tags) + 4
    tags[273] = offset
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + body + struct.pack("<I", 0) + data


@pytest.mark.parametrize("top", [300, 4095, 65535])
def test_a_portable_graymap_of_many_levels_is_scaled(tmp_path, top):
    values = noise(HEIGHT, WIDTH, high=top + 1, dtype=np.uint16)
    data = f"P5 {WIDTH} {HEIGHT} {top}\n".encode() + values.astype(">u2").tobytes()
    assert np.abs(Decoding("L").pixels(data)[0] - values / top * 255).max() <= 1


def as_floats(image):
    return np.asarray(image) / 127.5 - 1


def as_float_image(image):
    return Image.fromarray(np.asarray(image.convert("L"), np.float32))


def as_float_tensor(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255


def as_integers(image):
    return np.asarray(image).astype(np.int64)


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.parametrize("transform", [as_floats, as_float_image, as_float_tensor, as_integers])
def test_item_transforms_that_return_floats_are_refused(photos, transform, on_error, cache):
    block = DataBlock(get_y=lambda file: file.parent.name, item_tfms=[Resize(16), transform])
    with pytest.raises(UsageError, match=f"item transform {transform.__name__}: .* no known range.*batch_tfms"):
        block.dataloaders(photos, cache=cache, on_error=on_error, device="cpu")


RETURNED = {
    "array": (lambda image: np.asarray(image)[::-1], 3),
    "tensor": (lambda image: torch.from_numpy(np.array(image)[::-1].copy()).permute(2, 0, 1), 3),
    "image": (lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM), 3),
    "image with alpha": (lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM).convert("RGBA"), 3),
    "grey image": (lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM).convert("L"), 1),
}


@pytest.mark.parametrize("kind", RETURNED)
def test_what_item_transforms_return_is_an_image_however_they_return_it(kind):
    transform, n_channels = RETURNED[kind]
    rgb = noise(12, 15, 3)
    pixels = Decoding("RGB", transforms=(transform,)).pixels(Image.fromarray(rgb))
    expected = rgb[::-1].transpose(2, 0, 1) if n_channels == 3 else np.asarray(Image.fromarray(rgb[::-1]).convert("L"))
    assert pixels.shape == (n_channels, 12, 15) and np.array_equal(pixels, expected.reshape(n_channels, 12, 15))


def test_a_transform_that_draws_leaves_the_opened_image_alone():
    image = Image.fromarray(noise(12, 15, 3))
    before = np.array(image)

    def mark(image):
        image.paste("red", (0, 0, 5, 5))
        return image

    decoding = Decoding("RGB", transforms=(mark,))
    assert (decoding.pixels(image)[:, 0, 0] == [255, 0, 0]).all()
    assert np.array_equal(np.asarray(image), before)
