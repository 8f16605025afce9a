"""A history on disk while another process writes it, and after that process was killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pellucid
from hanging import HUNG_S

TRAINING = """
import sys, torch, pellucid
from pellucid.activations import autosave
autosave.SAVE_EVERY_S = 0.0
torch.set_num_threads(1)
model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
opt = torch.optim.SGD(model.parameters(), lr=0.01)
with pellucid.watch(model, optimizer=opt, loss=True, folder=sys.argv[1]) as seen:
    seen._autosave.at = 0.0
    while True:
        model(torch.randn(4, 8)).square().mean().backward()
        opt.step()
        opt.zero_grad()
        print(seen.step, flush=True)
"""


def test_reading_while_a_run_writes_and_after_it_was_killed(tmp_path):
    covered: list[int] = []
    command = [sys.executable, "-c", TRAINING, tmp_path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        deadline = time.monotonic() + HUNG_S
        while len(set(covered)) < 5 and process.poll() is None and time.monotonic() < deadline:
            process.stdout.readline()
            if (tmp_path / "history.safetensors").exists():
                history = pellucid.History.load(tmp_path)
                covered.append(int(history.train.steps[-1, 1]))
                assert history.loss is not None
                assert len(history.loss) == history.train.mean.shape[1] == len(history.train.steps)
        process.send_signal(signal.SIGKILL)
    assert len(set(covered)) == 5
    assert covered == sorted(covered)
    steps = pellucid.History.load(tmp_path).train.steps
    assert steps[-1, 1] >= covered[-1]
    assert steps[-1, 1] % 50 == 0  # written after each fiftieth step that is due
