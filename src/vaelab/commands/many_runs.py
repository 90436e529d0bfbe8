"""What fails of one of several runs is kept until a command is done with the others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vaelab.commands.error_messages import user_message
from vaelab.commands.streams import has_broken_pipe
from vaelab.errors import UserError, first_line


class Failures:
    """The failures of a command's runs, by folder. Of a single run nothing is kept: it raises.

    Args:
        task: The command, for its messages.
        count: The number of its runs.
    """

    def __init__(self, task: str, count: int) -> None:
        self.task, self.count = task, count
        self.messages: dict[Path, str] = {}
        self.fault: Exception | None = None

    @contextmanager
    def of(self, folder: Path) -> Iterator[None]:
        """Context manager: keeps the error of a run, unless nobody reads the output any more."""
        try:
            yield
        except Exception as error:
            if self.count == 1 or has_broken_pipe(error):
                raise
            message = user_message(error, self.task)
            if message is None:  # a fault of the program
                self.fault = self.fault or error
                message = f"{type(error).__name__}: {first_line(error)}"
            self.messages[folder] = message

    def raise_kept(self) -> None:
        """Raises UserError with a line for each failure, or a fault of the program with these."""
        said = "\n".join(f"{run}: {text}" for run, text in self.messages.items())
        if self.fault:
            self.fault.add_note(said)
            raise self.fault
        if said:
            raise UserError(said)
