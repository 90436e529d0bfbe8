"""How the training of a run, or of an exported model, read image files."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vaelab.data import Images
from vaelab.data.image_settings import ImageSettings, source_settings
from vaelab.runs.loading import CONFIG
from vaelab.training.json_files import read_json

KEY = "image_files"
"""Key in an export's config.json, of the settings of the source of images; of earlier ones none."""
NAMES = ("size", "fit", "channels", "ground", "range")


def image_settings(folder: Path, data: Images | None) -> ImageSettings | None:
    """Returns the settings by which the training read image files; None if it read none.

    Args:
        folder: The run folder, or an exported one.
        data: The run's data; None of an exported model.
    """
    if data is not None:
        return source_settings(data.source)
    kept = read_json(folder / CONFIG).get(KEY)
    return None if kept is None else ImageSettings.of_source(*(kept[name] for name in NAMES))


def kept_image_settings(cfg: DictConfig) -> dict[str, Any]:
    """Returns those settings of a run's configuration, for an export; nothing if there are none."""
    kept = {name: OmegaConf.select(cfg, f"data.source.{name}") for name in NAMES}
    plain = {n: OmegaConf.to_container(v) if OmegaConf.is_config(v) else v for n, v in kept.items()}
    return {KEY: plain} if kept["fit"] and kept["ground"] else {}
