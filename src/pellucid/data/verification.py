"""Find the files of a set that are no images, before anything is made of them."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fastcore.foundation import L

from pellucid.data.images import PILImage
from pellucid.data.opening import MissingExtra
from pellucid.data.sources import is_path
from pellucid.errors import DataError, UsageError


def verify_images(fns: Iterable[Any], workers: int | None = None) -> L:
    """Decode every file, and list those that cannot be: `verify_images(get_image_files(path)).map(Path.unlink)`.

    Args:
        fns: Paths of the files.
        workers: Decoding threads; None takes one a core.

    Raises:
        UsageError: a path stands where a list belongs, or HEIC files cannot be told without the extra that decodes
            them.
    """
    if is_path(fns):
        listed = f"get_image_files({str(fns)!r})" if Path(fns).is_dir() else f"[{str(fns)!r}]"  # type: ignore[arg-type]
        raise UsageError(f"verify_images takes a list of files: verify_images({listed})")
    files = list(fns)
    with ThreadPoolExecutor(workers) as pool:
        return L(file for file, sound in zip(files, pool.map(_decodes, files), strict=True) if not sound)


def _decodes(file: Any) -> bool:
    try:
        PILImage.create(file)
    except MissingExtra:
        raise  # not listed: what is listed is often deleted
    except DataError:
        return False
    return True
