"""The page of a graph: complete, self-contained and correct."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any

import networkx as nx
import numpy as np
import pytest

from grapevine import topology
from grapevine.experiments.report.schedule_page import schedule_page
from grapevine.experiments.report.topology_page import simulated_decay, topology_page


class Page(HTMLParser):
    """Collects what a page would load, and its text outside of scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta",):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data


def drawn(html: str) -> dict[str, Any]:
    """Return the pictures of a page by the id of their element; fails if a number in them is nan or infinite."""
    text = html.rpartition("const figures = ")[2].partition(";\n\nfor ")[0]
    return json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} in a picture"))


def test_a_page_is_complete_self_contained_and_reproducible() -> None:
    html = topology_page("ring of <16>", topology.build("ring", 16))
    page = Page(html)
    assert page.open == []
    assert page.loads == []
    assert html.count('<div class="plot"') == 3
    assert "ring of <16>" in page.text
    assert re.search(r"SLEM\s*0.9493", page.text)
    assert "16 peers, 16 links" in page.text
    assert "to a thousandth in 133 rounds" in page.text
    assert html == topology_page("ring of <16>", topology.build("ring", 16))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("graph", "rule"),
    [
        (topology.build("complete", 1), "metropolis"),
        (topology.build("path", 2), "best-constant"),
        (topology.build("star", 9), "uniform"),
        (topology.build("random-regular", 128), "lazy"),
        (nx.empty_graph(4), "metropolis"),
        (nx.disjoint_union(nx.cycle_graph(3), nx.cycle_graph(4)), "max-degree"),
        (nx.Graph([("<b>x</b>", "y"), ("y", "y"), ("y", "z")]), "metropolis"),
        (topology.build("exponential", 16), "uniform"),
        (topology.build("geographic", 30), "fastest"),
    ],
)
def test_every_graph_has_a_page(graph: nx.Graph, rule: str) -> None:
    html = topology_page("any", graph, rule)
    content = html.split("<main>")[1].split("</main>")[0]
    assert Page(html).loads == []
    assert "<b>x</b>" not in html.split("<main>")[1]
    assert "NaN" not in content
    assert len(drawn(html)) == 3
    assert f"<em>{rule}</em>" in content


@pytest.mark.parametrize("name", ["ring", "star", "barbell", "torus", "complete"])
def test_simulated_disagreement_stays_below_the_prediction_and_ends_parallel(name: str) -> None:
    figures = topology.analyse(topology.build(name, 16))
    spread = simulated_decay(figures.matrix, 60)
    assert spread[0] == 1.0
    assert (spread <= figures.slem ** np.arange(61) + 1e-12).all()
    if name != "complete":
        assert spread[60] / spread[59] == pytest.approx(figures.slem, rel=0.02)


def test_an_invalid_mixing_rule_or_graph_is_refused() -> None:
    with pytest.raises(ValueError, match="no rule 'fast'"):
        topology_page("any", nx.cycle_graph(4), "fast")
    with pytest.raises(ValueError, match="directed"):
        topology_page("any", nx.cycle_graph(4, create_using=nx.DiGraph))


def test_a_directed_graph_shows_its_complex_eigenvalues_in_the_plane() -> None:
    html = topology_page("any", nx.cycle_graph(5, create_using=nx.DiGraph), "uniform")
    assert "imaginary part" in html
    assert re.search(r"SLEM\s*0.809", Page(html).text)  # |1 + exp(2 pi i / 5)| / 2 = cos(pi / 5)


def test_a_schedule_plays_through_its_rounds() -> None:
    schedule = topology.schedule("one-peer-exponential", 16)
    html = schedule_page("one peer <16>", schedule)
    page = Page(html)
    assert page.open == []
    assert page.loads == []
    assert "one peer <16>" in page.text
    assert "its rounds repeat after 4, and all peers agree exactly after 4" in page.text
    frames = drawn(html)["figure0"]["frames"]
    assert [frame["name"] for frame in frames] == ["0", "1", "2", "3"]
    assert all(frame["data"][1]["marker"]["symbol"] == "triangle-up" for frame in frames)  # since links go one way
    assert html == schedule_page("one peer <16>", topology.schedule("one-peer-exponential", 16))


@pytest.mark.slow
@pytest.mark.parametrize("name", topology.schedule_menu())
def test_every_schedule_has_a_page(name: str) -> None:
    schedule = topology.schedule(
        name, 12 if name != "one-peer-hypercube" else 8, **({"k": 2} if name == "hyper-hypercube" else {})
    )
    html = schedule_page(name, schedule)
    page = Page(html)
    assert page.loads == []
    assert page.open == []
    assert "NaN" not in page.text
    assert len(drawn(html)) == 3
    assert f"schedule {name}:" in page.text
    assert html.count('<div class="plot"') == 3
