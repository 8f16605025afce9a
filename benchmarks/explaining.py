"""Measure how fast explanations are and write results/explaining.md and results/explaining.json.

The claims: receptive fields of a 50-layer residual network at 224 pixels in at most 1 s beyond import; the matrix of a
convolution from 3 to 16 channels on 64×64 pixels in at most 1 s, sparse; the trace of one activation of the chapter's
network, window and all pixels, in at most 50 ms; its page in at most 1 MB. A plain forward pass stands beside.

    python benchmarks/explaining.py
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import torch
from environments import HERE, circumstances, machine
from rows import Row, finish
from torch import nn

from pellucid import convolution as cv
from pellucid.nn.models import simple_cnn

sys.path.insert(0, str(HERE.parent / "tests"))
from architectures import resnet50

ROUNDS = 11


def seconds(function: Callable[[], object]) -> list[float]:
    """Seconds of each of some calls, after one that warms up."""
    times = []
    for _ in range(ROUNDS + 1):
        start = perf_counter()
        function()
        times.append(perf_counter() - start)
    return times[1:]


def row(claim: str, ours: Callable[[], object], forward: Callable[[], object], limit_s: float) -> Row:
    """A row with a limit in seconds; `forward` is only there to compare the machine by."""
    measured = seconds(ours)
    return Row(
        f"{claim} (limit {limit_s:g} s; other: a forward pass)", measured, seconds(forward), "difference", limit_s
    )


def main() -> None:
    """Measure, write the results, and exit with 1 if a claim fails."""
    torch.set_num_threads(2)
    resnet, photo = resnet50(64).eval(), torch.rand(1, 3, 224, 224)
    conv, colour = nn.Conv2d(3, 16, 3, padding=1), torch.rand(1, 3, 64, 64)
    net, digit = simple_cnn().eval(), torch.rand(1, 1, 28, 28)
    with torch.no_grad():
        rows = [
            row(
                "receptive_field, 50-layer residual network, 224 px",
                lambda: cv.receptive_field(resnet, (3, 224, 224)),
                lambda: resnet(photo),
                1.0,
            ),
            row(
                "as_matrix, 3 → 16 channels, 64×64",
                lambda: cv.as_matrix(conv, (64, 64)).sparse(),
                lambda: conv(colour),
                1.0,
            ),
            row("trace, chapter's network", lambda: full_trace(net, digit), lambda: net(digit), 0.05),
        ]
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "trace.html"
        cv.trace(net, digit, layer=2, position=(1, 1)).animate(page)
        size = page.stat().st_size / 1e6
    rows.append(Row("page of the chapter's network", [size], [0.0], "difference", 1.0, "MB"))
    facts = machine()
    head = ["# What explanations cost", "", "Written by `python benchmarks/explaining.py`.", ""]
    head += circumstances(facts)
    finish(HERE / "results", "explaining", "\n".join(head), rows, machine=facts)


def full_trace(net: nn.Module, digit: torch.Tensor) -> object:
    """Window and all pixels of one activation."""
    trace = cv.trace(net, digit, layer=2, position=(1, 1))
    return trace.immediate(), trace.full()


if __name__ == "__main__":
    main()
