"""Tests of encoded images: latents, bounds, scores, labels, and the readers and writers of files.

Values are compared with those of the model itself, and files with what was written to them.
"""

import json
import os
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from support.image_folders import noise, save_image
from torch.testing import assert_close

from vaelab.api.arrays import to_numpy
from vaelab.data.folder import Folder
from vaelab.data.image_settings import ImageSettings
from vaelab.errors import DamagedFileError, UserError
from vaelab.evaluation import encoded_files, encoding
from vaelab.evaluation.encoding import encode_images
from vaelab.evaluation.given_images import read_given_arrays
from vaelab.files.image_decoding import SUFFIXES
from vaelab.pictures.image_folders import read_image_as_trained, read_image_folder

SMALL = ["network=mlp", "model.encoder.hidden=[8]", "model.decoder.hidden=[8]"]
LATENTS = "model.latent_dim=4"


def random_images(count=250, shape=(1, 8, 8)):
    """Returns random images uint8 [N, C, H, W], always the same."""
    return np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)


def random_bits(count=250):
    """Returns random black and white images, whose binary pixels are not random."""
    return np.random.default_rng(1).integers(0, 2, (count, 1, 8, 8), np.uint8) * 255


@pytest.fixture
def vae(build):
    """A small unconditional VAE of 8 x 8 binary pixels."""
    return build(*SMALL, LATENTS, x_shape=(1, 8, 8)).eval()


@pytest.fixture
def cvae(build):
    """A small conditional VAE of 8 x 8 binary pixels and three classes."""
    model = build("model=cvae", *SMALL, LATENTS, x_shape=(1, 8, 8), num_classes=3).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # at the start labels have no effect
            parameter += 0.1 * torch.randn_like(parameter)
    return model


