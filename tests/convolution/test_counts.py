"""Counts against brute force, against PyTorch's own counter of operations, and against the chapter."""

from __future__ import annotations

import json
from math import prod

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from commands import pellucid
from pellucid import convolution as cv
from pellucid.convolution.fields.receptive import receptive_field
from pellucid.errors import UsageError
from pellucid.nn.models import small_resnet

CHAPTER = "conv 1 4 k3 s2 p1, relu, conv 4 8 k3 s2 p1, relu, conv 8 16 k3 s2 p1, relu, conv 16 32 k3 s2 p1, relu, "
CHAPTER += "conv 32 2 k3 s2 p1, flatten"


class Branches(nn.Module):
    """Two depthwise-separable branches of different size, joined, and a layer that is called twice."""

    def __init__(self):
        super().__init__()
        self.left = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.Conv2d(6, 8, 1))
        self.right = nn.Sequential(nn.Conv2d(6, 8, 5, padding=2, groups=2), nn.ReLU())
        self.twice = nn.Conv2d(8, 8, 3, padding=2, dilation=2, bias=False)
        self.up = nn.ConvTranspose2d(8, 4, 3, stride=2, groups=4)
        self.scale = nn.Parameter(torch.ones(4, 1, 1))
        self.head = nn.Linear(4, 10)

    def forward(self, x):
        x = self.twice(self.twice(self.left(x) + self.right(x)))
        return self.head((self.up(x) * self.scale).mean((2, 3)))


def brute_force(layer: nn.Module, x: torch.Tensor) -> int:
    """Count by setting weights and inputs to one: with no padding each multiplication adds one to the outputs' sum."""
    with torch.no_grad():
        layer.weight.fill_(1)  # pyright: ignore
        return int(layer(torch.ones_like(x)).sum())


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(3, 8, 3, bias=False), (1, 3, 9, 7)),
        (nn.Conv2d(4, 8, 3, stride=2, groups=2, bias=False), (1, 4, 9, 9)),
        (nn.Conv2d(2, 2, 3, dilation=2, groups=2, bias=False), (1, 2, 11, 11)),
        (nn.Conv1d(2, 5, 4, bias=False), (1, 2, 20)),
        (nn.Conv3d(1, 2, 2, bias=False), (1, 1, 4, 5, 6)),
        (nn.ConvTranspose2d(3, 4, 3, stride=2, bias=False), (1, 3, 5, 5)),
        (nn.Linear(6, 5, bias=False), (1, 6)),
        (nn.Linear(6, 5, bias=False), (1, 3, 6)),
    ],
)
def test_multiplications_equal_a_count_by_ones(layer, shape):
    (row,) = cv.layer_counts(layer, shape[1:], fields=False).rows
    assert row.n_multiplications == brute_force(layer, torch.zeros(shape))


