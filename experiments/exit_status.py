"""The exit statuses of every command, in one place."""

from enum import IntEnum


class ExitStatus(IntEnum):
    """The exit status of a command; a sweep ends with the worst status of its runs."""

    DONE = 0
    """The command completed."""
    INCOMPLETE = 1
    """A run ended early or is incomplete: its summary has the reason."""
    BAD_INPUT = 2
    """The input is wrong: one message names the mistake and the cure, and no run was started."""
    LOST = 3
    """Completed, but peers were lost that no event of the file killed."""
    INTERRUPTED = 130
    """Interrupted; the files written by then are complete."""


STATUS_TEXT = """\
  0    done
  3    done, but peers were lost that no event of the file killed
  1    a run ended early or is incomplete: its summary has the reason
  2    bad input: one message names the mistake and the cure, and nothing was started
  130  interrupted: the files written by then are complete
"""
"""The statuses in words for the help, from good to bad."""
_FROM_GOOD_TO_BAD = (ExitStatus.DONE, ExitStatus.LOST, ExitStatus.INCOMPLETE, ExitStatus.BAD_INPUT, ExitStatus.INTERRUPTED)


def worst(*statuses: ExitStatus) -> ExitStatus:
    """Return the worst of several statuses; `DONE` if there is none."""
    return max(statuses, key=_FROM_GOOD_TO_BAD.index, default=ExitStatus.DONE)
