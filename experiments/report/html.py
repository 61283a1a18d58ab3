"""Self-contained HTML pages: a title, sections with pictures, and everything that draws them in one file."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import msgspec

from grapevine.experiments.report.style import PAGE, SCRIPT

Figure = dict[str, Any]
"""A picture as plotly has it: `data`, `layout`, and `frames` where it can be played."""


def render_page(title: str, content: str, figures: dict[str, Figure]) -> str:
    """A whole page: `content` is HTML with an element for each picture, which `figures` holds by the element's id."""
    from plotly.offline import get_plotlyjs

    data = msgspec.json.encode(figures).decode().replace("</", "<\\/").replace("<!--", "<\\u0021--")
    script = f"<script>{get_plotlyjs()}</script>\n<script>const figures = {data};\n{SCRIPT}</script>"
    return PAGE.substitute(title=escape(title), content=content, script=script)


def write_page(out: Path, title: str, content: str, figures: dict[str, Figure]) -> None:
    """Write a page of sections, whose pictures are `figures`, to `out`; ValueError where it cannot be written."""
    page = render_page(title, content, figures)
    if not out.name:
        raise ValueError(f"{out}: is a folder, and the report is a file; give another place")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        part = out.with_name(f".{out.name}.part")
        part.write_text(page, encoding="utf-8")
        part.replace(out)
    except OSError as error:
        raise ValueError(f"{out}: the report cannot be written ({error.strerror}); give another place") from None


def section(title: str, text: str, drawn: Figure | None, otherwise: str, figures: dict[str, Figure], wide: bool = False) -> str:
    """A picture under its title, or the words that stand for it; the picture itself goes into `figures`."""
    head = f'<section class="card{" wide" if wide else ""}"><h2>{escape(title)}</h2>'
    if drawn is None:
        return f'{head}<p class="nothing">{escape(otherwise)}</p></section>'
    name = f"figure{len(figures)}"
    figures[name] = drawn
    height = drawn["layout"]["height"]
    return f'{head}<p class="how">{escape(text)}</p><div class="plot" id="{name}" style="height:{height}px"></div></section>'
