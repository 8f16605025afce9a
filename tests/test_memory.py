"""Freed memory stays with the process: repeated big allocations cost no page faults after the first."""

from __future__ import annotations

import subprocess
import sys

import pytest

FAULTS = """
import resource, sys, torch
from pellucid.memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
torch.set_num_threads(1)
step = lambda: [torch.ones(2**19) for _ in range(8)]  # 16 MiB, freed at once
for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_memory_freed_by_one_step_serves_the_next():
    faults = {}
    for mode in ("keep", "leave"):
        done = subprocess.run([sys.executable, "-c", FAULTS, mode], capture_output=True, text=True, check=True)
        faults[mode] = int(done.stdout)
    assert 1.5 * faults["keep"] < faults["leave"], faults
