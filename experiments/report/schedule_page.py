"""A schedule's page: its rounds as an animation, the decay of disagreement, eigenvalues and figures."""

from __future__ import annotations

import math
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go

from grapevine.experiments.report.topology_page import BLUE, GREY, ORANGE, ROUND_OFF, eigenvalues, fading, page, places, show
from grapevine.topology.analysis.schedule_figures import SEEN, STARTS, ScheduleFigures, simulated_rounds
from grapevine.topology.schedules.rounds import Schedule

MOST_SHOWN = 32  # the most rounds that are drawn
MOST_ROUNDS = 400


def schedule_page(title: str, schedule: Schedule) -> str:
    """Return one self-contained HTML page about a schedule, to be written to a file and opened.

    It holds an animation of up to 32 rounds, with each peer coloured by its value from a random start; the decay of
    disagreement as predicted and as simulated; the eigenvalues of a period (or of the mean round); and a table of figures.
    The page loads nothing from the network; equal schedules give equal pages.
    """
    figures = ScheduleFigures(schedule)
    spectrum, note = _spectrum(schedule)
    charts = [
        ("The links of each round", ROUNDS_NOTE, _rounds(schedule)),
        ("How disagreement shrinks", DECAY_NOTE, _decay(schedule, figures)),
        ("Eigenvalues", note, eigenvalues(spectrum, None)),
    ]
    return page(title, _intro(schedule, figures), _rows(figures), charts)


def _rounds(schedule: Schedule) -> go.Figure:
    place = places(schedule.reach.to_undirected())
    shown = min(schedule.period or MOST_SHOWN, MOST_SHOWN)
    values = np.random.default_rng([0, schedule.n]).standard_normal(schedule.n)
    frames = []
    for t in range(shown):
        frames.append(go.Frame(name=str(t), data=_drawn(schedule, t, place, values)))
        values = schedule.matrix(t) @ values
    chart = go.Figure(data=frames[0].data, frames=frames)
    chart.update_xaxes(visible=False, range=[-1.15, 1.15])
    chart.update_yaxes(visible=False, range=[-1.15, 1.15], scaleanchor="x")
    pace = {"frame": {"duration": 900, "redraw": True}, "transition": {"duration": 0}, "fromcurrent": True}
    still = {"frame": {"duration": 0, "redraw": True}, "mode": "immediate", "transition": {"duration": 0}}
    chart.update_layout(
        showlegend=False,
        height=600,
        updatemenus=[
            {
                "type": "buttons",
                "direction": "left",
                "x": 0.0,
                "y": -0.04,
                "yanchor": "top",
                "buttons": [
                    {"label": "play", "method": "animate", "args": [None, pace]},
                    {"label": "pause", "method": "animate", "args": [[None], still]},
                ],
            }
        ],
        sliders=[
            {
                "x": 0.2,
                "len": 0.8,
                "y": -0.02,
                "currentvalue": {"prefix": "round "},
                "steps": [{"label": str(t), "method": "animate", "args": [[str(t)], still]} for t in range(shown)],
            }
        ],
    )
    return chart


def _drawn(schedule: Schedule, t: int, place: dict[Any, Any], values: np.ndarray) -> list[go.Scatter]:
    """Return the links of a round, arrow heads if links go one way, and the peers coloured by their values before it."""
    graph = schedule.graph(t)
    xs: list[float | None] = []
    ys: list[float | None] = []
    for source, target in graph.edges:
        xs += [place[source][0], place[target][0], None]
        ys += [place[source][1], place[target][1], None]
    arrows = list(graph.edges) if schedule.directed else []
    # the head is drawn before the end of the arrow, where the peer's dot does not cover it
    heads = [0.2 * np.asarray(place[source]) + 0.8 * np.asarray(place[target]) for source, target in arrows]
    angles = [_bearing(place[source], place[target]) for source, target in arrows]
    labels = [f"peer {i}: {values[i]:.4g}, sends to {len(schedule.targets(t, i))}" for i in range(schedule.n)]
    few = schedule.n <= 64
    dots: dict[str, Any] = {
        "size": 22 if few else 9,
        "color": values.tolist(),
        "colorscale": [[0.0, BLUE], [0.5, GREY], [1.0, ORANGE]],
        "cmin": -2.0,
        "cmax": 2.0,
    }
    return [
        go.Scatter(x=xs, y=ys, mode="lines", line={"color": GREY, "width": 1.5}, hoverinfo="skip"),
        go.Scatter(
            x=[float(head[0]) for head in heads],
            y=[float(head[1]) for head in heads],
            mode="markers",
            marker={"symbol": "triangle-up", "size": 9, "color": GREY, "angle": angles},
            hoverinfo="skip",
        ),
        go.Scatter(
            x=[float(place[i][0]) for i in range(schedule.n)],
            y=[float(place[i][1]) for i in range(schedule.n)],
            mode="markers+text" if few else "markers",
            text=[str(i) for i in range(schedule.n)] if few else None,
            textfont={"color": "white", "size": 10},
            hovertext=labels,
            hoverinfo="text",
            marker=dots,
        ),
    ]


