"""The runs of a report, read from their folders, with one line per metric and peer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from grapevine.experiments.results.fair_shares import Share, SharedSegments
from grapevine.experiments.results.result import LinkFigures, Result, link_figures
from grapevine.experiments.results.run_files import numbers
from grapevine.experiments.results.summary import KEYS

GRID_POINTS = 200
INTERVALS = ("train_loss", "staleness_steps")
"""Metrics that are means over the time since the record before."""
SHORT = 0.5
"""Drop the last value of such a metric if its interval is shorter than this share of the mean interval before it."""
QUANTILES = (0.0, 0.05, 0.5, 0.95, 1.0)

Line = tuple[np.ndarray, np.ndarray]
"""Times in seconds, values."""


@dataclass(frozen=True)
class Run:
    """One run with the data that its pictures need."""

    label: str
    colour: str
    dash: str
    """The dash style of its lines, which distinguishes runs if there are more runs than colours."""
    result: Result
    series: Mapping[str, Mapping[int, Line]]
    """The measurements of each metric and peer (-1: the fleet), in order of time."""
    links: Sequence[LinkFigures]
    shares: Mapping[tuple[int, int], Share]
    """The range of rates that each link may have."""
    _stacks: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, result: Result, label: str, colour: str, dash: str = "solid") -> Run:
        """Read everything that is drawn from one run folder; raises ValueError if a file is missing or damaged."""
        missing = [key for key in KEYS if key not in result.summary]
        if missing:
            path = result.folder / "summary.json"
            raise ValueError(
                f"{path}: lacks {', '.join(missing)}; it was not written by this program, or changed: run it again"
            )
        links = link_figures(result.columns("links.parquet"))
        return cls(label, colour, dash, result, _series(result), links, SharedSegments.read(result.manifest).shares(links))

    def peers(self, metric: str) -> dict[int, Line]:
        """Return the lines of the single peers."""
        return {peer: line for peer, line in self.series.get(metric, {}).items() if peer >= 0}

    def mean(self, metric: str, fleet: str | None) -> Line | None:
        """Return the fleet's own measurement if there is one, else the mean over the peers."""
        own = self.series.get(fleet, {}).get(-1) if fleet else None
        if own is not None or not self.peers(metric):
            return own
        time_s, stacked = self.stack(metric)
        return time_s, over_peers(np.nanmean, stacked)

    def stack(self, metric: str) -> tuple[np.ndarray, np.ndarray]:
        """Return every peer's line on common times: [times], [peers, times].

        Values are nan before a peer's first measurement. Its last value holds to the end, or, if it was lost, to its loss;
        from there on they are nan.
        """
        if metric in self._stacks:
            return self._stacks[metric]
        peers, lost = self.peers(metric), set(self.result.summary["peers_lost"] or [])
        times = np.unique(np.concatenate([time_s for time_s, _ in peers.values()]))
        if len(times) > GRID_POINTS:
            times = np.linspace(times[0], times[-1], GRID_POINTS)
        lines = [
            np.interp(times, time_s, values, left=np.nan, right=np.nan if peer in lost else None)
            for peer, (time_s, values) in peers.items()
        ]
        self._stacks[metric] = times, np.stack(lines)
        return self._stacks[metric]

    def places(self) -> list[str] | None:
        """Return the region of each peer, or None if the network has no regions."""
        places = self.result.manifest.get("places")
        return [str(place) for place in places] if isinstance(places, list) else None


def _series(result: Result) -> dict[str, dict[int, Line]]:
    table = result.table("metrics.parquet")
    names = table["name"].combine_chunks().dictionary_encode()
    code = np.from_dlpack(names.indices)
    peer, time_s, value = (numbers(table[name]) for name in ("peer", "time_s", "value"))
    order = np.lexsort((time_s, peer, code))
    ends = np.flatnonzero((np.diff(code[order]) != 0) | (np.diff(peer[order]) != 0)) + 1
    series: dict[str, dict[int, Line]] = {}
    for part in np.split(order, ends) if len(order) else []:
        name = names.dictionary[int(code[part[0]])].as_py()
        line = time_s[part], value[part]
        series.setdefault(name, {})[int(peer[part[0]])] = _whole_intervals(line) if name in INTERVALS else line
    return series


def _whole_intervals(line: Line) -> Line:
    """Drop the last value if its interval was cut short: the mean of a few steps puts a misleading hook on the curve."""
    time_s, values = line
    before = len(time_s) - 2
    if before < 1 or time_s[-1] - time_s[-2] >= SHORT * (time_s[-2] - time_s[0]) / before:
        return line
    return time_s[:-1], values[:-1]


def quantiles_over(stacked: np.ndarray) -> np.ndarray:
    """Return `QUANTILES` of each column of [peers, times], without nan; every column must have a value that is not nan."""
    ordered = np.sort(stacked, axis=0)  # nan comes last
    last = np.count_nonzero(~np.isnan(ordered), axis=0) - 1
    return np.stack([ordered[np.rint(share * last).astype(int), np.arange(len(last))] for share in QUANTILES])


def over_peers(reduce: Callable[..., np.ndarray], stacked: np.ndarray) -> np.ndarray:
    """Apply `reduce` to each column, over the peers that have a value; nan if none has."""
    known = np.isfinite(stacked).any(axis=0)
    result = np.full(stacked.shape[1], np.nan)
    result[known] = reduce(np.where(np.isfinite(stacked), stacked, np.nan)[:, known], axis=0)
    return result
