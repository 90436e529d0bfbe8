"""Loading of trained models from run folders, exported folders and the Hugging Face hub."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vaelab import checksums
from vaelab.elbo import ELBO
from vaelab.errors import DamagedFileError, UserError, exception_chain, first_line
from vaelab.runs import validation
from vaelab.runs.folder import COMPOSED, read_config
from vaelab.runs.safe_targets import check_safe_targets
from vaelab.runs.targets import rename_targets
from vaelab.training import checkpoint_format
from vaelab.training.callbacks.checkpoint import load_checkpoint
from vaelab.training.checkpoint_format import check_architecture

CONFIG, WEIGHTS = "config.json", "model.safetensors"  # in an exported folder
WEIGHTS_CHECKSUM = f"{WEIGHTS} {checksums.NAME}"
"""Key in an export's config.json: the checksum of the weights, whether they were written or not."""
REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*")  # on the hub


def load_model(where: str | Path, checkpoint: str = "best", trust: bool = False) -> ELBO:
    """Loads a model in evaluation mode from a run or exported folder, or downloads it from the hub.

    A name that does not exist and looks like `user/name` is downloaded. See `vaelab.load`.

    Raises:
        UserError: If there is no model, or it is damaged, or without `trust` names foreign code.
    """
    folder = Path(where)
    if not folder.exists() and isinstance(where, str) and REPOSITORY.fullmatch(where):
        # A download is opened as an export only, even if it looks like a run folder.
        return load_exported_model(download_model(where), trust)
    if (folder / COMPOSED).exists():
        return load_run_model(folder, checkpoint, trust)
    if is_exported(folder):
        return load_exported_model(folder, trust)
    raise UserError(
        f"{folder} is no run folder and no exported model: there is no {COMPOSED} and no {CONFIG} "
        "in it"
    )


def is_exported(folder: Path) -> bool:
    """Returns whether a folder holds an export's config.json, and no run's configuration."""
    return (folder / CONFIG).exists() and not (folder / COMPOSED).exists()


def load_run_model(folder: Path, checkpoint: str, trust: bool) -> ELBO:
    """Loads a run's model, without its data, in evaluation mode; the last if there is no best.

    A run that was stopped before its first validation has no best checkpoint.

    Raises:
        UserError: If there is no run or checkpoint, or it is damaged or not trusted.
    """
    settings, _ = read_run_config(folder)
    path = folder / "checkpoints" / f"{checkpoint}.ckpt"
    if checkpoint == "best" and not path.exists():
        path = path.with_name("last.ckpt")
    if not path.exists():
        raise UserError(f"{folder}: there is no {path.name}; this run has no checkpoint yet")
    content = load_checkpoint(path)
    model = build_model(
        folder / COMPOSED, settings | content[checkpoint_format.KEY]["shapes"], trust
    )
    return load_weights(model, content["state_dict"], content["global_step"])


def read_run_config(folder: Path) -> tuple[dict[str, Any], DictConfig]:
    """Reads a run's resolved model settings and its data node; UserError if absent or damaged."""
    path = folder / COMPOSED
    try:
        cfg: Any = read_config(folder)
        settings: Any = OmegaConf.to_container(cfg.model, resolve=True)
        if not isinstance(settings, dict):
            raise TypeError("the model should be a mapping")
        return settings, cfg.data
    except FileNotFoundError as error:
        raise UserError(f"{folder} is no run folder: there is no {path}") from error
    except Exception as error:  # a parser's, OmegaConf's
        raise DamagedFileError(f"{path}: damaged, or no configuration of a run") from error


def load_exported_model(folder: Path, trust: bool) -> ELBO:
    """Loads an exported model in evaluation mode; UserError if absent, damaged or not trusted."""
    path = folder / CONFIG
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text)
        checkpoint_format.check_format(path, content)
        # Either name is enough: a flipped bit in one must not make this an older file
        expected = not content.keys().isdisjoint((checksums.NAME, WEIGHTS_CHECKSUM))
        whole = not expected or checksums.has_checksum(text, content.get(checksums.NAME))
        described = rename_targets(content["model"]) | content[checkpoint_format.KEY]["shapes"]
        step, checksum = content["step"], content.get(WEIGHTS_CHECKSUM)
    except FileNotFoundError as error:
        raise UserError(f"{folder} is no exported model: there is no {CONFIG} in it") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedFileError(f"{path}: damaged, or no configuration of a model") from error
    edited = f"{path}: damaged, or edited, for its checksum differs"
    try:
        weights = read_weights(folder / WEIGHTS, checksum)
        model = load_weights(build_model(path, described, trust), weights, step)
    except UserError as error:
        if whole:
            raise
        raise DamagedFileError(f"{edited}; {error}") from error
    if not whole:
        raise DamagedFileError(f"{edited}; export it anew")
    return model


def read_weights(path: Path, checksum: str | None) -> dict[str, Tensor]:
    """Reads the tensors of a safetensors file and verifies its checksum, if one is given.

    Raises:
        UserError: If the file does not exist or cannot be read.
        DamagedFileError: If it is damaged, or of another export than the checksum.
    """
    try:
        weights = load_file(path)
        if checksum is not None and checksums.file_digest(path) != checksum:
            raise DamagedFileError(
                f"{path}: damaged, or of another export than {CONFIG} beside it, for its checksum "
                "differs; export it anew"
            )
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such file; export with what=safetensors") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except SafetensorError as error:
        raise DamagedFileError(f"{path}: truncated, or no safetensors") from error
    return weights


def download_model(repository: str) -> Path:
    """Downloads a hub model's config.json and weights; returns the cache folder, or UserError."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise UserError(
            f"{repository}: there is no such folder; for models on the Hugging Face hub "
            'pip install "vaelab[hub]"'
        ) from error
    try:
        return Path(snapshot_download(repository, allow_patterns=[CONFIG, WEIGHTS]))
    except Exception as error:  # of the hub's own, or whatever the network raises
        raise UserError(
            f"{repository}: there is no such folder, and the Hugging Face hub gave no such model "
            f"({first_line(error)})"
        ) from error


def build_model(path: Path, described: Mapping[str, Any], trust: bool) -> ELBO:
    """Builds an untrained model; without `trust` only of vaelab's modules and torch's optimizers.

    Args:
        path: The file of the configuration, for error messages.
        described: The model's part of the configuration, and the shapes of the data.
        trust: Whether the configuration may name code that is not vaelab's.

    Raises:
        UserError: If the configuration is invalid, not to be trusted, or of no model.
    """
    try:
        if not trust:
            check_safe_targets("model", described)
        validation.check_node(described, "model")
        model = instantiate(described, _convert_="all")
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (InstantiationException, OmegaConfBaseException, TypeError) as error:
        raise UserError(f"{path}: {first_line([*exception_chain(error)][-1])}") from error
    if not isinstance(model, ELBO):
        raise UserError(f"{path}: a {type(model).__name__} is no model")
    return model


def load_weights(model: ELBO, state: dict[str, Tensor], step: int) -> ELBO:
    """Loads weights and step into a model in place; returns it, set to evaluation mode."""
    check_architecture(model.state_dict(), state)
    model.load_state_dict(state)
    model.step = step
    return model.eval()
