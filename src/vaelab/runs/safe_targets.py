"""Which `_target_` a configuration of unknown origin may name, so that loading runs no code."""

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer

from vaelab.errors import UserError
from vaelab.runs.targets import import_target

PACKAGES = ("vaelab.", "torch.optim.")


def check_safe_targets(path: str, node: Any) -> None:
    """Raises UserError for any `${`, and any `_target_` but vaelab modules and torch optimizers.

    Args:
        path: Name of the node, for the message.
        node: The node, resolved. Texts with `${` are refused: Hydra would interpolate them again,
            and `oc.create` can make a `_target_`.

    Raises:
        UserError: For the first unsafe target or interpolation.
    """
    if isinstance(node, Mapping):
        if "_target_" in node and not is_safe_target(node["_target_"]):
            raise UserError(
                f"{path}._target_={node['_target_']} is no part of vaelab's, and code from "
                "elsewhere is not run; where you trust it, use vaelab.load(..., trust=True)"
            )
        for key, value in node.items():
            check_safe_targets(f"{path}.{key}", value)
    elif isinstance(node, list):
        for i, value in enumerate(node):
            check_safe_targets(f"{path}.{i}", value)
    elif isinstance(node, str) and "${" in node:
        raise UserError(f"{path}={node}: there should be no interpolation in it")


def is_safe_target(target: Any) -> bool:
    """Returns whether a target is a module of vaelab or an optimizer of torch; may import it.

    Imports it if its name begins with `vaelab.` or `torch.optim.`. The class must be
    defined in these packages: `vaelab.runs.folder.subprocess.run` is only reachable by one.
    """
    if not isinstance(target, str) or not target.startswith(PACKAGES):
        return False  # before it is looked up, which imports it
    try:
        found = import_target(target)
    except Exception:  # a module that is not there, a name that is none
        return False
    return (
        isinstance(found, type)
        and issubclass(found, (nn.Module, Optimizer))
        and found.__module__.startswith(PACKAGES)
    )
