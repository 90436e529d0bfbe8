"""The decorator for commands, their error messages and exit codes, and command lines to print.

Hydra imports this module at start, so it does not import torch.
"""

import os
import re
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from pathlib import Path
from threading import Thread
from time import sleep
from typing import Any, NoReturn

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    InstantiationException,
    MissingConfigException,
)
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vaelab.commands import arguments, completion
from vaelab.commands.help_text import default_groups, usage
from vaelab.errors import UserError, exception_chain, first_line, spelling_hint
from vaelab.runs import naming

CONF = Path(__file__).parents[1] / "conf"
if not CONF.exists():  # in a checkout it is beside src
    CONF = Path(__file__).parents[3] / "conf"
TRACEBACK = "HYDRA_FULL_ERROR"
OURS = "VAELAB_SHORT_ERROR"
PARENT = "VAELAB_PARENT"
"""Variable with the id of the parent process; when the parent ends, this process stops."""
OmegaConf.register_new_resolver("run_name", naming.run_name, replace=True)
OmegaConf.register_new_resolver("sweep_name", naming.sweep_name, replace=True)
typed_arguments: list[str] = []  # the arguments of the command
current_command = ["train"]  # its name


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
                message = user_message(error, config_name)
                if asked or message is None:
                    raise error
                if os.environ.get("LOCAL_RANK", "0") == "0":
                    print(f"error: {message}", file=sys.stderr)
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
                sys.stdout.flush()
            except SystemExit as error:  # Lightning's SIGTERMException is one, without a code
                interrupted = isinstance(error.__context__, KeyboardInterrupt)
                stopped = type(error).__name__ == "SIGTERMException" and not error.code
                sys.exit(130 if interrupted else 143 if stopped else error.code)
            except KeyboardInterrupt:
                sys.exit(130)
            except BrokenPipeError:  # the reader of the output, such as `head`, has closed it
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                sys.exit(141)
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


def shell_override(key: str, value: Any) -> str:
    """Returns `key=value`, quoted for Hydra and the shell, to be pasted into a shell."""
    return shlex.quote(f"{key}={naming.quote_if_needed(str(value))}")


def as_list(value: Any) -> list[Any]:
    """Returns a setting that is one text, one integer, or a list of them, as a list."""
    return [value] if isinstance(value, (str, int)) else list(value)


def typed_command() -> str:
    """Returns this process's command line as one text, quoted for the shell."""
    return shlex.join([*program_words(), *typed_arguments])


def program_words(name: str | None = None) -> list[str]:
    """Returns the words to show for starting a command (default: this one), as it was started."""
    script = Path(sys.argv[0])
    name = name or current_command[0]
    if script.suffix != ".py" or script.name == "__main__.py":
        return ["vaelab", name]
    return ["python", script.name if name == current_command[0] else f"{name}.py"]


def process_argv() -> list[str]:
    """Returns the first words of argv that start this command as a process, from any folder."""
    script = Path(sys.argv[0])
    if script.suffix != ".py" or script.name == "__main__.py":
        return [sys.executable, "-m", "vaelab", current_command[0]]
    return [sys.executable, str(script.resolve())]


def config_dir_flags(hydra_cfg: Any) -> list[str]:
    """Returns `--config-dir PATH` for each extra folder given on the command line."""
    sources = hydra_cfg.runtime.config_sources
    folders = [s.path for s in sources if s.provider == "command-line"]
    return [part for path in folders for part in ("--config-dir", path)]


def user_message(error: BaseException, config_name: str) -> str | None:
    """Returns the message for an error that the user can mend; None for a program fault."""
    for cause in exception_chain(error):
        if isinstance(cause, UserError):
            return str(cause)
        if room := out_of_memory_message(cause):
            return room
    if isinstance(error, MissingConfigException):
        return unknown_choice_message(error)
    if isinstance(error, ConfigCompositionException):
        return unknown_setting_message(error, config_name)
    if isinstance(error, InstantiationException):
        innermost = list(exception_chain(error))[-1]
        key = re.search(r"full_key: (\S+)", str(error))
        return f"{key[1] if key else 'configuration'}: {first_line(innermost)}"
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        return first_line(error)
    if isinstance(error, (ValueError, RuntimeError)) or is_error_named(
        error, "MisconfigurationException"
    ):
        frames = traceback.extract_tb(error.__traceback__)
        if frames and "lightning" in Path(frames[-1].filename).parts:
            return f"trainer: {first_line(error)}"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return None


def is_error_named(error: BaseException, name: str) -> bool:
    """Returns whether an error's class or a base of it has this name, without importing it."""
    return name in (kind.__name__ for kind in type(error).__mro__)


