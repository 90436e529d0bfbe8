"""One run of a sweep: what it is, how far it is, and what came of it."""

import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hydra.core.utils import JobReturn, JobStatus

from vaelab.runs import comparability, naming, resume
from vaelab.runs.folder import PROGRESS
from vaelab.training.json_files import read_json

State = Literal["waiting", "running", "elsewhere", "done", "failed", "stopped"]
LOG, FAILURE = "job.log", "failure.json"


@dataclass
class Job:
    """A run in the folder of a sweep.

    Attributes:
        overrides: Of the command line, for the task.
        swept: Those of them that tell the jobs of the sweep apart, as name and value.
        folder: Of the run.
        accelerator: What `trainer.accelerator` asks for.
        devices: How many processes it will start; -1 for one on every device.
        again: Whether it is to be run though it has been.
        environment: Variables for its process, beside those of the launcher.
        seen_failure: The mark of a failure before this sweep began.
        compared: What its numbers are of, see `vaelab.runs.comparability`.
    """

    overrides: list[str]
    swept: dict[str, str]
    folder: Path
    accelerator: str = "auto"
    devices: int = 1
    again: bool = False
    environment: dict[str, str] = field(default_factory=dict)
    seen_failure: str | None = None
    compared: comparability.Key = ()
    state: State = "waiting"
    error: str = ""
    where: str = ""

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def label(self) -> str:
        """What tells it apart, for the screen."""
        parts = (
            f"{name.split('.')[-1]}={naming.short(value)}" for name, value in self.swept.items()
        )
        return " ".join(parts) or self.name

    @property
    def value(self) -> float | None:
        """What the finished run came to."""
        return resume.result(self.folder)

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do: it is trained, and measured."""
        return self.value is not None and not resume.unmeasured(self.folder)

    @property
    def progress(self) -> dict[str, Any]:
        """How far the run says it is: epoch, epochs, share, seconds_left, val/elbo, device."""
        return read_json(self.folder / PROGRESS)

    @property
    def failure(self) -> dict[str, Any]:
        """Why its last start failed, if it did: error, exit, log, mark."""
        return read_json(self.folder / FAILURE)

    def returned(self) -> JobReturn:
        """The job as Hydra's own sweepers know it."""
        if self.state == "done":
            return JobReturn(
                overrides=self.overrides, status=JobStatus.COMPLETED, _return_value=self.value
            )
        error = RuntimeError(f"{self.name}: {self.error or self.state}")
        return JobReturn(overrides=self.overrides, status=JobStatus.FAILED, _return_value=error)


def ending(code: int) -> str:
    """How a process ended, in words; empty for an exit of its own accord."""
    number = -code if code < 0 else code - 128
    try:
        name = signal.Signals(number).name
    except ValueError:
        return ""
    return f"killed by {name}" if code < 0 or name == "SIGKILL" else f"stopped by {name}"


def last_error(log: Path, since: int) -> str:
    """The line of a log that says what went wrong, from this byte on."""
    with log.open("rb") as file:
        file.seek(since)
        lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    said = [line for line in lines if line.startswith("error: ")]
    if said:
        return said[-1].removeprefix("error: ")
    traced = [i for i, line in enumerate(lines) if line.startswith("Traceback (most recent call")]
    after = lines[traced[-1] + 1 :] if traced else []
    raised = [line for line in after if not line.startswith(" ")]
    return (raised or lines or [""])[0 if raised else -1].strip()
