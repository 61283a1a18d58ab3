"""A graph's page: its drawing, the decay of disagreement, the spectrum and a table of figures."""

from __future__ import annotations

import json
import math
from html import escape
from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np
import plotly.graph_objects as go

from grapevine.experiments.report.html import Figure, render_page, section
from grapevine.topology.analysis.figures import Figures, analyse
from grapevine.topology.analysis.spectra import DENSE
from grapevine.topology.graphs.given import peer_order

if TYPE_CHECKING:
    from scipy.sparse import csr_array

BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#9aa5b1"  # distinguishable with any colour vision
STARTS = 16
MOST_ROUNDS = 1000
ROUND_OFF = 1e-16


def topology_page(title: str, graph: nx.Graph, rule: str = "metropolis") -> str:
    """Return one self-contained HTML page about a graph under a mixing rule, to be written to a file and opened.

    It holds a drawing of the graph, the eigenvalues of its mixing matrix, the decay of disagreement as predicted (SLEM^t)
    and as simulated (x <- W x), and a table of figures with their meanings. The page loads nothing from the network; equal
    graphs give equal pages. Above 1500 peers there is no drawing, and an estimated histogram replaces the eigenvalues; if W
    is not symmetrizable, the histogram is left out too.

    Raises ValueError as `analyse` and `mixing_matrix` do.
    """
    figures = analyse(graph, rule)
    charts = [("How disagreement shrinks", DECAY_NOTE, _decay(figures))]
    if figures.nodes <= DENSE:
        charts.insert(0, ("The graph", GRAPH_NOTE, _drawing(graph)))
        charts.append(("The spectrum of the mixing matrix", SPECTRUM_NOTE, eigenvalues(figures.spectrum, figures.slem)))
    elif (density := figures.spectral_density()) is not None:
        drawn = _density(density[0], density[1], figures.slem)
        charts.append(("The spectrum of the mixing matrix", f"{SPECTRUM_NOTE} {DENSITY_NOTE}", drawn))
    return page(title, _intro(figures), _rows(figures), charts)


def page(title: str, intro: str, rows: list[tuple[str, Any, str]], charts: list[tuple[str, str, go.Figure]]) -> str:
    """Return a self-contained page: title, introduction in HTML, rows (name, figure, meaning), charts (title, note, chart)."""
    cells = "".join(f"<tr><th>{name}</th><td>{show(value)}</td><td>{note}</td></tr>" for name, value, note in rows)
    figures: dict[str, Figure] = {}
    sections = [section(name, note, _plain(chart), "", figures, wide=True) for name, note, chart in charts]
    table = f'<section class="card"><table class="meanings">{cells}</table></section>'
    return render_page(title, "\n".join([f'<p class="told">{intro}</p>', table, *sections]), figures)


def simulated_decay(matrix: np.ndarray | csr_array, rounds: int) -> np.ndarray:
    """Return the disagreement after 0..rounds rounds of x <- W x, float64 [rounds + 1], as a share of that at the start.

    Disagreement is the root mean square distance of the peers from their mean, over a fixed set of random starts.
    """
    from scipy.sparse import csr_array

    mix = csr_array(matrix)
    n = matrix.shape[0]
    values = np.random.default_rng([0, n]).standard_normal((n, STARTS))
    spread = np.empty(rounds + 1)
    for t in range(rounds + 1):
        spread[t] = np.linalg.norm(values - values.mean(axis=0))
        values = mix @ values
    return spread / spread[0] if spread[0] > 0.0 else spread


