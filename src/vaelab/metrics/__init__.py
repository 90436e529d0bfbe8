"""Numbers we report but do not optimise."""

from vaelab.metrics.bits import bits_per_dim
from vaelab.metrics.scalars import averaged, write
from vaelab.metrics.totals import ACTIVE, Totals
from vaelab.metrics.window import SCALARS, Window, due, means

__all__ = [
    "ACTIVE",
    "SCALARS",
    "Totals",
    "Window",
    "averaged",
    "bits_per_dim",
    "due",
    "means",
    "write",
]
