"""Sheets written by to_spreadsheet, recalculated by LibreOffice and read by openpyxl, against PyTorch."""

from __future__ import annotations

import sys

import numpy as np
import openpyxl
import pytest
import torch
from openpyxl.formula import Tokenizer
from openpyxl.utils import range_boundaries
from PIL import Image
from torch import nn

from office import recalculate
from pellucid import convolution as cv
from pellucid.errors import UsageError
from pellucid.nn.models import simple_cnn

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")

STATS = (0.1307, 0.3081)
PIXEL, CHANGED = (11, 14), 9.0  # the pixel that is changed, and to what where the sheet starts from network input


def chapter_net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 1, 3, 2, 1), nn.ReLU(), nn.Conv2d(1, 1, 3, 2, 1), nn.ReLU())


def digit(mnist_sample) -> torch.Tensor:
    file = sorted((mnist_sample / "train" / "7").glob("*.png"))[3]
    return torch.tensor(np.array(Image.open(file)))


def trained(model: nn.Module) -> nn.Module:
    """The model with running statistics and scales as they are after training, not those of a new one."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    return model.eval()


def nets(mnist_sample) -> dict[str, tuple[nn.Module, torch.Tensor, dict]]:
    """Models, images and further arguments."""
    torch.manual_seed(0)
    pixels = digit(mnist_sample)
    photo = torch.rand(3, 17, 20)
    pooled = nn.Sequential(
        *(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Conv2d(4, 3, (2, 3))),
        *(nn.AvgPool2d(3, 2, 1), nn.AvgPool2d(2, 1, 1, count_include_pad=False, ceil_mode=True)),
        *(nn.MaxPool2d(2, dilation=2), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 2)),
    )
    ceiled = nn.Sequential(
        *(
            nn.Conv2d(3, 2, 1, bias=False),
            nn.GELU(),
            nn.GELU("tanh"),
            nn.AvgPool2d(3, 2, 1, ceil_mode=True),
            nn.AdaptiveMaxPool2d((3, 4)),
        ),
        *(nn.Conv2d(2, 1, 2), nn.AvgPool2d(2, divisor_override=3)),
    )
    grouped = nn.Sequential(
        *(
            nn.Conv2d(3, 6, 3, groups=3, dilation=2, padding=2, padding_mode="reflect"),
            nn.GroupNorm(2, 6),
            nn.Dropout2d(),
        ),
        *(nn.Conv2d(6, 4, (2, 4), groups=2, padding="same"), nn.LeakyReLU(0.1), nn.Tanh(), nn.InstanceNorm2d(4)),
        *(nn.Conv2d(4, 2, 3, (2, 1), (1, 2), (1, 3), padding_mode="circular"), nn.Sigmoid(), nn.ELU(), nn.SiLU()),
        *(nn.Conv2d(2, 2, 3, padding=1, padding_mode="replicate"), nn.Hardswish(), nn.ReLU6()),
    )
    return {
        "chapter": (chapter_net(), pixels / 255, {}),
        "simple_cnn": (trained(simple_cnn()), (pixels / 255 - STATS[0]) / STATS[1], {"normalize": STATS}),
        "pooled": (pooled, photo, {}),
        "ceiled": (ceiled, photo, {"layers": None}),
        "grouped": (grouped, photo, {"layers": ["0", "3", "7", "11"]}),
    }


def activations(model: nn.Module, image: torch.Tensor) -> dict[str, np.ndarray]:
    """Output of every innermost module, taken by hooks."""
    found, hooks = {}, []
    for name, module in model.named_modules():
        if not list(module.children()):
            hooks.append(module.register_forward_hook(lambda m, i, o, n=name: found.update({n: o[0].clone().numpy()})))
    with torch.no_grad():
        model.eval()(image.reshape(1, -1, *image.shape[-2:]))
    for hook in hooks:
        hook.remove()
    return found


def read(sheet, cells: str) -> np.ndarray:
    return np.array([[cell.value for cell in row] for row in sheet[cells]])


def check(sheet, ranges: dict, expected: dict[str, np.ndarray]) -> None:
    """Every cell of every drawn layer against PyTorch."""
    assert len(set(ranges) & set(expected)) >= 3
    for name, channels in ranges.items():
        if name in expected:
            assert list(channels) == list(range(len(expected[name])))
            for channel, cells in channels.items():
                values = read(sheet, cells).astype(float)
                np.testing.assert_allclose(values, expected[name][channel], rtol=0, atol=1e-5, err_msg=name)


@pytest.fixture(scope="module")
def written(mnist_sample, tmp_path_factory):
    """Each net with its image and its sheet."""
    folder = tmp_path_factory.mktemp("sheets")
    return {
        name: (model, image, cv.to_spreadsheet(model, image, folder / f"{name}.xlsx", **options))
        for name, (model, image, options) in nets(mnist_sample).items()
    }


@pytest.fixture(scope="module")
def recalculated(written, libreoffice, tmp_path_factory):
    """Each sheet, as it was written and with one pixel changed, after LibreOffice computed all of it anew."""
    base = tmp_path_factory.mktemp("libreoffice")
    files = []
    for name, (_, _, result) in written.items():
        book = openpyxl.load_workbook(result.path)
        first = next(iter(result.ranges.values()))[0]
        for change in ("same", "changed"):
            if change == "changed":
                cell = book.active[first][PIXEL[0]][PIXEL[1]]
                cell.value = 200 if "pixels" in result.ranges else CHANGED
            files.append(base / f"{name}-{change}.xlsx")
            book.save(files[-1])  # openpyxl drops the values of formulas
        last = list(result.ranges.values())[-1][0]
        assert (read(openpyxl.load_workbook(files[-1], data_only=True).active, last) == None).all()  # noqa: E711
    sheets = recalculate(libreoffice, files, base)
    return {file.stem: sheet for file, sheet in zip(files, sheets, strict=True)}


NAMES = ["chapter", "simple_cnn", "pooled", "ceiled", "grouped"]


@pytest.mark.parametrize("name", NAMES)
def test_libreoffice_finds_what_pytorch_finds(name, written, recalculated):
    model, image, result = written[name]
    check(recalculated[f"{name}-same"], result.ranges, activations(model, image))


@pytest.mark.parametrize("name", NAMES)
def test_a_changed_pixel_changes_the_sheet_as_it_changes_the_network(name, written, recalculated):
    model, image, result = written[name]
    changed = image.clone().reshape(-1, *image.shape[-2:])
    changed[0][PIXEL] = (200 / 255 - STATS[0]) / STATS[1] if "pixels" in result.ranges else CHANGED
    before, after = activations(model, image), activations(model, changed)
    last = list(result.ranges)[-1]
    assert abs(before[last] - after[last]).max() > 1e-4
    check(recalculated[f"{name}-changed"], result.ranges, after)


@pytest.mark.parametrize("name", NAMES)
def test_the_file_itself_holds_the_values(name, written):
    model, image, result = written[name]
    values = openpyxl.load_workbook(result.path, data_only=True).active
    formulas = openpyxl.load_workbook(result.path).active
    check(values, result.ranges, activations(model, image))
    for layer, channels in list(result.ranges.items())[1:]:
        for cells in channels.values():
            kept = read(formulas, cells)
            assert all(str(text).startswith("=") for text in kept.flat), layer


def precedents(sheet, cell) -> set[tuple[int, int]]:
    """(row, column) of every cell that a cell's formula refers to."""
    found = set()
    if not str(cell.value).startswith("="):
        return found
    for token in Tokenizer(cell.value).items:
        if token.type == "OPERAND" and token.subtype == "RANGE":
            left, top, right, bottom = range_boundaries(token.value.replace("$", ""))
            found |= {(row, column) for row in range(top, bottom + 1) for column in range(left, right + 1)}
    return found


