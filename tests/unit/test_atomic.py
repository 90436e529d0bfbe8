"""Tests of atomic writing: on full and read-only disks, under a limit of size, and when killed."""

import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from hydra.errors import MissingConfigException
from PIL import Image
from support.disks import fill, make_read_only, small_disk

from vaelab.data import store
from vaelab.errors import WriteError
from vaelab.files.atomic import (
    atomic_file,
    delete_partial_files,
    explain_write_errors,
    write_text,
)
from vaelab.pictures.image_files import write_image
from vaelab.training.callbacks.checkpoint import AtomicFiles, load_checkpoint
from vaelab.training.checkpoint_format import format_record
from vaelab.training.json_files import write_json

NOISE = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)


def write_film(path):
    """Writes a GIF of two frames."""
    frames = [Image.fromarray(NOISE), Image.fromarray(255 - NOISE)]
    write_image(path, frames[0], save_all=True, append_images=frames[1:])


def write_arrays(path):
    """Writes an NPZ file."""
    with atomic_file(path) as file:
        np.savez_compressed(file, noise=NOISE)


def write_checkpoint(path):
    """Writes a checkpoint of vaelab without a model."""
    content = {"vaelab": format_record({}), "weights": torch.from_numpy(NOISE)}
    AtomicFiles().save_checkpoint(content, path)


WRITERS = {
    "settings.json": lambda path: write_json(path, {"noise": NOISE.tolist()}),
    "last.ckpt": write_checkpoint,
    "picture.png": lambda path: write_image(path, Image.fromarray(NOISE)),
    "film.gif": write_film,
    "arrays.npz": write_arrays,
    "data.safetensors": lambda path: store.write_safetensors(path, {"noise": NOISE}),
}


@pytest.fixture
def disk(tmp_path):
    """A small disk, of 2 MB."""
    with small_disk(tmp_path / "disk", 2000) as folder:
        yield folder


def test_atomic_file_replaces_only_when_whole(tmp_path):
    path = tmp_path / "a.json"
    write_text(path, "old")
    with pytest.raises(TypeError), atomic_file(path) as file:
        file.writelines([b"new", "no bytes"])
    assert path.read_text() == "old"
    assert [*tmp_path.iterdir()] == [path]
    write_text(path, "new")
    assert path.read_text() == "new"
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("left", [0, 4, 40])
def test_full_disk_is_write_error_and_keeps_old_file(disk, name, left):
    path = disk / name
    path.write_bytes(b"old")
    fill(disk, left)
    with pytest.raises(WriteError, match=f"^cannot write {path}: No space left on device$"):
        WRITERS[name](path)
    assert path.read_bytes() == b"old"
    assert {p.name for p in disk.iterdir()} == {name, "fill"}


@pytest.mark.parametrize("name", WRITERS)
def test_read_only_disk_is_write_error(disk, name):
    make_read_only(disk)
    with pytest.raises(WriteError, match=f"^cannot write {disk}.*: Read-only file system$"):
        WRITERS[name](disk / name)


LIMITED = """
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from unit.test_atomic import WRITERS, WriteError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
for name, write in WRITERS.items():
    try:
        write(Path({folder!r}, name))
    except WriteError as error:
        print(error)
"""


@pytest.mark.slow
def test_limit_of_file_size_is_write_error(tmp_path):
    """As quotas, such a limit is met in the middle of a file."""
    tests = os.path.dirname(os.path.dirname(__file__))
    code = LIMITED.format(tests=tests, folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    expected = [f"cannot write {tmp_path / name}: File too large" for name in WRITERS]
    assert done.stdout.splitlines() == expected, done.stderr
    assert [*tmp_path.iterdir()] == []


KILLED = """
import sys, time
from pathlib import Path
from vaelab.files.atomic import atomic_file
with atomic_file(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    print("half", flush=True)
    time.sleep(600)
"""


def test_sigkill_in_the_middle_keeps_old_file(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("old")
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"half\n"
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert path.read_text() == "old"
    assert len([*tmp_path.iterdir()]) == 2
    delete_partial_files(tmp_path)
    assert [*tmp_path.iterdir()] == [path]


def test_concurrent_writers_leave_one_whole_file(tmp_path):
    path = tmp_path / "evaluation.json"
    texts = [letter * 100_000 for letter in "abcd"]
    threads = [threading.Thread(target=write_text, args=(path, text)) for text in texts * 5]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in texts
    assert [*tmp_path.iterdir()] == [path]


def test_written_checkpoint_loads(tmp_path):
    write_checkpoint(tmp_path / "new folder" / "last.ckpt")
    content = load_checkpoint(tmp_path / "new folder" / "last.ckpt")
    assert torch.equal(content["weights"], torch.from_numpy(NOISE))
    assert torch.load(tmp_path / "new folder" / "last.ckpt", mmap=True)["weights"].shape[0] == 200


@pytest.mark.parametrize("error", [OSError("8 requested and 0 written"), OSError(28, "No space")])
def test_failed_write_of_a_library_is_write_error(tmp_path, error):
    found = pytest.raises(WriteError, match=r"cannot write .*(8 requested|No space)")
    with found, explain_write_errors(tmp_path / "file.npy"):
        raise error


def test_missing_choice_of_hydra_is_no_write_error(tmp_path):
    with pytest.raises(MissingConfigException), explain_write_errors(tmp_path):
        raise MissingConfigException("Could not find 'model/cvea'", "model/cvea")
