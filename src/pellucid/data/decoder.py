"""A decoder process: `python -m pellucid.data.decoder` reads a job from standard input and fills rows of a store.

A process of its own rather than `multiprocessing`: no pickling, no second import of the user's script, no fork of a
process whose threads hold locks. It reports on standard output, one JSON value a line: a number of finished images,
`[row, kind, reason]` for a file that cannot be stored (kind "damaged" or "size"), `{"fatal": reason}` when it gives up.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from pellucid.data.images import Decoding
from pellucid.errors import DataError

REPORT_EVERY = 128


@dataclass(frozen=True)
class Job:
    """Rows to decode, and the two files they go to.

    `pixels` holds uint8 rows of `shape` (channel, row, column) from byte `pixels_offset` on; `moments` holds int64
    (sum, sum of squares) per channel, from `moments_offset` on.
    """

    rows: list[int]
    files: list[str]
    decoding: dict[str, Any]
    shape: list[int]
    pixels: str
    pixels_offset: int
    moments: str
    moments_offset: int


def decode_rows(job: Job) -> Iterator[int | list[Any]]:
    """Decode the job's files into their rows; yields what the module's docstring describes."""
    decoding = Decoding.from_json(job.decoding)
    row_bytes = int(np.prod(job.shape))
    moment_bytes = 16 * job.shape[0]
    pixels_fd, moments_fd = os.open(job.pixels, os.O_WRONLY), os.open(job.moments, os.O_WRONLY)
    done = 0
    try:
        for done, (row, file) in enumerate(zip(job.rows, job.files, strict=True), start=1):
            if done % REPORT_EVERY == 0:
                yield REPORT_EVERY
            try:
                pixels = decoding.pixels(file)
            except DataError as error:
                yield [row, "damaged", str(error)]
                continue
            if list(pixels.shape) != job.shape:
                yield [row, "size", size_mismatch(file, pixels.shape, job.shape)]
            else:
                os.pwrite(pixels_fd, pixels.tobytes(), job.pixels_offset + row * row_bytes)
                os.pwrite(moments_fd, moments(pixels).tobytes(), job.moments_offset + row * moment_bytes)
    finally:
        os.close(pixels_fd)
        os.close(moments_fd)
    yield done % REPORT_EVERY


def moments(pixels: np.ndarray) -> np.ndarray:
    """Sum and sum of squares of each channel, shape (channel, 2), int64."""
    flat = pixels.reshape(len(pixels), -1).astype(np.float64)  # exact: 255² · 2³⁷ pixels stays below 2⁵³
    return np.stack([flat.sum(1), np.einsum("cp,cp->c", flat, flat)], axis=1).astype(np.int64)


def size_mismatch(file: str, shape: tuple[int, ...] | list[int], expected: tuple[int, ...] | list[int]) -> str:
    """The message for an image whose size differs from the first one's."""
    return f"{file}: is {shape[-2]}×{shape[-1]} (height×width), the first image is {expected[-2]}×{expected[-1]}"


def main() -> None:
    """Read one job, work on it, report."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends us
    report: Callable[[Any], None] = lambda value: print(json.dumps(value), flush=True)
    try:
        for value in decode_rows(Job(**json.load(sys.stdin))):
            report(value)
    except OSError as error:
        report({"fatal": f"{error.strerror}: {error.filename or 'the pixel store'}"})


if __name__ == "__main__":
    main()
