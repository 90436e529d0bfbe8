"""The source of image files in a folder: parts, classes, conversions, changes and faults."""

import os
import random

import numpy as np
import pytest
import torch
from PIL import Image
from support.disks import small_disk
from support.image_folders import (
    folder_error,
    folder_remarks,
    noise,
    read_folder,
    save_folder,
    save_image,
)

from vaelab.data import Folder, image_workers
from vaelab.data.image_workers import ImageWorkers
from vaelab.errors import UserError

TEN = [f"{i}.png" for i in range(10)]


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".pgm", ".webp", ".PNG"])
def test_folder_reads_images_of_every_format_exactly(tmp_path, suffix):
    folder = tmp_path / "photos"
    for i in range(4):
        save_image(folder / f"{i}{suffix}", noise(i), **{"lossless": True} if "w" in suffix else {})
    found = read_folder(folder, channels=1)
    assert found.train_images.dtype == torch.uint8
    expected = np.stack([noise(i) for i in range(4)])[:, None]
    assert np.array_equal(found.train_images.numpy(), expected)
    assert found.num_classes == 0


def test_folder_reads_jpeg_as_pillow_does(tmp_path):
    path = save_image(tmp_path / "photos" / "a.jpeg", noise(0, (16, 24, 3)))
    found = read_folder(tmp_path / "photos").train_images
    with Image.open(path) as image:
        assert np.array_equal(found[0].numpy().transpose(1, 2, 0), np.asarray(image))


def test_folder_classes_are_the_first_subfolders(tmp_path):
    paths = ["dog/1.png", "cat/b/2.png", "cat/a.png", "dog/x/y/3.png"]
    found = read_folder(save_folder(tmp_path / "photos", *paths))
    assert found.class_names == ("cat", "dog")
    assert found.train_labels.tolist() == [0, 0, 1, 1]
    order = [2, 1, 0, 3]  # cat/a.png, cat/b/2.png, dog/1.png, dog/x/y/3.png
    assert np.array_equal(found.train_images[:, 0].numpy(), np.stack([noise(i) for i in order]))


def test_folder_parts_and_their_classes(tmp_path):
    paths = ["train/cat/1.png", "train/dog/2.png", "valid/dog/3.png", "test/cat/4.png"]
    found = read_folder(save_folder(tmp_path / "photos", *paths))
    assert list(found.parts) == ["train", "val", "test"]
    assert found.class_names == ("cat", "dog")
    labels = found.train_labels, found.val_labels, found.test_labels
    assert [part.tolist() for part in labels] == [[0, 1], [1], [0]]
    for part, number in (("val", 2), ("test", 3)):
        assert np.array_equal(found.parts[part][0, 0].numpy(), noise(number))


@pytest.mark.parametrize(
    ("paths", "classes", "said"),
    [
        (TEN, (), None),
        (["img_align/1.png", "img_align/x/2.png"], (), "all in"),
        (["in/it/cat/1.png", "in/it/dog/2.png"], ("cat", "dog"), "all in"),
        (["1.png", "cat/2.png", "dog/3.png"], (), "no classes, for images lie beside the folders"),
        ([f"{i}/{i}.png" for i in range(20)], (), "no classes, for 20 folders are too many"),
        (["train/1.png", "test/2.png"], (), None),
        (["test/1.png", "cat/2.png"], ("cat", "test"), None),
        (["in/train/a/1.png", "in/train/b/2.png", "in/test/a/3.png"], ("a", "b"), "all in"),
        ([".hidden/1.png", "a/._1.png", "a/1.png", "__MACOSX/2.png"], (), "hidden files passed"),
    ],
)  # fmt: skip
def test_folder_layouts(tmp_path, paths, classes, said):
    found = read_folder(save_folder(tmp_path / "photos", *paths))
    assert found.class_names == classes
    assert found.num_classes == len(classes)
    assert said is None or any(remark.startswith(said) for remark in found.remarks)
    if len(found.train_images) > 2:
        assert set(found.remarks) <= set(folder_remarks(found))


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        ([], "there is no such folder"),
        (["notes.txt"], "there are no images in it"),
        (["train/1.png", "test/2.png", "more/3.png"], "are parts, and there are images in"),
        (["train/1.png", "test/2.png", "3.png"], "are parts, and there are images in"),
        (["train/a/1.png", "train/b/2.png", "test/3.png"], "in test images lie beside folders"),
        (["train/a/1.png", "train/b/2.png", "test/c/3.png"], "test has a class c and training has"),
    ],
)  # fmt: skip
def test_folder_without_a_data_set_is_refused(tmp_path, paths, said):
    for path in paths:
        if path.endswith(".txt"):
            (tmp_path / "photos").mkdir()
            (tmp_path / "photos" / path).touch()
        else:
            save_folder(tmp_path / "photos", path)
    assert said in folder_error(tmp_path / "photos")


