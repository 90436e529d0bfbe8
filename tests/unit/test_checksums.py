"""Tests that flipped bits and truncations of checkpoints and other files are found."""

import random
from contextlib import suppress

import numpy as np
import pytest
import torch
from safetensors.numpy import save
from support.array_files import assert_splits_equal

from vaelab.data import store
from vaelab.errors import DamagedFileError, UserError
from vaelab.files import checksums
from vaelab.training.callbacks.checkpoint import AtomicFiles, load_checkpoint
from vaelab.training.checkpoint_format import format_record
from vaelab.training.json_files import read_json, read_json_or_nothing

CONTENT = {"vaelab": format_record({}), "weights": torch.arange(200.0), "global_step": 3}


def damaged_copies(whole, count):
    """Yields copies of bytes: a flipped bit in each, at random and in the last 300 bytes; cut."""
    dice = random.Random(0)
    places = [dice.randrange(len(whole)) for _ in range(count)]
    for place in [*places, *range(len(whole) - 300, len(whole))]:
        copy = bytearray(whole)
        copy[place] ^= 1 << dice.randrange(8)
        yield bytes(copy)
    for _ in range(count // 4):
        yield whole[: dice.randrange(len(whole))]
    yield from (whole[:-1], b"")


def test_checkpoint_with_flipped_bit_or_truncated_is_refused(tmp_path):
    path = tmp_path / "last.ckpt"
    AtomicFiles().save_checkpoint(CONTENT, path)
    assert load_checkpoint(path)["global_step"] == 3
    for copy in damaged_copies(path.read_bytes(), 200):
        path.write_bytes(copy)
        with pytest.raises(DamagedFileError) as error:
            load_checkpoint(path)
        assert str(error.value).startswith(str(path))
        assert "\n" not in str(error.value)


def test_checkpoint_without_checksum_loads_and_its_members_are_verified(tmp_path):
    """As stock Lightning and earlier versions write it."""
    path = tmp_path / "last.ckpt"
    torch.save(CONTENT, path)
    assert load_checkpoint(path)["global_step"] == 3
    whole = path.read_bytes()
    start = whole.index(CONTENT["weights"].numpy().tobytes())
    for place in range(start, start + 800, 40):
        copy = bytearray(whole)
        copy[place] ^= 4
        path.write_bytes(copy)
        with pytest.raises(DamagedFileError, match=r"the checksum of .* in it differs"):
            load_checkpoint(path)


def test_damaged_checkpoint_names_whole_one_beside_it(tmp_path):
    for name in ("last.ckpt", "best.ckpt"):
        AtomicFiles().save_checkpoint(CONTENT, tmp_path / name)
    (tmp_path / "last.ckpt").write_bytes(b"")
    with pytest.raises(DamagedFileError, match=r"best\.ckpt beside it is whole"):
        load_checkpoint(tmp_path / "last.ckpt")
    (tmp_path / "best.ckpt").write_bytes(b"")
    with pytest.raises(DamagedFileError) as error:
        load_checkpoint(tmp_path / "last.ckpt")
    assert "whole" not in str(error.value)


def test_checksum_of_text_finds_any_change():
    text = checksums.with_checksum(f'{{"a": 1, "sha256": "{checksums.ZEROS}"}}')
    found = text[-66:-2]
    assert checksums.has_checksum(text, found)
    assert not checksums.has_checksum(text.replace("1", "2", 1), found)
    assert not checksums.has_checksum(text, found[::-1])
    assert not checksums.has_checksum(text, None)


def test_prepared_data_load_unchanged_or_not_at_all(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (20, 1, 8, 8), dtype=np.uint8)
    arrays = {"train_images": images, "train_labels": np.arange(20) % 3, "none": np.empty((0, 2))}
    path = tmp_path / "mine.safetensors"
    store.load_or_create(path, lambda: arrays)
    for copy in damaged_copies(path.read_bytes(), 100):
        path.write_bytes(copy)
        with suppress(UserError):  # if not, the bit is of the header, beside the arrays
            found = store.load_or_create(path, lambda: arrays)
            assert_splits_equal(found, {name: arrays[name] for name in list(arrays)[:2]})


def test_safetensors_of_other_programs_have_no_checksum(tmp_path):
    path = tmp_path / "mine.safetensors"
    images = np.arange(1280).astype(np.uint8).reshape(20, 1, 8, 8)
    path.write_bytes(save({"train_images": images}))
    assert len(store.load_or_create(path, dict).train_images) == 20


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"5", b'{"a": "\xff"}', b"null"])
def test_damaged_json_is_one_line(tmp_path, content):
    path = tmp_path / "results.json"
    path.write_bytes(content)
    with pytest.raises(DamagedFileError, match=f"^{path}: damaged, for it .*; delete it") as error:
        read_json(path)
    assert "\n" not in str(error.value)
    assert read_json_or_nothing(path) == {}
