"""The paragraphs and tables of a report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from grapevine.experiments.report.figures import count
from grapevine.experiments.report.marks import story
from grapevine.experiments.report.runs import Run
from grapevine.experiments.results.numbers import figure, peers_text, percent
from grapevine.experiments.results.result import Result
from grapevine.netem.units import show_bytes

MOST_EVENTS = 200
MOST_DIFFERENCES, LONGEST_LABEL = 4, 60
GRAVE = ("lost", "fault", "warning")


def summary_paragraph(run: Run) -> str:
    """Return the outcome of a run as a paragraph of HTML."""
    summary, config = run.result.summary, _config(run)
    each = ", one process each," if summary["world"] == "processes" else " in virtual time"
    task, network = _name(config.get("task")), _name(config.get("network"))
    over = ", over an unshaped network" if network == "unshaped" else f", over an emulated network ({network})"
    text = (
        f"{count(summary['peers'] or 0, 'peer')}{each} trained{f' on {task}' if task else ''} with the strategy "
        f"{summary['strategy']}, linked as a graph ({summary['topology']}){over if network else ''}, with no server. "
    )
    if summary["reason"] == "running":
        text += "The run had not ended when this page was written, or it was killed: the page shows its records so far. "
    else:
        text += f"The run {'is complete' if summary['completed'] else 'is incomplete'}: {summary['reason']}. "
    if summary["emulated_s"] is not None:
        text += (
            f"It lasted {figure(summary['emulated_s'], 's')} of emulated time ({figure(summary['wall_s'], 's')} on the "
            f"wall clock). "
        )
    if summary["accuracy_mean"] is not None:
        text += (
            f"On average a peer's model classifies {percent(summary['accuracy_mean'])} of the test set correctly; the worst "
            f"{percent(summary['accuracy_min'])}, the best {percent(summary['accuracy_max'])}. "
        )
        reached = [(level, time_s) for level, time_s in summary["time_to_accuracy_s"].items() if time_s is not None]
        level = f"{100 * float(reached[-1][0]):.0f} %" if reached else ""
        text += f"The mean accuracy reached {level} after {figure(reached[-1][1], 's')}. " if reached else ""
    if summary["bytes_sent"] is not None:
        text += f"All peers together sent {show_bytes(summary['bytes_sent'])}. "
    text += story(run)
    lost = summary["peers_lost"]
    if lost:
        were = "was" if len(lost) == 1 else "were"
        text += f"{peers_text(lost).capitalize()} {were} lost during the run; the others continued. "
    return f'<p class="told">{escape(text)}</p>'


def _figures(summary: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return the key figures of a run: title, value, remark."""
    value = summary.get
    spread = f"peers {percent(value('accuracy_min'))[:-2]} to {percent(value('accuracy_max'))}"
    sent, stale = value("bytes_sent"), value("staleness_steps_mean")
    above = "" if value("excess_loss") is None else f"{figure(value('excess_loss'))} above the optimum"
    ninety = (value("time_to_accuracy_s") or {}).get("0.9")
    return [
        ("mean accuracy", percent(value("accuracy_mean")), spread if value("accuracy_mean") is not None else ""),
        ("accuracy, mean model", percent(value("accuracy_of_mean")), ""),
        ("validation accuracy", percent(value("validation_accuracy_mean")), "used by the stop rule"),
        ("mean test loss", figure(value("loss_mean")), above),
        ("time to 90 %", figure(ninety, "s" if ninety is not None else ""), "emulated"),
        ("emulated time", figure(value("emulated_s"), "s"), f"wall clock {figure(value('wall_s'), 's')}"),
        ("steps", figure(value("steps_total")), f"{figure(value('steps_per_wall_s'))} per real second"),
        ("sent", "-" if sent is None else show_bytes(sent), f"{figure(value('messages_sent'))} messages"),
        ("consensus distance", figure(value("consensus_distance")), ""),
        ("staleness", figure(stale, "step" if stale == 1 else "steps"), "mean of all contributions used"),
        ("spectral gap", figure(value("spectral_gap")), "of the mixing, 0 to 1"),
        ("peers lost", str(len(value("peers_lost") or [])), ", ".join(map(str, value("peers_lost") or []))),
        ("lateness", figure(value("lateness_p99_ms"), "ms"), "99th percentile"),
    ]


