"""Recorded links from files: tables of time, rate, delay and loss, and mahimahi's packet deliveries."""

import math
import re

from grapevine.netem.links.profile import Step
from grapevine.netem.networks.plan import loss_share
from grapevine.netem.text_files import read_text, rows_of
from grapevine.netem.units import duration_ns, rate_bytes_per_s

MAHIMAHI_PACKET_BYTES = 1504
"""The bytes that one line of a mahimahi trace delivers (mahimahi(1), mm-link)."""
MAHIMAHI_STEP_MS = 100
MAHIMAHI_MOST_MS = 100_000_000
"""The longest trace: about 28 hours, a million steps."""
_MILLISECOND = re.compile(r"[0-9]{1,18}")
_MS_NS = 1_000_000
_COLUMNS = {"time", "rate", "delay", "loss"}


def read_trace(path: str, delay_ns: int = 0, loss: float = 0.0) -> list[Step]:
    """Return the steps of a recorded link; `delay_ns` and `loss` hold where the file has no such column.

    A file that ends in `.csv` has a header with `time` and `rate`, and optionally `delay` (one way) and `loss`: a row holds
    from its time on, the first is at 0 s, and the last lasts as long as the row before it. Values are text with units ("1.5
    s", "3 Mbit/s"; a rate may be "0 bit/s", an outage), or plain numbers in the unit that the header gives in
    brackets: `time [s],rate [Mbit/s]`. Any other file is a mahimahi trace: a line for each packet of 1504 bytes with the
    millisecond of its delivery, in order; the last one is the trace's length, at most 100,000 s; read in steps of 100 ms.

    Raises ValueError with file, line and cure.
    """
    try:
        text = read_text(path)
        return _table(rows_of(text), delay_ns, loss) if path.lower().endswith(".csv") else _deliveries(text, delay_ns, loss)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _table(rows: list[list[str]], delay_ns: int, loss: float) -> list[Step]:
    names, units = _header(rows[0] if rows else [])
    times_ns: list[int] = []
    steps: list[Step] = []
    for number, row in enumerate(rows[1:], start=2):
        cells = {name: _text(cell, units[name]) for name, cell in zip(names, row, strict=False)}
        try:
            if len(row) != len(names):
                raise ValueError(f"{len(row)} cells under {len(names)} columns")
            times_ns.append(duration_ns(cells["time"]))
            if times_ns[-1] <= (times_ns[-2] if len(times_ns) > 1 else -1) or (number == 2 and times_ns[-1]):
                raise ValueError(f"the time {cells['time']} is out of order: begin at 0 s, then use growing times")
            rate = _rate(cells["rate"])
            delay = duration_ns(cells["delay"]) if "delay" in cells else delay_ns
            steps.append(Step(1, rate, delay, loss_share(cells["loss"]) if "loss" in cells else loss))
        except ValueError as error:
            raise ValueError(f"row {number}: {error}") from None
    if not steps:
        raise ValueError("no rows under the header; expected one for each change, such as 0 s,3 Mbit/s")
    ends_ns = [*times_ns[1:], times_ns[-1] + (times_ns[-1] - times_ns[-2] if len(times_ns) > 1 else 1_000_000_000)]
    return [step._replace(lasts_ns=end - start) for step, start, end in zip(steps, times_ns, ends_ns, strict=True)]


def _header(cells: list[str]) -> tuple[list[str], dict[str, str]]:
    """Return the columns' names, and the units in brackets after them."""
    names, units = [], {}
    for cell in cells:
        name, _, unit = cell.strip().partition("[")
        names.append(name.strip())
        units[names[-1]] = unit.strip().rstrip("]").strip()
    if not {"time", "rate"} <= set(names) <= _COLUMNS or len(set(names)) != len(names):
        raise ValueError(
            f"the header is {','.join(cells)!r}: expected time and rate, and delay and loss if known, "
            "such as time [s],rate [Mbit/s],delay [ms],loss"
        )
    return names, units


def _text(cell: str, unit: str) -> str:
    cell = cell.strip()
    if unit == "%":
        try:
            return repr(float(cell) / 100)
        except ValueError:
            return cell
    return f"{cell} {unit}" if unit else cell


def _rate(text: str) -> float:
    number = text.split(" ")[0]
    try:
        if float(number) == 0:
            return 0.0
    except ValueError:
        pass
    rate = rate_bytes_per_s(text)
    if math.isinf(rate):
        raise ValueError("a recorded rate cannot be unlimited: expected a number, such as 3 Mbit/s")
    return rate


def _deliveries(text: str, delay_ns: int, loss: float) -> list[Step]:
    times_ms: list[int] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        if not _MILLISECOND.fullmatch(line.strip()) or (times_ms and int(line) < times_ms[-1]):
            raise ValueError(f"line {number}: {line.strip()[:40]!r} is not a millisecond at or after the previous one")
        times_ms.append(int(line))
    if not times_ms or times_ms[-1] == 0:
        raise ValueError("no packet delivered after 0 ms: expected a line with a millisecond for each packet")
    if times_ms[-1] > MAHIMAHI_MOST_MS:
        raise ValueError(f"the last packet arrives at {times_ms[-1]:,} ms: expected {MAHIMAHI_MOST_MS:,} ms at most")
    counts = [0] * -(-times_ms[-1] // MAHIMAHI_STEP_MS)
    for time_ms in times_ms:  # a packet delivered at t took the time before t
        counts[max(0, time_ms - 1) // MAHIMAHI_STEP_MS] += 1
    steps = []
    for place, count in enumerate(counts):
        lasts_ms = min(MAHIMAHI_STEP_MS, times_ms[-1] - place * MAHIMAHI_STEP_MS)
        steps.append(Step(lasts_ms * _MS_NS, count * MAHIMAHI_PACKET_BYTES * 1000 / lasts_ms, delay_ns, loss))
    return steps
