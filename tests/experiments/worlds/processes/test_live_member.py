"""The messages of the launcher about members, when several of them are read at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from grapevine.experiments.worlds.processes import control
from grapevine.experiments.worlds.processes.live_member import LiveMember
from grapevine.peer.endpoint import Endpoint
from grapevine.peer.live import Lost, MembersChanged, News
from grapevine.peer.membership import life
from grapevine.peer.strategies import DPSGD, Solo
from tests.helpers import LIMIT_BYTES, make_peer
from tests.peer.clocks import SECOND_NS, Slow, Ticking


def after(strategy: Any, *news: News, answers: Sequence[News] = ()) -> tuple[LiveMember, list[control.Up]]:
    """Run peer 1, which is absent at first, for a second; return it with its messages to the launcher.

    It gets `news` at the start, and `answers` when it has weights.
    """
    peer = make_peer(1, {})
    peer.member, peer.members_change = False, True
    live = LiveMember(peer, Endpoint(1, [0, 2], LIMIT_BYTES), Slow(), Ticking(), SECOND_NS, SECOND_NS, lambda index, _: None)
    said: list[control.Up] = []

    def say(message: control.Up) -> None:
        said.append(message)
        if isinstance(message, control.Fetched):
            live.news.extend(answers)

    live.begin(say, strategy.membership == "by-step", lambda living: None, "nearest", 1)
    live.news.extend(news)
    live.run(life(peer, strategy, live.handover))
    return live, said


@pytest.mark.parametrize("gone", [MembersChanged(control.Parted(0)), Lost(0)])
def test_a_giver_that_goes_right_after_the_invitation_is_missed(gone: News) -> None:
    _, said = after(Solo(), MembersChanged(control.Invite({0: 0.5}, [0])), gone)
    assert said == [control.Gone(1), control.Fetched(1, [], 0)]


def test_a_joiner_that_is_a_member_from_a_step_on_keeps_a_row_of_a_later_step() -> None:
    invite = control.Invite({0: 0.25, 2: 0.25}, [0, 1, 2], 5)
    live, _ = after(DPSGD(), MembersChanged(invite), MembersChanged(control.Row(7, {2: 0.5}, [1, 2])))
    assert (live.peer.step, live.peer.targets) == (5, [0, 2])
    live.peer.step = 7
    assert live.peer.targets == [2]


def test_a_peer_that_enters_may_be_let_go_at_once() -> None:
    answers = MembersChanged(control.Entered(5, {0: 0.5}, [0, 1])), MembersChanged(control.Depart(5))
    _, said = after(DPSGD(), MembersChanged(control.Invite({}, [])), answers=answers)
    assert said == [control.Gone(1), control.Fetched(1, [], 0), control.Gone(1)]
