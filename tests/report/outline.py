"""What a page of HTML consists of, read with the standard library's parser."""

from __future__ import annotations

import itertools
import json
import re
from html.parser import HTMLParser
from typing import Any

EMPTY = {"meta", "link", "img", "br", "input"}
LOADING = {"src", "href", "srcset", "action", "data", "poster"}


class Outline(HTMLParser):
    """Elements, headings, scripts and text of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.headings: list[tuple[int, str]] = []
        self.scripts: list[tuple[dict[str, str], str]] = []
        self.tables: list[list[str]] = []
        self.words = ""
        self.unbalanced: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.elements.append((tag, found))
        if tag not in EMPTY:
            self.open.append(tag)
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append((int(tag[1]), ""))
        if tag == "script":
            self.scripts.append((found, ""))
        if tag == "table":
            self.tables.append([])
        if tag in ("caption", "th", "td") and "table" in self.open:
            self.tables[-1].append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data: str) -> None:
        here = self.open[-1] if self.open else ""
        if here == "script":
            attrs, before = self.scripts[-1]
            self.scripts[-1] = (attrs, before + data)
        elif here != "style":
            self.words += data
        if re.fullmatch(r"h[1-6]", here):
            level, before = self.headings[-1]
            self.headings[-1] = (level, before + data)

    def attributes(self, name: str) -> list[str]:
        return [attrs[name] for _, attrs in self.elements if name in attrs]

    def plots(self) -> dict[str, dict[str, Any]]:
        """Returns what each figure is drawn from."""
        return {
            attrs["data-plot"]: json.loads(text)
            for attrs, text in self.scripts
            if "data-plot" in attrs
        }


def check(text: str) -> Outline:
    """Asserts what must hold of every report, and returns its outline."""
    assert len(text.encode()) < 6e6
    page = Outline(text)
    assert page.unbalanced == [] and page.open == []

    ids = page.attributes("id")
    assert len(set(ids)) == len(ids)
    for name in ("aria-labelledby", "data-copy"):
        assert set(page.attributes(name)) <= set(ids)
    inner = [href[1:] for href in page.attributes("href") if href.startswith("#")]
    assert set(inner) <= set(ids)

    levels = [level for level, _ in page.headings]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(later - former <= 1 for former, later in itertools.pairwise(levels))
    assert all(words.strip() for _, words in page.headings)

    tags = [tag for tag, _ in page.elements]
    assert all(tags.count(landmark) == 1 for landmark in ("header", "main", "nav", "footer"))
    assert ("html", {"lang": "en", "data-theme": "light"}) in page.elements
    for tag, attrs in page.elements:
        assert tag not in ("iframe", "object", "embed", "base", "form")
        assert not any(name.startswith("on") for name in attrs), attrs
        for name in LOADING & set(attrs):
            assert attrs[name].startswith(("#", "data:")), attrs
        if tag == "img":
            assert attrs.get("alt")
        if "scroll" in attrs.get("class", "").split():
            assert attrs["tabindex"] == "0" and attrs["aria-label"]

    plots = page.plots()
    drawn = {a["id"]: a for _, a in page.elements if "plot" in a.get("class", "").split()}
    assert set(plots) == set(drawn)
    assert all(a["role"] == "img" and len(a["aria-label"]) > 10 for a in drawn.values())
    assert all(table[0] == "caption" and "th" in table for table in page.tables)
    return page
