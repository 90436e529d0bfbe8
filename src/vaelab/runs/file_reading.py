"""How the training of a run, or of an exported model, read the files of its data."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vaelab.data import Images
from vaelab.data.image_settings import ImageSettings, source_settings
from vaelab.runs.loading import CONFIG
from vaelab.training.json_files import read_json

IMAGE_FILES, LABEL = "image_files", "label_column"
"""Keys in an export's config.json, of settings of the data's source; of earlier exports none."""
NAMES = ("size", "fit", "channels", "ground", "range")


def image_settings(folder: Path, data: Images | None) -> ImageSettings | None:
    """Returns the settings by which the training read image files; None if it read none.

    Args:
        folder: The run folder, or an exported one.
        data: The run's data; None of an exported model.
    """
    if data is not None:
        return source_settings(data.source)
    kept = read_json(folder / CONFIG).get(IMAGE_FILES)
    return None if kept is None else ImageSettings.of_source(*(kept[name] for name in NAMES))


def label_column(folder: Path, data: Images | None) -> str | None:
    """Returns the column of a table that the training had as labels; None if it named none.

    Arguments are those of `image_settings`.
    """
    if data is not None:
        return getattr(data.source, "label", None)
    found = read_json(folder / CONFIG).get(LABEL)
    return None if found is None else str(found)


def kept_source_settings(cfg: DictConfig) -> dict[str, Any]:
    """Returns those settings of a run's configuration, for the config.json of an export."""
    kept = {name: OmegaConf.select(cfg, f"data.source.{name}") for name in (*NAMES, "label")}
    plain = {n: OmegaConf.to_container(v) if OmegaConf.is_config(v) else v for n, v in kept.items()}
    label = plain.pop("label")
    found = {IMAGE_FILES: plain} if plain["fit"] and plain["ground"] else {}
    return found | ({LABEL: label} if label else {})
