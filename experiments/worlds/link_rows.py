"""The rows of `links.parquet`: the traffic and the measurements of every directed link in each record interval."""

from __future__ import annotations

import math

from grapevine.experiments.results.recorder import Recorder
from grapevine.experiments.results.result import LinkFigures
from grapevine.experiments.worlds.peer_report import Report
from grapevine.netem import NetworkPlan


class LinkRows:
    """Writes the links of every record; `poked` holds the links (source, target) that a poke has changed."""

    def __init__(self, plan: NetworkPlan, recorder: Recorder) -> None:
        self.plan = plan
        self.recorder = recorder
        self.poked: set[tuple[int, int]] = set()

    def write(self, reports: dict[int, Report]) -> None:
        """Write one row for each directed link: the counts of its sender, and the measurements of its receiver.

        The configured rate and delay of a link that varies or was poked are nan: they are not one figure.
        """
        incoming = {(link.source, peer): link for peer, report in reports.items() for link in report.incoming}
        for source, report in sorted(reports.items()):
            for link in report.outgoing:
                asked = self.plan.links[source, link.target]
                varies = asked.varies or (source, link.target) in self.poked
                seen = incoming.get((source, link.target))
                self.recorder.link(
                    report.time_ns / 1e9,
                    source,
                    link.target,
                    link.bytes,
                    link.messages,
                    math.nan if varies else asked.effective_rate_bytes_per_s,
                    link.rate_bytes_per_s,
                    math.nan if varies else asked.delay_ns / 1e9,
                    math.nan if seen is None else seen.delay_s,
                    math.nan if seen is None else seen.staleness_steps,
                )

    def figures(self) -> list[LinkFigures]:
        """Return each link's traffic and measurements over the whole run; the configured figures of a poked link are nan."""
        return [
            link._replace(rate_asked_bytes_per_s=math.nan, delay_asked_s=math.nan) if link[:2] in self.poked else link
            for link in self.recorder.link_figures()
        ]
