"""Lightning callbacks: annealing, checkpoints, progress, random seeds and training speed."""

from vaelab.training.callbacks.annealing import Annealing
from vaelab.training.callbacks.checkpoint import AtomicFiles, Checkpoint
from vaelab.training.callbacks.progress import Progress
from vaelab.training.callbacks.seeding import Seeding
from vaelab.training.callbacks.speed import Speed

__all__ = ["Annealing", "AtomicFiles", "Checkpoint", "Progress", "Seeding", "Speed"]
