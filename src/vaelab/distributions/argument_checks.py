"""Context managers for torch's global setting that validates arguments of distributions."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.distributions import Distribution, Normal


def is_checking_arguments() -> bool:
    """Returns True if distributions raise errors for invalid arguments, torch's global default.

    Creates an invalid `Normal` to find out: torch has no public function that tells.
    """
    try:
        Normal(torch.zeros(()), -torch.ones(()))
    except ValueError:
        return True
    return False


@contextmanager
def restore_argument_checks() -> Iterator[None]:
    """Restores torch's global argument checks at the end of the block; changes nothing before."""
    before = is_checking_arguments()
    try:
        yield
    finally:
        Distribution.set_default_validate_args(before)


@contextmanager
def disable_argument_checks() -> Iterator[None]:
    """Disables argument checks of all distributions in the block, globally; restores them after.

    For a function that is traced: a trace cannot look at values.
    """
    with restore_argument_checks():
        Distribution.set_default_validate_args(False)
        yield
