"""The run of one experiment, from its description to its run folder."""

from __future__ import annotations

import shlex
import sys
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from grapevine.experiments.config.experiment import ConfigError, Experiment, Processes
from grapevine.experiments.config.menus import name_of
from grapevine.experiments.exit_status import ExitStatus
from grapevine.experiments.faults import fault_of
from grapevine.experiments.fleet import Fleet, build
from grapevine.experiments.forecast import timeless, wide_jitter
from grapevine.experiments.results.fair_shares import SharedSegments
from grapevine.experiments.results.machine import describe_machine
from grapevine.experiments.results.numbers import peers_text
from grapevine.experiments.results.recorder import Recorder, default_folder
from grapevine.experiments.results.result import Result
from grapevine.experiments.results.summary import summarise, unfinished
from grapevine.experiments.worlds.interrupt import Interrupt
from grapevine.experiments.worlds.threads import one_thread
from grapevine.netem.kernel.namespaces import congestion_control

if TYPE_CHECKING:
    from grapevine.experiments.worlds.collector import Collector

NPY_HEADER_BYTES = 128
"""Size of the header of a .npy file."""


def run(experiment: Experiment, out: str | Path | None = None, quiet: bool = True) -> Result:
    """Run an experiment and return its result; the folder `out` (default runs/<name>-<time>) holds all files of the run.

    Raises ConfigError (a ValueError) if the experiment cannot be run; the message names key, value and cure.
    """
    return run_experiment(experiment, None if out is None else Path(out), quiet)[0]


def run_experiment(experiment: Experiment, out: Path | None = None, quiet: bool = False) -> tuple[Result, ExitStatus]:
    """Like `run`, with the live view on stderr unless `quiet`; return the result and the exit status."""
    with Interrupt() as interrupt:
        with interrupt.breaking_off(), one_thread():
            fleet = build(experiment)
            _prepare(fleet)
        text = experiment.to_toml()
        with _recorder(out or default_folder(experiment.name), text, fleet) as recorder:
            recorder.on_failure = interrupt.ask
            status = _carry_out(fleet, recorder, text, interrupt, quiet)
    return Result.read(recorder.folder), status


def _draw(folders: Sequence[Path], page: Path) -> None:
    """Write the report page; the import is inside because it takes longer than a short run."""
    from grapevine.experiments.report.page import write_report

    write_report(folders, page)


def _recorder(folder: Path, text: str, fleet: Fleet) -> Recorder:
    weights_bytes = fleet.experiment.peers * fleet.problem.size * 4 + NPY_HEADER_BYTES
    try:
        return Recorder(folder, text, _manifest(fleet), _draw if fleet.experiment.record.report else None, weights_bytes)
    except ValueError as error:
        raise ConfigError(source="--out", problem=str(error)) from None
    except OSError as error:
        problem = f"the folder {folder} cannot be used for a run ({error.strerror})"
        raise ConfigError(source="--out", problem=problem, cure="give another folder") from None


def _prepare(fleet: Fleet) -> None:
    """Start the fork server in the background, if the world is the world of processes.

    Raises ConfigError if the peers' processes could not import a class or function that the experiment needs.
    """
    if isinstance(fleet.experiment.world, Processes):
        from grapevine.experiments.worlds.processes.forkserver import refuse_unimportable, start_fork_server

        refuse_unimportable(fleet.experiment, fleet.problem)
        start_fork_server(fleet.problem.preload)


