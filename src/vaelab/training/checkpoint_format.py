"""What a checkpoint, or an exported model, says of itself: it can be opened, or refused, alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from vaelab.errors import UserError
from vaelab.version import __version__

FORMAT = 2  # to be raised when an earlier vaelab would misread what this one writes
KEY = "vaelab"


def stamp(shapes: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values to be kept under `KEY`, with what a model must know of its data."""
    return {"format": FORMAT, "version": __version__, "shapes": dict(shapes)}


def check(path: Path, content: Any) -> None:
    """Checks the stamp in what a file holds.

    Raises:
        UserError: If there is none, or it is of a newer version.
    """
    match content:
        case {"vaelab": {"format": int(number), "version": str(version), "shapes": dict()}}:
            if number > FORMAT:
                raise UserError(
                    f"{path} was written by vaelab {version}, which is newer than this "
                    f"{__version__}; upgrade with pip install -U vaelab"
                )
        case _:
            raise UserError(f"{path} is no checkpoint of vaelab")


def check_architecture(own: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    """Raises UserError unless two states have the same names and shapes.

    Args:
        own: State of the model.
        other: State in a checkpoint.
    """
    for name in sorted(own.keys() | other.keys()):
        ours, theirs = (tuple(d[name].shape) if name in d else "absent" for d in (own, other))
        if ours != theirs:
            raise UserError(
                f"the checkpoint is of another architecture: {name} is {theirs} in it "
                f"and {ours} in this model"
            )
