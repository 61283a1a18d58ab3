"""Users' text files, read whole after a check that each is a regular file of at most 32 MiB."""

import csv
import os
import stat
from pathlib import Path

MOST_BYTES = 2**25
"""The largest size of a text file: 32 MiB."""


def read_text(path: str | Path) -> str:
    """Return the text of a UTF-8 file, with or without a byte order mark; line ends become "\\n".

    Raises ValueError, without the file's name, if it is not a regular file, cannot be read, exceeds 32 MiB, or is not text.
    """
    if "\0" in str(path):
        raise ValueError("cannot be read: its name contains a null byte; give the path of a text file")
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # does not wait for a pipe's writer
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ValueError("is a pipe or a device, not a text file; write the text to a file")
            content = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        cure = f"check the name: a path that is not absolute starts at {Path.cwd()}"
        raise ValueError(f"cannot be read: no such file or directory; {cure}") from None
    except OSError as error:
        raise ValueError(f"cannot be read: {(error.strerror or str(error)).lower()}; give the path of a text file") from None
    if len(content) > MOST_BYTES:
        raise ValueError(f"holds more than {MOST_BYTES:,} bytes; is it text? shorten it")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"is not text (byte {error.start} is not UTF-8); save the file as UTF-8") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def rows_of(text: str) -> list[list[str]]:
    """Return the rows of a CSV text, each a list of cells, without empty lines and lines that begin with #.

    Raises ValueError if a line cannot be cut into cells.
    """
    try:
        return list(csv.reader(line for line in text.splitlines() if line.strip() and not line.startswith("#")))
    except csv.Error as error:
        raise ValueError(f"is not a table: {error}; write one line for each row, with commas between the cells") from None
