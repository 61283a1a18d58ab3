"""The exit statuses of every command, in one place."""

from enum import IntEnum


class ExitStatus(IntEnum):
    """What a command ends with; a sweep ends with the worst of its runs."""

    DONE = 0
    """Everything that was asked for was done."""
    INCOMPLETE = 1
    """A run ended early or is incomplete: its summary says why."""
    BAD_INPUT = 2
    """What was given cannot be carried out: one message says why, and nothing was started."""
    LOST = 3
    """Done, but peers were lost that the file did not ask to lose."""
    INTERRUPTED = 130
    """Somebody interrupted it; what was written by then is complete."""


TOLD = """\
  0    done
  3    done, but peers were lost that the file did not ask to lose
  1    a run ended early or is incomplete: its summary says why
  2    bad input: one message says what to change, and nothing was started
  130  interrupted: what was written by then is complete
"""
"""The same for people, from good to bad."""
_FROM_GOOD_TO_BAD = (ExitStatus.DONE, ExitStatus.LOST, ExitStatus.INCOMPLETE, ExitStatus.BAD_INPUT, ExitStatus.INTERRUPTED)


def worst(*statuses: ExitStatus) -> ExitStatus:
    """The worst of several statuses; `DONE` of none."""
    return max(statuses, key=_FROM_GOOD_TO_BAD.index, default=ExitStatus.DONE)
