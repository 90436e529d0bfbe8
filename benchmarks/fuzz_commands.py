"""Random command lines of all six commands: each does what was asked, or is refused in one line.

    python benchmarks/fuzz_commands.py --lines 2000 --seed 1

The lines are made of the real groups, settings and values of conf/, right, wrong and hostile. Each
runs in a fork of this process, on a few small images, with trainings cut to one short epoch and the
jobs of sweeps not started, within a limit of time and of memory. A line has failed if it

- ends in a traceback, a signal, another exit code than 0 and 2, or without an `error:` line,
- takes longer than the limit,
- is refused and leaves a file or folder,
- trains with another value than the one that was given.

A table of the ends follows, and every line that failed.
"""

import argparse
import faulthandler
import json
import math
import os
import re
import resource
import shlex
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, reduce
from importlib import import_module
from operator import getitem
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from lightning import Trainer
from omegaconf import OmegaConf
from tables import show

from vaelab.commands.config_folders import CONF
from vaelab.commands.error_messages import setting_paths
from vaelab.commands.help_text import default_groups
from vaelab.evaluation import classifier
from vaelab.runs import naming
from vaelab.sweeps.engines.local import Local

SECONDS = 90.0
"""Limit of one line, whose slowest right ones take ten seconds on one core."""
ROOM = 4 * 2**30
"""Bytes that a line may take beside what this process has mapped: more is out of memory."""
COMMANDS = ("train", "train -m", "evaluate", "generate", "encode", "export", "report")
SHARES = (14, 2, 2, 2, 2, 1, 1)
PRELOADED = (
    *(f"vaelab.commands.{name}" for name in sorted({c.split()[0] for c in COMMANDS})),
    *("vaelab.commands.preflight", "vaelab.commands.results", "vaelab.commands.introduction"),
    *(
        "vaelab.models",
        "vaelab.evaluation",
        "vaelab.report",
        "vaelab.export.writer",
        "vaelab.sweeps",
    ),
    *("torch.utils.tensorboard", "matplotlib.pyplot", "pandas", "plotly.graph_objects", "optuna"),
    *("sklearn.mixture", "sklearn.ensemble", "torchvision.datasets", "zuko", "torch._dynamo"),
)

TARGETS = (
    *("abc", "os", "vaelab.models", "vaelab.models.VAE", "vaelab.models.VAE.objective", "torch"),
    *("builtins.dict", "builtins.print", "torch.optim.SGD", "torch.nn.Linear", "a..b", ".", "3"),
    *("null", "[1]", "true", "lightning.pytorch.callbacks.EarlyStopping", "vaelab.version.VERSION"),
)
HOSTILE = (
    *("null", "-0", "0", "-1", "2", "0.5", "1e400", "-inf", "inf", "nan", "1e-320", "1e30", "1.0"),
    *("1000000000", "10000000000000", "99999999999999999999999", "-99999999999999999999999"),
    *(
        "true",
        "false",
        "abc",
        "a/b",
        "../up",
        "/proc/nowhere",
        "/dev/null",
        "é",
        "雪",
        "none",
        "default",
    ),
    *(
        "",
        "''",
        "' '",
        "'quoted'",
        "'it\\'s'",
        '"open',
        "a b",
        "a=b",
        "a,b",
        "1,2",
        "a\nb",
        "~",
        "???",
    ),
    *(
        "[]",
        "[1,2]",
        "[null]",
        "[a,b]",
        "[[1],[2]]",
        "[",
        "]",
        "{}",
        "{a:1}",
        "{a:{b:[c]}}",
        "[{a:1}]",
    ),
    *("{_partial_:true}", "{_target_:os.getcwd}", "{_target_:abc}", "{_target_:builtins.dict}"),
    *("{_target_:builtins.dict,_args_:[1]}", "{_target_:vaelab.models.VAE}", "{1:2}", "{null:1}"),
    *(
        "${seed}",
        "${nowhere}",
        "${model}",
        "${oc.env:NOWHERE}",
        "${oc.env:HOME}",
        "\\${seed}",
        "${",
        "$",
    ),
    *(
        "${oc.create:{a:1}}",
        "${hydra:runtime.cwd}",
        "${now:%Y}",
        "range(1,3)",
        "choice(1,2)",
        "int(3)",
    ),
    *("glob(*)", "interval(0,1)", "1_000", "0x10", "5.", ".5", "+1", "--", "@", ":", "%", "\\"),
)
UNDERSCORED = ("_target_", "_partial_", "_args_", "_recursive_", "_convert_", "_foo_")
OF_HYDRA = (
    *(
        "hydra.verbose",
        "hydra.job.chdir",
        "hydra.job.name",
        "hydra.sweep.dir",
    ),
    *(
        "hydra.mode",
        "hydra.sweep.subdir",
        "hydra.launcher.n_jobs",
        "hydra.sweeper.params",
        "hydra.run.dir",
    ),
    *("hydra/launcher", "hydra/sweeper", "hydra/job_logging", "hydra.launcher", "hydra.sweeper"),
)


