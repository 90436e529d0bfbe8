"""Data sets of PyTorch, torchvision and Hugging Face as sources, against their own items."""

import gzip
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from support.image_folders import noise
from torch.utils.data import Dataset, IterableDataset
from torchvision import datasets
from torchvision.datasets import VisionDataset

from vaelab.data import HuggingFace, Images, Torchvision
from vaelab.data.image_settings import ImageSettings, source_settings
from vaelab.data.items import DatasetItems
from vaelab.data.torchvision_sets import is_data_set, parameter_names
from vaelab.errors import UserError


class Items(Dataset):
    """A data set of these items."""

    def __init__(self, *items, classes=None):
        self.items = items
        self.classes = classes

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


class Stream(IterableDataset):
    """The same, one after the other."""

    def __init__(self, *items):
        self.items = items

    def __iter__(self):
        return iter(self.items)


def read_items(dataset):
    """Returns the `Splits` of a data set as the data module has them."""
    return Images(source=dataset, batch_size=2, val_size=1, test_size=1, pixels="grey").splits


FORMS = {
    "picture": lambda pixels: Image.fromarray(pixels),
    "bytes": lambda pixels: torch.from_numpy(pixels.transpose(2, 0, 1)),
    "floats": lambda pixels: torch.from_numpy(pixels.transpose(2, 0, 1)).float() / 255,
    "array": lambda pixels: pixels,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", [Items, Stream])
def test_images_of_any_form_are_read_from_a_pytorch_data_set(form, kind):
    pixels = [noise(i, (9, 8, 3)) for i in range(5)]
    found = read_items(kind(*map(FORMS[form], pixels)))
    assert found.train_images.dtype == torch.uint8
    assert np.array_equal(found.train_images.permute(0, 2, 3, 1), np.stack(pixels))
    assert found.num_classes == 0


@pytest.mark.parametrize(
    ("labels", "names", "classes"),
    [
        ([0, 1, 0, 1], ("0", "1"), None),
        ([torch.tensor(2), torch.tensor(0)] * 2, ("a", "c"), ["a", "b", "c"]),
        (["dog", "cat"] * 2, ("cat", "dog"), None),
        ([np.int64(5), np.int64(7)] * 2, ("5", "7"), ["too", "few"]),
        ([torch.tensor([0, 1]), torch.tensor([1, 0])] * 2, ("0", "1"), None),
    ],
)
def test_labels_of_any_form_are_read(labels, names, classes):
    items = [(Image.fromarray(noise(i)), label) for i, label in enumerate(labels)]
    found = read_items(Items(*items, classes=classes))
    assert found.class_names == names
    told = [found.class_names[i] for i in found.train_labels]
    assert len(set(told)) == 2
    assert told[:2] == told[2:]


def test_items_that_are_mappings_are_read():
    items = [{"image": Image.fromarray(noise(i)), "label": i % 2, "note": "x"} for i in range(4)]
    found = read_items(Items(*items))
    assert found.train_labels.tolist() == [0, 1, 0, 1]


class Random(Items):
    """Items that are noise, drawn anew at each reading."""

    def __getitem__(self, index):
        return torch.randint(0, 256, (1, 9, 8), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("dataset", "said"),
    [
        (Items(), "there are no items"),
        (object(), "object: is no data set, for it has no length and no items"),
        (Items("a.png"), "item 0 has a str, where a picture, array or tensor should be"),
        (Items(noise(0), noise(1, (9, 9))), "several sizes, (9, 8) and, item 1, (9, 9)"),
        (Items((noise(0), 1), (noise(1),)), "1 of 2 items have a label"),
        (Items((noise(0), 1), (noise(1), [1, 0])), "labels have several shapes"),
        (Items(noise(0).astype(np.float32) / 100), "say which values are black and white"),
        (Random(1, 2), "item 0 is another image at each reading"),
        (Items(*(Image.fromarray(noise(0, s)) for s in ((9, 8), (9, 8, 3)))), "item 1 has colour"),
    ],
)  # fmt: skip
def test_items_that_are_no_data_set_are_refused(dataset, said):
    with pytest.raises(UserError) as error:
        read_items(dataset)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_item_that_cannot_be_read_is_named():
    class Broken(Items):
        def __getitem__(self, index):
            if index == 2:
                raise KeyError("lost")
            return noise(index)

    with pytest.raises(UserError, match=r"Broken: item 2 cannot be read \(KeyError: 'lost'\)"):
        read_items(Broken(*range(4)))


def test_random_state_is_as_before_reading_items():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    with pytest.raises(UserError, match="another image"):
        read_items(Random(1, 2))
    assert torch.equal(torch.rand(1), expected)


# torchvision


class Pictures(VisionDataset):
    """A data set of pictures in the manner of torchvision, of one size, with no download."""

    shape = (9, 8)
    label = staticmethod(lambda i: i % 2)

    def __init__(self, root, part, count):
        super().__init__(root)
        self.pixels = [noise(sum(map(ord, part)) + i, self.shape) for i in range(count)]

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, index):
        return Image.fromarray(self.pixels[index]), self.label(index)