def _bearing(source: Any, target: Any) -> float:
    """Return the direction of an arrow in degrees, clockwise from upwards."""
    return math.degrees(math.atan2(float(target[0] - source[0]), float(target[1] - source[1])))


def _decay(schedule: Schedule, figures: ScheduleFigures) -> go.Figure:
    wanted = figures.mixing_time(1e-6)
    rounds = int(min(max(wanted, 2 * (schedule.period or 5), 10), MOST_ROUNDS))
    simulated = simulated_rounds(schedule, rounds)
    if figures.finite_time is not None:
        predicted = np.where(np.arange(rounds + 1) < figures.finite_time, 1.0, ROUND_OFF / 10)
        label = f"predicted: exact agreement after {figures.finite_time} rounds"
    else:
        predicted = figures.slem ** np.arange(rounds + 1, dtype=np.float64)
        label = f"predicted: {figures.slem:.4g} to the power of the round"
    return fading([(label, predicted, {"color": ORANGE, "dash": "dash"}), (_simulated(), simulated, {"color": BLUE})])


def _simulated() -> str:
    return f"simulated: {STARTS} random starts"


def _spectrum(schedule: Schedule) -> tuple[np.ndarray, str]:
    """Return eigenvalues by falling modulus, and the sentence that explains them."""
    matrix = np.eye(schedule.n)
    if schedule.period is None:
        matrix = np.mean([schedule.matrix(t) for t in range(SEEN)], axis=0)
        note = f"The eigenvalues of the mean mixing matrix of the first {SEEN} rounds. " + EIGENVALUE_NOTE
    else:
        for t in range(schedule.period):
            matrix = schedule.matrix(t) @ matrix
        note = "The eigenvalues of the product of the mixing matrices of a whole period. " + EIGENVALUE_NOTE
    values = np.linalg.eigvalsh(matrix) if np.allclose(matrix, matrix.T, rtol=0.0, atol=1e-12) else np.linalg.eigvals(matrix)
    return values[np.argsort(-np.abs(values), kind="stable")], note


def _intro(schedule: Schedule, figures: ScheduleFigures) -> str:
    period = "its rounds never repeat" if schedule.period is None else f"its rounds repeat after {schedule.period}"
    if figures.finite_time is not None:
        fade = f"all peers agree exactly after {figures.finite_time}"
    elif math.isfinite(figures.mixing_time(1e-3)):
        fade = f"disagreement shrinks to a thousandth in about {figures.mixing_time(1e-3)} rounds"
    else:
        fade = "disagreement never vanishes"
    name = f"<em>{escape(schedule.name)}</em>"
    return f"{schedule.n} peers exchange models by the schedule {name}: {period}, and {fade}."


def _rows(figures: ScheduleFigures) -> list[tuple[str, Any, str]]:
    figure = figures.as_dict()
    finite = figures.finite_time
    return [
        ("Peers", figures.nodes, "nodes of the graphs"),
        ("Period", "endless" if figures.period is None else figures.period, "rounds after which the rounds repeat"),
        ("Most neighbours", figures.max_degree, "largest number of peers that one peer sends to in a round"),
        ("Messages", figures.messages_per_round, "sent by all peers together in a round, mean over the rounds"),
        ("Exact after", "never" if finite is None else finite, "rounds until all peers agree exactly, from any start"),
        ("SLEM", figures.slem, "mean factor that multiplies disagreement in one round, in the long run"),
        ("Spectral gap", figures.gap, "1 - SLEM: larger is faster"),
        ("Mixing time", figures.mixing_time(1e-3), "rounds until a thousandth of the disagreement is left"),
        ("Contraction", show(figures.contraction), "share of the expected squared disagreement that a random round leaves"),
        ("Effective neighbours", show(figure["effective_neighbours"]), "peers with which one averages in about ten rounds"),
        ("Directed", figures.directed, "whether links go one way"),
        (
            "Doubly stochastic",
            figures.doubly_stochastic,
            "no round has a negative weight or changes the mean of the models",
        ),
        ("Mean preserved", figures.mean_preserved, "whether averaging keeps the mean of the models"),
    ]


ROUNDS_NOTE = (
    "Press play or move the slider. Each line is a link used in the round; an arrow is a link used in this direction only. "
    "Peers start with random values; colours show their values before the round and turn grey as the peers agree."
)
DECAY_NOTE = (
    "Peers start with different random values; in each round every peer replaces its value by a weighted average of its own "
    "and those it receives. The dashed line is the prediction for the long run."
)
EIGENVALUE_NOTE = (
    "The largest, 1, belongs to the mean of all peers. Each other eigenvalue belongs to one pattern of disagreement and is the "
    "factor that multiplies it."
)
