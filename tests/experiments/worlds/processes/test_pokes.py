"""`grapevine poke`: the socket in the run folder, what is refused, and a fleet that is poked while it runs."""

from __future__ import annotations

import json
import os
import select
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from grapevine import Result
from grapevine.experiments.cli.main import main
from grapevine.experiments.config.events import CutEvent, Event, HealEvent, KillEvent, RateEvent
from grapevine.experiments.config.experiment import Experiment, Stop
from grapevine.experiments.fleet import build
from grapevine.experiments.results.recorder import Recorder
from grapevine.experiments.worlds.collector import Collector
from grapevine.experiments.worlds.processes import control
from grapevine.experiments.worlds.processes import poke_socket as rendezvous_module
from grapevine.experiments.worlds.processes.poke_socket import FILE, GUESTS, LIMIT_BYTES, SILENT_S, Rendezvous, ask
from grapevine.experiments.worlds.processes.pokes import Pokes
from grapevine.netem import Uniform, UniformDevices
from grapevine.netem.links.alterations import Change, Condition, Tempo
from tests.experiments.fleets import LiveFleet, until
from tests.experiments.recorded import record_run

S = 1_000_000_000


# ---- the rendezvous -------------------------------------------------------------------------------------------------------


@pytest.fixture
def meeting(tmp_path: Path) -> Iterator[tuple[Path, Rendezvous]]:
    folder = tmp_path / ("long" * 40)  # longer than an address of a socket may be
    folder.mkdir()
    rendezvous = Rendezvous(folder)
    yield folder, rendezvous
    rendezvous.close()


def serving(rendezvous: Rendezvous) -> threading.Thread:
    """Answers with what was asked, for as long as it takes to let one come, ask and go."""

    def serve() -> None:
        for _ in range(2):
            select.select(rendezvous.fds, [], [], 10)
            rendezvous.serve(lambda question: {"heard": question})
            if len(rendezvous.fds) == 1:
                return

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def test_a_question_gets_its_answer(meeting: tuple[Path, Rendezvous]) -> None:
    folder, rendezvous = meeting
    assert (folder / FILE).stat().st_mode & 0o777 == 0o600
    thread = serving(rendezvous)
    assert ask(folder, {"event": {"do": "heal"}}) == {"heard": {"event": {"do": "heal"}}}
    thread.join()


