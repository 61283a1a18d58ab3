"""A fleet whose script tests write, and a script of every event."""

from __future__ import annotations

from grapevine import Experiment
from grapevine.experiments.config.experiment import Stop, Virtual
from grapevine.experiments.config.sections import Record
from grapevine.experiments.tasks import Quadratic
from grapevine.netem import Uniform, UniformDevices
from grapevine.peer.optimizers import Sgd
from grapevine.peer.strategies import Slices
from grapevine.topology.graphs.menu import Ring

BASE = Experiment(
    peers=4,
    seed=1,
    world=Virtual(),
    topology=Ring(),
    network=Uniform(rate="8 Mbit/s", delay="5 ms"),
    devices=UniformDevices(speed="1000 samples/s"),
    task=Quadratic(targets=(1.0, 2.0, 3.0, 4.0), dimension=1000, batch_size=10),
    strategy=Slices(),
    optimizer=Sgd(learning_rate=0.05),
    stop=Stop(time="10 s"),
    record=Record(every="500 ms", report=False),
)

EVERY = """
[[events]]
at = "1 s"
do = "rate"
link = [0, 1]
way = "out"
factor = 0.1

[[events]]
at = "500 ms"
do = "rate"
to = "2 Mbit/s"

[[events]]
at = "2 s"
do = "delay"
peer = 2
factor = 2.0
add = "10 ms"

[[events]]
at = "3 s"
do = "loss"
to = 0.01

[[events]]
at = "4 s"
do = "partition"
groups = [[0, 1], [2]]

[[events]]
at = "5 s"
do = "heal"

[[events]]
at = "5 s"
do = "cut"
link = [1, 2]

[[events]]
at = "6 s"
do = "restore"

[[events]]
at = "7 s"
do = "speed"
peer = 1
factor = 0.5

[[events]]
at = "8 s"
do = "pause"
peer = 1
length = "500 ms"

[[events]]
at = "9 s"
do = "kill"
peer = 3

[[events]]
at = "9.2 s"
do = "leave"
peer = 2

[[events]]
at = "9.6 s"
do = "join"
peer = 2
"""
