"""The live view: its table on a terminal, its lines in a log, and an empty stdout."""

from __future__ import annotations

import io
import itertools
import math
from typing import Any

import pytest
from rich.console import Console

from grapevine.experiments.live_view import MOST_ROWS, PLAIN_S, REFRESH_S, Progress


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def _status(peers: int, **changes: Any) -> dict[str, Any]:
    fleet = {
        "emulated_s": 12.34,
        "wall_s": 15.0,
        "bytes_sent": 2_500_000,
        "validation_accuracy_mean": 0.5,
        "lost": [],
        "phase": "training",
    }
    each = {"steps": list(range(1000, 1000 + peers)), "train_loss": [0.25] * peers, "validation_accuracy": [0.5] * peers}
    return {**fleet, **each, **changes}


def _shown(peers: int, *statuses: dict[str, Any], terminal: bool, pause_s: float = 10.0, **more: Any) -> str:
    stream, clock = io.StringIO(), Clock()
    console = Console(file=stream, force_terminal=terminal, width=100, color_system=None)
    with Progress("the run", peers, "60 s emulated", console=console, clock=clock, **more) as progress:
        for status in statuses:
            progress.update(status)
            clock.now_s += pause_s
    return stream.getvalue()


def test_a_terminal_shows_every_peer_and_the_fleet() -> None:
    text = _shown(3, _status(3, lost=[1]), terminal=True, places=["Tokyo", "Virginia", "Ireland"])
    for said in ("the run", "training until 60 s emulated", "Tokyo", "Virginia", "1,002", "0.25", "50.0 %", "1 (lost)",
                 "12.3 s emulated (15.0 s real)", "2.5 MB sent", "lost: peer 1", "training"):  # fmt: skip
        assert said in text, said


def test_bytes_by_peer_are_shown_where_they_are_known() -> None:
    assert "700 kB" in _shown(2, _status(2, bytes_by_peer=[700_000, 1]), terminal=True)


def test_an_unknown_figure_is_a_dash() -> None:
    unknown = [math.nan] * 2
    nothing = _status(2, train_loss=unknown, validation_accuracy=unknown, validation_accuracy_mean=math.nan, phase="starting")
    for terminal in (True, False):
        text = _shown(2, nothing, terminal=terminal)
        assert "validation -" in text
        assert "nan" not in text


def test_of_many_peers_the_extremes_are_shown() -> None:
    peers = 1 + 2 * MOST_ROWS
    losses = [0.5 + peer for peer in range(peers)]
    text = _shown(peers, _status(peers, train_loss=[math.nan, *losses[1:]], lost=[peers - 1]), terminal=True)
    for said in ("33 peers", "lowest", "1.5", "median", "highest", "31.5", "1,031"):
        assert said in text, said
    assert "32.5" not in text  # the lost one's


def test_steps_a_second_are_those_of_the_last_few_seconds() -> None:
    fast = [_status(2, steps=[100 * i, 100 * i]) for i in range(5)]
    statuses = [*fast, *(_status(2, steps=[400 + i, 400]) for i in range(1, 6))]
    lines = _shown(2, *statuses, terminal=False, pause_s=PLAIN_S).splitlines()
    assert "- steps/s" in lines[0]
    assert all("40 steps/s" in line for line in lines[1:5])
    assert "0 steps/s" in lines[-1]


def test_a_log_gets_one_line_every_few_seconds() -> None:
    statuses = [_status(2, emulated_s=float(i)) for i in range(81)]
    lines = _shown(2, *statuses, terminal=False, pause_s=PLAIN_S / 40).splitlines()
    assert [line.split("|")[1].split()[0] for line in lines] == ["0.0", "40.0", "80.0"]
    assert all(line.startswith("the run: training | ") for line in lines)


@pytest.mark.parametrize(("phase", "told"), [("training", True), ("evaluating", False), ("writing", False)])
def test_the_stop_condition_is_shown_until_the_end(phase: str, told: bool) -> None:
    assert ("until 60 s" in _shown(2, _status(2, phase=phase), terminal=True)) == told


def test_a_new_phase_is_shown_at_once_and_the_last_status_at_the_end() -> None:
    phases = ["starting", "training", "training", "writing"]
    lines = _shown(2, *(_status(2, phase=phase, emulated_s=i) for i, phase in enumerate(phases)), terminal=False, pause_s=0.01)
    assert [line.split()[2] for line in lines.splitlines()] == ["starting", "training", "writing"]
    late = _shown(2, _status(2), _status(2, emulated_s=99.0), terminal=False, pause_s=0.01)
    assert "99.0 s emulated" in late.splitlines()[-1]


@pytest.mark.parametrize("every_s", [0.001, REFRESH_S])
def test_a_terminal_is_refreshed_no_more_than_four_times_a_second(every_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(Progress, "_show", lambda self, status: drawn.append(self._clock()))
    _shown(2, *([_status(2)] * round(2 / every_s)), terminal=True, pause_s=every_s)
    assert 7 <= len(drawn) - 1 <= 8  # the one more is the last word
    assert all(later - earlier >= REFRESH_S - 1e-9 for earlier, later in itertools.pairwise(drawn[:-1]))


def test_quiet_prints_no_live_view() -> None:
    assert _shown(2, _status(2), _status(2), terminal=True, quiet=True) == ""


def test_stdout_stays_clean(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("the run", 2, "60 s emulated") as progress:
        progress.update(_status(2))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "the run" in captured.err


def test_an_error_inside_still_shows_the_last_status_and_passes_on() -> None:
    stream = io.StringIO()

    def interrupted() -> None:
        with Progress("the run", 2, "", console=Console(file=stream)) as progress:
            progress.update(_status(2))
            progress.update(_status(2, emulated_s=77.0))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert "77.0 s emulated" in stream.getvalue()
