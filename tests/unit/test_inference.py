"""Tests of what users ask of a model: images and labels in every usual form, and their errors."""

import re
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

import vaelab
from vaelab.api.arrays import to_numpy
from vaelab.data.pixels import from_user
from vaelab.errors import UserError
from vaelab.evaluation.encoding import encode_images
from vaelab.observations import PixelScale, Units
from vaelab.randomness import seeded_generator

SMALL = ["model.latent_dim=3", "model.encoder.hidden=[8]", "model.decoder.hidden=[8]"]
COLOUR = (3, 8, 9)


@pytest.fixture
def vae(build):
    """An unconditional model of grey pixels of three channels."""
    return build(
        "model=vae", "likelihood=gaussian", *SMALL, "data.pixels=grey", x_shape=COLOUR
    ).eval()


@pytest.fixture
def cvae(build):
    """A conditional model of binary pixels and three classes."""
    return build("model=cvae", *SMALL, x_shape=(1, 8, 8), num_classes=3).eval()


BYTES = torch.randint(0, 256, (5, *COLOUR), dtype=torch.uint8, generator=torch.Generator())
FORMS = {
    "uint8": BYTES,
    "numpy": BYTES.numpy(),
    "int64": BYTES.long(),
    "floats": BYTES / 255,
    "float64 numpy": BYTES.numpy() / 255,
    "channels last": BYTES.movedim(1, -1),
    "uint16": BYTES.numpy().astype(np.uint16),
    "list of arrays": [image.numpy() for image in BYTES],
    "list of tensors": [*BYTES],
    "nested lists": BYTES.tolist(),
}


@pytest.mark.parametrize("form", FORMS)
def test_images_in_every_form_are_the_same_x(vae, form):
    x, y = vae.inputs(FORMS[form])
    assert_close(x, BYTES / 255, atol=1e-6, rtol=0)
    assert torch.equal(y, torch.zeros(5, vae.y_dim))
    assert_close(vae.encode(FORMS[form]).mean, vae.latent_posterior(BYTES / 255, y).mean)


def test_single_image_is_a_batch_of_one(vae, cvae):
    assert_close(vae.reconstruct(BYTES[0]), vae.reconstruct(BYTES[:1]))
    assert_close(vae.decode(torch.zeros(3)).mean, vae.decode(torch.zeros(1, 3)).mean)
    grey = np.eye(8, dtype=bool)
    assert cvae.reconstruct(grey, 2).shape == (1, 1, 8, 8)
    assert_close(cvae.reconstruct(grey, 2), cvae.reconstruct(grey[None], [2]))


def test_boolean_bytes_and_float_bits_are_the_same_binary_x(cvae):
    bits = torch.rand(4, 1, 8, 8) < 0.5
    for images in (bits, bits.float(), bits.to(torch.uint8) * 255):
        assert torch.equal(cvae.inputs(images, 0)[0], bits.float())


@pytest.mark.parametrize("kind", ["binary", "dequantized", "grey"])
@pytest.mark.parametrize("form", [lambda k: k, lambda k: k / 255], ids=["bytes", "floats"])
def test_from_user_makes_pixels_of_the_kind(kind, form):
    levels = torch.arange(256, dtype=torch.uint8).repeat(400, 1)
    x = from_user(form(levels), kind, seeded_generator("test"))
    wanted = {"binary": levels[0] / 255, "dequantized": (levels[0] + 0.5) / 256}.get(kind)
    assert_close(x.mean(0), levels[0] / 255 if wanted is None else wanted, atol=0.09, rtol=0)
    assert_close(x.mean(), torch.tensor(0.5), atol=0.005, rtol=0)
    if kind == "binary":
        assert set(x.unique().tolist()) == {0, 1}
    if kind == "dequantized":
        assert ((x * 256).floor() == levels).all()
        assert torch.equal(from_user(x, kind, seeded_generator("test")), x)


