"""One page that tells a stranger what came of a run, or how several compare; it needs no network to be read."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import msgspec

from experiments.report_figures import COLOURS, Figure, Run, count, curves, delays, rates, unshaped
from experiments.report_graph import graph
from experiments.report_style import PAGE, SCRIPT
from experiments.result import Result
from experiments.summary import figure, peers_text, percent
from netem.units import show_bytes

MOST_EVENTS, MOST_GRAPHS = 200, 6


def write_report(folders: Sequence[Path], out: Path) -> None:
    """Write one self-contained HTML page to `out`: one folder is told at length, several are laid on top of each other.

    Raises ValueError, naming the file and the cure, for a folder that is no run or is damaged, and for a page that
    cannot be written.
    """
    if not folders:
        raise ValueError("nothing to report on: give at least one run folder")
    results = [Result.read(folder) for folder in folders]
    labels = _labels(results)
    runs = [Run.read(result, label, COLOURS[i % len(COLOURS)]) for i, (result, label) in enumerate(zip(results, labels, strict=True))]
    page = _page(runs)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        part = out.with_name(f".{out.name}.part")
        part.write_text(page, encoding="utf-8")
        part.replace(out)
    except OSError as error:
        raise ValueError(f"{out}: the report cannot be written ({error.strerror}); give another place") from None


def _page(runs: Sequence[Run]) -> str:
    from plotly.offline import get_plotlyjs

    figures: dict[str, Figure] = {}
    title = runs[0].label if len(runs) == 1 else f"{len(runs)} runs compared"
    head = _told(runs[0]) + _cards(runs[0].result.summary) if len(runs) == 1 else _key_figures(runs)
    body = [head, _warnings(runs), '<div class="grid">', *_curve_sections(runs, figures), *_link_sections(runs, figures), "</div>"]
    body += [_events(run) for run in runs] + [_configuration(runs), _machine(runs)]
    content = "\n".join(body)
    data = msgspec.json.encode(figures).decode().replace("</", "<\\/").replace("<!--", "<\\u0021--")
    script = f"<script>{get_plotlyjs()}</script>\n<script>const figures = {data};\n{SCRIPT}</script>"
    return PAGE.substitute(title=escape(title), content=content, script=script)


def _curve_sections(runs: Sequence[Run], figures: dict[str, Figure]) -> Iterable[str]:
    lines = "One thin line a peer, the thick line is their mean." if len(runs) == 1 else "Lines are means over the peers, bands reach from the lowest to the highest peer."
    crowd = max((len(run.peers("train_loss")) for run in runs), default=0)
    lines += f" Of {crowd:,} peers, 64 are drawn." if crowd > 64 and len(runs) == 1 else ""
    lost = " Dotted: a peer was lost." if len(runs) == 1 and runs[0].result.summary["peers_lost"] else ""
    sections: list[tuple[str, str, Figure | None, str]] = [
        ("Accuracy", f"On the test set, of each peer's own model. {lines}{lost}",
         curves(runs, "accuracy", "accuracy_mean", "test accuracy", "share"), "This task has no accuracy, or none was measured."),
        ("Test loss", f"The lower the better. {lines}", curves(runs, "loss", "loss_mean", "test loss"), "No test loss was measured."),
        ("Training loss", "On each peer's own share of the data, mean since the previous record.",
         curves(runs, "train_loss", None, "training loss"), "No training loss was measured."),
        ("Consensus distance", "How far apart the models are: the mean squared distance of a peer's weights from the average model. "
         "0 means that all agree.", curves(runs, None, "consensus_distance", "consensus distance", "log"), "It was not measured."),
        ("Staleness", "How many steps old a neighbour's contribution is when it is used.",
         curves(runs, "staleness_steps", None, "staleness (steps)"), "Nothing was received, so nothing was stale."),
    ]  # fmt: skip
    for title, text, drawn, otherwise in sections:
        yield _section(title, text, drawn, otherwise, figures)


def _link_sections(runs: Sequence[Run], figures: dict[str, Figure]) -> Iterable[str]:
    free = unshaped(runs)
    dots = "A dot is one directed link; on the dashed line it was measured as it was asked for. "
    yield _section("Link rates", f"{dots}Peers measure a rate from the traffic they send. {free}", rates(runs),
                   free or "No rate was measured.", figures)  # fmt: skip
    yield _section("Link delays", dots, delays(runs), "No delay was measured.", figures)
    text = "Wide and dark: many bytes. Point at the middle of a link for what it carried, and its rate and delay as measured and as asked."
    for run in runs[:MOST_GRAPHS]:
        title = "Bytes on each link" + (f": {run.label}" if len(runs) > 1 else "")
        yield _section(title, text, graph(run), "No link carried anything yet.", figures, wide=len(runs) == 1)
    if len(runs) > MOST_GRAPHS:
        yield f'<p class="note">Graphs of the other {len(runs) - MOST_GRAPHS} runs are in their own reports.</p>'


def _section(title: str, text: str, drawn: Figure | None, otherwise: str, figures: dict[str, Figure], wide: bool = False) -> str:
    head = f'<section class="card{" wide" if wide else ""}"><h2>{escape(title)}</h2>'
    if drawn is None:
        return f'{head}<p class="nothing">{escape(otherwise)}</p></section>'
    name = f"figure{len(figures)}"
    figures[name] = drawn
    height = drawn["layout"]["height"]
    return f'{head}<p class="how">{escape(text)}</p><div class="plot" id="{name}" style="height:{height}px"></div></section>'


def _told(run: Run) -> str:
    """The outcome in a paragraph."""
    summary, config = run.result.summary, _config(run)
    each = ", one process each," if summary["world"] == "processes" else " in virtual time"
    task = _name(config.get("task"))
    network = _name(config.get("network"))
    text = (f"{count(summary['peers'] or 0, 'peer')}{each} trained {f'on {task} ' if task else ''}with the strategy "
            f"{summary['strategy']}, connected as {summary['topology']} {f'over the network {network} ' if network else ''}"
            f"and with no server between them. ")  # fmt: skip
    if summary["reason"] == "running":
        text += "The run had not ended when this page was written, or it was killed: the page shows how far it came. "
    else:
        text += f"The run {'is complete' if summary['completed'] else 'ended early'}: {summary['reason']}. "
    if summary["emulated_s"] is not None:
        text += (f"It lasted {figure(summary['emulated_s'], 's')} of emulated time ({figure(summary['wall_s'], 's')} on the "
                 f"wall clock). ")  # fmt: skip
    if summary["accuracy_mean"] is not None:
        text += (f"A peer's model classifies {percent(summary['accuracy_mean'])} of the test set correctly on average; the worst "
                 f"{percent(summary['accuracy_min'])}, the best {percent(summary['accuracy_max'])}. ")  # fmt: skip
        reached = [(level, time_s) for level, time_s in summary["time_to_accuracy_s"].items() if time_s is not None]
        text += f"The mean reached {float(reached[-1][0]):.0%} after {figure(reached[-1][1], 's')}. " if reached else ""
    if summary["bytes_sent"] is not None:
        text += f"In all the peers sent {show_bytes(summary['bytes_sent'])}. "
    lost = summary["peers_lost"]
    if lost:
        text += f"{peers_text(lost).capitalize()} {'was' if len(lost) == 1 else 'were'} lost on the way; the others went on. "
    return f'<p class="told">{escape(text)}</p>'


def _figures(summary: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """What is told of every run: title, value, small print."""
    value = summary.get
    spread = f"{percent(value('accuracy_min'))} to {percent(value('accuracy_max'))}"
    ninety = (value("time_to_accuracy_s") or {}).get("0.9")
    return [
        ("mean accuracy", percent(value("accuracy_mean")), f"peers: {spread}" if value("accuracy_mean") is not None else ""),
        ("accuracy of the mean model", percent(value("accuracy_of_mean")), ""),
        ("mean test loss", figure(value("loss_mean")), ""),
        ("time to 90 %", figure(ninety, "s" if ninety is not None else ""), "emulated"),
        ("emulated time", figure(value("emulated_s"), "s"), f"wall clock {figure(value('wall_s'), 's')}"),
        ("steps", figure(value("steps_total")), f"{figure(value('steps_per_wall_s'))} per second of wall clock"),
        ("sent", show_bytes(value("bytes_sent")) if value("bytes_sent") is not None else "-",
         f"{figure(value('messages_sent'))} messages"),
        ("consensus distance", figure(value("consensus_distance")), ""),
        ("staleness", figure(value("staleness_steps_mean"), "steps"), "mean"),
        ("spectral gap", figure(value("spectral_gap")), "1 = mixes at once, 0 = never"),
        ("peers lost", str(len(value("peers_lost") or [])), ", ".join(map(str, value("peers_lost") or []))),
        ("lateness", figure(value("lateness_p99_ms"), "ms"), "99th percentile, real time"),
    ]  # fmt: skip


def _cards(summary: Mapping[str, Any]) -> str:
    cards = "".join(
        f'<div class="figure"><b>{escape(value)}</b><span>{escape(title)}</span><small>{escape(small)}</small></div>'
        for title, value, small in _figures(summary)
        if value != "-"
    )
    return f'<div class="figures">{cards}</div>'


def _key_figures(runs: Sequence[Run]) -> str:
    """The same as a table: a row a run."""
    titles = [title for title, _, _ in _figures(runs[0].result.summary)]
    head = "".join(f"<th>{escape(title)}</th>" for title in ("run", "ended", *titles))
    rows = []
    for run in runs:
        summary = run.result.summary
        ended = str(summary["reason"]) if summary["completed"] else f"early: {summary['reason']}"
        cells = "".join(f"<td>{escape(value)}</td>" for _, value, _ in _figures(summary))
        rows.append(f'<tr><th><i style="background:{run.colour}"></i>{escape(run.label)}</th><td class="text">{escape(ended)}</td>{cells}</tr>')
    return f'<div class="scroll"><table class="runs"><tr>{head}</tr>{"".join(rows)}</table></div>'


def _warnings(runs: Sequence[Run]) -> str:
    texts = [(run.label, text) for run in runs for text in run.result.summary.get("warnings") or ()]
    items = "".join(f"<li>{escape(text if len(runs) == 1 else f'{label}: {text}')}</li>" for label, text in texts)
    return f'<div class="warnings"><b>Before you trust these figures</b><ul>{items}</ul></div>' if texts else ""


def _events(run: Run) -> str:
    rows = []
    for event in run.result.events[:MOST_EVENTS]:
        kind, time_s = str(event.get("kind", "")), event.get("time_s")
        rest = {key: value for key, value in event.items() if key not in ("time_s", "kind", "text", "peer") and value is not None}
        who = f"peer {event['peer']}" if event.get("peer") is not None else ""
        more = ", ".join(f"{key} {_plain(value)}" for key, value in rest.items())
        what = ": ".join(part for part in (who, str(event.get("text") or "")) if part) + (f" ({more})" if more else "")
        grave = ' class="grave"' if kind in ("lost", "fault", "warning") else ""
        time = figure(time_s, "s") if isinstance(time_s, int | float) else "-"
        rows.append(f"<tr{grave}><td>{time}</td><td>{escape(kind.replace('_', ' '))}</td><td class=\"text\">{escape(what)}</td></tr>")
    more_than = len(run.result.events) - MOST_EVENTS
    note = f'<p class="note">{more_than:,} more are in events.jsonl.</p>' if more_than > 0 else ""
    table = f'<table class="events"><tr><th>emulated time</th><th>event</th><th></th></tr>{"".join(rows)}</table>'
    body = table + note if rows else '<p class="nothing">Nothing out of the ordinary happened.</p>'
    return f'<section class="card"><h2>Events: {escape(run.label)}</h2>{body}</section>'


def _configuration(runs: Sequence[Run]) -> str:
    return _settings("Configuration", "The whole experiment, every default filled in (experiment.toml).", runs, [_config(run) for run in runs])


def _machine(runs: Sequence[Run]) -> str:
    hidden = ("places", "samples", "run_folder", "notes")
    facts = [{key: value for key, value in run.result.manifest.items() if key not in hidden} for run in runs]
    for fact in facts:
        fact |= _readable(fact.pop("machine", None) or {})
    return _settings("Machine", "What it ran on, and how it was started (manifest.json).", runs, facts)


def _readable(machine: Mapping[str, Any]) -> dict[str, Any]:
    size = machine.get("memory_bytes")
    memory = {"memory": show_bytes(size)} if isinstance(size, int) else {}
    return {"machine": {key: value for key, value in machine.items() if key not in ("memory_bytes", "versions")} | memory,
            "versions": machine.get("versions") or {}}  # fmt: skip


def _settings(title: str, text: str, runs: Sequence[Run], parts: Sequence[Mapping[str, Any]]) -> str:
    """Key and value, in groups; for several runs a column each, with what differs set off."""
    flat = [_flat(part) for part in parts]
    groups: dict[str, list[str]] = {}
    for key in dict.fromkeys(key for part in flat for key in part):
        groups.setdefault(key[0], []).append(_row(key, [part.get(key, "") for part in flat]))
    if len(runs) == 1:
        tables = "".join(f"<div><h3>{escape(group or 'run')}</h3><table>{''.join(rows)}</table></div>" for group, rows in groups.items())
        body = f'<div class="groups">{tables}</div>'
    else:
        head = "".join(f"<th>{escape(run.label)}</th>" for run in runs)
        rows = "".join(f'<tr class="group"><th colspan="{len(runs) + 1}">{escape(group or "run")}</th></tr>{"".join(rows)}' for group, rows in groups.items())
        body = f'<div class="scroll"><table><tr><th></th>{head}</tr>{rows}</table></div>'
    return f'<section class="card"><h2>{title}</h2><p class="how">{escape(text)}</p>{body}</section>'


def _row(key: tuple[str, str], values: Sequence[str]) -> str:
    differs = ' class="differs"' if len(set(values)) > 1 else ""
    return f"<tr{differs}><td>{escape(key[1])}</td>{''.join(f'<td class="text">{escape(value)}</td>' for value in values)}</tr>"


def _flat(part: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    """(group, key) -> text; what is deeper than one table is joined with dots."""
    flat: dict[tuple[str, str], str] = {("", key): _plain(value) for key, value in part.items() if not isinstance(value, dict)}

    def walk(group: str, path: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(group, f"{path}.{key}" if path else key, inner)
        else:
            flat[group, path] = _plain(value)

    for group, value in part.items():
        if isinstance(value, dict):
            walk(group, "", value)
    return flat


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_plain, value[:12])) + (f", ... ({len(value)} in all)" if len(value) > 12 else "")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}" if math.isfinite(value) else str(value)
    return "unknown" if value is None else str(value)


def _config(run: Run) -> dict[str, Any]:
    try:
        return tomllib.loads(run.result.experiment_toml)
    except tomllib.TOMLDecodeError as error:
        path = run.result.folder / "experiment.toml"
        raise ValueError(f"{path}: damaged ({error}); copy it anew, or run it again") from None


def _name(part: Any) -> str:
    return str(part.get("name", "")) if isinstance(part, dict) else str(part or "")


def _labels(results: Sequence[Result]) -> list[str]:
    """The runs' names; where two are the same, with their folders."""
    names = [str(result.summary.get("name") or result.folder.name) for result in results]
    if len(set(names)) == len(names):
        return names
    return [f"{name} ({result.folder.name})" if names.count(name) > 1 else name for name, result in zip(names, results, strict=True)]
