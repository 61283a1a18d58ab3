"""Set-up and removal of networks that the Linux kernel carries, and a check of the machine's requirements.

The names of a run's namespaces hold their owner, `gv-<process>-<its start>-<number>-p3`, so that namespaces of a killed
launcher can be recognised and removed. No other namespace is removed, and nothing outside these namespaces is changed.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from grapevine.netem.kernel.plan import FORWARD, Command, commands, namespaces, needs_netem
from grapevine.netem.networks.plan import NetworkPlan

NAMES = Path("/run/netns")
"""The folder in which `ip netns` keeps its names."""
_NAME = re.compile(r"(gv-(\d+)-(\d+)-\d+)-(?:hub|trial|p\d+)")
_CLONE_NEWNET = 0x40000000
_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))  # folders that sudo and cron leave out
_RUNS = itertools.count()
_TRIALS = (
    ("veth", "ip", "link add eth0 type veth peer name eth1", "virtual Ethernet cards (kernel module veth)"),
    ("sh", "ip netns exec", FORWARD, "routing (a /proc/sys that can be written)"),
    ("htb", "tc", "qdisc add dev eth0 root handle 1: htb", "rates (kernel module sch_htb)"),
    ("class", "tc", "class add dev eth0 parent 1: classid 1:2 htb rate 8000bit", "rates (kernel module sch_htb)"),
    (
        "u32", "tc", "filter add dev eth0 parent 1: protocol ip prio 1 u32 match ip dst 10.0.0.1/32 flowid 1:2",
        "filters (kernel module cls_u32)",
    ),
    ("netem", "tc", "qdisc add dev eth0 parent 1:2 handle 2: netem delay 1us", "{options} (kernel module sch_netem)"),
)  # fmt: skip


class NamespaceError(Exception):
    """The kernel refused a command; the message holds the command and the kernel's words."""


class Namespaces:
    """A context in which a plan's network is up, with every peer in the namespace `name(peer)`.

    Raises NamespaceError if the kernel refuses a command, after it has removed all namespaces again.
    """

    def __init__(self, plan: NetworkPlan, dilation: float = 1.0) -> None:
        self.plan = plan
        self.prefix = new_prefix()
        self.commands = commands(plan, self.prefix, dilation)

    def name(self, peer: int) -> str:
        """Return the name of a peer's namespace, for `enter`."""
        return f"{self.prefix}-p{peer}"

    def __enter__(self) -> Namespaces:
        try:
            apply(self.commands)
        except BaseException:
            self.undo()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.undo()

    def undo(self) -> None:
        """Remove the network's namespaces; those that are already gone are skipped."""
        remove([name for name in namespaces(self.plan, self.prefix) if (NAMES / name).exists()])


def new_prefix() -> str:
    """Return a new prefix for the namespaces of one network of this process."""
    return f"gv-{os.getpid()}-{started(os.getpid())}-{next(_RUNS)}"


def enter(name: str) -> None:
    """Move the calling thread, and all that it starts from now on, into a namespace; open sockets stay in the old one.

    Raises OSError without root, or if there is no such namespace.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    with (NAMES / name).open("rb") as file:
        if libc.setns(file.fileno(), _CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"cannot enter the namespace {name}: {os.strerror(number)}")


def apply(steps: Sequence[Command]) -> None:
    """Run commands in order; one process runs successive commands of one tool and namespace. Raises NamespaceError."""
    for (tool, namespace), group in itertools.groupby(steps, lambda step: (step.tool, step.namespace)):
        lines = list(group)
        if tool in ("ip", "tc"):
            arguments = ["-n", namespace] if namespace else []
            done = _run([tool, *arguments, "-batch", "-"], "".join(f"{line.words}\n" for line in lines))
            failed = re.search(r"Command failed -:(\d+)", done.stderr)
            at = lines[int(failed.group(1)) - 1] if failed else lines[0]
            _refuse_failure(done, at)
        else:
            for line in lines:
                _refuse_failure(_run(["sh", "-c", str(line)]), line)


def congestion_control() -> str:
    """Return the congestion control of this machine's TCP, which new namespaces use too: "cubic", "bbr", ..."""
    return Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()


def leftovers() -> dict[str, list[str]]:
    """Return the namespaces of launchers that no longer run, by the prefix of their run."""
    found: dict[str, list[str]] = {}
    for path in sorted(NAMES.iterdir()) if NAMES.is_dir() else ():
        match = _NAME.fullmatch(path.name)
        if match and started(int(match.group(2))) != match.group(3):
            found.setdefault(match.group(1), []).append(path.name)
    return found


def remove(names: Sequence[str]) -> None:
    """Delete namespaces; their cards, queues and addresses go with them. Raises NamespaceError."""
    if names:
        done = _run(["ip", "-force", "-batch", "-"], "".join(f"netns del {name}\n" for name in names))
        left = [name for name in names if (NAMES / name).exists()]
        if left:
            raise NamespaceError(f"{', '.join(left)} cannot be removed: {_words(done.stderr)}")


def missing(plan: NetworkPlan) -> tuple[str, str] | None:
    """Return the first thing that this machine lacks for a plan's network, and the cure; None = it lacks nothing.

    The function tries the needed commands in a namespace, which it removes again.
    """
    if not sys.platform.startswith("linux"):
        return "namespaces exist on Linux only", 'use backend = "userspace"'
    absent = [tool for tool in ("ip", "tc") if shutil.which(tool, path=_PATH) is None]
    if absent:
        return f"this machine has no program {' and no program '.join(absent)}", "install it: apt install iproute2"
    if os.geteuid() != 0:
        return "only root may make namespaces", 'run it as root (sudo), or use backend = "userspace"'
    return _first_refusal(needs_netem(plan))


def _first_refusal(options: str) -> tuple[str, str] | None:
    """Try each needed command; return the first that the kernel refuses, and the cure; `options` need sch_netem."""
    name = f"{new_prefix()}-trial"
    try:
        apply([Command("ip", "", f"netns add {name}")])
    except NamespaceError as error:
        return f"root cannot make namespaces on this system: {error}", 'use backend = "userspace", or give it CAP_SYS_ADMIN'
    try:
        for kind, tool, words, purpose in _TRIALS:
            if kind == "netem" and not options:
                continue
            try:
                apply([Command(tool, name, words)])
            except NamespaceError as error:
                cure = 'use a kernel that has it, or backend = "userspace"'
                if kind == "netem":
                    cure += ", or set rates alone (no delay, jitter or loss)"
                return f"this kernel does not support {purpose.format(options=options)}: {error}", cure
    finally:
        with contextlib.suppress(NamespaceError):
            remove([name])
    return None


def _run(arguments: list[str], text: str = "") -> subprocess.CompletedProcess[str]:
    """Run one command in its own session, so that the terminal's interrupt cannot leave a network half set up."""
    return subprocess.run(
        arguments, input=text, capture_output=True, text=True, check=False, start_new_session=True,
        env={**os.environ, "PATH": _PATH, "LC_ALL": "C"},
    )  # fmt: skip


def _refuse_failure(done: subprocess.CompletedProcess[str], command: Command) -> None:
    if done.returncode != 0:
        raise NamespaceError(f"`{command}`: {_words(done.stderr) or f'exit status {done.returncode}'}")


def _words(stderr: str) -> str:
    """Return a tool's error text on one line, without the line that gives the place in its input."""
    return " ".join(line.strip() for line in stderr.splitlines() if not line.startswith("Command failed")).rstrip(".")


def started(process: int) -> str:
    """Return a process's start, in ticks since the machine's start; "" if there is no such process, or it is a zombie."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
