"""Terminal output of a sweep: a live table, or lines of text where there is no terminal."""

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from math import isfinite
from pathlib import Path
from time import monotonic
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from vaelab.commands import command_lines
from vaelab.runs import comparability
from vaelab.runs.screen import relative_path, shell_path
from vaelab.sweeps.job import LOG, Job, State

LINE = 60.0
"""Seconds between two lines of progress without a terminal."""
ORDER: tuple[State, ...] = ("running", "failed", "elsewhere", "stopped", "done", "waiting")
COLOURS = {"running": "cyan", "failed": "red", "stopped": "yellow", "done": "green"}


class Screen:
    """Terminal output of one sweep; a context manager that starts and stops the live table.

    Args:
        folder: The sweep folder.
        jobs_to_come: Returns how many jobs are still to be added to those passed to the methods.
    """

    def __init__(self, folder: Path, jobs_to_come: Callable[[], int] = lambda: 0) -> None:
        self.folder = relative_path(folder)
        self.jobs_to_come = jobs_to_come
        self.console = Console(highlight=False, soft_wrap=True)
        self.live = Live(console=self.console, auto_refresh=False, transient=True)
        self.began = self.lined = monotonic()
        self.ended_here = 0

    def __enter__(self) -> "Screen":
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.live.stop()

    def print_line(self, *parts: str | tuple[str, str]) -> None:
        """Prints one line, of strings or (string, style) pairs, which stays on the screen."""
        self.console.print(Text.assemble(*parts))

    def print_start(self, jobs: Sequence[Job]) -> None:
        """Prints the sweep folder and the counts of jobs."""
        self.print_line(f"sweep folder {shell_path(self.folder)}")
        self.print_line(self.counts(jobs))

    def print_job_start(self, job: Job) -> None:
        """Prints that a job has started and on which device; nothing on a terminal."""
        if not self.console.is_terminal:
            self.print_line(f"started   {job.label}  on {job.where}")

    def print_job_end(self, job: Job) -> None:
        """Counts a done job and prints any job's end; on a terminal only that of a failed job."""
        self.ended_here += job.state == "done"
        said = job.error or metric_text("val/elbo", job.value)
        if not self.console.is_terminal or job.state == "failed":
            colour = COLOURS.get(job.state, "")
            self.print_line((f"{job.state:9}", colour), f" {job.label}  {said}".rstrip())

    def print_stopping(self, jobs: int) -> None:
        """Prints that this many running jobs are being stopped; nothing for none."""
        if jobs:
            self.print_line(
                f"stopping {jobs} jobs, after a checkpoint each; once more ends them at once"
            )

    def update(self, jobs: Sequence[Job]) -> None:
        """Redraws the live table; without a terminal prints the counts, at most once a minute."""
        if self.console.is_terminal:
            room = max(3, self.console.height - 5)
            self.live.update(Group(jobs_table(jobs, room), Text(self.counts(jobs))), refresh=True)
        elif monotonic() - self.lined >= LINE:
            self.lined = monotonic()
            self.print_line(self.counts(jobs))

    def counts(self, jobs: Sequence[Job]) -> str:
        """Returns text of the numbers of jobs by state, and of the time left if it is known."""
        number = Counter(job.state for job in jobs)
        parts = [f"{number[state]} {state}" for state in ORDER if number[state] and state != "done"]
        left = self.seconds_left(jobs)
        parts += [f"about {duration_text(left)} left"] if left else []
        total = len(jobs) + self.jobs_to_come()
        return f"{number['done']} of {total} done" + "".join(f", {part}" for part in parts)

    def seconds_left(self, jobs: Sequence[Job]) -> float | None:
        """Returns the estimated seconds left, by the work done; None before any and at the end."""
        running = (job for job in jobs if job.state == "running")
        begun: float = sum(job.progress.get("share") or 0.0 for job in running)
        done = self.ended_here + begun
        open_: float = sum(job.state in ("waiting", "running", "elsewhere") for job in jobs)
        open_ += self.jobs_to_come() - begun
        return (monotonic() - self.began) * open_ / done if done and open_ > 0 else None

    def print_summary(self, jobs: Sequence[Job], lines: Sequence[str] = ()) -> None:
        """Prints failures with their logs, counts, the best runs or given lines, and next commands.

        Args:
            jobs: All jobs of the sweep.
            lines: What is printed instead of the best runs.
        """
        self.print_line("")
        for job in jobs:
            if job.state == "failed":
                log = shell_path(job.folder / LOG)
                self.print_line(
                    ("failed", "red"), f"  {job.label}: {job.error or 'no word'}  {log}"
                )
        taken = duration_text(monotonic() - self.began)
        self.print_line(f"{self.counts(jobs)}, after {taken}")
        for line in lines or self.best_run_lines(jobs):
            self.print_line(line)
        command = " ".join(command_lines.program_words("report"))
        override = command_lines.shell_override("sweep", self.folder)
        self.print_line(f"report     {command} {override}")
        if any(any(job.folder.glob("events.out.*")) for job in jobs):
            self.print_line(f"curves     tensorboard --logdir {shell_path(self.folder)}")
        if self.jobs_to_come() or any(job.state != "done" for job in jobs):
            self.print_line("go on      the same command runs those that are not done")

    def best_run_lines(self, jobs: Sequence[Job]) -> list[str]:
        """Returns a line per group of comparable runs: its done run of highest `val/elbo`."""
        values = {job.name: job.value for job in jobs if job.state == "done"}
        known = [j for j in jobs if (v := values.get(j.name)) is not None and isfinite(v)]
        found = []
        for key, group in comparability.key_labels([job.compared for job in known]).items():
            jobs_of_group = [job for job in known if job.compared == key]
            best = max(jobs_of_group, key=lambda job: values[job.name] or 0.0)
            of = f" of {group}" if group else ""
            said = metric_text("val/elbo", values[best.name])
            found.append(f"best       {said}{of}  {shell_path(best.folder)}")
        return found


