"""Files of points, labels and thumbnails for TensorBoard's projector."""

import math
from pathlib import Path

import numpy as np
from torch import Tensor
from torch.nn.functional import interpolate

from vaelab.files.atomic import atomic_file, make_folder, write_text
from vaelab.pictures.image_files import write_image
from vaelab.pictures.picture import tiled

LARGEST = 64  # most pixels of a thumbnail's side
SPRITE = 8192  # most pixels of the sprite's side that TensorBoard shows


def write_points(
    folder: Path, name: str, points: Tensor, labels: list[str] | None, x: Tensor | None
) -> None:
    """Writes points and, if given, labels and a sprite of images; replaces the projector's config.

    The files are in `folder/name`, and the config is in `folder`. `add_embedding` of torch's writer
    is not used: it would need 72 bytes for each pixel.

    Args:
        folder: The folder of the event files.
        name: Name of the points.
        points: [N, D].
        labels: Labels of the N points; None writes no labels.
        x: Their images [N, C, H, W] in [0, 1], of one or three channels; None writes no sprite.
    """
    from google.protobuf.text_format import MessageToString
    from tensorboard.plugins import projector  # slow to import

    make_folder(folder / name)
    config = projector.ProjectorConfig()
    embedding = config.embeddings.add(tensor_name=name, tensor_path=f"{name}/points.tsv")
    with atomic_file(folder / embedding.tensor_path) as file:
        np.savetxt(file, points.cpu(), delimiter="\t", fmt="%.6g")
    if labels is not None:
        embedding.metadata_path = f"{name}/labels.tsv"
        write_text(folder / embedding.metadata_path, "".join(f"{label}\n" for label in labels))
    if x is not None:
        shown = thumbnails(x)
        embedding.sprite.image_path = f"{name}/sprite.png"
        embedding.sprite.single_image_dim.extend([shown.shape[3], shown.shape[2]])
        side = square_side(len(x))  # and as many rows: TensorBoard expects a square
        write_image(folder / embedding.sprite.image_path, tiled(shown, side, rows=side))
    write_text(folder / "projector_config.pbtxt", MessageToString(config))


def thumbnails(x: Tensor) -> Tensor:
    """Returns images [N, C, h, w] made smaller, if needed, to 64 pixels and to fit one sprite."""
    largest = min(LARGEST, SPRITE // square_side(len(x)))
    scale = min(1.0, largest / max(x.shape[-2:]))
    size = [max(1, int(side * scale)) for side in x.shape[-2:]]
    return interpolate(x, size, mode="bilinear", antialias=True) if scale < 1 else x


def square_side(count: int) -> int:
    """Returns the side of the smallest square of images that `count` images fit into."""
    return math.isqrt(count - 1) + 1