WRONG_IMAGES = {
    "another size": (torch.zeros(2, 3, 9, 9), r"images are [B, 3, 8, 9], and these [2, 3, 9, 9]"),
    "a number": (3, "images are [B, 3, 8, 9], and these []"),
    "floats to 255": (BYTES.float(), "pixels of floats are in [0, 1], and these are 0 to 255"),
    "negative floats": (BYTES / 127.5 - 1, "pixels of floats are in [0, 1]"),
    "NaN": (torch.full((1, *COLOUR), torch.nan), "pixels of floats are in [0, 1]"),
    "large integers": (BYTES.long() * 2, "whole pixels are 0 to 255, and these 0 to 510"),
    "no images": (torch.zeros(0, *COLOUR), "there are no images"),
    "text": ("photo.png", "images: a str is no array of numbers"),
    "none": (None, "images: a NoneType is no array of numbers"),
    "ragged": ([[1, 2], [3]], "images: a list is no array of numbers"),
    "complex": (torch.zeros(1, *COLOUR, dtype=torch.complex64), "these are complex"),
}


@pytest.mark.parametrize("case", WRONG_IMAGES)
@pytest.mark.parametrize("method", ["encode", "reconstruct", "log_evidence", "__call__"])
def test_wrong_images_are_refused_in_one_sentence(vae, case, method):
    images, said = WRONG_IMAGES[case]
    with pytest.raises(UserError, match=re.escape(said)) as error:
        getattr(vae, method)(images)
    assert "\n" not in str(error.value)


SCALES = {
    "bytes": PixelScale(),
    "signed floats": PixelScale.of_data((-1, 1), has_floats=True),
    "floats to 255": PixelScale.of_data((0, 255), has_floats=True),
    "16 levels": PixelScale.of_data((0, 16), has_floats=False),
    "signs": PixelScale.of_data((-1, 1), has_floats=False),
}


@pytest.mark.parametrize("kind", ["binary", "dequantized", "grey"])
@pytest.mark.parametrize("case", SCALES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.float16])
def test_dark_images_are_read_alone_as_among_others(case, kind, dtype):
    scale = SCALES[case]
    black, white = scale.span(dtype.is_floating_point)
    share = torch.rand(200, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    share[:100] *= 0.05
    images = black + (white - black) * share
    images = (images if dtype.is_floating_point else images.round()).to(dtype)
    if not dtype.is_floating_point:
        images[0, 0, 0, :2] = torch.tensor([black, min(white, 2)])  # not bits alone
    alone, among = (
        from_user(some, kind, seeded_generator("test"), scale) for some in (images[:100], images)
    )
    levels = ((images.double() - black) / (white - black))[:100].mean()
    assert_close(alone.double().mean(), among[:100].double().mean(), atol=0.01, rtol=0)
    assert_close(alone.double().mean(), levels, atol=0.01, rtol=0)


def test_floats_of_0_to_1_on_another_scale_are_read_by_it_with_a_warning(vae):
    vae.pixel_scale = PixelScale.of_data((0, 16), has_floats=True)
    with pytest.warns(UserWarning, match="floats from 0 to 1, read with 0 as black and 16 as wh"):
        assert vae.inputs(BYTES / BYTES.max())[0].max() == 16 / 255
    with warnings.catch_warnings(action="error"):
        vae.inputs(BYTES / 255 * 16)
        vae.inputs(BYTES * 0.0)  # black


@pytest.mark.parametrize(
    "plain",
    [
        {},
        {"floats": [0, 1]},
        {"floats": [0, 1, 2], "whole": [0, 255]},
        {"floats": ["a", 1], "whole": [0, 255]},
        {"floats": [1, 0], "whole": [0, 255]},
        {"floats": [0, float("nan")], "whole": [0, 255]},
        {"floats": [0, 1], "whole": [0, float("inf")]},
    ],
)
def test_damaged_scale_is_refused(plain):
    with pytest.raises(UserError, match="pixel_scale: "):
        PixelScale.from_plain(plain)


def test_floats_may_leave_the_scale_by_rounding_only(vae):
    x, _ = vae.inputs(BYTES / 255 * (1 + 1e-6) - 1e-7)
    assert_close(x, BYTES / 255, atol=1e-5, rtol=0)
    assert 0 <= x.min() <= x.max() <= 1


def test_numbers_outside_of_the_scale_are_refused_by_what_is_possible(vae):
    vae.pixel_scale = PixelScale.of_data((-1, 1), has_floats=True)
    with pytest.raises(UserError, match=r"floats are in \[-1, 1\], and these are 0 to 255; give"):
        vae.encode(BYTES.float())
    vae.pixel_scale = PixelScale()
    for most in (3, 16, 4095):
        with pytest.raises(UserError, match="scale them") as error:
            vae.encode(BYTES / 255 * most)
        assert "divide" not in str(error.value)
    with pytest.raises(UserError, match="0 and 1, nearly black; give black and white as booleans"):
        vae.encode((BYTES > 127).long())
    assert vae.inputs((BYTES * 0).long())[0].max() == 0


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.int16, np.float16])
def test_numbers_of_every_type_are_the_same_x(vae, dtype):
    scale = 255 if dtype == np.float16 else 1
    images = (BYTES.numpy() / scale).astype(dtype)
    assert_close(vae.inputs(images)[0], BYTES / 255, atol=1e-3, rtol=0)
    assert_close(vae.inputs(torch.from_numpy(images))[0], BYTES / 255, atol=1e-3, rtol=0)


