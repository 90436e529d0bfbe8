"""Sweeps: many runs from one command, each in its own process; resumable, shared by launchers.

A `Source` says which jobs there are, `Planner` composes and checks each job, an `Engine` starts
its process, and `SweepRunner` is the loop over them. A launcher is a process that runs that loop;
several launchers may work in one sweep folder.
"""

from vaelab.sweeps.engines import build_engine
from vaelab.sweeps.job import Job
from vaelab.sweeps.planning import Planner
from vaelab.sweeps.search import build_search
from vaelab.sweeps.sources import FixedJobs, Source, combinations
from vaelab.sweeps.sweep import SweepRunner

__all__ = [
    "FixedJobs",
    "Job",
    "Planner",
    "Source",
    "SweepRunner",
    "build_engine",
    "build_search",
    "combinations",
]
