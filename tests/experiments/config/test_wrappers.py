"""Wrappers in an experiment file: read, written again, and refused in a sentence."""

from __future__ import annotations

import pytest

from grapevine import (
    ConfigError,
    Experiment,
    Wrapper,
)
from grapevine.experiments.config.wrappers import Delay, Drop, Scale
from grapevine.experiments.fleet import build


class Nothing(Wrapper, frozen=True, tag="nothing"):
    """Looks, and changes nothing."""


FILE = """
name = "faults"
peers = 6
[world]
name = "virtual"
[task]
name = "quadratic"
[stop]
steps = 5
[[wrappers]]
name = "delay"
time = "20 ms"
[[wrappers]]
name = "scale"
peers = [0, 3]
factor = 2.5
"""


def test_wrappers_are_read_from_a_file_and_written_back() -> None:
    experiment = Experiment.parse(FILE)
    assert experiment.wrappers == (Delay(time="20 ms"), Scale(factor=2.5, peers=(0, 3)))
    assert Experiment.parse(experiment.to_toml()) == experiment
    assert "wrappers" not in Experiment().to_toml()
    assert experiment.replace(wrappers=[Scale(peers=[1])]).wrappers == (Scale(peers=(1,)),)  # type: ignore[arg-type]
    own = experiment.replace(wrappers=[Drop(), Nothing()])
    assert f'name = "{__name__}:Nothing"' in own.to_toml()
    assert own.set("peers", "5").wrappers == own.wrappers


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (('time = "20 ms"', "time = 20"), r"wrappers\[0\].time: 20 has no unit; write for example"),
        (('name = "scale"', 'name = "scael"'), r'wrappers\[1\].name: there is no wrapper "scael"; did you mean scale\?'),
        (
            ("factor = 2.5", "share = 0.5"),
            r"wrappers\[1\].share: no such field; scale has: factor, peers; share belongs to drop",
        ),
        (
            ("peers = [0, 3]", "peers = [0, 6]"),
            r"wrappers\[1\].peers = \[0, 6\]: there is no peer 6; give some of the peers 0 to 5",
        ),
        (("peers = [0, 3]", "peers = []"), "the wrapper has no peer"),
        (("peers = [0, 3]", "peers = [-1]"), r"wrappers\[1\].peers\[0\]"),
        (("[[wrappers]]\nname", "[wrappers]\nname"), "."),
    ],
)
def test_wrappers_that_cannot_be_are_refused(change: tuple[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build(Experiment.parse(FILE.replace(*change)))