def test_pictures_of_pillow_are_images(vae):
    pictures = [Image.fromarray(image.movedim(0, -1).numpy()) for image in BYTES]
    assert_close(vae.inputs(pictures)[0], BYTES / 255)
    assert_close(vae.inputs(pictures[0])[0], BYTES[:1] / 255)


@pytest.mark.parametrize("mode", ["P", "RGBA", "CMYK", "LA"])
def test_pictures_whose_numbers_are_no_brightness_are_refused(vae, mode):
    picture = Image.fromarray(BYTES[0].movedim(0, -1).numpy()).convert("RGB").convert(mode)
    for given in (picture, [picture]):
        with pytest.raises(UserError, match=f"a picture of mode {mode}; give picture.convert"):
            vae.encode(given)
        with pytest.raises(UserError, match=f"a picture of mode {mode}; give picture.convert"):
            encode_images(vae, given, num_samples=0)
        with pytest.raises(UserError, match=f"a picture of mode {mode}; give picture.convert"):
            to_numpy("images", given)


LABELS = {
    "list": [2, 0],
    "numpy": np.array([2, 0]),
    "column": np.array([[2], [0]]),
    "tensor": torch.tensor([2, 0]),
    "floats": np.array([2.0, 0.0]),
    "names": ["2", "0"],
    "one-hot": torch.eye(3)[[2, 0]],
    "one-hot bytes": np.eye(3, dtype=np.uint8)[[2, 0]],
    "dictionary": {"label": [2, 0]},
}


@pytest.mark.parametrize("form", LABELS)
def test_labels_in_every_form_are_the_same_y(cvae, form):
    images = torch.zeros(2, 1, 8, 8)
    assert torch.equal(cvae.inputs(images, LABELS[form])[1], torch.eye(3)[[2, 0]])


def test_one_label_is_that_of_all_images(cvae):
    images = torch.zeros(4, 1, 8, 8)
    for label in (1, "1", [1], np.int64(1), torch.tensor(1)):
        assert torch.equal(cvae.inputs(images, label)[1], torch.eye(3)[[1] * 4])


def test_named_classes_are_told_by_name_or_index(cvae):
    cvae.class_names = {"label": ["cat", "dog", "cow"]}
    for labels in (["dog", "cat"], [1, 0], np.array(["dog", "cat"])):
        assert torch.equal(cvae.rows_of_labels(labels), torch.eye(3)[[1, 0]])
    cvae.class_names = {"label": ["5", "7", "9"]}
    assert torch.equal(cvae.rows_of_labels([7, "9"]), torch.eye(3)[[1, 2]])
    with pytest.raises(UserError, match="1: the classes of label are 5, 7, 9"):
        cvae.rows_of_labels([1])


WRONG_LABELS = {
    "none": (None, "this model is conditional on label (3 classes): give labels"),
    "unknown": ([0, 3], "3: the classes of label are 0, 1, 2"),
    "too many": ([0, 1, 2], "there are 3 labels for 2 images"),
    "another width": (
        np.zeros((2, 4)),
        "label has shape (2, 4), but should be (2,) or one-hot (2, 3)",
    ),
    "another column": (
        {"shape": [0, 1]},
        "and labels lacks label and has shape, which is none of these",
    ),
    "a half": ([0.5, 1], "label[0] is 0.5; labels are 0, 1, ... or texts"),
}


