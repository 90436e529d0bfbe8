"""The `vaelab` command: `vaelab train model=beta_vae`, as `python train.py` in a checkout."""

import os
import sys
from importlib import import_module

from vaelab.commands import command_lines, stopping
from vaelab.commands.streams import exit_on_broken_pipe

COMMANDS = {
    "train": "fit one model, or with -m a sweep of them",
    "evaluate": "measure finished runs on their test images",
    "generate": "draw pictures of finished runs",
    "encode": "write latents and scores of images, a row for each",
    "export": "write a finished run as files for others",
    "reproduce": "make published figures, and compare",
    "report": "one page, figures and tables of a sweep",
}
CHOSEN = "VAELAB_COMMAND"
"""Variable with the command's name, for the processes that Lightning starts on other devices."""


@exit_on_broken_pipe()
def main() -> None:
    """Runs the command that sys.argv[1] names, and removes it there; exits with 2 if unknown.

    Sets VAELAB_COMMAND. Without a name, or with --help, prints the usage.
    """
    name, *others = sys.argv[1:] or [""]
    if name in COMMANDS:
        os.environ[CHOSEN] = name
        sys.argv[1:] = others
    elif "LOCAL_RANK" in os.environ and CHOSEN in os.environ:
        name = os.environ[CHOSEN]
    else:
        asked = name in ("", "-h", "--help")
        lines = [f"  {command:10}{purpose}" for command, purpose in COMMANDS.items()]
        usage = "\n".join(
            ["vaelab COMMAND name=value ...", "", *lines, "", "--help of each has more"]
        )
        if not asked:
            print(f"error: {name}: there is no such command\n\n{usage}", file=sys.stderr)
            sys.exit(2)
        print(usage)
        return
    run(name)


def run(name: str) -> None:
    """Runs a command by sys.argv; a signal during its imports already ends it with one line."""
    command_lines.typed_arguments[:], command_lines.current_command[:] = sys.argv[1:], [name]
    with stopping.ending_on_signals():
        import_module(f"vaelab.commands.{name}").main()
