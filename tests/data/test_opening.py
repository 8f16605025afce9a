"""Opening other people's files: known formats only, nothing of theirs is run, every fault in our own words."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pellucid
from pellucid.data import store as store_module
from pellucid.data.formats import FORMATS, IMAGE_EXTENSIONS
from pellucid.data.images import Decoding, PILImage
from pellucid.data.items import get_image_files
from pellucid.data.store import PixelStore
from pellucid.errors import DataError, PellucidError

COLOUR = Decoding("RGB")


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("PELLUCID_HOME", str(tmp_path / "home"))


def waves(height: int = 40, width: int = 60) -> np.ndarray:
    y, x = np.mgrid[:height, :width] / 20
    return (127 + 120 * np.stack([np.sin(y + p) * np.cos(x - p) for p in (0, 1, 2)], axis=2)).astype(np.uint8)


def images(folder: Path, n: int = 6) -> list[Path]:
    folder.mkdir(exist_ok=True)
    files = [folder / f"{i}.png" for i in range(n)]
    for i, file in enumerate(files):
        Image.fromarray(np.full((7, 9, 3), 10 * i, np.uint8)).save(file)
    return files


def encoded(kind: str, **options) -> bytes:
    file = BytesIO()
    Image.fromarray(waves()).save(file, kind, **options)
    return file.getvalue()


def foreign_formats() -> list[str]:
    Image.init()
    return sorted(set(Image.OPEN) - set(FORMATS))


@pytest.mark.parametrize("kind", foreign_formats())
def test_formats_that_are_not_listed_are_never_opened(tmp_path, monkeypatch, kind):
    """Whatever a file is named, and even if the signature of the format takes everything."""

    def open_it(*args, **kwargs):
        raise AssertionError("the plugin was called")

    monkeypatch.setitem(Image.OPEN, kind, (open_it, lambda prefix: True))
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n" + bytes(2000))
    with pytest.raises(DataError, match=r"photo\.jpg: not an image"):
        PILImage.create(path)


@pytest.mark.parametrize("name", ["a.jpg", "a.eps", "a"])
def test_postscript_is_not_run(tmp_path, monkeypatch, name):
    path = tmp_path / name
    Image.fromarray(waves()).save(path, "EPS")
    (tmp_path / "bin").mkdir()
    ghostscript = tmp_path / "bin" / "gs"
    ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path / 'ran'}\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    for source in (path, path.read_bytes()):
        with pytest.raises(DataError, match="not an image"):
            PILImage.create(source)
    assert not (tmp_path / "ran").exists()


EVIL = "import pathlib\npathlib.Path(__file__).with_name('ran').touch()\nraise SystemExit('taken over')\n"


EVIL_MODULES = "json", "numpy", "PIL", "signal", "struct", "pellucid", "sitecustomize", "usercustomize"


@pytest.mark.parametrize("search_path", [None, ":", ".", "::nowhere:"])
def test_decoder_processes_import_nothing_from_the_working_folder(tmp_path, monkeypatch, search_path):
    monkeypatch.setattr(store_module, "FILES_PER_PROCESS", 3)
    files = images(tmp_path / "set")
    for module in EVIL_MODULES:
        (tmp_path / "set" / f"{module}.py").write_text(EVIL)
    monkeypatch.chdir(tmp_path / "set")
    if search_path is not None:
        monkeypatch.setenv("PYTHONPATH", search_path)
    pixels = PixelStore.open(files, COLOUR, workers=2).pixels
    assert [int(image.max()) for image in pixels] == [0, 10, 20, 30, 40, 50]
    assert not (tmp_path / "set" / "ran").exists()


def test_every_child_interpreter_is_isolated():
    source = Path(pellucid.__file__).parent
    # A user's script is to find python's own flags; what runs it takes the working folder out itself.
    texts = {file: file.read_text() for file in source.rglob("*.py") if file != source / "doctor" / "script.py"}
    starts = [(file, found) for file, text in texts.items() for found in re.findall(r"sys\.executable.*", text)]
    assert starts and all('"-P"' in found for _, found in starts)


DECODED = [  # ending, Pillow's format and options to write it, and how near the pixels must come
    *[(".jpg", "JPEG", {"quality": 95}, 6), (".jfif", "JPEG", {"quality": 95}, 6), (".mpo", "MPO", {}, 12)],
    *[(".png", "PNG", {}, 0), (".apng", "PNG", {"save_all": True}, 0), (".gif", "GIF", {}, 40)],
    *[
        (".bmp", "BMP", {}, 0),
        (".tif", "TIFF", {}, 0),
        (".ppm", "PPM", {}, 0),
        (".webp", "WEBP", {"lossless": True}, 0),
    ],
    *[(".jp2", "JPEG2000", {}, 0), (".j2k", "JPEG2000", {"no_jp2": True}, 0), (".avif", "AVIF", {"quality": 95}, 12)],
    *[(".qoi", "QOI", {}, 0), (".tga", "TGA", {}, 0), (".ico", "ICO", {"sizes": [(60, 40)]}, 0)],
    *[(".heic", "HEIF", {"quality": 95}, 12), (".heif", "HEIF", {"quality": 95}, 12)],
]


@pytest.mark.parametrize(("ending", "kind", "options", "tolerance"), DECODED)
def test_files_of_every_format_are_found_and_decoded(tmp_path, ending, kind, options, tolerance):
    if ending in (".heic", ".heif"):
        pytest.importorskip("pillow_heif").register_heif_opener()
    path = tmp_path / f"a{ending.upper()}"
    path.write_bytes(encoded(kind, **options))
    assert get_image_files(tmp_path) == [path]
    for source in (path, path.read_bytes()):
        difference = COLOUR.pixels(source).transpose(1, 2, 0) - waves().astype(float)
        assert np.abs(difference).max() <= tolerance


def test_every_listed_ending_is_one_of_the_formats():
    assert {ending for endings in FORMATS.values() for ending in endings} == IMAGE_EXTENSIONS
    Image.init()
    ours = {ending: kind for kind, endings in FORMATS.items() for ending in endings}
    pillows = Image.registered_extensions()
    assert all(pillows[ending] in (kind, "MPO") for ending, kind in ours.items() if ending in pillows)


HEIC = """
import sys, warnings
from pathlib import Path
sys.modules["pillow_heif"] = None if sys.argv[2] == "without" else __import__("pillow_heif")
from pellucid.data.images import Decoding
from pellucid.data.store import PixelStore
from pellucid.data.verification import verify_images
from pellucid.errors import DataError
files = sorted(Path(sys.argv[1]).glob("*"))
print(PixelStore.open(files, Decoding("RGB")).bad)
try:
    print(verify_images(files))
