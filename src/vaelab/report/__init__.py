"""A sweep, finished or not, as one page that opens offline, figures and tables.

Free of torch, so that the report of hundreds of runs takes seconds.
"""

from vaelab.report.summary import Ranking
from vaelab.report.sweep import Sweep, read
from vaelab.report.writing import write

__all__ = ["Ranking", "Sweep", "read", "write"]