@pytest.mark.parametrize(
    ("question", "words"),
    [
        (b"not json", "not a question"),
        (b"x" * (LIMIT_BYTES + 100), "more than"),
        (b"[]", "not a question"),
        (b'{"a": ' + b"[" * 30_000 + b"]" * 30_000 + b"}", "not a question"),
        (b'{"a": "\xff"}', "not a question"),
    ],
)
def test_a_malformed_request_is_refused(meeting: tuple[Path, Rendezvous], question: bytes, words: str) -> None:
    folder, rendezvous = meeting
    thread = serving(rendezvous)
    descriptor = os.open(folder, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
        asking.connect(f"/proc/self/fd/{descriptor}/{FILE}")
        asking.send(question)
        assert words in json.loads(asking.recv(1000))["refused"]
    os.close(descriptor)
    thread.join()


def silent(folder: Path) -> socket.socket:
    """Somebody who comes and says nothing."""
    guest = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    descriptor = os.open(folder, os.O_RDONLY)
    guest.connect(f"/proc/self/fd/{descriptor}/{FILE}")
    os.close(descriptor)
    return guest


def test_a_silent_guest_delays_no_other_and_is_turned_away(
    meeting: tuple[Path, Rendezvous], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launcher that answers pokes is the one that listens to the peers."""
    folder, met = meeting
    now_s = 0.0
    monkeypatch.setattr(rendezvous_module.time, "monotonic", lambda: now_s)
    monkeypatch.setattr(socket.socket, "settimeout", None)  # nobody waits for anybody
    guests = []
    for _ in range(3 * GUESTS):
        guests.append(silent(folder))
        met.serve(lambda question: {"heard": question})
        assert len(met.fds) <= 1 + GUESTS
    guests[-1].send(b'{"a": 1}')
    met.serve(lambda question: {"heard": question})
    assert json.loads(guests[-1].recv(1000)) == {"heard": {"a": 1}}
    now_s = SILENT_S
    met.serve(lambda question: {"heard": question})
    assert len(met.fds) == 1
    assert guests[-2].recv(1000) == b""  # turned away
    for guest in guests:
        guest.close()


def test_a_socket_that_outlived_its_fleet_does_not_hold_anybody_up(tmp_path: Path) -> None:
    rendezvous = Rendezvous(tmp_path)
    rendezvous._socket.close()  # as a killed process leaves it
    assert (tmp_path / FILE).exists()
    with pytest.raises(ConnectionError, match="no fleet listens"):
        ask(tmp_path, {})
    again = Rendezvous(tmp_path)  # the next run in that folder takes its place
    thread = serving(again)
    assert ask(tmp_path, {}) == {"heard": {}}
    thread.join()
    again.close()
    assert not (tmp_path / FILE).exists()


# ---- what the launcher makes of it ----------------------------------------------------------------------------------------


class Poked:
    """A fleet whose peers only listen."""

    def __init__(self, folder: Path, *events: Event) -> None:
        experiment = Experiment(
            peers=4, network=Uniform(rate="8 Mbit/s", delay="5 ms"), devices=UniformDevices(speed="1000 samples/s"),
            stop=Stop(time="100 s"), events=events,
        )  # fmt: skip
        self.now_ns = 0
        self.said: list[tuple[int, Any]] = []
        self.killed: list[tuple[int, str]] = []
        self.alive = {0, 1, 2, 3}
        self.recorder = Recorder(folder, "", {})
        self.pokes = Pokes(
            build(experiment),
            Collector(build(experiment), self.recorder, lambda status: None),
            lambda: self.now_ns,
            lambda peer, message: self.said.append((peer, message)),
            lambda peer, why: self.killed.append((peer, why)),
            lambda: self.alive,
        )

    def poke(self, at_s: float, **event: Any) -> dict[str, Any]:
        self.now_ns = round(at_s * S)
        return self.pokes._answer({"event": event})


def altered(rate: float, *changes: Change) -> control.LinkState:
    return control.LinkState(rate, 5_000_000, 0.0, True, list(changes))


def test_a_poke_goes_to_whose_link_or_device_it_is(tmp_path: Path) -> None:
    fleet = Poked(tmp_path)
    assert fleet.poke(2.5, do="rate", link=[0, 1], factor=0.1) == {"done": "link 0-1: rate x 0.1", "time_s": 2.5}
    tenth = altered(1e6, Change(2_500_000_000, Condition(rate_factor=0.1)))
    assert fleet.said == [(0, control.Alter({1: tenth})), (1, control.Alter({0: tenth}))]
    assert control.decode_down(control.encode(fleet.said[0][1])) == fleet.said[0][1]
    fleet.said.clear()
    fleet.poke(3, do="pause", peer=2, length="1 s")
    assert fleet.said == [(2, control.Alter({}, [Tempo(3 * S, 0.0), Tempo(4 * S, 1.0)]))]
    fleet.poke(5, do="kill", peer=3)
    assert fleet.killed == [(3, "killed by a poke")]
    noted = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [event["text"] for event in noted if event["kind"] == "poke"] == [
        "link 0-1: rate x 0.1",
        "peer 2 pauses for 1 s",
        "peer 3 is killed",
    ]


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ({"do": "cut", "link": [0, 2]}, "event.link = [0, 2]: peers 0 and 2 are not neighbours"),
        ({"do": "rate", "link": [0, 1]}, "give either factor or to"),
        ({"do": "kill", "peer": 3}, "peer 3 does not run any more"),
        ({"do": "heal", "peer": 3}, "of no link do both peers still run"),
        ({"do": "sing"}, 'there is no event "sing"'),
        ({}, "event.do: is missing"),
    ],
)
def test_what_a_running_fleet_refuses(tmp_path: Path, event: dict[str, Any], words: str) -> None:
    fleet = Poked(tmp_path)
    fleet.alive = {0, 1, 2}
    assert words in fleet.poke(1, **event)["refused"]
    assert (fleet.said, fleet.killed) == ([], [])
    assert "is not a table" in fleet.pokes._answer({})["refused"]


def test_pokes_and_the_script_are_one_story(tmp_path: Path) -> None:
    """What is poked holds until the script says otherwise, and a cut without end is told when it comes."""
    fleet = Poked(
        tmp_path, RateEvent(at="10 s", link=(0, 1), factor=0.5), CutEvent(at="20 s", link=(0, 1)), KillEvent(at="30 s", peer=2)
    )
    fleet.poke(5, do="delay", link=[0, 1], way="out", add="1 s")
    later = Condition(delay_more_ns=S)
    half = later._replace(rate_factor=0.5)
    known = Change(5 * S, later), Change(10 * S, half)
    assert fleet.said == [(0, control.Alter({1: altered(1e6, *known, Change(20 * S, half))}))]
    fleet.said.clear()
    fleet.now_ns = 19 * S
    fleet.pokes.look()
    assert fleet.said == []
    assert fleet.pokes.pause_s(0.1, 1.0) == 0.1
    fleet.now_ns = 20 * S - 10_000_000
    assert fleet.pokes.pause_s(0.1, 2.0) == pytest.approx(0.02)
    fleet.now_ns = 20 * S
    fleet.pokes.look()
    cut = Change(20 * S, half._replace(up=False))
    assert fleet.said[0] == (0, control.Alter({1: altered(1e6, *known, cut)}))
    fleet.said.clear()
    fleet.poke(25, do="heal", link=[0, 1], way="out")
    assert fleet.said == [(0, control.Alter({1: altered(1e6, *known, cut, Change(25 * S, half))}))]
    fleet.now_ns = 31 * S
    fleet.pokes.look()
    assert fleet.killed == [(2, "killed by the script")]


@pytest.mark.slow
def test_many_pokes_leave_no_more_behind_than_the_last_of_their_kind(tmp_path: Path) -> None:
    """Whoever pokes in a loop must not fill the launcher, nor make what it tells the peers longer and longer."""
    fleet = Poked(tmp_path, CutEvent(at="90 s", link=(0, 1)))
    fleet.poke(1, do="pause", peer=2, length="80 s")
    for number in range(1, 201):
        fleet.poke(1 + number / 10, do="rate", link=[0, 1], factor=number / 1000)
        fleet.poke(1 + number / 10, do="delay", add=f"{number} ms")
        fleet.poke(1 + number / 10, do="pause", peer=2, length="1 s")
        fleet.poke(1 + number / 10, do="speed", peer=2, factor=number / 1000)
        assert len(fleet.pokes._events) < 60
    links = next(message.links for peer, message in reversed(fleet.said) if peer == 0)
    assert len(links[1].changes) < 30
    assert links[1].changes[-1].condition == Condition(rate_factor=0.2, delay_more_ns=200_000_000)
    (before,) = [change for change in links[1].changes if change.at_ns == 20_500_000_000]
    assert before.condition == Condition(rate_factor=0.195, delay_more_ns=195_000_000)  # what late peers reckon with
    tempos = next(message.tempos for peer, message in reversed(fleet.said) if peer == 2 and message.tempos)
    assert tempos[-1] == Tempo(81 * S, 0.2)  # the longest pause lasts


def test_healing_links_that_are_not_cut_sends_nothing_to_peers(tmp_path: Path) -> None:
    fleet = Poked(tmp_path, HealEvent(at="1 s"))
    assert fleet.poke(2, do="heal")["done"] == "all links are healed"
    assert fleet.said == []


# ---- the command ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["heals"], 'event.do: there is no event "heals"; did you mean heal?'),
        (["cut", "links=0,1"], "event.links: no such field"),
        (["rate", "link=0,1"], "event.factor: give either factor or to"),
        (["cut", "link"], "'link' does not have the form key=value; write key=value, such as link=0,1"),
        (["heal", "at=1 s"], 'at = "1 s": a poke always happens at once; leave at out'),
        (["heal"], "its run is over (3 s are over)"),
    ],
)
def test_a_wrong_poke_is_one_sentence_and_status_2(
    tmp_path: Path, arguments, words, capsys: pytest.CaptureFixture[str]
) -> None:
    record_run(tmp_path / "run")
    assert main(["poke", str(tmp_path / "run"), *arguments]) == 2
    told = capsys.readouterr().err
    assert told.startswith("grapevine poke: ")
    assert words in told
    assert told.count("\n") == 1


def test_a_folder_that_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["poke", str(tmp_path / "nothing"), "heal"]) == 2
    assert "no fleet listens there; give the run folder of a running fleet" in capsys.readouterr().err


@pytest.mark.live
def test_a_live_fleet_follows_its_script_and_is_poked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = '[{at = "300 ms", do = "rate", link = [0, 1], factor = 0.1}, {at = "600 ms", do = "kill", peer = 3}]'
    settings = f"events={script}", "strategy.name=slices", "task.name=quadratic", "task.dimension=4000", "task.batch_size=32"
    fleet = LiveFleet(tmp_path, 'time = "600 s"', *(word for setting in settings for word in ("--set", setting)))
    try:
        fleet.training()
        lost = until(lambda: fleet.events("lost"), "the scripted kill", 10)
        assert (lost[0]["peer"], lost[0]["text"]) == (3, "killed by the script")
        assert [(event["time_s"], event["text"]) for event in fleet.events("script")] == [
            (0.3, "link 0-1: rate x 0.1"),
            (0.6, "peer 3 is killed"),
        ]
        assert main(["poke", str(fleet.out), "cut", "link=1,2", "--json"]) == 0
        done = json.loads(capsys.readouterr().out)
        assert done["done"] == "link 1-2 is cut"
        assert fleet.events("poke")[0]["time_s"] == pytest.approx(done["time_s"], abs=0.1)
        assert main(["poke", str(fleet.out), "cut", "link=0,2"]) == 2
        assert "peers 0 and 2 are not neighbours" in capsys.readouterr().err
        until(lambda: time_s(fleet) > done["time_s"] + 1.0, "a second of the cut", 10)
        assert main(["poke", str(fleet.out), "heal"]) == 0
        healed_s = fleet.events("poke")[-1]["time_s"]
        until(lambda: time_s(fleet) > healed_s + 0.6, "some time after it", 10)
        fleet.interrupt()
        assert fleet.wait(10) == 130
        during, after = (bytes_between(fleet, *span) for span in ((done["time_s"] + 0.4, healed_s), (healed_s, 1e9)))
        assert during[1, 2] == during[2, 1] == 0
        assert min(during[0, 1], after[1, 2], after[2, 1]) > 0
        rows = Result.read(fleet.out).links.query("source == 1 and target == 2")
        asked = rows[rows.time_s <= 0.6].rate_asked_bytes_per_s, rows[rows.time_s > healed_s].rate_asked_bytes_per_s
        assert asked[0].notna().all()
        assert asked[1].isna().all()  # once poked a link is no longer what was asked for
        assert fleet.summary()["peers_lost"] == [3]  # nobody took a cut for a death
        capsys.readouterr()
        assert main(["poke", str(fleet.out), "heal"]) == 2
        assert "its run is over (interrupted)" in capsys.readouterr().err
    finally:
        fleet.close()


def time_s(fleet: LiveFleet) -> float:
    """The emulated time, as the fleet tells when it is poked with what changes nothing."""
    return ask(fleet.out, {"event": {"do": "rate", "link": [0, 1], "factor": 0.1}})["time_s"]


def bytes_between(fleet: LiveFleet, begin_s: float, end_s: float) -> dict[tuple[int, int], int]:
    """What each link carried in the record intervals, of 0.2 s, that lie between two instants."""
    links = Result.read(fleet.out).links
    chosen = links[(links.time_s > begin_s + 0.2) & (links.time_s <= end_s)]
    return chosen.groupby(["source", "target"])["bytes"].sum().to_dict()
