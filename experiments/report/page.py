"""The report of one run, or of several runs side by side: one HTML page that loads nothing from the network."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from grapevine.experiments.report.crowd import caption_of_many, graph_of_many
from grapevine.experiments.report.figures import (
    COLOURS,
    MOST_NAMED,
    MOST_PEERS,
    Figure,
    crowded,
    curves,
    delays,
    rates,
    sample_note,
    shares_lines,
    unshaped,
)
from grapevine.experiments.report.graph import MOST_LINKS, graph
from grapevine.experiments.report.html import section, write_page
from grapevine.experiments.report.marks import marks_note
from grapevine.experiments.report.runs import Run
from grapevine.experiments.report.tables import (
    cards,
    configuration,
    differing_settings,
    events,
    key_figures,
    machine,
    summary_paragraph,
    warnings,
)
from grapevine.experiments.results.result import Result

MOST_GRAPHS = 6


def write_report(folders: Sequence[Path], out: Path) -> None:
    """Write one self-contained HTML page to `out`: the full report of one run folder, or several runs in common pictures.

    Raises ValueError, naming the file and the cure, for a folder that is not a run or is damaged, and if the page cannot
    be written.
    """
    if not folders:
        raise ValueError("nothing to report on: give at least one run folder")
    results = [Result.read(folder) for folder in folders]
    labels = _labels(results)
    styles = _styles(results)
    runs = [Run.read(result, label, *style) for result, label, style in zip(results, labels, styles, strict=True)]
    write_page(out, *_page(runs))


def _styles(results: Sequence[Result]) -> list[tuple[str, str]]:
    """Return a colour and a dash for each run; runs that differ only in their world share a colour, virtual ones dotted."""
    alike = [_without_world(result) for result in results]
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


def _without_world(result: Result) -> bytes:
    """Return the configuration of a run without its world, and without its name, which may contain the world."""
    try:
        described = result.experiment_document
    except ValueError:
        return str(result.folder).encode()
    return msgspec.json.encode({key: value for key, value in described.items() if key not in ("world", "name")}, order="sorted")


def _page(runs: Sequence[Run]) -> tuple[str, str, dict[str, Figure]]:
    """Return title, content and pictures."""
    figures: dict[str, Figure] = {}
    names = {str(run.result.summary.get("name")) for run in runs}
    title = f"{names.pop()}: {len(runs)} runs compared" if len(names) == 1 else f"{len(runs)} runs compared"
    title = runs[0].label if len(runs) == 1 else title
    head = summary_paragraph(runs[0]) + cards(runs[0].result.summary) if len(runs) == 1 else key_figures(runs)
    drawn = [*_curve_sections(runs, figures), *_link_sections(runs, figures)]
    tables = [events(runs), configuration(runs), machine(runs)]
    content = "\n".join([head, warnings(runs), '<div class="grid">', *drawn, "</div>", *tables])
    return title, content, figures


def _curve_sections(runs: Sequence[Run], figures: dict[str, Figure]) -> Iterable[str]:
    alone = len(runs) == 1
    lines = "Lines are means over the peers" + (
        "; bands reach from the lowest to the highest peer." if len(runs) <= MOST_NAMED else "."
    )
    if alone:
        crowd = len(runs[0].peers("loss"))
        lines = "Each thin line is a peer; the thick line is the mean of the peers."
        lines += f" Of {crowd:,} peers {MOST_PEERS} are drawn." if crowd > MOST_PEERS else ""
        if crowded(runs):
            lines = "The pale band holds all peers, the darker one nine tenths of them; the thick line is their mean."
        lines += " Vertical dotted lines: a peer was lost." if runs[0].result.summary["peers_lost"] else ""
    lines += marks_note(runs)
    sections = [
        (
            "Accuracy",
            f"Accuracy of each peer's own model on the test set. {lines}",
            curves(runs, "accuracy", "accuracy_mean", "test accuracy", "share"),
            "This task has no accuracy, or none was measured.",
        ),
        (
            "Test loss",
            f"Loss of each peer's own model on the test set; lower is better. {lines}",
            curves(runs, "loss", "loss_mean", "test loss"),
            "No test loss was measured.",
        ),
        (
            "Training loss",
            "Loss on each peer's own training data, mean since the record before.",
            curves(runs, "train_loss", None, "training loss"),
            "No training loss was measured.",
        ),
        (
            "Consensus distance",
            "How far apart the models are: the mean squared distance of a peer's weights from the average model.",
            curves(runs, None, "consensus_distance", "consensus distance", "log"),
            "No consensus distance was measured.",
        ),
        (
            "Bytes sent",
            "Bytes that all peers together have sent since the start, acknowledgements and headers included.",
            curves(runs, None, "bytes_sent", "bytes sent", "bytes"),
            "Nothing was sent.",
        ),
        (
            "Staleness",
            "Age of a neighbour's contribution when it is used, in steps: mean over each peer's links since the record before.",
            curves(runs, "staleness_steps", None, "staleness (steps)"),
            "No contribution was received, so there is no staleness.",
        ),
    ]
    has_loss, has_accuracy = (any(run.mean(name, f"{name}_mean") for run in runs) for name in ("loss", "accuracy"))
    for title, text, drawn, otherwise in sections:
        if title == "Accuracy" and has_loss and not has_accuracy:  # the task has none
            continue
        yield section(title, text, drawn, otherwise, figures)


def _link_sections(runs: Sequence[Run], figures: dict[str, Figure]) -> Iterable[str]:
    free = unshaped(runs)
    dots = (
        "Each dot is one direction of a link: asked is the value in the experiment's network, measured the value that the "
        "peers observed. On the dashed line both are equal. "
    )
    dots += sample_note(runs)
    shared = (
        "If links share an uplink, a downlink or a cable, the asked rate is a range: the dot is at the fair share, an equal "
        "part for each link that carried messages, and the bar reaches to the rate when the other links are idle. A measured "
        "rate in this range is correct. "
    )
    text = f"{dots}{shared if shares_lines(runs) else ''}{free}"
    yield section("Link rates", text, rates(runs), free or "No rate was measured.", figures)
    yield section("Link delays", dots, delays(runs), "No delay was measured.", figures)
    text = "Wide, dark links carried many bytes. Point at the middle of a link for its traffic, rate and delay per direction."
    for run in runs[:MOST_GRAPHS]:
        title = "Bytes on each link" + (f": {run.label}" if len(runs) > 1 else "")
        if crowded([run]):
            drawn = graph_of_many(run)
            yield section(title, caption_of_many(run), drawn, "No link carried anything.", figures, wide=len(runs) == 1)
            continue
        links = len({frozenset(link[:2]) for link in run.links})
        more = f" The {MOST_LINKS} busiest of {links:,} links are drawn." if links > MOST_LINKS else ""
        drawn = graph(run, 600 if len(runs) == 1 else 440)
        yield section(title, text + more, drawn, "No link carried anything.", figures, wide=len(runs) == 1)
    if len(runs) > MOST_GRAPHS:
        yield f'<p class="note">Graphs of the other {len(runs) - MOST_GRAPHS} runs are in their own reports.</p>'


def _labels(results: Sequence[Result]) -> list[str]:
    """Return a label for each run: its name; if all names are equal, the settings that differ; if some are, with the folder."""
    names = [str(result.summary.get("name") or result.folder.name) for result in results]
    if len(set(names)) == len(names):
        return names
    if len(set(names)) == 1 and (short := differing_settings(results)):
        return short
    with_folder = [f"{name} ({result.folder.name})" for name, result in zip(names, results, strict=True)]
    return [long if names.count(name) > 1 else name for name, long in zip(names, with_folder, strict=True)]
