"""`write_points` and `thumbnails`: the files are those that TensorBoard's projector reads."""

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from PIL import Image
from tensorboard.plugins.projector import ProjectorConfig

from vaelab.pictures.projector import thumbnails, write_points


def test_write_points_config_names_points_labels_and_sprite(tmp_path):
    points, x = torch.randn(10, 3), torch.rand(10, 1, 6, 4)
    write_points(tmp_path, "codes", points, list(range(10)), x)
    text = (tmp_path / "projector_config.pbtxt").read_text()
    (embedding,) = text_format.Parse(text, ProjectorConfig()).embeddings
    assert embedding.tensor_name == "codes"
    read = np.loadtxt(tmp_path / embedding.tensor_path, delimiter="\t")
    assert read == pytest.approx(points.numpy(), rel=1e-5)
    assert (tmp_path / embedding.metadata_path).read_text().split() == list("0123456789")
    assert list(embedding.sprite.single_image_dim) == [4, 6]  # width and height
    assert Image.open(tmp_path / embedding.sprite.image_path).size == (4 * 4, 4 * 6)


def test_write_points_replaces_older_files_without_labels_or_images(tmp_path):
    for count in (3, 2):
        write_points(tmp_path, "codes", torch.randn(count, 2), None, None)
    text = (tmp_path / "projector_config.pbtxt").read_text()
    (embedding,) = text_format.Parse(text, ProjectorConfig()).embeddings
    assert not embedding.metadata_path
    assert not embedding.HasField("sprite")
    assert np.loadtxt(tmp_path / embedding.tensor_path).shape == (2, 2)


@pytest.mark.parametrize(
    ("shape", "expected_size"),
    [
        ((10, 1, 28, 28), (28, 28)),
        ((10, 3, 256, 128), (64, 32)),
        ((40_000, 1, 64, 2), (40, 1)),  # a sprite has 8,192 pixels for 200 images in a row
        ((10, 1, 1000, 1), (64, 1)),
    ],
)
def test_thumbnails_shrink_large_images(shape, expected_size):
    assert thumbnails(torch.rand(shape)).shape[2:] == expected_size