@dataclass
class Line:
    """A command line.

    Attributes:
        command: One of `COMMANDS`.
        words: The overrides, the last one of a setting counts.
        asked: Values by setting, where an override says plainly what its setting should be.
    """

    command: str
    words: list[str]
    asked: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return shlex.join([*self.command.split(), *self.words])


@dataclass
class End:
    """How a command line ended: its kind, whether that is a failure, and what was on stderr."""

    kind: str
    failed: bool
    said: str = ""


# Lines.


@cache
def choices(command: str) -> dict[str, list[str]]:
    """Returns the choices of each group of a command but Hydra's, by the group's name."""
    groups = dict(default_groups([CONF], command))
    return {g: c for g, c in groups.items() if not g.startswith("hydra") and g != "experiment"}


@cache
def known_settings(command: str, choice: str) -> dict[str, Any]:
    """Returns the default values of a command's settings, and None for each node, by dotted name.

    Args:
        command: The name of its file in conf/.
        choice: An override that chooses a group, or an empty text.
    """
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(command, [choice] if choice else [])
    plain = OmegaConf.to_container(cfg)
    found: dict[str, Any] = {}
    for path in setting_paths(plain):
        parents = path.split(".")
        found |= {".".join(parents[:i]): None for i in range(1, len(parents))}
        value = reduce(getitem, parents, plain)
        found[path] = None if value == "???" or "${" in str(value) else value
    return found


def as_text(value: Any) -> str:
    """Returns a value as the command line writes it."""
    if isinstance(value, str):
        return naming.quote_if_needed(value) if value else "''"
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(as_text, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{k}:{as_text(v)}' for k, v in value.items())}}}"
    return json.dumps(value)


def near(value: Any) -> st.SearchStrategy[Any]:
    """Values of the type of a setting's default, which may be right."""
    if isinstance(value, bool):
        return st.booleans()
    if isinstance(value, int):
        return st.integers(1, 9) | st.just(value)
    if isinstance(value, float):
        return st.floats(0, 2, width=32).map(lambda x: float(f"{x:.3g}")) | st.just(value)
    if isinstance(value, list):
        return st.lists(st.sampled_from([1, 2, 8, 0.5, "a"]), max_size=3) | st.just(value)
    return st.just(value) | st.sampled_from([1, 0.5, "auto", "mean", True, [2], None])


@st.composite
def overrides(draw: Callable[..., Any], command: str, choice: str) -> tuple[str, str, Any]:
    """An override as (word, setting, value); the setting is empty where the value is not plain."""
    groups = choices(command)
    names = known_settings(command, choice)
    kind = draw(st.sampled_from("rrrrrhhhhhggutdp" if groups else "rrrrhhhhud"))
    sign = draw(st.sampled_from(["", "", "", "", "", "+", "++"]))
    key = draw(st.sampled_from(sorted(names)))
    if kind == "r":  # perhaps right
        value = draw(near(names[key]))
        return f"{sign}{key}={as_text(value)}", key, value
    if kind == "h":
        text = draw(
            st.sampled_from(HOSTILE)
            | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=6)
        )
        return f"{sign}{key}={text}", "", None
    if kind == "g":
        group = draw(st.sampled_from(sorted(groups)))
        known = [*groups[group], "none", "null"]
        text = draw(st.sampled_from(known) | st.sampled_from(HOSTILE))
        at = draw(st.sampled_from(["", "", "", "@foo", "@_global_"]))
        return f"{sign}{group}{at}={text}", "", None
    if kind == "u":  # names with underscores, which Hydra reads
        nodes = sorted(n for n, v in names.items() if v is None)
        node = draw(st.sampled_from(nodes))
        name = draw(st.sampled_from(UNDERSCORED))
        text = draw(st.sampled_from(TARGETS if name == "_target_" else HOSTILE))
        return f"{draw(st.sampled_from(['', '++', '+']))}{node}.{name}={text}", "", None
    if kind == "t":  # a name that is not there
        name = draw(
            st.sampled_from(["x", "lr", "Beta", "beta ", "0", "_", "weight_decay", "foo.bar", ""])
        )
        text = draw(st.sampled_from(HOSTILE))
        return f"{sign}{key}.{name}={text}", "", None
    if kind == "p":
        name = draw(st.sampled_from(OF_HYDRA))
        return f"{sign}{name}={draw(st.sampled_from(HOSTILE))}", "", None
    end = draw(st.sampled_from(["", "", "=", "=1", "=vae"]))
    return f"~{draw(st.sampled_from([key, *groups]))}{end}", "", None


