"""Freed memory stays with the process: a big allocation is made of what earlier ones gave back."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Each allocation is larger than any before, so that glibc's own threshold, which follows the largest one freed, never
# covers it.
FAULTS = """
import resource, torch
from pellucid.training.memory import keep_freed_memory
torch.set_num_threads(1)
step = lambda i: torch.ones(2**19 + i * 2**14)  # 2 MiB and i · 64 KiB, freed at once

def faults(first):
    for i in range(first, first + 3):
        step(i)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for i in range(first + 3, first + 23):
        step(i)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

left = faults(0)
keep_freed_memory()
print(left, faults(23))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_memory_freed_by_one_step_serves_the_next():
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    left, kept = map(int, done.stdout.split())
    assert 3 * kept < left