@pytest.mark.parametrize(
    ("model", "size"),
    [
        (Branches(), (6, 12, 10)),
        (small_resnet(3, 5), (3, 65, 64)),
        (cv.network(CHAPTER, (1, 28, 28)), (1, 28, 28)),
        (cv.network("conv 2 4 k5 s2 g2, deconv 3 k4 s3 op1, maxpool k2, flatten, linear 7", (2, 31)), (2, 31)),
        (nn.Conv3d(1, 4, (2, 3, 3)), (1, 8, 9, 9)),
    ],
)
def test_multiplications_are_half_of_the_operations_torch_counts(model, size):
    x = torch.zeros(1, *size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(x)
    table = cv.layer_counts(model, size, fields=False)
    assert table.n_multiplications == sum(row.n_multiplications for row in table.rows) == counter.get_total_flops() / 2
    assert table.n_params == sum(p.numel() for p in model.parameters())
    assert all(row.n_activations == prod(row.shape) for row in table.rows)


def test_the_chapters_table():
    table = cv.layer_counts(CHAPTER, (1, 28, 28))
    rows = [row for row in table.rows if row.n_params]
    assert [row.n_params for row in rows] == [40, 296, 1_168, 4_640, 578] and table.n_params == 6_722
    assert [row.shape for row in rows] == [(4, 14, 14), (8, 7, 7), (16, 4, 4), (32, 2, 2), (2, 1, 1)]
    assert [row.n_multiplications_input for row in rows[1:3]] == [56_448, 56_448]
    assert [row.n_multiplications for row in rows[1:3]] == [14_112, 18_432]
    assert [row.field for row in rows] == [(3, 3), (7, 7), (15, 15), (31, 31), (63, 63)]
    assert "conv 4 8 k3 s2 p1    8×7×7           296           14,112      56,448          392      7" in str(table)
    wide = "conv 1 8 k5 s2 p2, conv 8 16 k3 s2 p1, conv 16 32 k3 s2 p1, conv 32 64 k3 s2 p1, conv 64 10 k3 s2 p1"
    table = cv.layer_counts(wide, (1, 28, 28))
    assert table.n_params == 30_282
    assert [row.field for row in table.rows] == [(5, 5), (9, 9), (17, 17), (33, 33), (65, 65)]


def test_branches_shared_layers_and_parameters_outside_layers():
    model = Branches()
    table = cv.layer_counts(model, (6, 12, 10))
    names = [row.name for row in table.rows]
    assert names == ["left.0", "left.1", "right.0", "right.1", "twice", "twice#2", "up", "head", ""]
    by_name = dict(zip(names, table.rows, strict=True))
    assert by_name["left.0"].layer == "dwconv 6 6 k3 p1" and by_name["up"].layer == "deconv 8 4 k3 s2 g4"
    assert by_name["twice"].n_params == 576 and by_name["twice#2"].n_params == 0
    assert by_name["twice"].n_multiplications == by_name["twice#2"].n_multiplications == 576 * 120
    fields = {row.name: row.size for row in receptive_field(model, (6, 12, 10)).layers}
    assert all(row.field == fields[row.name] for row in table.rows[:-1])
    assert by_name["twice#2"].field == (13, 13)
    assert by_name[""].n_params == 4 and "(model)" in str(table)
    assert sum(row.n_params for row in table.rows) == table.n_params


def test_a_model_without_kernels_has_no_fields():
    table = cv.layer_counts(nn.Sequential(nn.Linear(784, 30), nn.ReLU(), nn.Linear(30, 1)), (784,))
    assert [row.n_multiplications for row in table.rows] == [784 * 30, 0, 30]
    assert all(row.field is None for row in table.rows) and "Field:" not in str(table)


def test_counting_leaves_the_model_as_it_was():
    model = small_resnet(3, 5).train()
    model[0].eval()  # pyright: ignore
    before = {name: value.clone() for name, value in model.state_dict().items()}
    cv.layer_counts(model, (3, 32, 32))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training and not model[0].training  # pyright: ignore
    assert not any(module._forward_hooks for module in model.modules())
    with pytest.raises(UsageError):
        cv.layer_counts(model, (4, 32, 32))
    assert model.training and not any(module._forward_hooks for module in model.modules())


def test_html_has_the_cells_of_the_text():
    table = cv.layer_counts(CHAPTER, (1, 28, 28))
    html = table._repr_html_()
    assert html.count("<tr>") == len(table.rows) + 2
    for cell in ("conv 4 8 k3 s2 p1", "8×7×7", "56,448", "14,112", "6,722"):
        assert f">{cell}<" in html


def test_doubling_channels_keeps_the_work():
    net = "conv 1 8 k3 s2 p1, relu, conv 8 8 k3 s2 p1, relu, conv 8 8 k3 s2 p1, relu, conv 8 8 k3 s2 p1"
    table = cv.compare_channels(net, (1, 64, 64))
    assert [row.kept.n_multiplications for row in table.rows[1:]] == [147_456, 36_864, 9_216]
    assert [row.doubled.n_multiplications for row in table.rows[1:]] == [294_912] * 3
    assert [row.doubled.channels for row in table.rows] == [(1, 8), (8, 16), (16, 32), (32, 64)]
    for channels, costs in ((8, [row.kept for row in table.rows]), (64, [row.doubled for row in table.rows])):
        assert costs[-1].channels[1] == channels
        widths = [cost.channels for cost in costs]
        same = cv.layer_counts(", ".join(f"conv {i} {o} k3 s2 p1" for i, o in widths), (1, 64, 64)).rows
        assert [(c.n_params, c.n_multiplications, c.n_activations) for c in costs] == [
            (row.n_params, row.n_multiplications, row.n_activations) for row in same
        ]


def test_the_chapters_net_is_its_own_doubled_version():
    table, counts = cv.compare_channels(CHAPTER, (1, 28, 28)), cv.layer_counts(CHAPTER, (1, 28, 28))
    rows = [row for row in counts.rows if row.n_params]
    assert [row.doubled.n_multiplications for row in table.rows] == [row.n_multiplications for row in rows]
    assert [row.kept.channels for row in table.rows] == [(1, 4), (4, 4), (4, 4), (4, 4), (4, 2)]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cv.layer_counts(nn.Conv2d(1, 2, 3), (3, 8, 8)), "Conv2d does not take an image of shape (3, 8, 8)"),
        (lambda: cv.layer_counts(nn.ReLU(), (0, 8)), "input_size is the shape of one image"),
        (lambda: cv.layer_counts(nn.ReLU(), ()), "input_size is the shape of one image"),
        (lambda: cv.compare_channels("relu", (1, 8, 8)), "no convolutions whose channels could be compared"),
        (
            lambda: cv.compare_channels(Branches(), (6, 8, 8)),
            "'right.0' takes 6 channels and 'left.1' before it gives 8",
        ),
        (lambda: cv.compare_channels("conv 4 4 k3 g2", (4, 8, 8)), "'0' has 2"),
        (lambda: cv.compare_channels(nn.Conv2d(1, 2, 3), (3, 8, 8)), "does not take an image"),
    ],
)
def test_wrong_input_is_named(call, message):
    with pytest.raises(UsageError) as caught:
        call()
    assert message in str(caught.value)


def test_the_command_prints_the_table():
    net = "conv 1 8 k5 s2 p2, relu, conv 8 16 k3 s2 p1"
    done = pellucid("arithmetic", net, "--input", "1x28x28")
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout == f"{cv.layer_counts(net, (1, 28, 28))}\n"
    assert "conv 8 16 k3 s2 p1  16×7×7        1,168           56,448     225,792          784      9" in done.stdout


def test_the_command_gives_json_and_compares_channels():
    done = pellucid("arithmetic", CHAPTER, "--input", "1x28x28", "--json")
    assert [row["n_params"] for row in json.loads(done.stdout)["rows"][::2]] == [40, 296, 1168, 4640, 578]
    done = pellucid("arithmetic", CHAPTER, "--input", "1x28x28", "--channels")
    assert done.stdout == f"{cv.compare_channels(CHAPTER, (1, 28, 28))}\n"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["conv 1 8 q5", "--input", "1x28x28"], "conv 1 8 q5\n           ^^"),
        (["relu", "--input", "28*28"], "input '28*28' is no shape"),
        (["relu"], "--input"),
    ],
)
def test_the_command_says_what_was_wrong(args, message):
    done = pellucid("arithmetic", *args)
    assert done.returncode == 2 and message in done.stderr
