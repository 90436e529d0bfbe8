"""Tests that commands end quietly, with exit code 141, where nobody reads what they print."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import programs

ROOT = Path(__file__).parents[2]
RUN = Path(__file__).parent / "earlier" / "before_floors" / "run"
COMMANDS = {
    "train": ["hydra.run.dir={}/new", "trainer=fast", "data.batch_size=500", "logger=none"],
    "evaluate": ["run={}", "what=reconstruction", "rerun=true"],
    "generate": ["run={}", "what=samples"],
    "encode": ["run={}", "num_samples=0", "reference=10"],
    "export": ["run={}", "what=safetensors"],
    "report": ["sweep={}"],
}


def run_closed(closed: list[int], *words: str, unbuffered: bool = False) -> tuple[int, str]:
    """Runs a Python script, of which some streams are closed; returns exit code and output."""
    command = [sys.executable, *(["-u"] if unbuffered else []), *words]
    options = {"cwd": ROOT, "capture_output": True, "text": True}
    done = programs.run(command, closed=closed, **options)
    return done.returncode, done.stdout + done.stderr


def run_shell(script: str, *words: str) -> tuple[int, str]:
    """Runs `COMMAND` in a bash script, of a Python script and words; returns exit code, output."""
    done = subprocess.run(
        ["bash", "-c", script, "bash", sys.executable, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def run(tmp_path) -> Path:
    """A copy of a finished run."""
    return Path(shutil.copytree(RUN, tmp_path / "run"))


def words_of(command: str, run: Path) -> list[str]:
    """Returns the script of a command, and its overrides for a run folder."""
    return [f"{command}.py", *(word.format(run) for word in COMMANDS[command])]


def run_without_reader(*words: str, unbuffered: bool, stderr: bool = False) -> tuple[int, bytes]:
    """Runs a Python script whose stdout is a pipe without a reader; returns exit code and stderr.

    With `stderr` that is the same pipe, and empty.
    """
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, *(["-u"] if unbuffered else []), *words]
    other = writing if stderr else subprocess.PIPE
    done = programs.run(command, cwd=ROOT, stdout=writing, stderr=other, check=False)
    os.close(writing)
    return done.returncode, done.stderr or b""


MODES = [*((command, False) for command in COMMANDS), ("train", True), ("report", True)]
"""Commands, and whether Python's output is unbuffered."""


@pytest.mark.slow
@pytest.mark.parametrize(("command", "unbuffered"), MODES)
def test_pipe_without_reader_exits_141(command, unbuffered, run):
    found = run_without_reader(*words_of(command, run), unbuffered=unbuffered)
    assert found == (141, b"")


@pytest.mark.slow
@pytest.mark.parametrize(("command", "unbuffered"), MODES)
def test_closed_stdout_exits_141(command, unbuffered, run):
    found = run_closed([1], *words_of(command, run), unbuffered=unbuffered)
    assert found == (141, "")


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_closed_stdout_and_stderr_exit_141(command, run):
    assert run_closed([0, 1, 2], *words_of(command, run)) == (141, "")


@pytest.mark.slow
def test_fresh_process_with_all_streams_closed_exits_141(run):
    assert run_shell('"$@" >&- 2>&- <&-', *words_of("report", run)) == (141, "")


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_closed_stderr_changes_no_exit_code(command, run):
    code, said = run_closed([2], *words_of(command, run))
    assert code == 0
    assert said
    assert run_closed([2], f"{command}.py", "nothing=1") == (2, "")


def test_help_without_reader_exits_141():
    assert run_without_reader("evaluate.py", "--help", unbuffered=True) == (141, b"")
    assert run_without_reader("-m", "vaelab", unbuffered=False) == (141, b"")
    assert run_without_reader("report.py", "x=1", unbuffered=False, stderr=True) == (141, b"")
    assert run_shell('"$@" >&-', "-m", "vaelab", "--help") == (141, "")


@pytest.mark.slow
def test_head_reads_one_line_and_command_says_no_more():
    code, said = run_shell('"$@" --help | head -1; exit ${PIPESTATUS[0]}', "train.py")
    assert code in (0, 141)  # 0 if all fitted into the pipe
    assert len(said.splitlines()) == 1


def test_files_of_a_command_do_not_get_the_numbers_of_closed_streams(tmp_path):
    code = (
        "from vaelab.commands.streams import open_closed_streams\n"
        "import os, sys\n"
        "open_closed_streams()\n"
        f"number = os.open({str(tmp_path / 'file')!r}, os.O_CREAT | os.O_WRONLY)\n"
        "assert number > 2\n"
        "sys.stderr.write('dropped')\n"
        "try:\n"
        "    print('lost', flush=True)\n"
        "except BrokenPipeError:\n"
        "    os._exit(7)\n"
    )
    assert run_shell('"$@" >&- 2>&- <&-', "-c", code) == (7, "")
    assert (tmp_path / "file").read_bytes() == b""
