"""Builds a search by Optuna, which is imported only when a search is asked for."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override

from vaelab.errors import UserError
from vaelab.sweeps.sources import Source


def build_search(
    folder: Path, overrides: Sequence[Override], settings: Mapping[str, Any]
) -> Source:
    """Checks the settings of `hydra.sweeper`, returns an Optuna search; imports, silences Optuna.

    Raises:
        UserError: If a setting is wrong, or Optuna is not installed.
    """
    from vaelab.runs import validation

    try:
        from vaelab.sweeps.study import Study
    except ModuleNotFoundError as error:
        raise UserError(
            f'hydra/sweeper=optuna needs {error.name}: pip install -e ".[optuna]"'
        ) from error
    return validation.build_checked(Study, settings, "hydra.sweeper.", folder, overrides)
