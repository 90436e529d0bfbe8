"""The decorator for commands: checks, exit codes, and an end with the parent process.

Hydra imports this module at start, so it does not import torch.
"""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from threading import Thread
from time import sleep
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from vaelab.commands import arguments, completion
from vaelab.commands.command_lines import current_command, program_words, typed_arguments
from vaelab.commands.config_folders import CONF
from vaelab.commands.error_messages import user_message
from vaelab.commands.help_text import usage
from vaelab.commands.streams import exit_on_broken_pipe, has_broken_pipe

TRACEBACK = "HYDRA_FULL_ERROR"
OURS = "VAELAB_SHORT_ERROR"
PARENT = "VAELAB_PARENT"
"""Variable with the id of the parent process; when the parent ends, this process stops."""


def task(
    config_name: str, schema: Callable[..., Any] | None = None, lists: Sequence[str] = ()
) -> Callable[[Callable[[DictConfig], Any]], Callable[[], None]]:
    """Returns a decorator that makes commands, which change sys.argv and os.environ, and may exit.

    It decorates a function of the composed configuration. The command reads sys.argv, rewrites
    it with quotes, and sets HYDRA_FULL_ERROR and VAELAB_SHORT_ERROR in the environment. It
    checks the settings and runs the function by Hydra. An error that the user can mend is one
    line on stderr and exit code 2. SIGTERM exits with 143 and SIGINT with 130, after a
    checkpoint; a broken pipe exits with 141. With HYDRA_FULL_ERROR=1 errors have tracebacks.

    Args:
        config_name: The file in conf/.
        schema: A function whose keywords are the top-level settings, with their types.
        lists: Settings whose values are lists, given with commas between them.
    """

    def check(cfg: DictConfig) -> None:
        """Raises UserError if the settings do not fit the schema, if there is one."""
        if schema:
            from vaelab.runs import validation  # slow: imports what the configuration names

            validation.check_config(cfg, schema)

    def decorate(function: Callable[[DictConfig], Any]) -> Callable[[], None]:
        """Returns the command that runs a function of the composed configuration."""

        @exit_on_broken_pipe()
        def command() -> None:
            """Runs the command by sys.argv; rewrites that, sets variables and may exit."""
            terminate_with_parent()
            typed_arguments[:], current_command[:] = sys.argv[1:], [config_name]
            asked = os.environ.get(TRACEBACK) == "1" and OURS not in os.environ
            # Without it Hydra exits with its own message. OURS tells child processes that the
            # user did not ask for tracebacks.
            os.environ |= {TRACEBACK: "1"} | ({} if asked else {OURS: "1"})

            def report(error: Exception) -> NoReturn:
                """Prints a message (first process) and exits with 2, or raises the error again."""
                from vaelab.runs.screen import printable  # brings rich

                message = user_message(error, config_name)
                if asked or message is None:
                    raise error
                if os.environ.get("LOCAL_RANK", "0") == "0":
                    print(f"error: {printable(message)}", file=sys.stderr)
                sys.exit(2)

            def job(cfg: DictConfig) -> Any:
                """Checks settings and runs the function; on error deletes an empty run folder.

                Called by Hydra with the configuration. Errors then go to `report`.
                """
                try:
                    check(cfg)
                    return function(cfg)
                except Exception as error:  # before Hydra prints its own message
                    remove_empty_run_folder()
                    if has_broken_pipe(error):  # Hydra prints a line for errors, but not for exits
                        raise SystemExit(141) from error
                    return report(error)

            job.check = check  # type: ignore[attr-defined]
            run = hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)
            try:
                flags, others = arguments.split_flags(sys.argv[1:])
                overrides = [arguments.quote_argument(word, lists) for word in others]
                if {"-sc", "--shell-completion"} & set(flags):
                    print(completion.shell_completion(others, CONF, config_name, lists))
                    return
                arguments.check_overrides(overrides, bool({"-m", "--multirun"} & set(flags)), CONF)
                sys.argv[1:] = [*flags, *overrides]
                if {"-h", "--help"} & set(flags):
                    kept = [o for o in overrides if not arguments.is_swept(o)]
                    folders = [*arguments.config_dirs(flags), CONF]
                    told = usage(function, folders, config_name, kept)
                    print(told.replace(f"python {config_name}.py", " ".join(program_words())))
                else:
                    run(wraps(function)(job))()
            except SystemExit as error:  # Lightning's SIGTERMException is one, without a code
                interrupted = isinstance(error.__context__, KeyboardInterrupt)
                stopped = type(error).__name__ == "SIGTERMException" and not error.code
                sys.exit(130 if interrupted else 143 if stopped else error.code)
            except KeyboardInterrupt:
                sys.exit(130)
            except Exception as error:
                report(error)

        return command

    return decorate


def remove_empty_run_folder() -> None:
    """Deletes the run folder that Hydra made if it holds only an empty log file."""
    hydra_cfg = HydraConfig.get()
    folder = Path(hydra_cfg.runtime.output_dir)
    log = folder / f"{hydra_cfg.job.name}.log"
    if [*folder.iterdir()] == [log] and not log.stat().st_size:
        log.unlink()
        folder.rmdir()


def terminate_with_parent() -> None:
    """Starts a thread that sends this process SIGTERM when its parent ends; only in sweeps.

    A sweep sets VAELAB_PARENT for its jobs; without it nothing happens. SIGTERM ends a training
    after a checkpoint.
    """
    given = os.environ.get(PARENT)
    if given is None:
        return
    beside = "LOCAL_RANK" in os.environ  # started by the first process of the job
    parent = os.getppid() if beside else int(given)

    def watch() -> None:
        """Polls the parent's id twice a second; sends this process SIGTERM when it changes."""
        while os.getppid() == parent:
            sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)

    Thread(target=watch, daemon=True).start()


def as_list(value: Any) -> list[Any]:
    """Returns a setting that is one text, one integer, or a list of them, as a list."""
    return [value] if isinstance(value, (str, int)) else list(value)