KINDS = {
    "gaussian": ["model=vae"],
    "full_gaussian": ["model=vae", "posterior=full_gaussian"],
    "iaf": ["model=vae", "posterior=iaf", "model.posterior.hidden=[8]"],
    "points": ["model=ae"],
    "codes": ["model=vq_vae", "model.posterior.codes=5", "model.posterior.width=2"],
    "levels": ["model=ladder_vae", "model.above=[3]", "model.hidden=8"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_encode_images_returns_posterior_and_applicable_bounds(build, kind):
    model = build(*KINDS[kind], *SMALL, LATENTS, x_shape=(1, 8, 8), num_classes=0).eval()
    images = random_bits(5)
    found = encode_images(model, images, num_samples=3)
    with torch.no_grad():
        q = model.latent_posterior(torch.from_numpy(images).float() / 255, torch.zeros(5, 0))
    latents = {"levels": 7}.get(kind, 4)
    assert found["mean"].shape == (5, latents)
    assert_close(torch.from_numpy(found["mean"]), q.mean)
    bounds = ["distortion", "rate", "elbo", "nll"]
    if kind == "points":
        assert [*found] == ["index", "mean", "distortion"]
        assert "latents are points" in encoding.missing_arrays(found)
    elif kind == "codes":
        assert [*found] == ["index", "mean", "code", *bounds]
        vectors = model.posterior.code_vectors(torch.from_numpy(found["code"]))
        assert_close(torch.from_numpy(found["mean"]), vectors.detach())
        assert "latents are codes" in encoding.missing_arrays(found)
    else:
        assert [*found] == ["index", "mean", "scale", *bounds]
        assert_close(torch.from_numpy(found["scale"]), q.stddev)
        assert encoding.missing_arrays(found) is None
    if "elbo" in found:
        assert_close(found["elbo"], -(found["distortion"] + found["rate"]))
        assert (found["nll"] <= -found["elbo"] + 1e-3).mean() > 0.5


def test_encoded_row_depends_on_its_place_and_seed_alone(vae):
    images = random_images(250)
    every = encode_images(vae, images, num_samples=5)
    first = encode_images(vae, np.concatenate([images[:100], 255 - images[100:130]]), num_samples=5)
    for name, values in first.items():
        np.testing.assert_array_equal(values[:100], every[name][:100])
    single = encode_images(vae, images[:1], num_samples=5)
    np.testing.assert_allclose(single["mean"][0], every["mean"][0], atol=1e-6)  # the same bits
    again = encode_images(vae, images, num_samples=5)
    other = encode_images(vae, images, num_samples=5, seed=1)
    assert all((again[name] == every[name]).all() for name in every)
    assert not np.isclose(other["mean"], every["mean"], atol=1e-6).all(1).any()


PIXELS = {"binary": "bernoulli", "dequantized": "gaussian", "grey": "categorical"}


@pytest.mark.parametrize("kind", PIXELS)
def test_own_batches_have_the_pixels_of_the_model(build, kind):
    model = build(*SMALL, LATENTS, f"likelihood={PIXELS[kind]}", x_shape=(1, 8, 8))
    assert model.pixels == kind
    images, y = torch.from_numpy(random_images(130)), torch.zeros(130, 10)
    levels = images.float()
    rows = torch.arange(130)
    batches = [*encoding.own_batches(model, images, y, rows, 0, lambda work, _: work)]
    assert [len(x) for x, _ in batches] == [100, 30]
    x = torch.cat([x for x, _ in batches])
    if kind == "binary":
        assert {*x.unique().tolist()} == {0, 1}
        assert float((x - levels / 255).mean()) == pytest.approx(0, abs=0.02)
    elif kind == "dequantized":
        assert ((x * 256 >= levels) & (x * 256 <= levels + 1)).all()
        assert len((x * 256 - levels).unique()) > 1000
    else:
        assert_close(x, levels / 255)
    few = next(encoding.own_batches(model, images, y, rows[40:45], 0, lambda work, _: work))[0]
    assert torch.equal(few, x[40:45])


def test_encode_images_does_not_touch_torch_random_state(vae):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    encode_images(vae, random_images(5), num_samples=2)
    assert torch.equal(torch.rand(4), expected)


def test_encode_images_takes_one_label_for_all_and_refuses_wrong_numbers_of_samples(cvae):
    images, named = random_bits(3), cvae.label_names[1]
    found = encode_images(cvae, images, named, num_samples=1)
    every = encode_images(cvae, images, [named] * 3, num_samples=1)
    assert all(np.array_equal(found[name], every[name]) for name in every)
    for wrong in ("10", 1.5, None, -1, True):
        with pytest.raises(UserError, match=r"^num_samples=.*: should be a whole number, or 0"):
            encode_images(cvae, images, named, num_samples=wrong)


def test_encode_images_without_nll(vae):
    found = encode_images(vae, random_images(5), num_samples=0)
    assert [*found] == ["index", "mean", "scale", "distortion", "rate", "elbo"]
    assert encoding.choose_score(found, "auto") == "elbo"
    with pytest.raises(UserError, match="score=nll: takes num_samples of 1 or more; possible"):
        encoding.choose_score(found, "nll")


def test_encode_images_takes_ranges_and_tensors_as_data_does(vae):
    images = random_bits(6)
    expected = encode_images(vae, images, num_samples=2)
    for same, span in (
        (images / 255.0, (0, 1)),
        (images / 255.0, None),
        (images.transpose(0, 2, 3, 1), None),
        ([*images], None),
        (torch.from_numpy(images) / 127.5 - 1, (-1, 1)),
        (images > 0, None),
        (images[:, 0], None),
        (torch.from_numpy(images), None),
    ):
        found = encode_images(vae, same, num_samples=2, span=span)
        assert all((found[name] == expected[name]).all() for name in expected)


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (random_images(2, (1, 9, 8)), r"the images are 1 x 9 x 8, and this model takes 1 x 8 x 8"),
        (random_images(2, (3, 8, 8)), r"the images are 3 x 8 x 8, and this model takes 1 x 8 x 8"),
        (random_images(2) * 2.0, r"say which values are black and white: span=\[0,\d+\]"),
        (random_images(2) / 127.5 - 1, r"or span=\[-1,1\]"),
        (random_images(2) // 128, r"nearly black, if 255 is white; give span=\[0,1\]"),
        (random_images(0), "there are no images"),
        (np.full((2, 8, 8), np.nan), r"images\[0\] is not finite"),
        (np.zeros((8, 8)), r"should be \(N, H, W\) or \(N, C, H, W\)"),
        (np.array([["a"]]), r"should be \(N, H, W\)"),
    ],
)
def test_encode_images_refuses_unfit_images(vae, images, said):
    with pytest.raises(UserError, match=said):
        encode_images(vae, images, num_samples=1)


def test_tensors_of_every_type_are_encoded(vae):
    images = random_bits(3)
    expected = encode_images(vae, images, num_samples=0)["mean"]
    for same in (
        torch.from_numpy(images).bfloat16() / 255,
        (torch.from_numpy(images) / 255).requires_grad_(),
        images.astype(np.uint16),
        images.tolist(),
    ):
        assert (encode_images(vae, same, num_samples=0)["mean"] == expected).all()
    with pytest.raises(UserError, match="no array of numbers"):
        encode_images(vae, [images[0], images[0, :, :4]], num_samples=0)
    assert to_numpy("images", torch.ones(2).bfloat16()).tolist() == [1, 1]


def test_one_label_is_that_of_all_images(cvae):
    images = random_bits(3)
    found = encode_images(cvae, images, 1, num_samples=0)
    assert (found["mean"] == encode_images(cvae, images, [1, 1, 1], num_samples=0)["mean"]).all()
    assert found["label"].tolist() == [1, 1, 1]


def test_labels_by_name_index_and_one_hot_are_the_same(cvae):
    images, classes = random_bits(6), np.array([0, 1, 2, 2, 1, 0])
    cvae.class_names = {"label": ["ant", "bee", "cat"]}
    names = np.array(["ant", "bee", "cat"])[classes]
    expected = encode_images(cvae, images, classes, num_samples=2)
    assert expected["label"].tolist() == names.tolist()
    for same in (names, names.astype("S"), np.eye(3)[classes], classes[:, None], [*classes]):
        found = encode_images(cvae, images, same, num_samples=2)
        assert all((found[name] == expected[name]).all() for name in expected)
    other = encode_images(cvae, images, (classes + 1) % 3, num_samples=2)
    assert not np.isclose(other["nll"], expected["nll"]).any()


def test_numbers_as_class_names_are_found_by_name(cvae):
    cvae.class_names = {"label": ["1", "2", "7"]}
    found = encode_images(cvae, random_bits(3), [7, 1, 2], num_samples=1)
    assert found["label"].tolist() == [7, 1, 2]
    one_hot = encode_images(cvae, random_bits(3), np.eye(3)[[2, 0, 1]], num_samples=1)
    assert (one_hot["nll"] == found["nll"]).all()
    assert one_hot["label"].tolist() == [7, 1, 2]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (None, "this model is told the label of each image; give labels"),
        ([0, 1], "label: there are 2 for 3 images"),
        ([0, 1, 3], "3: the classes of label are 0, 1, 2"),
        (["a", "b", "c"], "a: the classes of label are 0, 1, 2"),
        ([0.5, 1, 1], r"label\[0\] is 0.5"),
        ([-1, 1, 1], r"label\[0\] is -1"),
        (np.eye(4)[:3], r"label has shape \(3, 4\), but should be \(3,\) or one-hot \(3, 3\)"),
    ],
)
def test_labels_that_do_not_fit_are_refused(cvae, labels, said):
    with pytest.raises(UserError, match=said):
        encode_images(cvae, random_bits(3), labels, num_samples=1)


