"""A trained model from where it is kept: a run folder, an exported one, the Hugging Face hub."""

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

from vaelab.elbo import ELBO
from vaelab.errors import UserError, causes, first_line
from vaelab.runs import validation
from vaelab.runs.folder import COMPOSED, read_config
from vaelab.runs.safe_targets import refuse_code
from vaelab.runs.targets import rename_targets
from vaelab.training import checkpoint_format
from vaelab.training.callbacks.checkpoint import load as load_checkpoint
from vaelab.training.checkpoint_format import check_architecture

CONFIG, WEIGHTS = "config.json", "model.safetensors"  # in an exported folder
REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*")  # on the hub


def load(where: str | Path, checkpoint: str = "best", trust: bool = False) -> ELBO:
    """See `vaelab.load`."""
    folder = Path(where)
    if not folder.exists() and isinstance(where, str) and REPOSITORY.fullmatch(where):
        return exported(downloaded(where), trust)  # never as a run folder
    if (folder / COMPOSED).exists():
        return trained(folder, checkpoint, trust)
    if is_exported(folder):
        return exported(folder, trust)
    raise UserError(
        f"{folder} is no run folder and no exported model: there is no {COMPOSED} and no {CONFIG} "
        "in it"
    )


def is_exported(folder: Path) -> bool:
    return (folder / CONFIG).exists() and not (folder / COMPOSED).exists()


def trained(folder: Path, checkpoint: str, trust: bool) -> ELBO:
    """The model of a run folder; the data are not needed."""
    settings, _ = composed(folder)
    path = folder / "checkpoints" / f"{checkpoint}.ckpt"
    if checkpoint == "best" and not path.exists():  # it was stopped before its first validation
        path = path.with_name("last.ckpt")
    content = load_checkpoint(path)
    model = built(folder / COMPOSED, settings | content[checkpoint_format.KEY]["shapes"], trust)
    return filled(model, content["state_dict"], content["global_step"])


def composed(folder: Path) -> tuple[dict[str, Any], DictConfig]:
    """The settings of a run's model, and the configuration of its data."""
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
        raise UserError(f"{path}: damaged, or no configuration of a run") from error


def exported(folder: Path, trust: bool) -> ELBO:
    """The model of an exported folder."""
    path = folder / CONFIG
    try:
        content = json.loads(path.read_text())
        checkpoint_format.check(path, content)
        described = rename_targets(content["model"]) | content[checkpoint_format.KEY]["shapes"]
        step = content["step"]
    except FileNotFoundError as error:
        raise UserError(f"{folder} is no exported model: there is no {CONFIG} in it") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: damaged, or no configuration of a model") from error
    return filled(built(path, described, trust), weights(folder / WEIGHTS), step)


def weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file."""
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such file; export with what=safetensors") from error
    except SafetensorError as error:
        raise UserError(f"{path}: truncated, or no safetensors") from error


def downloaded(repository: str) -> Path:
    """The exported folder of a repository on the hub, in its cache."""
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


def built(path: Path, described: Mapping[str, Any], trust: bool) -> ELBO:
    """The model that a configuration describes, not trained.

    Args:
        path: The file that it is from.
        described: The model's part of the configuration, and the shapes of the data.
        trust: Whether it may name code that is not vaelab's.
    """
    try:
        if not trust:
            refuse_code("model", described)
        validation.check_node(described, "model")
        model = instantiate(described, _convert_="all")
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (InstantiationException, OmegaConfBaseException, TypeError) as error:
        raise UserError(f"{path}: {first_line([*causes(error)][-1])}") from error
    if not isinstance(model, ELBO):
        raise UserError(f"{path}: a {type(model).__name__} is no model")
    return model


def filled(model: ELBO, state: dict[str, Tensor], step: int) -> ELBO:
    """The model with these weights, in evaluation mode."""
    check_architecture(model.state_dict(), state)
    model.load_state_dict(state)
    model.step = step
    return model.eval()
