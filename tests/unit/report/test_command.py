"""Tests of the command `report` (`vaelab.commands.report`): errors, output and imports."""

import subprocess
import sys
from pathlib import Path

import pytest
from support.sweep_folders import BETA_BY_SIZE

from vaelab.commands import config_folders, report

ROOT = config_folders.CONF.parent


def run_failing_report(capsys, *arguments):
    """Calls the command with these arguments; returns the error that it prints before exit 2."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["report.py", *map(str, arguments)])
        for variable in ("HYDRA_FULL_ERROR", "VAELAB_SHORT_ERROR"):
            patch.delenv(variable, raising=False)
        with pytest.raises(SystemExit) as exit_:
            report.main()
    assert exit_.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_report_command_prints_user_errors_in_one_line(make_sweep, tmp_path, capsys):
    folder = make_sweep(BETA_BY_SIZE)
    (tmp_path / "empty").mkdir()
    says = {
        ("sweep=nowhere",): "error: nowhere: there is no such folder",
        (f"sweep={tmp_path}/empty",): "is no sweep folder, and there is no run in it",
        (f"sweep={folder}", "metric=val/elbow"): "did you mean val/elbo?",
        (f"sweep={folder}", "direction=up"): "direction=up",
        (f"sweep={folder}", "best=-1"): "best=-1",
        (f"sweep={folder}", "bets=1"): "did you mean best?",
        (): "sweep has no value",
    }
    for arguments, said in says.items():
        assert said in run_failing_report(capsys, *arguments)
    (folder / "sweep.json").write_text("{")
    assert "sweep.json" in run_failing_report(capsys, f"sweep={folder}")


@pytest.mark.slow
def test_report_command_does_not_import_torch(make_sweep):
    folder = make_sweep(BETA_BY_SIZE)
    code = (
        f"import sys; sys.argv = ['report.py', 'sweep={folder}', 'metric=test/rate'];"
        "from vaelab.commands import report; report.main();"
        "assert not {'torch', 'lightning', 'tensorflow'} & set(sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    lines = ran.stdout.splitlines()
    assert lines[0] == "12 runs: 12 done"
    assert all(Path(line).is_file() for line in lines[1:])
    names = {Path(line).name for line in lines[1:]}
    assert {"report.html", "runs.csv", "runs.parquet", "summary.csv", "rate_distortion.png"} < names
    assert {"heat_map_test_rate.png", "active_units.png", "curves.png"} < names
