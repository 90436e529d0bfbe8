"""Random command lines, the same ones each time: none ends in a traceback or leaves a folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_random_command_lines_run_as_asked_or_are_refused_in_one_line():
    """Runs in a process of its own, for its forks share what that has imported."""
    fuzz = [sys.executable, str(ROOT / "benchmarks" / "fuzz_commands.py"), "--lines", "60"]
    kept = {name: value for name, value in os.environ.items() if not name.endswith("_ERROR")}
    done = subprocess.run(
        [*fuzz, "--derandomize"], capture_output=True, text=True, env=kept, check=False
    )
    assert done.returncode == 0, done.stdout[-5000:]
