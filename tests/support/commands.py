"""Commands run in the process of the tests."""

import sys

import pytest


def run_command(command, *arguments):
    """Runs a command, given by its module, with arguments as its command line."""
    with pytest.MonkeyPatch.context() as patch:
        name = command.__name__.rpartition(".")[2]
        patch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        for variable in ("HYDRA_FULL_ERROR", "VAELAB_SHORT_ERROR"):
            patch.delenv(variable, raising=False)
        command.main()
