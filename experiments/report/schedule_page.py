"""A schedule's page: its rounds played one after the other, how disagreement fades, its spectrum and its figures."""

from __future__ import annotations

import math
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go

from grapevine.experiments.report.topology_page import BLUE, GREY, ORANGE, ROUND_OFF, eigenvalues, fading, page, places, show
from grapevine.topology.analysis.schedule_figures import SEEN, STARTS, ScheduleFigures, simulated_rounds
from grapevine.topology.schedules.rounds import Schedule

MOST_SHOWN = 32  # rounds that are drawn
MOST_ROUNDS = 400


def schedule_page(title: str, schedule: Schedule) -> str:
    """One self-contained HTML page about a schedule, to be written to a file and opened.

    Its rounds play one after the other, up to 32 of them, with each peer coloured by what it holds of a random start; below,
    the decay of disagreement as predicted and as simulated, the eigenvalues of a period (or of a round in the mean), and a
    table of figures. The page loads nothing from elsewhere, and is the same whenever it is made from the same schedule.
    """
    figures = ScheduleFigures(schedule)
    spectrum, note = _spectrum(schedule)
    charts = [
        ("Who talks to whom, round by round", ROUNDS_NOTE, _rounds(schedule)),
        ("How disagreement fades", DECAY_NOTE, _decay(schedule, figures)),
        ("Its eigenvalues", note, eigenvalues(spectrum, None)),
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
    """The links of a round, their heads where they go one way, and the peers with what they hold before it."""
    graph = schedule.graph(t)
    xs: list[float | None] = []
    ys: list[float | None] = []
    for source, target in graph.edges:
        xs += [place[source][0], place[target][0], None]
        ys += [place[source][1], place[target][1], None]
    arrows = list(graph.edges) if schedule.directed else []
    # a head stands well before its end, so that peers do not cover it
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
    """The direction of an arrow, clockwise from upwards, in degrees."""
    return math.degrees(math.atan2(float(target[0] - source[0]), float(target[1] - source[1])))


def _decay(schedule: Schedule, figures: ScheduleFigures) -> go.Figure:
    wanted = figures.mixing_time(1e-6)
    rounds = int(min(max(wanted, 2 * (schedule.period or 5), 10), MOST_ROUNDS))
    simulated = simulated_rounds(schedule, rounds)
    if figures.finite_time is not None:
        predicted = np.where(np.arange(rounds + 1) < figures.finite_time, 1.0, ROUND_OFF / 10)
        told = f"predicted: exact agreement after {figures.finite_time}"
    else:
        predicted = figures.slem ** np.arange(rounds + 1, dtype=np.float64)
        told = f"predicted: {figures.slem:.4g} to the power of the round"
    return fading([(told, predicted, {"color": ORANGE, "dash": "dash"}), (_simulated(), simulated, {"color": BLUE})])


def _simulated() -> str:
    return f"simulated: {STARTS} random starts"


def _spectrum(schedule: Schedule) -> tuple[np.ndarray, str]:
    """Eigenvalues by falling modulus, and whose they are."""
    matrix = np.eye(schedule.n)
    if schedule.period is None:
        matrix = np.mean([schedule.matrix(t) for t in range(SEEN)], axis=0)
        note = f"Of the mean of the first {SEEN} rounds' mixing matrices. " + EIGENVALUE_NOTE
    else:
        for t in range(schedule.period):
            matrix = schedule.matrix(t) @ matrix
        note = "Of the product of a whole period's mixing matrices. " + EIGENVALUE_NOTE
    values = np.linalg.eigvalsh(matrix) if np.allclose(matrix, matrix.T, rtol=0.0, atol=1e-12) else np.linalg.eigvals(matrix)
    return values[np.argsort(-np.abs(values), kind="stable")], note


def _intro(schedule: Schedule, figures: ScheduleFigures) -> str:
    turns = "its rounds never repeat" if schedule.period is None else f"its rounds repeat after {schedule.period}"
    if figures.finite_time is not None:
        fade = f"all agree exactly after {figures.finite_time}"
    elif math.isfinite(figures.mixing_time(1e-3)):
        fade = f"disagreement shrinks a thousandfold in about {figures.mixing_time(1e-3)} rounds"
    else:
        fade = "disagreement never fades"
    return f"{schedule.n} peers talk by the schedule <em>{escape(schedule.name)}</em>: {turns}, and {fade}."


def _rows(figures: ScheduleFigures) -> list[tuple[str, Any, str]]:
    figure = figures.as_dict()
    finite = figures.finite_time
    return [
        ("Peers", figures.nodes, "who take part"),
        ("Period", "endless" if figures.period is None else figures.period, "rounds after which they repeat"),
        ("Most neighbours", figures.max_degree, "peers that one peer sends to in a round, at most"),
        ("Messages", figures.messages_per_round, "of all peers in a round, in the mean"),
        ("Exact after", "never" if finite is None else finite, "rounds until all agree, whatever they started from"),
        ("SLEM", figures.slem, "disagreement left after one round, in the long run and in the mean"),
        ("Spectral gap", figures.gap, "1 - SLEM: larger is faster"),
        ("Mixing time", figures.mixing_time(1e-3), "rounds until a thousandth of the disagreement is left"),
        ("Contraction", show(figures.contraction), "of the expected squared disagreement in a random round, by formula"),
        ("Effective neighbours", show(figure["effective_neighbours"]), "with how many peers one averages in about ten rounds"),
        ("Directed", figures.directed, "whether links go one way"),
        (
            "Doubly stochastic",
            figures.doubly_stochastic,
            "whether averaging is fair in every round: no negative weights, no drift",
        ),
        ("Mean preserved", figures.mean_preserved, "whether averaging leaves the fleet's mean where it is"),
    ]


ROUNDS_NOTE = (
    "Play, or move the slider: every line is a link that is used in the round, an arrow one that goes that way alone. Colours "
    "show what peers hold of random starting values before the round; they turn grey as all come to agree."
)
DECAY_NOTE = (
    "Peers start with different random values and replace them, round after round, by the weighted average of their own and of "
    "those they hear. The dashed line is what theory tells for the long run."
)
EIGENVALUE_NOTE = (
    "The largest, 1, stands for what all peers have in common; every other for one way to disagree, and the factor by which "
    "that way shrinks."
)