def inside(cells: set[tuple[int, int]], area: str) -> set[tuple[int, int]]:
    """Those that lie in an area, counted from its first cell."""
    left, top, right, bottom = range_boundaries(area)
    return {(r - top, c - left) for r, c in cells if top <= r <= bottom and left <= c <= right}


@pytest.mark.parametrize("place", [(0, 0), (3, 5), (6, 6)])
def test_precedents_are_the_receptive_field(place, written):
    """Followed back through all formulas, a cell rests on the pixels that have a gradient, and no others."""
    _, image, result = written["chapter"]
    sheet = openpyxl.load_workbook(result.path).active
    cell = sheet[result.ranges["3"][0]][place[0]][place[1]]
    reached, front = set(), {(cell.row, cell.column)}
    steps = []
    while front:
        front = set().union(*(precedents(sheet, sheet.cell(*at)) for at in front))
        steps.append(len(front))
        reached |= front
    ones = chapter_net()
    x = torch.ones(1, 1, *image.shape[-2:], requires_grad=True)
    for module in (ones[0], ones[2]):
        nn.init.ones_(module.weight)
    ones(x)[(0, 0, *place)].backward()
    expected = {tuple(at) for at in x.grad[0, 0].nonzero().tolist()}
    assert inside(reached, result.ranges["image"][0]) == expected
    assert steps[:2] == [1, 19]  # ReLU has one precedent; a convolution a window of 9, a kernel of 9 and a bias


