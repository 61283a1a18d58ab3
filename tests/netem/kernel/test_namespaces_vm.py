"""The planned commands on a kernel that has netem: Debian's, under qemu's emulation, measured by ping and by TCP.

It takes a minute, and a kernel to boot: `make test-vm` fetches one and runs it.  Functional, not a test of fidelity:
an emulated processor is slow, and its clock is coarse.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import networkx as nx
import pytest

from grapevine.netem import Network, Uniform
from grapevine.netem.kernel.plan import address, commands, namespace, namespaces

BOOTED = Path(os.environ.get("GRAPEVINE_VM", "/nowhere"))
"""The folder into which a Debian kernel and busybox-static were unpacked."""
MODULES = ("sch_netem", "sch_htb", "cls_u32", "veth")
TOOLS = ("ip", "tc")
DEADLINE_S = 280
pytestmark = pytest.mark.timeout(DEADLINE_S + 20)
INIT = """\
#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /run/netns /tmp
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t tmpfs run /run
/bin/busybox --install -s /bin
export PATH=/bin
ip() { /usr/sbin/ip "$@"; }
tc() { /usr/sbin/tc "$@"; }
for module in %(modules)s; do insmod /modules/$module.ko; done
%(script)s
echo; echo "== end"
poweroff -f
"""
NETWORKS: dict[str, Network] = {
    "delay": Uniform(delay="20 ms", backend="kernel"),
    "jitter": Uniform(delay="20 ms", jitter="8 ms", backend="kernel"),
    "normal": Uniform(delay="20 ms", jitter="2 ms", jitter_law="normal", backend="kernel"),
    "pareto": Uniform(delay="20 ms", jitter="2 ms", jitter_law="pareto", backend="kernel"),
    "loss": Uniform(delay="1 ms", loss=0.1, backend="kernel"),
    "bursts": Uniform(delay="1 ms", loss=0.1, loss_burst=4, backend="kernel"),
    "rate": Uniform(rate="4 Mbit/s", delay="10 ms", uplink="2 Mbit/s", downlink="3 Mbit/s", backend="kernel"),
}
PINGS = {"loss": 400, "bursts": 400}
BULK_BYTES = 1_000_000


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The virtual machine's output for each network."""
    if not BOOTED.is_dir():
        pytest.skip("needs a kernel with netem to boot: make test-vm")
    emulator = shutil.which("qemu-system-x86_64")
    if emulator is None:
        pytest.skip("needs qemu-system-x86_64: apt install qemu-system-x86")
    if not all(shutil.which(tool) for tool in TOOLS):
        pytest.skip("needs ip and tc: apt install iproute2")
    image = tmp_path_factory.mktemp("vm") / "initramfs"
    image.write_bytes(_archive(_files(), _script()))
    kernel = next(BOOTED.glob("boot/vmlinuz-*"))
    words = "console=ttyS0 quiet panic=-1 clocksource=tsc tsc=reliable"
    done = subprocess.run(
        [emulator, "-accel", "tcg", "-cpu", "max", "-m", "256", "-nographic", "-no-reboot", "-nodefaults", "-serial", "stdio",
         "-kernel", str(kernel), "-initrd", str(image), "-append", words],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE_S, check=False,
    )  # fmt: skip
    parts = re.split(r"^== (\w+)\r?\n", done.stdout, flags=re.MULTILINE)
    assert parts[-2:-1] == ["end"], done.stdout + done.stderr
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_command_is_accepted(said: dict[str, str]) -> None:
    assert set(said) == {*NETWORKS, "end"}
    for name, text in said.items():
        assert not re.search("error|unknown|usage|cannot", text, re.IGNORECASE), (name, text)


def test_delays_are_added_in_both_directions(said: dict[str, str]) -> None:
    times_ms = _times_ms(said["delay"])
    assert len(times_ms) == 30
    assert 40 <= min(times_ms) < 44
    assert _median(times_ms) < 60  # an emulated processor, on a machine that may be busy


