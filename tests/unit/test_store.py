"""Data set files, by `read_splits`: formats and damage; and their creation, by `load_or_create`."""

import json
import multiprocessing
import os
import time
import zipfile
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from support.array_files import (
    FILE_FORMATS,
    assert_splits_equal,
    black_images,
    changed_arrays,
    files_except_locks,
    read_error_message,
    save_arrays,
    two_level_images,
    valid_arrays,
)
from support.disks import fill, small_disk

from vaelab.data.store import load_or_create, read_splits
from vaelab.errors import UserError

# read_splits.


@pytest.mark.parametrize("labels", [["cat", "dog"] * 10, [None] * 20])
def test_read_splits_rejects_object_arrays_and_suggests_astype(tmp_path, labels):
    message = read_error_message(
        save_arrays(tmp_path / "a.npz", changed_arrays(train_labels=np.array(labels, object)))
    )
    assert "train_labels holds Python objects" in message
    assert "train_labels.astype(str)" in message
    np.save(tmp_path / "a.npy", np.array(labels, object))
    assert "holds Python objects" in read_error_message(tmp_path / "a.npy")


def test_read_splits_takes_npy_array_as_training_images(tmp_path):
    np.save(tmp_path / "a.npy", valid_arrays()["train_images"])
    found = read_splits(tmp_path / "a.npy")
    assert torch.equal(found.train_images, torch.from_numpy(valid_arrays()["train_images"]))
    assert found.num_classes == 0


def test_read_splits_names_unknown_safetensors_type(tmp_path):
    save_file({"train_images": two_level_images(0, 255)}, tmp_path / "a.safetensors")
    whole = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "a.safetensors").write_bytes(whole.replace(b'"U8"', b'"X8"'))
    assert "train_images are X8, which is no type for it" in read_error_message(
        tmp_path / "a.safetensors"
    )


@pytest.mark.parametrize("name", ["a.npz", "a.safetensors", "no/such/folder.npz", "a"])
def test_read_splits_rejects_missing_file(tmp_path, name):
    assert "no such file" in read_error_message(tmp_path / name)


