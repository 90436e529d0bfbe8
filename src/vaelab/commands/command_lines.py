"""This process's command line, and words of commands to print or to start.

Does not import torch.
"""

import os
import shlex
import sys
from pathlib import Path
from typing import Any

from vaelab.runs import naming

OUTER = "VAELAB_OUTER_COMMAND"
"""Variable with the command line to go on with, where another command started this one."""

typed_arguments: list[str] = []  # the arguments of the command
current_command = ["train"]  # its name


def shell_override(key: str, value: Any) -> str:
    """Returns `key=value`, quoted for Hydra and the shell, to be pasted into a shell."""
    return shlex.quote(f"{key}={naming.quote_if_needed(str(value))}")


def typed_command() -> str:
    """Returns this process's command line as one text, quoted for the shell."""
    return shlex.join([*program_words(), *typed_arguments])


def outer_command() -> str | None:
    """Returns the command line of the `reproduce` that started this training; None without one."""
    return os.environ.get(OUTER)


def program_words(name: str | None = None) -> list[str]:
    """Returns the words to show for starting a command (default: this one), as it was started.

    A script in another folder than the working one is shown with its path.
    """
    script = Path(sys.argv[0])
    name = name or current_command[0]
    if script.suffix != ".py" or script.name == "__main__.py":
        return ["vaelab", name]
    shown = script if name == current_command[0] else script.with_name(f"{name}.py")
    is_here = script.absolute().parent == Path.cwd()
    return ["python", shown.name if is_here else str(shown)]


def process_argv() -> list[str]:
    """Returns the first words of argv that start this command as a process, from any folder."""
    script = Path(sys.argv[0])
    if script.suffix != ".py" or script.name == "__main__.py":
        return [sys.executable, "-m", "vaelab", current_command[0]]
    return [sys.executable, str(script.resolve())]