def jobs_table(jobs: Sequence[Job], room: int) -> Table:
    """Returns a table of at most `room` jobs, running and failed first, and a count of the rest."""
    grid = Table("job", "", "on", title_justify="left", expand=False)
    for name in ("epoch", "val/elbo", "left"):
        grid.add_column(name, justify="right", no_wrap=True)
    by_interest = sorted(jobs, key=lambda job: ORDER.index(job.state))
    for job in by_interest[:room]:
        grid.add_row(job.label, Text(job.state, COLOURS.get(job.state, "dim")), *job_cells(job))
    if len(jobs) > room:
        grid.add_row(f"and {len(jobs) - room} more", *[""] * 5)
    return grid


def job_cells(job: Job) -> tuple[str, str, str, str]:
    """Returns a job's cells: device, epoch, `val/elbo`, time left; the device alone if it failed.

    Reads its files. A cell is empty if its value is not known; epoch and time left are shown only
    while the job runs.
    """
    now = job.progress if job.state in ("running", "elsewhere") else {}
    if job.state == "failed":
        return job.where, "", "", ""
    epochs = f"/{now['epochs']}" if now.get("epochs") else ""
    value = job.value if job.state == "done" else now.get("val/elbo")
    left = now.get("seconds_left")
    return (
        job.where,
        f"{now['epoch']}{epochs}" if now else "",
        "" if value is None else f"{value:.2f}",
        "" if left is None else duration_text(left),
    )


def metric_text(name: str, value: float | None) -> str:
    """Returns a metric's name and value with three decimals; empty for None."""
    return "" if value is None else f"{name} {value:.3f}"


def duration_text(seconds: float) -> str:
    """Returns seconds, rounded to whole ones, as `H:MM:SS`, after the days if there are any."""
    return str(timedelta(seconds=round(seconds)))
