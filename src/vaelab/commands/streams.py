"""Standard output and error that are closed, or a pipe that nobody reads, such as `| head -1`."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO, cast

from vaelab.errors import exception_chain


@contextmanager
def exit_on_broken_pipe() -> Iterator[None]:
    """Context manager for a command: exits with 141, and without a word, if its output has no end.

    That is so if the reader of a pipe has gone, or if stdout was closed before the start; the
    command stops where it prints next. An error that a closed stderr cannot show keeps its code.
    Points stdout and stderr at the null device when it exits.
    """
    open_closed_streams()
    shown, logging.raiseExceptions = logging.raiseExceptions, False  # no traceback for a log line
    try:
        yield
        sys.stdout.flush()
    except BaseException as error:
        if not has_broken_pipe(error):
            if isinstance(error, SystemExit) and not can_flush():
                silence()  # else Python would complain at its end, and change the exit code
            raise
        silence()
        raise SystemExit(141) from None
    finally:
        logging.raiseExceptions = shown


def open_closed_streams() -> None:
    """Replaces a closed stdout by a pipe without a reader, and a closed stderr by the null device.

    Python sets them to None then, and the next file that is opened would get their number.
    """
    if sys.stdin is None:
        sys.stdin = as_number(0, os.open(os.devnull, os.O_RDONLY), "r")
    if sys.stdout is None:
        reading, writing = os.pipe()
        os.close(reading)
        sys.stdout = as_number(1, writing, "w")
    if sys.stderr is None:
        sys.stderr = as_number(2, os.open(os.devnull, os.O_WRONLY), "w")


def as_number(number: int, opened: int, mode: str) -> TextIO:
    """Moves an open file to a number, which was free, and returns it as a stream."""
    if opened != number:
        os.dup2(opened, number)
        os.close(opened)
    return cast(TextIO, open(number, mode))


def has_broken_pipe(error: BaseException) -> bool:
    """Returns whether an exception comes of a broken pipe; rich raises SystemExit for one."""
    return any(isinstance(cause, BrokenPipeError) for cause in exception_chain(error))


def can_flush() -> bool:
    """Writes what stdout holds; returns whether somebody could read it."""
    try:
        sys.stdout.flush()
    except OSError:
        return False
    return True


def silence() -> None:
    """Points stdout and stderr at the null device, so that what they still hold is dropped."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # not of the system, as in tests
            os.dup2(null, stream.fileno())
