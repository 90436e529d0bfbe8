"""Points and their pictures as TensorBoard's projector reads them."""

import math
from pathlib import Path

import numpy as np
from torch import Tensor
from torch.nn.functional import interpolate

from vaelab.pictures.picture import tiled

LARGEST = 64  # pixels, of a picture's sides
SPRITE = 8192  # pixels, of the sides of what TensorBoard shows


def write_points(
    folder: Path, name: str, points: Tensor, labels: list[str] | None, x: Tensor | None
) -> None:
    """Writes what the projector shows of a folder of logs.

    `add_embedding` of torch's writer would need 72 bytes for each pixel.

    Args:
        folder: Where the events are; the points go into one of their name in it.
        name: What the points are.
        points: [N, D].
        labels: Of the N points.
        x: Their images [N, C, H, W] in [0, 1], of one or three channels.
    """
    from tensorboard.plugins import projector  # brings TensorBoard

    (folder / name).mkdir(exist_ok=True)
    config = projector.ProjectorConfig()
    embedding = config.embeddings.add(tensor_name=name, tensor_path=f"{name}/points.tsv")
    np.savetxt(folder / embedding.tensor_path, points.cpu(), delimiter="\t", fmt="%.6g")
    if labels is not None:
        embedding.metadata_path = f"{name}/labels.tsv"
        (folder / embedding.metadata_path).write_text("".join(f"{label}\n" for label in labels))
    if x is not None:
        shown = thumbnails(x)
        embedding.sprite.image_path = f"{name}/sprite.png"
        embedding.sprite.single_image_dim.extend([shown.shape[3], shown.shape[2]])
        side = columns(len(x))  # and as many rows, as TensorBoard takes for granted
        tiled(shown, side, rows=side).save(folder / embedding.sprite.image_path)
    projector.visualize_embeddings(str(folder), config)


def thumbnails(x: Tensor) -> Tensor:
    """The same images, made smaller where they are too large for a sprite."""
    largest = min(LARGEST, SPRITE // columns(len(x)))
    scale = min(1.0, largest / max(x.shape[-2:]))
    size = [max(1, int(side * scale)) for side in x.shape[-2:]]
    return interpolate(x, size, mode="bilinear", antialias=True) if scale < 1 else x


def columns(count: int) -> int:
    """Those of the smallest square that so many images fit into."""
    return math.isqrt(count - 1) + 1
