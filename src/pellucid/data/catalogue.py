"""Data sets by name or address: MNIST ships with the package, others download on request."""

from __future__ import annotations

import hashlib
import lzma
import re
import shutil
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import unquote, urlparse
from urllib.request import url2pathname

import numpy as np

from pellucid.data.archives import ENDINGS, MOST_FILES, is_web_page, single_folder, unpack
from pellucid.data.home import appearing, home, locked
from pellucid.data.images import PILImage, PILImageBW
from pellucid.data.progress import DownloadBar, Tick, progress
from pellucid.errors import DataError, PellucidError, UsageError
from pellucid.files import write_text
from pellucid.output import say

N_TRAIN, N_TEST, SIDE = 60_000, 10_000, 28


SCHEME = "pellucid://"


class URLs:
    """Names of the data sets inside the package; `untar_data` takes any other address too."""

    MNIST = f"{SCHEME}mnist"
    MNIST_SAMPLE = f"{SCHEME}mnist_sample"


@dataclass(frozen=True)
class DataSet:
    """A set that needs no download.

    Attributes:
        lay_out: Writes its image files into an empty folder, as `ImageDataLoaders.from_folder` takes them.
        img_cls: What they are opened as.
    """

    lay_out: Callable[[Path], None]
    img_cls: type[PILImage] | type[PILImageBW]


DATA_SETS: dict[str, DataSet] = {}


def data_set(
    name: str, img_cls: type[PILImage] | type[PILImageBW] = PILImage
) -> Callable[[Callable[[Path], None]], Callable[[Path], None]]:
    """Decorator of what lays a data set out: `untar_data("pellucid://name")` and `pellucid train name` know it."""

    def register(lay_out: Callable[[Path], None]) -> Callable[[Path], None]:
        DATA_SETS[name] = DataSet(lay_out, img_cls)
        return lay_out

    return register


def untar_data(
    url: str,
    sha256: str | None = None,
    force: bool = False,
    *,
    max_bytes: int | None = None,
    max_files: int = MOST_FILES,
) -> Path:
    """Return the folder of a data set, laying it out in the cache folder on first use; each address has its own.

    Args:
        url: One of `URLs`, or the address (http, https, file) of a .zip, .tar, .tar.gz, .tgz, .tar.bz2 or .tar.xz.
        sha256: Checksum the download must have; without one its own is printed for you to pin.
        force: Lay out (and download) again.
        max_bytes: Most bytes that may come out of the archive; None allows 100 times its size, and always 1 GiB.
        max_files: Most files and folders that may come out of it.

    Raises:
        UsageError: an address that is no archive, or not known, or a checksum for a set that is not downloaded.
        DataError: the download's checksum differs, or its archive is damaged, unsafe, empty or too large.
        PellucidError: the address cannot be reached, or the cache folder not be written.
    """
    embedded = DATA_SETS.get(url.removeprefix(SCHEME)) if url.startswith(SCHEME) else None
    parts = urlparse(url)
    if embedded is None and parts.scheme not in ("http", "https", "file"):
        known = ", ".join(f"{SCHEME}{name}" for name in sorted(DATA_SETS))
        raise UsageError(f"{url!r} is neither one of {known} nor an http(s) address")
    if sha256 is not None and embedded:
        raise UsageError(f"{url} is part of this package and not downloaded: leave sha256 out, nothing can be checked")
    if sha256 is not None and not re.fullmatch("[0-9a-fA-F]{64}", sha256):
        raise UsageError(f"sha256 must be 64 hexadecimal digits, got {sha256!r}")
    name = parts.netloc if embedded else f"{_stem(parts.path)}-{blake2b(url.encode(), digest_size=4).hexdigest()}"
    target = home() / "data" / name
    try:
        if force or not _laid_out(url, sha256, target):
            with locked(target):
                if force or not _laid_out(url, sha256, target):  # another process may have done it while we waited
                    if embedded:
                        with appearing(target) as scratch:
                            embedded.lay_out(scratch)
                    else:
                        _download_and_unpack(url, sha256, target, max_bytes, max_files)
    except OSError as error:
        raise PellucidError(f"cannot lay out {name} in {target.parent}: {error}; PELLUCID_HOME moves it") from error
    return target