class TrainOrTest(Pictures):
    def __init__(self, root, train=True, download=False):
        super().__init__(root, f"{train}", 6 if train else 4)


class Letters(TrainOrTest):
    def __init__(self, root, split, **kwargs):
        super().__init__(root, **kwargs)
        assert split == "letters"
        self.classes = ["N/A", "a", "b"]

    label = staticmethod(lambda i: i % 2 + 1)


class BySplit(Pictures):
    values = ("train", "valid", "test")

    def __init__(self, root, split="train", download=False):
        if split not in self.values:
            raise ValueError(f"Unknown value '{split}' for argument split. Valid: {self.values}")
        super().__init__(root, split, {"train": 6, "valid": 3}.get(split, 4))


class Trainval(BySplit):
    values = ("trainval", "test")


class Faces(BySplit):
    attr_names = ("Smiling", "Hat", "")

    @staticmethod
    def label(i):
        return torch.tensor([i % 2, 1 - i % 3 % 2])


class Unlabelled(Pictures):
    def __init__(self, root):
        super().__init__(root, "all", 7)

    label = staticmethod(lambda i: -1)


class Several(Unlabelled):
    def __getitem__(self, index):
        return Image.fromarray(noise(index, (9 + index % 2, 8))), 0


def torchvision_source(monkeypatch, folder, made, **settings):
    """Returns the source of a class, put into torchvision under the name Made."""
    monkeypatch.setattr(datasets, "Made", made, raising=False)
    return Torchvision("Made", str(folder), **settings)


@pytest.mark.parametrize(
    ("made", "options", "sizes", "classes"),
    [
        (TrainOrTest, {}, {"train": 6, "test": 4}, ("0", "1")),
        (TrainOrTest, {"train": False}, {"train": 4}, ("0", "1")),
        (Letters, {"split": "letters"}, {"train": 6, "test": 4}, ("N/A", "a", "b")),
        (BySplit, {}, {"train": 6, "val": 3, "test": 4}, ("0", "1")),
        (BySplit, {"split": "valid"}, {"train": 3}, ("0", "1")),
        (Trainval, {}, {"train": 4, "test": 4}, ("0", "1")),
        (Unlabelled, {}, {"train": 7}, ()),
    ],
)
def test_torchvision_parts_follow_the_signature(
    tmp_path, monkeypatch, made, options, sizes, classes
):
    source = torchvision_source(monkeypatch, tmp_path, made, options=options)
    found = source()
    assert {part: len(images) for part, images in found.parts.items()} == sizes
    assert found.class_names == classes
    if made is BySplit and not options:
        expected = np.stack(made(tmp_path, "valid").pixels)[:, None]
        assert np.array_equal(found.parts["val"], expected)
    monkeypatch.setattr(datasets, "Made", pytest.fail)
    again = source()
    assert torch.equal(again.train_images, found.train_images)
    assert again.class_names == classes


class UnknownTest(TrainOrTest):
    def __getitem__(self, index):
        return super().__getitem__(index)[0], index % 2 if len(self) == 6 else -1


