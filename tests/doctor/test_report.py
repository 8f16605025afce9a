"""The report of the doctor: as text, as JSON and back, and as a page in a browser."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from reports import STEP, healthy, sample

from browser import chromium  # noqa: F401
from pellucid.doctor.page import page_data
from pellucid.doctor.report import Report
from pellucid.errors import UsageError
from pellucid.web.charts import HEIGHT, WIDTH, chart, ticks


@pytest.fixture(scope="module")
def report() -> Report:
    return sample()


def test_the_text_says_what_where_since_when_and_what_to_do(report):
    lines = report.text(100).splitlines()
    assert lines[0].startswith("✗ learning-rate-too-high") and lines[0].endswith("sure (0.97)") and len(lines[0]) == 100
    assert lines[1].startswith("  layer 2, since step 60: a step changed the weights by 3.1 of their size")
    assert "  tried: 40 steps at a tenth of the rate: loss 0.4 instead of 1.4" in lines
    assert "  do: divide the learning rate by ten, or let it rise slowly (1cycle) (train.py line 31)" in lines
    assert "  ruled out: labels (one batch can be learnt)" in lines
    assert "  consequences: dead units" in lines
    assert any(line.startswith("! class-imbalance") and line.endswith("likely (0.80)") for line in lines)
    assert lines[-1] == "  note: no validation was seen"
    assert "healthy" not in str(report)
    assert max(map(len, report.text(60).splitlines())) <= 60


def test_a_healthy_run_says_what_was_checked():
    text = str(healthy())
    assert text.startswith("✓ healthy")
    assert "one batch was learnt to a loss of 0.01" in text
    assert "· input-bound" in text


def test_a_line_of_code_is_named_once(report):
    first = replace(report.findings[0], remedy="remove nn.Softmax (head.2, train.py line 31)")
    assert str(Report([first])).count("line 31") == 1
    two = replace(first, remedy="Use lr=0.01 instead of 0.1. Then train on.")
    assert "do: Use lr=0.01 instead of 0.1 (train.py line 31). Then train on." in str(Report([two]))
    assert "do: Use DataLoader(..., shuffle=True) (train.py line 31)." in str(
        Report([replace(two, remedy="Use DataLoader(..., shuffle=True).")])
    )


def test_json_has_the_promised_form_and_comes_back(report, tmp_path):
    read = json.loads(report.to_json(tmp_path / "report.json").read_text())
    assert read == json.loads(json.dumps(report.json()))
    assert read.keys() == {"healthy", "findings", "overhead", "notes", "checked"}
    assert read["healthy"] is False and read["overhead"] == 0.0412
    keys = "name severity confidence layer step evidence trial remedy where ruled_out"
    assert all(list(finding) == keys.split() for finding in read["findings"])
    first = read["findings"][0]
    assert first["evidence"]["says"].startswith("a step changed") and first["evidence"]["explains"] == ["dead-units"]
    assert first["evidence"]["dead_before"] == pytest.approx(0.21, abs=1e-6)
    assert first["trial"]["loss_at_0.1x"] is None  # JSON has no nan
    back = Report.from_json(tmp_path / "report.json")
    assert back.json() == read and str(back) == str(report)
    assert np.allclose(back.findings[0].curves["at a tenth"], report.findings[0].curves["at a tenth"])


@pytest.mark.parametrize("text", ["[]", "{}", '{"findings": 3}', '{"findings": [{"name": 1}]}', "{"])
def test_what_is_no_report_is_refused(text, tmp_path):
    (tmp_path / "other.json").write_text(text)
    with pytest.raises(UsageError, match=r"other\.json"):
        Report.from_json(tmp_path / "other.json")


def test_a_chart_draws_every_value_where_it_is():
    x, y = np.array([0, 10, 20, 30]), np.array([1.0, np.nan, 3.0, 2.0])
    drawn = chart("c", {"a": (x, y)}, marks=[15, 99], y_span=(1, 3))
    assert drawn is not None
    pieces = [[tuple(map(float, p.split(","))) for p in piece.split()] for piece in drawn["lines"][0]["paths"]]
    assert pieces == [[(0, HEIGHT)], [(pytest.approx(WIDTH * 2 / 3, abs=0.1), 0), (WIDTH, HEIGHT / 2)]]
    assert [(mark["at"], mark["step"]) for mark in drawn["marks"]] == [(WIDTH / 2, 15)]
    assert chart("nothing", {"a": (x, np.full(4, np.nan))}) is None


def test_a_long_line_is_thinned_and_an_explosion_cut():
    y = np.ones(100_000)
    y[-3:] = 1e9
    drawn = chart("c", {"a": (np.arange(100_000), y)})
    assert drawn is not None and drawn["note"].startswith("up to ")
    assert len(drawn["lines"][0]["paths"][0].split()) <= 400
    assert float(drawn["y_ticks"][-1]["text"]) <= 11
    assert all(low <= tick <= high for low, high in [(0, 1), (-3, 900), (1e-7, 2e-7)] for tick in ticks(low, high))


def test_ticks_can_be_told_apart():
    for low, high in [(1.598, 1.622), (0, 1), (1234.5, 1234.9), (-0.02, 0.013), (3e-7, 9e-7)]:
        drawn = chart("y", {"": (np.arange(2), np.array([low, high]))})
        texts = [tick["text"] for tick in drawn["y_ticks"]]
        assert len({*texts}) == len(texts)
        values = [float(text.replace("−", "-").replace(",", "")) for text in texts]
        assert np.ptp(np.diff(values)) < 0.1 * np.diff(values).mean()


def test_the_page_has_pictures_of_the_layer_at_the_step(report):
    data = page_data(report)
    titles = [picture["title"] for picture in data["findings"][0]["pictures"]]
    assert [title.partition(":")[0] for title in titles[:3]] == ["layer 2"] * 3 and len(titles) == 5
    heat, zero = data["findings"][0]["pictures"][:2]
    assert heat["image"].startswith("data:image/png;base64,") and heat["marks"][0]["step"] == STEP
    points = [tuple(map(float, p.split(","))) for p in zero["lines"][0]["paths"][0].split()]
    assert points[-1][1] < points[0][1] and points[-1][1] < 0.2 * HEIGHT  # dead at the end: near 100 %
    assert data["findings"][2]["pictures"] == []


def test_the_page_in_a_browser(report, tmp_path, chromium):  # noqa: F811
    file = report.to_html(tmp_path / "report.html")
    for width, scheme in ((400, "dark"), (1200, "light")):
        context = chromium.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
        page, requests, complaints = context.new_page(), [], []
        page.on("request", lambda request, to=requests: to.append(request.url))
        page.on("console", lambda message, to=complaints: to.append(message.text))
        page.goto(file.as_uri())
        assert page.locator("h1").inner_text().startswith("The learning rate is too high: ")
        assert page.locator("section.finding").count() == 3
        assert "<b>60 %</b>" in page.locator("section.finding").nth(2).inner_text()
        assert page.locator("figure.chart").count() == 7  # the loss, five of the layer and its updates, the trial
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert requests == [file.as_uri()] and complaints == []
        context.close()


def test_a_report_from_a_file_has_a_page_without_pictures(report, tmp_path):
    back = Report.from_json(report.to_json(tmp_path / "report.json"))
    text = back.to_html(tmp_path / "report.html").read_text()
    assert len(re.findall("<figure", text)) == 1  # the trial's curves
