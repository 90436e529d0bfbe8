"""Lightning callbacks: annealing, averages, checkpoints, stopping, progress, seeds and speed."""

from vaelab.training.callbacks.annealing import Annealing
from vaelab.training.callbacks.checkpoint import AtomicFiles, Checkpoint
from vaelab.training.callbacks.early_stopping import EarlyStopping
from vaelab.training.callbacks.ema import EMA
from vaelab.training.callbacks.progress import Progress
from vaelab.training.callbacks.seeding import Seeding
from vaelab.training.callbacks.speed import Speed

__all__ = [
    "EMA",
    "Annealing",
    "AtomicFiles",
    "Checkpoint",
    "EarlyStopping",
    "Progress",
    "Seeding",
    "Speed",
]
