"""The page in a real Chromium: what it lights and the numbers it shows, against PyTorch."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from browser import Tab, number
from pellucid import convolution as cv
from pellucid.errors import UsageError
from pellucid.nn.models import simple_cnn, small_resnet

PRECEDENT = (224, 138, 0)


def nan_reach(model: nn.Module, x: torch.Tensor, name: str, unit: tuple[int, ...]) -> np.ndarray:
    """Pixels that turn a unit nan when they are nan."""
    spoiled = x.repeat(x.numel(), 1, 1, 1)
    spoiled.reshape(x.numel(), -1).fill_diagonal_(float("nan"))
    found = {}
    hook = model.get_submodule(name).register_forward_hook(lambda _, __, out: found.update(out=out))
    with torch.no_grad():
        model(spoiled)
    hook.remove()
    return found["out"][(slice(None), *unit)].isnan().reshape(x.shape[1:]).numpy()


@pytest.fixture(scope="module")
def digit(tmp_path_factory):
    """The chapter's network with norms that do something, a digit-like image, and their page."""
    torch.manual_seed(0)
    model = simple_cnn()
    image = torch.zeros(1, 1, 28, 28)
    image[0, 0, 6:9, 6:22], image[0, 0, 9:23, 17:20] = 1, 0.7
    image = (image - 0.1307) / 0.3081
    model.train()
    with torch.no_grad():
        for _ in range(30):
            model(image + torch.randn(16, 1, 28, 28))
    model.eval()
    file = cv.trace(model, image, "1", (3, 5), channel=4).animate(tmp_path_factory.mktemp("page") / "trace.html")
    return model, image, file


def outputs(model: nn.Sequential, x: torch.Tensor) -> list[np.ndarray]:
    found = []
    with torch.no_grad():
        for module in model:
            x = module(x)
            found.append(x[0].numpy())
    return found


def test_the_page_is_small_and_opens_at_the_activation(chromium, digit):
    model, image, file = digit
    assert file.stat().st_size < 1e6
    tab = Tab(chromium, file)
    value = outputs(model, image)[1][4, 3, 5]
    assert tab.where() == f"layer 1, channel 4, row 3, column 5: {value:.4f}".replace("-", "−")
    assert tab.page.locator("section.stage h3").all_inner_texts() == ["image", *(f"layer {n}" for n in range(5))]
    assert tab.page.title() == f"1, channel 4 at (3, 5): {value:.4f}"
    tab.close(file)


def test_a_click_lights_the_window_down_to_the_image_and_shows_its_numbers(chromium, digit):
    model, image, file = digit
    tab = Tab(chromium, file)
    tab.click("layer 2", 0, 2)
    after = outputs(model, image)
    channel = int(re.search(r"channel (\d+)", tab.where())[1])
    np.testing.assert_array_equal(tab.lit("image"), nan_reach(model, image, "2", (channel, 0, 2)))
    window = np.zeros((16, 7, 7), bool)
    window[:, 0:2, 3:6] = True
    np.testing.assert_array_equal(tab.lit("layer 1"), window)
    assert tab.lit("layer 2").sum() == 1 and tab.lit("layer 4").all()

    conv, _, _ = model[2]
    padded = F.pad(torch.tensor(after[1]), (1, 1, 1, 1))[:, 0:3, 4:7].numpy()
    weights = conv.weight[channel].detach().numpy()
    sums = (padded * weights).sum((1, 2))
    strongest = np.argsort(-np.abs(sums))[:6]
    tables = tab.tables()
    assert len(tables) == 18
    for place, source in enumerate(strongest):
        for table, true in zip(tables[3 * place :], (padded, weights, padded * weights), strict=False):
            np.testing.assert_allclose(table, true[source], atol=5.1e-5)
    with torch.no_grad():
        summed = conv(torch.tensor(after[1])[None])[0, channel, 0, 2].item()
    relu, last = max(0, summed), after[2][channel, 0, 2]
    bias = conv.bias[channel].item()
    np.testing.assert_allclose(tab.numbers(), [summed - bias, bias, summed, relu, last], atol=6e-5)
    tab.page.locator("button.more").click()
    assert len(tab.tables()) == 48
    tab.close(file)


def test_total_weights_are_pytorchs_gradients(chromium, digit):
    model, image, file = digit
    tab = Tab(chromium, file)
    tab.click("layer 4", 1, 1)  # single numbers stand in two columns
    assert tab.where().startswith("layer 4, channel 3:")
    pixels = image.clone().requires_grad_()
    model(pixels)[0, 3].backward()
    np.testing.assert_allclose(tab.page.evaluate("window.pellucid.weights()"), pixels.grad.flatten().numpy(), atol=1e-5)
    told = tab.stage("image").locator(".caption").last.inner_text()
    products, biases = (number(text) for text in re.findall(r"[−]?\d+\.\d+", told))
    full = cv.trace(model, image, "5", 3).full()
    assert products == pytest.approx(full.products.sum(), abs=6e-5)
    assert biases == pytest.approx(full.constant, abs=2e-4)
    tab.close(file)