def test_a_dilated_kernel_refers_to_its_pixels_only(written):
    _, _, result = written["grouped"]
    sheet = openpyxl.load_workbook(result.path).active
    cell = sheet[result.ranges["0"][2]][8][8]  # channel 2 of 6 in 3 groups sees channel 1 of 3
    taps = {(row, column) for row in (6, 8, 10) for column in (6, 8, 10)}
    image = result.ranges["image"]
    assert [inside(precedents(sheet, cell), image[channel]) for channel in range(3)] == [set(), taps, set()]


def test_looks_like_pixels_on_one_sheet(written):
    book = openpyxl.load_workbook(written["chapter"][2].path)
    sheet = book.active
    assert len(book.worksheets) == 1
    assert sheet.freeze_panes == "A8"
    assert sheet.column_dimensions["A"].width < 4
    texts = [cell.value for row in sheet["A1:DD8"] for cell in row if isinstance(cell.value, str)]
    assert {"Image", "Convolution 1", "Convolution 2", "ReLU", "3×3, stride 2, padding 1"} <= set(texts)
    kinds = [rule.type for rules in sheet.conditional_formatting for rule in rules.rules]
    assert kinds.count("colorScale") == 7  # image, two kernels, four maps


def test_channels_leave_every_sum_complete(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3, groups=3), nn.ReLU(), nn.Conv2d(6, 4, 3, groups=2), nn.ReLU())
    image = torch.rand(3, 9, 9)
    result = cv.to_spreadsheet(model, image, tmp_path / "a.xlsx", channels=[3])
    drawn = {name: list(channels) for name, channels in result.ranges.items()}
    assert drawn == {"image": [1, 2], "0": [3, 4, 5], "1": [3, 4, 5], "2": [3], "3": [3]}
    sheet = openpyxl.load_workbook(result.path).active
    cell = sheet[result.ranges["2"][3]][0][0]
    assert len(precedents(sheet, cell)) == 3 * 9 * 2 + 1
    assert list(cv.to_spreadsheet(model, image, tmp_path / "b.xlsx", channels=2).ranges["3"]) == [0, 1]


def test_layers_choose_a_part(tmp_path):
    model, image = simple_cnn(), torch.rand(28, 28)

    def drawn(layers):
        return list(cv.to_spreadsheet(model, image, tmp_path / "a.xlsx", layers, channels=1).ranges)

    assert drawn(1) == ["image", "0.0", "0.1", "0.2"]
    assert drawn("4") == drawn(["4.0"]) == drawn([8]) == drawn([-2]) == ["input", "4.0", "4.1"]
    assert drawn(["3", "4"]) == ["input", "3.0", "3.1", "3.2", "4.0", "4.1"]