class UnknownTraining(TrainOrTest):
    def __getitem__(self, index):
        return super().__getitem__(index)[0], index % 2 if len(self) == 4 else -1


def test_test_images_whose_labels_are_not_known_are_left_out(tmp_path, monkeypatch):
    found = torchvision_source(monkeypatch, tmp_path, UnknownTest)()
    assert {part: len(images) for part, images in found.parts.items()} == {"train": 6}
    assert found.class_names == ("0", "1")
    assert "its test images, whose labels are not known, are not used" in found.remarks


def test_labels_of_the_test_alone_are_left_out(tmp_path, monkeypatch):
    found = torchvision_source(monkeypatch, tmp_path, UnknownTraining)()
    assert {part: len(images) for part, images in found.parts.items()} == {"train": 6, "test": 4}
    assert found.num_classes == 0
    assert "labels of test alone are not used" in found.remarks


class Deep(Unlabelled):
    def __getitem__(self, index):
        return Image.fromarray(noise(index, self.shape).astype(np.uint16) * 16), 0


def test_dark_pictures_of_a_data_set_take_a_range(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"give data\.source\.range=\[0,40\d\d\]"):
        torchvision_source(monkeypatch, tmp_path, Deep)()
    found = torchvision_source(monkeypatch, tmp_path, Deep, range=[0, 4095])()
    assert int(found.train_images.max()) > 200
    with pytest.raises(UserError, match="should rise"):
        HuggingFace("us/photos", str(tmp_path), range=[1, 0])


def test_colour_among_grey_items_is_told_what_can_be_done():
    items = Items(Image.fromarray(noise(0, (8, 8))), Image.fromarray(noise(1, (8, 8, 3))))
    with pytest.raises(UserError, match=r"has colour.*its transform .*convert\('RGB'\)") as error:
        DatasetItems(items)()
    assert "data.source" not in str(error.value)


def test_torchvision_attributes_are_columns(tmp_path, monkeypatch):
    found = torchvision_source(monkeypatch, tmp_path, Faces)()
    assert sorted(found.column_names) == ["Hat", "Smiling"]
    assert found.column("Smiling").train.tolist() == [0, 1, 0, 1, 0, 1]


def test_settings_of_sources_that_read_pictures(tmp_path, monkeypatch):
    source = torchvision_source(monkeypatch, tmp_path, Several, size=[12, 10], ground="black")
    assert source_settings(source) == ImageSettings((12, 10), ground="black")
    assert source_settings(DatasetItems(Unlabelled(tmp_path))) == ImageSettings()
    source.settings = {"size": 8}  # of a source of the user's own
    assert source_settings(source) is None


def test_torchvision_pictures_get_a_size(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"several sizes.*data.source.size=64"):
        torchvision_source(monkeypatch, tmp_path, Several)()
    found = torchvision_source(monkeypatch, tmp_path, Several, size=[12, 10], channels=3)()
    assert found.train_images.shape == (7, 3, 12, 10)
    assert "all images resized from 9 x 8 up to 10 x 8" in found.remarks


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("SVNH", {}, "did you mean SVHN"),
        ("__name__", {}, "no such data set"),
        ("SVHN", {"splitt": 1}, "options.splitt: SVHN has no such option; did you mean split"),
        ("EMNIST", {}, "missing 1 required positional argument: 'split'; give it in"),
        ("KMNIST", {}, "is not in .*, or damaged, and could not be downloaded"),
    ],
)  # fmt: skip
def test_torchvision_set_that_cannot_be_had_is_one_line(tmp_path, monkeypatch, name, options, said):
    def fail(*_, **__):
        raise OSError("no network here\nat all")

    monkeypatch.setattr(datasets.mnist, "download_and_extract_archive", fail)
    with pytest.raises(UserError, match=said) as error:
        Torchvision(name, str(tmp_path), options=options)()
    assert "\n" not in str(error.value)


def test_torchvision_options_that_are_given_here_are_refused():
    with pytest.raises(UserError, match=r"data.source.options.root: cannot be given"):
        Torchvision("SVHN", "data", options={"root": "/elsewhere"})


