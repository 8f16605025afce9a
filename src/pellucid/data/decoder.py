"""A decoder process: `python -P -m pellucid.data.decoder` reads a job from standard input and fills rows of a store.

A process of its own rather than `multiprocessing`: no pickling, no second import of the user's script, no fork of a
process whose threads hold locks. It reports on standard output, one JSON value a line: a number of finished images,
`[row, kind, reason]` for a file that cannot be stored (kind "damaged" or "size"), and when it gives up
`{"unwritten": reason}` where the store cannot be written, `{"stopped": message}` for all else.
"""

from __future__ import annotations

import json
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from pellucid.data.images import Decoding
from pellucid.data.opening import apply_settings, name_of
from pellucid.errors import DataError, PellucidError

OUT_OF_MEMORY = "there is not enough memory to decode these images; resize them to less, or use fewer workers"


@dataclass(frozen=True)
class Job:
    """Files to decode, and the two files that their pixels and moments go to.

    `chunks` are (row of the first file, files of this and the following rows). `settings` are Pillow's, as
    `apply_settings` takes them. `pixels` holds uint8 rows of `shape` (channel, row, column) from byte `pixels_offset`
    on; `moments` holds int64 (sum, sum of squares) per channel, from `moments_offset` on.
    """

    chunks: list[tuple[int, list[str]]]
    decoding: dict[str, Any]
    settings: dict[str, Any]
    shape: list[int]
    pixels: str
    pixels_offset: int
    moments: str
    moments_offset: int


def decode_rows(job: Job) -> Iterator[int | list[Any]]:
    """Decode the job's files into their rows; yields what the module's docstring describes."""
    decoding = Decoding.from_json(job.decoding)
    n_channels, height, width = job.shape
    with open(job.pixels, "r+b") as pixels_file, open(job.moments, "r+b") as moments_file:
        for first, files in job.chunks:
            # One tall picture a chunk: taking pixels out of Pillow costs as much for a chunk as for a small image.
            sheet = Image.new(decoding.mode, (width, height * len(files)))
            for i, file in enumerate(files):
                try:
                    image = decoding.image(file)
                except DataError as error:
                    yield [first + i, "damaged", str(error)]
                    continue
                if image.size == (width, height):
                    sheet.paste(image, (0, i * height))
                else:
                    yield [first + i, "size", size_mismatch(file, image.size[::-1], job.shape)]
            pixels = np.asarray(sheet).reshape(len(files), height, width, n_channels).transpose(0, 3, 1, 2)
            _write(pixels_file, job.pixels_offset, first, pixels)
            _write(moments_file, job.moments_offset, first, moments(pixels))
            yield len(files)


def moments(pixels: np.ndarray) -> np.ndarray:
    """Sum and sum of squares of each channel: (image, channel, row, column) to int64 (image, channel, 2)."""
    flat = pixels.reshape(*pixels.shape[:2], -1).astype(np.float64)  # exact: 255² · 2³⁷ pixels stays below 2⁵³
    return np.stack([flat.sum(2), np.einsum("icp,icp->ic", flat, flat)], axis=2).astype(np.int64)


def _write(file: BinaryIO, offset: int, first: int, rows: np.ndarray) -> None:
    file.seek(offset + first * rows[0].nbytes)
    file.write(rows.tobytes())


def size_mismatch(source: Any, shape: tuple[int, ...] | list[int], expected: tuple[int, ...] | list[int]) -> str:
    """The message for an image whose size, or number of channels, differs from the first one's."""
    height, width = shape[-2:]
    if (height, width) != tuple(expected[-2:]):
        found = f"is {height}×{width} (height×width), the first image is {expected[-2]}×{expected[-1]}"
    else:
        found = f"has {shape[0]} channel(s), the first image {expected[0]}: an item transform changes them"
    return f"{name_of(source)}: {found}"


def main() -> None:
    """Read one job, work on it, report."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends us
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")  # of odd metadata, once a file and process
    report: Callable[[Any], None] = lambda value: print(json.dumps(value), flush=True)
    try:
        job = Job(**json.load(sys.stdin))
        apply_settings(job.settings)
        for value in decode_rows(job):
            report(value)
    except OSError as error:
        report({"unwritten": f"{error.strerror}: {error.filename or 'the pixel store'}"})
    except MemoryError:
        report({"stopped": OUT_OF_MEMORY})
    except PellucidError as error:
        report({"stopped": str(error)})


if __name__ == "__main__":
    main()
