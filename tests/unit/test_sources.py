"""The sources of MNIST digits and torchvision data sets, against published facts and a fake."""

import errno
import gzip
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from safetensors.numpy import save_file
from support.array_files import files_except_locks
from torchvision import datasets

from vaelab.data import Digits, TorchvisionDataset
from vaelab.data.contents import KNOWN_SETS
from vaelab.data.store import read_splits
from vaelab.errors import UserError


def test_digits_source_has_500_digits_of_each_class(tmp_path):
    found = Digits(str(tmp_path))()
    assert found.train_images.shape == (5000, 1, 28, 28)
    assert found.train_images.dtype == torch.uint8
    assert found.train_labels.bincount().tolist() == [500] * 10
    assert found.num_classes == 10
    assert len(found.test_images) == 0
    assert found.train_images.max() == 255
    corners = found.train_images[:, 0, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert not corners.any()  # digits are centred on black
    row = found.train_images.sum((0, 1)).float()
    assert row.argmax() // 28 in range(10, 18)


class FakeTorchvisionDataset:
    """Random images and labels with the interface of a torchvision data set; no download."""

    def __init__(self, folder, train, download, colour=False):
        random = np.random.default_rng(train)
        count = 20 if train else 6
        if colour:
            self.data = random.integers(0, 256, (count, 9, 8, 3), dtype=np.uint8)
            self.targets = (np.arange(count) % 4).tolist()
        else:
            self.data = torch.from_numpy(random.integers(0, 256, (count, 9, 8), dtype=np.uint8))
            self.targets = torch.arange(count) % 4


def torchvision_source(name, folder):
    """Returns the source of a torchvision class, with its prepared file in a folder."""
    return TorchvisionDataset(name, str(folder), "file.safetensors", by_hand="the files in raw")


def test_torchvision_grey_images_get_a_channel_axis(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "MNIST", FakeTorchvisionDataset)
    found = torchvision_source("MNIST", tmp_path)()
    for train, images in ((True, found.train_images), (False, found.test_images)):
        assert torch.equal(images, FakeTorchvisionDataset("", train, True).data[:, None])
    assert torch.equal(found.train_labels, torch.arange(20) % 4)
    assert torch.equal(found.test_labels, torch.arange(6) % 4)


def test_torchvision_colour_images_become_channels_first(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "CIFAR10", partial(FakeTorchvisionDataset, colour=True))
    found = torchvision_source("CIFAR10", tmp_path)()
    data = torch.from_numpy(FakeTorchvisionDataset("", True, True, colour=True).data)
    assert found.train_images.shape == (20, 3, 9, 8)
    assert torch.equal(found.train_images, data.permute(0, 3, 1, 2))
    assert found.test_images.shape == (6, 3, 9, 8)
    assert torch.equal(found.train_labels, torch.arange(20) % 4)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Error downloading train-images-idx3-ubyte.gz:\nTried https://..."),
        OSError(errno.ENETUNREACH, "Network is unreachable"),
        ConnectionResetError(),
    ],
)
def test_torchvision_download_error_suggests_alternatives(tmp_path, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(datasets, "MNIST", fail)
    with pytest.raises(UserError) as refused:
        torchvision_source("MNIST", tmp_path)()
    message = str(refused.value)
    assert "\n" not in message
    for words in ("MNIST", str(tmp_path), "the files in raw", "by hand", "data=mnist_5k"):
        assert words in message
    assert files_except_locks(tmp_path) == []


def real_data_path(*parts):
    """Returns the path of a file or folder below $VAELAB_DATA; skips the test if it is absent."""
    folder = Path(os.environ.get("VAELAB_DATA", "data"))
    path = folder.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"needs {'/'.join(parts)} in VAELAB_DATA={folder}, which is not there")
    return path.resolve()


def real_torchvision_source(name, tmp_path):
    """Returns the source of downloaded files, linked to $VAELAB_DATA; skips the test without."""
    (tmp_path / name).mkdir()
    (tmp_path / name / "raw").symlink_to(real_data_path(name, "raw"))
    return torchvision_source(name, tmp_path)