def _carry_out(fleet: Fleet, recorder: Recorder, text: str, interrupt: Interrupt, quiet: bool) -> ExitStatus:
    """Train, and complete the run folder; after any exception it still holds the last weights and a correct summary."""
    from grapevine.experiments.live_view import Progress
    from grapevine.experiments.worlds.collector import Collector

    experiment = fleet.experiment
    if recorder.failure:
        recorder.finish(unfinished(text, recorder.failure))
        return ExitStatus.INCOMPLETE
    collector = Collector(fleet, recorder, lambda status: None)
    world = None
    try:
        with Progress(experiment.name, experiment.peers, _stop_text(fleet), quiet, fleet.plan.places) as progress:
            collector.show = progress.update
            collector.refresh(0.0)
            for wrapper in experiment.wrappers:
                where = f"{name_of(wrapper)} stands at {peers_text(wrapper.among(experiment.peers))}"
                collector.event("wrapped", text=where)
            for warning in filter(None, (timeless(fleet), wide_jitter(fleet))):
                collector.warn(warning)
            with interrupt.breaking_off():
                world = _world(fleet, collector, interrupt)
            outcome = world.run()
            collector.phase = "writing"
            collector.refresh(collector.emulated_s)
            collector.event("end", text=outcome.reason)
            summary = summarise(outcome, experiment, fleet.figures.gap, fleet.problem.least_loss())
            recorder.finish(summary, outcome.weights)
    except KeyboardInterrupt:
        recorder.finish(unfinished(text, "interrupted"), _last_weights(fleet, world))
        return ExitStatus.INCOMPLETE if recorder.failure else ExitStatus.INTERRUPTED
    except BaseException as error:  # the user's own code may raise anything, SystemExit included
        if recorder.finished:  # the folder could not be written; the training itself did not fail
            raise
        reason, details = _failure_text(error, fleet)
        collector.event("fault", text=details)
        recorder.finish(unfinished(text, reason), _last_weights(fleet, world))
        return ExitStatus.INCOMPLETE
    if recorder.failure:
        return ExitStatus.INCOMPLETE
    if interrupt.requested:
        return ExitStatus.INTERRUPTED
    if not outcome.completed:
        return ExitStatus.INCOMPLETE
    return ExitStatus.LOST if outcome.peers_lost_unasked else ExitStatus.DONE


def _failure_text(error: BaseException, fleet: Fleet) -> tuple[str, str]:
    """Return the reason for the fleet's end as a sentence, and in full."""
    from grapevine.experiments.worlds.processes.forkserver import WorldError

    if isinstance(error, WorldError):
        return f"the fleet could not be started: {error}", error.details or str(error)
    if isinstance(error, MemoryError):
        reason = f"out of memory ({error or 'the system has no more'}); use fewer peers or a smaller model"
        return reason, reason
    fault = fault_of(error, fleet.experiment, fleet.problem)
    if fault.part:
        return f"{fault.sentence}; events.jsonl has the whole traceback", "".join(traceback.format_exception(error))
    text = " ".join(traceback.format_exception_only(error)[-1].split())
    return f"failed: {text}; events.jsonl has the whole traceback", "".join(traceback.format_exception(error))


def _last_weights(fleet: Fleet, world: Any) -> np.ndarray:
    """Return the peers' last weights after an early end, float32 [peers, size]; the initial ones if no world was built."""
    return np.tile(fleet.problem.initial, (fleet.experiment.peers, 1)) if world is None else world.weights


def _world(fleet: Fleet, collector: Collector, interrupt: Interrupt) -> Any:
    if isinstance(fleet.experiment.world, Processes):
        from grapevine.experiments.worlds.processes.launcher import ProcessesWorld

        return ProcessesWorld(fleet, collector, interrupt)
    from grapevine.experiments.worlds.virtual.world import VirtualWorld

    return VirtualWorld(fleet, collector, interrupt)


def _manifest(fleet: Fleet) -> dict[str, Any]:
    """Return the manifest: command, start, machine and sizes of a run."""
    return {
        "command": shlex.join(sys.argv),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": fleet.experiment.seed,
        "model_size": fleet.problem.size,
        "samples": [int(count) for count in fleet.problem.samples],
        "places": fleet.plan.places,
        "shared_segments": msgspec.to_builtins(SharedSegments.of(fleet.plan)),
        "notes": list(getattr(fleet.problem, "notes", [])),
        "congestion_control": congestion_control() if fleet.plan.kernel else None,
        "machine": describe_machine(),
        "code": fleet.experiment.code(),
    }


def _stop_text(fleet: Fleet) -> str:
    """Return the stop conditions in words."""
    stop = fleet.experiment.stop
    parts = [f"{stop.time} emulated" if stop.time else "", f"{stop.steps} steps" if stop.steps else ""]
    parts.append(f"validation accuracy {stop.accuracy:g}" if stop.accuracy else "")
    return " or ".join(part for part in parts if part)