def test_labels_of_unconditional_model_are_kept_as_they_are(vae):
    found = encode_images(vae, random_bits(3), ["x", "y", "z"], num_samples=1)
    assert found["label"].tolist() == ["x", "y", "z"]
    with pytest.raises(UserError, match=r"label has shape \(2,\), but should be \(3,\)"):
        encode_images(vae, random_bits(3), [1, 2], num_samples=1)


def test_columns_of_numbers_are_told_to_the_model(build):
    model = build(
        "condition=continuous", *SMALL, LATENTS, x_shape=(1, 8, 8), num_classes=3,
        numbers={"place": 2},
    ).eval()  # fmt: skip
    columns = {"label": np.array([0, 1]), "place": np.array([[0.5, 1], [2, 3]], np.float32)}
    found = encode_images(model, random_bits(2), columns, num_samples=1)
    y = torch.tensor([[1, 0, 0, 0.5, 1], [0, 1, 0, 2, 3]])
    with torch.no_grad():
        q = model.latent_posterior(torch.from_numpy(random_bits(2)).float() / 255, y)
    assert_close(torch.from_numpy(found["mean"]), q.mean)
    with pytest.raises(UserError, match="told the place of each image"):
        encode_images(model, random_bits(2), [0, 1], num_samples=1)
    wrong = columns | {"place": np.ones(2, np.float32)}
    with pytest.raises(UserError, match="place are 1 wide, and this model takes 2"):
        encode_images(model, random_bits(2), wrong, num_samples=1)


