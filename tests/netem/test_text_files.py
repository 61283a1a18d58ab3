"""Users' text files are regular files of at most 32 MiB in UTF-8, with or without a byte order mark."""

import os

import msgspec
import pytest

from grapevine.netem import text_files
from grapevine.netem.devices.varying import TraceDevices
from grapevine.netem.networks.changing import Trace
from grapevine.netem.networks.regions import Regions
from grapevine.netem.networks.tables import read_table
from grapevine.netem.text_files import read_text, rows_of
from tests.netem.networks.test_changing import PAIR

TABLE = """
title = "t"
source = "s"
measured = "m"
regions = ["a", "b"]
lan_source = "l"
lan = {rate_mbit_per_s = 1, rtt_ms = 1}
"""


def test_byte_order_marks_and_carriage_returns_are_dropped(tmp_path):
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfa\r\nb\rc\n")
    assert read_text(tmp_path / "a") == "a\nb\nc\n"
    assert rows_of("# x\n\na,b\n") == [["a", "b"]]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: os.mkfifo(path), "is a pipe or a device, not a text file"),
        (lambda path: path.symlink_to("/dev/zero"), "is a pipe or a device, not a text file"),
        (lambda path: path.mkdir(), "cannot be read: is a directory"),
        (lambda path: None, "cannot be read: no such file or directory; check the name"),
        (lambda path: path.write_bytes(b"ab\xff"), "byte 2 is not UTF-8"),
        (lambda path: path.write_text("x" * 2000), "holds more than 1,024 bytes"),
    ],
)
def test_a_path_without_a_text_file_is_refused_everywhere(make, message, tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "MOST_BYTES", 1024)
    path = tmp_path / "a.csv"
    make(path)
    for read in (
        lambda: read_text(path),
        lambda: Trace(path=str(path)).plan(PAIR, 0),
        lambda: TraceDevices(path=str(path)).plan(1),
        lambda: Regions(path=str(path)).plan(PAIR, 0),
    ):
        with pytest.raises(ValueError, match=message):
            read()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.toml", "x = " + "[" * 3000, "nested too deeply"),
        ("a.toml", f"{TABLE}rtt_ms = 5\nrate_mbit_per_s = 1", "Expected `array`, got `int`"),
        ("a.toml", f'{TABLE}rtt_ms = ["ab", "cd"]\nrate_mbit_per_s = [[0, 1], [1, 0]]', "Expected `array`, got `str`"),
        ("a.csv", "source,target,rate [Mbit/s],rtt [ms]\n" + "".join(f"a{i},b{i},1,2\n" for i in range(600)), "1,200 regions"),
    ],
)
def test_a_bad_table_of_regions_is_refused(name, text, message, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises((ValueError, msgspec.ValidationError), match=message) as caught:
        read_table(str(tmp_path / name))
    assert str(caught.value).startswith(str(tmp_path))
