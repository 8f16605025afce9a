"""One plain number, out of whatever people hold it in."""

from __future__ import annotations

import math
import operator
from numbers import Real
from typing import Any

from pellucid.errors import UsageError


def is_number(value: Any) -> bool:
    """Whether this is one number: Python's or numpy's, or an array or tensor without axes."""
    if type(value) is float:  # by far the most
        return True
    return not isinstance(value, bool) and (isinstance(value, Real) or getattr(value, "ndim", None) == 0)


def number(value: Any, name: str) -> float:
    """A Python float of one number.

    Args:
        value: Python's or numpy's number, or an array or tensor without axes.
        name: What it is, for the message.

    Raises:
        UsageError: it is something else, nan or infinite.
    """
    if isinstance(value, float) and math.isfinite(value):
        return float(value)  # at once: schedules come here several times a batch
    if is_number(value):
        try:
            item = getattr(value, "item", None)
            found = float(item() if item else value)
        except (TypeError, ValueError):  # an array of no axes may hold text or a complex number
            found = math.nan
        if math.isfinite(found):
            return found
    raise UsageError(f"{name} must be one finite number, got {value!r}")


def count(value: Any, name: str) -> int:
    """A Python int of one whole number of 1 or more.

    Raises:
        UsageError: it is something else.
    """
    try:
        found = operator.index(value)
    except TypeError:
        raise UsageError(f"{name} must be a whole number, got {value!r}") from None
    if found < 1:
        raise UsageError(f"{name} must be at least 1, got {found}")
    return found
