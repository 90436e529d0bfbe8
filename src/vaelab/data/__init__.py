"""Data module and image sources: batches x [B, C, H, W] in [0, 1], y [B, Y] labels or columns."""

from vaelab.data.dsprites import DSprites
from vaelab.data.folder import Folder
from vaelab.data.huggingface import HuggingFace
from vaelab.data.images import Images
from vaelab.data.number_files import Signals, Vectors
from vaelab.data.numbers import Numbers
from vaelab.data.quadrants import Quadrants
from vaelab.data.sources import Arrays, Digits, TorchvisionDataset
from vaelab.data.sprites import Sprites
from vaelab.data.torchvision_sets import Torchvision

__all__ = [
    "Arrays",
    "DSprites",
    "Digits",
    "Folder",
    "HuggingFace",
    "Images",
    "Numbers",
    "Quadrants",
    "Signals",
    "Sprites",
    "Torchvision",
    "TorchvisionDataset",
    "Vectors",
]
