"""Loading of trained models from run folders, exported folders and the Hugging Face hub."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vaelab.elbo import ELBO
from vaelab.errors import DamagedFileError, UserError, exception_chain, first_line
from vaelab.files import checksums
from vaelab.observations import PixelScale
from vaelab.runs import validation
from vaelab.runs.folder import COMPOSED, read_config
from vaelab.runs.safe_targets import check_safe_targets
from vaelab.runs.targets import update_config
from vaelab.training import checkpoint_format
from vaelab.training.callbacks.checkpoint import load_checkpoint
from vaelab.training.checkpoint_format import check_architecture

CONFIG, WEIGHTS = "config.json", "model.safetensors"  # in an exported folder
T = TypeVar("T")
WEIGHTS_CHECKSUM = f"{WEIGHTS} {checksums.NAME}"
"""Key in an export's config.json: the checksum of the weights, whether they were written or not."""
SHIPPED = Path(__file__).parents[1] / "pretrained"
"""Exported models that come with vaelab, made by benchmarks/pretrained.py."""
REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*")  # on the hub


def load_model(where: str | Path, checkpoint: str = "best", trust: bool = False) -> ELBO:
    """Loads a model in evaluation mode from a run or exported folder, or downloads it from the hub.

    A file of a run's `checkpoints` stands for its folder, with that checkpoint. A name that does
    not exist and looks like `user/name` is downloaded. A name of a model that comes with vaelab
    stands for that, unless there is such a run or export. See `vaelab.load`.

    Raises:
        UserError: If there is no model, or it is damaged, or without `trust` names foreign code.
    """
    if not isinstance(where, (str, os.PathLike)):
        raise UserError(f"a {type(where).__name__} is no folder of a model; give its path")
    folder = Path(where)
    if folder.is_file():
        run, checkpoint = folder.absolute().parent.parent, folder.stem
        is_its = folder.absolute() == run / "checkpoints" / f"{checkpoint}.ckpt"
        if not (is_its and (run / COMPOSED).exists()):
            raise UserError(f"{folder} is a file; give the folder of a run or exported model")
        folder = run
    if not folder.exists() and isinstance(where, str) and REPOSITORY.fullmatch(where):
        # A download is opened as an export only, even if it looks like a run folder.
        return load_exported_model(download_model(where), trust)
    folder = find_model_folder(folder)
    if (folder / COMPOSED).exists():
        return load_run_model(folder, checkpoint, trust)
    if is_exported(folder):
        return load_exported_model(folder, trust)
    raise UserError(
        f"{folder} is no run folder and no exported model: there is no {COMPOSED} and no {CONFIG} "
        f"in it; {', '.join(shipped_names())} comes with vaelab"
    )


def find_model_folder(folder: Path) -> Path:
    """Returns the folder, or that of a model of vaelab's if it is its name and no model is here."""
    here = (folder / COMPOSED).exists() or is_exported(folder)
    return folder if here or str(folder) not in shipped_names() else SHIPPED / folder


def shipped_names() -> list[str]:
    """Returns the names of the models that come with vaelab."""
    return sorted(path.parent.name for path in SHIPPED.glob(f"*/{CONFIG}"))


def output_folder(folder: Path) -> Path:
    """Returns where files made of a run or export go: into it, or for vaelab's into outputs."""
    return Path("outputs", folder.name) if folder.parent == SHIPPED else folder


def is_exported(folder: Path) -> bool:
    """Returns whether a folder holds an export's config.json, and no run's configuration."""
    return (folder / CONFIG).exists() and not (folder / COMPOSED).exists()


def load_run_model(folder: Path, checkpoint: str, trust: bool) -> ELBO:
    """Loads a run's model, without its data, in evaluation mode; the last if there is no best.

    A run that was stopped before its first validation has no best checkpoint.

    Raises:
        UserError: If there is no run or checkpoint, or it is damaged or not trusted.
    """
    cfg = read_run_config(folder, trust)
    settings = earlier_scale(cfg) | resolve_node(folder, cfg, "model")
    return load_checkpoint_model(folder, checkpoint, settings, trust)


