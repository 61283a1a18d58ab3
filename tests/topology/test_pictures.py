"""The page of a graph: whole, self-contained and true."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import networkx as nx
import numpy as np
import pytest

import topology
from topology.pictures import simulated_decay, topology_page


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


def test_a_page_is_whole_self_contained_and_the_same_again() -> None:
    html = topology_page("ring of <16>", topology.build("ring", 16))
    page = Page(html)
    assert page.open == []
    assert page.loads == []
    assert html.count("Plotly.newPlot(") - html.split("<body>")[0].count("Plotly.newPlot(") == 3
    assert "ring of <16>" in page.text
    assert re.search(r"SLEM\s*0.9493", page.text)
    assert "16 peers, 16 links" in page.text
    assert "thousandfold in 133 rounds" in page.text
    assert html == topology_page("ring of <16>", topology.build("ring", 16))


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
    ],
)
def test_every_graph_has_a_page(graph: nx.Graph, rule: str) -> None:
    html = topology_page("any", graph, rule)
    body = html.split("<body>")[1]
    assert Page(html).loads == []
    assert "<b>x</b>" not in body
    assert "NaN" not in body
    assert f"<em>{rule}</em>" in body


@pytest.mark.parametrize("name", ["ring", "star", "barbell", "torus", "complete"])
def test_simulated_disagreement_stays_below_the_prediction_and_ends_parallel(name: str) -> None:
    figures = topology.analyse(topology.build(name, 16))
    spread = simulated_decay(figures.matrix, 60)
    assert spread[0] == 1.0
    assert (spread <= figures.slem ** np.arange(61) + 1e-12).all()
    if name != "complete":
        assert spread[60] / spread[59] == pytest.approx(figures.slem, rel=0.02)


def test_what_cannot_be_mixed_has_no_page() -> None:
    with pytest.raises(ValueError, match="no rule 'fast'"):
        topology_page("any", nx.cycle_graph(4), "fast")
    with pytest.raises(ValueError, match="directed"):
        topology_page("any", nx.cycle_graph(4, create_using=nx.DiGraph))
