"""Freed memory stays with the process: a big allocation is made of what earlier ones gave back."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Each allocation is larger than any before, so that glibc's own threshold, which follows the largest one freed, never
# covers it.
FAULTS = """
import resource, sys, torch
from pellucid.training.memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
torch.set_num_threads(1)
step = lambda i: torch.ones(2**19 + i * 2**14)  # 2 MiB and i · 64 KiB, freed at once
for i in range(3):
    step(i)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for i in range(3, 23):
    step(i)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_memory_freed_by_one_step_serves_the_next():
    faults = {}
    for mode in ("keep", "leave"):
        done = subprocess.run([sys.executable, "-c", FAULTS, mode], capture_output=True, text=True, check=True)
        faults[mode] = int(done.stdout)
    assert 3 * faults["keep"] < faults["leave"], faults
