"""Tables of measurements between regions: those in `netem/networks/data`, and users' own.

A user's table is a `.toml` file with the keys of RegionTable (each row of a matrix is a source; the diagonal is
ignored), or a `.csv` file: a header `source,target,rate [Mbit/s],rtt [ms]`, then a row for each pair, one row if it holds
both ways. Every pair must be there. Two peers in one region of a CSV table are joined by 10 Gbit/s and 0.5 ms.
"""

import functools
import itertools
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from grapevine.netem.text_files import read_text, rows_of

MOST_REGIONS = 1000
"""The largest number of regions in a user's table."""


class Lan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The link between two peers of one region; our choice, see the table's `lan_source`."""

    rate_mbit_per_s: float
    rtt_ms: float


class RegionTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Measurements between regions; matrices have a row for each source, and None on the diagonal."""

    title: str
    source: str
    measured: str
    """Meaning of the numbers, in words."""
    regions: tuple[str, ...]
    rtt_ms: tuple[tuple[float | None, ...], ...]
    rate_mbit_per_s: tuple[tuple[float | None, ...], ...]
    lan: Lan
    lan_source: str
    filled_rtt: tuple[tuple[str, str], ...] = ()
    """Pairs whose round trip is from `filled_source`, not from `source`."""
    filled_source: str = ""

    def between(self, source: str, target: str) -> tuple[float, float]:
        """Return (rate in Mbit/s, round trip in ms) from region `source` to region `target`."""
        row, column = self.regions.index(source), self.regions.index(target)
        rate, rtt = self.rate_mbit_per_s[row][column], self.rtt_ms[row][column]
        if rate is None or rtt is None:
            return self.lan.rate_mbit_per_s, self.lan.rtt_ms
        return rate, rtt


@functools.cache
def region_table(name: str) -> RegionTable:
    """Return the built-in table of that name, with its sources."""
    text = (Path(__file__).parent / "data" / f"{name}.json").read_bytes()
    return msgspec.json.decode(text, type=RegionTable)


def read_table(path: str) -> RegionTable:
    """Return the table in a user's file; raises ValueError that names the file and the mistake."""
    try:
        text = read_text(path)
        table = _from_csv(rows_of(text), path) if path.lower().endswith(".csv") else _from_toml(text)
        _refuse_gaps(table)
    except (ValueError, msgspec.ValidationError) as error:
        raise ValueError(f"{path}: {error}") from None
    except RecursionError:
        raise ValueError(f"{path}: is nested too deeply; see docs/networks.md for the keys of a table") from None
    return table


def _from_toml(text: str) -> RegionTable:
    document: dict[str, Any] = tomllib.loads(text)
    for name in ("rtt_ms", "rate_mbit_per_s"):
        matrix = document.get(name)
        for place, row in enumerate(matrix if isinstance(matrix, list) else []):
            if isinstance(row, list) and place < len(row):
                row[place] = None
    return msgspec.convert(document, RegionTable)


def _from_csv(rows: list[list[str]], path: str) -> RegionTable:
    header = ["source", "target", "rate [Mbit/s]", "rtt [ms]"]
    if not rows or [cell.strip() for cell in rows[0]] != header:
        raise ValueError(f"the header is {','.join(rows[0]) if rows else ''!r}: expected {','.join(header)}")
    pairs: dict[tuple[str, str], tuple[float, float]] = {}
    for number, row in enumerate(rows[1:], start=2):
        try:
            source, target, rate, rtt = (cell.strip() for cell in row)
            pairs[source, target] = float(rate), float(rtt)
        except ValueError:
            raise ValueError(f"row {number}: {','.join(row)!r} is not a pair: expected such as Oslo,Rome,300,42") from None
    regions = tuple(dict.fromkeys(itertools.chain.from_iterable(pairs)))
    if len(regions) > MOST_REGIONS:
        raise ValueError(f"has {len(regions):,} regions: expected {MOST_REGIONS:,} at most")
    matrices: list[list[list[float | None]]] = [[[None] * len(regions) for _ in regions] for _ in range(2)]
    for (i, a), (j, b) in itertools.product(enumerate(regions), repeat=2):
        found = pairs.get((a, b)) or pairs.get((b, a))
        if i != j and found:
            for matrix, value in zip(matrices, found, strict=True):
                matrix[i][j] = value
    rates, rtts = (tuple(map(tuple, matrix)) for matrix in matrices)
    return RegionTable(
        title=Path(path).stem, source=path, measured="see the file", regions=regions, rtt_ms=rtts,
        rate_mbit_per_s=rates, lan=Lan(10_000, 0.5), lan_source="our choice: 10 Gbit/s, 0.5 ms",
    )  # fmt: skip


def _refuse_gaps(table: RegionTable) -> None:
    count = len(table.regions)
    if count < 1 or len(set(table.regions)) < count:
        raise ValueError("regions: expected one or more, each once")
    for name, matrix in (("rtt_ms", table.rtt_ms), ("rate_mbit_per_s", table.rate_mbit_per_s)):
        if len(matrix) != count or any(len(row) != count for row in matrix):
            raise ValueError(f"{name}: expected {count} rows of {count} numbers, one for each region")
        for (i, a), (j, b) in itertools.product(enumerate(table.regions), repeat=2):
            value = matrix[i][j]
            if i != j and (value is None or not (0 < value < 1e9)):
                raise ValueError(f"{name}: is {value} from {a} to {b}: expected more than 0 for every pair")
