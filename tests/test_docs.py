"""The reference has every public name, and names nothing that is not there."""

from __future__ import annotations

import inspect
import re
import sys
from importlib import import_module
from pathlib import Path
from types import FunctionType, ModuleType

import pytest

import pellucid
import pellucid.vision.all as everything
from pellucid import convolution as cv
from pellucid import experiments

PUBLIC = [pellucid, everything, cv, experiments]
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


def functions_of(name: str) -> list[tuple[str, FunctionType]]:
    """What can be called of a documented name: itself, or the public methods and properties of a class."""
    found = resolve(name)
    if not inspect.isclass(found):
        return [(name, found)] if isinstance(found, FunctionType) else []
    members = ((f"{name}.{key}", value) for key, value in inspect.getmembers(found) if not key.startswith("_"))
    plain = ((key, value.fget if isinstance(value, property) else inspect.unwrap(value)) for key, value in members)
    plain = ((key, getattr(value, "__func__", value)) for key, value in plain)
    return [(key, value) for key, value in plain if isinstance(value, FunctionType)]


def test_what_public_functions_return_is_documented():
    modules = [module for name, module in sys.modules.items() if name.startswith("pellucid.")]
    classes = {c.__name__: c for module in modules for c in vars(module).values() if inspect.isclass(c)}
    documented = {resolve(name) for name in DOCUMENTED if inspect.isclass(resolve(name))}
    looked_at, missing = 0, {}
    for name in DOCUMENTED:
        for key, function in functions_of(name):
            # By name, for some are imported for types only.
            words = re.findall(r"[A-Za-z]\w*", str(function.__annotations__.get("return", "")))
            found = [function.__globals__.get(word, classes.get(word)) for word in words]
            ours = [c for c in found if inspect.isclass(c) and c.__module__.startswith("pellucid.")]
            looked_at += len(ours)
            missing |= {f"{c.__module__}.{c.__name__}": key for c in ours if c not in documented}
    assert looked_at > 80
    assert not missing


def test_nothing_is_documented_twice():
    assert len(DOCUMENTED) == len(set(DOCUMENTED))


def public_names(module: ModuleType) -> list[str]:
    names = getattr(module, "__all__", None) or [name for name, value in vars(module).items() if callable(value)]
    return [name for name in names if not name.startswith("__")]


@pytest.mark.parametrize("module", PUBLIC, ids=lambda module: module.__name__)
def test_what_is_documented_as_a_modules_is_public_there(module):
    of_module = [name.removeprefix(f"{module.__name__}.") for name in DOCUMENTED if name.startswith(module.__name__)]
    own = [name for name in of_module if "." not in name]
    assert own and set(own) <= set(public_names(module))


@pytest.mark.parametrize("module", PUBLIC, ids=lambda module: module.__name__)
def test_every_public_name_is_documented(module):
    documented = {id(resolve(name)) for name in DOCUMENTED}
    of_others = set(re.findall(r"`(\w+)`", PAGES["index"].split("## Names of others")[1].split("|---|")[1]))
    names = [name for name in public_names(module) if name not in of_others]
    assert names
    assert [name for name in names if id(getattr(module, name)) not in documented] == []


def test_the_index_lists_what_the_pages_describe():
    listed = set(re.findall(r"^   ~(\S+)$", PAGES["index"], re.MULTILINE))
    kinds = (
        "pellucid.convolution.",
        "pellucid.activations.",
        "pellucid.doctor.",
        "pellucid.history.",
    )  # of what functions return, deep in their rooms
    deep = {name for name in DOCUMENTED if name.startswith(kinds) and name.count(".") > 2}
    assert listed == set(DOCUMENTED) - deep - {"pellucid.convolution.kernels"}