def test_mnist_has_known_shapes_labels_and_mean(tmp_path):
    found = real_torchvision_source("MNIST", tmp_path)()
    assert found.train_images.shape == (60_000, 1, 28, 28)
    assert found.test_images.shape == (10_000, 1, 28, 28)
    assert found.train_labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert found.test_labels[:5].tolist() == [7, 2, 1, 0, 4]
    train = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    test = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert found.train_labels.bincount().tolist() == train
    assert found.test_labels.bincount().tolist() == test
    assert found.train_images.float().mean().item() / 255 == pytest.approx(0.1307, abs=1e-4)


def test_fashion_mnist_has_known_shapes_labels_and_mean(tmp_path):
    found = real_torchvision_source("FashionMNIST", tmp_path)()
    assert found.train_images.shape == (60_000, 1, 28, 28)
    assert found.test_images.shape == (10_000, 1, 28, 28)
    assert found.train_labels[:3].tolist() == [9, 0, 0]
    assert found.train_labels.bincount().tolist() == [6000] * 10
    assert found.test_labels.bincount().tolist() == [1000] * 10
    assert found.train_images.float().mean().item() / 255 == pytest.approx(0.2860, abs=1e-4)


def test_cifar10_has_known_shapes_labels_and_means():
    found = read_splits(real_data_path("cifar10.safetensors"))
    assert found.train_images.shape == (50_000, 3, 32, 32)
    assert found.test_images.shape == (10_000, 3, 32, 32)
    assert found.train_labels[:3].tolist() == [6, 9, 9]
    assert found.test_labels[:4].tolist() == [3, 8, 8, 0]
    assert found.train_labels.bincount().tolist() == [5000] * 10
    assert found.test_labels.bincount().tolist() == [1000] * 10
    means = found.train_images[:5000].float().mean((0, 2, 3)) / 255  # red, green and blue
    assert means.tolist() == pytest.approx([0.491, 0.482, 0.447], abs=0.01)


RAW_FAULTS = {
    "test files": lambda raw: os.replace(raw / "t10k-images-idx3-ubyte", raw / IMAGES),
    "another set": lambda raw: relink(raw / IMAGES, real_data_path("FashionMNIST", "raw", IMAGES)),
    "truncated": lambda raw: rewrite(raw / IMAGES, lambda content: content[:-784]),
    "longer": lambda raw: rewrite(raw / IMAGES, lambda content: content + b"0"),
    "fewer rows": lambda raw: rewrite(raw / IMAGES, lambda c: c[:4] + bytes([0, 0, 9, 9]) + c[8:]),
    "pixel": lambda raw: rewrite(raw / IMAGES, lambda c: c[:500] + b"~" + c[501:]),
    "label 77": lambda raw: rewrite(raw / LABELS, lambda c: c[:100] + bytes([77]) + c[101:]),
    "magic number": lambda raw: rewrite(raw / IMAGES, lambda c: bytes(4) + c[4:]),
    "empty": lambda raw: rewrite(raw / LABELS, lambda _: b""),
}
IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def relink(path, target):
    """Replaces a file by a link."""
    path.unlink()
    path.symlink_to(target)


def rewrite(path, change):
    """Replaces a link by a changed copy of its file."""
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(change(content))


@pytest.fixture
def raw_folder(tmp_path):
    """Returns a folder with links to the raw files of MNIST; skips the test without them."""
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for path in real_data_path("MNIST", "raw").glob("*-ubyte"):
        (folder / path.name).symlink_to(path)
    return folder


@pytest.mark.parametrize("fault", RAW_FAULTS)
def test_raw_files_that_are_not_the_published_ones_are_named(raw_folder, tmp_path, fault):
    RAW_FAULTS[fault](raw_folder)
    with pytest.raises(UserError) as error:
        torchvision_source("MNIST", tmp_path)()
    message = str(error.value)
    assert message.startswith(
        str(raw_folder / (LABELS if fault in ("label 77", "empty") else IMAGES))
    )
    assert "damaged" in message
    assert "delete it" in message
    assert "\n" not in message
    assert files_except_locks(tmp_path) == ["MNIST"]


def test_raw_pipe_is_not_waited_for(raw_folder, tmp_path):
    (raw_folder / IMAGES).unlink()
    os.mkfifo(raw_folder / IMAGES)
    with pytest.raises(UserError, match="a pipe, not a file"):
        torchvision_source("MNIST", tmp_path)()


