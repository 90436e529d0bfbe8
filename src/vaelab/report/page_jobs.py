"""The page's lists of failed jobs, with the ends of their logs, and of unfinished jobs."""

import os
from pathlib import Path

import pandas as pd

from vaelab.report.differences import settings_text
from vaelab.report.sweep import Sweep, read_json_or_error
from vaelab.runs.folder import is_inside

LOG_LINES = 15
LOG_BYTES = 20_000


def failed_jobs(sweep: Sweep, folder: Path) -> list[dict[str, str]]:
    """Returns the settings, error, log and last log lines of each failed job; reads the logs.

    A log that is outside of the sweep folder is neither read nor linked.
    """
    found = []
    for _, job in sweep.jobs[sweep.jobs["state"] == "failed"].iterrows():
        log = Path(job["folder"]) / job["log"] if pd.notna(job["log"]) else None
        path = sweep.folder / log if log else None
        known = path is not None and is_inside(path, sweep.folder) and path.is_file()
        found.append(
            {
                "setting": settings_text(job, sweep.names) or job["folder"],
                "folder": job["folder"],
                "error": job["error"],
                "log": str(log or ""),
                "link": relative_link(path, folder) if path and known else "",
                "tail": log_tail(path) if path and known else "",
            }
        )
    return found


def relative_link(path: Path, folder: Path) -> str:
    """Returns the URL of a file relative to the folder of the page."""
    from urllib.parse import quote

    return quote(os.path.relpath(path.resolve(), folder.resolve()))


def log_tail(path: Path) -> str:
    """Returns the last LOG_LINES lines of a log, of its last LOG_BYTES bytes."""
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - LOG_BYTES, 0))
        lines = file.read().decode(errors="replace").splitlines()
    return "\n".join(lines[-LOG_LINES:])


def unfinished_jobs(sweep: Sweep) -> list[dict[str, str]]:
    """Returns settings and progress of jobs in state `unfinished`; reads their `progress.json`."""
    found = []
    for _, job in sweep.jobs[sweep.jobs["state"] == "unfinished"].iterrows():
        progress = read_json_or_error(sweep.folder / job["folder"] / "progress.json", sweep.folder)
        parts = []
        if "epoch" in progress:
            of = f" of {progress['epochs']}" if progress.get("epochs") else ""
            parts.append(f"epoch {progress['epoch']}{of}")
        if isinstance(progress.get("val/elbo"), float):
            parts.append(f"val/elbo {progress['val/elbo']:.2f}")
        share = "" if pd.isna(job["progress"]) else f"{job['progress']:.0%}"
        setting = {"setting": settings_text(job, sweep.names), "folder": job["folder"]}
        found.append({**setting, "share": share, "where": ", ".join(parts)})
    return found
