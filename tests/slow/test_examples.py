"""Tests that the code cells of all notebooks in examples/ run, in a new process and folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
SAID = {
    "first_vae": [r"│ nll ", r"^True$", r"^tensor\(-\d+"],
    "conditional_generation": [r"^\d+% of 100 digits are classified right$"],
    "sweep": [r"^6 runs: 6 done$", r"runs\.csv", r"beta-.* has a test ELBO of -\d+"],
}
"""Patterns of what the cells of each notebook print."""


@pytest.fixture
def environment(tmp_path):
    """Environment variables with which notebooks train one epoch, by the vaelab under test."""
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "vaelab"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m vaelab "$@"\n')
    command.chmod(0o755)
    return os.environ | {
        "VAELAB_EXAMPLE_EPOCHS": "1",
        "VAELAB_DATA": str(tmp_path / "data"),
        "MPLBACKEND": "Agg",
        "PATH": f"{command.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "src"),
    }


@pytest.mark.parametrize("name", [path.stem for path in sorted(ROOT.glob("examples/*.ipynb"))])
def test_notebook_runs_in_a_new_folder(name, environment, tmp_path):
    script = ROOT / "tests" / "support" / "run_notebook.py"
    done = subprocess.run(
        [sys.executable, str(script), str(ROOT / "examples" / f"{name}.ipynb")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=580,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for pattern in SAID[name]:
        assert re.search(pattern, done.stdout, re.M), f"{pattern} is not in {done.stdout}"
    assert "You have overridden" not in done.stderr
    assert (tmp_path / "outputs").is_dir()
