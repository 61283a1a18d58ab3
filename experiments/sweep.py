"""Many runs of one experiment: the product of the lists of its `[sweep]` table, each in a process and a folder of its own."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments import toml_text
from experiments.config import Experiment
from experiments.config_errors import ConfigError, show_value
from experiments.settings import SOURCE

DONE, INCOMPLETE, INTERRUPTED = 0, 1, 130
MOST_RUNS = 10_000
LONGEST_NAME = 100
PAUSE_S = 0.02
PATIENCE_S = 10.0
"""How long children may take to end in good order after an interrupt."""

Command = Callable[[Path, Path], Sequence[str]]
"""(experiment file, run folder) -> what to execute."""
