"""Images as batches (x, y): x [B, C, H, W] in [0, 1], y [B, Y] one-hot."""

from vaelab.data.images import Images
from vaelab.data.sources import Arrays, Digits, TorchvisionDataset

__all__ = ["Arrays", "Digits", "Images", "TorchvisionDataset"]