except DataError as error:
    print(error)
"""


def test_heic_names_its_extra_where_that_is_missing_and_is_read_as_soon_as_it_is_there(tmp_path):
    pytest.importorskip("pillow_heif").register_heif_opener()
    (tmp_path / "set").mkdir()
    heic, other = tmp_path / "set" / "IMG_0001.HEIC", tmp_path / "set" / "IMG_0002.png"
    heic.write_bytes(encoded("HEIF"))
    other.write_bytes(encoded("PNG"))
    said = []
    for way in ("without", "with"):
        done = subprocess.run(
            [sys.executable, "-c", HEIC, tmp_path / "set", way], capture_output=True, text=True, check=True
        )
        said.append(done.stdout.splitlines())
    reason = f"{heic}: is HEIC, as phones save photos; to open it: pip install 'pellucid[heic]'"
    assert said == [[str({0: reason}), reason], ["{}", "[]"]]  # never listed among the files that are no images


def damaged_tiff(compression: str) -> bytes:
    data = bytearray(encoded("TIFF", compression=compression))
    data[200:900] = bytes(value ^ 0x5A for value in data[200:900])
    return bytes(data)


@pytest.mark.parametrize("workers", [1, 2])
def test_libtiff_says_it_in_our_message_and_not_on_the_terminal(tmp_path, monkeypatch, capfd, workers):
    monkeypatch.setattr(store_module, "FILES_PER_PROCESS", 1)
    files = images(tmp_path / "set", 1)
    for compression in ("tiff_deflate", "tiff_lzw"):
        files.append(tmp_path / f"{compression}.tif")
        files[-1].write_bytes(damaged_tiff(compression))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bad = PixelStore.open(files, COLOUR, workers).bad
    assert capfd.readouterr().err == ""
    assert "Decoding error at scanline 0" in bad[1] and "not yet in table" in bad[2]
    assert all(f"{files[row]}: damaged image" in bad[row] for row in (1, 2))


def test_each_of_many_threads_hears_its_own_file():
    said = {"tiff_deflate": "scanline 0", "tiff_lzw": "not yet in table"}
    files = {compression: damaged_tiff(compression) for compression in said}

    def heard(compression: str) -> set[str]:
        with pytest.raises(DataError) as caught:
            PILImage.create(files[compression])
        return {name for name, words in said.items() if words in str(caught.value)}

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(heard, [*said] * 100)) == [{name} for name in said] * 100


def test_libtiff_still_speaks_to_others(capfd):
    with pytest.raises(DataError):
        PILImage.create(damaged_tiff("tiff_lzw"))
    assert capfd.readouterr().err == ""
    with Image.open(BytesIO(damaged_tiff("tiff_lzw"))) as image, pytest.raises(OSError):
        image.load()
    assert "not yet in table" in capfd.readouterr().err


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that cannot be read")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_failing_disk_ends_the_build_and_is_not_remembered(tmp_path, monkeypatch, workers):
    """Reading /proc/self/mem at 0 fails with EIO, as a failing disk does."""
    monkeypatch.setattr(store_module, "FILES_PER_PROCESS", 3)
    files = images(tmp_path / "set")
    target = files[4].rename(tmp_path / "kept")
    files[4].symlink_to("/proc/self/mem")
    with pytest.raises(PellucidError, match=rf"{files[4]}: cannot be read now \(Input/output error\)") as caught:
        PixelStore.open(files, COLOUR, workers)
    assert not isinstance(caught.value, DataError)
    assert not [p for p in store_module.stores_folder().iterdir() if p.is_dir()]
    files[4].unlink()
    target.rename(files[4])
    assert not PixelStore.open(files, COLOUR, workers).bad


SHORT = """
import os, resource, sys
from pathlib import Path
from pellucid.data.images import Decoding
from pellucid.data.store import PixelStore
from pellucid.errors import DataError, PellucidError
files = sorted(Path(sys.argv[1]).glob("*"))
PixelStore.open(files[:1], Decoding("RGB"))
{limit}
try:
    store = PixelStore.open(files, Decoding("RGB"))