def test_a_part_may_lie_between_branches(tmp_path):
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.act, self.second = nn.Conv2d(1, 1, 3, padding=1), nn.ReLU(True), nn.Conv2d(1, 1, 1)

        def forward(self, x):
            return self.second(x + self.act(self.first(x)))

    model, image = Residual(), torch.rand(6, 6)
    assert list(cv.to_spreadsheet(model, image, tmp_path / "a.xlsx", 1).ranges) == ["image", "first", "act"]
    assert list(cv.to_spreadsheet(model, image, tmp_path / "a.xlsx", ["second"]).ranges) == ["input", "second"]
    with pytest.raises(UsageError, match=r"between 'act' and 'second' .* layers=, such as \['first'\]"):
        cv.to_spreadsheet(model, image, tmp_path / "b.xlsx")
    assert not (tmp_path / "b.xlsx").exists()


def broken() -> nn.Module:
    model = chapter_net()
    model[2].weight.data[0, 0, 0, 0] = float("nan")
    return model


class OwnConvolution(nn.Conv2d):
    def forward(self, input):
        return super().forward(input) * 2


two, small = chapter_net, torch.rand(8, 8)
WRONG = [
    (lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), small, {}, "Sequential calls no convolution"),
    (
        lambda: nn.Sequential(nn.Conv2d(1, 1, 1), nn.PReLU()),
        small,
        {},
        "layer '1' is a PReLU.* knows Conv2d, MaxPool2d",
    ),
    (lambda: nn.Sequential(OwnConvolution(1, 1, 1)), small, {}, "layer '0' is a OwnConvolution"),
    (lambda: nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, track_running_stats=False)), small, {}, "no running"),
    (broken, small, {}, "weight of layer '2' has 1 value that is nan or infinite"),
    (two, small / 0, {}, "the image has 64 values that are nan or infinite"),
    (two, torch.rand(600, 600), {}, r"the part has 588,628 cells; .* 250,000: choose fewer layers by layers="),
    (two, torch.rand(3, 16_400), {}, r"41,\d+ columns; a sheet has 1,048,576 × 16,384"),
    (lambda: nn.Sequential(nn.Conv2d(512, 1, 3)), torch.rand(512, 3, 3), {}, "a cell holds 8,192"),
    (
        lambda: nn.Sequential(nn.Conv2d(1, 256, 1), nn.GroupNorm(1, 256)),
        torch.rand(2, 2),
        {},
        "over 256 channels; a formula takes 255",
    ),
    (two, torch.rand(2, 3, 8, 8), {}, "an image has shape"),
    (two, small, {"path": "a.xls"}, "ends in .xlsx: a.xls"),
    (two, small, {"path": "/nowhere/a.xlsx"}, "folder of /nowhere/a.xlsx does not exist"),
    (two, small, {"layers": 0}, "layers=0 shows nothing: give 1 or more, or None for all 2"),
    (two, small, {"layers": []}, "layers=.. shows nothing"),
    (two, small, {"layers": "conv3"}, "convolution 'conv3' does not exist: there are '0', '2'"),
    (two, small, {"layers": [5]}, "convolution 5 does not exist"),
    (simple_cnn, torch.rand(28, 28), {"layers": ["0", "2"]}, "must follow one another; '1.0' is left out"),
    (two, small, {"channels": 0}, "channels=0 shows nothing: give 1 to 1"),
    (two, small, {"channels": [1]}, r"channels=\[1\]: layer '3' has channels 0 to 0"),
    (two, small, {"normalize": ([0.1, 0.2], 1)}, "a number each, or one for each of the 1 channels"),
    (two, small, {"normalize": (0, 0)}, "positive standard deviations"),
]


@pytest.mark.parametrize(("model", "image", "options", "message"), WRONG, ids=[case[3][:30] for case in WRONG])
def test_wrong_input(model, image, options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message):
        cv.to_spreadsheet(model(), image, **{"path": "a.xlsx", **options})
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written(tmp_path):
    (tmp_path / "a.xlsx").mkdir()
    with pytest.raises(UsageError, match=r"a.xlsx cannot be written \(Is a directory\)"):
        cv.to_spreadsheet(chapter_net(), small, tmp_path / "a.xlsx")


def test_without_xlsxwriter(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "xlsxwriter", None)
    with pytest.raises(UsageError, match=r"needs XlsxWriter: pip install 'pellucid\[spreadsheet\]'"):
        cv.to_spreadsheet(chapter_net(), small, tmp_path / "a.xlsx")
