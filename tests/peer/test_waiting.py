"""Waiting for descriptors, whatever their numbers are."""

from __future__ import annotations

import fcntl
import os
import resource
from collections.abc import Iterator

import pytest

from grapevine.peer.waiting import Waiter

HIGH = 1_500


@pytest.fixture
def high() -> Iterator[int]:
    """An eventfd with a number that `select` does not know."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard <= HIGH:
        pytest.skip("this system permits too few descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, HIGH + 1), hard))
    low = os.eventfd(0, os.EFD_NONBLOCK)
    number = fcntl.fcntl(low, fcntl.F_DUPFD, HIGH)
    yield number
    os.close(low)
    os.close(number)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_readable_descriptor_is_reported_whatever_its_number(high: int) -> None:
    other = os.eventfd(1)
    waiter = Waiter(high, other)
    assert waiter.wait(10) == [other]
    os.eventfd_write(high, 1)
    assert waiter.wait(10) == [high, other]
    os.eventfd_read(high)
    os.eventfd_read(other)
    assert waiter.wait(1e-6) == []
    os.close(other)


def test_a_closed_end_is_reported() -> None:
    ours, theirs = os.pipe()
    os.close(theirs)
    assert Waiter(ours).wait(10) == [ours]
    os.close(ours)