def mnist_arrays() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training images (60000, 28, 28) and labels, test images (10000, 28, 28) and labels, all uint8."""
    raw = np.frombuffer(lzma.decompress((files("pellucid.data") / "mnist" / "mnist.xz").read_bytes()), np.uint8)
    n = N_TRAIN + N_TEST
    images, labels = raw[: n * SIDE * SIDE].reshape(n, SIDE, SIDE), raw[n * SIDE * SIDE :]
    return images[:N_TRAIN], labels[:N_TRAIN], images[N_TRAIN:], labels[N_TRAIN:]


@data_set("mnist", PILImageBW)
def _mnist(folder: Path) -> None:
    train_x, train_y, test_x, test_y = mnist_arrays()
    with progress("laying out MNIST", N_TRAIN + N_TEST) as tick:
        _write_tree(folder / "training", train_x, train_y, tick)
        _write_tree(folder / "testing", test_x, test_y, tick)


@data_set("mnist_sample", PILImageBW)
def _mnist_sample(folder: Path) -> None:
    train_x, train_y, test_x, test_y = mnist_arrays()
    with progress("laying out MNIST_SAMPLE", N_TRAIN + N_TEST) as tick:
        _write_tree(folder / "train", train_x, train_y, tick, digits=(3, 7))
        _write_tree(folder / "valid", test_x, test_y, tick, digits=(3, 7))


def _write_tree(folder: Path, images: np.ndarray, labels: np.ndarray, tick: Tick, digits=tuple(range(10))) -> None:
    """Write `<folder>/<digit>/<index>.png`, the index being the position in the original file."""
    for digit in digits:
        (folder / str(digit)).mkdir(parents=True)
    for index, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        if label in digits:
            with open(f"{folder}/{label}/{index}.png", "wb") as file:
                file.write(_png(image))
        if index % 500 == 499:
            tick(500)


def _png(image: np.ndarray) -> bytes:
    """A grey image (row, column) as a file; 30 µs for a digit, of which Pillow makes 80."""
    height, width = image.shape
    rows = np.zeros((height, 1 + width), np.uint8)  # each row after its filter, which is 0: none
    rows[:, 1:] = image
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)  # 8 bits of grey
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes())), (b"IEND", b"")
    packed = (struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def _stem(path: str) -> str:
    name = Path(unquote(path)).name
    ending = _ending(name)
    if not name.removesuffix(ending).strip("."):  # a stem of dots alone would be another folder
        raise UsageError(f"{name or path!r} is no archive: expected .zip, .tar, .tar.gz, .tgz, .tar.bz2 or .tar.xz")
    return name.removesuffix(ending)


def _ending(name: str) -> str:
    return next((ending for ending in ENDINGS if name.endswith(ending)), name)


def _laid_out(url: str, sha256: str | None, target: Path) -> bool:
    """Whether the set is there, made from a download with this checksum."""
    if not target.is_dir() or sha256 is None:
        return target.is_dir()
    noted = _checksum_file(target)
    if not noted.is_file():
        return False  # it was not noted what the folder was made from
    if noted.read_text() != sha256.lower():
        raise DataError(
            f"{url}: was laid out from a download with sha256={noted.read_text()!r}, not {sha256!r}; "
            "force=True downloads it again"
        )
    return True


def _checksum_file(target: Path) -> Path:
    return target.with_name(f".{target.name}.sha256")


def _download_and_unpack(url: str, sha256: str | None, target: Path, max_bytes: int | None, max_files: int) -> None:
    with appearing(target) as scratch, TemporaryDirectory(".tmp", f".{target.name}.", target.parent) as spare:
        archive, unpacked = Path(spare) / f"archive{_ending(unquote(urlparse(url).path))}", Path(spare) / "unpacked"
        _download(url, sha256, archive)
        unpacked.mkdir()
        try:
            unpack(archive, unpacked, max_bytes, max_files)
        except DataError as error:
            reason = "a web page came, not an archive" if is_web_page(archive) else error
            raise DataError(f"{url}: {reason}") from None
        for entry in list(single_folder(unpacked).iterdir()):
            entry.rename(scratch / entry.name)
        with archive.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        _checksum_file(target).unlink(missing_ok=True)  # a killed process leaves none rather than a wrong one
    write_text(_checksum_file(target), digest)
    if sha256 is None:
        say(f"{url}\n  sha256={digest!r} pins this download")


def _download(url: str, sha256: str | None, archive: Path) -> None:
    import pooch

    address = urlparse(url)
    bar: Any = DownloadBar(f"downloading {Path(address.path).name}")
    fetch: Any = _copy_file if address.scheme == "file" else pooch.HTTPDownloader(progressbar=bar)
    pooch.get_logger().setLevel("WARNING")
    try:
        pooch.retrieve(url, sha256 and f"sha256:{sha256}", archive.name, archive.parent, downloader=fetch)
    except ValueError as error:
        raise DataError(f"{url}: {error}") from None
    except OSError as error:
        if error.errno:
            raise  # the disk's fault; the network's have no number
        raise PellucidError(f"{url}: cannot be downloaded ({error})") from None
    finally:
        bar.close()


def _copy_file(url: str, target: Any, pooch: Any) -> None:
    source = Path(url2pathname(urlparse(url).path))
    if not source.is_file():
        raise UsageError(f"{source}: no such file")
    shutil.copyfile(source, target)