def test_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "photos").touch()
    assert "a file, not a folder; data=arrays" in folder_error(tmp_path / "photos")


def test_folder_passes_over_what_is_no_image_and_counts_it(tmp_path):
    folder = save_folder(tmp_path / "photos", *TEN)
    for name in ("notes.txt", "Thumbs.db", ".DS_Store"):
        (folder / name).touch()
    os.mkfifo(folder / "pipe.png")
    (folder / "gone.png").symlink_to("nowhere")
    (folder / "round").symlink_to(folder)
    found = read_folder(folder)
    assert len(found.train_images) == 10
    assert "hidden files passed over: 1" in found.remarks
    assert "files that are no images passed over: 4" in found.remarks


def test_images_of_several_sizes_are_refused_with_what_to_type(tmp_path):
    folder = save_folder(tmp_path / "photos", "a.png", "b.png")
    save_image(folder / "c.png", noise(0, (30, 20)))
    message = folder_error(folder)
    for words in ("a.png of 9 x 8", "c.png of 30 x 20", "data.source.size=64", "fit=crop"):
        assert words in message


@pytest.mark.parametrize(("size", "shape"), [(16, (16, 16)), ([12, 10], (12, 10))])
@pytest.mark.parametrize("fit", ["resize", "crop"])
def test_size_makes_images_alike_and_says_so(tmp_path, size, shape, fit):
    folder = tmp_path / "photos"
    half = np.zeros((20, 40), np.uint8)
    half[:, 20:] = 255  # a crop in the middle keeps both halves
    save_image(folder / "a.png", half)
    save_image(folder / "b.png", np.pad(half, ((10, 10), (0, 0))))
    found = read_folder(folder, size=size, fit=fit)
    assert found.train_images.shape == (2, 1, *shape)
    verb = "resized" if fit == "resize" else "cropped and resized"
    assert f"all images {verb} from 20 x 40 up to 40 x 40" in found.remarks
    left, right = found.train_images[0, 0].float().chunk(2, 1)
    assert left.mean() < 20
    assert right.mean() > 235
    assert (found.train_images[1, 0, 0] == 0).all()


def test_too_small_images_are_refused(tmp_path):
    assert "4 x 5 pixels" in folder_error(save_folder(tmp_path / "photos", "a.png", shape=(4, 5)))


