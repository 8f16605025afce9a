"""Random numbers: one call that makes a run repeatable, one block that takes none from it."""

from __future__ import annotations

import operator
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from pellucid.errors import UsageError


def set_seed(seed: int) -> None:
    """Seed Python's, numpy's and torch's random numbers, and the splits of splitters that have no seed of their own.

    Same seed, same run bit for bit on the CPU, on the same machine with the same versions and the same number of
    threads (`torch.set_num_threads`): threads divide sums among them, and another number of them rounds otherwise
    (losses differ by some 1e-6 after an epoch).

    Args:
        seed: From 0 to 2**64 - 1, which is what torch takes; numpy gets its lower 32 bits.

    Raises:
        UsageError: another number, or no whole number.
    """
    try:
        seed = operator.index(seed)
    except TypeError:
        raise UsageError(f"a seed must be a whole number, got {seed!r}") from None
    if not 0 <= seed < 2**64:
        raise UsageError(f"a seed must lie between 0 and 2**64 - 1, got {seed}")
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@contextmanager
def kept_rng(loader: Any = None) -> Iterator[None]:
    """Put Python's, numpy's and torch's random numbers back when the block ends, on every device.

    Args:
        loader: A torch loader, or anything like it, whose own random generators are put back too.
    """
    state = RandomState(loader)
    try:
        yield
    finally:
        state.restore()


class RandomState:
    """Python's, numpy's and torch's random numbers as they are when it is made, on every device.

    Args:
        loader: A torch loader, or anything like it, whose own random generators belong to it.
    """

    def __init__(self, loader: Any = None) -> None:
        self._generators = [(g, g.get_state()) for g in _generators(loader)]
        self._python, self._numpy = random.getstate(), np.random.get_state()
        # Asking a device for its state would start it up; one that was not used yet has drawn nothing.
        used = [m for m in (torch.cuda, torch.xpu) if m.is_available() and m.is_initialized()]
        self._devices = [(m, m.get_rng_state_all()) for m in used]
        self._mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
        self._cpu = torch.get_rng_state()

    def restore(self) -> None:
        """Put them back."""
        random.setstate(self._python)
        np.random.set_state(self._numpy)
        torch.set_rng_state(self._cpu)
        for module, states in self._devices:
            module.set_rng_state_all(states)
        if self._mps is not None:
            torch.mps.set_rng_state(self._mps)
        for generator, kept in self._generators:
            generator.set_state(kept)

    def state_dict(self) -> dict[str, Any]:
        """As numbers, texts, arrays and tensors, to be kept in a file."""
        version, words, gauss = self._python
        kind, *numpy = self._numpy
        return {
            "python": [version, np.array(words, np.int64), gauss],
            "numpy": [kind, np.asarray(numpy[0], np.int64), *numpy[1:]],
            "cpu": self._cpu,
            "devices": {m.__name__.rpartition(".")[2]: states for m, states in self._devices},
            "mps": self._mps,
            "loader": [kept for _, kept in self._generators],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Become what `state_dict` kept; a device that is not there, or a generator of other loaders, is left out."""
        version, words, gauss = state["python"]
        self._python = version, tuple(words.tolist()), gauss
        kind, words, *rest = state["numpy"]
        self._numpy = (kind, words.astype(np.uint32), *rest)
        self._cpu = state["cpu"]
        modules = [(getattr(torch, name), states) for name, states in state["devices"].items()]
        self._devices = [(m, states) for m, states in modules if m.is_available() and m.device_count() == len(states)]
        self._mps = state["mps"] if torch.backends.mps.is_available() else None
        self._generators = [(g, kept) for (g, _), kept in zip(self._generators, state["loader"], strict=False)]


def _generators(loader: Any) -> list[torch.Generator]:
    batches = getattr(loader, "batch_sampler", None)
    homes = [loader, getattr(loader, "sampler", None), batches, getattr(batches, "sampler", None)]
    found = [getattr(home, "generator", None) for home in homes]
    return [g for g in found if isinstance(g, torch.Generator)]