def test_what_is_lit_is_painted(chromium, digit):
    _, _, file = digit
    tab = Tab(chromium, file)
    lit = tab.lit("image")[0]
    rows, columns = np.flatnonzero(lit.any(1)), np.flatnonzero(lit.any(0))
    colours = """cells => {
        const { canvas, scale } = views[0], context = canvas.getContext('2d');
        const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
        return cells.map(([row, column]) => {
            const at = 4 * (Math.round(row * scale) * canvas.width + Math.round((column + 0.5) * scale));
            return [...pixels.data.slice(at, at + 3)];
        });
    }"""
    column = int(columns[2])
    edge, outside = tab.page.evaluate(colours, [[int(rows[0]), column], [int(rows[-1]) + 3, column]])
    np.testing.assert_allclose(edge, PRECEDENT, atol=12)
    assert np.abs(np.array(outside) - PRECEDENT).max() > 60
    assert tab.page.locator(".links path").count() == 2  # image → layer 0 → layer 1
    tab.close(file)


def test_the_keyboard_reaches_everything(chromium, digit):
    model, image, file = digit
    tab = Tab(chromium, file)
    keys = tab.page.keyboard
    for _ in range(3):
        keys.press("Tab")
    assert tab.page.evaluate("document.activeElement.closest('section').querySelector('h3').textContent") == "layer 1"
    keys.press("ArrowLeft")
    keys.press("ArrowDown")
    keys.press("PageDown")
    value = outputs(model, image)[1][5, 4, 4]
    assert tab.where() == f"layer 1, channel 5, row 4, column 4: {value:.4f}".replace("-", "−")
    assert f"{value:.4f}".replace("-", "−") in tab.page.locator("#said").inner_text()
    label = tab.page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert label.startswith("layer 1, convolution 3×3, stride 2") and "row 4, column 4" in label
    keys.press("Enter")
    tab.settle()
    products = cv.trace(model, image, "1", (4, 4), channel=5).immediate().rows()
    best = max(products, key=lambda row: abs(row.product))
    assert tab.where().startswith(
        f"layer 0, channel {best.channel}, row {best.position[0]}, column {best.position[1]}:"
    )
    keys.press("Enter")
    assert tab.where().startswith("image, row ")
    keys.press("Backspace")
    keys.press("Backspace")
    assert tab.where().startswith("layer 1, channel 5, row 4, column 4:")
    keys.press("Tab")
    keys.press("Space")
    assert tab.where().startswith("layer 2, ")
    for _ in range(9):
        keys.press("ArrowDown")
    assert ", row 3, " in tab.where()  # the edge of the map
    tab.close(file)


def test_hovering_lights_for_as_long_as_it_lasts(chromium, digit):
    model, image, file = digit
    tab = Tab(chromium, file)
    before = tab.lit("image").sum()
    tab.page.mouse.move(*tab.spot("layer 0", 0, 13))
    tab.page.wait_for_selector(".tip:not(:empty)")
    lit = np.zeros((28, 28), bool)
    lit[0:3, 24:28] = True
    np.testing.assert_array_equal(tab.lit("image")[0], lit)
    channel = tab.page.evaluate("views[1].channel")
    assert tab.page.locator(".tip").inner_text() == (
        f"channel {channel}, row 0, column 13: {outputs(model, image)[0][channel, 0, 13]:.4f}".replace("-", "−")
    )
    tab.page.mouse.move(2, 2)
    tab.page.wait_for_selector(".tip:empty", state="attached")
    assert tab.lit("image").sum() == before and tab.where().startswith("layer 1, channel 4")
    tab.close(file)


def test_fingers_work_on_a_narrow_dark_screen(chromium, digit):
    _, _, file = digit
    narrow = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "color_scheme": "dark"}
    tab = Tab(chromium, file, **narrow)
    tab.page.touchscreen.tap(*tab.spot("layer 0", 6, 9))
    tab.settle()
    assert ", row 6, column 9:" in tab.where() and tab.where().startswith("layer 0")
    assert tab.lit("image").sum() == 25
    thumbs = tab.stage("layer 3").locator(".thumbs")
    thumbs.scroll_into_view_if_needed()
    box = thumbs.bounding_box()
    tab.page.touchscreen.tap(box["x"] + box["width"] - 8, box["y"] + 8)
    assert tab.where().startswith("layer 3, channel 7, ")  # 64 channels stand eight in a row
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 390
    tab.close(file)