@pytest.mark.parametrize("case", WRONG_LABELS)
def test_wrong_labels_are_refused_in_one_sentence(cvae, case):
    labels, said = WRONG_LABELS[case]
    with pytest.raises(UserError, match=re.escape(said)) as error:
        cvae.encode(torch.zeros(2, 1, 8, 8), labels)
    assert "\n" not in str(error.value)


def test_several_columns_are_told_by_a_dictionary():
    shapes = {"x_shape": (1, 8, 8), "classes": {"shape": 2}, "numbers": {"angle": 2}}
    model = vaelab.build("vae", condition="continuous", overrides=SMALL, **shapes).eval()
    y = model.rows_of_labels({"shape": [1, 0], "angle": [[0.6, 0.8], [1, 0]]})
    assert_close(y, torch.tensor([[0, 1, 0.6, 0.8], [1, 0, 1, 0]]))
    assert_close(model.rows_of_labels({"shape": 1, "angle": [0.6, 0.8]}), y[:1])
    assert_close(model.rows_of_labels(y), y)
    with pytest.raises(UserError, match=r"on shape \(2 classes\) and angle \(2 numbers\): give"):
        model.sample(3)
    with pytest.raises(UserError, match=r"give labels as \{'shape': \.\.\., 'angle': \.\.\.\}"):
        model.sample(3, label=1)
    with pytest.raises(UserError, match="angle: should be 2 finite numbers for each image"):
        model.sample(3, label={"shape": 1, "angle": [1, 2, 3]})


def test_sample_by_count_and_by_labels(vae, cvae):
    assert vae.sample(4).shape == (4, *COLOUR)
    assert vae.sample().shape == (1, *COLOUR)
    assert torch.equal(vae.sample(4, seed=1), vae.sample(4, seed=1))
    assert not torch.equal(vae.sample(4, seed=1), vae.sample(4, seed=2))
    state = torch.get_rng_state()
    cvae.sample(2, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    in_turn = torch.eye(3)[[0, 1, 2, 0]]
    assert torch.equal(cvae.rows_in_turn(None, 4), in_turn)
    assert torch.equal(cvae.rows_in_turn([2, 1], 3), torch.eye(3)[[2, 1, 2]])
    assert torch.equal(cvae.rows_in_turn("1", 2), torch.eye(3)[[1, 1]])
    assert cvae.sample([1, 2, 2]).shape == (3, 1, 8, 8)
    assert torch.equal(cvae.sample(torch.eye(3), seed=5), cvae.sample([0, 1, 2], seed=5))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((0,), "count=0: should be a whole number of at least 1"),
        ((2, 1), "this model is not conditional, and has no labels to sample by"),
        (([1, 2],), "this model is not conditional, and has no labels"),
    ],
)
def test_impossible_samples_of_an_unconditional_model_are_refused(vae, arguments, said):
    with pytest.raises(UserError, match=said):
        vae.sample(*arguments)


@pytest.mark.parametrize("count", [2.5, None, True, float("nan"), -1, 0, np.array(0.5)])
def test_counts_that_are_no_whole_number_are_refused(vae, cvae, count):
    for model in (vae, cvae):
        with pytest.raises(UserError, match=r"^count=.*: should be a whole number"):
            model.sample(count)


def test_wrong_arguments_of_sample_are_refused_in_one_sentence(cvae):
    for seed in (1.5, "a", 2**70):
        with pytest.raises(UserError, match=r"^seed=.*: should be a whole number of 64 bits"):
            cvae.sample(2, seed=seed)
    with pytest.raises(UserError, match="label: there are no labels"):
        cvae.sample([])
    with pytest.raises(UserError, match="label: give it with a count"):
        cvae.sample([1, 2], label=0)
    assert len(cvae.sample(torch.tensor(3))) == 3


