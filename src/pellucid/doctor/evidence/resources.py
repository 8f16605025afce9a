"""Time: of steps, and waiting for data. Memory: of the process, of tensors, and what keeps growing."""

from __future__ import annotations

import gc
import linecache
import os
import re
import sys
from collections.abc import Iterator
from inspect import CO_OPTIMIZED
from itertools import pairwise
from time import perf_counter
from types import FrameType
from typing import Any

import numpy as np
from torch import Tensor, nn

from pellucid.doctor import lines
from pellucid.doctor.evidence import record
from pellucid.doctor.evidence.streams import Numbers

FIRST_COUNT = 20  # step from which on tensors are counted: a walk over all objects takes about a tenth of a second
MAX_COUNTING = 0.02  # share of the time
MAX_NODES = 5_000  # of a graph that is counted
_PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / 2**20 if hasattr(os, "sysconf") else 0.0


class Resources:
    """What the loop takes."""

    def __init__(self) -> None:
        self._step_s, self._waited_s, self._loader_s = Numbers(), Numbers(), Numbers()
        self._stepped = self._asked = np.nan
        self._waited, self._in_loader = 0.0, np.nan
        self._resident, self._tensors, self._mib, self._steps = Numbers(), Numbers(), Numbers(), Numbers()
        self._began, self._counting_s = perf_counter(), 0.0
        self._sizes: dict[str, list[int]] = {}  # of what may grow, count by count
        self._words: dict[str, str] = {}

    def begin(self) -> None:
        """Batches are asked for from now on: what went before is no part of a step."""
        self._stepped, self._asked, self._waited, self._in_loader = perf_counter(), np.nan, 0.0, np.nan

    def loaded(self, asked: float) -> None:
        """A loader that was asked for a batch then has given it."""
        seconds = perf_counter() - asked
        self._in_loader = seconds if np.isnan(self._in_loader) else self._in_loader + seconds
        self._asked = asked if np.isnan(self._asked) else self._asked

    def called(self) -> None:
        """The model is called for a training step."""
        since = self._stepped if np.isnan(self._asked) else self._asked
        self._waited += 0.0 if np.isnan(since) else perf_counter() - since
        self._asked = np.nan

    def stepped(self) -> None:
        """A step ended."""
        now = perf_counter()
        if not np.isnan(self._stepped):
            self._step_s.put(now - self._stepped)
            self._waited_s.put(self._waited)
            self._loader_s.put(self._in_loader)
        self._stepped, self._asked, self._waited, self._in_loader = now, np.nan, 0.0, np.nan

    def took(self, called: float, ended: float) -> None:
        """A step whose pass began then has ended then, in seconds of `perf_counter`."""
        if not np.isnan(self._stepped):
            self._step_s.put(ended - self._stepped)
            self._waited_s.put(called - self._stepped)
            self._loader_s.put(np.nan)
        self._stepped, self._asked, self._waited, self._in_loader = ended, np.nan, 0.0, np.nan

    def look(self, step: int, model: nn.Module) -> None:
        """Count what is alive, at two looks and at later ones as long as that takes little of the time."""
        now = perf_counter()
        if step >= FIRST_COUNT and (len(self._steps) < 2 or self._counting_s < MAX_COUNTING * (now - self._began)):
            self._count(step, model)
            self._counting_s += perf_counter() - now

    def _count(self, step: int, model: nn.Module) -> None:
        own = {id(p) for p in model.parameters()}
        tensors = [x for x in gc.get_objects() if issubclass(type(x), Tensor) and id(x) not in own]
        sizes = [x.numel() * x.element_size() for x in tensors if type(x) in (Tensor, nn.Parameter) and not x.is_sparse]
        self._steps.put(step)
        self._resident.put(resident_mib())
        self._tensors.put(len(tensors))
        self._mib.put(sum(sizes) / 2**20)
        for frame in lines.frames():
            for name, size, words in _with_history(frame):
                self._sizes.setdefault(name, []).append(size)
                self._words[name] = words

    def resources(self) -> record.Resources:
        """Everything so far."""
        return record.Resources(
            self._step_s.array(),
            self._waited_s.array(),
            self._loader_s.array(),
            self._resident.array(),
            self._tensors.array().astype(np.int64),
            self._mib.array(),
            self._steps.array().astype(np.int64),
            [self._words[name] for name, sizes in self._sizes.items() if _grows(sizes)],
        )


def resident_mib() -> float:
    """Resident memory of this process now; where the system does not say so, the most so far."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * _PAGE_MIB
    except OSError:
        import resource  # not on Windows, which has no /proc either

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most / 2**20 if sys.platform == "darwin" else most / 2**10


def _grows(sizes: list[int]) -> bool:
    """Whether it was larger at each count, and by more than the first size altogether."""
    return len(sizes) > 1 and all(a < b for a, b in pairwise(sizes)) and sizes[-1] > 2 * sizes[0]


def _with_history(frame: FrameType) -> Iterator[tuple[str, int, str]]:
    """Variables of a frame that hold tensors with a graph: name, size and words for it."""
    snapshot = bool(frame.f_code.co_flags & CO_OPTIMIZED) and sys.version_info < (3, 13)
    names = frame.f_locals
    try:
        found = [each for name, value in list(names.items()) for each in _holding(name, value)]
    finally:
        if snapshot:  # a copy that stays with the frame, and would keep the tensors that the loop lets go of
            for name in [name for name, value in names.items() if _has_tensors(value)]:
                del names[name]
    for name, size, words in found:
        yield f"{frame.f_code.co_filename} {name}", size, f"{name}{_written_at(frame, name)}: {words}"


def _has_tensors(value: Any) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]
    return any(isinstance(each, Tensor) for each in inner)


def _holding(name: str, value: Any) -> Iterator[tuple[str, int, str]]:
    if isinstance(value, nn.Module | type) or name.startswith("__"):
        return
    attached = getattr(value, "__dict__", None) if not isinstance(value, Tensor) else None
    inner = {f"{name}.{key}": each for key, each in attached.items()} if isinstance(attached, dict) else {}
    for key, each in {name: value, **inner}.items():
        if isinstance(each, Tensor) and each.grad_fn is not None:
            n = _nodes(each)
            yield key, n, f"a tensor with a graph of {n:,}{'+' * (n >= MAX_NODES)} operations"
        elif isinstance(each, list) and each and isinstance(each[-1], Tensor) and each[-1].grad_fn is not None:
            yield key, len(each), f"a list of {len(each):,} tensors that keep their graph"


def _nodes(x: Tensor) -> int:
    known, waiting = {x.grad_fn}, [x.grad_fn]
    while waiting and len(known) < MAX_NODES:
        for node, _ in waiting.pop().next_functions:  # pyright: ignore[reportOptionalMemberAccess]
            if node is not None and node not in known:
                known.add(node)
                waiting.append(node)
    return len(known)


def _written_at(frame: FrameType, name: str) -> str:
    """Where a variable is added to, by its file's text."""
    pattern = re.compile(rf"\b{re.escape(name)}\s*(\+=|\.append\(|=\s*{re.escape(name)}\s*\+)")
    file = frame.f_code.co_filename
    numbers = [i for i, text in enumerate(linecache.getlines(file), 1) if pattern.search(text)]
    return f" ({lines.said(file, numbers[0])})" if numbers else ""
