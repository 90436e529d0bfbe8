"""Everything on one GPU, in ten minutes at most: python benchmarks/on_gpu.

Sections in order of importance, each a process of its own with a limit of time: the tests marked
`gpu`, training against hand-written loops, the evaluation's log evidence against the decoder's
products, a sweep of jobs that share the GPU, and models trained together. Tables go to
`results/gpu.md`, and unrounded to `gpu.json` beside it, as each figure is measured: a stop at any
moment keeps those. A section that fails or runs out of time is marked so, and the next one starts.

MNIST and CIFAR-10 are used where VAELAB_DATA has them, else as much noise; nothing is downloaded.
`--device cpu --dry` goes the same way in tiny sizes; its results are printed, and go to a
temporary folder.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from time import monotonic, sleep
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SECTIONS = {  # scripts in order of importance: the title, and at most how many seconds
    "gpu_tests": ("Tests", 120),
    "speed": ("Training", 240),
    "log_evidence": ("Log evidence", 40),
    "sweep": ("A sweep on one GPU", 80),
    "stacked": ("Models trained together", 60),
}
SHORTEST = 10
"""Seconds that must be left for a section to be started."""
DRY_SECONDS = 500


@dataclass
class Section:
    """What became of a section: its rows by table and first cell, notes, and how it ended."""

    title: str
    tables: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    status: str = "not started"
    seconds: float = 0.0

    def read(self, file: Path) -> bool:
        """Takes over what the section has told so far, see `rows`; returns whether it is more."""
        with suppress(FileNotFoundError):
            told = file.read_text()
            lines = told[: told.rfind("\n") + 1].splitlines()
            before = self.tables, self.notes
            self.tables, self.notes = {}, []
            for line in map(json.loads, lines):
                if "note" in line:
                    self.notes.append(line["note"])
                else:
                    rows = self.tables.setdefault(line["table"], {})
                    rows[str(next(iter(line["cells"].values())))] = line["cells"]
            return before != (self.tables, self.notes)
        return False

    def markdown(self) -> Iterator[str]:
        """Yields its paragraphs; a table has the columns of all its rows."""
        from tables import markdown

        yield f"## {self.title}"
        for name, rows in self.tables.items():
            columns = list(dict.fromkeys(column for row in rows.values() for column in row))
            cells = [[as_text(row.get(column, "")) for column in columns] for row in rows.values()]
            yield from filter(None, (name, markdown(columns, cells)))
        if self.notes:
            yield "\n".join(f"- {note}" for note in self.notes)
        yield f"{self.status[:1].upper()}{self.status[1:]}, {self.seconds:.0f} s."


class Report:
    """The results so far, in `gpu.md` and `gpu.json` of a folder.

    Args:
        folder: The folder; created if it is missing.
        command: What was typed.
        machine: What it ran on, a name and a value a line.
    """

    def __init__(self, folder: Path, command: str, machine: dict[str, Any]) -> None:
        self.folder, self.command, self.machine = folder, command, machine
        self.sections: dict[str, Section] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def text(self) -> str:
        """Returns the results as Markdown."""
        machine = "; ".join(f"{name} {value}" for name, value in self.machine.items())
        parts = ["# Everything on a GPU", f"    {self.command}", f"{machine}; {date.today()}."]
        for section in self.sections.values():
            parts += section.markdown()
        return "\n\n".join(parts) + "\n"

    def write(self) -> None:
        """Writes both files; a stop on the way leaves the earlier ones."""
        sections = {name: asdict(section) for name, section in self.sections.items()}
        found = {"command": self.command, "machine": self.machine, "sections": sections}
        for name, text in (("gpu.json", json.dumps(found, indent=1)), ("gpu.md", self.text())):
            partial = self.folder / f".{name}.partial"
            partial.write_text(text)
            partial.replace(self.folder / name)


def as_text(value: Any) -> str:
    """Returns a cell of a table: three digits of a fraction, whole numbers with commas."""
    if isinstance(value, float) and abs(value) < 1000:
        return f"{value:.3g}"
    return f"{value:,.0f}" if isinstance(value, int | float) else str(value)


def start(name: str, options: argparse.Namespace, folder: Path) -> subprocess.Popen[bytes]:
    """Starts the script of a section in a session of its own; rows and output go to the folder."""
    folder.mkdir()
    settings = {"device": options.device, "dry": options.dry, "rows": str(folder / "rows")}
    path = [HERE.parent, HERE.parent / "contenders", ROOT / "src", os.environ.get("PYTHONPATH")]
    changed = {
        "ON_GPU": json.dumps({**settings, "folder": str(folder)}),
        "PYTHONPATH": os.pathsep.join(str(part) for part in path if part),
        # New, or a compilation that a section measures is read from an earlier one's files.
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "compiled"),
        "VAELAB_DATA": str(Path(os.environ.get("VAELAB_DATA", "data")).absolute()),
    }
    if options.dry:  # torch.compile compiles nothing
        changed["TORCHDYNAMO_DISABLE"] = "1"
    with (folder / "output").open("wb") as output:
        return subprocess.Popen(
            [sys.executable, str(HERE / f"{name}.py")],
            cwd=ROOT,
            env=os.environ | changed,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends what is left of a section and of what it started: by a signal, then by another."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(5)


def last_words(output: Path) -> str:
    """Returns the last line of an output that names an error, or else the last one."""
    lines = re.split(r"[\r\n]+", output.read_text(errors="replace"))
    lines = [line.strip() for line in lines if line.strip()]
    errors = [line for line in lines if re.match(r"(\w+\.)*\w*(Error|Exception)\b|error: ", line)]
    return (errors or lines or [""])[-1][:500]


def run(name: str, limit: float, report: Report, options: argparse.Namespace, folder: Path) -> None:
    """Runs a section to its end or limit, and writes what it tells as it comes.

    Ends all its processes in any case, also if this one is stopped.
    """
    section, began = report.sections[name], monotonic()
    process = start(name, options, folder / name)
    section.status, code = "stopped", None
    try:
        while process.poll() is None and monotonic() - began < limit:
            sleep(0.5)
            section.seconds = monotonic() - began
            if section.read(folder / name / "rows"):
                report.write()
        code = process.poll()
        section.status = {0: "done", None: "out of time"}.get(code, "failed")
    finally:
        end(process)
        section.seconds = monotonic() - began
        section.read(folder / name / "rows")
        if code:
            section.notes.append(f"{name}.py failed: {last_words(folder / name / 'output')}")
        report.write()


def look_at_machine(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Returns what the machine is, by a process of its own; exits if there is no such device."""
    process = start("machine", options, folder / "machine")
    try:
        code = process.wait(120)
    finally:
        end(process)
    section = Section("Machine")
    section.read(folder / "machine" / "rows")
    if code or not section.tables:
        sys.exit(last_words(folder / "machine" / "output"))
    (row,) = section.tables[""].values()
    return row