def _drawing(graph: nx.Graph) -> go.Figure:
    place = places(graph)
    order = peer_order(graph)
    xs: list[float | None] = []
    ys: list[float | None] = []
    for source, target in graph.edges:
        xs += [place[source][0], place[target][0], None]
        ys += [place[source][1], place[target][1], None]
    degrees = [len(set(graph[node]) - {node}) for node in order]
    labels = [_label(i, node, graph.nodes[node], degree) for i, (node, degree) in enumerate(zip(order, degrees, strict=True))]
    few = len(order) <= 64
    range_of_degrees = max(degrees) - min(degrees)
    chart = go.Figure()
    chart.add_scatter(x=xs, y=ys, mode="lines", line={"color": GREY, "width": 1}, hoverinfo="skip")
    chart.add_scatter(
        x=[place[node][0] for node in order],
        y=[place[node][1] for node in order],
        mode="markers+text" if few else "markers",
        text=[str(i) for i in range(len(order))] if few else None,
        textfont={"color": "white", "size": 10},
        hovertext=labels,
        hoverinfo="text",
        marker={
            "size": 22 if few else 8,
            "color": degrees if range_of_degrees else BLUE,
            "colorscale": [[0.0, BLUE], [1.0, ORANGE]],
            "showscale": range_of_degrees > 0,
            "colorbar": {
                "title": {"text": "neighbours"},
                "tick0": 0,
                "dtick": max(1, range_of_degrees // 5),
            },
        },
    )
    chart.update_xaxes(visible=False)
    chart.update_yaxes(visible=False, scaleanchor="x")
    return chart.update_layout(showlegend=False, height=520)


def _decay(figures: Figures) -> go.Figure:
    rounds = int(min(max(figures.mixing_time(1e-6), 10), MOST_ROUNDS))
    steps = np.arange(rounds + 1)
    simulated = simulated_decay(figures.sparse_matrix, rounds)
    predicted = figures.slem ** steps.astype(np.float64)
    return fading(
        [
            (f"predicted: {figures.slem:.4g} to the power of the round", predicted, {"color": ORANGE, "dash": "dash"}),
            (f"simulated: {STARTS} random starts", simulated, {"color": BLUE}),
        ]
    )


def fading(lines: list[tuple[str, np.ndarray, dict[str, Any]]]) -> go.Figure:
    """Return a chart of disagreement over rounds on a logarithmic scale; each line is (name, float64 [rounds + 1], style)."""
    chart = go.Figure()
    for name, values, style in lines:
        seen = np.r_[True, values[:-1] > ROUND_OFF]  # below this only round-off is left
        left = np.maximum(values[seen], ROUND_OFF)
        chart.add_scatter(
            x=np.arange(len(values))[seen],
            y=left,
            mode="lines+markers" if len(values) <= 41 else "lines",
            name=name,
            line=style,
        )
    chart.update_xaxes(title="rounds of averaging", rangemode="tozero")
    chart.update_yaxes(title="disagreement left (1 = at the start)", type="log", exponentformat="power")
    return chart.update_layout(legend={"orientation": "h", "y": 1.12}, height=420)


def eigenvalues(spectrum: np.ndarray, slem: float | None) -> go.Figure:
    """Return a chart of eigenvalues in their order, or in the plane if some are complex; the SLEM is marked if given."""
    if np.iscomplexobj(spectrum) and np.abs(spectrum.imag).max() > 1e-9:
        return _in_the_plane(spectrum, slem)
    values = np.real(spectrum)
    chart = go.Figure()
    chart.add_scatter(
        x=np.arange(1, len(values) + 1),
        y=values,
        mode="markers",
        marker={"color": BLUE, "size": 7},
        hovertemplate="eigenvalue %{x}: %{y:.6f}<extra></extra>",
        name="eigenvalues of W",
    )
    if slem is not None and len(values) > 1:
        for level in (slem, -slem):
            chart.add_hline(y=level, line={"color": ORANGE, "dash": "dash", "width": 1})
        chart.add_annotation(
            x=1,
            xref="paper",
            y=slem,
            text=f"SLEM {slem:.4g}",
            showarrow=False,
            yshift=10,
            font={"color": ORANGE},
        )
    chart.update_xaxes(title="eigenvalue, from the largest")
    chart.update_yaxes(title="value", range=[-1.08, 1.12])
    return chart.update_layout(showlegend=False, height=420)


def _density(edges: np.ndarray, shares: np.ndarray, slem: float) -> go.Figure:
    """Return a histogram of eigenvalues, from the ends of the bins [bins + 1] and the share of all in each [bins]."""
    chart = go.Figure()
    chart.add_bar(
        x=(edges[:-1] + edges[1:]) / 2,
        y=shares,
        width=np.diff(edges),
        marker={"color": BLUE},
        hovertemplate="about %{x:.3f}: %{y:.2%} of the eigenvalues<extra></extra>",
    )
    for level in (slem, -slem):
        chart.add_vline(x=level, line={"color": ORANGE, "dash": "dash", "width": 1})
    chart.add_annotation(
        x=slem, y=1, yref="paper", text=f"SLEM {slem:.4g}", showarrow=False, xshift=-40, font={"color": ORANGE}
    )
    chart.update_xaxes(title="eigenvalue", range=[-1.05, 1.05])
    chart.update_yaxes(title="share of all eigenvalues", tickformat=".1%")
    return chart.update_layout(showlegend=False, height=420)


def _in_the_plane(spectrum: np.ndarray, slem: float | None) -> go.Figure:
    chart = go.Figure()
    for radius, colour in ((1.0, GREY), (slem, ORANGE)):
        if radius is not None:
            corners = {"x0": -radius, "y0": -radius, "x1": radius, "y1": radius}
            chart.add_shape(type="circle", **corners, line={"color": colour, "dash": "dash", "width": 1})
    chart.add_scatter(
        x=spectrum.real,
        y=spectrum.imag,
        mode="markers",
        marker={"color": BLUE, "size": 7},
        customdata=np.abs(spectrum).tolist(),
        hovertemplate="%{x:.6f} + %{y:.6f} i: modulus %{customdata:.6f}<extra></extra>",
    )
    chart.update_xaxes(title="real part", range=[-1.3, 1.3])
    chart.update_yaxes(title="imaginary part", range=[-1.1, 1.1], scaleanchor="x")
    return chart.update_layout(showlegend=False, height=520)


def _plain(chart: go.Figure) -> Figure:
    """Return a chart as plain values."""
    chart.update_layout(template="plotly_white", margin={"l": 60, "r": 20, "t": 30, "b": 50})
    plain: Figure = json.loads(chart.to_json())
    return plain


def places(graph: nx.Graph) -> dict[Any, Any]:
    """Return the place of each node: on a circle for rings and near-complete graphs, else by a force-directed layout."""
    n = len(graph)
    plain = nx.Graph()  # without edge weights, which would distort the layout
    plain.add_nodes_from(peer_order(graph))
    plain.add_edges_from((source, target) for source, target in graph.edges if source != target)
    degrees = [degree for _, degree in plain.degree]
    connected = nx.is_connected(plain)
    if n <= 3 or 2 * min(degrees) >= n or (connected and max(degrees) == 2 == min(degrees)):
        order = peer_order(graph) if max(degrees) != 2 else list(nx.dfs_preorder_nodes(plain, next(iter(plain))))
        places: dict[Any, Any] = nx.circular_layout(order)
    elif connected and n <= 100:
        places = nx.kamada_kawai_layout(plain)
    else:
        places = nx.spring_layout(plain, seed=0, iterations=100 if n <= 500 else 30)
    return places


def _label(i: int, node: Any, attributes: dict[str, Any], degree: int) -> str:
    original = attributes.get("original_name", node)
    named = f" ({escape(str(original))})" if str(original) != str(i) else ""
    return f"peer {i}{named}: {_count(degree, 'neighbour')}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _intro(figures: Figures) -> str:
    rounds = figures.mixing_time(1e-3)
    fade = f"disagreement shrinks to a thousandth in {rounds} round{'' if rounds == 1 else 's'}"
    if not math.isfinite(rounds):
        fade = "disagreement never vanishes: the graph is not connected, or some peers only exchange their models in turn"
    return (
        f"{_count(figures.nodes, 'peer')}, {_count(figures.edges or 0, 'link')}. If every peer averages its model with its "
        f"neighbours' in each round, with weights by the rule <em>{escape(str(figures.rule))}</em>, {fade}."
    )


def _rows(figures: Figures) -> list[tuple[str, Any, str]]:
    return [
        ("Peers", figures.nodes, "nodes of the graph"),
        ("Links", figures.edges, "pairs of peers that exchange models"),
        (
            "Neighbours",
            f"{figures.min_degree} to {figures.max_degree}" if figures.min_degree != figures.max_degree else figures.max_degree,
            f"of one peer (mean {show(figures.mean_degree)}); a peer sends each of them one message per round",
        ),
        ("Diameter", figures.diameter, "hops between the two peers farthest apart"),
        ("Mean distance", figures.average_shortest_path, "hops between two peers, mean over all pairs"),
        ("Node connectivity", figures.node_connectivity, "smallest number of peers whose loss disconnects the others"),
        ("Edge connectivity", figures.edge_connectivity, "smallest number of links whose loss disconnects the fleet"),
        ("SLEM", figures.slem, "second largest eigenvalue modulus of W: disagreement left by a round in the long run"),
        ("Spectral gap", figures.gap, "1 - SLEM: larger is faster"),
        ("Mixing time", figures.mixing_time(1e-3), "rounds until a thousandth of the disagreement is left"),
        ("Effective neighbours", figures.effective_neighbours(0.9), "peers with which one averages in about ten rounds"),
        ("Algebraic connectivity", figures.algebraic_connectivity, "second eigenvalue of the Laplacian: 0 if disconnected"),
        ("Kirchhoff index", figures.kirchhoff, "sum of the resistances between all pairs: lower is better connected"),
        (
            "Doubly stochastic",
            figures.doubly_stochastic,
            "no weight is negative, and averaging keeps the mean of the models",
        ),
    ]


def show(value: Any) -> str:
    """Return a figure as HTML text."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return "infinite" if math.isinf(value) else f"{value:.4g}"
    return escape(str(value))


GRAPH_NOTE = "Each dot is a peer, each line a link. Point at a peer for the number of its neighbours."
DECAY_NOTE = (
    "Peers start with different random values; in each round every peer replaces its value by a weighted average of its own "
    "and its neighbours' values. The dashed line is the slowest decay that theory allows in the long run: the second largest "
    "eigenvalue modulus (SLEM) to the power of the round. The simulation decays faster at first, then parallel to it."
)
SPECTRUM_NOTE = (
    "The mixing matrix W holds the weights of that average. Its largest eigenvalue, 1, belongs to the mean of all peers. Each "
    "other eigenvalue belongs to one pattern of disagreement and is the factor that multiplies it in a round. The pattern "
    "whose eigenvalue is farthest from 0 shrinks most slowly."
)
DENSITY_NOTE = (
    "This graph has too many eigenvalues to compute them all: the bars are an estimated histogram (stochastic Lanczos "
    "quadrature); the dashed lines are the second largest modulus, computed exactly."
)
