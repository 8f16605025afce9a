"""What libtiff says while it decodes: kept for our own message instead of filling the terminal."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from PIL import Image

_Handler = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)
_thread = threading.local()


@contextmanager
def messages() -> Iterator[list[str]]:
    """Give a list that libtiff's errors in this thread go to while the block runs; its warnings go nowhere.

    One damaged file can bring hundreds of lines, which the C library writes to file descriptor 2, past `sys.stderr`.
    """
    _listen()
    _thread.errors = errors = []
    try:
        yield errors
    finally:
        _thread.errors = None


@cache
def _listen() -> list[Any]:
    """Put our handlers in place, once a process; returns what must stay alive for as long as they can be called."""
    try:
        library, c = ctypes.CDLL(Image.core.__file__), ctypes.CDLL(None)
        setters = (library.TIFFSetErrorHandler, True), (library.TIFFSetWarningHandler, False)
    except (AttributeError, OSError, TypeError):
        return []  # where Pillow does not show its libtiff, as on Windows, it goes on writing to the terminal
    # The last argument is a va_list, in every calling convention one word: a pointer, or the address of a structure.
    c.vsnprintf.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_void_p]
    return [_replace(setter, c.vsnprintf, keep) for setter, keep in setters]


def _replace(setter: Any, vsnprintf: Any, keep: bool) -> tuple[Any, Any]:
    previous = None

    @_Handler
    def hear(module: bytes | None, template: bytes, arguments: int) -> None:
        errors = getattr(_thread, "errors", None)
        if errors is None and previous:
            previous(module, template, arguments)  # not our decoding: as before
        elif errors is not None and keep:
            text = ctypes.create_string_buffer(300)
            vsnprintf(text, len(text), template, arguments)
            errors.append(text.value.decode(errors="replace"))

    setter.argtypes, setter.restype = [ctypes.c_void_p], ctypes.c_void_p
    address = setter(ctypes.cast(hear, ctypes.c_void_p))
    previous = _Handler(address) if address else None
    return hear, previous