def test_quantiles_are_shares_of_reference_at_most_as_high():
    found = encoding.quantiles(np.array([-1.0, 1, 2, 2.5, 9, np.inf]), np.array([2.0, 1, 3, 2]))
    assert found.tolist() == [0, 0.25, 0.75, 0.75, 1, 1]


def test_anomaly_scores_are_higher_for_less_likely_images():
    found = {"elbo": np.array([-3.0, -1]), "rate": np.array([2.0, 1])}
    assert encoding.anomaly_scores(found, "elbo").tolist() == [3, 1]
    assert encoding.anomaly_scores(found, "rate").tolist() == [2, 1]


# Files.


IMAGES, OTHERS, LABELS = random_bits(3), random_bits(4), np.arange(3)
FILES = {
    "images": ({"images": IMAGES, "labels": LABELS, "test_images": OTHERS}, None),
    "one part": ({"test_images": IMAGES, "test_labels": LABELS, "names": np.array(["a"])}, None),
    "chosen part": (
        {"train_images": OTHERS, "test_images": IMAGES, "test_labels": LABELS},
        "test_images",
    ),
    "x and y": ({"x_train": OTHERS[:, 0], "x_test": IMAGES, "y_test": LABELS}, "x_test"),
    "any name": ({"faces": IMAGES, "ids": np.arange(3)}, None),
}


@pytest.mark.parametrize("case", FILES)
def test_read_given_arrays_finds_images_and_labels(tmp_path, case):
    arrays, name = FILES[case]
    np.savez(tmp_path / "mine.npz", **arrays)
    found = read_given_arrays(tmp_path / "mine.npz", name)
    assert (found.images == IMAGES).all()
    assert case == "any name" or (found.columns["label"] == LABELS).all()


def test_read_given_arrays_finds_columns_of_the_same_part(tmp_path):
    place = np.ones((3, 2), np.float32)
    arrays = {"val_images": IMAGES, "val_labels": LABELS, "val_place": place}
    np.savez(tmp_path / "mine.npz", **arrays, train_images=OTHERS, train_place=np.ones((4, 2)))
    found = read_given_arrays(tmp_path / "mine.npz", "val_images")
    assert {name: len(values) for name, values in found.columns.items()} == {"place": 3, "label": 3}


def test_read_given_arrays_refuses_what_is_not_clear(tmp_path):
    path = tmp_path / "mine.npz"
    np.savez(path, train_images=OTHERS, test_images=IMAGES)
    with pytest.raises(UserError, match="has train_images, test_images; say which, as in array=te"):
        read_given_arrays(path)
    with pytest.raises(UserError, match=r"array=val_images: .* has train_images, test_images"):
        read_given_arrays(path, "val_images")
    np.savez(path, ids=np.arange(3))
    with pytest.raises(UserError, match="has no array of images; its arrays are ids"):
        read_given_arrays(path)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DamagedFileError, match="damaged"):
        read_given_arrays(path)


def test_read_given_arrays_reads_npy(tmp_path):
    np.save(tmp_path / "mine.npy", IMAGES)
    found = read_given_arrays(tmp_path / "mine.npy")
    assert (found.images == IMAGES).all()
    assert not found.columns


@pytest.fixture
def folder(tmp_path):
    """A folder of images in subfolders cat and dog, with a hidden file and one that is no image."""
    for i, name in enumerate(("dog/b.png", "cat/deep/z.png", "cat/a.PNG")):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(IMAGES[i, 0]).save(path)
    (tmp_path / "photos" / ".hidden.png").write_text("none")
    return tmp_path / "photos"