def test_inputs_draws_new_noise_in_training_mode_only(cvae):
    images = torch.full((2, 1, 8, 8), 0.5)
    assert torch.equal(cvae.inputs(images, 0)[0], cvae.inputs(images, 0)[0])
    cvae.train()
    first, second = cvae.inputs(images, 0)[0], cvae.inputs(images, 0)[0]
    assert not torch.equal(first, second)
    torch.manual_seed(5)
    third = cvae.inputs(images, 0)[0]
    torch.manual_seed(5)
    assert torch.equal(cvae.inputs(images, 0)[0], third)  # goes on from a checkpoint to these bits
    with pytest.raises(UserError, match=r"generator: a int is no torch.Generator"):
        cvae.inputs(images, 0, 3)


def test_16_bit_unsigned_images_within_255_are_pixels(vae):
    x, _ = vae.inputs(BYTES.numpy().astype(np.uint16))
    assert_close(x, BYTES / 255, atol=1e-6, rtol=0)


def test_wrong_latents_are_refused(vae):
    with pytest.raises(UserError, match="latents should be finite real numbers"):
        vae.decode([[1.0, float("nan"), 0.0]])
    for z in (torch.zeros(2, 4), torch.zeros(4), 1.0):
        with pytest.raises(UserError, match=r"latents are \[B, 3\], and these"):
            vae.decode(z)
    for wrong in (0, "10", 1.5, None, True):
        with pytest.raises(UserError, match=r"^num_samples=.*: should be a whole number of at"):
            vae.log_evidence(BYTES, num_samples=wrong)


def test_log_evidence_is_that_of_the_metric(cvae):
    images, labels = torch.rand(3, 1, 8, 8) < 0.5, [0, 2, 1]
    torch.manual_seed(0)
    found = cvae.log_evidence(images, labels, num_samples=2000)
    assert found.shape == (3,)
    assert not found.requires_grad
    torch.manual_seed(1)
    x, y = cvae.inputs(images, labels)
    terms = cvae.terms(x, y, num_samples=2000)
    assert_close(found, terms.log_weights.logsumexp(0) - np.log(2000), atol=0.2, rtol=0)


def test_results_are_free_of_gradients_but_for_the_call(vae):
    assert not vae.encode(BYTES).mean.requires_grad
    assert not vae.decode(torch.zeros(1, 3)).mean.requires_grad
    assert not vae.reconstruct(BYTES).requires_grad
    assert vae(BYTES).requires_grad


def test_vectors_are_told_in_the_units_of_their_file():
    units = {"names": ["a", "b"], "mean": [10.0, -1.0], "scale": [2.0, 0.5]}
    narrow = {"encoder": {"hidden": [8]}, "decoder": {"hidden": [8]}, "network": "mlp"}
    overrides = ["data=vectors", "data.source.path=x.npy"]
    model = vaelab.build("vae", x_shape=(2,), overrides=overrides, **narrow).eval()
    model.units = Units.from_plain(units)
    rows = np.array([[12, -1], [10, 0]])
    x, _ = model.inputs(rows)
    assert_close(x, torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
    assert_close(model.in_units(x).numpy(), rows.astype(float))
    assert model.log_evidence(rows, num_samples=10).shape == (2,)
    assert_close(model.reconstruct(rows), model.in_units(model(rows)))
    assert (model.sample(50)[:, 0] - 10).abs().max() < 10  # around the mean of the file
    with pytest.raises(UserError, match="the numbers should be finite"):
        model.encode([[1.0, float("nan")]])
    with pytest.raises(UserError, match=r"images are \[B, 2\], and these \[2, 3\]"):
        model.encode(np.zeros((2, 3)))


def test_large_numbers_keep_their_digits():
    shapes = {"x_shape": (2,), "overrides": ["data=vectors", "network=mlp"]}
    model = vaelab.build("vae", **shapes, latent_dim=3)
    model.units = Units(("time", "b"), (1.7e9, 0.0), (1.0, 1.0))
    rows = np.array([[1.7e9 + 0.5, 1.0], [1.7e9 - 1.25, 2.0]])
    for given in (rows, rows.tolist(), torch.from_numpy(rows)):
        assert model.inputs(given)[0].tolist() == [[0.5, 1.0], [-1.25, 2.0]]
