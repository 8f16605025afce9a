"""What was computed from the images of a pixel store, kept beside it under the same rules.

Such a store is a folder `stores/<key of the pixels>.<key>/` of `array.npy` and `store.json`. It is built under a lock
in a scratch folder that is renamed when whole, checked when it is opened, counts towards the budget of all stores, and
is deleted when it is the least recently used.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np

from pellucid.data.home import appearing, locked
from pellucid.data.store import BUDGET_BYTES, evict, stores_folder, sync

ARRAY, DESCRIPTION = "array.npy", "store.json"


def derived(
    pixels: str, key: str, compute: Callable[[], np.ndarray], sound: Callable[[np.ndarray], bool]
) -> np.ndarray:
    """The array of this key, computed only where it is not kept yet.

    An array that cannot be written, for want of room or rights, is computed and not kept.

    Args:
        pixels: Key of the pixel store.
        key: Changes with everything else that the array depends on.
        compute: Makes the array.
        sound: Looks at a kept one; where it says no, the array is computed anew.
    """
    folder = stores_folder() / f"{pixels}.{key}"
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(folder))
        except OSError:  # where not even a lock can be written, nothing is kept
            return compute()
        found = _opened(folder)
        if found is not None and sound(found):
            with suppress(OSError):
                os.utime(folder)
            return found
        array = compute()
        with suppress(OSError):
            _write(folder, array)
        return array


def _opened(folder: Path) -> np.ndarray | None:
    try:
        checksum = json.loads((folder / DESCRIPTION).read_text())["checksum"]
        array = np.load(folder / ARRAY)
        return array if _checksum(array) == checksum else None
    except Exception:  # damage shows in many ways, and the remedy is one: compute it again
        return None


def _write(folder: Path, array: np.ndarray) -> None:
    evict(keep=folder, budget_bytes=max(0, BUDGET_BYTES - array.nbytes))
    with appearing(folder) as scratch:
        np.save(scratch / ARRAY, array)
        (scratch / DESCRIPTION).write_text(json.dumps({"shape": array.shape, "checksum": _checksum(array)}))
        for file in scratch.iterdir():
            sync(file)


def _checksum(array: np.ndarray) -> int:
    return zlib.crc32(array.tobytes())
