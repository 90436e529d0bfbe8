"""What a sweep shows while it runs and at its end: one live table, or lines without a terminal."""

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

from vaelab.commands import cli
from vaelab.runs import comparability
from vaelab.runs.screen import here, pasted
from vaelab.sweeps.job import LOG, Job, State

LINE = 60.0
"""Seconds between two lines of progress where there is no terminal."""
ORDER: tuple[State, ...] = ("running", "failed", "elsewhere", "stopped", "done", "waiting")
COLOURS = {"running": "cyan", "failed": "red", "stopped": "yellow", "done": "green"}


class Screen:
    """Shows the jobs of a sweep; used as a context.

    Args:
        folder: Of the sweep.
        to_come: How many jobs there will be beside those that are known.
    """

    def __init__(self, folder: Path, to_come: Callable[[], int] = lambda: 0) -> None:
        self.folder = here(folder)
        self.to_come = to_come
        self.console = Console(highlight=False, soft_wrap=True)
        self.live = Live(console=self.console, auto_refresh=False, transient=True)
        self.began = self.lined = monotonic()
        self.ended_here = 0
        self.jobs: Sequence[Job] = ()

    def __enter__(self) -> "Screen":
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.live.stop()

    def say(self, *parts: str | tuple[str, str]) -> None:
        self.console.print(Text.assemble(*parts))

    def begin(self, jobs: Sequence[Job]) -> None:
        self.jobs = jobs
        self.say(f"sweep folder {pasted(self.folder)}")
        self.say(self.counts(jobs))

    def started(self, job: Job) -> None:
        if not self.console.is_terminal:
            self.say(f"started   {job.label}  on {job.where}")

    def ended(self, job: Job) -> None:
        self.ended_here += job.state == "done"
        said = job.error or figure("val/elbo", job.value)
        if not self.console.is_terminal or job.state == "failed":
            colour = COLOURS.get(job.state, "")
            self.say((f"{job.state:9}", colour), f" {job.label}  {said}".rstrip())

    def stopping(self, jobs: int) -> None:
        if jobs:
            self.say(f"stopping {jobs} jobs, after a checkpoint each; once more ends them at once")

    def show(self, jobs: Sequence[Job]) -> None:
        """Draws the table anew, or now and then prints a line."""
        if self.console.is_terminal:
            room = max(3, self.console.height - 5)
            self.live.update(Group(table(jobs, room), Text(self.counts(jobs))), refresh=True)
        elif monotonic() - self.lined >= LINE:
            self.lined = monotonic()
            self.say(self.counts(jobs))

    def counts(self, jobs: Sequence[Job]) -> str:
        """How many jobs are done and so on, and the time left."""
        number = Counter(job.state for job in jobs)
        parts = [f"{number[state]} {state}" for state in ORDER if number[state] and state != "done"]
        left = self.seconds_left(jobs)
        parts += [f"about {duration(left)} left"] if left else []
        total = len(jobs) + self.to_come()
        return f"{number['done']} of {total} done" + "".join(f", {part}" for part in parts)

    def seconds_left(self, jobs: Sequence[Job]) -> float | None:
        """From the share of all jobs that was done since the beginning."""
        running = (job for job in jobs if job.state == "running")
        begun: float = sum(job.progress.get("share") or 0.0 for job in running)
        done = self.ended_here + begun
        open_: float = sum(job.state in ("waiting", "running", "elsewhere") for job in jobs)
        open_ += self.to_come() - begun
        return (monotonic() - self.began) * open_ / done if done and open_ > 0 else None

    def summary(self, jobs: Sequence[Job], stopped: int | None, lines: Sequence[str] = ()) -> None:
        """What came of it, every failure with its log, and the next commands."""
        self.say("")
        for job in jobs:
            if job.state == "failed":
                log = pasted(job.folder / LOG)
                self.say(("failed", "red"), f"  {job.label}: {job.error or 'no word'}  {log}")
        taken = duration(monotonic() - self.began)
        self.say(f"{self.counts(jobs)}, after {taken}")
        for line in lines or self.best(jobs):
            self.say(line)
        self.say(f"report     {' '.join(cli.program('report'))} {cli.given('sweep', self.folder)}")
        if any(self.folder.glob("*/events.out.*")):
            self.say(f"curves     tensorboard --logdir {pasted(self.folder)}")
        if self.to_come() or any(job.state != "done" for job in jobs):
            self.say("go on      the same command runs those that are not done")

    def best(self, jobs: Sequence[Job]) -> list[str]:
        """The finished run of the highest bound, among those that can be compared."""
        values = {job.name: job.value for job in jobs if job.state == "done"}
        known = [job for job in jobs if (value := values.get(job.name)) and isfinite(value)]
        found = []
        for key, group in comparability.labels([job.compared for job in known]).items():
            names = [job.name for job in known if job.compared == key]
            best = max(names, key=lambda name: values[name] or 0.0)
            of = f" of {group}" if group else ""
            found.append(
                f"best       {figure('val/elbo', values[best])}{of}  {pasted(self.folder / best)}"
            )
        return found


def table(jobs: Sequence[Job], room: int) -> Table:
    """The jobs of most interest, as many as fit."""
    grid = Table("job", "", "on", title_justify="left", expand=False)
    for name in ("epoch", "val/elbo", "left"):
        grid.add_column(name, justify="right", no_wrap=True)
    by_interest = sorted(jobs, key=lambda job: ORDER.index(job.state))
    for job in by_interest[:room]:
        grid.add_row(job.label, Text(job.state, COLOURS.get(job.state, "dim")), *cells(job))
    if len(jobs) > room:
        grid.add_row(f"and {len(jobs) - room} more", *[""] * 5)
    return grid


def cells(job: Job) -> tuple[str, str, str, str]:
    """Device, epoch, bound and time left of a job."""
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
        "" if left is None else duration(left),
    )


def figure(name: str, value: float | None) -> str:
    return "" if value is None else f"{name} {value:.3f}"


def duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
