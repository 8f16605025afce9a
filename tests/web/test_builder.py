"""What every page has in common: texts of others stay texts, nothing is asked of the network, a gap is an error."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest
from jinja2 import UndefinedError

from pellucid.errors import UsageError
from pellucid.web import builder

HOSTILE = "a</title><script>alert('\"1\"')</script>&amp;\x1b[31m"


class Reader(HTMLParser):
    """Tags, and the text in each kind of them."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.texts: dict[str, str] = {}
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data):
        if self.tags:
            self.texts[self.tags[-1]] = self.texts.get(self.tags[-1], "") + data


def test_texts_are_escaped_and_data_comes_back():
    text = builder.page("trace", title=HOSTILE, data={"name": HOSTILE, "comment": "<!--", "n": [1, 2.5]})
    assert "<script>alert" not in text
    read = Reader(text)
    assert read.texts["title"].strip() == HOSTILE.replace("\x1b", "\\x1b")
    assert read.tags.count("script") == 2
    data = re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1]
    assert json.loads(data) == {"name": HOSTILE, "comment": "<!--", "n": [1, 2.5]}


def test_a_page_asks_for_nothing():
    text = builder.page("trace", title="t", data={})
    assert Reader(text).addresses == ["data:,"]
    assert not re.search(r"url\((?!data:)|@import|\bfetch\(|XMLHttpRequest", text)
    assert "default-src 'none'" in text


def test_what_a_template_misses_is_an_error():
    with pytest.raises(UndefinedError, match="'title' is undefined"):
        builder.page("trace", data={})


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(UsageError, match=r"needs the ending \.html"):
        builder.write_page(tmp_path / "page.txt", "trace", title="t", data={})
    with pytest.raises(UndefinedError):
        builder.write_page(tmp_path / "page.html", "trace", data={})
    assert list(tmp_path.iterdir()) == []
    file = builder.write_page(tmp_path / "new" / "page.html", "trace", title="t", data={})
    assert file.read_text(encoding="utf-8").startswith("<!doctype html>")