@pytest.fixture(scope="module")
def residual(tmp_path_factory):
    """A residual network with class names that need care, a photo, and their page."""
    torch.manual_seed(1)
    model, x = small_resnet(3, 3, 64, width=8).eval(), torch.randn(1, 3, 64, 64).cumsum(2) / 8
    file = tmp_path_factory.mktemp("residual") / "trace.html"
    names = ["<b>ants</b>", "bees", "Käfer\x1b[31m"]
    return model, x, cv.trace(model, x, channel=1).animate(file, classes=names, source="holiday <1>.jpg")


def test_the_page_names_the_file_the_prediction_and_the_class(chromium, residual):
    model, x, file = residual
    tab = Tab(chromium, file)
    shares = model(x).softmax(1)[0].tolist()
    said = tab.page.locator("#source").inner_text()
    assert said.startswith("holiday <1>.jpg: the network says ")
    names = ["<b>ants</b>", "bees", "Käfer\\x1b[31m"]
    ranked = sorted(zip(shares, names, strict=True), reverse=True)
    assert said.endswith(", ".join(f"{name} {share:.4f}" for share, name in ranked))
    assert tab.where().startswith("layer 7, channel 1 (bees): ")
    tab.close(file)


@pytest.mark.parametrize("width", [500, 390, 701, 900, 1024, 1440, 1900])
def test_it_opens_at_the_image_and_cuts_no_column(chromium, residual, width):
    _, _, file = residual
    tab = Tab(chromium, file, viewport={"width": width, "height": 900})
    boxes = """() => {
        const strip = document.getElementById('strip'), right = strip.getBoundingClientRect().right;
        const image = strip.querySelector('.stage.image').getBoundingClientRect();
        const fixed = getComputedStyle(strip.querySelector('.stage.image')).position === 'sticky';
        const sides = (stage) => {
            const wide = [...stage.querySelectorAll('canvas:not([hidden])')].map(c => c.getBoundingClientRect());
            return [Math.min(...wide.map(b => b.left)), Math.max(...wide.map(b => b.right))];
        };
        const stages = [...strip.querySelectorAll('.stage')].map(sides);
        return { at: strip.scrollLeft, left: fixed ? image.right : 0, right, stages };
    }"""
    for step in range(4):
        found = tab.page.evaluate(boxes)
        assert found["at"] == 0 or step
        whole = 0
        for left, right in found["stages"][1:]:
            inside = left >= found["left"] - 0.5 and right <= found["right"] + 0.5
            assert inside or right <= found["left"] + 15 or left >= found["right"] - 0.5  # under the image, or beyond
            whole += inside
        assert whole
        tab.page.evaluate("document.getElementById('strip').scrollBy({left: 333, behavior: 'instant'})")
        tab.page.wait_for_timeout(50)
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= width
    if width == 500:  # without scrolling sideways, every column is there, in letters that can be read
        assert whole == len(found["stages"]) - 1
        words = "[...document.querySelectorAll('.stage header *, .caption, td')]"
        assert min(tab.page.evaluate(f"{words}.map(e => parseFloat(getComputedStyle(e).fontSize))")) >= 11
    tab.close(file)


def test_weights_near_zero_look_like_it(chromium, tmp_path):
    model = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False))
    with torch.no_grad():
        model[0].weight[0], model[0].weight[1] = -1e-7, 1.0
    tab = Tab(chromium, cv.trace(model, torch.rand(1, 5, 5), 0, (1, 1), channel=0).animate(tmp_path / "zero.html"))
    colours = "[...document.querySelectorAll('.product table')].map(t => t.rows[0].cells[0].style.background)"
    zero = tab.page.evaluate("`rgb(${colours.zero.join(', ')})`")
    assert tab.page.evaluate(colours)[1] == zero
    tab.close(tmp_path / "zero.html")


def test_a_colour_photo_through_a_residual_network(chromium, tmp_path):
    torch.manual_seed(1)
    model = small_resnet(3, 4, 32, width=4)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
    x = torch.randn(1, 3, 16, 16).cumsum(2) / 4
    model.eval()
    file = cv.trace(model, x, "2", (0, 1), channel=3).animate(tmp_path / "photo.html")
    tab = Tab(chromium, file)
    assert tab.where().startswith("layer 2.act, channel 3, row 0, column 1:")
    pixels = x.clone().requires_grad_()
    inner = model[:3](pixels)[0, 3, 0, 1]
    inner.backward()
    np.testing.assert_allclose(tab.page.evaluate("window.pellucid.weights()"), pixels.grad.flatten().numpy(), atol=1e-5)
    np.testing.assert_array_equal(tab.lit("image"), nan_reach(model, x, "2", (3, 0, 1)))
    left, right = (part[0, 3, 0, 1].item() for part in branches(model[2], model[:2](x)))
    np.testing.assert_allclose(tab.numbers(), [left, right, left + right, max(0, left + right)], atol=6e-5)
    tab.page.evaluate("select(data.stages.at(-1).calls.at(-1), [2])")
    tab.settle()
    assert tab.numbers()[-1] == pytest.approx(model(x)[0, 2].item(), abs=6e-5)
    tab.close(file)


