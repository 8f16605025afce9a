"""A patch applies to the file it was made for, changes what the fault is about and nothing else."""

import subprocess

import pytest

from pellucid.doctor.patching import patch

PROGRAM = """import torch
from torch import nn
import torch.nn.functional as F
from torch.utils.data import DataLoader

LR = 10.0


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(4, 3)
        self.out = nn.Softmax(dim=1)  # é

    def forward(self, x):
        return self.out(F.relu(self.body(x)))


head = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Softmax(dim=1))
model = Net()
optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9)
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
loader = DataLoader(train, batch_size=64)
for epoch in range(3):
    for x, y in loader:
        loss = F.cross_entropy(F.softmax(model(x), dim=1), y)
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        check(model)
    scheduler.step()
"""


def line_of(text):
    return next(n for n, line in enumerate(PROGRAM.splitlines(), 1) if text in line)


@pytest.mark.parametrize(
    ("name", "at", "removed", "added"),
    [
        (
            "softmax-before-cross-entropy",
            "self.out = ",
            "nn.Softmax(dim=1)  # é",
            "        self.out = nn.Identity()  # é",
        ),
        (
            *("softmax-before-cross-entropy", "head ="),
            *(", nn.Softmax(dim=1))", "head = nn.Sequential(nn.Linear(4, 3), nn.ReLU())"),
        ),
        (
            *("softmax-before-cross-entropy", "loss = "),
            *("F.softmax(model(x), dim=1)", "        loss = F.cross_entropy(model(x), y)"),
        ),
        ("activation-on-output", "return self.out", "F.relu(", "        return self.out(self.body(x))"),
        ("learning-rate-too-high", "optimizer =", "LR = 10.0", "LR = 0.1"),
        ("gradients-not-zeroed", "loss.backward()", None, "        optimizer.zero_grad()"),
        ("model-left-in-eval-mode", "for x, y", None, "    model.train()"),
        ("validated-in-train-mode", "check(model)", None, "    model.eval()"),
        ("data-not-shuffled", "loader =", "batch_size=64)", "loader = DataLoader(train, batch_size=64, shuffle=True)"),
    ],
)
def test_a_patch_applies_and_treats(tmp_path, name, at, removed, added):
    file = tmp_path / "train.py"
    file.write_text(PROGRAM, encoding="utf-8")
    diff = patch(file, name, line_of(at), rate=0.1)
    assert file.read_text(encoding="utf-8") == PROGRAM  # it is never written
    subprocess.run(["patch", "-s", str(file)], input=diff, text=True, check=True)
    before, after = PROGRAM.splitlines(), file.read_text(encoding="utf-8").splitlines()
    gone, new = [each for each in before if each not in after], [each for each in after if each not in before]
    assert added in new
    assert len(gone) == (removed is not None)
    assert all(removed in each for each in gone)


def test_validation_needs_both_modes(tmp_path):
    file = tmp_path / "train.py"
    file.write_text(PROGRAM)
    diff = patch(file, "validated-in-train-mode", None)
    assert diff is not None
    assert "+    model.eval()" in diff and "+    model.train()" in diff


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("labels-random", PROGRAM, 1),  # no change of the program helps
        ("softmax-before-cross-entropy", PROGRAM, line_of("optimizer =")),  # nothing of the kind there
        ("softmax-before-cross-entropy", PROGRAM, None),  # three places
        ("gradients-not-zeroed", PROGRAM.replace("loss.backward()", "optimizer.zero_grad(); loss.backward()"), None),
        ("learning-rate-too-high", PROGRAM.replace("lr=LR", "lr=parse()"), None),
        ("data-not-shuffled", PROGRAM.replace("batch_size=64", "batch_sampler=mine"), None),
        ("data-not-shuffled", "def (", 1),
    ],
)
def test_no_patch_where_the_change_is_not_plain(tmp_path, name, text, line):
    file = tmp_path / "train.py"
    file.write_text(text)
    assert patch(file, name, line, rate=0.1) is None


def test_line_ends_stay(tmp_path):
    file = tmp_path / "train.py"
    file.write_bytes(b"loader = DataLoader(a)\r\nx = 1\r\n")
    diff = patch(file, "data-not-shuffled", 1)
    assert diff is not None
    assert "+loader = DataLoader(a, shuffle=True)\r\n" in diff
