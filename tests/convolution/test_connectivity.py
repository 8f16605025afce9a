"""An operation is described once: fields, traces, matrix, sheet and page follow its rule, each against PyTorch."""

from __future__ import annotations

from functools import cache

import numpy as np
import openpyxl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from browser import Tab
from office import recalculate
from pellucid import convolution as cv
from pellucid.convolution.connectivity import Gather, Kernel, Read, connection_of, rule
from pellucid.convolution.connectivity.axes import OUTSIDE, everything, window
from pellucid.convolution.connectivity.moves import Permute, Reshape, ahead, back
from pellucid.convolution.connectivity.moves import window as window_of


class Conv2dSame(nn.Conv2d):
    """TensorFlow's 'same' convolution, written as timm writes it."""

    def forward(self, input: Tensor) -> Tensor:
        sides = []
        for n, k, s, d in zip(input.shape[:1:-1], *(v[::-1] for v in self._settings()), strict=True):
            total = max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
            sides += [total // 2, total - total // 2]
        return F.conv2d(F.pad(input, sides), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)

    def _settings(self):
        return self.kernel_size, self.stride, self.dilation


class Difference(nn.Module):
    """Weighted neighbours in each row: an operation that the package does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([-1.0, 1.5]))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight[0] * x[..., :-1] + self.weight[1] * x[..., 1:]


@rule("Difference")
def difference(out, x, weight):
    """All that has to be written for it."""
    n = x.shape[1]
    moves = (Gather(3, window(x.shape[3], out[3], 2)),)
    return [Read(x, moves, Kernel(weight.expand(n, 1, 1, 2), groups=n))]


NETS = {
    "transposed": lambda: nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ConvTranspose2d(4, 6, 3, 2, 1, output_padding=1, groups=2), nn.ReLU()
    ),
    "dilated transposed": lambda: nn.Sequential(
        nn.Conv2d(1, 2, 1), nn.ConvTranspose2d(2, 3, (2, 3), (3, 1), (0, 1), dilation=(1, 2), bias=False), nn.Tanh()
    ),
    "pixel shuffle": lambda: nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.PixelShuffle(2), nn.Conv2d(2, 2, 2)),
    "pixel unshuffle": lambda: nn.Sequential(nn.Conv2d(1, 2, (2, 3)), nn.PixelUnshuffle(2), nn.Conv2d(8, 2, 1)),
    "tensorflow same": lambda: nn.Sequential(
        Conv2dSame(1, 2, 3, 2), nn.ReLU(), Conv2dSame(2, 2, (2, 4), (2, 1), dilation=(1, 2))
    ),
    "one of one's own": lambda: nn.Sequential(nn.Conv2d(1, 2, 2, padding=1), Difference(), nn.ReLU()),
}


@cache
def net(name: str) -> tuple[nn.Sequential, Tensor]:
    """The network, with weights that are alike in size, and an image."""
    torch.manual_seed(0)
    model = NETS[name]().double().eval()
    for p in model.parameters():
        nn.init.uniform_(p, 0.2, 1)
    return model, torch.rand(1, 1, 5, 6, dtype=torch.float64)


def outputs(name: str, x: Tensor) -> list[Tensor]:
    found = []
    with torch.no_grad():
        for module in net(name)[0]:
            x = module(x)
            found.append(x.clone())
    return found


def dependence(name: str, source: int) -> list[np.ndarray]:
    """For each later layer, which of its units turn nan when one of `source` does: [unit, channel, row, column]."""
    model, image = net(name)
    x = image if source < 0 else outputs(name, image)[source]
    spoiled = x.repeat(x.numel(), 1, 1, 1)
    spoiled.reshape(x.numel(), -1).fill_diagonal_(float("nan"))
    found = []
    with torch.no_grad():
        for module in model[source + 1 :]:
            spoiled = module(spoiled)
            found.append(spoiled.isnan().numpy())
    return found


@pytest.mark.parametrize("name", NETS)
def test_fields(name):
    model, image = net(name)
    field = cv.receptive_field(model, tuple(image.shape[1:]))
    assert not field.measured
    for layer, seen in enumerate(dependence(name, -1)):
        for place in np.ndindex(seen.shape[2:]):
            expected = seen[:, :, *place].any(1).reshape(image.shape[2:])
            np.testing.assert_array_equal(field.mask(str(layer), place).numpy(), expected)


@pytest.mark.parametrize("name", NETS)
def test_traces_back_and_ahead(name):
    model, image = net(name)
    values = outputs(name, image)
    labels = ["image", *map(str, range(len(model)))]
    for source in range(-1, len(model) - 1):
        seen = dependence(name, source)
        shape = (image if source < 0 else values[source]).shape[1:]
        for layer, marks in enumerate(seen, start=source + 1):
            for unit in [(0, 0, 0), tuple(n - 1 for n in marks.shape[1:]), tuple(n // 2 for n in marks.shape[1:])]:
                trace = cv.trace(model, image, str(layer), unit[1:], channel=unit[0])
                np.testing.assert_array_equal(
                    trace.precedents()[labels[source + 1]], marks[:, *unit].reshape(shape), err_msg=f"{layer} {unit}"
                )
        for number, unit in enumerate(np.ndindex(*shape)):
            if number % 5 == 0:
                dependents = cv.trace(model, image, labels[source + 1], unit[1:], channel=unit[0]).dependents()
                for layer, marks in enumerate(seen, start=source + 1):
                    np.testing.assert_array_equal(dependents[str(layer)], marks[number])


@pytest.mark.parametrize("name", NETS)
def test_the_numbers_behind_every_unit(name):
    model, image = net(name)
    before = image
    for layer, after in enumerate(outputs(name, image)):
        for unit in np.ndindex(*after.shape[1:]):
            found = cv.trace(model, image, str(layer), unit[1:], channel=unit[0]).immediate()
            assert found.kind in ("weighted", "function")
            assert found.products.sum() + found.bias == pytest.approx(after[0][unit].item(), abs=1e-12)
            for row in found.rows():
                if OUTSIDE not in row.position:
                    assert row.value == before[0][(row.channel, *row.position)].item()
        before = after


@pytest.mark.parametrize("name", NETS)
def test_matrix(name):
    model, image = net(name)
    x = image
    for module in model:
        if not isinstance(module, nn.ReLU | nn.Tanh):
            matrix = cv.as_matrix(module, tuple(x.shape[1:]))
            torch.testing.assert_close(matrix(x), module(x))
            one_by_one = torch.eye(x[0].numel(), dtype=x.dtype).reshape(-1, *x.shape[1:])
            columns = (module(one_by_one) - module(torch.zeros_like(x))).reshape(len(one_by_one), -1).T
            torch.testing.assert_close(matrix.dense().to(x.dtype), columns)
        x = module(x).detach()


@pytest.mark.parametrize("layer", [nn.AvgPool2d(3, 2, 1), nn.AvgPool2d(2, 2, ceil_mode=True), nn.AdaptiveAvgPool2d(2)])
def test_matrix_of_means(layer):
    x = torch.rand(2, 2, 5, 7, dtype=torch.float64)
    matrix = cv.as_matrix(layer, (2, 5, 7))
    torch.testing.assert_close(matrix.dense() @ x.reshape(2, -1).T.float(), layer(x).reshape(2, -1).T.float())


def test_a_matrix_reads_weights_that_change_and_gives_them_gradients():
    layer = Difference()
    matrix = cv.as_matrix(layer, (1, 2, 3))
    x = torch.rand(1, 1, 2, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([2.0, 3.0]))
    torch.testing.assert_close(matrix(x), layer(x))
    matrix(x).sum().backward()
    assert layer.weight.grad.tolist() == pytest.approx([x[..., :-1].sum().item(), x[..., 1:].sum().item()])


def test_sheets(libreoffice, tmp_path):
    results = {}
    for name in NETS:
        model, image = net(name)
        results[name] = cv.to_spreadsheet(model, image, tmp_path / f"{name}.xlsx", None)
        openpyxl.load_workbook(results[name].path).save(results[name].path)  # openpyxl drops the values of formulas
    sheets = recalculate(libreoffice, [result.path for result in results.values()], tmp_path)
    for (name, result), sheet in zip(results.items(), sheets, strict=True):
        drawn = 0
        for layer, expected in enumerate(outputs(name, net(name)[1])):
            for channel, cells in result.ranges[str(layer)].items():
                values = [[cell.value for cell in row] for row in sheet[cells]]
                np.testing.assert_allclose(np.array(values, float), expected[0, channel], atol=1e-9, err_msg=name)
                drawn += 1
        assert drawn >= 6


@pytest.mark.parametrize("name", NETS)
def test_page(name, chromium, tmp_path):
    model, image = net(name)
    file = cv.trace(model, image).animate(tmp_path / "trace.html")
    tab = Tab(chromium, file)
    for layer, expected in enumerate(outputs(name, image)):
        found = tab.page.evaluate(
            """(n) => Array.from({length: product(shapeOf(n))}, (_, at) => {
                const sum = calculation(n, unitAt(shapeOf(n), at));
                return sum && sum.entries.reduce((a, e) => a + e.product, 0) + sum.bias;
            })""",
            layer,
        )
        kind = tab.page.evaluate("n => calls[n].op.kind", layer)
        if kind != "function" or isinstance(model[layer], nn.PixelShuffle | nn.PixelUnshuffle):
            np.testing.assert_allclose(found, expected.flatten(), rtol=1e-5, atol=1e-6)
    last = len(model) - 1
    seen, units = dependence(name, -1)[last], outputs(name, image)[last][0]
    for unit in list(np.ndindex(*units.shape))[::7]:
        lit = tab.page.evaluate("([n, unit]) => Array.from(reached(n, unit).get(IMAGE))", [last, unit])
        np.testing.assert_array_equal(np.array(lit, bool), seen[:, *unit])
        pixels = image.clone().requires_grad_()
        model(pixels)[(0, *unit)].backward()
        found = tab.page.evaluate("([n, unit]) => Array.from(slopes(n, unit).get(IMAGE))", [last, unit])
        np.testing.assert_allclose(found, pixels.grad.flatten(), rtol=1e-4, atol=1e-5)
    tab.close(file)


def test_a_class_that_overrides_forward_is_not_taken_for_its_parent():
    class Doubled(nn.Conv2d):
        def forward(self, x):
            return 2 * super().forward(x)

    assert connection_of(Doubled(1, 1, 3), (1, 5, 5), (1, 3, 3)) is None
    assert connection_of(type("Conv2d", (Doubled,), {})(1, 1, 3), (1, 5, 5), (1, 3, 3)) is None
    model = nn.Sequential(Doubled(1, 1, 3, bias=False))
    x = torch.rand(1, 1, 5, 5)
    found = cv.trace(model, x, "0", (1, 1)).immediate()
    assert found.products.sum() + found.bias == pytest.approx(model(x)[0, 0, 1, 1].item(), rel=1e-5)


@st.composite
def gathered(draw):
    """A shape and some moves from it, of every kind."""
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=2, max_size=3)))
    now, moves = (1, *shape), []
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["window", "all", "permute", "reshape"]))
        if kind == "permute":
            order = (0, *draw(st.permutations(range(1, len(now)))))
            moves.append(Permute(order))
            now = tuple(now[d] for d in order)
        elif kind == "reshape":
            flat = (1, int(np.prod(now)))
            moves.append(Reshape(now, flat))
            now = flat
        else:
            dim = draw(st.integers(1, len(now) - 1))
            size, stride, before = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(0, 2))
            n_out = draw(st.integers(1, 4))
            taps = window(now[dim], n_out, size, stride, before)
            if kind == "all":
                taps = everything(now[dim], n_out)
            moves.append(Gather(dim, taps))
            now = (*now[:dim], n_out, *now[dim + 1 :])
    return (1, *shape), now, tuple(moves)


@given(gathered())
def test_back_ahead_and_window_are_one_relation(case):
    """Unit by unit: what an output reads, and which outputs an input is read by, are the same pairs."""
    shape, out, moves = case
    reads = np.zeros((int(np.prod(out)), int(np.prod(shape))), bool)
    for row, unit in enumerate(np.ndindex(*out)):
        mask = np.zeros(out, bool)
        mask[unit] = True
        reads[row] = np.broadcast_to(back(mask, moves), shape).ravel()
        places = window_of(moves, unit)
        if places is not None:
            met = [axis[axis != OUTSIDE] for axis in places]
            expected = np.zeros(shape, bool)
            expected[np.ix_(*met)] = True
            np.testing.assert_array_equal(reads[row], expected.ravel())
    for column, unit in enumerate(np.ndindex(*shape)):
        mask = np.zeros(shape, bool)
        mask[unit] = True
        np.testing.assert_array_equal(np.broadcast_to(ahead(mask, moves), out).ravel(), reads[:, column])
