"""Pages under test: what a browser would find in one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any


class Page(HTMLParser):
    """The content of a page in a browser: the visible text, the titles of the sections, the figures, and everything fetched."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text, self.titles, self.fetched, self.tags = "", [], [], []
        self._inside = ""
        source = path.read_text(encoding="utf-8")
        self.figures: dict[str, Any] = {}
        self.feed(source)
        encoded = re.search(r"const figures = (.*);\n", source)
        assert encoded is not None
        self.figures = json.loads(encoded.group(1).replace("<\\/", "</"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        self.tags.append(tag)
        self.fetched += [value for name, value in attrs if name in ("src", "href", "data", "poster", "srcset")]

    def handle_data(self, data: str) -> None:
        if self._inside not in ("script", "style"):
            self.text += data + " "
        if self._inside == "h2" and data.strip():
            self.titles.append(data.strip())

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def figure(self, axis_title: str) -> dict[str, Any]:
        return next(f for f in self.figures.values() if f["layout"]["yaxis"].get("title", {}).get("text") == axis_title)


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from texts(part)
