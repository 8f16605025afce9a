"""IDX files, the format MNIST and its relatives are published in, plain or gzipped.

Source: http://yann.lecun.com/exdb/mnist/ ("The IDX file format").
"""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np

from pellucid.errors import DataError

UNSIGNED_BYTE = 0x08


def read_idx(path: str | Path) -> np.ndarray:
    """Read an IDX file of unsigned bytes; the shape stands in its header.

    Raises:
        DataError: the file is missing, not IDX, of another type, or its length does not fit its header.
    """
    path = Path(path)
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] != UNSIGNED_BYTE:
        raise DataError(f"{path}: no IDX file of unsigned bytes")
    n_dims = raw[3]
    start = 4 + 4 * n_dims
    shape = struct.unpack(f">{n_dims}I", raw[4:start]) if len(raw) >= start else (-1,)
    if len(raw) - start != int(np.prod(shape)):
        raise DataError(
            f"{path}: damaged: its header says {'×'.join(map(str, shape))}, it holds {len(raw) - start} bytes"
        )
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def find_idx(folder: str | Path) -> tuple[list[Path], list[Path]] | None:
    """Find (images, labels) of training and test in a folder with the usual file names; None if they are not there."""
    found = []
    for part in ("train", "t10k"):
        pair = [sorted(Path(folder).glob(f"{part}-{kind}[-.]idx*-ubyte*")) for kind in ("images", "labels")]
        if not all(pair):
            return None
        found.append([matches[0] for matches in pair])
    return found[0], found[1]
