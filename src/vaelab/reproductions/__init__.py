"""Reproductions of published figures: protocols, records of what they gave, and comparisons."""

from vaelab.reproductions.comparison import (
    Comparison,
    compare_all,
    compare_protocol,
    damaged_records,
    nothing_text,
    unknown_metrics,
)
from vaelab.reproductions.plane import write_planes
from vaelab.reproductions.protocol import Protocol, protocol_names, read_protocol
from vaelab.reproductions.records import (
    Form,
    Origin,
    check_replaceable,
    has_records,
    keep_run,
)
from vaelab.reproductions.tables import print_protocols, print_table, write_table

__all__ = [
    "Comparison",
    "Form",
    "Origin",
    "Protocol",
    "check_replaceable",
    "compare_all",
    "compare_protocol",
    "damaged_records",
    "has_records",
    "keep_run",
    "nothing_text",
    "print_protocols",
    "print_table",
    "protocol_names",
    "read_protocol",
    "unknown_metrics",
    "write_planes",
    "write_table",
]