def parse() -> argparse.Namespace:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("on_gpu", description=__doc__, formatter_class=style)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--dry", action="store_true", help="tiny sizes; the figures mean nothing")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--minutes", type=float, default=9, help="for all sections together")
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="default results/")
    options = parser.parse_args()
    if options.device == "cpu" and not options.dry:
        parser.error("--device cpu goes with --dry")
    if options.dry and options.to and options.to.resolve() == ROOT / "results":
        parser.error("--dry: its figures do not go to results/")
    return options


def main() -> int:
    """Runs the sections; returns 1 if one of them failed or had too little time."""
    options = parse()
    sys.path.insert(0, str(HERE.parent))  # for `tables`
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    deadline = monotonic() + 60 * options.minutes
    command = " ".join(["python benchmarks/on_gpu", *sys.argv[1:]])
    to = options.to or (Path(mkdtemp(prefix="on_gpu_")) if options.dry else ROOT / "results")
    with TemporaryDirectory(ignore_cleanup_errors=True) as name:
        report = Report(to, command, look_at_machine(options, Path(name)))
        for section_name in options.only:
            title, limit = SECTIONS[section_name]
            section = report.sections[section_name] = Section(title)
            left = deadline - monotonic() - SHORTEST  # which ending a section may take
            if left > SHORTEST:
                limit = min(DRY_SECONDS if options.dry else limit, left)
                run(section_name, limit, report, options, Path(name))
            said = f"{title}: {section.status}, {section.seconds:.0f} s"
            print(said, file=sys.stderr, flush=True)
        report.write()
    print(report.text())
    print(f"{to}/gpu.md", file=sys.stderr)
    return any(section.status != "done" for section in report.sections.values())


if __name__ == "__main__":
    sys.exit(main())
