"""Whether distributions check their arguments: a setting of torch that is global."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.distributions import Distribution, Normal


def is_checking() -> bool:
    """True if a distribution with invalid parameters raises an error, as is torch's default."""
    try:
        Normal(torch.zeros(()), -torch.ones(()))
    except ValueError:
        return True
    return False


@contextmanager
def kept_checks() -> Iterator[None]:
    """Restores the setting at the end, whatever it is changed to inside."""
    before = is_checking()
    try:
        yield
    finally:
        Distribution.set_default_validate_args(before)


@contextmanager
def no_checks() -> Iterator[None]:
    """Turns the checks off inside, as for a traced function, which cannot look at values."""
    with kept_checks():
        Distribution.set_default_validate_args(False)
        yield
