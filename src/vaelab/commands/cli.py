"""What surrounds a Hydra task: its check, short errors and exit codes.

Hydra imports this at start, so it stays free of torch.
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
from vaelab.commands.help_text import offered, usage
from vaelab.errors import UserError, causes, first_line, nearest
from vaelab.runs import naming

CONF = Path(__file__).parents[1] / "conf"
if not CONF.exists():  # in a checkout it is beside src
    CONF = Path(__file__).parents[3] / "conf"
TRACEBACK = "HYDRA_FULL_ERROR"
OURS = "VAELAB_SHORT_ERROR"
PARENT = "VAELAB_PARENT"
"""The process that started this one, to be its end as well."""
OmegaConf.register_new_resolver("run_name", naming.run_name, replace=True)
OmegaConf.register_new_resolver("sweep_name", naming.sweep_name, replace=True)
typed: list[str] = []  # the arguments of the command
current = ["train"]  # its name


def task(
    config_name: str, settings: Callable[..., Any] | None = None, lists: Sequence[str] = ()
) -> Callable[[Callable[[DictConfig], Any]], Callable[[], None]]:
    """Makes a function of the composed configuration a command.

    What the user can mend is one line and exit code 2; SIGTERM is 143, and SIGINT 130, after a
    checkpoint. HYDRA_FULL_ERROR=1 asks for tracebacks.

    Args:
        config_name: The file in conf/.
        settings: A function whose keywords are the top-level settings, for the check.
        lists: Settings given with commas between them, whatever is in a path or a name.
    """

    def check(cfg: DictConfig) -> None:
        if settings:
            from vaelab.runs import validation  # slow: imports what the configuration names

            validation.check(cfg, settings)

    def decorate(function: Callable[[DictConfig], Any]) -> Callable[[], None]:
        def command() -> None:
            watch_parent()
            typed[:], current[:] = sys.argv[1:], [config_name]
            asked = os.environ.get(TRACEBACK) == "1" and OURS not in os.environ
            # Or Hydra would end the process in its own words; a process of this one's knows.
            os.environ |= {TRACEBACK: "1"} | ({} if asked else {OURS: "1"})

            def report(error: Exception) -> NoReturn:
                message = explain(error, config_name)
                if asked or message is None:
                    raise error
                if os.environ.get("LOCAL_RANK", "0") == "0":
                    print(f"error: {message}", file=sys.stderr)
                sys.exit(2)

            def job(cfg: DictConfig) -> Any:
                try:
                    check(cfg)
                    return function(cfg)
                except Exception as error:  # here, before Hydra says that there was one
                    leave_nothing()
                    return report(error)

            job.check = check  # type: ignore[attr-defined]
            run = hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)
            try:
                flags, others = arguments.parted(sys.argv[1:])
                overrides = [arguments.quoted(word, lists) for word in others]
                if {"-sc", "--shell-completion"} & set(flags):
                    print(completion.answer(others, CONF, config_name, lists))
                    return
                arguments.check(overrides, bool({"-m", "--multirun"} & set(flags)), CONF)
                sys.argv[1:] = [*flags, *overrides]
                if {"-h", "--help"} & set(flags):
                    kept = [o for o in overrides if not arguments.is_swept(o)]
                    folders = [*arguments.folders(flags), CONF]
                    told = usage(function, folders, config_name, kept)
                    print(told.replace(f"python {config_name}.py", " ".join(program())))
                else:
                    run(wraps(function)(job))()
                sys.stdout.flush()
            except SystemExit as error:  # Lightning's SIGTERMException is one, without a code
                interrupted = isinstance(error.__context__, KeyboardInterrupt)
                stopped = type(error).__name__ == "SIGTERMException" and not error.code
                sys.exit(130 if interrupted else 143 if stopped else error.code)
            except KeyboardInterrupt:
                sys.exit(130)
            except BrokenPipeError:  # whoever read the output has seen enough
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                sys.exit(141)
            except Exception as error:
                report(error)

        return command

    return decorate


def leave_nothing() -> None:
    """Removes the folder that Hydra made for a run, if there is but an empty log in it."""
    hydra_cfg = HydraConfig.get()
    folder = Path(hydra_cfg.runtime.output_dir)
    log = folder / f"{hydra_cfg.job.name}.log"
    if [*folder.iterdir()] == [log] and not log.stat().st_size:
        log.unlink()
        folder.rmdir()


def watch_parent() -> None:
    """Stops this process, after a checkpoint, if the one that started it for a sweep is gone."""
    given = os.environ.get(PARENT)
    if given is None:
        return
    beside = "LOCAL_RANK" in os.environ  # started by the first process of the job
    parent = os.getppid() if beside else int(given)

    def watch() -> None:
        while os.getppid() == parent:
            sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)

    Thread(target=watch, daemon=True).start()


def given(key: str, value: Any) -> str:
    """`key=value` as the user can paste it into a shell, whatever is in the value."""
    return shlex.quote(f"{key}={naming.value(str(value))}")


def names(value: Any) -> list[Any]:
    """A setting that may be one name, or number, or a list of them, as a list."""
    return [value] if isinstance(value, (str, int)) else list(value)


def command() -> str:
    """The command line, as the user may type it again."""
    return shlex.join([*program(), *typed])


def program(name: str | None = None) -> list[str]:
    """The words that start a command, by default this one, in the way that this was started."""
    script = Path(sys.argv[0])
    name = name or current[0]
    if script.suffix != ".py" or script.name == "__main__.py":
        return ["vaelab", name]
    return ["python", script.name if name == current[0] else f"{name}.py"]


def process() -> list[str]:
    """The words that start another process of this command, from any folder."""
    script = Path(sys.argv[0])
    if script.suffix != ".py" or script.name == "__main__.py":
        return [sys.executable, "-m", "vaelab", current[0]]
    return [sys.executable, str(script.resolve())]


def config_folders(hydra_cfg: Any) -> list[str]:
    """The flags of the command line that name further folders of configurations."""
    sources = hydra_cfg.runtime.config_sources
    folders = [s.path for s in sources if s.provider == "command-line"]
    return [part for path in folders for part in ("--config-dir", path)]


def explain(error: BaseException, config_name: str) -> str | None:
    """One line about what the user can mend, or None for a fault of the program."""
    for cause in causes(error):
        if isinstance(cause, UserError):
            return str(cause)
        if room := lack_of_room(cause):
            return room
    if isinstance(error, MissingConfigException):
        return unknown_choice(error)
    if isinstance(error, ConfigCompositionException):
        return unknown_key(error, config_name)
    if isinstance(error, InstantiationException):
        innermost = list(causes(error))[-1]
        key = re.search(r"full_key: (\S+)", str(error))
        return f"{key[1] if key else 'configuration'}: {first_line(innermost)}"
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        return first_line(error)
    if isinstance(error, (ValueError, RuntimeError)) or named(error, "MisconfigurationException"):
        frames = traceback.extract_tb(error.__traceback__)
        if frames and "lightning" in Path(frames[-1].filename).parts:
            return f"trainer: {first_line(error)}"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return None


def named(error: BaseException, name: str) -> bool:
    """Whether an error is of a class of that name, of a package that is not imported here."""
    return name in (kind.__name__ for kind in type(error).__mro__)


def lack_of_room(error: BaseException) -> str | None:
    """One line about memory that could not be had, or None for another error."""
    text = str(error)
    if not (
        isinstance(error, MemoryError)
        or named(error, "OutOfMemoryError")
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


def unknown_choice(error: MissingConfigException) -> str:
    """`model=foo` where conf/model has no foo.yaml."""
    group, _, choice = (error.missing_cfg_file or "").rpartition("/")
    options = [o for o in error.options or [] if not o.startswith("_")]  # which are beginnings
    if not group or not options:
        return first_line(error)
    return f"{group}={choice}: there is no such {group}; possible are {', '.join(sorted(options))}"


def unknown_key(error: ConfigCompositionException, config_name: str) -> str:
    """`model.betta=4` or `modle=vae`, with the nearest name that there is."""
    if already := re.search(r"already at '([^']+)'|Multiple values for ([^.]+)\.", str(error)):
        return f"+{already[1] or already[2]}: is in the configuration; without the + it is set"
    wrong = missing_key(error)
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
                return wording(wrong, cfg, config_name)
            except HydraException as further:  # another one is wrong too
                if lines.pop(missing_key(further), None) is None:
                    return f"{wrong}: there is no such setting"


def missing_key(error: HydraException) -> str:
    """The setting that Hydra did not find, or nothing if the error is about something else."""
    found = re.search(r"Could not (?:override|delete from config\.) '([^']+)'", str(error))
    return found[1].partition("@")[0] if found else ""


def below(node: Any, path: str = "") -> Iterator[str]:
    """The dotted names of all settings in a part of a configuration."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from below(value, f"{path}.{key}" if path else str(key))
    else:
        yield path