def write_raw(path, values):
    """Writes an array as a file of MNIST's format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = b"".join(size.to_bytes(4, "big") for size in values.shape)
    content = bytes([0, 0, 8, values.ndim]) + shape + values.tobytes()
    path.write_bytes(content)
    with gzip.open(f"{path}.gz", "wb") as file:
        file.write(content)


@pytest.fixture
def kmnist(tmp_path):
    """A folder with files as torchvision's KMNIST wants them; returns it and the images by part."""
    images = {"train": noise(0, (30, 28, 28)), "t10k": noise(1, (10, 28, 28))}
    for part, pixels in images.items():
        raw = tmp_path / "KMNIST" / "raw"
        write_raw(raw / f"{part}-images-idx3-ubyte", pixels)
        write_raw(raw / f"{part}-labels-idx1-ubyte", np.arange(len(pixels), dtype=np.uint8) % 5)
    return tmp_path, images


def test_torchvision_reads_files_that_are_there_without_a_download(kmnist):
    folder, images = kmnist
    found = Torchvision("KMNIST", str(folder))()
    assert np.array_equal(found.train_images[:, 0], images["train"])
    assert np.array_equal(found.test_images[:, 0], images["t10k"])
    assert found.class_names == tuple(datasets.KMNIST.classes)
    assert found.train_labels.tolist() == [i % 5 for i in range(30)]


def test_torchvision_downloads_what_is_not_there(kmnist, tmp_path_factory, monkeypatch):
    folder, images = kmnist
    elsewhere = tmp_path_factory.mktemp("empty")

    def copy(url, download_root, filename, md5):
        shutil.copy(folder / "KMNIST" / "raw" / filename.removesuffix(".gz"), download_root)

    monkeypatch.setattr(datasets.mnist, "download_and_extract_archive", copy)
    found = Torchvision("KMNIST", str(elsewhere))()
    assert np.array_equal(found.test_images[:, 0], images["t10k"])


@pytest.mark.parametrize(
    "name", [name for name in dir(datasets) if is_data_set(getattr(datasets, name))]
)
def test_parameters_of_every_torchvision_class_are_known(name):
    known = parameter_names(getattr(datasets, name))
    assert name == "FakeData" or "root" in known
    assert known & {"train", "split"} or name not in ("EMNIST", "ImageNet", "CelebA", "QMNIST")


# Hugging Face


def fake_library(splits, features):
    """Returns a stand-in of the library `datasets`, with one data set called us/photos."""

    class Split(list):
        def __init__(self, rows):
            super().__init__(rows)
            self.features = features

        def select_columns(self, names):
            return [{name: row[name] for name in names} for row in self]

    def load(name, config=None, **_):
        if name != "us/photos":
            raise FileNotFoundError(f"{name} is not on the hub\n(at all)")
        return {split: Split(rows) for split, rows in splits.items()}

    return SimpleNamespace(load_dataset=load, load_from_disk=load, __version__="5.2.0")


def feature(kind, **more):
    """Returns a stand-in of a feature, whose class has this name."""
    return type(kind, (), more)()


def rows(count, start=0):
    """Returns rows with a picture, a label and a text."""
    return [
        {"pic": Image.fromarray(noise(start + i)), "kind": i % 2, "text": "x"} for i in range(count)
    ]


@pytest.fixture
def library(monkeypatch):
    """Puts a stand-in of the library in place, whose data set has three parts and one more."""
    features = {
        "pic": feature("Image"),
        "kind": feature("ClassLabel", names=["cat", "dog"]),
        "text": feature("Value"),
    }
    splits = {"train": rows(6), "validation": rows(3, 6), "test": rows(4, 9), "extra": rows(2)}
    monkeypatch.setitem(sys.modules, "datasets", fake_library(splits, features))
    return splits, features


def test_hugging_face_data_set_is_prepared(tmp_path, library, monkeypatch):
    found = HuggingFace("us/photos", str(tmp_path))()
    assert {part: len(images) for part, images in found.parts.items()} == {
        "train": 6, "val": 3, "test": 4,
    }  # fmt: skip
    assert found.class_names == ("cat", "dog")
    assert np.array_equal(found.val_images[:, 0], np.stack([noise(6 + i) for i in range(3)]))
    assert found.train_labels.tolist() == [0, 1] * 3
    assert "splits not used: extra" in found.remarks
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert len(HuggingFace("us/photos", str(tmp_path))().train_images) == 6