def test_read_image_folder_takes_labels_from_subfolders(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = read_image_folder(folder, (1, 8, 8), resize=False, settings=ImageSettings())
    assert [*found.files] == ["cat/a.PNG", "cat/deep/z.png", "dog/b.png"]
    assert found.columns["label"].tolist() == ["cat", "cat", "dog"]
    assert (found.images == IMAGES[::-1]).all()
    (folder / "notes.txt").touch()
    (folder / "cat" / "a.PNG").rename(folder / "a.png")
    found = read_image_folder(folder, (1, 8, 8), resize=False, settings=ImageSettings())
    passed = ["hidden files passed over: 1", "files that are no images passed over: 1"]
    assert [*found.remarks] == passed
    assert [*found.files] == ["a.png", "cat/deep/z.png", "dog/b.png"]
    assert not found.columns


def test_read_image_folder_converts_and_resizes(folder):
    found = read_image_folder(folder, (3, 4, 4), resize=True, settings=ImageSettings())
    assert found.images.shape == (3, 3, 4, 4)
    single = read_image_folder(
        folder / "dog" / "b.png", (3, 8, 8), resize=False, settings=ImageSettings()
    )
    assert (single.images == IMAGES[:1]).all()  # broadcast to three equal channels


@pytest.mark.parametrize(
    "settings",
    [{"size": 8}, {"size": 8, "fit": "crop"}, {"size": [9, 8], "ground": "black"}],
)
def test_read_image_folder_makes_images_as_data_folder_does(folder, tmp_path, settings):
    Image.new("RGBA", (9, 12), (200, 100, 50, 90)).save(folder / "dog" / "c.png")
    source = Folder(str(folder), str(tmp_path / "data"), **settings)
    images = source().train_images
    found = read_image_folder(folder, images.shape[1:], False, source.settings)
    assert (found.images == images.numpy()).all()


def read_by(source, where, **settings):
    """Reads image files as `encode` does for a model that was trained on the images of a source."""
    splits = source()
    shape = splits.train_images.shape[1:]
    given = {"resize": False, "settings": source.settings, "classes": splits.class_names}
    return read_image_folder(where, shape, **given | settings)


LAYOUTS = {
    "classes": ["cat/1.png", "cat/deep/2.png", "dog/3.png"],
    "in a folder": ["in/it/cat/1.png", "in/it/dog/2.png"],
    "parts": ["train/cat/1.png", "train/dog/2.png", "valid/dog/3.png", "test/cat/4.png"],
    "parts in a folder": ["in/Train/a/1.png", "in/Train/b/2.png", "in/test/a/3.png"],
    "parts without classes": ["train/1.png", "test/2.png"],
    "classes named as parts": ["test/1.png", "cat/2.png"],
    "classes named as parts only": ["test/1.png", "val/2.png"],
    "images beside classes": ["1.png", "cat/2.png", "dog/3.png"],
    "of every suffix": [f"{suffix[1:]}/1{suffix}" for suffix in sorted(SUFFIXES)],
    "hidden": [".trash/1.png", "a/._1.png", "a/1.png", "b/2.png", "__MACOSX/3.png"],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_read_image_folder_finds_the_files_and_classes_of_data_folder(tmp_path, layout):
    for number, name in enumerate(LAYOUTS[layout]):
        pixels = Image.fromarray(noise(number, (8, 8)))
        pixels = pixels.convert("1") if name.endswith("pbm") else pixels
        save_image(tmp_path / "photos" / name, pixels)
    source = Folder(str(tmp_path / "photos"), str(tmp_path / "data"), channels=1)
    splits, found = source(), read_by(source, tmp_path / "photos")
    names = [*splits.class_names]
    wanted, labels = {}, {}
    parts = {part: getattr(splits, f"{part}_labels") for part in splits.parts}
    for part, images in splits.parts.items():
        for i, image in enumerate(images.numpy()):
            wanted[image.tobytes()] = names[parts[part][i]] if names else None
    for i, image in enumerate(found.images):
        labels[image.tobytes()] = found.columns["label"][i] if "label" in found.columns else None
    assert labels == wanted


def test_read_image_folder_follows_links_to_classes(folder, tmp_path):
    (folder / "dog").rename(tmp_path / "elsewhere")
    (folder / "dog").symlink_to(tmp_path / "elsewhere")
    (folder / "dog" / "round").symlink_to(folder)
    found = read_image_folder(folder, (1, 8, 8), resize=False, settings=ImageSettings())
    assert [*found.files] == ["cat/a.PNG", "cat/deep/z.png", "dog/b.png"]


@pytest.mark.parametrize(
    ("paths", "classes", "label"),
    [
        (["cat/1/a.png", "cat/2/b.png"], ["cat", "dog"], "cat"),  # of a model that knows it
        (["in/cat/a.png", "in/cat/b.png"], ["cat", "dog"], "cat"),
        (["cat/a.png", "cat/b.png"], [], "cat"),
        (["test/cat/a.png"], [], "cat"),
        (["test/a.png"], [], None),
        (["test/a.png"], ["test", "cat"], "test"),
    ],
)
def test_label_of_images_of_a_single_class(tmp_path, paths, classes, label):
    for number, name in enumerate(paths):
        save_image(tmp_path / "photos" / name, noise(number, (8, 8)))
    settings = ImageSettings()
    found = read_image_folder(tmp_path / "photos", (1, 8, 8), False, settings, classes=classes)
    expected = [label] * len(paths) if label else []
    assert [*found.columns.get("label", [])] == expected


@pytest.mark.parametrize("case", ["lying", "grey", "colour", "palette", "bits", "12 bits"])
def test_read_image_folder_reads_a_picture_as_data_folder_does(tmp_path, case):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned
    pixels = noise(0, (8, 12) if case == "lying" else (8, 8))
    colour = Image.fromarray(noise(1, (8, 8, 3)))
    path = tmp_path / "photos" / "a.png"
    picture, more, settings = {
        "lying": (pixels, {"exif": exif}, {}),
        "grey": (pixels, {}, {"channels": 3}),
        "colour": (colour, {}, {"channels": 1}),
        "palette": (colour.quantize(4), {"transparency": 1}, {"ground": "black"}),
        "bits": (pixels > 127, {}, {}),
        "12 bits": (noise(0, (8, 8), np.uint16) >> 4, {}, {"range": (0, 4095)}),
    }[case]
    save_image(path, picture, **more)
    source = Folder(str(path.parent), str(tmp_path / "data"), **settings)
    splits, found = source(), read_by(source, path)
    assert (found.images == splits.train_images.numpy()).all()
    assert found.remarks == [*splits.remarks]
    assert (
        read_image_as_trained(path, found.images.shape[1:], source.settings) == found.images
    ).all()


def test_read_image_folder_compares_the_size_after_turning_by_late_exif(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save_image(tmp_path / "a.png", noise(0, (9, 8)), exif=exif)
    chunks = path.read_bytes()
    start = chunks.index(b"eXIf") - 4
    stop = start + 12 + int.from_bytes(chunks[start : start + 4], "big")
    end = chunks.index(b"IEND") - 4
    late = chunks[:start] + chunks[stop:end] + chunks[start:stop] + chunks[end:]
    path.write_bytes(late)
    with pytest.raises(UserError, match="is 9 x 8 pixels, and this model takes 8 x 9"):
        read_image_folder(path, (1, 9, 8), False, ImageSettings())


def test_read_image_folder_warns_of_12_bits_in_16(tmp_path):
    path = save_image(tmp_path / "a.png", noise(0, (8, 8), np.uint16) >> 4)
    said = r"no pixel is above 4095, nearly black if 65535 is white; give range=\[0,4095\], or"
    with pytest.warns(UserWarning, match=said):
        read_image_folder(path, (1, 8, 8), False, ImageSettings())


def test_read_image_folder_refuses_32_bits_without_a_range(tmp_path):
    path = save_image(tmp_path / "a.tif", noise(0, (8, 8)).astype(np.float32) / 255)
    with pytest.raises(UserError, match=r"a.tif: cannot be read \(numbers of 32 bits.*range="):
        read_image_folder(path, (1, 8, 8), False, ImageSettings())
    found = read_image_folder(path, (1, 8, 8), False, ImageSettings(span=(0, 1)))
    assert (found.images[0, 0] == noise(0, (8, 8))).all()


def test_read_image_folder_opens_no_pipe(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a.png: cannot be read \(a pipe, not a file\)"):
        read_image_folder(tmp_path / "a.png", (1, 8, 8), False, ImageSettings())


def test_file_names_that_are_no_utf_8_are_written(tmp_path):
    name = os.fsdecode(b"caf\xe9")
    save_image(tmp_path / "photos" / name / "1.png", noise(0, (8, 8)))
    found = read_image_folder(tmp_path / "photos", (1, 8, 8), False, ImageSettings())
    assert [*found.files] == ["caf\ufffd/1.png"]
    assert found.columns["label"].tolist() == ["caf\ufffd"]
    rows = {"file": np.array(found.files), "label": found.columns["label"]}
    encoded_files.write_encoded(tmp_path / "x.csv", rows, {})
    assert pd.read_csv(tmp_path / "x.csv")["file"].tolist() == ["caf\ufffd/1.png"]


def test_read_image_folder_refuses_in_one_line(folder, tmp_path):
    said = "b.png: is 8 x 8 pixels, and this model takes 4 x 6; resize=true stretches it"
    with pytest.raises(UserError, match=said):
        read_image_folder(folder / "dog", (1, 6, 4), resize=False, settings=ImageSettings())
    (folder / "dog" / "b.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"images=.*dog/b.png: cannot be read \("):
        read_image_folder(folder, (1, 8, 8), resize=False, settings=ImageSettings())
    with pytest.raises(UserError, match="no image file has the 5 channels"):
        read_image_folder(folder, (5, 8, 8), resize=False, settings=ImageSettings())
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: there are no images in it"):
        read_image_folder(tmp_path / "empty", (1, 8, 8), resize=False, settings=ImageSettings())


def test_written_files_hold_the_same_values(vae, tmp_path):
    found = encode_images(vae, random_images(5), ["a", "=b", "c", "d", "e"], num_samples=2)
    for suffix in encoded_files.WRITERS:
        encoded_files.write_encoded(tmp_path / f"new/x{suffix}", found, {"seed": 0})
    with np.load(tmp_path / "new" / "x.npz") as file:
        arrays = dict(file)
    assert json.loads(str(arrays.pop("settings"))) == {"seed": 0}
    assert {*arrays} == {*found}
    assert all((arrays[name] == found[name]).all() for name in found)
    parquet = pd.read_parquet(tmp_path / "new" / "x.parquet")
    csv = pd.read_csv(tmp_path / "new" / "x.csv")
    latents = [f"{name}_{i}" for name in ("mean", "scale") for i in range(4)]
    expected = ["index", "label", *latents, "distortion", "rate", "elbo", "nll"]
    assert [*parquet] == [*csv] == expected
    assert parquet["label"].tolist() == ["a", "=b", "c", "d", "e"]
    assert csv["label"].tolist() == ["a", "'=b", "c", "d", "e"]  # no formula in a spreadsheet
    for name in ("distortion", "nll"):
        assert (parquet[name] == found[name]).all()
        assert (csv[name].astype(np.float32) == found[name]).all()
    for i in range(4):
        assert (parquet[f"scale_{i}"] == found["scale"][:, i]).all()


@pytest.mark.parametrize("suffix", encoded_files.WRITERS)
def test_failed_write_leaves_the_older_file(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"x{suffix}"
    path.write_text("older")

    def fail(file, found, settings):
        file.write(b"half")
        raise RuntimeError

    monkeypatch.setitem(encoded_files.WRITERS, suffix, fail)
    with pytest.raises(RuntimeError):
        encoded_files.write_encoded(path, {"index": np.arange(2)}, {})
    assert path.read_text() == "older"
    assert [*tmp_path.iterdir()] == [path]


def test_check_encoded_path_refuses_other_endings_and_folders(tmp_path):
    with pytest.raises(UserError, match=r"to=x.txt: should end in .npz, .csv, .parquet"):
        encoded_files.check_encoded_path(encoded_files.Path("x.txt"))
    (tmp_path / "x.npz").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        encoded_files.check_encoded_path(tmp_path / "x.npz")
