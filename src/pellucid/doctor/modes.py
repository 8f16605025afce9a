"""torch-function modes that come and go at other times than the blocks of the code that they look at."""

from __future__ import annotations

from typing import Any

from torch import overrides
from torch.utils._device import DeviceContext


def put(mode: overrides.TorchFunctionMode) -> None:
    """Put a mode below those that other code may take off while it is there."""
    others = []
    while _top() is not None and not isinstance(_top(), DeviceContext):  # that one has to be the lowest
        others.append(overrides._pop_mode())
    for each in (mode, *reversed(others)):
        overrides._push_mode(each)


def take_away(mode: overrides.TorchFunctionMode) -> None:
    """Take a mode off, wherever it is; does nothing if it is not there."""
    if not any(each is mode for each in overrides._get_current_function_mode_stack()):
        return
    others = []
    while (top := overrides._pop_mode()) is not mode:
        others.append(top)
    for each in reversed(others):
        overrides._push_mode(each)


def _top() -> Any:
    return overrides._get_current_function_mode()