def wording(wrong: str, cfg: DictConfig, config_name: str) -> str:
    """What there is, in a configuration, that has a name like a wrong one."""
    if wrong in cfg:  # Hydra takes away what has a value
        return f"~{wrong}: there is nothing to take away; {wrong} is null"
    every = below(OmegaConf.to_container(cfg))
    if deeper := sorted(path for path in every if path.endswith(f".{wrong}")):
        return f"{wrong}: there is no such setting; did you mean {deeper[0]}?"
    parent, _, name = wrong.rpartition(".")
    if not parent:
        groups = [group for group, _ in offered([CONF], config_name)]
        return f"{wrong}: there is no such setting; {nearest(wrong, [*cfg, *groups])}"
    beside = OmegaConf.select(cfg, parent)
    if not isinstance(beside, DictConfig):
        return f"{wrong}: there is no such setting, and no {parent}"
    known = {str(key) for key in beside if not str(key).startswith("_")}
    if "_target_" in beside:
        from hydra.utils import get_object

        from vaelab.runs import validation  # slow: what the target would take

        known |= validation.offered(get_object(beside["_target_"]))
    if name in known:
        return f"{wrong}: is not in the configuration yet; add it with +{wrong}=..."
    return f"{wrong}: there is no such setting; {nearest(name, known, f'{parent}.')}"
