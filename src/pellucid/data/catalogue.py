"""Data sets by name or address: MNIST ships with the package, others download on request."""

from __future__ import annotations

import lzma
import shutil
from hashlib import blake2b
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse
from urllib.request import url2pathname

import numpy as np
from PIL import Image

from pellucid.data.home import appearing, home, locked
from pellucid.data.progress import DownloadBar, Tick, progress
from pellucid.errors import DataError, PellucidError, UsageError

N_TRAIN, N_TEST, SIDE = 60_000, 10_000, 28


class URLs:
    """Names of the data sets inside the package; `untar_data` takes any other address too."""

    MNIST = "pellucid://mnist"
    MNIST_SAMPLE = "pellucid://mnist_sample"


def untar_data(url: str, sha256: str | None = None, force: bool = False) -> Path:
    """Return the folder of a data set, laying it out in the cache folder on first use; each address has its own.

    Args:
        url: One of `URLs`, or the address (http, https, file) of a .zip, .tar, .tar.gz, .tgz, .tar.bz2 or .tar.xz.
        sha256: Checksum the download must have; without one its own is printed for you to pin.
        force: Lay out (and download) again.

    Raises:
        UsageError: an address that is no archive, or not known.
        DataError: the download's checksum differs, or its archive is damaged or unsafe.
        PellucidError: the address cannot be reached, or the cache folder not be written.
    """
    embedded = {URLs.MNIST: _mnist, URLs.MNIST_SAMPLE: _mnist_sample}
    parts = urlparse(url)
    if url not in embedded and parts.scheme not in ("http", "https", "file"):
        raise UsageError(f"{url!r} is neither one of {', '.join(sorted(embedded))} nor an http(s) address")
    name = (
        parts.netloc if url in embedded else f"{_stem(parts.path)}-{blake2b(url.encode(), digest_size=4).hexdigest()}"
    )
    target = home() / "data" / name
    if not target.is_dir() or force:
        try:
            with locked(target):
                if not target.is_dir() or force:
                    with appearing(target) as scratch:
                        embedded[url](scratch) if url in embedded else _download(url, sha256, scratch)
        except OSError as error:
            raise PellucidError(f"cannot lay out {name} in {target.parent}: {error}; PELLUCID_HOME moves it") from error
    return target


def mnist_arrays() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training images (60000, 28, 28) and labels, test images (10000, 28, 28) and labels, all uint8."""
    raw = np.frombuffer(lzma.decompress((files("pellucid.data") / "mnist" / "mnist.xz").read_bytes()), np.uint8)
    n = N_TRAIN + N_TEST
    images, labels = raw[: n * SIDE * SIDE].reshape(n, SIDE, SIDE), raw[n * SIDE * SIDE :]
    return images[:N_TRAIN], labels[:N_TRAIN], images[N_TRAIN:], labels[N_TRAIN:]


def _mnist(folder: Path) -> None:
    train_x, train_y, test_x, test_y = mnist_arrays()
    with progress("laying out MNIST", N_TRAIN + N_TEST) as tick:
        _write_tree(folder / "training", train_x, train_y, tick)
        _write_tree(folder / "testing", test_x, test_y, tick)


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
            png = BytesIO()
            Image.fromarray(image).save(png, "png")
            (folder / str(label) / f"{index}.png").write_bytes(png.getvalue())
        if index % 500 == 499:
            tick(500)


def _stem(path: str) -> str:
    name = Path(unquote(path)).name
    for ending in (".tar.gz", ".tar.bz2", ".tar.xz", ".tgz", ".tar", ".zip"):
        stem = name.removesuffix(ending)
        if stem != name and stem.strip("."):  # a stem of dots alone would be another folder
            return stem
    raise UsageError(f"{name or path!r} is no archive: expected .zip, .tar, .tar.gz, .tgz, .tar.bz2 or .tar.xz")


def _download(url: str, sha256: str | None, folder: Path) -> None:
    import pooch

    address = urlparse(url)
    archive = folder / f"archive-{Path(address.path).name}"
    bar: Any = DownloadBar(f"downloading {Path(address.path).name}")
    fetch: Any = _copy_file if address.scheme == "file" else pooch.HTTPDownloader(progressbar=bar)
    pooch.get_logger().setLevel("WARNING")
    try:
        pooch.retrieve(url, sha256 and f"sha256:{sha256}", archive.name, folder, downloader=fetch)
    except ValueError as error:
        raise DataError(f"{url}: {error}") from None
    except OSError as error:
        if error.errno:
            raise  # the disk's fault; the network's have no number
        raise PellucidError(f"{url}: cannot be downloaded ({error})") from None
    finally:
        bar.close()
    if sha256 is None:
        print(f"{url}\n  sha256={pooch.file_hash(archive)!r} pins this download")
    try:
        # The `data` filter refuses absolute paths, `..`, links that lead outside, and devices; zip is safe by itself.
        options: dict[str, Any] = {} if archive.suffix == ".zip" else {"filter": "data"}
        shutil.unpack_archive(archive, folder, **options)
    except Exception as error:
        if isinstance(error, OSError) and error.errno:
            raise  # the disk's fault; all others are the archive's, each format has its own
        raise DataError(f"{url}: damaged or unsafe archive ({error})") from None
    archive.unlink()
    entries = list(folder.iterdir())
    if len(entries) == 1 and entries[0].is_dir():  # the usual single top folder
        top = entries[0].rename(archive)  # it may hold an entry of its own name
        for entry in list(top.iterdir()):
            entry.rename(folder / entry.name)
        top.rmdir()


def _copy_file(url: str, target: Any, pooch: Any) -> None:
    source = Path(url2pathname(urlparse(url).path))
    if not source.is_file():
        raise UsageError(f"{source}: no such file")
    shutil.copyfile(source, target)
