"""Runs the tests that are marked `gpu`; tells how many passed of each, and which failed."""

import os
import sys
from collections import Counter
from typing import Any

import pytest
from rows import DEVICE, tell_note, tell_row

PROCESSES = 4 if DEVICE == "cuda" else 0
OUTCOMES = ("passed", "failed", "skipped")


class Tally:
    """A plugin of pytest that tells the outcomes of each test function as they come."""

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = {}
        self.reasons: set[str] = set()

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Called by pytest after each phase of a test, also of those in other processes."""
        if report.when != "call" and report.passed:
            return
        _, name = report.nodeid.split("::", 1)
        counts = self.counts.setdefault(name.partition("[")[0], Counter())
        counts[report.outcome] += 1
        cells = {outcome: counts[outcome] for outcome in OUTCOMES}
        tell_row("", {"": name.partition("[")[0], **cells})
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            why = (crash.message if crash else str(report.longrepr)).splitlines()[0]
            tell_note(f"{name} failed: {why[:300]}")
        elif report.skipped and (reason := report.longrepr[2]) not in self.reasons:
            self.reasons.add(reason)
            tell_note(reason)


def main() -> None:
    threads = max(1, (os.cpu_count() or 1) // max(1, PROCESSES))
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    options = ["tests/slow/test_gpu.py", "-m", "gpu", f"-n{PROCESSES}", "-p", "no:cacheprovider"]
    sys.exit(pytest.main(options, plugins=[Tally()]))


if __name__ == "__main__":
    main()
