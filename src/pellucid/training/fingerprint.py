"""Which data a training sees, in a few numbers that can be compared and spoken of."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor

from pellucid.data.loader import DataLoader
from pellucid.data.sources import StoredImages
from pellucid.text import first_few

SAMPLED = 64  # images whose pixels are compared one by one

Fingerprint = dict[str, Any]


def fingerprint(dls: Any) -> Fingerprint:
    """Number, choice and labels of the images on both sides, their pixels, the classes, and the batches."""
    dls = getattr(dls, "made_from", None) or dls
    sides = {"training": dls.train, "validation": dls.valid}
    found: Fingerprint = {"classes": [str(name) for name in getattr(dls, "vocab", ())]}
    for side, loader in sides.items():
        found |= {f"{side} {name}": value for name, value in _of(loader).items()}
    return found


def differences(then: Fingerprint, now: Fingerprint) -> str:
    """What has changed, in words; empty where nothing has."""
    changed = []
    for name in dict.fromkeys([*then, *now]):
        was, is_ = then.get(name), now.get(name)
        if was != is_:
            plain = all(isinstance(each, int) for each in (was, is_))
            changed.append(f"{name} {was:,} then, {is_:,} now" if plain else f"other {name}")
    return first_few(changed, 4)


def _of(loader: Any) -> dict[str, Any]:
    if loader is None:
        return {"images": 0}
    found: dict[str, Any] = {"batches": len(loader), "batch size": getattr(loader, "bs", None) or _batch_size(loader)}
    labels, rows = getattr(loader, "labels", None), getattr(loader, "rows", None)
    if isinstance(labels, Tensor):
        found |= {"images": len(labels), "labels": _digest(labels)}
    if isinstance(rows, Tensor):
        found |= {"images": len(rows), "split": _digest(rows)}
    if isinstance(loader, DataLoader):
        found |= {"order": [loader.shuffle, loader.drop_last], "pixels": _pixels(loader)}
    return found


def _batch_size(loader: Any) -> int | None:
    size = getattr(loader, "batch_size", None)
    return size if isinstance(size, int) else None


def _pixels(loader: DataLoader) -> str:
    """Sums over each image and the pixels of some of them, wherever their files lie; of streamed ones the names."""
    source = loader.source
    if isinstance(source, StoredImages):
        rows = torch.linspace(0, max(0, len(source.pixels) - 1), SAMPLED, device="cpu").round().long().unique()
        sums = hashlib.blake2b(source.channel_moments.tobytes(), digest_size=16).hexdigest()
        return sums + (_digest(source.pixels[rows]) if len(source.pixels) else "")
    files = [str(file) for file in getattr(source, "files", ()) if isinstance(file, str) or hasattr(file, "__fspath__")]
    return hashlib.blake2b("\0".join(files).encode(), digest_size=16).hexdigest()


def _digest(values: Tensor) -> str:
    return hashlib.blake2b(values.contiguous().numpy().tobytes(), digest_size=16).hexdigest()
