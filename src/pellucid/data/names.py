"""Names of classes: one spelling of each, and what differs between two that look the same."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from unicodedata import category, normalize


def one_spelling(name: Any) -> Any:
    r"""A name in Unicode's composed form (NFC); anything but a string as it is.

    An é may be one character or an e with an accent to be put above it: macOS names files the second way, keyboards and
    label files write the first.

    >>> one_spelling("cafe\u0301") == "caf\u00e9"
    True
    """
    return name if not isinstance(name, str) or name.isascii() else normalize("NFC", name)


def lookalike(name: Any, others: Iterable[Any]) -> str:
    """What to add to a message that `name` is none of `others`, where one of them looks like it; empty otherwise.

    >>> lookalike("cat", ["Cat", "dog"])
    "; there is 'Cat', which differs in capital letters"
    """
    for other in others:
        if str(other) == str(name):
            return f"; there is the {type(other).__name__} {other!r}, not the {type(name).__name__}"
        if not isinstance(other, str) or not isinstance(name, str):
            continue
        if other.lower() == name.lower():
            return f"; there is {other!r}, which differs in capital letters"
        if " ".join(other.split()) == " ".join(name.split()):
            return f"; there is {other!r}, which differs in spaces"
        if _seen(other) == _seen(name):
            return f"; there is one that looks the same: {other!a}, and not {name!a}"
    return ""


def _seen(name: str) -> str:
    """A name as it looks: ligatures and wide letters as plain ones, invisible characters gone."""
    plain = "".join(c for c in normalize("NFKC", name) if category(c) != "Cf")
    return " ".join(plain.casefold().split())
