"""Format version and data shapes stored in every checkpoint and export, and checks of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from vaelab.errors import UserError
from vaelab.files import checksums
from vaelab.version import __version__

FORMAT = 2  # raise it when an earlier vaelab would misread files of this version
KEY = "vaelab"


def format_record(shapes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns format version, vaelab version and data shapes, to store in a file under `KEY`."""
    return {"format": FORMAT, "version": __version__, "shapes": dict(shapes)}


def expect_checksum(content: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a copy of content whose format record says that its file has a checksum.

    Then a file that lost its checksum is not taken for one of an earlier vaelab, which had none.
    Content without a format record, of another program, is copied as it is.
    """
    if KEY not in content:
        return dict(content)
    return {**content, KEY: {**content[KEY], "checksum": checksums.NAME}}


def has_checksum(content: Mapping[str, Any]) -> bool:
    """Returns whether the file of this content was written with a checksum."""
    return content[KEY].get("checksum") is not None


def check_format(path: Path, content: Any) -> None:
    """Raises UserError if loaded content has no format record, or one of a newer format version.

    Args:
        path: The file that the content is from, for the message; it is not read.
        content: Content of a checkpoint, or of an export's config.json.
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
    """Raises UserError unless two state dicts have the same names and shapes; ignores dtypes.

    Args:
        own: State dict of the model.
        other: State dict in a checkpoint.
    """
    for name in sorted(own.keys() | other.keys()):
        ours, theirs = (tuple(d[name].shape) if name in d else "absent" for d in (own, other))
        if ours != theirs:
            raise UserError(
                f"the checkpoint is of another architecture: {name} is {theirs} in it "
                f"and {ours} in this model"
            )
