"""Data set files, by `read_splits`: formats and damage; and their creation, by `load_or_create`."""

import io
import json
import multiprocessing
import os
import signal
import socket
import time
import zipfile
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.numpy import save, save_file
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

from vaelab.data import store
from vaelab.data.contents import describe_contents
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


def safetensors_bytes(header, pages):
    """Returns the bytes of a safetensors file; a header is a dict or JSON as text."""
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return len(text).to_bytes(8, "little") + text + pages


def change_entry(**changes):
    """Returns a function that changes the entry of train_images, as a safetensors header."""
    return lambda header, pages: (
        {**header, "train_images": {**header["train_images"], **changes}},
        pages,
    )


def repeat_entry(header, pages):
    """Returns the header as text with a second train_labels, on the bytes of the test labels."""
    second = json.dumps(header["test_labels"] | {"shape": [6]})
    return json.dumps(header)[:-1] + f', "train_labels": {second}}}', pages


LIES = {  # of a safetensors header; each was trained on in one version
    "shifted": change_entry(data_offsets=[208, 1648]),
    "negative": change_entry(data_offsets=[-2080, -640]),
    "reversed": change_entry(data_offsets=[1640, 200]),
    "overlapping": lambda h, p: (
        h | {"test_images": h["train_images"] | {"shape": [20, 1, 8, 9]}},
        p,
    ),
    "fewer rows": change_entry(shape=[10, 1, 8, 9]),
    "overflowing shape": change_entry(shape=[2**32, 2**32, 20, 1, 8, 9]),
    "booleans": change_entry(dtype="BOOL"),
    "doubled name": repeat_entry,
    "doubled key": lambda h, p: (json.dumps(h).replace('"shape"', '"shape": [6], "shape"'), p),
    "trailing byte": lambda h, p: (h, p + b"0"),
    "gap": lambda h, p: ({n: e for n, e in h.items() if n != "test_labels"}, p),
    "deep": lambda h, p: ("[" * 100_000, p),
}


@pytest.mark.parametrize("lie", LIES)
def test_read_splits_rejects_a_safetensors_header_that_lies(tmp_path, lie):
    content = save(valid_arrays())
    size = 8 + int.from_bytes(content[:8], "little")
    path = tmp_path / "a.safetensors"
    path.write_bytes(safetensors_bytes(json.loads(content[8:size]), content[size:]))
    assert_splits_equal(read_splits(path), valid_arrays())
    path.write_bytes(safetensors_bytes(*LIES[lie](json.loads(content[8:size]), content[size:])))
    assert "damaged" in read_error_message(path)


def npy_bytes(array):
    """Returns an `.npy` file of an array."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


MEMBERS = {  # changes of the members of an npz file
    "longer": lambda m: {**m, "train_labels": m["train_labels"] + b"0"},
    "shorter": lambda m: {**m, "train_labels": m["train_labels"][:-1]},
    "fewer rows": lambda m: {
        name: content.replace(b"(20,", b"(10,") if "train" in name else content
        for name, content in m.items()
    },
    "other booleans": lambda m: {**m, "train_images": m["train_images"].replace(b"|u1", b"|b1")},
    "doubled": lambda m: {**m, "train_labels.npy": npy_bytes(np.arange(20) % 2)},
    "no array": lambda m: {**m, "train_labels": b"0, 1, 2"},
}


@pytest.mark.parametrize("change", MEMBERS)
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_read_splits_rejects_npz_members_that_lie(tmp_path, change, compression):
    members = {name: npy_bytes(array) for name, array in valid_arrays().items()}
    path = tmp_path / "a.npz"
    for written in (members, MEMBERS[change](members)):
        with zipfile.ZipFile(path, "w", compression) as archive:
            for name, content in written.items():
                archive.writestr(name if name.endswith(".npy") else f"{name}.npy", content)
        if written is members:
            assert_splits_equal(read_splits(path), valid_arrays())
    assert "damaged" in read_error_message(path)


@pytest.mark.parametrize("place", [0, 700, -1])
def test_read_splits_compares_the_checksum_of_stored_members(tmp_path, place):
    path, images = tmp_path / "a.npz", valid_arrays()["train_images"]
    np.savez(path, train_images=images)
    content = bytearray(path.read_bytes())
    start = content.index(images.tobytes())
    content[start + place % images.nbytes] ^= 1
    path.write_bytes(content)
    assert "damaged" in read_error_message(path)


@pytest.mark.parametrize("change", [b"0", 1000 * b"0", -1])
def test_read_splits_rejects_npy_of_another_length(tmp_path, change):
    content, path = npy_bytes(valid_arrays()["train_images"]), tmp_path / "a.npy"
    path.write_bytes(content[:change] if isinstance(change, int) else content + change)
    assert "damaged" in read_error_message(path)


def test_read_splits_rejects_npz_file_named_npy(tmp_path):
    with (tmp_path / "a.npy").open("wb") as file:
        np.savez(file, train_images=valid_arrays()["train_images"])
    assert "no .npy file" in read_error_message(tmp_path / "a.npy")


def make_socket(path):
    """Makes a socket at a path, short enough for one."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))


