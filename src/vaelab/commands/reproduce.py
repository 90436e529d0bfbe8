"""Published figures by one command each: python reproduce.py tomczak2018/vae --short."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from vaelab.commands import arguments, cli, command_lines
from vaelab.commands.config_folders import CONF, config_dir_flags
from vaelab.errors import UserError
from vaelab.runs import naming

PROTOCOLS = CONF / "reproduce"
OWN = ("name", "short", "to", "kept", "settings")
"""The settings of this command."""
FOLDERS = ("to", "kept")
"""Those of them that are folders, which may have any letters in their names."""


def settings_schema(
    *, name: str | None, short: bool, to: str, kept: str, settings: list[str]
) -> None:
    """Declares the settings of `reproduce` and their types, for validation; is never called."""


def named_words(words: Sequence[str]) -> list[str]:
    """Returns the words as settings: `burda2016 --short` is `name=burda2016 short=true`.

    What is no setting of this command is one of `train`, and goes into `settings`.
    """
    found, others, names = [], [], []
    left = list(words)
    while left:
        word = left.pop(0)
        key = word.partition("=")[0]
        if word == "--short":
            found.append("short=true")
        elif arguments.FLAGS.get(word):
            found += [word, *(left.pop(0) for _ in range(arguments.FLAGS[word]) if left)]
        elif "=" not in word and not word.startswith("-"):
            names.append(word)
        elif key in FOLDERS:
            found.append(quote_folder(word))
        elif word.startswith("-") or key in OWN or key.startswith("hydra."):
            found.append(word)
        else:
            others.append(naming.quote(word))
    if names:
        found.insert(0, f"name={naming.quote_if_needed(' '.join(names))}")
    return [*found, f"settings=[{','.join(others)}]"] if others else found


def quote_folder(word: str) -> str:
    """Returns `to=out,2` as `to='out,2'`: Hydra would take it for several values.

    A value that is quoted already, or need not be, stays; `${` still interpolates.
    """
    key, _, value = word.partition("=")
    if not value or value[0] in "'\"" or naming.quote_if_needed(value) == value:
        return word
    return f"{key}={naming.quote_raw(value)}"


@cli.task("reproduce", settings_schema, rewrite=named_words)
def main(cfg: DictConfig) -> None:
    """Trains and measures the runs of a protocol, keeps their records and prints the comparison.

    Runs that are finished are not made again, and one that was interrupted goes on. Exits with 1 if
    a figure is not reached, and with the code of a run that failed. Without a name it lists the
    protocols. `seed=5` takes the place of the protocol's seeds.

    Raises:
        UserError: If there is no such run, several names are given, a further setting cannot be
            read, or a record of the protocol's own settings would be replaced by one with others.
    """
    # Imported here, so that --help and --cfg answer without these slow imports.
    from vaelab import reproductions
    from vaelab.reproductions.protocol import chosen_runs, split_name
    from vaelab.runs.screen import printable, shell_path

    if cfg.name is None:
        reproductions.print_protocols(Path(cfg.kept), PROTOCOLS)
        return
    if len(words := cfg.name.split()) > 1:
        raise UserError(
            f"{', '.join(words)}: several names; give one to each command, and settings as "
            "name=value"
        )
    name, one = split_name(cfg.name)
    protocol = reproductions.read_protocol(PROTOCOLS, name)
    form: reproductions.Form = "short" if cfg.short else "full"
    seeds = protocol.repetitions(cfg.short, cfg.settings)
    flags = config_dir_flags(HydraConfig.get())
    confs = [*arguments.config_dirs(flags), CONF]
    further = [arguments.quote_argument(word, ()) for word in cfg.settings]
    arguments.check_overrides(further, sweeping=False, folders=confs, can_sweep=False)
    runs = chosen_runs(protocol, name, one)
    print(f"{protocol.paper}\n{protocol.about}\n{runs_text(name, runs, cfg.short)}")
    for line in reproductions.unknown_metrics(protocol):
        print(f"warning: {printable(line)}", file=sys.stderr)
    for run in runs:
        reproductions.check_replaceable(Path(cfg.kept), name, run, form, cfg.settings)
    for run in runs:
        folders = {seed: Path(cfg.to) / name / form / f"{run}_seed-{seed}" for seed in seeds}
        for seed, folder in folders.items():
            train([*flags, *protocol.overrides(run, cfg.short, cfg.settings, seed)], folder)
        short = ["--short"] * cfg.short
        command = shlex.join(
            ["vaelab", "reproduce", f"{name}/{run}", *short, *flags, *cfg.settings]
        )
        settings = protocol.overrides(run, cfg.short, cfg.settings)
        origin = reproductions.Origin(command, settings, [*cfg.settings])
        kept = reproductions.keep_run(Path(cfg.kept), name, run, form, origin, folders)
        print(f"record  {shell_path(kept)}")
    rows = reproductions.compare_protocol(Path(cfg.kept), name, protocol, form, runs)
    for line in reproductions.damaged_records(Path(cfg.kept), PROTOCOLS, [name]):
        print(printable(line), file=sys.stderr)
    if rows:
        reproductions.print_table(rows)
    else:
        print(reproductions.nothing_text(name, protocol, form, runs))
    if not all(row.is_reached for row in rows):
        raise SystemExit(1)


def runs_text(name: str, runs: Sequence[str], is_short: bool) -> str:
    """Returns a line on which runs are made, and how to make fewer or shorter ones."""
    if len(runs) == 1:
        return f"run {runs[0]}" + ("" if is_short else "; --short makes its short form")
    fewer = f"; {name}/{runs[0]} makes one" + ("" if is_short else ", and --short the short form")
    return f"{len(runs)} runs: {', '.join(runs)}{fewer}"


def train(overrides: Sequence[str], folder: Path) -> None:
    """Trains and measures one run as a process of `vaelab train`; exits with its code if it fails.

    While it runs, SIGTERM is passed on to it, and Ctrl-C, which it gets from the
    terminal, is ignored here: it writes its checkpoint and ends.
    """
    words = [*overrides, f"hydra.run.dir={naming.quote_if_needed(str(folder))}"]
    print(f"\n{shlex.join(['vaelab', 'train', *words])}", flush=True)
    argv = [sys.executable, "-m", "vaelab", "train", *words]
    own = {cli.PARENT: str(os.getpid()), command_lines.OUTER: command_lines.typed_command()}
    child = subprocess.Popen(argv, env=os.environ | own)
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, lambda *_: None),
        signal.SIGTERM: signal.signal(signal.SIGTERM, lambda *_: child.terminate()),
    }
    try:
        code = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if code:
        raise SystemExit(128 - code if code < 0 else code)
