"""The doctor on an NVIDIA GPU: scripts that train there are named as on the CPU, and computed as without it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import pellucid
from hanging import HUNG_S

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")

SCRIPT = """
import sys
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

fault, amp = sys.argv[1], sys.argv[2]
half = {"float16": torch.float16, "bfloat16": torch.bfloat16}.get(amp)
torch.manual_seed(0)
kinds = torch.rand(5, 3, 16, 16)
y = torch.randint(5, (1536,))
x = (kinds[y] + 0.4 * torch.randn(1536, 3, 16, 16)).clamp(-1, 2)
if fault == "inputs-not-normalised":
    x = x * 255
if fault == "labels-random":
    y = y[torch.randperm(len(y))]
train = DataLoader(TensorDataset(x[:1024], y[:1024]), batch_size=64, shuffle=True, pin_memory=True)
valid = DataLoader(TensorDataset(x[1024:], y[1024:]), batch_size=256)

layers = [nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
          nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
          nn.Dropout(0.2), nn.Linear(32, 5)]
if fault == "softmax-before-cross-entropy":
    layers.append(nn.Softmax(1))
if fault in ("learning-rate-too-high", "inputs-not-normalised"):
    layers = [each for each in layers if not isinstance(each, nn.BatchNorm2d)]
model = nn.Sequential(*layers).cuda().to(memory_format=torch.channels_last)
if amp == "compiled":
    model.compile()
rate = {"learning-rate-too-high": 5.0, "learning-rate-too-low": 1e-6}.get(fault, 0.05)
part = model[:3].parameters() if fault == "parameters-not-optimised" else model.parameters()
opt = torch.optim.SGD(part, lr=rate, momentum=0.9)
scaler = torch.amp.GradScaler("cuda", enabled=half is torch.float16)
for epoch in range(4):
    model.train()
    for xb, yb in train:
        xb, yb = xb.cuda(non_blocking=True), yb.cuda(non_blocking=True)
        with torch.autocast("cuda", half or torch.float16, enabled=half is not None):
            loss = F.cross_entropy(model(xb), yb)
        if fault != "gradients-not-zeroed":
            opt.zero_grad()
        scaler.scale(loss).backward()
        if fault != "optimizer-not-stepped":
            scaler.step(opt)
            scaler.update()
    if fault != "validated-in-train-mode":
        model.eval()
    with torch.no_grad():
        right = sum((model(xb.cuda()).argmax(1).cpu() == yb).sum().item() for xb, yb in valid)
    print(f"epoch {epoch}: {loss.item():.3f}, {right / 512:.3f}")
"""
FAULTS = [
    "softmax-before-cross-entropy",
    "learning-rate-too-high",
    "learning-rate-too-low",
    "parameters-not-optimised",
    "gradients-not-zeroed",
    "optimizer-not-stepped",
    "validated-in-train-mode",
    "labels-random",
    "inputs-not-normalised",
]


def doctor(folder: Path, *args: str) -> tuple[dict, str]:
    """Report on the script with these arguments, and everything that it printed."""
    (folder / "train.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "pellucid", "doctor", "--json", "train.py", "--", *args]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=HUNG_S)
    assert "{" in done.stdout, done.stderr
    return json.loads(done.stdout[done.stdout.index("\n{") :]), done.stdout + done.stderr


@pytest.mark.parametrize("amp", ["float32", "float16", "bfloat16", "compiled"])
def test_a_healthy_script(amp, tmp_path):
    report, printed = doctor(tmp_path, "none", amp)
    assert report["healthy"], printed


@pytest.mark.parametrize(
    ("fault", "amp"),
    [(fault, amp) for fault in FAULTS for amp in ("float32", "float16") if fault != "inputs-not-normalised"]
    + [("inputs-not-normalised", "float32")],  # in float16 every step overflows and is skipped
)
def test_a_fault_is_named(fault, amp, tmp_path):
    report, printed = doctor(tmp_path, fault, amp)
    accepted = {fault, "loss-not-a-number"} if fault == "learning-rate-too-high" and amp == "float16" else {fault}
    assert report["findings"] and report["findings"][0]["name"] in accepted, printed


def parts() -> tuple[nn.Module, torch.optim.Optimizer, DataLoader]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.1), nn.Flatten(),
                          nn.Linear(8 * 36, 4)).cuda()  # fmt: skip
    kinds = torch.randn(4, 1, 8, 8)
    y = torch.randint(4, (512,))
    data = DataLoader(TensorDataset(kinds[y] + 0.5 * torch.randn(512, 1, 8, 8), y), 32, shuffle=True)
    return model, torch.optim.AdamW(model.parameters(), 1e-2), data


def fit(model: nn.Module, optimizer: torch.optim.Optimizer, data: DataLoader) -> list[float]:
    losses = []
    for x, y in data:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x.cuda()), y.cuda())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_gathering_and_trials_leave_every_bit(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    model, optimizer, data = parts()
    expected = fit(model, optimizer, data), {k: v.clone() for k, v in model.state_dict().items()}
    model, optimizer, data = parts()
    with pellucid.watch(model, optimizer=optimizer, loss=True, doctor=True) as seen:
        found = fit(model, optimizer, data)
    states = torch.get_rng_state(), torch.cuda.get_rng_state()
    report = seen.diagnose()
    assert report.healthy, str(report)
    assert found == expected[0]
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in expected[1].items())
    assert torch.equal(states[0], torch.get_rng_state()) and torch.equal(states[1], torch.cuda.get_rng_state())


def test_examined_before_the_first_epoch():
    model, optimizer, data = parts()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    assert pellucid.examine(model, F.cross_entropy, data, optimizer=optimizer).healthy
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    model.append(nn.Softmax(1))
    report = pellucid.examine(model, F.cross_entropy, data, optimizer=optimizer)
    assert report.findings[0].name == "softmax-before-cross-entropy"
