"""Tests that commands tell of damaged files and of full disks on one line, with exit code 2.

All use one small run, which is trained once.
"""

import shutil
import sys

import pytest
from support import programs
from support.commands import run_command
from support.disks import fill, make_read_only, small_disk

from vaelab.commands import encode, evaluate, export, generate, train
from vaelab.sweeps.job import Job

SMALL = [
    *("model.encoder.hidden=[8]", "model.decoder.hidden=[8]", "model.latent_dim=2"),
    *("trainer.accelerator=cpu", "trainer.max_epochs=2", "logger=none"),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a data folder and a finished run."""
    folder = tmp_path_factory.mktemp("trained")
    run_command(train, *SMALL, f"hydra.run.dir={folder}/run", f"paths.data={folder}/data")
    return folder


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the run that is not finished: without results.json."""
    copy = shutil.copytree(trained / "run", tmp_path / "run")
    (copy / "results.json").unlink()
    return copy


@pytest.fixture
def get_error(trained, capsys):
    """(command, *words) -> its error message of one line; checks for exit code 2."""

    def get(command, *words):
        capsys.readouterr()
        data = [] if command in (export, generate) else [f"paths.data={trained}/data"]
        with pytest.raises(SystemExit) as exit_:
            run_command(command, *words, *data)
        assert exit_.value.code == 2
        said = capsys.readouterr().err.strip().splitlines()
        (line,) = [each for each in said if not each.startswith("warning: ")]
        return line.removeprefix("error: ")

    return get


def flip_bit(path):
    """Flips a bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_train_with_damaged_last_checkpoint_names_best(run, get_error):
    flip_bit(run / "checkpoints" / "last.ckpt")
    said = get_error(train, *SMALL, f"hydra.run.dir={run}")
    assert "last.ckpt: damaged" in said
    assert "ckpt=best goes on from it, rerun=true starts over" in said
    flip_bit(run / "checkpoints" / "best.ckpt")
    said = get_error(train, *SMALL, f"hydra.run.dir={run}")
    assert "ckpt=best" not in said
    assert said.endswith("rerun=true starts over")


@pytest.mark.parametrize("content", ["", "model:\n  _target_: a\n  bet", "{", "\0" * 100])
def test_train_with_damaged_config_says_so(run, get_error, content):
    (run / ".hydra" / "config.yaml").write_text(content)
    said = get_error(train, *SMALL, f"hydra.run.dir={run}")
    assert "config.yaml: damaged" in said
    assert "ckpt=last goes on all the same, and rerun=true starts over" in said


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_damaged_results_are_one_line(run, get_error, content):
    (run / "results.json").write_text(content)
    for command, words in (
        (train, [*SMALL, f"hydra.run.dir={run}"]),
        (evaluate, [f"run={run}", "what=latents"]),
    ):
        assert "results.json: damaged" in get_error(command, *words)
    job = Job(overrides=[], swept={}, folder=run)
    assert job.value is None
    assert not job.is_finished
    assert "damaged" in job.damage


def test_damaged_progress_and_failure_are_ignored_by_sweep(run):
    for name in ("progress.json", "failure.json"):
        (run / name).write_text("{")
    job = Job(overrides=[], swept={}, folder=run)
    assert job.progress == job.failure == {}


@pytest.mark.parametrize(
    ("command", "words"),
    [(generate, ["what=samples"]), (export, []), (encode, ["num_samples=0", "reference=0"])],
)
def test_full_disk_is_one_line(trained, tmp_path, get_error, command, words):
    with small_disk(tmp_path / "disk", 200) as disk:
        fill(disk, left=4)
        to = f"{disk}/new.npz" if command is encode else f"{disk}/new"
        words = [f"run={trained}/run", f"to={to}", *words]
        if command is export:
            words.append("what=safetensors")
        said = get_error(command, *words)
        assert said.startswith(f"cannot write {disk}/new")
        assert said.endswith("No space left on device")


def test_train_on_full_disk_names_whole_checkpoint(trained, tmp_path, get_error):
    with small_disk(tmp_path / "disk", 2000) as disk:
        run = shutil.copytree(trained / "run", disk / "run")
        for name in ("results.json", "checkpoints/best.ckpt"):
            (run / name).unlink()
        fill(disk, left=20)
        longer = [*SMALL[:-2], "trainer.max_epochs=3", "logger=none"]
        said = get_error(train, *longer, f"hydra.run.dir={run}", "ckpt=last")
        assert said.startswith(f"cannot write {run}")
        assert "No space left on device; the checkpoint of step" in said
        assert said.endswith("is kept, last.ckpt")


STATES = {
    "full": (lambda disk: fill(disk), "No space left on device"),
    "read-only": (make_read_only, "Read-only file system"),
}


@pytest.mark.slow
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(
    "words",
    [
        "train.py hydra.run.dir={disk}/run ckpt=last trainer.max_epochs=3",
        "train.py hydra.run.dir={disk}/run ckpt=last trainer.max_epochs=3 logger=csv",
        "train.py hydra.run.dir={disk}/run ckpt=last trainer.max_epochs=3 logger=tensorboard",
        "train.py hydra.run.dir={disk}/run evaluate=[latents] rerun=true",
        "train.py hydra.run.dir={disk}/new/run logger=tensorboard",
        "train.py -m hydra.sweep.dir={disk}/sweep seed=1,2",
        "evaluate.py run={disk}/run what=latents paths.data={data}",
        "generate.py run={disk}/run what=samples",
        "export.py run={disk}/run what=safetensors",
        "report.py sweep={disk}",
    ],
    ids=lambda words: words.replace("{disk}", "disk"),
)
def test_every_command_tells_of_a_full_or_read_only_disk(trained, tmp_path, words, state):
    """As a process, whose threads and children must not add messages of their own."""
    change, reason = STATES[state]
    with small_disk(tmp_path / "disk", 4000) as disk:
        shutil.copytree(trained / "run", disk / "run")
        change(disk)
        given = words.format(disk=disk, data=trained / "data").split()
        if given[0] == "train.py":
            given += [*SMALL[:-2], f"paths.data={trained}/data"]
            given += [word for word in SMALL[-2:] if word.partition("=")[0] not in words]
        command = [sys.executable, "-m", "vaelab", given[0].removesuffix(".py"), *given[1:]]
        done = programs.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2, done.stderr
    (line,) = [each for each in done.stderr.splitlines() if not each.startswith("warning: ")]
    assert line.startswith(f"error: cannot write {disk}/")
    assert reason in line


@pytest.mark.slow
@pytest.mark.parametrize("logger", ["tensorboard", "csv"])
@pytest.mark.parametrize("left", [0, 8, 16, 40])
def test_loggers_on_full_disk_are_one_line(trained, tmp_path, logger, left):
    """As a process: TensorBoard's writer is a thread, whose traceback would be a second message."""
    with small_disk(tmp_path / "disk", 200) as disk:
        fill(disk, left)
        words = [*SMALL[:-1], f"logger={logger}", f"paths.data={trained}/data"]
        command = [sys.executable, "-m", "vaelab", "train", *words, f"hydra.run.dir={disk}/run"]
        done = programs.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2, done.stderr
    (line,) = [each for each in done.stderr.splitlines() if not each.startswith("warning: ")]
    assert line.startswith(f"error: cannot write {disk}/run")
    assert "No space left on device" in line
