"""Text that comes from files and other people, made safe to print and to draw; names of classes as attributes."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

# Control, format (such as right-to-left overrides), surrogate and line-breaking characters: none has a glyph, and in a
# terminal some of them move the cursor, recolour the screen or hide what follows.
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_JOINER = "\u200d"  # holds emoji and many scripts together


def printable(value: object) -> str:
    r"""`str(value)` on one line: what a terminal would obey rather than show is written as an escape.

    >>> printable("cat\x1b[31m")
    'cat\\x1b[31m'
    >>> printable("Käse")
    'Käse'
    """
    text = str(value)
    if text.isprintable():
        return text
    return "".join(_escaped(c) if c != _JOINER and unicodedata.category(c) in _INVISIBLE else c for c in text)


def drawable(value: object) -> str:
    r"""`printable(value)` for a matplotlib text: a dollar sign is a dollar sign, not the start of mathematics.

    >>> drawable("$5 and $6")
    '\\$5 and \\$6'
    """
    return printable(value).replace("$", r"\$")


NOT_FINITE = ("value that is nan or infinite", "values that are nan or infinite")  # for `counted`


def counted(n: int, noun: str, plural: str = "") -> str:
    """A number of things, in the singular where it is one.

    >>> counted(1, "file"), counted(1200, "class", "classes")
    ('1 file', '1,200 classes')
    """
    return f"{n:,} {noun if n == 1 else plural or f'{noun}s'}"


def first_few(names: Iterable[object], most: int = 8) -> str:
    """Names for a message, printable, the first few of many.

    >>> first_few("abcd", most=3)
    'a, b, c and 1 more'
    """
    texts = [printable(name) for name in names]
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")


def snake_case(name: str) -> str:
    """A class name as the name of an attribute or a column.

    >>> snake_case("LRFinder")
    'lr_finder'
    """
    return re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)).lower()


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