def branches(block: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.no_grad():
        return block.convs(x), block.shortcut(x)


def test_every_kind_of_layer_agrees_with_pytorch(chromium, tmp_path):
    torch.manual_seed(2)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=2, dilation=2, groups=2), nn.GELU(), nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(4, 6, (1, 3), padding="same", padding_mode="circular", bias=False), nn.BatchNorm2d(6),
        nn.LeakyReLU(0.1),
        nn.AvgPool2d(2, ceil_mode=True), nn.Flatten(), nn.LazyLinear(5), nn.Tanh(),
    ).eval()  # fmt: skip
    x = torch.randn(1, 2, 10, 12)
    model(x)
    file = cv.trace(model, x, channel=1).animate(tmp_path / "kinds.html")
    tab = Tab(chromium, file)
    for channel in range(5):
        tab.page.evaluate("c => select(9, [c])", channel)
        pixels = x.clone().requires_grad_()
        model(pixels)[0, channel].backward()
        weights = tab.page.evaluate("window.pellucid.weights()")
        np.testing.assert_allclose(weights, pixels.grad.flatten().numpy(), atol=1e-6)
        np.testing.assert_allclose(tab.numbers()[-1], model(x)[0, channel].item(), atol=6e-5)
    for name, place, unit in (("3", 5, (2, 3, 5)), ("2", 2, (1, 0, 3)), ("0", 1, (3, 9, 0)), ("6", 6, (5, 1, 1))):
        tab.page.evaluate("([n, u]) => select(n, u)", [place, list(unit)])
        np.testing.assert_array_equal(tab.lit("image"), nan_reach(model, x, name, unit))
    tab.close(file)


def test_a_layer_that_is_no_sum_over_a_window_says_so(chromium, tmp_path):
    torch.manual_seed(3)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.ReLU())
    file = cv.trace(model, torch.randn(1, 8, 8), "2").animate(tmp_path / "norm.html")
    tab = Tab(chromium, file)
    assert "GroupNorm is no sum over a window" in tab.page.locator(".note").inner_text()
    assert tab.lit("layer 0").sum() == 2 * 36
    assert "no total weights" in tab.stage("image").locator(".caption").nth(1).inner_text()
    tab.close(file)


def test_chosen_layers_pass_the_light_on(chromium, digit, tmp_path):
    model, image, _ = digit
    t = cv.trace(model, image, "2", (1, 1), channel=0)
    file = t.animate(tmp_path / "part.html", layers=["0", "3"])
    tab = Tab(chromium, file)
    assert tab.page.locator("section.stage h3").all_inner_texts() == ["image", "layer 0", "layer 2", "layer 3"]
    np.testing.assert_array_equal(tab.lit("image"), t.precedents()["image"])
    assert tab.page.locator(".note").inner_text() == "Its window lies in layer 1.2, whose values this page leaves out."
    assert tab.stage("image").locator(".caption").nth(1).inner_text() == "no total weights: this page leaves layers out"
    tab.close(file)


def test_a_page_may_open_at_a_pixel(chromium, digit, tmp_path):
    model, image, _ = digit
    t = cv.trace(model, image, "image", (0, 27))
    tab = Tab(chromium, t.animate(tmp_path / "pixel.html"))
    assert tab.where().startswith("image, row 0, column 27:")
    for stage, layer in (("layer 0", "0.2"), ("layer 2", "2.2")):
        np.testing.assert_array_equal(tab.lit(stage), t.dependents()[layer])
    tab.close(tmp_path / "pixel.html")


def test_wrong_files_and_too_large_pages_are_refused(digit, tmp_path):
    model, image, _ = digit
    t = cv.trace(model, image, "1", (3, 5))
    with pytest.raises(UsageError, match=r"needs the ending \.html"):
        t.animate(tmp_path / "trace.png")
    with pytest.raises(UsageError, match=r"above the limit of 0\.1; the largest layers are 3 0\.1 MB, .*layers=\["):
        t.animate(tmp_path / "trace.html", limit_mb=0.1)
    with pytest.raises(UsageError, match="3 classes for the 10 outputs of 5"):
        t.animate(tmp_path / "trace.html", classes=["a", "b", "c"])
    with pytest.raises(UsageError, match="layer 'nine' does not exist"):
        t.animate(tmp_path / "trace.html", layers=["nine"])
    assert list(tmp_path.iterdir()) == []
