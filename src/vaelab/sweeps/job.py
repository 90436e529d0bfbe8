"""One job of a sweep: a run, its state and its result."""

import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hydra.core.utils import JobReturn, JobStatus

from vaelab.errors import DamagedFileError
from vaelab.runs import comparability, naming, resume
from vaelab.runs.folder import FAILURE, PROGRESS
from vaelab.training.json_files import read_json_or_nothing

State = Literal["waiting", "running", "elsewhere", "done", "failed", "stopped"]
INDEX, LOCK = "sweep.json", ".lock"
"""The file of a sweep folder that lists its jobs."""
LOG = "job.log"


@dataclass
class Job:
    """A run in a sweep folder and its state; results and progress are read from its files.

    Attributes:
        overrides: Overrides of the command line for the run.
        swept: The overrides that differ between jobs of the sweep, as name and value.
        folder: The run folder.
        sweep: The sweep folder, which the run folder is in.
        accelerator: The value of `trainer.accelerator`.
        devices: Number of processes that the run starts; -1 for one on every device.
        again: True if the run is to be started although it has results.
        environment: Variables for its process, beside those of the launcher.
        seen_failure: Mark of a failure from before this sweep was started.
        seen_results: Mark of results from before it.
        compared: Key of the runs that its numbers can be compared with.
        state: What the job does now.
        error: Why it failed, or `pruned`.
        where: The device on which it runs, for the screen.
    """

    overrides: list[str]
    swept: dict[str, str]
    folder: Path
    sweep: Path | None = None
    accelerator: str = "auto"
    devices: int = 1
    again: bool = False
    environment: dict[str, str] = field(default_factory=dict)
    seen_failure: str | None = None
    seen_results: tuple[int, int] | None = None
    compared: comparability.Key = ()
    state: State = "waiting"
    error: str = ""
    where: str = ""

    @property
    def name(self) -> str:
        """The path of the run folder below the sweep folder, `+` for `/`; unique in a sweep."""
        inside = self.folder.relative_to(self.sweep) if self.sweep else Path(self.folder.name)
        return "+".join(inside.parts)

    @property
    def label(self) -> str:
        """The swept settings and their values in few characters, for the screen."""
        parts = (
            f"{name.split('.')[-1]}={naming.short_number(value)}"
            for name, value in self.swept.items()
        )
        return " ".join(parts) or self.name

    @property
    def value(self) -> float | None:
        """`val/elbo` in the finished run's results, -inf if null; None before, or if damaged."""
        return None if self.damage else resume.finished_elbo(self.folder)

    @property
    def is_finished(self) -> bool:
        """True if the run has results and nothing is left to be evaluated."""
        return self.value is not None and not resume.unmeasured_metrics(self.folder)

    def results_mark(self) -> tuple[int, int] | None:
        """Returns what changes when `results.json` is written again; None if there is none."""
        try:
            found = (self.folder / "results.json").stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino

    @property
    def damage(self) -> str:
        """What is wrong with the run's `results.json`; empty if it is whole or missing."""
        try:
            resume.finished_elbo(self.folder)
        except DamagedFileError as error:
            return str(error)
        return ""

    @property
    def progress(self) -> dict[str, Any]:
        """The content of `progress.json`: epoch, share, val/elbo and others; empty without it.

        Empty, too, if it is damaged.
        """
        return read_json_or_nothing(self.folder / PROGRESS)

    @property
    def failure(self) -> dict[str, Any]:
        """The content of `failure.json`: error, exit, log, mark; empty if missing or damaged."""
        return read_json_or_nothing(self.folder / FAILURE)

    def hydra_result(self) -> JobReturn:
        """Returns the job as Hydra's own sweepers expect it; any state but done is a failure."""
        if self.state == "done":
            return JobReturn(
                overrides=self.overrides, status=JobStatus.COMPLETED, _return_value=self.value
            )
        error = RuntimeError(f"{self.name}: {self.error or self.state}")
        return JobReturn(overrides=self.overrides, status=JobStatus.FAILED, _return_value=error)


def signal_text(code: int) -> str:
    """Returns `killed by` or `stopped by` the signal of an exit code, as text; empty for none."""
    number = -code if code < 0 else code - 128
    try:
        name = signal.Signals(number).name
    except ValueError:
        return ""
    return f"killed by {name}" if code < 0 or name == "SIGKILL" else f"stopped by {name}"


def last_error(log: Path, since: int) -> str:
    """Returns the line of a log, after byte `since`, that best tells the error; or empty.

    It is the last line that begins with `error: `, else the exception of the last traceback, else
    the last line. Empty, too, if the log cannot be read.
    """
    try:
        with log.open("rb") as file:
            file.seek(since)
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    lines = [line for line in text.splitlines() if line.strip()]
    said = [line for line in lines if line.startswith("error: ")]
    if said:
        return said[-1].removeprefix("error: ")
    traced = [i for i, line in enumerate(lines) if line.startswith("Traceback (most recent call")]
    after = lines[traced[-1] + 1 :] if traced else []
    raised = [line for line in after if not line.startswith(" ")]
    return (raised or lines or [""])[0 if raised else -1].strip()