def out_of_memory_message(error: BaseException) -> str | None:
    """Returns one line about memory that ran out, or None for any other error."""
    text = str(error)
    if not (
        isinstance(error, MemoryError)
        or is_error_named(error, "OutOfMemoryError")
        or "can't allocate memory" in text
    ):
        return None
    asked = re.search(r"allocate ([\d.]+) (bytes|[KMGT]iB)", text)
    size = f" for {float(asked[1]) / 2**30:.3g} GiB" if asked and asked[2] == "bytes" else ""
    size = size or (f" for {asked[1]} {asked[2]}" if asked else "")
    return (
        f"out of memory: there was no room{size}; a smaller data.batch_size, model.num_samples or "
        "network takes less"
    )


def unknown_choice_message(error: MissingConfigException) -> str:
    """Returns the message for `model=foo` without a foo.yaml in conf/model, with the choices.

    Without choices, or a group, returns the first line of Hydra's own message.
    """
    group, _, choice = (error.missing_cfg_file or "").rpartition("/")
    options = [o for o in error.options or [] if not o.startswith("_")]  # bases of others
    if not group or not options:
        return first_line(error)
    return f"{group}={choice}: there is no such {group}; possible are {', '.join(sorted(options))}"


def unknown_setting_message(error: ConfigCompositionException, config_name: str) -> str:
    """Returns the message for a setting in sys.argv that is unknown, or added but there already.

    Names a similar setting. Composes the configuration without the unknown settings, to know
    which names there are. Any other error gives the first line of Hydra's own message.
    """
    if already := re.search(r"already at '([^']+)'|Multiple values for ([^.]+)\.", str(error)):
        return f"+{already[1] or already[2]}: is in the configuration; without the + it is set"
    wrong = missing_setting(error)
    if not wrong:
        return first_line(error)
    overrides = [o for o in sys.argv[1:] if re.match(r"[+~\w]", o) and "=" in o]
    parsed = OverridesParser.create().parse_overrides(overrides)
    lines = {o.key_or_group: o.input_line or "" for o in parsed if not o.is_sweep_override()}
    lines.pop(wrong, None)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        while True:
            try:
                cfg = compose(config_name, list(lines.values()), return_hydra_config=True)
                return unknown_setting_hint(wrong, cfg, config_name)
            except HydraException as further:  # another setting is unknown too
                if lines.pop(missing_setting(further), None) is None:
                    return f"{wrong}: there is no such setting"


def missing_setting(error: HydraException) -> str:
    """Returns the setting that Hydra's error says does not exist; empty for other errors."""
    found = re.search(r"Could not (?:override|delete from config\.) '([^']+)'", str(error))
    return found[1].partition("@")[0] if found else ""


def setting_paths(node: Any, path: str = "") -> Iterator[str]:
    """Yields the dotted names of all leaf settings in nested dictionaries."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from setting_paths(value, f"{path}.{key}" if path else str(key))
    else:
        yield path


def unknown_setting_hint(wrong: str, cfg: DictConfig, config_name: str) -> str:
    """Returns the message for an unknown setting, with what to type instead; imports its target.

    That is a setting of a similar name, or `+` for one that is accepted but not given. The target
    is the `_target_` beside the setting, and is imported to know which parameters it accepts.
    """
    if wrong in cfg:  # Hydra deletes only settings that have a value
        return f"~{wrong}: there is nothing to take away; {wrong} is null"
    every = setting_paths(OmegaConf.to_container(cfg))
    if deeper := sorted(path for path in every if path.endswith(f".{wrong}")):
        return f"{wrong}: there is no such setting; did you mean {deeper[0]}?"
    parent, _, name = wrong.rpartition(".")
    if not parent:
        groups = [group for group, _ in default_groups([CONF], config_name)]
        return f"{wrong}: there is no such setting; {spelling_hint(wrong, [*cfg, *groups])}"
    beside = OmegaConf.select(cfg, parent)
    if not isinstance(beside, DictConfig):
        return f"{wrong}: there is no such setting, and no {parent}"
    known = {str(key) for key in beside if not str(key).startswith("_")}
    if "_target_" in beside:
        from hydra.utils import get_object

        from vaelab.runs import validation  # slow: what the target would take

        known |= validation.optional_settings(get_object(beside["_target_"]))
    if name in known:
        return f"{wrong}: is not in the configuration yet; add it with +{wrong}=..."
    return f"{wrong}: there is no such setting; {spelling_hint(name, known, f'{parent}.')}"
