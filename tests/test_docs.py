"""The reference has every public name, and names nothing that is not there."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

import pellucid
import pellucid.vision.all as everything
from pellucid import convolution as cv
from pellucid import experiments

DOCS = Path(__file__).parents[1] / "docs"
PAGES = {page.stem: page.read_text() for page in (DOCS / "api").glob("*.md")}
DOCUMENTED = [
    name
    for page, text in PAGES.items()
    if page != "index"
    for name in re.findall(r"^\.\. auto(?:class|exception|function|data|module):: (\S+)", text, re.MULTILINE)
]


def resolve(name: str) -> object:
    module, _, attribute = name.rpartition(".")
    return getattr(import_module(module), attribute)


@pytest.mark.parametrize("name", DOCUMENTED)
def test_what_is_documented_exists_and_says_what_it_is(name):
    found = resolve(name)
    if name != "pellucid.vision.all.imagenet_stats":  # a constant, described on the page
        assert (found.__doc__ or "").strip()


def test_nothing_is_documented_twice():
    assert len(DOCUMENTED) == len(set(DOCUMENTED))


@pytest.mark.parametrize("module", [pellucid, everything, cv, experiments], ids=lambda module: module.__name__)
def test_every_public_name_is_documented(module):
    documented = {id(resolve(name)) for name in DOCUMENTED}
    of_others = set(re.findall(r"`(\w+)`", PAGES["index"].split("## Names of others")[1].split("|---|")[1]))
    public = getattr(module, "__all__", None) or [name for name, value in vars(module).items() if callable(value)]
    names = [name for name in public if not name.startswith("__") and name not in of_others]
    assert names
    assert [name for name in names if id(getattr(module, name)) not in documented] == []


def test_the_index_lists_what_the_pages_describe():
    listed = set(re.findall(r"^   ~(\S+)$", PAGES["index"], re.MULTILINE))
    kinds = (
        "pellucid.convolution.",
        "pellucid.activations.",
        "pellucid.history.",
    )  # of what functions return, deep in their rooms
    deep = {name for name in DOCUMENTED if name.startswith(kinds) and name.count(".") > 2}
    assert listed == set(DOCUMENTED) - deep - {"pellucid.convolution.kernels"}
