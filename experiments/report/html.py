"""Self-contained HTML pages: title, sections, pictures and the script that draws them in one file."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import msgspec

from grapevine.experiments.report.style import PAGE, SCRIPT

Figure = dict[str, Any]
"""A plotly picture as plain values: `data`, `layout`, and `frames` if it can be played."""


def render_page(title: str, content: str, figures: dict[str, Figure]) -> str:
    """Return a whole page: `content` is HTML with one element per picture; `figures` maps element ids to pictures."""
    from plotly.offline import get_plotlyjs

    data = msgspec.json.encode(figures).decode().replace("</", "<\\/").replace("<!--", "<\\u0021--")
    script = f"<script>{get_plotlyjs()}</script>\n<script>const figures = {data};\n{SCRIPT}</script>"
    return PAGE.substitute(title=escape(title), content=content, script=script)


def write_page(out: Path, title: str, content: str, figures: dict[str, Figure]) -> None:
    """Write a page to `out`, with arguments as in `render_page`; raises ValueError if the file cannot be written."""
    page = render_page(title, content, figures)
    if not out.name:
        raise ValueError(f"{out}: is a folder, and the report is a file; give another path")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        part = out.with_name(f".{out.name}.part")
        part.write_text(page, encoding="utf-8")
        part.replace(out)
    except OSError as error:
        raise ValueError(f"{out}: the report cannot be written ({error.strerror}); give another path") from None


def section(title: str, text: str, drawn: Figure | None, otherwise: str, figures: dict[str, Figure], wide: bool = False) -> str:
    """Return a section with a picture, or with the sentence `otherwise` if it is None; the picture is added to `figures`."""
    head = f'<section class="card{" wide" if wide else ""}"><h2>{escape(title)}</h2>'
    if drawn is None:
        return f'{head}<p class="nothing">{escape(otherwise)}</p></section>'
    name = f"figure{len(figures)}"
    figures[name] = drawn
    height = drawn["layout"]["height"]
    return f'{head}<p class="how">{escape(text)}</p><div class="plot" id="{name}" style="height:{height}px"></div></section>'
