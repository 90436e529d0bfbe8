"""The folders of configuration files, what they compose to, and the resolvers that they use.

Does not import torch.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from vaelab.runs import naming

CONF = Path(__file__).parents[1] / "conf"
if not CONF.exists():  # in a checkout it is beside src
    CONF = Path(__file__).parents[3] / "conf"
OmegaConf.register_new_resolver("run_name", naming.run_name, replace=True)
OmegaConf.register_new_resolver("sweep_name", naming.sweep_name, replace=True)


def config_dir_flags(hydra_cfg: Any) -> list[str]:
    """Returns `--config-dir PATH` for each extra folder given on the command line."""
    sources = hydra_cfg.runtime.config_sources
    folders = [s.path for s in sources if s.provider == "command-line"]
    return [part for path in folders for part in ("--config-dir", path)]


def compose_config(folders: Sequence[Path], name: str, overrides: Sequence[str]) -> DictConfig:
    """Composes a command's configuration, with its `hydra` part, from its overrides."""
    own = [f"file://{folder.absolute()}" for folder in folders[:-1]]
    search = [f"hydra.searchpath=[{','.join(map(naming.quote, own))}]"] if own else []
    with initialize_config_dir(str(folders[-1]), version_base="1.3"):
        return compose(name, [*search, *overrides], return_hydra_config=True)


def compose_again(name: str, overrides: Sequence[str]) -> DictConfig:
    """Composes a configuration from other overrides, in the folders of this process's command.

    Without its `hydra` part. Outside of a command the folder is vaelab's own.
    """
    if GlobalHydra.instance().is_initialized():
        return compose(name, [*overrides])
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, [*overrides])
