"""Warnings about a finished run: which of its results not to trust, and what to change."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from grapevine.experiments.results.fair_shares import SharedSegments
from grapevine.experiments.results.outcome import Outcome
from grapevine.experiments.results.result import LinkFigures, median
from grapevine.netem.units import show_rate

LATE_MS = 5.0
RATE_ERROR = 0.1
DELAY_ERROR_MS = 2.0
FAR_ABOVE = 10.0
"""Call a run diverged when its final loss exceeds the initial one by this factor."""
CHANCE = 0.05
"""Call an accuracy chance when it exceeds the untrained model's by no more than this."""
LEARNT = 0.2
"""Call an accuracy learnt when it exceeds the untrained model's by at least this."""


def warnings_about(summary: Mapping[str, Any], outcome: Outcome, diverged: str) -> Iterable[str]:
    """Yield each warning as a sentence; `diverged` names the peers whose weights are not finite ("" = none)."""
    stretch = f"raise world.dilation from {summary['dilation']:g} to {_dilation(summary):g}, or use fewer peers"
    if outcome.loss_initial is not None and not math.isfinite(outcome.loss_initial):
        yield (
            f"the test loss was {outcome.loss_initial} before the first step already, so the learning rate is not the cause: "
            "look for nan and infinity in the task's data, model and loss"
        )
    elif diverged:
        yield f"training diverged: the weights of {diverged} are not finite; {outcome.causes}"
    elif why := _divergence(summary, outcome):
        yield f"training diverged: {why}; {outcome.causes}"
    if (summary["lateness_p99_ms"] or 0) > LATE_MS:
        yield f"this machine fell behind the emulated clock by {summary['lateness_p99_ms']:.1f} ms (99th percentile): {stretch}"
    exact = summary["world"] == "virtual"
    if summary["network_backend"] == "kernel":
        stretch = "TCP was not at its full speed (short messages, losses), or this machine too busy: see `grapevine probe`"
    yield from _rate(summary, outcome, "" if exact else stretch)
    typical_ms = 1e3 * median([link.delay_asked_s for link in outcome.links if shaped(link)])
    allowed_ms = max(DELAY_ERROR_MS, RATE_ERROR * (typical_ms if typical_ms > 0 else 0.0))
    if not exact and summary["delay_error_median_ms"] > allowed_ms:
        yield f"delays are off by {summary['delay_error_median_ms']:.1f} ms (median over the links): {stretch}"


def _dilation(summary: Mapping[str, Any]) -> float:
    """Return the dilation to advise: the present one times the power of two (2 or more) that ends the warning."""
    late = max((summary["lateness_p99_ms"] or 0) / LATE_MS, (summary["delay_error_median_ms"] or 0) / DELAY_ERROR_MS)
    return float(summary["dilation"] * 2 ** max(1, math.ceil(math.log2(max(late, 1.0)))))


def fidelity(outcome: Outcome) -> dict[str, Any]:
    """Return the errors of the links' measured rates (median and worst) and delays (median).

    Unshaped links have no error.  The rate of a link that shares an uplink, a downlink or a cable has no error between its
    fair share and its rate alone.
    """
    errors = {link[:2]: error for link, error in _rate_errors(outcome) if math.isfinite(error)}
    worst = max(errors, key=lambda ends: abs(errors[ends]), default=None)
    return {
        "rate_error_median": median(np.abs(list(errors.values()))),
        "rate_error_worst": abs(errors[worst]) if worst else None,
        "rate_error_worst_link": list(worst) if worst else None,
        "delay_error_median_ms": 1e3 * median(np.abs([link.delay_error_s for link in outcome.links if shaped(link)])),
    }


def shaped(link: LinkFigures) -> bool:
    """Whether a link has a configured rate or delay."""
    return math.isfinite(link.rate_asked_bytes_per_s) or link.delay_asked_s > 0


def _rate_errors(outcome: Outcome) -> Iterable[tuple[LinkFigures, float]]:
    """Yield every link with the relative error of its rate: 0 between its fair share and its rate alone."""
    shares = SharedSegments(outcome.uplinks, outcome.downlinks, outcome.cables).shares(outcome.links)
    for link in outcome.links:
        (least, most), got = shares[link[:2]], link.rate_measured_bytes_per_s
        if math.isfinite(most) and least > 0:
            yield link, got / most - 1 if got > most else got / least - 1 if got < least else 0.0 * got


def _rate(summary: Mapping[str, Any], outcome: Outcome, stretch: str) -> Iterable[str]:
    """Yield a warning about the link with the largest rate error; `stretch` is the cure in real time, "" in virtual time."""
    if (summary["rate_error_worst"] or 0) <= RATE_ERROR:
        return
    source, target = summary["rate_error_worst_link"]
    link, error = next(pair for pair in _rate_errors(outcome) if pair[0][:2] == (source, target))
    shares = SharedSegments(outcome.uplinks, outcome.downlinks, outcome.cables).shares(outcome.links)
    got, asked = show_rate(link.rate_measured_bytes_per_s), show_rate(shares[source, target].alone_bytes_per_s)
    if error < 0 and not stretch:
        return  # virtual links are exact: a low rate means that little was sent, or comes from jitter
    why = stretch
    if error > 0:
        why = "jitter or small messages make peers measure too high a rate, and a strategy that relies on it sends too much"
    yield f"link {source} -> {target} was measured at {got} where {asked} was asked ({100 * error:+.0f} %): {why}"


def _divergence(summary: Mapping[str, Any], outcome: Outcome) -> str:
    """Return in words why a run counts as diverged; "" if it does not."""
    kept = [peer for peer in range(len(outcome.loss)) if peer not in {*outcome.peers_lost, *outcome.peers_absent}]
    broken = [peer for peer in kept if math.isinf(outcome.loss[peer]) or _unscorable(outcome, peer)]
    if broken:
        return f"the test loss of {len(broken)} of {len(kept)} peers is not finite"
    loss, first_loss = summary["loss_mean"], outcome.loss_initial or math.nan
    accuracy = summary["accuracy_mean"]
    known = [share for _, share in outcome.accuracy_history if math.isfinite(share)]
    chance = math.isfinite(accuracy) and bool(known) and accuracy <= known[0] + CHANCE
    if loss > FAR_ABOVE * first_loss > 0 or (chance and loss > 2 * first_loss > 0):
        return f"the test loss rose from {first_loss:.4g} to {loss:.4g}"
    if chance and max(known) > known[0] + LEARNT:
        return f"the accuracy had been {100 * max(known):.0f} % and fell back to chance ({100 * accuracy:.0f} %)"
    return ""


def _unscorable(outcome: Outcome, peer: int) -> bool:
    """Whether a model has an accuracy but its loss is nan."""
    scored = peer < len(outcome.accuracy) and not math.isnan(outcome.accuracy[peer])
    return scored and math.isnan(outcome.loss[peer])
