"""IDX files, the format MNIST and its relatives are published in, plain or gzipped.

Source: http://yann.lecun.com/exdb/mnist/ ("The IDX file format").
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from pellucid.data.archives import most_bytes
from pellucid.errors import DataError
from pellucid.text import printable

UNSIGNED_BYTE = 0x08


def read_idx(path: str | Path) -> np.ndarray:
    """Read an IDX file of unsigned bytes; the shape stands in its header.

    Raises:
        DataError: the file is missing, not IDX, of another type, or its length does not fit its header.
    """
    path = Path(path)
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            start = file.read(4)
            if len(start) < 4 or start[:2] != b"\0\0" or start[2] != UNSIGNED_BYTE:
                raise DataError(f"{printable(path)}: no IDX file of unsigned bytes")
            n_dims = start[3]
            header = file.read(4 * n_dims)
            if len(header) < 4 * n_dims:
                raise DataError(f"{printable(path)}: damaged: it ends within its header")
            shape = struct.unpack(f">{n_dims}I", header)
            size = math.prod(shape)
            if size > most_bytes(path):
                raise DataError(
                    f"{printable(path)}: its header says {_by(shape)}, more than such a small file can hold"
                )
            # One byte more than the header says shows that there is more, however much that is, and ends the checksum.
            raw = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{printable(path)}: cannot be read ({error})") from None
    if len(raw) != size:
        more = "more" if len(raw) > size else f"{len(raw)} bytes"
        raise DataError(f"{printable(path)}: damaged: its header says {_by(shape)}, it holds {more}")
    return np.frombuffer(raw, np.uint8).reshape(shape)


def read_set(folder: str | Path) -> tuple[np.ndarray, np.ndarray, int]:
    """Images (image, row, column), labels (image,) and the number of those for training, which come first, of a folder.

    Raises:
        DataError: a file is missing or damaged, images and labels differ in number, or the images of the sides in size.
    """
    pairs = find_idx(folder)
    if pairs is None:
        raise DataError(f"{folder}: expected train-images-idx3-ubyte, train-labels-idx1-ubyte and the t10k- pair")
    sides = [read_pair(*pair) for pair in pairs]
    sizes = [images.shape[1:] for images, _ in sides]
    if sizes[0] != sizes[1]:
        raise DataError(
            f"{folder}: training images are {_by(sizes[0])}, validation images {_by(sizes[1])} (height×width)"
        )
    images, labels = (np.concatenate(parts) for parts in zip(*sides, strict=True))
    return images, labels, len(sides[0][0])


def read_pair(image_file: Path, label_file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images (image, row, column) and labels (image,) of one side.

    Raises:
        DataError: a file is missing or damaged, or images and labels differ in number.
    """
    images, labels = read_idx(image_file), read_idx(label_file)
    if images.ndim != 3 or not len(images) or images.shape[:1] != labels.shape:
        raise DataError(
            f"{image_file}: images {_by(images.shape)} (image×row×column) do not fit labels {_by(labels.shape)} of "
            f"{label_file}"
        )
    return images, labels


def _by(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


def find_idx(folder: str | Path) -> tuple[tuple[Path, Path], tuple[Path, Path]] | None:
    """Find (images, labels) of training and test in a folder with the usual file names; None if they are not there."""
    train, test = (find_pair(folder, part) for part in ("train", "t10k"))
    return (train, test) if train and test else None


def find_pair(folder: str | Path, part: str) -> tuple[Path, Path] | None:
    """Images and labels of one side, `train` or `t10k`; None if they are not there."""
    found = []
    for kind in ("images", "labels"):
        files = sorted(file for file in Path(folder).glob(f"{part}-{kind}[-.]idx*-ubyte*") if file.is_file())
        if not files:
            return None
        found.append(files[0])
    return found[0], found[1]
