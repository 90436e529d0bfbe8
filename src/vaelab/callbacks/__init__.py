"""What happens around the training steps."""

from vaelab.callbacks.annealing import Annealing
from vaelab.callbacks.board import Board
from vaelab.callbacks.checkpoint import AtomicFiles, Checkpoint
from vaelab.callbacks.progress import Progress
from vaelab.callbacks.pruning import Pruning
from vaelab.callbacks.seeding import Seeding
from vaelab.callbacks.speed import Speed

__all__ = [
    "Annealing",
    "AtomicFiles",
    "Board",
    "Checkpoint",
    "Progress",
    "Pruning",
    "Seeding",
    "Speed",
]