@st.composite
def lines(draw: Callable[..., Any]) -> Line:
    """Command lines of one to four overrides, which mostly fit one choice of a group."""
    weighted = [c for c, share in zip(COMMANDS, SHARES, strict=True) for _ in range(share)]
    command = draw(st.sampled_from(weighted))
    name = command.split()[0]
    every = [f"{group}={one}" for group, some in choices(name).items() for one in some]
    choice = draw(st.sampled_from([*[""] * (1 + len(every) // 3), *every]))
    made = draw(st.lists(overrides(name, choice), min_size=1, max_size=4 - bool(choice)))
    words = [choice] if choice else []
    asked = {}
    touched = [re.split(r"[=@]", word.lstrip("+~"))[0] for word, _, _ in made]
    for i, (word, key, value) in enumerate(made):
        words.append(word)
        others = [t.replace("/", ".") for j, t in enumerate(touched) if j != i]
        if key and not any(is_inside(key, o) or is_inside(o, key) for o in others):
            asked[key] = value
    if name == "evaluate" and draw(st.booleans()):
        words.append("what=[latents,reconstruction]")
    if command == "train -m":
        words.append(
            draw(st.sampled_from(["seed=1,2", "model=vae,ae", "model.latent_dim=1,x", "seed=-1,1"]))
        )
    return Line(command, words, asked)


def is_inside(inner: str, outer: str) -> bool:
    """Returns whether a dotted name is another one, or below it."""
    return inner == outer or inner.startswith(f"{outer}.")


# Runs.


class World:
    """A folder with small images and finished runs, in which lines are run by forks.

    Args:
        folder: An empty folder; the caller deletes it.
        seconds: Limit of one line.
    """

    def __init__(self, folder: Path, seconds: float = SECONDS) -> None:
        self.folder, self.seconds, self.count = folder, seconds, 0
        os.environ |= dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
        os.environ.pop("VAELAB_DATA", None)
        for name in PRELOADED:
            import_module(name)
        draws = np.random.default_rng(0)
        arrays = {
            f"{part}_{name}": values
            for part, n in (("train", 60), ("test", 12))
            for name, values in (
                ("images", draws.integers(256, size=(n, 32, 32), dtype=np.uint8)),
                ("labels", np.arange(n) % 3),
            )
        }
        (folder / "data").mkdir()
        np.savez(folder / "data" / "tiny.npz", **arrays)
        small = ["model.encoder.hidden=[8]", "model.decoder.hidden=[8]", "model.latent_dim=3"]
        for name in ("vae", "cvae"):
            self.prepare(f"sweep/{name}", f"model={name}", *small)

    def prepare(self, name: str, *words: str) -> None:
        """Trains a run into `folder/name`, and its classifier; raises RuntimeError if it fails."""
        given = [*self.data_words(), *words, f"hydra.run.dir={self.folder}/{name}"]
        given += ["network=mlp", "likelihood=bernoulli", "evaluate=[samples]"]
        code, said = self.run_fork("train", given, self.folder)
        if code != 0:
            raise RuntimeError(said)

    def data_words(self) -> list[str]:
        """Returns the overrides that choose the small images."""
        return [
            "data=arrays",
            f"data.source.path={self.folder}/data/tiny.npz",
            f"paths.data={self.folder}/data",
        ]

    def end_of(self, line: Line) -> End:
        """Runs a line in a folder of its own, which is deleted then, and judges its end."""
        self.count += 1
        here = self.folder / f"line{self.count}"
        here.mkdir()
        name, *flags = line.command.split()
        words = [*flags, *self.standing_words(name, line.words, here), *line.words]
        before = files(here)
        began = time.monotonic()
        code, said = self.run_fork(name, words, here)
        took = time.monotonic() - began
        try:
            return judge(line, code, said, files(here) - before, here, took)
        finally:
            shutil.rmtree(here, ignore_errors=True)

    def standing_words(self, name: str, words: Sequence[str], here: Path) -> list[str]:
        """Returns the overrides before those of the line; copies the runs that it is about."""
        if name == "train":
            own = any(word.lstrip("+~").startswith("data=") for word in words)
            data = self.data_words()[2:] if own else self.data_words()
            return [*data, "hydra.run.dir=new/run", "hydra.sweep.dir=new/sweep"]
        shutil.copytree(self.folder / "sweep", here / "sweep")
        if name == "report":
            return ["sweep=sweep"]
        return [f"run=sweep/{'cvae' if self.count % 2 else 'vae'}"]

    def run_fork(self, name: str, words: Sequence[str], here: Path) -> tuple[int | None, str]:
        """Runs a command in a fork, in the folder `here`; returns its exit code and stderr.

        The code is None if it took longer than the limit; stderr then ends with the stack.
        """
        errors = self.folder / "stderr"
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            run_command(name, words, here, errors)
        until = time.monotonic() + self.seconds
        while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0 and time.monotonic() < until:
            time.sleep(0.005)
        code = os.waitstatus_to_exitcode(ended[1]) if ended[0] else None
        if code is None:
            os.kill(pid, signal.SIGUSR1)  # prints the stack
            time.sleep(0.5)
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        return code, errors.read_text(errors="replace")


def run_command(name: str, words: Sequence[str], here: Path, errors: Path) -> None:
    """Runs a command in this process, which is a fork, and ends it; never returns."""
    code = 1
    try:
        os.setsid()
        os.chdir(here)
        out = os.open("/dev/null", os.O_WRONLY)
        err = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(err, 2)
        faulthandler.register(signal.SIGUSR1, file=2)
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + ROOM, mapped + ROOM))
        torch.set_num_threads(1)
        shorten_trainings()
        sys.argv = [f"{name}.py", *words]
        import_module(f"vaelab.commands.{name}").main()
        code = 0
    except SystemExit as end:
        code = 0 if end.code is None else end.code if isinstance(end.code, int) else 1
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code & 255)


def shorten_trainings() -> None:
    """Shortens `Trainer.fit` and a classifier's training; a job of a sweep ends at its start."""
    fit = Trainer.fit

    def fit_briefly(trainer: Trainer, *args: Any, **options: Any) -> None:
        """Fits one epoch of 40 batches at most."""
        trainer.fit_loop.max_epochs, trainer.fit_loop.epoch_loop.max_steps = 1, 40
        trainer.limit_val_batches = trainer.limit_test_batches = 2
        fit(trainer, *args, **options)

    class Ended:
        """The handle of a job that has ended well."""

        where = "nowhere"

        def poll(self) -> int:
            return 0

        stop = kill = poll

    classifier.STEPS = 5
    Trainer.fit = fit_briefly  # type: ignore[method-assign]
    Local.start = lambda *_: Ended()  # type: ignore[method-assign,assignment,return-value]


# Judgements.


def files(folder: Path) -> set[str]:
    """Returns the paths of all files and folders below a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def judge(line: Line, code: int | None, said: str, made: set[str], here: Path, took: float) -> End:
    """Returns how a line ended.

    Args:
        line: The line.
        code: Its exit code; None if it was killed at the limit.
        said: Its stderr.
        made: The files and folders that are new.
        here: Its working folder.
        took: Seconds.
    """
    if code is None:
        return End("hang", True, said[-1500:])
    if "Traceback (most recent call last)" in said:
        return End(f"traceback: {fault(said)}", True, said[-1500:])
    if code not in (0, 2):
        return End(f"exit code {code}", True, said[-1500:])
    if code == 2:
        mistakes = [text for text in said.splitlines() if text.startswith("error: ")]
        if len(mistakes) != 1 or not mistakes[0].removeprefix("error: ").strip():
            return End("refused without its one line", True, said[-1500:])
        if made and not any(path.endswith("failure.json") for path in made):  # a loss of NaN
            return End(
                f"refused, but left files ({line.command})",
                True,
                f"{sorted(made)[:4]} {mistakes[0]}",
            )
        return End("refused in one line", False, mistakes[0])
    if line.command == "train" and (other := next(other_values(line, here), "")):
        return End("trained with another value", True, other)
    return End("did what was asked", False)


def fault(said: str) -> str:
    """Returns the exception of the last traceback in a text, and the function that it came from."""
    last = said[said.rindex("Traceback (most recent call last)") :]
    frames = re.findall(
        r'File ".*?/((?:vaelab|hydra|omegaconf|lightning|torch)/[^"]*)", line \d+, in (\S+)', last
    )
    ours = [
        f"{file.rpartition('/')[2]}:{name}" for file, name in frames if file.startswith("vaelab/")
    ]
    ours = [name for name in ours if name not in ("cli.py:command", "cli.py:job", "cli.py:report")]
    raised = [
        text
        for text in last.splitlines()[1:]
        if re.match(r"[\w.]+(Error|Exception|Interrupt)?\b(:|$)", text)
    ]
    kind = re.split(r"[:\s]", raised[-1])[0].rpartition(".")[2] if raised else "?"
    return f"{kind} in {ours[-1] if ours else frames[-1][0] if frames else '?'}"


def other_values(line: Line, here: Path) -> Iterator[str]:
    """Yields settings whose value in the run's configuration is not the one that was given."""
    for path in here.rglob(".hydra/config.yaml"):
        cfg = OmegaConf.load(path)
        for name, value in line.asked.items():
            if not is_equal(found := OmegaConf.select(cfg, name), value):
                yield f"{name}={value!r} was given, and it is {found!r}"


def is_equal(found: Any, value: Any) -> bool:
    """Returns whether two values are the same, and of the same type."""
    found = OmegaConf.to_container(found) if OmegaConf.is_config(found) else found
    both_nan = (
        isinstance(value, float)
        and isinstance(found, float)
        and math.isnan(value)
        and math.isnan(found)
    )
    return both_nan or (type(found) is type(value) and found == value)


def fuzz(world: World, count: int, number: int | None) -> list[tuple[Line, End]]:
    """Runs so many different lines and returns their ends; without a seed the same ones each time.

    Hypothesis repeats itself: a line that was there is left out, and so are those beyond `count`.
    """
    ends: list[tuple[Line, End]] = []
    seen: set[str] = set()
    began = time.monotonic()

    @settings(
        max_examples=10 * count,
        derandomize=number is None,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(lines())
    def run(line: Line) -> None:
        """Runs a line, unless it is known or there are enough, and keeps its end."""
        if str(line) in seen or len(ends) == count:
            return
        seen.add(str(line))
        ends.append((line, world.end_of(line)))
        if ends[-1][1].failed:
            print(f"{ends[-1][1].kind}: {line}", file=sys.stderr, flush=True)
        if len(ends) % 50 == 0:
            print(
                f"{len(ends)} lines, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True
            )

    (run if number is None else seed(number)(run))()
    return ends


def main() -> None:
    """Fuzzes the commands as the command line says, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lines", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--derandomize", action="store_true", help="the same lines each time")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="limit of one line")
    parser.add_argument("--failures", type=Path, help="file for the lines that failed, as JSON")
    parser.add_argument("--line", nargs=argparse.REMAINDER, help="run only this: train model=vae")
    parser.add_argument("--markdown", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), args.seconds)
        if args.line:
            command = " ".join(args.line[: 2 if args.line[1:2] == ["-m"] else 1])
            line = Line(command, args.line[len(command.split()) :])
            ends = [(line, world.end_of(line))]
        else:
            ends = fuzz(world, args.lines, None if args.derandomize else args.seed)
    kinds = Counter(end.kind for _, end in ends)
    bad = [(line, end) for line, end in ends if end.failed]
    for line, end in bad if args.line or len(bad) <= 10 else []:
        print(f"{line}\n{end.said}\n")
    if args.failures:
        found = [{"line": str(line), "kind": end.kind, "said": end.said} for line, end in bad]
        args.failures.write_text("\n".join(map(json.dumps, found)))
    if args.line:
        print(ends[0][1].said)
    rows = [[kind, str(number)] for kind, number in kinds.most_common()]
    title = (
        f"{len(ends)} command lines, {len(bad)} failed, of {len({e.kind for _, e in bad})} kinds"
    )
    show(title, ["end", "lines"], rows, "", args.markdown)
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
