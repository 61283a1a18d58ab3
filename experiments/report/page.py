"""One page that tells a stranger what came of a run, or how several compare; it needs no network to be read."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from grapevine.experiments.report.crowd import graph_of_many, told_of_many
from grapevine.experiments.report.figures import (
    COLOURS,
    MOST_NAMED,
    MOST_PEERS,
    Figure,
    crowded,
    curves,
    delays,
    rates,
    shares_lines,
    some_told,
    unshaped,
)
from grapevine.experiments.report.graph import MOST_LINKS, graph
from grapevine.experiments.report.html import section, write_page
from grapevine.experiments.report.marks import marks_told
from grapevine.experiments.report.runs import Run
from grapevine.experiments.report.tables import cards, configuration, events, key_figures, machine, told, warnings, what_differs
from grapevine.experiments.results.result import Result

MOST_GRAPHS = 6


def write_report(folders: Sequence[Path], out: Path) -> None:
    """Write one self-contained HTML page to `out`: one folder is told at length, several are laid on top of each other.

    Raises ValueError, naming the file and the cure, for a folder that is no run or is damaged, and for a page that
    cannot be written.
    """
    if not folders:
        raise ValueError("nothing to report on: give at least one run folder")
    results = [Result.read(folder) for folder in folders]
    labels = _labels(results)
    styles = _styles(results)
    runs = [Run.read(result, label, *style) for result, label, style in zip(results, labels, styles, strict=True)]
    write_page(out, *_page(runs))


def _styles(results: Sequence[Result]) -> list[tuple[str, str]]:
    """A colour and a dash for each; runs that differ in nothing but their world share a colour: in virtual time dotted."""
    alike = [_but_for_the_world(result) for result in results]
    worlds = {(key, result.summary.get("world")) for key, result in zip(alike, results, strict=True)}
    if len(set(alike)) == len(alike) or len(worlds) < len(alike):
        styles = itertools.cycle((colour, dash) for dash in ("solid", "dash", "dot") for colour in COLOURS)
        return [next(styles) for _ in results]
    places = {key: place for place, key in enumerate(dict.fromkeys(alike))}
    drawn = []
    for key, result in zip(alike, results, strict=True):
        turn, colour = divmod(places[key], len(COLOURS))
        dashes = ("solid", "dot") if turn % 2 == 0 else ("dash", "dashdot")
        drawn.append((COLOURS[colour], dashes[result.summary.get("world") == "virtual"]))
    return drawn


def _but_for_the_world(result: Result) -> bytes:
    """The whole description of a run without its world, and without its name, which may tell it."""
    try:
        described = result.experiment_document
    except ValueError:
        return str(result.folder).encode()
    return msgspec.json.encode({key: value for key, value in described.items() if key not in ("world", "name")}, order="sorted")


def _page(runs: Sequence[Run]) -> tuple[str, str, dict[str, Figure]]:
    """Title, content and pictures."""
    figures: dict[str, Figure] = {}
    names = {str(run.result.summary.get("name")) for run in runs}
    title = f"{names.pop()}: {len(runs)} runs compared" if len(names) == 1 else f"{len(runs)} runs compared"
    title = runs[0].label if len(runs) == 1 else title
    head = told(runs[0]) + cards(runs[0].result.summary) if len(runs) == 1 else key_figures(runs)
    drawn = [*_curve_sections(runs, figures), *_link_sections(runs, figures)]
    tables = [events(runs), configuration(runs), machine(runs)]
    content = "\n".join([head, warnings(runs), '<div class="grid">', *drawn, "</div>", *tables])
    return title, content, figures


def _curve_sections(runs: Sequence[Run], figures: dict[str, Figure]) -> Iterable[str]:
    alone = len(runs) == 1
    lines = "Lines are means over the peers" + (
        ", bands reach from the lowest to the highest peer." if len(runs) <= MOST_NAMED else "."
    )
    if alone:
        crowd = len(runs[0].peers("loss"))
        lines = "One thin line a peer; the thick line is their mean."
        lines += f" Of {crowd:,} peers {MOST_PEERS} are drawn." if crowd > MOST_PEERS else ""
        if crowded(runs):
            lines = "The pale band holds all peers, the darker one nine tenths of them; the thick line is their mean."
        lines += " Dotted, upright: a peer was lost." if runs[0].result.summary["peers_lost"] else ""
    lines += marks_told(runs)
    sections = [
        (
            "Accuracy",
            f"Of each peer's own model, on the test set. {lines}",
            curves(runs, "accuracy", "accuracy_mean", "test accuracy", "share"),
            "This task has no accuracy, or none was measured.",
        ),
        (
            "Test loss",
            f"Of each peer's own model; the lower the better. {lines}",
            curves(runs, "loss", "loss_mean", "test loss"),
            "No test loss was measured.",
        ),
        (
            "Training loss",
            "On each peer's own share of the data: the mean since the record before.",
            curves(runs, "train_loss", None, "training loss"),
            "No training loss was measured.",
        ),
        (
            "Consensus distance",
            "How far apart the models are: the mean squared distance of a peer's weights from the average model.",
            curves(runs, None, "consensus_distance", "consensus distance", "log"),
            "It was not measured.",
        ),
        (
            "Bytes sent",
            "By all peers together since the start, acknowledgements and headers included.",
            curves(runs, None, "bytes_sent", "bytes sent", "bytes"),
            "Nothing was sent.",
        ),
        (
            "Staleness",
            "How many steps old a neighbour's contribution is when it is used: the mean over each peer's links since the "
            "record before.",
            curves(runs, "staleness_steps", None, "staleness (steps)"),
            "Nothing was received, so nothing was stale.",
        ),
    ]
    for title, text, drawn, otherwise in sections:
        yield section(title, text, drawn, otherwise, figures)


def _link_sections(runs: Sequence[Run], figures: dict[str, Figure]) -> Iterable[str]:
    free = unshaped(runs)
    dots = "A dot is one directed link; on the dashed line it was measured as it was asked for. "
    dots += some_told(runs)
    shared = (
        "Where links share an uplink, a downlink or a cable, the dot stands at a fair share, an equal part of that line among "
        "the links that carried messages; the bar reaches to what the link gets alone, and the dashed line may cross it "
        "anywhere. "
    )
    text = f"{dots}{shared if shares_lines(runs) else ''}What is measured is what the peers themselves see. {free}"
    yield section("Link rates", text, rates(runs), free or "No rate was measured.", figures)
    yield section("Link delays", dots, delays(runs), "No delay was measured.", figures)
    text = "Wide and dark: many bytes. Point at the middle of a link for its traffic, rate and delay in each direction."
    for run in runs[:MOST_GRAPHS]:
        title = "Bytes on each link" + (f": {run.label}" if len(runs) > 1 else "")
        if crowded([run]):
            drawn = graph_of_many(run)
            yield section(title, told_of_many(run), drawn, "No link carried anything.", figures, wide=len(runs) == 1)
            continue
        links = len({frozenset(link[:2]) for link in run.links})
        more = f" The {MOST_LINKS} busiest of {links:,} links are drawn." if links > MOST_LINKS else ""
        drawn = graph(run, 600 if len(runs) == 1 else 440)
        yield section(title, text + more, drawn, "No link carried anything.", figures, wide=len(runs) == 1)
    if len(runs) > MOST_GRAPHS:
        yield f'<p class="note">Graphs of the other {len(runs) - MOST_GRAPHS} runs are in their own reports.</p>'


def _labels(results: Sequence[Result]) -> list[str]:
    """The runs' names; where all are the same, as in a sweep, what differs; where two are, with their folders."""
    names = [str(result.summary.get("name") or result.folder.name) for result in results]
    if len(set(names)) == len(names):
        return names
    if len(set(names)) == 1 and (short := what_differs(results)):
        return short
    told_apart = [f"{name} ({result.folder.name})" for name, result in zip(names, results, strict=True)]
    return [long if names.count(name) > 1 else name for name, long in zip(names, told_apart, strict=True)]
