"""What the user can mend: shown on one line, without a traceback (see `vaelab.commands.cli`)."""

from collections.abc import Iterable, Iterator
from difflib import get_close_matches


class UserError(Exception):
    """A request that cannot be met. The message says what was asked and what is possible."""


class NotApplicable(UserError):  # noqa: N818
    """These numbers do not exist for this model or these data."""


class NotFiniteError(UserError):
    """A term of the bound, or the loss, became infinite or not a number."""


def nearest(name: str, known: Iterable[str], parent: str = "") -> str:
    """A hint for a misspelt name: the closest of the known ones, or else all of them.

    Args:
        name: The misspelt one.
        known: Those that there are.
        parent: What is before each of them, such as `model.`.
    """
    names = sorted(set(known))
    if not names:
        return "there are none"
    close = get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean {parent}{close[0]}?"
    return f"possible are {', '.join(parent + each for each in names)}"


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was raised from."""
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or current.__context__


def first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
