"""Reports of sweeps, finished or not: a page that opens offline, PNG figures and tables.

Does not import torch, so that the report of hundreds of runs takes seconds.
"""

from vaelab.report.summary import Ranking
from vaelab.report.sweep import Sweep, read_sweep
from vaelab.report.writing import write_report

__all__ = ["Ranking", "Sweep", "read_sweep", "write_report"]
