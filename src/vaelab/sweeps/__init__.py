"""Sweeps: many runs from one command, each a process of its own, resumable and shared out.

`Planner` makes jobs of overrides, a `Source` says which ones, an engine runs them, and `Sweep` is
the loop that holds it together.
"""

from vaelab.sweeps.engines import engine
from vaelab.sweeps.job import Job
from vaelab.sweeps.planning import Planner
from vaelab.sweeps.search import search
from vaelab.sweeps.sources import Grid, Source
from vaelab.sweeps.sweep import Sweep

__all__ = ["Grid", "Job", "Planner", "Source", "Sweep", "engine", "search"]