def earlier_scale(cfg: DictConfig) -> dict[str, Any]:
    """Returns the `pixel_scale` of a model by the range in its run's configuration, or nothing.

    Checkpoints have it, but for those of earlier versions. It is that of floats, as it is not known
    here of what type the images were.
    """
    match OmegaConf.to_container(cfg):
        case {
            "data": {
                "source": {
                    "_target_": "vaelab.data.Arrays",
                    "range": [int() | float() as black, int() | float() as white],
                }
            }
        } if black < white:
            span = (black, white)
            scale = PixelScale.of_data(span, has_floats=span != PixelScale().whole)
            return {"pixel_scale": scale.plain}
    return {}


def load_checkpoint_model(
    folder: Path, checkpoint: str, settings: Mapping[str, Any], trust: bool
) -> ELBO:
    """Builds a model from its settings and loads a run's checkpoint; see `load_run_model`."""
    path = folder / "checkpoints" / f"{checkpoint}.ckpt"
    if checkpoint == "best" and not path.exists():
        path = path.with_name("last.ckpt")
    if not path.exists():
        found = sorted(each.stem for each in path.parent.glob("*.ckpt"))
        known = f"it has {' and '.join(found)}" if found else "this run has no checkpoint yet"
        raise UserError(f"{folder}: there is no {path.name}; {known}")
    content = load_checkpoint(path)
    described = {**settings, **content[checkpoint_format.KEY]["shapes"]}
    model = build_part(ELBO, folder / COMPOSED, "model", described, trust)
    model.data_then = content[checkpoint_format.KEY]
    return load_weights(model, content["state_dict"], content["global_step"])


def read_run_config(folder: Path, trust: bool, data_folder: Path | None = None) -> DictConfig:
    """Reads a run's configuration, whose resolvers act only if `trust`; UserError if damaged.

    Args:
        folder: The run folder.
        trust: Whether interpolations may read the environment, or call any other resolver.
        data_folder: Stands for `paths.data` where that is from the environment and not trusted.

    Raises:
        UserError: If there is no configuration, or it is damaged.
    """
    path = folder / COMPOSED
    try:
        cfg = read_config(folder, trust)
        if not trust and "${" in str(OmegaConf.select(cfg, "paths.data")):
            cfg.paths.data = str(data_folder)
        return cfg
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{folder} is no run folder: there is no {path}") from error
    except Exception as error:  # a parser's, OmegaConf's
        raise DamagedFileError(f"{path}: damaged, or no configuration of a run") from error


def resolve_node(folder: Path, cfg: DictConfig, name: str) -> dict[str, Any]:
    """Returns a node of a run's configuration as plain, resolved values; UserError if damaged."""
    try:
        settings: Any = OmegaConf.to_container(cfg[name], resolve=True)
        if not isinstance(settings, dict):
            raise TypeError(f"{name} should be a mapping")
        return settings
    except Exception as error:  # OmegaConf raises many types
        raise DamagedFileError(
            f"{folder / COMPOSED}: damaged, or no configuration of a run"
        ) from error


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
        described = update_config(content["model"]) | content[checkpoint_format.KEY]["shapes"]
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
        model = load_weights(build_part(ELBO, path, "model", described, trust), weights, step)
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


def build_part(
    kind: type[T], path: Path, name: str, described: Mapping[str, Any], trust: bool
) -> T:
    """Builds a model, untrained, or data; without `trust` only of what `safe_targets` lists.

    Args:
        kind: The class that it must be of.
        path: The file of the configuration, for error messages.
        name: `model` or `data`.
        described: The resolved part of the configuration; of a model with the shapes of the data.
        trust: Whether the configuration may name other code.

    Raises:
        UserError: If the configuration is invalid, not to be trusted, or of another class.
    """
    try:
        if not trust:
            check_safe_targets({name: described})
        validation.check_node(described, name)
        made = instantiate(described, _convert_="all")
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (InstantiationException, OmegaConfBaseException, TypeError) as error:
        raise UserError(f"{path}: {first_line([*exception_chain(error)][-1])}") from error
    if not isinstance(made, kind):
        raise UserError(f"{path}: a {type(made).__name__} is no {name}")
    return made


def load_weights(model: ELBO, state: dict[str, Tensor], step: int) -> ELBO:
    """Loads weights and step into a model in place; returns it, set to evaluation mode."""
    check_architecture(model.state_dict(), state)
    model.load_state_dict(state)
    model.step = step
    return model.eval()