def test_jitter_spreads_around_the_delay(said: dict[str, str]) -> None:
    times_ms = _times_ms(said["jitter"])
    assert 24 <= min(times_ms) < 38  # one draw from +-8 ms each way
    assert max(times_ms) > 42
    for law in ("normal", "pareto"):
        assert 28 < min(_times_ms(said[law])) < 40


@pytest.mark.parametrize("name", ["loss", "bursts"])
def test_losses_hit_both_directions(said: dict[str, str], name: str) -> None:
    """A loss of 10 % each way loses 19 % of the pings; of 400, four standard deviations are 8 %, twice that in bursts of 4."""
    lost = 1 - len(_times_ms(said[name])) / PINGS[name]
    assert abs(lost - 0.19) < (0.08 if name == "loss" else 0.16)


def test_tcp_is_held_to_the_uplink(said: dict[str, str]) -> None:
    """2 Mbit/s of packets are 1.93 Mbit/s of payload, less slow start and the time that an emulated processor loses."""
    seconds = float(re.findall(r"real\s+(?:\d+m )?([\d.]+)", said["rate"])[-1])
    assert 0.75 < BULK_BYTES * 8 / seconds / 1.93e6 < 1.03


def _script() -> str:
    """Return a script that sets up each network by its commands, measures it and removes it."""
    lines: list[str] = []
    for name, network in NETWORKS.items():
        plan, prefix = network.plan(nx.path_graph(2), 0), f"gv-1-{name}"
        first, second = namespace(prefix, 0), namespace(prefix, 1)
        lines += [f"echo; echo '== {name}'", *map(str, commands(plan, prefix))]
        if name == "rate":
            sent = f"sleep 1; head -c {BULK_BYTES} /dev/zero | ip netns exec {first} nc {address(1)} 5000"
            got = f"ip netns exec {second} nc -l -p 5000 | (head -c 1 > /dev/null; time cat > /dev/null)"
            lines += [f"({sent}) &", got]
        else:
            count = PINGS.get(name, 30)
            interval = 0.1 if count == 30 else 0.01
            lines.append(f"ip netns exec {first} ping -c {count} -i {interval} -W 1 {address(1)}")
        lines += [f"ip netns del {one}" for one in namespaces(plan, prefix)]
    return INIT % {"modules": " ".join(MODULES), "script": "\n".join(lines)}


def _files() -> Iterator[tuple[str, Path]]:
    """Return the files of the virtual machine: path inside -> path here."""
    yield "bin/busybox", BOOTED / "bin/busybox"
    for module in MODULES:
        yield f"modules/{module}.ko", next(BOOTED.glob(f"lib/modules/*/kernel/**/{module}.ko"))
    needed = set()
    for tool in TOOLS:
        path = shutil.which(tool)
        assert path is not None
        yield f"usr/sbin/{tool}", Path(path)
        linked = subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout
        needed |= set(re.findall(r"(/\S+)", linked))
    for library in sorted(needed):
        yield library.lstrip("/"), Path(library)
    for folder in ("/usr/lib/x86_64-linux-gnu/tc", "/usr/lib/tc", "/usr/share/tc"):
        for table in sorted(Path(folder).glob("*.dist")):
            yield f"usr/lib/tc/{table.name}", table
            if folder != "/usr/lib/tc":
                yield str(table).lstrip("/"), table


def _archive(files: Iterator[tuple[str, Path]], init: str) -> bytes:
    """Return an initramfs: a cpio archive of the kind "newc", with all parent folders of each file."""
    contents: dict[str, tuple[int, bytes]] = {"init": (0o100755, init.encode())}
    for name, path in files:
        contents[name] = 0o100755, path.read_bytes()
    folders = {str(parent) for name in contents for parent in Path(name).parents if str(parent) != "."}
    entries = [(folder, 0o040755, b"") for folder in sorted(folders)]
    entries += [(name, mode, data) for name, (mode, data) in contents.items()]
    entries.append(("TRAILER!!!", 0, b""))
    return b"".join(_entry(number, *entry) for number, entry in enumerate(entries, 1))


def _entry(number: int, name: str, mode: int, data: bytes) -> bytes:
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    return head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)


def _times_ms(text: str) -> list[float]:
    return [float(time) for time in re.findall(r"time=([\d.]+) ms", text)]


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]
