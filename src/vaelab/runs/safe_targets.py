"""What a configuration of unknown origin may name, so that opening a model runs no code."""

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer

from vaelab.errors import UserError
from vaelab.runs.targets import locate

PACKAGES = ("vaelab.", "torch.optim.")


def refuse_code(path: str, node: Any) -> None:
    """Checks that a configuration names nothing but parts of vaelab's models, and optimizers.

    Args:
        path: Name of the node, for the message.
        node: Resolved. Hydra would resolve what looks like an interpolation once more, and
            one can make a `_target_` (`oc.create`), so there may be none.

    Raises:
        UserError: For the first that does not.
    """
    if isinstance(node, Mapping):
        if "_target_" in node and not is_part(node["_target_"]):
            raise UserError(
                f"{path}._target_={node['_target_']} is no part of vaelab's, and code from "
                "elsewhere is not run; where you trust it, use vaelab.load(..., trust=True)"
            )
        for key, value in node.items():
            refuse_code(f"{path}.{key}", value)
    elif isinstance(node, list):
        for i, value in enumerate(node):
            refuse_code(f"{path}.{i}", value)
    elif isinstance(node, str) and "${" in node:
        raise UserError(f"{path}={node}: there should be no interpolation in it")


def is_part(target: Any) -> bool:
    """Whether a target is a module that vaelab defines, or an optimizer that PyTorch does.

    Where it is defined counts, not where it is found: `vaelab.runs.folder.subprocess.run` can be
    found.
    """
    if not isinstance(target, str) or not target.startswith(PACKAGES):
        return False  # before it is looked up, which imports it
    try:
        found = locate(target)
    except Exception:  # a module that is not there, a name that is none
        return False
    return (
        isinstance(found, type)
        and issubclass(found, (nn.Module, Optimizer))
        and found.__module__.startswith(PACKAGES)
    )