@pytest.mark.parametrize(
    "error", [AssertionError(), EOFError(), RuntimeError("not found"), KeyError("data")]
)
def test_damaged_download_is_not_called_a_failed_one(tmp_path, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(datasets, "CIFAR10", fail)
    archive = tmp_path / "cifar-10-python.tar.gz"
    archive.write_bytes(b"half of it")
    with pytest.raises(UserError, match=f"^{archive}: damaged or incomplete") as refused:
        torchvision_source("CIFAR10", tmp_path)()
    assert "\n" not in str(refused.value)


@pytest.fixture(scope="module")
def digits():
    """Returns the arrays of the 5,000 digits."""
    return {name: a.copy() for name, a in Digits("").make_arrays().items()}


WRONG_DIGITS = {
    "few": lambda x, y: (x[:3000], y[:3000]),
    "black": lambda x, y: (np.where(np.arange(5000)[:, None, None, None] < 300, 0, x), y),
    "pixel": lambda x, y: (np.where(np.arange(x.size).reshape(x.shape) == 400, x ^ 1, x), y),
    "label 77": lambda x, y: (x, np.where(np.arange(5000) == 9, 77, y)),
    "label bit": lambda x, y: (x, y ^ np.where(np.arange(5000) == 9, 128, 0)),
    "order": lambda x, y: (x[::-1], y[::-1]),
    "labels as bytes": lambda x, y: (x, y.astype(np.uint8)),
    "labels as floats": lambda x, y: (x, y.astype(np.float32)),
}


@pytest.mark.parametrize("fault", WRONG_DIGITS)
@pytest.mark.parametrize("started", [True, False])
def test_digits_file_with_other_content_is_refused(tmp_path, digits, fault, started):
    path, source = tmp_path / "mnist_5k.safetensors", Digits(str(tmp_path))
    if started:
        save_file(digits, path)
        source()
    images, labels = WRONG_DIGITS[fault](digits["train_images"], digits["train_labels"])
    arrays = {"train_images": images.astype(np.uint8), "train_labels": labels}
    save_file({name: array.copy() for name, array in arrays.items()}, path)
    with pytest.raises(UserError, match=f"^{path}: damaged, or other data: train_.*delete it"):
        source()


@pytest.mark.parametrize("other", ["mnist", "cifar10"])
def test_one_sets_file_under_the_name_of_another_is_refused(tmp_path, digits, other):
    save_file(digits, tmp_path / f"{other}.safetensors")
    name = {"mnist": "MNIST", "cifar10": "CIFAR10"}[other]
    source = TorchvisionDataset(name, str(tmp_path), f"{other}.safetensors", by_hand="the files")
    with pytest.raises(UserError, match="damaged, or other data: test_images are absent"):
        source()


@pytest.mark.parametrize("name", ["mnist_5k", "mnist", "fashion_mnist", "cifar10"])
def test_prepared_file_of_the_configuration_is_known(compose, name):
    source = instantiate(compose(f"data={name}").data.source)
    assert source.prepared.name in {known.file for known in KNOWN_SETS.values()}
    assert isinstance(source, Digits) or source.contents


@pytest.mark.parametrize("name", ["mnist_5k", "mnist", "cifar10"])
def test_published_contents_are_accepted(tmp_path, compose, name):
    (tmp_path / f"{name}.safetensors").symlink_to(real_data_path(f"{name}.safetensors"))
    source = instantiate(compose(f"data={name}", f"data.source.folder={tmp_path}").data.source)
    assert source().num_classes == 10
    assert (tmp_path / f"{name}.verified.json").exists()


@pytest.mark.slow
def test_digits_are_a_subset_of_mnist_training_images(tmp_path):
    everything = real_torchvision_source("MNIST", tmp_path)()
    few = Digits(str(tmp_path))()
    known = {image.numpy().tobytes(): int(label) for image, label in image_label_pairs(everything)}
    assert all(
        known[image.numpy().tobytes()] == int(label) for image, label in image_label_pairs(few)
    )


def image_label_pairs(found):
    """Yields (image [1, 28, 28], label) of the training part."""
    return zip(found.train_images, found.train_labels, strict=True)


def test_digits_source_reads_the_package_file_once(tmp_path, monkeypatch):
    opened = []
    original = gzip.open
    monkeypatch.setattr(gzip, "open", lambda *a, **k: opened.append(a) or original(*a, **k))
    Digits(str(tmp_path))()
    Digits(str(tmp_path))()
    assert len(opened) == 1
