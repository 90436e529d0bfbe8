"""Exceptions for the user, shown on one line without a traceback, and helpers for messages.

They are caught in `vaelab.commands.cli`.
"""

from collections.abc import Iterable, Iterator
from difflib import get_close_matches


class UserError(Exception):
    """An error that the user can fix; the message says what was asked and what is possible."""


class NotApplicable(UserError):  # noqa: N818
    """An error raised where a metric or density is undefined for this model or these data."""


class NotFiniteError(UserError):
    """An error raised when the loss or a term, but for a point's infinite rate, is not finite."""


class DamagedFileError(UserError):
    """An error raised for a file that was written by vaelab and is no longer what was written."""


class WriteError(UserError):
    """An error raised when a file or folder cannot be written, as on a full or read-only disk."""


def spelling_hint(name: str, known: Iterable[str], parent: str = "") -> str:
    """A hint for a misspelt name: its most similar known name, else all, or that there are none.

    Args:
        name: The misspelt name.
        known: The names that exist.
        parent: A prefix for each name in the hint, such as `model.`.
    """
    names = sorted(set(known))
    if not names:
        return "there are none"
    close = get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean {parent}{close[0]}?"
    return f"possible are {', '.join(parent + each for each in names)}"


def exception_chain(error: BaseException) -> Iterator[BaseException]:
    """Yields the exception, then its cause (or else its context), and so on to the first one."""
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or current.__context__


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, or the name of its class if that is empty."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
