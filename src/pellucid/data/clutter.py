"""Files and folders that systems leave beside people's own, and that say nothing about a data set."""

from __future__ import annotations

_NAMES = frozenset(
    {
        "__macosx",  # macOS, in zip files
        ".ds_store",
        "thumbs.db",  # Windows
        "ehthumbs.db",
        "desktop.ini",
        "$recycle.bin",
        "system volume information",
        "@eadir",  # Synology: a thumbnail of every picture
        "lost+found",
        ".ipynb_checkpoints",
    }
)


def is_clutter(name: str) -> bool:
    """Whether a system or tool made the file or folder of this name, not a person."""
    return name.startswith("._") or name.casefold() in _NAMES


def is_visible(name: str) -> bool:
    """Whether a file or folder of this name may belong to a data set: neither hidden nor clutter."""
    return not name.startswith(".") and not is_clutter(name)