def test_images_turned_by_exif(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise
    save_image(tmp_path / "photos" / "a.png", noise(0, (9, 12)), exif=exif)
    save_image(tmp_path / "photos" / "b.png", noise(1, (12, 9)))
    found = read_folder(tmp_path / "photos")
    assert np.array_equal(found.train_images[0, 0].numpy(), np.rot90(noise(0, (9, 12)), -1))
    assert "1 of 2 images turned as their EXIF says" in found.remarks


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_images_are_scaled_to_8(tmp_path, suffix):
    save_image(tmp_path / "photos" / f"a{suffix}", noise(0, kind=np.uint16))
    found = read_folder(tmp_path / "photos")
    expected = np.rint(noise(0, kind=np.uint16) / 257).astype(np.uint8)
    assert np.array_equal(found.train_images[0, 0].numpy(), expected)
    assert "all images scaled from more than 8 bits to 8" in found.remarks


def test_12_bits_in_16_need_a_range(tmp_path):
    pixels = noise(0, kind=np.uint16) >> 4
    save_image(tmp_path / "photos" / "a.png", pixels)
    assert "give data.source.range=[0,4095], or" in folder_error(tmp_path / "photos")
    found = read_folder(tmp_path / "photos", range=(0, 4095)).train_images
    assert np.array_equal(found[0, 0].numpy(), np.rint(pixels * (255 / 4095)).astype(np.uint8))
    assert "beyond data.source.range=[0,100]" in folder_error(tmp_path / "photos", range=(0, 100))


@pytest.mark.parametrize(
    ("highest", "kind"), [(3, np.uint8), (100, np.uint8), (300, np.uint16), (3000, np.uint16)]
)
def test_advised_range_is_one_that_dark_images_fill(tmp_path, highest, kind):
    pixels = np.minimum(noise(0).astype(np.int64), highest).astype(kind)
    pixels[0, 0] = highest
    save_image(tmp_path / "photos" / "a.png", pixels)
    assert f"give data.source.range=[0,{highest}], or" in folder_error(tmp_path / "photos")
    found = read_folder(tmp_path / "photos", range=(0, highest)).train_images
    assert found.max() == 255


def test_dark_masks_need_a_range(tmp_path):
    mask = (noise(0) > 127).astype(np.uint8)
    save_image(tmp_path / "photos" / "a.png", mask)
    assert "give data.source.range=[0,1], or" in folder_error(tmp_path / "photos")
    found = read_folder(tmp_path / "photos", range=(0, 1)).train_images
    assert np.array_equal(found[0, 0].numpy(), mask * 255)
    assert read_folder(tmp_path / "photos", range=(0, 255)).train_images.max() == 1


def test_float_images_need_a_range(tmp_path):
    pixels = noise(0).astype(np.float32) / 255
    save_image(tmp_path / "photos" / "a.tif", pixels)
    assert "numbers of 32 bits" in folder_error(tmp_path / "photos")
    found = read_folder(tmp_path / "photos", range=(0, 1)).train_images
    assert np.array_equal(found[0, 0].numpy(), noise(0))


def test_range_that_falls_is_refused(tmp_path):
    with pytest.raises(UserError, match="should rise"):
        Folder(str(tmp_path), str(tmp_path), range=(1, 0))


@pytest.mark.parametrize(("ground", "level"), [("white", 255), ("black", 0)])
def test_transparent_pixels_show_the_ground(tmp_path, ground, level):
    pixels = noise(0, (9, 8, 4))
    pixels[..., 3] = np.where(np.arange(8) < 4, 255, 0)
    save_image(tmp_path / "photos" / "a.png", pixels)
    found = read_folder(tmp_path / "photos", ground=ground)
    assert found.train_images.shape == (1, 3, 9, 8)
    shown = found.train_images[0, :, :, :4].numpy().transpose(1, 2, 0)
    assert np.array_equal(shown, pixels[:, :4, :3])
    assert (found.train_images[0, :, :, 4:] == level).all()
    assert f"all images with transparent pixels laid on {ground}" in found.remarks  # fmt: skip


def test_channels_are_3_if_an_image_has_colour(tmp_path):
    folder = save_folder(tmp_path / "photos", "a.png", "b.png")
    save_image(folder / "c.png", noise(2, (9, 8, 3)))
    found = read_folder(folder)
    assert found.train_images.shape == (3, 3, 9, 8)
    assert (found.train_images[0] == torch.from_numpy(noise(0))).all()
    assert "2 of 3 images made colour of grey" in found.remarks
    grey = read_folder(folder, channels=1)
    assert grey.train_images.shape == (3, 1, 9, 8)
    assert "1 of 3 images made grey" in grey.remarks


def test_palettes_are_grey_or_colour(tmp_path):
    grey = Image.fromarray(noise(0)).convert("P")
    save_image(tmp_path / "grey" / "a.png", grey)
    assert np.array_equal(read_folder(tmp_path / "grey").train_images[0, 0].numpy(), noise(0))
    colour = Image.fromarray(noise(0, (9, 8, 3))).quantize(8)
    save_image(tmp_path / "colour" / "a.png", colour)
    expected = np.asarray(colour.convert("RGB")).transpose(2, 0, 1)
    assert np.array_equal(read_folder(tmp_path / "colour").train_images[0].numpy(), expected)


def test_one_bit_images_are_black_and_white(tmp_path):
    bits = noise(0) > 127
    save_image(tmp_path / "photos" / "a.png", Image.fromarray(bits))
    assert np.array_equal(read_folder(tmp_path / "photos").train_images[0, 0], bits * 255)


def test_first_of_several_pictures_is_taken_and_said(tmp_path):
    pages = [Image.fromarray(noise(i)) for i in range(3)]
    save_image(tmp_path / "photos" / "a.tif", pages[0], save_all=True, append_images=pages[1:])
    found = read_folder(tmp_path / "photos")
    assert np.array_equal(found.train_images[0, 0].numpy(), noise(0))
    assert "all images of several pictures, of which the first is taken" in found.remarks


FAULTS = {
    "truncated": lambda content: content[: len(content) // 2],
    "empty": lambda _: b"",
    "a text": lambda _: b"<html>404</html>",
    "flipped": lambda content: content[:45] + bytes(20) + content[65:],
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", ["4.png", "10.jpg"])
def test_broken_file_is_named_and_passed_over_on_request(tmp_path, fault, name):
    folder = save_folder(tmp_path / "photos", *TEN)
    path = save_image(folder / name, noise(3, (9, 8)))
    if fault == "flipped" and name.endswith(".jpg"):
        pytest.skip("a JPEG has no checksum")
    path.write_bytes(FAULTS[fault](path.read_bytes()))
    message = folder_error(folder)
    assert message.startswith(f"{path}: cannot be decoded (")
    assert "data.source.broken=skip" in message
    found = read_folder(folder, broken="skip")
    good = [i for i in range(10) if f"{i}.png" != name]
    assert np.array_equal(found.train_images[:, 0].numpy(), np.stack([noise(i) for i in good]))
    assert f"broken files passed over: 1 ({name})" in found.remarks


def test_folder_of_broken_files_alone_is_refused(tmp_path):
    folder = save_folder(tmp_path / "photos", "a.png")
    (folder / "a.png").write_bytes(b"x")
    assert "none of 1 images can be decoded" in folder_error(folder, broken="skip")


def test_labels_stay_with_their_images_where_broken_ones_are_passed_over(tmp_path):
    paths = ["cat/1.png", "cat/2.png", "dog/3.png", "eel/4.png"]
    folder = save_folder(tmp_path / "photos", *paths)
    (folder / "cat/1.png").write_bytes(b"x")
    (folder / "dog/3.png").write_bytes(b"x")
    found = read_folder(folder, broken="skip")
    assert found.class_names == ("cat", "dog", "eel")
    assert found.train_labels.tolist() == [0, 2]
    assert np.array_equal(found.train_images[1, 0].numpy(), noise(3))


def test_image_of_too_many_pixels_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    folder = save_folder(tmp_path / "photos", "a.png", shape=(11, 10))
    assert "more pixels than are decoded" in folder_error(folder)


def test_unreadable_folder_is_one_line(tmp_path, monkeypatch):
    folder = save_folder(tmp_path / "photos", "a/1.png")

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    assert "photos: cannot be read (Permission denied)" in folder_error(folder)


def test_order_of_images_is_not_that_of_the_file_system(tmp_path, monkeypatch):
    folder = save_folder(tmp_path / "photos", *TEN, "b/1.png", "b c/1.png")
    before = read_folder(folder).train_images
    original = os.scandir

    class Shuffled:
        def __init__(self, path):
            self.entries = list(original(path))
            random.Random(1).shuffle(self.entries)

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(os, "scandir", Shuffled)
    again = Folder(str(folder), str(tmp_path / "elsewhere"))()
    assert torch.equal(again.train_images, before)


def prepared_state(folder):
    """Returns the number and time of each prepared file."""
    found = (folder.parent / "prepared").glob("*.safetensors")
    return sorted((path.name, path.stat().st_ino) for path in found)


def test_images_are_decoded_once(tmp_path, monkeypatch):
    folder = save_folder(tmp_path / "photos", *TEN)
    before, state = read_folder(folder), prepared_state(folder)
    monkeypatch.setattr(Folder, "make_arrays", pytest.fail)
    again = read_folder(folder)
    assert torch.equal(again.train_images, before.train_images)
    assert again.remarks == before.remarks
    assert prepared_state(folder) == state


CHANGES = {
    "added": lambda folder: save_image(folder / "more.png", noise(77)),
    "deleted": lambda folder: (folder / "3.png").unlink(),
    "renamed": lambda folder: (folder / "3.png").rename(folder / "99.png"),
    "rewritten": lambda folder: save_image(folder / "3.png", noise(77)),
    "touched": lambda folder: os.utime(folder / "3.png", ns=(5, 5)),
    "moved to a class": lambda folder: save_image(folder / "cat" / "3.png", noise(77)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_prepared_file_is_made_anew_when_the_folder_has_changed(tmp_path, change):
    folder = save_folder(tmp_path / "photos", *TEN)
    before, state = read_folder(folder), prepared_state(folder)
    mapped = before.train_images.clone()
    CHANGES[change](folder)
    after = read_folder(folder)
    assert prepared_state(folder) != state
    fresh = Folder(str(folder), str(tmp_path / "elsewhere"))()
    assert torch.equal(after.train_images, fresh.train_images)
    said = f"{folder} has changed, and its images were decoded anew"
    assert after.remarks == (said, *fresh.remarks)
    assert read_folder(folder).remarks == fresh.remarks
    assert torch.equal(before.train_images, mapped)  # of a process that still uses the old one


def test_settings_have_a_prepared_file_each(tmp_path):
    folder = save_folder(tmp_path / "photos", *TEN)
    for settings in ({}, {"size": 16}, {"size": 16, "fit": "crop"}, {"channels": 3}):
        read_folder(folder, **settings)
    assert len(prepared_state(folder)) == 4


def test_prepared_file_is_enough_where_the_folder_is_gone(tmp_path):
    folder = save_folder(tmp_path / "photos", *TEN)
    before = read_folder(folder)
    folder.rename(tmp_path / "away")
    after = read_folder(folder)
    assert torch.equal(after.train_images, before.train_images)
    assert any("photos is gone" in remark for remark in after.remarks)


def test_damaged_prepared_file_is_named(tmp_path):
    folder = save_folder(tmp_path / "photos", *TEN)
    read_folder(folder)
    (path,) = (tmp_path / "prepared").glob("*.safetensors")
    content = bytearray(path.read_bytes())
    content[-300] ^= 1
    path.write_bytes(content)
    assert f"{path}: damaged, or other data" in folder_error(folder)
    path.unlink()
    assert len(read_folder(folder).train_images) == 10


def test_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    folder = save_folder(tmp_path / "photos", *TEN, shape=(200, 200))
    with small_disk(tmp_path / "prepared", 300) as disk:
        assert "No space left on device" in folder_error(folder)
        assert not [path for path in disk.iterdir() if path.suffix != ".lock"]


@pytest.fixture
def two_workers(monkeypatch):
    """Has images read by two processes, whatever the number of files and cores."""
    monkeypatch.setattr(image_workers, "FILES_PER_WORKER", 1)
    monkeypatch.setattr(image_workers, "num_cores", lambda: 2)


@pytest.mark.slow
def test_processes_give_the_same_images_in_the_same_order(tmp_path, two_workers):
    paths = [f"{'ab'[i % 2]}/{i}.png" for i in range(70)]
    folder = save_folder(tmp_path / "photos", *paths)
    with ImageWorkers(70) as workers:
        assert workers.count == 2
    found = read_folder(folder)
    order = sorted(range(70), key=lambda i: paths[i].split("/"))
    assert np.array_equal(found.train_images[:, 0].numpy(), np.stack([noise(i) for i in order]))


@pytest.mark.slow
def test_broken_file_is_named_by_processes_too(tmp_path, two_workers):
    folder = save_folder(tmp_path / "photos", *TEN)
    (folder / "4.png").write_bytes(b"x")
    assert folder_error(folder).startswith(f"{folder / '4.png'}: cannot be decoded")


@pytest.mark.slow
def test_file_that_crashes_the_decoder_is_named(tmp_path, two_workers, monkeypatch):
    crash = "import os; from vaelab.files import image_decoding as d; f = d.decode_file;"
    crash += "d.FUNCTIONS['decode_file'] = lambda p, h: os.abort() if '/4.' in p else f(p, h);"
    monkeypatch.setattr(image_workers, "PROGRAM", f"{crash} d.serve()")
    folder = save_folder(tmp_path / "photos", *TEN)
    message = folder_error(folder)
    assert message.startswith(f"{folder / '4.png'}: cannot be decoded (it crashes the decoder)")
    assert len(read_folder(folder, broken="skip").train_images) == 9


@pytest.mark.slow
def test_workers_end_where_their_results_are_not_taken(two_workers, tmp_path):
    folder = save_folder(tmp_path / "photos", *TEN)
    paths = [str(folder / path) for path in TEN] * 50
    with ImageWorkers(100) as workers:
        assert next(workers.run("read_header", paths))[0].size == (9, 8)
    assert workers.processes
    assert all(process.poll() is not None for process in workers.processes)
