"""The folders of configuration files, and the resolvers that the files in conf/ use.

Does not import torch.
"""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

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