@FILE_FORMATS
def test_read_splits_rejects_folder(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.mkdir()
    read_error_message(path)


@FILE_FORMATS
def test_read_splits_rejects_path_below_a_file(tmp_path, suffix):
    (tmp_path / "a").write_bytes(b"")
    read_error_message(tmp_path / "a" / f"b{suffix}")


def truncated_lengths(path):
    """Returns lengths below the size of a file at which to cut it, near its edges and header."""
    size = path.stat().st_size
    lengths = {0, 1, 4, 7, 8, 9, size // 4, size // 2, size - 100, size - 8, size - 1}
    if path.suffix == ".safetensors":
        header = 8 + int.from_bytes(path.read_bytes()[:8], "little")
        lengths |= {header // 2, header - 1, header, header + 1, header + 8}
    return sorted(lengths)


@FILE_FORMATS
def test_read_splits_rejects_truncated_file(tmp_path, suffix):
    whole = save_arrays(tmp_path / f"whole{suffix}", valid_arrays())
    for length in truncated_lengths(whole):
        path = tmp_path / f"cut_at_{length}{suffix}"
        path.write_bytes(whole.read_bytes()[:length])
        assert "truncated" in read_error_message(path)


@FILE_FORMATS
@pytest.mark.parametrize("seed", range(5))
def test_read_splits_rejects_random_bytes(tmp_path, suffix, seed):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(np.random.default_rng(seed).bytes(3000))
    read_error_message(path)


INVALID_HEADERS = [
    b"5",
    b"[]",
    b"{}",
    b"null",
    b"{",
    b'{"train_images": 3}',
    b'{"train_images": {}}',
    b"\xff",
]


@pytest.mark.parametrize("header", INVALID_HEADERS)
def test_read_splits_rejects_invalid_safetensors_header(tmp_path, header):
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(100))
    read_error_message(path)


@pytest.mark.parametrize("offsets", [[0, 1439], [1, 1441], [1440, 0], ["a", "b"], [0]])
def test_read_splits_rejects_invalid_data_offsets(tmp_path, offsets):
    entry = {"dtype": "U8", "shape": [20, 8, 9], "data_offsets": offsets}
    header = json.dumps({"train_images": entry}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(1440))
    read_error_message(path)


def test_read_splits_rejects_damaged_zip(tmp_path):
    path = save_arrays(tmp_path / "a.npz", valid_arrays(count=200))
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 255
    path.write_bytes(damaged)
    read_error_message(path)


def test_read_splits_rejects_zip_without_image_arrays(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("train_images.npy", b"nothing")
    read_error_message(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("notes.txt", b"nothing")
    assert "has notes.txt float64 (0,), but should have train_images" in read_error_message(path)


def test_read_splits_rejects_npy_file_named_npz(tmp_path):
    path = tmp_path / "a.npz"
    with path.open("wb") as file:
        np.save(file, black_images(20, 8, 9))
    read_error_message(path)


# load_or_create.


def test_load_or_create_maps_the_file_copy_on_write(tmp_path):
    path, arrays = tmp_path / "deep" / "er" / "a.safetensors", valid_arrays()
    first = load_or_create(path, lambda: arrays)
    assert_splits_equal(first, arrays)
    assert first.num_classes == 4
    before = path.read_bytes()
    first.train_images.zero_()  # changes a copy in memory, not the file
    again = load_or_create(path, pytest.fail)
    assert_splits_equal(again, arrays)
    assert path.read_bytes() == before


def test_load_or_create_writes_non_contiguous_arrays(tmp_path):
    arrays = valid_arrays()
    arrays["train_images"] = arrays["train_images"].transpose(0, 1, 3, 2)
    arrays["test_images"] = arrays["test_images"][:, :, ::-1].transpose(0, 1, 3, 2)
    expected = {name: array.copy() for name, array in arrays.items()}
    assert_splits_equal(load_or_create(tmp_path / "a.safetensors", lambda: arrays), expected)


def test_load_or_create_reads_existing_file_in_read_only_folder(tmp_path):
    path = save_arrays(tmp_path / "a.safetensors", valid_arrays())
    path.chmod(0o444)
    tmp_path.chmod(0o555)
    try:
        assert_splits_equal(load_or_create(path, pytest.fail), valid_arrays())
        assert [p.name for p in tmp_path.iterdir()] == [path.name]
    finally:
        tmp_path.chmod(0o755)


def test_load_or_create_names_damaged_file(tmp_path):
    path = save_arrays(tmp_path / "a.safetensors", valid_arrays())
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=str(path)):
        load_or_create(path, pytest.fail)


def test_load_or_create_leaves_no_file_if_make_fails(tmp_path):
    def fail():
        raise KeyboardInterrupt

    path = tmp_path / "a.safetensors"
    with pytest.raises(KeyboardInterrupt):
        load_or_create(path, fail)
    assert files_except_locks(tmp_path) == []
    assert_splits_equal(
        load_or_create(path, valid_arrays), valid_arrays()
    )  # the lock was released too
    assert files_except_locks(tmp_path) == [path.name]


def test_load_or_create_leaves_no_file_on_full_disk(tmp_path):
    with small_disk(tmp_path / "disk", 100) as disk:
        path = disk / "a.safetensors"
        fill(disk)
        with pytest.raises(UserError, match=f"{path}: No space left on device"):
            load_or_create(path, valid_arrays)
        assert files_except_locks(disk) == ["fill"]


def test_load_or_create_raises_if_folder_cannot_be_created(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="cannot write"):
        load_or_create(tmp_path / "file" / "a.safetensors", valid_arrays)


def make_arrays_slowly(folder):
    """Leaves a file named after the process in the folder, and returns arrays after a second."""
    (folder / f"made by {os.getpid()}").touch()
    time.sleep(1)
    return valid_arrays()


def load_or_create_after_barrier(folder, barrier):
    """Runs in each process: waits for the others, loads or creates the file and checks it."""
    barrier.wait()
    found = load_or_create(folder / "a.safetensors", partial(make_arrays_slowly, folder))
    assert_splits_equal(found, valid_arrays())


@pytest.mark.slow
def test_load_or_create_makes_arrays_once_in_concurrent_processes(tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    processes = [
        context.Process(target=load_or_create_after_barrier, args=(tmp_path, barrier))
        for _ in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    names = sorted(files_except_locks(tmp_path))
    assert names[0] == "a.safetensors"
    assert [name[:7] for name in names[1:]] == ["made by"]