except PellucidError as error:
    print(type(error).__name__, error)
else:
    print("stored", store.bad)
"""
LIMITS = {  # one more file, for the store's lock, or no more memory
    "files": "resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir('/proc/self/fd')),) * 2)",
    "memory": "resource.setrlimit(resource.RLIMIT_AS, (int(open('/proc/self/statm').read().split()[0]) * 4096,) * 2)",
}


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
@pytest.mark.parametrize("what", LIMITS)
def test_a_process_short_of_files_or_memory_stores_nothing(tmp_path, what):
    folder = tmp_path / "set"
    folder.mkdir()
    for i in range(3):
        Image.new("RGB", (3000, 3000), (i, 0, 0)).save(folder / f"{i}.png", compress_level=1)
    done = subprocess.run(
        [sys.executable, "-c", SHORT.format(limit=LIMITS[what]), folder], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("PellucidError"), done.stdout
    assert ("Too many open files" if what == "files" else "not enough memory") in done.stdout


def test_pillows_settings_reach_decoder_processes_and_belong_to_the_key(tmp_path, monkeypatch):
    from PIL import ImageFile, PngImagePlugin

    monkeypatch.setattr(store_module, "FILES_PER_PROCESS", 2)
    files = images(tmp_path / "set")
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (7, 9, 3), np.uint8)).save(files[1])
    files[1].write_bytes(files[1].read_bytes()[:-40])  # cut short
    with Image.open(files[2]) as image:
        info = PngImagePlugin.PngInfo()
        info.add_text("comment", "x" * 2_000_000, zip=True)
        image.save(files[2], pnginfo=info)  # more text than Pillow takes
    Image.fromarray(np.full((7, 9, 3), 30, np.uint8)).save(files[3])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(DataError, match=r"none of the 6 images can be decoded:\s.*MAX_IMAGE_PIXELS"):
        PixelStore.open(files, COLOUR, workers=3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert PixelStore.open(files, COLOUR, workers=3).bad.keys() == {1, 2}
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_CHUNK", 4_000_000)
    assert PixelStore.open(files, COLOUR, workers=3).bad.keys() == {1}
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    store = PixelStore.open(files, COLOUR, workers=3)
    assert not store.bad and (store.pixels[2] == 20).all()


def test_two_folders_that_change_places_with_their_times_change_their_pixels(tmp_path):
    sets = [images(tmp_path / name, 3) for name in "ab"]
    for file in sets[1]:
        Image.fromarray(np.full((7, 9, 3), 200, np.uint8)).save(file)
    for one, other in zip(*sets, strict=True):
        other.write_bytes(other.read_bytes().ljust(one.stat().st_size, b"\0"))
        one.write_bytes(one.read_bytes().ljust(other.stat().st_size, b"\0"))
        for file in (one, other):
            os.utime(file, ns=(10**18, 10**18))
    before = [np.array(PixelStore.open(files, COLOUR).pixels) for files in sets]
    for source, target in (("a", "c"), ("b", "a"), ("c", "b")):
        (tmp_path / source).rename(tmp_path / target)
    after = [PixelStore.open(files, COLOUR).pixels for files in sets]
    assert np.array_equal(after[0], before[1]) and np.array_equal(after[1], before[0])
    assert not np.array_equal(before[0], before[1])


def test_a_file_written_anew_with_its_old_size_and_time_changes_its_pixels(tmp_path):
    files = images(tmp_path / "set")
    stat = files[3].stat()
    PixelStore.open(files, COLOUR)
    Image.fromarray(np.full((7, 9, 3), 99, np.uint8)).save(files[3])
    files[3].write_bytes(files[3].read_bytes().ljust(stat.st_size, b"\0"))
    os.utime(files[3], ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (PixelStore.open(files, COLOUR).pixels[3] == 99).all()


def test_a_file_system_that_cannot_map_is_read_into_memory(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    files = images(tmp_path / "set")
    with monkeypatch.context() as patch:
        patch.setattr("mmap.mmap", refuse)
        patch.setattr("os.posix_fallocate", refuse)
        store = PixelStore.open(files, COLOUR)
    assert not isinstance(store.pixels, np.memmap) and [int(i.max()) for i in store.pixels] == [0, 10, 20, 30, 40, 50]
    assert isinstance(PixelStore.open(files, COLOUR).pixels, np.memmap)


@pytest.mark.filterwarnings("ignore:.*EXIF:UserWarning")
@pytest.mark.parametrize("kind", [*(kind for _, kind, _, _ in DECODED if kind != "HEIF"), "none"])
def test_bytes_are_named_image_in_messages(kind):
    data = b"no image" if kind == "none" else encoded(kind)[:30]
    for source in (data, b""):
        with pytest.raises(DataError, match=r"^image: (damaged image|not an image|empty file)"):
            COLOUR.pixels(source)


def test_a_large_file_is_read_piece_by_piece(tmp_path, monkeypatch):
    (file,) = images(tmp_path / "set", 1)
    monkeypatch.setattr("pellucid.data.opening.IN_MEMORY_BYTES", 10)
    assert COLOUR.pixels(file).shape == (3, 7, 9)
    file.write_bytes(file.read_bytes()[:45])
    with pytest.raises(DataError, match="damaged image"):
        COLOUR.pixels(file)