NO_FILES = {
    "pipe": os.mkfifo,
    "folder": os.mkdir,
    "socket": make_socket,
    "device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".npy"])
@pytest.mark.parametrize("kind", NO_FILES)
def test_read_splits_refuses_what_is_no_file_without_opening_it(tmp_path, kind, suffix):
    path = tmp_path / f"a{suffix}"
    NO_FILES[kind](path)
    assert f"cannot be read (a {kind}, not a file)" in read_error_message(path)
    with pytest.raises(UserError, match=f"a {kind}, not a file"):
        load_or_create(path, pytest.fail)


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
    assert sorted(files_except_locks(tmp_path)) == [path.name, "a.verified.json"]


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
    assert names[:2] == ["a.safetensors", "a.verified.json"]
    assert [name[:7] for name in names[2:]] == ["made by"]


def test_load_or_create_deletes_partial_files_of_the_same_file(tmp_path):
    path = save_arrays(tmp_path / "a.safetensors", valid_arrays())
    (tmp_path / ".a.safetensors.123.x.partial").touch()
    others = [".b.safetensors.123.x.partial", ".a.safetensors"]
    for other in others:
        (tmp_path / other).touch()
    load_or_create(path, pytest.fail)
    assert sorted(files_except_locks(tmp_path)) == sorted([*others, path.name])


def write_large_file(path):
    """Runs in a process that is killed: makes a file of 400 MB."""
    load_or_create(path, lambda: {"train_images": np.zeros((400_000, 1, 25, 40), np.uint8)})


@pytest.mark.slow
def test_killed_conversion_leaves_nothing_after_the_next_start(tmp_path):
    path = tmp_path / "a.safetensors"
    process = multiprocessing.get_context("spawn").Process(target=write_large_file, args=(path,))
    process.start()
    while not any(p.is_file() and p.stat().st_size for p in tmp_path.glob(".a.safetensors.*")):
        assert process.is_alive()
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert len(files_except_locks(tmp_path)) == 1
    assert_splits_equal(load_or_create(path, valid_arrays), valid_arrays())
    assert sorted(files_except_locks(tmp_path)) == [path.name, "a.verified.json"]


# Contents.


def count_digests(monkeypatch):
    """Returns a list that grows by one with each file whose contents are digested."""
    digested, original = [], store.describe_contents
    monkeypatch.setattr(
        store, "describe_contents", lambda arrays: digested.append(1) or original(arrays)
    )
    return digested


def test_load_or_create_refuses_other_contents_than_expected(tmp_path):
    expected = describe_contents(valid_arrays())
    path = tmp_path / "a.safetensors"
    load_or_create(path, valid_arrays, expected)
    for changes, said in (
        ({"train_labels": np.arange(20) % 2}, "train_labels have the right shape and other values"),
        ({"train_labels": np.arange(20, dtype=np.int32) % 4}, "train_labels are int32 (20,) and"),
        ({"train_images": two_level_images(0, 255)}, "train_images have the right shape"),
        ({"test_labels": None, "test_images": None}, "test_images are absent and should be uint8"),
        ({"val_images": black_images(3, 1, 8, 9)}, "val_images are uint8 (3, 1, 8, 9) and should"),
    ):
        save_arrays(path, changed_arrays(**changes))
        with pytest.raises(UserError) as error:
            load_or_create(path, pytest.fail, expected)
        assert str(error.value).startswith(f"{path}: damaged, or other data: {said}")
        assert str(error.value).endswith("delete it and it is made anew")
    path.unlink()
    with pytest.raises(UserError, match="is damaged, train_labels"):
        load_or_create(path, lambda: changed_arrays(train_labels=LABELS_OF_TWO), expected)
    assert not path.exists()
    load_or_create(path, valid_arrays, expected)


LABELS_OF_TWO = np.arange(20) % 2


def test_contents_are_remembered_until_the_file_changes(tmp_path, monkeypatch):
    expected = describe_contents(valid_arrays())
    path = save_arrays(tmp_path / "a.safetensors", valid_arrays())
    digested = count_digests(monkeypatch)
    for _ in range(3):
        load_or_create(path, pytest.fail, expected)
    assert len(digested) == 1
    path.touch()
    for _ in range(3):
        load_or_create(path, pytest.fail, expected)
    assert len(digested) == 2
    before = path.stat()
    save_arrays(path, changed_arrays(train_labels=LABELS_OF_TWO))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    with pytest.raises(UserError, match="damaged"):
        load_or_create(path, pytest.fail, expected)


@pytest.mark.parametrize("note", [b"", b"{", b"[]", b'{"file": 3}', None])
def test_contents_are_checked_if_the_note_is_damaged_or_cannot_be_written(tmp_path, note):
    path = save_arrays(tmp_path / "a.safetensors", valid_arrays())
    if note is None:
        (tmp_path / "a.verified.json").mkdir()
    else:
        (tmp_path / "a.verified.json").write_bytes(note)
    for _ in range(2):
        load_or_create(path, pytest.fail, describe_contents(valid_arrays()))
    assert sorted(files_except_locks(tmp_path)) == ["a.safetensors", "a.verified.json"]
    save_arrays(path, changed_arrays(train_labels=LABELS_OF_TWO))
    with pytest.raises(UserError, match="damaged"):
        load_or_create(path, pytest.fail, describe_contents(valid_arrays()))


def test_checksum_is_compared_once_until_the_file_changes(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    store.write_safetensors(path, valid_arrays())
    read, original = [], store.check_arrays
    monkeypatch.setattr(store, "check_arrays", lambda path: read.append(1) or original(path))
    for _ in range(3):
        load_or_create(path, pytest.fail)
    assert len(read) == 1
    path.touch()
    load_or_create(path, pytest.fail)
    assert len(read) == 2
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    before = path.stat()
    path.write_bytes(damaged)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    for _ in range(2):  # a damaged file is not remembered
        with pytest.raises(UserError, match="checksum differs; delete it and it is made anew"):
            load_or_create(path, pytest.fail)
    path.unlink()
    load_or_create(path, valid_arrays)


def test_unknown_contents_are_those_of_the_first_start(tmp_path):
    path = tmp_path / "a.safetensors"
    load_or_create(path, valid_arrays, {})
    save_arrays(path, changed_arrays(train_labels=LABELS_OF_TWO))
    with pytest.raises(UserError, match=r"if you changed it yourself, delete .*verified.json"):
        load_or_create(path, pytest.fail, {})
    path.unlink()
    load_or_create(path, lambda: changed_arrays(train_images=two_level_images(0, 255)), {})
    load_or_create(path, pytest.fail, {})
