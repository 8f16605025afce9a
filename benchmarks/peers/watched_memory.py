"""Memory of a watched run as it gets long: resident MiB of the process after some numbers of simulated steps.

A step here is a forward pass of one image through the chapter's network; what the watch keeps does not depend on more.
"""

import json
from pathlib import Path

import torch
from network import simple_cnn

import pellucid

MARKS = (1_000, 2_000, 10_000, 50_000, 100_000, 200_000)


def resident_mib() -> float:
    """Memory the process has now."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def main() -> None:
    """Step and report."""
    torch.set_num_threads(1)
    model, x, measured = simple_cnn(), torch.randn(2, 1, 28, 28), {}
    with torch.no_grad(), pellucid.watch(model):
        for step in range(1, MARKS[-1] + 1):
            model(x)
            if step in MARKS:
                measured[step] = round(resident_mib(), 1)
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
