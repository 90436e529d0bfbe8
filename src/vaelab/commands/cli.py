"""The decorator for commands: checks, exit codes, and an end with the parent process.

Hydra imports this module at start, so it does not import torch.
"""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from functools import wraps
from pathlib import Path
from threading import Thread
from time import sleep
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from vaelab.commands import arguments, completion, earlier_settings, stopping
from vaelab.commands.command_lines import current_command, program_words, typed_arguments
from vaelab.commands.config_folders import CONF
from vaelab.commands.error_messages import is_lost_connection, user_message
from vaelab.commands.help_text import usage
from vaelab.commands.streams import exit_on_broken_pipe, has_broken_pipe
from vaelab.runs.folder import COMPOSED
from vaelab.training.stop_signals import block_in_thread

Node = dict[str, Any]
"""Type of a setting that is instantiated: a node with a `_target_`."""

TRACEBACK = "HYDRA_FULL_ERROR"
OURS = "VAELAB_SHORT_ERROR"
PARENT = "VAELAB_PARENT"
"""Variable with the id of the parent process; when the parent ends, this process stops."""


def task(
    config_name: str,
    schema: Callable[..., Any] | None = None,
    lists: Sequence[str] = (),
    ends_on_signals: bool = False,
    rewrite: Callable[[Sequence[str]], list[str]] = list,
) -> Callable[[Callable[[DictConfig], Any]], Callable[[], None]]:
    """Returns a decorator that makes commands, which change sys.argv and os.environ, and may exit.

    It decorates a function of the composed configuration. The command reads sys.argv, rewrites
    it with quotes, and sets HYDRA_FULL_ERROR and VAELAB_SHORT_ERROR in the environment. It
    checks the settings and runs the function by Hydra. An error that the user can mend is one
    line on stderr and exit code 2. A broken pipe exits with 141. With HYDRA_FULL_ERROR=1 errors
    have tracebacks.

    Args:
        config_name: The file in conf/.
        schema: A function whose keywords are the top-level settings, with their types.
        lists: Settings whose values are lists, given with commas between them.
        ends_on_signals: Whether SIGTERM and SIGHUP end it with 143 and Ctrl-C with 130, each after
            a line that says how to go on. Otherwise the function handles them.
        rewrite: Returns the words of the command line as settings, where they may be shorter.
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
            stopping.end_with_first_process()
            typed_arguments[:], current_command[:] = sys.argv[1:], [config_name]
            sys.argv[1:] = rewrite(sys.argv[1:])
            asked = os.environ.get(TRACEBACK) == "1" and OURS not in os.environ
            # Without it Hydra exits with its own message. OURS tells child processes that the
            # user did not ask for tracebacks.
            os.environ |= {TRACEBACK: "1"} | ({} if asked else {OURS: "1"})

            def report(error: Exception) -> NoReturn:
                """Prints a message and exits with 2, or raises the error again.

                Deletes the folders that the run has made, if they are empty. Another process than
                the first waits, for the first mostly has the same message.
                """
                from vaelab.runs.screen import printable  # brings rich

                remove_new_paths()
                if is_lost_connection(error):
                    stopping.await_loss()
                message = user_message(error, config_name)
                if asked or message is None:
                    raise error
                if not stopping.is_first_process():
                    sleep(2)  # meanwhile the first process ends this one
                    message = f"process {stopping.process_rank()}: {message}"
                print(f"error: {printable(message)}", file=sys.stderr)
                sys.exit(2)

            def job(cfg: DictConfig) -> Any:
                """Checks settings and runs the function; errors go to `report`.

                Called by Hydra with the configuration.
                """
                with stopping.watch.watching() if ends_on_signals else nullcontext():
                    try:
                        check(cfg)
                        return function(cfg)
                    except Exception as error:  # before Hydra prints its own message
                        if has_broken_pipe(error):  # Hydra prints a line for errors, not for exits
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
                folders = [*arguments.config_dirs(flags), CONF]
                sweeping = bool({"-m", "--multirun"} & set(flags))
                is_training = config_name == "train"
                if is_training:
                    overrides = earlier_settings.expand_from(overrides, folders)
                else:
                    arguments.refuse_words_of_training(overrides, sweeping)
                arguments.check_overrides(overrides, sweeping, folders, is_training)
                sys.argv[1:] = [*flags, *overrides]
                if {"-h", "--help"} & set(flags):
                    kept = [o for o in overrides if not arguments.is_swept(o)]
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


class MissingPaths(Callback):
    """Hydra callback that notes what is missing of a run folder before Hydra makes it.

    conf/train.yaml names it, under `hydra.callbacks`.
    """

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Called by Hydra before it makes the folder: sets `missing_paths`, and `HydraConfig`."""
        HydraConfig.instance().set_config(config)  # as Hydra does next; the folder may name it
        folder = Path(config.hydra.run.dir).absolute()
        files = (folder / f"{config.hydra.job.name}.log", folder / COMPOSED.parent)
        paths = (*files, folder, *folder.parents)
        missing_paths[:] = [path for path in paths if not os.path.exists(path)]


missing_paths: list[Path] = []
"""Log and folders that were not there when Hydra started the run, inner ones first."""


def remove_new_paths() -> None:
    """Deletes the log and the folders that this run has made, if they are empty."""
    for path in missing_paths:
        with suppress(OSError):  # it is not there, or something is in it
            if path.is_dir():
                path.rmdir()
            elif not path.stat().st_size:
                path.unlink()


def terminate_with_parent() -> None:
    """Starts a thread that sends this process SIGTERM when its parent ends; only in sweeps.

    A sweep sets VAELAB_PARENT for its jobs; without it nothing happens, nor in another process than
    the first of a job. SIGTERM ends a training after a checkpoint.
    """
    if PARENT not in os.environ or not stopping.is_first_process():
        return
    parent = int(os.environ[PARENT])

    def watch() -> None:
        """Polls the parent's id twice a second; sends this process SIGTERM when it changes."""
        block_in_thread()
        while os.getppid() == parent:
            sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)

    Thread(target=watch, daemon=True).start()


def as_list(value: Any) -> list[Any]:
    """Returns a setting that is one text, one integer, or a list of them, as a list."""
    return [value] if isinstance(value, (str, int)) else list(value)