def cards(summary: Mapping[str, Any]) -> str:
    """Return the key figures of one run in large print; unknown figures are left out."""
    shown = "".join(
        f'<div class="figure"><b>{escape(value)}</b><span>{escape(title)}</span><small>{escape(small)}</small></div>'
        for title, value, small in _figures(summary)
        if value != "-"
    )
    return f'<div class="figures">{shown}</div>'


def key_figures(runs: Sequence[Run]) -> str:
    """Return the key figures of several runs as a table, one row per run."""
    columns = list(zip(*(_figures(run.result.summary) for run in runs), strict=True))
    known = [at for at, column in enumerate(columns) if any(value != "-" for _, value, _ in column)]
    titles = [columns[at][0][0] for at in known]
    head = "".join(f"<th>{escape(title)}</th>" for title in ("run", "ended", *titles))
    rows = []
    for run in runs:
        summary = run.result.summary
        ended = str(summary["reason"]) if summary["completed"] else f"early: {summary['reason']}"
        if summary["completed"] and (unasked := summary.get("peers_lost_unasked")):
            ended = f"with losses ({peers_text(unasked)}): {ended}"
        figures = _figures(summary)
        cells = "".join(f"<td>{escape(figures[at][1])}</td>" for at in known)
        name = f'<th><i style="background:{run.colour}"></i>{escape(run.label)}</th>'
        rows.append(f"<tr>{name}{_cell(ended)}{cells}</tr>")
    return f'<div class="scroll framed"><table class="runs"><tr>{head}</tr>{"".join(rows)}</table></div>'


def warnings(runs: Sequence[Run]) -> str:
    """Return the runs' warnings as HTML; "" if there are none."""
    texts = [(run.label, text) for run in runs for text in run.result.summary.get("warnings") or ()]
    items = "".join(f"<li>{escape(text if len(runs) == 1 else f'{label}: {text}')}</li>" for label, text in texts)
    return f'<div class="warnings"><b>Before you trust these figures</b><ul>{items}</ul></div>' if texts else ""


def events(runs: Sequence[Run]) -> str:
    """Return a table of the events in order; of several runs only the failures."""
    listed = [(run, event) for run in runs for event in run.result.events if len(runs) == 1 or event.get("kind") in GRAVE]
    rows = [_event(event, run.label if len(runs) > 1 else "") for run, event in listed[:MOST_EVENTS]]
    hidden = len(listed) - MOST_EVENTS
    note = f'<p class="note">{hidden:,} more are in events.jsonl.</p>' if hidden > 0 else ""
    head = ("run", "emulated time", "event", "") if len(runs) > 1 else ("emulated time", "event", "")
    table = f'<table class="events"><tr>{"".join(f"<th>{title}</th>" for title in head)}</tr>{"".join(rows)}</table>'
    body = table + note if rows else '<p class="nothing">None.</p>'
    return f'<section class="card"><h2>{"Events" if len(runs) == 1 else "What went wrong"}</h2>{body}</section>'


def _event(event: Mapping[str, Any], label: str) -> str:
    kind, time_s, text = str(event.get("kind", "")), event.get("time_s"), str(event.get("text") or "")
    rest = {key: value for key, value in event.items() if key not in ("time_s", "kind", "text", "peer") and value is not None}
    who = f"peer {event['peer']}" if event.get("peer") is not None else ""
    more = ", ".join(f"{key} {_plain(value)}" for key, value in rest.items())
    what = ": ".join(part for part in (who, text, more) if part)
    time = figure(time_s, "s") if isinstance(time_s, int | float) else "-"
    grave = ' class="grave"' if kind in GRAVE else ""
    first = f"<td>{escape(label)}</td>" if label else ""
    return f"<tr{grave}>{first}<td>{time}</td><td>{escape(kind.replace('_', ' '))}</td>{_cell(what)}</tr>"


def differing_settings(results: Sequence[Result]) -> list[str] | None:
    """Return the settings in which the runs differ, one label per run: "fill 0.5, seed 1"; None if these are many, or none."""
    flat = [_flat(result.experiment_document) for result in results]
    keys = [key for key in dict.fromkeys(key for part in flat for key in part) if len({part.get(key) for part in flat}) > 1]
    keys = [key for key in keys if key != ("", "name")]
    if not 0 < len(keys) <= MOST_DIFFERENCES:
        return None
    last = [_title(*key) for key in keys]
    titles = [(f"{key[0]} {title}".strip() if last.count(title) > 1 else title) for key, title in zip(keys, last, strict=True)]
    labels = [
        ", ".join(f"{title} {part[key]}" for title, key in zip(titles, keys, strict=True) if key in part) for part in flat
    ]
    short = [label for label in labels if 0 < len(label) <= LONGEST_LABEL]
    return labels if len(set(short)) == len(results) else None