def test_hugging_face_columns_that_are_in_doubt_are_refused(tmp_path, library):
    _, features = library
    features["other"] = feature("Image")
    with pytest.raises(UserError, match=r"data\.source\.image=; pic, other"):
        HuggingFace("us/photos", str(tmp_path))()
    assert HuggingFace("us/photos", str(tmp_path), image="pic", label="text")().class_names == (
        "x",
    )
    with pytest.raises(UserError, match=r"label=typo: possible are pic, kind"):
        HuggingFace("us/photos", str(tmp_path), image="pic", label="typo")()


def test_hugging_face_errors_are_one_line(tmp_path, library, monkeypatch):
    splits, _ = library
    with pytest.raises(UserError, match=r"us/other: could not be loaded \(us/other is not on") as e:
        HuggingFace("us/other", str(tmp_path))()
    assert "\n" not in str(e.value)
    monkeypatch.setattr(sys.modules["datasets"], "__version__", "4.9.1")
    with pytest.raises(UserError, match=r"needs datasets of version 5, and 4\.9\.1 is installed"):
        HuggingFace("us/photos", str(tmp_path))()
    monkeypatch.setattr(sys.modules["datasets"], "__version__", "5.2.0")
    del splits["train"]
    with pytest.raises(UserError, match="has no split train, but validation, test"):
        HuggingFace("us/photos", str(tmp_path))()
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r'pip install "vaelab\[datasets\]"'):
        HuggingFace("us/photos", str(tmp_path))()


def test_hugging_face_data_set_saved_on_the_disk_is_read(tmp_path):
    library = pytest.importorskip("datasets")
    columns = {"image": [noise(i) for i in range(8)], "label": [i % 2 for i in range(8)]}
    columns["image"] = [Image.fromarray(pixels) for pixels in columns["image"]]
    features = {"image": library.Image(), "label": library.ClassLabel(names=["cat", "dog"])}
    made = library.Dataset.from_dict(columns, features=library.Features(features))
    made.train_test_split(0.25, shuffle=False).save_to_disk(str(tmp_path / "saved"))
    found = HuggingFace(str(tmp_path / "saved"), str(tmp_path / "data"))()
    assert np.array_equal(found.train_images[:, 0], np.stack([noise(i) for i in range(6)]))
    assert found.test_labels.tolist() == [0, 1]
    assert found.class_names == ("cat", "dog")


def test_hugging_face_folders_of_one_name_are_kept_apart_and_read_anew(tmp_path, monkeypatch):
    def load(name):
        """Stands in for `load_from_disk`: pictures of the level that is in `state.json`."""
        level = int(Path(name, "state.json").read_text())
        picture = Image.fromarray(np.full((8, 8), level, np.uint8) + np.eye(8, dtype=np.uint8))
        return fake_library({"train": [{"pic": picture}]}, pictures).load_dataset("us/photos")

    pictures = {"pic": feature("Image")}
    library = fake_library({}, {})
    library.load_from_disk = load
    monkeypatch.setitem(sys.modules, "datasets", library)

    def read(folder):
        """The level of the pictures of the data set `mine` in a folder, and what is said of it."""
        monkeypatch.chdir(tmp_path / folder)
        found = HuggingFace("mine", str(tmp_path / "data"))()
        return int(found.train_images.min()), found.remarks

    for name, level in (("one", 150), ("two", 250)):
        (tmp_path / name / "mine").mkdir(parents=True)
        (tmp_path / name / "mine" / "state.json").write_text(str(level))
    assert (read("one")[0], read("two")[0]) == (150, 250)
    (tmp_path / "two" / "mine" / "state.json").write_text("200")
    assert read("one")[0] == 150
    level, remarks = read("two")
    assert (level, remarks[0]) == (200, "mine has changed, and its images were decoded anew")
    assert not any("changed" in said for said in read("two")[1])