def _title(group: str, key: str) -> str:
    """("strategy", "fill") -> "fill", but ("strategy", "name") -> "strategy"."""
    return group if key == "name" else key.rpartition(".")[2].replace("_", " ")


def configuration(runs: Sequence[Run]) -> str:
    """Return the section with the experiment's configuration."""
    text = "The whole experiment, with all default values (experiment.toml)."
    return _settings("Configuration", text, runs, [_config(run) for run in runs])


def machine(runs: Sequence[Run]) -> str:
    """Return the section with the runs' manifests, without values that the pictures show."""
    hidden = ("places", "run_folder")
    facts = [{key: value for key, value in run.result.manifest.items() if key not in hidden} for run in runs]
    for fact in facts:
        fact |= _readable(fact.pop("machine", None) or {})
    return _settings("Machine", "The machine, the software versions and the start command (manifest.json).", runs, facts)


def _readable(machine: Mapping[str, Any]) -> dict[str, Any]:
    size = machine.get("memory_bytes")
    memory = {"memory": show_bytes(size)} if isinstance(size, int) else {}
    return {
        "machine": {key: value for key, value in machine.items() if key not in ("memory_bytes", "versions")} | memory,
        "versions": machine.get("versions") or {},
    }


def _settings(title: str, text: str, runs: Sequence[Run], parts: Sequence[Mapping[str, Any]]) -> str:
    """Return keys and values in groups; for several runs a table of those that differ, and the others folded away."""
    flat = [_flat(part) for part in parts]
    rows = {key: [part.get(key, "-") for part in flat] for key in dict.fromkeys(key for part in flat for key in part)}
    head = f'<section class="card"><h2>{title}</h2><p class="how">{escape(text)}</p>'
    if len(runs) == 1:
        return f'{head}<div class="groups">{_groups(rows)}</div></section>'
    differs = {key: values for key, values in rows.items() if len(set(values)) > 1}
    same = {key: values[:1] for key, values in rows.items() if key not in differs}
    titles = "".join(f"<th>{escape(run.label)}</th>" for run in runs)
    lines = "".join(_row(f"{group}.{key}" if group else key, values) for (group, key), values in differs.items())
    table = f'<div class="scroll"><table class="differs"><tr><th></th>{titles}</tr>{lines}</table></div>'
    fold = f'<details><summary>The same in all runs</summary><div class="groups">{_groups(same)}</div></details>'
    return f"{head}{table if differs else ''}{fold}</section>"


def _groups(rows: Mapping[tuple[str, str], Sequence[str]]) -> str:
    groups: dict[str, list[str]] = {}
    for (group, key), values in rows.items():
        groups.setdefault(group or "run", []).append(_row(key, values))
    return "".join(f"<div><h3>{escape(group)}</h3><table>{''.join(lines)}</table></div>" for group, lines in groups.items())


def _row(key: str, values: Sequence[str]) -> str:
    return f"<tr><td>{escape(key)}</td>{''.join(map(_cell, values))}</tr>"


def _cell(text: str) -> str:
    return f'<td class="text">{escape(text)}</td>'


def _flat(part: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    """Return (group, key) -> text; keys of nested tables are joined with dots."""
    part = {key: _numbered(value) for key, value in part.items()}
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


def _numbered(value: Any) -> Any:
    """Return a list of tables, such as [[events]], as one table: number -> text."""
    if not (isinstance(value, list) and value and all(isinstance(part, dict) for part in value)):
        return value
    return {
        str(number): ", ".join(f"{key} {_plain(inner)}" for key, inner in part.items()) for number, part in enumerate(value, 1)
    }


def _plain(value: Any) -> str:
    if value == []:
        return "none"
    if isinstance(value, list):
        return ", ".join(map(_plain, value[:12])) + (f", ... ({len(value)} in all)" if len(value) > 12 else "")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}" if math.isfinite(value) else str(value)
    return "unknown" if value is None else str(value)


def _config(run: Run) -> dict[str, Any]:
    return run.result.experiment_document


def _name(part: Any) -> str:
    return str(part.get("name", "")) if isinstance(part, dict) else str(part or "")
